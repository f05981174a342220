"""Digits that must not be lost: long sums into one row, half precision, LayerNorm of large means."""

import numpy as np
import pytest

from ketcore import ops, testing
from ketcore.arrays import sums
from ketcore.testing import assert_dense_equal, half_dtypes, to_numpy

HITS = 2_000_000


def relative(actual, expected):
    return np.linalg.norm(actual.astype("float64") - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("values", ["equal", "positive", "normal"])
def test_rows_gradient_of_two_million_hits_on_one_row(values):
    rng = np.random.default_rng(0)
    factors = [
        rng.standard_normal((2, 3, 2)).astype("float32"),
        rng.standard_normal((2, 5, 2)).astype("float32"),
    ]
    cotangent = _cotangent(rng, values, (HITS, 4))
    ids = np.full(HITS, 7)
    gradients = ops.rows_vjp(factors, ids, cotangent)
    total = cotangent.sum(axis=0, dtype="float64")[None]
    expected = ops.rows_vjp([f.astype("float64") for f in factors], ids[:1], total)
    for gradient, right in zip(gradients, expected, strict=True):
        assert gradient.dtype == np.float32
        assert relative(gradient, right) < 1e-6


@pytest.mark.parametrize("values", ["equal", "positive", "normal"])
@pytest.mark.parametrize("sparse", [False, True])
def test_ket_gradient_of_two_million_hits_on_one_word(values, sparse):
    rng = np.random.default_rng(1)
    leaves = rng.standard_normal((3, 1, 4)).astype("float32")
    cotangent = _cotangent(rng, values, (HITS, 4))
    ids = np.full(HITS, 1)
    gradient = ops.ket_rows_vjp(leaves, ids, cotangent, (2, 2), sparse=sparse)
    total = cotangent.sum(axis=0, dtype="float64")[None]
    expected = ops.ket_rows_vjp(leaves.astype("float64"), ids[:1], total, (2, 2))[1]
    assert relative(gradient[1][0] if sparse else gradient[1], expected) < 1e-6


@pytest.mark.parametrize("values", ["equal", "normal"])
def test_a_hot_row_among_many_keeps_its_digits_and_theirs(values):
    """One row in two hits, the others at random: the shape of a corpus."""
    rng = np.random.default_rng(2)
    factors = [
        rng.standard_normal((1, 50, 2)).astype("float32"),
        rng.standard_normal((1, 40, 2)).astype("float32"),
    ]
    ids = np.where(rng.random(HITS // 2) < 0.5, 17, rng.integers(0, 2000, HITS // 2))
    cotangent = _cotangent(rng, values, (len(ids), 4))
    gradients = ops.rows_vjp(factors, ids, cotangent)
    expected = ops.rows_vjp([f.astype("float64") for f in factors], ids, cotangent.astype("float64"))
    for gradient, right in zip(gradients, expected, strict=True):
        error = np.linalg.norm(gradient - right, axis=(0, 2)) / np.linalg.norm(right, axis=(0, 2))
        # Of random signs the sum is a thousand times smaller than what was added up.
        assert error.max() < (1e-6 if values == "equal" else 1e-4)
        assert relative(gradient, right) < 1e-6


def test_gather_kron_and_row_kets_keep_the_digits_of_long_sums():
    rng = np.random.default_rng(3)
    factors = [rng.standard_normal((1, 2, 2)).astype("float32")] * 2
    cotangent, ids = np.full((HITS, 4), 0.1, "float32"), np.full(HITS, 3)
    index = np.ones((2, HITS), "int64")
    for gradient, other in zip(
        ops.gather_kron_vjp(factors, index, cotangent),
        ops.rows_vjp(
            [f.astype("float64") for f in factors], [3], np.full((1, 4), np.float64(np.float32(0.1)) * HITS)
        ),
        strict=True,
    ):
        assert relative(gradient, other) < 1e-6
    to_leaves = [np.full((HITS, 1, 2), 0.1, "float32")] * 2
    for gradient in ops.row_kets_vjp(factors, ids, to_leaves):
        assert relative(gradient[0, 1], np.full(2, np.float64(np.float32(0.1)) * HITS)) < 1e-6


def _cotangent(rng, values, shape):
    if values == "equal":
        # Not a power of two, so that every addition rounds.
        return np.full(shape, 0.1, "float32")
    found = rng.standard_normal(shape).astype("float32")
    return np.abs(found) if values == "positive" else found


@pytest.mark.parametrize("half", half_dtypes(), ids=str)
def test_half_rows_are_float32_rows_rounded_once(half, xp):
    """Ranks and orders high enough that rounding in between would show."""
    if not xp.half:
        pytest.skip("it has no half precision")
    rng = np.random.default_rng(4)
    factors = [(rng.standard_normal((20, 3, 4)) / 3).astype(half) for _ in range(3)]
    ids = np.array([0, 26, 13, 13])
    rows = ops.rows([xp.asarray(f) for f in factors], xp.asarray(ids))
    _rounded_once(rows, ops.rows_dense([f.astype("float64") for f in factors], ids), half)
    leaves = rng.standard_normal((6, 20, 7)).astype(half)
    for layernorm in (False, True):
        rows = ops.ket_rows(xp.asarray(leaves), xp.asarray(ids % 6), (2, 2, 3), layernorm)
        wide = ops.ket_rows_dense(leaves.astype("float64"), ids % 6, (2, 2, 3), layernorm)
        _rounded_once(rows, wide, half)


@pytest.mark.parametrize("half", half_dtypes(), ids=str)
def test_half_gradients_and_inner_products_are_rounded_once(half, xp):
    if not xp.half:
        pytest.skip("it has no half precision")
    rng = np.random.default_rng(5)
    factors = [(rng.standard_normal((3, 2, 3)) / 2).astype(half) for _ in range(2)]
    # A sum of 600 ones in float16 would round; in bfloat16 it would stop at 256.
    ids = np.zeros(600, "int64")
    cotangent = np.ones((600, 9)).astype(half)
    actual = ops.rows_vjp([xp.asarray(f) for f in factors], xp.asarray(ids), xp.asarray(cotangent))
    wide = ops.rows_vjp([f.astype("float64") for f in factors], ids, cotangent.astype("float64"))
    for gradient, expected in zip(actual, wide, strict=True):
        _rounded_once(gradient, expected, half)
    leaves = rng.standard_normal((2, 1, 5)).astype(half)
    cotangent = np.ones((600, 6)).astype(half)
    gradient = ops.ket_rows_vjp(xp.asarray(leaves), xp.asarray(ids), xp.asarray(cotangent), (2, 3))
    wide = ops.ket_rows_vjp(leaves.astype("float64"), ids, cotangent.astype("float64"), (2, 3))
    _rounded_once(gradient, wide, half)
    v = rng.standard_normal((4, 2, 300)).astype(half)
    inner = ops.ket_inner([xp.asarray(v)], [xp.asarray(v)])
    _rounded_once(inner, ops.ket_inner_dense([v.astype("float64")], [v.astype("float64")]), half)


def _rounded_once(actual, expected, half):
    """Within half a unit in the last place, and a little for the float32 arithmetic."""
    unit = testing.tolerance(half) / 2
    assert str(actual.dtype).endswith(str(half))
    error = np.abs(to_numpy(actual).astype("float64") - expected)
    smallest = 2.0**-24 if half == np.float16 else 0.0
    assert (error <= 1.01 * unit * np.abs(expected) + 1e-5 * np.abs(expected).max() + smallest).all()


def test_layernorm_of_a_large_mean_keeps_three_more_digits_than_the_naive_variance():
    """E[x^2] - m^2 would lose everything at a mean a thousand times the deviation."""
    rng = np.random.default_rng(6)
    leaves = (1000 + rng.standard_normal((8, 2, 8))).astype("float32")
    rows = ops.ket_rows(leaves, np.arange(8), (4, 4), True)
    expected = ops.ket_rows_dense(leaves.astype("float64"), np.arange(8), (4, 4), True)
    # The input itself is exact; the product of two leaves near 1000 rounds at 0.06, of a deviation near 1000.
    assert_dense_equal(rows, expected, scale=2000.0)


def test_order_does_not_cost_digits():
    rng = np.random.default_rng(7)
    factors = [rng.standard_normal((1, 2, 2)).astype("float32") for _ in range(12)]
    ids = rng.integers(0, 4096, 50)
    rows = ops.rows(factors, ids)
    expected = ops.rows([f.astype("float64") for f in factors], ids)
    assert_dense_equal(rows, expected, terms=12, scale=np.abs(expected))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_subnormal_and_huge_factors_survive_their_product(dtype):
    tiny, huge = np.finfo(dtype).tiny * 4, np.finfo(dtype).max / 8
    factors = [np.full((1, 2, 2), tiny, dtype), np.full((1, 2, 2), huge, dtype)]
    rows = ops.rows(factors, [0, 3])
    assert_dense_equal(rows, np.full((2, 4), np.float64(tiny) * np.float64(huge)))


def test_sums_by_more_indices_than_16_bits_hold():
    index = np.concatenate([np.arange(70_000), np.full(9_000, 5), np.full(9_000, 5 + 65_536)])
    values = np.linspace(1, 2, len(index), dtype=np.float32)[:, None]
    expected = np.bincount(index, values[:, 0])
    np.testing.assert_allclose(sums.sum_by_index(np, values, index, 70_000)[:, 0], expected, rtol=1e-6)
