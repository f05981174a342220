"""Kernels at the ends of their types: ids that need 64 bits, and every kind of NaN in 16 bits."""

import shutil

import numpy as np
import pytest

from ketcore import ops
from ketcore.lookups import kernels
from ketcore.lookups.lookup import remade
from tests.cusim import SimLauncher, available
from tests.cusim.launcher import MODE
from tests.kernel_problems import (
    CUDA,
    KINDS,
    Launcher,
    close,
    cotangent_of,
    dtype_of,
    flat,
    make,
    nan_rows,
    reference,
    scattered,
    sum_dtype,
    zero_gradients,
)
from tests.require import require

# Two modes with more than 2**32 rows.
COUNTS = (70_000, 70_001)
ROWS = COUNTS[0] * COUNTS[1]
# Valid ids on either side of what 31, 32 and 33 bits hold, then ids that are valid where 32 bits are kept.
LARGE = (0, 5, 2**31 - 1, 2**31, 2**31 + 7, 2**32 - 1, 2**32, 2**32 + 5, ROWS - 1, ROWS - 70_001)
ALIASES = (ROWS, 2**33, 2**33 + 5, 2**40 + 1, 2**62 + 3, 5 - 2**32, 5 - 2**33, -1, -(2**31), -(2**62) + 5)


@pytest.fixture
def launch():
    require("cusim", not available(), available())
    return Launcher()


@pytest.mark.parametrize("sort_above", [0, 1 << 30], ids=["sorted", "in chunks"])
@pytest.mark.parametrize("kind", KINDS)
def test_ids_of_64_bits(launch, kind, sort_above, monkeypatch):
    """Valid ones pick their leaves; ids that 32 bits would turn into valid ones give NaN, and no gradient."""
    monkeypatch.setattr(kernels, "_SORT_ABOVE", sort_above)
    if kind == "digits":
        lookup = make(COUNTS, (2, 3), 0, kind=kind, index=np.array(LARGE + ALIASES))
    else:
        few = np.arange(10) % 4
        index = np.concatenate([few, ALIASES, few])
        shape = {"same": (), "modes": (2,), "terms": (2, 2)}[kind]
        index = np.broadcast_to(index, (*shape, len(index))).copy()
        # A row is bad where one of its leaves is.
        index.reshape(-1, index.shape[-1])[0, -1] = 2**32 + 1
        lookup = make((5, 6), (2, 3), 0, kind=kind, index=index)
    out = kernels.expand(launch, lookup, nan_rows(lookup))
    bad = lookup.batch - np.isfinite(out).all(1).sum()
    assert bad == len(ALIASES) + (kind != "digits")
    close(out, lookup, lambda lookup: reference(lookup)[0], lookup.dtype)
    cotangent = cotangent_of(lookup)

    def compute(lookup):
        return flat(scattered(lookup, reference(lookup)[1](cotangent.astype(np.float64))))

    for deterministic in (True, False):
        gradients = zero_gradients(lookup)
        kernels.contract(launch, lookup, cotangent, deterministic, gradients)
        close(flat(gradients), lookup, compute, sum_dtype(lookup))


def test_rows_with_ids_of_64_bits(xp):
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((2, count, width)) for count, width in zip(COUNTS, (2, 3), strict=True)]
    arrays, ids = [xp.asarray(factor) for factor in factors], np.array(LARGE + ALIASES)
    first, second = np.divmod(np.array(LARGE), COUNTS[1])
    expected = np.einsum("rbi,rbj->bij", factors[0][:, first], factors[1][:, second]).reshape(-1, 6)
    found = xp.to_numpy(ops.rows(arrays, xp.asarray(ids), check=False))
    np.testing.assert_allclose(found[: len(LARGE)], expected, rtol=1e-13, atol=1e-13)
    assert np.isnan(found[len(LARGE) :]).all()


@pytest.mark.parametrize(("dtype", "tiny"), [("float32", 1e-39), ("float64", 1e-310)])
def test_subnormal_leaves(launch, dtype, tiny):
    """The source keeps them.  As PTX those of float32 are zero, even where their product would not be."""
    lookup = make((1, 1), (1, 2), 0, rank=1, dtype=dtype, index=np.zeros(1, np.int32))
    tables = np.full((1, 1, 1), tiny, dtype), np.array([[[1e20, -1e20]]], dtype)
    out = kernels.expand(launch, remade(lookup, tables=tables), nan_rows(lookup))
    is_kept = dtype == "float64" or not MODE.startswith("ptx")
    np.testing.assert_allclose(out, [[tiny * 1e20, -tiny * 1e20]] if is_kept else [[0, 0]], rtol=1e-6)


# ---- conversions ----

CONVERT = """#include "kernel.cuh"

template <class T>
__global__ void convert(const float* x, T* y, i64 size) {
  const i64 e = i64(blockIdx.x) * blockDim.x + threadIdx.x;
  if (e < size) narrow(x[e], y[e]);
}
"""


def patterns():
    """Words of 32 bits: infinities, NaNs of every payload of one bit and of many, and numbers at random."""
    bits = np.uint32(1) << np.arange(23, dtype=np.uint32)
    payloads = np.concatenate([[0], bits, bits - 1, 0x7FFFFF - bits, [0xFFFF, 0x10000, 0x3FFFFF, 0x400000]])
    special = (payloads | 0x7F800000).astype(np.uint32)
    words = np.concatenate([special, np.random.default_rng(0).integers(0, 1 << 32, 5000).astype(np.uint32)])
    return np.concatenate([words, words | np.uint32(1 << 31)])


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_numbers_of_32_bits_in_16(launch, tmp_path, name):
    """NaN stays NaN with its sign, also where all of its payload lies in the bits that are dropped."""
    shutil.copy(CUDA / "kernel.cuh", tmp_path)
    (tmp_path / "convert.cu").write_text(CONVERT, encoding="utf-8")
    simulator = SimLauncher(tmp_path, [("convert", (name,), "convert")])
    wide = patterns().view(np.float32)
    narrow = np.zeros(wide.size, dtype_of(name))
    blocks = -(-wide.size // 256)
    simulator("convert", "convert", (name,), blocks, 256, (wide, narrow, np.int64(wide.size)), 0)
    with np.errstate(all="ignore"):
        expected = wide.astype(narrow.dtype)
    missing = np.isnan(wide)
    assert missing.sum() > 100
    np.testing.assert_array_equal(np.isnan(narrow), missing)
    np.testing.assert_array_equal(narrow[~missing].view(np.uint16), expected[~missing].view(np.uint16))
    np.testing.assert_array_equal(narrow.view(np.uint16) >> 15, wide.view(np.uint32) >> 31)
