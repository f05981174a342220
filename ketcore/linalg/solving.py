"""Linear systems and inverses, factor by factor.

    (A (x) B)^-1 = A^-1 (x) B^-1,    (A (x) B)^+ = A^+ (x) B^+

A pseudo-inverse takes small singular values for zero.  Which ones, the whole product decides: its singular
values are the products of those of the factors.  By default those up to the sum of max(p_n, q_n) times the
machine epsilon, relative to the largest: NumPy's rule for one factor, and for more of them what their
rounding adds up to, which does not grow with P.
"""

from collections.abc import Sequence
from functools import partial, reduce
from math import prod
from typing import Any, Generic, Literal, NamedTuple, overload

import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray, ArrayT, ForeignT, Host, Lists, Scalar
from ketcore.arrays.autodiff import detached, is_recorded
from ketcore.arrays.checks import check_flag
from ketcore.arrays.conversions import as_array
from ketcore.arrays.elementary import adjoint, conjugated, itemsize, unboxed
from ketcore.arrays.namespaces import index_dtype, namespace, quiet, value_of
from ketcore.linalg import closed_forms, cuts, of_products, of_sums, of_two_terms
from ketcore.linalg.closed_forms import Matrix, System
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.operands import flat, on_grid, operand
from ketcore.spectra import symmetry


class LstsqResult(NamedTuple, Generic[ArrayT]):
    """What `lstsq` returns, in SciPy's order.

    Attributes
    ----------
    x : array, (Q,), (Q, K), (..., Q, K) or (..., q_0, ..., q_{N-1})
        The solution, in the one of these shapes that b has with P for Q.
    residuals : array, (), (K,), (...) or (..., K); or (0,)
        The squared norms of the columns of b - A x (on a grid, of each whole grid) where P > Q = rank, else
        empty.
    rank : int
        How many singular values count as not zero.
    singular_values : Ket
        All prod min(p_n, q_n) of them, real, in no order of size.
    """

    x: ArrayT
    residuals: ArrayT
    rank: int
    singular_values: Ket[ArrayT]


@overload
def inv(A: KroneckerMatrix[ArrayT], *, assume_a: str | None = None) -> KroneckerMatrix[ArrayT]: ...
@overload
def inv(A: KroneckerProduct[ArrayT], *, assume_a: str | None = None) -> KroneckerProduct[ArrayT]: ...
@quiet
def inv(A: Any, *, assume_a: str | None = None) -> Any:
    """The inverse, factor by factor.

    To solve a system `solve` loses fewer digits.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1) of square factors, not cropped.
    assume_a : str, optional
        None, or any of those of `solve`: then no value is read, so that a singular factor gives inf or NaN,
        or an error of the library.

    Returns
    -------
    KroneckerMatrix or KroneckerProduct
        Of the class of A.  Of a KroneckerProduct diagonal parts stay diagonal and identities identities;
        sparse parts become dense.

    Raises
    ------
    TypeError
        Where A has no closed form here (several terms, a KroneckerSum, a linear operator among its parts);
        the message names what does the work instead.
    ValueError
        Where A is cropped, and on other words for `assume_a`.
    LinAlgError
        Naming the factor, where A is not square, not finite or singular: a factor counts as singular whose
        condition number exceeds one over the machine epsilon.

    Notes
    -----
    Cost: O(sum p_n^3).  As `scipy.linalg.inv`, but for `overwrite_a`, `check_finite` and `lower`, which there
    are none of.  A factor that is nearly singular gives no warning.

    Examples
    --------
    >>> inv(KroneckerMatrix([[[2.0]], [[0.0, 1.0], [4.0, 0.0]]])).to_dense().tolist()
    [[0.0, 0.125], [0.5, 0.0]]
    """
    look = symmetry.assumed_hermitian(assume_a, True) is None
    if of_products.is_structured(A):
        return of_products.inv(A, look)
    xp, matrices = closed_forms.single(A, "inv", look)
    found, known = inverse_factors(xp, matrices, "inv", look), closed_forms.identities_of(A)
    return KroneckerMatrix(closed_forms.stored_factors(xp, found, A.dtype, known), identities=known)


