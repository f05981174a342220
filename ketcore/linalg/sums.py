"""Kronecker sums: systems and determinants through the spectra of the factors.

    S = A_0 (+) ... (+) A_{N-1},   A_n = U_n T_n U_n^H   =>   S + s I = U (T_0 (+) ... (+) T_{N-1} + s I) U^H,

U the Kronecker product of the U_n.  Where the factors are Hermitian the T_n are diagonal and it remains to
divide; else they are triangular (complex Schur form) and the last two modes make a Sylvester equation

    T_{N-2} X + X T_{N-1}^T = C

for each set of digits of the others, from the last one back.  Source: R. H. Bartels and G. W. Stewart,
Solution of the matrix equation AX + XB = C, Communications of the ACM 15 (1972).
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ketcore import arithmetic, ops
from ketcore.backend import Array, accumulation_dtype, is_complex
from ketcore.kronecker_sum import KroneckerSum
from ketcore.linalg import checks, spectral


def solve(A: KroneckerSum, b: Array, shift: Any, axis: int) -> Array:
    """The x with (A + shift I) x = b along `axis` (-1, or -2 before columns)."""
    xp = array_api_compat.array_namespace(*A.factors)
    wide = arithmetic.widened(A.factors)
    shift = checks.as_shift(shift, wide[0])
    promoted = [A.factors[0], b]
    if shift is not None and is_complex(xp, shift.dtype):
        promoted.append(shift)
    matrices = spectral.hermitian_factors_of_sum(A, "solve")
    if matrices is None:
        found = _solve_general(xp, wide, b, shift, axis)
    else:
        values, vectors = spectral.decomposed_hermitian(xp, matrices)
        divisor = all_sums(xp, values, shift)
        _check_invertible(checks.host(divisor), values)
        y = ops.kron_matmul([arithmetic.conjugated(u)[None, ...] for u in vectors], b, axis=axis)
        y = y / (divisor if axis == -1 else divisor[:, None])
        found = ops.kron_matmul([xp.matrix_transpose(u)[None, ...] for u in vectors], y, axis=axis)
    return xp.astype(found, xp.result_type(*promoted), copy=False)


def slogdet(A: KroneckerSum, shift: Any) -> tuple[Array, Array]:
    """The sign or phase of det(A + shift I) and the logarithm of its absolute value."""
    xp = array_api_compat.array_namespace(*A.factors)
    wide = arithmetic.widened(A.factors)
    shift = checks.as_shift(shift, wide[0])
    matrices = spectral.hermitian_factors_of_sum(A, "slogdet")
    decomposed = spectral.decomposed_general if matrices is None else spectral.decomposed_hermitian
    values, _ = decomposed(xp, wide if matrices is None else matrices)
    total = all_sums(xp, values, shift)
    size = xp.abs(total)
    real = not is_complex(xp, wide[0].dtype) and (shift is None or not is_complex(xp, shift.dtype))
    if bool(xp.any(size == 0)):
        one = xp.ones_like(size[0]) if real else xp.ones_like(total[0])
        return 0 * one, xp.full_like(size[0], -np.inf)
    sign = xp.prod(total / size)
    # Complex eigenvalues of a real matrix come in conjugate pairs.
    sign = xp.sign(xp.real(sign) if is_complex(xp, sign.dtype) else sign) if real else sign / xp.abs(sign)
    return sign, xp.sum(xp.log(size))


def all_sums(xp: ModuleType, values: Sequence[Array], shift: Array | None) -> Array:
    """(P,): shift plus all sums of one value per mode."""
    total = reduce(lambda a, b: xp.reshape(a[:, None] + b[None, :], (-1,)), values)
    return total if shift is None else total + shift


def _check_invertible(total, values):
    """LinAlgError where an eigenvalue is nothing but the rounding of those it is a sum of."""
    largest = sum(float(np.max(np.abs(checks.host(v)))) for v in values)
    smallest = float(np.min(np.abs(total)))
    # A few roundings: of the eigenvalues and of their sum.
    if smallest <= 8 * np.finfo(total.dtype).eps * largest:
        raise np.linalg.LinAlgError(
            f"A must be invertible, got an eigenvalue of {smallest:.3g} beside factors of norm {largest:.3g}"
        )


def _solve_general(xp, matrices, b, shift, axis):
    """Through complex Schur forms on the host."""
    from scipy.linalg import schur

    shift = 0.0 if shift is None else checks.host(shift)[()]
    # NumPy has no bfloat16.
    right = checks.host(xp.astype(b, accumulation_dtype(xp, b.dtype), copy=False))
    # Factors of one element are shifts, and would cost an axis each.
    scalars = [checks.host(m)[0] for m in matrices if m.shape[0] == 1]
    hosts = [checks.host(m) for m in matrices if m.shape[0] > 1] or [np.zeros((1, 1), right.dtype)]
    real = not any(np.iscomplexobj(part) for part in (*hosts, *scalars, right, shift))
    dims = [len(matrix) for matrix in hosts]
    # The second of the last two modes is multiplied from the right: by the transpose of its factor.
    if len(hosts) > 1:
        hosts[-1] = hosts[-1].T
    forms = [schur(matrix, output="complex") for matrix in hosts]
    triangles, vectors = zip(*forms, strict=True)
    values = [np.diagonal(t) for t in triangles]
    _check_invertible(all_sums(np, [*values, *scalars], shift), [*values, *scalars])
    shift = shift + sum(scalar[0] for scalar in scalars)
    # U_n of the transposed factor is the conjugate of that of the factor.
    vectors = [*vectors[:-1], vectors[-1].conj() if len(hosts) > 1 else vectors[-1]]
    y = ops.kron_matmul([u.conj()[None] for u in vectors], right, axis=axis)
    y = y.reshape(prod(y.shape[:axis]), prod(dims), 1 if axis == -1 else y.shape[-1])
    solved = np.empty_like(y)
    for at, column in np.ndindex(y.shape[0], y.shape[2]):
        part = np.array(y[at, :, column].reshape(dims), order="C")
        solved[at, :, column] = _solve_triangular(triangles, part, shift).ravel()
    solved = solved.reshape(right.shape)
    x = ops.kron_matmul([u.T[None] for u in vectors], solved, axis=axis)
    return checks.beside(x.real if real else x, b)


def _solve_triangular(triangles, right, shift):
    """Solve for `right` (p_0, ..., p_{N-1}) with upper triangular factors, the last one transposed."""
    from scipy.linalg import lapack, solve_triangular

    first, *rest = triangles
    shifted = first + shift * np.eye(len(first), dtype=first.dtype)
    if not rest:
        return solve_triangular(shifted, right)
    if len(rest) == 1:
        # X + X T with both triangular; scale < 1 guards against overflow.
        trsyl = lapack.get_lapack_funcs("trsyl", (first, right))
        x, scale, perturbed = trsyl(shifted, rest[0], right)
        if perturbed:
            raise np.linalg.LinAlgError(
                "A must be invertible, got eigenvalues that are rounding beside what is above the diagonal"
            )
        return x / scale
    x = np.empty_like(right)
    for i in reversed(range(len(first))):
        known = right[i] - np.tensordot(first[i, i + 1 :], x[i + 1 :], axes=1)
        x[i] = _solve_triangular(rest, known, shift + first[i, i])
    return x
