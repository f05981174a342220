"""Products of one value per mode against a threshold, without all the products.

The singular values of a Kronecker product are the products of one per factor.  Which of them count as zero is
a question about the products: a small one of a factor may meet large ones of the others.  Rounding, however,
comes from the factors: each singular value is known to p_n eps times the largest of its factor, so that a
product is known to the sum of these and not to P eps.

Letters: N order, p_n, q_n sizes of factor n, P = prod p_n.
"""

from bisect import bisect_right, insort
from collections.abc import Sequence
from math import frexp, inf, ldexp, prod
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.namespaces import to_host
from ketcore.shapes import check_dense_size

# One (start, stop) per mode.
Box = tuple[tuple[int, int], ...]
# Products, and how many there are of each.
Products = tuple[np.ndarray, np.ndarray]

# Bytes for each product that is counted: itself and its number, beside their order and their sorted copies.
_PRODUCT = 64

# Bytes for each side of a box: a pair of ints, and a place in the box.
_SIDE = 128

# What takes room where some products are above the threshold and some are not.
_PRODUCTS = "list of products of singular values"
_TERMS = "terms of a pseudo-inverse, one for each step of its cut"

# Up to so many products it is quicker to keep those that are equal than to look for them.
_FEW = 1 << 10


def relative(values: Sequence[AnyArray]) -> tuple[list[np.ndarray], list[float]]:
    """Singular values, the largest first, over the largest of their factor; and these largest.

    The former are NumPy arrays in float64 that begin with 1 (or are all zero), the latter floats.
    """
    wide = [to_host(v).astype(np.float64) for v in values]
    return [v / v[0] if v[0] > 0 else v for v in wide], [float(v[0]) for v in wide]


def default_threshold(xp: ModuleType, matrices: Sequence[AnyArray]) -> float:
    """What counts as zero beside the largest: the sum of max(p_n, q_n) times the machine epsilon.

    It is NumPy's rule for one factor, and grows with the factors as the rounding of their products does.
    """
    return sum(max(m.shape) for m in matrices) * float(xp.finfo(matrices[0].dtype).eps)


def over(level: float, peaks: Sequence[float]) -> float:
    """`level` over the product of `peaks`, which may overflow or vanish; a peak of zero counts as one.

    >>> over(1.0, [1e200, 1e200, 1e-200, 1e-200]), over(0.5, [2.0, 0.0])
    (1.0, 0.25)
    """
    mantissa, exponent = frexp(level)
    for one, power in map(frexp, filter(None, peaks)):
        mantissa, moved = frexp(mantissa / one)
        exponent += moved - power
    try:
        return ldexp(mantissa, exponent)
    except OverflowError:
        return inf


def count_above(
    values: Sequence[np.ndarray],
    threshold: float,
    eps: float = float(np.finfo(np.float64).eps),
    max_bytes: int = 2**30,
) -> int:
    """How many products of one value per mode, from `relative`, exceed `threshold` >= 0.

    Among very many products those count as equal that differ by `eps`, the rounding of the values.

    Raises
    ------
    MemoryError
        Above `max_bytes`, before so much is allocated.

    Notes
    -----
    Cost: O(sum p_n) where all products are above; else about O(sqrt(K) log K) for K products that differ,
    each of one half of the modes being looked up among those of the other.

    Examples
    --------
    >>> count_above([np.array([1.0, 0.5]), np.array([1.0, 0.1])], 0.07)
    3
    """
    check_dense_size(0, _PRODUCT, _PRODUCTS, max_bytes)
    # No value of another mode is above one.
    modes = [v[v > threshold] for v in values]
    sizes = [len(v) for v in modes]
    least = [v.min(initial=1.0) for v in modes]
    if not all(sizes) or not threshold or prod(least) > threshold:
        return prod(sizes)
    kind = np.int64 if prod(sizes) < 2**63 else object
    left = right = (np.ones(1), np.ones(1, kind))
    # Products of the widest modes are decided first; those of the narrowest wait on the right.
    order, done, total = sorted(range(len(modes)), key=lambda n: least[n]), [], 0
    while True:
        others = [n for n in range(len(modes)) if n not in done]
        sure = left[0] * prod(least[n] for n in others) > threshold
        total += int(left[1][sure].sum()) * prod(sizes[n] for n in others)
        left = left[0][~sure], left[1][~sure]
        if not order or not len(left[0]):
            return total + _pairs_above(left, right, threshold)
        if len(left[0]) * sizes[order[0]] <= len(right[0]) * sizes[order[-1]]:
            done.append(order.pop(0))
            left = _times(left, modes[done[-1]], threshold, eps, max_bytes)
        else:
            right = _times(right, modes[order.pop()], threshold, eps, max_bytes)


