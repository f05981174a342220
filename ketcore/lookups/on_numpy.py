"""The engine for NumPy arrays: pieces of rows that fit the cache, on threads, multiplied into the output.

A batch that is long enough picks from half tables (`ketcore.lookups.half_tables`); in others each row has
halves of its own.  Both are products left (b, kept, R) times right (b, R, qb).  Derivatives are the array
code of `ketcore.lookups.on_arrays`, piece by piece.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np

from ketcore.arrays.namespaces import accumulation_dtype, is_numpy, library_of
from ketcore.arrays.threads import run_chunks
from ketcore.lookups import half_tables
from ketcore.lookups.halves import halves
from ketcore.lookups.leaves import level_leaves
from ketcore.lookups.lookup import Lookup, finished, made_safe, masked
from ketcore.lookups.on_arrays import row_cotangents, row_tangents
from ketcore.lookups.segments import scatter_packed, scatter_records, sum_by_id
from ketcore.shapes import offsets
from ketcore.tracing import kept

# Bytes that a chunk of rows may fill, so that it stays in a core's second-level cache.
_CHUNK_BYTES = 1 << 19

# Multiplications in one matrix product above which OpenBLAS spreads it over threads of its own.
_BLAS_THREADS_ABOVE = 1 << 18

# Lines of an outer product up to which it is no matter that `np.multiply` takes longer for each than
# `np.einsum`, which takes microseconds to begin.
_FEW_LINES = 1 << 8


def missing() -> str:
    """As `ketcore.lookups.gather.Engine`, like all below."""
    return ""


def obstacle(lookup: Lookup) -> str:
    """Why this lookup cannot run here."""
    table = lookup.tables[0]
    return "" if is_numpy(table) else f"must be arrays of NumPy, got {library_of(table)}"


def expand(lookup: Lookup, out: np.ndarray | None) -> np.ndarray:
    """Rows (B, columns), into `out` where it is given."""
    lookup, bad = made_safe(np, lookup)
    if out is None:
        out = np.empty((lookup.batch, lookup.columns), lookup.dtype)
    source = half_tables.source(lookup) if half_tables.pay(lookup) else _row_source(lookup)

    def work(start, stop):
        left, right, bias = source(start, stop)
        _write(left, right, bias, out[start:stop])

    _run(work, lookup)
    return finished(np, out, bad, lookup.dtype)


def push(lookup: Lookup, tangents: Sequence[np.ndarray]) -> np.ndarray:
    """Tangents of the tables to those of the rows."""
    lookup, bad = made_safe(np, lookup)
    out = np.empty((lookup.batch, lookup.columns), lookup.dtype)

    def work(start, stop):
        out[start:stop] = row_tangents(np, lookup, tangents, start, stop)

    _run(work, lookup)
    return finished(np, out, bad, lookup.dtype)


def pull(lookup: Lookup, cotangent: np.ndarray, deterministic: bool) -> tuple[np.ndarray, ...]:
    """The cotangent of rows back to the tables."""
    safe, bad = made_safe(np, lookup)
    if half_tables.pay(safe):
        cotangent = cotangent.astype(accumulation_dtype(np, safe.dtype), copy=False)
        return half_tables.contract(safe, masked(np, cotangent, bad), _run)
    return scatter_records(safe, _records(safe, bad, cotangent))


def pull_packed(
    lookup: Lookup, dims: Sequence[int], cotangent: np.ndarray, deterministic: bool
) -> np.ndarray:
    """The cotangent of rows back to packed kets."""
    safe, bad = made_safe(np, lookup)
    return scatter_packed(np, safe, dims, _records(safe, bad, cotangent))


def pull_ids(lookup: Lookup, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cotangent of rows back to the leaves of each id."""
    return sum_by_id(np, lookup, records(lookup, cotangent))


def records(lookup: Lookup, cotangent: np.ndarray) -> np.ndarray:
    """The cotangent of rows back to the leaves of each row."""
    return _records(*made_safe(np, lookup), cotangent)


def _records(lookup, bad, cotangent):
    """The cotangents of all chosen leaves, (B, R, sum q_n)."""
    dtype = accumulation_dtype(np, lookup.dtype)
    ends = offsets(lookup.widths)
    found = np.empty((lookup.batch, lookup.rank, ends[-1]), dtype)

    def work(start, stop):
        pieces = row_cotangents(np, lookup, cotangent, bad, start, stop)
        for (low, high), piece in zip(pairwise(ends), pieces, strict=True):
            found[start:stop, :, low:high] = piece.transpose(1, 2, 0)

    _run(work, lookup)
    return found


def _row_source(lookup):
    """A function of (start, stop): left (b, kept, R), right (b, R, qb) and bias of these rows."""

    def source(start, stop):
        picked, _ = level_leaves(np, lookup, start, stop)
        left, right, bias = halves(np, picked, lookup.split, lookup.node_eps)
        return left[: lookup.kept].transpose(1, 0, 2), right.transpose(1, 2, 0), bias

    return source


def _write(left, right, bias, out):
    """The product of halves left (b, kept, R) and right (b, R, qb), cropped, into `out` (b, columns)."""
    shape = (*left.shape[:2], right.shape[2])
    entries = shape[1] * shape[2]
    in_place = entries == out.shape[1] and out.dtype == left.dtype
    block = out.reshape(shape) if in_place else np.empty(shape, left.dtype)
    _multiply(left, right, block)
    if bias is not None:
        block += bias[:, None, None]
    if not in_place:
        out[...] = block.reshape(shape[0], entries)[:, : out.shape[1]]


def _multiply(left, right, out):
    if left.shape[2] == 1:
        # BLAS is several times slower than a plain outer product where the inner size is one.
        if left.shape[0] * left.shape[1] < _FEW_LINES:
            np.multiply(left, right, out=out)
            return
        np.einsum("ba,bc->bac", left[:, :, 0], np.ascontiguousarray(right[:, 0]), out=out)
    else:
        np.matmul(left, right, out=out)


def _run(work, lookup):
    """Call `work(start, stop)` over the rows, in chunks sized by the output or by the halves of all terms."""
    itemsize = np.dtype(accumulation_dtype(np, lookup.dtype)).itemsize
    chunk, alone = _chunk(lookup.widths, lookup.split, lookup.columns, lookup.rank, itemsize)
    run_chunks(work, lookup.batch, chunk, alone=alone)


@kept(1024)
def _chunk(widths, split, columns, rank, itemsize):
    """The rows of a chunk, and whether BLAS spreads the product of one of them over threads."""
    width = prod(widths[split:])
    kept_width = -(-columns // width)
    entries = max(kept_width * width, rank * (kept_width + width))
    chunk = max(1, _CHUNK_BYTES // max(1, entries * itemsize))
    return chunk, kept_width * width * rank > _BLAS_THREADS_ABOVE
