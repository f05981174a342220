"""nearest_kronecker with two factors: the optimum by an SVD, whatever holds the matrix."""

from math import prod

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from ketcore.fit import rearranged, singular, sources
from tests import generic
from tests.fit_problems import RowSlices, problems, rearrangement, relative_error, two_factor_optimum

# Everything is relative to the norm of the matrix: rounding of a few hundred additions.
CLOSE = 1e-13


def test_the_error_is_the_optimum_and_that_of_the_value(xp):
    def body(problem):
        A, row_dims, col_dims, rank = problem
        fit = kc.nearest_kronecker(xp.asarray(A), row_dims, col_dims, rank)
        value = fit.value
        assert (value.shape, value.row_dims, value.col_dims) == (A.shape, row_dims, col_dims)
        assert type(value.factors[0]) is type(xp.asarray(A))
        assert value.rank <= rank
        assert testing.to_numpy(value.factors[0]).dtype == A.dtype
        assert abs(fit.error - two_factor_optimum(A, row_dims, col_dims, rank)) < CLOSE
        assert abs(fit.error - relative_error(testing.to_numpy(value.to_dense()), A)) < CLOSE
        assert (fit.converged, fit.iterations) == (True, 0)

    xp.check(problems(), body)


@given(problems(), st.floats(0.01, 0.99))
def test_a_tolerance_gives_the_least_rank(problem, tol):
    A, row_dims, col_dims, _ = problem
    fit = kc.nearest_kronecker(A, row_dims, col_dims, tol=tol)
    assert fit.error <= tol * (1 + CLOSE)
    assert fit.value.rank == 1 or two_factor_optimum(A, row_dims, col_dims, fit.value.rank - 1) > tol
    capped = kc.nearest_kronecker(A, row_dims, col_dims, 1, tol=tol)
    assert capped.value.rank == 1
    assert abs(capped.error - two_factor_optimum(A, row_dims, col_dims, 1)) < CLOSE


@given(generic.kronecker_matrices(order=2, cropped=False, dtype="float64"))
def test_the_rank_of_a_kronecker_matrix_is_recovered(matrix):
    A = matrix.to_dense()
    rank = np.linalg.matrix_rank(rearrangement(A, matrix.row_dims, matrix.col_dims), rtol=1e-11)
    for options in ({"tol": 1e-10}, {"rank": matrix.rank}, {"rank": 50}):
        fit = kc.nearest_kronecker(A, matrix.row_dims, matrix.col_dims, **options)
        assert fit.error < 1e-10
        assert fit.value.rank == rank or fit.value.rank <= matrix.rank


@given(problems(), generic.arrays((), "float64"))
def test_fits_commute_with_what_keeps_the_norm(problem, scalar):
    A, row_dims, col_dims, rank = problem
    error = kc.nearest_kronecker(A, row_dims, col_dims, rank).error
    signs = [np.where(np.arange(dim) % 2, -1.0, 1.0)[::-1] for dim in row_dims]
    for other, dims in (
        (scalar * A, (row_dims, col_dims)),
        (A.T, (col_dims, row_dims)),
        (A.conj(), (row_dims, col_dims)),
        (np.kron(*signs)[:, None] * A, (row_dims, col_dims)),
    ):
        assert abs(kc.nearest_kronecker(other, *dims, rank).error - error) < CLOSE


@settings(max_examples=15)
@given(problems(), st.data())
def test_weights_that_separate_give_the_weighted_optimum(problem, data):
    A, row_dims, col_dims, rank = problem
    parts = [data.draw(generic.arrays((dim,), "float64")) ** 2 for dim in row_dims]
    if data.draw(st.booleans()) and row_dims[1] > 1:
        parts[1][0] = 0
    weights = np.kron(*parts)
    fit = kc.nearest_kronecker(A, row_dims, col_dims, rank, weights=weights)
    expected = two_factor_optimum(np.sqrt(weights)[:, None] * A, row_dims, col_dims, rank)
    assert abs(fit.error - expected) < CLOSE
    assert fit.iterations == 0
    assert abs(fit.error - relative_error(fit.value.to_dense(), A, weights)) < CLOSE


@settings(max_examples=10)
@given(problems(), st.data())
def test_other_weights_give_a_stationary_point_no_worse_than_its_start(problem, data):
    A, row_dims, col_dims, rank = problem
    weights = data.draw(generic.arrays((len(A),), "float64")) ** 2 + 0.1
    fit = kc.nearest_kronecker(A, row_dims, col_dims, rank, weights=weights, rng=0)
    assert abs(fit.error - relative_error(fit.value.to_dense(), A, weights)) < CLOSE
    plain = kc.nearest_kronecker(weights[:, None] / weights.max() * A, row_dims, col_dims, rank).value
    assert fit.error <= relative_error(plain.to_dense(), A, weights) + CLOSE
    ids = np.arange(len(A))
    residual = (weights[:, None] * (fit.value.to_dense() - A)).conj()
    gradients = kc.rows_vjp(fit.value.factors, ids, residual, fit.value.shape)
    size = weights.max() * np.linalg.norm(A) * max(np.linalg.norm(f) for f in fit.value.factors)
    # Steps shrink with the gain of a sweep, whose root the gradient is.
    assert not fit.converged or max(np.abs(g).max() for g in gradients) < 1e-2 * size


