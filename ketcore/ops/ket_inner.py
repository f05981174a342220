"""Inner products of kets without multiplying them out.

    <v, w> = sum_{k,l} prod_n <v_nk, w_nl>,   v = sum_k (x)_n v_nk,   w = sum_l (x)_n w_nl

Per mode an R x R' matrix of inner products of leaves, their elementwise product over modes, and a sum.  The
first argument is conjugated, as by np.vdot.  `ket_gram` takes all pairs of two batches, `ket_inner` one pair
per entry.

Letters: N order, R and R' ranks, q_n length of leaf n, ... batch.
"""

from collections.abc import Sequence
from functools import partial, reduce
from math import prod
from types import ModuleType
from typing import overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import (
    as_sequence,
    check_batches,
    check_floating,
    check_like,
    check_tangents,
    shapes_of,
)
from ketcore.arrays.elementary import as_dtype, conjugated, elementwise_product, reshaped, transposed
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, is_numpy, quiet
from ketcore.products import terms
from ketcore.shapes import broadcast, shown
from ketcore.tracing import kept

# Up to so many entries a leaf costs less as part of a larger one than as a matrix of its own.
_MERGED = 32

# What takes the time of so many multiplications of a large product, measured: an entry of the Gram matrix of
# a group of modes, which is written, multiplied and added; one of a ket.
_PASSING, _ENTRY = 60, 40
# Entries of a Gram matrix that a cache holds.
_CACHED = 1 << 19


