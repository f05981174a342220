"""The determinant of one Kronecker product, and of it plus a multiple of the identity, as sign and logarithm.

    det(F_0 (x) ... (x) F_{N-1}) = prod_n det(F_n)^(P / p_n),
    det(M + s I) = prod over all products m of one eigenvalue of each factor of (m + s)

Letters: N order, p_n size of factor n, P = prod p_n, s shift.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import mul
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Scalar
from ketcore.arrays import scale
from ketcore.arrays.autodiff import dense_slogdet
from ketcore.arrays.checks import as_sequence, check_like, check_spectrum, check_tangents
from ketcore.arrays.elementary import real_dtype
from ketcore.arrays.namespaces import cast_gradient, is_complex, quiet
from ketcore.spectra import decompositions, powers, symmetry


@overload
def kron_slogdet(
    factors: Sequence[HostLike],
    shift: Scalar | None = None,
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[Host, Host]: ...
@overload
def kron_slogdet(
    factors: Sequence[ForeignT],
    shift: Scalar | None = None,
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[ForeignT, ForeignT]: ...
@quiet
def kron_slogdet(
    factors: Sequence[AnyArray], shift: Any = None, *, assume_a: str | None = None, max_bytes: int = 2**30
) -> tuple[AnyArray, AnyArray]:
    """The sign of det(M + s I) for a Kronecker product M, and the logarithm of its absolute value.

    M is one product of N square factors, and s an optional shift::

        det(F_0 (x) ... (x) F_{N-1}) = prod_n det(F_n)^(P / p_n)
        det(M + s I) = prod over all products m of one eigenvalue of each factor of (m + s)

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        Floating or complex; integers and nested lists become floating.  Of order 1 also (R, p_0, p_0), terms
        that add up to one matrix.
    shift : float, complex or array, (), optional
        The number s; by default there is none.  It counts in the precision of the factors, and makes the sign
        complex where it is.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        SciPy's names, short or long, of what the factors are known to be.  "her", "pos" and, where they are
        real, "sym" mean Hermitian, of which ``(F + F^H) / 2`` is taken; "gen" means anything.  By default the
        factors are looked at if there is a shift, which waits for a device.  What is untrue gives a wrong
        result.
    max_bytes : int, default 2**30
        How much memory the P = prod p_n eigenvalues may take, of which a shift needs all.

    Returns
    -------
    sign : array, ()
        1, 0 or -1, or a complex number of modulus 1; in the promoted dtype of `factors`, complex where the
        shift is.
    logabsdet : array, ()
        In the real dtype of `sign`; 16-bit storage is computed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, on arrays of several libraries or devices, and on several terms beyond order
        1.
    ValueError
        On a wrong shape, and on an unknown `assume_a`.
    MemoryError
        Where the eigenvalues take more than `max_bytes`.

    See Also
    --------
    linalg.slogdet : The same of operators as objects.
    kron_solve : Systems with the same matrix.
    kron_log_likelihood : The density of a Gaussian with such a covariance.

    Notes
    -----
    Cost: ``O(sum p_n^3)`` time; with a shift O(P) time and memory more, and factors that are not Hermitian
    wait for a device.

    A singular matrix has a sign of 0 and a logarithm of minus infinity.  Where the factors are traced and
    there is a shift, they must be Hermitian, or the result is NaN.

    Examples
    --------
    >>> a, b = np.array([[[0.0, 2.0], [1.0, 0.0]]]), np.array([[[3.0]]])
    >>> sign, logabsdet = kron_slogdet((a, b))
    >>> float(sign), round(float(np.exp(logabsdet)), 6), round(float(np.linalg.det(np.kron(a[0], b[0]))), 6)
    (-1.0, 18.0, -18.0)
    """
    call = _Call(factors, shift, assume_a, max_bytes)
    return call.finished(*call.slogdet())


@overload
def kron_slogdet_vjp(
    factors: Sequence[HostLike],
    shift: Scalar | None,
    cotangents: tuple[HostLike, HostLike],
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[tuple[Host, ...], Host | None]: ...
@overload
def kron_slogdet_vjp(
    factors: Sequence[ForeignT],
    shift: Scalar | None,
    cotangents: tuple[ForeignT, ForeignT],
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[tuple[ForeignT, ...], ForeignT | None]: ...
@quiet
def kron_slogdet_vjp(
    factors: Sequence[AnyArray],
    shift: Any,
    cotangents: tuple[AnyArray, AnyArray],
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[tuple[AnyArray, ...], AnyArray | None]:
    """Pull the cotangents of `kron_slogdet` back to the factors and to the shift.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_slogdet`.
    shift : float, complex or array, ()
        As of `kron_slogdet`.
    cotangents : pair of arrays, ()
        Of the sign, real where this is, and of the logarithm, real.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        As of `kron_slogdet`.
    max_bytes : int, default 2**30
        As of `kron_slogdet`.

    Returns
    -------
    to_factors : tuple of N arrays, (1, p_n, p_n)
        Each in the shape and dtype of its factor: of a real one beside complex ones the real part.  Every
        entry counts as free, also where the factor is Hermitian.
    to_shift : array, (), or None
        The same for `shift`; None for a shift of None.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `kron_slogdet`, and on cotangents that do not fit.
    numpy.linalg.LinAlgError
        Where the matrix is singular, on NumPy arrays.

    Notes
    -----
    Cost: ``O(sum p_n^3)`` time; with a shift ``O(N P)`` more for Hermitian factors, ``O(P sum p_n^2)`` for
    others.

    A real sign is constant, so that its cotangent does not count; a complex one turns.  The transpose is that
    under the pairing ``Re(sum(c y))``.

    Examples
    --------
    >>> (to_a,), to_shift = kron_slogdet_vjp(([[[2.0, 0.0], [0.0, 4.0]]],), None, (0.0, 1.0))
    >>> to_a.tolist(), to_shift
    ([[[0.5, 0.0], [0.0, 0.25]]], None)
    """
    call = _Call(factors, shift, assume_a, max_bytes)
    xp = call.xp
    by_sign, by_log = call.checked(cotangents)
    to_matrices, to_shift = call.gradients()
    weight = by_log
    if is_complex(xp, call.dtype):
        sign, _ = call.slogdet()
        weight = by_log - 1j * xp.real(by_sign * 1j * sign)
    to_matrices = scale.shifted([weight * g for g in to_matrices], call.shifts)
    to_factors = tuple(
        cast_gradient(xp, xp.broadcast_to(g[None, ...], f.shape), f)
        for g, f in zip(to_matrices, call.factors, strict=True)
    )
    return to_factors, None if shift is None else cast_gradient(xp, weight * to_shift, call.shift)


@overload
def kron_slogdet_jvp(
    factors: Sequence[HostLike],
    shift: Scalar | None,
    factor_tangents: Sequence[HostLike],
    shift_tangent: Scalar | None,
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[Host, Host]: ...
@overload
def kron_slogdet_jvp(
    factors: Sequence[ForeignT],
    shift: Scalar | None,
    factor_tangents: Sequence[ForeignT],
    shift_tangent: Scalar | None,
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[ForeignT, ForeignT]: ...
@quiet
def kron_slogdet_jvp(
    factors: Sequence[AnyArray],
    shift: Any,
    factor_tangents: Sequence[AnyArray],
    shift_tangent: Any,
    *,
    assume_a: str | None = None,
    max_bytes: int = 2**30,
) -> tuple[AnyArray, AnyArray]:
    """The derivative of `kron_slogdet` along tangents of the factors and of the shift.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_slogdet`.
    shift : float, complex or array, ()
        As of `kron_slogdet`.
    factor_tangents : sequence of N arrays, (1, p_n, p_n)
        Of the factors, in their shapes; real where the sign is.
    shift_tangent : float, complex, array, (), or None
        The same of `shift`; None where that is.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        As of `kron_slogdet`.
    max_bytes : int, default 2**30
        As of `kron_slogdet`.

    Returns
    -------
    sign : array, ()
        The derivative of the sign, in its dtype: zero where it is real.
    logabsdet : array, ()
        That of the logarithm, in its dtype.

    Raises
    ------
    TypeError, ValueError, MemoryError, numpy.linalg.LinAlgError
        As `kron_slogdet_vjp`, and on tangents that do not fit.
    """
    call = _Call(factors, shift, assume_a, max_bytes)
    xp = call.xp
    moved = check_tangents("factor_tangents", factor_tangents, call.factors, xp, call.dtype)
    moved = scale.shifted(decompositions.as_matrices(xp, moved, call.working), call.shifts)
    to_matrices, to_shift = call.gradients()
    change = reduce(lambda a, b: a + b, [xp.sum(g * t) for g, t in zip(to_matrices, moved, strict=True)])
    if shift is not None:
        like, dtype = call.factors[0], call.dtype
        shift_tangent = decompositions.check_shift(shift_tangent, xp, like, dtype)[0]
        shift_tangent = check_like("shift_tangent", shift_tangent, (), xp, like, dtype)
        change = change + to_shift * xp.astype(shift_tangent, call.working, copy=False)
    if not is_complex(xp, call.dtype):
        return call.finished(xp.zeros_like(change), change)
    sign, _ = call.slogdet()
    return call.finished(1j * sign * xp.imag(change), xp.real(change))


def kron_slogdet_shapes(
    factors: Sequence[AnyArray], shift: AnyArray | None = None, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_slogdet`, of anything that has a shape."""
    return ((), ())