def test_other_weights_against_brute_force():
    """Rank one of 4 x 2: with the unit vector (cos t, sin t) for the second factor the first is explicit."""
    rng = np.random.default_rng(3)
    A, weights = rng.standard_normal((4, 2)), np.array([1.0, 0.2, 0.5, 3.0])
    best = np.inf
    for angle in np.linspace(0, np.pi, 4001):
        second = np.array([np.cos(angle), np.sin(angle)])
        left, w = A.reshape(2, 2, 2), weights.reshape(2, 2)
        first = np.einsum("ab,b,abq->aq", w, second, left) / (w @ second**2)[:, None]
        model = np.einsum("aq,b->abq", first, second)
        best = min(best, np.sum(w[:, :, None] * (left - model) ** 2))
    fit = kc.nearest_kronecker(A, (2, 2), (2, 1), 1, weights=weights, rng=0)
    assert abs(fit.error - np.sqrt(best / np.sum(weights[:, None] * A**2))) < 1e-5


@settings(max_examples=15)
@given(problems(), st.data())
def test_what_lies_outside_a_crop_is_free(problem, data):
    A, row_dims, col_dims, rank = problem
    rows, columns = data.draw(st.integers(1, len(A))), data.draw(st.integers(1, A.shape[1]))
    A = A[:rows, :columns]
    fit = kc.nearest_kronecker(A, row_dims, col_dims, rank, rng=0)
    assert fit.value.shape == A.shape
    assert abs(fit.error - relative_error(fit.value.to_dense(), A)) < CLOSE
    assert fit.error <= two_factor_optimum(A, row_dims, col_dims, rank) + CLOSE


def test_a_cropped_kronecker_matrix_is_recovered():
    matrix = kc.KroneckerMatrix.random((17, 10), row_dims=(4, 5), col_dims=(3, 4), rank=2, rng=0)
    fit = kc.nearest_kronecker(matrix.to_dense(), (4, 5), (3, 4), 2, rng=0, iterations=4000)
    assert fit.error < 1e-6


@pytest.mark.parametrize("kind", ["slices", "memmap", "sparse", "operator", "matrix"])
@pytest.mark.parametrize("shape", [(30, 20), (28, 19)])
def test_what_is_read_by_blocks_gives_the_same_fit(kind, shape, tmp_path, monkeypatch):
    monkeypatch.setattr(rearranged, "_CHUNK", 1)
    monkeypatch.setattr(rearranged, "_SMALL", 0)
    monkeypatch.setattr(sources, "_IDENTITY", 70)
    rng = np.random.default_rng(0)
    A = rng.standard_normal(shape)
    np.save(tmp_path / "A.npy", A)
    source = {
        "slices": lambda: RowSlices(A),
        "memmap": lambda: np.load(tmp_path / "A.npy", mmap_mode="r"),
        "sparse": lambda: scipy.sparse.csr_array(A),
        "operator": lambda: scipy.sparse.linalg.aslinearoperator(A),
        "matrix": lambda: kc.KroneckerMatrix([A]),
    }[kind]()
    few = {"iterations": 3, "restarts": 0}
    for options in ({"rank": 3}, {"tol": 0.8}, {"rank": 3, "weights": rng.random(shape[0])}):
        expected = kc.nearest_kronecker(A, (5, 6), (4, 5), **options, **few, rng=0)
        found = kc.nearest_kronecker(source, (5, 6), (4, 5), **options, **few, rng=0)
        # A search that grows starts by random terms draws others.
        if "tol" in options and A.size < 600:
            assert found.error <= 0.8
        else:
            assert found.value.rank == expected.value.rank
            assert abs(found.error - expected.error) < 1e-10
    assert kind != "slices" or source.most == 6


@settings(max_examples=10)
@given(problems(max_rank=6))
def test_a_partial_svd_gives_the_optimum(problem):
    A, row_dims, col_dims, rank = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(singular, "_FULL_SIDE", 0)
        patch.setattr(singular, "_SPARE", 1)
        fit = kc.nearest_kronecker(A, row_dims, col_dims, rank, rng=0)
        least = kc.nearest_kronecker(A, row_dims, col_dims, tol=0.1, rng=0)
    assert fit.converged
    assert abs(fit.error - two_factor_optimum(A, row_dims, col_dims, rank)) < 1e-10
    assert least.error <= 0.1
    assert least.value.rank == kc.nearest_kronecker(A, row_dims, col_dims, tol=0.1).value.rank


