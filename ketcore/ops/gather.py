"""Expand a `Lookup` into rows, and pull cotangents back: the core of rows, kets and `gather_kron`.

One visible choice per function: the CUDA kernel where there is one for these arrays, chunks that fit the
cache on NumPy, array code of any namespace otherwise.  All of them are checked against one another.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ketcore import backend, scale
from ketcore.backend import Array, accumulation_dtype, is_numpy, namespace_of
from ketcore.display import check_addressable
from ketcore.ops import half_tables, kernels
from ketcore.ops.checks import check_like, check_out
from ketcore.ops.halves import expand, halves, halves_jvp, leaf_cotangents
from ketcore.ops.lookup import Lookup, leaves, made_safe, packed_views, record_leaves, widened_records
from ketcore.ops.segments import scatter, segment_sum
from ketcore.shapes import offsets
from ketcore.threads import run_chunks

# Bytes that a chunk of rows may fill, so that it stays in a core's second-level cache.
_CHUNK_BYTES = 1 << 19

# Multiplications in one matrix product above which OpenBLAS spreads it over threads of its own.
_BLAS_THREADS_ABOVE = 1 << 18


def expanded(xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], out: Array | None) -> Array:
    """Rows (*batch, columns) of a lookup, into `out` where it is given and fits."""
    shape = (*batch, lookup.columns)
    if out is None:
        check_addressable(shape)
        return xp.reshape(gather(lookup), shape)
    out = check_out(out, shape, lookup.dtype, lookup.tables[0], xp)
    gather(lookup, out.reshape((lookup.batch, lookup.columns)))
    return out


def as_rows(xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], cotangent: Any) -> Array:
    """The cotangent (*batch, columns) of a lookup, checked, as (B, columns)."""
    shape = (*batch, lookup.columns)
    cotangent = check_like("cotangent", cotangent, shape, xp, lookup.tables[0], lookup.dtype)
    return xp.reshape(cotangent, (lookup.batch, lookup.columns))


def gather(lookup: Lookup, out: Array | None = None) -> Array:
    """Rows (B, columns) in `lookup.dtype`, into `out` where it is given.  A bad index gives a row of NaN."""
    launch = backend.launcher(lookup.tables[0])
    if launch is not None and kernels.supports(lookup):
        with backend.on_device_of(lookup.tables[0]):
            return kernels.expand(launch, lookup, out)
    xp = namespace_of(lookup.tables[0])
    safe, bad = made_safe(xp, lookup)
    if is_numpy(lookup.tables[0]):
        return _gather_numpy(safe, bad, out)
    left, right, bias = halves(xp, leaves(xp, safe, safe.tables, 0, safe.batch), safe.split, safe.node_eps)
    result = _finished(xp, expand(xp, left, right, bias, safe.kept, safe.columns), bad, safe.dtype)
    if out is None:
        return result
    out[...] = result
    return out


def gather_jvp(lookup: Lookup, tangents: Sequence[Array]) -> Array:
    """The derivative (B, columns) of `gather` along `tangents` of the tables."""
    check_addressable((lookup.batch, lookup.columns))
    xp = namespace_of(lookup.tables[0])
    safe, bad = made_safe(xp, lookup)

    def block(start, stop):
        picked, shifts = _level(safe, leaves(xp, safe, safe.tables, start, stop))
        moving = scale.shifted(leaves(xp, safe, tangents, start, stop), shifts)
        return expand(xp, *halves_jvp(xp, picked, moving, safe.split, safe.node_eps), safe.kept, safe.columns)

    if not is_numpy(lookup.tables[0]):
        return _finished(xp, block(0, safe.batch), bad, safe.dtype)
    out = np.empty((safe.batch, safe.columns), safe.dtype)

    def work(start, stop):
        out[start:stop] = block(start, stop)

    _run(work, safe)
    return _finished(xp, out, bad, safe.dtype)


def gather_vjp(lookup: Lookup, cotangent: Array, deterministic: bool) -> tuple[Array, ...]:
    """Pull `cotangent` (B, columns) back to the tables: N arrays (R, t_n, q_n) in the accumulation dtype."""
    launch = backend.launcher(lookup.tables[0])
    xp = namespace_of(lookup.tables[0])
    dtype = accumulation_dtype(xp, lookup.dtype)
    if launch is not None and kernels.supports(lookup):
        with backend.on_device_of(lookup.tables[0]):
            gradients = tuple(xp.zeros(table.shape, dtype=dtype) for table in lookup.tables)
            kernels.contract(launch, lookup, cotangent, deterministic, gradients)
        return gradients
    if is_numpy(cotangent) and half_tables.pay(lookup):
        safe, bad = made_safe(xp, lookup)
        cotangent = cotangent.astype(dtype, copy=False)
        if bad is not None:
            cotangent = np.where(bad[:, None], 0, cotangent)
        return half_tables.contract(safe, cotangent, _run)
    records = gather_records(lookup, cotangent)
    starts = offsets(lookup.widths)
    pieces = [records[..., start:stop] for start, stop in pairwise(starts)]
    return scatter(xp, made_safe(xp, lookup)[0], pieces)


def packed_vjp(
    lookup: Lookup, leaves: Array, dims: Sequence[int], cotangent: Array, deterministic: bool
) -> Array:
    """`gather_vjp` of kind "same", packed as the leaves (t, R, sum dims) are, in the accumulation dtype."""
    launch = backend.launcher(leaves)
    xp = namespace_of(leaves)
    if launch is not None and kernels.supports(lookup):
        with backend.on_device_of(leaves):
            packed = xp.zeros(leaves.shape, dtype=accumulation_dtype(xp, lookup.dtype))
            # Zero stays the gradient of what was cut from the tables.
            gradients = tuple(
                view[:, :, :width]
                for view, width in zip(packed_views(xp, packed, dims), lookup.widths, strict=True)
            )
            kernels.contract(launch, lookup, cotangent, deterministic, gradients)
        return packed
    records = widened_records(xp, gather_records(lookup, cotangent), lookup.widths, dims)
    words, rank, width = leaves.shape
    ids = made_safe(xp, lookup)[0].index
    sums = segment_sum(xp, xp.reshape(records, (lookup.batch, rank * width)), ids, words)
    return xp.reshape(sums, (words, rank, width))


def gather_records(lookup: Lookup, cotangent: Array) -> Array:
    """Pull `cotangent` (B, columns) back to each row's leaves: (B, R, sum q_n) in the accumulation dtype."""
    launch = backend.launcher(lookup.tables[0])
    if launch is not None and kernels.supports(lookup):
        with backend.on_device_of(lookup.tables[0]):
            return kernels.leaf_cotangents(launch, lookup, cotangent)
    xp = namespace_of(lookup.tables[0])
    dtype = accumulation_dtype(xp, lookup.dtype)
    safe, bad = made_safe(xp, lookup)

    def block(start, stop):
        part = xp.astype(cotangent[start:stop, ...], dtype, copy=False)
        if bad is not None:
            part = xp.where(bad[start:stop, None], xp.zeros_like(part), part)
        picked, shifts = _level(safe, _leaves(xp, safe, start, stop))
        return scale.shifted(leaf_cotangents(xp, picked, safe.split, safe.node_eps, part), shifts)

    if not is_numpy(lookup.tables[0]):
        return xp.permute_dims(xp.concat(block(0, safe.batch), axis=0), (1, 2, 0))
    records = np.empty((safe.batch, safe.rank, sum(safe.widths)), dtype)

    def work(start, stop):
        for piece, found in zip(
            np.split(records[start:stop], offsets(safe.widths)[1:-1], axis=2), block(start, stop), strict=True
        ):
            piece[...] = found.transpose(1, 2, 0)

    _run(work, safe)
    return records


