"""Determinants with their sign or phase: det(A (x) B) = det(A)^m det(B)^n for A n x n and B m x m."""

from math import prod
from typing import Generic, NamedTuple

import numpy as np

from ketcore import ops
from ketcore.array_types import ArrayT, Scalar
from ketcore.arrays.checks import check_spectrum
from ketcore.arrays.elementary import unboxed
from ketcore.arrays.namespaces import namespace_of, quiet
from ketcore.linalg import closed_forms, of_products, of_sums, of_two_terms
from ketcore.linalg.closed_forms import System
from ketcore.objects.kronecker_matrix import KroneckerMatrix  # noqa: F401  (for the examples)
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.spectra import symmetry
from ketcore.spectra.powers import sign_power

# Powers beyond this are no exact floats, and in some libraries no integers.
_POWERS = 1 << 53


class SlogdetResult(NamedTuple, Generic[ArrayT]):
    """What `slogdet` returns, as NumPy names it.

    Attributes
    ----------
    sign : array, ()
        The sign, or the phase of a complex determinant: of absolute value 1, or 0 where it is singular.
    logabsdet : array, ()
        The logarithm of the absolute value, real; -inf where it is singular.
    """

    sign: ArrayT
    logabsdet: ArrayT


@quiet
def slogdet(
    A: System[ArrayT],
    shift: Scalar = 0.0,
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> SlogdetResult[ArrayT]:
    """The sign and the logarithm of the absolute value of det(A + shift I).

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        Square and not cropped: rank 1 (or of order 1) or a KroneckerSum; or rank 2 as `solve` takes it.
    shift : float or complex, default 0.0
        A number, or an array without dimensions; for rank 2 as of `solve`.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        As of `solve`: what is known of the factors, which are not looked at then.
    max_bytes : int, default 2**30
        The room that the P eigenvalues may take, all of which a shift, a KroneckerSum or rank 2 needs.

    Returns
    -------
    SlogdetResult, (sign, logabsdet)
        A number of absolute value 1, complex where A or shift is, and a real one; (0, -inf) where the matrix
        is exactly singular, as it is where factors are not square and there is no shift.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped, where the shift is not finite, and on other words for `assume_a`.
    LinAlgError
        Where A is not square or not finite, or where derivatives are recorded and a factor is not
        diagonalisable.
    MemoryError
        Naming the size, above `max_bytes`.

    Notes
    -----
    Cost: O(sum p_n^3), and O(P) time and memory with a shift, for a KroneckerSum or rank 2.  As
    `np.linalg.slogdet`, with `shift` added.

    Examples
    --------
    >>> sign, logarithm = slogdet(KroneckerMatrix([[[0.0, 1.0], [1.0, 0.0]], np.eye(3)]))
    >>> float(sign), float(logarithm)
    (-1.0, 0.0)
    """
    check_spectrum(None, (), max_bytes)
    found = _slogdet(A, shift, assume_a, max_bytes)
    xp = namespace_of(found[0])
    return SlogdetResult(*(unboxed(closed_forms.in_storage(xp, part, A.dtype)) for part in found))


def _slogdet(A, shift, assume_a, max_bytes):
    """Sign and logarithm by the form of A."""
    look = symmetry.assumed_hermitian(assume_a, True) is None
    if isinstance(A, KroneckerSum):
        return of_sums.slogdet(A, shift, assume_a, max_bytes)
    if of_products.is_structured(A, shift):
        return of_products.slogdet(A, look)
    if of_two_terms.is_pair(A):
        return of_two_terms.slogdet(A, shift, assume_a, max_bytes)
    xp, matrices = closed_forms.single(A, "slogdet", look)
    shift = closed_forms.as_shift(shift, matrices[0])
    if not closed_forms.square(matrices, "slogdet"):
        if shift is None:
            return _singular(xp, matrices)
        closed_forms.square_factors(matrices, "slogdet with a shift")
    factors = [xp.astype(m, A.dtype, copy=False)[None, ...] for m in matrices]
    try:
        return ops.kron_slogdet(factors, shift, assume_a=assume_a, max_bytes=max_bytes)
    except np.linalg.LinAlgError as error:
        raise closed_forms.named(error) or error from None


@quiet
def det(A: System[ArrayT], *, max_bytes: int = 2**30) -> ArrayT:
    """The determinant; it overflows to infinity where that of the dense matrix does, but `slogdet` does not.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        Square and not cropped: rank 1 (or of order 1) or a KroneckerSum; or rank 2 as `solve` takes it.
    max_bytes : int, default 2**30
        The room that the P eigenvalues of a KroneckerSum or of rank 2 may take.

    Returns
    -------
    array, ()
        A scalar of the dtype of A; zero where factors are not square.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped.
    LinAlgError
        Where A is not square or not finite.
    MemoryError
        Naming the size, above `max_bytes`.

    Notes
    -----
    Cost: that of `slogdet`.

    Examples
    --------
    >>> float(det(KroneckerMatrix([[[1.0, 2.0], [0.0, 4.0]], [[2.0, 0.0], [1.0, -3.0]]])))
    576.0
    """
    check_spectrum(None, (), max_bytes)
    if isinstance(A, KroneckerSum) or of_products.is_structured(A) or of_two_terms.is_pair(A):
        sign, logarithm = _slogdet(A, 0.0, None, max_bytes)
        xp = namespace_of(sign)
        return _finished(xp, sign * xp.exp(logarithm), A.dtype)
    xp, matrices = closed_forms.single(A, "det", decides=False)
    if not closed_forms.square(matrices, "det"):
        return _finished(xp, _singular(xp, matrices)[0], A.dtype)
    return _finished(xp, _det(xp, matrices), A.dtype)


def _finished(xp, determinant, dtype):
    return unboxed(closed_forms.in_storage(xp, determinant, dtype))


def _det(xp, matrices):
    """The product of powers; through logarithms where one overflows or loses digits, which it may not do."""
    size = prod(m.shape[0] for m in matrices)
    if size > _POWERS:
        sign, logarithm = ops.kron_slogdet([m[None, ...] for m in matrices])
        return sign * xp.exp(logarithm)
    powers = [size // m.shape[0] for m in matrices]
    parts = [xp.linalg.slogdet(m) for m in matrices]
    sign, logarithm, direct, exact = 1, 0, 1, True
    least = xp.finfo(matrices[0].dtype).smallest_normal
    for part, matrix, power in zip(parts, matrices, powers, strict=True):
        sign = sign * sign_power(xp, part[0], power)
        logarithm = logarithm + power * part[1]
        one = xp.abs(xp.linalg.det(matrix)) ** power
        direct = direct * one
        for partial in (one, direct):
            exact = xp.isfinite(partial) & (partial >= least) & exact
    return sign * xp.where(exact, direct, xp.exp(logarithm))


def _singular(xp, matrices):
    one = xp.ones_like(matrices[0][0, 0])
    return 0 * one, xp.full_like(xp.abs(one), -np.inf)
