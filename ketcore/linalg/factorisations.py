"""Triangular factorisations, factor by factor: A (x) B = (Q_A (x) Q_B)(R_A (x) R_B); so for Cholesky's."""

from typing import Generic, Literal, NamedTuple, overload

import numpy as np

from ketcore.array_types import ArrayT
from ketcore.arrays.checks import check_flag
from ketcore.arrays.elementary import adjoint
from ketcore.arrays.namespaces import quiet, value_of
from ketcore.linalg import closed_forms
from ketcore.linalg.closed_forms import Matrix
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.shapes import check_choice


class QRResult(NamedTuple, Generic[ArrayT]):
    """What `qr` returns, as NumPy names it.

    Attributes
    ----------
    Q : KroneckerMatrix
        With orthonormal columns.
    R : KroneckerMatrix
        Upper triangular.
    """

    Q: KroneckerMatrix[ArrayT]
    R: KroneckerMatrix[ArrayT]


@overload
def qr(A: Matrix[ArrayT], mode: Literal["economic", "full"] = "economic") -> QRResult[ArrayT]: ...
@overload
def qr(A: Matrix[ArrayT], mode: Literal["r"]) -> KroneckerMatrix[ArrayT]: ...
@quiet
def qr(A: Matrix[ArrayT], mode: str = "economic") -> QRResult[ArrayT] | KroneckerMatrix[ArrayT]:
    """The decomposition A = Q R; the Kronecker product R of upper triangular factors is upper triangular too.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1), not cropped; its factors may be rectangular.
    mode : {"economic", "full", "r"}, default "economic"
        "economic" (SciPy's default is "full"): Q (P, K) and R (K, Q), K = prod min(p_n, q_n).  "r": that R
        alone.  "full": Q (P, P) and R (P, Q), where R is still upper triangular, that is where no factor but
        the first has more rows than columns.

    Returns
    -------
    QRResult, (Q, R); or KroneckerMatrix
        KroneckerMatrices; the signs of R's diagonal are as they come.  R alone for "r".

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped, on other modes, and on "full" where R would not be upper triangular.
    LinAlgError
        Where A is not finite.

    Notes
    -----
    Cost: O(sum p_n q_n min(p_n, q_n)).  As `scipy.linalg.qr`, without pivoting, `overwrite_a`, `lwork` and
    `check_finite`; "r" gives the R of "economic", and no tuple.

    Examples
    --------
    >>> r = qr(KroneckerMatrix([[[3.0], [4.0]], [[0.0, 2.0], [1.0, 0.0]]]), mode="r")
    >>> abs(r.to_dense().round(12)).tolist()
    [[5.0, 0.0], [0.0, 10.0]]
    """
    check_choice("mode", mode, ("economic", "full", "r"))
    xp, matrices = closed_forms.single(A, "qr", decides=False)
    shapes = [tuple(m.shape) for m in matrices]
    if mode == "full" and any(rows > columns for rows, columns in shapes[1:]):
        raise ValueError(
            "mode must not be 'full' where a factor but the first has more rows than columns, "
            f"got factors of shapes {shapes}"
        )
    how = "complete" if mode == "full" else "reduced"
    rule = "A must have factors whose QR decomposition exists, got factor {n}"
    pairs = closed_forms.factor_wise(xp, lambda matrix: tuple(xp.linalg.qr(matrix, mode=how)), matrices, rule)
    q, r = (
        KroneckerMatrix(closed_forms.stored_factors(xp, side, A.dtype)) for side in zip(*pairs, strict=True)
    )
    return r if mode == "r" else QRResult(q, r)


@quiet
def cholesky(
    A: Matrix[ArrayT], lower: bool = False, *, assume_a: str | None = None
) -> KroneckerMatrix[ArrayT]:
    """The triangular `C` with C^H C = A, or with C C^H = A where `lower` is true.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1), not cropped, Hermitian positive definite.  Both triangles of the
        factors are read.  The factors may be positive definite only but for phases, such as two negative
        definite ones.
    lower : bool, default False
        Whether C is lower triangular; by default it is upper triangular, as in SciPy (and unlike in NumPy).
    assume_a : {"pos"}, optional
        None, or "pos": each factor is known to be Hermitian positive definite, and no value is read.

    Returns
    -------
    KroneckerMatrix
        C, with triangular factors; its diagonal is positive.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped, and on other words for `assume_a`.
    LinAlgError
        Where A is not square or not finite; and naming the factor, where A is not Hermitian or not positive
        definite.

    Notes
    -----
    Cost: O(sum p_n^3).  As `scipy.linalg.cholesky`, but that both triangles are read; without `overwrite_a`
    and `check_finite`.

    Examples
    --------
    >>> cholesky(KroneckerMatrix([[[4.0]], [[1.0, 1.0], [1.0, 2.0]]]), lower=True).to_dense().tolist()
    [[2.0, 0.0], [2.0, 2.0]]
    """
    check_choice("assume_a", assume_a, (None, "pos", "positive definite"))
    lower = check_flag("lower", lower)
    look = assume_a is None
    xp, matrices = closed_forms.single(A, "cholesky", look)
    matrices = closed_forms.hermitian(xp, matrices, "cholesky", A.dtype, None if look else True)
    if look:
        matrices = _positive(xp, matrices)
    rule = "A must be positive definite, got factor {n} that is not"
    found = closed_forms.factor_wise(xp, xp.linalg.cholesky, matrices, rule, look)
    found = found if lower else [adjoint(c) for c in found]
    return KroneckerMatrix(closed_forms.stored_factors(xp, found, A.dtype))


def _positive(xp, matrices):
    """The factors of the same product without the signs that they can do without."""
    negative = [value_of(xp.real(m[0, 0]) < 0 if _complex(xp, m) else m[0, 0] < 0) for m in matrices]
    if sum(negative) % 2:
        raise np.linalg.LinAlgError("A must be positive definite, got a negative diagonal")
    return [-m if flip else m for m, flip in zip(matrices, negative, strict=True)]


def _complex(xp, matrix):
    return xp.isdtype(matrix.dtype, "complex floating")
