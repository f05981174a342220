"""Systems with Kronecker sums against NumPy and SciPy on the dense matrix."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from ketcore.testing import to_numpy
from tests.linalg_problems import dense_sum, each_library, near, product_factors


def problem(factors, shift, columns, seed=0):
    """A right side, the dense matrix, the dense solution and the scale of its error."""
    rng, dtype = np.random.default_rng(seed), factors[0].dtype
    full = dense_sum(factors) + shift * np.eye(len(dense_sum(factors)))
    b = rng.standard_normal((len(full), *columns))
    b = (b + 1j * rng.standard_normal(b.shape) if dtype.kind == "c" else b).astype(dtype)
    expected = np.linalg.solve(full, b)
    return b, expected, 10 * np.linalg.cond(full) * np.abs(expected).max(initial=0.0)


@given(product_factors(), st.sampled_from([0.0, 3.0, -3.5]), st.sampled_from([(), (2,), (0,)]))
def test_solve(factors, shift, columns):
    b, expected, scale = problem(factors, shift, columns)
    near(linalg.solve(kc.KroneckerSum(factors), b, shift), expected, scale=scale, dtype=b.dtype)


@given(product_factors("hermitian"), st.sampled_from([0.0, 0.5]), st.sampled_from([(), (2,)]))
def test_solve_with_hermitian_factors(factors, shift, columns):
    b, expected, scale = problem(factors, shift, columns)
    near(linalg.solve(kc.KroneckerSum(factors), b, shift), expected, scale=scale, dtype=b.dtype)


@pytest.mark.parametrize("kind", ["general", "hermitian"])
def test_mixed_dtypes_and_batches(kind):
    @given(product_factors(kind, dtype="float32"))
    def check(factors):
        b, expected, scale = problem(factors, 0.0, (2,))
        batch = np.stack([b, 1j * b])
        found = linalg.solve(kc.KroneckerSum(factors), batch)
        near(found, np.stack([expected, 1j * expected]), scale=scale, dtype=np.complex64)
        shifted, expected, scale = problem(factors, 2j, ())
        near(linalg.solve(kc.KroneckerSum(factors), shifted, 2j), expected, scale=scale, dtype=np.complex64)
        near(
            linalg.solve(kc.KroneckerSum(factors), b.astype(float)),
            np.linalg.solve(dense_sum(factors), b),
            scale=1e6,
            like=np.float32,
            dtype=np.float64,
        )

    check()


def test_two_modes_are_a_sylvester_equation():
    rng = np.random.default_rng(0)
    a, b, c = rng.standard_normal((5, 5)), rng.standard_normal((4, 4)), rng.standard_normal((5, 4))
    found = linalg.solve(kc.KroneckerSum([a, b]), c.ravel()).reshape(5, 4)
    near(found, scipy.linalg.solve_sylvester(a, b.T, c))


def test_a_poisson_equation():
    size = 12
    second = 2.0 * np.eye(size) - np.eye(size, k=1) - np.eye(size, k=-1)
    laplacian = kc.KroneckerSum([second] * 3)
    x = np.random.default_rng(0).standard_normal(size**3)
    near(linalg.solve(laplacian, laplacian @ x), x)


@pytest.mark.parametrize("factor", [np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([[1.0, 2.0], [0.5, 1.0]])])
def test_singular_sums_are_refused(factor):
    with pytest.raises(
        np.linalg.LinAlgError, match=r"A must be invertible, got an eigenvalue of .* beside factors of"
    ):
        linalg.solve(kc.KroneckerSum([factor, factor]), np.ones(4))
    assert np.all(np.isfinite(linalg.solve(kc.KroneckerSum([factor, factor]), np.ones(4), 0.1)))


@each_library
def test_other_libraries(xp):
    for kind in ("general", "hermitian"):

        def body(factors):
            for columns in ((), (2,)):
                b, expected, scale = problem(factors, 3.0, columns)
                a = kc.KroneckerSum([xp.asarray(f) for f in factors])
                near(to_numpy(linalg.solve(a, xp.asarray(b), 3.0)), expected, scale=scale, dtype=b.dtype)

        xp.check(product_factors(kind), body)


def test_half_precision_is_computed_in_float32():
    factors = [np.array([[2.0, 1.0], [1.0, 3.0]], np.float16), np.array([[2.0, 1.0], [0.0, 3.0]], np.float16)]
    for pair in (factors[:1] * 2, factors):
        b = np.arange(4, dtype=np.float16)
        near(
            linalg.solve(kc.KroneckerSum(pair), b),
            np.linalg.solve(dense_sum(pair), b.astype(float)),
            dtype=np.float16,
        )
