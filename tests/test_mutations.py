"""Every seeded bug in the kernels turns a check red, and the kernels as they are turn none."""

import pytest

from ketcore.cuda import table
from tests import mutations, nvrtc
from tests.cusim import source_text
from tests.require import require
from tests.run_sanitized import outcomes, require_mode

# One worker of pytest-xdist runs the bugs, for all tests of this file.
pytestmark = pytest.mark.xdist_group("mutations")
CAUGHT = [(bug, mode) for bug in mutations.BUGS for mode in bug.caught]


@pytest.mark.parametrize(("bug", "mode"), CAUGHT, ids=[f"{mode}: {bug.name}" for bug, mode in CAUGHT])
def test_bug_is_caught(bug, mode):
    require_mode(mode)
    found = outcomes("tests.mutations")[mode][bug.name]
    assert found is not None, "the bug went unseen"
    assert bug.caught[mode] in found


def test_every_kernel_has_a_bug():
    named = {bug.name.split(":")[0] for bug in mutations.BUGS}
    assert named == {kernel for kernel, _, _ in table.TABLE}


@pytest.mark.parametrize(("name", "source", "edit"), mutations.SPILLS.values(), ids=mutations.SPILLS)
def test_spill_is_caught(name, source, edit):
    require("nvrtc", nvrtc.path(12) is not None, "the wheel nvidia-cuda-nvrtc-cu12 is not installed")
    usages = nvrtc.load(12).compile(source_text(mutations.CUDA, source, [edit]), 90, [name])
    assert not all(usage.clean for usage in usages)
