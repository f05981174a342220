"""Which leaf each output row takes from each table: what rows, kets and `gather_kron` have in common.

Letters: N order, R rank, B output rows, t_n and q_n rows and columns of table n.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import prod
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import check_block, check_table_shapes, is_plain_block, outside
from ketcore.arrays.elementary import as_dtype, chosen, padded
from ketcore.arrays.namespaces import cast_gradient, device_of, index_dtype, is_numpy
from ketcore.shapes import halves_split, offsets, reached_dims
from ketcore.tracing import kept


# Not frozen, which would take two microseconds of every call; nothing writes to one but what it says below.
@dataclass(slots=True)
class Lookup:
    """B rows to expand, each the sum over terms of products of N leaves.

    Attributes
    ----------
    tables : sequence of N arrays, (R, t_n, q_n)
        Of any strides.
    index : array of ints
        By `kind`; valid in [0, bound), those of "modes" and "terms" in [0, t_n).
    kind : {"digits", "same", "modes", "terms"}
        What the index says:

        - "digits": ids (B,), mode n takes the n-th digit of the id over radices t_n.
        - "same": ids (B,), every mode takes the id itself.
        - "modes": (N, B), an index for each mode.
        - "terms": (N, R, B), one for each mode and term.
    bound : int
        Ids are valid in [0, bound).
    checked : bool
        Whether every index is known to be valid.
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
    records : array, (t, R, sum q_n), or None
        Of kind "same" the packed array that the tables are, side by side; None where they are only parts of
        one.
    geometry : Geometry, or None
        What `ketcore.lookups.kernel_plan` makes of all that is no array, once it is asked.
    """

    tables: tuple[AnyArray, ...]
    index: AnyArray
    kind: str
    bound: int
    checked: bool
    columns: int
    layernorm: bool
    eps: float
    split: int
    dtype: Any = None
    records: AnyArray | None = None
    geometry: Any = field(default=None, init=False, repr=False, compare=False)

    @property
    def batch(self) -> int:
        """B, the number of output rows."""
        return self.index.shape[-1]

    @property
    def rank(self) -> int:
        """R, the number of terms."""
        return self.tables[0].shape[0]

    @property
    def widths(self) -> tuple[int, ...]:
        """q_0, ..., q_{N-1}."""
        return tuple([table.shape[2] for table in self.tables])

    @property
    def node_eps(self) -> float | None:
        """`eps`, or None without LayerNorm: how `ketcore.lookups.tree` is told."""
        return self.eps if self.layernorm else None

    @property
    def kept(self) -> int:
        """How many entries of the left half reach into the first `columns` columns."""
        return -(-self.columns // prod(self.widths[self.split :]))


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
    """Tables (R, t_n, q_n) up to these widths, None for all: as they are, or views."""
    if widths is None:
        return tuple(tables)
    pairs = zip(tables, widths, strict=True)
    return tuple([table if table.shape[2] == width else table[:, :, :width] for table, width in pairs])


class MatrixSizes(NamedTuple):
    """What follows from the shapes of factors and from the crop.

    Attributes
    ----------
    rows, columns : int
        Of the crop.
    widths : tuple of N ints, or None
        Of the factors as far as `narrowed` keeps them; None where that is all.
    split : int
        Where those are halved.
    """

    rows: int
    columns: int
    widths: tuple[int, ...] | None
    split: int


def matrix_sizes(shapes: tuple[tuple[int, ...], ...], shape: Any) -> MatrixSizes:
    """The sizes of rows of a matrix whose factors have these shapes; ValueError on wrong ones.

    They are kept between calls, since a few rows take hardly longer than to find them.
    """
    if not is_plain_block(shape):
        shape = check_block(shape, _full(shapes))
    return _matrix_sizes(shapes, shape)


@kept(1024)
def _matrix_sizes(shapes, shape):
    rows, columns = check_block(shape, _full(shapes))
    whole = tuple([shape[2] for shape in shapes])
    widths = narrowed_widths(whole, columns)
    return MatrixSizes(rows, columns, None if widths == whole else widths, halves_split(widths))


def _full(shapes):
    """(P, Q), of shapes that are checked."""
    check_table_shapes("factors", shapes)
    return prod([shape[1] for shape in shapes]), prod([shape[2] for shape in shapes])


def restored(
    xp: ModuleType, gradients: Sequence[AnyArray], tables: Sequence[AnyArray]
) -> tuple[AnyArray, ...]:
    """Gradients of `narrowed` tables as those of the tables: zeros where they were cut, and their dtypes."""
    return tuple([_restored(xp, g, table) for g, table in zip(gradients, tables, strict=True)])


def _restored(xp, gradient, table):
    if gradient.dtype == table.dtype and gradient.shape[2] == table.shape[2]:  # most of them
        return gradient
    return cast_gradient(xp, padded(xp, gradient, table.shape[2], 2), table)


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
