"""Sums of two Kronecker products of Hermitian factors: systems and determinants by whitening, mode by mode.

    A = F_0 (x) ... (x) F_{N-1} + G_0 (x) ... (x) G_{N-1}

Where G_n, or -G_n, is positive definite, L_n L_n^H its Cholesky factorisation and U_n the eigenvectors of
L_n^-1 F_n L_n^-H, the columns of V_n = L_n^-H U_n make both factors of the mode diagonal:

    V_n^H F_n V_n = diag(l_n),  V_n^H G_n V_n = diag(m_n)   =>   V^H A V = diag(d),  d = (x) l_n + (x) m_n,

m_n being 1 or -1 everywhere.  F_n may take the place of G_n, in each mode anew: that one of two terms is
positive definite is enough, and so is an identity in each mode, as a Kronecker sum of two modes has it.

    A^-1 = V diag(1 / d) V^H,   log |det A| = sum log |d| + sum over n of (P / p_n) log |det G_n|

Source: G. H. Golub and C. F. Van Loan, Matrix Computations, section 8.7.2 (definite pencils).

Where PyTorch or JAX record the factors, a solution is refined with the factors themselves as in
`ketcore.ops.kron_solve`, which gives it its derivatives.

Letters: N order, p_n size of factor n, P = prod p_n.
"""

from collections.abc import Sequence
from functools import reduce
from math import log, pi, prod
from operator import add
from types import ModuleType
from typing import Any, NamedTuple, TypeGuard

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.autodiff import dense_solve, detached, is_recorded
from ketcore.arrays.checks import check_spectrum
from ketcore.arrays.elementary import adjoint, conjugated, identity, real_dtype
from ketcore.arrays.namespaces import is_complex, to_host, value_of
from ketcore.linalg import closed_forms
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.spectra import decompositions, powers, symmetry

# Steps of refinement with the factors themselves: as many derivatives are right.
_STEPS = 2


class _Mode(NamedTuple):
    """What makes both factors of a mode diagonal.

    Attributes
    ----------
    vectors : array, (p_n, p_n)
        V_n, without derivatives.
    values : pair of arrays, (p_n,)
        V_n^H F_n V_n and V_n^H G_n V_n, real.
    volume : array or float
        -2 log |det V_n|, real.
    """

    vectors: AnyArray
    values: tuple[AnyArray, AnyArray]
    volume: AnyArray | float


class _Pair(NamedTuple):
    """The Hermitian factors of both terms, as far as they are known.

    Attributes
    ----------
    terms : pair of sequences of N arrays, (p_n, p_n)
        In 64 bits.
    known : pair of frozensets
        Per term the modes that are identities.
    exact : bool
        Whether the factors of A are Hermitian in that precision as well.
    look : bool
        Whether values may be read.
    """

    terms: Sequence[Sequence[AnyArray]]
    known: Sequence[frozenset[int]]
    exact: bool
    look: bool


def is_pair(A: Any) -> TypeGuard[KroneckerMatrix]:
    """Whether `A` is a sum of two products of several factors, all of it."""
    if not isinstance(A, KroneckerMatrix) or A.order == 1 or A.rank != 2:
        return False
    return A.shape == (prod(A.row_dims), prod(A.col_dims))


def solve(A: KroneckerMatrix, b: AnyArray, shift: Any, axis: int, assume_a: str | None) -> AnyArray:
    """The x with (A + shift I) x = b along `axis` (-1, or -2 before columns)."""
    xp = array_api_compat.array_namespace(*A.factors)
    shift, dtype = decompositions.check_shift(
        closed_forms.as_shift(shift, A.factors[0]), xp, b, xp.result_type(A.factors[0], b)
    )
    pair = _pair(xp, A, "solve", assume_a)
    fixed = pair._replace(terms=[list(map(detached, term)) for term in pair.terms])
    modes = _modes(xp, fixed, "solve", shift)
    divisor = _spectrum(modes)
    if pair.look:
        _check_invertible(xp, modes, divisor, shift)
    working = decompositions.array_dtype(xp, dtype)
    if shift is not None:
        divisor = divisor + xp.astype(shift, _wider(xp, shift, divisor), copy=False)
    divisor = xp.astype(divisor, _wider(xp, divisor, xp.zeros((), dtype=working)), copy=False)
    b = xp.astype(b, working, copy=False)

    def solver(right):
        return _divided(xp, modes, right, divisor, axis)

    x = solver(b)
    if is_recorded(A.factors) or not pair.exact:
        for _ in range(_STEPS):
            moved = A @ (x if axis == -2 else x[..., None])
            moved = moved if axis == -2 else moved[..., 0]
            if shift is not None:
                moved = moved + xp.astype(shift, x.dtype, copy=False) * x
            x = x + solver(b - moved)
    return xp.astype(x, dtype, copy=False)


