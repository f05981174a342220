"""What the fits share: terms as flat leaves, and the small things that array namespaces do not name.

A matrix factor (R, p, q) counts as leaves (R, p q), so that kets and matrices are fitted by one code.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any

import array_api_compat

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import conjugated
from ketcore.arrays.namespaces import device_of


def epsilon(array: AnyArray) -> float:
    """The spacing of floating numbers at 1 in the dtype of `array`."""
    return float(array_api_compat.array_namespace(array).finfo(array.dtype).eps)


def inner_products(left: AnyArray, right: AnyArray) -> AnyArray:
    """<left_k, right_l> (R, R') of leaves (R, d) and (R', d), the first conjugated."""
    xp = array_api_compat.array_namespace(left)
    return conjugated(left) @ xp.permute_dims(right, (1, 0))


def length(array: AnyArray) -> float:
    """The Frobenius norm as a float; NaN and infinity come through, and squares do not overflow."""
    xp = array_api_compat.array_namespace(array)
    if 0 in array.shape:
        return 0.0
    size = xp.abs(array)
    peak = float(xp.max(size))
    return peak * float(xp.sqrt(xp.sum((size / peak) ** 2))) if 0 < peak < float("inf") else peak


def leaf_lengths(leaves: AnyArray) -> AnyArray:
    """The norms (R, 1) of leaves (R, d)."""
    xp = array_api_compat.array_namespace(leaves)
    return xp.sqrt(xp.sum(xp.abs(leaves) ** 2, axis=-1, keepdims=True))


def kron_of_leaves(xp: ModuleType, leaves: Sequence[AnyArray]) -> AnyArray:
    """Per term the Kronecker product of its leaves: (R, prod d_n) from N arrays (R, d_n)."""
    total = leaves[0]
    for leaf in leaves[1:]:
        total = xp.reshape(total[:, :, None] * leaf[:, None, :], (leaf.shape[0], -1))
    return total


def terms_norm(leaves: Sequence[AnyArray]) -> float:
    """The norm of a sum of terms (R, d_n) per mode, where they cancel too.

    From mode to mode the terms so far are expressed in an orthonormal basis of theirs, which keeps the norm.
    Rounding is relative to the largest term, not to the root of its square as by inner products.

    Notes
    -----
    Cost: O(R^3 N + R^2 sum d_n).
    """
    xp = array_api_compat.array_namespace(*leaves)
    columns = xp.permute_dims(leaves[0], (1, 0))
    for leaf in leaves[1:]:
        triangle = xp.linalg.qr(columns)[1]
        grown = triangle[:, None, :] * xp.permute_dims(leaf, (1, 0))[None, :, :]
        columns = xp.reshape(grown, (-1, leaf.shape[0]))
    return length(xp.sum(columns, axis=1))


def wide_modes(dims: Sequence[int], least: int) -> list[int]:
    """The modes of more than one element, and others until there are at least so many.

    What is multiplied out has an axis for each mode, and libraries do not take many.

    >>> wide_modes([1, 3, 1, 2], 1), wide_modes([1, 1, 5], 2)
    ([1, 3], [0, 2])
    """
    wide = [n for n, dim in enumerate(dims) if dim > 1]
    narrow = [n for n, dim in enumerate(dims) if dim == 1]
    return sorted(wide + narrow[: max(0, least - len(wide))])


def flat_leaves(factors: Sequence[AnyArray]) -> list[AnyArray]:
    """Factors (R, ...) as leaves (R, d_n)."""
    xp = array_api_compat.array_namespace(*factors)
    return [xp.reshape(f, (f.shape[0], prod(f.shape[1:]))) for f in factors]


def zeros_of(array: AnyArray) -> AnyArray:
    """Zeros of the shape and dtype of `array` and beside it."""
    return array_api_compat.array_namespace(array).zeros_like(array)


def like(xp: ModuleType, values: Any, array: AnyArray) -> AnyArray:
    """NumPy `values` in the dtype, the library and on the device of `array`."""
    moved = xp.asarray(values, device=device_of(array))
    return xp.astype(moved, array.dtype, copy=False)
