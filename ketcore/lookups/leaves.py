"""Leaves: what each row picks from the tables.  The one place that reads a leaf of an array.

Two forms are read: tables (R, t_n, q_n), and packed kets (t, R, sum q_n), where the record of a word is one
piece of memory.  A new form of storage is read here; what reads tables by itself, kernels and half tables
(`ketcore.lookups.half_tables`), says that it cannot, in `obstacle` and `pay`.

Letters: N order, R rank, b rows, t_n and q_n rows and columns of table n.
"""

from collections.abc import Sequence
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.elementary import as_dtype, permuted, reshaped
from ketcore.arrays.namespaces import accumulation_dtype, device_of, is_numpy, namespace_of
from ketcore.lookups.digits import split_digits
from ketcore.lookups.lookup import Lookup, cut
from ketcore.shapes import offsets
from ketcore.tracing import kept


def leaves(
    xp: ModuleType, lookup: Lookup, tables: Sequence[AnyArray], start: int, stop: int
) -> list[AnyArray]:
    """The leaves of rows start..stop-1 in the accumulation dtype: N arrays (q_n, b, R).

    `tables` are those of the lookup, or their tangents.
    """
    index = lookup.index[..., start:stop]
    if is_numpy(lookup.records) and tables is lookup.tables:
        return _of_records(lookup, index)
    dtype = accumulation_dtype(xp, lookup.dtype)
    if lookup.kind == "terms":
        picked = [_of_terms(xp, table, index[n, ...]) for n, table in enumerate(tables)]
    else:
        pairs = zip(tables, chosen_leaves(lookup, index), strict=True)
        picked = [_of_rows(xp, table, chosen) for table, chosen in pairs]
    return [as_dtype(xp, leaf, dtype) for leaf in picked]


def level_leaves(
    xp: ModuleType, lookup: Lookup, start: int, stop: int
) -> tuple[Sequence[AnyArray], list[AnyArray | None] | None]:
    """`leaves` of rows at one level and their shifts, as `scale.level`.

    Two leaves have no product but the result, and with LayerNorm a node has a scale of its own.
    """
    picked = leaves(xp, lookup, lookup.tables, start, stop)
    return (picked, None) if lookup.layernorm or len(picked) < 3 else scale.level(picked, 0)


def packed_views(xp: ModuleType, packed: AnyArray, widths: Sequence[int]) -> tuple[AnyArray, ...]:
    """The tables (R, t, q_n) that lie side by side in `packed` (t, R, sum q_n)."""
    ends, terms_first = offsets(widths), permuted(xp, packed, (1, 0, 2))
    return tuple([terms_first[:, :, start:stop] for start, stop in pairwise(ends)])


class PackedTables(Sequence[AnyArray]):
    """The tables that lie side by side in packed kets, as views that are made once somebody asks for one.

    CuPy takes a microsecond for each step to a view; where a table begins its kernels know without them.

    Attributes
    ----------
    packed : array, (t, R, sum dims)
        The records.
    dims : tuple of N ints
        How long each leaf is.
    widths : tuple of N ints
        How much of it belongs to its table.
    """

    def __init__(self, packed: AnyArray, dims: tuple[int, ...], widths: tuple[int, ...]):
        self.packed, self.dims, self.widths = packed, dims, widths
        self._views: Sequence[AnyArray] | None = None

    @property
    def places(self) -> tuple[int, ...]:
        """Where in a record each leaf begins."""
        return _places(self.dims)

    def __len__(self) -> int:
        return len(self.widths)

    def __getitem__(self, n: Any) -> Any:
        if self._views is None:
            whole = packed_views(namespace_of(self.packed), self.packed, self.dims)
            self._views = cut(whole, self.widths)
        return self._views[n]


@kept(128)
def _places(dims):
    return offsets(dims)[:-1]


def table_strides(tables: Sequence[AnyArray]) -> tuple[tuple[int, int, int], ...]:
    """The strides of tables (R, t_n, q_n) in bytes."""
    if type(tables) is not PackedTables:
        return tuple([table.strides for table in tables])
    word, term, entry = tables.packed.strides
    return ((term, word, entry),) * len(tables)


def chosen_leaves(lookup: Lookup, index: AnyArray) -> Sequence[AnyArray]:
    """The index of the leaf of each mode: (b,), or (R, b) of kind "terms"."""
    if lookup.kind == "digits":
        return split_digits(index, [table.shape[1] for table in lookup.tables])
    return [index if lookup.kind == "same" else index[n, ...] for n in range(len(lookup.tables))]


def table_rows(xp: ModuleType, table: AnyArray, index: AnyArray) -> AnyArray:
    """(R, b, q): the rows of every term."""
    # The fastest of NumPy is its `take`, which would copy a table that is not contiguous.
    if is_numpy(table):
        return table.take(index, axis=1) if table.flags.c_contiguous else table[:, index]
    return xp.take(table, index, axis=1)


def flat_index(xp: ModuleType, chosen: AnyArray, length: int) -> AnyArray:
    """Positions of (term, index) in a table whose terms are laid end to end."""
    terms = xp.arange(chosen.shape[0], dtype=chosen.dtype, device=device_of(chosen))
    return reshaped(xp, terms[:, None] * length + chosen, (-1,))


def _of_rows(xp, table, index):
    """Leaves (q, b, R) of one table by an index (b,), on NumPy in C order, in which products are fast."""
    if not is_numpy(table):
        return xp.permute_dims(table_rows(xp, table, index), (2, 1, 0))
    # `take` copies a table that is not contiguous, which for a short one is less than to turn what it finds.
    if 8 * table.shape[1] <= len(index):
        return table.transpose(2, 1, 0).take(index, axis=1)
    return np.ascontiguousarray(table_rows(np, table, index).transpose(2, 1, 0))


def _of_terms(xp, table, chosen):
    """Leaves (q, b, R) of one table by an index (R, b) of their own per term."""
    rank, length, width = table.shape
    flat = reshaped(xp, table, (rank * length, width))
    picked = xp.take(flat, flat_index(xp, chosen, length), axis=0)
    return permuted(xp, reshaped(xp, picked, (*chosen.shape, width)), (2, 1, 0))


def _of_records(lookup, index):
    """Leaves of kind "same" on NumPy: one contiguous record a word is read once."""
    dtype = accumulation_dtype(np, lookup.dtype)
    words = as_dtype(np, lookup.records.take(index, axis=0), dtype)
    columns = np.ascontiguousarray(words.transpose(2, 0, 1))
    return [columns[start:stop] for start, stop in pairwise(offsets(lookup.widths))]
