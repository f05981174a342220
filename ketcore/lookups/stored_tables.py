"""Lookups whose tables are quantized: what a call reads of them is decoded, in one place before engines.

Of a table with many more leaves than the call has rows the leaves are picked first, and the lookup becomes
one of a small table that has a leaf for each row, in their order.  A table with fewer leaves is decoded
whole.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import check_floating
from ketcore.arrays.namespaces import device_of, index_dtype, namespace_of
from ketcore.arrays.quantized import QuantizedArray, decoded, is_quantized, like_of
from ketcore.arrays.quantized_lines import are_few, records_of, rows_of_terms
from ketcore.cuda import launcher
from ketcore.lookups.leaves import PackedTables, chosen_leaves, packed_views
from ketcore.lookups.lookup import Lookup, cut, made_safe, narrowed, remade
from ketcore.shapes import halves_split


def check_stored(
    name: str, tables: Any, others: Sequence[Any] = (), stored: bool = True
) -> tuple[ModuleType, Sequence[Any], Any, Sequence[AnyArray]]:
    """As `check_floating`, but with `stored` quantized tables stay so; last, arrays of the same kinds."""
    if not stored or type(tables) not in (tuple, list) or not is_quantized(tables):
        xp, found, dtype = check_floating(name, tables, others)
        return xp, found, dtype, found
    xp, kinds, dtype = check_floating(name, [like_of(table) for table in tables], others)
    pairs = zip(tables, kinds, strict=True)
    found = [table if isinstance(table, QuantizedArray) else kind for table, kind in pairs]
    return xp, found, dtype, kinds


def tables_of_packed(
    xp: ModuleType, packed: Any, dims: tuple[int, ...], widths: tuple[int, ...]
) -> Sequence[AnyArray]:
    """The tables that lie side by side in packed kets, up to these widths; quantized ones as they are."""
    if isinstance(packed, QuantizedArray) or launcher.launcher_for(packed) is not None:
        return PackedTables(packed, dims, widths)
    return cut(packed_views(xp, packed, dims), None if widths == dims else widths)


def with_decoded(lookup: Lookup) -> Lookup:
    """The lookup of arrays that gives the same rows."""
    if lookup.kind == "same":
        return _of_records(lookup)
    few = [are_few(table, lookup.batch, table.shape[1]) for table in lookup.tables]
    if not any(few):
        return _of_tables(lookup, [decoded(table) for table in lookup.tables])
    xp = namespace_of(lookup.like)
    safe, bad = made_safe(xp, lookup)
    places = _places(xp, lookup)
    tables, index = [], []
    for table, chosen, one in zip(lookup.tables, chosen_leaves(safe, safe.index), few, strict=True):
        tables.append(rows_of_terms(table, chosen) if one else decoded(table))
        index.append(xp.broadcast_to(places, tuple(chosen.shape)) if one else chosen)
    kind, stacked = "terms" if lookup.kind == "terms" else "modes", _marked(xp, xp.stack(index), bad)
    return _of_tables(lookup, tables, index=stacked, kind=kind, bound=0, checked=bad is None)


def all_decoded(lookup: Lookup) -> Lookup:
    """The lookup with all its tables decoded."""
    if lookup.kind == "same":
        return _of_packed(lookup, decoded(lookup.records))
    return _of_tables(lookup, [decoded(table) for table in lookup.tables])


def _of_tables(lookup, tables, **changes):
    tables = narrowed(tables, lookup.columns)
    split = halves_split(tuple([table.shape[2] for table in tables]))
    return remade(lookup, tables=tables, split=split, **changes)


def _of_records(lookup):
    """Of packed kets."""
    packed: Any = lookup.records
    if not are_few(packed, lookup.batch, packed.shape[0]):
        return all_decoded(lookup)
    xp = namespace_of(lookup.like)
    safe, bad = made_safe(xp, lookup)
    index = _marked(xp, _places(xp, lookup), bad)
    changes = {"index": index, "bound": lookup.batch, "checked": bad is None}
    return _of_packed(lookup, records_of(packed, safe.index), **changes)


def _of_packed(lookup, packed, **changes):
    parts: Any = lookup.tables
    tables = tables_of_packed(namespace_of(packed), packed, parts.dims, parts.widths)
    records = packed if parts.dims == parts.widths else None
    return remade(lookup, tables=tables, records=records, **changes)


def _places(xp, lookup):
    """The numbers of the rows (B,)."""
    return xp.arange(lookup.batch, dtype=index_dtype(xp), device=device_of(lookup.index))


def _marked(xp, index, bad):
    """An index (..., B) with -1 in the rows of the mask."""
    return index if bad is None else xp.where(bad, xp.full_like(index, -1), index)
