"""More modes than NumPy has axes, most of one element: nothing multiplied out has an axis per mode."""

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg, ops
from tests.linalg_problems import near

ONES = 70
LAST = ((3, 3), (2, 2))


def many(terms=1, seed=0, symmetric=False):
    """A matrix of 72 modes, and the same of the last two and one of one element."""
    rng = np.random.default_rng(seed)
    ones = [rng.uniform(0.8, 1.2, (terms, 1, 1)) for _ in range(ONES)]
    rest = [rng.standard_normal((terms, *shape)) for shape in LAST]
    if symmetric:
        rest = [f + f.swapaxes(1, 2) for f in rest]
    few = [np.prod(ones, axis=0), *rest]
    at = ONES // 2
    return kc.KroneckerMatrix([*ones[:at], rest[0], *ones[at:], rest[1]]), kc.KroneckerMatrix(few)


def test_rows_and_their_gradients():
    long, short = many(terms=2)
    assert np.allclose(long.to_dense(), short.to_dense(), rtol=1e-12)
    index, cotangent = np.arange(6), np.random.default_rng(1).standard_normal((6, 6))
    found = ops.rows_vjp(long.factors, index, cotangent)
    expected = ops.rows_vjp(short.factors, index, cotangent)
    near(found[ONES // 2], expected[1])
    near(found[-1], expected[2])


@pytest.mark.parametrize("symmetric", [False, True])
def test_systems_and_gradients_with_a_shift(symmetric):
    long, short = many(symmetric=symmetric)
    b = np.arange(1.0, 7)
    near(linalg.solve(long, b, 0.7), linalg.solve(short, b, 0.7))
    found = ops.kron_solve_vjp(long.factors, b, np.array(0.7), b)
    expected = ops.kron_solve_vjp(short.factors, b, np.array(0.7), b)
    near(found[0][ONES // 2], expected[0][1])
    near(found[0][-1], expected[0][2])
    near(found[2], expected[2])
    found = ops.kron_slogdet_vjp(long.factors, np.array(0.7), (np.array(1.0), np.array(1.0)))
    expected = ops.kron_slogdet_vjp(short.factors, np.array(0.7), (np.array(1.0), np.array(1.0)))
    near(found[0][ONES // 2], expected[0][1])
    near(found[0][-1], expected[0][2])


def test_kronecker_sums():
    rng = np.random.default_rng(0)
    scalars, rest = rng.uniform(-0.1, 0.1, ONES), [rng.standard_normal(shape) for shape in LAST]
    for dtype in (float, complex):
        one = np.array([[scalars.sum()]], dtype)
        long = kc.KroneckerSum([rest[0], *(np.array([[s]], dtype) for s in scalars), rest[1]])
        short = kc.KroneckerSum([rest[0], one, rest[1]])
        b = rng.standard_normal((6, 2))
        near(linalg.solve(long, b, 0.3), np.linalg.solve(short.to_dense() + 0.3 * np.eye(6), b), dtype=dtype)


def test_fits():
    rng = np.random.default_rng(0)
    A = rng.standard_normal((6, 6))
    dims = (*(1,) * ONES, 3, 2)
    expected = kc.nearest_kronecker(A, (3, 2), (3, 2), 2)
    for options in ({}, {"weights": np.ones(6)}):
        fit = kc.nearest_kronecker(A, dims, dims, 2, **options)
        assert fit.value.row_dims == dims
        near(fit.value.to_dense(), expected.value.to_dense())
        assert fit.error == pytest.approx(expected.error, abs=1e-12)
    assert kc.nearest_kronecker(A[:1, :1], (1,) * ONES, (1,) * ONES, 2).error == 0.0
    fit = kc.from_dense(A, 66, 2, rng=0, iterations=5, restarts=0)
    assert fit.error == pytest.approx(np.linalg.norm(fit.value.to_dense() - A) / np.linalg.norm(A))
    with pytest.raises(
        ValueError, match=r"^row_dims and col_dims must have a product below 576460752303423488"
    ):
        kc.nearest_kronecker(A, (2,) * ONES, (2,) * ONES, 1)


@pytest.mark.parametrize("order", [5, ONES])
def test_kets_whose_terms_differ_in_few_modes(order):
    """The core has an axis for each mode in which they do."""
    rng = np.random.default_rng(1)
    same = [np.repeat(rng.uniform(0.5, 1.0, (1, 2)), 3, axis=0) for _ in range(order - 3)]
    ket = kc.Ket([*same, *(rng.standard_normal((3, 3)) for _ in range(3))])
    fit = kc.recompress(ket, 2, rng=0)
    assert (fit.value.rank, fit.value.dims) == (2, ket.dims)
    assert 1e-4 < fit.error < 0.9
    left = ket + (-1.0) * fit.value
    assert float(left.norm() / ket.norm()) == pytest.approx(fit.error, rel=1e-6)


def test_the_trace_of_modes_that_are_square_together():
    """Each pair of oblong modes is a square one, of 8 by 8; the diagonal itself would take for ever."""
    rng = np.random.default_rng(0)
    pairs = [rng.standard_normal((1, *dims)) for dims in ((2, 4), (4, 2), (1, 8), (8, 1))]
    m = kc.KroneckerMatrix([*pairs, *[np.ones((1, 2, 4)), np.ones((1, 4, 2))] * 22])
    expected = np.trace(kc.KroneckerMatrix(pairs).to_dense()) * 8.0**22
    np.testing.assert_allclose(float(m.trace()), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(24, 24), (17, 23), (5, 24), (1, 1)])
def test_a_cropped_trace_of_modes_that_are_square_together(shape):
    rng = np.random.default_rng(1)
    m = kc.KroneckerMatrix([rng.standard_normal((2, *dims)) for dims in ((3, 3), (2, 4), (4, 2))], shape)
    np.testing.assert_allclose(float(m.trace()), np.trace(m.to_dense()), rtol=1e-12, atol=1e-12)
