"""The leading singular triplets of a rearranged matrix: the best sums of Kronecker products of two halves.

    T = sum_k s_k u_k v_k^T,    |T - sum_{k < r} ...|^2 = sum_{k >= r} s_k^2    (Eckart and Young)

Small or nearly full problems go through a full SVD; large ones through a block Lanczos method with thick
restarts, which needs T only times a few tables at a time, and so reads a large file by blocks.
"""

from math import sqrt
from typing import NamedTuple

import array_api_compat
import numpy as np

from ketcore.arithmetic import conjugated
from ketcore.backend import Array, is_complex, to_host
from ketcore.fit.halves import Halves
from ketcore.fit.leaves import epsilon, like

# Up to this smaller side a full SVD takes less time than a few dozen products.
_FULL_SIDE = 400
# Triplets beyond the wanted ones, which let the wanted ones converge as if the gap were at theirs.
_SPARE = 8
_PASSES = 300


class Triplets(NamedTuple):
    """left (r, d_left), right (r, d_right) of orthonormal rows; values (r,) NumPy, descending; `rest`, the
    norm of T without them; and whether the iteration settled."""

    left: Array
    values: np.ndarray
    right: Array
    rest: float
    converged: bool

    def tail(self, rank: int) -> float:
        """The distance of T to its nearest sum of `rank` terms, at most as many as there are triplets."""
        return sqrt(self.rest**2 + float(np.sum(self.values[rank:].astype(np.float64) ** 2)))


def singular_triplets(halves: Halves, rank: int, rng: "np.random.Generator") -> Triplets:
    """At least the leading min(rank, sides) triplets: all of them where T is small.

    cost     a full SVD, or per pass two products of T with rank + 8 tables; memory then
             O(rank (d_left + d_right)) beside T or a block of it
    """
    side = min(halves.shape)
    if halves.held is not None and (side <= _FULL_SIDE or 5 * rank >= side):
        xp = halves.rows.xp
        left, values, right = xp.linalg.svd(halves.held, full_matrices=False)
        return Triplets(xp.permute_dims(left, (1, 0)), to_host(values), right, 0.0, True)
    return _lanczos(halves, min(rank, side), rng)


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


def _lanczos(halves, rank, rng):
    """Block Lanczos on a basis of left tables; each pass adds the residuals of the leading triplets."""
    xp, side = halves.rows.xp, min(halves.shape)
    block = min(rank + _SPARE, side)
    most = max(6 * block, 60)
    start = random_leaves(halves.rows.sample, (block, halves.shape[1]), rng)
    basis = _orthonormal(xp, halves.onto_left(start), None)
    image = halves.onto_right(basis)
    for _ in range(_PASSES):
        turns, values, right = xp.linalg.svd(image, full_matrices=False)
        left = xp.permute_dims(turns, (1, 0)) @ basis
        following = halves.onto_left(right[:block, :])
        error = following - values[:block, None] * left[:block, :]
        worst = float(xp.max(xp.sqrt(xp.sum(xp.abs(error[:rank, :]) ** 2, axis=1))))
        # The value of a triplet is off by the square of its residual, that is by rounding.
        converged = worst <= sqrt(epsilon(values)) * float(values[0]) or basis.shape[0] >= side
        if converged:
            break
        if basis.shape[0] + block > most and most < side:
            basis, image = left[: 2 * block, :], values[: 2 * block, None] * right[: 2 * block, :]
        more = _orthonormal(xp, following, basis)[: side - basis.shape[0], :]
        basis = xp.concat([basis, more], axis=0)
        image = xp.concat([image, halves.onto_right(more)], axis=0)
    left, right = left[:rank, :], right[:rank, :]
    rest = halves.residual(values[:rank, None] * left, right)
    return Triplets(left, to_host(values[:rank]), right, rest, converged)


def _orthonormal(xp, rows, basis):
    """Orthonormal rows that span `rows` less the span of `basis`; twice, since once leaves rounding."""
    for _ in range(2):
        if basis is not None:
            rows = rows - (rows @ xp.permute_dims(conjugated(basis), (1, 0))) @ basis
        rows = xp.permute_dims(xp.linalg.qr(xp.permute_dims(rows, (1, 0)))[0], (1, 0))
    return rows


def random_leaves(sample: Array, shape: tuple[int, ...], rng: "np.random.Generator") -> Array:
    """Standard normal values in the dtype of `sample` and beside it."""
    xp = array_api_compat.array_namespace(sample)
    values = rng.standard_normal(shape)
    if is_complex(xp, sample.dtype):
        values = values + 1j * rng.standard_normal(shape)
    return like(xp, values, sample)
