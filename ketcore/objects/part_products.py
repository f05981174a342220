"""Products of parts with parts and with factors: (A (x) B)(C (x) D) = AC (x) BD.

What is diagonal beside what is diagonal stays so, an identity leaves the other part as it is, sparse beside
sparse stays sparse; a linear operator stays one but beside a dense matrix.
"""

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import Any

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.checks import check_floating
from ketcore.arrays.elementary import conjugated, itemsize, widened
from ketcore.arrays.namespaces import is_array, namespace_of, quiet
from ketcore.objects.alignment import Parts, common_groups
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.part_operators import LinearPart, composed, is_operator
from ketcore.objects.parts import (
    Diagonal,
    Identity,
    as_dense,
    changed,
    check_operator_size,
    conjugated_part,
    diagonal_of,
    is_sparse,
    kind_arrays,
    kind_of,
    multiplied,
    on_rows,
    stored_parts,
    transposed_part,
    wide_parts,
)
from ketcore.shapes import check_result_size


@quiet
def parts_product(left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
    """The parts of the product of two Kronecker products, of which the inner sizes are equal.

    ValueError where the inner dims have no common split.
    """
    _, like, dtype = kind_of((*left, *right))
    dims = tuple(part.shape[1] for part in left), tuple(part.shape[0] for part in right)
    groups = common_groups(*([(dim,) for dim in side] for side in dims))
    if groups is None:
        rule = "inner dims that split at common places (to_dense() multiplies without)"
        raise ValueError(f"operands must have {rule}, got {dims[0]} and {dims[1]}")
    sides = wide_parts(left), wide_parts(right)
    like = widened(like)
    return stored_parts([part_product(*pair) for pair in _pairs(groups, sides, like)], dtype)


@quiet
def split_alike(left: Sequence[Any], right: Sequence[Any], like: AnyArray) -> list[list[Any]]:
    """Pairs of parts of one shape of two Kronecker products; what is split differently is merged.

    ValueError where they have no common split.
    """
    shapes = [[tuple(part.shape) for part in side] for side in (left, right)]
    groups = common_groups(*shapes)
    if groups is None:
        rule = "dims (p_n, q_n) that split at common places (to_dense() adds without)"
        raise ValueError(f"matrices must have {rule}, got {shapes[0]} and {shapes[1]}")
    return _pairs(groups, (left, right), like)


def _pairs(groups, sides, like):
    """The parts of each group on both sides, as one."""
    return [
        [_merged(side[modes.start : modes.stop], like) for side, modes in zip(sides, pair, strict=True)]
        for pair in groups
    ]


def _merged(parts, like):
    """Neighbouring parts as one: an identity, a diagonal part, or else a dense one."""
    if len(parts) == 1:
        return parts[0]
    rows, columns = (prod([part.shape[axis] for part in parts]) for axis in (0, 1))
    if all(isinstance(part, Identity) for part in parts):
        return Identity(rows)
    if all(isinstance(part, Diagonal | Identity) for part in parts):
        check_result_size("parts that are merged", (rows,), itemsize(like), like.dtype)
        return Diagonal(Ket([diagonal_of(part, like) for part in parts]).to_dense())
    check_result_size("parts that are merged", (rows, columns), itemsize(like), like.dtype)
    return KroneckerMatrix([as_dense(part, like) for part in parts]).to_dense()


def part_product(left: Any, right: Any) -> Any:
    """The product `left @ right` of two parts."""
    if isinstance(left, Identity) or isinstance(right, Identity):
        return right if isinstance(left, Identity) else left
    if is_array(right):
        return _columns_product(left, right)
    if is_array(left):
        return on_rows(transposed_part(right), left)
    if is_operator(left) or is_operator(right):
        return composed(_as_operator(left), _as_operator(right), tuple(kind_arrays((left, right))))
    if isinstance(right, Diagonal):
        return (
            changed(left, lambda v: v * right.values) if isinstance(left, Diagonal) else _scaled(left, right)
        )
    return (
        transposed_part(_scaled(transposed_part(right), left)) if isinstance(left, Diagonal) else left @ right
    )


def _columns_product(part, x):
    """A part times a matrix (q, n)."""
    return multiplied([part], x[None, ...])[0, ...]


def _scaled(sparse, diagonal):
    """A sparse matrix with its columns scaled: what is not stored stays so, whatever it is scaled by."""
    found = sparse.tocsr().copy()
    found.data = found.data * diagonal.values[found.indices]
    return found


def _as_operator(part):
    if is_operator(part):
        return part
    sides = (partial(_columns_product, side) for side in (part, conjugated_part(transposed_part(part))))
    return LinearPart(tuple(part.shape), tuple(kind_arrays([part])), *sides)


@quiet
def parts_times_matrix(parts: Sequence[Any], matrix: Any, first: bool) -> Parts:
    """What a KroneckerMatrix is made of that is parts @ matrix, or matrix @ parts if not `first`.

    The inner dims are equal; ranks and crops of the outer side stay those of the matrix.
    """
    _, _, dtype = check_floating("operands", (*matrix.factors, *kind_arrays(parts)))
    known = matrix.term_identities
    wide = scale.level([widened(factor) for factor in matrix.factors], (-2, -1), fixed=known)[0]
    pairs = zip(wide_parts(parts), wide, strict=True)
    factors = [
        multiplied([part], factor) if first else on_rows(transposed_part(part), factor)
        for part, factor in pairs
    ]
    modes = frozenset(n for n, part in enumerate(parts) if isinstance(part, Identity))
    identities = tuple(term & modes for term in known)
    rows, columns = (prod([part.shape[axis] for part in parts]) for axis in (0, 1))
    shape = (rows, matrix.shape[1]) if first else (matrix.shape[0], columns)
    return scale.stored(factors, dtype, None, identities), shape, identities


@quiet
def part_inner(left: Any, right: Any, like: AnyArray) -> Any:
    """The Frobenius inner product of two parts of one shape, the first conjugated, in the dtype of `like`.

    MemoryError where a linear operator is too large to be made dense.
    """
    if isinstance(left, Identity) and isinstance(right, Identity):
        return float(left.size)
    if any(isinstance(part, Diagonal | Identity) for part in (left, right)):
        return _vdot(diagonal_of(left, like), diagonal_of(right, like), like)
    if is_sparse(left) or is_sparse(right):
        sparse, other = (left, right) if is_sparse(left) else (right, left)
        other = other if is_sparse(other) else _small_dense(other, like)
        found = sparse.conj().multiply(other).sum()
        return like * 0 + found if sparse is left else conjugated(like * 0 + found)
    return _vdot(_small_dense(left, like), _small_dense(right, like), like)


def _small_dense(part, like):
    if is_operator(part):
        check_operator_size(part, like)
    return as_dense(part, like)


def _vdot(left, right, like):
    xp = namespace_of(like)
    left, right = (xp.astype(side, like.dtype, copy=False) for side in (left, right))
    return xp.sum(conjugated(left) * right)
