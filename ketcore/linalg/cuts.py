"""Products of one value per mode against a threshold, without all the products.

The singular values of a Kronecker product are the products of one per factor.  Which of them count as zero is
a question about the products: a small one of a factor may meet large ones of the others.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from types import ModuleType

import numpy as np

from ketcore.backend import Array
from ketcore.linalg import checks

# One (start, stop) per mode.
Box = tuple[tuple[int, int], ...]


def relative(values: Sequence[Array]) -> tuple[list[np.ndarray], float]:
    """Singular values, the largest first, over the largest of their factor; and the product of these largest.

    returns  NumPy arrays in float64, beginning with 1 (or all zero), and a float, perhaps infinite
    """
    wide = [checks.host(v).astype(np.float64) for v in values]
    return [v / v[0] if v[0] > 0 else v for v in wide], prod(float(v[0]) for v in wide)


def default_threshold(xp: ModuleType, matrices: Sequence[Array]) -> float:
    """NumPy's rule for what counts as zero beside the largest: max(P, Q) times the machine epsilon."""
    size = max(prod(m.shape[axis] for m in matrices) for axis in (0, 1))
    return size * float(xp.finfo(matrices[0].dtype).eps)


def count_above(values: Sequence[np.ndarray], threshold: float) -> int:
    """How many products of one value per mode, from `relative`, exceed `threshold` >= 0.

    cost     about O(sqrt(P) log P) time and memory: one half of the modes is searched for each product of the
             other

    >>> count_above([np.array([1.0, 0.5]), np.array([1.0, 0.1])], 0.07)
    3
    """
    sizes = [len(v) for v in values]
    split = min(range(len(values) + 1), key=lambda n: max(prod(sizes[:n]), prod(sizes[n:])))
    left, right = _products(values[:split]), np.sort(_products(values[split:]))
    left = left[left > 0]
    return int(np.sum(len(right) - np.searchsorted(right, threshold / left, side="right")))


def boxes_above(values: Sequence[np.ndarray], threshold: float) -> list[Box]:
    """Disjoint boxes of digits that hold exactly the products, as in `count_above`; usually there is one.

    Below the largest values everything shrinks, so that the digits form a staircase: one box per step.

    >>> boxes_above([np.array([1.0, 0.1]), np.array([1.0, 0.1])], 0.05)
    [((0, 1), (0, 2)), ((1, 2), (0, 1))]
    """
    stops = [int(np.sum(v > threshold)) for v in values]
    if not all(stops):
        return []
    if prod(float(v[stop - 1]) for v, stop in zip(values, stops, strict=True)) > threshold:
        return [tuple((0, stop) for stop in stops)]
    steps: list[tuple[list[int], list[Box]]] = []
    for digit in range(stops[0]):
        rest = boxes_above(values[1:], threshold / values[0][digit])
        if steps and steps[-1][1] == rest:
            steps[-1][0][1] = digit + 1
        else:
            steps.append(([digit, digit + 1], rest))
    return [((start, stop), *box) for (start, stop), rest in steps for box in rest]


def _products(values):
    return reduce(lambda a, b: np.multiply.outer(a, b).ravel(), values, np.ones(1))
