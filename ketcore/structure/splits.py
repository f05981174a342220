"""Splits of a small dense operator on several modes into terms, products of one matrix per mode.

Mode by mode: with the row and the column digit of a mode side by side, `op` is a matrix B (d^2, rest^2) whose
rows are its blocks.  Three ways to write B as a sum of products of columns and rows:

    exact   rows of B that are multiples of one another share a term, or columns do: whichever are fewer.  No
            element of `op` is a sum: it is one product, in one term
    svd     singular vectors: the fewest terms for a mode, up to rounding
    linear  one term for each row, whatever its values: linear in `op`

Letters: d size of the first mode, rest the product of all others.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import beside, widened
from ketcore.arrays.namespaces import index_dtype, is_half, namespace_of, to_host

# Rows that differ by more are no multiples: products of several such numbers might leave the range of `op`.
_LARGEST = 2.0**12

# Elements of a row that are not worth a look at two of them first.
_LONG = 64

# Bits of the numbers that products of a few do not round, and that the shortest storage, bfloat16, holds.
_SHORT = 8


def exact_split(op: AnyArray, dims: Sequence[int]) -> list[AnyArray]:
    """Arrays (R, d_n, d_n) whose Kronecker products add up to `op` (d, d), with equal elements.

    Rows are multiples of one another also where they are so but for the rounding of products of one number
    per mode, of which elements are some units in the last place away.  The zero matrix has one term of zeros.
    Values are looked at in host memory.
    """
    host = to_host(widened(op))
    _check_finite(np.isfinite(host).all())
    # A number of 16 bits more would be rounded once more, and much.
    tolerance = 0.0 if is_half(op.dtype) else 4 * len(dims) * float(np.finfo(host.dtype).eps)
    terms = _exact_terms(host, tuple(dims), tolerance)
    terms = terms or [[np.zeros((dim, dim), host.dtype) for dim in dims]]
    return [beside(np.stack(mode), op) for mode in zip(*terms, strict=True)]


def _exact_terms(op, dims, tolerance):
    """Lists of N matrices; none for zero."""
    if len(dims) == 1:
        return [[op]]
    first, rest = dims[0], prod(dims[1:])
    blocks = op.reshape(first, rest, first, rest).transpose(0, 2, 1, 3).reshape(first**2, rest**2)
    # The shorter side first, of which no row need be looked at more often than it is long.
    by_rows, one, other = first <= rest, blocks, blocks.T
    if not by_rows:
        one, other = other, one
    pairs = _multiples(one, tolerance, len(one))
    fewer = _multiples(other, tolerance, len(pairs) - 1)
    if fewer is not None:
        by_rows, pairs = not by_rows, fewer
    terms = []
    for head, tail in pairs if by_rows else [pair[::-1] for pair in pairs]:
        rests = _exact_terms(tail.reshape(rest, rest), dims[1:], tolerance)
        terms += [[head.reshape(first, first), *others] for others in rests]
    return terms


def _multiples(matrix, tolerance, most):
    """Pairs (numbers, row) whose outer products add up to `matrix`, each row of it in one pair alone.

    None where there are more than `most`.
    """
    nonzero, pairs = matrix != 0, []
    is_left = nonzero.any(axis=1)
    while (left := np.flatnonzero(is_left)).size:
        if len(pairs) == most:
            return None
        # Those with zeros in the same places, which are few in most gates.
        alike, numbers = left[(nonzero[left] == nonzero[left[0]]).all(axis=1)], np.ones(1, matrix.dtype)
        if alike.size > 1:
            alike, numbers = _of_first(matrix, alike, tolerance)
        found = np.zeros(len(matrix), matrix.dtype)
        found[alike] = numbers
        pairs.append((found, matrix[left[0]]))
        is_left[alike] = False
    return pairs


def _of_first(matrix, alike, tolerance):
    """Which rows are multiples of the first of them, itself among them, and the numbers."""
    row = matrix[alike[0]]
    peak = np.abs(row).argmax()
    numbers, usable = _shortened(matrix[alike, peak] / row[peak], tolerance)
    numbers[0], usable[0] = 1, True
    alike, numbers = alike[usable], numbers[usable]
    # Two elements tell most long rows apart.
    ends, every = np.flatnonzero(row)[[0, -1]], np.arange(row.size)
    for columns in (ends, every) if row.size > _LONG else (every,):
        wanted = matrix[alike[:, None], columns]
        errors = np.abs(numbers[:, None] * row[columns] - wanted)
        close = (errors <= tolerance * np.abs(wanted)).all(axis=1)
        alike, numbers = alike[close], numbers[close]
    return alike, numbers


def _shortened(numbers, tolerance):
    """Numbers without what is rounding in them, and which of them may be those of multiples."""
    sizes = np.abs(numbers)
    usable = (sizes >= 1 / _LARGEST) & (sizes <= _LARGEST)
    # Real numbers and, behind one another, both parts of complex ones.
    parts = numbers.view(sizes.dtype).reshape(len(numbers), -1)
    mantissas, powers = np.frexp(np.where(np.abs(parts) <= tolerance * sizes[:, None], 0, parts))
    short = np.ldexp(np.round(np.ldexp(mantissas, _SHORT)), -_SHORT)
    close = np.abs(mantissas - short) <= tolerance
    parts = np.ldexp(np.where(close, short, mantissas), powers)
    return parts.view(numbers.dtype)[:, 0], usable & (close.all(axis=1) | (tolerance > 0))


def svd_split(op: AnyArray, dims: Sequence[int]) -> list[AnyArray]:
    """Arrays (R, d_n, d_n) whose sum of Kronecker products is `op` (d, d), by an SVD per mode but the last.

    The zero matrix has one term of zeros.
    """
    xp = namespace_of(op)
    if len(dims) == 1:
        return [op[None, :, :]]
    _check_finite(bool(xp.all(xp.isfinite(op))))
    first, rest = dims[0], prod(dims[1:])
    blocks = xp.permute_dims(xp.reshape(op, (first, rest, first, rest)), (0, 2, 1, 3))
    left, values, right = xp.linalg.svd(xp.reshape(blocks, (first * first, rest * rest)), full_matrices=False)
    count = _rank(xp, values, first * rest)
    terms = []
    for k in range(count):
        tails = svd_split(xp.reshape(right[k, :], (rest, rest)), dims[1:])
        head = xp.reshape(left[:, k] * xp.astype(values[k], left.dtype), (1, first, first))
        terms.append([xp.broadcast_to(head, (tails[0].shape[0], first, first)), *tails])
    return [xp.concat(list(mode), axis=0) for mode in zip(*terms, strict=True)]


def _rank(xp, values, size):
    """How many singular values are above rounding; at least one."""
    threshold = float(values[0]) * xp.finfo(values.dtype).eps * size
    return max(1, int(xp.sum(xp.astype(values > threshold, index_dtype(xp)))))


def linear_split(op: AnyArray, dims: Sequence[int]) -> list[AnyArray]:
    """The blocks of `op` on the last mode as terms, beside the unit matrices of the other modes."""
    xp, count, outer = namespace_of(op), len(dims) - 1, dims[:-1]
    axes = (*range(count), *range(count + 1, 2 * count + 1), count, 2 * count + 1)
    blocks = xp.reshape(
        xp.permute_dims(xp.reshape(op, (*dims, *dims)), axes), (prod(outer) ** 2, dims[-1], dims[-1])
    )
    digits = np.indices((*outer, *outer)).reshape(2 * count, blocks.shape[0])
    units = []
    for n, dim in enumerate(outer):
        unit = np.zeros((blocks.shape[0], dim, dim))
        unit[np.arange(len(unit)), digits[n], digits[count + n]] = 1
        units.append(xp.astype(beside(unit, op), op.dtype))
    return [*units, blocks]


def _check_finite(finite):
    if not finite:
        raise ValueError("op must be finite to be split into several modes, got nan or infinite elements")
