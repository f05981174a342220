"""Spectra: eigenvalues and singular values as kets, vectors as Kronecker matrices.

    (A (x) B)(v (x) w) = (a b) (v (x) w),    (A (+) B)(v (x) w) = (a + b) (v (x) w),    A v = a v,  B w = b w

so that the values are all products (or sums) of those of the factors, in the order of their digits and not by
size: value i belongs to column i of the vectors.  `np.sort(values.to_dense())` sorts them.
"""

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray, ArrayT
from ketcore.arrays.checks import check_constant, check_flag
from ketcore.arrays.elementary import adjoint, beside, complex_dtype, widened
from ketcore.arrays.namespaces import namespace_of, quiet, to_host
from ketcore.linalg import closed_forms
from ketcore.linalg.closed_forms import Matrix, System
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_sum import KroneckerSum

# What `closed_forms.factor_wise` says where an eigenvalue decomposition fails.
_CONVERGE = "A must have factors whose eigenvalues converge, got factor {n}"


class EigResult(NamedTuple, Generic[ArrayT]):
    """What `eigh` and `eig` return, as NumPy names it.

    Attributes
    ----------
    eigenvalues : Ket
        All P of them, in no order of size.
    eigenvectors : KroneckerMatrix
        Column i belongs to eigenvalue i.
    """

    eigenvalues: Ket[ArrayT]
    eigenvectors: KroneckerMatrix[ArrayT]


class SVDResult(NamedTuple, Generic[ArrayT]):
    """What `svd` returns, as NumPy names it.

    Attributes
    ----------
    U : KroneckerMatrix
        With orthonormal columns.
    S : Ket
        The singular values, real, in no order of size.
    Vh : KroneckerMatrix
        With orthonormal rows.
    """

    U: KroneckerMatrix[ArrayT]
    S: Ket[ArrayT]
    Vh: KroneckerMatrix[ArrayT]


@quiet
def eigh(A: System[ArrayT], *, assume_a: str | None = None) -> EigResult[ArrayT]:
    """Eigenvalues and orthonormal eigenvectors of a Hermitian matrix.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        Not cropped: rank 1 (or of order 1) or a KroneckerSum; the factors Hermitian but for rounding (both
        triangles are read).  A product of factors that are Hermitian only but for phases, such as two skew
        ones, is Hermitian too.
    assume_a : {"sym", "her", "pos"}, optional
        None, or "her", "pos" or, for real factors, "sym": each factor is known to be Hermitian, without a
        phase, and no value is read.

    Returns
    -------
    EigResult, (eigenvalues, eigenvectors)
        A real Ket of rank 1 (of rank N for a KroneckerSum), in no order of size, and a KroneckerMatrix,
        complex where a phase makes it so.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped, and on other words for `assume_a`.
    LinAlgError
        Where A is not square or not finite; and naming the factor, where it is not Hermitian.

    See Also
    --------
    eig : For matrices that are not Hermitian.

    Notes
    -----
    Cost: O(sum p_n^3).  As `scipy.linalg.eigh` of the dense matrix, but for the order: that of the digits of
    i, so that ``np.sort(values.to_dense())`` is SciPy's.  There is no second matrix `b`, no subset, and both
    triangles are read.

    Examples
    --------
    >>> values, vectors = eigh(KroneckerMatrix([[[2.0, 0.0], [0.0, 1.0]], [[5.0]]]))
    >>> values.to_dense().tolist()
    [5.0, 10.0]
    """
    return _hermitian_spectrum(A, "eigh", assume_a)


@quiet
def eigvalsh(A: System[ArrayT], *, assume_a: str | None = None) -> Ket[ArrayT]:
    """The eigenvalues of `eigh` alone, a real Ket; errors and cost are those of `eigh`.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        As of `eigh`.
    assume_a : {"sym", "her", "pos"}, optional
        As of `eigh`.

    Returns
    -------
    Ket
        Of rank 1 (of rank N for a KroneckerSum), in no order of size.

    Examples
    --------
    >>> eigvalsh(KroneckerMatrix([[[2.0, 0.0], [0.0, 1.0]], [[5.0]]])).to_dense().tolist()
    [5.0, 10.0]
    """
    return _hermitian_spectrum(A, "eigvalsh", assume_a).eigenvalues


