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
    """sum_ij conj(A_ij) B_ij, as np.vdot of the two matrices.

    a        N arrays (R, p_n, q_n), floating or complex; conjugated
    b        N arrays (R', p_n, q_n)
    shape    (rows, columns), the leading block of (P, Q) that both are cropped to; None is all of it
    returns  an array without dimensions in the promoted dtype; 16-bit storage is summed in float32
    raises   TypeError, ValueError on kinds and shapes
    cost     O(R R' sum p_n q_n); where both axes are cropped about four times that, and O(R R' N^3)

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
    """Pull `cotangent`, without dimensions, back through `kron_inner` to the factors of `a` and `b`.

    returns  two tuples of arrays in the shapes and dtypes of the factors.  The transpose under the pairing
             Re(sum(c y)): `b` gets c conj(A), not conjugated, and `a`, on which the inner product depends
             through its conjugate, gets conj(c B)
    raises   as `kron_inner`; TypeError, ValueError on the cotangent
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
    """The derivative of `kron_inner` along the tangents of `a` and of `b`.

    raises   as `kron_inner`; TypeError, ValueError on the tangents
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
    """The definition on NumPy arrays: both matrices multiplied out, then np.vdot.  Costs P Q memory."""
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
