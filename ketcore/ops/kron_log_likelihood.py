"""The log-density of a Gaussian whose covariance is one Kronecker product plus a multiple of the identity.

    K = M + s I,   real:     log p(y) = -(y^T K^-1 y + log det K + P log(2 pi)) / 2
                   complex:  log p(y) = -(y^H K^-1 y + log det K + P log(pi))   (circular)

    d log p = h (x^H dK x - tr(K^-1 dK)) - 2 h Re(x^H dy),   x = K^-1 y,   h = 1/2 or 1

Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 2.30 and 5.9.

Letters: N order, p_n size of factor n, P = prod p_n, s shift, ... batch.
"""

from collections.abc import Sequence
from math import log, pi, prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Scalar
from ketcore.arrays import scale
from ketcore.arrays.autodiff import detached, is_recorded
from ketcore.arrays.checks import check_floating, check_like, check_tangents
from ketcore.arrays.elementary import adjoint, conjugated, real_dtype, transposed
from ketcore.arrays.namespaces import cast_gradient, is_complex, namespace, quiet
from ketcore.products.backward import matmul_vjp
from ketcore.spectra import decompositions, symmetry


@overload
def kron_log_likelihood(
    factors: Sequence[HostLike], y: HostLike, shift: Scalar | None, *, assume_a: str | None = None
) -> Host: ...
@overload
def kron_log_likelihood(
    factors: Sequence[ForeignT], y: ForeignT, shift: Scalar | None, *, assume_a: str | None = None
) -> ForeignT: ...
@quiet
def kron_log_likelihood(
    factors: Sequence[AnyArray], y: AnyArray, shift: Any, *, assume_a: str | None = None
) -> AnyArray:
    """The log-density of a Gaussian whose covariance is a Kronecker product plus a multiple of the identity.

    The mean is zero, the covariance K is never built::

        K = F_0 (x) F_1 (x) ... (x) F_{N-1} + s I
        log p(y) = -(y^T K^-1 y + log det K + P log(2 pi)) / 2      real
        log p(y) = -(y^H K^-1 y + log det K + P log(pi))            complex, circular

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        Hermitian matrices, floating or complex; integers and nested lists become floating.  Of order 1 also
        (R, p_0, p_0), terms that add up to one matrix.
    y : array, (..., P)
        The values, a vector or a batch of them, with P = prod p_n.  With complex `y` or factors the density
        is that of a circular complex Gaussian.
    shift : float or array, ()
        The number s, real, for instance the variance of noise; K must be positive definite.
    assume_a : {"sym", "her", "pos"}, optional
        "her", "pos" and, where the factors are real, "sym": they are not looked at, and of one that is not
        Hermitian ``(F + F^H) / 2`` is taken.  By default they are looked at, which waits for a device.

    Returns
    -------
    array, (...)
        In the real dtype of `factors` and `y`; 16-bit storage is computed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, on arrays of several libraries or devices, and on several terms beyond order
        1.
    ValueError
        On a wrong shape, and on an `assume_a` that does not say that the factors are Hermitian.
    numpy.linalg.LinAlgError
        Where a factor is not Hermitian; on NumPy arrays also where K is not positive definite.  Of the latter
        other libraries give NaN, and of both where the factors are traced.

    See Also
    --------
    linalg.gaussian_log_likelihood : The same of operators as objects.
    linalg.gaussian_posterior : Predictions with the same covariance.

    Notes
    -----
    Cost: ``O(|y| sum p_n + sum p_n^3)`` time, ``O(|y| + P)`` memory.

    References
    ----------
    Rasmussen and Williams, Gaussian Processes for Machine Learning, equations 2.30 and 5.9.

    Examples
    --------
    >>> a, b = np.array([[[2.0, 1.0], [1.0, 2.0]]]), np.array([[[1.0]]])
    >>> round(float(kron_log_likelihood((a, b), [1.0, -1.0], 1.0)), 6)
    -3.377598
    >>> from scipy.stats import multivariate_normal
    >>> round(float(multivariate_normal(cov=[[3.0, 1.0], [1.0, 3.0]]).logpdf([1.0, -1.0])), 6)
    -3.377598
    """
    call = _Call(factors, y, shift, assume_a)
    xp = call.xp
    constant = xp.sum(xp.log(call.shifted)) + call.size * (log(pi) if call.complex else log(2 * pi))
    squares = call.squares()
    return call.finished(-call.half * (squares + xp.astype(constant, squares.dtype, copy=False)))