def inverse_factors(xp, matrices: Sequence[AnyArray], function: str, look: bool = True) -> list[AnyArray]:
    """The inverse of each factor; LinAlgError where there is none, as far as values may be read."""
    if not closed_forms.square(matrices, function):
        closed_forms.not_invertible(matrices)
    inverse, rule = (
        partial(closed_forms.factor_inverse, look=look),
        "A must be invertible, got a singular factor {n}",
    )
    return closed_forms.factor_wise(xp, inverse, matrices, rule, look)


@overload
def pinv(
    A: Matrix[ArrayT],
    *,
    atol: float = 0.0,
    rtol: float | None = None,
    return_rank: Literal[False] = False,
    max_bytes: int = 2**30,
) -> KroneckerMatrix[ArrayT]: ...
@overload
def pinv(
    A: Matrix[ArrayT],
    *,
    atol: float = 0.0,
    rtol: float | None = None,
    return_rank: Literal[True],
    max_bytes: int = 2**30,
) -> tuple[KroneckerMatrix[ArrayT], int]: ...
@quiet
def pinv(
    A: Matrix[ArrayT],
    *,
    atol: float = 0.0,
    rtol: float | None = None,
    return_rank: bool = False,
    max_bytes: int = 2**30,
) -> KroneckerMatrix[ArrayT] | tuple[KroneckerMatrix[ArrayT], int]:
    """The Moore-Penrose pseudo-inverse (Q, P).

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1), not cropped; its factors may be rectangular.
    atol : float, default 0.0
        Singular values of A up to atol + rtol * (the largest) count as zero.
    rtol : float, optional
        None is the sum of max(p_n, q_n) times the machine epsilon (of float32 for 16-bit storage).
    return_rank : bool, default False
        Whether to return the rank too, as SciPy does.
    max_bytes : int, default 2**30
        The room that the terms of the result may take where there are several; one term is not counted.

    Returns
    -------
    B : KroneckerMatrix
        Of rank 1, but where the cut is one that no choice of singular values of each factor makes: then it
        has one term for each step of the cut.
    rank : int
        The number of singular values above the cut; only where `return_rank` is true.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.
    ValueError
        Where A is cropped, and where `atol` or `rtol` is below 0 or NaN.
    LinAlgError
        Where A is not finite, and where derivatives are recorded and a singular value is cut that is not zero
        to rounding.
    MemoryError
        Naming the size of several terms, above `max_bytes`.

    Notes
    -----
    Cost: O(sum p_n q_n min(p_n, q_n)) for one term.  As `scipy.linalg.pinv`: which singular values are small,
    the whole matrix decides and not each factor.  Without `check_finite`: values are always looked at.
    Derivatives are those at constant rank.

    Examples
    --------
    >>> pinv(KroneckerMatrix([[[2.0, 0.0], [0.0, 0.0]], [[5.0]]])).to_dense().round(12).tolist()
    [[0.1, 0.0], [0.0, 0.0]]
    """
    xp, matrices = closed_forms.single(A, "pinv")
    level, threshold = closed_forms.check_level("atol", atol), _threshold("rtol", rtol, xp, matrices)
    left, values, right = _decomposed(xp, matrices)
    scaled, peaks = cuts.relative(values)
    term = sum(prod(m.shape) for m in matrices) * itemsize(matrices[0])
    boxes = cuts.boxes_above(scaled, threshold + cuts.over(level, peaks), term, max_bytes)
    boxes = _differentiable(xp, matrices, scaled, boxes)
    factors = [
        _cut_inverses(xp, matrices[n], u, s, vh, [box[n] for box in boxes])
        if boxes
        else xp.zeros_like(xp.matrix_transpose(matrices[n]))
        for n, (u, s, vh) in enumerate(zip(left, values, right, strict=True))
    ]
    found = KroneckerMatrix(closed_forms.stored_factors(xp, factors, A.dtype))
    rank = sum(prod(stop - start for start, stop in box) for box in boxes)
    return (found, rank) if check_flag("return_rank", return_rank) else found


