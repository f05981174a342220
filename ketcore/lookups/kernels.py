"""The CUDA kernels of `gather.cu` and `scatter.cu`: which there are, when they can run, how to launch them.

    expand      rows (B, columns) from a `Lookup`                                              1 launch
    contract    gradients of its tables from the cotangent of the rows: with atomics           1 launch
                deterministic: records, private sums of fixed chunks of rows, their sum        3 launches
                a large table whose modes all take the same leaf: records, sorted by leaf      5 launches

One launch more where an index is not contiguous.  In the last case a sort by CuPy is one of the five, and
a fill another: where `fills` says no, gradients are filled with zeros first.
Launchers are those of `ketcore.cuda.launcher`; `multiply` is launched by `ketcore.products.fused`.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.cuda.structs import MAX_ORDER, SHARED_FLOOR, Launch, address
from ketcore.cuda.table import INDEX, STORAGE, c_type
from ketcore.lookups.kernel_plan import (
    chunk_launches,
    filled_plan,
    gather_launch,
    geometry,
    segment_geometry,
    segment_launch,
)
from ketcore.lookups.lookup import Lookup

# Tables of more rows than this, all modes of which take the same leaf, are summed through a sort: it reads
# and writes only what was picked.
_SORT_ABOVE = 1024


def obstacle(lookup: Lookup) -> str:
    """Why the kernels cannot take the tables of this lookup, in words that follow a name; empty if they can.

    A matter of dtypes and sizes, the same on every GPU.
    """
    return _obstacle(geometry(lookup), lookup.form)


@lru_cache(maxsize=256)
def _obstacle(shape, form):
    dtypes, dtype = form.dtypes, form.dtypes[0]
    if dtype.name not in STORAGE or any(each != dtype for each in dtypes):
        names = dict.fromkeys(each.name for each in dtypes)
        return f"must have one real floating dtype, got {', '.join(names)}"
    if form.dtype is not None and form.dtype != dtype:
        return f"must have the dtype of the rows, {form.dtype}, got {dtype.name}"
    if len(dtypes) > MAX_ORDER:
        return f"must be at most {MAX_ORDER}, got {len(dtypes)}"
    if shape.rank < 1:
        return "must have at least one term, got rank 0"
    longest = max(shape.counts)
    if longest >= 1 << 31:
        return f"must have less than 2^31 rows each, got {longest}"
    if any(stride % dtype.itemsize for steps in shape.steps for stride in steps):
        return f"must have strides of whole entries, got {list(shape.steps)}"
    # The backward needs more room than the forward.
    if gather_launch(shape, True, SHARED_FLOOR, False) is None:
        widths, room = shape.widths, f"{SHARED_FLOOR} bytes of shared memory"
        return f"must have leaves that fit {room} with their products, got {widths} of rank {shape.rank}"
    return ""


def expand(launch: Any, lookup: Lookup, out: Any = None) -> AnyArray:
    """Rows (B, columns) in the dtype of the tables; a bad index gives a row of NaN.

    They are written into `out` where it is given, a C-contiguous array.
    """
    form = lookup.form
    dtype, columns = form.dtypes[0], form.columns
    if out is None:
        out = launch.xp.empty((lookup.batch, columns), dtype)
    if not lookup.batch:
        return out
    shape, lanes = geometry(lookup), 16 // dtype.itemsize
    vector = columns % lanes == 0 and shape.right % lanes == 0 and address(out) % 16 == 0
    found = gather_launch(shape, False, _shared_limit(launch), vector)
    assert found is not None  # or there would be an obstacle
    index = _index(launch, lookup)
    types = c_type(dtype), c_type(index.dtype)
    _run(launch, found, "gather", "expand", types, filled_plan(found, lookup.tables), index, out)
    return out


def leaf_cotangents(launch: Any, lookup: Lookup, cotangent: AnyArray) -> AnyArray:
    """Pull `cotangent` (B, columns) back to the leaves of each row: (B, R, sum q_n) in the dtype of sums.

    It is read in the dtype of the tables, any other as the dtype that sums run in.  Zero where an index is
    bad.
    """
    records = launch.xp.empty((lookup.batch, lookup.rank, sum(lookup.widths)), sum_dtype(lookup))
    if lookup.batch:
        _contract(launch, lookup, _index(launch, lookup), cotangent, records)
    return records


def fills(lookup: Lookup, deterministic: bool) -> bool:
    """Whether `contract` writes every entry of the gradients, so that they may hold anything before."""
    return bool(lookup.batch) and deterministic and not _is_sorted(lookup)


def _is_sorted(lookup):
    shape = geometry(lookup)
    return shape.kind == "same" and shape.bound > _SORT_ABOVE


def contract(
    launch: Any, lookup: Lookup, cotangent: AnyArray, deterministic: bool, gradients: Sequence[AnyArray]
) -> None:
    """Pull `cotangent` (B, columns) back to the tables: written to `gradients`.

    Parameters
    ----------
    launch, lookup, cotangent
        As of `leaf_cotangents`.
    deterministic : bool
        False adds with atomics, in no fixed order and in the accumulation dtype alone.
    gradients : sequence of N arrays, (R, t_n, q_n)
        In the accumulation dtype, any strides; of zeros unless `fills` says that they need not be.
    """
    if not lookup.batch:
        return
    index, dtype = _index(launch, lookup), sum_dtype(lookup)
    if not deterministic:
        _contract(launch, lookup, index, cotangent, launch.workspace(0, dtype), gradients)
        return
    shape = geometry(lookup)
    records = launch.workspace(shape.rows * shape.rank * shape.width, dtype)
    if _is_sorted(lookup):
        keys = launch.workspace(shape.rows, index.dtype)
        _contract(launch, lookup, index, cotangent, records, keys=keys)
        _sorted_sums(launch, shape, keys, index.dtype, records, dtype, gradients)
    else:
        _contract(launch, lookup, index, cotangent, records)
        _sum_chunks(launch, shape, index, records, dtype, gradients)


def _contract(launch, lookup, index, cotangent, records, gradients=(), keys=None):
    """Write `records`, or where there are gradients add to them with atomics; copy the index to `keys`."""
    storage, wide = lookup.form.dtypes[0], sum_dtype(lookup)
    if cotangent.dtype != storage and cotangent.dtype != wide:
        cotangent = cotangent.astype(wide)
    cotangent = launch.xp.ascontiguousarray(cotangent)
    found = gather_launch(geometry(lookup), True, _shared_limit(launch), False, bool(gradients))
    assert found is not None  # or there would be an obstacle
    plan = filled_plan(found, lookup.tables, gradients, keys)
    types = c_type(storage), c_type(cotangent.dtype), c_type(index.dtype)
    _run(launch, found, "gather", "contract", types, plan, index, cotangent, records)


def _sum_chunks(launch, shape, index, records, dtype, gradients):
    """Gradients through sums over chunks of the batch, and then over the chunks."""
    accumulate, reduce, partial = chunk_launches(shape)
    if not partial:  # tables without rows
        return
    partials, name = launch.workspace(partial, dtype), c_type(dtype)
    plan = filled_plan(accumulate)
    _run(
        launch,
        accumulate,
        "scatter",
        "accumulate",
        (name, c_type(index.dtype)),
        plan,
        index,
        records,
        partials,
    )
    _run(launch, reduce, "scatter", "reduce", (name,), filled_plan(reduce, (), gradients), partials)


def _sorted_sums(launch, shape, keys, kind, records, dtype, gradients):
    """Gradients through sums over runs of equal ids, which sorting makes of the keys, of dtype `kind`."""
    found, order = segment_launch(shape), launch.sort(keys, shape.rows, kind)
    plan, types = filled_plan(found, (), gradients), (c_type(dtype), c_type(kind))
    for kernel in ("pieces", "segments"):
        _run(launch, found, "scatter", kernel, types, plan, keys, order, records)


def segment_sum(launch: Any, values: AnyArray, index: AnyArray, count: int) -> AnyArray:
    """Sum the real rows of `values` (B, W) that share an index, in a fixed order: (count, W)."""
    batch, width = values.shape
    sums = launch.xp.zeros((count, width), dtype=values.dtype)
    if not batch or not width:
        return sums
    shape = segment_geometry(batch, width, count, values.dtype)
    # The kernels sort the keys, and put partial sums into the rows that they read.
    keys, values = launch.xp.array(index, order="C"), launch.xp.array(values, order="C")
    _sorted_sums(launch, shape, keys, index.dtype, values, values.dtype, (sums[None],))
    return sums


def _run(launch, found: Launch, source, kernel, types, *args):
    launch(source, kernel, types, found.grid, found.block, args, found.shared)


def _index(launch, lookup):
    """The index as the kernels read it: contiguous, of 32 or 64 bits."""
    index = lookup.index
    if c_type(index.dtype) not in _INDICES:
        index = index.astype("int64")
    return launch.xp.ascontiguousarray(index)


# An index of CuPy may have another dtype where nothing looked at it.
_INDICES = frozenset(INDEX.values())


def sum_dtype(lookup: Lookup) -> np.dtype:
    """The dtype that sums run in, and that gradients have."""
    return _DOUBLE if lookup.form.dtypes[0].itemsize == 8 else _SINGLE


_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def _shared_limit(launch):
    return getattr(launch, "shared_limit", SHARED_FLOOR)
