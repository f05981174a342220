"""Kronecker sums: systems and determinants through the spectra of the factors.

    S = A_0 (+) ... (+) A_{N-1},   A_n = U_n T_n U_n^H   =>   S + s I = U (T_0 (+) ... (+) T_{N-1} + s I) U^H,

U the Kronecker product of the U_n.  Where the factors are Hermitian the T_n are diagonal and it remains to
divide; else they are triangular (complex Schur form) and the last two modes make a Sylvester equation

    T_{N-2} X + X T_{N-1}^T = C

for each set of digits of the others, from the last one back.  Source: R. H. Bartels and G. W. Stewart,
Solution of the matrix equation AX + XB = C, Communications of the ACM 15 (1972).

Where PyTorch or JAX record the factors, a solution is refined with the factors themselves as in
`ketcore.ops.kron_solve`, which gives it its derivatives.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from math import prod
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import detached, is_recorded
from ketcore.arrays.checks import check_spectrum
from ketcore.arrays.elementary import adjoint, beside, conjugated, identity, real_dtype, widened
from ketcore.arrays.namespaces import accumulation_dtype, is_complex, to_host, value_of
from ketcore.linalg import closed_forms, spectral
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.spectra import decompositions, symmetry

# Steps of refinement with the factors themselves: as many derivatives are right.
_STEPS = 2


def solve(A: KroneckerSum, b: AnyArray, shift: Any, axis: int, assume_a: str | None) -> AnyArray:
    """The x with (A + shift I) x = b along `axis` (-1, or -2 before columns)."""
    xp, assumed = array_api_compat.array_namespace(*A.factors), closed_forms.assumption(A, assume_a)
    dtype = xp.result_type(A.factors[0], b)
    shift, dtype = decompositions.check_shift(closed_forms.as_shift(shift, A.factors[0]), xp, b, dtype)
    wide = accumulation_dtype(xp, dtype)
    own = wide if is_complex(xp, A.dtype) else real_dtype(xp, wide)
    matrices = [xp.astype(f, own, copy=False) for f in A.factors]
    if assumed is None:
        closed_forms.check_finite(xp, matrices, "solve")
    if shift is not None:
        shift = xp.astype(shift, wide if is_complex(xp, shift.dtype) else own, copy=False)
    b, fixed = xp.astype(b, wide, copy=False), [detached(matrix) for matrix in matrices]
    hermitian, exact = symmetry.symmetry(xp, fixed, [A.dtype], assumed)
    # On the host the general way costs little more than refinement.
    if hermitian and (exact or xp is not np):
        solver = _spectral_solver(xp, fixed, shift, axis, assumed is None)
    else:
        symmetry.check_known(fixed[0], assume_a)
        if not is_recorded((*matrices, b, *([] if shift is None else [shift]))):
            return xp.astype(_solve_general(xp, fixed, b, shift, axis), dtype, copy=False)
        solver, exact = _triangular_solver(xp, fixed, shift, axis, wide), True
    x = solver(b)
    if is_recorded(matrices) or not exact:
        operator = KroneckerSum(matrices)
        for _ in range(_STEPS):
            moved = operator @ x if axis == -2 else operator.T.rmatmul(x)
            x = x + solver(b - (moved if shift is None else moved + shift * x))
    return xp.astype(x, dtype, copy=False)


def _spectral_solver(xp, matrices, shift, axis, look) -> Callable[[AnyArray], AnyArray]:
    """A function of b: the solution through the eigenvectors of (F + F^H) / 2."""
    halves = [(matrix + adjoint(matrix)) / 2 for matrix in matrices]
    values, vectors = spectral.decomposed_hermitian(xp, halves, look)
    divisor = _all_sums(xp, values, shift)
    if look:
        _check_invertible(divisor, values)
    divisor = divisor if axis == -1 else divisor[:, None]
    before = [conjugated(u)[None, ...] for u in vectors]
    after = [xp.matrix_transpose(u)[None, ...] for u in vectors]
    return lambda b: ops.kron_matmul(after, ops.kron_matmul(before, b, axis=axis) / divisor, axis=axis)


def _triangular_solver(xp, matrices, shift, axis, dtype) -> Callable[[AnyArray], AnyArray]:
    """A function of b, of `dtype`: the solution through complex Schur forms, in array code."""
    from scipy.linalg import schur

    forms = [schur(to_host(matrix), output="complex") for matrix in matrices]
    moved = [[beside(part, matrices[0]) for part in form] for form in forms]
    triangles, vectors = zip(*moved, strict=True)
    values, shift = [xp.linalg.diagonal(t) for t in triangles], 0.0 if shift is None else shift
    _check_invertible(_all_sums(xp, values, shift), values)
    before = [conjugated(u)[None, ...] for u in vectors]
    after = [xp.matrix_transpose(u)[None, ...] for u in vectors]

    def solve(b):
        y = ops.kron_matmul(before, b, axis=axis)
        size, count = y.shape[axis], prod(y.shape[:axis])
        flat = xp.permute_dims(xp.reshape(y, (count, size, prod(y.shape[axis:]) // size)), (1, 0, 2))
        right = xp.reshape(flat, (size, prod(flat.shape[1:])))
        found = xp.reshape(_substituted(xp, triangles, right, shift), flat.shape)
        x = ops.kron_matmul(after, xp.reshape(xp.permute_dims(found, (1, 0, 2)), y.shape), axis=axis)
        return x if is_complex(xp, dtype) else xp.real(x)

    return solve


def _substituted(xp, triangles, right, shift):
    """The solution of (T_0 (+) ... (+) T_{N-1} + shift I) y = right (P, n), the T_n upper triangular."""
    first, *rest = triangles
    if not rest:
        return xp.linalg.solve(first + shift * identity(first.shape[0], first), right)
    blocks = xp.reshape(right, (first.shape[0], -1, right.shape[1]))
    found: list[AnyArray] = []
    for i in reversed(range(first.shape[0])):
        known = blocks[i, ...]
        for j, x in zip(range(first.shape[0] - 1, i, -1), found, strict=True):
            known = known - first[i, j] * x
        found.append(_substituted(xp, rest, known, shift + first[i, i]))
    return xp.reshape(xp.stack(found[::-1]), right.shape)


def slogdet(A: KroneckerSum, shift: Any, assume_a: str | None, max_bytes: int) -> tuple[AnyArray, AnyArray]:
    """The sign or phase of det(A + shift I) and the logarithm of its absolute value.

    Raises
    ------
    MemoryError
        Naming the size, where the P eigenvalues are above `max_bytes`.
    """
    xp, assumed = array_api_compat.array_namespace(*A.factors), closed_forms.assumption(A, assume_a)
    wide, look = [widened(f) for f in A.factors], assumed is None
    check_spectrum(wide[0], A.dims, max_bytes)
    shift, dtype = decompositions.check_shift(
        closed_forms.as_shift(shift, wide[0]), xp, wide[0], wide[0].dtype
    )
    if shift is not None:
        shift = xp.astype(shift, dtype, copy=False)
    matrices = spectral.hermitian_factors_of_sum(A, "slogdet", assumed)
    if matrices is None:
        decompositions.check_diagonalisable(wide, "A")
        values: Sequence[AnyArray] = spectral.general_values(xp, wide, look)
    else:
        values, _ = spectral.decomposed_hermitian(xp, matrices, look)
    total = _all_sums(xp, values, shift)
    size, real = xp.abs(total), not is_complex(xp, dtype)
    if look and value_of(xp.any(size == 0)):
        one = xp.ones_like(size[0]) if real else xp.ones_like(total[0])
        return 0 * one, xp.full_like(size[0], -np.inf)
    sign = xp.prod(total / size)
    # Complex eigenvalues of a real matrix come in conjugate pairs.
    sign = xp.sign(xp.real(sign) if is_complex(xp, sign.dtype) else sign) if real else sign / xp.abs(sign)
    return sign, xp.sum(xp.log(size))


def _all_sums(xp: ModuleType, values: Sequence[AnyArray], shift: AnyArray | None) -> AnyArray:
    """(P,): shift plus all sums of one value per mode."""
    total = reduce(lambda a, b: xp.reshape(a[:, None] + b[None, :], (-1,)), values)
    return total if shift is None else total + shift


def _check_invertible(total, values):
    """LinAlgError where an eigenvalue is nothing but the rounding of those it is a sum of."""
    largest = sum(float(np.max(np.abs(to_host(v)))) for v in values)
    total = to_host(total)
    smallest = float(np.min(np.abs(total)))
    # A few roundings: of the eigenvalues and of their sum.
    if smallest <= 8 * np.finfo(total.dtype).eps * largest:
        raise np.linalg.LinAlgError(
            f"A must be invertible, got an eigenvalue of {smallest:.3g} beside factors of norm {largest:.3g}"
        )


def _solve_general(xp, matrices, b, shift, axis):
    """Through complex Schur forms on the host."""
    from scipy.linalg import schur

    shift = 0.0 if shift is None else to_host(shift)[()]
    # NumPy has no bfloat16.
    right = to_host(xp.astype(b, accumulation_dtype(xp, b.dtype), copy=False))
    # Factors of one element are shifts, and would cost an axis each.
    scalars = [to_host(m)[0] for m in matrices if m.shape[0] == 1]
    hosts = [to_host(m) for m in matrices if m.shape[0] > 1] or [np.zeros((1, 1), right.dtype)]
    real = not any(np.iscomplexobj(part) for part in (*hosts, *scalars, right, shift))
    dims = [len(matrix) for matrix in hosts]
    # The second of the last two modes is multiplied from the right: by the transpose of its factor.
    if len(hosts) > 1:
        hosts[-1] = hosts[-1].T
    forms = [schur(matrix, output="complex") for matrix in hosts]
    triangles, vectors = zip(*forms, strict=True)
    values = [np.diagonal(t) for t in triangles]
    _check_invertible(_all_sums(np, [*values, *scalars], shift), [*values, *scalars])
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
    return beside(np.real(x) if real else x, b)


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