def _differentiable(xp, matrices, scaled, boxes):
    """The boxes of singular values to keep; LinAlgError where pseudo-inverses of factors do not keep them."""
    if not is_recorded(matrices):
        return boxes
    for values, box in zip(scaled, zip(*boxes, strict=True), strict=True) if boxes else ():
        kept = min(stop for _, stop in box)
        rounding = len(values) * float(xp.finfo(matrices[0].dtype).eps)
        if len(boxes) > 1 or (values[kept:] > 64 * rounding).any():
            raise np.linalg.LinAlgError(
                "A must have singular values that are kept or zero where gradients are required, "
                f"got cut ones up to {values[kept:].max(initial=0.0):.1e} of the largest of a factor"
            )
    return boxes


def _cut_inverses(xp, matrix, u, s, vh, sides):
    """The pseudo-inverse of one factor from each range of its singular values, of which few differ."""
    made = {side: _cut_inverse(xp, matrix, u, s, vh, *side) for side in set(sides)}
    return xp.stack([made[side] for side in sides])


def _cut_inverse(xp, matrix, u, s, vh, start, stop):
    """The pseudo-inverse of one factor from some of its singular values."""
    if is_recorded([matrix]):
        return _recorded_inverse(xp, matrix, *map(detached, (u[:, :stop], s[:stop], vh[:stop, :])))
    return (adjoint(vh[start:stop, :]) / s[start:stop]) @ adjoint(u[:, start:stop])


def _recorded_inverse(xp, matrix, u, s, vh):
    """The pseudo-inverse F^+ by products and solutions that have derivatives, of U S V^H that has none.

    A matrix F near it of the same rank is C W^-1 R, and F^+ is R^+ W C^+, with C = F V S^-1 (U here),
    R = S^-1 U^H F (V^H here), W = S^-1 U^H F V S^-1.
    """
    left, right = adjoint(u), adjoint(vh)
    columns, rows = (matrix @ right) / s, (left @ matrix) / s[:, None]
    adjoints = adjoint(columns), adjoint(rows)
    core = (rows @ right) / s
    after = xp.linalg.solve(adjoints[0] @ columns, adjoints[0])
    return adjoint(xp.linalg.solve(rows @ adjoints[1], rows)) @ core @ after


def _threshold(name, relative, xp, matrices):
    if relative is None:
        return cuts.default_threshold(xp, matrices)
    return closed_forms.check_level(name, relative)


def _decomposed(xp, matrices):
    rule = "A must have factors whose SVD converges, got factor {n}"
    found = closed_forms.factor_wise(
        xp, lambda matrix: tuple(xp.linalg.svd(matrix, full_matrices=False)), matrices, rule
    )
    return zip(*found, strict=True)