def slogdet(
    A: KroneckerMatrix, shift: Any, assume_a: str | None, max_bytes: int
) -> tuple[AnyArray, AnyArray]:
    """The sign or phase of det(A + shift I) and the logarithm of its absolute value.

    Raises
    ------
    MemoryError
        Naming the size, where the P values d are above `max_bytes`.
    """
    xp = array_api_compat.array_namespace(*A.factors)
    wide = decompositions.factor_dtype(xp, A.dtype)
    check_spectrum(xp.zeros((), dtype=real_dtype(xp, wide)), A.row_dims, max_bytes)
    shift, dtype = decompositions.check_shift(
        closed_forms.as_shift(shift, A.factors[0]), xp, A.factors[0], A.dtype
    )
    modes = _modes(xp, _pair(xp, A, "slogdet", assume_a), "slogdet", shift)
    total = _spectrum(modes)
    if shift is not None:
        total = total + xp.astype(shift, _wider(xp, shift, total), copy=False)
    size = xp.abs(total)
    safe = xp.where(size == 0, xp.ones_like(size), size)
    logarithm = xp.sum(xp.log(safe)) + _volume(modes)
    logarithm = xp.where(xp.any(size == 0), -xp.inf * xp.ones_like(logarithm), logarithm)
    sign = xp.astype(xp.prod(total / safe), dtype, copy=False)
    return sign, xp.astype(logarithm, real_dtype(xp, dtype), copy=False)


def log_likelihood(A: KroneckerMatrix, y: AnyArray, shift: Any, assume_a: str | None) -> AnyArray:
    """The log-density (...) of y (..., P) under a Gaussian of covariance A + shift I."""
    xp, function = array_api_compat.array_namespace(*A.factors), "gaussian_log_likelihood"
    dtype = xp.result_type(A.factors[0], y)
    shift, _ = decompositions.check_shift(closed_forms.as_shift(shift, A.factors[0]), xp, y, dtype)
    if shift is not None and is_complex(xp, shift.dtype):
        raise TypeError(f"shift must be real for a covariance, got {shift.dtype}")
    pair = _pair(xp, A, function, assume_a)
    modes = _modes(xp, pair, function, shift)
    total = _spectrum(modes)
    if shift is not None:
        total = total + xp.astype(shift, total.dtype, copy=False)
    if pair.look:
        _check_positive(xp, total)
    total = xp.where(total > 0, total, xp.nan * xp.ones_like(total))
    squares = _squares(xp, A, modes, total, y, shift)
    half, constant = (1.0, log(pi)) if is_complex(xp, dtype) else (0.5, log(2 * pi))
    found = -half * (squares + xp.sum(xp.log(total)) + _volume(modes) + A.shape[0] * constant)
    return xp.astype(found, real_dtype(xp, dtype), copy=False)


def _squares(xp, A, modes, total, y, shift):
    """y^H (A + shift I)^-1 y (...): in 64 bits, as the determinant is, since they may cancel.

    Where A is recorded it is x^H (2 y - A x), stationary at x = A^-1 y, with an x refined from one that has
    no derivative: see `kron_log_likelihood`.
    """
    dtype = decompositions.factor_dtype(xp, xp.result_type(A.factors[0], y))
    y, divisor = xp.astype(y, dtype, copy=False), detached(total)
    if not is_recorded((*A.factors, y, total)):
        turned = decompositions.times_matrix(xp, [adjoint(m.vectors) for m in modes], y, -1)
        return xp.sum(xp.abs(turned) ** 2 / divisor, axis=-1)

    def product(x):
        moved = (A @ x[..., None])[..., 0]
        return moved if shift is None else moved + xp.astype(shift, x.dtype, copy=False) * x

    x = _divided(xp, modes, detached(y), divisor, -1)
    x = x + _divided(xp, modes, y - product(x), divisor, -1)
    found = xp.sum(conjugated(x) * (2 * y - product(x)), axis=-1)
    return xp.real(found) if is_complex(xp, dtype) else found


