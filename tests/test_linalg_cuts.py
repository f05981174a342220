"""Which singular values count as zero: the default cut-off, thresholds, and counting without all products."""

from math import comb, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from ketcore.linalg import cuts
from tests.linalg_problems import dense, each_library, made, matrix_of, near, product_factors, unitary

FLOATS = ("float32", "float64", "complex64", "complex128")
EPS = float(np.finfo(np.float64).eps)


def with_values(rng, values, dtype="float64", rows=None):
    """A matrix with these singular values."""
    size = len(values)
    left = unitary(rng, rows or size, dtype)[:, :size]
    return ((left * np.asarray(values)) @ unitary(rng, size, dtype)).astype(dtype)


def ranks(a):
    """The rank as each of the three functions tells it."""
    b = np.ones(a.shape[0], a.dtype)
    return linalg.matrix_rank(a), linalg.pinv(a, return_rank=True)[1], linalg.lstsq(a, b).rank


def expected_rank(factors):
    """The number of products above the documented threshold."""
    values = [np.linalg.svd(f, compute_uv=False) for f in factors]
    largest = prod(float(v[0]) for v in values)
    eps = float(np.finfo(factors[0].dtype).eps)
    products = dense([v.astype(float) for v in values])
    return int(np.sum(products > largest * eps * sum(max(f.shape) for f in factors)))


@given(product_factors(square=False), st.data())
def test_the_rank_is_the_product_of_those_of_the_factors(factors, data):
    kinds = [data.draw(st.sampled_from(["general", "singular"])) for _ in factors]
    rng = np.random.default_rng(0)
    factors = [matrix_of(rng, *f.shape, f.dtype, kind) for f, kind in zip(factors, kinds, strict=True)]
    one_by_one = prod(int(np.linalg.matrix_rank(f)) for f in factors)
    assert ranks(kc.KroneckerMatrix(factors)) == (one_by_one,) * 3


