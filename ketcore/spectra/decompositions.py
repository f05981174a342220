"""Inverses and spectra of one Kronecker product of square factors, and of M + s I.

    M = F_0 (x) ... (x) F_{N-1},   M^-1 = F_0^-1 (x) ... (x) F_{N-1}^-1,
    F_n = V_n diag(l_n) V_n^H  =>  (M + s I)^-1 = V diag(1 / (l_0 (x) ... (x) l_{N-1} + s)) V^H,
    d log det(M + s I) / d F_n = sum over m of m (m F_n + s I)^-T, m the products of eigenvalues of the others

Factors are small: what is computed of them alone has 64 bits per real number.  On NumPy the products with
dense arrays have as well: one in float64 costs less than one in float32 with a step of refinement.  Other
libraries keep the dtype of the dense array.  Schur forms and eigenvalues of matrices that are not Hermitian
are computed by SciPy and NumPy: they wait for a device.

Letters: N order, p_n size of factor n, P = prod p_n, s shift.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import mul
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.autodiff import is_recorded, is_traced
from ketcore.arrays.checks import check_dtype, check_floating, check_tables
from ketcore.arrays.elementary import adjoint, complex_dtype, conjugated, identity
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    is_complex,
    is_numpy,
    namespace,
    to_host,
    widest_floating,
)
from ketcore.products.forward import matmul_by_modes
from ketcore.shapes import shown
from ketcore.spectra.powers import multiple
from ketcore.spectra.symmetry import is_hermitian

# Sums of squares in float32 and in float64 that neither overflowed nor lost digits.
_SAFE = (1e-30, 1e30)

# Elements of a stack of matrices that are inverted at a time.
_STACK = 1 << 20


class Spectrum(NamedTuple):
    """Eigenvalues of all factors: N arrays (p_n,), and vectors (p_n, p_n) where all factors are Hermitian."""

    values: Sequence[AnyArray]
    vectors: Sequence[AnyArray] | None


class Fault(NamedTuple):
    """What is wrong with an argument, as data.

    An error that holds one reads as its text, and a function that calls the argument by another name, or
    counts its factors from elsewhere, can say so.

    >>> str(np.linalg.LinAlgError(Fault("factors", "be Hermitian", "that is not", 1)))
    'factors must be Hermitian, got factor 1 that is not'
    """

    name: str
    rule: str
    got: str
    factor: int | None = None

    def __str__(self) -> str:
        factor = "" if self.factor is None else f"factor {self.factor} "
        return f"{self.name} must {self.rule}, got {factor}{self.got}"


def check_square(
    factors: Sequence[Any], others: Sequence[Any] = ()
) -> tuple[ModuleType, Sequence[AnyArray], Any]:
    """`checks.check_tables` of square factors of one term; a matrix of order 1 may have several."""
    xp, factors, dtype = check_tables("factors", factors, others)
    shapes = [tuple(factor.shape) for factor in factors]
    if any(shape[1] != shape[2] for shape in shapes):
        raise ValueError(f"factors must be square, got shapes {shown(shapes)}")
    if len(shapes) > 1 and shapes[0][0] != 1:
        raise TypeError(
            f"factors must have rank 1 for a closed form, got rank {shapes[0][0]} (see ketcore.linalg.cg)"
        )
    return xp, factors, dtype


def check_shift(shift: Any, xp: ModuleType, like: AnyArray, dtype: Any) -> tuple[AnyArray | None, Any]:
    """`shift` as an array without dimensions beside `like`, and `dtype`, complex where the shift is.

    It does not widen: a number or an array of any floating dtype counts in the precision of `dtype`.
    """
    if shift is None:
        return None, dtype
    if isinstance(shift, int | float | complex | np.generic) or (is_numpy(shift) and not is_numpy(like)):
        shift = np.asarray(shift)
        shift = shift.astype(np.float64) if shift.dtype.kind in "iu" else shift
        check_dtype("shift", np, shift.dtype)  # a bool is no shift
        if not is_numpy(like) and shift.dtype.kind in "fc":
            shift = xp.asarray(shift, device=device_of(like))
    _, (shift,), _ = check_floating("shift", (shift,))
    namespace("factors and shift", (like, shift))
    if shift.ndim:
        raise ValueError(f"shift must be one number, got shape {tuple(shift.shape)}")
    if is_complex(xp, shift.dtype) and not is_complex(xp, dtype):
        dtype = xp.complex128 if dtype == xp.float64 else xp.complex64
    return shift, dtype


def factor_dtype(xp: ModuleType, dtype: Any) -> Any:
    """What is computed of factors alone: 64 bits per real number, where the library has them."""
    if widest_floating(xp) == xp.float32:  # JAX without its 64-bit types
        return accumulation_dtype(xp, dtype)
    return xp.complex128 if is_complex(xp, dtype) else xp.float64


def array_dtype(xp: ModuleType, dtype: Any) -> Any:
    """What products with dense arrays are computed in: 64 bits on NumPy, elsewhere the dtype of sums."""
    return factor_dtype(xp, dtype) if xp is np else accumulation_dtype(xp, dtype)


def as_matrices(xp: ModuleType, factors: Sequence[AnyArray], dtype: Any) -> list[AnyArray]:
    """Checked factors as N matrices (p_n, p_n) of `dtype`: the one term, or the sum of order 1."""
    wide = [xp.astype(factor, dtype, copy=False) for factor in factors]
    return [factor[0, ...] if factor.shape[0] == 1 else xp.sum(factor, axis=0) for factor in wide]


def level_as_matrices(
    xp: ModuleType, factors: Sequence[AnyArray], dtype: Any
) -> tuple[Sequence[AnyArray], list[AnyArray | None] | None]:
    """`as_matrices` of the same product at one level, and the shifts that made it so, as by `scale.level`."""
    return scale.level(as_matrices(xp, factors, dtype), (-2, -1))


def times_matrix(xp: ModuleType, matrices: Sequence[AnyArray], x: AnyArray, axis: int) -> AnyArray:
    """M x in the dtype of x, along its last axis (-1) or the one before (-2)."""
    return matmul_by_modes(as_factors(xp, matrices, x.dtype), x, axis)


def without_scalars(matrices: Sequence[AnyArray]) -> list[AnyArray]:
    """The same product without factors of one element, which would cost an axis each; at least one factor."""
    wide = [matrix for matrix in matrices if matrix.shape[0] > 1]
    scalars = [matrix for matrix in matrices if matrix.shape[0] == 1]
    return [reduce(mul, [*scalars, *wide[:1]]), *wide[1:]]


def as_factors(xp: ModuleType, matrices: Sequence[AnyArray], dtype: Any) -> list[AnyArray]:
    """The factors (1, p_n, p_n) of M^T, by which `forward.matmul_by_modes` takes x to M x."""
    return [xp.astype(matrix.T[None, ...], dtype, copy=False) for matrix in matrices]


def inverses(matrices: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[float]]:
    """The inverse of each NumPy matrix, and its condition: the product of two Frobenius norms, p_n or more.

    Raises
    ------
    LinAlgError
        Where one of them is singular to working precision.
    """
    found, conditions = [], []
    for n, matrix in enumerate(matrices):
        try:
            inverse = np.linalg.inv(matrix)
        except np.linalg.LinAlgError:
            raise singular(n, 0.0) from None
        one = frobenius(matrix) * frobenius(inverse)
        if one * np.finfo(inverse.dtype).eps > 1:
            raise singular(n, 1 / one)
        found.append(inverse)
        conditions.append(one)
    return found, conditions


def singular(n: int, reciprocal: float) -> np.linalg.LinAlgError:
    """The error for a factor that has no inverse."""
    got = f"of reciprocal condition {reciprocal:.1e}"
    return np.linalg.LinAlgError(Fault("factors", "be invertible", got, n))


def singular_shift(shift: Any) -> np.linalg.LinAlgError:
    """The error for a matrix that has no inverse with its shift."""
    return np.linalg.LinAlgError(Fault("shift", "not be minus an eigenvalue of the matrix", f"{shift}"))


def frobenius(array: np.ndarray) -> float:
    """The Frobenius norm of a NumPy array."""
    flat = array.ravel()
    squared = float(np.vdot(flat, flat).real)
    # Where the squares overflow or lose digits, of the elements over the largest of them.
    if not _SAFE[0] < squared < _SAFE[1]:
        peak = float(np.abs(flat).max(initial=0.0))
        return peak * frobenius(flat / peak) if 0 < peak < np.inf else peak
    return squared**0.5


def spectrum(
    xp: ModuleType, matrices: Sequence[AnyArray], stored: Sequence[Any] = (), assumed: bool | None = None
) -> Spectrum:
    """Eigenvalues of all factors, with vectors where all are Hermitian, or assumed to be.

    Where the factors are traced they must be Hermitian: if they are not, all values are NaN.
    """
    hermitian = is_hermitian(xp, matrices, stored) if assumed is None else assumed
    if hermitian is not False:
        return Spectrum(*hermitian_eigh(xp, matrices, hermitian))
    if is_recorded(matrices):
        check_diagonalisable(matrices)
        return Spectrum([xp.linalg.eigvals(matrix) for matrix in matrices], None)
    found = [_eigenvalues(to_host(matrix)) for matrix in matrices]
    device, dtype = device_of(matrices[0]), complex_dtype(xp, matrices[0].dtype)
    return Spectrum([xp.asarray(v.astype(np_complex(xp, dtype)), device=device) for v in found], None)


def _eigenvalues(matrix):
    """Of a NumPy matrix; NaN, and not NumPy's error, where it is not finite."""
    return np.linalg.eigvals(matrix) if np.isfinite(matrix).all() else np.full(len(matrix), np.nan)


