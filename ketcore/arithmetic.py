"""What kets and matrices share: scalars, norms, gauge, random leaves.

A factor here is an array (..., R, w) of leaves; a matrix factor (R, p, q) is one of width p q.
Scaling one leaf of a term by c and another by 1/c changes nothing: that freedom is the gauge.
"""

from collections.abc import Sequence
from functools import reduce
from math import sqrt
from numbers import Number
from operator import and_, mul, truediv
from typing import Any

import array_api_compat
import numpy as np

from ketcore.backend import Array, accumulation_dtype, is_complex
from ketcore.ops import ket_inner
from ketcore.shapes import check_size


def is_scalar(value: Any) -> bool:
    """Whether `value` is a number or an array without dimensions."""
    return isinstance(value, Number | np.generic) or (
        array_api_compat.is_array_api_obj(value) and value.ndim == 0
    )


def scaled(array: Array, scalar: Any, divide: bool = False) -> Array:
    """`array * scalar` or `array / scalar` in the precision of `array`; a complex scalar makes it complex.

    >>> scaled(np.ones(2, np.float32), np.float64(3.0)).dtype, scaled(np.ones(2, np.float32), 1j).dtype
    (dtype('float32'), dtype('complex64'))
    """
    xp = array_api_compat.array_namespace(array)
    number = scalar.item() if isinstance(scalar, np.generic | np.ndarray) else scalar
    known = isinstance(number, Number)
    complex_scalar = isinstance(number, complex) if known else is_complex(xp, scalar.dtype)
    if complex_scalar and not is_complex(xp, array.dtype):
        array = xp.astype(array, xp.complex128 if array.dtype == xp.float64 else xp.complex64)
    if not known:
        number = xp.astype(scalar, array.dtype)
    # NumPy computes bfloat16 with a number in float32.
    return xp.astype((truediv if divide else mul)(array, number), array.dtype, copy=False)


def conjugated(array: Array) -> Array:
    """The complex conjugate; a real array as it is."""
    xp = array_api_compat.array_namespace(array)
    return xp.conj(array) if is_complex(xp, array.dtype) else array


def widened(factors: Sequence[Array]) -> list[Array]:
    """Factors in their accumulation dtype."""
    xp = array_api_compat.array_namespace(*factors)
    return [xp.astype(f, accumulation_dtype(xp, f.dtype), copy=False) for f in factors]


