"""Rows through two half tables on NumPy: the products of the left and of the right factors, for all digits.

A batch of rows picks from them again and again, so that each half is multiplied out once per call and not
once per row.  Worth it when the batch is not much smaller than a half table; without LayerNorm only.

A half over modes with t_n rows and q_n columns is a table of T = prod t_n records.  Each of its factors is
first spread to the width of a record (some hundred numbers), so that multiplying out runs over long rows:

    half[(i, j), :] = first[i, :] * second[j, :]
"""

from collections.abc import Callable
from functools import reduce
from itertools import accumulate
from math import prod

import numpy as np

from ketcore.arrays.namespaces import accumulation_dtype
from ketcore.arrays.scale import is_level
from ketcore.arrays.sums import sum_by_index
from ketcore.lookups.lookup import Lookup


def pay(lookup: Lookup) -> bool:
    """Whether half tables cost less than the halves of each row, in at most the room of the output.

    Leaves of opposite scales are levelled row by row.
    """
    if lookup.kind != "digits" or lookup.layernorm:
        return False
    lengths = [table.shape[1] for table in lookup.tables]
    high, low = prod(lengths[: lookup.split]), prod(lengths[lookup.split :])
    if 2 * lookup.batch < max(high, low):
        return False
    entries = lookup.rank * (high * lookup.kept + low * prod(lookup.widths[lookup.split :]))
    if entries > lookup.batch * lookup.columns:
        return False
    return len(lengths) < 3 or is_level(lookup.tables, None)


def source(lookup: Lookup):
    """A function of (start, stop): left (b, kept, R), right (b, R, qb) of these rows, and no bias."""
    left, right = _tables(lookup)
    length = right.shape[0]

    def pick(start, stop):
        high, low = np.divmod(lookup.index[start:stop], length)
        return left.take(high, axis=0), right.take(low, axis=0), None

    return pick


def contract(lookup: Lookup, cotangent: np.ndarray, run: Callable) -> tuple[np.ndarray, ...]:
    """Pull `cotangent` (B, columns) back to the factors: N arrays (R, t_n, q_n); `run` makes the chunks."""
    left, right = _tables(lookup)
    high, low = np.divmod(lookup.index, right.shape[0])
    to_left = np.empty((lookup.batch, *left.shape[1:]), left.dtype)
    to_right = np.empty((lookup.batch, *right.shape[1:]), right.dtype)
    kept, width = left.shape[1], right.shape[2]

    def work(start, stop):
        grid = _grid(cotangent[start:stop], kept, width)
        np.matmul(grid, right.take(low[start:stop], axis=0).swapaxes(1, 2), out=to_left[start:stop])
        np.matmul(left.take(high[start:stop], axis=0).swapaxes(1, 2), grid, out=to_right[start:stop])

    run(work, lookup)
    return (
        *_chain(lookup, True, _sums(to_left, high, left.shape[0])),
        *_chain(lookup, False, _sums(to_right, low, right.shape[0])),
    )


def _tables(lookup):
    """Left (T, kept, R) and right (T, R, qb), each record contiguous."""
    return reduce(_pairs, _spread(lookup, True)), reduce(_pairs, _spread(lookup, False))


def _pairs(first, second):
    """(u, *w), (v, *w) -> (u*v, *w): the products of all pairs of records."""
    pairs = first[:, None] * second[None]
    return pairs.reshape(pairs.shape[0] * pairs.shape[1], *pairs.shape[2:])


def _spread(lookup, left):
    """The factors of a half spread to its records: (t_n, kept, R) on the left, (t_n, R, qb) on the right."""
    tables = lookup.tables[: lookup.split] if left else lookup.tables[lookup.split :]
    dtype = accumulation_dtype(np, lookup.dtype)
    if not tables:
        return [np.ones((1, 1, lookup.rank), dtype)]
    widths = [table.shape[2] for table in tables]
    spread = []
    for mode, table in enumerate(tables):
        # Three axes, since NumPy does not take one per mode of any order.
        axes = (prod(widths[:mode]), widths[mode], prod(widths[mode + 1 :]))
        length, rank = table.shape[1], lookup.rank
        if left:
            records = np.empty((length, *axes, rank), dtype)
            records[...] = table.transpose(1, 2, 0)[:, None, :, None, :]
            records = records.reshape(length, prod(widths), rank)[:, : lookup.kept]
        else:
            records = np.empty((length, rank, *axes), dtype)
            records[...] = table.transpose(1, 0, 2)[:, :, None, :, None]
            records = records.reshape(length, rank, prod(widths))
        spread.append(np.ascontiguousarray(records))
    return spread


def _grid(cotangent, kept, width):
    """Rows (b, columns) as grids (b, kept, width), zero beyond the crop."""
    batch, columns = cotangent.shape
    if columns == kept * width:
        return cotangent.reshape(batch, kept, width)
    padded = np.zeros((batch, kept * width), cotangent.dtype)
    padded[:, :columns] = cotangent
    return padded.reshape(batch, kept, width)


def _sums(values, index, length):
    batch, *record = values.shape
    return sum_by_index(np, values.reshape(batch, prod(record)), index, length).reshape(length, *record)


def _chain(lookup, left, sums):
    """The gradient of a half table, (T, *record), pulled back to its factors: arrays (R, t_n, q_n)."""
    tables = lookup.tables[: lookup.split] if left else lookup.tables[lookup.split :]
    if not tables:
        return ()
    spread = _spread(lookup, left)
    befores = list(accumulate(spread[:-1], _pairs))
    found = []
    for before, last in zip(reversed(befores), reversed(spread[1:]), strict=True):
        split = sums.reshape(before.shape[0], last.shape[0], *sums.shape[1:])
        found.append(np.einsum("uvxy,uxy->vxy", split, before))
        sums = np.einsum("uvxy,vxy->uxy", split, last)
    found.append(sums)
    return [_gathered(g, lookup, left, mode) for mode, g in enumerate(reversed(found))]


def _gathered(gradient, lookup, left, mode):
    """The gradient of a spread factor, summed to that of the factor: (R, t_n, q_n).  Undoes `_spread`."""
    widths = lookup.widths[: lookup.split] if left else lookup.widths[lookup.split :]
    length, axes = gradient.shape[0], (prod(widths[:mode]), widths[mode], prod(widths[mode + 1 :]))
    if left:
        missing = np.zeros((length, prod(widths) - lookup.kept, lookup.rank), gradient.dtype)
        gradient = np.concatenate([gradient, missing], axis=1).reshape(length, *axes, lookup.rank)
    else:
        gradient = gradient.reshape(length, lookup.rank, *axes)
    gradient = gradient.sum(axis=(1, 3) if left else (2, 4))
    return gradient.transpose(2, 0, 1) if left else gradient.transpose(1, 0, 2)
