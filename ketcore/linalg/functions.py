"""Functions of matrices: powers and roots of Kronecker products, exponentials of Kronecker sums.

(A (x) B)^n = A^n (x) B^n,    exp(A (+) B) = exp(A) (x) exp(B)
"""

from cmath import exp as turned
from functools import reduce
from math import inf, log, log2, prod
from operator import add, matmul
from typing import Any

import array_api_compat
import numpy as np

from ketcore.array_types import ArrayT
from ketcore.arrays.autodiff import detached, is_recorded, is_traced, matrix_exponential
from ketcore.arrays.checks import check_constant
from ketcore.arrays.elementary import adjoint, beside, identity, widened
from ketcore.arrays.namespaces import is_complex, namespace_of, quiet, to_host
from ketcore.linalg import branches, closed_forms, spectral
from ketcore.linalg.closed_forms import Matrix, System
from ketcore.linalg.solving import inverse_factors
from ketcore.objects import arithmetic
from ketcore.objects.kronecker_matrix import KroneckerMatrix, eye
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.shapes import check_int
from ketcore.spectra import decompositions

# A power of a sum of R terms has R**n, and with more than that it is no longer structured.
_TERMS = 1 << 16

# The exponential of this is near the largest float, so that what is far smaller does not vanish, with some
# room above it.
_HIGH = 700.0


@quiet
def matrix_power(A: Matrix[ArrayT], n: int) -> KroneckerMatrix[ArrayT]:
    """A @ A @ ... @ A, n times; the inverse of that for negative n, and the identity for n = 0.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        Square; of rank 1 it has square factors; rank 1 (or of order 1) and not cropped for negative n.
    n : int
        The exponent.

    Returns
    -------
    KroneckerMatrix
        Of rank 1 where A is; for positive n a rank R becomes `R**n`.

    Raises
    ------
    TypeError
        Where A has no closed form here, the message naming what does the work instead; where n is no integer.
    ValueError
        Where `R**n` is over 65536, and where A is cropped and n negative.
    LinAlgError
        Where A is not square, or not finite but for n = 0, or is singular and n negative.

    Notes
    -----
    Cost: O(log n sum p_n^3) for rank 1.  As `np.linalg.matrix_power`.

    Examples
    --------
    >>> matrix_power(KroneckerMatrix([[[2.0]], [[1.0, 1.0], [0.0, 1.0]]]), -2).to_dense().tolist()
    [[0.25, -0.5], [0.0, 0.25]]
    """
    n = check_int("n", n, -inf)
    if isinstance(A, KroneckerMatrix) and A.order > 1 and A.shape[0] == A.shape[1] and n >= 0:
        if A.rank > 1 and n * log2(A.rank) > log2(_TERMS):
            raise ValueError(
                f"n must give a power of at most {_TERMS} terms, or go through ketcore.recompress, "
                f"got {A.rank}**{n}"
            )
        if n and (A.rank != 1 or A.shape[0] != prod(A.row_dims)):
            return reduce(matmul, [A] * n)
        if not n and A.row_dims == A.col_dims:
            return KroneckerMatrix(_eye(A.row_dims, A.factors[0]).factors, A.shape)
    xp, matrices = closed_forms.single(A, "matrix_power", decides=n < 0)
    if n == 0 and closed_forms.square(matrices, "matrix_power"):
        return _eye([m.shape[0] for m in matrices], matrices[0]).astype(A.dtype)
    if n < 0:
        matrices, n = inverse_factors(xp, matrices, "matrix_power"), -n
    closed_forms.square_factors(matrices, "matrix_power")
    powers, known = [xp.linalg.matrix_power(m, n) for m in matrices], closed_forms.identities_of(A)
    return KroneckerMatrix(closed_forms.stored_factors(xp, powers, A.dtype, known), identities=known)


def _eye(dims, like) -> Any:
    """The identity beside `like`, in its dtype, of which NumPy need not know."""
    return eye(dims, "float32", like).astype(like.dtype)


