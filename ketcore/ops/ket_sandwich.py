"""Sandwiches of a Kronecker matrix between two kets: nothing of the size of a ket is formed.

    v^H M w = sum_{r,k,l} prod_n conj(v_nk) F_n[r] w_nl

Per mode a stack of R matrices (R', R''), their elementwise product over modes, and a sum.

Letters: N order; R, R' and R'' ranks of the matrix, of v and of w; p_n and q_n rows and columns of factor n;
... batch.
"""

from collections.abc import Sequence
from typing import overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import (
    as_sequence,
    check_batches,
    check_floating,
    check_like,
    check_tables,
    check_tangents,
)
from ketcore.arrays.elementary import conjugated, elementwise_product, transposed
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, quiet
from ketcore.products import terms
from ketcore.products.backward import summed_like
from ketcore.shapes import broadcast, shown


@overload
def ket_sandwich(v: Sequence[HostLike], factors: Sequence[HostLike], w: Sequence[HostLike]) -> Host: ...
@overload
def ket_sandwich(v: Sequence[ForeignT], factors: Sequence[ForeignT], w: Sequence[ForeignT]) -> ForeignT: ...
@quiet
def ket_sandwich(v: Sequence[AnyArray], factors: Sequence[AnyArray], w: Sequence[AnyArray]) -> AnyArray:
    """Sandwiches v^H M w of a Kronecker matrix between two kets: nothing of the size of a ket is formed.

    Kets and matrix are sums of products, of which the sandwich is one of leaves and factors::

        v^H M w = sum_{r,k,l} prod_n  conj(v_nk) F_n[r] w_nl

    Parameters
    ----------
    v : sequence of N arrays, (..., R', p_n)
        The leaves of the left ket or of a batch of them, which is conjugated.  Floating or complex; integers
        and nested lists become floating.
    factors : sequence of N arrays, (R, p_n, q_n)
        The factors of M, one R for all.
    w : sequence of N arrays, (..., R'', q_n)
        The leaves of the right ket.  Its batch broadcasts against that of `v`.

    Returns
    -------
    array, (...)
        One number for each entry of the batch, in the promoted dtype; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape: dims that are not those of the factors, or batches that do not broadcast.

    See Also
    --------
    kron_sandwich : The same between dense arrays.
    KroneckerMatrix.sandwich : The same of a matrix as an object.

    Notes
    -----
    Cost: ``O(R sum p_n (q_n R'' + R' R''))`` time an entry, ``O(R (p_n + R') R'')`` memory.

    Examples
    --------
    >>> v, w = (np.array([[1.0, 2.0]]), np.array([[3.0]])), (np.array([[4.0]]), np.array([[5.0, 6.0]]))
    >>> a, b = np.array([[[1.0], [1.0]]]), np.array([[[1.0, 2.0]]])
    >>> float(ket_sandwich(v, (a, b), w))
    612.0
    >>> float(np.kron([1, 2], [3]) @ np.kron(a[0], b[0]) @ np.kron([4], [5, 6]))
    612.0
    """
    call = _Call(v, factors, w)
    xp = call.xp
    total = elementwise_product(call.stacks(call.wide_v, call.wide, call.wide_w))
    return xp.astype(xp.sum(total, axis=(-3, -2, -1)), call.dtype, copy=False)


