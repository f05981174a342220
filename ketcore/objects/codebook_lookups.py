"""Rows, bags and scores of a `CodebookTable`: its codes are picked first, and only those of a call are read.

Letters: N order, R rank, w = prod q_n numbers of a row before the decoder, Q columns.
"""

from collections.abc import Iterator
from math import prod
from time import perf_counter
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import as_integers, check_index, check_like, outside, to_namespace_of
from ketcore.arrays.elementary import as_dtype, chosen, flattened, reshaped, transposed
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    extremes,
    index_dtype,
    is_mapped,
    is_numpy,
    is_writeable_in_place,
    namespace,
    namespace_of,
    native,
    on_host,
    to_host,
)
from ketcore.arrays.quantized import QuantizedArray, decoded, like_of
from ketcore.arrays.quantized_lines import lines_at
from ketcore.arrays.sums import sum_by_index
from ketcore.arrays.threads import READERS, readers
from ketcore.objects.blocks import check_broadcast, shape_of
from ketcore.objects.indexing import Selector, take, take_stored
from ketcore.objects.packed_codes import PackedCodes, unpacked
from ketcore.ops import codebook_rows, gather_kron
from ketcore.shapes import broadcast, shown

# Numbers of what is made of a block of words: it stays in the last cache of a processor.
_BLOCK_NUMBERS = 1 << 18
# A lookup takes as long for one vector as for some; NumPy picks the scores of one in a sixth of that time,
# those of four in a third.
_MANY = 8
# Words of a block of scores, at least: each call of a lookup takes some microseconds.
_LEAST_WORDS = 1 << 10
# Words whose codes one thread reads of a mapped file at a time: from memory in tens of microseconds.
_LEAST_READ = 1 << 8
# Seconds for so many, above which they came from a disk; from memory threads take longer than one does alone.
_WAIT = 5e-4


def checked_ids(table: Any, ids: Any, check: bool | None) -> tuple[AnyArray, AnyArray | None]:
    """Ids in range, and where others stood, which are 0 now (None: nowhere, for sure)."""
    ids, known = check_index("ids", as_integers("ids", ids), table.shape[0], check)
    if known:
        return ids, None
    xp = namespace_of(ids)
    bad = outside(xp, ids, table.shape[0])
    return xp.where(bad, xp.zeros_like(ids), ids), bad


def rows_of(
    table: Any,
    ids: AnyArray | range,
    check: bool | None = None,
    decoder: AnyArray | None = None,
    out: AnyArray | None = None,
    wide: bool = False,
) -> AnyArray:
    """Rows (..., w) of valid ids, scaled, and times a decoder where one is given.

    In the dtype of the table, or in its accumulation dtype.
    """
    xp, changed = namespace_of(like_of(table.stored[0])), decoder is not table.decoder
    if table.codes is None:
        codebooks, row_scale, codes = _own_vectors(table, ids)
    else:
        codes, row_scale = _picked(table, ids)
        if check or (check is None and on_host(codes)):
            _check_codes(table, codes, ids)
        codebooks = table.stored
    dtype = table.dtype
    if changed or wide:
        dtype = accumulation_dtype(xp, dtype) if wide else dtype
        codebooks = [
            book if book.dtype == dtype else as_dtype(xp, decoded(book), dtype) for book in codebooks
        ]
    return codebook_rows(codebooks, row_scale, decoder, codes, check=False, out=out)


def with_nan(rows: AnyArray, bad: AnyArray | None) -> AnyArray:
    """Rows (..., Q), NaN where the mask (...) says so: of NumPy and CuPy in place."""
    if bad is None:
        return rows
    xp = namespace_of(rows)
    places: Any = to_namespace_of(bad, xp, rows)
    if is_writeable_in_place(rows):
        rows[places] = np.nan
        return rows
    return chosen(xp, places[..., None], xp.full_like(rows, float("nan")), rows)


