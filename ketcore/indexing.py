"""Keys of `[...]` by NumPy's rules, and blocks of a matrix at the cost of the output.

A key is parsed into one selector per axis: an int, a range (from a slice) or an integer array, all
normalised to [0, size).  Host values outside raise IndexError; on a device, where reading them would
wait, such an index becomes -1, which the operations turn into NaN.
"""

from collections.abc import Sequence
from functools import reduce
from operator import index as as_integer
from operator import or_
from typing import Any

import array_api_compat
import numpy as np

from ketcore.backend import Array, index_dtype, on_host
from ketcore.ops import gather_kron, rows
from ketcore.ops.checks import to_namespace_of
from ketcore.ops.digits import split_digits
from ketcore.shapes import strides

Selector = int | range | Array

# What int64 does not count.
_COUNTED = 2**63

_RULE = "key must be integers, slices, integer arrays or a boolean mask"

# A block is cut out of whole rows (or columns) where these hold at most this many times its elements:
# an element costs that much more by itself than within a row.
_ROW_ADVANTAGE = 4


def parse_key(key: Any, shape: Sequence[int]) -> list[Selector]:
    """One selector per axis of `shape`; axes that the key leaves out are selected whole.

    raises   TypeError on None, Ellipsis, floats; IndexError on too many entries, indices outside,
             masks of another shape

    >>> parse_key((-1, slice(None, 2)), (3, 4))
    [2, range(0, 2)]
    """
    selectors = []
    for entry in key if isinstance(key, tuple) else (key,):
        selectors += _parse_entry(entry, shape, len(selectors))
    if len(selectors) > len(shape):
        raise IndexError(f"key must have at most {len(shape)} entries, got {len(selectors)}")
    selectors += [range(size) for size in shape[len(selectors) :]]
    if max(shape, default=0) > _COUNTED:
        _check_counted(selectors)
    return selectors


def _check_counted(selectors):
    """Numbers of rows and columns are int64 within."""
    for axis, selector in enumerate(selectors):
        ends = (selector[0], selector[-1]) if isinstance(selector, range) and selector else (selector,)
        if any(isinstance(end, int) and end >= _COUNTED for end in ends):
            raise IndexError(f"key must lie in [0, {_COUNTED}) on axis {axis}, got {max(ends)}")


def _parse_entry(entry, shape, axis):
    """The selectors of one entry of a key: one, or as many as a mask has dimensions."""
    # Entries beyond the last axis are counted and then refused by `parse_key`.
    size = shape[axis] if axis < len(shape) else None
    if isinstance(entry, slice):
        return [range(*entry.indices(size or 0))]
    if entry is None or entry is Ellipsis or isinstance(entry, bool | np.bool_ | str):
        raise TypeError(f"{_RULE}, got {entry!r}")
    if not array_api_compat.is_array_api_obj(entry):
        try:
            return [0 if size is None else _one_index(as_integer(entry), size, axis)]
        except TypeError:
            entry = np.asarray(entry)
            entry = entry.astype(np.int64) if entry.size == 0 and entry.dtype == np.float64 else entry
    xp = array_api_compat.array_namespace(entry)
    if xp.isdtype(entry.dtype, "bool"):
        return _mask_indices(xp, entry, shape, axis)
    if not xp.isdtype(entry.dtype, "integral"):
        raise TypeError(f"{_RULE}, got an array of {entry.dtype}")
    return [entry if size is None else _indices(xp, entry, size, axis)]


def _one_index(value, size, axis):
    if not -size <= value < size:
        raise IndexError(f"key must lie in [-{size}, {size}) on axis {axis}, got {value}")
    return value + size if value < 0 else value


def _indices(xp, ids, size, axis):
    """An integer array with negative values wrapped around."""
    unsigned = xp.isdtype(ids.dtype, "unsigned integer")
    wide = xp.astype(ids, index_dtype(xp), copy=False)
    # An unsigned value of 2**63 or more is negative by now, and as much outside as it was.
    outside = (wide < (0 if unsigned else -size)) | (wide >= size)
    if not on_host(ids):
        return xp.where(outside, xp.full_like(wide, -1), xp.where(wide < 0, wide + size, wide))
    if bool(xp.any(outside)):
        least = 0 if unsigned else -size
        value = next(v for v in xp.reshape(ids, (-1,)).tolist() if not least <= v < size)
        raise IndexError(f"key must lie in [{least}, {size}) on axis {axis}, got {value}")
    return xp.where(wide < 0, wide + size, wide)


def _mask_indices(xp, mask, shape, axis):
    """A boolean mask as its nonzero indices, one array per dimension (reading it waits for a device)."""
    if tuple(mask.shape) != tuple(shape[axis : axis + mask.ndim]) or mask.ndim == 0:
        wanted = tuple(shape[axis : axis + max(mask.ndim, 1)])
        raise IndexError(f"key must have masks of the shape of their axes {wanted}, got {tuple(mask.shape)}")
    return list(xp.nonzero(mask))


