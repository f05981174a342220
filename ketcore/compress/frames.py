"""What every way to compress a table is told: its rows, their weights, its spectrum, the bytes there are.

    M = sum_i w_i x_i^T x_i = V diag(e) V^T,    e_1 >= e_2 >= ...

The share of energy in r components is (e_1 + ... + e_r) / (e_1 + ... + e_Q).
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ketcore.compress.table_files import Table
from ketcore.fit.samples import Sample, draw
from ketcore.fit.sources import open_rows

# Vectors of the largest codebook, for which the sample is to have rows enough.
_ENTRIES = 256
_BLOCK = 1 << 21
# What float16 stores well: with some room to both sides.
_LEAST, _MOST = 2.0**-8, 2.0**12


class Frame(NamedTuple):
    """A table as ways to compress it see it.

    table    the table of the file
    shape    (words, columns)
    weights  (words,), those of rows, 0 where a word is held out
    sample   rows that stand for all that are not held out
    vectors  (columns, columns), the eigenvectors V
    energy   (columns,), the eigenvalues e, with 1 in sum
    mean     (columns,), the weighted mean of rows
    unit     the weighted root of the mean square of numbers
    half     the dtype of decoders and codebooks: float16, or float32 where numbers leave its range
    tick     is called with how many rows were done
    """

    table: Table
    shape: tuple[int, int]
    weights: np.ndarray
    sample: Sample
    vectors: np.ndarray
    energy: np.ndarray
    mean: np.ndarray
    unit: float
    half: Any
    tick: Callable[[int], None]

    @property
    def dense_bytes(self) -> int:
        """What the table takes in float32."""
        return 4 * self.shape[0] * self.shape[1]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in float32, block by block."""
        words, columns = self.shape
        step = max(1, _BLOCK // columns)
        for start in range(0, words, step):
            here = slice(start, min(start + step, words))
            yield here, self.table.rows(here)
            self.tick(here.stop - here.start)


def _moments(sample):
    """`sum_i w_i x_i^T x_i` of the sample in float64, block by block."""
    columns = sample.rows.shape[1]
    found, step = np.zeros((columns, columns)), max(1, _BLOCK // columns)
    for start in range(0, len(sample.rows), step):
        here = slice(start, start + step)
        wide = sample.rows[here] * np.sqrt(sample.weights[here].astype(np.float64))[:, None]
        found += wide.T @ wide
    return found


def framed(
    table: Table, weights: np.ndarray, rng: np.random.Generator, tick: Callable[[int], None] = lambda _: None
) -> Frame:
    """The frame of a table whose weights (words,) are at least 0, and not all of them 0."""
    words, columns = table.array.shape
    found = draw(open_rows(table.array, "table"), np.maximum(weights, 1e-12), _ENTRIES, rng)
    kept = found.weights > 1e-9
    rows = np.ldexp(found.rows[kept], found.exponent).astype(np.float32)
    sample = Sample(rows, found.weights[kept], 0)
    energy, vectors = np.linalg.eigh(_moments(sample))
    total = float(sample.weights.sum(dtype=np.float64))
    energy, vectors = np.maximum(energy[::-1], 0), np.ascontiguousarray(vectors[:, ::-1])
    unit = float(np.sqrt(energy.sum() / (total * columns))) or 1.0
    mean = (sample.weights.astype(np.float64) @ rows / total).astype(np.float32)
    peak = float(np.abs(rows).max())
    half = np.dtype(np.float16 if unit > _LEAST and peak < _MOST else np.float32)
    energy = energy / (energy.sum() or 1)
    return Frame(table, (words, columns), weights, sample, vectors, energy, mean, unit, half, tick)