def all_codes(table: Any) -> AnyArray:
    """The codes (N, R, words) of a table, unpacked, with those that it leaves out.

    >>> from ketcore import CodebookTable
    >>> all_codes(CodebookTable([[[1.0]], [[1.0], [2.0]]], [[[1, 0, 1]]])).tolist()
    [[[0, 0, 0]], [[1, 0, 1]]]
    """
    if table.codes is not None:
        return _codes_of(table, slice(None))
    return _own_codes(table, np.arange(table.shape[0]))


def _own_vectors(table, ids):
    """Codebooks with the vectors of some words alone, the scales of these, and their codes (N, R, ...)."""
    key = None
    if isinstance(ids, range):
        shape, chosen = (len(ids),), ids
        key = slice(ids.start, ids.stop, ids.step) if ids.step > 0 else None
        ids = ids if key else np.arange(ids.start, ids.stop, ids.step)
    else:
        like = like_of(table.stored[0])
        ids = to_namespace_of(ids, namespace_of(like), like)
        shape, chosen = tuple(ids.shape), flattened(namespace_of(ids), ids)
    # A codebook has at least one vector, also where no word is asked for.
    some = chosen if prod(shape) else range(1)
    books = [
        decoded(take_stored(book, [range(book.shape[0]), some])) if book.shape[1] > 1 else decoded(book)
        for book in table.stored
    ]
    places = np.arange(prod(shape)).reshape(shape)
    return books, _scales_of(table, ids, key), _own_codes(table, places)


def _own_codes(table, places):
    """Codes (N, R, ...) of places (...), 0 of codebooks with one vector, beside the codebooks."""
    many = np.array([[book.shape[1] > 1] * book.shape[0] for book in table.stored])
    codes = places * many.reshape(many.shape + (1,) * places.ndim)
    like = like_of(table.stored[0])
    return to_namespace_of(codes, namespace_of(like), like)


def _picked(table, ids):
    """The codes (N, R, ...) and the scales (...) of some words, in narrow dtypes as they are stored."""
    if isinstance(ids, range) and ids.step > 0:
        key = slice(ids.start, ids.stop, ids.step)
        return _codes_of(table, key), _scales_of(table, ids, key)
    if isinstance(ids, range):
        ids = np.arange(ids.start, ids.stop, ids.step)
    return _codes_of(table, ids), _scales_of(table, ids, None)


def _scales_of(table, ids, key):
    """The scales of some words, by ids or by the slice of these; None where there are none."""
    stored: Any = table.stored_row_scale
    if stored is None:
        return None
    if not isinstance(stored, QuantizedArray):
        return _taken(stored, ids, 0) if key is None else stored[key]
    xp = namespace_of(stored.values)
    places = to_namespace_of(np.arange(ids.start, ids.stop, ids.step) if key else ids, xp, stored.values)
    return lines_at(stored, places, 1)[..., 0]


def _codes_of(table, ids):
    """The codes (N, R, ...) of some words, by a slice or an array; packed ones a byte each."""
    packed = table.codes if isinstance(table.codes, PackedCodes) else None
    stored: Any = table.codes if packed is None else packed.packed
    if isinstance(ids, slice):
        found = stored[:, :, ids] if packed is None else stored[ids, :]
    elif is_numpy(stored):
        if not is_numpy(ids):
            namespace("ids and codebooks", (ids, like_of(table.stored[0])))
        # One piece of memory a word where codes are stored so; NumPy's `take` copies what is not in C order.
        lines = stored.transpose(2, 0, 1) if packed is None else stored
        found = _lines_at(lines, to_host(ids))
        found = np.moveaxis(found, (-2, -1), (0, 1)) if packed is None else found
    else:
        found = _taken(stored, ids, 2 if packed is None else 0)
    found = found if packed is None else unpacked(found, packed)
    found = native(found) if is_numpy(found) else found
    return _with_left_out(table, found)


