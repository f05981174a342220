"""What is singular but for rounding, and what is near the ends of the range of floats."""

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg, ops
from ketcore.testing import to_numpy
from tests.linalg_problems import dense, each_library, made, near

# Elimination leaves a last pivot of rounding where that of exact numbers is zero.
SINGULAR = np.arange(1.0, 10.0).reshape(3, 3) / 10
FLIP = np.array([[0.0, 1.0], [1.0, 0.0]])


def right_side(xp, size):
    return xp.asarray(np.arange(1.0, size + 1))


@each_library
@pytest.mark.parametrize("scale", [1.0, 1e160, 1e-160])
def test_factors_that_are_singular_but_for_rounding(xp, scale):
    a = made(xp, [np.eye(2), scale * SINGULAR])
    ket = kc.Ket([xp.asarray(np.ones((1, 2))), xp.asarray(np.ones((1, 3)))])
    matrix = made(xp, [np.eye(2), np.eye(3)])
    for call in (
        lambda: linalg.inv(a),
        lambda: linalg.matrix_power(a, -2),
        lambda: linalg.solve(a, right_side(xp, 6)),
        lambda: linalg.solve(a, ket),
        lambda: linalg.solve(a, matrix),
    ):
        with pytest.raises(np.linalg.LinAlgError, match=r"^A must be invertible, got .*factor 1"):
            call()
    for p in (1, np.inf, "fro", "nuc"):
        assert float(linalg.cond(a, p)) == np.inf


def test_structured_parts_that_are_singular_but_for_rounding():
    product = kc.KroneckerProduct([kc.Identity(2), SINGULAR])
    for function in (linalg.inv, lambda a: linalg.solve(a, np.ones(6))):
        with pytest.raises(np.linalg.LinAlgError, match=r"^A must be invertible, got .*factor 1"):
            function(product)


@pytest.mark.parametrize("scale", [1e160, 1e-160, 1e200, 1e-200])
@pytest.mark.parametrize("size", [2, 40])
def test_large_and_small_factors_are_not_singular(scale, size):
    """The squares of their elements overflow, or vanish."""
    factors = [scale * (np.eye(size) + 1), np.eye(3) / scale]
    a, b = kc.KroneckerMatrix(factors), np.arange(3.0 * size)
    expected = np.linalg.solve(np.kron(np.eye(size) + 1, np.eye(3)), b)
    near(linalg.solve(a, b), expected)
    near((linalg.inv(a) @ b), expected)
    for p, of_identity in ((1, 1.0), ("fro", 3.0), (None, 1.0)):
        assert linalg.cond(a, p) == pytest.approx(of_identity * np.linalg.cond(np.eye(size) + 1, p))


def test_float32_is_inverted_in_64_bits():
    hard = np.array([[1.0, 1.0], [1.0, 1.0 + 2.0**-22]], np.float32)
    found = linalg.inv(kc.KroneckerMatrix([hard, np.eye(2, dtype=np.float32)])).to_dense()
    near(found, np.kron(np.linalg.inv(hard.astype(float)), np.eye(2)), dtype=np.float32, scale=2.0**23)
    with pytest.raises(np.linalg.LinAlgError, match="A must be invertible, got a singular factor 0"):
        linalg.inv(kc.KroneckerMatrix([np.full((1, 1), 1e-40, np.float32)]))


@each_library
@pytest.mark.parametrize(
    "factor", [np.array([[1.0, 2.0], [2.0, 4.5]]), np.array([[1.0, 2.0], [3.0, 4.0]]), np.diag([1.0, 0.3])]
)
def test_a_shift_of_minus_an_eigenvalue(xp, factor):
    third = np.diag([0.1, 1.0, -2.0])
    values = np.multiply.outer(np.linalg.eigvals(factor), np.diagonal(third)).ravel()
    sums = np.add.outer(np.linalg.eigvals(factor), np.diagonal(third)).ravel()
    for value, total in zip(values.tolist(), sums.tolist(), strict=True):
        for moved in (-value, -value * (1 + 2e-16)):
            with pytest.raises(np.linalg.LinAlgError, match=r"must .*(minus an eigenvalue|singular matrix)"):
                linalg.solve(made(xp, [factor, third]), right_side(xp, 6), moved)
        a = kc.KroneckerSum([xp.asarray(factor), xp.asarray(third)])
        with pytest.raises(np.linalg.LinAlgError, match="got an eigenvalue of"):
            linalg.solve(a, right_side(xp, 6), -total * (1 + 2e-16))
    full = dense([factor, third]) - (values[0] - 1e-3) * np.eye(6)
    found = to_numpy(linalg.solve(made(xp, [factor, third]), right_side(xp, 6), 1e-3 - values[0]))
    near(found, np.linalg.solve(full, np.arange(1.0, 7)), scale=1e4 * np.abs(found).max())


