"""Sandwiches of a Kronecker matrix between two dense arrays: bilinear and quadratic forms.

    x^H M y,   M = sum_k F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n, ... batch.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import (
    check_batches,
    check_floating,
    check_like,
    check_shape,
    check_tables,
    check_tangents,
)
from ketcore.arrays.elementary import conjugated, padded, transposed
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, quiet
from ketcore.products import terms
from ketcore.products.backward import matmul_vjp, summed_like
from ketcore.products.forward import matmul_by_modes
from ketcore.shapes import broadcast, reached_dims


@overload
def kron_sandwich(
    x: HostLike, factors: Sequence[HostLike], y: HostLike, shape: tuple[int, int] | None = None
) -> Host: ...
@overload
def kron_sandwich(
    x: ForeignT, factors: Sequence[ForeignT], y: ForeignT, shape: tuple[int, int] | None = None
) -> ForeignT: ...
@quiet
def kron_sandwich(
    x: AnyArray, factors: Sequence[AnyArray], y: AnyArray, shape: tuple[int, int] | None = None
) -> AnyArray:
    """Sandwiches x^H M y of a Kronecker matrix between two dense arrays: bilinear and quadratic forms.

    M is never formed::

        M = sum_k  F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

    Parameters
    ----------
    x : array, (..., rows)
        The left vector or a batch of them, which is conjugated.  Floating or complex; integers and nested
        lists become floating.
    factors : sequence of N arrays, (R, p_n, q_n)
        The factors of M, one R for all.
    y : array, (..., columns)
        The right vector.  Its batch broadcasts against that of `x`.
    shape : (int, int), optional
        ``(rows, columns)`` of the leading block of (P, Q) that M is cropped to, with P = prod p_n and
        Q = prod q_n.  By default all of it.

    Returns
    -------
    array, (...)
        One number for each entry of the batch, in the promoted dtype; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape, and on batches that do not broadcast.

    See Also
    --------
    ket_sandwich : The same between kets.
    KroneckerMatrix.sandwich : The same of a matrix as an object.

    Notes
    -----
    Cost: that of M y, which is formed.

    Examples
    --------
    >>> a, b = np.array([[[1.0], [2.0]]]), np.array([[[3.0, 4.0]]])
    >>> float(kron_sandwich([1.0, 1.0], (a, b), [1.0, 2.0]))
    33.0
    >>> float(np.ones(2) @ np.kron(a[0], b[0]) @ [1.0, 2.0])
    33.0
    """
    call = _Call(x, factors, y, shape)
    xp = call.xp
    moved = call.product(call.wide, call.wide_y)
    return xp.astype(xp.sum(conjugated(call.wide_x) * moved, axis=-1), call.dtype, copy=False)


@overload
def kron_sandwich_vjp(
    x: HostLike,
    factors: Sequence[HostLike],
    y: HostLike,
    cotangent: HostLike,
    shape: tuple[int, int] | None = None,
) -> tuple[Host, tuple[Host, ...], Host]: ...
@overload
def kron_sandwich_vjp(
    x: ForeignT,
    factors: Sequence[ForeignT],
    y: ForeignT,
    cotangent: ForeignT,
    shape: tuple[int, int] | None = None,
) -> tuple[ForeignT, tuple[ForeignT, ...], ForeignT]: ...
@quiet
def kron_sandwich_vjp(
    x: AnyArray,
    factors: Sequence[AnyArray],
    y: AnyArray,
    cotangent: AnyArray,
    shape: tuple[int, int] | None = None,
) -> tuple[AnyArray, tuple[AnyArray, ...], AnyArray]:
    """Pull a cotangent of `kron_sandwich` back to both arrays and to the factors.

    Parameters
    ----------
    x : array, (..., rows)
        As of `kron_sandwich`.
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_sandwich`.
    y : array, (..., columns)
        As of `kron_sandwich`.
    cotangent : array, (...)
        Of the sandwiches; real where these are.
    shape : (int, int), optional
        As of `kron_sandwich`.

    Returns
    -------
    to_x : array, (..., rows)
        In the shape and dtype of `x`: a sum where its batch broadcast, the real part where it alone is real.
    to_factors : tuple of N arrays, (R, p_n, q_n)
        The same for `factors`, sums over the batch.
    to_y : array, (..., columns)
        The same for `y`.

    Raises
    ------
    TypeError, ValueError
        As `kron_sandwich`, and on a cotangent that does not fit the sandwiches.

    Notes
    -----
    The transpose under the pairing ``Re(sum(c y))``: `x`, on which the form depends through its conjugate,
    gets conj(c M y); the others are not conjugated.

    Examples
    --------
    >>> to_x, to_factors, to_y = kron_sandwich_vjp([1.0, 2.0], ([[[3.0], [4.0]]],), [5.0], 1.0)
    >>> to_x.tolist(), to_factors[0].tolist(), to_y.tolist()
    ([15.0, 20.0], [[[5.0], [10.0]]], [11.0])
    """
    call = _Call(x, factors, y, shape)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, call.batch, xp, call.x, call.dtype)
    cotangent = xp.astype(cotangent, call.working, copy=False)[..., None]
    to_x = conjugated(cotangent * call.product(call.wide, call.wide_y))
    to_product = cotangent * conjugated(call.wide_x)
    to_product = summed_like(xp, to_product, (*call.wide_y.shape[:-1], call.shape[0]))
    to_product = padded(xp, to_product, call.full[0], -1)
    swapped = [transposed(factor) for factor in call.wide]
    to_swapped, to_y = matmul_vjp(swapped, padded(xp, call.wide_y, call.full[1], -1), to_product, -1)
    to_factors = scale.shifted([transposed(g) for g in to_swapped], call.shifts)
    to_factors = tuple(call.whole(g, f) for g, f in zip(to_factors, call.factors, strict=True))
    to_y = call.carried(to_y)
    to_x = cast_gradient(xp, summed_like(xp, to_x, call.x.shape), call.x)
    return to_x, to_factors, cast_gradient(xp, to_y[..., : call.shape[1]], call.y)


@overload
def kron_sandwich_jvp(
    x: HostLike,
    factors: Sequence[HostLike],
    y: HostLike,
    x_tangent: HostLike,
    factor_tangents: Sequence[HostLike],
    y_tangent: HostLike,
    shape: tuple[int, int] | None = None,
) -> Host: ...
@overload
def kron_sandwich_jvp(
    x: ForeignT,
    factors: Sequence[ForeignT],
    y: ForeignT,
    x_tangent: ForeignT,
    factor_tangents: Sequence[ForeignT],
    y_tangent: ForeignT,
    shape: tuple[int, int] | None = None,
) -> ForeignT: ...
@quiet
def kron_sandwich_jvp(
    x: AnyArray,
    factors: Sequence[AnyArray],
    y: AnyArray,
    x_tangent: AnyArray,
    factor_tangents: Sequence[AnyArray],
    y_tangent: AnyArray,
    shape: tuple[int, int] | None = None,
) -> AnyArray:
    """The derivative of `kron_sandwich` along tangents of both arrays and of the factors.

    Parameters
    ----------
    x : array, (..., rows)
        As of `kron_sandwich`.
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_sandwich`.
    y : array, (..., columns)
        As of `kron_sandwich`.
    x_tangent : array, (..., rows)
        Of `x`, in its shape; real where all of `x`, `factors` and `y` are.
    factor_tangents : sequence of N arrays, (R, p_n, q_n)
        The same of `factors`.
    y_tangent : array, (..., columns)
        The same of `y`.
    shape : (int, int), optional
        As of `kron_sandwich`.

    Returns
    -------
    array, (...)
        In the dtype of what `kron_sandwich` returns.

    Raises
    ------
    TypeError, ValueError
        As `kron_sandwich`, and on tangents that do not fit.

    Notes
    -----
    Cost: N + 2 times `kron_sandwich`.
    """
    call = _Call(x, factors, y, shape)
    xp = call.xp
    dx = call.widened(check_like("x_tangent", x_tangent, call.x.shape, xp, call.x, call.dtype))
    dy = call.widened(check_like("y_tangent", y_tangent, call.y.shape, xp, call.y, call.dtype))
    moved = check_tangents("factor_tangents", factor_tangents, call.factors, xp, call.dtype)
    moved = scale.shifted(call.cut(moved), call.shifts)
    change = call.product(call.wide, call.carried(dy))
    for n, tangent in enumerate(moved):
        change = change + call.product([*call.wide[:n], tangent, *call.wide[n + 1 :]], call.wide_y)
    total = conjugated(dx) * call.product(call.wide, call.wide_y)
    total = total + conjugated(call.wide_x) * change
    return xp.astype(xp.sum(total, axis=-1), call.dtype, copy=False)


def kron_sandwich_shapes(
    x: AnyArray, factors: Sequence[AnyArray], y: AnyArray, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_sandwich`, of anything that has a shape."""
    return (broadcast(x.shape[:-1], y.shape[:-1]),)