def _with_left_out(table, codes):
    """Codes (N, R, ...) with the zeros of codebooks with one vector, where these were left out."""
    if codes.shape[0] == len(table.stored):
        return codes
    xp, lines = namespace_of(codes), iter(range(codes.shape[0]))
    zeros = xp.zeros_like(codes[:1, ...])
    parts = [zeros if book.shape[1] == 1 else codes[(n := next(lines)) : n + 1, ...] for book in table.stored]
    return xp.concat(parts, axis=0)


def _lines_at(lines, ids):
    """Lines of an array of NumPy; of a mapped file by threads, once one has waited for a disk."""
    if ids.size < READERS * _LEAST_READ or not is_mapped(lines):
        return lines[ids]
    found, flat = np.empty((ids.size, *lines.shape[1:]), lines.dtype), ids.reshape(-1)

    def read(start):
        piece, begin = slice(start, start + _LEAST_READ), perf_counter()
        found[piece] = lines[flat[piece]]
        return perf_counter() - begin > _WAIT

    starts = iter(range(0, len(flat), _LEAST_READ))
    if any(map(read, starts)):
        try:
            list(readers().map(read, starts))
        except RuntimeError:  # there are no more threads where Python ends
            return lines[ids]
    return found.reshape(*ids.shape, *lines.shape[1:])


def _taken(array, ids, axis):
    """What ids of any shape pick from the first or the last axis."""
    xp = namespace_of(array)
    ids = to_namespace_of(ids, xp, array)
    if is_numpy(array):
        return array[ids] if axis == 0 else array[:, :, ids]
    found = xp.take(array, flattened(xp, ids), axis=axis)
    return reshaped(xp, found, (*array.shape[:axis], *ids.shape, *array.shape[axis + 1 :]))


def _check_codes(table, codes, ids):
    """IndexError, naming the place in the table, on a code that its codebook has not."""
    if 0 in codes.shape:
        return
    for n, book in enumerate(table.stored):
        found = extremes(codes[n, ...])
        if found is None or (found[0] >= 0 and found[1] < book.shape[1]):
            continue
        values = to_host(codes[n, ...])
        k, *place = np.argwhere((values < 0) | (values >= book.shape[1]))[0].tolist()
        word = ids[place[0]] if isinstance(ids, range) else int(to_host(ids)[tuple(place)])
        got = values[(k, *place)]
        raise IndexError(f"codes[{n}][{k}][{word}] must lie in [0, {book.shape[1]}), got {got}")


def dense_block(table: Any, row: Selector, column: Selector) -> AnyArray:
    """The elements of one word, of a range or of an array of them, in such columns: all pairs."""
    xp, wanted = namespace_of(like_of(table.stored[0])), (*shape_of(row), *shape_of(column))
    if 0 in wanted:
        return xp.zeros(wanted, dtype=table.dtype, device=device_of(like_of(table.stored[0])))
    ids, bad = _selected(row)
    whole = isinstance(column, range) and column == range(table.shape[1])
    if whole or table.decoder is None:
        found = with_nan(rows_of(table, ids, decoder=table.decoder), bad)
        if whole:
            return found
        turned = _lines(transposed(reshaped(xp, found, (-1, table.shape[1]))), column)
        return reshaped(xp, transposed(reshaped(xp, turned, (-1, turned.shape[-1]))), wanted)
    matrix = reshaped(xp, _lines(transposed(table.decoder), column), (-1, table.width))
    found = with_nan(rows_of(table, ids, decoder=transposed(matrix)), bad)
    return reshaped(xp, found, wanted)


def _lines(array, chosen):
    """The rows (..., m) of a matrix (p, m) that a selector of its first axis chooses."""
    if isinstance(chosen, int | range):
        return take(array, [chosen])
    xp = namespace_of(array)
    ids, bad = _selected(to_namespace_of(chosen, xp, array))
    found = xp.take(array, flattened(xp, ids), axis=0)
    return with_nan(reshaped(xp, found, (*ids.shape, array.shape[1])), bad)