@quiet
def sqrtm(A: Matrix[ArrayT]) -> KroneckerMatrix[ArrayT]:
    """The principal square root: the one whose eigenvalues have arguments in (-pi / 2, pi / 2].

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1) of square factors, not cropped.  The principal root of a product
        of eigenvalues must be the product of one root per factor: the arguments of one eigenvalue per factor
        add up within one turn, from -pi exclusive to pi inclusive, where each factor may count its arguments
        from where it suits.

    Returns
    -------
    KroneckerMatrix
        Real where A is and no root of an eigenvalue needs the imaginary unit.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped.
    LinAlgError
        Where A is not square or not finite, where the roots of the factors do not multiply to the principal
        root (as of two factors that are both indefinite), or where a factor that is not Hermitian is
        singular.

    Notes
    -----
    Cost: O(sum p_n^3), for factors that are not Hermitian on the host (`scipy.linalg.sqrtm`).

    Examples
    --------
    >>> sqrtm(KroneckerMatrix([[[4.0]], [[9.0, 0.0], [0.0, 1.0]]])).to_dense().tolist()
    [[6.0, 0.0], [0.0, 2.0]]
    """
    xp, matrices = closed_forms.single(A, "sqrtm")
    closed_forms.square_factors(matrices, "sqrtm")
    spectra = [_spectrum(xp, m, n, A.dtype) for n, m in enumerate(matrices)]
    arguments = [np.angle(values[values != 0]) for values, _ in spectra]
    found = branches.windows(arguments, 64 * float(xp.finfo(matrices[0].dtype).eps))
    if found is None:
        raise np.linalg.LinAlgError(
            "A must have eigenvalues whose principal roots are products of roots per factor for sqrtm, "
            "got arguments that add up beyond a turn"
        )
    windows, turn = found
    roots = [_root(*part) for part in zip(matrices, spectra, windows, strict=True)]
    phase = _snapped(turned(1j * (sum(map(_middle, windows)) / 2 - np.pi * turn)))
    roots[0] = arithmetic.scaled(roots[0], phase)
    return KroneckerMatrix(closed_forms.stored_factors(xp, roots, A.dtype))


def _spectrum(xp, matrix, n, stored):
    """Eigenvalues on the host, and eigenvectors if the matrix is Hermitian; what is only rounding is zero."""
    eps = float(xp.finfo(matrix.dtype).eps)
    matrix = detached(matrix)
    if closed_forms.is_hermitian_factor(xp, matrix, stored):
        half = (matrix + adjoint(matrix)) / 2
        (values,), (vectors,) = spectral.decomposed_hermitian(xp, [half])
        values = to_host(values)
        noise = np.abs(values) <= len(values) * eps * np.max(np.abs(values))
        return np.where(noise, 0, values), vectors
    values = np.linalg.eigvals(to_host(matrix))
    if np.min(np.abs(values)) <= len(values) * eps * np.max(np.abs(values)):
        raise np.linalg.LinAlgError(
            f"A must be Hermitian or invertible for sqrtm, got a singular factor {n} that is not Hermitian"
        )
    return values, None


def _root(matrix, spectrum, window):
    """The root of the matrix turned by minus the middle of the window, where no eigenvalue meets the cut."""
    values, vectors = spectrum
    xp = namespace_of(matrix)
    if vectors is not None:
        found = np.sqrt(np.abs(values))
        if window[1] > window[0]:
            arguments = np.angle(values)
            arguments = np.where(arguments < window[0], arguments + 2 * np.pi, arguments) - _middle(window)
            found = (found * np.exp(0.5j * arguments)).astype(np.result_type(found, np.complex64))
        found = beside(found, matrix)
        if is_complex(xp, found.dtype):
            vectors = xp.astype(vectors, found.dtype)
        root = (vectors * found) @ adjoint(vectors)
        return _recorded_root(xp, matrix, root, found, vectors, window) if is_recorded([matrix]) else root
    from scipy.linalg import sqrtm

    check_constant("A", [matrix], "sqrtm where a factor is not Hermitian", "such a factor")
    matrix = arithmetic.scaled(matrix, _snapped(turned(-1j * _middle(window))))
    root = sqrtm(to_host(matrix))
    return beside(root if is_complex(xp, matrix.dtype) else root.real, matrix)


def _recorded_root(xp, matrix, root, values, vectors, window):
    """A root `X` of the matrix with its derivatives: refined two times by the Y with X Y + Y X = F - X^2.

    `root`, `values` and `vectors` are X, its eigenvalues and its eigenvectors, without derivatives.
    """
    divisor = values[:, None] + values[None, :]
    if not to_host(xp.abs(divisor)).all():
        raise np.linalg.LinAlgError(
            "A must be invertible for sqrtm where gradients are required, got a singular factor"
        )
    matrix = arithmetic.scaled(matrix, _snapped(turned(-1j * _middle(window))))
    matrix, inverse = xp.astype(matrix, root.dtype, copy=False), adjoint(vectors)
    for _ in range(2):
        root = root + vectors @ ((inverse @ (matrix - root @ root) @ vectors) / divisor) @ inverse
    return root


def _middle(window):
    return (window[0] + window[1]) / 2


def _snapped(phase):
    """A number of absolute value 1, as a float where it is real but for rounding."""
    return float(round(phase.real)) if abs(phase.imag) < 1e-12 else phase


