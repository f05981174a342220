"""Alternating least squares: the leaves of one mode at a time, the others held fixed.

With leaves of norm 1 in all modes but n, the best leaves F (R, d_n) of mode n solve

    Gamma F = M,   Gamma_kl = prod_{m != n} <f_mk, f_ml>,   M_k = A contracted with conj(f_mk), m != n

(Kolda and Bader, "Tensor decompositions and applications", SIAM Review 51, 2009, section 3.4).  Gamma is
made safe by a small multiple of the step: |A - model|^2 + mu |F - F_before|^2 is minimised, which never
increases |A - model|.  The target is contracted with one half of the modes at once, and the modes of the
other half are solved from that.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any, NamedTuple, Protocol

import array_api_compat

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import conjugated, elementwise_product, identity
from ketcore.fit.flat_leaves import epsilon, inner_products, leaf_lengths, zeros_of

# A sweep that gains less than this part of the error ends the iteration, where no other part is given.
_GAIN = 1e-7


class Target(Protocol):
    """What is fitted."""

    groups: Sequence[Sequence[int]]
    norm: float

    def contract(self, group: Sequence[int], leaves: Sequence[AnyArray]) -> AnyArray:
        """(R, d_a, d_b, ...): the target contracted with the conjugate leaves of the modes outside."""
        ...

    def solve(
        self, mode: int, leaves: Sequence[AnyArray], right: AnyArray, before: AnyArray
    ) -> tuple[AnyArray, AnyArray]:
        """The new leaves of `mode` for the contraction `right` (R, d_n), and Gamma times them."""
        ...

    def residual(self, leaves: Sequence[AnyArray]) -> float:
        """The norm of the target minus the terms, without cancellation."""
        ...


class Found(NamedTuple):
    """Leaves, the norm of target minus terms, whether it settled, and the sweeps it took."""

    leaves: list[AnyArray]
    residual: float
    converged: bool
    sweeps: int

    def or_zero(self, norm: float) -> "Found":
        """Leaves of zeros where these are no nearer to a target of this norm: what diverged."""
        if self.residual <= norm:
            return self
        return self._replace(leaves=[zeros_of(leaf) for leaf in self.leaves], residual=norm)

    def or_before(self, before: "Found | None") -> "Found":
        """The fit of fewer terms before where this one is no nearer."""
        if before is None or self.residual < before.residual:
            return self
        return before._replace(sweeps=self.sweeps)


def alternate(
    target: Target,
    leaves: Sequence[AnyArray],
    limit: int,
    progress: Callable[[float], Any],
    gain: float | None = None,
) -> Found:
    """Sweep over the modes until a sweep gains nothing, `limit` times at most.

    Parameters
    ----------
    leaves : sequence of N arrays, (R, d_n)
        To start from.
    progress : callable
        Called after each sweep with the norm of target minus terms, which does not increase.
    gain : float, optional
        The part of the error that a sweep must gain, or be the last; None for 1e-7.
    """
    gain = _GAIN if gain is None else gain
    leaves, scale = _normalised(leaves)
    floor = 4 * epsilon(scale) * target.norm
    error, sweeps, converged = None, 0, False
    while sweeps < limit and not converged:
        before = error
        leaves, scale, squared = _sweep(target, leaves, scale)
        terms = [*leaves[:-1], leaves[-1] * scale]
        # The difference of squares keeps half of the digits or more down to here.
        safe = squared > sqrt(epsilon(scale)) * target.norm**2
        error = sqrt(squared) if safe else target.residual(terms)
        sweeps += 1
        progress(error)
        converged = error <= floor or (before is not None and before - error <= gain * error)
    return Found(terms, target.residual(terms), converged, sweeps)


def gram_of_others(mode: int, leaves: Sequence[AnyArray]) -> AnyArray:
    """Gamma (R, R) of a mode: the elementwise product of the inner products of all others."""
    others = [inner_products(leaf, leaf) for m, leaf in enumerate(leaves) if m != mode]
    return elementwise_product(others)


def damped_solve(gamma: AnyArray, right: AnyArray, before: AnyArray) -> AnyArray:
    """F with Gamma F = right, or near it and near `before` where Gamma is singular.

    `gamma` (..., R, R) is positive semi-definite; `right` and `before` are (..., R, c).
    """
    xp = array_api_compat.array_namespace(gamma)
    rank = gamma.shape[-1]
    eye = identity(rank, gamma)
    trace = xp.sum(xp.abs(gamma * eye), axis=(-2, -1), keepdims=True)
    # A zero trace (a free row, a target of zeros) leaves the leaves as they were.
    size = xp.where(trace > 0, trace, xp.ones_like(trace))
    damping = xp.astype(4 * epsilon(gamma) * size, gamma.dtype)
    return xp.linalg.solve(gamma + damping * eye, right + damping * before)


def _sweep(target, leaves, scale):
    """One update of every mode: leaves of norm 1, the norms (R, 1) of the terms, and the squared error."""
    leaves = list(leaves)
    squared = target.norm**2
    for group in target.groups:
        partial = target.contract(group, leaves)
        for mode in group:
            right = _contracted(partial, group, mode, leaves)
            updated, image = target.solve(mode, leaves, right, leaves[mode] * scale)
            squared = target.norm**2 - _real_sum(updated, 2 * right - image)
            leaves[mode], scale = _unit(updated, leaves[mode])
    return leaves, scale, max(squared, 0.0)


def _contracted(partial, group, mode, leaves):
    """(R, d_n): `partial` (R, d_a, d_b, ...) contracted with the conjugate leaves of its other modes."""
    xp = array_api_compat.array_namespace(partial)
    rank = partial.shape[0]
    # From the last mode to the first, each contracted axis is the last one or the one after the term.
    for m in reversed([m for m in group if m > mode]):
        size = leaves[m].shape[1]
        flat = xp.reshape(partial, (rank, -1, size))
        partial = (flat @ conjugated(leaves[m])[:, :, None])[:, :, 0]
    for m in [m for m in group if m < mode]:
        size = leaves[m].shape[1]
        flat = xp.reshape(partial, (rank, size, -1))
        partial = (conjugated(leaves[m])[:, None, :] @ flat)[:, 0, :]
    return xp.reshape(partial, (rank, leaves[mode].shape[1]))


def _normalised(leaves):
    """Leaves of norm 1, and the norms (R, 1) of the terms."""
    units, scale = [], 1.0
    for leaf in leaves:
        unit, size = _unit(leaf, leaf)
        units.append(unit)
        scale = scale * size
    return units, scale


def _unit(leaves, before):
    """Leaves over their norms, and these (R, 1); a leaf of zeros keeps its direction of before."""
    xp = array_api_compat.array_namespace(leaves)
    sizes = leaf_lengths(leaves)
    alive = sizes > 0
    units = xp.where(alive, leaves / xp.where(alive, sizes, xp.ones_like(sizes)), before)
    return units, xp.astype(sizes, leaves.dtype, copy=False)


def _real_sum(left, right):
    xp = array_api_compat.array_namespace(left)
    total = xp.sum(conjugated(left) * right)
    return float(xp.real(total)) if xp.isdtype(left.dtype, "complex floating") else float(total)