def dense_entries(table: Any, row: AnyArray, column: AnyArray) -> AnyArray:
    """The elements of words and columns that stand side by side, in arrays that broadcast."""
    check_broadcast([tuple(row.shape), tuple(column.shape)])
    xp = namespace_of(like_of(table.stored[0]))
    ids, bad = _selected(row)
    found = with_nan(rows_of(table, ids, wide=True), bad)
    if table.decoder is not None:
        decoder = as_dtype(xp, transposed(table.decoder), found.dtype)
        return as_dtype(xp, xp.sum(found * _lines(decoder, column), axis=-1), table.dtype)
    column = to_namespace_of(column, xp, found)
    places, bad = _selected(column)
    shape = broadcast(found.shape[:-1], column.shape)
    places = xp.broadcast_to(places, shape)[..., None]
    found = xp.take_along_axis(xp.broadcast_to(found, (*shape, table.width)), places, axis=-1)
    found = with_nan(found, None if bad is None else xp.broadcast_to(bad, shape))[..., 0]
    return as_dtype(xp, found, table.dtype)


def _selected(row: Any) -> tuple[Any, Any]:
    """What `rows_of` takes of a selector, and where it stands for no word."""
    if isinstance(row, int | range):
        return np.asarray(row) if isinstance(row, int) else row, None
    if on_host(row):
        return row, None
    xp = namespace_of(row)
    return xp.where(row < 0, xp.zeros_like(row), row), row < 0


def fill(table: Any, out: AnyArray) -> AnyArray:
    """All rows of a table into `out` (words, Q), block by block."""
    for block in _blocks(table.shape[0], table.shape[1]):
        rows_of(table, block, decoder=table.decoder, out=out[block.start : block.stop])
    return out


