"""Sums of what rows with one index contribute, and with them the gradients of tables from those of leaves.

Letters: N order, R rank, B rows, t_n and q_n rows and columns of table n.
"""

from collections.abc import Sequence
from types import ModuleType

from ketcore.array_types import AnyArray
from ketcore.arrays import sums
from ketcore.arrays.elementary import reshaped
from ketcore.arrays.namespaces import is_complex
from ketcore.cuda import launcher, library
from ketcore.lookups import kernels
from ketcore.lookups.leaves import chosen_leaves, flat_index
from ketcore.lookups.lookup import Lookup, restored_records


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


def scatter_packed(xp: ModuleType, lookup: Lookup, dims: Sequence[int], records: AnyArray) -> AnyArray:
    """Sum leaf cotangents (B, R, sum q_n) of kind "same" into the gradient (t, R, sum dims) of kets."""
    records = restored_records(xp, records, lookup.widths, dims)
    batch, rank, width = records.shape
    sums = segment_sum(xp, reshaped(xp, records, (batch, rank * width)), lookup.index, lookup.bound)
    return reshaped(xp, sums, (lookup.bound, rank, width))


def _to_table(xp, table, index, cotangent):
    """The gradient of one table: the sum of the cotangents of each row."""
    rank, length, width = table.shape
    batch = cotangent.shape[0]
    if index.ndim == 2:
        values = reshaped(xp, xp.permute_dims(cotangent, (1, 0, 2)), (rank * batch, width))
        sums = segment_sum(xp, values, flat_index(xp, index, length), rank * length)
        return reshaped(xp, sums, (rank, length, width))
    sums = segment_sum(xp, reshaped(xp, cotangent, (batch, rank * width)), index, length)
    return xp.permute_dims(reshaped(xp, sums, (length, rank, width)), (1, 0, 2))