def check_diagonalisable(matrices: Sequence[AnyArray], name: str = "factors") -> None:
    """LinAlgError where a factor is recorded whose eigenvalues have no derivatives that are worth the name.

    Their errors grow with the condition of the eigenvectors.
    """
    for n, matrix in enumerate(matrices):
        if not is_recorded([matrix]) or is_traced(matrix):
            continue
        values = to_host(matrix)
        condition = np.linalg.cond(np.linalg.eig(values).eigenvectors)
        if not condition < float(np.finfo(values.dtype).eps) ** (-1 / 3):
            rule = "be Hermitian or diagonalisable where gradients are required"
            got = f"with eigenvectors of condition {condition:.1e}"
            raise np.linalg.LinAlgError(Fault(name, rule, got, n))


def hermitian_spectrum(
    xp: ModuleType, matrices: Sequence[AnyArray], stored: Sequence[Any] = (), assumed: bool | None = None
) -> Spectrum:
    """The spectrum of Hermitian factors; LinAlgError where one is not, NaN where it is traced."""
    if assumed:
        return Spectrum(*hermitian_eigh(xp, matrices, True))
    found = [is_hermitian(xp, [matrix], stored) for matrix in matrices]
    for n, one in enumerate(found):
        if one is False:
            raise np.linalg.LinAlgError(Fault("factors", "be Hermitian", "that is not", n))
    known = all(one is True for one in found)
    return Spectrum(*hermitian_eigh(xp, matrices, True if known else reduce(xp.logical_and, found)))


