"""Fewer terms for a ket or a Kronecker matrix, without multiplying it out."""

from math import hypot, prod
from typing import Any, overload

import array_api_compat
import numpy as np

from ketcore.array_types import ArrayT, Seed
from ketcore.arrays.checks import check_constant
from ketcore.arrays.elementary import elementwise_product, padded, widened
from ketcore.arrays.namespaces import device_of, is_half, quiet, to_host
from ketcore.fit.fewer_terms import fit_terms
from ketcore.fit.flat_leaves import epsilon, flat_leaves, inner_products, terms_norm, zeros_of
from ketcore.fit.result import Callback, Fit, Options, check_options
from ketcore.fit.targets import TermsTarget
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.reductions import restricted

# How often the tolerance of a whole matrix is lowered for that of its leading block.
_LOWERED = 8


@overload
def recompress(
    x: Ket[ArrayT],
    rank: int | None = None,
    tol: float | None = None,
    *,
    restarts: int = 2,
    iterations: int = 200,
    rng: Seed = None,
    callback: Callback | None = None,
) -> Fit[Ket[ArrayT]]: ...
@overload
def recompress(
    x: KroneckerMatrix[ArrayT],
    rank: int | None = None,
    tol: float | None = None,
    *,
    restarts: int = 2,
    iterations: int = 200,
    rng: Seed = None,
    callback: Callback | None = None,
) -> Fit[KroneckerMatrix[ArrayT]]: ...
@quiet
def recompress(
    x: Any,
    rank: int | None = None,
    tol: float | None = None,
    *,
    restarts: int = 2,
    iterations: int = 200,
    rng: Any = None,
    callback: Callback | None = None,
) -> Fit[Any]:
    """The same ket or matrix, or one near it, as a sum of fewer terms.

    Parameters
    ----------
    x : Ket or KroneckerMatrix
        A ket of any batch shape, or a matrix.  A cropped one is fitted as the whole that it is a block of, of
        which the first terms are kept that are nearest to the block, and `error` is that of the block.
    rank : int, optional
        The number of terms; fewer where fewer are found to be exact.  With `tol` the most of them.  One of
        the two must be given.
    tol : float, optional
        Relative error: the least number of terms that reaches it, with N > 2 the least that is found.
    restarts : int, default 2
        As of `nearest_kronecker`.
    iterations : int, default 200
        As of `nearest_kronecker`.
    rng : int, Generator or None, optional
        As of `nearest_kronecker`.
    callback : callable, optional
        As of `nearest_kronecker`.

    Returns
    -------
    Fit, (value, error, converged, iterations)
        As of `nearest_kronecker`, `value` of the class, shape and dtype of x.  The entries of a batch of kets
        are fitted one by one, `error` has one number for each, and their terms are padded with zeros to one
        number of terms.  A sum that cancels to the rounding of its terms counts as zero.

    Raises
    ------
    TypeError
        On kinds, and where derivatives of x are recorded.
    ValueError
        On other values of the arguments, and on NaN and infinity in x.

    See Also
    --------
    nearest_kronecker : For dense matrices, and for other dims.

    Notes
    -----
    Cost: N = 2: the optimum, by SVDs of both factors and of a core of at most R x R.  N > 2: terms that
    differ in one mode at most are added up; then alternating least squares on the core, or in O(R R' sum d_n)
    a sweep where that has over 2 million elements.  Waits for the device.

    Examples
    --------
    >>> three = Ket([[[1.0, 0.0], [1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [3.0, 0.0], [1.0, 1.0]]])
    >>> fit = recompress(three, tol=1e-12)
    >>> fit.value.rank, fit.value.to_dense().round(12).tolist()
    (1, [5.0, 3.0, 0.0, 0.0])
    """
    options = check_options(rank, tol, restarts, iterations, rng, callback)
    if isinstance(x, Ket):
        check_constant("x", [x.packed], "recompress", "a Ket")
        return _ket_fit(x, options)
    if not isinstance(x, KroneckerMatrix):
        raise TypeError(f"x must be a Ket or a KroneckerMatrix, got {type(x).__name__}")
    check_constant("x", x.factors, "recompress", "factor {n}")
    return fit_matrix(x, options)


