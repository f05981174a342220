"""Sums over terms of products over modes: what scalar functions of kets and matrices have in common.

    S = sum over boxes and terms of prod_n s_n,   dS = sum_n sum of ds_n prod_{m != n} s_m

A leading block of a matrix is a union of boxes of digits (`shapes.prefix_boxes`); over one box every digit
runs over a range of its own, so that sums over its elements are products over modes.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import product as pairs
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import as_dtype, beside, conjugated, elementwise_product, padded, transposed
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient
from ketcore.shapes import prefix_boxes
from ketcore.tracing import kept


def products_of_others(xp: ModuleType, arrays: Sequence[AnyArray]) -> list[AnyArray]:
    """Per mode the elementwise product of the arrays of all others (no division: an entry may be zero)."""
    befores = [xp.ones_like(elementwise_product(arrays))]
    for array in arrays[:-1]:
        befores.append(befores[-1] * array)
    after, found = befores[0], []
    for before, array in zip(reversed(befores), reversed(arrays), strict=True):
        found.append(before * after)
        after = after * array
    return found[::-1]


@kept(64)
def diagonal_masks(dims: tuple[int, ...], count: int) -> list[np.ndarray]:
    """Which digits the boxes of [0, count) hold: per mode a bool array (boxes, p_n)."""
    boxes = prefix_boxes(count, dims)
    return [_ranges([box[n] for box in boxes], size) for n, size in enumerate(dims)]


def _ranges(bounds, size):
    digits = np.arange(size)
    return np.array([(digits >= start) & (digits < stop) for start, stop in bounds])


class Block(NamedTuple):
    """A leading block of a matrix as a union of boxes, mode by mode.

    Attributes
    ----------
    reached : list of N pairs of ints
        The rows and the columns of each factor that it holds any of.
    ranges : list of N lists
        Per mode what boxes have of it: different pairs of a range of rows and one of columns.
    places : list of N arrays of ints, (boxes,)
        Per mode which of these pairs each box has.
    """

    reached: list[tuple[int, int]]
    ranges: list[list[tuple[tuple[int, int], tuple[int, int]]]]
    places: list[np.ndarray]


@kept(256)
def _leading_block(row_dims, col_dims, shape):
    """The leading block of this shape, as boxes whose ranges of digits are listed once per mode."""
    sides = (prefix_boxes(count, dims) for count, dims in zip(shape, (row_dims, col_dims), strict=True))
    boxes = [list(zip(*box, strict=True)) for box in pairs(*sides)]
    ranges, places = [], []
    for mode in zip(*boxes, strict=True):
        numbers = {one: n for n, one in enumerate(dict.fromkeys(mode))}
        ranges.append(list(numbers))
        places.append(np.array([numbers[one] for one in mode]))
    reached = [tuple(max(side[1] for side in axis) for axis in zip(*mode, strict=True)) for mode in ranges]
    return Block(reached, ranges, places)


def leading_block(factors: Sequence[AnyArray], shape: tuple[int, int]) -> Block:
    """The leading block `shape` of the matrix of factors (R, p_n, q_n)."""
    rows, columns = (tuple([factor.shape[axis] for factor in factors]) for axis in (1, 2))
    return _leading_block(rows, columns, shape)


def reached(xp: ModuleType, factors: Sequence[AnyArray], block: Block, dtype: Any) -> list[AnyArray]:
    """The parts of the factors that a block holds any of, in `dtype`."""
    return [as_dtype(xp, f[:, :p, :q], dtype) for f, (p, q) in zip(factors, block.reached, strict=True)]


def block_grams(
    xp: ModuleType, left: Sequence[AnyArray], right: Sequence[AnyArray], block: Block
) -> list[AnyArray]:
    """Per mode the inner products of the leaves in each box, the left ones conjugated.

    `left` and `right` are as by `reached`; the result is N arrays (boxes or 1, R, R').
    """
    found = []
    for a, b, ranges, places in zip(left, right, block.ranges, block.places, strict=True):
        leaves = [(_leaf(xp, a, each), _leaf(xp, b, each)) for each in ranges]
        inner = xp.stack([conjugated(one) @ transposed(other) for one, other in leaves])
        found.append(inner if len(ranges) == 1 else xp.take(inner, beside(places, inner), axis=0))
    return found


def block_pulled(xp: ModuleType, to_gram: AnyArray, other: AnyArray, block: Block, n: int) -> AnyArray:
    """The sum_l to_gram[box, k, l] other[l] over the boxes that hold an element of mode n: (R, p_n, q_n).

    `to_gram` is (boxes, R, R') and `other` (R', p_n, q_n).
    """
    _, p, q = other.shape
    flat, ranges, total = xp.reshape(other, (other.shape[0], p * q)), block.ranges[n], None
    for place, ((a, b), (c, d)) in enumerate(ranges):
        boxes = beside(np.flatnonzero(block.places[n] == place), to_gram)
        chosen = to_gram if len(ranges) == 1 else xp.take(to_gram, boxes, axis=0)
        part = xp.reshape(xp.sum(chosen, axis=0) @ flat, (-1, p, q))
        if (a, b, c, d) != (0, p, 0, q):
            mask = np.zeros((p, q), bool)
            mask[a:b, c:d] = True
            part = xp.where(beside(mask, part), part, xp.zeros_like(part))
        total = part if total is None else total + part
    return total


def _leaf(xp, array, ranges):
    """A range of rows and one of columns of (R, p, q) as leaves (R, .)."""
    (a, b), (c, d) = ranges
    return xp.reshape(array[:, a:b, c:d], (array.shape[0], (b - a) * (d - c)))


def whole(xp: ModuleType, gradient: AnyArray, factor: AnyArray) -> AnyArray:
    """The gradient of what is reached of a factor as that of the factor: zeros behind it."""
    for axis in (1, 2):
        gradient = padded(xp, gradient, factor.shape[axis], axis)
    return cast_gradient(xp, gradient, factor)


def grams(xp: ModuleType, left: Sequence[AnyArray], right: Sequence[AnyArray]) -> list[AnyArray]:
    """Per mode the inner products of all leaves, the left ones conjugated: N arrays (boxes, R, R')."""
    return [conjugated(a) @ transposed(b) for a, b in zip(left, right, strict=True)]


def dense_matrix(factors: Sequence[AnyArray], shape: tuple[int, int] | None = None) -> np.ndarray:
    """The matrix multiplied out on NumPy arrays, at least in float32, for dense definitions."""
    wide = [np.asarray(factor) for factor in factors]
    dtype = accumulation_dtype(np, np.result_type(*wide))
    total = sum(reduce(np.kron, matrices) for matrices in zip(*(f.astype(dtype) for f in wide), strict=True))
    rows, columns = (prod([factor.shape[axis] for factor in wide]) for axis in (1, 2))
    total = np.zeros((rows, columns), dtype) + total
    return total if shape is None else total[: shape[0], : shape[1]]


def dense_ket(factors: Sequence[AnyArray]) -> np.ndarray:
    """A batch of kets (..., Q) multiplied out on NumPy arrays, at least in float32, for dense definitions."""
    wide = [np.asarray(factor) for factor in factors]
    dtype = accumulation_dtype(np, np.result_type(*wide))
    total = np.ones((*wide[0].shape[:-1], 1), dtype)
    for leaf in wide:
        total = (total[..., :, None] * leaf.astype(dtype)[..., None, :]).reshape(
            *total.shape[:-1], total.shape[-1] * leaf.shape[-1]
        )
    return total.sum(axis=-2)