@overload
def kron_log_likelihood_vjp(
    factors: Sequence[HostLike],
    y: HostLike,
    shift: Scalar | None,
    cotangent: HostLike,
    *,
    assume_a: str | None = None,
) -> tuple[tuple[Host, ...], Host, Host]: ...
@overload
def kron_log_likelihood_vjp(
    factors: Sequence[ForeignT],
    y: ForeignT,
    shift: Scalar | None,
    cotangent: ForeignT,
    *,
    assume_a: str | None = None,
) -> tuple[tuple[ForeignT, ...], ForeignT, ForeignT]: ...
@quiet
def kron_log_likelihood_vjp(
    factors: Sequence[AnyArray], y: AnyArray, shift: Any, cotangent: AnyArray, *, assume_a: str | None = None
) -> tuple[tuple[AnyArray, ...], AnyArray, AnyArray]:
    """Pull a cotangent of `kron_log_likelihood` back to the factors, to y and to the shift.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_log_likelihood`.
    y : array, (..., P)
        As of `kron_log_likelihood`.
    shift : float or array, ()
        As of `kron_log_likelihood`.
    cotangent : array, (...)
        Of the log-densities, real.
    assume_a : {"sym", "her", "pos"}, optional
        As of `kron_log_likelihood`.

    Returns
    -------
    to_factors : tuple of N arrays, (1, p_n, p_n)
        Each in the shape and dtype of its factor: of a real one beside complex ones the real part.
    to_y : array, (..., P)
        The same for `y`.
    to_shift : array, ()
        The same for `shift`.

    Raises
    ------
    TypeError, ValueError, numpy.linalg.LinAlgError
        As `kron_log_likelihood`, and on a cotangent that does not fit.

    Notes
    -----
    Cost: three times `kron_log_likelihood`.

    The density is continued to all matrices by the real part of the formula: every entry of a factor counts
    as free.  The gradients are Hermitian as the factors are, so that they serve any parametrisation of these.

    Examples
    --------
    >>> (to_a,), to_y, to_shift = kron_log_likelihood_vjp(([[[3.0]]],), [2.0], 1.0, 1.0)
    >>> to_a.tolist(), to_y.tolist(), float(to_shift)
    ([[[0.0]]], [-0.5], 0.0)
    """
    call = _Call(factors, y, shift, assume_a)
    xp = call.xp
    real = real_dtype(xp, call.working)
    cotangent = check_like("cotangent", cotangent, call.y.shape[:-1], xp, call.y, real)
    cotangent = xp.astype(cotangent, real, copy=False)
    x = call.solved(call.wide_y, call.vectors, call.shifted)
    to_product = call.half * cotangent[..., None] * conjugated(x)
    to_matrices, _ = matmul_vjp(decompositions.as_factors(xp, call.matrices, x.dtype), x, to_product, -1)
    weight = call.half * xp.astype(xp.sum(cotangent), call.values[0].dtype, copy=False)
    by_logdet, shift_by_logdet = call.logdet_gradients()
    pairs = zip(to_matrices, by_logdet, strict=True)
    found = scale.shifted([transposed(g) - (weight * w)[None, ...] for g, w in pairs], call.shifts)
    to_factors = tuple(
        cast_gradient(xp, xp.broadcast_to(g, f.shape), f) for g, f in zip(found, call.factors, strict=True)
    )
    to_shift = xp.sum(to_product * x)
    to_shift = (xp.real(to_shift) if call.complex else to_shift) - weight * shift_by_logdet
    return to_factors, cast_gradient(xp, -2 * to_product, call.y), cast_gradient(xp, to_shift, call.shift)


