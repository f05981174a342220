"""The ways to make a table small, each with the sizes that so many bytes allow, and two controls.

A way makes one object that `save` writes, `load` reads, and `rows` looks up.  A control shows what a measure
says of a table that nobody wants: it is measured, and never taken.

The nearest Kronecker matrix is not among them.  Of GloVe's vectors, 8 to 200 times smaller, it kept less than
the least of what `verdicts` calls worth having, also in the order of `vocabulary_permutation`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ketcore.compress.frames import Frame
from ketcore.compress.measures import Reader
from ketcore.compress.narrow_tables import low_rank_table, narrow_bytes, narrow_table, narrow_width
from ketcore.compress.product_tables import product_sizes, product_table
from ketcore.fit.codebooks import CodebookSizes, fit_codebooks
from ketcore.objects.codebook_table import CodebookTable

# Each code of a word takes a run of k-means to fit.
_MOST_CODES, _SWEEPS = 64, 12
# Numbers of rows that differ are sums of two of these, which have no common divisor.
_RANDOM = 1021, 1031


class Method(NamedTuple):
    """A way to compress a table.

    name   what the command calls it
    about  what is stored, in a line
    sizes  of a frame and bytes, the sizes of the table; None where nothing fits
    make   of a frame, sizes and a Generator, the table
    """

    name: str
    about: str
    sizes: Callable[[Frame, float], Any]
    make: Callable[[Frame, Any, np.random.Generator], Any]


def _narrow(bits):
    def sizes(frame, budget):
        width, block = narrow_width(frame, bits, budget)
        return (width, block) if width else None

    def make(frame, found, rng):
        return narrow_table(frame, bits, *found, rng)

    about = f"rows of {bits} bits a number, of fewer columns and a decoder where all do not fit"
    return Method(f"int{bits}", about, sizes, make)


def _low_rank_sizes(frame, budget):
    fits = (r for r in range(min(frame.shape) - 1, 0, -1) if _low_rank_bytes(frame, r) <= budget)
    return next(fits, None)


def _low_rank_bytes(frame, width):
    return narrow_bytes(frame, 8 * frame.half.itemsize, width, width)


def _codebook_sizes(frame, budget):
    """Those that lose least by a rule of thumb: what is left of the columns, and of them after all bits."""
    words, columns = frame.shape
    size, found = frame.half.itemsize, []
    widths = {min(width, columns, words) for width in (16, 32, 64, 128, 256, columns)}
    for width in widths:
        kept, decoder = frame.energy[:width].sum(), size * width * columns * (width < columns)
        for bits in (8, 6, 4):
            each = words + size * width * 2**bits
            count = min(int((budget - decoder) // each), _MOST_CODES)
            if count >= 1 and 2**bits <= words:
                lost = 1 - kept + kept * 2.0 ** (-2 * bits * count / width)
                found.append((lost, CodebookSizes(count, 2**bits, width)))
    return min(found)[1] if found else None


def _codebooks(frame, sizes, rng):
    weights = np.maximum(frame.weights, 1e-12)
    options: Any = {"weights": weights, "iterations": _SWEEPS, "rng": rng}
    found = fit_codebooks(frame.table.array, *sizes, callback=lambda *_: frame.tick(0), **options).value
    books = [book.astype(frame.half) for book in found.codebooks]
    decoder = None if found.decoder is None else found.decoder.astype(frame.half)
    frame.tick(frame.shape[0])
    return CodebookTable(books, found.codes, None, decoder)


METHODS = (
    _narrow(8),
    _narrow(4),
    _narrow(2),
    Method("pq", "pieces of rows, each one of 256 vectors of its own codebook", product_sizes, product_table),
    Method("codebooks", "sums of one vector of each codebook, in components", _codebook_sizes, _codebooks),
    Method(
        "lowrank",
        "the leading components of rows in float16",
        _low_rank_sizes,
        lambda *a: low_rank_table(*a[:2]),
    ),
)


def pruned_rows(frame: Frame, budget: float) -> Reader:
    """The rows of as many words as fit in float16, the heaviest; the mean for all others."""
    words, columns = frame.shape
    each = columns * frame.half.itemsize + 4
    kept = np.zeros(words, bool)
    kept[np.argsort(-frame.weights, kind="stable")[: int(budget // each)]] = True

    def read(ids):
        return np.where(kept[ids][:, None], frame.table.rows(ids), frame.mean)

    return read


def random_rows(frame: Frame, rng: np.random.Generator) -> Reader:
    """Random numbers of the size of those of the table, the same for a word each time."""
    left, right = [rng.standard_normal((size, frame.shape[1]), np.float32) for size in _RANDOM]
    left, right = left * np.float32(frame.unit), right * np.float32(frame.unit)
    return lambda ids: (left[ids % _RANDOM[0]] + right[ids % _RANDOM[1]]) / np.float32(2**0.5)


def largest_ratio(frame: Frame, methods: tuple[Method, ...]) -> float:
    """The largest ratio that one of these reaches, by a whole number of bytes."""
    low, high = 0, 2 * frame.dense_bytes + 4096
    while high - low > 1:
        middle = (low + high) // 2
        if any(method.sizes(frame, middle) is not None for method in methods):
            high = middle
        else:
            low = middle
    return frame.dense_bytes / high
