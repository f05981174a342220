"""A sample of the rows of a table that stands for all of it, and its components.

A row is drawn by a chance c_i that is proportional to its weight w_i, or surely, and weighs w_i / c_i: sums
over the sample estimate those over the table, and no heavy row is left out.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ketcore.arrays.namespaces import to_host
from ketcore.fit.sources import Rows, place_not_finite

# Numbers of the table that are read at a time: 8 MB of float32.
_BLOCK = 1 << 21
# k-means gains little by more rows than these for each centre, and components by more than the least.
_ROWS_PER_CENTRE, _LEAST_SAMPLE, _MOST_SAMPLE = 256, 1 << 16, 1 << 18
# Squares of numbers between these powers of two, and sums of them, stay within float32.
_ORDINARY = 30


class Sample(NamedTuple):
    """Rows of the table that stand for all of it.

    rows      (n, columns), times 2^-exponent
    weights   (n,), so that their sums estimate those over the table; at most 1
    exponent  0 unless squares would leave the range of the dtype
    """

    rows: np.ndarray
    weights: np.ndarray
    exponent: int


def blocks(rows: Rows) -> Iterator[tuple[int, np.ndarray]]:
    """The blocks of rows as arrays of NumPy in C order, each with where it begins."""
    words, columns = rows.shape
    step = max(1, _BLOCK // columns)
    for start in range(0, words, step):
        # Sums of squares round by the order in memory.
        yield start, np.ascontiguousarray(to_host(rows.read(start, min(start + step, words))))


def draw(rows: Rows, weights: np.ndarray, centres: int, rng: "np.random.Generator") -> Sample:
    """A sample for k-means with so many centres; all rows are read, and must be finite."""
    words, columns = rows.shape
    weights = weights / weights.max()
    most = min(max(_ROWS_PER_CENTRE * centres, _LEAST_SAMPLE), _MOST_SAMPLE)
    chances = _chances(weights, most)
    picked = np.flatnonzero(rng.random(words) < chances)
    found = np.empty((len(picked), columns), to_host(rows.sample).dtype)
    peak, done = 0.0, 0
    for start, block in blocks(rows):
        peak = max(peak, peak_of(block, start))
        stop = int(np.searchsorted(picked, start + len(block)))
        found[done:stop] = block[picked[done:stop] - start]
        done = stop
    exponent = int(np.frexp(peak)[1])
    exponent = exponent if abs(exponent) > _ORDINARY else 0
    shares = weights[picked] / chances[picked]
    return Sample(ordinary(found, exponent), (shares / shares.max()).astype(found.dtype), exponent)


def _chances(weights: np.ndarray, count: int) -> np.ndarray:
    """The chance of each row to be drawn, proportional to its weight where that is below 1; `count` in sum.

    >>> _chances(np.array([1.0, 8.0, 1.0, 2.0]), 3).tolist()
    [0.5, 1.0, 0.5, 1.0]
    """
    if len(weights) <= count:
        return np.ones(len(weights))
    ordered = np.sort(weights)[::-1]
    # Beside the m heaviest, which are drawn surely, the others share what is left of the count.
    left = np.cumsum(ordered[::-1])[::-1][:count]
    factors = (count - np.arange(count)) / left
    surely = int(np.argmax(factors * ordered[:count] <= 1))
    return np.minimum(weights * factors[surely], 1)


def peak_of(block, start):
    """The largest magnitude of a block; ValueError with the row where there is none."""
    peak = max(float(block.max()), -float(block.min()))
    if (found := None if np.isfinite(peak) else place_not_finite(block)) is not None:
        row, value = found
        raise ValueError(f"table must hold finite values, got {value} in row {start + row}")
    return peak


def ordinary(array: np.ndarray, exponent: int) -> np.ndarray:
    """The array times 2^-exponent."""
    return np.ldexp(array, -exponent) if exponent else array


def squares(rows: np.ndarray, weights: np.ndarray) -> float:
    """`sum_i w_i |A_i|^2`."""
    return float(np.dot(weights.astype(np.float64), np.einsum("iq,iq->i", rows, rows)))


def components(sample: Sample, width: int) -> np.ndarray:
    """The leading eigenvectors (columns, width) of `sum_i w_i A_i^T A_i`."""
    from scipy.linalg import eigh  # here, because it takes most of the time to import ketcore

    rows, weights, _ = sample
    columns = rows.shape[1]
    if len(rows) < columns:
        turned = np.linalg.svd(rows * np.sqrt(weights)[:, None], full_matrices=False)[2]
        return np.ascontiguousarray(turned[:width].T)
    moments = np.zeros((columns, columns))
    step = max(1, _BLOCK // columns)
    for start in range(0, len(rows), step):
        piece = slice(start, start + step)
        wide = rows[piece] * np.sqrt(weights[piece].astype(np.float64))[:, None]
        moments += wide.T @ wide
    vectors = eigh(moments, subset_by_index=[columns - width, columns - 1])[1]
    return np.ascontiguousarray(vectors[:, ::-1]).astype(rows.dtype)