def _divided(xp, modes, b, divisor, axis):
    """V diag(1 / divisor) V^H b."""
    turned = decompositions.times_matrix(xp, [adjoint(mode.vectors) for mode in modes], b, axis)
    divided = turned / (divisor if axis == -1 else divisor[:, None])
    return decompositions.times_matrix(xp, [mode.vectors for mode in modes], divided, axis)


def _pair(xp: ModuleType, A: KroneckerMatrix, function: str, assume_a: str | None) -> _Pair:
    """The two terms of A; errors where a factor is not square, not finite or not Hermitian."""
    assumed, look = closed_forms.assumption(A, assume_a), assume_a is None
    if assumed is False:
        raise ValueError(
            f"assume_a must say that A is Hermitian for {function} of two terms, or go through "
            f"ketcore.linalg.cg, got {assume_a!r}"
        )
    if not look and assume_a not in ("pos", "positive definite"):
        _check_identities(A, assume_a)
    wide = [xp.astype(f, decompositions.factor_dtype(xp, A.dtype), copy=False) for f in A.factors]
    closed_forms.square_factors([f[0, ...] for f in wide], function)
    known, terms = A.term_identities, []
    for k, marks in enumerate(known):
        # What stands in the place of a known identity is not read.
        matrices = [identity(f.shape[1], f) if n in marks else f[k, ...] for n, f in enumerate(wide)]
        if look:
            closed_forms.check_finite(xp, matrices, function)
            matrices = list(scale.level_matrices(matrices, (marks,)))
        terms.append(matrices)
    fixed = [detached(matrix) for term in terms for matrix in term]
    hermitian, exact = symmetry.symmetry(xp, fixed, [A.dtype], assumed)
    if hermitian is False:
        _refuse_general(xp, terms, A.dtype, function)
    return _Pair([[(m + adjoint(m)) / 2 for m in term] for term in terms], known, exact, look)


def _check_identities(A, assume_a):
    """What is Hermitian alone is enough only beside an identity: else a factor must be definite too."""
    for n in range(A.order):
        if not any(n in marks for marks in A.term_identities):
            raise ValueError(
                "assume_a must be None or 'pos' for two terms without a known identity in each mode, "
                f"got {assume_a!r} and none in mode {n}"
            )


def _refuse_general(xp, terms, stored, function):
    """An error where a factor is not Hermitian."""
    for k, term in enumerate(terms):
        for n, matrix in enumerate(term):
            if not closed_forms.is_hermitian_factor(xp, matrix, stored):
                raise np.linalg.LinAlgError(
                    f"A must have Hermitian factors for {function} of two terms, or go through "
                    f"ketcore.linalg.cg, got factor {n} of term {k} that is not"
                )


def _modes(xp: ModuleType, pair: _Pair, function: str, shift: Any) -> list[_Mode]:
    """What makes the factors of each mode diagonal: with orthonormal vectors where there is a shift."""
    found = []
    for n, factors in enumerate(zip(*pair.terms, strict=True)):
        known = [n in marks for marks in pair.known]
        if any(known):
            found.append(_beside_multiple(xp, factors, known.index(True)))
        elif shift is None:
            at, sign = _definite(n, factors, function) if pair.look else (1, 1.0)
            found.append(_whitened(xp, n, factors, at, sign, pair.look))
        else:
            found.append(_beside_multiple(xp, factors, _multiple(xp, n, factors, function, pair.look)))
    return found


def _multiple(xp, n, factors, function, look):
    """Which factor of a mode is a multiple of the identity: its eigenvectors are any.

    One that derivatives are recorded of counts for `solve` alone, which takes these from A itself.
    """
    for at in (1, 0):
        matrix = factors[at]
        if look and not is_recorded([matrix]):
            host = to_host(matrix)
            if np.array_equal(host, host[0, 0] * np.eye(len(host), dtype=host.dtype)):
                return at
    raise TypeError(
        f"shift must be 0 for {function} of two terms unless each mode has a multiple of the identity, "
        f"or go through ketcore.linalg.cg, got none known in mode {n}"
    )


