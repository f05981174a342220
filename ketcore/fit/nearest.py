"""The nearest sum of Kronecker products to a matrix.

    min |A - sum_k F_0[k] (x) ... (x) F_{N-1}[k]|_F

For two factors the rearranged matrix (`halves`) turns it into a truncated SVD; beyond, into a sum of outer
products of N vectors, for which there are local optima and, for some matrices, no optimum at all.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import array_api_compat
import numpy as np

from ketcore.array_types import Array, ForeignT, Host, HostLike, Lists, Seed
from ketcore.arrays.checks import check_constant, check_permutation
from ketcore.arrays.namespaces import is_half, quiet
from ketcore.arrays.scale import balanced
from ketcore.divisors import suggest_dims
from ketcore.fit.als import Found
from ketcore.fit.flat_leaves import flat_leaves, length, like, wide_modes, zeros_of
from ketcore.fit.rearranged import Halves, padded_block
from ketcore.fit.recompress import fit_matrix
from ketcore.fit.result import Callback, Fit, check_options
from ketcore.fit.search import fit_halves
from ketcore.fit.sources import Rows, open_rows
from ketcore.fit.targets import DenseTarget
from ketcore.fit.weights import Weights, check_row_weights, plan_weights
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.shapes import check_dims, check_int, shown

# The matrix is padded to its dims: the bytes of so many elements have no address.
_MOST = 1 << 59


@overload
def nearest_kronecker(
    A: KroneckerMatrix[Host] | KroneckerSum[Host] | KroneckerProduct[Host] | HostLike,
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    rank: int | None = None,
    *,
    tol: float | None = None,
    weights: Array | Lists | None = None,
    restarts: int = 2,
    iterations: int = 200,
    rng: Seed = None,
    callback: Callback | None = None,
    gain: float | None = None,
    permutation: Array | Lists | None = None,
) -> Fit[KroneckerMatrix[Host]]: ...
@overload
def nearest_kronecker(
    A: KroneckerMatrix[ForeignT] | KroneckerSum[ForeignT] | KroneckerProduct[ForeignT] | ForeignT,
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    rank: int | None = None,
    *,
    tol: float | None = None,
    weights: Array | Lists | None = None,
    restarts: int = 2,
    iterations: int = 200,
    rng: Seed = None,
    callback: Callback | None = None,
    gain: float | None = None,
    permutation: Array | Lists | None = None,
) -> Fit[KroneckerMatrix[ForeignT]]: ...
@quiet
def nearest_kronecker(
    A: Any,
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    rank: int | None = None,
    *,
    tol: float | None = None,
    weights: Any = None,
    restarts: int = 2,
    iterations: int = 200,
    rng: Any = None,
    callback: Callback | None = None,
    gain: float | None = None,
    permutation: Any = None,
) -> Fit[KroneckerMatrix[Any]]:
    """The sum of few Kronecker products that is nearest to `A` in the Frobenius norm.

    Parameters
    ----------
    A : array, (rows, columns), or operator
        Floating or complex, finite: an array of any library; or what is read by blocks of rows: np.memmap and
        whatever has `shape`, `dtype` and row slices, a SciPy LinearOperator (through its adjoint).  A
        KroneckerMatrix, KroneckerSum or KroneckerProduct of the same dims goes to `recompress`, one of other
        dims is read by blocks of rows.
    row_dims, col_dims : sequence of N ints
        The dims of the result: rows <= P = prod row_dims, columns <= Q = prod col_dims.  What lies outside A
        is free: it counts with weight 0.
    rank : int, optional
        The number of terms, with N = 2 fewer where fewer are exact.  With `tol` the most of them.  One of the
        two must be given.
    tol : float, optional
        Relative error: the least number of terms that reaches it, with N > 2 the least that is found.
    weights : array, (rows,), optional
        Real, non-negative: `sum_i w_i |A_i - M_i|^2` is minimised, and `error` is its root over that of
        `sum_i w_i |A_i|^2`.  A row of weight 0 is free.  None: 1 for all.
    restarts : int, default 2
        Where there is no closed form: random starts besides those by SVDs.
    iterations : int, default 200
        Where there is no closed form: the most sweeps per start.
    rng : int, Generator or None, optional
        A seed or a NumPy Generator, for the random starts; None for other ones in each call.
    callback : callable, optional
        ``callback(sweeps, error)`` is called after each sweep with the number of sweeps so far and the
        relative error of that start, which does not increase within a start.
    gain : float, optional
        Where there is time for a near fit alone: what iterates ends with the first sweep, or pass over a
        large matrix, that lessens the error by less than this part of it.  None: once it settles.
    permutation : array, (rows,), optional
        Every number below `rows` once: row i of A is near row ``permutation[i]`` of `value`, such as that of
        `vocabulary_permutation`.  What is read by blocks must then have rows by ascending arrays of integers
        too, as np.memmap and files of HDF5 do.  None: row i is near row i.

    Returns
    -------
    Fit, (value, error, converged, iterations)
        `value` is a KroneckerMatrix of the shape and dtype of A, `error` its relative error, `converged`
        whether the iteration settled before its limit, `iterations` the number of sweeps.  N = 2: the
        optimum, where weights (a crop has 0 and 1) separate as w(i) = u(i_0) v(i_1) and no `gain` is given,
        and a local one otherwise.  N > 2: the best local optimum of all starts.

    Raises
    ------
    TypeError, ValueError
        On kinds, shapes and values; NaN and infinity are refused, and arrays that derivatives are recorded
        of.

    See Also
    --------
    from_dense : The same with dims that need not be given.
    vocabulary_permutation : An order of the rows in which fewer terms are needed.
    recompress : For kets and Kronecker matrices.

    Notes
    -----
    Cost: N = 2: an SVD of p_0 q_0 x p_1 q_1, partial where that is large; N > 2: O(P Q R) a sweep.  Memory: a
    copy of an array or of up to a million elements; of what is read by blocks, one of max(4 MB, p_right
    rows), p_right the rows of the right half of the modes, and per term tables of both halves.  Waits for the
    device.

    Reaching `tol` is no promise: compare `error` with it.  For N > 2 some matrices have no nearest sum of a
    given rank at all, but sums that are ever nearer.

    References
    ----------
    C. F. Van Loan and N. Pitsianis, Approximation with Kronecker products, 1993 (N = 2).

    T. G. Kolda and B. W. Bader, Tensor decompositions and applications, SIAM Review 51 (2009), section 3.4
    (N > 2).

    Examples
    --------
    >>> A = np.kron([[1.0, 2.0], [3.0, 4.0]], np.eye(3))
    >>> matrix, error, *_ = nearest_kronecker(A, (2, 3), (2, 3), rank=1)
    >>> matrix.rank, error < 1e-14, float(matrix[0, 3].round(12))
    (1, True, 2.0)
    """
    options = check_options(rank, tol, restarts, iterations, rng, callback, gain)
    row_dims, col_dims = check_dims("row_dims", row_dims), check_dims("col_dims", col_dims)
    A = _as_kronecker(A)
    check_constant("A", A.factors if isinstance(A, KroneckerMatrix) else [A], "nearest_kronecker")
    check_constant("weights", [weights], "nearest_kronecker")
    check_constant("permutation", [permutation], "nearest_kronecker")
    as_it_is = weights is None and permutation is None
    if as_it_is and isinstance(A, KroneckerMatrix) and _dims(A) == (row_dims, col_dims):
        return fit_matrix(A, options)
    rows = open_rows(A)
    _check_fit(row_dims, col_dims, rows.shape)
    weights = check_row_weights(weights, rows.shape[0])
    if permutation is not None:
        order = np.argsort(check_permutation("permutation", permutation, rows.shape[0]))
        rows, weights = open_rows(A, order=order), None if weights is None else weights[order]
    kept = wide_modes([p * q for p, q in zip(row_dims, col_dims, strict=True)], 1)
    if len(kept) < len(row_dims):
        wide_rows, wide_cols = (tuple(sizes[n] for n in kept) for sizes in (row_dims, col_dims))
        found = _fit_rows(rows, wide_rows, wide_cols, weights, options)
        return found._replace(value=_with_ones(found.value, kept, len(row_dims)))
    return _fit_rows(rows, row_dims, col_dims, weights, options)


@overload
def from_dense(
    A: KroneckerMatrix[Host] | KroneckerSum[Host] | KroneckerProduct[Host] | HostLike,
    order: int = 2,
    rank: int | None = None,
    *,
    tol: float | None = None,
    row_dims: Sequence[int] | None = None,
    col_dims: Sequence[int] | None = None,
    **options: Any,
) -> Fit[KroneckerMatrix[Host]]: ...
@overload
def from_dense(
    A: KroneckerMatrix[ForeignT] | KroneckerSum[ForeignT] | KroneckerProduct[ForeignT] | ForeignT,
    order: int = 2,
    rank: int | None = None,
    *,
    tol: float | None = None,
    row_dims: Sequence[int] | None = None,
    col_dims: Sequence[int] | None = None,
    **options: Any,
) -> Fit[KroneckerMatrix[ForeignT]]: ...
@quiet
def from_dense(
    A: Any,
    order: int = 2,
    rank: int | None = None,
    *,
    tol: float | None = None,
    row_dims: Sequence[int] | None = None,
    col_dims: Sequence[int] | None = None,
    **options: Any,
) -> Fit[KroneckerMatrix[Any]]:
    """The sum of few Kronecker products nearest to `A`, with dims that `suggest_dims` chooses.

    Parameters
    ----------
    A : array, (rows, columns), or operator
        As of `nearest_kronecker`.
    order : int, default 2
        The number N of modes; dims that are given must have as many.
    rank : int, optional
        As of `nearest_kronecker`.
    tol : float, optional
        As of `nearest_kronecker`.
    row_dims, col_dims : sequence of N ints, optional
        As of `nearest_kronecker`; None for those of `suggest_dims`.
    **options
        `weights`, `restarts`, `iterations`, `rng`, `callback`, `gain` and `permutation` of
        `nearest_kronecker`.

    Returns
    -------
    Fit, (value, error, converged, iterations)
        As of `nearest_kronecker`.

    Raises
    ------
    TypeError, ValueError
        As `nearest_kronecker`.

    See Also
    --------
    nearest_kronecker : The same with dims that are given; its notes say what it costs.

    Examples
    --------
    >>> fit = from_dense(np.kron(np.ones((2, 2)), np.eye(3)), rank=1)
    >>> fit.value.row_dims, fit.error < 1e-14
    ((2, 3), True)
    """
    A = _as_kronecker(A)
    order = check_int("order", order, 1)
    found: list[tuple[int, ...]] = []
    shape = open_rows(A).shape
    for name, dims, axis in (("row_dims", row_dims, 0), ("col_dims", col_dims, 1)):
        dims = suggest_dims(shape[axis], order) if dims is None else check_dims(name, dims)
        if len(dims) != order:
            raise ValueError(f"{name} must be {shown(order)} ints, as order is, got {shown(dims)}")
        found.append(dims)
    fit: Any = nearest_kronecker(A, found[0], found[1], rank, tol=tol, **options)
    return fit


def _fit_rows(rows: Rows, row_dims, col_dims, weights, options) -> Fit:
    """The fit, in whose dims a mode of one element (1, 1) only costs an axis."""
    plan = plan_weights(weights, rows.shape, row_dims, col_dims)
    if len(row_dims) == 1:
        return _one_mode(rows, plan, row_dims, col_dims)
    halves = _halves(rows, plan, row_dims, col_dims).scaled_to_one()
    if halves.norm == 0:
        shapes = zip(row_dims, col_dims, strict=True)
        factors = [like(rows.xp, np.zeros((1, p, q)), rows.sample) for p, q in shapes]
        return Fit(_matrix(rows, factors), 0.0, True, 0)
    return _finished(halves, plan, fit_halves(halves, options))


def _with_ones(matrix, kept, order):
    """The same matrix with modes of size (1, 1) that hold ones between those that are kept."""
    one = array_api_compat.array_namespace(*matrix.factors).ones_like(matrix.factors[0][:, :1, :1])
    factors = dict(zip(kept, matrix.factors, strict=True))
    return KroneckerMatrix([factors.get(n, one) for n in range(order)], matrix.shape)


def _as_kronecker(matrix):
    """Structured operators as Kronecker matrices; the rest as it is."""
    return matrix.to_kronecker() if isinstance(matrix, KroneckerSum | KroneckerProduct) else matrix


def _dims(matrix):
    return matrix.row_dims, matrix.col_dims


def _check_fit(row_dims, col_dims, shape):
    got = f"got {shown(row_dims)} and {shown(col_dims)}"
    if len(row_dims) != len(col_dims):
        raise ValueError(f"row_dims and col_dims must have one length, {got}")
    for name, dims, size in (("row_dims", row_dims, shape[0]), ("col_dims", col_dims, shape[1])):
        if prod(dims) < size:
            raise ValueError(f"{name} must have a product of at least {size}, got {shown(dims)}")
    if prod(row_dims) * prod(col_dims) >= _MOST:
        raise ValueError(f"row_dims and col_dims must have a product below {_MOST} in all, {got}")


def _halves(rows: Rows, plan: Weights, row_dims, col_dims) -> Halves:
    """The rearranged matrix with the weights that do not separate."""

    def moved(values):
        return like(rows.xp, values, rows.sample)

    scale = None if plan.row_scale is None else moved(plan.row_scale)
    plain = Halves(rows, row_dims, col_dims, scale)
    if plan.roots is None or plan.columns is None:
        return plain
    (p_left, q_left), (p_right, q_right) = plain.sides
    roots = moved(plan.roots.reshape(p_left, p_right))
    return Halves(rows, row_dims, col_dims, scale, roots, moved(plan.columns.reshape(q_left, q_right)))


def _finished(halves: Halves, plan: Weights, found: Found) -> Fit:
    """The leaves as factors in the dtype of A, and the error of these."""
    xp, rows = halves.rows.xp, halves.rows
    scales = _mode_scales(halves, plan)
    pairs = zip(found.leaves, scales, strict=True)
    leaves = [leaf if scale is None else _divided(xp, leaf, scale) for leaf, scale in pairs]
    # The power of two goes over all leaves, since it may overflow where the product does not.
    share = halves.factor ** (-1 / len(leaves))
    dims = zip(balanced(leaves), halves.row_dims, halves.col_dims, strict=True)
    value = _matrix(rows, [xp.reshape(leaf * share, (-1, p, q)) for leaf, p, q in dims])
    residual = found.residual
    if is_half(rows.dtype):
        wide = [xp.astype(f, rows.sample.dtype) / share for f in flat_leaves(value.factors)]
        wide = [f if s is None else f * s for f, s in zip(wide, scales, strict=True)]
        residual = DenseTarget(halves).residual(wide)
        if not residual <= halves.norm:
            # Rounded to few digits, or beyond their range, they are worse than nothing.
            value, residual = _matrix(rows, [zeros_of(f) for f in value.factors]), halves.norm
    return Fit(value, residual / halves.norm, found.converged, found.sweeps)


def _mode_scales(halves, plan):
    """Per mode the roots of separate weights and of crops (1, p_n q_n); None where they are all 1."""
    if plan.by_mode is None:
        return [None] * len(halves.row_dims)
    outer = [np.outer(roots, mask).reshape(1, -1) for roots, mask in plan.by_mode]
    return [None if np.all(o == 1) else like(halves.rows.xp, o, halves.rows.sample) for o in outer]


def _divided(xp, leaf, scale):
    """Leaves over their scales; free elements, of scale 0, become 0."""
    return xp.where(scale != 0, leaf / xp.where(scale != 0, scale, xp.ones_like(scale)), xp.zeros_like(leaf))


def _matrix(rows: Rows, factors: Sequence[Any]) -> KroneckerMatrix[Any]:
    return KroneckerMatrix([rows.xp.astype(f, rows.dtype, copy=False) for f in factors], rows.shape)


def _one_mode(rows, plan, row_dims, col_dims):
    """The matrix itself, with zeros outside."""
    block = rows.read(0, rows.shape[0])
    if not np.isfinite(length(block)):
        raise ValueError(f"A must hold finite values, got {rows.not_finite()}")
    factor = padded_block(rows.xp, block, (row_dims[0], col_dims[0]))
    return Fit(_matrix(rows, [factor[None, ...]]), 0.0, True, 0)