@given(st.integers(1, 40), st.sampled_from(FLOATS), st.floats(0.5, 2.0), st.integers(0, 5))
def test_one_factor_is_cut_as_by_numpy(size, dtype, times, more):
    values = np.ones(size, np.dtype(dtype).type(0).real.dtype)
    values[size // 2 :] = times * (size + more) * np.finfo(dtype).eps
    values[0] = 1.0
    matrix = np.vstack([np.diag(values), np.zeros((more, size))]).astype(dtype)
    expected = int(np.linalg.matrix_rank(matrix))
    assert ranks(kc.KroneckerMatrix([matrix])) == (expected,) * 3
    assert ranks(kc.KroneckerMatrix([matrix.T])) == (expected,) * 3


@given(st.integers(0, 10000), st.sampled_from(FLOATS), st.sampled_from([(3, 2, 3), (5, 4), (2, 2, 2, 2)]))
def test_where_the_default_cut_straddles_all_functions_agree(seed, dtype, sizes):
    rng = np.random.default_rng(seed)
    depth = -np.log10(np.finfo(dtype).eps) * 0.8
    factors = [np.diag(10.0 ** rng.uniform(-depth, 0, n)).astype(dtype) for n in sizes]
    assert ranks(kc.KroneckerMatrix(factors)) == (expected_rank(factors),) * 3


def test_the_cut_does_not_grow_with_the_number_of_rows():
    x = np.linspace(0, 1, 256)
    kernel = np.exp(-np.abs(np.subtract.outer(x, x)) / 0.01).astype("float32")
    a = kc.KroneckerMatrix([kernel, kernel])
    b = np.random.default_rng(0).standard_normal(a.shape[0]).astype("float32")
    fit = linalg.lstsq(a, b)
    assert linalg.matrix_rank(a) == fit.rank == 256**2
    assert np.linalg.norm(a @ fit.x - b) < 1e-4 * np.linalg.norm(b)
    back = linalg.pinv(a) @ b
    assert np.linalg.norm(a @ back - b) < 1e-3 * np.linalg.norm(b)
    # Two modes more, of zeros and of one element, change nothing.
    wide = kc.KroneckerMatrix([kernel, np.diag([3.0, 0.0]).astype("float32"), kernel[:1, :1]])
    assert linalg.matrix_rank(wide) == 256


@pytest.mark.parametrize("dtype", ["float16", *FLOATS])
@pytest.mark.parametrize(("size", "order"), [(16, 6), (2, 30), (300, 2)])
def test_identities_have_full_rank(size, order, dtype):
    a = kc.KroneckerMatrix([np.eye(size, dtype=dtype)] * order)
    assert linalg.matrix_rank(a) == size**order
    inverse, rank = linalg.pinv(a, return_rank=True)
    assert (rank, inverse.rank, inverse.dtype) == (size**order, 1, a.dtype)
    assert inverse[0, 0] == inverse[-1, -1] == 1


@given(product_factors(square=False), st.sampled_from(["general", "singular", "graded"]))
def test_pinv_has_the_four_identities(factors, kind):
    rng = np.random.default_rng(2)
    if kind == "graded":
        grades = [10.0 ** -np.arange(min(f.shape)) for f in factors]
        factors = [
            with_values(rng, v, f.dtype, max(f.shape)) if f.shape[0] >= f.shape[1]
            else with_values(rng, v, f.dtype, max(f.shape)).T
            for f, v in zip(factors, grades, strict=True)
        ]  # fmt: skip
    else:
        factors = [matrix_of(rng, *f.shape, f.dtype, kind) for f in factors]
    a, b = dense(factors), linalg.pinv(kc.KroneckerMatrix(factors))[:]
    assert b.dtype == factors[0].dtype
    scale = 4e3 * max(1.0, np.abs(a).max()) ** 2 * max(1.0, np.abs(b).max()) ** 2
    b = b.astype(a.dtype)
    for found, expected in ((a @ b @ a, a), (b @ a @ b, b), (a @ b, (a @ b).conj().T)):
        near(found, expected, scale=scale, like=factors[0].dtype)
    near(b @ a, (b @ a).conj().T, scale=scale, like=factors[0].dtype)


@given(product_factors(square=False, dtype="float64"), st.integers(0, 3), st.integers(0, 1000))
def test_lstsq_is_that_of_numpy(factors, lost, seed):
    """Residual, rank and least norm with factors that are graded and exactly singular."""
    rng = np.random.default_rng(seed)
    factors = [
        np.diag(10.0 ** -rng.integers(0, 2, max(f.shape)))[: f.shape[0], : f.shape[1]] for f in factors
    ]
    factors[0][-1] *= lost > 0
    factors[-1][:, -1] *= lost > 1
    factors = [unitary(rng, len(f), float) @ f @ unitary(rng, f.shape[1], float) for f in factors]
    full, b = dense(factors), rng.standard_normal((prod(len(f) for f in factors), 2))
    x, residuals, rank, values = linalg.lstsq(kc.KroneckerMatrix(factors), b)
    expected = np.linalg.lstsq(full, b)
    assert rank == expected[2]
    near(x, expected[0], scale=1e6)
    near(np.linalg.norm(x, axis=0), np.linalg.norm(expected[0], axis=0), scale=1e6)
    near(full @ x - b, full @ expected[0] - b, scale=1e5)
    assert np.shape(residuals) == np.shape(expected[1])
    near(residuals, expected[1], scale=1e6)
    near(np.sort(values.to_dense())[::-1][:rank], expected[3][:rank])


def test_order_one_of_several_terms_is_one_matrix():
    terms = np.random.default_rng(0).standard_normal((2, 6, 5))
    terms[1, :, 4] = -terms[0, :, 4]
    for shape in ((6, 5), (5, 5), (6, 4)):
        a = kc.KroneckerMatrix([terms], shape)
        full = terms.sum(axis=0)[: shape[0], : shape[1]]
        assert ranks(a) == (np.linalg.matrix_rank(full),) * 3 == (4,) * 3
        near(linalg.pinv(a).to_dense(), np.linalg.pinv(full))


@each_library
def test_other_libraries_agree(xp):
    def body(factors):
        a, b = made(xp, factors), xp.asarray(np.ones(dense(factors).shape[0], factors[0].dtype))
        expected = prod(int(np.linalg.matrix_rank(f)) for f in factors)
        found = linalg.matrix_rank(a), linalg.pinv(a, return_rank=True)[1], linalg.lstsq(a, b).rank
        assert found == (expected,) * 3

    xp.check(product_factors("singular", square=False), body)


SPREADS = [np.zeros((2, 2)), np.diag([1e308, 1e-308]), 1e308 * np.eye(2), 1e-308 * np.eye(2)]


@pytest.mark.parametrize("tol", [None, 0.0, 1e-300, 1.0, 1e300, np.inf])
def test_zeros_have_rank_zero_whatever_the_tolerance(tol):
    for others in ([], SPREADS[1:2], SPREADS[2:3] * 3, SPREADS[3:] * 3, SPREADS[1:]):
        for factors in (SPREADS[:1] + others, others + SPREADS[:1]):
            a = kc.KroneckerMatrix(factors)
            assert linalg.matrix_rank(a, tol) == 0
            level = 0.0 if tol is None else tol
            assert linalg.pinv(a, atol=level, return_rank=True)[1] == 0
            assert linalg.lstsq(a, np.ones(len(a)), cond=tol).rank == 0
            assert not linalg.pinv(a, atol=level)[:].any()


def test_the_ends_of_tolerances():
    a = kc.KroneckerMatrix([np.diag([2.0, 1.0]), np.diag([4.0, 1e-200]), np.diag([1.0, 1e-200])])
    found = [linalg.matrix_rank(a, tol) for tol in (0, 0.0, 1e-320, 1e-150, 4.0, 8.0, np.inf)]
    # The least two products, 2e-400 and 1e-400, are no floats, and not zero.
    assert found == [8, 8, 6, 2, 1, 0, 0]
    assert linalg.matrix_rank(kc.KroneckerMatrix([np.diag([1.0, 0.0])]), 0.0) == 1
    assert linalg.pinv(a, rtol=np.inf, return_rank=True)[1] == 0
    assert linalg.pinv(a, atol=3.0, return_rank=True)[1] == 2
    assert linalg.pinv(a, atol=3.0, rtol=0.2, return_rank=True)[1] == 1


@pytest.mark.parametrize("scales", [(1e200, 1e200, 1e-200, 1e-200), (1e-200, 1e-200, 1e200, 1e200)])
def test_the_largest_singular_values_are_multiplied_without_overflow(scales):
    a = kc.KroneckerMatrix([np.diag([1.0, 0.5]) * s for s in scales])
    assert [linalg.matrix_rank(a, tol) for tol in (None, 0.05, 0.3, 0.6)] == [16, 16, 5, 1]
    assert linalg.pinv(a, atol=0.3, return_rank=True)[1] == 5
    assert cuts.over(3.0, scales) == pytest.approx(3.0)
    assert (cuts.over(1.0, [1e-200] * 2), cuts.over(1.0, [1e200] * 2)) == (np.inf, 0.0)
    assert cuts.over(np.inf, [1e300, 2.0]) == np.inf


def test_many_modes_are_counted():
    """No list of 2^40 products."""
    rng = np.random.default_rng(0)
    eye = kc.KroneckerMatrix([np.eye(2)] * 80)
    assert linalg.matrix_rank(eye) == linalg.matrix_rank(eye, tol=0.5) == 2**80
    assert linalg.matrix_rank(eye, tol=1.0) == 0
    assert linalg.pinv(eye, return_rank=True)[1] == 2**80
    turned = [with_values(rng, [1.0, 0.9]) for _ in range(80)]
    assert linalg.matrix_rank(kc.KroneckerMatrix(turned)) == 2**80
    for dtype in ("float32", "float64"):
        a = kc.KroneckerMatrix([with_values(rng, [1.0, 0.5], dtype) for _ in range(80)])
        threshold = 160 * float(np.finfo(dtype).eps)
        assert linalg.matrix_rank(a) == sum(comb(80, k) for k in range(81) if 0.5**k > threshold)
        assert linalg.matrix_rank(a, tol=0.0) == 2**80
    # Values that all differ, beside some that are far below.
    wide = [np.diag([1.0, 1.0 - 1e-3 * rng.uniform()]) for _ in range(60)]
    small = [np.diag([1.0, 1e-4 * rng.uniform(0.9, 1.0)]) for _ in range(12)]
    found = linalg.matrix_rank(kc.KroneckerMatrix(wide[:30] + small + wide[30:]))
    assert found == 2**60 * sum(comb(12, k) for k in range(4))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3), st.floats(-25.0, -0.01))