@overload
def ket_inner(v: Sequence[HostLike], w: Sequence[HostLike]) -> Host: ...
@overload
def ket_inner(v: Sequence[ForeignT], w: Sequence[ForeignT]) -> ForeignT: ...
@quiet
def ket_inner(v: Sequence[AnyArray], w: Sequence[AnyArray]) -> AnyArray:
    """Inner products <v, w> of kets, without multiplying them out.

    Kets are sums of tensor products of leaves, of R terms and of R', and the inner product is one of leaves::

        v = sum_k  v_0k (x) ... (x) v_{N-1}k,   w = sum_l  w_0l (x) ... (x) w_{N-1}l
        <v, w> = sum_{k,l} prod_n <v_nk, w_nl>

    Parameters
    ----------
    v : sequence of N arrays, (..., R, q_n)
        The leaves of the first ket or of a batch of them, which is conjugated as by ``np.vdot``.  Floating or
        complex, one R and one batch for all; integers and nested lists become floating.
    w : sequence of N arrays, (..., R', q_n)
        The leaves of the second.  Its batch broadcasts against that of `v`.

    Returns
    -------
    array, (...)
        One number for each entry of the batch, in the promoted dtype; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape: other dims, or batches that do not broadcast.

    See Also
    --------
    ket_gram : All pairs of two batches.
    ket_sandwich : With a Kronecker matrix between the kets.
    Ket.inner : The same of kets as objects.

    Notes
    -----
    Cost: ``O(R R' sum q_n)`` time an entry, ``O(R R')`` memory.

    Examples
    --------
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
    """Pull a cotangent of `ket_inner` back to both kets.

    Parameters
    ----------
    v : sequence of N arrays, (..., R, q_n)
        As of `ket_inner`.
    w : sequence of N arrays, (..., R', q_n)
        As of `ket_inner`.
    cotangent : array, (...)
        Of the inner products; real where these are.

    Returns
    -------
    to_v : tuple of N arrays, (..., R, q_n)
        In the shapes and dtypes of `v`: sums where its batch broadcast, real parts where it alone is real.
    to_w : tuple of N arrays, (..., R', q_n)
        The same for `w`.

    Raises
    ------
    TypeError, ValueError
        As `ket_inner`, and on a cotangent that does not fit the inner products.

    Notes
    -----
    Cost: ``O(N R R' sum q_n)`` time an entry.

    The transpose under the pairing ``Re(sum(c y))``: `w` gets c conj(v), not conjugated; `v`, on which the
    inner product depends through its conjugate, gets conj(c w).

    Examples
    --------
    >>> to_v, to_w = ket_inner_vjp(([[1.0, 2.0]], [[3.0]]), ([[4.0, 5.0]], [[6.0]]), 1.0)
    >>> [g.tolist() for g in to_v]
    [[[72.0, 90.0]], [[84.0]]]
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
    """The derivative of `ket_inner` along tangents of both kets.

    Parameters
    ----------
    v : sequence of N arrays, (..., R, q_n)
        As of `ket_inner`.
    w : sequence of N arrays, (..., R', q_n)
        As of `ket_inner`.
    v_tangents : sequence of N arrays, (..., R, q_n)
        Of `v`, in its shapes; real where all of `v` and `w` are.
    w_tangents : sequence of N arrays, (..., R', q_n)
        The same of `w`.

    Returns
    -------
    array, (...)
        In the dtype of what `ket_inner` returns.

    Raises
    ------
    TypeError, ValueError
        As `ket_inner`, and on tangents that do not fit the kets.

    Notes
    -----
    Cost: ``O(R R' (N + sum q_n))`` time an entry.

    Of complex kets the derivative is linear in the tangents of `w` and conjugate-linear in those of `v`.
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
    """The definition of `ket_inner` on NumPy arrays: both kets multiplied out, then ``np.vdot``.

    Parameters
    ----------
    v : sequence of N arrays, (..., R, q_n)
        As of `ket_inner`; they are not checked.
    w : sequence of N arrays, (..., R', q_n)
        As of `ket_inner`; they are not checked.

    Returns
    -------
    np.ndarray, (...)
        In the promoted dtype.

    Notes
    -----
    Cost: the memory of both kets, multiplied out.
    """
    dtype = np.result_type(*v, *w)
    return np.sum(np.conj(terms.dense_ket(v)) * terms.dense_ket(w), axis=-1).astype(dtype)


@overload
def ket_gram(v: Sequence[HostLike], w: Sequence[HostLike]) -> Host: ...
@overload
def ket_gram(v: Sequence[ForeignT], w: Sequence[ForeignT]) -> ForeignT: ...
@quiet
def ket_gram(v: Sequence[AnyArray], w: Sequence[AnyArray]) -> AnyArray:
    """Inner products <v[i], w[j]> of all pairs of two batches of kets.

    Parameters
    ----------
    v : sequence of N arrays, (i..., R, q_n)
        The leaves of the first batch, of any shape i..., which are conjugated as by ``np.vdot``.  Floating or
        complex, one R and one batch for all; integers and nested lists become floating.
    w : sequence of N arrays, (j..., R', q_n)
        The leaves of the second batch, which has any shape j... of its own.

    Returns
    -------
    array, (i..., j...)
        In the promoted dtype; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape, and on other dims.

    See Also
    --------
    ket_inner : One pair for each entry of a batch.
    Ket.gram : The same of kets as objects.

    Notes
    -----
    Cost: ``O(R R' |i| |j| sum q_n)`` time and ``O(R R' |i| |j|)`` memory for ``|i|`` and ``|j|`` kets.  Those
    of NumPy arrays take the memory of the result and of some of its rows; they are multiplied out where that
    takes less time.

    Examples
    --------
    >>> v = (np.eye(2)[:, None], np.ones((2, 1, 3)))
    >>> ket_gram(v, v).tolist()
    [[3.0, 0.0], [0.0, 3.0]]
    """
    xp, v, w, dtype = _checked(v, w)
    first, second, rank, other_rank = _batches(v, w)
    flat = [_flat(xp, _level(xp, ket, dtype)[0]) for ket in (v, w)]
    counts = prod(first), prod(second)
    cheaper = is_numpy(v[0]) and _pays_multiplied_out(*counts, rank, other_rank, _widths(flat[0]))
    if cheaper and all(map(_is_moderate, flat)):
        left, right = (_multiplied_out(*pair) for pair in zip(flat, (rank, other_rank), strict=True))
        found = conjugated(left) @ transposed(right)
    elif is_numpy(v[0]):
        left, right = (_merged(xp, leaves) for leaves in flat)
        found = _in_blocks(left, right, counts, rank, other_rank)
    else:
        grams = terms.grams(xp, *(_merged(xp, leaves) for leaves in flat))
        split = xp.reshape(elementwise_product(grams), (counts[0], rank, counts[1], other_rank))
        found = xp.sum(xp.sum(split, axis=1), axis=-1)
    return as_dtype(xp, reshaped(xp, found, (*first, *second)), dtype)


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
    """Pull a cotangent of `ket_gram` back to both batches of kets.

    Parameters
    ----------
    v : sequence of N arrays, (i..., R, q_n)
        As of `ket_gram`.
    w : sequence of N arrays, (j..., R', q_n)
        As of `ket_gram`.
    cotangent : array, (i..., j...)
        Of the inner products; real where these are.

    Returns
    -------
    to_v : tuple of N arrays, (i..., R, q_n)
        In the shapes and dtypes of `v`: real parts where it alone is real.
    to_w : tuple of N arrays, (j..., R', q_n)
        The same for `w`.

    Raises
    ------
    TypeError, ValueError
        As `ket_gram`, and on a cotangent that does not fit the inner products.

    Notes
    -----
    Cost: ``O(N R R' |i| |j| sum q_n)`` time.

    Conjugated as by `ket_inner_vjp`.

    Examples
    --------
    >>> v = (np.array([[[1.0, 2.0]], [[3.0, 4.0]]]),)
    >>> to_v, to_w = ket_gram_vjp(v, v, [[0.0, 1.0], [0.0, 0.0]])
    >>> to_v[0].tolist(), to_w[0].tolist()
    ([[[3.0, 4.0]], [[0.0, 0.0]]], [[[0.0, 0.0]], [[1.0, 2.0]]])
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
    """The derivative of `ket_gram` along tangents of both batches of kets.

    Parameters
    ----------
    v : sequence of N arrays, (i..., R, q_n)
        As of `ket_gram`.
    w : sequence of N arrays, (j..., R', q_n)
        As of `ket_gram`.
    v_tangents : sequence of N arrays, (i..., R, q_n)
        Of `v`; real where all of `v` and `w` are.
    w_tangents : sequence of N arrays, (j..., R', q_n)
        The same of `w`.

    Returns
    -------
    array, (i..., j...)
        In the dtype of what `ket_gram` returns.

    Raises
    ------
    TypeError, ValueError
        As `ket_gram`, and on tangents that do not fit the kets.

    Notes
    -----
    Cost: ``O(R R' |i| |j| (N + sum q_n))`` time.
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
    """The definition of `ket_gram` on NumPy arrays: batches multiplied out, then ``np.vdot`` of all pairs.

    Parameters
    ----------
    v : sequence of N arrays, (i..., R, q_n)
        As of `ket_gram`; they are not checked.
    w : sequence of N arrays, (j..., R', q_n)
        As of `ket_gram`; they are not checked.

    Returns
    -------
    np.ndarray, (i..., j...)
        In the promoted dtype.

    Notes
    -----
    Cost: the memory of both batches, multiplied out.
    """
    dtype = np.result_type(*v, *w)
    return np.tensordot(np.conj(terms.dense_ket(v)), terms.dense_ket(w), axes=(-1, -1)).astype(dtype)


def _checked(v, w):
    """Both kets, of like dims and in one dtype."""
    v, w = as_sequence("v", v), as_sequence("w", w)
    xp, both, dtype = check_floating("v and w", [*v, *w])
    v, w = both[: len(v)], both[len(v) :]
    _check_kets(shapes_of(v), shapes_of(w))
    return xp, v, w, dtype


@kept(1024)
def _check_kets(shapes, other_shapes):
    """ValueError on shapes of leaves that are not those of two kets of like dims."""
    dims = [_checked_dims(*each) for each in (("v", shapes), ("w", other_shapes))]
    if dims[0] != dims[1]:
        raise ValueError(f"v and w must have the same dims, got {dims[0]} and {dims[1]}")


def _checked_dims(name, shapes):
    if not shapes or any(len(s) < 2 or s[:-1] != shapes[0][:-1] for s in shapes):
        rule = "arrays (..., rank, dim) of one batch and rank"
        raise ValueError(f"{name} must be {rule}, got shapes {shown(list(shapes))}")
    if any(s[-1] < 1 for s in shapes):
        raise ValueError(f"{name} must have dims of at least 1, got shapes {shown(list(shapes))}")
    return tuple(s[-1] for s in shapes)


def _wide(xp, arrays, dtype):
    """`arrays` in the accumulation dtype of the promoted `dtype`."""
    wide = accumulation_dtype(xp, dtype)
    return [as_dtype(xp, array, wide) for array in arrays]


def _level(xp, ket, dtype):
    """Leaves in the accumulation dtype at one level, and their shifts."""
    return scale.level(_wide(xp, ket, dtype), -1)


def _summed(xp: ModuleType, grams: Sequence[AnyArray]) -> AnyArray:
    return xp.sum(elementwise_product(grams), axis=(-2, -1))


def _broadcast(v, w):
    """The batch of both."""
    return check_batches("v and w", v[0].shape[:-2], w[0].shape[:-2])


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
    return [reshaped(xp, leaf, (prod(leaf.shape[:-1]), leaf.shape[-1])) for leaf in ket]


def _paired(xp, left, right):
    """The products of leaves (count, p) and (count, q), one by one: (count, p q)."""
    count, width = left.shape[0], left.shape[1] * right.shape[1]
    if is_numpy(left):
        return (_turned(left)[:, None] * _turned(right)).reshape(width, count).transpose()
    return xp.reshape(left[:, :, None] * right[:, None, :], (count, width))


def _turned(leaves):
    """NumPy's leaves (count, q) as (q, count), in C order: of short leaves NumPy is slow to do one by one."""
    return np.ascontiguousarray(leaves.transpose())


@kept(1024)
def _groups(widths):
    """Ranges of neighbouring leaves, as long as they have at most `_MERGED` entries together."""
    found = [(0, 1)]
    for n in range(1, len(widths)):
        start, stop = found[-1]
        if prod(widths[start:stop]) * widths[n] <= _MERGED:
            found[-1] = start, n + 1
        else:
            found.append((n, n + 1))
    return tuple(found)


def _merged(xp, leaves):
    """Each group multiplied: fewer Gram matrices, each a larger product."""
    groups = _groups(_widths(leaves))
    return [reduce(partial(_paired, xp), leaves[start:stop]) for start, stop in groups]


def _widths(leaves):
    return tuple([leaf.shape[1] for leaf in leaves])


@kept(1024)
def _pays_multiplied_out(count, other_count, rank, other_rank, widths):
    """Whether one product of kets (count, Q) costs less than a Gram matrix of all terms per group."""
    groups, pairs = [prod(widths[start:stop]) for start, stop in _groups(widths)], count * other_count
    size, grams = prod(widths), rank * other_rank * pairs
    kets = (count * rank + other_count * other_rank) * size
    if kets > grams:
        return False
    return pairs * (size + _PASSING) + kets * _ENTRY < grams * (sum(groups) + _PASSING * len(groups))


def _in_blocks(left, right, counts, rank, other_rank):
    """All pairs of so many NumPy kets from groups of leaves, as many at a time as a cache holds."""
    left, right = [conjugated(a) for a in left], [transposed(b) for b in right]
    count, others = counts
    found = np.zeros(counts, left[0].dtype)
    step = max(1, _CACHED // max(1, rank * other_rank * others))
    for start in range(0, count if found.size and rank and other_rank else 0, step):
        stop = min(start + step, count)
        own, target = slice(start * rank, stop * rank), found[start:stop]
        single = rank == other_rank == 1
        block = np.matmul(left[0][own], right[0], out=target if single else None)
        for a, b in zip(left[1:], right[1:], strict=True):
            block *= a[own] @ b
        if not single:
            _sum_terms(block.reshape(stop - start, rank, others * other_rank), target)
    return found


def _sum_terms(block, target):
    """The sums over both terms of (count, R, others R') into `target` (count, others).

    By BLAS, since NumPy's own sums over few entries take several times longer.
    """
    other_rank = block.shape[2] // target.shape[1]
    partial_sums = np.matmul(np.ones((1, block.shape[1]), block.dtype), block)
    rows = partial_sums.reshape(target.size, other_rank)
    np.matmul(rows, np.ones(other_rank, block.dtype), out=target.reshape(target.size))


def _is_moderate(leaves):
    """Whether entries of NumPy kets stay in the middle of their dtype's range, and those beside them too."""
    tops = [np.maximum.reduce(np.abs(_turned(leaf)), axis=0, initial=0) for leaf in leaves]
    exponents = sum(np.where(top > 0, np.frexp(top)[1], 0) for top in tops)
    limit = np.finfo(leaves[0].dtype).maxexp // 4
    return all(np.isfinite(top).all() for top in tops) and bool((np.abs(exponents) <= limit).all())


def _multiplied_out(leaves, rank):
    """Leaves (batch * R, q_n) of NumPy kets as vectors (batch, Q)."""
    if rank == 1:
        return reduce(partial(_paired, np), leaves)
    left = reduce(partial(_paired, np), leaves[:-1], np.ones((leaves[0].shape[0], 1), leaves[0].dtype))
    left, right = (half.reshape(half.shape[0] // rank, rank, half.shape[1]) for half in (left, leaves[-1]))
    return np.matmul(left.transpose(0, 2, 1), right).reshape(left.shape[0], left.shape[2] * right.shape[2])


def _reshaped(xp, gradients, primals, shifts):
    unfolded = [xp.reshape(g, p.shape) for g, p in zip(gradients, primals, strict=True)]
    return _like_primals(xp, unfolded, primals, shifts)
