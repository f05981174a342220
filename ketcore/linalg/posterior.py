"""Gaussian processes on a product grid: what data say of the process, at their points and on other grids.

    f ~ N(0, K),  y = f + e,  e ~ N(0, S):    mean K_* (K + S)^-1 y,   covariance K_** - K_* (K + S)^-1 K_*^H

with K a Kronecker product of covariances, K_* that of the covariances of another grid with this one, K_**
that of the other grid.  S is s I, or L L^H, a Kronecker product too.  With the eigenvectors U_n and the
eigenvalues l_n of L_n^-1 K_n L_n^-H, V = L^-H U and X = L U (L = I for s I, else s = 1)

    (K + S)^-1 = V diag(1 / (l + s)) V^H,    K - K (K + S)^-1 K = X diag(l s / (l + s)) X^H,

so that variances are products with |X_n|^2 or |K_*n V_n|^2, element by element, and X diag(l s / (l + s))^1/2
times white noise is a sample.  Elsewhere a sample is one of the prior, moved by Matheron's rule:

    f_* + K_* (K + S)^-1 (y - f - e),   (f, f_*) = (x)_n R_n z,   R_n R_n^H the joint covariance of mode n.

Where each point has its own noise, or some are missing, (K + S)^-1 is applied by conjugate gradients.

Sources: Y. Saatci, Scalable Inference for Structured Gaussian Process Models, 2011, chapter 5 (the grid);
A. G. Journel and C. J. Huijbregts, Mining Geostatistics, 1978 (Matheron's rule).

Letters: N order, p_n points of mode n, P = prod p_n; q_n and Q on the other grid.
"""

from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any, Generic, NamedTuple

import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray, ArrayT, Index, Lists, Scalar, Seed
from ketcore.arrays.autodiff import detached
from ketcore.arrays.checks import check_constant, check_index
from ketcore.arrays.elementary import adjoint, beside, conjugated, real_dtype, widened
from ketcore.arrays.namespaces import (
    device_of,
    is_array,
    is_complex,
    is_numpy,
    is_writeable_in_place,
    library_of,
    namespace,
    namespace_of,
    quiet,
    value_of,
)
from ketcore.linalg import closed_forms, iterative, solving
from ketcore.linalg.closed_forms import Matrix
from ketcore.objects import arithmetic
from ketcore.objects.construction import generator
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.operands import is_dense, on_grid
from ketcore.shapes import check_addressable, check_int, check_size
from ketcore.spectra import decompositions, symmetry


