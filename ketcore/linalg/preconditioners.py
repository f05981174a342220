"""Approximate inverses of K + s I for conjugate gradients, from a Kronecker product near K.

Let U be the eigenvectors of that product and d the diagonal of U^H K U, a ket: U diag(d) U^H is the matrix
nearest to K among those that U diagonalises.

Where all elements are observed the inverse is U diag(1 / (d + s)) U^H: exact for one Hermitian product and
for a Kronecker sum.  Where W picks the observed ones, W of that inverse W^T is good if few are missing.
Beyond that its error grows with d / s, and the largest d matter most: with V their columns of U, by the
identity of Woodbury

    (W V D V^H W^T + T)^-1 = T^-1 - T^-1 W V h (h V^H W^T T^-1 W V h + I)^-1 h V^H W^T T^-1,   h h = D,

T being t I with t = s and the mean of the d left out, or diagonal where each element has an s of its own.
The columns are products of r_n per mode, so that the Gram matrix V^H W^T T^-1 W V is a product of the mask,
over T, with factors (p_n, r_n^2).
"""

from collections.abc import Callable, Sequence
from math import isqrt, prod
from typing import Any, NamedTuple

import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import adjoint, beside, conjugated, padded, widened
from ketcore.arrays.namespaces import is_complex, namespace_of, to_host
from ketcore.fit.rank_one import nearest_rank_one
from ketcore.linalg import closed_forms, spectral
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum

# How many columns V has: sqrt(P) within these.  For squared-exponential kernels on 10^4 points that
# took a tenth of the iterations without, or fewer; more columns cost what they save.
_COLUMNS = (512, 2048)
# With no more missing elements than that, as many steps and one are enough for the other way.
_FEW = 64


class NearSpectrum(NamedTuple):
    """U as eigenvectors (p_n, p_n) per mode, with their eigenvalues (p_n,), None where it is I; and d."""

    vectors: Sequence[AnyArray] | None
    values: Sequence[AnyArray] | None
    curvatures: AnyArray


def approximate_inverse(
    A: Any, shift: float | AnyArray, observed: AnyArray
) -> Callable[[AnyArray], AnyArray] | None:
    """A function that multiplies vectors of all elements by an approximate inverse of A + shift I; or None.

    Parameters
    ----------
    shift : float or array
        A number, or one for each element that A multiplies, zero where it is not observed.
    observed : array
        1 for each element of a vector that A multiplies that is observed, else 0.

    Returns
    -------
    callable or None
        None where there is nothing to go by.

    Raises
    ------
    LinAlgError
        Where all is observed and A + shift I is not positive definite.
    """
    spectrum = _near_spectrum(A)
    xp, divisor = namespace_of(observed), spectrum.curvatures + _level(spectrum, shift, observed)
    eps, largest = float(np.finfo(divisor.dtype).eps), float(xp.max(divisor))
    missing = divisor.shape[0] - int(xp.sum(observed))
    if not missing and not float(xp.min(divisor)) > -(eps**0.5) * largest:
        raise np.linalg.LinAlgError(
            f"A + shift I must be positive definite for cg, got a curvature of {float(xp.min(divisor)):.3g}"
        )
    if not largest > 0:
        return None
    uneven = missing > _FEW or not isinstance(shift, float)
    if uneven and spectrum.vectors is not None and not isinstance(A, KroneckerSum):
        return _deflated(xp, spectrum, shift, observed)
    # Directions that only missing elements make negative, or rounding.
    return _spectral(xp, spectrum.vectors, xp.maximum(divisor, eps * largest))


def _level(spectrum, shift, observed):
    """What to add to the curvatures: without vectors these belong to elements, else all get the mean."""
    if isinstance(shift, float) or spectrum.vectors is None:
        return shift
    xp = namespace_of(observed)
    return float(xp.sum(shift) / xp.sum(observed))


def _near_spectrum(A: Any) -> NearSpectrum:
    """U and d; without U, and with the diagonal of A for d, where no product is at hand."""
    xp = namespace_of(closed_forms.arrays_of(A)[0]) if closed_forms.arrays_of(A) else np
    if isinstance(A, KroneckerProduct) or (
        isinstance(A, KroneckerMatrix) and (A.row_dims != A.col_dims or A.rank == 0)
    ):
        return NearSpectrum(None, None, _real(xp, A.diagonal()))
    if isinstance(A, KroneckerSum):
        matrices, A = [widened(f) for f in A.factors], A.to_kronecker()
    else:
        matrices = [widened(f[0, ...]) for f in nearest_rank_one(A).factors]
    halves = [(matrix + adjoint(matrix)) / 2 for matrix in matrices]
    values, vectors = spectral.decomposed_hermitian(xp, halves)
    leaves = [
        xp.sum(conjugated(u) * (f @ u), axis=-2)
        for f, u in zip([widened(f) for f in A.factors], vectors, strict=True)
    ]
    return NearSpectrum(vectors, values, _real(xp, Ket(leaves).to_dense()))