@overload
def ket_sandwich_vjp(
    v: Sequence[HostLike], factors: Sequence[HostLike], w: Sequence[HostLike], cotangent: HostLike
) -> tuple[tuple[Host, ...], tuple[Host, ...], tuple[Host, ...]]: ...
@overload
def ket_sandwich_vjp(
    v: Sequence[ForeignT], factors: Sequence[ForeignT], w: Sequence[ForeignT], cotangent: ForeignT
) -> tuple[tuple[ForeignT, ...], tuple[ForeignT, ...], tuple[ForeignT, ...]]: ...
@quiet
def ket_sandwich_vjp(
    v: Sequence[AnyArray], factors: Sequence[AnyArray], w: Sequence[AnyArray], cotangent: AnyArray
) -> tuple[tuple[AnyArray, ...], tuple[AnyArray, ...], tuple[AnyArray, ...]]:
    """Pull a cotangent of `ket_sandwich` back to both kets and to the factors.

    Parameters
    ----------
    v : sequence of N arrays, (..., R', p_n)
        As of `ket_sandwich`.
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `ket_sandwich`.
    w : sequence of N arrays, (..., R'', q_n)
        As of `ket_sandwich`.
    cotangent : array, (...)
        Of the sandwiches; real where these are.

    Returns
    -------
    to_v : tuple of N arrays, (..., R', p_n)
        In the shapes and dtypes of `v`: sums where its batch broadcast, real parts where it alone is real.
    to_factors : tuple of N arrays, (R, p_n, q_n)
        The same for `factors`, sums over the batch.
    to_w : tuple of N arrays, (..., R'', q_n)
        The same for `w`.

    Raises
    ------
    TypeError, ValueError
        As `ket_sandwich`, and on a cotangent that does not fit the sandwiches.

    Notes
    -----
    Cost: three times `ket_sandwich`.

    The transpose under the pairing ``Re(sum(c y))``: `w` gets c M^T conj(v) and the factors get c conj(v)
    w^T, not conjugated; `v`, on which the sandwich depends through its conjugate, gets conj(c M w).

    Examples
    --------
    >>> to_v, to_factors, to_w = ket_sandwich_vjp(([[1.0, 2.0]],), ([[[3.0], [4.0]]],), ([[5.0]],), 1.0)
    >>> to_v[0].tolist(), to_factors[0].tolist(), to_w[0].tolist()
    ([[15.0, 20.0]], [[[5.0], [10.0]]], [[11.0]])
    """
    call = _Call(v, factors, w)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, call.batch, xp, call.v[0], call.dtype)
    cotangent = xp.astype(cotangent, call.working, copy=False)[..., None, None, None]
    others = terms.products_of_others(xp, call.stacks(call.wide_v, call.wide, call.wide_w))
    found = [
        _mode_vjp(xp, cotangent * other, *leaves)
        for other, *leaves in zip(others, call.wide_v, call.wide, call.wide_w, strict=True)
    ]
    sides = zip(zip(*found, strict=True), (call.v, call.factors, call.w), call.shifts, strict=True)
    to_v, to_factors, to_w = (_like(xp, *side) for side in sides)
    return to_v, to_factors, to_w


@overload
def ket_sandwich_jvp(
    v: Sequence[HostLike],
    factors: Sequence[HostLike],
    w: Sequence[HostLike],
    v_tangents: Sequence[HostLike],
    factor_tangents: Sequence[HostLike],
    w_tangents: Sequence[HostLike],
) -> Host: ...
@overload
def ket_sandwich_jvp(
    v: Sequence[ForeignT],
    factors: Sequence[ForeignT],
    w: Sequence[ForeignT],
    v_tangents: Sequence[ForeignT],
    factor_tangents: Sequence[ForeignT],
    w_tangents: Sequence[ForeignT],
) -> ForeignT: ...
@quiet
def ket_sandwich_jvp(
    v: Sequence[AnyArray],
    factors: Sequence[AnyArray],
    w: Sequence[AnyArray],
    v_tangents: Sequence[AnyArray],
    factor_tangents: Sequence[AnyArray],
    w_tangents: Sequence[AnyArray],
) -> AnyArray:
    """The derivative of `ket_sandwich` along tangents of both kets and of the factors.

    Parameters
    ----------
    v : sequence of N arrays, (..., R', p_n)
        As of `ket_sandwich`.
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `ket_sandwich`.
    w : sequence of N arrays, (..., R'', q_n)
        As of `ket_sandwich`.
    v_tangents : sequence of N arrays, (..., R', p_n)
        Of `v`, in its shapes; real where all of `v`, `factors` and `w` are.
    factor_tangents : sequence of N arrays, (R, p_n, q_n)
        The same of `factors`.
    w_tangents : sequence of N arrays, (..., R'', q_n)
        The same of `w`.

    Returns
    -------
    array, (...)
        In the dtype of what `ket_sandwich` returns.

    Raises
    ------
    TypeError, ValueError
        As `ket_sandwich`, and on tangents that do not fit.
    """
    call = _Call(v, factors, w)
    xp = call.xp
    dv, df, dw = (
        scale.shifted(call.widened(check_tangents(name, tangents, primals, xp, call.dtype)), shifts)
        for name, tangents, primals, shifts in (
            ("v_tangents", v_tangents, call.v, call.shifts[0]),
            ("factor_tangents", factor_tangents, call.factors, call.shifts[1]),
            ("w_tangents", w_tangents, call.w, call.shifts[2]),
        )
    )
    others = terms.products_of_others(xp, call.stacks(call.wide_v, call.wide, call.wide_w))
    by_v = call.stacks(dv, call.wide, call.wide_w)
    by_factors = call.stacks(call.wide_v, df, call.wide_w)
    by_w = call.stacks(call.wide_v, call.wide, dw)
    moved = zip(others, by_v, by_factors, by_w, strict=True)
    total = sum(xp.sum(o * (a + b + c), axis=(-3, -2, -1)) for o, a, b, c in moved)
    return xp.astype(total, call.dtype, copy=False)


