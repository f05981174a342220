"""What kets and matrices share: scalars, norms, gauge, random leaves.

A factor here is an array (..., R, w) of leaves; a matrix factor (R, p, q) is one of width p q.
Scaling one leaf of a term by c and another by 1/c changes nothing: that freedom is the gauge.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import reduce
from math import prod, sqrt
from numbers import Complex
from operator import index as as_integer
from operator import mul, truediv
from sys import float_info
from typing import Any

import array_api_compat
import numpy as np

from ketcore.arrays import scale
from ketcore.arrays.checks import as_sequence, check_floating
from ketcore.arrays.elementary import beside, real_dtype, unboxed
from ketcore.arrays.namespaces import (
    Array,
    accumulation_dtype,
    is_array,
    is_complex,
    is_floating,
    is_half,
    namespace_of,
    quiet,
)
from ketcore.divisors import suggest_dims
from ketcore.ops.ket_inner import ket_inner
from ketcore.shapes import Marks, check_dense_size, check_dims, check_size


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

    raises   TypeError on a long double, ValueError on an int that float64 does not hold
    """
    number = scalar.item() if isinstance(scalar, np.generic | np.ndarray) else scalar
    if isinstance(number, np.generic) and number.dtype.char in "gG":
        raise TypeError(f"{name} must be a number of at most double precision, got {number.dtype}")
    if isinstance(number, int) and abs(number) > float_info.max:
        raise ValueError(f"{name} must be at most {float_info.max}, got an int of {number.bit_length()} bits")
    return number


@quiet
def scaled(array: Array, scalar: Any, divide: bool = False) -> Array:
    """`array * scalar` or `array / scalar` in the precision of `array`; a complex scalar makes it complex.

    >>> scaled(np.ones(2, np.float32), np.float64(3.0)).dtype, scaled(np.ones(2, np.float32), 1j).dtype
    (dtype('float32'), dtype('complex64'))
    """
    xp = namespace_of(array)
    number = as_number("scalar", scalar)
    known = isinstance(number, Complex)
    complex_scalar = isinstance(number, complex) if known else is_complex(xp, scalar.dtype)
    if complex_scalar and not is_complex(xp, array.dtype):
        array = xp.astype(array, xp.complex128 if array.dtype == xp.float64 else xp.complex64)
    if not known:
        number = xp.astype(scalar, array.dtype)
    # NumPy computes bfloat16 with a number in float32.
    return xp.astype((truediv if divide else mul)(array, number), array.dtype, copy=False)


def root_of_squared(squared: Array) -> Array:
    """The square root of a squared norm (...): below zero by rounding counts as zero."""
    xp = namespace_of(squared)
    squared = xp.real(squared) if is_complex(xp, squared.dtype) else squared
    return xp.sqrt(xp.where(squared < 0, xp.zeros_like(squared), squared))


@quiet
def ket_norm(factors: Sequence[Array]) -> Array:
    """The norm (...) of the kets sum_k (x)_n factor_nk, by the inner product of the scaled leaves.

    returns  the real dtype of the factors.  Where the terms cancel, rounding is relative to the terms and
             not to their sum: v - v has a norm near sqrt(eps) of v's, or zero
    """
    xp = namespace_of(factors[0])
    dtype = real_dtype(xp, factors[0].dtype)
    *batch, rank, _ = factors[0].shape
    if rank == 0:
        return unboxed(xp.zeros(tuple(batch), dtype=dtype, device=array_api_compat.device(factors[0])))
    units, peaks = scale.unit_leaves(factors)
    length = reduce(mul, peaks, root_of_squared(ket_inner(units, units)))
    return unboxed(xp.astype(length, dtype, copy=False))


@quiet
def random_leaves(
    shapes: Sequence[tuple[int, ...]], rank: int, std: float, rng: Any, dtype: Any
) -> list[Array]:
    """Normal leaves for which the entries of the sum of `rank` products have standard deviation `std`.

    shapes   of the N factors; each leaf entry has the standard deviation (std / sqrt(rank))**(1 / N)
    rng      None, a seed or a NumPy Generator; or one of CuPy, whose arrays these are then
    returns  N arrays of `dtype`; complex ones have independent real and imaginary parts
    """
    dtype = _floating_dtype(dtype)
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


def cast(factors: Sequence[Array], dtype: Any, axes: scale.Axes, fixed: Marks = ()) -> list[Array]:
    """Factors in another floating or complex dtype, as by `scale.stored`; TypeError, naming it, on others."""
    if isinstance(factors[0].dtype, np.dtype):
        dtype = _floating_dtype(dtype)
    return scale.stored(factors, dtype, axes, fixed)


def _floating_dtype(dtype):
    """`dtype` as one of NumPy in native byte order."""
    try:
        found = np.dtype(dtype).newbyteorder("=")
    except TypeError:
        raise TypeError(f"dtype must be floating or complex, got {dtype!r}") from None
    if not is_floating(np, found):
        precision = " of at most double precision" if found.kind in "fc" else ""
        raise TypeError(f"dtype must be floating or complex{precision}, got {found}")
    return found


