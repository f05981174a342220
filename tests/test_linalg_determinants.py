"""Determinants of every sign and phase against NumPy on the dense matrix."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from tests.linalg_problems import CONDITION, dense, dense_sum, each_library, made, near, product_factors


def check(found, expected, dtype, size):
    """Sign and logarithm, each in its dtype; `size` bounds the rounding of the sum of logarithms."""
    real = np.zeros(0, dtype).real.dtype
    near(found.sign, expected.sign, scale=size, dtype=dtype)
    near(found.logabsdet, expected.logabsdet, scale=size, dtype=real)


@given(product_factors(max_size=27), st.sampled_from([1.0, -1.0, 1j, -0.6 + 0.8j]))
def test_slogdet_and_det(factors, phase):
    dtype = factors[0].dtype
    if isinstance(phase, float) or dtype.kind == "c":
        factors[0] = (factors[0] * phase).astype(dtype)
    a, full = kc.KroneckerMatrix(factors), dense(factors)
    size = CONDITION * len(full)
    check(linalg.slogdet(a), np.linalg.slogdet(full), dtype, size)
    expected = np.linalg.det(full)
    near(linalg.det(a), expected, scale=size * max(abs(expected), 1e-30), dtype=dtype)


@given(product_factors(max_size=27), st.data())
def test_slogdet_with_a_shift(factors, data):
    dtype = factors[0].dtype
    shift = data.draw(st.sampled_from([5.0, -9.0, 0.0] + ([4.0 + 9.0j] if dtype.kind == "c" else [])))
    a, full = kc.KroneckerMatrix(factors), dense(factors)
    expected = np.linalg.slogdet(full + shift * np.eye(len(full)))
    check(linalg.slogdet(a, shift), expected, dtype, 10 * CONDITION * len(full))


def test_signs_are_kept_through_even_and_odd_sizes():
    flip, rotation = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, -1.0], [1.0, 0.0]])
    for odd in (np.eye(3), -np.eye(3), np.eye(1), -np.eye(1)):
        for factors in ([flip, odd], [odd, flip], [flip, flip], [odd, odd], [flip, odd, rotation]):
            a = kc.KroneckerMatrix(factors)
            expected = np.linalg.slogdet(dense(factors))
            assert (float(linalg.slogdet(a).sign), float(linalg.det(a))) == (expected.sign, expected.sign)


@pytest.mark.parametrize(
    "factors",
    [[np.eye(2), np.ones((2, 2))], [np.ones((2, 3)), np.ones((3, 2))], [np.zeros((1, 1)), np.eye(3)]],
)
def test_singular_matrices_have_sign_zero(factors):
    a = kc.KroneckerMatrix(factors)
    assert tuple(map(float, linalg.slogdet(a))) == (0.0, -np.inf)
    assert float(linalg.det(a)) == 0.0
    turned = linalg.slogdet(a * 1j)
    assert (complex(turned.sign), turned.sign.dtype, float(turned.logabsdet)) == (0j, np.complex128, -np.inf)


def test_det_overflows_and_slogdet_does_not():
    a = kc.KroneckerMatrix([10.0 * np.eye(20)] * 2)
    assert float(linalg.det(a)) == np.inf
    near(linalg.slogdet(a).logabsdet, 400 * np.log(100.0))
    assert float(linalg.det(-1.0 * a)) == np.inf
    # An overflow keeps its sign: that of the first factor counts as often as the other has rows.
    flipped = 10.0 * np.diag([-1.0] + [1.0] * 19)
    for size, sign in ((20, np.inf), (21, -np.inf)):
        assert float(linalg.det(kc.KroneckerMatrix([flipped, 10.0 * np.eye(size)]))) == sign
    # The power of one factor overflows, that of the other underflows, their product does neither.
    b = kc.KroneckerMatrix([1e200 * np.eye(2), 1e-200 * np.eye(2)])
    near(linalg.det(b), 1.0, scale=1e3)


@given(product_factors(), st.data())
def test_kronecker_sums(factors, data):
    dtype = factors[0].dtype
    shift = data.draw(st.sampled_from([0.0, 7.0, -7.0] + ([3.0 + 8.0j] if dtype.kind == "c" else [])))
    full = dense_sum(factors) + shift * np.eye(dense(factors).shape[0])
    expected, scale = np.linalg.slogdet(full), 10 * np.linalg.cond(full) * len(full)
    found = linalg.slogdet(kc.KroneckerSum(factors), shift)
    near(found.logabsdet, expected.logabsdet, scale=scale)
    near(found.sign, expected.sign, scale=scale, dtype=dtype)
    if not shift:
        near(
            linalg.det(kc.KroneckerSum(factors)), np.linalg.det(full), scale=scale * abs(np.linalg.det(full))
        )


def test_kronecker_sums_of_hermitian_factors_and_singular_ones():
    path = np.array([[2.0, -1.0], [-1.0, 2.0]])
    full = dense_sum([path, -path, path])
    found = linalg.slogdet(kc.KroneckerSum([path, -path, path]), 0.5)
    expected = np.linalg.slogdet(full + 0.5 * np.eye(8))
    near(found.logabsdet, expected.logabsdet)
    assert found.sign == expected.sign
    assert tuple(map(float, linalg.slogdet(kc.KroneckerSum([[[1.0]], [[-1.0]]])))) == (0.0, -np.inf)
    assert float(linalg.det(kc.KroneckerSum([[[1.0]], [[-1.0]]]))) == 0.0


@each_library
def test_other_libraries(xp):
    def body(factors):
        full, size = dense(factors), CONDITION * dense(factors).shape[0]
        a, expected = made(xp, factors), np.linalg.slogdet(full)
        near(xp.to_numpy(linalg.slogdet(a).sign), expected.sign, scale=size, dtype=factors[0].dtype)
        near(xp.to_numpy(linalg.slogdet(a).logabsdet), expected.logabsdet, scale=size)
        near(
            xp.to_numpy(linalg.slogdet(a, 9.0).logabsdet),
            np.linalg.slogdet(full + 9 * np.eye(len(full)))[1],
            scale=size,
        )
        near(xp.to_numpy(linalg.det(a)), np.linalg.det(full), scale=size * abs(np.linalg.det(full)))
        both = kc.KroneckerSum([xp.asarray(f) for f in factors])
        near(
            xp.to_numpy(linalg.slogdet(both, 9.0)[1]),
            np.linalg.slogdet(dense_sum(factors) + 9 * np.eye(len(full)))[1],
            scale=size,
        )

    xp.check(product_factors(), body)


def test_half_precision_is_computed_in_float32():
    a = kc.KroneckerMatrix([np.array([[2.0, 1.0], [1.0, 3.0]], np.float16)] * 2)
    near(linalg.det(a), 625.0, dtype=np.float16)
    near(linalg.slogdet(a).logabsdet, np.log(625.0), dtype=np.float16)