@overload
def lstsq(A: Matrix[Host], b: Host | Lists, cond: float | None = None) -> LstsqResult[Host]: ...
@overload
def lstsq(A: Matrix[ForeignT], b: ForeignT, cond: float | None = None) -> LstsqResult[ForeignT]: ...
@quiet
def lstsq(A: Any, b: Any, cond: float | None = None) -> LstsqResult[Any]:
    """The `x` of least norm among those that minimise `|A x - b|`, for a matrix of any shape and matrix rank.

    Parameters
    ----------
    A : KroneckerMatrix or KroneckerProduct
        One product (rank 1, or of order 1), not cropped; its factors may be rectangular.
    b : array, (P,), (P, K), (..., P, K) or (..., p_0, ..., p_{N-1})
        One right side, columns of them, batches of columns, or vectors on the grid (the row dims of A).
    cond : float, optional
        Singular values of A up to cond times the largest count as zero; None is the sum of max(p_n, q_n)
        times the machine epsilon (of float32 for 16-bit storage), as for `matrix_rank`.

    Returns
    -------
    LstsqResult, (x, residuals, rank, singular_values)
        As SciPy: x of b's shape but Q for P, or col_dims for row_dims; the squared norms of the columns (on a
        grid, of each whole grid) of b - A x where P > Q = rank, else an empty array; an int; a Ket of
        prod min(p_n, q_n) values in no order of size.

    Raises
    ------
    TypeError
        Where A has no closed form here; the message names what does the work instead.  Where b is an array of
        another library than A.
    ValueError
        Where A is cropped, where b has another shape, and where `cond` is below 0 or NaN.
    LinAlgError
        Where A is not finite, and where derivatives are recorded and a singular value is cut that is not zero
        to rounding.

    Notes
    -----
    Cost: O(sum p_n q_n min(p_n, q_n)) and two products with A.  As `scipy.linalg.lstsq`, but for
    `overwrite_a`, `overwrite_b`, `check_finite` and `lapack_driver`, which there are none of.

    Examples
    --------
    >>> lstsq(KroneckerMatrix([[[2.0], [2.0]], [[1.0]]]), [1.0, 3.0]).x.round(12).tolist()
    [1.0]
    """
    xp, matrices = closed_forms.single(A, "lstsq")
    b, axis, grid = right_side(A, b)
    threshold = _threshold("cond", cond, xp, matrices)
    decomposed = left, values, right = tuple(_decomposed(xp, matrices))
    if is_recorded(matrices):
        x, rank = _recorded_lstsq(xp, matrices, decomposed, b, threshold, axis)
    else:
        y = ops.kron_matmul([conjugated(u)[None, ...] for u in left], b, axis=axis)
        y, rank = _divided(xp, y, values, threshold, axis)
        x = ops.kron_matmul([conjugated(vh)[None, ...] for vh in right], y, axis=axis)
    rows, columns = (prod(m.shape[side] for m in matrices) for side in (0, 1))
    if rows > columns == rank:
        found = ops.kron_matmul([xp.matrix_transpose(m)[None, ...] for m in matrices], x, axis=axis)
        residuals = xp.sum(xp.abs(b - found) ** 2, axis=axis)
    else:
        residuals = xp.zeros_like(xp.reshape(xp.abs(x), (-1,))[:0])
    x = on_grid(closed_forms.in_storage(xp, x, A.dtype), A, -1, grid)
    residuals = unboxed(closed_forms.in_storage(xp, residuals, A.dtype))
    return LstsqResult(x, residuals, rank, Ket([closed_forms.in_storage(xp, v, A.dtype) for v in values]))


def _recorded_lstsq(xp, matrices, decomposed, b, threshold, axis):
    """A^+ b with the derivatives of `pinv`, and the rank."""
    scaled, _ = cuts.relative(decomposed[1])
    boxes = _differentiable(xp, matrices, scaled, cuts.boxes_above(scaled, threshold))
    factors = [xp.zeros_like(xp.matrix_transpose(matrix)) for matrix in matrices]
    if boxes:
        known = zip(matrices, *decomposed, boxes[0], strict=True)
        factors = [_cut_inverse(xp, matrix, u, s, vh, *box) for matrix, u, s, vh, box in known]
    x = ops.kron_matmul([xp.matrix_transpose(f)[None, ...] for f in factors], b, axis=axis)
    return x, prod(stop - start for start, stop in boxes[0]) if boxes else 0


def _divided(xp, y, values, threshold, axis):
    """The quotient of `y` by the singular values above the threshold, zero elsewhere; how many these are."""
    largest = [v[0] if value_of(v[0] > 0) else xp.ones_like(v[0]) for v in values]
    scaled = [v / peak for v, peak in zip(values, largest, strict=True)]
    products = reduce(lambda a, b: xp.reshape(a[:, None] * b[None, :], (-1,)), scaled)
    keep = products > threshold
    divisor = xp.where(keep, products, xp.ones_like(products))
    if axis == -2:
        divisor, keep = divisor[:, None], keep[:, None]
    y = xp.where(keep, y / divisor, xp.zeros_like(y))
    # One factor after another, since the product of the largest may overflow.
    for peak in largest:
        y = y / peak
    return y, value_of(xp.sum(xp.astype(keep, index_dtype(xp))))