@dataclass(frozen=True, eq=False, repr=False)
class GaussianPosterior(Generic[ArrayT]):
    """What `gaussian_posterior` returns: the process at the points of one grid, given data on another.

    Attributes
    ----------
    covariance : KroneckerMatrix, (P, P)
        The argument A.
    noise : float, array, (P,), or KroneckerMatrix of rank 1
        An array is zero where the mask is false.
    weights : array, (P,)
        (A + noise)^-1 y, zero where the mask is false.
    cross : KroneckerMatrix, (Q, P), or None
        The covariances of the grid that is asked about with that of the data; None where it is the same grid.
    prior : KroneckerMatrix, (Q, Q), or None
        The covariance of the grid that is asked about; None where it is the same grid, or unknown.
    mask : array of bools, (P,), or None
        Where there are data; None for everywhere.
    rtol, maxiter : float; int or None
        Of conjugate gradients.
    dtype : dtype
        Of the mean and of samples.
    grid : bool
        Whether what is said of all points comes in the shape of their grid, as the data did.

    Examples
    --------
    >>> A = KroneckerMatrix([[[1.0, 0.5], [0.5, 1.0]], [[1.0]]])
    >>> posterior = gaussian_posterior(A, [3.0, 0.0], noise=1.0)
    >>> posterior
    GaussianPosterior(row_dims=(2, 1), dtype=float64, data at 2 points)
    >>> posterior.mean().round(3).tolist(), posterior.sample(4, rng=0).shape
    ([1.4, 0.4], (4, 2))
    """

    covariance: KroneckerMatrix[ArrayT]
    noise: Any
    weights: ArrayT
    cross: KroneckerMatrix[ArrayT] | None
    prior: KroneckerMatrix[ArrayT] | None
    mask: ArrayT | None
    rtol: float
    maxiter: int | None
    dtype: Any
    grid: bool

    def __repr__(self) -> str:
        asked = self._asked()
        data = "" if self.mask is None else f"{int(value_of(namespace_of(self.mask).sum(self.mask)))} of "
        given = f"{data}{self.covariance.shape[0]} points"
        return f"{type(self).__name__}(row_dims={asked.row_dims}, dtype={self.dtype}, data at {given})"

    def at(self, cross: Matrix[ArrayT], prior: Matrix[ArrayT] | None = None) -> "GaussianPosterior[ArrayT]":
        """The same process on another grid, of the same data: nothing is solved for again.

        Parameters
        ----------
        cross : KroneckerMatrix or KroneckerProduct, (Q, P)
            As of `gaussian_posterior`.
        prior : KroneckerMatrix or KroneckerProduct, (Q, Q), optional
            As of `gaussian_posterior`.

        Returns
        -------
        GaussianPosterior

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes of `cross` and `prior`.
        """
        return replace(self, **_other_grid(self.covariance, cross, prior))

    @quiet
    def mean(self) -> ArrayT:
        """The mean of the process at all points.

        Returns
        -------
        array, (Q,) or (q_0, ..., q_{N-1})
            On their grid (the row dims of `cross`, else of A) if y was on one.

        Notes
        -----
        Cost: one product with `cross`, O(P sum p_n).
        """
        found = self._asked() @ self.weights
        return self._on_grid(namespace_of(found).astype(found, self.dtype, copy=False))

    @quiet
    def variance(self, points: Index | None = None) -> ArrayT:
        """The variance of the process, without noise, at points.

        Parameters
        ----------
        points : array of ints, (...), optional
            Numbers of points, from 0 to Q - 1, negative ones being an error; None for all.
            Where noise is an array, or there is a mask, they must be given.

        Returns
        -------
        array, (...), (Q,) or (q_0, ..., q_{N-1})
            In the shape of `points`, real; for all points as `mean`.

        Raises
        ------
        TypeError
            On points that are no integers, and on None where points must be given.  Without a prior for
            another grid, and where derivatives are recorded.
        IndexError
            On points outside the grid.
        LinAlgError
            Where conjugate gradients do not reach `rtol`.

        Notes
        -----
        Cost: O(P sum p_n + sum p_n^3) for all points.  Where noise is an array, or there is a mask, one
        solution by conjugate gradients for each point.  For the variance of new data add that of the noise.
        """
        _check_known(self, "variance")
        everywhere = points is None
        if points is not None:
            points, _ = check_index("points", points, self._asked().shape[0], None)
        if _is_closed(self):
            found = _closed_variances(self)
            found = found if points is None else _picked(found, points)
        elif points is None:
            raise TypeError(
                "points must be given where noise is an array or there is a mask, as each takes a solution "
                "by conjugate gradients, got None"
            )
        else:
            found = _iterative_variances(self, points)
        xp = namespace_of(found)
        found = xp.astype(found, real_dtype(xp, self.dtype), copy=False)
        return self._on_grid(found) if everywhere else found

    @quiet
    def sample(self, size: int | None = None, rng: Seed = None) -> ArrayT:
        """Samples of the process, without noise: exact ones, in which all points are correlated as they are.

        Parameters
        ----------
        size : int, optional
            How many; None for one without the axis of samples.
        rng : int, Generator or None, optional
            None, a seed, or a Generator of NumPy or CuPy.  Numbers of NumPy are moved to the device of A.

        Returns
        -------
        array, (Q,) or (size, Q)
            Or on the grid as `mean`; complex ones are circular.

        Raises
        ------
        TypeError
            On a size that is no integer and on kinds of `rng`.  Without a prior for another grid, and where
            derivatives are recorded.
        ValueError
            On a size below 0.
        LinAlgError
            Where cross, prior and A are no covariance together in each mode, and where conjugate gradients do
            not reach `rtol`.

        Notes
        -----
        Cost: for the grid of the data O(P sum p_n) a sample.  For another one O(T sum t_n) with t_n = p_n +
        q_n and T = prod t_n, 2^N times as many numbers as points where q_n = p_n.  Where noise is an array,
        or there is a mask, also one solution by conjugate gradients each.  And O(sum t_n^3) once.
        """
        _check_known(self, "sample")
        count = 1 if size is None else check_int("size", size, 0)
        asked = self.covariance if self.cross is None else self.cross
        check_addressable((count, asked.shape[0]))
        same = _is_closed(self) and self.cross is None
        moved = (_closed_samples if same else _moved_samples)(self, count, generator(rng))
        xp = namespace_of(moved)
        moved = self._on_grid(moved)
        found = xp.astype(self.mean(), moved.dtype, copy=False) + moved
        found = xp.astype(found, self.dtype, copy=False)
        return found[0, ...] if size is None else found

    def _asked(self):
        """What belongs to the points that are asked about."""
        return self.covariance if self.cross is None else self.cross

    def _on_grid(self, values):
        """Values (..., Q) in the shape that the data have."""
        return on_grid(values, self._asked(), -2, self.grid)


