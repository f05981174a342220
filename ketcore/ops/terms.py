"""Sums over terms of products over modes: what scalar functions of kets and matrices have in common.

    S = sum over boxes and terms of prod_n s_n,   dS = sum_n sum of ds_n prod_{m != n} s_m

A leading block of a matrix is a union of boxes of digits (`ketcore.boxes`); over one box every digit runs
over a range of its own, so that sums over its elements are products over modes.
"""

from collections.abc import Sequence
from functools import reduce
from itertools import product as pairs
from math import prod
from types import ModuleType

import array_api_compat
import numpy as np

from ketcore.backend import Array, accumulation_dtype
from ketcore.boxes import prefix_boxes
from ketcore.elementary import conjugated, transposed


def product(arrays: Sequence[Array]) -> Array:
    """The elementwise product of arrays that broadcast."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total * array
    return total


def products_of_others(xp: ModuleType, arrays: Sequence[Array]) -> list[Array]:
    """Per mode the elementwise product of the arrays of all others (no division: an entry may be zero)."""
    befores = [xp.ones_like(product(arrays))]
    for array in arrays[:-1]:
        befores.append(befores[-1] * array)
    after, found = befores[0], []
    for before, array in zip(reversed(befores), reversed(arrays), strict=True):
        found.append(before * after)
        after = after * array
    return found[::-1]


def diagonal_masks(dims: Sequence[int], count: int) -> list[np.ndarray]:
    """Which digits the boxes of [0, count) hold: per mode a bool array (boxes, p_n)."""
    boxes = prefix_boxes(count, dims)
    return [_ranges([box[n] for box in boxes], size) for n, size in enumerate(dims)]


def block_masks(factors: Sequence[Array], shape: tuple[int, int]) -> list[np.ndarray]:
    """Which elements of each factor the boxes of a leading block hold: N bool arrays (boxes, 1, p_n q_n)."""
    dims = [tuple(factor.shape[axis] for factor in factors) for axis in (1, 2)]
    sides = [prefix_boxes(count, sizes) for count, sizes in zip(shape, dims, strict=True)]
    boxes = list(pairs(*sides))
    found = []
    for n, (rows, columns) in enumerate(zip(*dims, strict=True)):
        picked = _ranges([box[0][n] for box in boxes], rows)[:, :, None]
        picked = picked & _ranges([box[1][n] for box in boxes], columns)[:, None, :]
        found.append(picked.reshape(len(boxes), 1, rows * columns))
    return found


def _ranges(bounds, size):
    digits = np.arange(size)
    return np.array([(digits >= start) & (digits < stop) for start, stop in bounds])


def masked_leaves(
    xp: ModuleType, factors: Sequence[Array], shape: tuple[int, int], dtype: object
) -> list[Array]:
    """N arrays (boxes, R, p_n q_n) in `dtype`: factors (R, p_n, q_n), zero outside of a box."""
    rows, columns = (prod(factor.shape[axis] for factor in factors) for axis in (1, 2))
    wide = [xp.astype(factor, dtype, copy=False) for factor in factors]
    flat = [xp.reshape(f, (1, f.shape[0], f.shape[1] * f.shape[2])) for f in wide]
    if shape == (rows, columns):
        return flat
    masks = [on_device(xp, mask, flat[0]) for mask in block_masks(factors, shape)]
    return [xp.where(mask, leaf, xp.zeros_like(leaf)) for mask, leaf in zip(masks, flat, strict=True)]


def on_device(xp: ModuleType, values: np.ndarray, like: Array) -> Array:
    """NumPy values as an array beside `like`."""
    return values if xp is np else xp.asarray(values, device=array_api_compat.device(like))


def grams(xp: ModuleType, left: Sequence[Array], right: Sequence[Array]) -> list[Array]:
    """Per mode the inner products of all leaves, the left ones conjugated: N arrays (boxes, R, R')."""
    return [conjugated(a) @ transposed(b) for a, b in zip(left, right, strict=True)]


def dense(factors: Sequence[Array], shape: tuple[int, int] | None = None) -> np.ndarray:
    """The matrix multiplied out on NumPy arrays, at least in float32, for dense definitions."""
    wide = [np.asarray(factor) for factor in factors]
    dtype = accumulation_dtype(np, np.result_type(*wide))
    total = sum(reduce(np.kron, matrices) for matrices in zip(*(f.astype(dtype) for f in wide), strict=True))
    rows, columns = (prod(factor.shape[axis] for factor in wide) for axis in (1, 2))
    total = np.zeros((rows, columns), dtype) + total
    return total if shape is None else total[: shape[0], : shape[1]]


def dense_ket(factors: Sequence[Array]) -> np.ndarray:
    """A batch of kets (..., Q) multiplied out on NumPy arrays, at least in float32, for dense definitions."""
    wide = [np.asarray(factor) for factor in factors]
    dtype = accumulation_dtype(np, np.result_type(*wide))
    total = np.ones((*wide[0].shape[:-1], 1), dtype)
    for leaf in wide:
        total = (total[..., :, None] * leaf.astype(dtype)[..., None, :]).reshape(
            *total.shape[:-1], total.shape[-1] * leaf.shape[-1]
        )
    return total.sum(axis=-2)
