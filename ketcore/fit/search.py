"""How many terms, and from where: a closed form for two modes, least squares from several starts beyond."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ketcore.array_types import AnyArray
from ketcore.fit.als import Found, alternate
from ketcore.fit.flat_leaves import epsilon, like
from ketcore.fit.rearranged import Halves
from ketcore.fit.result import Options
from ketcore.fit.singular import (
    Triplets,
    least_rank,
    numerical_rank,
    random_values,
    singular_triplets,
)
from ketcore.fit.starts import starts
from ketcore.fit.targets import DenseTarget, WeightedTarget


def fit_halves(halves: Halves, options: Options, cap: int | None = None) -> Found:
    """The leaves (R, p_n q_n) nearest to the matrix of `halves`, which is scaled to a norm near 1.

    `cap` is a number of terms that is known to be exact; by default that of the smaller unfoldings.
    """
    if len(halves.row_dims) == 2 and halves.roots is None:
        return _two_modes(halves, options)
    cap = min(options.rank or _exact_rank(halves), cap or _exact_rank(halves))
    target = DenseTarget(halves) if halves.roots is None else WeightedTarget(halves)
    if options.tol is None:
        triplets = singular_triplets(halves, cap, options.rng, options.gain)
        begin = starts(halves, triplets, cap, options.restarts, options.rng)
        return best_of(target, begin, options, Progress(options.callback, halves.norm), 0.0)
    return _increasing(halves, target, options, cap)


@dataclass
class Progress:
    """Counts sweeps over all starts and tells the caller of them."""

    callback: Callable[[int, float], Any] | None
    norm: float
    sweeps: int = 0

    def __call__(self, residual: float) -> None:
        """One more sweep, which left this residual."""
        self.sweeps += 1
        if self.callback is not None:
            self.callback(self.sweeps, residual / self.norm)


def best_of(target: Any, begin: Any, options: Options, progress: Progress, goal: float) -> Found:
    """The best fit from the starts `begin`; the first with a residual of at most `goal`, or of rounding."""
    best: Any = None
    for leaves in begin:
        found = alternate(target, leaves, options.iterations, progress, options.gain).or_zero(target.norm)
        if best is None or found.residual < best.residual:
            best = found
        if best.residual <= max(goal, 64 * epsilon(leaves[0]) * target.norm):
            break
    return best._replace(sweeps=progress.sweeps)


def _two_modes(halves, options):
    """The optimum, by the leading singular triplets."""
    cap = options.rank or min(halves.shape)
    if options.tol is None:
        rank, triplets = cap, singular_triplets(halves, cap, options.rng, options.gain)
    else:
        rank, triplets = least_rank(halves, options.tol, cap, options.rng)
    rank = min(rank, numerical_rank(halves, triplets.values))
    leaves = _two_leaves(halves, triplets, rank)
    return Found(leaves, DenseTarget(halves).residual(leaves), triplets.converged, 0)


def _two_leaves(halves: Halves, triplets: Triplets, rank: int) -> list[AnyArray]:
    """The leaves of two modes of the leading triplets; the left ones carry the singular values."""
    values = like(halves.rows.xp, triplets.values[:rank], halves.rows.sample)
    tables = (triplets.left[:rank, :] * values[:, None], triplets.right[:rank, :])
    return [halves.by_modes(table, side) for side, table in enumerate(tables)]


def _exact_rank(halves):
    """A number of terms that suffices: one per element of all modes but the widest, and per row of it."""
    dims = [p * q for p, q in zip(halves.row_dims, halves.col_dims, strict=True)]
    total = 1
    for dim in sorted(dims)[:-1]:
        total *= dim
    return total


def _increasing(halves, target, options, cap):
    """The fit of the least rank found to reach the tolerance, or of the rank `cap`."""
    progress = Progress(options.callback, halves.norm)
    goal, rng = options.tol * halves.norm, options.rng
    # No sum of fewer terms than the singular values need comes near enough.
    rank, triplets = (1, None) if halves.roots is not None else least_rank(halves, options.tol, cap, rng)
    found = None
    while True:
        if triplets is None or len(triplets.values) < min(rank, *halves.shape):
            triplets = singular_triplets(halves, min(cap, 2 * rank), rng, options.gain)
        begin = _grown(halves, triplets, rank, found, options)
        found = best_of(target, begin, options, progress, goal).or_before(found)
        if found.residual <= goal or rank >= cap:
            return found
        rank += 1


def _grown(halves, triplets, rank, found, options):
    """Starts of one more term: the best fit before and a random term, and all others."""
    if found is not None:
        xp = halves.rows.xp
        more = [random_values(leaf, (1, leaf.shape[1]), options.rng) for leaf in found.leaves]
        yield [xp.concat(pair, axis=0) for pair in zip(found.leaves, more, strict=True)]
    yield from starts(halves, triplets, rank, options.restarts, options.rng)
