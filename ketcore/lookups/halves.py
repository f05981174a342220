"""Two halves: a row is the product of a left and a right half, contracted over the terms.

    row[a, b] = sum_k left[a, k] right[k, b]          (qa x R) times (R x qb)

so that expanding a row is one small matrix product, and so are both parts of its gradient.  At the root of
the tree LayerNorm is a scale on the left half and a bias (see `ketcore.lookups.tree`).  Halves lie as
(q, b, R).
"""

from collections.abc import Sequence
from types import ModuleType

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import mean_along, permuted, reshaped, sum_along
from ketcore.arrays.namespaces import compact
from ketcore.lookups import tree


def halves(
    xp: ModuleType, leaves: Sequence[AnyArray], split: int, eps: float | None
) -> tuple[AnyArray, AnyArray, AnyArray | None]:
    """Left half (qa, b, R), right half (qb, b, R) and bias (b,), None without LayerNorm."""
    left, right = _children(xp, leaves, split, eps)
    if eps is None or split == 0:
        return left, right, None
    mean, scale = tree.node_statistics(xp, left, right, eps)
    return left * scale, right, -sum_along(xp, mean * scale, -1)


def _children(xp, leaves, split, eps):
    """Both halves of a vector; the left one is 1 where nothing is split."""
    right = tree.product(xp, leaves[split:], eps)
    return (tree.product(xp, leaves[:split], eps) if split else xp.ones_like(right[:1, ...])), right


def expand(
    xp: ModuleType, left: AnyArray, right: AnyArray, bias: AnyArray | None, kept: int, columns: int
) -> AnyArray:
    """Rows (b, columns) from their halves; only the first `kept` entries of the left half matter."""
    rows = permuted(xp, left[:kept, ...], (1, 0, 2)) @ permuted(xp, right, (1, 2, 0))
    rows = reshaped(xp, rows, (rows.shape[0], kept * right.shape[0]))[:, :columns]
    return rows if bias is None else rows + bias[:, None]


def leaf_cotangents(
    xp: ModuleType, leaves: Sequence[AnyArray], split: int, eps: float | None, cotangent: AnyArray
) -> list[AnyArray]:
    """Pull the cotangent of rows, (b, columns), back to their leaves: N arrays (q_n, b, R)."""
    left, right = _children(xp, leaves, split, eps)
    to_left, to_right = contract(xp, left, right, cotangent)
    if not split:
        return [*tree.product_vjp(xp, leaves, to_right, eps)]
    if eps is not None:
        total = sum_along(xp, cotangent, 1)[:, None]
        to_left, to_right = tree.node_vjp(xp, left, right, to_left, to_right, total, eps)
    return [
        *tree.product_vjp(xp, leaves[:split], to_left, eps),
        *tree.product_vjp(xp, leaves[split:], to_right, eps),
    ]


def contract(
    xp: ModuleType, left: AnyArray, right: AnyArray, cotangent: AnyArray
) -> tuple[AnyArray, AnyArray]:
    """The cotangent G (b, columns) of rows against each half: G right (qa, b, R) and G^T left (qb, b, R)."""
    batch, columns = cotangent.shape
    width = right.shape[0]
    kept = -(-columns // width)
    if kept * width != columns:
        padding = xp.broadcast_to(xp.zeros_like(cotangent[:, :1]), (batch, kept * width - columns))
        cotangent = xp.concat([cotangent, padding], axis=1)
    grid = reshaped(xp, cotangent, (batch, kept, width))
    to_left = permuted(xp, grid @ permuted(xp, right, (1, 0, 2)), (1, 0, 2))
    to_right = permuted(xp, permuted(xp, left[:kept, ...], (1, 2, 0)) @ grid, (2, 0, 1))
    if kept < left.shape[0]:
        to_left = xp.concat([to_left, xp.zeros_like(left[kept:, ...])], axis=0)
    return compact(to_left), compact(to_right)


def halves_jvp(
    xp: ModuleType, leaves: Sequence[AnyArray], tangents: Sequence[AnyArray], split: int, eps: float | None
) -> tuple[AnyArray, AnyArray, AnyArray | None]:
    """Halves of twice the rank, and a bias, that expand to the derivative of rows along leaf `tangents`.

    d(left (x) right) = dleft (x) right + left (x) dright; LayerNorm at the root adds a multiple of the
    product itself.
    """
    right, right_tangent = tree.product_jvp(xp, leaves[split:], tangents[split:], eps)
    if not split:
        return xp.ones_like(right[:1, ...]), right_tangent, None
    left, left_tangent = tree.product_jvp(xp, leaves[:split], tangents[:split], eps)
    bias = None
    if eps is not None:
        left, left_tangent, bias = _root_jvp(xp, left, left_tangent, right, right_tangent, eps)
    return xp.concat([left_tangent, left], axis=-1), xp.concat([right, right_tangent], axis=-1), bias


def _root_jvp(xp, left, left_tangent, right, right_tangent, eps):
    """`left` and its tangent such that the doubled halves give the derivative of the normalised root."""
    mean, scale = tree.node_statistics(xp, left, right, eps)
    drift = mean_along(xp, left_tangent, 0) * mean_along(xp, right, 0)
    drift = drift + mean_along(xp, left, 0) * mean_along(xp, right_tangent, 0)
    along = mean_along(xp, left * left_tangent, 0) * mean_along(xp, right**2, 0)
    along = along + mean_along(xp, left**2, 0) * mean_along(xp, right * right_tangent, 0)
    slope = scale**3 * (along - mean * drift)
    bias = sum_along(xp, slope * mean - scale * drift, -1)
    return scale * left, scale * left_tangent - slope * left, bias