def test_a_right_side_of_nan_is_not_a_singular_matrix():
    torch = pytest.importorskip("torch")
    a = kc.KroneckerMatrix([torch.eye(2), 2 * torch.eye(2)])
    assert torch.isnan(linalg.solve(a, torch.full((4,), torch.nan), 1.0)).all()
    assert torch.isnan(linalg.solve(a, torch.full((4,), torch.nan))).all()
    assert not linalg.solve(a, torch.zeros(4), 1.0).any()
    assert linalg.solve(a, torch.ones(4, 0), 1.0).shape == (4, 0)


def test_bfloat16_goes_through_the_host():
    torch = pytest.importorskip("torch")
    factors = [np.array([[1.0, 2.0], [3.0, 4.0]]), np.diag([8.0, 16.0])]
    halves = [torch.asarray(f).to(torch.bfloat16) for f in factors]
    b = torch.ones(4, dtype=torch.bfloat16)
    for shift in (0.0, 1.0):
        for made_of, full in ((kc.KroneckerSum, None), (kc.KroneckerMatrix, dense(factors))):
            full = kc.KroneckerSum(factors).to_dense() if full is None else full
            found = linalg.solve(made_of(halves), b, shift)
            assert found.dtype == torch.bfloat16
            expected = np.linalg.solve(full + shift * np.eye(4), np.ones(4))
            assert np.allclose(found.float().numpy(), expected, atol=2e-2 * np.abs(expected).max())


@pytest.mark.parametrize("modes", [3, 39, 40])
def test_signs_to_powers_that_floats_do_not_hold(modes):
    """3^modes is odd, and the floats beyond 2^53 are even."""
    identities = [np.eye(3)] * modes
    for flip, sign in ((FLIP, -1.0), (-FLIP, -1.0), (np.diag([1j, 1.0]), 1j ** (3**modes % 4))):
        a = kc.KroneckerMatrix([flip, *identities])
        found = (linalg.slogdet(a).sign, ops.kron_slogdet(a.factors)[0], linalg.det(a))
        assert [complex(one) for one in found] == [sign] * 3
    parts = kc.KroneckerProduct([np.diag([1j, 1.0]), kc.Identity(3**modes)])
    assert complex(linalg.slogdet(parts).sign) == 1j ** (3**modes % 4)


def test_a_phase_keeps_its_modulus_through_powers():
    a = kc.KroneckerMatrix([np.exp(0.3j) * np.eye(2), *[np.eye(2)] * 60])
    found = linalg.slogdet(a)
    assert abs(found.sign) == pytest.approx(1.0)
    assert float(found.logabsdet) == pytest.approx(0.0, abs=1e4)


def test_powers_of_determinants_that_lose_digits():
    """(3e-310)^2 would be a number with few digits, and 1e310^2 none."""
    near(linalg.det(kc.KroneckerMatrix([np.diag([1e-155, 3e-155]), 1e155 * np.eye(2)])), 9.0, scale=1e4)
    near(linalg.det(kc.KroneckerMatrix([np.diag([1e-80, 3e-80]), 1e80 * np.eye(2)])), 9.0, scale=1e4)
    assert float(linalg.det(kc.KroneckerMatrix([1e200 * np.eye(2), np.zeros((2, 2))]))) == 0.0


def test_a_product_of_zeros_is_hermitian():
    general = np.array([[1.0, 2.0], [3.0, 4.0]])
    for factors in ([np.zeros((2, 2)), general], [general, np.zeros((1, 1)), 1j * general]):
        a = kc.KroneckerMatrix(factors)
        values, vectors = linalg.eigh(a)
        assert not values.to_dense().any()
        near(vectors.to_dense().conj().T @ vectors.to_dense(), np.eye(len(dense(factors))))
        with pytest.raises(np.linalg.LinAlgError, match="A must be positive definite, got factor 0"):
            linalg.cholesky(a)


def test_half_precision_overflows_without_a_warning_and_comes_back():
    half = np.array([[300.0, 0.0], [0.0, 2.0]], np.float16)
    a = kc.KroneckerMatrix([half, half])
    assert linalg.det(a) == np.inf
    assert linalg.det(a).dtype == np.float16
    b = np.ones(4, np.float16)
    assert {linalg.gaussian_log_likelihood(a, b).dtype, linalg.cond(a).dtype} == {np.dtype(np.float16)}
    result = linalg.lstsq(kc.KroneckerMatrix([np.ones((2, 1), np.float16)] * 2), b)
    assert {result.x.dtype, result.residuals.dtype, result.singular_values.dtype} == {np.dtype(np.float16)}


def test_a_shift_of_nan_gives_nan():
    sign, logarithm = ops.kron_slogdet([np.eye(2)[None], np.eye(2)[None]], np.array(np.nan))
    assert np.isnan(sign)
    assert np.isnan(logarithm)
    with pytest.raises(np.linalg.LinAlgError, match="got eigenvalues that are rounding beside what is above"):
        linalg.solve(kc.KroneckerSum([[[1e-17, 1.0], [0.0, 1e-17]]] * 2), np.ones(4))
