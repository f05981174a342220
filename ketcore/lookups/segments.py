"""Sums of what rows with one index contribute, and with them the gradients of tables from those of leaves.

Letters: N order, R rank, B rows, t_n and q_n rows and columns of table n.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from types import ModuleType

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import sums
from ketcore.arrays.elementary import permuted, reshaped
from ketcore.arrays.namespaces import is_complex
from ketcore.cuda import launcher, library
from ketcore.lookups import kernels
from ketcore.lookups.leaves import chosen_leaves, flat_index
from ketcore.lookups.lookup import Lookup, made_safe, restored_records
from ketcore.shapes import offsets
from ketcore.tracing import kept


def segment_sum(xp: ModuleType, values: AnyArray, index: AnyArray, count: int) -> AnyArray:
    """Sum the rows of `values` that share an index, in a fixed order.

    Parameters
    ----------
    values : array, (B, W)
        Floating or complex.
    index : array of ints, (B,)
        In [0, count).
    count : int
        The number of rows of the result.

    Returns
    -------
    array, (count, W)
        In the dtype of `values`; an index that never occurs gives zeros.

    Notes
    -----
    Cost: O(B W + count W) time and memory.
    """
    launch = launcher.launcher_for(values)
    if launch is None:
        return sums.sum_by_index(xp, values, index, count)
    with library.on_device_of(values):
        if not is_complex(xp, values.dtype):
            return kernels.segment_sum(launch, values, index, count)
        parts = launch.xp.ascontiguousarray(values).view(values.real.dtype)
        return kernels.segment_sum(launch, parts, index, count).view(values.dtype)


def scatter(xp: ModuleType, lookup: Lookup, cotangents: Sequence[AnyArray]) -> tuple[AnyArray, ...]:
    """Sum leaf cotangents, N arrays (B, R, q_n), into gradients of the tables, N arrays (R, t_n, q_n)."""
    chosen = chosen_leaves(lookup, lookup.index)
    return tuple(
        _to_table(xp, table, i, cotangent)
        for table, i, cotangent in zip(lookup.tables, chosen, cotangents, strict=True)
    )


def scatter_records(lookup: Lookup, records: np.ndarray) -> tuple[np.ndarray, ...]:
    """`scatter` of NumPy leaf cotangents (B, R, sum q_n); those of a few rows are one sum for all tables."""
    shapes = tuple([table.shape for table in lookup.tables])
    ends = _ends(shapes)
    if not sums.is_small(records, ends[-1]):
        parts = pairwise(offsets(lookup.widths))
        return scatter(np, lookup, [records[:, :, start:stop] for start, stop in parts])
    places, modes, widths = _places(shapes)
    chosen = np.array(chosen_leaves(lookup, lookup.index))
    # (N, b) or (N, R, b), in entries of the tables, then for each column of a record: (b, 1 or R, sum q_n)
    steps = chosen.reshape(len(shapes), -1, records.shape[0]) * widths
    moved = steps.take(modes, axis=0).transpose(2, 1, 0)
    totals = sums.counted(records, places + moved, ends[-1])
    pieces = zip(pairwise(ends), shapes, strict=True)
    return tuple([totals[start:stop].reshape(shape) for (start, stop), shape in pieces])


@kept(128)
def _ends(shapes):
    """Where tables of these shapes begin and end when they are laid end to end."""
    return offsets([prod(shape) for shape in shapes])


@kept(128)
def _places(shapes):
    """How the entries of a record find their places in tables (R, t_n, q_n) laid end to end.

    The places (R, sum q_n) where all digits are zero, the mode of each column (sum q_n,), and how far a step
    of the digit of each mode moves an entry of it (N, 1, 1).
    """
    parts = zip(_ends(shapes), shapes, strict=False)
    places = [start + np.arange(r)[:, None] * (t * q) + np.arange(q) for start, (r, t, q) in parts]
    widths = np.array([shape[2] for shape in shapes])
    found = np.concatenate(places, axis=1), np.repeat(np.arange(len(shapes)), widths), widths[:, None, None]
    for array in found:
        array.flags.writeable = False
    return found


def scatter_packed(xp: ModuleType, lookup: Lookup, dims: Sequence[int], records: AnyArray) -> AnyArray:
    """Sum leaf cotangents (B, R, sum q_n) of kind "same" into the gradient (t, R, sum dims) of kets."""
    records = restored_records(xp, records, lookup.widths, dims)
    batch, rank, width = records.shape
    sums = segment_sum(xp, reshaped(xp, records, (batch, rank * width)), lookup.index, lookup.bound)
    return reshaped(xp, sums, (lookup.bound, rank, width))


def sum_by_id(xp: ModuleType, lookup: Lookup, records: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The unique valid ids (U,) of kind "same", ascending, and the sums (U, R, S) of the records of each."""
    safe, bad = made_safe(xp, lookup)
    ids = safe.index
    if bad is not None:
        ids, records = ids[~bad], records[~bad]
    found, inverse = sums.unique_inverse(xp, ids)
    count, (_, rank, width) = found.shape[0], records.shape
    values = segment_sum(xp, reshaped(xp, records, (ids.shape[0], rank * width)), inverse, count)
    return found, reshaped(xp, values, (count, rank, width))


def _to_table(xp, table, index, cotangent):
    """The gradient of one table: the sum of the cotangents of each row."""
    rank, length, width = table.shape
    batch = cotangent.shape[0]
    if index.ndim == 2:
        values = reshaped(xp, permuted(xp, cotangent, (1, 0, 2)), (rank * batch, width))
        sums = segment_sum(xp, values, flat_index(xp, index, length), rank * length)
        return reshaped(xp, sums, (rank, length, width))
    sums = segment_sum(xp, reshaped(xp, cotangent, (batch, rank * width)), index, length)
    return permuted(xp, reshaped(xp, sums, (length, rank, width)), (1, 0, 2))
