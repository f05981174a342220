"""Operations on square factors, beyond the tests of every operation: accuracy, singular input, dtypes."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore as kc
from ketcore.testing import assert_dense_equal, to_numpy
from tests.operator_problems import KINDS, kron, well_conditioned

RNG = np.random.default_rng(31)


def symmetric(size, condition, dtype="float64"):
    """A symmetric positive definite matrix with eigenvalues from 1 to `condition`, as a factor."""
    basis = np.linalg.qr(RNG.standard_normal((size, size)))[0]
    matrix = (basis * np.geomspace(1, condition, size)) @ basis.T
    return ((matrix + matrix.T) / 2).astype(dtype)[None]


def by_modes(factors, b):
    """M^-1 b in float64 by LU of each factor: the accuracy to reach."""
    x = b.astype(np.float64)
    inner = b.shape[-1]
    for factor in factors:
        size = factor.shape[1]
        inner //= size
        x = np.moveaxis(x.reshape(-1, size, inner), 1, 0)
        x = np.linalg.solve(factor[0].astype(np.float64), x.reshape(size, -1)).reshape(x.shape)
        x = np.moveaxis(x, 0, 1).reshape(b.shape)
    return x


def residual(factors, x, b):
    """|M x - b| / |b| in extended precision."""
    y = x.astype(np.longdouble)
    inner = b.shape[-1]
    for factor in factors:
        size = factor.shape[1]
        inner //= size
        y = np.einsum("ij,ojk->oik", factor[0].astype(np.longdouble), y.reshape(-1, size, inner))
        y = y.reshape(b.shape)
    return float(np.linalg.norm((y - b).astype(np.float64)) / np.linalg.norm(b))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("condition", [2.0, 60.0, 1e4, 1e9])
@pytest.mark.parametrize("smooth", [False, True])
def test_the_residual_is_that_of_a_factorisation(dtype, condition, smooth):
    """Also for b along the largest eigenvalue, where a product with the inverse is at its worst."""
    factors = [symmetric(size, condition, dtype) for size in (16, 24, 16)]
    b = RNG.standard_normal((3, 16 * 24 * 16))
    if smooth:
        top = [np.linalg.eigh(factor[0])[1][:, -1] for factor in factors]
        b = b[:, :1] * np.kron(np.kron(*top[:2]), top[2])
    b = b.astype(dtype)
    x = kc.kron_solve(factors, b)
    assert x.dtype == dtype
    # What is left where the solution of a factorisation in float64 is rounded to the dtype.
    reached = residual(factors, by_modes(factors, b).astype(dtype), b)
    assert residual(factors, x, b) <= 2.5 * reached + np.finfo(dtype).eps


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("condition", [100.0, 1e9])
def test_many_right_hand_sides_are_solved_in_pieces(axis, condition, monkeypatch):
    monkeypatch.setattr(sys.modules["ketcore.ops.kron_solve"], "_CHUNK", 5000)
    factors = [symmetric(size, condition) for size in (8, 6, 5)]
    b = RNG.standard_normal((70, 240))
    given = b if axis == -1 else b.reshape(7, 10, 240).swapaxes(1, 2)
    x = kc.kron_solve(factors, given, axis=axis)
    found = x if axis == -1 else x.swapaxes(1, 2).reshape(70, 240)
    assert x.shape == given.shape
    assert residual(factors, found, b) <= 2 * residual(factors, by_modes(factors, b), b)


def test_float32_at_condition_1000_keeps_its_digits():
    """An explicit inverse in float32 leaves 1e-5 here."""
    factors = [symmetric(20, 1e3, "float32"), symmetric(20, 1.0, "float32")]
    b = RNG.standard_normal((4, 400)).astype("float32")
    b = (b @ kron(factors)).astype("float32")
    assert residual(factors, kc.kron_solve(factors, b), b) < 1.5e-7


@given(
    st.sampled_from(KINDS),
    st.sampled_from(("float64", "complex128")),
    st.sampled_from((-3.0, 0.05, 2.5 + 1j, -2.75j)),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=25)
def test_shifts_of_every_kind(kind, dtype, shift, seed):
    """Also complex ones of real factors, and factors of different kinds."""
    rng = np.random.default_rng(seed)
    kinds = (kind, rng.choice(KINDS), rng.choice(KINDS))
    factors = [
        well_conditioned(rng, size, kind, dtype)[None] for size, kind in zip((2, 3, 3), kinds, strict=True)
    ]
    b = rng.standard_normal((18, 2))
    x = kc.kron_solve(factors, b, shift, axis=-2)
    assert x.dtype == np.result_type(
        dtype, np.min_scalar_type(shift) if isinstance(shift, complex) else dtype
    )
    expected = np.linalg.solve(kron(factors) + shift * np.eye(18), b)
    assert_dense_equal(x, expected, terms=18, scale=100 * np.abs(expected).max())
    sign, logabsdet = kc.kron_slogdet(factors, shift)
    wanted = np.linalg.slogdet(kron(factors) + shift * np.eye(18))
    assert sign.dtype == wanted[0].dtype
    assert abs(sign - wanted[0]) < 1e-10
    assert abs(logabsdet - wanted[1]) < 1e-10


def test_a_determinant_keeps_sign_and_phase_to_any_power():
    flip, turn = np.array([[[0.0, 1.0], [1.0, 0.0]]]), np.diag([1.0, np.exp(0.3j)])[None]
    assert [float(value) for value in kc.kron_slogdet((flip, np.eye(3)[None]))] == [-1.0, 0.0]
    assert [float(value) for value in kc.kron_slogdet((flip, np.eye(2)[None]))] == [1.0, 0.0]
    sign, logabsdet = kc.kron_slogdet((turn, np.eye(5)[None]))
    assert abs(sign - np.exp(1.5j)) < 1e-14
    assert logabsdet == pytest.approx(0.0, abs=1e-14)


@pytest.mark.parametrize("shift", [None, 0.0, -2.0])
def test_a_singular_determinant_is_zero(shift):
    factors = (np.diag([1.0, 2.0, 0.0])[None], np.eye(2)[None])
    factors = factors if shift != -2.0 else (np.diag([1.0, 2.0, 3.0])[None], np.eye(2)[None])
    sign, logabsdet = kc.kron_slogdet(factors, shift)
    assert float(sign) == 0.0
    assert float(logabsdet) == -np.inf


SINGULAR = [
    np.array([[1.0, 2.0], [2.0, 4.0]]),
    np.arange(1.0, 10.0).reshape(3, 3),  # singular but for rounding
    np.zeros((2, 2)),
    np.arange(1600.0).reshape(40, 40),  # of rank 2
]


@pytest.mark.parametrize("singular", SINGULAR, ids=["exactly", "to rounding", "zero", "large"])
@pytest.mark.parametrize("columns", [1, 5000])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_singular_factor_is_named(singular, columns, dtype):
    factors = (np.eye(2, dtype=dtype)[None], singular.astype(dtype)[None])
    b = RNG.standard_normal((2 * len(singular), columns))
    with pytest.raises(
        np.linalg.LinAlgError, match=r"factors must be invertible, got factor 1 of reciprocal"
    ):
        kc.kron_solve(factors, b, axis=-2)


@pytest.mark.parametrize("factor", [np.diag([1.0, 2.0]), np.array([[1.0, 5.0], [0.0, 2.0]])])
def test_a_shift_by_an_eigenvalue_is_an_error(factor):
    factors, b = (factor[None], np.eye(2)[None]), np.ones(4)
    for call in (kc.kron_solve, lambda f, b, s: kc.kron_slogdet_vjp(f, s, (np.ones(()), np.ones(())))):
        with pytest.raises(
            np.linalg.LinAlgError, match=r"shift must not be minus an eigenvalue .*, got -2.0"
        ):
            call(factors, b, -2.0)


def test_a_matrix_of_order_1_may_have_terms():
    terms = RNG.standard_normal((3, 4, 4))
    b = RNG.standard_normal(4)
    assert_dense_equal(kc.kron_solve((terms,), b), np.linalg.solve(terms.sum(0), b), scale=100.0)
    gradient = kc.kron_solve_vjp((terms,), b, None, np.ones(4))[0][0]
    assert np.array_equal(gradient[0], gradient[2])


@pytest.mark.parametrize("name", ["kron_solve", "kron_slogdet", "kron_log_likelihood"])
def test_a_sum_of_terms_has_no_closed_form(name):
    factors = (np.ones((2, 2, 2)), np.ones((2, 3, 3)))
    more = {"kron_slogdet": (), "kron_solve": (np.ones(6),), "kron_log_likelihood": (np.ones(6), 1.0)}[name]
    with pytest.raises(
        TypeError, match=r"factors must have rank 1 for a closed form, got rank 2 .*linalg\.cg"
    ):
        getattr(kc, name)(factors, *more)
    with pytest.raises(ValueError, match=r"factors must be square, got shapes \[\(1, 2, 3\)\]"):
        getattr(kc, name)((np.ones((1, 2, 3)),), *more)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_a_shift_does_not_widen(dtype):
    factors, b = [np.eye(3, dtype=dtype)[None]] * 2, np.ones(9, dtype)
    for shift in (1, 1.0, np.float64(1.0), np.array(1.0)):
        assert kc.kron_solve(factors, b, shift).dtype == dtype
        assert kc.kron_slogdet(factors, shift)[0].dtype == dtype
    to_shift = kc.kron_solve_vjp(factors, b, np.array(1.0), b)[2]
    assert to_shift.dtype == np.float64
    assert kc.kron_solve(factors, b, 1j).dtype == "complex64"


def test_gradients_of_real_arguments_are_real():
    factors, b = [symmetric(2, 2.0), symmetric(3, 2.0)], RNG.standard_normal(6) + 1j
    gradients = kc.kron_solve_vjp(factors, b, np.array(0.5), b)
    assert [g.dtype.kind for g in (*gradients[0], *gradients[1:])] == ["f", "f", "c", "f"]
    to_factors, to_shift = kc.kron_slogdet_vjp(
        factors, np.array(0.5 + 1j), (np.ones((), complex), np.ones(()))
    )
    assert [g.dtype.kind for g in (*to_factors, to_shift)] == ["f", "f", "c"]


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_a_norm_of_zero_has_a_gradient_of_zero(dtype):
    factors = (np.zeros((2, 3, 2), dtype), np.ones((2, 2, 2), dtype))
    assert float(kc.kron_norm(factors)) == 0.0
    gradients = kc.kron_norm_vjp(factors, np.ones((), "float64"))
    assert not any(np.any(gradient) for gradient in gradients)
    assert float(kc.kron_norm_jvp(factors, factors)) == 0.0


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_norm_of_zero_has_a_derivative_of_zero_beside_large_factors(dtype):
    """Where the product of the others is out of range."""
    large = np.full((1, 2, 2), 1e300, dtype)
    factors = (np.zeros((1, 2, 2), dtype), large, large)
    assert float(kc.kron_norm_jvp(factors, factors)) == 0.0


def test_a_norm_overflows_where_its_value_does():
    """Not where a product over some of its modes does."""
    big, small = np.full((1, 2, 2), 1e200), np.full((1, 2, 2), 1e-200)
    factors = tuple(
        np.concatenate(pair) for pair in ((big, small), (small, big), (big * 1e-200, big * 1e-200))
    )
    assert float(kc.kron_norm(factors)) == pytest.approx(16.0)
    gradients = kc.kron_norm_vjp(factors, np.ones(()))
    assert gradients[2] == pytest.approx(2.0)
    assert gradients[0][0] == pytest.approx(2e-200)


def test_a_long_diagonal_is_summed_in_pieces(monkeypatch):
    monkeypatch.setattr(sys.modules["ketcore.ops.kron_trace"], "_CHUNK", 7)
    factors = (RNG.standard_normal((2, 4, 3)), RNG.standard_normal((2, 5, 7)))
    gradients = kc.kron_trace_vjp(factors, np.ones(()), (18, 20))
    assert_dense_equal(
        kc.kron_trace(factors, (18, 20)), kc.kron_trace_dense(factors, (18, 20)), terms=40, scale=10
    )
    pushed = kc.kron_trace_jvp(factors, factors, (18, 20))
    paired = sum(np.sum(g * f) for g, f in zip(gradients, factors, strict=True))
    assert float(pushed) == pytest.approx(float(paired))
    assert float(pushed) == pytest.approx(2 * float(kc.kron_trace_dense(factors, (18, 20))))


@pytest.mark.parametrize("shape", [None, (47, 44)])
def test_neighbours_that_are_square_together_are_merged(monkeypatch, shape):
    """Their trace and its derivatives are those of the elements of the diagonal."""
    factors = [RNG.standard_normal((2, p, q)) for p, q in ((2, 3), (3, 2), (2, 2), (2, 4), (2, 1))]
    tangents = [RNG.standard_normal(f.shape) for f in factors]

    def found():
        gradients = kc.kron_trace_vjp(factors, 1.5, shape)
        return kc.kron_trace(factors, shape), kc.kron_trace_jvp(factors, tangents, shape), *gradients

    merged = found()
    module = sys.modules["ketcore.ops.kron_trace"]
    monkeypatch.setattr(module, "_square_groups", lambda *_: None)
    for one, other in zip(merged, found(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_the_trace_of_factors_that_are_not_square_and_have_too_many_rows_to_count():
    factors = [np.ones((1, 2, 1))] * 70 + [np.ones((1, 1, 5))]
    assert float(kc.kron_trace(factors)) == 5.0


def test_the_norm_of_factors_with_zeros_and_with_subnormal_numbers():
    big, zero = np.full((1, 2, 2), 1e300), np.zeros((1, 2, 2))
    small = np.full((1, 2, 2), 1e-100)
    factors = [np.concatenate(pair) for pair in ((big, small), (big, small), (zero, small / 4))]
    assert float(kc.kron_norm(factors)) == pytest.approx(2e-300)
    tiny = np.full((1, 2, 2), 4 * np.finfo("float32").smallest_subnormal, "complex64")
    assert float(kc.kron_norm([tiny, np.full((1, 1, 1), 2.0**120, "complex64")])) == pytest.approx(2.0**-26)
    gradient, _ = kc.kron_norm_vjp([tiny, np.full((1, 1, 1), 2.0**120, "complex64")], 1.0)
    assert gradient == pytest.approx(np.full((1, 2, 2), 2.0**119))


def test_a_density_is_that_of_scipy():
    from scipy.stats import multivariate_normal

    factors, y = [symmetric(3, 5.0), symmetric(4, 2.0)], RNG.standard_normal((5, 12))
    expected = multivariate_normal(cov=kron(factors) + 0.3 * np.eye(12)).logpdf(y)
    assert_dense_equal(kc.kron_log_likelihood(factors, y, 0.3), expected, terms=12, scale=100.0)
    # A circular complex Gaussian is a real one of twice the dimension and half the covariance.
    y = y + 1j * RNG.standard_normal((5, 12))
    halves = np.kron(np.eye(2), (kron(factors) + 0.3 * np.eye(12)) / 2)
    expected = multivariate_normal(cov=halves).logpdf(np.concatenate([y.real, y.imag], axis=-1))
    assert_dense_equal(kc.kron_log_likelihood(factors, y, 0.3), expected, terms=12, scale=200.0)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_density_is_continued_to_all_matrices(dtype):
    """Its derivative along a tangent that is not Hermitian is that of the real part of the formula."""
    factors = [well_conditioned(RNG, size, "hermitian", dtype)[None] for size in (2, 3)]
    tangents = [RNG.standard_normal(factor.shape) for factor in factors]
    y, half = RNG.standard_normal(6).astype(dtype), 1.0 if dtype == "complex128" else 0.5

    def formula(step):
        matrix = kron([f + step * t for f, t in zip(factors, tangents, strict=True)]) + 3.0 * np.eye(6)
        return -half * (np.vdot(y, np.linalg.solve(matrix, y)).real + np.linalg.slogdet(matrix)[1])

    expected = (formula(1e-5) - formula(-1e-5)) / 2e-5
    zero = (np.zeros_like(y), np.zeros(()))
    assert float(kc.kron_log_likelihood_jvp(factors, y, 3.0, tangents, *zero)) == pytest.approx(
        expected, rel=1e-7
    )
    to_factors = kc.kron_log_likelihood_vjp(factors, y, 3.0, np.ones(()))[0]
    paired = sum(np.sum(g * t).real for g, t in zip(to_factors, tangents, strict=True))
    assert float(paired) == pytest.approx(expected, rel=1e-7)


def test_a_shift_of_any_library(xp):
    """A Python number beside the arrays of every library, with a gradient beside them."""
    factors = [xp.asarray(symmetric(size, 3.0, "float32")) for size in (2, 3)]
    b = xp.asarray(RNG.standard_normal(6).astype("float32"))
    x = kc.kron_solve(factors, b, 0.5)
    expected = kc.kron_solve_dense([to_numpy(f) for f in factors], to_numpy(b), 0.5)
    assert_dense_equal(x, expected, terms=6, scale=10.0, dtype="float32")
    to_shift = kc.kron_solve_vjp(factors, b, 0.5, b)[2]
    assert isinstance(to_shift, type(b) | np.generic)
