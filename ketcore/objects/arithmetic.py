"""Arithmetic of kets and matrices by their factors: numbers, gauge, norms and combinations of kets.

A factor here is an array (..., R, w) of leaves; a matrix factor (R, p, q) is one of width p q.
Scaling one leaf of a term by c and another by 1/c changes nothing: that freedom is the gauge.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from numbers import Complex
from operator import mul, truediv
from sys import float_info
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.checks import check_floating
from ketcore.arrays.elementary import (
    adjoint,
    chosen,
    conjugated,
    elementwise_product,
    real_dtype,
    unboxed,
    widened,
)
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    is_array,
    is_complex,
    is_half,
    namespace,
    namespace_of,
    quiet,
)
from ketcore.ops.ket_inner import ket_inner
from ketcore.shapes import Marks


def is_scalar(value: Any) -> bool:
    """Whether `value` is a number, or an array of numbers without dimensions.

    >>> is_scalar(2), is_scalar(np.float32(2)), is_scalar(np.ones(1)), is_scalar(np.datetime64("2020"))
    (True, True, False, False)
    """
    if isinstance(value, np.generic | np.ndarray):
        return value.ndim == 0 and (value.dtype.kind in "biufc" or is_half(value.dtype))
    return isinstance(value, Complex) or (is_array(value) and value.ndim == 0)


def as_number(name: str, scalar: Any) -> Any:
    """A scalar of NumPy as a number of Python, all others as they are.

    TypeError on a long double, ValueError on an int that float64 does not hold.
    """
    number = scalar.item() if isinstance(scalar, np.generic | np.ndarray) else scalar
    if isinstance(number, np.generic) and number.dtype.char in "gG":
        raise TypeError(f"{name} must be a number of at most double precision, got {number.dtype}")
    if isinstance(number, int) and abs(number) > float_info.max:
        raise ValueError(f"{name} must be at most {float_info.max}, got an int of {number.bit_length()} bits")
    return number


@quiet
def scaled(array: AnyArray, scalar: Any, divide: bool = False) -> AnyArray:
    """`array * scalar` or `array / scalar` in the precision of `array`; a complex scalar makes it complex.

    >>> scaled(np.ones(2, np.float32), np.float64(3.0)).dtype, scaled(np.ones(2, np.float32), 1j).dtype
    (dtype('float32'), dtype('complex64'))
    """
    xp = namespace_of(array)
    number = as_number("scalar", scalar)
    known = isinstance(number, Complex)
    if not known:
        namespace("factors and scalar", (array, scalar))
    complex_scalar = isinstance(number, complex) if known else is_complex(xp, scalar.dtype)
    if complex_scalar and not is_complex(xp, array.dtype):
        array = xp.astype(array, xp.complex128 if array.dtype == xp.float64 else xp.complex64)
    if not known:
        number = xp.astype(scalar, array.dtype)
    # NumPy computes bfloat16 with a number in float32.
    return xp.astype((truediv if divide else mul)(array, number), array.dtype, copy=False)


@quiet
def times_number(
    matrix: Any, scalar: Any, divide: bool
) -> tuple[list[AnyArray], tuple[int, int], list[frozenset[int]]]:
    """Factors, shape and identities of a matrix times a number: a factor that is no identity carries it."""

    def change(factor):
        return scaled(factor, scalar, divide)

    level = scale.for_number(matrix.factors, scalar, None, matrix.term_identities)
    factors, identities = carried(level, matrix.term_identities, change)
    return factors, matrix.shape, identities


def carried(
    factors: Sequence[AnyArray],
    identities: Marks,
    change: Callable[[AnyArray], AnyArray],
    modes: Sequence[int] | None = None,
) -> tuple[list[AnyArray], list[frozenset[int]]]:
    """Factors of which one in each term is changed, and what are identities afterwards.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        Those of a Kronecker matrix.
    identities : Marks
        The modes that are identities in each term, R sets.
    change : callable
        Takes all terms of a factor to the changed ones.
    modes : sequence of ints, optional
        Those that may be changed; None for all.

    Returns
    -------
    factors : list of N arrays
        Changed where they carry the change.
    identities : list of R frozensets
        The modes that are identities still.
    """
    modes = range(len(factors)) if modes is None else modes
    found, at = list(factors), _carriers(identities, modes)
    for n in set(at) or modes[:1]:
        changed, flags = change(factors[n]), np.array([place == n for place in at])
        if not flags.all():
            xp = namespace_of(changed)
            mask = xp.asarray(flags[:, None, None], device=device_of(changed))
            changed = chosen(xp, mask, changed, xp.astype(factors[n], changed.dtype, copy=False))
        found[n] = changed
    return found, [known - {place} for known, place in zip(identities, at, strict=True)]


def _carriers(identities, modes):
    """The first mode that is no identity in any term, for all; or that of each term; or the first of all."""
    some = frozenset().union(*identities)
    for n in modes:
        if n not in some:
            return [n] * len(identities)
    return [next((n for n in modes if n not in known), modes[0]) for known in identities]


@quiet
def balanced_factors(factors: Sequence[AnyArray]) -> list[AnyArray]:
    """The same matrix with factors of equal Frobenius norm within each term."""
    xp = namespace_of(factors[0])
    flat = scale.balanced(_flattened(factors))
    return [xp.reshape(f, like.shape) for f, like in zip(flat, factors, strict=True)]


def _flattened(factors: Sequence[AnyArray]) -> list[AnyArray]:
    """Matrix factors (R, p, q) as ket factors (R, p q)."""
    xp = namespace_of(factors[0])
    return [xp.reshape(f, (f.shape[0], f.shape[1] * f.shape[2])) for f in factors]


def root_of_squared(squared: AnyArray) -> AnyArray:
    """The square root of a squared norm (...): below zero by rounding counts as zero."""
    xp = namespace_of(squared)
    squared = xp.real(squared) if is_complex(xp, squared.dtype) else squared
    return xp.sqrt(xp.where(squared < 0, xp.zeros_like(squared), squared))


@quiet
def ket_norm(factors: Sequence[AnyArray]) -> AnyArray:
    """The norm (...) of the kets `sum_k (x)_n factor_nk`, by the inner product of the scaled leaves.

    It has the real dtype of the factors.  Where the terms cancel, rounding is relative to the terms and not
    to their sum: v - v has a norm near sqrt(eps) of v's, or zero.
    """
    xp = namespace_of(factors[0])
    dtype = real_dtype(xp, factors[0].dtype)
    *batch, rank, _ = factors[0].shape
    if rank == 0:
        return unboxed(xp.zeros(tuple(batch), dtype=dtype, device=device_of(factors[0])))
    units, peaks = scale.unit_leaves(factors)
    length = reduce(mul, peaks, root_of_squared(ket_inner(units, units)))
    return unboxed(xp.astype(length, dtype, copy=False))


@quiet
def contracted(factors: Sequence[AnyArray], x: AnyArray) -> AnyArray:
    """sum_j v[j] x[j] for kets v and x (Q,) or (Q, n): mode by mode, the first one by a single GEMM."""
    xp, arrays, dtype = check_floating("kets and x", (*factors, x))
    size = prod([f.shape[-1] for f in factors])
    if x.ndim not in (1, 2) or x.shape[0] != size:
        raise ValueError(f"x must have shape ({size},) or ({size}, n), got {tuple(x.shape)}")
    *wide, z = (xp.astype(a, accumulation_dtype(xp, dtype), copy=False) for a in arrays)
    leaves, _ = scale.level(wide, -1)
    *batch, rank, first = leaves[0].shape
    count, trail = prod(batch) * rank, tuple(x.shape[1:])
    flat = [xp.reshape(leaf, (count, leaf.shape[-1])) for leaf in leaves]
    rest = size // first
    z = flat[0] @ xp.reshape(z, (first, rest * prod(trail)))
    for leaf in flat[1:]:
        rest //= leaf.shape[1]
        z = xp.reshape(z, (count, leaf.shape[1], rest * prod(trail)))
        z = (leaf[:, None, :] @ z)[:, 0, :]
    total = xp.sum(xp.reshape(z, (*batch, rank, *trail)), axis=len(batch))
    return unboxed(xp.astype(total, dtype, copy=False))


@quiet
def combined(factors: Sequence[AnyArray], weights: AnyArray) -> list[AnyArray]:
    """Factors (batch * R, q_n) of the one ket sum_b weights[b] v[b]."""
    xp, arrays, dtype = check_floating("kets and weights", (*factors, weights))
    *batch, rank, _ = factors[0].shape
    if tuple(weights.shape) != tuple(batch):
        raise ValueError(f"weights must have the batch shape {tuple(batch)}, got {tuple(weights.shape)}")
    *leaves, weights = (xp.astype(a, dtype, copy=False) for a in arrays)
    leaves = scale.stored(scale.level(leaves, -1)[0], dtype, -1)
    leaves[0] = leaves[0] * weights[..., None, None]
    return [xp.reshape(leaf, (prod(batch) * rank, leaf.shape[-1])) for leaf in leaves]


@quiet
def projector_factors(leaves: Sequence[AnyArray], traced: Sequence[int] = ()) -> list[AnyArray]:
    """Factors (R^2, q_n, q_n) of v v^H, v = sum_k (x)_n leaf_nk, on the modes that are not traced out.

    Term (k, l) has leaf_nk leaf_nl^H in mode n; the first carries prod_t <leaf_tl, leaf_tk>, t traced.
    """
    xp = namespace_of(leaves[0])
    wide, _ = scale.level([widened(leaf) for leaf in leaves], -1)
    grams = [wide[n] @ adjoint(wide[n]) for n in traced]
    found: list[AnyArray] = []
    for leaf in [leaf for n, leaf in enumerate(wide) if n not in traced]:
        rank, size = leaf.shape
        pairs = leaf[:, None, :, None] * conjugated(leaf)[None, :, None, :]
        if grams and not found:
            pairs = pairs * elementwise_product(grams)[:, :, None, None]
        found.append(xp.reshape(pairs, (rank * rank, size, size)))
    return scale.stored(found, leaves[0].dtype, None)
