"""Conjugate gradients for what has no closed form: sums of Kronecker products, and incomplete grids.

    (K + s I) x = b,    (W (K + s I) W^T) x = b,   W the rows of the identity where the mask is true

s I may be a diagonal matrix instead, as the variances of noise are.

A Kronecker product near K preconditions both: see `preconditioners`.
"""

from collections.abc import Callable
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, Lists
from ketcore.arrays import namespaces, solvers
from ketcore.arrays.checks import check_floating
from ketcore.arrays.conversions import as_array
from ketcore.arrays.elementary import real_dtype
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    is_complex,
    is_half,
    namespace,
    namespace_of,
    quiet,
)
from ketcore.cuda import library
from ketcore.linalg import closed_forms, preconditioners
from ketcore.linalg.closed_forms import System
from ketcore.objects import arithmetic
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.operands import flat, is_dense, on_grid, operand
from ketcore.shapes import check_int, check_size, shown


@overload
def cg(
    A: System[Host],
    b: Host | Lists,
    x0: Host | Lists | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: object = None,
    mask: Host | Lists | None = None,
    shift: float | Host | Lists = 0.0,
    callback: Callable[[Host], object] | None = None,
) -> tuple[Host, int]: ...
@overload
def cg(
    A: System[ForeignT],
    b: ForeignT,
    x0: ForeignT | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: object = None,
    mask: ForeignT | None = None,
    shift: float | ForeignT = 0.0,
    callback: Callable[[ForeignT], object] | None = None,
) -> tuple[ForeignT, int]: ...
@quiet
def cg(
    A: Any,
    b: AnyArray,
    x0: AnyArray | None = None,
    *,
    rtol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
    mask: AnyArray | None = None,
    shift: Any = 0.0,
    callback: Callable[[AnyArray], object] | None = None,
) -> tuple[Any, int]:
    """Solve (A + shift I) x = b by conjugate gradients: `scipy.sparse.linalg.cg`, or CuPy's for its arrays.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        Hermitian, A + shift I positive definite (where the mask is true): any rank, cropped or not.
    b : array, (P,), (p_0, ..., p_{N-1}) or (observed,)
        A vector; or on the grid (the row dims of A); or one element for each true one of the mask.  Where the
        mask is false, elements of a b of P are not read.
    x0 : array, of a shape that b may have, optional
        A first guess; None for zeros.
    rtol : float, default 1e-5
        As SciPy's: in the end the residual is at most `max(rtol |b|, atol)`, over the observed elements.
    atol : float, default 0.0
        See `rtol`.
    maxiter : int, optional
        The most iterations, at least 1; None is ten times the number of unknowns, as in SciPy.
    M : operator, (P, P) or (observed, observed), optional
        What approximates the inverse of A + shift I: an operator of SciPy (CuPy) on the observed elements, or
        any operator of ketcore on all of them (`ketcore.eye(A.row_dims)` for none).  None, unlike in SciPy:
        one is made from a single Kronecker product near A.
    mask : array of bools, (P,) or (p_0, ..., p_{N-1}), optional
        The equations and unknowns to keep.  None for all.
    shift : float, or array, (P,) or (p_0, ..., p_{N-1}), default 0.0
        A real number; or one for each element, a diagonal matrix, not read where the mask is false.
    callback : callable, optional
        As SciPy's: ``callback(xk)`` is called after each iteration, xk the observed elements of its x.

    Returns
    -------
    x : array, of the shape of b
        Zero where the mask is false.
    info : int
        0, or the number of iterations where these did not reach the tolerance: x is then the last iterate.

    Raises
    ------
    TypeError
        On other kinds, and on arrays of other libraries than NumPy and CuPy.
    ValueError
        On other shapes, on a mask that is true nowhere, and on a shift that is not finite.
    LinAlgError
        Where A is not square, not finite or not Hermitian, or not positive definite as far as the
        preconditioner sees.

    See Also
    --------
    solve : What has a closed form, exactly.

    Notes
    -----
    Cost: one product with A and one with the preconditioner, O(P sum p_n) each, an iteration.  Before them
    two products with random vectors, which show whether A is Hermitian, and the preconditioner: O(sum p_n^3),
    and with more than a few elements missing, or with an array of shifts, the inverse of one dense matrix of
    at most 2048 rows.  Not reaching the tolerance is no error: look at `info`.

    Examples
    --------
    >>> a = KroneckerMatrix.from_terms([[np.eye(2), np.eye(2)], [np.ones((2, 2)), np.diag([1.0, 2.0])]])
    >>> x, info = cg(a, a @ np.array([1.0, 2.0, 3.0, 4.0]))
    >>> x.round(5).tolist(), info
    ([1.0, 2.0, 3.0, 4.0], 0)

    Without the last equation and the last unknown:

    >>> x, info = cg(a, [5.0, 6.0, 7.0, np.nan], mask=[True, True, True, False])
    >>> x.round(5).tolist(), info
    ([1.0, 2.0, 3.0, 0.0], 0)
    """
    system = _System(A, b, mask, shift)
    rtol, atol = check_size("rtol", rtol), check_size("atol", atol)
    maxiter = None if maxiter is None else check_int("maxiter", maxiter, 1)
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {type(callback).__name__}")
    system.check_preconditioner(M)
    start = None if x0 is None else system.observed(system.vector("x0", x0)[0])
    solver = solvers.conjugate_gradients(system.b)
    operator = system.operator(system.product)
    system.check_hermitian(operator)
    if M is None:
        found = preconditioners.approximate_inverse(A, system.shift, system.extended(system.ones()))
        M = None if found is None else system.operator(found)
    elif hasattr(M, "as_linear_operator"):
        M = system.operator(M.__matmul__)
    right = system.observed(system.b)
    options = {"rtol": rtol, "atol": atol, "maxiter": maxiter, "M": M, "callback": callback}
    with library.on_device_of(system.b):
        x, info = solver(operator, right, start, **options)
    return system.finished(x), int(info)


