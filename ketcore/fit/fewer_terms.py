"""The nearest sum of fewer terms to a sum of terms (R, d_n), on leaves.

The leaves of each mode span at most R dimensions: in orthonormal bases of these spans the sum is a small core
of the same terms, at the same distances.  Where the core is small enough it is multiplied out, and fitted
as a dense array; otherwise by inner products of leaves alone.
"""

from collections.abc import Sequence
from math import isfinite, prod
from typing import Any

import array_api_compat

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.elementary import elementwise_product
from ketcore.arrays.namespaces import device_of, index_dtype, to_host
from ketcore.fit.als import Found
from ketcore.fit.flat_leaves import (
    epsilon,
    kron_of_leaves,
    leaf_lengths,
    length,
    terms_norm,
    wide_modes,
)
from ketcore.fit.merge import merged_terms
from ketcore.fit.rearranged import Halves
from ketcore.fit.result import Options
from ketcore.fit.search import Progress, best_of, fit_halves
from ketcore.fit.singular import random_values
from ketcore.fit.sources import open_rows
from ketcore.fit.targets import TermsTarget
from ketcore.shapes import halves_split

# Elements of a core that is multiplied out: 16 MB of float64.
_CORE = 1 << 21


def fit_terms(leaves: Sequence[AnyArray], options: Options) -> Found:
    """Fewer terms near the sum of `leaves` (R, d_n); `residual` is relative to the norm of the sum.

    Raises
    ------
    ValueError
        Unless the leaves are finite.
    """
    if not all(isfinite(length(leaf)) for leaf in leaves):
        raise ValueError("x must hold finite values, got NaN or infinity")
    xp, rank = array_api_compat.array_namespace(*leaves), leaves[0].shape[0]
    if rank == 0:
        return _nothing(xp, leaves)
    units, peaks = scale.unit_leaves(leaves)
    terms = merged_terms(units)
    # A sum that is less than the rounding of its terms has no digits to keep.
    norm = terms_norm(terms) if terms[0].shape[0] else 0.0
    largest = float(xp.max(elementwise_product([leaf_lengths(unit) for unit in units])))
    if norm <= 4 * epsilon(units[0]) * rank * largest:
        return _nothing(xp, leaves)
    found = _fewer(xp, terms, norm, options)
    scaled = [leaf * peak for leaf, peak in zip(found.leaves, peaks, strict=True)]
    return found._replace(leaves=scale.balanced(scaled))


def _nothing(xp, leaves):
    """One term of zeros."""
    device = device_of(leaves[0])
    zeros = [xp.zeros((1, leaf.shape[1]), dtype=leaf.dtype, device=device) for leaf in leaves]
    return Found(zeros, 0.0, True, 0)


def _fewer(xp, terms, norm, options):
    """The fit of merged terms: themselves where they are few enough, else of their core."""
    count, order = terms[0].shape[0], len(terms)
    if order == 1:
        return Found([xp.sum(terms[0], axis=0, keepdims=True)], 0.0, True, 0)
    exact = Found(terms, 0.0, True, 0)
    allowed = options.rank or count
    if count == 1 or (order > 2 and options.tol is None and allowed >= count):
        return exact
    bases, reduced = zip(*(_reduced(xp, leaf) for leaf in terms), strict=True)
    # At the number of terms that there are, the terms themselves are exact.
    searched = options._replace(rank=min(allowed, count if order == 2 else count - 1))
    small = order == 2 or prod(leaf.shape[1] for leaf in reduced) <= _CORE
    found = (_by_core if small else _by_products)(xp, reduced, norm, searched)
    if order > 2 and options.tol is not None and found.residual > options.tol and allowed >= count:
        return exact._replace(sweeps=found.sweeps)
    return found._replace(leaves=[leaf @ basis for leaf, basis in zip(found.leaves, bases, strict=True)])


def _reduced(xp, leaf):
    """An orthonormal basis (r, d) of the span of leaves (R, d), and the leaves (R, r) in it."""
    left, values, right = xp.linalg.svd(leaf, full_matrices=False)
    floor = max(leaf.shape) * epsilon(leaf) * values[0]
    count = max(1, int(xp.sum(xp.astype(values > floor, index_dtype(xp)))))
    return right[:count, :], left[:, :count] * values[None, :count]


def _by_core(xp, reduced, norm, options):
    """The fit of the core multiplied out, a matrix of one column."""
    kept = wide_modes([leaf.shape[1] for leaf in reduced], 2)
    if len(kept) < len(reduced):
        # Leaves of one element only scale their terms.
        scale = elementwise_product([leaf for n, leaf in enumerate(reduced) if n not in kept])
        found = _by_core(xp, [reduced[kept[0]] * scale, *(reduced[n] for n in kept[1:])], norm, options)
        leaves = dict(zip(kept, found.leaves, strict=True))
        one = xp.ones_like(found.leaves[0][:, :1])
        return found._replace(leaves=[leaves.get(n, one) for n in range(len(reduced))])
    dims = tuple(leaf.shape[1] for leaf in reduced)
    half = halves_split(dims)
    tables = kron_of_leaves(xp, reduced[:half]), kron_of_leaves(xp, reduced[half:])
    core = xp.reshape(xp.permute_dims(tables[0], (1, 0)) @ tables[1], (prod(dims), 1))
    halves = Halves(open_rows(core), dims, (1,) * len(dims)).scaled_to_one()
    found = fit_halves(halves, options)
    leaves = [found.leaves[0] / halves.factor, *found.leaves[1:]]
    return found._replace(leaves=leaves, residual=found.residual / halves.norm)


def _by_products(xp, reduced, norm, options):
    """The fit by inner products of leaves: from the largest terms, and from random mixes of all."""
    target, progress = TermsTarget(reduced), Progress(options.callback, norm)
    found: Any = None
    goal = (options.tol or 0.0) * norm
    for rank in (options.rank,) if options.tol is None else range(1, options.rank + 1):
        begin = _mixes(xp, reduced, rank, found, options)
        found = best_of(target, begin, options, progress, goal).or_before(found)
        if found.residual <= goal:
            break
    return found._replace(residual=found.residual / norm)


def _mixes(xp, reduced, rank, found, options):
    """Starts of `rank` terms: the fit of one term less and one more, the largest terms, random mixes."""
    count = reduced[0].shape[0]
    shares = [random_values(reduced[0], (rank, count), options.rng) for _ in range(options.restarts)]
    if found is not None:
        share = random_values(reduced[0], (1, count), options.rng)
        yield [xp.concat([a, share @ b], axis=0) for a, b in zip(found.leaves, reduced, strict=True)]
    sizes = to_host(elementwise_product([leaf_lengths(leaf) for leaf in reduced]))[:, 0]
    largest = sorted(range(count), key=lambda k: -sizes[k])[:rank]
    yield [xp.stack([leaf[k, :] for k in largest]) for leaf in reduced]
    for share in shares:
        yield [share @ leaf for leaf in reduced]
