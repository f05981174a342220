"""Products of leaves in a balanced binary tree, with or without LayerNorm at its nodes.

A vector lies along axis 0 and the rest of the shape is a batch: (q, ...).  That way every step is one long
elementwise product, also where q is 2.  A node over vectors a (i, ...) and b (j, ...) is z = a (x) b, shape
(i*j, ...), b's entries running fastest.  With LayerNorm

    z = (a (x) b - m) s,   m = m_a m_b,   s = (v + eps)**-1/2,   v = v_a v_b + v_a m_b**2 + v_b m_a**2,

with m_a, v_a the mean and the population variance of a.  That v is exact; E[x**2] - m**2 would lose three
digits in float32.  A single leaf is no node and is not normalised.

Source: Panahi, Saeedi, Arodz, "word2ket", ICLR 2020, section 2.3.
"""

from collections.abc import Sequence
from types import ModuleType

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import mean_along, reshaped, sum_along
from ketcore.shapes import tree_split


def product(xp: ModuleType, leaves: Sequence[AnyArray], eps: float | None) -> AnyArray:
    """The product of N >= 1 leaves (q_n, ...); `eps` None is without LayerNorm.  Returns (prod q_n, ...)."""
    if len(leaves) == 1:
        return leaves[0]
    left, right = _children(xp, leaves, eps)
    node = outer(xp, left, right)
    if eps is None:
        return node
    mean, scale = node_statistics(xp, left, right, eps)
    return (node - mean) * scale


def _children(xp, leaves, eps):
    """What a node over at least two leaves multiplies."""
    if len(leaves) == 2:
        return leaves
    half = tree_split(len(leaves))
    return product(xp, leaves[:half], eps), product(xp, leaves[half:], eps)


def product_vjp(
    xp: ModuleType, leaves: Sequence[AnyArray], cotangent: AnyArray, eps: float | None
) -> tuple[AnyArray, ...]:
    """Pull `cotangent` (prod q_n, ...) back through `product` to the leaves."""
    if len(leaves) == 1:
        return (cotangent,)
    half = tree_split(len(leaves))
    left, right = _children(xp, leaves, eps)
    split = reshaped(xp, cotangent, (left.shape[0], right.shape[0], *cotangent.shape[1:]))
    to_left = sum_along(xp, split * right[None, ...], 1)
    to_right = sum_along(xp, split * left[:, None, ...], 0)
    if eps is not None:
        total = sum_along(xp, cotangent, 0)
        to_left, to_right = node_vjp(xp, left, right, to_left, to_right, total, eps)
    return (
        *product_vjp(xp, leaves[:half], to_left, eps),
        *product_vjp(xp, leaves[half:], to_right, eps),
    )


def product_jvp(
    xp: ModuleType, leaves: Sequence[AnyArray], tangents: Sequence[AnyArray], eps: float | None
) -> tuple[AnyArray, AnyArray]:
    """`product` and its directional derivative along `tangents`."""
    if len(leaves) == 1:
        return leaves[0], tangents[0]
    half = tree_split(len(leaves))
    left, left_tangent = product_jvp(xp, leaves[:half], tangents[:half], eps)
    right, right_tangent = product_jvp(xp, leaves[half:], tangents[half:], eps)
    node = outer(xp, left, right)
    tangent = outer(xp, left_tangent, right) + outer(xp, left, right_tangent)
    if eps is None:
        return node, tangent
    mean, scale = node_statistics(xp, left, right, eps)
    node = (node - mean) * scale
    return node, _layernorm_jvp(xp, node, tangent, scale)


def outer(xp: ModuleType, left: AnyArray, right: AnyArray) -> AnyArray:
    """Kronecker product along axis 0: (i, ...), (j, ...) -> (i*j, ...)."""
    pairs = left[:, None, ...] * right[None, ...]
    return reshaped(xp, pairs, (left.shape[0] * right.shape[0], *pairs.shape[2:]))


def node_statistics(xp: ModuleType, left: AnyArray, right: AnyArray, eps: float) -> tuple[AnyArray, AnyArray]:
    """Mean m and scale s of the node over `left` and `right`, each (...)."""
    left_mean, left_variance = _moments(xp, left)
    right_mean, right_variance = _moments(xp, right)
    variance = left_variance * right_variance
    variance = variance + left_variance * right_mean**2 + right_variance * left_mean**2
    return left_mean * right_mean, (variance + eps) ** -0.5


def _moments(xp, vector):
    """Mean and variance over a vector, by batch and term."""
    mean = mean_along(xp, vector, 0)
    return mean, mean_along(xp, (vector - mean) ** 2, 0)


def node_vjp(
    xp: ModuleType,
    left: AnyArray,
    right: AnyArray,
    to_left: AnyArray,
    to_right: AnyArray,
    total: AnyArray,
    eps: float,
) -> tuple[AnyArray, AnyArray]:
    """Cotangents of the children of a LayerNorm node from products with its cotangent G alone.

    Parameters
    ----------
    left, right : array, (i, ...) and (j, ...)
        The children.
    to_left, to_right : array, (i, ...) and (j, ...)
        The products G right and G^T left.
    total : array, (...)
        The sum of all entries of G.
    eps : float
        What is added to the variance of the node.

    Returns
    -------
    tuple of arrays, (i, ...) and (j, ...)
        Those of both children.

    Notes
    -----
    dx = s (G - mean(G) - z mean(G z)) for x = left (x) right; contracting dx with the other child needs only
    sums over each child, since z is itself a product less a constant.
    """
    width = left.shape[0] * right.shape[0]
    mean, scale = node_statistics(xp, left, right, eps)
    aligned = scale * (sum_along(xp, left * to_left, 0) - mean * total) / width
    level = total / width
    left_sum, right_sum = sum_along(xp, left, 0), sum_along(xp, right, 0)
    left_square, right_square = sum_along(xp, left**2, 0), sum_along(xp, right**2, 0)
    slope = aligned * scale
    shift = level - slope * mean
    return (
        scale * (to_left - shift * right_sum - slope * right_square * left),
        scale * (to_right - shift * left_sum - slope * left_square * right),
    )


def _layernorm_jvp(xp: ModuleType, node: AnyArray, tangent: AnyArray, scale: AnyArray) -> AnyArray:
    """Derivative of a normalised `node` along the derivative `tangent` of what was normalised."""
    along = mean_along(xp, node * tangent, 0)
    return scale * (tangent - mean_along(xp, tangent, 0) - node * along)
