"""The CUDA kernels, driven by their host code on the simulator, against a NumPy reference in float64.

Outputs start as NaN.  Any grid is right: properties are checked with the host's grid and with grids of one
and three blocks, in three orders of threads.
"""

from dataclasses import replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from ketcore.cuda.structs import PLAN
from ketcore.lookups import kernel_plan, kernels, segments
from ketcore.lookups.lookup import remade
from tests.cusim import available
from tests.kernel_problems import (
    FLOATS,
    KINDS,
    Launcher,
    check,
    close,
    cotangent_of,
    dtype_of,
    flat,
    flushed,
    launchers,
    lookups,
    make,
    nan_rows,
    reference,
    scattered,
    sum_dtype,
    zero_gradients,
)
from tests.profiles import scaled
from tests.require import require


@pytest.fixture(autouse=True)
def _simulator():
    require("cusim", not available(), available())


@given(lookup=lookups(), launch=launchers, aligned=st.booleans())
@settings(max_examples=scaled(100))
def test_expand(lookup, launch, aligned):
    assert not kernels.obstacle(lookup)
    out = nan_rows(lookup, aligned)
    assert kernels.expand(launch, lookup, out) is out
    assert len(launch.launches) == (lookup.batch > 0)
    close(out, lookup, lambda lookup: reference(lookup)[0], lookup.dtype)


