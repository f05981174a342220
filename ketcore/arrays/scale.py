"""The one rule for scale: no product of leaves leaves the range of its dtype before the result does.

Scaling the leaves of a term by c_0, ..., c_{N-1} with prod c_n = 1 changes nothing: that freedom is the
gauge.  Here every c_n is a power of two, which rounds nothing, and such that all leaves of a term come near
one norm: the geometric mean of theirs.  Products of some of its leaves then lie between 1 and that of all,
and overflow or vanish only where that does.

    F'_n[k] = 2^shift_n[k] F_n[k],   sum_n shift_n[k] = -carry,   d / dF_n[k] = 2^shift_n[k] d / dF'_n[k]

A `carry` other than 0 moves a scale that all terms share to another operand, which is multiplied by 2^carry.

What is asked first is whether that is needed at all: one sum of squares a factor.  It reads values, so that
`level` is for NumPy; arrays of other libraries, which may lie on a device or be traced, are left as they are.
`balanced` and `unit_leaves` are array code, which asks nothing, and `level_matrices` waits for the device.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import add, and_
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import detached, is_traced
from ketcore.arrays.elementary import widened
from ketcore.arrays.namespaces import is_complex, is_numpy, namespace_of, to_host
from ketcore.shapes import Marks

# Products of squared norms, in float32 and in float64, between the inverse of this and this are level.  Sums
# of products stay far from overflow, and what vanishes within is below 2^-77 or 2^-893 of the unit.
_LEVEL = {np.dtype(np.float32): 2.0**96, np.dtype(np.float64): 2.0**256}

# Binary logarithms of norms of whole terms up to which another operand does not have to carry them.
_CARRIED = {4: 24.0, 8: 64.0}

# The axes of a leaf, or None for a factor (..., R, p, q), all matrices of a term together.
Axes = int | tuple[int, ...] | None


def is_level(factors: Sequence[np.ndarray], axes: Axes) -> bool:
    """Whether products of these NumPy factors are known to stay in range; False where one is not finite."""
    high = low = 1.0
    for factor in factors:
        # Most calls are for small factors, of which every function of NumPy costs more than its numbers.
        flat = factor.ravel("K")
        if flat.dtype not in _LEVEL:
            flat = _real_view(flat)
        squared = float(flat.dot(flat))
        if squared < 1.0:
            low *= squared
        else:
            high *= squared
    bound = _LEVEL[flat.dtype]
    if not low * bound >= 1.0:
        return not all(factor.size for factor in factors)
    # Of a long batch the leaves may be level where their sum is not.
    return high <= bound or _are_small(factors, axes, bound)


def _lie_level(factors):
    """Whether factors that fill one array, as the leaves of kets do, are level by its sum of squares alone.

    A bound from above is enough: what vanishes in a product of leaves matters only where others are large.
    """
    whole = factors[0].base
    if type(whole) is not np.ndarray or whole.dtype not in _LEVEL:
        return False
    for factor in factors:
        if factor.base is not whole:
            return False
    if sum([factor.size for factor in factors]) < whole.size:
        return False
    flat = whole.ravel("K")
    return 1.0 + float(flat.dot(flat)) <= _LEVEL[whole.dtype] ** (1 / len(factors))


def _real_view(flat):
    """All numbers of a NumPy array of one dimension, of 32 or 64 bits."""
    if flat.dtype.kind == "c":
        return flat.view(flat.real.dtype)
    return flat if flat.dtype.itemsize > 2 else flat.astype(np.float32)


def _are_small(factors, axes, bound):
    """Whether no product of leaves of the largest numbers is above `bound`, squared."""
    for factor in factors:
        peak = float(np.abs(_real_view(factor.ravel("K"))).max())
        bound /= max(1.0, peak * peak * prod([factor.shape[axis] for axis in _axes_of(factor, axes)]))
    return bound >= 1.0


def _axes_of(factor, axes):
    if axes is None:
        return tuple(axis for axis in range(factor.ndim) if axis != factor.ndim - 3)
    return (axes,) if isinstance(axes, int) else axes


def level(
    factors: Sequence[AnyArray], axes: Axes, carry: int = 0, fixed: Marks = ()
) -> tuple[Sequence[AnyArray], list[AnyArray | None] | None]:
    """The same sum with the leaves of each term near one norm, and the powers of two that made it.

    Parameters
    ----------
    factors : sequence of N arrays
        A leaf is what lies along `axes`.
    axes : int, tuple of ints or None
        -1 for leaves of kets (..., R, q), (-2, -1) for matrices, None for factors (R, p, q).
    carry : int, default 0
        Minus the sum of the shifts of each term.
    fixed : sequence of ints, or of R collections of ints, default ()
        The modes that stay as they are, identity matrices: for all terms, or for each.

    Returns
    -------
    levelled : sequence of N arrays
        In their accumulation dtype; the factors themselves where nothing has to be done.
    shifts : list of N arrays, or None
        Integers that broadcast against the factors, None for `fixed`; None where nothing has to be done.
    """
    if (len(factors) < 2 and not carry) or not is_numpy(factors[0]):
        return factors, None
    if not carry and (_lie_level(factors) or is_level(factors, axes)):
        return factors, None
    return _levelled(factors, axes, carry, fixed)


def level_and_carry(
    factors: Sequence[AnyArray], axes: Axes, fixed: Marks = ()
) -> tuple[Sequence[AnyArray], Sequence[AnyArray | None] | None, int]:
    """As `level`, with the carry that leaves the largest term of norm 1 where its norm is out of range.

    A sum whose terms have other modes each that stay as they are carries nothing.
    """
    if not is_numpy(factors[0]) or is_level(factors, axes):
        return factors, None, 0
    free = _free(factors, fixed)
    if free is None or not free:
        levelled, shifts = _levelled(factors, axes, 0, fixed)
        return levelled, shifts, 0
    totals = reduce(add, [_log_norms(np, widened(factors[n]), axes) for n in free])
    totals = totals[np.isfinite(totals)]
    top = int(np.rint(totals.max())) if totals.size else 0
    if abs(top) <= _CARRIED[totals.dtype.itemsize]:
        top = 0
    levelled, shifts = _levelled(factors, axes, top, fixed)
    return levelled, shifts, top


def level_matrices(matrices: Sequence[AnyArray], fixed: Marks = ()) -> Sequence[AnyArray]:
    """Matrices (p_n, q_n) of the same product at one level, as `level`, but of any library.

    Values are looked at in host memory, which waits for a device; powers of two are constants, so that
    gradients go through them.  Matrices that are traced are left as they are.
    """
    if len(matrices) < 2 or any(map(is_traced, matrices)):
        return matrices
    looks = [to_host(matrix) for matrix in matrices]
    _, shifts = level(looks, (-2, -1), fixed=fixed)
    if shifts is None or is_numpy(matrices[0]):
        return shifted(matrices, shifts)
    return shifted(matrices, [None if shift is None else float(shift[0, 0]) for shift in shifts])


def stored(factors: Sequence[AnyArray], dtype: Any, axes: Axes, fixed: Marks = ()) -> list[AnyArray]:
    """Factors in another dtype, those of NumPy at one level first where one of them leaves its range."""
    xp = namespace_of(factors[0])
    if is_numpy(factors[0]) and len(factors) > 1 and any(f.dtype != dtype for f in factors):
        info = np.finfo(np.float32 if str(dtype) == "bfloat16" else dtype)
        low, high = np.log2(float(info.smallest_normal)), np.log2(float(info.max))
        logs = [_log_norms(np, widened(factor), axes) for factor in factors]
        if any(((log < low) & (log > -np.inf)).any() or (log > high).any() for log in logs):
            factors = _levelled(factors, axes, 0, fixed)[0]
    return [xp.astype(factor, dtype, copy=False) for factor in factors]


def for_number(factors: Sequence[AnyArray], number: Any, axes: Axes, fixed: Marks = ()) -> Sequence[AnyArray]:
    """Factors of one dtype to be multiplied by a number: at one level where they, or it, are far from 1."""
    if not is_numpy(factors[0]) or len(factors) < 2:
        return factors
    size = abs(number)
    far = size and not 2.0**-40 < size < 2.0**40
    found = _levelled(factors, axes, 0, fixed)[0] if far else level(factors, axes, 0, fixed)[0]
    return factors if found is factors else stored(found, factors[0].dtype, axes, fixed)


def _free(factors, fixed):
    """The modes that may be scaled in all terms alike; None where these differ from term to term."""
    fixed = set(map(frozenset, fixed))
    if len(fixed) > 1:
        return None
    return [n for n in range(len(factors)) if not any(n in modes for modes in fixed)]


def _levelled(factors, axes, carry, fixed):
    """Factors with leaves of like norms, and the powers of two that were moved; None where none were."""
    free = _free(factors, fixed)
    if free is None:
        return _levelled_by_terms(factors, axes, fixed)
    if not free:
        return factors, None
    wide = [widened(factor) for factor in factors]
    found = _shifts_of(np, [_log_norms(np, wide[n], axes) for n in free], carry)
    if not any(shift.any() for shift in found):
        return factors, None
    shifts = [None] * len(factors)
    for n, shift in zip(free, found, strict=True):
        shifts[n] = shift
    return shifted(wide, shifts), shifts


def _levelled_by_terms(factors, axes, fixed):
    """Factors (..., R, p, q) of which term k has modes fixed[k] that stay as they are."""
    nothing = np.zeros((1, 1, 1))
    terms = []
    for k, modes in enumerate(fixed):
        one = [factor[..., k : k + 1, :, :] for factor in factors]
        shifts = _levelled(one, axes, 0, (modes,))[1] or [None] * len(factors)
        terms.append([nothing if shift is None else shift for shift in shifts])
    shifts = [np.concatenate(np.broadcast_arrays(*mode), axis=-3) for mode in zip(*terms, strict=True)]
    return shifted(factors, shifts), shifts


def shifted(arrays: Sequence[AnyArray], shifts: Sequence[AnyArray | None] | None) -> Sequence[AnyArray]:
    """Each array times 2^shift: what tangents of levelled factors are, and gradients of the factors."""
    if shifts is None:
        return arrays
    pairs = zip(arrays, shifts, strict=True)
    return [array if shift is None else times_power(array, shift) for array, shift in pairs]


def times_power(array: AnyArray, shift: Any) -> AnyArray:
    """`array` times 2^shift, in its accumulation dtype, exact in any range; shifts are integers."""
    array = widened(array)
    if not is_numpy(array):
        return _in_two_steps(namespace_of(array), array, shift)
    shift = np.asarray(shift, np.int32)
    if array.dtype.kind != "c":
        return np.ldexp(array, shift)
    found = np.empty(np.broadcast_shapes(array.shape, shift.shape), array.dtype)
    # A product with a complex number would add up infinities and NaN.
    found.real, found.imag = np.ldexp(array.real, shift), np.ldexp(array.imag, shift)
    return found


def _in_two_steps(xp, array, shift):
    """One power of two may overflow where the product does not."""
    limit = 250 if xp.finfo(array.dtype).bits == 32 else 2044
    if isinstance(shift, float):
        first = max(-limit, min(limit, shift)) // 2
        return array * 2.0**first * 2.0 ** (shift - first)
    first = xp.round(xp.clip(shift, -limit, limit) / 2)
    return array * 2.0**first * 2.0 ** (shift - first)


def _shifts_of(xp: ModuleType, logs: Sequence[AnyArray], carry: Any = 0) -> list[AnyArray]:
    """Integers, as floating arrays, that add up to -carry over the modes and make all norms about equal.

    `logs` are binary logarithms of norms, minus infinity for leaves of zeros.
    """
    dead = [xp.astype(log == -xp.inf, log.dtype) for log in logs]
    rest = sum(xp.where(d > 0, xp.zeros_like(log), log) for d, log in zip(dead, logs, strict=True))
    # A leaf of zeros has any norm: the one that makes the others come to 1.
    own = (carry - rest) / xp.where(sum(dead) > 0, sum(dead), xp.ones_like(rest))
    logs = [xp.where(d > 0, own, log) for d, log in zip(dead, logs, strict=True)]
    mean = (sum(logs) - carry) / len(logs)
    # What rounding leaves goes to the next mode, so that none of many has all of it.
    shifts, left = [], xp.zeros_like(mean)
    for log in logs[:-1]:
        left = left + (mean - log)
        shifts.append(xp.round(left))
        left = left - shifts[-1]
    return [*shifts, -carry - sum(shifts, xp.zeros_like(mean))]


def _log_norms(xp, factor, axes):
    """Binary logarithms of the norms of leaves, axes kept: -inf for zeros, 0 for what is not finite.

    Of `axes` None an array (R, 1, 1).
    """
    kept = factor.shape[-3] if axes is None else None
    axes = _axes_of(factor, axes)
    parts = [xp.real(factor), xp.imag(factor)] if is_complex(xp, factor.dtype) else [factor]
    peak = reduce(xp.maximum, [xp.max(xp.abs(part), axis=axes, keepdims=True) for part in parts])
    safe = _or_one(xp, peak)
    # Scaled, so that squares do not overflow; a complex number would not be divided by a subnormal one.
    ratios = [part / safe for part in parts]
    squares = sum(xp.sum(ratio * ratio, axis=axes, keepdims=True) for ratio in ratios)
    logs = xp.log2(safe) + xp.log2(_or_one(xp, squares)) / 2
    logs = xp.where(peak == 0, -xp.inf * xp.ones_like(logs), xp.where(xp.isfinite(peak), logs, 0.0 * safe))
    return logs if kept is None else xp.reshape(logs, (kept, 1, 1))


def _or_one(xp, size):
    """Sizes to divide by: 1 where they are zero or not finite."""
    return xp.where((size > 0) & xp.isfinite(size), size, xp.ones_like(size))


def unit_leaves(factors: Sequence[AnyArray]) -> tuple[list[AnyArray], list[AnyArray]]:
    """Factors over the largest norms of their leaves, in their accumulation dtype, and these (...), one each.

    Products of the scaled leaves do not overflow where products of the leaves do, and a term vanishes only
    where it is negligible beside another.  A factor of zeros, or one that is not finite, counts as of norm 1.
    """
    xp, wide = namespace_of(factors[0]), [widened(factor) for factor in factors]
    logs = [_log_norms(xp, detached(factor), -1) for factor in wide]
    units, peaks = [], []
    for factor in shifted(wide, _shifts_of(xp, logs)):
        peak = _or_one(xp, xp.max(xp.abs(factor), axis=(-2, -1), keepdims=True))
        unit = factor / peak
        # Of many modes even leaves of numbers of at most 1 would overflow.
        squares = xp.sum(xp.abs(detached(unit)) ** 2, axis=-1, keepdims=True)
        length = xp.sqrt(_or_one(xp, xp.max(squares, axis=-2, keepdims=True)))
        units.append(unit / length)
        peaks.append((peak * length)[..., 0, 0])
    return units, peaks


def unit_terms(factors: Sequence[AnyArray], axes: Axes) -> tuple[Sequence[AnyArray], AnyArray]:
    """Factors of the same sum over 2^exponent, with a largest term of norm near 1, and the exponent (...).

    They are in their accumulation dtype; `axes` is -1 for leaves of kets (..., R, q), None for factors (R, p,
    q).
    """
    xp, wide = namespace_of(factors[0]), [widened(factor) for factor in factors]
    terms = -2 if axes == -1 else -3
    if wide[0].shape[terms] == 0:
        return wide, xp.zeros_like(xp.real(wide[0]) if is_complex(xp, wide[0].dtype) else wide[0], shape=())
    logs = [_log_norms(xp, detached(factor), axes) for factor in wide]
    tops = xp.max(reduce(add, logs), axis=terms, keepdims=True)
    tops = xp.where(xp.isfinite(tops), xp.round(tops), xp.zeros_like(tops))
    return shifted(wide, _shifts_of(xp, logs, tops)), tops[0, 0, 0] if axes is None else tops[..., 0, 0]


def balanced(factors: Sequence[AnyArray]) -> list[AnyArray]:
    """The same sum with the leaves of each term scaled to one norm, that is their geometric mean.

    A term with a leaf of zeros becomes zeros in all its leaves; one that is not finite stays as it is.
    The scales are real and positive, so phases stay where they are.
    """
    xp, wide = namespace_of(factors[0]), [widened(factor) for factor in factors]
    if wide[0].shape[-2] == 0:
        return list(factors)
    looks = [detached(factor) for factor in wide]
    logs = [_log_norms(xp, look, -1) for look in looks]
    finite = reduce(and_, [xp.all(xp.isfinite(look), axis=-1, keepdims=True) for look in looks])
    alive = finite & reduce(and_, [xp.isfinite(log) for log in logs])
    nothing = xp.zeros_like(logs[0])
    # First by powers of two, which bring all norms near their mean, then by what is left: numbers near 1.
    shifts = [xp.where(alive, shift, nothing) for shift in _shifts_of(xp, logs)]
    mean = xp.where(alive, xp.round(reduce(add, logs) / len(logs)), nothing)
    units = shifted(wide, [shift - mean for shift in shifts])
    rests = [xp.log(_or_one(xp, xp.sum(xp.abs(unit) ** 2, axis=-1, keepdims=True))) for unit in units]
    # Logarithms, because the product of many norms may overflow where their mean does not.
    middle = reduce(add, rests) / len(rests)
    scales = [xp.where(alive, xp.exp((middle - r) / 2), xp.astype(~finite, nothing.dtype)) for r in rests]
    levelled = shifted(wide, shifts)
    return [
        xp.astype(xp.where(finite, part * scale, part), factor.dtype)
        for part, scale, factor in zip(levelled, scales, factors, strict=True)
    ]
