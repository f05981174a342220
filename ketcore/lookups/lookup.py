"""Which leaf each output row takes from each table: what rows, kets and `gather_kron` have in common.

Letters: N order, R rank, B output rows, t_n and q_n rows and columns of table n.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import check_block, check_table_shapes, is_plain_block, outside, shapes_of
from ketcore.arrays.elementary import as_dtype, chosen, padded
from ketcore.arrays.namespaces import cast_gradient, device_of, index_dtype, is_numpy
from ketcore.arrays.quantized import QuantizedArray, like_of
from ketcore.shapes import halves_split, offsets, reached_dims
from ketcore.tracing import kept


@dataclass(eq=False, slots=True)
class Form:
    """All of a `Lookup` but its arrays and how long its index is.

    `form` gives one object for the same values, so that what engines keep for it is found at once.  Nothing
    writes to one.

    Attributes
    ----------
    array : type
        Of the tables: it keeps dtypes of different libraries apart, some of which refuse to be compared.
    kind : {"digits", "same", "modes", "terms"}
        What the index says:

        - "digits": ids (B,), mode n takes the n-th digit of the id over radices t_n.
        - "same": ids (B,), every mode takes the id itself.
        - "modes": (N, B), an index for each mode.
        - "terms": (N, R, B), one for each mode and term.
    bound : int
        Ids are valid in [0, bound).
    columns : int
        The length of an output row, at most Q.
    layernorm : bool
        Whether the nodes of the tree are normalised.
    eps : float
        What is added to their variances.
    split : int
        Modes [0, split) form the left half; with LayerNorm it is that of the balanced tree.
    dtype : dtype
        Of the output; sums run in its accumulation dtype.
    shapes : tuple of N tuples, (R, t_n, q_n)
        Of the tables.
    dtypes : tuple of N dtypes
        Of the tables.
    widths : tuple of N ints
        q_0, ..., q_{N-1}.
    kept : int
        How many entries of the left half reach into the first `columns` columns.
    """

    array: type
    kind: str
    bound: int
    columns: int
    layernorm: bool
    eps: float
    split: int
    dtype: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    widths: tuple[int, ...]
    kept: int


@kept(1024)
def form(
    array: type,
    kind: str,
    bound: int,
    columns: int,
    layernorm: bool,
    eps: float,
    split: int,
    dtype: Any,
    shapes: tuple[tuple[int, ...], ...],
    dtypes: tuple[Any, ...],
) -> Form:
    """The form of these values."""
    widths = tuple([shape[2] for shape in shapes])
    reached = -(-columns // prod(widths[split:]))
    return Form(array, kind, bound, columns, layernorm, eps, split, dtype, shapes, dtypes, widths, reached)


# Not frozen, which would take two microseconds of every call; nothing writes to one but what it says below.
@dataclass(slots=True)
class Lookup:
    """B rows to expand, each the sum over terms of products of N leaves.

    Attributes
    ----------
    tables : sequence of N arrays, (R, t_n, q_n)
        Of any strides; the views of packed kets may not be made yet.
    index : array of ints
        By the kind; valid in [0, bound), those of "modes" and "terms" in [0, t_n).
    checked : bool
        Whether every index is known to be valid.
    form : Form
        All else; what stands there is an attribute here as well.
    records : array, (t, R, sum q_n), or None
        Of kind "same" the packed array that the tables are, side by side; None where they are only parts of
        one.
    stored : bool
        Whether some of them are quantized, which `gather` alone takes, and decodes.
    geometry : Geometry, or None
        What `ketcore.lookups.kernel_plan` makes of all that is no array, once it is asked.
    """

    tables: Sequence[AnyArray]
    index: AnyArray
    checked: bool
    form: Form
    records: AnyArray | None = None
    stored: bool = False
    geometry: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def like(self) -> AnyArray:
        """An array of the library, the device and the dtype of the first table."""
        return like_of(self.tables[0] if self.records is None else self.records)

    @property
    def kind(self) -> str:
        """As of the form, like the next ones."""
        return self.form.kind

    @property
    def bound(self) -> int:
        """Ids are valid below."""
        return self.form.bound

    @property
    def columns(self) -> int:
        """The length of a row."""
        return self.form.columns

    @property
    def layernorm(self) -> bool:
        """Whether nodes are normalised."""
        return self.form.layernorm

    @property
    def split(self) -> int:
        """The modes of the left half."""
        return self.form.split

    @property
    def dtype(self) -> Any:
        """Of the output."""
        return self.form.dtype

    @property
    def widths(self) -> tuple[int, ...]:
        """q_0, ..., q_{N-1}."""
        return self.form.widths

    @property
    def kept(self) -> int:
        """How many entries of the left half reach into the first `columns` columns."""
        return self.form.kept

    @property
    def batch(self) -> int:
        """B, the number of output rows."""
        return self.index.shape[-1]

    @property
    def rank(self) -> int:
        """R, the number of terms."""
        return self.form.shapes[0][0]

    @property
    def node_eps(self) -> float | None:
        """`eps`, or None without LayerNorm: how `ketcore.lookups.tree` is told."""
        return self.form.eps if self.form.layernorm else None


def make_lookup(
    tables: Sequence[AnyArray],
    index: AnyArray,
    kind: str,
    bound: int,
    checked: bool,
    columns: int,
    layernorm: bool,
    eps: float,
    split: int,
    dtype: Any = None,
    records: AnyArray | None = None,
) -> Lookup:
    """The lookup of these values, as `Lookup` and `Form` name them."""
    dtypes = tuple([table.dtype for table in tables])
    shapes, array = shapes_of(tables), type(like_of(tables[0]))
    found = form(array, kind, bound, columns, layernorm, eps, split, dtype, shapes, dtypes)
    return Lookup(tuple(tables), index, checked, found, records)


def remade(lookup: Lookup, **changes: Any) -> Lookup:
    """The lookup with some values changed, by the names of `make_lookup`."""
    names = ("kind", "bound", "columns", "layernorm", "eps", "split", "dtype")
    given: dict[str, Any] = {name: getattr(lookup.form, name) for name in names}
    given |= {name: getattr(lookup, name) for name in ("tables", "index", "checked", "records")}
    return make_lookup(**given | changes)


def narrowed(tables: Sequence[AnyArray], columns: int) -> tuple[AnyArray, ...]:
    """Tables (R, t_n, q_n), or views of less than half, without what lies beyond the first `columns` entries.

    A smaller cut is left to whoever multiplies them out: whole tables are faster to pick from.
    """
    whole = tuple([table.shape[2] for table in tables])
    widths = narrowed_widths(whole, columns)
    return cut(tables, None if widths == whole else widths)


@kept(1024)
def narrowed_widths(widths: tuple[int, ...], columns: int) -> tuple[int, ...]:
    """The widths of `narrowed` tables; a table is whole, or less than half of it is kept."""
    pairs = zip(reached_dims(widths, columns), widths, strict=True)
    return tuple([reach if 2 * reach <= width else width for reach, width in pairs])


def cut(tables: Sequence[AnyArray], widths: Sequence[int] | None) -> tuple[AnyArray, ...]:
    """Tables (R, t_n, q_n) up to these widths, None for all: as they are, or views; quantized ones whole."""
    if widths is None:
        return tuple(tables)
    pairs = zip(tables, widths, strict=True)
    return tuple([table if table.shape[2] == width else _cut(table, width) for table, width in pairs])


def _cut(table, width):
    """A view; what is quantized stays whole until it is decoded."""
    return table if isinstance(table, QuantizedArray) else table[:, :, :width]


def matrix_form(
    array: type, shapes: tuple[tuple[int, ...], ...], dtypes: tuple[Any, ...], dtype: Any, shape: Any
) -> tuple[Form, tuple[int, ...] | None]:
    """The form of rows of a matrix whose factors have these types; ValueError on wrong shapes.

    Beside it the widths that `cut` is told; None where that is all.  Both are kept between calls, since a few
    rows take hardly longer than to find them.
    """
    if not is_plain_block(shape):
        shape = check_block(shape, _full(shapes))
    return _matrix_form(array, shapes, dtypes, dtype, shape)


@kept(1024)
def _matrix_form(array, shapes, dtypes, dtype, shape):
    rows, columns = check_block(shape, _full(shapes))
    whole = tuple([shape[2] for shape in shapes])
    widths = narrowed_widths(whole, columns)
    cropped = tuple([(*shape[:2], width) for shape, width in zip(shapes, widths, strict=True)])
    found = form(array, "digits", rows, columns, False, 0.0, halves_split(widths), dtype, cropped, dtypes)
    return found, None if widths == whole else widths


def _full(shapes):
    """(P, Q), of shapes that are checked."""
    check_table_shapes("factors", shapes)
    return prod([shape[1] for shape in shapes]), prod([shape[2] for shape in shapes])


def restored(
    xp: ModuleType, gradients: Sequence[AnyArray], tables: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    """Gradients of `narrowed` tables as those of the tables: zeros where they were cut, and their dtypes."""
    return tuple(
        [
            g
            if g.dtype == table.dtype and g.shape[2] == table.shape[2]  # most of them
            else cast_gradient(xp, padded(xp, g, table.shape[2], 2), table)
            for g, table in zip(gradients, tables, strict=True)
        ]
    )


def restored_records(
    xp: ModuleType, records: AnyArray, widths: Sequence[int], dims: Sequence[int]
) -> AnyArray:
    """Cotangents (B, R, sum widths) of leaves that `narrowed` cut as those (B, R, sum dims) of the leaves."""
    if tuple(widths) == tuple(dims):
        return records
    ranges = zip(pairwise(offsets(widths)), dims, strict=True)
    pieces = [padded(xp, records[:, :, start:stop], dim, 2) for (start, stop), dim in ranges]
    return xp.concat(pieces, axis=2)


def made_safe(xp: ModuleType, lookup: Lookup) -> tuple[Lookup, AnyArray | None]:
    """The lookup with each bad index replaced by 0, and the mask (B,) of rows that held one (None: none)."""
    index = as_dtype(xp, lookup.index, index_dtype(xp))
    if lookup.checked:
        return lookup if index is lookup.index else replace(lookup, index=index), None
    if lookup.kind in ("digits", "same"):
        bad = outside(xp, index, lookup.bound)
    else:
        bad = (index < 0) | (index >= _lengths(xp, lookup))
    safe = replace(lookup, index=xp.where(bad, xp.zeros_like(index), index), checked=True)
    for _ in range(bad.ndim - 1):
        bad = xp.any(bad, axis=0)
    return safe, None if is_numpy(bad) and not bad.any() else bad


def _lengths(xp, lookup):
    """What the indices of each mode must stay below, shaped to compare with them."""
    sizes, index = [table.shape[1] for table in lookup.tables], lookup.index
    lengths = xp.asarray(sizes, dtype=index.dtype, device=device_of(index))
    return xp.reshape(lengths, (-1,) + (1,) * (lookup.index.ndim - 1))


def finished(xp: ModuleType, rows: AnyArray, bad: AnyArray | None, dtype: Any) -> AnyArray:
    """Rows (B, columns) in `dtype`, NaN where the index was bad; those of NumPy in place."""
    rows = as_dtype(xp, rows, dtype)
    if bad is None:
        return rows
    if is_numpy(rows):
        rows[bad] = np.nan
        return rows
    return chosen(xp, bad[:, None], xp.full_like(rows, float("nan")), rows)


def masked(xp: ModuleType, cotangent: AnyArray, bad: AnyArray | None) -> AnyArray:
    """The cotangent (b, ...) of rows, zero where the index was bad."""
    if bad is None:
        return cotangent
    bad = xp.reshape(bad, (-1,) + (1,) * (cotangent.ndim - 1))
    return chosen(xp, bad, xp.zeros_like(cotangent), cotangent)
