"""The engine for NumPy arrays of real floating dtypes: the compiled kernels of `ketcore.native`.

Kernels look at each index themselves, and read tables of any strides.  Tangents have none of their own: rows
are linear in the leaves of each mode, so that their derivative is a sum of rows, and those with LayerNorm are
left to `ketcore.lookups.on_numpy`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from math import prod
from struct import Struct
from typing import Any

import numpy as np

from ketcore.arrays.namespaces import is_numpy, library_of
from ketcore.arrays.threads import run_chunks
from ketcore.lookups import on_numpy
from ketcore.lookups.lookup import Lookup, made_safe, remade
from ketcore.lookups.segments import scatter, scatter_packed, sum_by_id
from ketcore.native import loader
from ketcore.shapes import offsets

__all__ = ["expand", "missing", "obstacle", "pull", "pull_ids", "pull_packed", "push", "records"]

# As the library numbers them, of dtypes in the order of bytes of this machine.
_KINDS = {"digits": 0, "same": 1, "modes": 2, "terms": 3}
_STORAGE = {np.dtype(name): i for i, name in enumerate(("float32", "float64", "float16"))}
_BFLOAT16 = 3
_FLOAT32 = np.dtype(np.float32)
_INDEX = {
    np.dtype(name): i
    for i, name in enumerate(("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"))
}
_ROWS, _GRADIENTS, _RECORDS, _GROUPS = range(4)
_MAX_ORDER = 32

# For tangents tables are copied up to this share of the numbers of the rows, and up to so many in any case.
_STACKED_SHARE = 4
_FEW_STACKED = 1 << 15

_FAILED = "there is no memory to multiply out the halves of rows"

# The members of LookupNumbers in native/lookup.hpp.
_NUMBERS = Struct("=12qd")

# Up to so many bytes of rows one call does everything, and holds the GIL for some microseconds.
_AT_ONCE_BYTES = 1 << 16

# Up to so many bytes of a cotangent its rows are pulled back in the order of their ids; to read a larger one
# out of its order takes longer than to sum all records afterwards.
_SORTED_BYTES = 1 << 20

# Bytes of rows that one thread writes before it looks whether it should stop.
_CHUNK_BYTES = 1 << 21

# A pull is added up in at most so many parts, each of so many numbers of the cotangent at least; the sums of
# all parts together take a quarter of its room at most.
_MOST_PARTS = 4
_PART_NUMBERS = 1 << 17
_PART_SHARE = 4


def missing() -> str:
    """As `ketcore.lookups.gather.Engine`, like all below."""
    return loader.found()[1]


def obstacle(lookup: Lookup) -> str:
    """Why this lookup cannot run here."""
    if not is_numpy(lookup.tables[0]):
        return f"must be arrays of NumPy, got {library_of(lookup.tables[0])}"
    if loader.found()[0] is None:
        return f"must have the compiled library, got none: {missing()}"
    return _obstacle(lookup.form)


@lru_cache(maxsize=1024)
def _obstacle(form):
    """Of tables in NumPy."""
    dtype, dtypes, shape = form.dtype, form.dtypes, form.shapes[0]
    if _storage(dtype) is None or any(each != dtype for each in dtypes):
        names = ", ".join(dict.fromkeys(map(str, dtypes)))
        return f"must have one real floating dtype, that of rows in {dtype}, got {names}"
    if len(dtypes) > _MAX_ORDER:
        return f"must be at most {_MAX_ORDER}, got {len(dtypes)}"
    return "" if prod(shape) else f"must have entries, got shape {shape}"


def expand(lookup: Lookup, out: np.ndarray | None) -> np.ndarray:
    """Rows (B, columns), into `out` where it is given."""
    if out is None:
        form = lookup.form
        out = np.empty((lookup.index.shape[-1], form.columns), form.dtype)
    elif any(np.may_share_memory(out, each) for each in (*lookup.tables, lookup.index)):
        # Rows are written while others are still to be read.
        out[...] = expand(lookup, None)
        return out
    if not out.size:
        return out
    found = loader.loaded()
    if out.nbytes <= _AT_ONCE_BYTES:
        loader.check(found.expand_at_once(*_described(lookup, out)), _FAILED)
        return out
    with _handle(lookup, out) as handle:
        loader.check(found.prepare(handle), _FAILED)
        _run(found.expand, handle, lookup, lookup.batch)
    return out


def push(lookup: Lookup, tangents: Sequence[np.ndarray]) -> np.ndarray:
    """Tangents of the tables to those of the rows.

    A sum over modes, each with the tangents of its leaves in their place: N R terms of one lookup, of tables
    that are copied, or N lookups of the tables where they lie.
    """
    wide = lookup.dtype.itemsize > 2
    exact = wide or all(tangent.dtype == lookup.dtype for tangent in tangents)
    if lookup.layernorm or not exact:
        return on_numpy.push(lookup, tangents)
    numbers = lookup.batch * lookup.columns
    if _stacked_size(lookup) <= max(numbers // _STACKED_SHARE, _FEW_STACKED):
        return expand(_stacked(lookup, tangents), None)
    # Of more modes and rows the halves, which on NumPy tangents have in common, cost less than all products;
    # and 16-bit rows are rounded once.
    few = len(tangents) <= 2 or numbers * lookup.dtype.itemsize <= _AT_ONCE_BYTES
    return _mode_by_mode(lookup, tangents) if wide and few else on_numpy.push(lookup, tangents)


def _stacked_size(lookup: Lookup) -> int:
    """The numbers of the arrays of `_stacked`."""
    index = lookup.index.size if lookup.kind == "terms" else 0
    return len(lookup.tables) * (index + sum(map(prod, lookup.form.shapes)))


def _stacked(lookup: Lookup, tangents: Sequence[np.ndarray]) -> Lookup:
    """Of N R terms, of which term (n, k) is term k with the tangents of mode n."""
    order, tables = len(tangents), []
    for n, (table, tangent) in enumerate(zip(lookup.tables, tangents, strict=True)):
        stacked = np.empty((order, *table.shape), table.dtype)
        stacked[...] = table
        stacked[n] = tangent
        tables.append(stacked.reshape(order * table.shape[0], *table.shape[1:]))
    index = np.tile(lookup.index, (1, order, 1)) if lookup.kind == "terms" else lookup.index
    return remade(lookup, tables=tables, index=index, records=None)


def _mode_by_mode(lookup: Lookup, tangents: Sequence[np.ndarray]) -> np.ndarray:
    """The sum over modes, row by row in pieces that a cache holds."""
    form, tables = lookup.form, lookup.tables
    tangents = [tangent.astype(form.dtype, copy=False) for tangent in tangents]
    found = np.empty((lookup.batch, form.columns), form.dtype)

    def work(start, stop):
        total, index, rows = found[start:stop], lookup.index[..., start:stop], None
        for n, tangent in enumerate(tangents):
            own = Lookup((*tables[:n], tangent, *tables[n + 1 :]), index, lookup.checked, form)
            if n == 0:
                expand(own, total)
            else:
                rows = expand(own, rows)
                total += rows

    run_chunks(work, lookup.batch, _rows_of_chunk(lookup))
    return found


def pull(lookup: Lookup, cotangent: np.ndarray, deterministic: bool) -> tuple[np.ndarray, ...]:
    """The cotangent of rows back to the tables."""
    dtype = _sums_dtype(lookup)
    size, places = _places(lookup.form.shapes, dtype.itemsize)
    found = np.zeros((size,), dtype)
    if cotangent.size and not _pulled(lookup, cotangent, found):
        values = records(lookup, cotangent)
        pieces = [values[:, :, start:stop] for start, stop in pairwise(offsets(lookup.widths))]
        return scatter(np, made_safe(np, lookup)[0], pieces)
    return tuple([np.ndarray(shape, dtype, found, start, strides) for start, shape, strides in places])


@lru_cache(maxsize=1024)
def _places(shapes, itemsize):
    """The numbers in gradients (t_n, R, q_n) that lie end to end, and where each lies as (R, t_n, q_n).

    That is the byte where it begins, its shape and its strides.
    """
    size, places = 0, []
    for rank, length, width in shapes:
        strides = width * itemsize, rank * width * itemsize, itemsize
        places.append((size * itemsize, (rank, length, width), strides))
        size += rank * length * width
    return size, tuple(places)


def _pulled(lookup, cotangent, found):
    """Add up gradients (t_n, R, q_n), end to end; False where records summed by index serve better."""
    native, cotangent = loader.loaded(), _summable(lookup, cotangent)
    if cotangent.nbytes <= _AT_ONCE_BYTES:
        loader.check(native.pull_at_once(*_described(lookup, cotangent, _GRADIENTS, found)), _FAILED)
        return True
    with _handle(lookup, cotangent, _GRADIENTS, found) as handle:
        parts = native.pull_begin(handle, _MOST_PARTS, _PART_NUMBERS, _PART_SHARE)
        loader.check(parts < 0, _FAILED)
        if parts:
            run_chunks(lambda part, _: loader.check(native.pull_part(handle, part), _FAILED), parts, 1)
            loader.check(native.pull_end(handle), _FAILED)
    return parts > 0


def pull_packed(
    lookup: Lookup, dims: Sequence[int], cotangent: np.ndarray, deterministic: bool
) -> np.ndarray:
    """The cotangent of rows back to packed kets."""
    return scatter_packed(np, made_safe(np, lookup)[0], dims, records(lookup, cotangent))


def records(lookup: Lookup, cotangent: np.ndarray) -> np.ndarray:
    """The cotangent of rows back to the leaves of each row."""
    found = np.empty((lookup.batch, lookup.rank, sum(lookup.widths)), _sums_dtype(lookup))
    if cotangent.size:
        with _handle(lookup, _summable(lookup, cotangent), _RECORDS, found) as handle:
            loader.check(loader.loaded().prepare(handle), _FAILED)
            _run(loader.loaded().pull_records, handle, lookup, lookup.batch)
    return found


def pull_ids(lookup: Lookup, cotangent: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cotangent of rows back to the leaves of each id."""
    native, cotangent = loader.loaded(), _summable(lookup, cotangent)
    if cotangent.nbytes > _SORTED_BYTES:
        return sum_by_id(np, lookup, records(lookup, cotangent))
    ids = np.empty((lookup.batch,), np.int64)
    found = np.empty((lookup.batch, lookup.rank, sum(lookup.widths)), _sums_dtype(lookup))
    if not cotangent.size:
        count = 0
    elif cotangent.nbytes <= _AT_ONCE_BYTES:
        count = native.pull_groups_at_once(*_described(lookup, cotangent, _GROUPS, found, ids))
        loader.check(count < 0, _FAILED)
    else:
        with _handle(lookup, cotangent, _GROUPS, found, ids) as handle:
            loader.check(native.prepare(handle), _FAILED)
            count = native.group_rows(handle)
            loader.check(count < 0, _FAILED)
            _run(native.pull_groups, handle, lookup, count)
    if count == len(ids):
        return ids, found
    # A view of a small part would keep all of the memory.
    ids, found = ids[:count], found[:count]
    return (ids, found) if 2 * count > lookup.batch else (ids.copy(), found.copy())