def identities(dims: Any, dtype: Any, like: Array | None) -> list[Array]:
    """Identity matrices of these sizes, beside `like` or of NumPy."""
    with suppress(TypeError):  # of anything but an int
        dims = (as_integer(dims),)
    dtype = _floating_dtype(dtype)
    return [placed(np.eye(dim, dtype=dtype), like) for dim in check_dims("dims", dims)]


def placed(values: np.ndarray, like: Array | None) -> Array:
    """`beside(values, like)` for a `like` that a caller gives; None for NumPy."""
    if like is None:
        return values
    if not is_array(like):
        raise TypeError(f"like must be an array, got {type(like).__name__}")
    return beside(values, like)


def dense_factors(factors: Any, max_bytes: int = 2**30) -> Any:
    """`factors` with sparse matrices and what has `__dlpack__` alone made arrays; all others as they are.

    raises   MemoryError where a sparse matrix is above `max_bytes` as an array
    """
    return [_dense_factor(f, max_bytes) for f in factors] if isinstance(factors, list | tuple) else factors


def _dense_factor(factor, max_bytes):
    if is_array(factor):
        return factor
    if hasattr(factor, "tocsr"):  # what all sparse matrices of SciPy and CuPy have
        what = f"factor {tuple(factor.shape)} of {factor.dtype}"
        check_dense_size(prod(factor.shape), factor.dtype.itemsize, what, max_bytes)
        return factor.toarray()
    return np.from_dlpack(factor) if hasattr(factor, "__dlpack__") else factor


def stacked_terms(terms: Sequence[Sequence[Any]]) -> list[Array]:
    """Factors (R, p, q) from R lists of N matrices, of one shape per mode."""
    terms = [as_sequence("terms", term) for term in as_sequence("terms", terms)]
    if not terms or any(len(term) != len(terms[0]) for term in terms):
        orders = [len(term) for term in terms]
        raise ValueError(f"terms must be at least one list of matrices, all of one order, got {orders}")
    xp, flat, dtype = check_floating("terms", [matrix for term in terms for matrix in dense_factors(term)])
    shapes = [tuple(matrix.shape) for matrix in flat]
    modes = [shapes[mode :: len(terms[0])] for mode in range(len(terms[0]))]
    if any(len(set(mode)) > 1 or len(mode[0]) != 2 for mode in modes):
        raise ValueError(f"terms must hold matrices of one shape per mode, got shapes {modes}")
    flat = [xp.astype(matrix, dtype, copy=False) for matrix in flat]
    return [xp.stack(flat[mode :: len(terms[0])]) for mode in range(len(terms[0]))]


def random_shapes(
    shape: Sequence[int], order: int | None, row_dims: Sequence[int] | None, col_dims: Sequence[int] | None
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """`shape` checked, and (p_n, q_n) per mode; dims that are not given come from `suggest_dims`."""
    shape = check_dims("shape", shape)
    if len(shape) != 2:
        raise ValueError(f"shape must be two ints (rows, columns), got {shape}")
    row_dims = None if row_dims is None else check_dims("row_dims", row_dims)
    col_dims = None if col_dims is None else check_dims("col_dims", col_dims)
    given = [dims for dims in (row_dims, col_dims) if dims is not None]
    orders = {len(dims) for dims in given} | ({order} if order is not None else set())
    if len(orders) != 1:
        raise ValueError(
            f"order, row_dims and col_dims must give one order, got {order}, {row_dims} and {col_dims}"
        )
    (order,) = orders
    row_dims = suggest_dims(shape[0], order) if row_dims is None else row_dims
    col_dims = suggest_dims(shape[1], order) if col_dims is None else col_dims
    return shape, list(zip(row_dims, col_dims, strict=True))


@quiet
def contracted(factors: Sequence[Array], x: Array) -> Array:
    """sum_j v[j] x[j] for kets v and x (Q,) or (Q, n): mode by mode, the first one by a single GEMM."""
    xp, arrays, dtype = check_floating("kets and x", (*factors, x))
    size = prod(f.shape[-1] for f in factors)
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
def combined(factors: Sequence[Array], weights: Array) -> list[Array]:
    """Factors (batch * R, q_n) of the one ket sum_b weights[b] v[b]."""
    xp, arrays, dtype = check_floating("kets and weights", (*factors, weights))
    *batch, rank, _ = factors[0].shape
    if tuple(weights.shape) != tuple(batch):
        raise ValueError(f"weights must have the batch shape {tuple(batch)}, got {tuple(weights.shape)}")
    *leaves, weights = (xp.astype(a, dtype, copy=False) for a in arrays)
    leaves = scale.stored(scale.level(leaves, -1)[0], dtype, -1)
    leaves[0] = leaves[0] * weights[..., None, None]
    return [xp.reshape(leaf, (prod(batch) * rank, leaf.shape[-1])) for leaf in leaves]