@given(lookup=lookups(), launch=launchers)
@settings(max_examples=scaled(60))
def test_leaf_cotangents(lookup, launch):
    cotangent = cotangent_of(lookup)
    records = kernels.leaf_cotangents(launch, lookup, cotangent)
    close(
        records, lookup, lambda lookup: reference(lookup)[1](cotangent.astype(np.float64)), sum_dtype(lookup)
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_cotangent_wider_than_the_tables_keeps_its_digits(dtype):
    lookup = make((3, 4), (2, 4), 9, dtype=dtype)
    cotangent = np.linspace(1e5, 1e5 + 1, 9 * 8, dtype=np.float32).reshape(9, 8)
    records = kernels.leaf_cotangents(Launcher(), lookup, cotangent)
    np.testing.assert_allclose(
        records, reference(lookup)[1](cotangent.astype(np.float64)), rtol=1e-5, atol=0.1
    )


@given(lookup=lookups(), launch=launchers, deterministic=st.booleans(), sort_above=st.sampled_from((0, 1024)))
@settings(max_examples=scaled(100))
def test_contract(lookup, launch, deterministic, sort_above):
    cotangent, gradients = cotangent_of(lookup), zero_gradients(lookup)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_SORT_ABOVE", sort_above)
        kernels.contract(launch, lookup, cotangent, deterministic, gradients)
    assert len(launch.launches) <= (3 if deterministic else 1)

    def compute(lookup):
        return flat(scattered(lookup, reference(lookup)[1](cotangent.astype(np.float64))))

    close(flat(gradients), lookup, compute, sum_dtype(lookup))


# ---- single cases ----


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("columns", [72, 64, 61])
def test_stores_of_sixteen_bytes(name, aligned, columns):
    """They are used where the output and its rows are aligned, and never else."""
    lookup, launch = make((3, 3), (3, 24), 9, columns=columns, dtype=name), Launcher()
    out = kernels.expand(launch, lookup, nan_rows(lookup, aligned))
    close(out, lookup, lambda lookup: reference(lookup)[0], lookup.dtype)
    assert launch.launches[0][-1][0].view(PLAN)["vector"] == (aligned and columns != 61)


@pytest.mark.parametrize("layernorm", [False, True])
def test_panels(layernorm):
    """A cotangent larger than a panel, with a last panel that is not full."""
    lookup = make((3, 2), (40, 44), 5, columns=1700, layernorm=layernorm, split=1)
    plan = kernel_plan.gather_launch(kernel_plan.geometry(lookup), True, 0, False).plan
    assert 1 < plan["panel_rows"] < 40
    assert 40 % plan["panel_rows"]
    check(lookup)


@pytest.mark.parametrize("kind", KINDS)
def test_tables_longer_than_a_tile(kind):
    index = None
    if kind == "same":
        index = np.repeat([3, 250, 399, 0], (5, 8, 1, 2))
    check(make((400, 390), (3, 12), 16, rank=3, kind=kind, index=index))


@pytest.mark.parametrize("hot", [1, 255, 256, 257, 600])
def test_segments_of_every_length(hot, monkeypatch):
    monkeypatch.setattr(kernels, "_SORT_ABOVE", 0)
    index = np.random.default_rng(0).permutation(np.repeat([0, 4, 5, -1, 9], (3, hot, 40, 2, 300)))
    check(make((9, 9), (3, 2), 0, kind="same", index=index))


@pytest.mark.parametrize("sort_above", [0, 1024])
def test_hot_row_keeps_its_digits(sort_above, monkeypatch):
    """Many float32 contributions of one sign to one row: relative error below 1e-6."""
    monkeypatch.setattr(kernels, "_SORT_ABOVE", sort_above)
    batch = 5_000
    lookup = make((5,), (2,), 0, rank=1, kind="same", split=0, index=np.full(batch, 3))
    cotangent = np.random.default_rng(0).random((batch, 2)).astype(np.float32)
    (gradient,) = zero_gradients(lookup)
    kernels.contract(Launcher(), lookup, cotangent, True, [gradient])
    np.testing.assert_allclose(gradient[0, 3], cotangent.sum(0, dtype=np.float64), rtol=2e-7)
    assert not gradient[0, :3].any()


@pytest.mark.parametrize("sort_above", [0, 1024])
@pytest.mark.parametrize("layernorm", [False, True])
def test_gradients_are_equal_bit_for_bit(sort_above, layernorm, monkeypatch):
    monkeypatch.setattr(kernels, "_SORT_ABOVE", sort_above)
    lookup = make((6, 6, 6), (3, 2, 4), 300, kind="same", layernorm=layernorm, split=1)
    cotangent, found = cotangent_of(lookup), set()
    for grid, order, limit in (
        (None, "forward", 0),
        (None, "reverse", 1 << 17),
        (3, "random", 0),
        (1, "forward", 0),
    ):
        gradients = zero_gradients(lookup)
        kernels.contract(Launcher(grid, order, 1, limit), lookup, cotangent, True, gradients)
        found.add(flat(gradients).tobytes())
    assert len(found) == 1


@pytest.mark.parametrize(
    ("limit", "batch", "staged"), [(1 << 17, 300, True), (1 << 17, 2, False), (0, 300, False)]
)
def test_tables_are_staged_where_that_pays(limit, batch, staged):
    launch = check(make((6, 7), (8, 12), batch, rank=10), Launcher(shared_limit=limit))
    for kernel, *_, args in launch.launches:
        assert args[0].view(PLAN)["staged"] == (staged and kernel in ("expand", "contract"))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bit_storage_round_trips(name):
    """Every number, widened and narrowed again, is itself; NaN stays NaN."""
    every = np.arange(1 << 16).astype(np.uint16).view(dtype_of(name)).reshape(1, 256, 256)
    lookup = remade(
        make((256,), (256,), 0, rank=1, dtype=name, split=0, index=np.arange(256)), tables=(every,)
    )
    out = kernels.expand(Launcher(), lookup, nan_rows(lookup))
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out.astype(np.float32), flushed(every[0].astype(np.float32)))


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_sixteen_bit_storage_rounds_to_nearest_even(name):
    """The product of two numbers, rounded once as NumPy rounds: ties, subnormals and overflow included."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 1 << 16, (2, 1, 1, 128)).astype(np.uint16)
    patterns[:, ..., :32] &= 0x83FF if name == "float16" else 0xFFF0
    patterns[:, ..., 32:64] = rng.integers(0x3800, 0x4800, 32)
    tables = tuple(patterns.view(dtype_of(name)))
    lookup = remade(
        make((1, 1), (128, 128), 0, rank=1, dtype=name, index=np.zeros(1, np.int32)), tables=tables
    )
    out = kernels.expand(Launcher(), lookup, nan_rows(lookup))
    with np.errstate(all="ignore"):
        wide = [flushed(table.astype(np.float32)).ravel() for table in tables]
        expected = flushed(np.multiply.outer(*wide)).ravel().astype(lookup.dtype)
    normal = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(out[0]), ~normal)
    np.testing.assert_array_equal(out[0][normal], expected[normal])


def test_sixteen_modes_and_few_warps():
    check(make((2,) * 16, (2,) * 5 + (1,) * 6 + (2,) * 5, 4, split=8))
    lookup = make((3, 3), (50, 60), 7, rank=12, split=1)
    assert kernel_plan.gather_launch(kernel_plan.geometry(lookup), True, 0, False).block < 256
    check(lookup)


def test_tables_without_rows():
    lookup = make((0, 0), (3, 4), 0, kind="same", index=np.array([0, -1, 5]))
    assert np.isnan(kernels.expand(Launcher(), lookup, nan_rows(lookup))).all()
    kernels.contract(Launcher(), lookup, cotangent_of(lookup), True, zero_gradients(lookup))
    assert not kernels.leaf_cotangents(Launcher(), lookup, cotangent_of(lookup)).any()


def test_index_need_not_be_contiguous():
    lookup = make((4, 5), (3, 4), 12, kind="modes")
    check(replace(lookup, index=np.asfortranarray(lookup.index)))
    check(replace(lookup, index=lookup.index[:, ::-2].astype(np.int16)))


def test_launches():
    """One launch forward, three backward besides a sort; no Python number among the arguments."""
    cases = {
        ("digits", 9): ["contract", "accumulate", "reduce"],
        ("terms", 9): ["contract", "accumulate", "reduce"],
        ("same", 1100): ["contract", "pieces", "segments"],
    }
    for (kind, count), names in cases.items():
        lookup = make((count, count), (3, 4), 10, kind=kind)
        launch = Launcher()
        kernels.expand(launch, lookup)
        kernels.contract(launch, lookup, cotangent_of(lookup), True, zero_gradients(lookup))
        assert [kernel for kernel, *_ in launch.launches] == ["expand", *names]
        assert all(isinstance(arg, np.ndarray | np.generic) for *_, args in launch.launches for arg in args)


def test_obstacle():
    lookup = make((4, 5), (3, 4), 2)
    first, second = lookup.tables
    packed = np.zeros(8, np.dtype([("a", "f4"), ("b", "i2")]))["a"].reshape(2, 4, 1)
    wide = remade(lookup, dtype=np.dtype(np.float64))
    cases = (
        (lookup, ""),
        (make((4, 5), (3, 4), 2, dtype="complex64"), "must have one real floating dtype, got complex64"),
        (remade(lookup, tables=(first, second.astype("f8"))), "real floating dtype, got float32, float64"),
        (wide, "must have the dtype of the rows, float64, got float32"),
        (remade(lookup, tables=(first[:0], second[:0])), "must have at least one term, got rank 0"),
        (make((1,) * 17, (1,) * 17, 2), "must be at most 16, got 17"),
        (remade(lookup, tables=(packed, second)), f"got {[packed.strides, second.strides]}"),
        (make((2, 2), (2000, 2000), 2), "must have leaves that fit 49152 bytes of shared memory with their"),
    )
    for case, text in cases:
        assert text in kernels.obstacle(case)
        assert bool(kernels.obstacle(case)) == bool(text)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize(("batch", "count"), [(0, 3), (1, 1), (700, 5), (40, 3000)])
def test_sums_by_index(monkeypatch, dtype, batch, count):
    launch = Launcher()
    monkeypatch.setattr("ketcore.cuda.launcher.launcher_for", lambda array: launch)
    rng = np.random.default_rng(0)
    index, values = rng.integers(0, count, batch), rng.standard_normal((batch, 6)).astype(dtype)
    expected = np.zeros((count, 6), np.result_type(dtype, np.float64))
    np.add.at(expected, index, values)
    before = values.copy()
    sums = segments.segment_sum(np, values, index, count)
    np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-5)
    assert sums.dtype == dtype
    np.testing.assert_array_equal(values, before)
    assert bool(launch.launches) == bool(batch)
