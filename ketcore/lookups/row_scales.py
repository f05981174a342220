"""Rows of a lookup times one number each, and the derivatives: the row scale of rows, kets and `gather_kron`.

    y_b = s_b x_b                of rows x_b of a lookup
    of x_b        s_b c_b        for the cotangent c of y
    of s_b        sum of c_b x_b; where ids pick the numbers, those of one id are added up

A lookup of rows that are scaled has the accumulation dtype of the result as its own, so that 16-bit storage
is summed and scaled in float32, and rounded once.

Letters: B rows of the call, ... its batch.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import check_like, check_optional, check_out
from ketcore.arrays.conversions import promoted
from ketcore.arrays.elementary import as_dtype, flattened, reshaped
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, is_complex, is_numpy, namespace
from ketcore.arrays.threads import run_chunks
from ketcore.lookups.gather import as_rows, expanded, gather, gather_jvp
from ketcore.lookups.lookup import Lookup, made_safe, masked, remade
from ketcore.lookups.segments import segment_sum, sum_by_id
from ketcore.lookups.stored_tables import all_decoded
from ketcore.shapes import check_addressable

# Numbers of rows that one thread scales or sums at once: what is made on the way stays in the cache.
_CHUNK_NUMBERS = 1 << 16


class RowScale(NamedTuple):
    """The scale of the rows of a call, checked.

    Attributes
    ----------
    given : array, (rows,) or (...)
        As it was given, floating.
    by_id : bool
        Whether ids pick from it; else it has a number for each row of the call.
    dtype : dtype
        Of the rows.
    """

    given: AnyArray
    by_id: bool
    dtype: Any


def beside_tables(row_scale: Any) -> tuple[Any, ...]:
    """What `check_floating` of the tables is told of a scale."""
    return () if row_scale is None else (row_scale,)


def check_row_scale(
    name: str, tables: Sequence[AnyArray], dtype: Any, row_scale: Any, by_id: bool
) -> tuple[RowScale | None, Any]:
    """The scale, but for its shape, beside tables called `name` of this promoted dtype; None for None.

    Beside it the dtype of the lookup.
    """
    given = check_optional("row_scale", row_scale, tables)
    if given is None:
        return None, dtype
    arrays, names = (*tables, given), f"{name} and row_scale"
    xp = namespace(names, arrays)
    found = RowScale(given, by_id, promoted(names, arrays))
    wide = accumulation_dtype(xp, found.dtype)
    # NumPy's and CuPy's float32 is no dtype itself.
    return found, found.dtype if found.dtype == wide else xp.empty((0,), dtype=wide).dtype


def scaled_lookup(xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], scale: RowScale | None) -> Lookup:
    """The lookup, once the scale is known to have the right shape; ValueError where it has not.

    Tables of other dtypes are cast to that of the lookup, for the sake of engines that take no other, where
    they hold no more numbers than the rows.
    """
    if scale is None:
        return lookup
    shape = (lookup.bound,) if scale.by_id else batch
    if tuple(scale.given.shape) != shape:
        rule = f"have shape {shape}, one number for each {'row' if scale.by_id else 'entry of the batch'}"
        raise ValueError(f"row_scale must {rule}, got {tuple(scale.given.shape)}")
    form = lookup.form
    others = any(dtype != form.dtype for dtype in form.dtypes) and not is_complex(xp, form.dtype)
    if others and sum(r * t * q for r, t, q in form.shapes) <= lookup.batch * form.columns:
        lookup = all_decoded(lookup) if lookup.stored else lookup
        tables = tuple([as_dtype(xp, table, form.dtype) for table in lookup.tables])
        lookup = remade(lookup, tables=tables, records=None)
    return lookup


def scaled_rows(
    xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], scale: RowScale | None, out: AnyArray | None
) -> AnyArray:
    """Rows (*batch, columns), each times its number, into `out` where it is given and fits."""
    if scale is None:
        return expanded(xp, lookup, batch, out)
    shape = (*batch, lookup.columns)
    check_addressable(shape)
    found = None if out is None else check_out(out, shape, scale.dtype, lookup.like, xp)
    column = _column(xp, lookup, scale, scale.given)
    if found is not None and scale.dtype == lookup.dtype and is_numpy(found):
        # The scale may lie in the memory that rows are written to.
        column = column.copy()
        _times(gather(lookup, found.reshape((lookup.batch, lookup.columns))), column)
        return found
    rows = gather(lookup)
    rows = _times(rows, column) if is_numpy(rows) else rows * column
    rows = reshaped(xp, as_dtype(xp, rows, scale.dtype), shape)
    if found is None:
        return rows
    found[...] = rows
    return found


def scaled_cotangent(
    xp: ModuleType, lookup: Lookup, batch: tuple[int, ...], scale: RowScale | None, cotangent: Any
) -> tuple[AnyArray, AnyArray | None]:
    """The cotangent (B, columns) of the rows before they are scaled, and those (B,) of their scales."""
    cotangent = as_rows(xp, lookup, batch, cotangent)
    if scale is None:
        return cotangent, None
    cotangent = as_dtype(xp, cotangent, lookup.dtype)
    safe, bad = made_safe(xp, lookup)
    rows, column = gather(safe), _column(xp, lookup, scale, scale.given)
    pulled, to_scale = (_numpy_pulled if is_numpy(rows) else _pulled)(xp, cotangent, column, rows)
    return pulled, masked(xp, to_scale, bad)


def scale_gradient(xp: ModuleType, lookup: Lookup, scale: RowScale, to_scale: Any) -> AnyArray:
    """The gradient of the scale, in its shape and dtype, of cotangents (B,) of the scales of rows."""
    if scale.by_id:
        safe, _ = made_safe(xp, lookup)
        to_scale = segment_sum(xp, reshaped(xp, to_scale, (-1, 1)), safe.index, lookup.bound)
    return cast_gradient(xp, reshaped(xp, to_scale, tuple(scale.given.shape)), scale.given)


def sparse_scale_gradient(xp: ModuleType, lookup: Lookup, scale: RowScale, to_scale: Any) -> AnyArray:
    """`scale_gradient` of the unique valid ids (U,) alone, ascending, of kind "same"."""
    _, found = sum_by_id(xp, lookup, reshaped(xp, to_scale, (-1, 1, 1)))
    return cast_gradient(xp, reshaped(xp, found, (-1,)), scale.given)


def scaled_tangent(
    xp: ModuleType,
    lookup: Lookup,
    batch: tuple[int, ...],
    scale: RowScale | None,
    tangents: Sequence[AnyArray],
    tangent: Any,
) -> AnyArray:
    """The derivative of scaled rows along tangents of the tables and one of the scale, None for zero."""
    shape = (*batch, lookup.columns)
    if scale is None:
        if tangent is not None:
            raise ValueError("row_scale_tangent must be None where row_scale is, got one")
        return reshaped(xp, gather_jvp(lookup, tangents), shape)
    if tangent is not None:
        tangent = check_like("row_scale_tangent", tangent, scale.given.shape, xp, scale.given, scale.dtype)
    found = gather_jvp(lookup, tangents) * _column(xp, lookup, scale, scale.given)
    if tangent is not None:
        found = found + gather(lookup) * _column(xp, lookup, scale, tangent)
    return reshaped(xp, as_dtype(xp, found, scale.dtype), shape)


def _column(xp, lookup, scale, values):
    """The number of each row among `values`, of the shape of the scale: (B, 1) in the dtype of the lookup."""
    if scale.by_id:
        values = xp.take(values, made_safe(xp, lookup)[0].index, axis=0)
    return reshaped(xp, flattened(xp, as_dtype(xp, values, lookup.dtype)), (lookup.batch, 1))


def _times(rows, column):
    """Rows (B, columns) of NumPy times numbers (B, 1), in place."""

    def work(start, stop):
        rows[start:stop] *= column[start:stop]

    run_chunks(work, len(rows), max(1, _CHUNK_NUMBERS // rows.shape[1]))
    return rows


def _pulled(xp, cotangent, column, rows):
    """The cotangent (B, columns) times numbers (B, 1), and the sums (B,) of its products with the rows."""
    return cotangent * column, xp.sum(cotangent * rows, axis=1, dtype=rows.dtype)


def _numpy_pulled(xp, cotangent, column, rows):
    """`_pulled` of NumPy arrays, in the memory of the rows."""
    sums = np.empty((len(rows),), rows.dtype)

    def work(start, stop):
        np.sum(cotangent[start:stop] * rows[start:stop], axis=1, out=sums[start:stop])
        np.multiply(cotangent[start:stop], column[start:stop], out=rows[start:stop])

    run_chunks(work, len(rows), max(1, _CHUNK_NUMBERS // rows.shape[1]))
    return rows, sums
