"""Norms, condition numbers and ranks of linear algebra of Kronecker products: they multiply over factors."""

from functools import reduce
from math import inf
from numbers import Real
from operator import mul
from typing import Any

import array_api_compat
import numpy as np

from ketcore.array_types import ArrayT
from ketcore.arrays.elementary import unboxed
from ketcore.arrays.namespaces import quiet, value_of
from ketcore.linalg import closed_forms, cuts, solving, spectral
from ketcore.linalg.closed_forms import Matrix, System
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.shapes import shown

_ORDERS = (None, "fro", "nuc", "trace", 2, -2, 1, -1, inf, -inf)


@quiet
def norm(A: System[ArrayT], ord: float | str | None = None) -> ArrayT:
    """A norm of the matrix, as `scipy.linalg.norm` of the dense one.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        Any for the Frobenius norm, also cropped; one product (rank 1, or of order 1) that is not cropped for
        the others.  2 takes a KroneckerSum with Hermitian factors too.
    ord : {None, "fro", "nuc", "trace", 2, -2, 1, -1, inf, -inf}, optional
        None or "fro", the Frobenius norm; 2 or -2, the largest or the smallest singular value; "nuc" or
        "trace", their sum; 1 or -1, the largest or smallest sum of a column's absolute values; inf or -inf,
        that of a row's.

    Returns
    -------
    array, ()
        A real scalar; rounding and cancellation of the Frobenius norm as in `KroneckerMatrix.norm`.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        On other values of `ord`, and where A is cropped.
    LinAlgError
        Where A is not finite, for other norms than Frobenius'.

    Notes
    -----
    Cost: O(R^2 sum p_n q_n) for "fro", O(sum p_n q_n) for sums of absolute values, else that of `svdvals`.
    Without `axis`, `keepdims` and `check_finite`.

    Examples
    --------
    >>> a = KroneckerMatrix([[[3.0, 0.0], [0.0, -2.0]], [[1.0, 2.0]]])
    >>> float(norm(a, 1)), float(norm(a, inf)), round(float(norm(a, "nuc")), 12) == round(5 * 5**0.5, 12)
    (6.0, 9.0, True)
    """
    _check_order("ord", ord)
    if ord in (None, "fro") and isinstance(A, KroneckerMatrix | KroneckerSum | KroneckerProduct):
        return A.norm()
    if ord == 2 and isinstance(A, KroneckerSum):
        return _spectral_norm_of_sum(A)
    xp, matrices = closed_forms.single(A, "norm", decides=False)
    found = unboxed(reduce(mul, [_norm(xp, m, ord) for m in matrices]))
    # Of a wide factor times a tall one some singular values are zero beyond those that multiply.
    if ord == -2 and _mixed(matrices):
        found = found * 0
    return unboxed(closed_forms.in_storage(xp, np.asarray(found) if xp is np else found, A.dtype))


@quiet
def cond(A: Matrix[ArrayT], p: float | str | None = None) -> ArrayT:
    """The condition number with respect to inversion: norm(A, p) norm(inv(A), p), as by `np.linalg.cond`.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1), not cropped; rectangular for p of None, 2 and -2 alone.
    p : {None, 2, -2, "fro", "nuc", "trace", 1, -1, inf, -inf}, optional
        None or 2: largest over smallest singular value; -2: the inverse of that; else as `ord` of `norm`.

    Returns
    -------
    array, ()
        A real scalar; infinite where A is singular (for p of -2: zero).

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        On other values of `p`, and where A is cropped.
    LinAlgError
        Where A is not finite, and where A must be square and is not.

    Notes
    -----
    Cost: that of `svdvals` or `inv`.

    Examples
    --------
    >>> float(cond(KroneckerMatrix([[[3.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 1.0]]])))
    6.0
    """
    _check_order("p", p)
    xp, matrices = closed_forms.single(A, "cond")
    if p in (None, 2, -2):
        found = _ratio(xp, matrices, spectral.singular_values(xp, matrices), p)
    elif not closed_forms.square(matrices, "cond"):
        found = _infinity(xp, matrices)
    else:
        found = _product_of_norms(xp, matrices, p)
    return unboxed(closed_forms.in_storage(xp, found, A.dtype))


def _product_of_norms(xp, matrices, p):
    """Factor by factor: the norms of a whole may overflow where their product does not."""
    try:
        inverses = solving.inverse_factors(xp, matrices, "cond")
    except np.linalg.LinAlgError:
        return _infinity(xp, matrices)
    return reduce(mul, [_norm(xp, a, p) * _norm(xp, b, p) for a, b in zip(matrices, inverses, strict=True)])


