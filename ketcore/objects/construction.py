"""What kets and matrices are made of: random leaves, identities, stacked terms, factors of another dtype."""

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.checks import as_sequence, check_floating
from ketcore.arrays.elementary import beside
from ketcore.arrays.namespaces import is_array, is_floating, is_half, quiet
from ketcore.divisors import suggest_dims
from ketcore.shapes import (
    Marks,
    as_int,
    check_addressable,
    check_dense_size,
    check_dims,
    check_int,
    check_size,
    shown,
)


@quiet
def random_leaves(
    shapes: Sequence[tuple[int, ...]], rank: int, std: float, rng: Any, dtype: Any
) -> list[AnyArray]:
    """Normal leaves for which the entries of the sum of `rank` products have standard deviation `std`.

    Parameters
    ----------
    shapes : sequence of N tuples of ints
        Of the factors; each leaf entry has the standard deviation (std / sqrt(rank))**(1 / N).
    rank : int
        The number of terms.
    std : float
        At least 0.
    rng : int, Generator or None
        None, a seed or a NumPy Generator; or one of CuPy, whose arrays these are then.
    dtype : dtype
        A floating or complex one of NumPy.

    Returns
    -------
    list of N arrays
        Of `dtype`; complex ones have independent real and imaginary parts.
    """
    dtype = _floating_dtype(dtype)
    std = check_size("std", std)
    rng = generator(rng)
    for shape in shapes:
        check_addressable(shape)
    leaf_std = (std / sqrt(max(rank, 1))) ** (1 / len(shapes))
    if dtype.kind != "c":
        return [(leaf_std * rng.standard_normal(shape)).astype(dtype) for shape in shapes]
    part = leaf_std / sqrt(2)
    return [
        (part * rng.standard_normal(shape) + 1j * part * rng.standard_normal(shape)).astype(dtype)
        for shape in shapes
    ]


def generator(rng: Any) -> Any:
    """`rng` where it is a generator, of NumPy or CuPy; else NumPy's of that seed."""
    if hasattr(rng, "standard_normal"):
        return rng
    try:
        return np.random.default_rng(_checked_seed(rng))
    except (TypeError, ValueError) as error:
        text = f"rng must be None, a seed >= 0 or a Generator, got {shown(rng)}"
        raise type(error)(text) from None


def _checked_seed(rng):
    """Lists with at least one int: NumPy takes bools, empty lists and ragged ones for seeds, too."""
    several = isinstance(rng, list | tuple | range | np.ndarray)
    if isinstance(rng, bool) or (several and not (len(rng) and all(as_int(n) is not None for n in rng))):
        raise TypeError
    return rng


def cast(factors: Sequence[AnyArray], dtype: Any, axes: scale.Axes, fixed: Marks = ()) -> list[AnyArray]:
    """Factors in another floating or complex dtype, as by `scale.stored`; TypeError, naming it, on others."""
    if isinstance(factors[0].dtype, np.dtype):
        dtype = _floating_dtype(dtype)
    return scale.stored(factors, dtype, axes, fixed)


def _floating_dtype(dtype):
    """`dtype` as one of NumPy in native byte order."""
    found = numeric_dtype(dtype, "be floating or complex").newbyteorder("=")
    if not is_floating(np, found):
        precision = " of at most double precision" if found.kind in "fc" else ""
        raise TypeError(f"dtype must be floating or complex{precision}, got {found}")
    return found


def numeric_dtype(dtype: Any, rule: str) -> np.dtype[Any]:
    """`dtype` as one of NumPy for numbers or bools; TypeError with the rule where it is none.

    What merely has a dtype, as arrays and kets do, is none; nor is None, of which NumPy makes float64.
    """
    named = isinstance(dtype, str | type | np.dtype)
    try:
        found = np.dtype(dtype) if named else None
    except (TypeError, Warning):  # NumPy warns of names that it had
        found = None
    if found is None or not (found.kind in "biufc" or is_half(found)):
        raise TypeError(f"dtype must {rule}, got {shown(dtype) if found is None else found}")
    return found