def check_positive(xp: ModuleType, shifted: AnyArray, shift: AnyArray) -> AnyArray:
    """Shifted eigenvalues; LinAlgError on NumPy arrays where one is not positive, elsewhere NaN for it."""
    if xp is np and not (shifted > 0).all() and not np.isnan(shifted).any():
        got = f"{shift}: least eigenvalue {shifted.min():.6g}"
        raise np.linalg.LinAlgError(Fault("shift", "make the matrix positive definite", got))
    return xp.where(shifted > 0, shifted, xp.nan * xp.ones_like(shifted))


def hermitian_eigh(
    xp: ModuleType, matrices: Sequence[AnyArray], hermitian: bool | AnyArray
) -> tuple[list[AnyArray], list[AnyArray]]:
    """Eigenvalues and vectors of Hermitian matrices; NaN where they are traced and are not."""
    pairs = [xp.linalg.eigh((matrix + adjoint(matrix)) / 2) for matrix in matrices]
    values = [pair[0] for pair in pairs]
    if hermitian is not True:
        values = [xp.where(hermitian, v, xp.nan * xp.ones_like(v)) for v in values]
    return values, [pair[1] for pair in pairs]


def np_complex(xp: ModuleType, dtype: Any) -> Any:
    """The dtype of NumPy for a complex one."""
    return np.complex128 if dtype == xp.complex128 else np.complex64


def kron_of_vectors(xp: ModuleType, vectors: Sequence[AnyArray]) -> AnyArray:
    """The Kronecker product (P,) of vectors."""
    return reduce(lambda a, b: xp.reshape(a[:, None] * b[None, :], (-1,)), vectors)


def check_regular(xp: ModuleType, values: AnyArray, shift: AnyArray | None) -> AnyArray:
    """Eigenvalues plus the shift; LinAlgError on NumPy arrays where one of them is zero to rounding."""
    shifted = values if shift is None else values + shift
    if xp is np and values.size:
        size = max(np.abs(values).max(), 0.0 if shift is None else abs(shift))
        # A few roundings: of the eigenvalues, of their products and of the sum.
        if not np.isnan(size) and np.abs(shifted).min() <= 8 * np.finfo(shifted.dtype).eps * size:
            raise singular_shift(shift)
    return shifted