@quiet
def kron_slogdet_dense(
    factors: Sequence[AnyArray], shift: Any = None, *, assume_a: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The definition of `kron_slogdet` on NumPy arrays: M multiplied out, then ``np.linalg.slogdet``.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_slogdet`; they are not checked.
    shift : float, complex or array, (), optional
        As of `kron_slogdet`; they are not checked.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        As of `kron_slogdet`; it changes nothing here.

    Returns
    -------
    sign : np.ndarray, ()
        In the dtype of the sign of `kron_slogdet`.
    logabsdet : np.ndarray, ()
        In the dtype of its logarithm.

    Notes
    -----
    Cost: O(P^2) memory.
    """
    factors = [np.asarray(factor) for factor in factors]
    dtype = np.result_type(*factors, *([1j] if np.iscomplexobj(shift) else []))
    matrix = decompositions.dense_shifted(factors, shift)
    sign, logabsdet = np.linalg.slogdet(matrix)
    return sign.astype(dtype), logabsdet.astype(np.real(np.zeros((), dtype)).dtype)


class _Call:
    """The checked arguments of one call, in the dtype that it is computed in."""

    def __init__(self, factors, shift, assume_a, max_bytes):
        self.xp, self.factors, dtype = decompositions.check_square(factors)
        self.assumed = symmetry.assumed_hermitian(assume_a, not is_complex(self.xp, dtype))
        self.stored = [factor.dtype for factor in self.factors]
        self.shift, self.dtype = decompositions.check_shift(shift, self.xp, self.factors[0], dtype)
        self.working = decompositions.factor_dtype(self.xp, self.dtype)
        self.matrices, self.shifts = decompositions.level_as_matrices(self.xp, self.factors, self.working)
        self.wide_shift = None if shift is None else self.xp.astype(self.shift, self.working, copy=False)
        # Without a shift nothing has the size of the spectrum.
        dims = [matrix.shape[0] for matrix in self.matrices] if shift is not None else []
        check_spectrum(self.matrices[0], dims, max_bytes)

    def slogdet(self):
        xp = self.xp
        if self.wide_shift is None:
            sizes = [matrix.shape[0] for matrix in self.matrices]
            parts = [dense_slogdet(xp, matrix) for matrix in self.matrices]
            pairs = [(part, prod(sizes) // size) for part, size in zip(parts, sizes, strict=True)]
            return reduce(mul, [powers.sign_power(xp, part[0], k) for part, k in pairs]), reduce(
                lambda a, b: a + b, [powers.multiple(part[1], k) for part, k in pairs]
            )
        found = decompositions.spectrum(xp, self.matrices, self.stored, self.assumed)
        values = decompositions.kron_of_vectors(xp, found.values) + self.wide_shift
        size = xp.abs(values)
        safe = xp.where(size == 0, xp.ones_like(size), size)
        zero = xp.any(size == 0)
        sign = xp.prod(values / safe)
        if not is_complex(xp, self.dtype) and is_complex(xp, sign.dtype):
            sign = xp.sign(xp.real(sign))
        logs = xp.sum(xp.log(safe))
        return sign, xp.where(zero, -xp.inf * xp.ones_like(logs), logs)

    def gradients(self):
        return decompositions.logdet_gradients(
            self.xp, self.matrices, self.wide_shift, self.stored, self.assumed
        )

    def checked(self, cotangents):
        xp, like = self.xp, self.factors[0]
        try:
            by_sign, by_log = as_sequence("cotangents", cotangents)
        except (TypeError, ValueError):
            given = type(cotangents).__name__
            raise ValueError(f"cotangents must be two arrays, of sign and logabsdet, got {given}") from None
        by_sign = check_like("cotangents", by_sign, (), xp, like, self.dtype)
        by_log = check_like("cotangents", by_log, (), xp, like, real_dtype(xp, self.dtype))
        return [xp.astype(c, self.working, copy=False) for c in (by_sign, by_log)]

    def finished(self, sign, logabsdet):
        xp = self.xp
        real = real_dtype(xp, self.dtype)
        return xp.astype(sign, self.dtype, copy=False), xp.astype(logabsdet, real, copy=False)
