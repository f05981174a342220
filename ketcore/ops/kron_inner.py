"""The Frobenius inner product of two Kronecker matrices of equal dims, cropped or not.

    <A, B> = sum_ij conj(A_ij) B_ij = sum_{k,l} prod_n <A_n[k], B_n[l]>

Of a leading block it is the sum of that over boxes of digits.

Letters: N order, R and R' ranks, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import (
    as_sequence,
    check_floating,
    check_like,
    check_shape,
    check_tables,
    check_tangents,
)
from ketcore.arrays.elementary import as_dtype, conjugated, elementwise_product, transposed
from ketcore.arrays.namespaces import accumulation_dtype, quiet
from ketcore.products import terms


@overload
def kron_inner(
    a: Sequence[HostLike], b: Sequence[HostLike], shape: tuple[int, int] | None = None
) -> Host: ...
@overload
def kron_inner(
    a: Sequence[ForeignT], b: Sequence[ForeignT], shape: tuple[int, int] | None = None
) -> ForeignT: ...
@quiet
def kron_inner(
    a: Sequence[AnyArray], b: Sequence[AnyArray], shape: tuple[int, int] | None = None
) -> AnyArray:
    """The Frobenius inner product of two Kronecker matrices of equal dims, as ``np.vdot`` of the two.

    The first is conjugated, and neither is formed::

        <A, B> = sum_ij conj(A_ij) B_ij = sum_{k,l} prod_n <A_n[k], B_n[l]>

    Parameters
    ----------
    a : sequence of N arrays, (R, p_n, q_n)
        The factors of A, one R for all.  Floating or complex; integers and nested lists become floating.
    b : sequence of N arrays, (R', p_n, q_n)
        The factors of B, of the same p_n and q_n.
    shape : (int, int), optional
        ``(rows, columns)`` of the leading block of (P, Q) that both are cropped to, with P = prod p_n and
        Q = prod q_n.  By default all of it.

    Returns
    -------
    array, ()
        In the promoted dtype; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape, and on other p_n or q_n.

    See Also
    --------
    kron_norm : The norm that belongs to it.
    ket_inner : The same of kets.
    KroneckerMatrix.inner : The same of matrices as objects.

    Notes
    -----
    Cost: ``O(R R' sum p_n q_n)`` time; where both axes are cropped about four times that, and ``O(R R'
    N^3)``.

    Examples
    --------
    >>> a, b = np.array([[[1.0, 2.0]]]), np.array([[[3.0], [4.0]]])
    >>> float(kron_inner((a, b), (a, b))), float(np.sum(np.kron(a[0], b[0]) ** 2))
    (125.0, 125.0)
    """
    call = _Call(a, b, shape)
    return call.finished(elementwise_product(call.grams(call.left, call.right)))


@overload
def kron_inner_vjp(
    a: Sequence[HostLike], b: Sequence[HostLike], cotangent: HostLike, shape: tuple[int, int] | None = None
) -> tuple[tuple[Host, ...], tuple[Host, ...]]: ...
@overload
def kron_inner_vjp(
    a: Sequence[ForeignT], b: Sequence[ForeignT], cotangent: ForeignT, shape: tuple[int, int] | None = None
) -> tuple[tuple[ForeignT, ...], tuple[ForeignT, ...]]: ...
@quiet
def kron_inner_vjp(
    a: Sequence[AnyArray], b: Sequence[AnyArray], cotangent: AnyArray, shape: tuple[int, int] | None = None
) -> tuple[tuple[AnyArray, ...], tuple[AnyArray, ...]]:
    """Pull a cotangent of `kron_inner` back to the factors of both matrices.

    Parameters
    ----------
    a : sequence of N arrays, (R, p_n, q_n)
        As of `kron_inner`.
    b : sequence of N arrays, (R', p_n, q_n)
        As of `kron_inner`.
    cotangent : float, complex or array, ()
        Of the inner product; real where this is.
    shape : (int, int), optional
        As of `kron_inner`.

    Returns
    -------
    to_a : tuple of N arrays, (R, p_n, q_n)
        In the dtypes of `a`: real parts where it alone is real.
    to_b : tuple of N arrays, (R', p_n, q_n)
        The same for `b`.

    Raises
    ------
    TypeError, ValueError
        As `kron_inner`, and on a cotangent that does not fit the inner product.

    Notes
    -----
    The transpose under the pairing ``Re(sum(c y))``: `b` gets c conj(A), not conjugated; `a`, on which the
    inner product depends through its conjugate, gets conj(c B).

    Examples
    --------
    >>> to_a, to_b = kron_inner_vjp(([[[1.0, 2.0]]], [[[3.0]]]), ([[[4.0, 5.0]]], [[[6.0]]]), 1.0)
    >>> [g.tolist() for g in to_a]
    [[[[72.0, 90.0]]], [[[84.0]]]]
    """
    call = _Call(a, b, shape)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, (), xp, call.a[0], call.dtype)
    cotangent = xp.astype(cotangent, call.working, copy=False)
    others = terms.products_of_others(xp, call.grams(call.left, call.right))
    to_grams = [cotangent * other for other in others]
    to_a = [
        conjugated(terms.block_pulled(xp, c, right, call.block, n))
        for n, (c, right) in enumerate(zip(to_grams, call.right, strict=True))
    ]
    to_b = [
        terms.block_pulled(xp, transposed(c), conjugated(left), call.block, n)
        for n, (c, left) in enumerate(zip(to_grams, call.left, strict=True))
    ]
    return call.like(to_a, call.a, call.left_shifts), call.like(to_b, call.b, call.right_shifts)


@overload
def kron_inner_jvp(
    a: Sequence[HostLike],
    b: Sequence[HostLike],
    a_tangents: Sequence[HostLike],
    b_tangents: Sequence[HostLike],
    shape: tuple[int, int] | None = None,
) -> Host: ...
@overload
def kron_inner_jvp(
    a: Sequence[ForeignT],
    b: Sequence[ForeignT],
    a_tangents: Sequence[ForeignT],
    b_tangents: Sequence[ForeignT],
    shape: tuple[int, int] | None = None,
) -> ForeignT: ...
@quiet
def kron_inner_jvp(
    a: Sequence[AnyArray],
    b: Sequence[AnyArray],
    a_tangents: Sequence[AnyArray],
    b_tangents: Sequence[AnyArray],
    shape: tuple[int, int] | None = None,
) -> AnyArray:
    """The derivative of `kron_inner` along tangents of the factors of both matrices.

    Parameters
    ----------
    a : sequence of N arrays, (R, p_n, q_n)
        As of `kron_inner`.
    b : sequence of N arrays, (R', p_n, q_n)
        As of `kron_inner`.
    a_tangents : sequence of N arrays, (R, p_n, q_n)
        Of `a`; real where all of `a` and `b` are.
    b_tangents : sequence of N arrays, (R', p_n, q_n)
        The same of `b`.
    shape : (int, int), optional
        As of `kron_inner`.

    Returns
    -------
    array, ()
        In the dtype of what `kron_inner` returns.

    Raises
    ------
    TypeError, ValueError
        As `kron_inner`, and on tangents that do not fit the factors.

    Notes
    -----
    Of complex factors the derivative is linear in the tangents of `b` and conjugate-linear in those of `a`.
    """
    call = _Call(a, b, shape)
    xp = call.xp
    a_tangents = call.reached(check_tangents("a_tangents", a_tangents, call.a, xp, call.dtype))
    b_tangents = call.reached(check_tangents("b_tangents", b_tangents, call.b, xp, call.dtype))
    da, db = scale.shifted(a_tangents, call.left_shifts), scale.shifted(b_tangents, call.right_shifts)
    others = terms.products_of_others(xp, call.grams(call.left, call.right))
    by_a, by_b = call.grams(da, call.right), call.grams(call.left, db)
    return call.finished(sum(o * (x + y) for o, x, y in zip(others, by_a, by_b, strict=True)))


def kron_inner_shapes(
    a: Sequence[AnyArray], b: Sequence[AnyArray], **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_inner`, of anything that has a shape."""
    return ((),)


@quiet
def kron_inner_dense(
    a: Sequence[AnyArray], b: Sequence[AnyArray], shape: tuple[int, int] | None = None
) -> np.ndarray:
    """The definition of `kron_inner` on NumPy arrays: both matrices multiplied out, then ``np.vdot``.

    Parameters
    ----------
    a : sequence of N arrays, (R, p_n, q_n)
        As of `kron_inner`; they are not checked.
    b : sequence of N arrays, (R', p_n, q_n)
        As of `kron_inner`; they are not checked.
    shape : (int, int), optional
        As of `kron_inner`; they are not checked.

    Returns
    -------
    np.ndarray, ()
        In the promoted dtype.

    Notes
    -----
    Cost: O(P Q) memory.
    """
    return np.vdot(terms.dense_matrix(a, shape), terms.dense_matrix(b, shape)).astype(np.result_type(*a, *b))


class _Call:
    """The checked arguments of one call, and the reached parts of the factors of both sides at one level."""

    def __init__(self, a: Sequence[AnyArray], b: Sequence[AnyArray], shape: Any) -> None:
        a, b = as_sequence("a", a), as_sequence("b", b)
        self.a = check_tables("a", a, b)[1]
        self.b = check_tables("b", b, self.a)[1]
        self.xp, _, self.dtype = check_floating("a and b", (*self.a, *self.b))
        shapes = [[tuple(factor.shape[1:]) for factor in side] for side in (self.a, self.b)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"a and b must have factors of the same shapes, got {shapes[0]} and {shapes[1]}")
        self.block = terms.leading_block(self.a, check_shape(shape, self.a))
        self.working = accumulation_dtype(self.xp, self.dtype)
        self.left, self.left_shifts = scale.level(self.reached(self.a), None)
        self.right, self.right_shifts = scale.level(self.reached(self.b), None)

    def reached(self, factors):
        return terms.reached(self.xp, factors, self.block, self.working)

    def grams(self, left, right):
        return terms.block_grams(self.xp, left, right, self.block)

    def like(self, gradients, primals, shifts):
        pairs = zip(scale.shifted(gradients, shifts), primals, strict=True)
        return tuple(terms.whole(self.xp, gradient, primal) for gradient, primal in pairs)

    def finished(self, total):
        return as_dtype(self.xp, self.xp.sum(total), self.dtype)