@quiet
def matrix_rank(A: Matrix[Any], tol: float | None = None, *, max_bytes: int = 2**30) -> int:
    """How many singular values of the whole matrix exceed `tol` (the rank of linear algebra, not `A.rank`).

    Without `tol` it is the product of the ranks that NumPy finds of the factors, unless so many factors have
    small singular values that products of these are rounding beside the largest.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1), not cropped; its factors may be rectangular.
    tol : float, optional
        An absolute threshold; 0 counts every singular value that is not exactly zero.  None: the largest
        singular value times the sum of max(p_n, q_n) times the machine epsilon (of float32 for 16-bit
        storage), which is NumPy's rule for one factor.
    max_bytes : int, default 2**30
        The room that counting may take.

    Returns
    -------
    int
        An int of Python: it may be beyond 64 bits.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped, and where `tol` is below 0 or NaN.
    LinAlgError
        Where A is not finite.
    MemoryError
        Naming the size, above `max_bytes`.

    Notes
    -----
    Cost: that of `svdvals`.  Where some products exceed `tol` and some do not, about O(sqrt(K) log K) time
    and memory more for K of them that differ by more than rounding.  As `np.linalg.matrix_rank`, without
    `rtol` and `hermitian`.

    Examples
    --------
    >>> matrix_rank(KroneckerMatrix([np.ones((2, 2)), np.eye(3)]))
    3
    """
    xp, matrices = closed_forms.single(A, "matrix_rank")
    level = None if tol is None else closed_forms.check_level("tol", tol)
    values, peaks = cuts.relative(spectral.singular_values(xp, matrices))
    threshold = cuts.default_threshold(xp, matrices) if level is None else cuts.over(level, peaks)
    return cuts.count_above(values, threshold, float(xp.finfo(matrices[0].dtype).eps), max_bytes)


def _check_order(name, value):
    # An array would be compared element by element.
    if isinstance(value, bool) or not isinstance(value, str | Real | None) or value not in _ORDERS:
        raise ValueError(f"{name} must be one of {', '.join(map(str, _ORDERS))}, got {shown(value)}")


def _norm(xp, matrix, ord):
    """The norm of one factor."""
    if ord == "fro":
        # The squares of the elements may overflow.
        peak = xp.max(xp.abs(matrix))
        return peak * xp.linalg.matrix_norm(matrix / peak) if value_of(peak > 0) else peak
    if ord in (2, -2, "nuc", "trace"):
        (values,) = spectral.singular_values(xp, [matrix])
        return xp.sum(values) if ord in ("nuc", "trace") else xp.max(values) if ord == 2 else xp.min(values)
    sums = xp.sum(xp.abs(matrix), axis=0 if abs(ord) == 1 else 1)
    return xp.max(sums) if ord > 0 else xp.min(sums)


def _mixed(matrices):
    """Whether one factor is wide and another is tall."""
    return any(m.shape[0] < m.shape[1] for m in matrices) and any(m.shape[0] > m.shape[1] for m in matrices)


def _ratio(xp, matrices, values, p):
    """The largest over the smallest singular value, or the inverse of that; infinite for zeros."""
    smallest, largest = ([extreme(v) for v in values] for extreme in (xp.min, xp.max))
    infinite, zero = _infinity(xp, matrices), xp.zeros_like(largest[0])
    if not all(value_of(v > 0) for v in largest):
        return infinite
    if _mixed(matrices) or not all(value_of(v > 0) for v in smallest):
        return zero if p == -2 else infinite
    ratios = [s / t if p == -2 else t / s for s, t in zip(smallest, largest, strict=True)]
    return reduce(mul, ratios)


def _infinity(xp, matrices):
    return xp.full_like(xp.abs(matrices[0][0, 0]), inf)


def _spectral_norm_of_sum(A):
    """The largest absolute eigenvalue, where the factors are Hermitian."""
    xp = array_api_compat.array_namespace(*A.factors)
    matrices = spectral.hermitian_factors_of_sum(A, "norm")
    if matrices is None:
        raise TypeError(
            "A must have Hermitian factors for norm, or go through "
            "scipy.sparse.linalg.svds(A.as_linear_operator()), got a KroneckerSum with others"
        )
    values, _ = spectral.decomposed_hermitian(xp, matrices)
    ends = [abs(sum(extreme(v) for v in values)) for extreme in (xp.min, xp.max)]
    return unboxed(closed_forms.in_storage(xp, xp.where(ends[0] > ends[1], *ends), A.dtype))
