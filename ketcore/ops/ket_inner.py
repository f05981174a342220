"""Inner products of kets without multiplying them out.

    <v, w> = sum_{k,l} prod_n <v_nk, w_nl>,   v = sum_k (x)_n v_nk,   w = sum_l (x)_n w_nl

Per mode an R x R' matrix of inner products of leaves, their elementwise product over modes, and a sum.  The
first argument is conjugated, as by np.vdot.  `ket_gram` takes all pairs of two batches, `ket_inner` one pair
per entry.

Letters: N order, R and R' ranks, q_n length of leaf n, ... batch.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import as_sequence, check_floating, check_like, check_tangents
from ketcore.arrays.elementary import conjugated, elementwise_product, transposed
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, quiet
from ketcore.products import terms
from ketcore.shapes import broadcast, shown

# Up to so many entries a leaf costs less as part of a larger one than as a matrix of its own.
_MERGED = 32


@overload
def ket_inner(v: Sequence[HostLike], w: Sequence[HostLike]) -> Host: ...
@overload
def ket_inner(v: Sequence[ForeignT], w: Sequence[ForeignT]) -> ForeignT: ...
@quiet
def ket_inner(v: Sequence[AnyArray], w: Sequence[AnyArray]) -> AnyArray:
    """<v, w> for each entry of the batch.

    v        N arrays (..., R, q_n), floating or complex; conjugated
    w        N arrays (..., R', q_n); the batches broadcast
    returns  (...) in the promoted dtype; 16-bit storage is summed in float32
    raises   TypeError, ValueError on kinds and shapes
    cost     time O(R R' sum q_n) an entry, memory O(R R')

    >>> v, w = (np.array([[1.0, 2.0]]), np.array([[3.0]])), (np.array([[4.0, 5.0]]), np.array([[6.0]]))
    >>> float(ket_inner(v, w)), int(np.kron([1, 2], [3]) @ np.kron([4, 5], [6]))
    (252.0, 252)
    """
    xp, v, w, dtype = _checked(v, w)
    _broadcast(v, w)
    (wide_v, _), (wide_w, _) = _level(xp, v, dtype), _level(xp, w, dtype)
    return xp.astype(_summed(xp, terms.grams(xp, wide_v, wide_w)), dtype, copy=False)


@overload
def ket_inner_vjp(
    v: Sequence[HostLike], w: Sequence[HostLike], cotangent: HostLike
) -> tuple[tuple[Host, ...], tuple[Host, ...]]: ...
@overload
def ket_inner_vjp(
    v: Sequence[ForeignT], w: Sequence[ForeignT], cotangent: ForeignT
) -> tuple[tuple[ForeignT, ...], tuple[ForeignT, ...]]: ...
@quiet
def ket_inner_vjp(
    v: Sequence[AnyArray], w: Sequence[AnyArray], cotangent: AnyArray
) -> tuple[tuple[AnyArray, ...], tuple[AnyArray, ...]]:
    """Pull `cotangent` (...) back through `ket_inner` to `v` and `w`, in their shapes and dtypes.

    The transpose under the pairing Re(sum(c y)): `w` gets c conj(v), not conjugated, and `v`, on which the
    inner product depends through its conjugate, gets conj(c w); where the batches broadcast, sums.
    raises   as `ket_inner`; TypeError, ValueError on the cotangent
    cost     time O(N R R' sum q_n) an entry
    """
    xp, v, w, dtype = _checked(v, w)
    batch = _broadcast(v, w)
    cotangent = check_like("cotangent", cotangent, batch, xp, v[0], dtype)
    (cotangent,) = _wide(xp, [cotangent], dtype)
    (wide_v, v_shifts), (wide_w, w_shifts) = _level(xp, v, dtype), _level(xp, w, dtype)
    others = terms.products_of_others(xp, terms.grams(xp, wide_v, wide_w))
    to_grams = [cotangent[..., None, None] * other for other in others]
    to_v = [conjugated(c @ b) for c, b in zip(to_grams, wide_w, strict=True)]
    to_w = [transposed(c) @ conjugated(a) for c, a in zip(to_grams, wide_v, strict=True)]
    return _like_primals(xp, to_v, v, v_shifts), _like_primals(xp, to_w, w, w_shifts)


@overload
def ket_inner_jvp(
    v: Sequence[HostLike],
    w: Sequence[HostLike],
    v_tangents: Sequence[HostLike],
    w_tangents: Sequence[HostLike],
) -> Host: ...
@overload
def ket_inner_jvp(
    v: Sequence[ForeignT],
    w: Sequence[ForeignT],
    v_tangents: Sequence[ForeignT],
    w_tangents: Sequence[ForeignT],
) -> ForeignT: ...
@quiet
def ket_inner_jvp(
    v: Sequence[AnyArray],
    w: Sequence[AnyArray],
    v_tangents: Sequence[AnyArray],
    w_tangents: Sequence[AnyArray],
) -> AnyArray:
    """The derivative (...) of `ket_inner` along the tangents of `v` and of `w`.

    raises   as `ket_inner`; TypeError, ValueError on the tangents
    """
    xp, v, w, dtype = _checked(v, w)
    _broadcast(v, w)
    v_tangents = check_tangents("v_tangents", v_tangents, v, xp, dtype)
    w_tangents = check_tangents("w_tangents", w_tangents, w, xp, dtype)
    (wide_v, v_shifts), (wide_w, w_shifts) = _level(xp, v, dtype), _level(xp, w, dtype)
    others = terms.products_of_others(xp, terms.grams(xp, wide_v, wide_w))
    dv = scale.shifted(_wide(xp, v_tangents, dtype), v_shifts)
    dw = scale.shifted(_wide(xp, w_tangents, dtype), w_shifts)
    moved = zip(others, terms.grams(xp, dv, wide_w), terms.grams(xp, wide_v, dw), strict=True)
    total = sum(xp.sum(other * (by_v + by_w), axis=(-2, -1)) for other, by_v, by_w in moved)
    return xp.astype(total, dtype, copy=False)


def ket_inner_shapes(
    v: Sequence[AnyArray], w: Sequence[AnyArray], **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `ket_inner`, of anything that has a shape."""
    return (broadcast(v[0].shape[:-2], w[0].shape[:-2]),)


@quiet
def ket_inner_dense(v: Sequence[AnyArray], w: Sequence[AnyArray]) -> np.ndarray:
    """The definition on NumPy arrays: both kets multiplied out, then np.vdot."""
    dtype = np.result_type(*v, *w)
    return np.sum(np.conj(terms.dense_ket(v)) * terms.dense_ket(w), axis=-1).astype(dtype)


@overload
def ket_gram(v: Sequence[HostLike], w: Sequence[HostLike]) -> Host: ...
@overload
def ket_gram(v: Sequence[ForeignT], w: Sequence[ForeignT]) -> ForeignT: ...
@quiet
def ket_gram(v: Sequence[AnyArray], w: Sequence[AnyArray]) -> AnyArray:
    """<v[i], w[j]> for all pairs of two batches.

    v        N arrays (*i, R, q_n), floating or complex; conjugated
    w        N arrays (*j, R', q_n)
    returns  (*i, *j) in the promoted dtype; 16-bit storage is summed in float32
    raises   TypeError, ValueError on kinds and shapes
    cost     time O(R R' |i| |j| sum q_n), memory O(R R' |i| |j|)

    >>> v = (np.eye(2)[:, None], np.ones((2, 1, 3)))
    >>> ket_gram(v, v).tolist()
    [[3.0, 0.0], [0.0, 3.0]]
    """
    xp, v, w, dtype = _checked(v, w)
    first, second, rank, other_rank = _batches(v, w)
    flat = (_flat(xp, _level(xp, ket, dtype)[0]) for ket in (v, w))
    grams = terms.grams(xp, *(_merged(xp, leaves) for leaves in flat))
    split = xp.reshape(elementwise_product(grams), (prod(first), rank, prod(second), other_rank))
    return xp.astype(xp.reshape(xp.sum(xp.sum(split, axis=1), axis=-1), (*first, *second)), dtype, copy=False)


@overload
def ket_gram_vjp(
    v: Sequence[HostLike], w: Sequence[HostLike], cotangent: HostLike
) -> tuple[tuple[Host, ...], tuple[Host, ...]]: ...
@overload
def ket_gram_vjp(
    v: Sequence[ForeignT], w: Sequence[ForeignT], cotangent: ForeignT
) -> tuple[tuple[ForeignT, ...], tuple[ForeignT, ...]]: ...
@quiet
def ket_gram_vjp(
    v: Sequence[AnyArray], w: Sequence[AnyArray], cotangent: AnyArray
) -> tuple[tuple[AnyArray, ...], tuple[AnyArray, ...]]:
    """Pull `cotangent` (*i, *j) back through `ket_gram` to `v` and `w`, conjugated as by `ket_inner_vjp`.

    raises   as `ket_gram`; TypeError, ValueError on the cotangent
    cost     time O(N R R' |i| |j| sum q_n)
    """
    xp, v, w, dtype = _checked(v, w)
    first, second, rank, other_rank = _batches(v, w)
    cotangent = check_like("cotangent", cotangent, (*first, *second), xp, v[0], dtype)
    (cotangent,) = _wide(xp, [cotangent], dtype)
    cotangent = xp.reshape(cotangent, (prod(first), 1, prod(second), 1))
    spread = xp.broadcast_to(cotangent, (prod(first), rank, prod(second), other_rank))
    spread = xp.reshape(spread, (prod(first) * rank, prod(second) * other_rank))
    (wide_v, v_shifts), (wide_w, w_shifts) = _level(xp, v, dtype), _level(xp, w, dtype)
    flat_v, flat_w = _flat(xp, wide_v), _flat(xp, wide_w)
    others = terms.products_of_others(xp, terms.grams(xp, flat_v, flat_w))
    to_v = [conjugated((spread * other) @ b) for other, b in zip(others, flat_w, strict=True)]
    to_w = [transposed(spread * other) @ conjugated(a) for other, a in zip(others, flat_v, strict=True)]
    return _reshaped(xp, to_v, v, v_shifts), _reshaped(xp, to_w, w, w_shifts)


@overload
def ket_gram_jvp(
    v: Sequence[HostLike],
    w: Sequence[HostLike],
    v_tangents: Sequence[HostLike],
    w_tangents: Sequence[HostLike],
) -> Host: ...
@overload
def ket_gram_jvp(
    v: Sequence[ForeignT],
    w: Sequence[ForeignT],
    v_tangents: Sequence[ForeignT],
    w_tangents: Sequence[ForeignT],
) -> ForeignT: ...
@quiet
def ket_gram_jvp(
    v: Sequence[AnyArray],
    w: Sequence[AnyArray],
    v_tangents: Sequence[AnyArray],
    w_tangents: Sequence[AnyArray],
) -> AnyArray:
    """The derivative (*i, *j) of `ket_gram` along the tangents of `v` and of `w`.

    raises   as `ket_gram`; TypeError, ValueError on the tangents
    """
    xp, v, w, dtype = _checked(v, w)
    first, second, rank, other_rank = _batches(v, w)
    v_tangents = check_tangents("v_tangents", v_tangents, v, xp, dtype)
    w_tangents = check_tangents("w_tangents", w_tangents, w, xp, dtype)
    (wide_v, v_shifts), (wide_w, w_shifts) = _level(xp, v, dtype), _level(xp, w, dtype)
    flat_v, flat_w = _flat(xp, wide_v), _flat(xp, wide_w)
    others = terms.products_of_others(xp, terms.grams(xp, flat_v, flat_w))
    dv = scale.shifted(_wide(xp, v_tangents, dtype), v_shifts)
    dw = scale.shifted(_wide(xp, w_tangents, dtype), w_shifts)
    by_v, by_w = terms.grams(xp, _flat(xp, dv), flat_w), terms.grams(xp, flat_v, _flat(xp, dw))
    total = sum(other * (a + b) for other, a, b in zip(others, by_v, by_w, strict=True))
    split = xp.reshape(total, (prod(first), rank, prod(second), other_rank))
    return xp.astype(xp.reshape(xp.sum(xp.sum(split, axis=1), axis=-1), (*first, *second)), dtype, copy=False)


def ket_gram_shapes(
    v: Sequence[AnyArray], w: Sequence[AnyArray], **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `ket_gram`, of anything that has a shape."""
    return ((*v[0].shape[:-2], *w[0].shape[:-2]),)


@quiet
def ket_gram_dense(v: Sequence[AnyArray], w: Sequence[AnyArray]) -> np.ndarray:
    """The definition on NumPy arrays: both batches multiplied out, then all pairs of np.vdot."""
    dtype = np.result_type(*v, *w)
    return np.tensordot(np.conj(terms.dense_ket(v)), terms.dense_ket(w), axes=(-1, -1)).astype(dtype)


def _checked(v, w):
    v, w = as_sequence("v", v), as_sequence("w", w)
    xp, both, dtype = check_floating("v and w", [*v, *w])
    v, w = both[: len(v)], both[len(v) :]
    _check_ket("v", v)
    _check_ket("w", w)
    dims = [[leaf.shape[-1] for leaf in ket] for ket in (v, w)]
    if dims[0] != dims[1]:
        raise ValueError(f"v and w must have the same dims, got {tuple(dims[0])} and {tuple(dims[1])}")
    return xp, v, w, dtype


def _check_ket(name, ket):
    shapes = [tuple(leaf.shape) for leaf in ket]
    if not shapes or any(len(s) < 2 or s[:-1] != shapes[0][:-1] for s in shapes):
        rule = "arrays (..., rank, dim) of one batch and rank"
        raise ValueError(f"{name} must be {rule}, got shapes {shown(shapes)}")
    if any(s[-1] < 1 for s in shapes):
        raise ValueError(f"{name} must have dims of at least 1, got shapes {shown(shapes)}")


def _wide(xp, arrays, dtype):
    """`arrays` in the accumulation dtype of the promoted `dtype`."""
    return [xp.astype(a, accumulation_dtype(xp, dtype), copy=False) for a in arrays]


def _level(xp, ket, dtype):
    """Leaves in the accumulation dtype at one level, and their shifts."""
    return scale.level(_wide(xp, ket, dtype), -1)


def _summed(xp: ModuleType, grams: Sequence[AnyArray]) -> AnyArray:
    return xp.sum(elementwise_product(grams), axis=(-2, -1))


def _broadcast(v, w):
    shapes = tuple(v[0].shape[:-2]), tuple(w[0].shape[:-2])
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(
            f"v and w must have batches that broadcast, got {shapes[0]} and {shapes[1]}"
        ) from None


def _like_primals(xp, gradients, primals, shifts):
    """Gradients of levelled kets summed over the axes that broadcasting added, as those of the primals."""
    summed = []
    for gradient, primal in zip(gradients, primals, strict=True):
        extra = gradient.ndim - primal.ndim
        axes = tuple(range(extra)) + tuple(
            extra + i for i in range(primal.ndim - 2) if primal.shape[i] == 1 != gradient.shape[extra + i]
        )
        gradient = xp.sum(gradient, axis=axes) if axes else gradient
        summed.append(xp.reshape(gradient, primal.shape))
    pairs = zip(scale.shifted(summed, shifts), primals, strict=True)
    return tuple(cast_gradient(xp, gradient, primal) for gradient, primal in pairs)


def _batches(v, w):
    """Batch shapes and ranks of both kets."""
    return tuple(v[0].shape[:-2]), tuple(w[0].shape[:-2]), v[0].shape[-2], w[0].shape[-2]


def _flat(xp, ket):
    """Leaves (batch * R, q_n)."""
    return [xp.reshape(leaf, (prod(leaf.shape[:-1]), leaf.shape[-1])) for leaf in ket]


def _merged(xp, leaves):
    """Neighbouring modes multiplied up to `_MERGED` entries: fewer Gram matrices, each a larger product."""
    found = leaves[:1]
    for leaf in leaves[1:]:
        last = found[-1]
        width = last.shape[1] * leaf.shape[1]
        if width <= _MERGED:
            found[-1] = xp.reshape(last[:, :, None] * leaf[:, None, :], (leaf.shape[0], width))
        else:
            found.append(leaf)
    return found


def _reshaped(xp, gradients, primals, shifts):
    unfolded = [xp.reshape(g, p.shape) for g, p in zip(gradients, primals, strict=True)]
    return _like_primals(xp, unfolded, primals, shifts)