def _times(products: Products, mode: np.ndarray, threshold: float, eps: float, max_bytes: int) -> Products:
    """All products with the values of one more mode that exceed the threshold."""
    check_dense_size(len(products[0]) * len(mode), _PRODUCT, _PRODUCTS, max_bytes)
    values, counts = np.multiply.outer(products[0], mode).ravel(), np.repeat(products[1], len(mode))
    values, counts = values[values > threshold], counts[values > threshold]
    if len(values) <= _FEW:
        return values, counts
    # A grid of a few roundings, on which no chain of near values drifts away.
    order = np.argsort(values)
    values, counts = values[order], counts[order]
    cells = np.floor(np.log(values) / (4 * eps))
    starts = np.flatnonzero(np.diff(cells, prepend=-np.inf))
    return values[starts], np.add.reduceat(counts, starts)


def _pairs_above(left, right, threshold):
    """How many products of one of each side exceed the threshold."""
    order = np.argsort(right[0])[::-1]
    above = np.concatenate([np.zeros(1, right[1].dtype), np.cumsum(right[1][order])])
    # Below the negatives of the products in falling order, which rise.
    found = np.searchsorted(-right[0][order], -threshold / left[0], side="left")
    return int(np.sum(left[1] * above[found]))


class _Cut(NamedTuple):
    """What thresholds from `low` up to `high` leave of the last modes: (start, stop, cut of the rest)."""

    low: float
    high: float
    steps: list[tuple[int, int, Any]]
    boxes: int


def boxes_above(
    values: Sequence[np.ndarray], threshold: float, nbytes: int = 1, max_bytes: float = inf
) -> list[Box]:
    """Disjoint boxes of digits that hold exactly the products, as in `count_above`; usually there is one.

    Below the largest values everything shrinks, so that the digits form a staircase: one box per step.

    Raises
    ------
    MemoryError
        Where that many times `nbytes`, and what the boxes take themselves, is above `max_bytes`.

    Examples
    --------
    >>> boxes_above([np.array([1.0, 0.1]), np.array([1.0, 0.1])], 0.05)
    [((0, 1), (0, 2)), ((1, 2), (0, 1))]
    """
    check_dense_size(0, nbytes, _TERMS, max_bytes)
    stops = [int(np.sum(v > threshold)) for v in values]
    least = prod(float(v[stop - 1]) for v, stop in zip(values, stops, strict=True) if stop)
    if not all(stops):
        return []
    if least > threshold:
        return [tuple((0, stop) for stop in stops)]
    ends = [_Cut(0.0, 1.0, [], 1), _Cut(1.0, inf, [], 0)]
    known = [*([] for _ in values), ends]
    kept = [v[:stop].tolist() for v, stop in zip(values, stops, strict=True)]
    cut = _cut(kept, 0, threshold, known, nbytes + _SIDE * len(values), max_bytes)
    return list(_boxes((), cut, len(values)))


def _cut(values, n, threshold, known, nbytes, max_bytes):
    """The cut of the modes from n on, of `known` ones or made now."""
    at = bisect_right(known[n], threshold, key=itemgetter(0)) - 1
    if at >= 0 and threshold < known[n][at].high:
        return known[n][at]
    low, high, steps, boxes = 0.0, inf, [], 0
    for digit, value in enumerate(values[n]):
        rest = _cut(values, n + 1, threshold / value, known, nbytes, max_bytes)
        low, high = max(low, rest.low * value), min(high, rest.high * value)
        if not rest.boxes:
            break
        if steps and steps[-1][2] is rest:
            steps[-1] = (steps[-1][0], digit + 1, rest)
        else:
            steps.append((digit, digit + 1, rest))
            boxes += rest.boxes
    check_dense_size(boxes, nbytes, _TERMS, max_bytes)
    found = _Cut(low, high, steps, boxes)
    insort(known[n], found, key=itemgetter(0))
    return found


def _boxes(before, cut, modes):
    """All boxes of a cut, each after the sides `before`."""
    if len(before) == modes:
        yield before
    for start, stop, rest in cut.steps:
        yield from _boxes((*before, (start, stop)), rest, modes)
