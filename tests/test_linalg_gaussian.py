"""The Gaussian log-density of objects against SciPy's on the dense covariance."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

import ketcore as kc


def covariance(rng, size):
    root = rng.standard_normal((size, size))
    return root @ root.T + size * np.eye(size)


@pytest.mark.parametrize("shift", [0.0, 0.7, -0.5])
def test_the_density_is_that_of_scipy(shift):
    rng = np.random.default_rng(0)
    A = kc.KroneckerMatrix([covariance(rng, size) for size in (3, 1, 4)])
    y = rng.standard_normal((5, 12))
    expected = multivariate_normal(cov=A.to_dense() + shift * np.eye(12)).logpdf(y)
    assert np.allclose(kc.linalg.gaussian_log_likelihood(A, y, shift), expected, rtol=1e-12)
    product = kc.KroneckerProduct([factor[0] for factor in A.factors])
    assert np.allclose(kc.linalg.gaussian_log_likelihood(product, y[0], shift), expected[0], rtol=1e-12)


def test_errors_name_the_rule():
    rng = np.random.default_rng(0)
    A = kc.KroneckerMatrix([covariance(rng, 2), covariance(rng, 3)])
    y = np.ones(6)
    with pytest.raises(TypeError, match=r"A must have rank 1 or 2 for gaussian_log_.* got rank 3"):
        kc.linalg.gaussian_log_likelihood(A + A + A, y)
    with pytest.raises(TypeError, match=r"A must have square factors .* got shapes \[\(2, 3\), \(3, 2\)\]"):
        kc.linalg.gaussian_log_likelihood(kc.KroneckerMatrix([np.ones((2, 3)), np.ones((3, 2))]), y)
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        kc.linalg.gaussian_log_likelihood(A, y, shift=-1e3)
    with pytest.raises(np.linalg.LinAlgError, match=r"^A must be Hermitian, got factor 0 that is not"):
        kc.linalg.gaussian_log_likelihood(kc.KroneckerMatrix([[[1.0, 2.0], [0.0, 1.0]], np.eye(3)]), y)
    with pytest.raises(ValueError, match=r"^y must have shape \(..., 6\) or \(..., 2, 3\), got \(5,\)$"):
        kc.linalg.gaussian_log_likelihood(A, np.ones(5))