@quiet
def gaussian_posterior(
    A: Matrix[ArrayT],
    y: ArrayT | Lists,
    noise: Scalar | ArrayT | Lists | Matrix[ArrayT],
    *,
    cross: Matrix[ArrayT] | None = None,
    prior: Matrix[ArrayT] | None = None,
    mask: ArrayT | Lists | None = None,
    rtol: float = 1e-6,
    maxiter: int | None = None,
) -> GaussianPosterior[ArrayT]:
    """Gaussian process regression on a product grid: mean, variance and samples of a process, given data.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct, (P, P)
        The covariance of the process at the points of the data: rank 1, not cropped, its factors square,
        Hermitian and positive semidefinite.
    y : array, (P,) or (p_0, ..., p_{N-1})
        The data, at each point or on the grid (the row dims of A): then results have the shape of the grid
        that they are for.  Where the mask is false it is not read.  For a process with a mean subtract it
        here, and add it to what comes out.
    noise : float, array, (P,) or (p_0, ..., p_{N-1}), KroneckerMatrix or KroneckerProduct
        The variance of the noise: a number at least 0; or one for each point; or a positive definite matrix
        of rank 1 and of the dims of A, such as ``KroneckerProduct([Diagonal(s), Identity(p)])`` for noise of
        its own in each task or at each time.
    cross : KroneckerMatrix or KroneckerProduct, (Q, P), optional
        The covariances of the points that are asked about, a product grid too, with those of the data: rank 1
        with column dims those of A.  None: the points are those of the data.
    prior : KroneckerMatrix or KroneckerProduct, (Q, Q), optional
        The covariance of the points of `cross`, rank 1: `mean` does without.
    mask : array of bools, (P,) or (p_0, ..., p_{N-1}), optional
        Where there are data.  None for everywhere.
    rtol : float, default 1e-6
        Of conjugate gradients, as of `cg`, where noise is an array or there is a mask.
    maxiter : int, optional
        As of `cg`.

    Returns
    -------
    GaussianPosterior
        It has `mean()`, `variance()` and `sample(size, rng)`, and `at(cross, prior)` for more grids.

    Raises
    ------
    TypeError
        On kinds; on a matrix of several terms; on an array of noise or a mask where y is no array of NumPy or
        CuPy, on a mask beside a matrix of noise, and on a prior without `cross`.
    ValueError
        On shapes and dims; on noise below 0; on a mask that is true nowhere; and where there is an array of
        noise or a mask on y that is not finite.
    LinAlgError
        Where A is not positive semidefinite or A + noise not positive definite, and where conjugate gradients
        do not reach `rtol`.

    See Also
    --------
    gaussian_log_likelihood : How likely the data are, to choose A and the noise by.

    Notes
    -----
    Cost: O(P sum p_n + sum p_n^3): one solution.  With an array of noise or a mask one by conjugate gradients
    (`cg`), for NumPy and CuPy alone.  The mean has derivatives in PyTorch and JAX, but not by conjugate
    gradients.

    With f ~ N(0, A) and y = f + e, e ~ N(0, noise)::

        mean = cross (A + noise)^-1 y,    covariance = prior - cross (A + noise)^-1 cross^H

    References
    ----------
    Y. Saatci, Scalable Inference for Structured Gaussian Process Models, 2011, chapter 5 (the grid).

    A. G. Journel and C. J. Huijbregts, Mining Geostatistics, 1978 (samples on another grid, by Matheron's
    rule).

    Examples
    --------
    >>> A = KroneckerMatrix([[[1.0, 0.5], [0.5, 1.0]], [[1.0]]])
    >>> posterior = gaussian_posterior(A, [3.0, 0.0], noise=1.0)
    >>> posterior.mean().round(3).tolist(), posterior.variance().round(3).tolist()
    ([1.4, 0.4], [0.467, 0.467])

    At a point between those of the data:

    >>> between = KroneckerMatrix([[[0.8, 0.8]], [[1.0]]])
    >>> posterior.at(between, KroneckerMatrix([[[1.0]], [[1.0]]])).variance().round(3).tolist()
    [0.488]
    """
    own = _kernel("A", A)
    if own.row_dims != own.col_dims:
        dims = f"{own.row_dims} and {own.col_dims}"
        raise TypeError(f"A must have square factors for gaussian_posterior, got dims {dims}")
    xp, matrices = _hermitian("A", own)
    _check_covariance(xp, matrices, own.dtype)
    y, grid = solving.one_each("y", own, y)
    xp = namespace_of(y)
    rtol = check_size("rtol", rtol)
    maxiter = None if maxiter is None else check_int("maxiter", maxiter, 1)
    mask = None if mask is None else _observed(own, mask)
    noise, dtype = _noise(own, noise, mask), xp.result_type(own.factors[0], y)
    other: dict[str, Any] = {"cross": None, "prior": None}
    if cross is not None:
        other = _other_grid(own, cross, prior)
    elif prior is not None:
        raise TypeError(f"prior must be None without cross, got a {type(prior).__name__}")
    if (mask is not None or _is_array(noise)) and not is_writeable_in_place(y):
        rule = "y must be an array of NumPy or CuPy where noise is an array or there is a mask"
        raise TypeError(f"{rule}, got {library_of(y)}")
    if mask is not None or _is_array(noise):
        _check_data(xp, y, mask)
    options = {"mask": mask, "rtol": rtol, "maxiter": maxiter, "dtype": dtype, "grid": grid}
    found = GaussianPosterior(own, noise, y, **options, **other)
    return replace(found, weights=_solved(found, widened(y)))


