"""The engine of array code: lookups on arrays of any namespace, all rows at once.

It takes every lookup, NumPy's too, and is what the other engines are checked against.  `row_tangents` and
`row_cotangents` take a range of rows, so that `ketcore.lookups.on_numpy` runs the same code in pieces.
"""

from collections.abc import Sequence
from types import ModuleType

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.elementary import as_dtype
from ketcore.arrays.namespaces import accumulation_dtype, namespace_of
from ketcore.lookups import halves
from ketcore.lookups.leaves import leaves, level_leaves
from ketcore.lookups.lookup import Lookup, finished, made_safe, masked
from ketcore.lookups.segments import scatter, scatter_packed, sum_by_id


def missing() -> str:
    """As `ketcore.lookups.gather.Engine`, like all below."""
    return ""


def obstacle(lookup: Lookup) -> str:
    """Nothing: array code takes every lookup."""
    return ""


def expand(lookup: Lookup, out: AnyArray | None) -> AnyArray:
    """Rows (B, columns), into `out` where it is given."""
    xp = namespace_of(lookup.tables[0])
    safe, bad = made_safe(xp, lookup)
    picked, _ = level_leaves(xp, safe, 0, safe.batch)
    parts = halves.halves(xp, picked, safe.split, safe.node_eps)
    rows = finished(xp, halves.expand(xp, *parts, safe.kept, safe.columns), bad, safe.dtype)
    if out is None:
        return rows
    out[...] = rows
    return out


def push(lookup: Lookup, tangents: Sequence[AnyArray]) -> AnyArray:
    """Tangents of the tables to those of the rows."""
    xp = namespace_of(lookup.tables[0])
    safe, bad = made_safe(xp, lookup)
    return finished(xp, row_tangents(xp, safe, tangents, 0, safe.batch), bad, safe.dtype)


def pull(lookup: Lookup, cotangent: AnyArray, deterministic: bool) -> tuple[AnyArray, ...]:
    """The cotangent of rows back to the tables."""
    xp = namespace_of(lookup.tables[0])
    safe, bad = made_safe(xp, lookup)
    pieces = row_cotangents(xp, safe, cotangent, bad, 0, safe.batch)
    return scatter(xp, safe, [xp.permute_dims(piece, (1, 2, 0)) for piece in pieces])


def pull_packed(lookup: Lookup, dims: Sequence[int], cotangent: AnyArray, deterministic: bool) -> AnyArray:
    """The cotangent of rows back to packed kets."""
    xp = namespace_of(lookup.tables[0])
    return scatter_packed(xp, made_safe(xp, lookup)[0], dims, records(lookup, cotangent))


def pull_ids(lookup: Lookup, cotangent: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The cotangent of rows back to the leaves of each id."""
    return sum_by_id(namespace_of(lookup.tables[0]), lookup, records(lookup, cotangent))


def records(lookup: Lookup, cotangent: AnyArray) -> AnyArray:
    """The cotangent of rows back to the leaves of each row."""
    xp = namespace_of(lookup.tables[0])
    safe, bad = made_safe(xp, lookup)
    pieces = row_cotangents(xp, safe, cotangent, bad, 0, safe.batch)
    return xp.permute_dims(xp.concat(pieces, axis=0), (1, 2, 0))


def row_tangents(
    xp: ModuleType, lookup: Lookup, tangents: Sequence[AnyArray], start: int, stop: int
) -> AnyArray:
    """`push` of rows start..stop-1 of a safe lookup, in the accumulation dtype: (b, columns)."""
    picked, shifts = level_leaves(xp, lookup, start, stop)
    moving = scale.shifted(leaves(xp, lookup, tangents, start, stop), shifts)
    parts = halves.halves_jvp(xp, picked, moving, lookup.split, lookup.node_eps)
    return halves.expand(xp, *parts, lookup.kept, lookup.columns)


def row_cotangents(
    xp: ModuleType, lookup: Lookup, cotangent: AnyArray, bad: AnyArray | None, start: int, stop: int
) -> Sequence[AnyArray]:
    """The cotangent of rows start..stop-1 of a safe lookup back to their leaves: N arrays (q_n, b, R)."""
    part = as_dtype(xp, cotangent[start:stop, ...], accumulation_dtype(xp, lookup.dtype))
    part = masked(xp, part, None if bad is None else bad[start:stop])
    picked, shifts = level_leaves(xp, lookup, start, stop)
    return scale.shifted(halves.leaf_cotangents(xp, picked, lookup.split, lookup.node_eps, part), shifts)
