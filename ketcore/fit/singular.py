"""The leading singular triplets of a rearranged matrix: the best sums of Kronecker products of two halves.

    T = sum_k s_k u_k v_k^T,    |T - sum_{k < r} ...|^2 = sum_{k >= r} s_k^2    (Eckart and Young)

Small or nearly full problems go through a full SVD; large ones through a block Lanczos method with thick
restarts, which needs T only times a few tables at a time, and so reads a large file by blocks.  ARPACK, with
a single vector, reads it five to twelve times as often, and misses copies of repeated singular values.

The last pass gives the left tables w_k = T conj(v_k) of orthonormal right ones, with which

    |T - sum_{k < r} w_k v_k^T|^2 = |T|^2 - sum_{k < r} |w_k|^2

whatever the v_k are: settled or not, a sum is no worse than one of fewer terms, nor than zero.
"""

from math import sqrt
from typing import NamedTuple

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.namespaces import is_complex, to_host
from ketcore.fit.flat_leaves import epsilon, like
from ketcore.fit.rearranged import Halves

# Up to this smaller side a full SVD takes less time than a few dozen products.
_FULL_SIDE = 400
# Triplets beyond the wanted ones, which let the wanted ones converge as if the gap were at theirs.
_SPARE = 8
_PASSES = 300


class Triplets(NamedTuple):
    """The leading singular triplets of T, and what it is without them.

    Attributes
    ----------
    left : array, (r, d_left)
        Its rows are orthonormal.
    values : NumPy array, (r,)
        Descending.
    right : array, (r, d_right)
        Its rows are orthonormal.
    rest : float
        The norm of T without them.
    converged : bool
        Whether the iteration settled.
    """

    left: AnyArray
    values: np.ndarray
    right: AnyArray
    rest: float
    converged: bool

    def tail(self, rank: int) -> float:
        """The distance of T to its nearest sum of `rank` terms, at most as many as there are triplets."""
        return sqrt(self.rest**2 + float(np.sum(self.values[rank:].astype(np.float64) ** 2)))


def singular_triplets(
    halves: Halves, rank: int, rng: "np.random.Generator", gain: float | None = None
) -> Triplets:
    """At least the leading min(rank, sides) triplets: all of them where T is small.

    Parameters
    ----------
    gain : float, optional
        A pass that lessens the distance of T to the sum by less than this part of it is the last; None: the
        last is one after which the triplets have settled.

    Notes
    -----
    Cost: a full SVD, or per pass two products of T with rank + 8 tables; memory then O(rank (d_left +
    d_right)) beside T or a block of it.
    """
    side = min(halves.shape)
    if halves.held is not None and (side <= _FULL_SIDE or 5 * rank >= side):
        xp = halves.rows.xp
        left, values, right = xp.linalg.svd(halves.held, full_matrices=False)
        return Triplets(xp.permute_dims(left, (1, 0)), to_host(values), right, 0.0, True)
    return _lanczos(halves, min(rank, side), rng, gain)


def least_rank(halves: Halves, tol: float, cap: int, rng: "np.random.Generator") -> tuple[int, Triplets]:
    """The least number of terms in [1, cap] whose distance to T is at most `tol` times its norm, or `cap`."""
    rank = min(cap, 4)
    while True:
        found = singular_triplets(halves, rank, rng)
        count = min(cap, len(found.values))
        enough = [r for r in range(1, count + 1) if found.tail(r) <= tol * halves.norm]
        if enough or count >= min(cap, *halves.shape):
            return (enough[0] if enough else count), found
        rank = min(cap, 2 * count)


def numerical_rank(halves: Halves, values: np.ndarray) -> int:
    """How many singular values are above the rounding of the largest; at least one."""
    floor = max(halves.shape) * epsilon(halves.rows.sample) * float(values[0])
    return max(1, int(np.sum(values > floor)))


def _lanczos(halves, rank, rng, gain):
    """Block Lanczos on a basis of left tables; each pass adds the residuals of the leading triplets."""
    xp, side = halves.rows.xp, min(halves.shape)
    block = min(rank + _SPARE, side)
    most = max(6 * block, 60)
    start = random_values(halves.rows.sample, (block, halves.shape[1]), rng)
    basis = _orthonormal(xp, halves.onto_left(start))
    image, before = halves.onto_right(basis), 0.0
    for _ in range(_PASSES):
        turns, values, right = xp.linalg.svd(image, full_matrices=False)
        left = xp.permute_dims(turns, (1, 0)) @ basis
        following = halves.onto_left(right[:block, :])
        caught = float(np.sum(to_host(values[:rank]).astype(np.float64) ** 2))
        converged = _settled(halves, following[:rank, :], values, left) or basis.shape[0] >= side
        if converged or (gain is not None and _gains_little(halves, before, caught, gain)):
            converged = True
            break
        before = caught
        if basis.shape[0] + block > most and most < side:
            basis, image = left[: 2 * block, :], values[: 2 * block, None] * right[: 2 * block, :]
        known = basis.shape[0]
        stop = min(side, known + block)
        more = _orthonormal(xp, xp.concat([basis, following], axis=0))[known:stop, :]
        basis = xp.concat([basis, more], axis=0)
        image = xp.concat([image, halves.onto_right(more)], axis=0)
    turns, values, left = xp.linalg.svd(following, full_matrices=False)
    left, right = left[:rank, :], (xp.permute_dims(turns, (1, 0)) @ right[:block, :])[:rank, :]
    rest = halves.residual(values[:rank, None] * left, right)
    return Triplets(left, to_host(values[:rank]), right, rest, converged)


def _settled(halves, following, values, left):
    """Whether the residuals of the triplets are small: the value of one is off by their square."""
    xp, count = halves.rows.xp, following.shape[0]
    values = values[:count]
    error = following - values[:, None] * left[:count, :]
    # What is left of the largest value is rounding, in the others too.
    floor = sqrt(epsilon(values)) * values + sqrt(max(halves.shape)) * epsilon(values) * values[0]
    return bool(xp.all(xp.sqrt(xp.sum(xp.abs(error) ** 2, axis=1)) <= floor))


def _gains_little(halves, before, caught, gain):
    """Whether a pass lessened the distance, of the square |T|^2 - caught, by no more than `gain` of it."""
    rest = halves.norm**2 - caught
    # What is left of a difference of squares below that is rounding.
    return rest > sqrt(epsilon(halves.rows.sample)) * caught and caught - before <= 2 * gain * rest


def _orthonormal(xp, rows):
    """Orthonormal rows, the first k of which span the first k of `rows`, for every k.

    Householder's reflections keep them so where `rows` depend on each other.  Projections do not: twice is
    enough only for what is more than rounding, and residuals of triplets that have settled are not.
    """
    return xp.permute_dims(xp.linalg.qr(xp.permute_dims(rows, (1, 0)))[0], (1, 0))


def random_values(sample: AnyArray, shape: tuple[int, ...], rng: "np.random.Generator") -> AnyArray:
    """Standard normal values in the dtype of `sample` and beside it."""
    xp = array_api_compat.array_namespace(sample)
    values = rng.standard_normal(shape)
    if is_complex(xp, sample.dtype):
        values = values + 1j * rng.standard_normal(shape)
    return like(xp, values, sample)
