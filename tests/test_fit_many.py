"""nearest_kronecker with three modes and more: alternating least squares from several starts."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from ketcore.fit import als, rearranged
from tests import generic
from tests.fit_problems import RowSlices, problems, relative_error

CLOSE = 1e-12
ORDERS = st.integers(3, 4)


@st.composite
def sums(draw, max_rank=2):
    """A KroneckerMatrix of order 3 or 4 whose modes are wide enough to tell its terms apart."""
    order = draw(ORDERS)
    dims = [draw(testing.mode_dims(order, max_dim=3, max_size=18)) for _ in range(2)]
    dims[1] = tuple(max(q, 2 // p) for p, q in zip(*dims, strict=True))
    dtype = draw(st.sampled_from(("float64", "complex128")))
    return draw(
        generic.kronecker_matrices(
            row_dims=dims[0],
            col_dims=dims[1],
            rank=draw(st.integers(1, max_rank)),
            dtype=dtype,
            cropped=False,
        )
    )


def test_a_sum_of_few_terms_is_recovered(xp):
    def body(matrix):
        A, seen = matrix.to_dense(), []
        for options in ({"rank": matrix.rank}, {"tol": 1e-10, "callback": lambda i, e: seen.append(e)}):
            fit = kc.nearest_kronecker(xp.asarray(A), matrix.row_dims, matrix.col_dims, **options, rng=0)
            assert fit.error < 1e-10
            assert fit.value.rank <= matrix.rank
            assert abs(fit.error - relative_error(testing.to_numpy(fit.value.to_dense()), A)) < CLOSE

        # A difference of squares would tell errors of 1e-8 and larger ones alone.
        assert not seen or abs(seen[-1] - fit.error) < CLOSE

    xp.check(sums(), body)


@settings(max_examples=15)
@given(st.data())
def test_sweeps_do_not_increase_the_error(data):
    A, row_dims, col_dims, rank = data.draw(problems(order=data.draw(ORDERS)))
    kind = data.draw(st.sampled_from(("plain", "weights", "crop")))
    weights = data.draw(generic.arrays((len(A),), "float64")) ** 2 if kind == "weights" else None
    A = A[: max(1, len(A) - 1), : max(1, A.shape[1] - 1)] if kind == "crop" else A
    seen, starts = [], []

    def progress(iteration, error):
        # The first error of a start may be above the last one of the start before.
        starts.append(iteration - 1) if not seen or error > seen[-1] + CLOSE else None
        seen.append(error)
        assert iteration == len(seen)

    fit = kc.nearest_kronecker(
        A, row_dims, col_dims, rank, weights=weights, restarts=0, iterations=40, rng=0, callback=progress
    )
    assert len(starts) <= 2
    assert fit.iterations == len(seen)
    assert abs(fit.error - relative_error(fit.value.to_dense(), A, weights)) < CLOSE
    if seen:
        assert abs(fit.error - min(seen)) < 1e-7


@settings(max_examples=10)
@given(problems(order=3, max_rank=2))
def test_a_fit_is_no_worse_than_its_split_and_no_better_than_two_factors_allow(problem):
    A, row_dims, col_dims, rank = problem
    fit = kc.nearest_kronecker(A, row_dims, col_dims, rank, rng=0, restarts=0, iterations=50)
    joined = [(dims[0], dims[1] * dims[2]) for dims in (row_dims, col_dims)]
    assert fit.error >= kc.nearest_kronecker(A, *joined, rank).error - CLOSE
    assert fit.error <= 1 + CLOSE


@settings(max_examples=6)
@given(problems(order=3, max_rank=2), st.data())
def test_a_fit_is_stationary(problem, data):
    A, row_dims, col_dims, rank = problem
    weights = data.draw(generic.arrays((len(A),), "float64")) ** 2 + 0.1
    weights = weights if data.draw(st.booleans()) else None
    fit = kc.nearest_kronecker(A, row_dims, col_dims, rank, weights=weights, rng=0, restarts=0)
    scale = 1.0 if weights is None else weights[:, None]
    residual = (scale * (fit.value.to_dense() - A)).conj()
    gradients = kc.rows_vjp(fit.value.factors, np.arange(len(A)), residual, fit.value.shape)
    size = np.max(scale) * np.linalg.norm(A) * max(np.linalg.norm(f) for f in fit.value.factors) ** 2
    assert not fit.converged or max(np.abs(g).max() for g in gradients) < 1e-2 * size


@settings(max_examples=10)
@given(problems(order=3, max_rank=2), st.data())
def test_weights_of_zero_and_crops_hide_elements(problem, data):
    """Elements that no weight looks at change nothing, whatever they are."""
    A, row_dims, col_dims, rank = problem
    weights = np.array([data.draw(st.sampled_from((0.0, 1.0))) for _ in A])
    weights[0] = 1.0
    other = np.where(weights[:, None] == 0, 1e3, A)
    fits = [
        kc.nearest_kronecker(m, row_dims, col_dims, rank, weights=weights, restarts=0, iterations=5, rng=0)
        for m in (A, other)
    ]
    assert abs(fits[0].error - fits[1].error) < 1e-9
    rows = int(np.max(np.nonzero(weights))) + 1
    cropped = kc.nearest_kronecker(
        A[:rows], row_dims, col_dims, rank, weights=weights[:rows], restarts=0, iterations=5, rng=0
    )
    assert abs(fits[0].error - cropped.error) < 1e-9


def test_a_cropped_embedding_table_is_read_by_blocks(monkeypatch):
    monkeypatch.setattr(rearranged, "_CHUNK", 1)
    monkeypatch.setattr(rearranged, "_SMALL", 0)
    table = kc.KroneckerMatrix.random((30, 16), row_dims=(2, 2, 3, 3), col_dims=(2,) * 4, rank=2, rng=1)
    A = table.to_dense() + 0.01 * np.random.default_rng(0).standard_normal((30, 16))
    source = RowSlices(A)
    fit = kc.nearest_kronecker(source, (2, 2, 3, 3), (2,) * 4, 2, rng=0)
    assert source.most == 9
    assert fit.value.shape == (30, 16)
    assert abs(fit.error - relative_error(fit.value.to_dense(), A)) < CLOSE
    assert fit.error < 0.02 * np.sqrt(A.size) / np.linalg.norm(A)


@pytest.mark.parametrize("weights", [None, np.arange(1.0, 13.0)])
def test_a_tolerance_is_reached_with_warm_starts(weights):
    A = np.random.default_rng(0).standard_normal((12, 12))
    errors = []
    fit = kc.nearest_kronecker(
        A,
        (2, 3, 2),
        (3, 2, 2),
        tol=0.8,
        weights=weights,
        restarts=0,
        rng=0,
        callback=lambda i, e: errors.append(e),
    )
    assert fit.error <= 0.8
    assert abs(fit.error - relative_error(fit.value.to_dense(), A, weights)) < CLOSE
    assert fit.iterations == len(errors)
    capped = kc.nearest_kronecker(A, (2, 3, 2), (3, 2, 2), 2, tol=0.1, weights=weights, rng=0, iterations=20)
    assert capped.value.rank == 2
    assert capped.error > 0.1


def test_a_seed_gives_the_same_fit_and_iterations_are_a_limit():
    A = np.random.default_rng(0).standard_normal((12, 12))
    first, second = (kc.nearest_kronecker(A, (2, 3, 2), (3, 2, 2), 3, rng=5) for _ in range(2))
    assert first.error == second.error
    short = kc.nearest_kronecker(A, (2, 3, 2), (3, 2, 2), 3, rng=5, restarts=1, iterations=1)
    assert (short.converged, short.iterations) == (False, 3)
    assert short.error >= first.error


def test_options_that_are_left_out_are_two_restarts_and_200_sweeps():
    """By the sweeps of all starts: two terms come ever nearer to this sum of three, and never settle."""
    zero, one = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    ket = kc.Ket([np.stack(leaves) for leaves in ([one, zero, zero], [zero, one, zero], [zero, zero, one])])
    A = ket.to_dense()[:, None]
    for fit in (
        lambda **options: kc.nearest_kronecker(A, (2, 2, 2), (1, 1, 1), 2, rng=0, **options),
        lambda **options: kc.from_dense(A, 3, 2, rng=0, **options),
        lambda **options: kc.recompress(ket, 2, rng=0, **options),
    ):
        taken = [fit(iterations=4, restarts=count).iterations for count in (1, 2, 3)]
        assert taken[0] < fit(iterations=4).iterations == taken[1] < taken[2]
        taken = [fit(iterations=count, restarts=1).iterations for count in (199, 200, 201)]
        assert taken[0] < fit(restarts=1).iterations == taken[1] < taken[2]


def test_more_terms_than_the_halves_have():
    """Terms beyond those of the halves, of two and four elements, start from random leaves."""
    A = np.random.default_rng(0).standard_normal((4, 2))
    fit = kc.nearest_kronecker(A, (2, 2, 1), (1, 1, 2), 4, rng=0, restarts=0)
    assert fit.value.rank == 4
    assert fit.error < 1e-10


def test_a_singular_gamma_leaves_leaves_where_they_were():
    gamma, before = np.zeros((2, 1, 2, 2)), np.ones((2, 1, 2, 3))
    gamma[1] = np.eye(2)
    found = als.damped_solve(gamma, np.zeros_like(before), before)
    assert np.array_equal(found[0], before[0])
    assert np.abs(found[1]).max() < 1e-14
    same = np.ones((2, 2))
    found = als.damped_solve(same, np.full((2, 1), 2.0), np.zeros((2, 1)))
    assert np.allclose(found, 1.0)


def test_a_leaf_of_zeros_keeps_its_direction():
    leaves, before = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    units, sizes = als._unit(leaves, before)
    assert units.tolist() == [[1.0, 0.0], [0.6, 0.8]]
    assert sizes.tolist() == [[0.0], [5.0]]


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-5), ("complex64", 1e-5), ("float16", 2e-3)])
def test_dtypes_are_kept(dtype, close):
    matrix = kc.KroneckerMatrix.random((12, 8), row_dims=(2, 3, 2), col_dims=(2, 2, 2), rank=2, rng=0)
    A = matrix.to_dense().astype(dtype)
    fit = kc.nearest_kronecker(A, (2, 3, 2), (2, 2, 2), 2, rng=0)
    assert fit.value.dtype == A.dtype
    found = relative_error(fit.value.to_dense().astype("complex128"), A.astype("complex128"))
    assert found < close
    assert abs(found - fit.error) < close / 3
    assert prod(fit.value.row_dims) == 12


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_extreme_sizes_neither_overflow_nor_vanish(size):
    A = np.random.default_rng(0).standard_normal((8, 8))
    first, second = (
        kc.nearest_kronecker(m, (2, 2, 2), (2, 2, 2), 2, restarts=0, iterations=20, rng=0)
        for m in (A, size * A)
    )
    assert abs(first.error - second.error) < 1e-6
    assert np.allclose(second.value.to_dense() / size, first.value.to_dense(), atol=1e-4)
