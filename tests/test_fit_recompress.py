"""recompress: fewer terms for kets and matrices, against the dense sum."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from ketcore.fit import fewer_terms
from ketcore.fit.flat_leaves import terms_norm
from ketcore.fit.merge import merged_terms
from ketcore.fit.recompress import _nearest_part
from tests import generic
from tests.fit_problems import relative_error, two_factor_optimum

CLOSE = 1e-12


def test_two_modes_give_the_optimum(xp):
    def body(matrix):
        A = matrix.to_dense()
        expected = two_factor_optimum(A, matrix.row_dims, matrix.col_dims, 1)
        found = kc.KroneckerMatrix([xp.asarray(f) for f in matrix.factors])
        fit = kc.recompress(found, 1)
        assert (fit.value.shape, fit.value.rank) == (matrix.shape, 1)
        assert type(fit.value.factors[0]) is type(found.factors[0])
        assert abs(fit.error - expected) < CLOSE
        assert abs(fit.error - relative_error(testing.to_numpy(fit.value.to_dense()), A)) < CLOSE
        assert kc.recompress(found, tol=1e-12).error < 1e-12
        assert kc.recompress(found, tol=1e-12).value.rank <= matrix.rank

    dtypes = st.sampled_from(("float64", "complex128"))
    xp.check(dtypes.flatmap(lambda d: generic.kronecker_matrices(order=2, cropped=False, dtype=d)), body)


@given(generic.kronecker_matrices(dtype="float64"))
def test_the_error_is_that_of_the_leading_block(matrix):
    fit = kc.recompress(matrix, 1, rng=0, restarts=0, iterations=20)
    assert fit.value.shape == matrix.shape
    assert abs(fit.error - relative_error(fit.value.to_dense(), matrix.to_dense())) < CLOSE
    fit = kc.recompress(matrix, tol=0.3, rng=0, restarts=0, iterations=20)
    assert fit.error <= 0.3
    assert abs(fit.error - relative_error(fit.value.to_dense(), matrix.to_dense())) < CLOSE


def test_what_a_crop_hides_does_not_count_towards_the_tolerance():
    """The first term has nearly all of the whole, the rows outside the block nearly all of that."""
    first = np.array([[[1.0], [1e3]], [[1.0], [0.0]]])
    second = np.array([np.eye(2), [[0.0, 1.0], [-1.0, 0.0]]])
    assert kc.recompress(kc.KroneckerMatrix([first, second]), tol=0.1).value.rank == 1
    fit = kc.recompress(kc.KroneckerMatrix([first, second], (2, 2)), tol=0.1)
    assert fit.value.rank == 2
    assert fit.error < 1e-12


@settings(max_examples=15)
@given(generic.kets(dtype="float64"), st.data())
def test_repeated_terms_are_found(ket, data):
    scales = data.draw(st.lists(st.sampled_from((-2.0, 0.0, 1.0, 3.0)), min_size=1, max_size=3))
    total = ket
    for scale in scales:
        total = total + scale * ket
    fit = kc.recompress(total, ket.rank, rng=0)
    assert fit.value.shape == ket.shape
    assert np.shape(fit.error) == ket.batch_shape
    factor = 1 + sum(scales)
    if factor:
        assert np.all(np.asarray(fit.error) < 1e-12)
    assert np.abs(fit.value.to_dense() - factor * ket.to_dense()).max(initial=0.0) < 1e-11


@settings(max_examples=15)
@given(generic.kets(dtype="complex128", rank=3))
def test_kets_are_fitted_one_by_one(ket):
    fit = kc.recompress(ket, 2, rng=0, restarts=0, iterations=20)
    dense, given_dense = fit.value.to_dense(), ket.to_dense()
    norms = np.linalg.norm(given_dense, axis=-1)
    errors = np.linalg.norm(dense - given_dense, axis=-1) / norms
    assert np.abs(np.asarray(fit.error) - errors).max(initial=0.0) < CLOSE
    assert fit.value.rank <= 2
    for index in np.ndindex(*ket.batch_shape):
        alone = kc.recompress(ket[index], 2, rng=0, restarts=0, iterations=20)
        if len(ket.batch_shape) == 0 or sum(index) == 0:
            assert abs(alone.error - errors[index]) < 1e-9
        assert isinstance(alone.error, float)


def test_a_batch_is_padded_to_one_number_of_terms():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((2, 3, 4)) for _ in range(2)]
    factors[0][1, 1:] = 0
    fit = kc.recompress(kc.Ket(factors), tol=1e-12)
    assert fit.value.rank == 3
    assert not fit.value.factors[0][1, 1:].any()
    assert kc.recompress(kc.Ket([np.ones((0, 2, 3))]), 1).value.shape == (0, 3)


@pytest.mark.parametrize("limit", [0, 1 << 21])
def test_products_of_leaves_and_cores_agree(limit, monkeypatch):
    """Without a dense core the fit goes by inner products alone."""
    monkeypatch.setattr(fewer_terms, "_CORE", limit)
    matrix = kc.KroneckerMatrix.random((24, 24), row_dims=(2, 3, 4), col_dims=(4, 3, 2), rank=3, rng=0)
    noise = 1e-3 * kc.KroneckerMatrix.random((24, 24), row_dims=(2, 3, 4), col_dims=(4, 3, 2), rank=3, rng=1)
    seen = []
    fit = kc.recompress(matrix + noise, 3, rng=0, callback=lambda i, e: seen.append(e))
    assert fit.error < 2e-3
    assert fit.iterations == len(seen)
    assert abs(fit.error - relative_error(fit.value.to_dense(), (matrix + noise).to_dense())) < CLOSE
    fit = kc.recompress(matrix + noise, tol=2e-3, rng=0)
    assert fit.value.rank == 3
    assert fit.error <= 2e-3
    fit = kc.recompress(matrix + noise, tol=1e-14, rng=0, restarts=0, iterations=3)
    assert fit.value.rank == 6
    assert fit.error < 1e-14


def test_a_ket_too_long_to_be_dense():
    """2^60 elements: two terms, one of them given in two parts that differ in one mode."""
    rng = np.random.default_rng(0)
    one, two = (kc.Ket([rng.standard_normal((1, 2)) for _ in range(60)]) for _ in range(2))
    parts = [f.copy() for f in one.factors]
    parts[7] = rng.standard_normal((1, 2))
    fit = kc.recompress((one + kc.Ket(parts) + 1e-3 * two).balance(), 2)
    assert fit.value.rank == 2
    assert fit.error < 1e-13
    fit = kc.recompress(one + 1e-6 * two, 1, rng=0)
    assert fit.value.rank == 1
    assert 0 < fit.error < 1e-5 * float(two.norm() / one.norm())


def test_a_sum_that_cancels_is_zero():
    matrix = kc.KroneckerMatrix.random((64, 64), order=3, rank=3, rng=0)
    for zero in (matrix + 2 * matrix - 3 * matrix, matrix * 0):
        fit = kc.recompress(zero, 2)
        assert (fit.value.rank, fit.error, fit.converged) == (1, 0.0, True)
        assert not fit.value.to_dense().any()
    small = kc.recompress(matrix - (1 + 1e-6) * matrix, 3, rng=0)
    assert relative_error(small.value.to_dense(), -1e-6 * matrix.to_dense()) < 1e-8


@given(generic.kets(dtype="float64", batch_shape=()))
def test_merged_terms_have_the_same_sum(ket):
    doubled = [np.concatenate([f, f[::-1]]) for f in ket.factors]
    doubled[0][0] *= -3.0
    found = merged_terms(doubled)
    assert len(found[0]) <= ket.rank
    expected = kc.Ket(doubled).to_dense()
    sums = kc.Ket(found).to_dense() if len(found[0]) else 0 * expected
    assert (
        np.abs(sums - expected).max() < 1e-12 * np.abs(kc.Ket([np.abs(f) for f in doubled]).to_dense()).max()
    )


def test_terms_that_differ_in_one_mode_are_one():
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.standard_normal(3) for _ in range(4))
    found = merged_terms([np.stack([a, a]), np.stack([b, 2 * b]), np.stack([c, d])])
    assert [len(leaf) for leaf in found] == [1, 1, 1]
    assert np.allclose(kc.Ket(found).to_dense(), np.kron(np.kron(a, b), c + 2 * d))
    assert len(merged_terms([np.stack([a, a]), np.stack([b, d]), np.stack([c, d])])[0]) == 2
    near = b + 1e-9 * d
    assert len(merged_terms([np.stack([a, a]), np.stack([b, near]), np.stack([c, d])])[0]) == 2
    cancelled = merged_terms([np.stack([a, -a, c]), np.stack([b, b, d]), np.stack([c, c, a])])
    assert np.allclose(kc.Ket(cancelled).to_dense(), np.kron(np.kron(c, d), a))
    assert len(cancelled[0]) == 1


@given(generic.kets(batch_shape=(), dtype="complex128"))
def test_the_norm_of_terms_survives_cancellation(ket):
    norm = np.linalg.norm(ket.to_dense())
    assert abs(terms_norm(ket.factors) - norm) < 1e-13 * max(1.0, norm) * ket.rank
    near = ket + (1 + 1e-9) * -ket
    assert abs(terms_norm(near.factors) - 1e-9 * norm) < 1e-13 * max(1.0, norm) * ket.rank


@pytest.mark.parametrize(("dtype", "close"), [("float32", 1e-6), ("float16", 2e-3)])
def test_dtypes_are_kept_and_errors_are_those_of_the_rounded_value(dtype, close):
    matrix = kc.KroneckerMatrix.random((16, 16), order=2, rank=2, rng=0, dtype=dtype)
    ket = kc.Ket([f.reshape(2, 16) for f in matrix.factors])
    for x in (matrix + matrix, ket + ket):
        fit = kc.recompress(x, 2)
        assert fit.value.dtype == x.dtype
        given, found = (np.atleast_2d(y.astype("float64").to_dense()) for y in (x, fit.value))
        assert fit.error < close
        assert abs(fit.error - relative_error(found, given)) < max(1e-6, close / 50)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_extreme_sizes_neither_overflow_nor_vanish(size):
    # A fit that does not creep to its end, where rounding would say how far it comes.
    matrix = kc.KroneckerMatrix.random((8, 8), order=3, rank=3, rng=1)
    scaled = kc.KroneckerMatrix([matrix.factors[0] * size, matrix.factors[1] / size, matrix.factors[2]])
    for order_of in (lambda m: m, lambda m: kc.Ket([f.reshape(3, 4) for f in m.factors])):
        first, second = (kc.recompress(order_of(m), 2, rng=0) for m in (matrix, scaled))
        assert abs(first.error - second.error) < 1e-9
        assert np.allclose(first.value.to_dense(), second.value.to_dense(), atol=1e-6)


@pytest.mark.parametrize("dims", [(4, 6), (3, 2, 4)])
def test_a_small_term_is_not_lost(dims):
    rng = np.random.default_rng(0)
    large, small = (kc.Ket([rng.standard_normal((1, dim)) for dim in dims]) for _ in range(2))
    total = large + 1e-6 * small
    fit = kc.recompress(total + total, tol=1e-9, rng=0)
    assert fit.value.rank == 2
    assert relative_error(fit.value.to_dense()[None], 2 * total.to_dense()[None]) < 1e-12
    assert 1e-8 < kc.recompress(total, 1, rng=0).error < 1e-5


def test_order_one_and_no_terms():
    fit = kc.recompress(kc.KroneckerMatrix([np.stack([np.eye(2), np.ones((2, 2))])]), 1)
    assert fit.value.to_dense().tolist() == [[2.0, 1.0], [1.0, 2.0]]
    fit = kc.recompress(kc.Ket([np.ones((0, 2)), np.ones((0, 3))]), 1)
    assert fit.value.to_dense().tolist() == [0.0] * prod((2, 3))


@pytest.mark.parametrize(("times", "rank"), [(1.5, 1), (2.5, 0)])
def test_terms_farther_from_a_crop_than_nothing_are_left_out(times, rank):
    """|x - s x|^2 is below |x|^2 for s < 2."""
    x = kc.KroneckerMatrix([np.ones((2, 2)), np.arange(1.0, 5.0).reshape(2, 2)], (3, 3))
    kept = _nearest_part(x, x * times)
    assert kept.shape == (3, 3)
    assert bool(kept.to_dense().any()) == bool(rank)