def logdet_gradients(
    xp: ModuleType,
    matrices: Sequence[AnyArray],
    shift: AnyArray | None,
    stored: Sequence[Any] = (),
    assumed: bool | None = None,
) -> tuple[list[AnyArray], AnyArray | None]:
    """The differential of log det(M + s I): N arrays G_n with sum(G_n dF_n), and what multiplies ds.

    Every entry of a factor counts as free, also where the factor is Hermitian.

    Notes
    -----
    Cost: O(N P) for Hermitian factors, O(P sum p_n^2) for others; O(sum p_n^3) without a shift.
    """
    dims = [matrix.shape[0] for matrix in matrices]
    if shift is None:
        found = inverses(matrices)[0] if xp is np else [xp.linalg.inv(matrix) for matrix in matrices]
        return [multiple(g.T, prod(dims) // size) for size, g in zip(dims, found, strict=True)], None
    values, vectors = spectrum(xp, matrices, stored, assumed)
    shifted = check_regular(xp, kron_of_vectors(xp, values), shift)
    if vectors is not None:
        return hermitian_logdet_gradients(xp, values, vectors, shifted)
    to_shift = xp.sum(1 / shifted)
    found = [_stacked_inverses(xp, values, n, matrix, shift) for n, matrix in enumerate(matrices)]
    if is_complex(xp, matrices[0].dtype):
        return found, to_shift
    return [xp.real(g) for g in found], xp.real(to_shift)


def hermitian_logdet_gradients(
    xp: ModuleType, values: Sequence[AnyArray], vectors: Sequence[AnyArray], shifted: AnyArray
) -> tuple[list[AnyArray], AnyArray]:
    """`logdet_gradients` from the spectrum of Hermitian factors and the P shifted eigenvalues."""
    weights = 1 / shifted
    by_mode = _contractions(xp, weights, values)
    found = [
        (conjugated(v) * w[None, :]) @ xp.astype(v.T, _wider(xp, v, w), copy=False)
        for v, w in zip(vectors, by_mode, strict=True)
    ]
    return found, xp.sum(weights)


def _wider(xp, vectors, weights):
    """Complex weights belong to a complex shift of real factors."""
    return weights.dtype if is_complex(xp, weights.dtype) else vectors.dtype


def _contractions(xp, weights, values):
    """Per mode, `weights` (P,) contracted with the eigenvalues of all other modes."""
    found = []
    values = [xp.astype(v, weights.dtype, copy=False) for v in values]
    for n in range(len(values)):
        part = weights
        for value in reversed(values[n + 1 :]):
            part = xp.reshape(part, (-1, value.shape[0])) @ value
        for value in values[:n]:
            part = value @ xp.reshape(part, (value.shape[0], -1))
        found.append(part)
    return found


def _stacked_inverses(xp, values, n, matrix, shift):
    """The sum over m of m (m F + s I)^-T, m the products of the eigenvalues of all modes but n."""
    others = [v for m, v in enumerate(values) if m != n]
    matrix = xp.astype(matrix, values[0].dtype)
    scales = kron_of_vectors(xp, others) if others else xp.ones_like(values[0])[:1]
    count = max(1, _STACK // max(1, matrix.shape[0] ** 2))
    shifted = shift * identity(matrix.shape[0], matrix)
    total = xp.zeros_like(matrix)
    for start in range(0, scales.shape[0], count):
        scale = scales[start : min(start + count, scales.shape[0])][:, None, None]
        total = total + xp.sum(scale * xp.linalg.inv(scale * matrix + shifted), axis=0)
    return total.T


def dense_shifted(factors: Sequence[AnyArray], shift: Any = None) -> np.ndarray:
    """M + s I multiplied out on NumPy arrays, at least in float32, for dense definitions."""
    factors = [np.asarray(factor) for factor in factors]
    dtype = np.result_type(*factors, *([1j] if np.iscomplexobj(shift) else []))
    dtype = accumulation_dtype(np, dtype)
    matrix = reduce(np.kron, [factor.astype(dtype).sum(axis=0) for factor in factors])
    if shift is not None:
        matrix = matrix + np.asarray(shift).astype(dtype) * np.eye(len(matrix), dtype=dtype)
    return matrix