def right_side(A: Any, b: Any) -> tuple[AnyArray, int, bool]:
    """A right side as a floating array beside the factors, its axis of length P, and if it was on the grid.

    The axis is -1 for a vector and for what was on the grid, else -2.
    """
    b = operand("b", b, A)
    namespace("A and b", (*closed_forms.arrays_of(A), b))
    return flat("b", b, A, -2, columns=True)


def one_each(name: str, A: Any, values: Any, booleans: bool = False) -> tuple[AnyArray, bool]:
    """`values` (P,), one for each row of A and beside its factors, and whether they were on the grid."""
    if booleans:
        values = as_array(name, values)
        if str(values.dtype).rpartition(".")[2] != "bool":
            raise TypeError(f"{name} must be booleans, got {values.dtype}")
    else:
        values = operand(name, values, A)
    namespace(f"A and {name}", (*closed_forms.arrays_of(A), values))
    values, _, grid = flat(name, values, A, -2, batch=False)
    return values, grid


@overload
def solve(
    A: Matrix[ArrayT], b: Ket[ArrayT], shift: Scalar = 0.0, *, assume_a: str | None = None
) -> Ket[ArrayT]: ...
@overload
def solve(
    A: Matrix[ArrayT], b: KroneckerMatrix[ArrayT], shift: Scalar = 0.0, *, assume_a: str | None = None
) -> KroneckerMatrix[ArrayT]: ...
@overload
def solve(A: System[Host], b: Host | Lists, shift: Scalar = 0.0, *, assume_a: str | None = None) -> Host: ...
@overload
def solve(
    A: System[ForeignT], b: ForeignT, shift: Scalar = 0.0, *, assume_a: str | None = None
) -> ForeignT: ...
@quiet
def solve(A: Any, b: Any, shift: Any = 0.0, *, assume_a: str | None = None) -> Any:
    """The `x` with (A + shift I) x = b, through factorisations of the factors.

    Parameters
    ----------
    A : KroneckerMatrix, KroneckerProduct or KroneckerSum
        Square, with square factors, and not cropped: rank 1 (or of order 1); a KroneckerSum; or rank 2 with
        Hermitian factors, of which in each mode one is definite (that of a positive definite term, or an
        identity).
    b : array, (P,), (P, K), (..., P, K) or (..., p_0, ..., p_{N-1}); Ket or KroneckerMatrix
        One right side, columns of them, batches of columns, or vectors on the grid.  Without a shift and for
        rank 1 also a Ket or a KroneckerMatrix, of any rank, whose row dims are those of A.
    shift : float or complex, default 0.0
        A number, or an array without dimensions; it counts in the precision of the result.  For rank 2 each
        mode must have a multiple of the identity with it.
    assume_a : {"gen", "sym", "her", "pos"}, optional
        What is known of the factors, also by SciPy's long names ("general" and so on).  "her", "pos" and, for
        real factors, "sym": they are Hermitian; "gen": they may be anything.  None: they are looked at.  What
        is assumed is not checked, and nothing waits for a device: factors that are not finite give NaN, and
        singular ones a LinAlgError on NumPy arrays, on others inf, NaN or an error of the library.  For
        rank 2 "pos" says that both terms are positive definite, factor by factor; the second one whitens.

    Returns
    -------
    array, of the shape of b; Ket or KroneckerMatrix
        Of the kind and shape of b, in the promoted dtype, complex where the shift is.

    Raises
    ------
    TypeError
        Where A has no closed form here: the message names what does the work instead, mostly `cg`.  Where b
        is an array of another library than A, or is a Ket or a KroneckerMatrix beside a shift, a KroneckerSum
        or two terms.
    ValueError
        Where A is cropped, where b has another shape, where the shift is not finite, and on other words for
        `assume_a`.
    LinAlgError
        Where A is not square, a factor is not finite, or A + shift I is singular to working precision.

    See Also
    --------
    cg : For sums of more terms, cropped matrices and incomplete grids.
    lstsq : For matrices that are singular or not square.

    Notes
    -----
    Cost: O(P sum p_n) a column.  Without a shift it is as exact as LU of the factors; with it, and for rank
    2, it goes through the Hermitian eigenvalues of the factors, or through triangular (Schur) factors where
    they are not Hermitian.

    As `scipy.linalg.solve`, with these differences.  There are no `lower`, `overwrite_a`, `overwrite_b`,
    `check_finite` and `transposed`: both triangles of a factor are read, inputs stay as they are, and `A.T`
    is the transposed matrix.  Of other structure that `assume_a` may say there, a KroneckerProduct knows
    diagonal parts and identities.  Where a matrix is ill-conditioned there is no warning: if nothing is
    assumed, a factor whose condition number exceeds one over the machine epsilon is an error.

    References
    ----------
    R. H. Bartels and G. W. Stewart, Solution of the matrix equation AX + XB = C, Communications of the ACM 15
    (1972): a KroneckerSum whose factors are not Hermitian.

    Examples
    --------
    >>> solve(KroneckerMatrix([[[2.0]], [[0.0, 1.0], [4.0, 0.0]]]), [2.0, 8.0]).tolist()
    [1.0, 1.0]

    A sum of two products, of which one is definite:

    >>> K, D = KroneckerMatrix([[[1.0]], np.ones((2, 2))]), KroneckerMatrix([[[1.0]], np.diag([1.0, 2.0])])
    >>> solve(K + D, [3.0, 4.0]).round(12).tolist()
    [1.0, 1.0]
    """
    look = symmetry.assumed_hermitian(assume_a, True) is None
    if isinstance(A, KroneckerSum):
        b, axis, grid = right_side(A, b)
        return on_grid(of_sums.solve(A, b, shift, axis, assume_a), A, -1, grid)
    if not isinstance(b, Ket | KroneckerMatrix) and of_products.is_structured(A, shift):
        b, axis, grid = right_side(A, b)
        return on_grid(of_products.solve(A, b, axis, assume_a), A, -1, grid)
    if of_two_terms.is_pair(A):
        if isinstance(b, Ket | KroneckerMatrix):
            rule = "b must be dense where A has two terms (b.to_dense())"
            raise TypeError(f"{rule}, got a {type(b).__name__}")
        b, axis, grid = right_side(A, b)
        return on_grid(of_two_terms.solve(A, b, shift, axis, assume_a), A, -1, grid)
    xp, matrices = closed_forms.single(A, "solve", look)
    shift = closed_forms.as_shift(shift, matrices[0])
    if not closed_forms.square(matrices, "solve"):
        if shift is None:
            closed_forms.not_invertible(matrices)
        closed_forms.square_factors(matrices, "solve with a shift")
    if isinstance(b, Ket | KroneckerMatrix):
        return _structured(xp, A, matrices, b, shift, assume_a)
    b, axis, grid = right_side(A, b)
    factors = [xp.astype(m, A.dtype, copy=False)[None, ...] for m in matrices]
    return on_grid(of_products.solve_factors(factors, b, shift, axis, assume_a=assume_a), A, -1, grid)


def _structured(xp, A, matrices, b, shift, assume_a):
    """Solve for a Ket or a Kronecker matrix, factor by factor."""
    kind, dims = type(b).__name__, b.dims if isinstance(b, Ket) else b.row_dims
    if shift is not None:
        raise TypeError(f"b must be dense where there is a shift, got a {kind}")
    expected = tuple(m.shape[0] for m in matrices)
    if dims != expected or (isinstance(b, KroneckerMatrix) and b.shape[0] != prod(dims)):
        raise ValueError(f"b must have row dims {expected} and all their rows, got {dims} of shape {b.shape}")
    axis = -1 if isinstance(b, Ket) else -2
    factors = [xp.astype(m, A.dtype, copy=False)[None, ...] for m in matrices]
    pairs = zip(factors, b.factors, strict=True)
    found = [
        of_products.solve_factors([f], right, None, axis, n, assume_a) for n, (f, right) in enumerate(pairs)
    ]
    return Ket(found) if isinstance(b, Ket) else KroneckerMatrix(found, b.shape)
