"""Systems of linear equations with one Kronecker product, and with it plus a multiple of the identity.

    (M + s I) x = b,   M = F_0 (x) F_1 (x) ... (x) F_{N-1}
    d x = (M + s I)^-1 (d b - dM x - ds x)

Where PyTorch or JAX record the factors, x is refined from a solution x_0 that they do not see, by a solver S
that they see as linear, two times: x <- x + S(b - (M + s I) x).  Nothing moves, but the first step has the
derivative above and the second one the second derivatives, with none of the poles that derivatives of
eigenvectors have where eigenvalues meet.

Letters: N order, p_n size of factor n, P = prod p_n, s shift.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from types import ModuleType
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Scalar
from ketcore.arrays import scale
from ketcore.arrays.autodiff import dense_solve, detached, is_recorded
from ketcore.arrays.checks import check_floating, check_like, check_tangents
from ketcore.arrays.elementary import adjoint, identity, transposed
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, is_complex, namespace, quiet
from ketcore.products.backward import matmul_vjp
from ketcore.shapes import check_axis
from ketcore.spectra import decompositions, symmetry
from ketcore.spectra.schur import triangular_solver

# In float64 the square of eps times this condition is at the level of eps.
_REFINABLE = 1e7

# Root mean squares of singular values and of their inverses multiply to 1 for unitary factors.  Up to this
# value, and 64 rows, a product with the inverse leaves at most 2.2 times the residual of an LU factorisation.
_LEVEL = 1.5

# Up to so many elements of b a factorisation is done before an inverse of more than `_SMALL` rows is made, or
# before one is applied three times.
_FEW, _SMALL = 1 << 13, 32

# Steps of refinement with the factors themselves: as many derivatives are right.
_STEPS = 2

# Elements that a step of refinement works on at a time, so that its temporaries stay in the cache.
_CHUNK = 1 << 18


@overload
def kron_solve(
    factors: Sequence[HostLike],
    b: HostLike,
    shift: Scalar | None = None,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> Host: ...
@overload
def kron_solve(
    factors: Sequence[ForeignT],
    b: ForeignT,
    shift: Scalar | None = None,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> ForeignT: ...
@quiet
def kron_solve(
    factors: Sequence[AnyArray],
    b: AnyArray,
    shift: Any = None,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> AnyArray:
    """Solve (M + s I) x = b for a Kronecker product M, which is never built.

    M is one product of N square factors, and s an optional shift::

        M = F_0 (x) F_1 (x) ... (x) F_{N-1}

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        Floating or complex; integers and nested lists become floating.  Of order 1 also (R, p_0, p_0), terms
        that add up to one matrix.
    b : array, (..., P) or (..., P, n)
        The right-hand side along axis -1, or along axis -2, with P = prod p_n.
    shift : float, complex or array, (), optional
        The number s; by default there is none.  It counts in the precision of the other arrays, and makes the
        result complex where it is.
    axis : {-1, -2}, default -1
        The axis of `b` that M multiplies.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        SciPy's names, short or long, of what the factors are known to be.  "her", "pos" and, where they are
        real, "sym" mean Hermitian, of which ``(F + F^H) / 2`` is taken; "gen" means anything.  By default the
        factors are looked at if there is a shift, which waits for a device.  What is untrue gives a wrong
        result.

    Returns
    -------
    array, (..., P) or (..., P, n)
        In the shape of `b` and the promoted dtype of `factors` and `b`, complex where the shift is; 16-bit
        storage is computed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, on arrays of several libraries or devices, and on several terms beyond order
        1.
    ValueError
        On a wrong shape, and on an unknown `axis` or `assume_a`.
    numpy.linalg.LinAlgError
        Where the matrix is singular to working precision, on NumPy arrays.  Other libraries give infinity or
        NaN, or an error of their own.

    See Also
    --------
    linalg.solve : The same of operators as objects, sums among them.
    linalg.cg : For sums of terms.
    kron_slogdet : The determinant of the same matrix.

    Notes
    -----
    Cost: ``O(|b| sum p_n)`` time without a shift or with Hermitian factors.  Otherwise back substitution with
    Schur forms made by SciPy, which waits for a device and loops over the digits of all factors but the
    largest.  Factors that PyTorch or JAX record take three times as long.

    The residual is that of a factorisation by modes, not that of an inverse.

    Where two or more factors are traced and there is a shift, they must be Hermitian, or the result is NaN.

    Examples
    --------
    >>> a, b = np.array([[[2.0, 0.0], [1.0, 1.0]]]), np.array([[[4.0]]])
    >>> kron_solve((a, b), [8.0, 8.0]).tolist(), kron_solve((a, b), [12.0, 12.0], 4.0).tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """
    call = _Call(factors, b, shift, axis, assume_a)
    return call.finished(call.solve(call.wide_b))


@overload
def kron_solve_vjp(
    factors: Sequence[HostLike],
    b: HostLike,
    shift: Scalar | None,
    cotangent: HostLike,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> tuple[tuple[Host, ...], Host, Host | None]: ...
@overload
def kron_solve_vjp(
    factors: Sequence[ForeignT],
    b: ForeignT,
    shift: Scalar | None,
    cotangent: ForeignT,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> tuple[tuple[ForeignT, ...], ForeignT, ForeignT | None]: ...
@quiet
def kron_solve_vjp(
    factors: Sequence[AnyArray],
    b: AnyArray,
    shift: Any,
    cotangent: AnyArray,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> tuple[tuple[AnyArray, ...], AnyArray, AnyArray | None]:
    """Pull a cotangent of `kron_solve` back to the factors, to b and to the shift.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_solve`.
    b : array, (..., P) or (..., P, n)
        As of `kron_solve`.
    shift : float, complex or array, ()
        As of `kron_solve`.
    cotangent : array, (..., P) or (..., P, n)
        Of the solution; real where this is.
    axis : {-1, -2}, default -1
        As of `kron_solve`.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        As of `kron_solve`.

    Returns
    -------
    to_factors : tuple of N arrays, (1, p_n, p_n)
        Each in the shape and dtype of its factor: of a real one beside complex ones the real part.  Every
        entry counts as free, also where the factor is Hermitian.
    to_b : array, (..., P) or (..., P, n)
        The same for `b`.
    to_shift : array, (), or None
        The same for `shift`; None for a shift of None.

    Raises
    ------
    TypeError, ValueError, numpy.linalg.LinAlgError
        As `kron_solve`, and on a cotangent that does not fit the solution.

    Notes
    -----
    Cost: four times `kron_solve`.

    The plain transpose: nothing is conjugated, also for complex input.

    Examples
    --------
    >>> (to_a,), to_b, to_shift = kron_solve_vjp(([[[2.0, 0.0], [0.0, 4.0]]],), [2.0, 4.0], None, [1.0, 0.0])
    >>> to_a.tolist(), to_b.tolist(), to_shift
    ([[[-0.5, -0.5], [0.0, 0.0]]], [0.5, 0.0], None)
    """
    call = _Call(factors, b, shift, axis, assume_a)
    cotangent = call.wide(check_like("cotangent", cotangent, call.b.shape, call.xp, call.b, call.dtype))
    x, to_b = call.solve(call.wide_b), call.solve(cotangent, turned=True)
    turned, _ = matmul_vjp(decompositions.as_factors(call.xp, call.matrices, x.dtype), x, -to_b, axis)
    to_matrices = [call.xp.permute_dims(g, (0, 2, 1)) for g in turned]
    to_factors = tuple(
        cast_gradient(call.xp, call.xp.broadcast_to(g, f.shape), f)
        for g, f in zip(scale.shifted(to_matrices, call.shifts), call.factors, strict=True)
    )
    to_b = call.carried(to_b)
    to_shift = None if shift is None else cast_gradient(call.xp, -call.xp.sum(to_b * x), call.shift)
    return to_factors, cast_gradient(call.xp, to_b, call.b), to_shift


@overload
def kron_solve_jvp(
    factors: Sequence[HostLike],
    b: HostLike,
    shift: Scalar | None,
    factor_tangents: Sequence[HostLike],
    b_tangent: HostLike,
    shift_tangent: Scalar | None,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> Host: ...
@overload
def kron_solve_jvp(
    factors: Sequence[ForeignT],
    b: ForeignT,
    shift: Scalar | None,
    factor_tangents: Sequence[ForeignT],
    b_tangent: ForeignT,
    shift_tangent: Scalar | None,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> ForeignT: ...
@quiet
def kron_solve_jvp(
    factors: Sequence[AnyArray],
    b: AnyArray,
    shift: Any,
    factor_tangents: Sequence[AnyArray],
    b_tangent: AnyArray,
    shift_tangent: Any,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> AnyArray:
    """The derivative of `kron_solve` along tangents of the factors, of b and of the shift.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_solve`.
    b : array, (..., P) or (..., P, n)
        As of `kron_solve`.
    shift : float, complex or array, ()
        As of `kron_solve`.
    factor_tangents : sequence of N arrays, (1, p_n, p_n)
        Of the factors, in their shapes; real where the solution is.
    b_tangent : array, (..., P) or (..., P, n)
        The same of `b`.
    shift_tangent : float, complex, array, (), or None
        The same of `shift`; None where that is.
    axis : {-1, -2}, default -1
        As of `kron_solve`.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        As of `kron_solve`.

    Returns
    -------
    array, (..., P) or (..., P, n)
        In the dtype of what `kron_solve` returns.

    Raises
    ------
    TypeError, ValueError, numpy.linalg.LinAlgError
        As `kron_solve`, and on tangents that do not fit.

    Notes
    -----
    Cost: N + 2 times `kron_solve`.
    """
    call = _Call(factors, b, shift, axis, assume_a)
    xp, like = call.xp, call.dtype
    moved = check_tangents("factor_tangents", factor_tangents, call.factors, xp, like)
    moved = scale.shifted(decompositions.as_matrices(xp, moved, call.exact), call.shifts)
    right = call.carried(call.wide(check_like("b_tangent", b_tangent, call.b.shape, xp, call.b, like)))
    x = call.solve(call.wide_b)
    for n, matrix in enumerate(moved):
        right = right - decompositions.times_matrix(
            xp, [*call.matrices[:n], matrix, *call.matrices[n + 1 :]], x, axis
        )
    if shift is not None:
        shift_tangent = decompositions.check_shift(shift_tangent, xp, call.b, like)[0]
        right = right - call.wide(check_like("shift_tangent", shift_tangent, (), xp, call.b, like)) * x
    return call.finished(call.solve(right))


def kron_solve_shapes(
    factors: Sequence[AnyArray], b: AnyArray, shift: AnyArray | None = None, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_solve`, of anything that has a shape."""
    return (tuple(b.shape),)