class _System:
    """The checked arguments of one call, and the observed elements among all P."""

    def __init__(self, A, b, mask, shift):
        if not isinstance(A, KroneckerMatrix | KroneckerSum | KroneckerProduct):
            raise TypeError(f"A must be a KroneckerMatrix or a KroneckerSum for cg, got {type(A).__name__}")
        if A.shape[0] != A.shape[1]:
            raise np.linalg.LinAlgError(f"A must be square for cg, got shape {A.shape}")
        b = operand("b", b, A)
        xp = namespace_of(b)
        namespace("A and b", (*closed_forms.arrays_of(A), b))
        solvers.linear_operator(b)
        self.xp, self.A, self.size = xp, A, A.shape[0]
        promoted = xp.result_type(*closed_forms.arrays_of(A), b)
        self.half = promoted if is_half(promoted) else None
        self.dtype = accumulation_dtype(xp, promoted)
        self.index = None if mask is None else self._index(mask)
        self.count = self.size if self.index is None else self.index.shape[0]
        self.b, self.grid = b, False
        self.b, self.grid = self.vector("b", b)
        self.whole = self.b.shape[0] == self.size
        self.shift = self._diagonal(shift)

    def _diagonal(self, shift):
        """A number, or one for each element: zero where it is not observed."""
        if arithmetic.is_scalar(shift):
            number = complex(arithmetic.as_number("shift", shift))
            if not np.isfinite(number):
                raise ValueError(f"shift must be finite, got {shift}")
            if not number.imag:
                return number.real
        if not is_dense(shift):
            raise TypeError(f"shift must be a real number for cg, or {self.size} of them, got {shown(shift)}")
        xp, dtype = self.xp, real_dtype(self.xp, self.dtype)
        _, (shift,), _ = check_floating("shift", (shift,), (self.b,))
        namespace("shift and b", (shift, self.b))
        if is_complex(xp, shift.dtype):
            raise TypeError(f"shift must be real for cg, got {shift.dtype}")
        found = self.observed(xp.astype(self._flat("shift", shift)[0], dtype, copy=False))
        if not bool(xp.all(xp.isfinite(found))):
            raise ValueError("shift must be finite, got NaN or infinity")
        return self.extended(found)

    def _index(self, mask):
        """Where the mask is true."""
        mask = as_array("mask", mask)
        if str(mask.dtype).rpartition(".")[2] != "bool":
            raise TypeError(f"mask must be booleans, got {mask.dtype}")
        found = self.xp.asarray(self._flat("mask", mask)[0]).nonzero()[0]
        if not found.shape[0]:
            raise ValueError("mask must be true somewhere, got none")
        return found

    def _flat(self, name, values, where=""):
        """One number for each row of A as a vector, and whether they were on the grid."""
        values, _, grid = flat(name, values, self.A, -2, batch=False, where=where)
        return values, grid

    def vector(self, name, values):
        """A vector of all elements, or of the observed ones, and whether it was on the grid."""
        _, (values,), _ = check_floating(name, (values,), (self.b,))
        namespace(f"{name} and b", (values, self.b))
        grid = False
        if tuple(values.shape) != (self.count,):
            masked = f", or ({self.count},) where the mask is true" if self.count != self.size else ""
            values, grid = self._flat(name, values, masked)
        return self.xp.astype(values, self.dtype, copy=False), grid

    def observed(self, values):
        """The observed elements of a vector of either length."""
        return values if self.index is None or values.shape[0] == self.count else values[self.index]

    def extended(self, values):
        """All elements, zero where they are not observed."""
        if self.index is None:
            return values
        device = device_of(self.b)
        whole = self.xp.zeros(self.size, dtype=values.dtype, device=device)
        whole[self.index] = values
        return whole

    def ones(self):
        """A one for each observed element, in the real dtype."""
        dtype = real_dtype(self.xp, self.dtype)
        return self.xp.ones(self.count, dtype=dtype, device=device_of(self.b))

    def finished(self, x):
        x = on_grid(self.extended(x) if self.whole else x, self.A, -2, self.grid)
        return x if self.half is None else self.xp.astype(x, self.half)

    def product(self, values):
        """(A + shift I) times a vector of all elements."""
        return self.A @ values + self.shift * values

    def operator(self, product):
        """The LinearOperator on the observed elements that `product` is on all."""

        def matvec(values):
            values = self.xp.reshape(values, (-1,))
            return self.observed(self.xp.astype(product(self.extended(values)), self.dtype, copy=False))

        return solvers.linear_operator(self.b)((self.count,) * 2, matvec=matvec, dtype=self.dtype)

    def check_preconditioner(self, M):
        if M is None:
            return
        if isinstance(M, KroneckerMatrix | KroneckerSum | KroneckerProduct):
            namespace("M and b", (*closed_forms.arrays_of(M), self.b))
        elif namespaces.is_array(M):
            namespace("M and b", (M, self.b))
        size = self.size if hasattr(M, "as_linear_operator") else self.count
        if not hasattr(M, "shape"):
            raise TypeError(f"M must be a linear operator, got {type(M).__name__}")
        if tuple(M.shape) != (size, size):
            raise ValueError(f"M must have shape {(size, size)}, got {tuple(M.shape)}")

    def check_hermitian(self, operator):
        """LinAlgError unless y^H A x is the conjugate of x^H A y, for random x and y, to rounding."""
        rng, like = np.random.default_rng(0), np.dtype(self.dtype)
        x, y = (self.xp.asarray(_random(rng, self.count, like)) for _ in range(2))
        ax, ay = operator.matvec(x), operator.matvec(y)
        gap = abs(self.xp.vdot(y, ax) - self.xp.vdot(x, ay).conj())
        norm = self.xp.linalg.norm
        if not bool(gap <= 64 * np.finfo(like).eps * (norm(y) * norm(ax) + norm(x) * norm(ay))):
            raise np.linalg.LinAlgError("A must be finite and Hermitian for cg, got a matrix that is not")


def _random(rng, count, dtype):
    values = rng.standard_normal(count)
    return (values + 1j * rng.standard_normal(count) if dtype.kind == "c" else values).astype(dtype)
