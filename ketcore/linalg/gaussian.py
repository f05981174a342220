"""Log-densities of Gaussians whose covariance is a Kronecker product.

A multiple of the identity, or another Kronecker product, may be added to it.
"""

from typing import Any, overload

import numpy as np

from ketcore import ops
from ketcore.array_types import ForeignT, Host, Lists, Scalar
from ketcore.arrays.elementary import unboxed
from ketcore.arrays.namespaces import namespace, quiet
from ketcore.linalg import closed_forms, of_two_terms
from ketcore.linalg.closed_forms import Matrix
from ketcore.objects.kronecker_matrix import KroneckerMatrix  # noqa: F401  (for the examples)
from ketcore.objects.operands import flat, operand
from ketcore.spectra import symmetry


@overload
def gaussian_log_likelihood(
    A: Matrix[Host], y: Host | Lists, shift: Scalar = 0.0, *, assume_a: str | None = None
) -> Host: ...
@overload
def gaussian_log_likelihood(
    A: Matrix[ForeignT], y: ForeignT, shift: Scalar = 0.0, *, assume_a: str | None = None
) -> ForeignT: ...
@quiet
def gaussian_log_likelihood(A: Any, y: Any, shift: Any = 0.0, *, assume_a: str | None = None) -> Any:
    """The log-density of `y` under a Gaussian of mean zero with covariance A + shift I.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        Not cropped: rank 1 (or of order 1), its factors square and Hermitian, A + shift I positive definite;
        or rank 2 as `solve` takes it, such as a covariance and another one, or one and a diagonal of noise.
    y : array, (..., P) or (..., p_0, ..., p_{N-1})
        Vectors, or on the grid (the row dims of A).  Complex A or y: the density of a circular complex
        Gaussian.
    shift : float, default 0.0
        A real number, or an array without dimensions, for instance the variance of noise; for rank 2 as of
        `solve`.
    assume_a : {"sym", "her", "pos"}, optional
        "her", "pos" or, for real factors, "sym": the factors are known to be Hermitian, and no value is read;
        for rank 2 as of `solve`.  None: they are looked at.

    Returns
    -------
    array, (...)
        In the real dtype of A and y.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.  Where y is an array of
        another library than A, and on a complex shift.
    ValueError
        Where A is cropped, on other words for `assume_a`, on the shape of y, and on a shift that is not
        finite.
    LinAlgError
        Where A is not square, a factor not finite or not Hermitian, or the sum not positive definite.

    See Also
    --------
    gaussian_posterior : What data say of the process.

    Notes
    -----
    Cost: time `O(|y| sum p_n + sum p_n^3)`, memory `O(|y| + P)`.  As `logpdf` of
    `scipy.stats.multivariate_normal` for real numbers; for a mean m give y - m.

    Examples
    --------
    >>> A = KroneckerMatrix([[[2.0, 1.0], [1.0, 2.0]], [[1.0]]])
    >>> round(float(gaussian_log_likelihood(A, [1.0, -1.0], shift=1.0)), 6)
    -3.377598
    """
    look = symmetry.assumed_hermitian(assume_a, True) is None
    if of_two_terms.is_pair(A):
        y = _data(A, y)
        return unboxed(of_two_terms.log_likelihood(A, y, shift, assume_a))
    xp, matrices = closed_forms.single(A, "gaussian_log_likelihood", look)
    closed_forms.square_factors(matrices, "gaussian_log_likelihood")
    factors, y = [xp.astype(m, A.dtype, copy=False)[None, ...] for m in matrices], _data(A, y)
    shift = closed_forms.as_shift(shift, matrices[0])
    shift = 0.0 if shift is None else shift
    try:
        return unboxed(ops.kron_log_likelihood(factors, y, shift, assume_a=assume_a))
    except np.linalg.LinAlgError as error:
        raise closed_forms.named(error) or error from None


def _data(A, y):
    """The argument `y` (..., P) beside the factors."""
    y = operand("y", y, A)
    namespace("A and y", (*closed_forms.arrays_of(A), y))
    return flat("y", y, A, -2)[0]
