"""Weights of rows and crops, and whether they separate: w(i) = prod_n w_n(i_n).

Where they do, the rows are scaled by the roots of their weights, the problem without weights is solved, and
the leaves are scaled back.  A crop has the weights 1 within the matrix and 0 outside.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ketcore.arrays.conversions import as_array
from ketcore.arrays.elementary import padded
from ketcore.arrays.namespaces import is_array, to_host

# Products of a handful of weights, each rounded once.
_ROUNDING = 16 * float(np.finfo(np.float64).eps)


class Weights(NamedTuple):
    """Weights in NumPy's float64.

    Attributes
    ----------
    row_scale : array, (rows,), or None
        The root of the weight of each row; None for 1.
    by_mode : list of N pairs of arrays, or None
        Per mode the roots (p_n,) and the mask (q_n,), where all weights separate.
    roots : array, (P,), or None
        The roots, zero outside the matrix, where they do not.
    columns : array, (Q,), or None
        The mask of the columns, where they do not.
    """

    row_scale: np.ndarray | None
    by_mode: list[tuple[np.ndarray, np.ndarray]] | None
    roots: np.ndarray | None
    columns: np.ndarray | None


def check_row_weights(weights: Any, rows: int, positive: bool = False) -> np.ndarray | None:
    """Weights (rows,) as float64 on the host, None as it is; `positive` weights are above 0 in each row."""
    if weights is None:
        return None
    found = to_host(weights) if is_array(weights) else as_array("weights", weights)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"weights must be real numbers, got {found.dtype}")
    if found.shape != (rows,):
        raise ValueError(f"weights must have shape ({rows},), got {found.shape}")
    found = found.astype(np.float64)
    if positive:
        wrong = np.flatnonzero(~(np.isfinite(found) & (found > 0)))
        if wrong.size:
            raise ValueError(f"weights must be finite and above 0, got {found[wrong[0]]} for row {wrong[0]}")
    elif not (np.all(np.isfinite(found)) and found.min() >= 0 and found.max() > 0):
        got = f"values from {found.min()} to {found.max()}"
        raise ValueError(f"weights must be finite, at least 0 and not all 0, got {got}")
    return found


def plan_weights(
    weights: np.ndarray | None, shape: tuple[int, int], row_dims: Sequence[int], col_dims: Sequence[int]
) -> Weights:
    """How a problem with these weights (rows,), or None, is to be solved."""
    rows = np.ones(shape[0]) if weights is None else weights / weights.max()
    rows, columns = padded(np, rows, prod(row_dims), 0), padded(np, np.ones(shape[1]), prod(col_dims), 0)
    roots = np.sqrt(rows)
    row_scale = None if weights is None else roots[: shape[0]]
    by_rows, by_columns = _separated(roots, row_dims), _separated(columns, col_dims)
    if by_rows is None or by_columns is None:
        return Weights(row_scale, None, roots, columns)
    return Weights(row_scale, list(zip(by_rows, by_columns, strict=True)), None, None)


def _separated(values: np.ndarray, dims: Sequence[int]) -> list[np.ndarray] | None:
    """Vectors (d_n,) whose Kronecker product is `values` (prod d_n), non-negative; None if there are none.

    >>> [v.tolist() for v in _separated(np.array([2.0, 4.0, 3.0, 6.0]), (2, 2))]
    [[0.6666666666666666, 1.0], [3.0, 6.0]]
    >>> _separated(np.array([1.0, 1.0, 1.0, 0.0]), (2, 2)) is None
    True
    """
    tensor = values.reshape(tuple(dims))
    at = tuple(map(int, np.unravel_index(int(np.argmax(values)), tensor.shape)))
    peak = tensor[at]
    found = []
    for mode in range(len(dims)):
        key: Any = (*at[:mode], slice(None), *at[mode + 1 :])
        line = tensor[key]
        found.append(line / peak if mode < len(dims) - 1 else line)
    product = reduce(np.kron, found)
    return found if np.all(np.abs(product - values) <= _ROUNDING * len(dims) * values) else None
