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
    """The sign of det(M + s I) and the logarithm of its absolute value, as np.linalg.slogdet gives them.

    factors  N arrays (1, p_n, p_n), floating or complex; of order 1 also (R, p_0, p_0), which is one matrix
    shift    s, a number or an array without dimensions, real or complex; it does not widen the dtype
    assume_a    "her", "pos" and, where factors are real, "sym": they are Hermitian; "gen": anything.  None:
             with a shift they are looked at, which waits for a device; see `kron_solve`
    max_bytes  that the P eigenvalues may take, which a shift needs all of
    returns  (sign, logabsdet), arrays without dimensions: -1.0, 0.0 or 1.0, or a complex number of modulus 1,
             in the promoted dtype of the factors, complex where the shift is; and its real dtype.  A
             singular matrix gives 0 and -inf.  16-bit storage is computed in float32
    raises   TypeError, ValueError on kinds and shapes; MemoryError, naming the size, above `max_bytes`
    cost     O(sum p_n^3); with a shift O(P) time and memory more, and factors that are not Hermitian wait for
             a device.  Where the factors are traced they must be Hermitian if there is a shift, or the result
             is NaN

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
    """Pull the cotangents of sign and logarithm back through `kron_slogdet` to the factors and to the shift.

    returns  arrays in the shapes and dtypes of each; None for a shift of None.  Every entry of a factor
             counts as free, also where the factor is Hermitian.  A real sign is constant, a complex one turns
    raises   as `kron_slogdet`; TypeError, ValueError on the cotangents; LinAlgError where the matrix is
             singular and NumPy's
    cost     O(sum p_n^3); with a shift O(N P) more for Hermitian factors, O(P sum p_n^2) for others
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
    """The derivative of `kron_slogdet` along the tangents of the factors and of the shift (None as it is).

    raises   as `kron_slogdet_vjp`; TypeError, ValueError on the tangents
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
    """The definition on NumPy arrays: M multiplied out, then np.linalg.slogdet.  Costs P^2 memory."""
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
