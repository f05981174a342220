"""Rows and blocks of a product of parts, at the cost of the output.

The rows and columns that are wanted have few digits in each mode: the entries of the parts at those make a
small dense Kronecker matrix, out of which the block is cut.  That reads the values of indices.
"""

from collections.abc import Sequence
from itertools import starmap
from math import prod
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import is_traced
from ketcore.arrays.checks import as_integers, check_index
from ketcore.arrays.elementary import itemsize, unboxed
from ketcore.arrays.namespaces import is_array, to_host
from ketcore.objects import blocks
from ketcore.objects.indexing import COUNTED, Selector, parse_key
from ketcore.objects.ket import Ket
from ketcore.objects.parts import kind_of, picked
from ketcore.shapes import check_result_size, strides


def parts_block(parts: Sequence[Any], key: Any) -> AnyArray:
    """The elements that NumPy's rules choose; indices on a device are read."""
    _, like, dtype = kind_of(parts)
    dims = [tuple(part.shape[axis] for part in parts) for axis in (0, 1)]
    entries = tuple(known("key", entry) for entry in (key if isinstance(key, tuple) else (key,)))
    row, column = parse_key(entries, tuple(map(prod, dims)))
    if isinstance(row, int | range):
        found = (*blocks.shape_of(row), *blocks.shape_of(column))
        check_result_size("key", found, itemsize(like), dtype, "iter_row_blocks(size)")
    digits, inner = zip(*starmap(_few, zip(_plain_pair(row, column), dims, strict=True)), strict=True)
    factors = [picked(part, p, q, like)[None, ...] for part, p, q in zip(parts, *digits, strict=True)]
    shape = tuple(prod([factor.shape[axis] for factor in factors]) for axis in (1, 2))
    return unboxed(blocks.block(factors, shape, tuple(map(_as_key, inner))))


def known(name: str, index: Any) -> Any:
    """An index of any library as one of NumPy; TypeError where it is traced."""
    if not is_array(index):
        return index
    if is_traced(index):
        raise TypeError(
            f"{name} must be known by its values (to_kronecker() takes others), got one that is traced"
        )
    return to_host(index)


def parts_row_kets(parts: Sequence[Any], ids: Any) -> Ket[Any]:
    """The rows of `ids`, which count from 0, as kets of rank 1: of the rows that their digits pick."""
    rows = prod([part.shape[0] for part in parts])
    return row_kets_at(parts, check_index("ids", known("ids", as_integers("ids", ids)), rows, None)[0])


def row_kets_at(parts: Sequence[Any], rows: np.ndarray | range) -> Ket[Any]:
    """`parts_row_kets` of numbers that are known to be those of rows."""
    xp, like, _ = kind_of(parts)
    digits = blocks.digits_of(rows, [part.shape[0] for part in parts])
    leaves = [
        picked(part, digit.reshape(-1), range(part.shape[1]), like)
        for part, digit in zip(parts, digits, strict=True)
    ]
    shape = (*blocks.shape_of(rows), 1)
    return Ket([xp.reshape(leaf, (*shape, leaf.shape[-1])) for leaf in leaves])


def _plain_pair(row: Selector, column: Selector) -> tuple[Selector, Selector]:
    """Selectors of which ranges have steps of 1 or -1: others are index arrays of all pairs."""
    strided = [isinstance(side, range) and abs(side.step) > 1 for side in (row, column)]
    found = [
        blocks.as_indices(side) if wide else side for side, wide in zip((row, column), strided, strict=True)
    ]
    if any(strided) and all(isinstance(side, np.ndarray) for side in found):
        return blocks.all_pairs(*found)
    return found[0], found[1]


def _few(selector, dims):
    """The digits of some numbers, ascending, one array per mode; and the numbers among all of these."""
    if isinstance(selector, range):
        return _few_of_range(selector, dims)
    if not prod(blocks.shape_of(selector)):
        return [np.zeros(1, np.int64) for _ in dims], selector
    pairs = [np.unique(digit, return_inverse=True) for digit in blocks.digits_of(selector, dims)]
    found = [digits for digits, _ in pairs]
    number = _number([np.reshape(places, blocks.shape_of(selector)) for _, places in pairs], found)
    return found, int(number) if isinstance(selector, int) else number


def _few_of_range(selector, dims):
    """`_few` of neighbours, which stay so: where a digit goes round, its ends are there."""
    if not selector:
        return [np.zeros(1, np.int64) for _ in dims], selector
    first, last = min(selector[0], selector[-1]), max(selector[0], selector[-1])
    found, places = [], []
    for stride, dim in zip(strides(dims), dims, strict=True):
        low, high = first // stride, last // stride
        # Counted from the digit of the first: all of them, or as many as there are, which may go round.
        count = min(high - low + 1, dim)
        found.append(np.sort((low % dim + np.arange(count)) % dim))
        places.append(int(np.searchsorted(found[-1], low % dim)))
    number = int(_number(places, found))
    stop = number + last - first + 1
    return found, range(number, stop) if selector.step > 0 else range(stop - 1, number - 1, -1)


def _number(places, digits):
    """The number of which these are the digits, in the radices that are left; beyond int64 of Python ints."""
    radices = tuple(len(each) for each in digits)
    wide = object if prod(radices) > COUNTED else np.int64
    return sum(
        np.asarray(place, wide) * stride for place, stride in zip(places, strides(radices), strict=True)
    )


def _as_key(selector):
    """A selector as an entry of a key."""
    if not isinstance(selector, range):
        return selector
    return slice(selector.start, selector.stop if selector.stop >= 0 else None, selector.step)
