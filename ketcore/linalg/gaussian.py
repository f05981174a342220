"""The log-density of a Gaussian with a Kronecker product, plus a multiple of the identity, as covariance."""

from typing import Any

import numpy as np

from ketcore import arithmetic, ops
from ketcore.backend import Array, quiet
from ketcore.linalg import checks
from ketcore.matrix import KroneckerMatrix


@quiet
def gaussian_log_likelihood(A: KroneckerMatrix, y: Array, shift: Any = 0.0) -> Array:
    """The log-density of y under a Gaussian of mean zero with covariance A + shift I.

    A        rank 1, its factors square and Hermitian, A + shift I positive definite
    y        (..., P); complex A or y: the density of a circular complex Gaussian
    shift    a real number, for instance the variance of noise
    returns  (...) in the real dtype of A and y
    raises   TypeError naming a way out; LinAlgError where a factor is not square or not Hermitian, or the sum
             not positive definite; ValueError on the shape of y
    cost     time O(|y| sum p_n + sum p_n^3); gradients are those of `kron_log_likelihood`

    >>> A = KroneckerMatrix([[[2.0, 1.0], [1.0, 2.0]], [[1.0]]])
    >>> round(float(gaussian_log_likelihood(A, [1.0, -1.0], shift=1.0)), 6)
    -3.377598
    """
    xp, matrices = checks.single(A, "gaussian_log_likelihood")
    checks.square_factors(matrices, "gaussian_log_likelihood")
    factors = [xp.astype(m, A.dtype, copy=False)[None, ...] for m in matrices]
    try:
        return arithmetic.unboxed(ops.kron_log_likelihood(factors, y, shift))
    except np.linalg.LinAlgError as error:
        raise np.linalg.LinAlgError(str(error).replace("factors must", "A must")) from None