@quiet
def eig(A: System[ArrayT]) -> EigResult[ArrayT]:
    """Eigenvalues and right eigenvectors of norm 1 of any square matrix with square factors.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        Not cropped: rank 1 (or of order 1), or a KroneckerSum.

    Returns
    -------
    EigResult, (eigenvalues, eigenvectors)
        Both complex whatever the values: a Ket of rank 1 (of rank N for a KroneckerSum), in no order of size,
        and a KroneckerMatrix, singular where A is defective.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped.
    LinAlgError
        Where A is not square or not finite.

    See Also
    --------
    eigh : For Hermitian matrices: real values, orthonormal vectors.

    Notes
    -----
    Cost: O(sum p_n^3).  As `scipy.linalg.eig`, without a second matrix `b` and without left eigenvectors,
    which are the right ones of `A.H`.

    Examples
    --------
    >>> eig(KroneckerMatrix([[[0.0, 1.0], [-1.0, 0.0]], [[3.0]]])).eigenvalues.to_dense().tolist()
    [3j, -3j]
    """
    xp, matrices = _general_factors(A, "eig")
    values, vectors = _decomposed(lambda matrix: _eig(xp, matrix), xp, matrices)
    return EigResult(_ket_of(A, values), KroneckerMatrix(vectors))


@quiet
def eigvals(A: System[ArrayT]) -> Ket[ArrayT]:
    """The eigenvalues of `eig` alone, a complex Ket; errors and cost are those of `eig`.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        As of `eig`.

    Returns
    -------
    Ket
        Of rank 1 (of rank N for a KroneckerSum), in no order of size.

    Examples
    --------
    >>> eigvals(KroneckerMatrix([[[0.0, 1.0], [-1.0, 0.0]], [[3.0]]])).to_dense().tolist()
    [3j, -3j]
    """
    return _ket_of(A, general_values(*_general_factors(A, "eigvals")))


@quiet
def svd(A: Matrix[ArrayT], full_matrices: bool = False) -> SVDResult[ArrayT]:
    """The singular value decomposition A = U diag(S) Vh.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1), not cropped; its factors may be rectangular.
    full_matrices : bool, default False
        False (SciPy's default is True): U (P, K) and Vh (K, Q), K = prod min(p_n, q_n).  True: both square,
        where the leading columns are still those of S, that is where only the first factor is rectangular.

    Returns
    -------
    SVDResult, (U, S, Vh)
        KroneckerMatrices, and a real Ket in no order of size.  K < min(P, Q) where one factor is wide and
        another is tall: the singular values that are missing are zero.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped, and where `full_matrices` is true and another factor than the first is
        rectangular.
    LinAlgError
        Where A is not finite.

    Notes
    -----
    Cost: O(sum p_n q_n min(p_n, q_n)).  As `scipy.linalg.svd` but for the order of S: entry i belongs to
    column i of U and to row i of Vh.  For the values alone, `compute_uv` there, see `svdvals`.

    Examples
    --------
    >>> svd(KroneckerMatrix([[[0.0, 2.0]], [[3.0], [4.0]]])).S.to_dense().round(12).tolist()
    [10.0]
    """
    full_matrices = check_flag("full_matrices", full_matrices)
    xp, matrices = closed_forms.single(A, "svd", decides=False)
    rectangular = [tuple(m.shape) for m in matrices[1:] if m.shape[0] != m.shape[1]]
    if full_matrices and rectangular:
        raise ValueError(
            "full_matrices must be False where a factor but the first is rectangular, "
            f"got factors of shapes {[tuple(m.shape) for m in matrices]}"
        )
    rule = "A must have factors whose SVD converges, got factor {n}"

    def decomposed(matrix):
        return tuple(xp.linalg.svd(matrix, full_matrices=full_matrices))

    left, values, right = zip(*closed_forms.factor_wise(xp, decomposed, matrices, rule), strict=True)
    return SVDResult(_matrix(left, A.dtype), _ket(values, A.dtype), _matrix(right, A.dtype))


@quiet
def svdvals(A: Matrix[ArrayT]) -> Ket[ArrayT]:
    """The singular values of `svd` alone, a real Ket; errors and cost are those of `svd`.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        As of `svd`.

    Returns
    -------
    Ket
        Of rank 1, in no order of size.

    Examples
    --------
    >>> svdvals(KroneckerMatrix([[[0.0, 2.0]], [[3.0], [4.0]]])).to_dense().round(12).tolist()
    [10.0]
    """
    xp, matrices = closed_forms.single(A, "svdvals", decides=False)
    return _ket(singular_values(xp, matrices), A.dtype)


def singular_values(xp, matrices: Sequence[AnyArray]) -> list[AnyArray]:
    """Per factor min(p_n, q_n) singular values, the largest first."""
    rule = "A must have factors whose SVD converges, got factor {n}"
    return closed_forms.factor_wise(
        xp, lambda matrix: xp.linalg.svd(matrix, full_matrices=False)[1], matrices, rule
    )