@quiet
def kron_sandwich_dense(
    x: AnyArray, factors: Sequence[AnyArray], y: AnyArray, shape: tuple[int, int] | None = None
) -> np.ndarray:
    """The definition of `kron_sandwich` on NumPy arrays: M multiplied out, then two products.

    Parameters
    ----------
    x : array, (..., rows)
        As of `kron_sandwich`; they are not checked.
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_sandwich`; they are not checked.
    y : array, (..., columns)
        As of `kron_sandwich`; they are not checked.
    shape : (int, int), optional
        As of `kron_sandwich`; they are not checked.

    Returns
    -------
    np.ndarray, (...)
        In the promoted dtype.

    Notes
    -----
    Cost: O(P Q) memory.
    """
    x, y = np.asarray(x), np.asarray(y)
    moved = (terms.dense_matrix(factors, shape) @ terms.dense_ket([y[..., None, :]])[..., None])[..., 0]
    total = np.sum(np.conj(terms.dense_ket([x[..., None, :]])) * moved, axis=-1)
    return total.astype(np.result_type(x, *factors, y))


class _Call:
    """The checked arguments of one call, and copies in the dtype of sums.

    The factors are at one level, and y has the scale of the whole matrix where that is far from 1.
    """

    def __init__(self, x: Any, factors: Sequence[AnyArray], y: Any, shape: Any) -> None:
        self.factors = check_tables("factors", factors, (x, y))[1]
        (self.x,) = check_floating("x", (x,), (*self.factors, y))[1]
        (self.y,) = check_floating("y", (y,), (self.x, *self.factors))[1]
        self.xp, _, self.dtype = check_floating("x, factors and y", (self.x, *self.factors, self.y))
        self.shape = check_shape(shape, self.factors)
        for name, array, size in (("x", self.x, self.shape[0]), ("y", self.y, self.shape[1])):
            if not array.ndim or array.shape[-1] != size:
                raise ValueError(
                    f"{name} must have {size} entries along its last axis, got shape {tuple(array.shape)}"
                )
        self.batch = check_batches("x and y", self.x.shape[:-1], self.y.shape[:-1])
        self.working = accumulation_dtype(self.xp, self.dtype)
        dims = (tuple(factor.shape[axis] for factor in self.factors) for axis in (1, 2))
        self.reached = [reached_dims(*pair) for pair in zip(dims, self.shape, strict=True)]
        self.full = tuple(map(prod, self.reached))
        self.wide, self.shifts, self.carry = scale.level_and_carry(self.cut(self.factors), None)
        self.wide_x, self.wide_y = self.widened(self.x), self.carried(self.widened(self.y))

    def cut(self, arrays):
        """Arrays in the shapes of the factors as far as the crop reaches, in the dtype of sums."""
        sizes = zip(arrays, *self.reached, strict=True)
        return [self.widened(array[:, :rows, :columns]) for array, rows, columns in sizes]

    def widened(self, array):
        return self.xp.astype(array, self.working, copy=False)

    def carried(self, y):
        """An array like y, or a gradient, with the scale of the matrix."""
        return scale.times_power(y, self.carry) if self.carry else y

    def whole(self, gradient, factor):
        """The gradient of a cut factor as that of the factor: zeros behind what the crop reaches."""
        for axis in (1, 2):
            gradient = padded(self.xp, gradient, factor.shape[axis], axis)
        return cast_gradient(self.xp, gradient, factor)

    def product(self, factors, y):
        """M y, (..., rows)."""
        swapped = [transposed(factor) for factor in factors]
        return matmul_by_modes(swapped, padded(self.xp, y, self.full[1], -1), -1)[..., : self.shape[0]]