def _leaves(xp, lookup, start, stop):
    if lookup.records is not None and is_numpy(lookup.records):
        return record_leaves(lookup, start, stop)
    return leaves(xp, lookup, lookup.tables, start, stop)


def _level(lookup, picked):
    """Leaves (q_n, b, R) of rows at one level, as `scale.level`; two of them have no product but the result.

    With LayerNorm a node has a scale of its own.
    """
    return (picked, None) if lookup.layernorm or len(picked) < 3 else scale.level(picked, 0)


def _gather_numpy(lookup, bad, out):
    if out is None:
        out = np.empty((lookup.batch, lookup.columns), lookup.dtype)
    source = half_tables.source(lookup) if half_tables.pay(lookup) else _row_source(lookup)

    def work(start, stop):
        left, right, bias = source(start, stop)
        _write(left, right, bias, out[start:stop])

    _run(work, lookup)
    return _finished(np, out, bad, lookup.dtype)


def _row_source(lookup):
    """A function of (start, stop): left (b, kept, R), right (b, R, qb) and bias of these rows."""

    def source(start, stop):
        picked, _ = _level(lookup, _leaves(np, lookup, start, stop))
        left, right, bias = halves(np, picked, lookup.split, lookup.node_eps)
        return left[: lookup.kept].transpose(1, 0, 2), right.transpose(1, 2, 0), bias

    return source


def _write(left, right, bias, out):
    """The product of halves left (b, kept, R) and right (b, R, qb), cropped, into `out` (b, columns)."""
    batch, kept, _ = left.shape
    width = right.shape[2]
    in_place = kept * width == out.shape[1] and out.dtype == left.dtype
    block = out.reshape(batch, kept, width) if in_place else np.empty((batch, kept, width), left.dtype)
    _multiply(left, right, block)
    if bias is not None:
        block += bias[:, None, None]
    if not in_place:
        out[...] = block.reshape(batch, kept * width)[:, : out.shape[1]]


def _multiply(left, right, out):
    if left.shape[2] == 1:
        # BLAS is several times slower than a plain outer product where the inner size is one.
        np.einsum("ba,bc->bac", left[:, :, 0], np.ascontiguousarray(right[:, 0]), out=out)
    else:
        np.matmul(left, right, out=out)


def _finished(xp, rows, bad, dtype):
    """Rows in the output dtype, NaN where the index was bad."""
    rows = xp.astype(rows, dtype, copy=False)
    if bad is None:
        return rows
    if is_numpy(rows):
        rows[bad] = np.nan
        return rows
    return xp.where(bad[:, None], xp.full_like(rows, float("nan")), rows)


def _run(work, lookup):
    """Call `work(start, stop)` over the rows, in chunks sized by the output or by the halves of all terms."""
    kept, width = lookup.kept, prod(lookup.widths[lookup.split :])
    itemsize = np.dtype(accumulation_dtype(np, lookup.dtype)).itemsize
    entries = max(kept * width, lookup.rank * (kept + width))
    chunk = max(1, _CHUNK_BYTES // max(1, entries * itemsize))
    run_chunks(work, lookup.batch, chunk, alone=kept * width * lookup.rank > _BLAS_THREADS_ABOVE)