def _blocks(words: int, width: int) -> Iterator[range]:
    """All words in blocks, of which each word takes `width` numbers."""
    size = max(_LEAST_WORDS, _BLOCK_NUMBERS // max(1, width))
    for start in range(0, words, size):
        yield range(start, min(start + size, words))


def bags(table: Any, ids: Any, offsets: Any, mode: str, weights: Any, check: bool | None) -> AnyArray:
    """Sums or means of bags of rows before the decoder, (bags, w), in the accumulation dtype."""
    like = like_of(table.stored[0])
    xp = namespace_of(like)
    ids = as_integers("ids", ids)
    owners, counts = _owners(ids, offsets)
    wide = accumulation_dtype(xp, table.dtype)
    if weights is not None:
        if mode == "mean":
            raise ValueError(f"weights must be None for mode 'mean', got {shown(weights)}")
        weights = check_like("weights", weights, ids.shape, xp, like, table.dtype)
        weights = reshaped(xp, as_dtype(xp, weights, wide), (-1, 1))
    ids, bad = checked_ids(table, flattened(namespace_of(ids), ids), check)
    sums = xp.zeros((len(counts), table.width), dtype=wide, device=device_of(like))
    # Arrays of other libraries are summed at once: there is nothing to add to in place.
    step = max(_LEAST_WORDS, _BLOCK_NUMBERS // table.width) if is_numpy(like) else max(1, len(owners))
    for start in range(0, len(owners), step):
        part = slice(start, start + step)
        rows = rows_of(table, ids[part], check, wide=True)
        rows = with_nan(rows, None if bad is None else bad[part])
        rows = rows if weights is None else rows * weights[part, :]
        if is_numpy(like):
            first, stop = owners[part][0], owners[part][-1] + 1
            sums[first:stop] += sum_by_index(np, rows, owners[part] - first, stop - first)
        else:
            sums = sum_by_index(xp, rows, to_namespace_of(owners, xp, like), len(counts))
    if mode == "mean":
        lengths = np.maximum(counts, 1).astype(np.float64)
        lengths = xp.astype(to_namespace_of(lengths, xp, like), wide, copy=False)
        sums = sums / reshaped(xp, lengths, (-1, 1))
    return sums


def _owners(ids, offsets):
    """Which bag each id is in, and how many ids each bag has: arrays of NumPy."""
    if offsets is None:
        if ids.ndim != 2:
            raise ValueError(f"ids must have shape (bags, n) without offsets, got {tuple(ids.shape)}")
        counts = np.full(ids.shape[0], ids.shape[1], np.int64)
    else:
        if ids.ndim != 1:
            raise ValueError(f"ids must have one axis beside offsets, got shape {tuple(ids.shape)}")
        starts = to_host(as_integers("offsets", offsets))
        if starts.ndim != 1:
            raise ValueError(f"offsets must have one axis, got shape {starts.shape}")
        given, starts = starts, starts.astype(np.int64)
        ends = np.append(starts, ids.shape[0])
        counts = np.diff(ends)
        if (ends[0] != 0 and len(starts)) or (counts < 0).any() or (ids.shape[0] and not len(starts)):
            rule = f"ascend from 0 to at most the number of ids, {ids.shape[0]}"
            raise ValueError(f"offsets must {rule}, got {shown(given.tolist())}")
        counts = counts[: len(starts)]
    return np.repeat(np.arange(len(counts)), counts), counts


def scores(table: Any, x: AnyArray) -> Iterator[AnyArray]:
    """The products of x (B, w), B >= 1, with all rows before the decoder, block by block: (B, block).

    Of order 1 with codes a product with each codebook comes first, and a score is a sum of R picked numbers.
    Otherwise the rows of a block are made.
    """
    xp, order = namespace_of(x), table.order
    if order > 1 or table.codes is None:
        for block in _blocks(table.shape[0], table.width):
            yield xp.matmul(x, transposed(as_dtype(xp, rows_of(table, block, wide=True), x.dtype)))
        return
    book = as_dtype(xp, table.codebooks[0], x.dtype)
    picks = xp.matmul(book, transposed(x))  # (R, K, B)
    for block in _blocks(table.shape[0], x.shape[0]):
        codes, row_scale = _picked(table, block)
        if on_host(codes):
            _check_codes(table, codes, block)
        found = _added(xp, picks, codes)
        yield found if row_scale is None else found * as_dtype(xp, row_scale, x.dtype)


def _added(xp, picks, codes):
    """The sums (B, words) over terms of what codes (1, R, words) pick from scores (R, K, B)."""
    number = picks.shape[2]
    if not is_numpy(picks) or number >= _MANY:
        return transposed(gather_kron([picks], codes, per_term=True, check=False))
    found = np.zeros((number, codes.shape[2]), picks.dtype)
    for lines, term in zip(picks.transpose(0, 2, 1), codes[0], strict=True):
        wide = term.astype(np.intp)
        for total, line in zip(found, lines, strict=True):
            total += line.take(wide)
    return found


def best(table: Any, x: AnyArray, k: int) -> tuple[AnyArray, AnyArray]:
    """The k largest scores of each row of x (B, w), from the largest on, and their words: both (B, k)."""
    xp, start = namespace_of(x), 0
    values = ids = None
    for found in scores(table, x):
        number = found.shape[1]
        words = xp.arange(start, start + number, dtype=index_dtype(xp), device=device_of(x))
        words = xp.broadcast_to(words[None, :], tuple(found.shape))
        start += number
        found, words = _largest(xp, found, words, k)
        if values is not None:
            found, words = xp.concat([values, found], axis=1), xp.concat([ids, words], axis=1)
            found, words = _largest(xp, found, words, k)
        values, ids = found, words
    return values, ids


def _largest(xp, values, words, k):
    """The k largest of each row, from the largest on; of equal ones those that came first."""
    if is_numpy(values) and values.shape[1] > 4 * k:
        # Only what is at least the k-th largest has to be sorted; NaN stands behind all else.
        place = np.argpartition(-values, k - 1, axis=1)[:, :k]
        place.sort(axis=1)
        values, words = np.take_along_axis(values, place, 1), np.take_along_axis(words, place, 1)
    order = xp.argsort(-values, axis=1, stable=True)[:, :k]
    return xp.take_along_axis(values, order, axis=1), xp.take_along_axis(words, order, axis=1)