@quiet
def kron_solve_dense(
    factors: Sequence[AnyArray],
    b: AnyArray,
    shift: Any = None,
    *,
    axis: int = -1,
    assume_a: str | None = None,
) -> np.ndarray:
    """The definition of `kron_solve` on NumPy arrays: M multiplied out, then ``np.linalg.solve``.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_solve`; they are not checked.
    b : array, (..., P) or (..., P, n)
        As of `kron_solve`; they are not checked.
    shift : float, complex or array, (), optional
        As of `kron_solve`; they are not checked.
    axis : {-1, -2}, default -1
        As of `kron_solve`; they are not checked.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        As of `kron_solve`; it changes nothing here.

    Returns
    -------
    np.ndarray, (..., P) or (..., P, n)
        In the dtype of what `kron_solve` returns.

    Notes
    -----
    Cost: O(P^2) memory.
    """
    factors, b = [np.asarray(factor) for factor in factors], np.asarray(b)
    dtype = np.result_type(*factors, b, *([1j] if np.iscomplexobj(shift) else []))
    matrix = decompositions.dense_shifted(factors, shift)
    wide = np.result_type(matrix, accumulation_dtype(np, b.dtype))
    b = b.astype(wide)
    found = np.linalg.solve(matrix, b if axis == -2 else b[..., None])
    return (found if axis == -2 else found[..., 0]).astype(dtype)


