"""Products and sums of two structured operands, split differently or not: matrices, and matrices with kets.

    A @ B, A + B, A (x) B       `matrix_product`, `matrix_sum`, `matrix_kron`
    A @ v                       `ket_product`
    v^H A w, <v, w> of kets     `aligned_sandwich`, `aligned_inner`

Two splits of one axis agree where the products of the dims to the right coincide: (2, 3, 4) and (6, 4) do
so before the 4 and at the ends.  Between two such places lies a group of modes on either side; where one side
has a single mode there, the several modes of the other are merged into one, term by term.  Where both have
several, no split serves both.

A cropped axis is a union of boxes of digits (`shapes.prefix_boxes`); each box adds its own terms.

Letters: N order, R and R' ranks, p_n, q_n and s_n sizes of modes, `...` batch.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from math import prod
from operator import mul
from types import ModuleType
from typing import Any

from ketcore import ops
from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.checks import check_floating
from ketcore.arrays.elementary import itemsize, unboxed
from ketcore.arrays.namespaces import accumulation_dtype, quiet
from ketcore.shapes import Marks, check_result_size, prefix_boxes, reached_dims

Group = tuple[range, range]
Sizes = tuple[int, ...]
# What a KroneckerMatrix is made of: factors, shape, modes that are identities in each term.
Parts = tuple[list[AnyArray], tuple[int, int], Sequence[Any]]


@quiet
def matrix_product(left: Any, right: Any) -> Parts:
    """A @ B of two Kronecker matrices: ranks multiply, times the boxes of a cropped inner axis."""
    if left.shape[1] != right.shape[0]:
        shapes = f"{left.shape} and {right.shape}"
        raise ValueError(f"matrices must have shapes (m, k) and (k, n) for @, got {shapes}")
    inner = left.shape[1]
    known = left.term_identities, right.term_identities
    factors, groups, dtype = product_factors(left.factors, right.factors, inner, known)
    whole = inner == prod(left.col_dims) == prod(right.row_dims)
    sides = _identities(groups, left, right)
    pairs = tuple(a & b for b in sides[1] for a in sides[0]) if whole else ()
    # A product of another shape than its factors has no identities that would have to stay.
    return scale.stored(factors, dtype, None, pairs), (left.shape[0], right.shape[1]), pairs


@quiet
def ket_product(matrix: Any, ket: Any) -> list[AnyArray]:
    """The factors of A @ v, for kets v, whose leaves count as matrices of one column."""
    rows, full = matrix.shape[0], prod(matrix.row_dims)
    if ket.shape[-1] != matrix.shape[1]:
        raise ValueError(f"ket must have length {matrix.shape[1]} for @, got shape {ket.shape}")
    if rows != full:
        raise ValueError(f"matrix must not have cropped rows for @ with a ket, got {rows} of {full}")
    factors, _, dtype = product_factors(
        matrix.factors, [leaf[..., None] for leaf in ket.factors], ket.shape[-1]
    )
    return scale.stored([leaf[..., 0] for leaf in factors], dtype, -1)


@quiet
def matrix_sum(left: Any, right: Any) -> Parts:
    """A + B of two Kronecker matrices of one shape: ranks add."""
    if left.shape != right.shape:
        raise ValueError(f"matrices must have equal shapes to be added, got {left.shape} and {right.shape}")
    factors, groups = summed(left.factors, right.factors, left.shape)
    mine, others = _identities(groups, left, right)
    return factors, left.shape, [*mine, *others]


def check_same_split(left: Any, right: Any) -> None:
    """Whether two Kronecker matrices have equal shapes and dims."""
    mine, others = ((m.shape, m.row_dims, m.col_dims) for m in (left, right))
    if mine != others:
        raise ValueError(f"matrices must have equal (shape, row_dims, col_dims), got {mine} and {others}")


def matrix_kron(left: Any, right: Any) -> Parts:
    """A (x) B of two Kronecker matrices: orders add, ranks multiply."""
    full = (prod(right.row_dims), prod(right.col_dims))
    sizes = zip(left.shape, right.shape, full, strict=True)
    if any(mine > 1 and size < whole for mine, size, whole in sizes):
        raise ValueError(f"other must not be cropped, got shape {right.shape} of {full}")
    # A cropped axis of `right` stays so; elsewhere its size is the whole one.
    shape = tuple(mine * size for mine, size in zip(left.shape, right.shape, strict=True))
    xp, _, _ = check_floating("matrices", (*left.factors, *right.factors))
    pair = (left.rank, right.rank)
    first = (xp.broadcast_to(f[:, None, :, :], (*pair, *f.shape[1:])) for f in left.factors)
    second = (xp.broadcast_to(f[None, :, :, :], (*pair, *f.shape[1:])) for f in right.factors)
    factors = [xp.reshape(f, (prod(pair), *f.shape[2:])) for f in (*first, *second)]
    others = [{left.order + n for n in known} for known in right.term_identities]
    return factors, shape, [known | more for known in left.term_identities for more in others]


def _identities(groups, left, right):
    """For each term of either side the groups of which all modes are known to be identities."""
    found = []
    for one, own in zip((left, right), zip(*groups, strict=True), strict=True):
        known = one.term_identities
        if any(len(group) > 1 for group in own):
            known = [frozenset(n for n, g in enumerate(own) if term.issuperset(g)) for term in known]
        found.append(known)
    return found


def common_groups(left: Sequence[Sizes], right: Sequence[Sizes]) -> list[Group] | None:
    """The finest grouping of the modes of two matrices that both sides share; None where there is none.

    `left` and `right` are sizes of each mode: one per axis that has to agree.  Groups are pairs of ranges of
    modes, ascending: of the left and of the right matrix.

    >>> common_groups([(2,), (3,), (4,)], [(6,), (4,)])
    [(range(0, 2), range(0, 1)), (range(2, 3), range(1, 2))]
    >>> common_groups([(2,), (3,)], [(3,), (2,)]) is None
    True
    """
    if list(left) == list(right):
        return [(range(n, n + 1), range(n, n + 1)) for n in range(len(left))]
    starts = _starts(left), _starts(right)
    shared = [(starts[0][total], starts[1][total]) for total in starts[0] if total in starts[1]]
    bounds = [(len(left), len(right)), *shared]
    if bounds[-1] != (0, 0):  # the leading modes of a cropped axis need not have one product
        bounds.append((0, 0))
    groups = [(range(a, c), range(b, d)) for (c, d), (a, b) in pairwise(bounds)]
    return None if any(_several(left, a) and _several(right, b) for a, b in groups) else groups[::-1]


def _starts(sizes):
    """Where each product of trailing modes begins; modes of size 1 belong to what is right of them."""
    found, total = {}, (1,) * len(sizes[0])
    for n in reversed(range(len(sizes))):
        total = tuple(map(mul, total, sizes[n]))
        found[total] = n
    found.pop((1,) * len(sizes[0]), None)
    return found


def _several(sizes, group):
    """Whether a group has more than one mode, those of size 1 not counted."""
    return sum(max(sizes[n]) > 1 for n in group) > 1


def product_factors(
    left: Sequence[AnyArray],
    right: Sequence[AnyArray],
    inner: int,
    fixed: tuple[Marks, Marks] = ((), ()),
) -> tuple[list[AnyArray], list[Group], Any]:
    """Factors of A[:, :inner] @ B[:inner], the groups of modes they come from, and the dtype of the result.

    Parameters
    ----------
    left : sequence of N arrays, (R, p_n, q_n)
        The factors of A.
    right : sequence of N' arrays, (..., R', q'_n, s_n)
        Those of B: each a matrix, or a column of a ket.
    inner : int
        How many columns of A and rows of B are multiplied.
    fixed : pair of Marks, default ((), ())
        The modes of either that are known to be identities in each term.

    Returns
    -------
    factors : list of arrays, (..., R R' boxes, p, s)
        In the accumulation dtype, one per group.
    groups : list
        As of `common_groups`.
    dtype : dtype
        That of the result.

    Raises
    ------
    ValueError
        Where the inner axes have no common split.
    """
    xp, both, dtype = check_floating("operands", (*left, *right))
    both = [xp.astype(f, accumulation_dtype(xp, dtype), copy=False) for f in both]
    left, right = both[: len(left)], both[len(left) :]
    left, right = (scale.level(f, (-2, -1), fixed=i)[0] for f, i in zip((left, right), fixed, strict=True))
    dims = tuple(f.shape[-1] for f in left), tuple(f.shape[-2] for f in right)
    left = [f[:, :, :d] for f, d in zip(left, reached_dims(dims[0], inner), strict=True)]
    right = [f[..., :d, :] for f, d in zip(right, reached_dims(dims[1], inner), strict=True)]
    groups = common_groups([(f.shape[-1],) for f in left], [(f.shape[-2],) for f in right])
    if groups is None:
        raise ValueError(
            "operands must have inner dims that split at common places (kron_matmul takes a dense operand), "
            f"got {dims[0]} and {dims[1]}"
        )
    left = [_merged(xp, [left[n] for n in modes]) for modes, _ in groups]
    right = [_merged(xp, [right[n] for n in modes]) for _, modes in groups]
    boxes = prefix_boxes(inner, tuple(f.shape[-1] for f in left))
    terms = [
        [_contracted(xp, f[:, :, a:b], g[..., a:b, :]) for f, g, (a, b) in zip(left, right, box, strict=True)]
        for box in boxes
    ]
    return [xp.concat(list(mode), axis=-3) for mode in zip(*terms, strict=True)], groups, dtype


def summed(
    left: Sequence[AnyArray], right: Sequence[AnyArray], shape: tuple[int, int]
) -> tuple[list[AnyArray], list[Group]]:
    """Factors (R + R', p, q) of the sum of two matrices of one shape, and the groups that they come from.

    ValueError where rows and columns have no common split.
    """
    xp, both, dtype = check_floating("matrices", (*left, *right))
    both = [xp.astype(f, dtype, copy=False) for f in both]
    left, right = both[: len(left)], both[len(left) :]
    sizes = [[tuple(f.shape[1:]) for f in side] for side in (left, right)]
    if sizes[0] != sizes[1]:
        left, right = (_cut(side, shape) for side in (left, right))
    groups = common_groups(*([tuple(f.shape[1:]) for f in side] for side in (left, right)))
    if groups is None:
        raise ValueError(
            "matrices must have dims (p_n, q_n) that split at common places (to_dense() adds without), "
            f"got {sizes[0]} and {sizes[1]}"
        )
    left = [_merged(xp, [left[n] for n in modes]) for modes, _ in groups]
    right = [_merged(xp, [right[n] for n in modes]) for _, modes in groups]
    if sizes[0] != sizes[1]:
        rows, columns = (_reached_first([f.shape[i] for f in left], shape[i - 1]) for i in (1, 2))
        left[0], right[0] = left[0][:, :rows, :columns], right[0][:, :rows, :columns]
    joined = [xp.concat([a, b], axis=0) for a, b in zip(left, right, strict=True)]
    return [xp.astype(f, dtype, copy=False) for f in joined], groups


@quiet
def aligned_inner(left: Any, right: Any) -> AnyArray:
    """The inner products <left, right> (...) of two kets of one length, the first conjugated.

    Batches broadcast; ValueError where their dims have no common split.
    """
    if left.dims == right.dims:
        return left.inner(right)
    groups = common_groups([(d,) for d in left.dims], [(d,) for d in right.dims])
    if groups is None:
        raise ValueError(f"kets must have dims that split at common places, got {left.dims} and {right.dims}")
    xp, _, dtype = check_floating("kets", (left.packed, right.packed))
    sides = zip((left, right), zip(*groups, strict=True), strict=True)
    merged = [[_merged_leaves(xp, ket.factors, modes) for modes in ranges] for ket, ranges in sides]
    return unboxed(xp.astype(ops.ket_inner(*merged), dtype, copy=False))


def aligned_sandwich(matrix: Any, x: Any, y: Any) -> AnyArray:
    """The numbers `x^H A y` for kets, which may be split in another way than A, and A be cropped in columns.

    ValueError where the dims have no common split.
    """
    full = prod(matrix.row_dims), prod(matrix.col_dims)
    if (x.dims, y.dims, matrix.shape) == (matrix.row_dims, matrix.col_dims, full):
        return unboxed(ops.ket_sandwich(x.factors, matrix.factors, y.factors))
    image = matrix @ y
    if x.shape[-1] != image.shape[-1]:
        raise ValueError(f"x must have length {image.shape[-1]}, got shape {x.shape}")
    return aligned_inner(x, image)


def _merged_leaves(xp, leaves, modes):
    """Some leaves of kets as one leaf, in the accumulation dtype."""
    wide = [xp.astype(leaves[n], accumulation_dtype(xp, leaves[n].dtype), copy=False) for n in modes]
    return _merged(xp, [leaf[..., None] for leaf in wide])[..., 0]


def _cut(factors, shape):
    """The parts of the factors that a leading block reaches."""
    rows, columns = (reached_dims(tuple(f.shape[i] for f in factors), shape[i - 1]) for i in (1, 2))
    return [f[:, :p, :q] for f, p, q in zip(factors, rows, columns, strict=True)]


def _reached_first(dims, count):
    """How many values the first digit takes among `count` numbers, whatever its own radix is."""
    return -(-count // prod(dims[1:]))


def _merged(xp: ModuleType, factors: Sequence[AnyArray]) -> AnyArray:
    """Several factors (..., R, p, q) as one: their Kronecker products, term by term.

    MemoryError, naming the size, above 2**30 bytes.
    """
    shape = tuple(prod([f.shape[axis] for f in factors]) for axis in (-2, -1))
    if len(factors) > 1:
        shape = (*factors[0].shape[:-2], *shape)
        check_result_size("modes that are merged", shape, itemsize(factors[0]), factors[0].dtype)
    return reduce(lambda a, b: _kron(xp, a, b), scale.level(factors, (-2, -1))[0])


def _kron(xp, a, b):
    paired = a[..., :, None, :, None] * b[..., None, :, None, :]
    return xp.reshape(paired, (*a.shape[:-2], a.shape[-2] * b.shape[-2], a.shape[-1] * b.shape[-1]))


def _contracted(xp, left, right):
    """Products of all pairs of terms, (R, p, q) and (..., R', q, s) to (..., R' R, p, s), by one GEMM."""
    rank, rows, inner = left.shape
    *batch, others, _, columns = right.shape
    flat = xp.reshape(xp.matrix_transpose(right), (prod(batch) * others * columns, inner))
    found = flat @ xp.matrix_transpose(xp.reshape(left, (rank * rows, inner)))
    found = xp.reshape(found, (*batch, others, columns, rank, rows))
    axes = len(batch)
    found = xp.permute_dims(found, (*range(axes + 1), axes + 2, axes + 3, axes + 1))
    return xp.reshape(found, (*batch, others * rank, rows, columns))