def unit_leaves(factors: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Factors in their accumulation dtype over their largest magnitudes, and these (...), one per factor.

    Products of the scaled leaves do not overflow where products of the leaves do, and a term vanishes only
    where it is negligible beside another.  A factor of zeros, or one that is not finite, counts as of
    magnitude 1.
    """
    xp = array_api_compat.array_namespace(*factors)
    units, peaks = [], []
    for wide in _levelled(xp, widened(factors)):
        peak = _or_one(xp, xp.max(xp.abs(wide), axis=(-2, -1), keepdims=True))
        units.append(wide / peak)
        peaks.append(peak[..., 0, 0])
    return units, peaks


def _levelled(xp, factors):
    """The same terms, the leaves of each near one norm: scaled by powers of two, which rounds nothing."""
    logs = [xp.log2(_or_one(xp, _leaf_norms(xp, factor))) for factor in factors]
    mean = sum(logs) / len(logs)
    shifts = [xp.round(mean - log) for log in logs[:-1]]
    shifts.append(-sum(shifts) if shifts else xp.zeros_like(mean))
    # In two steps, since one power of two may overflow where the product does not.
    steps = [(xp.round(shift / 2), shift - xp.round(shift / 2)) for shift in shifts]
    return [factor * 2.0**first * 2.0**second for factor, (first, second) in zip(factors, steps, strict=True)]


def root_of_squared(squared: Array) -> Array:
    """The square root of a squared norm (...): below zero by rounding counts as zero."""
    xp = array_api_compat.array_namespace(squared)
    squared = xp.real(squared) if is_complex(xp, squared.dtype) else squared
    return xp.sqrt(xp.where(squared < 0, xp.zeros_like(squared), squared))


def norm(factors: Sequence[Array], inner=ket_inner) -> Array:
    """The norm (...) of sum_k (x)_n factor_nk, by `inner` of the scaled factors with themselves.

    returns  the real dtype of the factors.  Where the terms cancel, rounding is relative to the terms and
             not to their sum: v - v has a norm near sqrt(eps) of v's, or zero
    """
    xp = array_api_compat.array_namespace(*factors)
    dtype = real_dtype(xp, factors[0].dtype)
    *batch, rank, _ = factors[0].shape
    if rank == 0:
        return unboxed(xp.zeros(tuple(batch), dtype=dtype, device=array_api_compat.device(factors[0])))
    units, peaks = unit_leaves(factors)
    length = reduce(mul, peaks, root_of_squared(inner(units, units)))
    return unboxed(xp.astype(length, dtype, copy=False))


def unboxed(result: Array) -> Array:
    """A NumPy array without dimensions as the scalar that NumPy's own functions return."""
    return result[()] if result.ndim == 0 else result


def real_dtype(xp, dtype):
    """The dtype of absolute values."""
    if not is_complex(xp, dtype):
        return dtype
    return xp.float64 if dtype == xp.complex128 else xp.float32


def balanced(factors: Sequence[Array]) -> list[Array]:
    """The same sum with the leaves of each term scaled to one norm, that is their geometric mean.

    A term with a leaf of zeros becomes zeros in all its leaves; one that is not finite stays as it is.
    The scales are real and positive, so phases stay where they are.
    """
    xp = array_api_compat.array_namespace(*factors)
    if factors[0].shape[-2] == 0:
        return list(factors)
    norms = [_leaf_norms(xp, factor) for factor in factors]
    alive = reduce(mul, [xp.astype(n > 0, n.dtype) for n in norms])
    finite = reduce(and_, [xp.isfinite(n) for n in norms])
    norms = [_or_one(xp, n) for n in norms]
    # Logarithms, because the product of many norms may overflow where their mean does not.
    mean = alive * xp.exp(sum(xp.log(n) for n in norms) / len(norms))
    scales = [xp.where(finite, mean / n, xp.ones_like(n)) for n in norms]
    return [
        xp.astype(xp.astype(factor, accumulation_dtype(xp, factor.dtype)) * scale, factor.dtype)
        for factor, scale in zip(factors, scales, strict=True)
    ]


def _leaf_norms(xp, factor):
    """Norms (..., R, 1) over the last axis, scaled so that squares do not overflow."""
    size = xp.abs(xp.astype(factor, accumulation_dtype(xp, factor.dtype), copy=False))
    peak = _or_one(xp, xp.max(size, axis=-1, keepdims=True))
    ratio = size / peak
    return peak * xp.sqrt(xp.sum(ratio * ratio, axis=-1, keepdims=True))


def _or_one(xp, size):
    """Sizes to divide by: 1 where they are zero or not finite."""
    return xp.where((size > 0) & xp.isfinite(size), size, xp.ones_like(size))


def random_leaves(
    shapes: Sequence[tuple[int, ...]], rank: int, std: float, rng: Any, dtype: Any
) -> list[Array]:
    """Normal leaves for which the entries of the sum of `rank` products have standard deviation `std`.

    shapes   of the N factors; each leaf entry has the standard deviation (std / sqrt(rank))**(1 / N)
    rng      None, a seed or a NumPy Generator; or one of CuPy, whose arrays these are then
    returns  N arrays of `dtype`; complex ones have independent real and imaginary parts
    """
    dtype = np.dtype(dtype)
    if not (dtype.kind in "fc" or dtype.name == "bfloat16"):
        raise TypeError(f"dtype must be floating or complex, got {dtype}")
    std = check_size("std", std)
    rng = rng if hasattr(rng, "standard_normal") else np.random.default_rng(rng)
    leaf_std = (std / sqrt(max(rank, 1))) ** (1 / len(shapes))
    if dtype.kind != "c":
        return [(leaf_std * rng.standard_normal(shape)).astype(dtype) for shape in shapes]
    part = leaf_std / sqrt(2)
    return [
        (part * rng.standard_normal(shape) + 1j * part * rng.standard_normal(shape)).astype(dtype)
        for shape in shapes
    ]


def itemsize(array: Array) -> int:
    """Bytes of one element; array-api-strict alone keeps it from its dtypes and arrays."""
    known = getattr(array.dtype, "itemsize", None)
    if known is not None:
        return int(known)
    xp = array_api_compat.array_namespace(array)
    return xp.finfo(array.dtype).bits * (2 if is_complex(xp, array.dtype) else 1) // 8