def identities(dims: Any, dtype: Any, like: AnyArray | None) -> list[AnyArray]:
    """Identity matrices of these sizes, beside `like` or of NumPy."""
    found = as_int(dims)
    dtype = _floating_dtype(dtype)
    dims = check_dims("dims", dims if found is None else (found,))
    check_addressable((max(dims),) * 2)
    return [placed(np.eye(dim, dtype=dtype), like) for dim in dims]


def placed(values: np.ndarray, like: AnyArray | None) -> AnyArray:
    """`beside(values, like)` for a `like` that a caller gives; None for NumPy."""
    if like is None:
        return values
    # The classes of arrays have all that tells arrays.
    if not is_array(like) or isinstance(like, type):
        raise TypeError(f"like must be an array, got {type(like).__name__}")
    return beside(values, like)


def dense_factors(factors: Any, max_bytes: int = 2**30) -> Any:
    """The given factors with sparse matrices made arrays; all others as they are.

    MemoryError where a sparse matrix is above `max_bytes` as an array.
    """
    return [_dense_factor(f, max_bytes) for f in factors] if isinstance(factors, list | tuple) else factors


def _dense_factor(factor, max_bytes):
    if is_array(factor) or not hasattr(factor, "tocsr"):  # what all sparse matrices of SciPy and CuPy have
        return factor
    what = f"factor {tuple(factor.shape)} of {factor.dtype}"
    check_dense_size(prod(factor.shape), factor.dtype.itemsize, what, max_bytes)
    return factor.toarray()


def stacked_terms(terms: Sequence[Sequence[Any]]) -> list[AnyArray]:
    """Factors (R, p, q) from R lists of N matrices, of one shape per mode."""
    terms = [as_sequence("terms", term) for term in as_sequence("terms", terms)]
    if not terms or any(len(term) != len(terms[0]) for term in terms):
        orders = shown([len(term) for term in terms])
        raise ValueError(f"terms must be at least one list of matrices, all of one order, got {orders}")
    xp, flat, dtype = check_floating("terms", [matrix for term in terms for matrix in dense_factors(term)])
    shapes = [tuple(matrix.shape) for matrix in flat]
    modes = [shapes[mode :: len(terms[0])] for mode in range(len(terms[0]))]
    if any(len(set(mode)) > 1 or len(mode[0]) != 2 for mode in modes):
        raise ValueError(f"terms must hold matrices of one shape per mode, got shapes {shown(modes)}")
    flat = [xp.astype(matrix, dtype, copy=False) for matrix in flat]
    return [xp.stack(flat[mode :: len(terms[0])]) for mode in range(len(terms[0]))]


def random_shapes(
    shape: Sequence[int], order: int | None, row_dims: Sequence[int] | None, col_dims: Sequence[int] | None
) -> tuple[tuple[int, int], list[tuple[int, int]]]:
    """`shape` checked, and (p_n, q_n) per mode; dims that are not given come from `suggest_dims`."""
    shape = check_dims("shape", shape)
    if len(shape) != 2:
        raise ValueError(f"shape must be two ints (rows, columns), got {shown(shape)}")
    row_dims = None if row_dims is None else check_dims("row_dims", row_dims)
    col_dims = None if col_dims is None else check_dims("col_dims", col_dims)
    given = [dims for dims in (row_dims, col_dims) if dims is not None]
    order = None if order is None else check_int("order", order, 1)
    orders = {len(dims) for dims in given} | ({order} if order is not None else set())
    if len(orders) != 1:
        raise ValueError(
            "order, row_dims and col_dims must give one order, "
            f"got {shown(order)}, {shown(row_dims)} and {shown(col_dims)}"
        )
    (order,) = orders
    row_dims = suggest_dims(shape[0], order) if row_dims is None else row_dims
    col_dims = suggest_dims(shape[1], order) if col_dims is None else col_dims
    return shape, list(zip(row_dims, col_dims, strict=True))