def _kernel(name, value):
    """`value` as a KroneckerMatrix of one term, all of it."""
    if not isinstance(value, KroneckerMatrix | KroneckerProduct):
        raise TypeError(
            f"{name} must be a KroneckerMatrix for gaussian_posterior, got {type(value).__name__}"
        )
    found = closed_forms.kronecker_matrix(value, "solve")
    if found.rank != 1:
        way = ", or go through ketcore.linalg.cg" if name == "A" else ""
        raise TypeError(f"{name} must have rank 1 for gaussian_posterior{way}, got rank {found.rank}")
    if found.shape != (prod(found.row_dims), prod(found.col_dims)):
        raise ValueError(f"{name} must not be cropped for gaussian_posterior, got shape {found.shape}")
    return found


def _check_covariance(xp, matrices, stored):
    """LinAlgError where a product of Hermitian matrices has an eigenvalue below zero, if that is known."""
    least = largest = 1.0
    for matrix in matrices:
        values = xp.linalg.eigvalsh(detached(matrix))
        ends = [value_of(end) for end in (xp.min(values), xp.max(values))]
        if None in ends:
            return
        # Relative to the largest, of which a product might overflow.
        peak = max(map(abs, ends)) or 1.0
        found = [own * end / peak for own in (least, largest) for end in ends]
        least, largest = min(found), max(found)
    slack = sum(symmetry.slack(xp, stored, matrix.shape[0]) for matrix in matrices)
    if not least >= -slack:
        raise np.linalg.LinAlgError(
            f"A must be positive semidefinite, got an eigenvalue of {least:.3g} times the largest"
        )


def _check_dims(name, matrix, dims):
    if not matrix.row_dims == matrix.col_dims == dims:
        got = f"{matrix.row_dims} and {matrix.col_dims}"
        raise ValueError(f"{name} must have row and column dims {dims}, got {got}")


def _other_grid(A, cross, prior):
    """Cross and prior, checked against the grid of A."""
    cross = _kernel("cross", cross)
    if cross.col_dims != A.row_dims:
        raise ValueError(f"cross must have column dims {A.row_dims}, got {cross.col_dims}")
    arrays = [*A.factors, *cross.factors]
    if prior is not None:
        prior = _kernel("prior", prior)
        _check_dims("prior", prior, cross.row_dims)
        arrays += prior.factors
    namespace("A, cross and prior", arrays)
    return {"cross": cross, "prior": prior}