def _beside_multiple(xp, factors, at):
    """The mode by the eigenvectors of its other factor."""
    values, vectors = xp.linalg.eigh(factors[1 - at])
    corner = factors[at][0, 0]
    own = (xp.real(corner) if is_complex(xp, corner.dtype) else corner) * xp.ones_like(values)
    return _Mode(detached(vectors), (own, values) if at == 0 else (values, own), 0.0)


def _definite(n, factors, function):
    """Which of two Hermitian factors whitens the mode, the definite one of better condition; and its sign."""
    conditions, signs = [], []
    for matrix in factors:
        values = np.linalg.eigvalsh(to_host(matrix))
        least, largest = sorted(np.abs(values[[0, -1]]))
        definite = values[0] * values[-1] > 0 and least > len(values) * np.finfo(values.dtype).eps * largest
        conditions.append(largest / least if definite else np.inf)
        signs.append(1.0 if values[0] > 0 else -1.0)
    at = 0 if conditions[0] < conditions[1] else 1
    if conditions[at] == np.inf:
        raise np.linalg.LinAlgError(
            f"A must have rank 1, or a definite factor in each mode for {function} of two terms, or go "
            f"through ketcore.linalg.cg, got two in mode {n} that are not"
        )
    return at, signs[at]


def _whitened(xp, n, factors, at, sign, look):
    """The mode by the Cholesky factor of one of its factors, times `sign`."""
    rule = f"A must have positive definite factors where assume_a says so, got factor {n} that is not"
    (root,) = closed_forms.factor_wise(xp, xp.linalg.cholesky, [sign * factors[at]], rule, look)
    turned = dense_solve(xp, root, adjoint(dense_solve(xp, root, factors[1 - at])))
    values, vectors = xp.linalg.eigh((turned + adjoint(turned)) / 2)
    diagonal = xp.linalg.diagonal(root)
    volume = 2 * xp.sum(xp.log(xp.real(diagonal) if is_complex(xp, diagonal.dtype) else diagonal))
    vectors = xp.linalg.solve(adjoint(detached(root)), detached(vectors))
    own = sign * xp.ones_like(values)
    return _Mode(vectors, (own, values) if at == 0 else (values, own), volume)


def _spectrum(modes):
    """The eigenvalues d (P,)."""
    xp = array_api_compat.array_namespace(modes[0].vectors)
    terms = zip(*[mode.values for mode in modes], strict=True)
    first, second = (decompositions.kron_of_vectors(xp, term) for term in terms)
    return first + second


def _volume(modes):
    """-2 log |det V|."""
    size = prod(mode.vectors.shape[0] for mode in modes)
    return reduce(add, [powers.multiple(m.volume, size // m.vectors.shape[0]) for m in modes])


def _check_invertible(xp, modes, total, shift):
    """LinAlgError where a value is nothing but the rounding of those it is a sum of."""
    number = 0.0 if shift is None else value_of(shift)
    if number is None:
        return
    parts = [abs(number)]
    for term in zip(*[mode.values for mode in modes], strict=True):
        parts.append(prod(float(value_of(xp.max(xp.abs(values)))) for values in term))
    smallest, largest = float(value_of(xp.min(xp.abs(total + number)))), max(parts)
    # A few roundings: of the eigenvalues, of their products and of the sum.
    if smallest <= 8 * float(xp.finfo(total.dtype).eps) * largest:
        raise np.linalg.LinAlgError(
            f"A must be invertible with its shift, got terms of {largest:.3g} that cancel to {smallest:.3g}"
        )


def _check_positive(xp, total):
    least = value_of(xp.min(total))
    if least is not None and not least > 0:
        raise np.linalg.LinAlgError(f"A must be positive definite, got a curvature of {least:.3g}")


def _wider(xp, array, like):
    """The precision of `like` for an array that may be complex beside it."""
    if not is_complex(xp, array.dtype) or is_complex(xp, like.dtype):
        return like.dtype if is_complex(xp, array.dtype) else real_dtype(xp, like.dtype)
    return xp.complex128 if like.dtype == xp.float64 else xp.complex64