def fit_matrix(x: KroneckerMatrix[ArrayT], options: Options) -> Fit[KroneckerMatrix[ArrayT]]:
    """A fit, and where a crop leaves its error above the tolerance, fits of lower tolerance."""
    xp = array_api_compat.array_namespace(*x.factors)
    leaves, asked = flat_leaves([widened(f) for f in x.factors]), options
    for _ in range(_LOWERED):
        found = fit_terms(leaves, asked)
        shaped = zip(found.leaves, x.factors, strict=True)
        factors = [xp.astype(xp.reshape(a, (-1, *f.shape[1:])), x.dtype, copy=False) for a, f in shaped]
        value = _nearest_part(x, KroneckerMatrix(factors, x.shape))
        error = _matrix_error(x, value, found)
        fit = Fit(value, error, found.converged, found.sweeps)
        most = min(x.rank, options.rank or x.rank)
        if options.tol is None or error <= options.tol or found.leaves[0].shape[0] >= most:
            break
        if asked.tol is None or found.residual > asked.tol:  # the whole has no nearer sum of so few terms
            break
        asked = asked._replace(tol=asked.tol * min(0.5, options.tol / error))
    return fit


def _is_whole(x):
    return x.shape == (prod(x.row_dims), prod(x.col_dims))


def _nearest_part(x, value):
    """The first terms of `value`, as many as are nearest to x, a crop that they were not fitted to."""
    if _is_whole(x):
        return value
    xp = array_api_compat.array_namespace(*x.factors)
    changes, size = np.zeros(value.rank + 1), 0.0
    # By the number of terms, |x - terms|^2 less |x|^2 of the block.
    pairs = (restricted([widened(f) for f in m.factors], x.shape) for m in (x, value))
    for given, fitted in zip(*pairs, strict=True):
        given, fitted = flat_leaves(given), flat_leaves(fitted)
        cross = elementwise_product([inner_products(a, b) for a, b in zip(given, fitted, strict=True)])
        grams = elementwise_product([inner_products(b, b) for b in fitted])
        cross, grams = (np.real(to_host(a)).astype(np.float64) for a in (xp.sum(cross, axis=0), grams))
        changes[1:] += np.diagonal(grams.cumsum(0).cumsum(1)) - 2 * cross.cumsum()
        size += float(np.sum(np.abs(grams))) + float(np.sum(np.abs(cross)))
    count = int(np.argmin(changes))
    # Differences of squares tell half the digits.
    if changes[-1] - changes[count] <= 16 * epsilon(widened(x.factors[0])) * size:
        return value
    kept = [f[:count, ...] if count else zeros_of(f[:1, ...]) for f in value.factors]
    return KroneckerMatrix(kept, value.shape)


def _matrix_error(x, value, found):
    """The relative error: of a crop or of rounded factors box by box of digits."""
    if _is_whole(x) and not is_half(x.dtype):
        return found.residual
    residual = norm = 0.0
    pairs = (restricted([widened(f) for f in m.factors], x.shape) for m in (x, value))
    for given, fitted in zip(*pairs, strict=True):
        given, fitted = flat_leaves(given), flat_leaves(fitted)
        norm = hypot(norm, terms_norm(given))
        residual = hypot(residual, TermsTarget(given).residual(fitted))
    return residual / norm if norm else 0.0


def _ket_fit(x, options):
    """Every entry of the batch by itself, padded to one number of terms."""
    xp = array_api_compat.array_namespace(x.packed)
    flat = xp.reshape(x.packed, (prod(x.batch_shape), *x.packed.shape[-2:]))
    entries = [
        [widened(f) for f in Ket.from_packed(flat[i, ...], x.dims).factors] for i in range(flat.shape[0])
    ]
    found = [fit_terms(leaves, options) for leaves in entries]
    terms = max((one.leaves[0].shape[0] for one in found), default=1)
    whole = xp.zeros((0, terms, sum(x.dims)), dtype=x.dtype, device=device_of(x.packed))
    if found:
        whole = xp.stack([padded(xp, xp.concat(one.leaves, axis=1), terms, 0) for one in found])
    whole = xp.astype(xp.reshape(whole, (*x.batch_shape, terms, sum(x.dims))), x.dtype, copy=False)
    value = Ket.from_packed(whole, x.dims)
    errors = [one.residual for one in found]
    if is_half(x.dtype):
        errors = [_ket_error(leaves, value, i) for i, leaves in enumerate(entries)]
    errors = np.reshape(np.asarray(errors, np.float64), x.batch_shape)
    sweeps = sum(one.sweeps for one in found)
    return Fit(value, errors if x.batch_shape else float(errors), all(f.converged for f in found), sweeps)


def _ket_error(leaves, value, entry):
    """The relative error of one entry, as rounded to the dtype of the ket."""
    packed = value.packed.reshape(-1, *value.packed.shape[-2:])[entry, ...]
    fitted = [widened(f) for f in Ket.from_packed(packed, value.dims).factors]
    norm = terms_norm(leaves)
    return TermsTarget(leaves).residual(fitted) / norm if norm else 0.0