def _observed(A, mask):
    """The mask (P,); None where all points are observed."""
    mask, _ = solving.one_each("mask", A, mask, booleans=True)
    xp = namespace_of(mask)
    if not value_of(xp.any(mask)):
        raise ValueError("mask must be true somewhere, got none")
    return None if value_of(xp.all(mask)) else mask


def _check_data(xp, y, mask):
    """Conjugate gradients would run to their end on NaN."""
    finite = xp.isfinite(y) if mask is None else xp.isfinite(y) | ~mask
    if not value_of(xp.all(finite)):
        where = "" if mask is None else " where the mask is true"
        raise ValueError(f"y must be finite{where}, got NaN or infinity (mask says where there are data)")


def _noise(A, noise, mask):
    """The noise as a number, an array (P,) or a KroneckerMatrix."""
    if isinstance(noise, KroneckerMatrix | KroneckerProduct):
        found = _kernel("noise", noise)
        _check_dims("noise", found, A.row_dims)
        if mask is not None:
            raise TypeError(
                f"noise must be a number or an array where there is a mask, got a {type(noise).__name__}"
            )
        xp = namespace("A and noise", (*A.factors, *found.factors))
        _cholesky(xp, found)
        return found
    if arithmetic.is_scalar(noise):
        number = arithmetic.as_number("noise", noise)
        if is_array(number):
            namespace("A and noise", (A.factors[0], number))
        value = value_of(number) if is_array(number) else number
        if isinstance(value, complex):
            raise TypeError(f"noise must be real, got {value}")
        if value is not None and not 0 <= value < inf:
            raise ValueError(f"noise must be at least 0 and finite, got {value}")
        return number if is_array(number) else float(number)
    if not is_dense(noise):
        kind = type(noise).__name__
        raise TypeError(f"noise must be a number, an array or a KroneckerMatrix, got {kind}")
    found, _ = solving.one_each("noise", A, noise)
    xp = namespace_of(found)
    if is_complex(xp, found.dtype):
        raise TypeError(f"noise must be real, got {found.dtype}")
    found = found if mask is None else xp.where(mask, found, xp.zeros_like(found))
    least, largest = value_of(xp.min(found)), value_of(xp.max(found))
    if least is not None and not (least >= 0 and largest < inf):
        raise ValueError(f"noise must be at least 0 and finite, got {least if not least >= 0 else largest}")
    return found


def _is_array(noise):
    """Whether each point has its own noise."""
    return is_array(noise) and noise.ndim > 0


def _is_closed(posterior):
    """Whether (A + noise)^-1 has a closed form."""
    return posterior.mask is None and not _is_array(posterior.noise)


def _check_known(posterior, function):
    """TypeError without a prior where another grid is asked about, and where derivatives would be wrong."""
    if posterior.cross is not None and posterior.prior is None:
        raise TypeError(f"prior must be given with cross for {function}, got None")
    for name in ("covariance", "cross", "prior", "noise"):
        value = getattr(posterior, name)
        name = "A" if name == "covariance" else name
        check_constant(name, getattr(value, "factors", (value,)), function)
    check_constant("y", [posterior.weights], function)


def _solved(posterior, right):
    """(A + noise)^-1 times a vector (P,)."""
    A, noise, mask = posterior.covariance, posterior.noise, posterior.mask
    if isinstance(noise, KroneckerMatrix):
        return solving.solve(A + noise, right)
    if _is_closed(posterior):
        return solving.solve(A, right, noise)
    x, iterations = iterative.cg(
        A, right, mask=mask, shift=noise, rtol=posterior.rtol, maxiter=posterior.maxiter
    )
    if iterations:
        raise np.linalg.LinAlgError(
            f"maxiter must let conjugate gradients reach rtol {posterior.rtol:g}, got {iterations} iterations"
        )
    return x


class _Spectrum(NamedTuple):
    """(A + noise)^-1 = V diag(1 / (l + s)) V^H and A = X diag(l) X^H.

    Attributes
    ----------
    inner : list of N arrays, (p_n, p_n)
        The factors of V.
    outer : list of N arrays, (p_n, p_n)
        The factors of X.
    values : array, (P,)
        l, at least 0.
    level : float or array
        s.
    """

    inner: list[AnyArray]
    outer: list[AnyArray]
    values: AnyArray
    level: Any