def _storage(dtype: Any) -> int | None:
    """The number of a dtype of tables, None of one that the library does not read."""
    found = _STORAGE.get(dtype)
    return _BFLOAT16 if found is None and dtype.name == "bfloat16" else found


def _sums_dtype(lookup: Lookup) -> np.dtype[Any]:
    """The accumulation dtype."""
    return _FLOAT32 if lookup.dtype.itemsize == 2 else lookup.dtype


def _summable(lookup: Lookup, cotangent: np.ndarray) -> np.ndarray:
    """The cotangent in a dtype that the library reads beside these tables."""
    if cotangent.dtype == lookup.dtype:
        return cotangent
    return cotangent.astype(_sums_dtype(lookup), copy=False)


def _described(
    lookup: Lookup, rows: np.ndarray, purpose: int = _ROWS, *targets: np.ndarray
) -> tuple[bytes, tuple[Any, ...]]:
    """The lookup as the library reads it, with the rows to write, or their cotangent and where that goes."""
    index = lookup.index
    numbers = _numbers(lookup.form, index.dtype, index.shape[-1], rows.dtype, purpose)
    return numbers, loader.capsules((*lookup.tables, index, rows, *targets))


@lru_cache(maxsize=1024)
def _numbers(form, index_dtype, batch, rows_dtype, purpose):
    """What is told of a lookup besides its arrays."""
    return _NUMBERS.pack(
        len(form.shapes),
        _KINDS[form.kind],
        _storage(form.dtype),
        _INDEX[index_dtype],
        form.shapes[0][0],
        batch,
        form.columns,
        form.split,
        form.bound if form.bound < 1 << 63 else -(1 << 63),
        form.layernorm,
        purpose,
        _storage(rows_dtype),
        form.eps,
    )


@contextmanager
def _handle(lookup: Lookup, rows: np.ndarray, purpose: int = _ROWS, *targets: np.ndarray) -> Iterator[int]:
    """What the library has made of a lookup, for several calls."""
    found = loader.loaded()
    handle = found.lookup(*_described(lookup, rows, purpose, *targets))
    if not handle:
        raise MemoryError(f"a lookup of {len(lookup.tables)} tables cannot be described")
    try:
        yield handle
    finally:
        found.forget(handle)


def _run(function: Callable[[int, int, int], int], handle: int, lookup: Lookup, count: int) -> None:
    """So many rows, or sums of rows, in pieces on threads."""

    def work(start, stop):
        loader.check(function(handle, start, stop), _FAILED)

    run_chunks(work, count, _rows_of_chunk(lookup))


def _rows_of_chunk(lookup: Lookup) -> int:
    return max(1, _CHUNK_BYTES // (lookup.columns * lookup.dtype.itemsize))
