"""Sums by index; those of NumPy arrays by sparse products and counts, exact enough at any length."""

from types import ModuleType

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import is_bare, is_jax, is_torch
from ketcore.arrays.namespaces import device_of, is_numpy, to_host
from ketcore.arrays.threads import run_chunks
from ketcore.native import loader

# A float32 sum of sixteen terms of one sign is off by less than 1e-6 of itself; longer ones are summed
# in float64.
_SHORT_SUM = 16

# Up to so many values one bincount in float64 beats the set-up of a sparse product.
_SMALL_SUM = 1 << 14

# What the compiled library sums, and how many numbers one thread takes at once.
_NATIVE = (np.dtype(np.float32), np.dtype(np.float64))
_CHUNK_NUMBERS = 1 << 16
_FAILED = "there is no memory to sum by index"


def _numpy_sum_by_index(values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """`sum_by_index` of NumPy arrays."""
    if not len(index) or not values.shape[1]:
        return np.zeros((count, values.shape[1]), values.dtype)
    if values.dtype.kind == "c":
        parts = np.ascontiguousarray(values).view(np.real(values).dtype)
        return _numpy_sum_by_index(parts, index, count).view(values.dtype)
    if values.dtype in _NATIVE and (native := loader.active()) is not None:
        return _native_sum(native, values, index, count)
    if is_small(values, count * values.shape[1]):
        width = values.shape[1]
        return counted(values, index[:, None] * width + np.arange(width), count * width).reshape(count, width)
    if count > len(index):  # a large table, of which few rows occur
        found, index = unique_inverse(np, index)
        sums = np.zeros((count, values.shape[1]), values.dtype)
        sums[found] = _numpy_sum_by_index(values, index, len(found))
        return sums
    if values.dtype != np.float32 or np.bincount(index).max() <= _SHORT_SUM:
        return _indicator(index, count, values.dtype) @ values
    pieces, owner = _short_pieces(index, count)
    partial = _indicator(pieces, len(owner), values.dtype) @ values
    return (_indicator(owner, count, np.float64) @ partial).astype(values.dtype)


def _native_sum(native, values, index, count):
    """The sum by the compiled library."""
    if values.strides[1] != values.itemsize:
        values = np.ascontiguousarray(values)
    index = index.astype(np.int64, copy=False)
    sums = np.zeros((count, values.shape[1]), values.dtype)
    handle = native.index_sums(loader.capsules((values, index, sums)))
    if not handle:
        raise MemoryError("sums by index cannot be described")

    def work(start, stop):
        loader.check(native.sum_by_index(handle, values.itemsize == 8, start, stop), _FAILED)

    try:
        loader.check(native.sort_rows(handle), _FAILED)
        run_chunks(work, len(index), max(1, _CHUNK_NUMBERS // values.shape[1]))
    finally:
        native.forget_index_sums(handle)
    return sums


def is_small(values: np.ndarray, entries: int) -> bool:
    """Whether sums of these values, so many, are best made by `counted`; never of complex ones."""
    return 0 < values.size <= _SMALL_SUM and entries <= 2 * _SMALL_SUM and values.dtype.kind != "c"


def counted(values: np.ndarray, places: np.ndarray, entries: int) -> np.ndarray:
    """The sums (entries,) of values that have one place, both of one shape: in float64, and rounded once."""
    sums = np.bincount(places.ravel(), weights=values.ravel(), minlength=entries)
    return sums if values.dtype == np.float64 else sums.astype(values.dtype)


def unique_inverse(xp: ModuleType, index: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The distinct integers of an array (B,), ascending, and where each of its entries stands among them."""
    if not is_numpy(index):
        found = xp.unique_inverse(index)
        return found.values, xp.reshape(found.inverse_indices, (-1,))
    # As `np.unique` does it, which takes twice the time for a few entries.
    order = index.argsort()
    ascending = index.take(order)
    first = np.empty(len(index), bool)
    first[:1] = True
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    inverse = np.empty(len(index), np.intp)
    inverse[order] = first.cumsum() - 1
    return ascending[first], inverse


def _indicator(index, count, dtype):
    """The sparse 0/1 matrix (count, B) whose product with values sums them by index."""
    from scipy.sparse import csc_array  # here, because it takes most of the time to import ketcore

    return csc_array(
        (np.ones(len(index), dtype), index, np.arange(len(index) + 1)), shape=(count, len(index))
    )


def _short_pieces(index, count):
    """Cut rows that share an index into pieces of _SHORT_SUM: the piece of a row, the index of a piece."""
    hits = np.bincount(index, minlength=count)
    # A stable sort of 16-bit integers is a radix sort, many times faster than one of 64 bits.
    order = np.argsort(index.astype(np.uint16) if count <= 1 << 16 else index, kind="stable")
    first_hit = np.cumsum(hits) - hits
    pieces_of = -(-hits // _SHORT_SUM)
    first_piece = np.cumsum(pieces_of) - pieces_of
    occurrence = np.arange(len(index)) - np.repeat(first_hit, hits)
    pieces = np.empty(len(index), np.int64)
    pieces[order] = np.repeat(first_piece, hits) + occurrence // _SHORT_SUM
    return pieces, np.repeat(np.arange(count), pieces_of)


def sum_by_index(xp: ModuleType, values: AnyArray, index: AnyArray, count: int) -> AnyArray:
    """Sum the rows of `values` that share an index.

    Parameters
    ----------
    values : array, (B, W)
        Floating.
    index : array of ints, (B,)
        In [0, count).
    count : int
        The number of rows of the result.

    Returns
    -------
    array, (count, W)
        In the dtype of `values`; an index that never occurs gives zeros.  On NumPy float32 sums of one sign
        are accurate to 1e-6 of themselves at any length.

    Notes
    -----
    Cost: O(B W + count W) time and memory.
    """
    if is_numpy(values):
        return _numpy_sum_by_index(values, index, count)
    if is_bare((values, index)):
        # PyTorch takes up to three times as long, and many times that where its threads share their cores.
        return xp.asarray(_numpy_sum_by_index(to_host(values), to_host(index), count))
    zeros = xp.zeros((count, values.shape[1]), dtype=values.dtype, device=device_of(values))
    if is_jax(values):
        return zeros.at[index].add(values)
    if is_torch(values):
        return _accumulate_wide(xp, values, lambda wide: zeros.to(wide.dtype).index_add(0, index, wide))
    # No function of the array API scatters.  A product with a 0/1 matrix would spread NaN to every index.
    nothing = xp.zeros_like(values)
    sums = [xp.sum(xp.where((index == i)[:, None], values, nothing), axis=0) for i in range(count)]
    return xp.stack(sums) if sums else zeros


def _accumulate_wide(xp, values, total):
    """`total` of float64 copies where `values` is float32, so that long sums keep their digits.

    The GPUs of Apple have no float64.
    """
    if values.dtype != xp.float32 or values.device.type == "mps":
        return total(values)
    return xp.astype(total(xp.astype(values, xp.float64)), values.dtype)