@overload
def kron_log_likelihood_jvp(
    factors: Sequence[HostLike],
    y: HostLike,
    shift: Scalar | None,
    factor_tangents: Sequence[HostLike],
    y_tangent: HostLike,
    shift_tangent: Scalar | None,
    *,
    assume_a: str | None = None,
) -> Host: ...
@overload
def kron_log_likelihood_jvp(
    factors: Sequence[ForeignT],
    y: ForeignT,
    shift: Scalar | None,
    factor_tangents: Sequence[ForeignT],
    y_tangent: ForeignT,
    shift_tangent: Scalar | None,
    *,
    assume_a: str | None = None,
) -> ForeignT: ...
@quiet
def kron_log_likelihood_jvp(
    factors: Sequence[AnyArray],
    y: AnyArray,
    shift: Any,
    factor_tangents: Sequence[AnyArray],
    y_tangent: AnyArray,
    shift_tangent: Any,
    *,
    assume_a: str | None = None,
) -> AnyArray:
    """The derivative of `kron_log_likelihood` along tangents of the factors, of y and of the shift.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_log_likelihood`.
    y : array, (..., P)
        As of `kron_log_likelihood`.
    shift : float or array, ()
        As of `kron_log_likelihood`.
    factor_tangents : sequence of N arrays, (1, p_n, p_n)
        Of the factors, in their shapes, Hermitian or not (see `kron_log_likelihood_vjp`); real where all of
        `factors` and `y` are.
    y_tangent : array, (..., P)
        The same of `y`.
    shift_tangent : float or array, ()
        Of `shift`, real.
    assume_a : {"sym", "her", "pos"}, optional
        As of `kron_log_likelihood`.

    Returns
    -------
    array, (...)
        In the dtype of what `kron_log_likelihood` returns.

    Raises
    ------
    TypeError, ValueError, numpy.linalg.LinAlgError
        As `kron_log_likelihood`, and on tangents that do not fit.

    Notes
    -----
    Cost: N + 2 times `kron_log_likelihood`.
    """
    call = _Call(factors, y, shift, assume_a)
    xp = call.xp
    moved = check_tangents("factor_tangents", factor_tangents, call.factors, xp, call.dtype)
    moved = scale.shifted(decompositions.as_matrices(xp, moved, call.matrices[0].dtype), call.shifts)
    dy = call.wide(check_like("y_tangent", y_tangent, call.y.shape, xp, call.y, call.dtype))
    ds = decompositions.check_shift(shift_tangent, xp, call.y, call.dtype)[0]
    ds = check_like("shift_tangent", ds, (), xp, call.y, real_dtype(xp, call.dtype))
    x = call.solved(call.wide_y, call.vectors, call.shifted)
    change = call.wide(ds) * x - 2 * dy
    for n, matrix in enumerate(moved):
        replaced = [*call.matrices[:n], matrix, *call.matrices[n + 1 :]]
        change = change + decompositions.times_matrix(xp, replaced, x, -1)
    by_logdet, shift_by_logdet = call.logdet_gradients()
    trace = sum(xp.sum(g * t) for g, t in zip(by_logdet, moved, strict=True))
    trace = (xp.real(trace) if call.complex else trace) + shift_by_logdet * xp.astype(
        ds, shift_by_logdet.dtype, copy=False
    )
    total = xp.sum(conjugated(x) * change, axis=-1)
    total = xp.real(total) if call.complex else total
    return call.finished(call.half * (total - xp.astype(trace, total.dtype, copy=False)))