class _Call:
    """The checked arguments of one call, in the dtype that it is computed in and at one level.

    There `b` is scaled as the matrix is, where the scale of that is far from 1.
    """

    def __init__(self, factors, b, shift, axis, assume_a):
        _, self.factors, dtype = decompositions.check_square(factors, (b,))
        _, (self.b,), b_dtype = check_floating("b", (b,), self.factors)
        self.xp = xp = namespace("factors and b", (*self.factors, self.b))
        axis = check_axis("axis", axis, (-1, -2), "-1 or -2")
        size = prod([factor.shape[1] for factor in self.factors])
        if self.b.ndim < -axis or self.b.shape[axis] != size:
            raise ValueError(f"b must have {size} entries along axis {axis}, got shape {tuple(self.b.shape)}")
        self.assumed = symmetry.assumed_hermitian(assume_a, not is_complex(xp, dtype))
        if dtype != b_dtype:
            dtype = check_floating("factors and b", (*self.factors, self.b))[2]
        self.shift, self.dtype = decompositions.check_shift(shift, xp, self.b, dtype)
        self.assume_a, self.axis = assume_a, axis
        self.working = decompositions.array_dtype(xp, self.dtype)
        self.exact = decompositions.factor_dtype(xp, self.dtype)
        self.matrices = decompositions.as_matrices(xp, self.factors, self.exact)
        self.unit = accumulation_dtype(xp, self.dtype)
        self.shifts, self.carry = None, 0
        if shift is None:
            self.matrices, self.shifts, self.carry = scale.level_and_carry(self.matrices, (-2, -1))
        else:
            self.matrices, self.shifts = scale.level(self.matrices, (-2, -1))
        self.wide_b = self.carried(self.wide(self.b))

    def carried(self, b):
        return scale.times_power(b, -self.carry) if self.carry else b

    def wide(self, array):
        return self.xp.astype(array, self.working, copy=False)

    def solve(self, b, turned=False):
        matrices = [transposed(m) for m in self.matrices] if turned else self.matrices
        shift = None if self.shift is None else self.xp.astype(self.shift, self.exact, copy=False)
        if shift is not None:
            matrices = decompositions.without_scalars(matrices)
            if len(matrices) == 1:
                matrices, shift = [matrices[0] + shift * identity(matrices[0].shape[0], matrices[0])], None
        if shift is not None:
            return self.solve_shifted(matrices, b, shift)
        if self.xp is np:
            return _solve_on_numpy(matrices, b, self.axis, np.finfo(self.unit).eps)
        return _solve_by_modes(self.xp, matrices, b, self.axis)

    def solve_shifted(self, matrices, b, shift):
        """The solution of (M + s I) x = b, through the spectra of the factors.

        LinAlgError where the matrix is singular and NumPy's; others give inf or NaN, or an error of their
        own.
        """
        xp, axis = self.xp, self.axis
        fixed = [detached(matrix) for matrix in matrices]
        stored = [factor.dtype for factor in self.factors]
        hermitian, exact = symmetry.symmetry(xp, fixed, stored, self.assumed)
        solver = None
        if hermitian is not False:
            solver = _spectral_solver(xp, fixed, shift, axis, hermitian, None if exact else self.unit)
        if solver is None:
            symmetry.check_known(fixed[0], self.assume_a)
            solver, exact = triangular_solver(xp, fixed, shift, axis, b.dtype), True
        x = solver(b)
        if exact and not is_recorded(matrices):
            return x
        for _ in range(_STEPS):
            moved = (
                decompositions.times_matrix(xp, matrices, x, axis) + xp.astype(shift, x.dtype, copy=False) * x
            )
            x = x + solver(b - moved)
        return x

    def finished(self, x):
        return self.xp.astype(x, self.dtype, copy=False)


