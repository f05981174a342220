"""Weighted k-means of points that lie in memory, by scikit-learn, and the nearest centres of points.

    min sum_i w_i |x_i - c_code(i)|^2

x_i point i (width,), w_i its weight, c a centre.

`fit_codebooks` of GloVe 6B (50,000 words, 50 columns), eight codebooks of 256 vectors: 7.5 s of processor
time and an error of .3307, where sweeps by products of matrices took 13.5 s and left .3304, means of three
seeds, timed in turn.  SciPy's kmeans2 has no weights.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

# Products of points with all centres, so many numbers at a time: 1 MB of float32, which a cache holds.
_SCORES = 1 << 18
_LEAST_ROWS, _MOST_ROWS = 128, 1 << 10


class Centres(NamedTuple):
    """Centres, and what finds the nearest of them.

    Attributes
    ----------
    values : array, (count, width)
        The centres.
    turned : array, (width, count)
        The same, with the rows of a product of matrices.
    half_squares : array, (count,)
        `|c|^2 / 2`.
    """

    values: np.ndarray
    turned: np.ndarray
    half_squares: np.ndarray


class Clusters(NamedTuple):
    """Centres (count, width), the centre of each point (n,), whether sweeps settled, and their number."""

    centres: np.ndarray
    codes: np.ndarray
    converged: bool
    sweeps: int


def k_means() -> Any:
    """KMeans of scikit-learn; ImportError where that is not installed."""
    try:
        from sklearn.cluster import KMeans  # here, because it is an extra
    except ImportError as error:
        raise ImportError("fit_codebooks needs scikit-learn: pip install 'ketcore[codebooks]'") from error
    return KMeans


def prepared(values: np.ndarray) -> Centres:
    """Centres (count, width) as `nearest` takes them."""
    return Centres(values, np.ascontiguousarray(values.T), np.einsum("kw,kw->k", values, values) / 2)


def piece_rows(count: int) -> int:
    """How many points `nearest` is to take at a time, of so many centres."""
    return min(max(_LEAST_ROWS, _SCORES // count), _MOST_ROWS)


def nearest(points: np.ndarray, centres: Centres) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of each point, the first of several, and its `x c - |c|^2 / 2`, on one thread."""
    scores = points @ centres.turned
    scores -= centres.half_squares
    codes = scores.argmax(axis=1)
    return codes, scores[np.arange(len(points)), codes]


def cluster(
    points: np.ndarray, weights: np.ndarray, count: int, rng: "np.random.Generator", iterations: int
) -> Clusters:
    """Points (n, width) in `count` <= n clusters by weights (n,) >= 0.

    It starts at points that are drawn by their weights: on word vectors k-means++, which takes as long as all
    sweeps, ends lower by two thousandths.  A centre without points moves to one of those that are farthest
    from theirs.
    """
    # The smallest of exponential times by rates is a draw without replacement; a rate of 0 comes last.
    times = rng.exponential(size=len(points)) / weights
    start = points[np.argsort(times, kind="stable")[:count]]
    # Without a state it would draw from NumPy's global one, though it has nothing to draw.
    options = {"init": start, "n_init": 1, "max_iter": iterations, "algorithm": "lloyd", "random_state": 0}
    made = k_means()(count, **options)
    # It sums on each thread and then over threads, in the order in which they end: on one, a seed gives the
    # same centres everywhere.  It warns of fewer different points than centres.
    with (
        threadpool_limits(1, user_api="openmp"),
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        found = made.fit(points, sample_weight=weights if weights.any() else None)
    codes = found.labels_.astype(np.intp)
    return Clusters(found.cluster_centers_, codes, found.n_iter_ < iterations, int(found.n_iter_))