def kron_log_likelihood_shapes(
    factors: Sequence[AnyArray], y: AnyArray, shift: AnyArray, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_log_likelihood`, of anything that has a shape."""
    return (tuple(y.shape[:-1]),)


@quiet
def kron_log_likelihood_dense(
    factors: Sequence[AnyArray], y: AnyArray, shift: Any, *, assume_a: str | None = None
) -> np.ndarray:
    """The definition of `kron_log_likelihood` on NumPy arrays: M multiplied out, then solved with.

    Parameters
    ----------
    factors : sequence of N arrays, (1, p_n, p_n)
        As of `kron_log_likelihood`; they are not checked.
    y : array, (..., P)
        As of `kron_log_likelihood`; they are not checked.
    shift : float or array, ()
        As of `kron_log_likelihood`; they are not checked.
    assume_a : {"sym", "her", "pos"}, optional
        As of `kron_log_likelihood`; it changes nothing here.

    Returns
    -------
    np.ndarray, (...)
        In the dtype of what `kron_log_likelihood` returns.

    Notes
    -----
    Cost: O(P^2) memory.
    """
    dtype = np.result_type(*factors, y)
    matrix = decompositions.dense_shifted(factors, shift)
    y = np.asarray(y).astype(matrix.dtype)
    size, is_real = len(matrix), np.dtype(dtype).kind != "c"
    solved = np.linalg.solve(matrix, y[..., None])[..., 0]
    constant = np.linalg.slogdet(matrix)[1] + size * np.log(2 * np.pi if is_real else np.pi)
    total = np.real(np.sum(np.conj(y) * solved, axis=-1)) + constant
    return (-total * (0.5 if is_real else 1.0)).astype(np.real(np.zeros((), dtype)).dtype)


class _Call:
    """The checked arguments of one call, and the spectrum of the covariance."""

    def __init__(self, factors, y, shift, assume_a):
        _, self.factors, own = decompositions.check_square(factors, (y,))
        _, (self.y,), _ = check_floating("y", (y,), self.factors)
        self.xp = xp = namespace("factors and y", (*self.factors, self.y))
        self.dtype = check_floating("factors and y", (*self.factors, self.y))[2]
        if shift is None:
            raise TypeError("shift must be a real number, got None")
        self.shift: AnyArray = decompositions.check_shift(shift, xp, self.y, self.dtype)[0]
        if is_complex(xp, self.shift.dtype):
            raise TypeError(f"shift must be real for a covariance, got {self.shift.dtype}")
        self.complex = is_complex(xp, self.dtype)
        self.half = 1.0 if self.complex else 0.5
        self.working = decompositions.array_dtype(xp, self.dtype)
        exact = decompositions.factor_dtype(xp, self.dtype)
        self.matrices, self.shifts = decompositions.level_as_matrices(xp, self.factors, exact)
        self.size = prod([matrix.shape[0] for matrix in self.matrices])
        if not self.y.ndim or self.y.shape[-1] != self.size:
            raise ValueError(
                f"y must have {self.size} entries along its last axis, got shape {tuple(self.y.shape)}"
            )
        stored = [factor.dtype for factor in self.factors]
        assumed = symmetry.assumed_hermitian(assume_a, not is_complex(xp, own))
        if assumed is False:
            raise ValueError(f"assume_a must say that a covariance is Hermitian, got {assume_a!r}")
        self.values: Sequence[AnyArray]
        self.vectors: Any
        self.values, self.vectors = decompositions.hermitian_spectrum(xp, self.matrices, stored, assumed)
        exact = xp.astype(self.shift, self.values[0].dtype, copy=False)
        self.shifted = decompositions.check_positive(
            xp, decompositions.kron_of_vectors(xp, self.values) + exact, exact
        )
        self.wide_y = self.wide(self.y)

    def wide(self, array):
        return self.xp.astype(array, self.working, copy=False)

    def turned(self, y, vectors):
        """V^H y: y in the basis of the eigenvectors."""
        adjoints = [adjoint(vector) for vector in vectors]
        return decompositions.times_matrix(self.xp, adjoints, y, -1)

    def squares(self):
        """y^H K^-1 y (...)."""
        xp = self.xp
        if is_recorded(self.matrices):
            return self.recorded_squares()
        turned = self.turned(self.wide_y, self.vectors)
        squares = xp.real(conjugated(turned) * turned) if self.complex else turned * turned
        return xp.sum(squares / xp.astype(self.shifted, squares.dtype, copy=False), axis=-1)

    def recorded_squares(self):
        """x^H (2 y - K x), stationary at x = K^-1 y, with an x refined from one that has no derivative.

        First and second derivatives are right, without those of eigenvectors: see `kron_solve`.
        """
        xp, y = self.xp, self.wide_y
        vectors, shifted = [detached(v) for v in self.vectors], detached(self.shifted)
        shift = xp.astype(self.shift, y.dtype, copy=False)
        x = self.solved(detached(y), vectors, shifted)
        residual = y - decompositions.times_matrix(xp, self.matrices, x, -1) - shift * x
        x = x + self.solved(residual, vectors, shifted)
        product = decompositions.times_matrix(xp, self.matrices, x, -1) + shift * x
        total = xp.sum(conjugated(x) * (2 * y - product), axis=-1)
        return xp.real(total) if self.complex else total

    def solved(self, y, vectors, shifted):
        """K^-1 y."""
        turned = self.turned(y, vectors)
        weights = self.xp.astype(shifted, turned.dtype, copy=False)
        return decompositions.times_matrix(self.xp, vectors, turned / weights, -1)

    def logdet_gradients(self):
        return decompositions.hermitian_logdet_gradients(self.xp, self.values, self.vectors, self.shifted)

    def finished(self, total):
        return self.xp.astype(total, real_dtype(self.xp, self.dtype), copy=False)
