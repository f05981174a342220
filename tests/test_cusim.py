"""The simulator finds every bug of the table in selftest.py, and nothing in the same kernels without them."""

import numpy as np
import pytest

from tests.cusim import SimLauncher, available, selftest
from tests.require import require
from tests.run_sanitized import outcomes, require_mode

# One worker of pytest-xdist runs the bugs, for all tests of this file.
pytestmark = pytest.mark.xdist_group("cusim")
CAUGHT = [(bug, mode) for bug in selftest.BUGS for mode in bug.caught]


@pytest.fixture
def launch():
    require("cusim", not available(), available())
    return SimLauncher(selftest.HERE, selftest.TABLE, mode="plain")


@pytest.mark.parametrize(("bug", "mode"), CAUGHT, ids=[f"{mode}: {bug.name}" for bug, mode in CAUGHT])
def test_bug_is_caught(bug, mode):
    require_mode(mode)
    found = outcomes("tests.cusim.selftest")[mode][bug.name]
    assert found is not None, "the bug went unseen"
    assert bug.caught[mode] in found


def test_report_names_file_and_line():
    require_mode("tsan")
    assert "selftest.cu:" in outcomes("tests.cusim.selftest")["tsan"]["a sum that is not atomic"]


def test_scalar_of_python_is_refused(launch):
    x, total = np.zeros(64, np.float32), np.zeros(1, np.float32)
    for value, name in ((64, "int"), (64.0, "float")):
        with pytest.raises(TypeError, match=f"argument 2 must be a NumPy scalar, got {name}"):
            launch("selftest", "block_sum", ("float",), 1, 64, (x, total, value), 0)
    with pytest.raises(TypeError, match="argument 2 must be int64, got int32"):
        launch("selftest", "block_sum", ("float",), 1, 64, (x, total, np.int32(64)), 0)
    with pytest.raises(TypeError, match="argument 2 must be int64, got uint64"):
        launch("selftest", "block_sum", ("float",), 1, 64, (x, total, np.uint64(64)), 0)


def test_array_of_another_type_is_refused(launch):
    x, total = np.zeros(64, np.float32), np.zeros(1, np.float64)
    with pytest.raises(TypeError, match="argument 1 must be an array of float32, got float64"):
        launch("selftest", "block_sum", ("float",), 1, 64, (x, total, np.int64(64)), 0)
    with pytest.raises(TypeError, match="argument 1 must be an array of float32, got float"):
        launch("selftest", "block_sum", ("float",), 1, 64, (x, 1.0, np.int64(64)), 0)


def test_read_only_array_is_refused_where_it_is_written(launch):
    x, total = np.zeros(64, np.float32), np.zeros(1, np.float32)
    x.flags.writeable = False
    launch("selftest", "block_sum", ("float",), 1, 64, (x, total, np.int64(64)), 0)
    with pytest.raises(TypeError, match="argument 1 must be writeable, got a read-only array"):
        launch("selftest", "block_sum", ("float",), 1, 64, (total, x, np.int64(1)), 0)


def test_struct_of_another_size_is_refused(launch):
    x, by = np.zeros(64, np.float32), np.zeros((), np.dtype([("factor", np.float64), ("offset", np.int32)]))
    with pytest.raises(TypeError, match="argument 3 must be a struct Scale of 16 bytes, got 12"):
        launch("selftest", "scale", ("float",), 1, 32, (x, x.copy(), np.int64(64), by[()]), 0)


def test_number_of_arguments_is_checked(launch):
    with pytest.raises(TypeError, match="block_sum<float> must have 3 arguments, got 0"):
        launch("selftest", "block_sum", ("float",), 1, 64, (), 0)


def test_instantiation_outside_the_table_is_refused(launch):
    with pytest.raises(KeyError, match=r"block_sum<int> of selftest\.cu is not in the table"):
        launch("selftest", "block_sum", ("int",), 1, 64, (), 0)


@pytest.mark.parametrize(
    ("grid", "block", "shared"), [(0, 64, 0), (1, 0, 0), (1, 1025, 0), (1, 64, 228 << 10)]
)
def test_impossible_launch_is_refused(launch, grid, block, shared):
    x, total = np.zeros(64, np.float32), np.zeros(1, np.float32)
    with pytest.raises(RuntimeError, match=r"the block must|the grid must|shared memory"):
        launch("selftest", "block_sum", ("float",), grid, block, (x, total, np.int64(64)), shared)


def test_launches_are_counted(launch):
    selftest.block_sum(launch)
    selftest.scale(launch)
    assert launch.launches == ["block_sum", "scale"]


def test_error_leaves_the_simulator_usable(launch):
    with pytest.raises(RuntimeError, match="beyond the end of shared memory"):
        selftest.warp_pairs(launch, missing=8)
    selftest.warp_pairs(launch)


def test_edit_must_match_once(launch):
    for old in ("no such text", "__syncthreads();"):
        with pytest.raises(ValueError, match="exactly once"):
            SimLauncher(selftest.HERE, selftest.TABLE, edits=[("selftest.cu", old, "")]).text("selftest")