@quiet
def expm(A: System[ArrayT]) -> KroneckerMatrix[ArrayT]:
    """The matrix exponential, exactly, of a Kronecker sum, or of a product with one mode that is no identity.

    Parameters
    ----------
    A : KroneckerSum, KroneckerMatrix or KroneckerProduct
        A KroneckerSum; a KroneckerMatrix of order 1, or of rank 1 with all modes but one in `identities`; or
        a KroneckerProduct whose parts but one are of class `Identity`.

    Returns
    -------
    KroneckerMatrix
        Of rank 1.  Of a KroneckerSum its factors are equally large: they are the exponentials of those of A
        but for numbers that multiply to one, and do not overflow where the whole does not.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped.
    LinAlgError
        Where A is not square or not finite.

    Notes
    -----
    Cost: O(sum p_n^3), on the host in 64 bits (`scipy.linalg.expm`).

    Examples
    --------
    >>> expm(KroneckerSum([[[0.0, 1.0], [0.0, 0.0]], [[0.0]]])).to_dense().tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    if isinstance(A, KroneckerSum):
        matrices = [widened(f) for f in A.factors]
        xp = array_api_compat.array_namespace(*matrices)
        closed_forms.check_finite(xp, matrices, "expm", decides=False)
        live = list(range(len(matrices)))
    else:
        A = closed_forms.kronecker_matrix(A, "expm")
        xp, matrices = closed_forms.single(A, "expm", decides=False)
        closed_forms.square_factors(matrices, "expm")
        live = [n for n in range(len(matrices)) if n not in closed_forms.identities_of(A)] or [0]
        if len(live) > 1:
            raise TypeError(
                "A must be a KroneckerSum or have one mode that is no identity for expm, or go through "
                f"scipy.sparse.linalg.expm_multiply(A.as_linear_operator(), b), got {len(live)} modes"
            )
    chosen = [matrices[n] for n in live]
    if is_recorded(chosen):
        found = _recorded_exponentials(xp, chosen)
    else:
        found = _exponentials([to_host(m) for m in chosen], float(xp.finfo(A.dtype).max))
        found = [beside(one, m) for one, m in zip(found, chosen, strict=True)]
    for n, one in zip(live, found, strict=True):
        matrices[n] = xp.astype(one, matrices[n].dtype, copy=False)
    return KroneckerMatrix(closed_forms.stored_factors(xp, matrices, A.dtype))


def _recorded_exponentials(xp, matrices):
    """The same by PyTorch or JAX, which have derivatives.

    The largest eigenvalues are taken out as constants, so that nothing overflows, or the means of the
    diagonals where JAX traces the values.
    """
    wide = [xp.astype(m, decompositions.factor_dtype(xp, m.dtype), copy=False) for m in matrices]
    tops = [_top(xp, detached(m)) for m in wide]
    total = reduce(add, tops) / len(wide)
    share = float(np.exp(total)) if isinstance(total, float) else xp.exp(total)
    moved = [m - top * identity(m.shape[0], m) for m, top in zip(wide, tops, strict=True)]
    return [matrix_exponential(m) * share for m in moved]


def _top(xp, matrix):
    """The largest real part of an eigenvalue; of a matrix that JAX traces the mean of its diagonal."""
    if is_traced(matrix):
        return xp.linalg.trace(matrix) / matrix.shape[0]
    return float(np.linalg.eigvals(to_host(matrix)).real.max())


def _exponentials(matrices, limit):
    """The exponential of each NumPy matrix in 64 bits, times numbers that multiply to one.

    These make their largest elements equal: one of them alone may overflow or vanish where their product does
    not.
    """
    wide = [m.astype(np.result_type(m, np.float64)) for m in matrices]
    found, shifts, logs = zip(*[_shifted_exponential(m) for m in wide], strict=True)
    total = sum(shifts)
    level = (sum(logs) + np.real(total)) / len(found)
    if not level <= log(limit):
        # All of them would be infinite.
        return [_exponential(m, 0.0)[0] for m in wide]
    scaled = [one * np.exp(level - size) for one, size in zip(found, logs, strict=True)]
    if np.iscomplexobj(total):
        scaled[0] = scaled[0] * np.exp(1j * np.imag(total))
    return scaled


def _shifted_exponential(matrix):
    """`exp(A - c I)`, c and the logarithm of the largest element.

    c is the mean of the diagonal, or where that overflows what is near the largest real part of an
    eigenvalue.
    """
    shift = (np.diagonal(matrix) / len(matrix)).sum()
    found, size = _exponential(matrix, shift)
    if not size < np.inf:
        top = np.linalg.eigvals(matrix).real.max()
        for shift in (top - _HIGH, top):
            found, size = _exponential(matrix, shift)
            if size < np.inf:
                break
    return found, shift, np.log(size)


def _exponential(matrix, shift):
    """exp(A - shift I) and its largest absolute value."""
    from scipy.linalg import expm

    moved = matrix.copy()
    moved.flat[:: len(matrix) + 1] -= shift
    found = expm(moved)
    return found, np.abs(found).max()