def _spectral_solver(
    xp: ModuleType,
    matrices: Sequence[AnyArray],
    shift: AnyArray,
    axis: int,
    hermitian: bool | AnyArray,
    unit: Any,
) -> Callable[[AnyArray], AnyArray] | None:
    """A function of b that gives (M + s I)^-1 b, by the eigenvectors of Hermitian factors.

    `unit` is the dtype of a result that is to be refined, where factors are Hermitian to a coarser one than
    their own; else None.  On NumPy the function is None where refinement would not reach `unit`.
    """
    values, vectors = decompositions.hermitian_eigh(xp, matrices, hermitian)
    shifted = decompositions.check_regular(xp, decompositions.kron_of_vectors(xp, values), shift)
    if unit is not None and xp is np:
        sizes = [float(np.abs(v).max()) for v in values]
        gaps = [decompositions.frobenius(m - adjoint(m)) / 2 for m in matrices]
        gap = sum(gap * prod(sizes[:n]) * prod(sizes[n + 1 :]) for n, gap in enumerate(gaps))
        # What each step leaves of an error.
        if not (gap / float(np.abs(shifted).min())) ** (_STEPS + 1) <= np.finfo(unit).eps:
            return None
    adjoints = [adjoint(vector) for vector in vectors]

    def solve(b):
        turned = decompositions.times_matrix(xp, adjoints, b, axis)
        divisor = xp.reshape(xp.astype(shifted, b.dtype, copy=False), (-1, *((1,) if axis == -2 else ())))
        return decompositions.times_matrix(xp, vectors, turned / divisor, axis)

    return solve


