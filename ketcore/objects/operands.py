"""What stands beside operators: operands of `@` by NumPy's rules or on the grid, dense sandwiches.

Where the dims of one side of an operator are (p_0, ..., p_{N-1}), N >= 2, an array whose last N axes are
these is on the grid: `flat` is the one place that says when a shape is read so.
"""

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
    is_writeable_in_place,
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

    Errors are those of `check_floating`; arrays of another library are left to what computes.
    """
    if type(value) is np.ndarray and value.dtype in COMMON:
        return value
    (value,) = as_floating(name, (value,), (owner._like(),))
    check_dtype(name, namespace_of(value), value.dtype)
    return value


def marks(matrix: Any) -> tuple[frozenset[int], ...]:
    """The identities of each term of a Kronecker matrix for `kron_matmul`, which has less to do with none."""
    return matrix.term_identities if any(matrix.term_identities) else ()


def flat(
    name: str, x: AnyArray, A: Any, side: int, columns: bool = False, batch: bool = True, where: str = ""
) -> tuple[AnyArray, int, bool]:
    """The array x with the numbers of one side of A along one axis; that axis; whether x was on the grid.

    NumPy's reading comes first: (size,), (..., size), or (..., size, n).  What does not fit it and ends with
    the dims of this side is on the grid, and comes as (..., size).  Cropped operators and those of one mode
    have no grid.

    Parameters
    ----------
    name : str
        What errors call x.
    x : array
        What stands beside A.
    A : Ket or Operator
        What it stands beside.
    side : int
        -2 for the rows of A, -1 for its columns, or for the entries of a ket.
    columns : bool, default False
        Whether a matrix is one of columns: (size,) and (..., size, n) rather than (..., size).
    batch : bool, default True
        Whether axes may stand before.
    where : str, default ""
        What ends the list of shapes in the error.
    """
    size, ndim = A.shape[side], x.ndim
    if ndim:
        axis = -2 if columns and ndim > 1 else -1
        if x.shape[axis] == size and (batch or ndim == -axis):
            return x, axis, False
    dims, shape = A._grid(side), tuple(x.shape)
    lead = ndim - len(dims)
    if not dims or lead < 0 or shape[lead:] != dims or (lead and not batch):
        raise ValueError(f"{name} must have shape {_rule(size, dims, columns, batch)}{where}, got {shape}")
    return namespace_of(x).reshape(x, (*shape[:lead], size)), -1, True


def _rule(size, dims, columns, batch):
    """The shapes that fit, in words."""
    before = "..., " if batch else ""
    own = f"({before}{size})" if batch and not columns else f"({size},)"
    shapes = [own, *([f"({before}{size}, n)"] if columns else [])]
    shapes += [f"({before}{', '.join(map(str, dims))})"] if dims else []
    return " or ".join(filter(None, (", ".join(shapes[:-1]), shapes[-1])))


def on_grid(x: AnyArray, A: Any, side: int, grid: bool) -> AnyArray:
    """The array x (..., size) on the grid of that side of A, where `grid` is true; else as it is."""
    return namespace_of(x).reshape(x, (*x.shape[:-1], *A._grid(side))) if grid else x


def after(x: AnyArray, A: Any) -> tuple[AnyArray, int, bool]:
    """What `flat` says of x in A @ x."""
    return flat("x", x, A, -1, True, True, " after @")


def before(x: AnyArray, A: Any) -> tuple[AnyArray, int, bool]:
    """What `flat` says of x in x @ A."""
    return flat("x", x, A, -2, False, True, " before @")


@quiet
def applied(A: Any, x: AnyArray, turned: bool) -> AnyArray:
    """A @ x, or x @ A if `turned`, through what A does with (lead, size, trail)."""
    x, axis, grid = before(x, A) if turned else after(x, A)
    xp, side = namespace_of(x), -1 if turned else -2
    lead, trail = x.shape[:axis], x.shape[x.ndim + axis + 1 :]
    result = A._apply(xp.reshape(x, (prod(lead), x.shape[axis], prod(trail))), turned)
    return on_grid(xp.reshape(result, (*lead, A.shape[side], *trail)), A, side, grid)


def product_on_grid(
    A: Any, x: AnyArray, side: int, product: Callable[..., AnyArray], out: AnyArray | None
) -> AnyArray:
    """`product(out=)` of x (..., size), in `out` where that is given, on the grid of that side of A."""
    if out is not None:
        shape, xp = (*x.shape[:-1], *A._grid(side)), namespace("A and x", (*A.factors, x))
        own = is_writeable_in_place(out) and out.flags.c_contiguous
        if own and tuple(out.shape) == shape and out.dtype == xp.result_type(*A.factors, x):
            product(out=out.reshape(*x.shape[:-1], A.shape[side]))
            return out
    return written(on_grid(product(), A, side, True), out)


def written(result: AnyArray, out: AnyArray | None) -> AnyArray:
    """A result, in `out` where that is given and fits."""
    if out is None:
        return result
    out = check_out(out, result.shape, result.dtype, result, namespace_of(result))
    out[...] = result
    return out


@quiet
def sandwich(matrix: Any, x: Any, y: Any) -> AnyArray:
    """The numbers `x^H A y` for arrays (..., rows) and (..., columns), or on the grid."""
    if not (is_dense(x) and is_dense(y)):
        kinds = f"{type(x).__name__} and {type(y).__name__}"
        raise TypeError(f"x and y must be two kets or two arrays, got {kinds}")
    x, y = (operand(name, value, matrix) for name, value in (("x", x), ("y", y)))
    x, y = flat("x", x, matrix, -2)[0], flat("y", y, matrix, -1)[0]
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