def _spectrum(posterior):
    """Eigenvalues and vectors of the covariance, whitened where the noise is a Kronecker matrix."""
    A, noise = posterior.covariance, posterior.noise
    xp, matrices = _hermitian("A", A)
    if isinstance(noise, KroneckerMatrix):
        roots = _cholesky(xp, noise)
        halves = [xp.linalg.solve(root, m) for root, m in zip(roots, matrices, strict=True)]
        matrices = [xp.linalg.solve(root, adjoint(h)) for root, h in zip(roots, halves, strict=True)]
        values, vectors = decompositions.hermitian_eigh(xp, matrices, True)
        inner = [xp.linalg.solve(adjoint(root), u) for root, u in zip(roots, vectors, strict=True)]
        outer = [root @ u for root, u in zip(roots, vectors, strict=True)]
        level = 1.0
    else:
        values, vectors = decompositions.hermitian_eigh(xp, matrices, True)
        inner, outer, level = vectors, vectors, noise
    product = decompositions.kron_of_vectors(xp, values)
    # Below zero by rounding alone.
    return _Spectrum(inner, outer, xp.maximum(product, xp.zeros_like(product)), level)


def _cholesky(xp, noise):
    """The Cholesky factors of each factor of the noise."""
    rule = "noise must be positive definite, got factor {n} that is not"
    matrices = [detached(matrix) for matrix in _hermitian("noise", noise)[1]]
    return closed_forms.factor_wise(xp, xp.linalg.cholesky, matrices, rule)


def _hermitian(name, matrix):
    """The namespace, and the Hermitian factors of one product in 64 bits."""
    xp = namespace_of(matrix.factors[0])
    exact = decompositions.factor_dtype(xp, matrix.dtype)
    factors = [xp.astype(f[0, ...], exact, copy=False) for f in matrix.factors]
    for n, factor in enumerate(factors):
        if symmetry.is_hermitian(xp, [detached(factor)], [matrix.dtype]) is False:
            raise np.linalg.LinAlgError(f"{name} must be finite and Hermitian, got factor {n} that is not")
    return xp, [(factor + adjoint(factor)) / 2 for factor in factors]


def _along(matrices, x):
    """`x` (..., Q) times the transpose of a Kronecker product (P, Q) of matrices (p_n, q_n): (..., P)."""
    xp = namespace_of(x)
    return ops.kron_matmul([xp.matrix_transpose(matrix)[None, ...] for matrix in matrices], x)


def _kept(spectrum):
    """What data leave of the eigenvalues: l s / (l + s) (P,)."""
    xp = namespace_of(spectrum.values)
    total = spectrum.values + spectrum.level
    safe = xp.where(total > 0, total, xp.ones_like(total))
    return spectrum.values * (spectrum.level / safe)


def _closed_variances(posterior):
    """Variances at all points of a grid, from the spectrum."""
    spectrum = _spectrum(posterior)
    xp = namespace_of(spectrum.values)
    if posterior.cross is None:
        return _along([xp.abs(x) ** 2 for x in spectrum.outer], _kept(spectrum))
    exact = spectrum.inner[0].dtype
    cross = [xp.astype(f[0, ...], exact, copy=False) for f in posterior.cross.factors]
    squares = [xp.abs(k @ v) ** 2 for k, v in zip(cross, spectrum.inner, strict=True)]
    found = _along(squares, 1 / (spectrum.values + spectrum.level))
    prior = posterior.prior.diagonal()
    prior = xp.astype(xp.real(prior) if is_complex(xp, prior.dtype) else prior, found.dtype)
    # Below zero by rounding alone.
    return xp.maximum(prior - found, xp.zeros_like(found))


def _picked(values, points):
    xp = namespace_of(values)
    index = xp.asarray(points, device=device_of(values))
    return xp.reshape(xp.take(values, xp.reshape(index, (-1,)), axis=0), tuple(index.shape))