def test_products_that_are_equal_are_counted_together(halves, thirds, zeros, exponent):
    values = [np.array([1.0, 0.5])] * halves + [np.array([1.0, 0.3, 0.0])] * thirds
    values = values[::2] + [np.array([1.0, 0.0])] * zeros + values[1::2]
    terms = [
        (0.5**i * 0.3**j, comb(halves, i) * comb(thirds, j))
        for i in range(halves + 1)
        for j in range(thirds + 1)
    ]
    threshold = 10.0**exponent
    if all(abs(value / threshold - 1) > 1e-9 for value, _ in terms):
        assert cuts.count_above(values, threshold) == sum(n for value, n in terms if value > threshold)


@given(st.integers(0, 10000), st.integers(1, 5), st.floats(1e-6, 1.1))
def test_boxes_of_near_and_equal_values(seed, modes, threshold):
    rng = np.random.default_rng(seed)
    grid = np.array([1.0, 0.5, 0.5, 0.3, 0.3 + 1e-15, 1e-3, 0.0])
    values = [np.sort(np.append(rng.choice(grid, n), 1.0))[::-1] for n in rng.integers(0, 4, modes)]
    products = values[0]
    for one in values[1:]:
        products = np.multiply.outer(products, one)
    held = np.zeros(products.shape, int)
    boxes = cuts.boxes_above(values, threshold)
    for box in boxes:
        held[tuple(slice(*side) for side in box)] += 1
    if np.all(np.abs(products / threshold - 1) > 1e-9):
        np.testing.assert_array_equal(held, products > threshold)
        assert cuts.count_above(values, threshold) == np.sum(products > threshold)
        # One box for each step of the stairs: neighbours of the last mode differ.
        assert len(boxes) <= max(1, prod(products.shape[:-1]))


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda a, v: linalg.matrix_rank(a, v), "tol"),
        (lambda a, v: linalg.pinv(a, rtol=v), "rtol"),
        (lambda a, v: linalg.pinv(a, atol=v), "atol"),
        (lambda a, v: linalg.lstsq(a, np.ones(4), v), "cond"),
    ],
)
@pytest.mark.parametrize("factor", [np.eye(2), np.zeros((2, 2))])
def test_levels_that_are_none(call, name, factor):
    a = kc.KroneckerMatrix([factor, np.eye(2)])
    for value, shown in ((-1.0, "-1.0"), (np.nan, "nan"), (-np.inf, "-inf")):
        with pytest.raises(ValueError, match=f"^{name} must be at least 0, got {shown}$"):
            call(a, value)
    for value in (True, 1j, "1", [1.0], np.ones(2)):
        with pytest.raises(TypeError, match=f"^{name} must be a real number, got "):
            call(a, value)


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(0, 12))
def test_powers_of_two_are_cut_exactly(seed, modes, exponent):
    """Products that equal the threshold, of which many do, count as zero."""
    rng = np.random.default_rng(seed)
    values = [2.0 ** -np.sort(np.append(rng.integers(0, 6, n), 0)) for n in rng.integers(1, 5, modes)]
    products = values[0]
    for one in values[1:]:
        products = np.multiply.outer(products, one)
    held = np.zeros(products.shape, int)
    for box in cuts.boxes_above(values, 2.0**-exponent):
        held[tuple(slice(*side) for side in box)] += 1
    np.testing.assert_array_equal(held, products > 2.0**-exponent)
    assert cuts.count_above(values, 2.0**-exponent) == np.sum(products > 2.0**-exponent)


@pytest.mark.parametrize("modes", [62, 64, 66, 72])
def test_counts_beyond_integers_of_64_bits(modes):
    for threshold in (0.5**modes, 0.5 ** (modes - 3), 0.5 ** (modes // 2)):
        expected = sum(comb(modes, k) for k in range(modes + 1) if 0.5**k > threshold)
        assert cuts.count_above([np.array([1.0, 0.5])] * modes, threshold) == expected


def test_pinv_keeps_products_that_are_no_floats():
    a = kc.KroneckerMatrix([np.diag([1.0, 1e-200])] * 2)
    inverse, rank = linalg.pinv(a, rtol=0.0, return_rank=True)
    assert (inverse.rank, rank) == (1, 4)