def _solve_on_numpy(matrices, b, axis, unit):
    """M^-1 b: by products with inverses, which beat triangular solves, where they are as exact.

    Of a product with inverses the residual is eps cond(F_n) |b|, for the worst n; a step of refinement
    squares eps cond(F_n).
    """
    few = prod(b.shape) <= max(_FEW, 4 * max(matrix.size for matrix in matrices))
    if few and max(map(len, matrices)) > _SMALL:
        return _solve_by_modes(np, matrices, b, axis)
    inverted, conditions = decompositions.inverses(matrices)
    level = all(len(m) <= 64 and c <= _LEVEL * len(m) for m, c in zip(matrices, conditions, strict=True))
    if level or max(conditions) * np.finfo(b.dtype).eps <= unit / 4:
        return decompositions.times_matrix(np, inverted, b, axis)
    if few or max(conditions) > _REFINABLE:
        return _solve_by_modes(np, matrices, b, axis)
    lead = prod(b.shape[:axis])
    flat = b.reshape(lead, *b.shape[axis:])
    out, step = np.empty_like(flat), max(1, _CHUNK * lead // max(1, b.size))
    for start in range(0, lead, step):
        part = slice(start, start + step)
        first = decompositions.times_matrix(np, inverted, flat[part], axis)
        residual = flat[part] - decompositions.times_matrix(np, matrices, first, axis)
        np.add(first, decompositions.times_matrix(np, inverted, residual, axis), out=out[part])
    return out.reshape(b.shape)


def _solve_by_modes(xp, matrices, b, axis):
    """M^-1 b by one factorisation and two triangular solves for each mode."""
    inner = prod(b.shape[axis:])
    for n, matrix in enumerate(matrices):
        size = matrix.shape[0]
        inner //= size
        count = prod(b.shape) // (size * inner) if inner else 0
        columns = xp.permute_dims(xp.reshape(b, (count, size, inner)), (1, 0, 2))
        columns = xp.reshape(columns, (size, count * inner))
        matrix = xp.astype(matrix, b.dtype, copy=False)
        found = _solve_checked(n, matrix, columns) if xp is np else dense_solve(xp, matrix, columns)
        found = xp.permute_dims(xp.reshape(found, (size, count, inner)), (1, 0, 2))
        b = xp.reshape(found, b.shape)
    return b


def _solve_checked(n, matrix, columns):
    """np.linalg.solve with a probe behind the columns, which shows a matrix that is singular to rounding."""
    size = matrix.shape[0]
    probe = _probe(size)
    try:
        found = np.linalg.solve(matrix, np.concatenate([columns, probe], axis=1))
    except np.linalg.LinAlgError:
        raise decompositions.singular(n, 0.0) from None
    columns, probe = found[:, :-1], found[:, -1]
    condition = decompositions.frobenius(matrix) * decompositions.frobenius(probe) / size**0.5
    if condition * np.finfo(columns.dtype).eps > 0.1:
        raise decompositions.singular(n, 1 / condition)
    return columns


@lru_cache(maxsize=64)
def _probe(size):
    """A vector (size, 1) of modulus near sqrt(size) that no matrix of interest is special for."""
    return np.sqrt(2.0) * np.cos(1.0 + np.arange(size)[:, None] ** 2)