def _iterative_variances(posterior, points):
    """Variances at some points, each by a system of its own."""
    cross = posterior._asked()
    prior = posterior.covariance if posterior.cross is None else posterior.prior
    xp = namespace_of(posterior.weights)
    rows = [widened(row) for row in cross.rows(xp.reshape(points, (-1,)))]
    whole = widened(prior.diagonal())
    known = xp.real(whole) if is_complex(xp, whole.dtype) else whole
    found = [xp.sum(row * _solved(posterior, conjugated(row))) for row in rows]
    explained = xp.stack(found) if found else known[:0]
    explained = xp.real(explained) if is_complex(xp, explained.dtype) else explained
    left = _picked(known, xp.reshape(points, (-1,))) - explained
    return xp.reshape(xp.maximum(left, xp.zeros_like(left)), tuple(points.shape))


def _closed_samples(posterior, count, rng):
    """X sqrt(l s / (l + s)) z (count, P)."""
    spectrum = _spectrum(posterior)
    xp, kept = namespace_of(spectrum.values), _kept(spectrum)
    z = _white(posterior, (count, kept.shape[0]), rng)
    return _along(spectrum.outer, z * xp.astype(xp.sqrt(kept), z.dtype, copy=False))


def _moved_samples(posterior, count, rng):
    """f_* - K_* (K + S)^-1 (f + e), (count, Q), by Matheron's rule."""
    here, there = _joint_roots(posterior)
    xp, size = namespace_of(here[0]), prod(root.shape[1] for root in here)
    z = _white(posterior, (count, size + posterior.covariance.shape[0]), rng)
    f, moved = _along(here, z[:, :size]), _along(there, z[:, :size])
    f = f + _noise_of(posterior, z[:, size:])
    cross = posterior._asked()
    solved = [_solved(posterior, f[n, :]) for n in range(count)]
    if not solved:
        return moved
    return moved - _along([widened(factor[0, ...]) for factor in cross.factors], xp.stack(solved))


def _noise_of(posterior, z):
    """Noise (count, P) of white noise."""
    xp, noise = namespace_of(z), posterior.noise
    if isinstance(noise, KroneckerMatrix):
        return _along(_cholesky(xp, noise), z)
    level = xp.asarray(noise, dtype=real_dtype(xp, z.dtype), device=device_of(z))
    return z * xp.astype(xp.sqrt(level), z.dtype, copy=False)


def _joint_roots(posterior):
    """The rows of R_n for the points of the data (p_n, t_n), and for those asked about (q_n, t_n)."""
    xp, own = _hermitian("A", posterior.covariance)
    if posterior.cross is None:
        roots = [_root(xp, n, matrix, posterior.dtype) for n, matrix in enumerate(own)]
        return roots, roots
    _, prior = _hermitian("prior", posterior.prior)
    here, there = [], []
    for n, (matrix, other) in enumerate(zip(own, prior, strict=True)):
        between = xp.astype(posterior.cross.factors[n][0, ...], matrix.dtype, copy=False)
        upper, lower = xp.concat([matrix, adjoint(between)], axis=1), xp.concat([between, other], axis=1)
        root = _root(xp, n, xp.concat([upper, lower], axis=0), posterior.dtype)
        here.append(root[: matrix.shape[0], :])
        there.append(root[matrix.shape[0] :, :])
    return here, there


def _root(xp, n, matrix, stored):
    """R with R R^H = matrix."""
    values, vectors = xp.linalg.eigh(matrix)
    least, largest = (float(value_of(found)) for found in (xp.min(values), xp.max(xp.abs(values))))
    if not least >= -symmetry.slack(xp, stored, matrix.shape[0]) * largest:
        raise np.linalg.LinAlgError(
            "A, cross and prior must be a positive semidefinite covariance together in each mode, "
            f"got an eigenvalue of {least:.3g} beside one of {largest:.3g} in mode {n}"
        )
    return vectors * xp.sqrt(xp.maximum(values, xp.zeros_like(values)))[None, :]


def _white(posterior, shape, rng):
    """Independent normal numbers of variance 1, circular ones where the result is complex."""
    like = posterior.weights
    xp = namespace_of(like)
    exact = decompositions.factor_dtype(xp, posterior.dtype)
    if is_complex(xp, posterior.dtype):
        parts = rng.standard_normal((2, *shape)) * 0.5**0.5
        z = parts[0] + 1j * parts[1]
    else:
        z = rng.standard_normal(shape)
    return xp.astype(beside(z, like) if is_numpy(z) else z, exact, copy=False)