def ket_sandwich_shapes(
    v: Sequence[AnyArray], factors: Sequence[AnyArray], w: Sequence[AnyArray], **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `ket_sandwich`, of anything that has a shape."""
    return (broadcast(v[0].shape[:-2], w[0].shape[:-2]),)


@quiet
def ket_sandwich_dense(
    v: Sequence[AnyArray], factors: Sequence[AnyArray], w: Sequence[AnyArray]
) -> np.ndarray:
    """The definition of `ket_sandwich` on NumPy arrays: kets and matrix multiplied out.

    Parameters
    ----------
    v : sequence of N arrays, (..., R', p_n)
        As of `ket_sandwich`; they are not checked.
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `ket_sandwich`; they are not checked.
    w : sequence of N arrays, (..., R'', q_n)
        As of `ket_sandwich`; they are not checked.

    Returns
    -------
    np.ndarray, (...)
        In the promoted dtype.

    Notes
    -----
    Cost: O(P Q) memory.
    """
    dtype = np.result_type(*v, *factors, *w)
    left, right = terms.dense_ket(v), terms.dense_ket(w)
    moved = (terms.dense_matrix(factors) @ right[..., None])[..., 0]
    return np.sum(np.conj(left) * moved, axis=-1).astype(dtype)


def _mode_vjp(xp, cotangent, v, factor, w):
    """The gradients of v, factor and w of one mode from that (..., R, R', R'') of its stack."""
    left = conjugated(v)[..., None, :, :]
    moved = transposed(factor @ transposed(w)[..., None, :, :])
    to_v = conjugated(xp.sum(cotangent @ moved, axis=-3))
    to_w = xp.sum(transposed(cotangent) @ (left @ factor), axis=-3)
    # All entries of the batch side by side along the axis that is summed.
    right = cotangent @ w[..., None, :, :]
    left = xp.broadcast_to(left, (*right.shape[:-1], v.shape[-1]))
    flat = [_rank_first(xp, side) for side in (left, right)]
    return to_v, transposed(flat[0]) @ flat[1], to_w


def _rank_first(xp, array):
    """(..., R, R', n) to (R, ... R', n)."""
    batch = array.ndim - 3
    moved = xp.permute_dims(array, (batch, *range(batch), batch + 1, batch + 2))
    rows = int(np.prod(moved.shape[1:-1]))
    return xp.reshape(moved, (moved.shape[0], rows, moved.shape[-1]))


def _like(xp, gradients, primals, shifts):
    """Gradients in shape and dtype of their primals, with the shifts undone."""
    summed = [summed_like(xp, g, p.shape) for g, p in zip(gradients, primals, strict=True)]
    pairs = zip(scale.shifted(summed, shifts), primals, strict=True)
    return tuple(cast_gradient(xp, gradient, primal) for gradient, primal in pairs)


class _Call:
    """The checked arguments of one call, and copies at one level in the dtype of sums, with their shifts."""

    def __init__(self, v, factors, w):
        v, w = as_sequence("v", v), as_sequence("w", w)
        self.factors = check_tables("factors", factors, (*v, *w))[1]
        self.v = check_floating("v", v, (*self.factors, *w))[1]
        self.w = check_floating("w", w, (*self.v, *self.factors))[1]
        self.xp, _, self.dtype = check_floating("v, factors and w", (*self.v, *self.factors, *self.w))
        for name, ket, axis in (("v", self.v, 1), ("w", self.w, 2)):
            _check_ket(name, ket, tuple(factor.shape[axis] for factor in self.factors))
        self.batch = check_batches("v and w", self.v[0].shape[:-2], self.w[0].shape[:-2])
        self.working = accumulation_dtype(self.xp, self.dtype)
        self.wide_v, by_v = scale.level(self.widened(self.v), -1)
        self.wide, by_factors, carry = scale.level_and_carry(self.widened(self.factors), None)
        self.wide_w, by_w = scale.level(self.widened(self.w), -1, -carry)
        self.shifts = by_v, by_factors, by_w

    def widened(self, arrays):
        return [self.xp.astype(array, self.working, copy=False) for array in arrays]

    def stacks(self, v, factors, w):
        """Per mode the numbers (..., R, R', R'') that its factor makes of the leaves of v and w."""
        return [
            conjugated(a)[..., None, :, :] @ (factor @ transposed(b)[..., None, :, :])
            for a, factor, b in zip(v, factors, w, strict=True)
        ]


def _check_ket(name, ket, dims):
    shapes = [tuple(leaf.shape) for leaf in ket]
    if any(len(s) < 2 or s[:-1] != shapes[0][:-1] for s in shapes):
        rule = "arrays (..., rank, dim) of one batch and rank"
        raise ValueError(f"{name} must be {rule}, got shapes {shown(shapes)}")
    found = tuple(s[-1] for s in shapes)
    if found != dims:
        raise ValueError(f"{name} must have the dims {dims} of the factors, got {found}")