def _sum_of_values(values: Sequence[AnyArray]) -> Ket:
    """All sums of one value per mode, as a Ket of N terms with ones in all modes but one."""
    xp = namespace_of(values[0])
    return Ket(
        [
            xp.stack([v if n == mode else xp.ones_like(v) for n in range(len(values))])
            for mode, v in enumerate(values)
        ]
    )


def hermitian_factors_of_sum(
    A: KroneckerSum, function: str, assumed: bool | None = None
) -> list[AnyArray] | None:
    """The factors of a Kronecker sum, if all are Hermitian but for rounding, or are assumed to be."""
    xp = array_api_compat.array_namespace(*A.factors)
    matrices = [widened(f) for f in A.factors]
    if assumed is None:
        closed_forms.check_finite(xp, matrices, function)
        assumed = all(closed_forms.is_hermitian_factor(xp, matrix, A.dtype) for matrix in matrices)
    return [(matrix + adjoint(matrix)) / 2 for matrix in matrices] if assumed else None


def decomposed_hermitian(
    xp, matrices: Sequence[AnyArray], look: bool = True
) -> tuple[Sequence[AnyArray], Sequence[AnyArray]]:
    """Eigenvalues (p_n,) and eigenvectors (p_n, p_n) of Hermitian matrices."""
    return _decomposed(lambda matrix: tuple(xp.linalg.eigh(matrix)), xp, matrices, look)


def _decomposed(function, xp, matrices, look=True):
    values, vectors = zip(*closed_forms.factor_wise(xp, function, matrices, _CONVERGE, look), strict=True)
    return values, vectors


def general_values(xp, matrices: Sequence[AnyArray], look: bool = True) -> list[AnyArray]:
    """Complex eigenvalues (p_n,) of square matrices."""
    return closed_forms.factor_wise(
        xp, lambda matrix: _eig(xp, matrix, "eigvals")[0], matrices, _CONVERGE, look
    )


def _hermitian_spectrum(A, function, assume_a):
    """Eigenvalues and vectors of the factors, which are or are assumed to be Hermitian."""
    look = assume_a is None
    assumed = None if look else closed_forms.assumption(closed_forms.operator(A, function), assume_a)
    if assumed is False:
        raise ValueError(f"assume_a must say that A is Hermitian for {function}, got {assume_a!r}")
    if isinstance(A, KroneckerSum):
        xp = array_api_compat.array_namespace(*A.factors)
        matrices = hermitian_factors_of_sum(A, function, assumed)
        if matrices is None:
            raise np.linalg.LinAlgError(
                f"A must have Hermitian factors for {function}, or go through ketcore.linalg.eig, "
                "got a KroneckerSum with others"
            )
    else:
        xp, matrices = closed_forms.single(A, function, look)
        matrices = closed_forms.hermitian(xp, matrices, function, A.dtype, assumed)
    values, vectors = decomposed_hermitian(xp, matrices, look)
    return EigResult(_stored_ket(_ket_of(A, values), A.dtype), _matrix(vectors, A.dtype))


def _ket_of(A, values):
    return _sum_of_values(values) if isinstance(A, KroneckerSum) else Ket(values)


def _general_factors(A, function):
    """The square factors of a sum, or of a single Kronecker product."""
    if isinstance(A, KroneckerSum):
        xp = array_api_compat.array_namespace(*A.factors)
        matrices = [widened(f) for f in A.factors]
        closed_forms.check_finite(xp, matrices, function, decides=False)
    else:
        xp, matrices = closed_forms.single(A, function, decides=False)
        closed_forms.square_factors(matrices, function)
    return xp, matrices


def _eig(xp, matrix, function="eig"):
    """Complex eigenvalues, and eigenvectors for `eig`: by the library if it has them, else NumPy."""
    dtype = complex_dtype(xp, matrix.dtype)
    if hasattr(xp.linalg, function):
        found = getattr(xp.linalg, function)(matrix)
        parts = found if function == "eig" else (found,)
        return tuple(xp.astype(part, dtype, copy=False) for part in parts)
    check_constant("A", [matrix], function)
    found = getattr(np.linalg, function)(to_host(matrix))
    parts = found if function == "eig" else (found,)
    return tuple(xp.astype(beside(part, matrix), dtype, copy=False) for part in parts)


def _ket(values: Sequence[AnyArray], dtype: Any) -> Ket:
    return _stored_ket(Ket(values), dtype)


def _stored_ket(ket, dtype):
    return Ket.from_packed(closed_forms.in_storage(namespace_of(ket.packed), ket.packed, dtype), ket.dims)


def _matrix(matrices, dtype):
    xp = array_api_compat.array_namespace(*matrices)
    return KroneckerMatrix(closed_forms.stored_factors(xp, matrices, dtype))
