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
        constant = np.ptp(found) == 0 or np.ptp(self.cosines) == 0
        correlation = 0.0 if constant else float(spearmanr(self.cosines, found).statistic)
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
    best, ids = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    for block in pieces(np.arange(words), lambda ids: np.empty((1, max(len(queries), asked.shape[1])))):
        scores = asked @ _unit(read(block)).T
        here = np.flatnonzero((queries >= block[0]) & (queries <= block[-1]))
        scores[here, queries[here] - block[0]] = -np.inf
        best = np.concatenate([best, scores], axis=1)
        ids = np.concatenate([ids, np.broadcast_to(block, scores.shape)], axis=1)
        # A stable order: of equal scores, as those of zeros, the first words are taken.
        order = np.argsort(-best, axis=1, kind="stable")[:, :count]
        best, ids = np.take_along_axis(best, order, 1), np.take_along_axis(ids, order, 1)
    return ids