def take(array: Array, selectors: Sequence[Selector]) -> Array:
    """Index the leading axes by selectors; -1 in an index array on a device gives NaN."""
    xp = array_api_compat.array_namespace(array)
    chosen = [_as_key(xp, array, selector) for selector in selectors]
    taken = array[(*chosen, ...)]
    arrays = [index for index in chosen if not isinstance(index, int | slice)]
    if all(on_host(index) for index in arrays):
        return taken
    # NumPy puts the axes of index arrays where the first of them (an int counts as one) was, or in front
    # where a slice comes between them.
    axes = [axis for axis, s in enumerate(selectors) if not isinstance(s, range)]
    before = axes[0] if axes[-1] - axes[0] == len(axes) - 1 else 0
    bad = reduce(or_, xp.broadcast_arrays(*(index < 0 for index in arrays)))
    after = taken.ndim - before - bad.ndim
    nan = xp.asarray(float("nan"), dtype=array.dtype, device=array_api_compat.device(array))
    return xp.where(xp.reshape(bad, (1,) * before + tuple(bad.shape) + (1,) * after), nan, taken)


def _as_key(xp, array, selector):
    if isinstance(selector, range):
        # A descending range to the start ends before index 0, which a slice spells None.
        return slice(selector.start, selector.stop if selector.stop >= 0 else None, selector.step)
    return selector if isinstance(selector, int) else to_namespace_of(selector, xp, array)


def block(factors: Sequence[Array], shape: tuple[int, int], key: Any) -> Array:
    """The elements of a Kronecker matrix that NumPy's rules choose.

    cost     that of the output: elements one by one in O(R N) each, or cut out of whole rows or columns
             where these are at most four times as large
    """
    row, column = parse_key(key, shape)
    if not isinstance(row, range) and not isinstance(column, range):
        _check_broadcast([tuple(s.shape) for s in (row, column) if not isinstance(s, int)])
        return entries(factors, row, column)
    cut = _cut(factors, shape[0], row, column)
    if cut is None:
        turned = [array_api_compat.array_namespace(f).matrix_transpose(f) for f in factors]
        cut = _cut(turned, shape[1], column, row)
        cut = None if cut is None else _swapped(cut, _ndim(column), _ndim(row))
    if cut is not None:
        return cut
    row, column = _as_indices(row), _as_indices(column)
    return entries(factors, row[(...,) + (None,) * column.ndim], column)


def _check_broadcast(shapes):
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        raise IndexError(f"key must hold index arrays that broadcast, got shapes {shapes}") from None


def _cut(factors, count, row, column):
    """Whole rows (..., span) with the range `column` cut out; None where that would waste too much."""
    if not isinstance(column, range):
        return None
    span = max(column[0], column[-1]) + 1 if column else 0
    if span > _ROW_ADVANTAGE * len(column):
        return None
    span = max(span, 1)
    # Leading modes of which the first `span` columns see only some: whole, their products would outgrow it.
    widths = strides(tuple(f.shape[2] for f in factors))
    narrow = [f[:, :, : min(f.shape[2], -(-span // width))] for f, width in zip(factors, widths, strict=True)]
    picked = rows(narrow, _as_indices(row), (count, span), check=False)
    if not column:
        return picked[..., :0]
    if column.step < 0:
        xp = array_api_compat.array_namespace(picked)
        return xp.flip(picked[..., column[-1] : span : -column.step], axis=-1)
    return picked[..., column.start : span : column.step]


def _swapped(array, columns, rows_):
    """(*columns, *rows) as (*rows, *columns)."""
    xp = array_api_compat.array_namespace(array)
    axes = (*range(columns, columns + rows_), *range(columns))
    return xp.permute_dims(array, axes)


def _ndim(selector):
    if isinstance(selector, range):
        return 1
    return 0 if isinstance(selector, int) else selector.ndim


def _as_indices(selector):
    if isinstance(selector, range):
        return np.arange(selector.start, selector.stop, selector.step, dtype=np.int64)
    return np.asarray(selector, dtype=np.int64) if isinstance(selector, int) else selector


def entries(factors: Sequence[Array], row: Selector, column: Selector) -> Array:
    """M[i, j] = sum_k prod_n F_n[k, i_n, j_n] for indices that broadcast; -1 on a device gives NaN.

    A gather of leaves of width 1: the factors flattened to (R, p_n q_n, 1), with the index i_n q_n + j_n.
    """
    like = factors[0]
    xp = array_api_compat.array_namespace(like)
    sides = [to_namespace_of(_as_indices(side), xp, like) for side in (row, column)]
    checked = all(on_host(side) for side in (row, column) if not isinstance(side, int | range))
    radices = [[f.shape[axis] for f in factors] for axis in (1, 2)]
    picked = [split_digits(side, dims) for side, dims in zip(sides, radices, strict=True)]
    index = [i * q + j for q, i, j in zip(radices[1], *picked, strict=True)]
    if not checked:
        bad = (sides[0] < 0) | (sides[1] < 0)
        index[0] = xp.where(bad, xp.full_like(index[0], -1), index[0])
    tables = [xp.reshape(f, (f.shape[0], f.shape[1] * f.shape[2], 1)) for f in factors]
    found = gather_kron(tables, xp.stack(xp.broadcast_arrays(*index)), check=False)
    return found[..., 0]
