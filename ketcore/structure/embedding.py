"""Operators on some modes of a larger space.

A dense operator on several modes is a sum of Kronecker products of operators on one mode each: rearranged so
that the row and the column digit of one mode lie together it is a matrix, whose singular vectors are the
terms (the operator-Schmidt decomposition); mode by mode for more than two.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ArrayT, ForeignT, Host, HostFactor
from ketcore.arrays.checks import check_floating
from ketcore.arrays.elementary import beside, identity
from ketcore.arrays.namespaces import accumulation_dtype, namespace_of, quiet
from ketcore.objects import construction
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.shapes import check_dims, check_modes


@overload
def embed(
    op: KroneckerMatrix[ArrayT], dims: Sequence[int], where: int | Sequence[int], *, linear: bool = False
) -> KroneckerMatrix[ArrayT]: ...
@overload
def embed(
    op: HostFactor, dims: Sequence[int], where: int | Sequence[int], *, linear: bool = False
) -> KroneckerMatrix[Host]: ...
@overload
def embed(
    op: ForeignT, dims: Sequence[int], where: int | Sequence[int], *, linear: bool = False
) -> KroneckerMatrix[ForeignT]: ...
@quiet
def embed(
    op: Any, dims: Sequence[int], where: int | Sequence[int], *, linear: bool = False
) -> KroneckerMatrix[Any]:
    """`op` acting on the modes `where` of a space of these dims, the identity on all others.

    op       a matrix (d, d), or a KroneckerMatrix with the dims of these modes, d their product
    dims     N ints >= 1
    where    a mode or modes in any order, neighbours or not: the first one is the most significant of `op`
    returns  a KroneckerMatrix that knows its identities.  A matrix on one mode gives rank 1.  One on several
             is split exactly: its rank is that of its rearrangements (4 at most for two qubits), where
             singular values up to eps * d * (the largest one) count as zero
    linear   True: terms that are linear in the matrix, as gradients with respect to it and jax.jit need,
             since singular vectors have no derivative where values coincide.  One for each element of its
             blocks on the last mode: (d / d_last)^2
    raises   TypeError, ValueError on kinds, shapes and modes
    cost     the SVDs of `op`, which is small; nothing of the size of the space

    >>> cnot = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]]
    >>> gate = embed(cnot, (2,) * 30, (29, 0))
    >>> gate.rank, gate.shape == (2**30, 2**30)
    (2, True)
    """
    dims = check_dims("dims", dims)
    where = check_modes("where", where, len(dims))
    if not where:
        raise ValueError("where must hold at least one mode, got none")
    inside = tuple(dims[n] for n in where)
    parts = _parts(op, inside, linear)
    like = parts[0]
    factors = dict(zip(where, parts, strict=True))
    xp = namespace_of(like)
    for mode, dim in enumerate(dims):
        if mode not in factors:
            one = identity(dim, like)
            factors[mode] = xp.broadcast_to(one, (like.shape[0], dim, dim))
    known = op.term_identities if isinstance(op, KroneckerMatrix) else [()] * like.shape[0]
    outside = frozenset(range(len(dims))).difference(where)
    identities = [outside.union(where[n] for n in term) for term in known]
    return KroneckerMatrix([factors[n] for n in range(len(dims))], identities=identities)


def _parts(op, dims, linear):
    """One array (R, d_n, d_n) per mode that `op` acts on."""
    if isinstance(op, KroneckerMatrix):
        if (op.row_dims, op.col_dims, op.shape) != (dims, dims, (prod(dims),) * 2):
            rule = f"op must have row_dims and col_dims {dims} and no crop"
            raise ValueError(f"{rule}, got {op.row_dims} and {op.col_dims} of shape {op.shape}")
        return op.factors
    xp, (op,), dtype = check_floating("op", construction.dense_factors([op]))
    if tuple(op.shape) != (prod(dims),) * 2:
        raise ValueError(f"op must have shape {(prod(dims),) * 2} for modes {dims}, got {tuple(op.shape)}")
    wide = xp.astype(op, accumulation_dtype(xp, dtype), copy=False)
    split = _blocks(op, dims) if linear else _split_operator(wide, dims)
    return [xp.astype(part, dtype, copy=False) for part in split]


def _blocks(op, dims):
    """The blocks of `op` on the last mode as terms, beside the unit matrices of the other modes."""
    xp, count, outer = namespace_of(op), len(dims) - 1, dims[:-1]
    axes = (*range(count), *range(count + 1, 2 * count + 1), count, 2 * count + 1)
    blocks = xp.reshape(
        xp.permute_dims(xp.reshape(op, dims * 2), axes), (prod(outer) ** 2, dims[-1], dims[-1])
    )
    digits = np.indices(outer * 2).reshape(2 * count, blocks.shape[0]) if count else []
    units = []
    for n, dim in enumerate(outer):
        unit = np.zeros((blocks.shape[0], dim, dim))
        unit[np.arange(len(unit)), digits[n], digits[count + n]] = 1
        units.append(xp.astype(beside(unit, op), op.dtype))
    return [*units, blocks]


def _split_operator(op: AnyArray, dims: Sequence[int]) -> list[AnyArray]:
    """Arrays (R, d_n, d_n) whose sum of Kronecker products is `op` (d, d), by an SVD per mode but the last.

    The zero matrix has one term of zeros.
    """
    xp = namespace_of(op)
    if len(dims) == 1:
        return [op[None, :, :]]
    if not bool(xp.all(xp.isfinite(op))):
        raise ValueError("op must be finite to be split into several modes, got nan or infinite elements")
    first, rest = dims[0], prod(dims[1:])
    blocks = xp.permute_dims(xp.reshape(op, (first, rest, first, rest)), (0, 2, 1, 3))
    left, values, right = xp.linalg.svd(xp.reshape(blocks, (first * first, rest * rest)), full_matrices=False)
    count = _rank(xp, values, first * rest)
    terms = []
    for k in range(count):
        tails = _split_operator(xp.reshape(right[k, :], (rest, rest)), dims[1:])
        head = xp.reshape(left[:, k] * xp.astype(values[k], left.dtype), (1, first, first))
        terms.append([xp.broadcast_to(head, (tails[0].shape[0], first, first)), *tails])
    return [xp.concat(list(mode), axis=0) for mode in zip(*terms, strict=True)]


def _rank(xp, values, size):
    """How many singular values are above rounding; at least one."""
    threshold = float(values[0]) * xp.finfo(values.dtype).eps * size
    return max(1, int(xp.sum(xp.astype(values > threshold, xp.int64))))
