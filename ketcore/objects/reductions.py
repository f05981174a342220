"""Sums over the elements of a cropped Kronecker matrix, without its elements.

A leading block [0, rows) x [0, columns) is a disjoint union of boxes of row digits times boxes of column
digits (`shapes.prefix_boxes`).  Over one pair of boxes every digit runs over a range of its own, so that

    sum_{i,j} prod_n F_n[k, i_n, j_n]  =  prod_n sum_{i_n, j_n} F_n[k, i_n, j_n],

at most N^2 pairs, each as cheap as the factors are.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from itertools import product
from operator import add, mul

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.elementary import itemsize, transposed, unboxed, widened
from ketcore.arrays.namespaces import namespace_of, quiet
from ketcore.objects.blocks import entries
from ketcore.ops import ket_rows
from ketcore.shapes import check_dense_size, check_result_size, check_sum_axis, prefix_boxes


def dims_of(factors: Sequence[AnyArray], axis: int) -> tuple[int, ...]:
    """The radices of the rows (axis 1) or of the columns (axis 2)."""
    return tuple(factor.shape[axis] for factor in factors)


def restricted(factors: Sequence[AnyArray], shape: tuple[int, int]) -> Iterator[list[AnyArray]]:
    """Views of the factors whose Kronecker matrices tile the leading block `shape`."""
    pairs = product(prefix_boxes(shape[0], dims_of(factors, 1)), prefix_boxes(shape[1], dims_of(factors, 2)))
    for row_box, column_box in pairs:
        ranges = zip(factors, row_box, column_box, strict=True)
        yield [factor[:, a:b, c:d] for factor, (a, b), (c, d) in ranges]


@quiet
def sums(factors: Sequence[AnyArray], shape: tuple[int, int], axis: int | None) -> AnyArray:
    """The sum of all elements of the leading block, or over its rows (axis 0) or columns (axis 1)."""
    axis = check_sum_axis(axis)
    if axis is None:
        return total(factors, shape)
    if axis == 0:
        return _column_sums(factors, shape)
    return _column_sums([transposed(f) for f in factors], (shape[1], shape[0]))


def total(factors: Sequence[AnyArray], shape: tuple[int, int]) -> AnyArray:
    """The sum of all elements of the leading block, a scalar."""
    xp, factors, finish = _wide(factors)
    parts = restricted(factors, shape)
    return finish(reduce(add, (_product(xp, [xp.sum(f, axis=(1, 2)) for f in part]) for part in parts)))


def _column_sums(factors: Sequence[AnyArray], shape: tuple[int, int]) -> AnyArray:
    """The sums (columns,) over the rows of the leading block: a ket with R terms per box of rows.

    MemoryError, naming the size, above 2**30 bytes.
    """
    check_result_size("axis", shape[1:], itemsize(factors[0]), factors[0].dtype)
    xp, factors, finish = _wide(factors)
    groups = [
        xp.concat([xp.sum(f[:, a:b, :], axis=1) for f, (a, b) in zip(factors, box, strict=True)], axis=-1)
        for box in prefix_boxes(shape[0], dims_of(factors, 1))
    ]
    return finish(_vector(xp, xp.concat(groups, axis=0), dims_of(factors, 2), shape[1]))


@quiet
def diagonal(factors: Sequence[AnyArray], shape: tuple[int, int], max_bytes: float = 2**30) -> AnyArray:
    """M[i, i] for i < min(shape): a ket of diagonals for square factors, element by element otherwise."""
    count = min(shape)
    what = f"diagonal ({count},) of {factors[0].dtype}"
    check_dense_size(count, itemsize(factors[0]), what, max_bytes)
    if dims_of(factors, 1) != dims_of(factors, 2):
        return entries(factors, range(count), range(count))
    xp = namespace_of(factors[0])
    leaves = xp.concat([_diagonals(xp, f) for f in factors], axis=-1)
    return _vector(xp, leaves, dims_of(factors, 1), count)


def _wide(factors):
    """The namespace, the factors in their accumulation dtype at one level, and the cast of a result."""
    xp = namespace_of(factors[0])
    dtype = factors[0].dtype

    def finish(result):
        return unboxed(xp.astype(result, dtype, copy=False))

    return xp, scale.level([widened(f) for f in factors], None)[0], finish


def _product(xp, parts):
    """sum_k prod_n parts[n][k]."""
    return xp.sum(reduce(mul, parts))


def _diagonals(xp, factor):
    """The diagonals (R, p) of square factors (R, p, p): every (p + 1)-th of the flattened elements."""
    rank, size, _ = factor.shape
    return xp.reshape(factor, (rank, size * size))[:, :: size + 1]


def _vector(xp, packed, dims, columns):
    """The leading `columns` elements of the ket of `packed` leaves (R, sum dims)."""
    return ket_rows(packed[None, ...], np.asarray(0), dims, columns=columns, check=False)
