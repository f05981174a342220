"""Dense blocks of a Kronecker matrix at the cost of the output.

A block is cut out of rows, or of columns as the rows of the transpose, of the smallest box of digits around
it: over the numbers from `first` to `last` the leading digits that both share are fixed, the next one runs
over a range, and all others are free.  Numbers are counted from `first`, so that a small block of a matrix of
any size is one of a small matrix.  Where rows would waste too much, elements are computed one by one.

Beyond their output these functions take memory for pieces alone: indices, and what is cut away, of about a
million elements at a time.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import check_out, to_namespace_of
from ketcore.arrays.elementary import itemsize, transposed
from ketcore.arrays.namespaces import device_of, is_numpy, namespace_of, on_host
from ketcore.arrays.quantized import decoded
from ketcore.arrays.quantized_lines import are_few, rows_of_terms
from ketcore.lookups.digits import split_digits
from ketcore.objects.indexing import COUNTED, Selector, parse_key
from ketcore.ops import gather_kron, rows
from ketcore.shapes import check_addressable, check_result_size, shown, strides

# A block is cut out of whole rows where these hold at most this many times its elements: an element costs
# that much more by itself than within a row.
_ROW_ADVANTAGE = 4

# An id costs about as much as so many elements of a row; rows of the second length are good enough.
_ID_COST, _LONG_ROW = 3, 12

# Elements and ids of a piece.
_PIECE = 1 << 20
_IDS = 1 << 17


class _Lines(NamedTuple):
    """Rows of a matrix, and those of their columns that are wanted.

    Attributes
    ----------
    factors : list of arrays
        Views of the factors over a box of digits.
    ids : Selector
        Row numbers within the box.
    span : int
        How many of the columns of the box are multiplied out.
    columns : range
        Which of them are kept.
    """

    factors: list[AnyArray]
    ids: Selector
    span: int
    columns: range

    @property
    def work(self) -> int:
        """Elements that are multiplied out, and the ids as so many more."""
        return _length(self.ids) * (self.span + _ID_COST)


def block(factors: Sequence[AnyArray], shape: tuple[int, int], key: Any) -> AnyArray:
    """The elements of a Kronecker matrix that NumPy's rules choose.

    MemoryError, naming the size, where slices or axes left whole make more than 2**30 bytes.

    Cost: that of the output: elements one by one in O(R N) each, or cut out of whole rows or columns where
    these are at most four times as large.
    """
    row, column = parse_key(key, shape)
    factors, row = _decoded(factors, row)
    if not isinstance(row, range) and not isinstance(column, range):
        check_broadcast([tuple(s.shape) for s in (row, column) if not isinstance(s, int)])
        return entries(factors, row, column)
    found = (*shape_of(row), *shape_of(column))
    if isinstance(row, int | range):  # an array of row numbers says how many there are, as in `rows`
        entry, dtype = itemsize(factors[0]), factors[0].dtype
        check_result_size("key", found, entry, dtype, "iter_row_blocks(size)")
    if 0 in found:
        check_addressable(found)
        xp, device = namespace_of(factors[0]), device_of(factors[0])
        return xp.zeros(found, dtype=factors[0].dtype, device=device)
    lines, turned = _cheapest(factors, row, column)
    if lines is None:
        # A range beside a number stays one, whose indices are made piece by piece.
        single = isinstance(row, int) or isinstance(column, int)
        return entries(factors, *((row, column) if single else all_pairs(row, column)))
    picked = _read(lines)
    if not turned:
        return picked
    return namespace_of(picked).permute_dims(picked, (picked.ndim - 1, *range(picked.ndim - 1)))


def row_block(
    factors: Sequence[AnyArray], selected: range, columns: int, out: AnyArray | None = None
) -> AnyArray:
    """The rows of a range, in C order: (rows, columns), into `out` where it is given and fits."""
    factors, selected = _decoded(factors, selected)
    return _read(_lines(factors, selected, range(columns)), out)


def _decoded(factors, row):
    """Factors as arrays, and the row numbers that choose the same of them.

    Of one factor that is quantized, and has many more rows than are chosen, these alone are decoded: row
    numbers are places among them then.
    """
    count = _length(row)
    if len(factors) > 1 or not are_few(factors[0], count, factors[0].shape[1]):
        return [*map(decoded, factors)], row
    table, xp = factors[0], namespace_of(factors[0].values)
    index = to_namespace_of(as_indices(row), xp, table.values).reshape((-1,))
    bad = index < 0
    picked = rows_of_terms(table, xp.where(bad, xp.zeros_like(index), index))
    if isinstance(row, int | range):
        return [picked], 0 if isinstance(row, int) else range(count)
    places = xp.arange(count, dtype=index.dtype, device=device_of(index))
    # On a device -1 stands for no row.
    return [picked], xp.reshape(xp.where(bad, index, places), shape_of(row))


def shape_of(selector: Selector) -> tuple[int, ...]:
    """The shape that a selector has in the result."""
    if isinstance(selector, range):
        # Not len(), which ends at 2**63.
        return ((selector[-1] - selector[0]) // selector.step + 1 if selector else 0,)
    return () if isinstance(selector, int) else tuple(selector.shape)


def _length(selector):
    return prod(shape_of(selector))


def check_broadcast(shapes: Sequence[tuple[int, ...]]) -> None:
    """IndexError unless index arrays of these shapes broadcast."""
    try:
        np.broadcast_shapes(*shapes)
    except TypeError:
        # Symbols, of which the library says whether they do.
        return
    except ValueError:
        raise IndexError(f"key must hold index arrays that broadcast, got shapes {shown(shapes)}") from None


def _cheapest(factors, row, column):
    """Rows that hold the block, or rows of the transpose, and whether of the transpose; None for neither."""
    straight = _lines(factors, row, column) if isinstance(column, range) else None
    if straight and straight.span == _length(column) >= _LONG_ROW:
        return straight, False
    turned = _lines([transposed(f) for f in factors], column, row) if isinstance(row, range) else None
    straight, turned = (lines if lines and _pays(lines) else None for lines in (straight, turned))
    # The transpose has its elements in the other order, which is worth something.
    if straight and turned:
        return (turned, True) if 5 * turned.work < 4 * straight.work else (straight, False)
    return (turned, True) if turned else (straight, False)


def _pays(lines):
    """Whether the rows hold little else but what is wanted; one that is cut must fit a piece."""
    kept = _length(lines.columns)
    return lines.span == kept or (lines.span <= _ROW_ADVANTAGE * kept and lines.span <= _PIECE)


def _lines(factors, row, column):
    """The lines of rows that hold the columns of a range; both are not empty."""
    row_dims, col_dims = (tuple(f.shape[axis] for f in factors) for axis in (1, 2))
    columns, first = _box(column, col_dims)
    column = range(column.start - first, column.stop - first, column.step)
    span = max(column[0], column[-1]) + 1
    if not isinstance(row, int | range):
        return _Lines([f[:, :, a:b] for f, (a, b) in zip(factors, columns, strict=True)], row, span, column)
    held, first = _box(row, row_dims)
    row = row - first if isinstance(row, int) else range(row.start - first, row.stop - first, row.step)
    boxes = zip(factors, held, columns, strict=True)
    return _Lines([f[:, a:b, c:d] for f, (a, b), (c, d) in boxes], row, span, column)


def _box(selected, dims):
    """The smallest box of digits around some numbers, as pairs (start, stop), and the first number in it."""
    low, high = (selected,) * 2 if isinstance(selected, int) else sorted((selected[0], selected[-1]))
    box, first = [], 0
    for n, stride in enumerate(strides(dims)):
        start, low = divmod(low, stride)
        stop, high = divmod(high, stride)
        box.append((start, stop + 1))
        first += start * stride
        if start != stop:
            return box + [(0, dim) for dim in dims[n + 1 :]], first
    return box, first


def _read(lines, out=None):
    """The lines (*ids, columns), piece by piece where they are NumPy's."""
    count, span, width = _length(lines.ids), lines.span, _length(lines.columns)
    whole = lines.columns == range(span)
    step = max(1, _PIECE // span)
    if whole:
        # Ids that are given take no more memory; those of a range are made here.
        step = max(step, _IDS) if isinstance(lines.ids, range) else count
    if count <= step or not is_numpy(lines.factors[0]):
        picked = _picked(lines, lines.ids, out)
        return picked if whole else _kept(picked, lines.columns)
    like = lines.factors[0]
    found = check_out(out, (count, width), like.dtype, like, np)
    ids = lines.ids if isinstance(lines.ids, range) else lines.ids.reshape(-1)
    for start in range(0, count, step):
        piece, place = ids[start : start + step], found[start : start + step]
        if whole:
            _picked(lines, piece, place)
        else:
            place[...] = _kept(_picked(lines, piece), lines.columns)
    return found.reshape((*shape_of(lines.ids), width))


def _picked(lines, ids, out=None):
    """The first `span` columns of rows `ids`."""
    dims = tuple(factor.shape[1] for factor in lines.factors)
    if isinstance(ids, int | range):
        last = ids if isinstance(ids, int) else max(ids[0], ids[-1])
    else:
        last = COUNTED if ids.dtype == object else 0
    if last >= COUNTED:
        index = np.stack(digits_of(ids, dims))
        return gather_kron(lines.factors, index, columns=lines.span, check=False, out=out)
    # Numbers of a range are valid; those of an array are, or stand for none with -1.
    check = None if isinstance(ids, int | range) else False
    return rows(lines.factors, as_indices(ids), (prod(dims), lines.span), check=check, out=out)


def _kept(picked, columns):
    """The columns of a range, out of rows."""
    if columns.step > 0:
        return picked[..., columns.start : columns.stop : columns.step]
    xp = namespace_of(picked)
    return xp.flip(picked[..., columns[-1] : columns[0] + 1 : -columns.step], axis=-1)


def all_pairs(row: Selector, column: Selector) -> tuple[AnyArray, AnyArray]:
    """Index arrays that broadcast to all pairs."""
    row, column = as_indices(row), as_indices(column)
    return row[(...,) + (None,) * column.ndim], column


def as_indices(selector: Selector) -> AnyArray:
    """An index array; of Python ints where int64 does not hold them."""
    if isinstance(selector, range):
        ends = (selector[0], selector[-1]) if selector else (0,)
        if max(ends) >= COUNTED:
            found = np.empty(len(selector), dtype=object)
            found[:] = list(selector)
            return found
        return np.arange(selector.start, selector.stop, selector.step, dtype=np.int64)
    if isinstance(selector, int):
        return np.asarray(selector, dtype=np.int64 if selector < COUNTED else object)
    return selector


def digits_of(selector: Selector, dims: Sequence[int]) -> Sequence[AnyArray]:
    """The digits of some numbers as int64 arrays, one per mode; the numbers may be beyond int64."""
    index = as_indices(selector)
    if index.dtype != object:
        return split_digits(index, dims)
    places = zip(strides(tuple(dims)), dims, strict=True)
    return [np.asarray(index // stride % dim, dtype=np.int64) for stride, dim in places]


def entries(factors: Sequence[AnyArray], row: Selector, column: Selector) -> AnyArray:
    """M[i, j] = sum_k prod_n F_n[k, i_n, j_n] for indices that broadcast; -1 on a device gives NaN.

    Two ranges are pairs (i, j), and of one length.
    """
    if not is_numpy(factors[0]) or not all(isinstance(s, int | range) or is_numpy(s) for s in (row, column)):
        return _entries(factors, as_indices(row), as_indices(column))
    shape = np.broadcast_shapes(shape_of(row), shape_of(column))
    count, step = prod(shape), max(1, _PIECE // (4 * len(factors)))
    if count <= step:
        return _entries(factors, as_indices(row), as_indices(column))
    sides = [_flat(side, shape) for side in (row, column)]
    found = np.empty(count, factors[0].dtype)
    for start in range(0, count, step):
        found[start : start + step] = _entries(factors, *(side(start, start + step) for side in sides))
    return found.reshape(shape)


def _flat(side, shape) -> Callable[[int, int], AnyArray]:
    """What gives the indices start..stop of a side that is broadcast and then laid out flat."""
    if isinstance(side, range):
        return lambda start, stop: as_indices(side[start:stop])
    flat = np.broadcast_to(as_indices(side), shape).flat
    return lambda start, stop: flat[start:stop]


def _entries(factors, row, column):
    """A gather of leaves of width 1: factors flattened to (R, p_n q_n, 1), with the index i_n q_n + j_n."""
    like = factors[0]
    xp = namespace_of(like)
    radices = [tuple(f.shape[axis] for f in factors) for axis in (1, 2)]
    # Python ints become digits before they leave NumPy.
    wide = [side.dtype == object for side in (row, column)]
    pairs = zip((row, column), wide, strict=True)
    sides = [side if is_wide else to_namespace_of(side, xp, like) for side, is_wide in pairs]
    picked = [digits_of(side, dims) for side, dims in zip(sides, radices, strict=True)]
    for n in (n for n in (0, 1) if wide[n]):
        picked[n] = [to_namespace_of(digit, xp, like) for digit in picked[n]]
    index = [i * q + j for q, i, j in zip(radices[1], *picked, strict=True)]
    for given, side in zip((row, column), sides, strict=True):
        if not on_host(given):
            index[0] = xp.where(side < 0, xp.full_like(index[0], -1), index[0])
    tables = [xp.reshape(f, (f.shape[0], f.shape[1] * f.shape[2], 1)) for f in factors]
    found = gather_kron(tables, xp.stack(xp.broadcast_arrays(*index)), check=False)
    return found[..., 0]
