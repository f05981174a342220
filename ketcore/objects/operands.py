"""What stands beside operators: operands of `@` by NumPy's rules, dense sandwiches."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray
from ketcore.arrays.checks import check_dtype, check_out
from ketcore.arrays.conversions import COMMON, as_floating
from ketcore.arrays.elementary import unboxed
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    is_array,
    is_complex,
    namespace,
    namespace_of,
    opts_out,
    quiet,
)


def is_dense(value: Any) -> bool:
    """Whether `value` is an array, a nested list, or something that `__array__` or `__dlpack__` makes one.

    Sparse matrices count, so that they are refused by name.

    >>> is_dense([1.0]), is_dense(np.ones(2)), is_dense("no")
    (True, True, False)
    """
    if type(value) is np.ndarray or isinstance(value, list | tuple):
        return True
    if opts_out(value):
        return False
    return is_array(value) or any(hasattr(value, name) for name in ("__array__", "__dlpack__", "tocsr"))


def operand(name: str, value: Any, owner: Any) -> AnyArray:
    """What stands beside an object as a floating array: lists and integers in its library and dtype.

    raises   as `check_floating`; arrays of another library are left to what computes
    """
    if type(value) is np.ndarray and value.dtype in COMMON:
        return value
    (value,) = as_floating(name, (value,), (owner._like(),))
    check_dtype(name, namespace_of(value), value.dtype)
    return value


def marks(matrix: Any) -> tuple[frozenset[int], ...]:
    """The identities of each term of a Kronecker matrix for `kron_matmul`, which has less to do with none."""
    return matrix.term_identities if any(matrix.term_identities) else ()


def check_left(x: AnyArray, columns: int) -> None:
    """Whether A @ x is defined for A with so many columns: x (columns,) or (..., columns, n)."""
    if not x.ndim or x.shape[-1 if x.ndim == 1 else -2] != columns:
        rule = f"x must have shape ({columns},) or (..., {columns}, n) after @"
        raise ValueError(f"{rule}, got {tuple(x.shape)}")


def check_right(x: AnyArray, rows: int) -> None:
    """Whether x @ A is defined for A with so many rows: x (..., rows)."""
    if not x.ndim or x.shape[-1] != rows:
        raise ValueError(f"x must have shape (..., {rows}) before @, got {tuple(x.shape)}")


@quiet
def applied(x: AnyArray, rows: int, columns: int, transform: Callable[[AnyArray], AnyArray]) -> AnyArray:
    """A @ x by NumPy's rules for A (rows, columns).

    x          (columns,), or (..., columns, n)
    transform  takes (lead, columns, trail) to (lead, rows, trail)
    """
    check_left(x, columns)
    xp = namespace_of(x)
    lead, trail = (x.shape[:-2], x.shape[-1:]) if x.ndim > 1 else ((), ())
    result = transform(xp.reshape(x, (prod(lead), columns, prod(trail))))
    return xp.reshape(result, (*lead, rows, *trail))


@quiet
def applied_right(
    x: AnyArray, rows: int, columns: int, transform: Callable[[AnyArray], AnyArray]
) -> AnyArray:
    """x @ A by NumPy's rules for A (rows, columns), x (..., rows); `transform` is that of A^T."""
    check_right(x, rows)
    xp = namespace_of(x)
    lead = x.shape[:-1]
    return xp.reshape(transform(xp.reshape(x, (prod(lead), rows, 1))), (*lead, columns))


def written(result: AnyArray, out: AnyArray | None) -> AnyArray:
    """A result, in `out` where that is given and fits."""
    if out is None:
        return result
    out = check_out(out, result.shape, result.dtype, result, namespace_of(result))
    out[...] = result
    return out


@quiet
def sandwich(matrix: Any, x: Any, y: Any) -> AnyArray:
    """x^H A y for arrays (..., rows) and (..., columns)."""
    if not (is_dense(x) and is_dense(y)):
        kinds = f"{type(x).__name__} and {type(y).__name__}"
        raise TypeError(f"x and y must be two kets or two arrays, got {kinds}")
    x, y = (operand(name, value, matrix) for name, value in (("x", x), ("y", y)))
    if x.ndim < 1 or y.ndim < 1 or (x.shape[-1], y.shape[-1]) != matrix.shape:
        rule = f"x and y must have shapes (..., {matrix.shape[0]}) and (..., {matrix.shape[1]})"
        raise ValueError(f"{rule}, got {tuple(x.shape)} and {tuple(y.shape)}")
    known = getattr(matrix, "term_identities", None)
    if known is None or any(known):
        # The operation takes factors without identities; products skip those, and never read their values.
        xp = namespace("x and y", (x, y))
        image = y @ matrix.T
        dtype = xp.result_type(x, image)
        left, right = (xp.astype(a, accumulation_dtype(xp, dtype), copy=False) for a in (x, image))
        products = (xp.conj(left) if is_complex(xp, left.dtype) else left) * right
        return unboxed(xp.astype(xp.sum(products, axis=-1), dtype, copy=False))
    return unboxed(ops.kron_sandwich(x, matrix.factors, y, matrix.shape))
