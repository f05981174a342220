"""Keys of `[...]` by NumPy's rules.

A key is parsed into one selector per axis: an int, a range (from a slice) or an integer array, all
normalised to [0, size).  Host values outside raise IndexError; on a device, where reading them would
wait, such an index becomes -1, which the operations turn into NaN.  Along an axis longer than 2**63 an array
of indices is one of Python ints, on the host: int64 does not count so far.
"""

from collections.abc import Sequence
from functools import reduce
from operator import index as as_integer
from operator import or_
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import to_namespace_of
from ketcore.arrays.elementary import chosen
from ketcore.arrays.namespaces import device_of, index_dtype, is_array, namespace_of, on_host, to_host
from ketcore.arrays.quantized import QuantizedArray, recast
from ketcore.shapes import shown

Selector = int | range | AnyArray

# What int64 does not count.
COUNTED = 2**63

_RULE = "key must be integers, slices, integer arrays or a boolean mask"


def parse_key(key: Any, shape: Sequence[int]) -> list[Selector]:
    """One selector per axis of `shape`; axes that the key leaves out are selected whole.

    TypeError on None, Ellipsis, floats; IndexError on too many entries, indices outside, masks of another
    shape.

    >>> parse_key((-1, slice(None, 2)), (3, 4))
    [2, range(0, 2)]
    """
    selectors: list[Any] = []
    for entry in key if isinstance(key, tuple) else (key,):
        selectors += _parse_entry(entry, shape, len(selectors))
    if len(selectors) > len(shape):
        raise IndexError(f"key must have at most {len(shape)} entries, got {len(selectors)}")
    return selectors + [range(size) for size in shape[len(selectors) :]]


def _parse_entry(entry, shape, axis):
    """The selectors of one entry of a key: one, or as many as a mask has dimensions."""
    # Entries beyond the last axis are counted and then refused by `parse_key`.
    size = shape[axis] if axis < len(shape) else None
    if isinstance(entry, slice):
        return [_sliced(entry, size or 0)]
    if entry is None or entry is Ellipsis or isinstance(entry, bool | np.bool_ | str):
        raise TypeError(f"{_RULE}, got {shown(entry)}")
    if not is_array(entry):
        try:
            return [0 if size is None else _one_index(as_integer(entry), size, axis)]
        except TypeError:
            # Among Python ints beyond int64 NumPy would look for a float.
            wide = size is not None and size > COUNTED
            try:
                entry = np.asarray(entry, dtype=object) if wide else np.asarray(entry)
            except ValueError:
                raise ValueError(f"{_RULE}, got ragged lists") from None
            if entry.size == 0 and entry.dtype in (np.float64, object):
                entry = entry.astype(np.int64)
    xp = namespace_of(entry)
    if entry.dtype == object and size is not None and size > COUNTED:
        return [_wide_indices(entry, size, axis)]
    if xp.isdtype(entry.dtype, "bool"):
        return _mask_indices(xp, entry, shape, axis)
    if not xp.isdtype(entry.dtype, "integral"):
        raise TypeError(f"{_RULE}, got an array of {entry.dtype}")
    return [entry if size is None else _indices(xp, entry, size, axis)]


def _sliced(entry, size):
    """A slice as the range of indices that it takes."""
    try:
        # An empty range may start at -1, which as an index would be the last.
        return range(*entry.indices(size)) or range(0)
    except (TypeError, ValueError) as error:
        rule = "key must have slices of ints and None, of steps other than 0"
        raise type(error)(f"{rule}, got {shown(entry)}") from None


def _one_index(value, size, axis):
    if not -size <= value < size:
        raise IndexError(f"key must lie in [-{size}, {size}) on axis {axis}, got {shown(value)}")
    return value + size if value < 0 else value


def _wide_indices(ids, size, axis):
    """`_indices` along an axis that int64 does not count: an array of Python ints, on the host."""
    values = to_host(ids).ravel().tolist()
    wrong = next((value for value in values if not isinstance(value, int) or isinstance(value, bool)), None)
    if wrong is not None:
        raise TypeError(f"{_RULE}, got {wrong!r} in an array")
    found = np.empty(len(values), dtype=object)
    found[:] = [_one_index(value, size, axis) for value in values]
    return found.reshape(tuple(ids.shape))


def _indices(xp, ids, size, axis):
    """An integer array with negative values wrapped around."""
    if size > COUNTED:
        return _wide_indices(ids, size, axis)
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


def take(array: AnyArray, selectors: Sequence[Selector]) -> AnyArray:
    """Index the leading axes by selectors; -1 in an index array on a device gives NaN."""
    xp = namespace_of(array)
    array, selectors = _ascending(xp, array, selectors)
    keys = [_as_key(xp, array, selector) for selector in selectors]
    taken = array[(*keys, ...)]
    arrays = [index for index in keys if not isinstance(index, int | slice)]
    if all(on_host(index) for index in arrays):
        return taken
    # NumPy puts the axes of index arrays where the first of them (an int counts as one) was, or in front
    # where a slice comes between them.
    axes = [axis for axis, s in enumerate(selectors) if not isinstance(s, range)]
    before = axes[0] if axes[-1] - axes[0] == len(axes) - 1 else 0
    bad = reduce(or_, xp.broadcast_arrays(*(index < 0 for index in arrays)))
    after = taken.ndim - before - bad.ndim
    nan = xp.asarray(float("nan"), dtype=array.dtype, device=device_of(array))
    return chosen(xp, xp.reshape(bad, (1,) * before + tuple(bad.shape) + (1,) * after), nan, taken)


def take_stored(array: Any, selectors: Sequence[Selector]) -> Any:
    """`take` of an array, or of a QuantizedArray, of which lines are picked where they are chosen whole."""
    if not isinstance(array, QuantizedArray):
        return take(array, selectors)
    known = all(isinstance(each, int | range) or on_host(each) for each in selectors)
    if not known or len(selectors) >= array.values.ndim:
        return take(array.dequantize(), selectors)
    return recast(array, lambda xp, part: take(part, selectors))


def _ascending(xp, array, selectors):
    """The array, flipped where a selector descends, and selectors that ascend; NumPy needs neither."""
    falling = [n for n, s in enumerate(selectors) if isinstance(s, range) and s.step < 0]
    if not falling or isinstance(array, np.ndarray):
        return array, selectors
    turned, last = list(selectors), [size - 1 for size in array.shape]
    for n in falling:
        turned[n] = range(last[n] - selectors[n].start, last[n] - selectors[n].stop, -selectors[n].step)
    return xp.flip(array, axis=tuple(falling)), turned


def _as_key(xp, array, selector):
    if isinstance(selector, range):
        # A descending range to the start ends before index 0, which a slice spells None.
        return slice(selector.start, selector.stop if selector.stop >= 0 else None, selector.step)
    return selector if isinstance(selector, int) else to_namespace_of(selector, xp, array)
