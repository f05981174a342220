"""The Frobenius norm of a Kronecker matrix, cropped or not.

    |M| = sqrt(sum_{k,l} prod_n <F_n[k], F_n[l]>),   d |M| = Re <M, dM> / |M|

Every leaf is scaled by a power of two, such that the products of the norms of the first leaves of a term stay
near 1: products over modes, however many, do not overflow where the norm does not.

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add, or_
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import check_like, check_shape, check_tables, check_tangents
from ketcore.arrays.elementary import as_dtype, conjugated, elementwise_product, transposed
from ketcore.arrays.namespaces import accumulation_dtype, is_complex, quiet
from ketcore.products import terms


@overload
def kron_norm(factors: Sequence[HostLike], shape: tuple[int, int] | None = None) -> Host: ...
@overload
def kron_norm(factors: Sequence[ForeignT], shape: tuple[int, int] | None = None) -> ForeignT: ...
@quiet
def kron_norm(factors: Sequence[AnyArray], shape: tuple[int, int] | None = None) -> AnyArray:
    """The Frobenius norm of a Kronecker matrix, which is never formed.

    With the inner products of the factors of its R terms it is::

        |M| = sqrt(sum_ij |M_ij|^2) = sqrt(sum_{k,l} prod_n <F_n[k], F_n[l]>)

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        Floating or complex, one R for all; integers and nested lists become floating.
    shape : (int, int), optional
        ``(rows, columns)`` of the leading block of (P, Q) that M is cropped to, with P = prod p_n and
        Q = prod q_n.  By default all of it.

    Returns
    -------
    array, ()
        In the real dtype of the factors; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape.

    See Also
    --------
    kron_inner : The inner product that it belongs to.
    linalg.norm : Other norms of a matrix as an object.

    Notes
    -----
    Cost: ``O(R^2 sum p_n q_n)`` time; where both axes are cropped about four times that, and ``O(R^2 N^3)``.

    Where the terms cancel, rounding is relative to the terms and not to their sum.  Products over modes,
    however many, do not overflow where the norm does not.

    Examples
    --------
    >>> a, b = np.array([[[3.0, 4.0]]]), np.array([[[0.0], [2.0]]])
    >>> float(kron_norm((a, b))), float(np.linalg.norm(np.kron(a[0], b[0])))
    (10.0, 10.0)
    """
    call = _Call(factors, shape)
    return call.finished(scale.times_power(call.xp.sqrt(call.squared), call.top))


@overload
def kron_norm_vjp(
    factors: Sequence[HostLike], cotangent: HostLike, shape: tuple[int, int] | None = None
) -> tuple[Host, ...]: ...
@overload
def kron_norm_vjp(
    factors: Sequence[ForeignT], cotangent: ForeignT, shape: tuple[int, int] | None = None
) -> tuple[ForeignT, ...]: ...
@quiet
def kron_norm_vjp(
    factors: Sequence[AnyArray], cotangent: AnyArray, shape: tuple[int, int] | None = None
) -> tuple[AnyArray, ...]:
    """Pull a cotangent of `kron_norm` back to the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_norm`.
    cotangent : float or array, ()
        Of the norm, real.
    shape : (int, int), optional
        As of `kron_norm`.

    Returns
    -------
    tuple of N arrays, (R, p_n, q_n)
        Each in the dtype of its factor: of a real one beside complex ones the real part.

    Raises
    ------
    TypeError, ValueError
        As `kron_norm`, and on a cotangent that is no real number.

    Notes
    -----
    At a norm of zero, where there is no derivative, the gradients are zero: the subgradient of least norm.

    The transpose under the pairing ``Re(sum(c y))``: of complex factors M gets c conj(M) over its norm.

    Examples
    --------
    >>> [g.tolist() for g in kron_norm_vjp(([[[3.0, 4.0]]], [[[2.0]]]), 5.0)]
    [[[[6.0, 8.0]]], [[[25.0]]]]
    """
    call = _Call(factors, shape)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, (), xp, call.factors[0], call.real)
    cotangent = xp.astype(cotangent, call.real, copy=False) * call.inverse_root()
    found = []
    for n, (unit, other) in enumerate(zip(call.units, call.others(), strict=True)):
        rest = (call.total - call.exponents[n])[:, None, None]
        to_gram = transposed(other * call.weights[:, None])
        pulled = terms.block_pulled(xp, to_gram, conjugated(unit), call.block, n)
        found.append(terms.whole(xp, scale.times_power(cotangent * pulled, rest), call.factors[n]))
    return tuple(found)


@overload
def kron_norm_jvp(
    factors: Sequence[HostLike], tangents: Sequence[HostLike], shape: tuple[int, int] | None = None
) -> Host: ...
@overload
def kron_norm_jvp(
    factors: Sequence[ForeignT], tangents: Sequence[ForeignT], shape: tuple[int, int] | None = None
) -> ForeignT: ...
@quiet
def kron_norm_jvp(
    factors: Sequence[AnyArray], tangents: Sequence[AnyArray], shape: tuple[int, int] | None = None
) -> AnyArray:
    """The derivative of `kron_norm` along tangents of the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_norm`.
    tangents : sequence of N arrays, (R, p_n, q_n)
        Of the factors; real where all of these are.
    shape : (int, int), optional
        As of `kron_norm`.

    Returns
    -------
    array, ()
        ``Re <M, dM> / |M|`` in the dtype of what `kron_norm` returns; zero at a norm of zero.

    Raises
    ------
    TypeError, ValueError
        As `kron_norm`, and on tangents that do not fit the factors.
    """
    call = _Call(factors, shape)
    xp = call.xp
    tangents = check_tangents("tangents", tangents, call.factors, xp, call.dtype)
    moved = terms.reached(xp, tangents, call.block, call.working)
    grams, total = terms.block_grams(xp, call.units, moved, call.block), 0
    for n, (gram, other) in enumerate(zip(grams, call.others(), strict=True)):
        rest = (call.total - call.exponents[n])[None, :]
        total = total + xp.sum(scale.times_power(call.weights[:, None] * other * gram, rest))
    total = xp.real(total) if is_complex(xp, call.working) else total
    return call.finished(total * call.inverse_root())


def kron_norm_shapes(factors: Sequence[AnyArray], **options: object) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_norm`, of anything that has a shape."""
    return ((),)


