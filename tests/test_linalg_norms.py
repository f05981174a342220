"""Norms, condition numbers and ranks against NumPy on the dense matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from ketcore.linalg import cuts
from tests.linalg_problems import CONDITION, dense, dense_sum, each_library, made, near, product_factors

ORDERS = (None, "fro", "nuc", 2, -2, 1, -1, np.inf, -np.inf)


@given(product_factors(square=False), st.sampled_from(ORDERS))
def test_norm(factors, ord):
    real = factors[0].real.dtype
    found = linalg.norm(kc.KroneckerMatrix(factors), ord)
    assert np.ndim(found) == 0
    near(found, np.linalg.norm(dense(factors), ord), scale=CONDITION, dtype=real)
    if ord == "nuc":
        assert found == linalg.norm(kc.KroneckerMatrix(factors), "trace")


def test_the_smallest_singular_value_of_wide_times_tall_is_zero():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((2, 3)), rng.standard_normal((3, 2))]
    assert linalg.norm(kc.KroneckerMatrix(factors), -2) == 0.0
    assert np.linalg.norm(dense(factors), -2) < 1e-14
    assert linalg.norm(kc.KroneckerMatrix(factors[:1]), -2) > 0.1


def test_the_frobenius_norm_of_anything():
    a = kc.KroneckerMatrix.random((5, 7), row_dims=(2, 3), col_dims=(2, 4), rank=2, rng=0)
    near(linalg.norm(a), np.linalg.norm(a.to_dense()))
    total = kc.KroneckerSum([np.eye(2), [[1.0, 2.0], [3.0, 4.0]]])
    near(linalg.norm(total, "fro"), np.linalg.norm(total.to_dense()))


@given(product_factors("hermitian"))
def test_the_spectral_norm_of_hermitian_sums(factors):
    found = linalg.norm(kc.KroneckerSum(factors), 2)
    near(found, np.linalg.norm(dense_sum(factors), 2), dtype=factors[0].real.dtype)


@given(product_factors(), st.sampled_from(ORDERS))
def test_cond(factors, p):
    found = linalg.cond(kc.KroneckerMatrix(factors), p)
    expected = np.linalg.cond(dense(factors), p)
    near(found, expected, scale=CONDITION * expected**2, dtype=factors[0].real.dtype)


@given(product_factors(square=False), st.sampled_from((2, -2)))
def test_cond_of_rectangular_matrices(factors, p):
    expected = np.linalg.cond(dense(factors), p)
    found = linalg.cond(kc.KroneckerMatrix(factors), p)
    mixed = {np.sign(f.shape[0] - f.shape[1]) for f in factors} >= {-1, 1}
    if mixed:
        assert found == (np.inf if p == 2 else 0.0)
        assert expected > 1e14 or expected < 1e-14
    else:
        near(found, expected, scale=CONDITION**2)


def test_cond_of_singular_matrices_is_infinite():
    for factors in ([np.eye(2), np.diag([1.0, 0.0])], [np.zeros((2, 2))], [np.ones((2, 3)), np.ones((3, 2))]):
        a = kc.KroneckerMatrix(factors)
        assert [float(linalg.cond(a, p)) for p in (None, 2, 1, np.inf, "fro")] == [np.inf] * 5
    assert float(linalg.cond(kc.KroneckerMatrix([np.diag([1.0, 0.0])]), -2)) == 0.0


@given(product_factors("singular", square=False))
def test_matrix_rank(factors):
    found = linalg.matrix_rank(kc.KroneckerMatrix(factors))
    assert type(found) is int
    full = dense(factors).astype(factors[0].dtype)
    assert found == np.linalg.matrix_rank(full) == np.linalg.matrix_rank(dense(factors), tol=1e-4)


@given(st.integers(0, 1000), st.floats(1e-5, 1.0))
def test_matrix_rank_with_a_tolerance(seed, tol):
    rng = np.random.default_rng(seed)
    values = [10.0 ** rng.uniform(-2, 0, size) for size in (3, 1, 2, 4)]
    a = kc.KroneckerMatrix([np.diag(v) for v in values])
    assert linalg.matrix_rank(a, tol) == np.linalg.matrix_rank(a.to_dense(), tol)


def test_the_whole_product_decides_its_rank():
    small = np.diag([1.0, 1e-9])
    a = kc.KroneckerMatrix([small, small])
    assert linalg.matrix_rank(a) == np.linalg.matrix_rank(a.to_dense()) == 3
    assert linalg.matrix_rank(a, tol=0.0) == 4
    assert linalg.matrix_rank(kc.KroneckerMatrix([np.zeros((2, 2)), np.eye(3)])) == 0
    # Of 900 singular values 30 are above the rounding of two factors of size 30, or below it.
    for value, rank in ((1e-13, 900), (1e-14, 870)):
        wide = kc.KroneckerMatrix([np.diag([1.0] * 29 + [value]), np.eye(30)])
        assert linalg.matrix_rank(wide) == rank
    # Two sets of 2^12 products, and not one of 2^24.
    many = kc.KroneckerMatrix([np.diag([1.0, 0.5])] * 24)
    assert linalg.matrix_rank(many) == 2**24
    assert linalg.matrix_rank(many, tol=0.3) == 25


@given(st.integers(0, 10000), st.floats(1e-6, 1.1))
def test_boxes_hold_what_the_cut_leaves(seed, threshold):
    rng = np.random.default_rng(seed)
    values = [np.sort(np.append(10.0 ** rng.uniform(-4, 0, n), 1.0))[::-1] for n in rng.integers(0, 4, 3)]
    held = np.zeros([len(v) for v in values], int)
    for box in cuts.boxes_above(values, threshold):
        held[tuple(slice(*side) for side in box)] += 1
    expected = np.multiply.outer(np.multiply.outer(values[0], values[1]), values[2]) > threshold
    np.testing.assert_array_equal(held, expected)
    assert cuts.count_above(values, threshold) == expected.sum()


def test_what_equals_the_threshold_is_cut():
    values = [np.array([1.0, 0.5]), np.array([1.0, 0.5])]
    assert [cuts.count_above(values, threshold) for threshold in (0.2, 0.25, 0.5)] == [4, 3, 1]
    assert cuts.boxes_above(values, 0.5) == [((0, 1), (0, 1))]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda a: linalg.norm(a, 3),
            "ord must be one of None, fro, nuc, trace, 2, -2, 1, -1, inf, -inf, got 3",
        ),
        (
            lambda a: linalg.cond(a, "x"),
            "p must be one of None, fro, nuc, trace, 2, -2, 1, -1, inf, -inf, got 'x'",
        ),
        (lambda a: linalg.matrix_rank(a, -1.0), "tol must be at least 0, got -1.0"),
        (lambda a: linalg.matrix_rank(a, np.nan), "tol must be at least 0, got nan"),
        (
            lambda a: linalg.cond(kc.KroneckerMatrix([np.ones((2, 3))]), 1),
            r"A must be square for cond, got shape \(2, 3\)",
        ),
    ],
)
def test_errors(call, text):
    with pytest.raises(ValueError, match=text):
        call(kc.eye(2))


@each_library
def test_other_libraries(xp):
    def body(factors):
        full, a = dense(factors), made(xp, factors)
        for ord in ORDERS:
            near(xp.to_numpy(linalg.norm(a, ord)), np.linalg.norm(full, ord), scale=CONDITION)
        for p in (2, 1, "fro"):
            near(xp.to_numpy(linalg.cond(a, p)), np.linalg.cond(full, p), scale=CONDITION**2)
        assert linalg.matrix_rank(a) == len(full)

    xp.check(product_factors(), body)