def test_a_partial_svd_restarts(monkeypatch):
    """A basis of at most 66 tables in a space of 144, and values without gaps."""
    monkeypatch.setattr(singular, "_FULL_SIDE", 0)
    sizes, orthonormal = [], singular._orthonormal

    def recorded(xp, rows):
        sizes.append(rows.shape[0])
        return orthonormal(xp, rows)

    monkeypatch.setattr(singular, "_orthonormal", recorded)
    A = np.random.default_rng(1).standard_normal((144, 144))
    fit = kc.nearest_kronecker(A, (12, 12), (12, 12), 3, rng=0)
    assert fit.converged
    assert abs(fit.error - two_factor_optimum(A, (12, 12), (12, 12), 3)) < 1e-10
    assert max(sizes) <= 66
    assert sizes.count(33) >= 2
    least = kc.nearest_kronecker(A, (12, 12), (12, 12), tol=0.9, rng=0)
    assert 4 < least.value.rank < 20
    assert least.error <= 0.9 < two_factor_optimum(A, (12, 12), (12, 12), least.value.rank - 1)


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-6), ("complex64", 1e-6), ("float16", 1e-3)])
def test_dtypes_are_kept_and_errors_are_those_of_the_rounded_value(dtype, close):
    rng = np.random.default_rng(2)
    A = rng.standard_normal((6, 6)).astype(dtype)
    for dims in ((2, 3), (6,), (1, 6)):
        fit = kc.nearest_kronecker(A, dims, dims, 36)
        assert fit.value.dtype == A.dtype
        assert relative_error(fit.value.to_dense().astype("complex128"), A.astype("complex128")) < close
        assert fit.error < close
        found = relative_error(fit.value.astype("complex128").to_dense(), A.astype("complex128"))
        assert abs(fit.error - found) < 1e-6
    fit = kc.nearest_kronecker(A, (2, 3), (3, 2), 1)
    wide = A.astype("complex128")
    assert abs(fit.error - two_factor_optimum(wide, (2, 3), (3, 2), 1)) < close


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_extreme_sizes_neither_overflow_nor_vanish(size):
    A = np.random.default_rng(2).standard_normal((6, 6))
    fit = kc.nearest_kronecker(size * A, (2, 3), (3, 2), 2)
    assert abs(fit.error - two_factor_optimum(A, (2, 3), (3, 2), 2)) < 1e-12
    assert (
        np.linalg.norm(
            fit.value.to_dense() / size - kc.nearest_kronecker(A, (2, 3), (3, 2), 2).value.to_dense()
        )
        < 1e-10
    )


def test_a_complex_operator_is_read_through_its_adjoint():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 4)) + 1j * rng.standard_normal((6, 4))
    fit = kc.nearest_kronecker(scipy.sparse.linalg.aslinearoperator(A), (2, 3), (2, 2), 2)
    assert abs(fit.error - relative_error(fit.value.to_dense(), A)) < CLOSE


def test_weights_count_for_kronecker_matrices_too():
    matrix = kc.KroneckerMatrix.random((6, 4), order=2, rank=3, rng=0)
    weights = np.arange(6.0)
    dims = (matrix.row_dims, matrix.col_dims)
    fit = kc.nearest_kronecker(matrix, *dims, 1, weights=weights, rng=0)
    assert abs(fit.error - relative_error(fit.value.to_dense(), matrix.to_dense(), weights)) < CLOSE


def test_zeros_give_one_term_of_zeros():
    for dims in ((2, 3), (6,), (1, 2, 3)):
        fit = kc.nearest_kronecker(np.zeros((prod(dims), 6)), dims, dims, 2)
        assert (fit.value.rank, fit.error, fit.converged) == (1, 0.0, True)
        assert not fit.value.to_dense().any()


def test_from_dense_chooses_dims():
    A = np.kron(np.eye(4), np.ones((3, 5)))
    fit = kc.from_dense(A, rank=2)
    assert (fit.value.row_dims, fit.value.col_dims) == (kc.suggest_dims(12, 2), kc.suggest_dims(20, 2))
    exact = kc.from_dense(A, tol=1e-12, row_dims=(4, 3), col_dims=(4, 5))
    assert exact.value.rank == 1
    assert exact.error < 1e-12
    assert kc.from_dense(A.tolist(), 3, rank=1, rng=0).value.order == 3


def test_operators_of_the_same_dims_are_recompressed():
    total = kc.KroneckerSum([np.diag([1.0, 2.0]), np.diag([3.0, 4.0, 5.0])])
    fit = kc.nearest_kronecker(total, (2, 3), (2, 3), tol=1e-12)
    assert fit.value.rank == 2
    assert relative_error(fit.value.to_dense(), total.to_dense()) < 1e-12
    product = kc.KroneckerProduct([kc.Diagonal(np.ones(2)), np.ones((3, 3))])
    assert kc.nearest_kronecker(product, (2, 3), (2, 3), 1).error < CLOSE
    assert kc.nearest_kronecker(product, (3, 2), (3, 2), 9).error < 1e-12
