"""How near a table is to another one: in its numbers, in its cosines, in who is next to whom.

    error       sqrt(sum_i w_i |x_i - y_i|^2 / sum_i w_i |x_i|^2), x_i, y_i rows, w_i the weight of a word
    cosines     Spearman's rank correlation of the cosines of drawn pairs of words
    neighbours  the share of the 10 nearest words by cosine that stay, over drawn words

Tables are read by blocks of rows.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

Reader = Callable[[np.ndarray], np.ndarray]

# Drawn so many times: both shares are then known to about one hundredth.
PAIRS, QUERIES, NEAREST = 20_000, 300, 10
# Numbers of a block of rows, and of scores: 16 MB of float32.
_BLOCK = 1 << 22
# Ids stay below it: the lower half of an integer of 64 bits, whose upper half is a score.
_MOST_WORDS = (1 << 32) - 1


class Measures(NamedTuple):
    """How near a table is to the one that it stands for: 0, 1 and 1 are as near as can be."""

    error: float
    cosines: float
    neighbours: float


class Probe:
    """What is drawn of a table once, and asked of every table that may stand for it.

    Parameters
    ----------
    read : callable
        Of an array of ids, gives rows (n, columns) in float32.
    words : int
        How many rows there are.
    weights : array, (words,)
        Those of rows, above 0.
    asked : array of ints
        The words that errors are of, and that pairs and queries are drawn of.
    rng : Generator
        What draws.
    """

    def __init__(
        self, read: Reader, words: int, weights: np.ndarray, asked: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.read, self.words, self.weights, self.asked = read, words, weights, asked
        self.pairs = rng.choice(asked, (2, PAIRS))
        self.queries = np.sort(rng.choice(asked, min(QUERIES, len(asked)), replace=False))
        self.cosines = _cosines(read, self.pairs)
        self.nearest = _nearest(read, words, self.queries)

    def measure(self, read: Reader) -> Measures:
        """The measures of a table that is read in the same way."""
        from scipy.stats import spearmanr  # here, because it takes a second to import

        gap = norm = 0.0
        for ids in pieces(self.asked, self.read):
            rows, found, weights = self.read(ids), read(ids), self.weights[ids]
            gap += float(weights @ np.square(rows - found, dtype=np.float64).sum(axis=1))
            norm += float(weights @ np.square(rows, dtype=np.float64).sum(axis=1))
        found = _cosines(read, self.pairs)
        flat = np.ptp(found) == 0, np.ptp(self.cosines) == 0
        # One value alone has no order: all of it stays where the table has none either.
        correlation = float(all(flat) or (not any(flat) and spearmanr(self.cosines, found).statistic))
        nearest = _nearest(read, self.words, self.queries)
        kept = [len(np.intersect1d(*both)) for both in zip(self.nearest, nearest, strict=True)]
        return Measures((gap / norm) ** 0.5 if norm else 0.0, correlation, sum(kept) / self.nearest.size)


def pieces(ids: np.ndarray, read: Reader) -> Iterator[np.ndarray]:
    """The ids in pieces whose rows are a block."""
    step = max(1, _BLOCK // read(ids[:1]).shape[1])
    for start in range(0, len(ids), step):
        yield ids[start : start + step]


def _unit(rows):
    """Rows of length one; zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _cosines(read, pairs):
    """Cosines of pairs of words (2, n)."""
    step = max(1, _BLOCK // read(pairs[0, :1]).shape[1])
    found = [
        np.einsum("iq,iq->i", *[_unit(read(ids[start : start + step])) for ids in pairs])
        for start in range(0, pairs.shape[1], step)
    ]
    return np.concatenate(found)


def _nearest(read, words, queries):
    """The nearest words of each query, without itself: (queries, at most NEAREST)."""
    asked, count = _unit(read(queries)), min(NEAREST, words - 1)
    best = np.zeros((len(queries), 0), np.int64)
    for block in pieces(np.arange(words), lambda ids: np.empty((1, max(len(queries), asked.shape[1])))):
        scores = asked @ _unit(read(block)).T
        here = np.flatnonzero((queries >= block[0]) & (queries <= block[-1]))
        scores[here, queries[here] - block[0]] = -np.inf
        if best.shape[1] == count:
            # Of later words those alone that are nearer to some query than the last that it has.
            least = _scores(best.min(axis=1))[:, None]
            some = np.flatnonzero((scores > least).any(axis=0))
            scores, block = scores[:, some], block[some]
        best = np.concatenate([best, _keys(scores, block)], axis=1)
        if best.shape[1] > count:
            best = np.partition(best, -count, axis=1)[:, -count:]
    return _MOST_WORDS - (best & _MOST_WORDS)


def _keys(scores, ids):
    """Integers in the order of scores, and of equal ones, as those of zeros, the first ids the largest.

    No two are equal, so that the largest of them are found without an order of all.
    """
    # One zero: that of the other sign is another integer.
    ordered = _flipped((scores + np.float32(0)).view(np.int32))
    return ordered.astype(np.int64) << 32 | (_MOST_WORDS - ids)


def _scores(keys):
    """The scores that are in keys."""
    return _flipped((keys >> 32).astype(np.int32)).view(np.float32)


def _flipped(bits):
    """Bits of float32 as integers in the order of the numbers, and back: negative ones run the other way."""
    return np.where(bits < 0, bits ^ np.int32(_MOST_WORDS >> 1), bits)
