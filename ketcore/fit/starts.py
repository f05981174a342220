"""Where alternating least squares begins: nested SVDs, joint diagonalisation, random leaves.

The SVD of the rearranged matrix gives the terms of two halves; a nested SVD splits each half of a term into
its leaves.  Where the halves of several terms are mixed, as the singular vectors of a sum of three modes
are, the terms are separated by the eigenvectors of X Y^-1 with X and Y two random combinations of slices:
exact for a matrix that is a sum of so few terms (Leurgans, Ross and Abel, "A decomposition for three-way
arrays", SIAM J. Matrix Anal. Appl. 14, 1993).
"""

from collections.abc import Iterator
from math import prod

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import conjugated
from ketcore.arrays.namespaces import is_complex, to_host
from ketcore.fit.flat_leaves import like
from ketcore.fit.rearranged import Halves
from ketcore.fit.singular import Triplets, random_values


def starts(
    halves: Halves, triplets: Triplets, rank: int, restarts: int, rng: "np.random.Generator"
) -> Iterator[list[AnyArray]]:
    """Leaves (rank, p_n q_n) to begin with, the most promising first."""
    count = min(rank, len(triplets.values))
    joint = _joint(halves, triplets, rank, rng) if count == rank else None
    if joint is not None:
        yield joint
    found = nested(halves, triplets, 0, count)
    dims = [leaf.shape[1] for leaf in found]
    yield _with_random(halves, found, rank - count, rng)
    for _ in range(restarts):
        yield [random_values(halves.rows.sample, (rank, dim), rng) for dim in dims]


def nested(halves: Halves, triplets: Triplets, first: int, stop: int) -> list[AnyArray]:
    """The singular triplets first..stop, each half of each the nearest single product: N arrays (r, d_n)."""
    xp = halves.rows.xp
    left, right = triplets.left[first:stop, :], triplets.right[first:stop, :]
    values = like(xp, triplets.values[first:stop], halves.rows.sample)
    left = halves.by_modes(left * values[:, None], 0)
    return _products(xp, left) + _products(xp, halves.by_modes(right, 1))


def _with_random(halves, leaves, count, rng):
    """The leaves of `count` more terms, random."""
    if not count:
        return leaves
    xp = halves.rows.xp
    more = [random_values(leaf, (count, leaf.shape[1]), rng) for leaf in leaves]
    return [xp.concat(pair, axis=0) for pair in zip(leaves, more, strict=True)]


def _products(xp, tensors):
    """For each tensor (R, d_a, d_b, ...) the leaves of a product near it, one mode after the other."""
    found, rest = [], tensors
    while rest.ndim > 2:
        rank, size, *others = rest.shape
        left, values, right = xp.linalg.svd(xp.reshape(rest, (rank, size, prod(others))), full_matrices=False)
        found.append(left[:, :, 0])
        rest = xp.reshape(values[:, 0, None] * right[:, 0, :], (rank, *others))
    return [*found, rest]


def _joint(halves, triplets, rank, rng):
    """Leaves that are exact for a sum of `rank` generic terms, by the widest mode of a half with two or more.

    None where no mode of such a half, or what remains of the half, is at least as wide as the rank.
    """
    xp = halves.rows.xp
    tables = (triplets.left[:rank, :], triplets.right[:rank, :])
    values = like(xp, triplets.values[:rank], halves.rows.sample)[:, None]
    shapes = [halves.by_modes(table, side).shape[1:] for side, table in enumerate(tables)]
    wide = [
        (min(dims[mode], prod(dims) // dims[mode]), side, mode)
        for side, dims in enumerate(shapes)
        for mode in range(len(dims))
        if len(dims) > 1
    ]
    width, side, mode = max(wide, default=(0, 0, 0))
    if width < rank:
        return None
    tensor = halves.by_modes(tables[side] * values, side)
    order = (1 + mode, *(1 + m for m in range(tensor.ndim - 1) if m != mode), 0)
    dims = shapes[side]
    tensor = xp.reshape(xp.permute_dims(tensor, order), (dims[mode], prod(dims) // dims[mode], rank))
    leaf = _separated(xp, tensor, rank, rng)
    # Each row of pinv(leaf) takes one term out of the half: rest of the half times a mix of the other half.
    taken = xp.linalg.pinv(leaf) @ xp.reshape(tensor, (dims[mode], -1))
    own, mixed = _products(xp, xp.reshape(taken, (rank, prod(dims) // dims[mode], rank)))
    others = [size for m, size in enumerate(dims) if m != mode]
    split = _products(xp, xp.reshape(own, (rank, *others)))
    split.insert(mode, xp.permute_dims(leaf, (1, 0)))
    far = _products(xp, halves.by_modes(mixed @ tables[1 - side], 1 - side))
    return split + far if side == 0 else far + split


def _separated(xp, tensor, rank, rng):
    """(d, rank): the leaves of the first mode of a tensor (d, e, rank) of `rank` terms."""
    d, e, _ = tensor.shape
    first = xp.linalg.svd(xp.reshape(tensor, (d, e * rank)), full_matrices=False)[0][:, :rank]
    second = xp.linalg.svd(
        xp.reshape(xp.permute_dims(tensor, (1, 0, 2)), (e, d * rank)), full_matrices=False
    )[0][:, :rank]
    pair = []
    for _ in range(2):
        mix = random_values(tensor, (rank, 1), rng)
        combined = xp.reshape(xp.reshape(tensor, (d * e, rank)) @ mix, (d, e))
        small = conjugated(xp.permute_dims(first, (1, 0))) @ combined @ conjugated(second)
        pair.append(to_host(small))
    # Eigenvectors of general matrices are not in the array API: the R x R matrices go through the host.
    _, vectors = np.linalg.eig(pair[0] @ np.linalg.pinv(pair[1]))
    if not is_complex(xp, tensor.dtype):
        vectors = np.real(vectors) + np.imag(vectors)
    return first @ like(xp, vectors, tensor)