@quiet
def kron_norm_dense(factors: Sequence[AnyArray], shape: tuple[int, int] | None = None) -> np.ndarray:
    """The definition of `kron_norm` on NumPy arrays: M multiplied out, then ``np.linalg.norm``.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_norm`; they are not checked.
    shape : (int, int), optional
        As of `kron_norm`; they are not checked.

    Returns
    -------
    np.ndarray, ()
        In the real dtype of the factors.

    Notes
    -----
    Cost: O(P Q) memory.
    """
    dtype = np.real(np.zeros((), np.result_type(*factors))).dtype
    return np.linalg.norm(terms.dense_matrix(factors, shape)).astype(dtype)


class _Call:
    """The checked arguments of one call, scaled: F_n[k] = 2^exponents[n][k] units[n][k]."""

    def __init__(self, factors: Sequence[AnyArray], shape: Any) -> None:
        self.xp, self.factors, self.dtype = check_tables("factors", factors)
        xp = self.xp
        self.block = terms.leading_block(self.factors, check_shape(shape, self.factors))
        self.working = accumulation_dtype(xp, self.dtype)
        leaves = terms.reached(xp, self.factors, self.block, self.working)
        sizes = [xp.max(xp.abs(leaf), axis=(1, 2)) for leaf in leaves]
        dead = reduce(or_, [size == 0 for size in sizes])
        sizes = [xp.where((s > 0) & xp.isfinite(s), s, xp.ones_like(s)) for s in sizes]
        self.real = sizes[0].dtype
        self._scale(leaves, _powers(xp, leaves, sizes), dead)

    def _scale(self, leaves, powers, dead):
        """Weights and Gram matrices of the terms, and the squared norm, over powers of two."""
        xp = self.xp
        self.units = scale.shifted(leaves, [-power[:, None, None] for power in powers])
        self.exponents, self.total = powers, reduce(add, powers)
        # Terms with a leaf of zeros are zero, however large their other leaves are.
        total = xp.where(dead, xp.min(self.total), self.total) if self.total.shape[0] else self.total
        self.top = xp.max(total) if total.shape[0] else xp.sum(total)
        self.weights = 2.0 ** (total - self.top)
        self.grams = terms.block_grams(xp, self.units, self.units, self.block)
        both = self.weights[:, None] * self.weights[None, :]
        squared = xp.sum(both * elementwise_product(self.grams))
        squared = xp.real(squared) if is_complex(xp, self.working) else squared
        self.squared = xp.where(squared < 0, xp.zeros_like(squared), squared)

    def inverse_root(self):
        """1 over the norm of the units; zero at a norm of zero."""
        xp, nothing = self.xp, self.squared == 0
        safe = xp.where(nothing, xp.ones_like(self.squared), self.squared)
        return xp.where(nothing, xp.zeros_like(safe), 1 / xp.sqrt(safe))

    def others(self):
        return terms.products_of_others(self.xp, self.grams)

    def finished(self, total):
        xp = self.xp
        dtype = self.dtype if not is_complex(xp, self.dtype) else self.real
        return as_dtype(xp, total, dtype)


def _powers(xp, leaves, sizes):
    """Binary logarithms of the norms of leaves (R,), rounded: what that leaves goes to the next mode."""
    powers, left = [], xp.zeros_like(sizes[0])
    for leaf, size in zip(leaves, sizes, strict=True):
        squares = xp.sum(xp.abs(leaf / size[:, None, None]) ** 2, axis=(1, 2))
        squares = xp.where((squares > 0) & xp.isfinite(squares), squares, xp.ones_like(squares))
        left = left + xp.log2(size) + xp.log2(squares) / 2
        powers.append(xp.round(left))
        left = left - powers[-1]
    return powers