def _spectral(xp, vectors, divisor):
    """Division by `divisor` in the basis of the vectors, None being that of the elements."""
    if vectors is None:
        return lambda x: x / divisor

    def apply(x):
        y = _onto(vectors, padded(xp, x, divisor.shape[0], 0)) / divisor
        return _back(vectors, y)[: x.shape[0]]

    return apply


def _deflated(xp, spectrum, shift, observed):
    """The inverse of the largest curvatures plus a noise for each element, by Woodbury's identity."""
    vectors, curvatures = _largest(xp, spectrum)
    # Below that the difference in Woodbury's identity would be nothing but rounding.
    least = 100 * float(np.finfo(curvatures.dtype).eps) * float(xp.max(curvatures))
    rest = float(xp.sum(spectrum.curvatures) - xp.sum(curvatures))
    size = spectrum.curvatures.shape[0]
    noise = xp.maximum(shift + rest / max(1, size - curvatures.shape[0]) + 0 * observed, least + 0 * observed)
    # Of the level of the least noise, so that the weights of elements are at most 1.
    level = float(xp.min(xp.where(observed > 0, noise, xp.max(noise))))
    weights = observed * (level / noise)
    roots = xp.sqrt(curvatures)
    # Small and badly conditioned: inverted on the host, in 64 bits.
    gram = to_host(roots[:, None] * _gram(xp, vectors, padded(xp, weights, size, 0)) * roots)
    core = np.linalg.inv(gram.astype(np.result_type(gram, np.float64)) + level * np.eye(len(gram)))
    core = roots[:, None] * beside(core.astype(gram.dtype), roots) * roots

    def apply(x):
        x = weights * x
        y = core @ _onto(vectors, padded(xp, x, size, 0))
        return (x - weights * _back(vectors, y)[: x.shape[0]]) / level

    return apply


def _largest(xp, spectrum):
    """The columns of U to keep, per mode (p_n, r_n), and their part of d, as far as it is positive."""
    sizes = [to_host(xp.abs(v)) for v in spectrum.values]
    order = [np.argsort(-size, kind="stable") for size in sizes]
    limit = min(max(isqrt(spectrum.curvatures.shape[0]), _COLUMNS[0]), _COLUMNS[1])
    counts = _counts([size[at] for size, at in zip(sizes, order, strict=True)], limit)
    kept = [beside(at[:count], spectrum.curvatures) for at, count in zip(order, counts, strict=True)]
    grid = xp.reshape(spectrum.curvatures, [u.shape[0] for u in spectrum.vectors])
    for axis, at in enumerate(kept):
        grid = xp.take(grid, at, axis=axis)
    curvatures = xp.reshape(grid, (-1,))
    vectors = [u[:, at] for u, at in zip(spectrum.vectors, kept, strict=True)]
    return vectors, xp.maximum(curvatures, xp.zeros_like(curvatures))


def _counts(sizes: Sequence[np.ndarray], limit: int) -> list[int]:
    """How many eigenvectors of each mode to keep, up to `limit` products: one more where the next is largest.

    `sizes` are those of each mode, the largest first.
    """
    counts = [1] * len(sizes)
    while True:
        open_modes = [
            n
            for n, size in enumerate(sizes)
            if counts[n] < len(size) and prod(counts) // counts[n] * (counts[n] + 1) <= limit
        ]
        if not open_modes:
            return counts
        best = max(open_modes, key=lambda n: sizes[n][counts[n]] / (sizes[n][0] or 1.0))
        counts[best] += 1


def _gram(xp, vectors, observed):
    """V^H W^T W V (k, k): the mask contracted with all pairs of columns, the modes that shrink it first."""
    counts, sizes = [u.shape[1] for u in vectors], [u.shape[0] for u in vectors]
    total = observed
    for n in sorted(range(len(vectors)), key=lambda n: counts[n] ** 2 / sizes[n]):
        u = vectors[n]
        pairs = xp.reshape(conjugated(u)[:, :, None] * u[:, None, :], (sizes[n], counts[n] ** 2))
        after = prod(sizes[n + 1 :])
        total = ops.kron_matmul([pairs[None]], xp.reshape(total, (-1, sizes[n], after)), axis=-2)
        sizes[n] = counts[n] ** 2
    order = len(counts)
    split = xp.reshape(total, [count for count in counts for _ in range(2)])
    split = xp.permute_dims(split, (*range(0, 2 * order, 2), *range(1, 2 * order, 2)))
    return xp.reshape(split, (prod(counts), prod(counts)))


def _onto(vectors, x):
    """U^H x."""
    return ops.kron_matmul([conjugated(u)[None] for u in vectors], x)


def _back(vectors, y):
    """U y."""
    return ops.kron_matmul([u.T[None] for u in vectors], y)


def _real(xp, array):
    return xp.real(array) if is_complex(xp, array.dtype) else array
