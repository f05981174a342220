"""Kronecker, Khatri-Rao, face-splitting and Hadamard products.

A (x) B           all pairs of rows, all pairs of columns
Khatri-Rao        all pairs of rows, equal columns:   column c is A[:, c] (x) B[:, c]
face-splitting    equal rows, all pairs of columns:   row r is A[r] (x) B[r]
Hadamard          equal rows, equal columns:          A[i, j] B[i, j]
"""

from collections.abc import Sequence
from functools import reduce
from typing import Any, overload

from ketcore.array_types import AnyArray, ArrayT, ForeignT, Host, HostFactor
from ketcore.arrays import scale
from ketcore.arrays.checks import check_floating
from ketcore.arrays.elementary import widened
from ketcore.arrays.namespaces import quiet
from ketcore.objects import construction
from ketcore.objects.alignment import check_same_split
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import Diagonal, Identity, KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.part_operators import is_operator
from ketcore.objects.parts import hadamard_part, kind_of, stored_parts, wide_parts
from ketcore.objects.permutation import Permutation
from ketcore.objects.refusals import kind_refusal
from ketcore.shapes import MOST_MODES, check_int, shown


@overload
def kron(*matrices: Ket[ArrayT]) -> Ket[ArrayT]: ...
@overload
def kron(  # type: ignore[overload-overlap]  # a product where one is structured
    *matrices: KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT],
) -> KroneckerMatrix[ArrayT]: ...
@overload
def kron(  # type: ignore[overload-overlap]  # a product where one is structured
    *matrices: KroneckerMatrix[Host] | KroneckerSum[Host] | HostFactor,
) -> KroneckerMatrix[Host]: ...
@overload
def kron(  # type: ignore[overload-overlap]  # a product where one is structured
    *matrices: KroneckerMatrix[ForeignT] | KroneckerSum[ForeignT] | ForeignT,
) -> KroneckerMatrix[ForeignT]: ...
@overload
def kron(  # type: ignore[overload-overlap]  # identities alone are of NumPy
    *matrices: KroneckerProduct[Host]
    | Diagonal[Host]
    | Identity
    | KroneckerMatrix[Host]
    | KroneckerSum[Host]
    | HostFactor,
) -> KroneckerProduct[Host]: ...
@overload
def kron(
    *matrices: KroneckerProduct[ForeignT]
    | Diagonal[ForeignT]
    | Identity
    | KroneckerMatrix[ForeignT]
    | KroneckerSum[ForeignT]
    | ForeignT,
) -> KroneckerProduct[ForeignT]: ...
def kron(*matrices: Any) -> Any:
    """The Kronecker product of operators, or of kets, first the most significant.

    Parameters
    ----------
    *matrices : operators, matrices (p, q), or kets
        KroneckerMatrix and KroneckerSum objects, dense or sparse matrices, which give a KroneckerMatrix; with
        a KroneckerProduct, Diagonal, Identity, Permutation or linear operator among them a KroneckerProduct,
        whose `parts` they become; or Ket, or Permutation, objects alone.

    Returns
    -------
    KroneckerMatrix, KroneckerProduct, Ket or Permutation
        Orders add, ranks multiply.

    Raises
    ------
    TypeError
        On other mixtures.
    ValueError
        Where one but the first is cropped, and where there is none.

    Notes
    -----
    Cost: the numbers of the result.

    Examples
    --------
    >>> kron([[1.0, 2.0]], KroneckerMatrix([[[3.0]], [[4.0], [5.0]]])).to_dense().tolist()
    [[12.0, 24.0], [15.0, 30.0]]
    >>> kron(Identity(2), Diagonal([1.0, 2.0]))
    KroneckerProduct(Identity(2, 2), Diagonal(2, 2), dtype=float64)
    """
    if not matrices:
        raise ValueError("matrices must hold at least one operator, got none")
    if all(isinstance(matrix, Permutation) for matrix in matrices):
        return reduce(lambda left, right: left.kron(right), matrices)
    if any(map(_is_part, matrices)):
        return KroneckerProduct([part for matrix in matrices for part in _parts(matrix)])
    if not all(isinstance(matrix, Ket) for matrix in matrices):
        arrays = [array for matrix in matrices for array in getattr(matrix, "factors", (matrix,))]
        matrices = tuple(_as_kronecker(n, matrix, arrays) for n, matrix in enumerate(matrices))
    return reduce(lambda left, right: left.kron(right), matrices)


@overload
def kron_power(matrix: Ket[ArrayT], k: int) -> Ket[ArrayT]: ...
@overload
def kron_power(matrix: KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT], k: int) -> KroneckerMatrix[ArrayT]: ...
@overload
def kron_power(matrix: HostFactor, k: int) -> KroneckerMatrix[Host]: ...
@overload
def kron_power(matrix: ForeignT, k: int) -> KroneckerMatrix[ForeignT]: ...
@overload
def kron_power(  # type: ignore[overload-overlap]  # identities are of NumPy
    matrix: KroneckerProduct[Host] | Diagonal[Host] | Identity, k: int
) -> KroneckerProduct[Host]: ...
@overload
def kron_power(
    matrix: KroneckerProduct[ForeignT] | Diagonal[ForeignT] | Identity, k: int
) -> KroneckerProduct[ForeignT]: ...
def kron_power(matrix: Any, k: int) -> Any:
    """The Kronecker product A (x) ... (x) A, k times; the rank becomes R**k.

    Parameters
    ----------
    matrix : operator, matrix (p, q), or Ket
        What `kron` takes.
    k : int
        At least 1.

    Returns
    -------
    KroneckerMatrix, KroneckerProduct, Ket or Permutation
        What `kron` gives.

    Raises
    ------
    TypeError, ValueError
        As `kron`, and on k.

    Notes
    -----
    Cost: the numbers of the result, k R**k times those of one term of A.

    Examples
    --------
    >>> kron_power([[0.0, 1.0], [1.0, 0.0]], 3)[0].tolist()
    [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """
    return kron(*[matrix] * check_int("k", k, 1, MOST_MODES))


@overload
def khatri_rao(*matrices: HostFactor) -> Ket[Host]: ...
@overload
def khatri_rao(*matrices: ForeignT) -> Ket[ForeignT]: ...
@quiet
def khatri_rao(*matrices: Any) -> Ket[Any]:
    """The column-wise Khatri-Rao product, as a batch of kets: one of rank 1 for each column.

    Column c of the matrix K (P, r) is the Kronecker product of the columns c.

    Parameters
    ----------
    *matrices : N arrays, (p_n, r)
        Dense or sparse, of one number r of columns.

    Returns
    -------
    Ket
        Of batch shape (r,) and dims p_n, which holds r sum p_n numbers: `to_dense()` is the TRANSPOSE (r, P)
        of K; `contract(x)` is K^T x, `combine(c)` the ket K c, and `gram(o)` K^H O: none of them forms K.

    Raises
    ------
    TypeError, ValueError
        On kinds, and where the numbers of columns differ.

    Notes
    -----
    Cost: a copy of the matrices.

    Examples
    --------
    >>> khatri_rao([[1.0, 2.0]], [[3.0, 4.0], [5.0, 6.0]]).to_dense().T.tolist()
    [[3.0, 8.0], [5.0, 12.0]]
    """
    xp, checked = _checked(matrices, 1, "columns")
    return Ket([xp.matrix_transpose(matrix)[:, None, :] for matrix in checked])


@overload
def face_splitting(*matrices: HostFactor) -> Ket[Host]: ...
@overload
def face_splitting(*matrices: ForeignT) -> Ket[ForeignT]: ...
@quiet
def face_splitting(*matrices: Any) -> Ket[Any]:
    """The row-wise Khatri-Rao (face-splitting, transposed Khatri-Rao) product, as a batch of kets: its rows.

    Row i of the matrix F (r, Q) is the Kronecker product of the rows i.

    Parameters
    ----------
    *matrices : N arrays, (r, q_n)
        Dense or sparse, of one number r of rows.

    Returns
    -------
    Ket
        Of batch shape (r,) and dims q_n, which holds r sum q_n numbers: `to_dense()` is the matrix F (r, Q)
        itself; `contract(x)` is F x, `combine(c)` the ket F^T c.

    Raises
    ------
    TypeError, ValueError
        On kinds, and where the numbers of rows differ.

    Notes
    -----
    Cost: a copy of the matrices.

    Examples
    --------
    >>> face_splitting([[1.0, 2.0]], [[3.0, 4.0]]).to_dense().tolist()
    [[3.0, 4.0, 6.0, 8.0]]
    """
    _, checked = _checked(matrices, 0, "rows")
    return Ket([matrix[:, None, :] for matrix in checked])


@overload
def hadamard(  # type: ignore[overload-overlap]  # a product where both are
    left: KroneckerProduct[ArrayT] | Diagonal[ArrayT], right: KroneckerProduct[ArrayT] | Diagonal[ArrayT]
) -> KroneckerProduct[ArrayT]: ...
@overload
def hadamard(
    left: KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT] | KroneckerProduct[ArrayT],
    right: KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT] | KroneckerProduct[ArrayT],
) -> KroneckerMatrix[ArrayT]: ...
@quiet
def hadamard(left: Any, right: Any) -> Any:
    """The elementwise product of two operators of one shape and equal dims: ranks multiply.

    Parameters
    ----------
    left, right : KroneckerMatrix, KroneckerSum, KroneckerProduct, Diagonal or Identity
        A KroneckerSum counts as of rank N.

    Returns
    -------
    KroneckerMatrix or KroneckerProduct
        A KroneckerMatrix of rank R R'; of two KroneckerProduct objects a KroneckerProduct: a part is a
        `Diagonal` where one of its two is or is an `Identity`, and sparse where one is, whatever the other
        has elsewhere.

    Raises
    ------
    TypeError
        On kinds.
    ValueError
        Unless shapes and dims are equal.
    MemoryError
        Where a linear operator is too large to be made dense.

    Notes
    -----
    Cost: time and memory O(R R' sum p_n q_n).

    Examples
    --------
    >>> a = KroneckerMatrix([[[1.0, 2.0]], [[3.0, 4.0]]])
    >>> hadamard(a, a).to_dense().tolist()
    [[9.0, 16.0, 36.0, 64.0]]
    >>> hadamard(KroneckerProduct([Identity(2)]), KroneckerProduct([[[2.0, 3.0], [4.0, 5.0]]]))
    KroneckerProduct(Diagonal(2, 2), dtype=float64)
    """
    left, right = (_operator(name, matrix) for name, matrix in (("left", left), ("right", right)))
    if isinstance(left, KroneckerProduct) and isinstance(right, KroneckerProduct):
        return _hadamard_of_products(left, right)
    left, right = left._terms_beside(right), right._terms_beside(left)
    check_same_split(left, right)
    xp, _, dtype = check_floating("matrices", (*left.factors, *right.factors))
    wide = ([widened(f) for f in side.factors] for side in (left, right))
    known = left.term_identities, right.term_identities
    levels = [scale.level(f, None, fixed=marks)[0] for f, marks in zip(wide, known, strict=True)]
    pairs = zip(*levels, strict=True)
    products = [a[:, None, :, :] * b[None, :, :, :] for a, b in pairs]
    factors = [xp.reshape(f, (f.shape[0] * f.shape[1], *f.shape[2:])) for f in products]
    identities = tuple(a & b for a in left.term_identities for b in right.term_identities)
    return KroneckerMatrix(scale.stored(factors, dtype, None, identities), left.shape, identities)


def _is_part(matrix):
    """Whether `matrix` makes a Kronecker product a KroneckerProduct: what is no array, nor a sum of terms."""
    if isinstance(matrix, KroneckerProduct | Diagonal | Identity):
        return True
    return is_operator(matrix) and not isinstance(matrix, KroneckerMatrix | KroneckerSum)


def _operator(name, matrix):
    """An operand of `hadamard`; a part of a KroneckerProduct as one."""
    if isinstance(matrix, Diagonal | Identity):
        return KroneckerProduct([matrix])
    if not isinstance(matrix, KroneckerMatrix | KroneckerSum | KroneckerProduct):
        raise kind_refusal(name, "a KroneckerMatrix, KroneckerSum or KroneckerProduct", matrix)
    return matrix


def _hadamard_of_products(left, right):
    check_same_split(left, right)
    _, like, dtype = kind_of((*left.parts, *right.parts))
    sides = (wide_parts(side.parts) for side in (left, right))
    parts = [hadamard_part(a, b, widened(like)) for a, b in zip(*sides, strict=True)]
    return KroneckerProduct(stored_parts(KroneckerProduct(parts).parts, dtype))


def _parts(matrix):
    """What an operand of `kron` is in a KroneckerProduct."""
    if isinstance(matrix, Ket):
        raise TypeError("matrices must be all of type Ket where one is, got a Ket beside operators")
    return matrix.parts if isinstance(matrix, KroneckerProduct) else (matrix,)


def _as_kronecker(n, matrix, arrays):
    """An operand of `kron`, beside the arrays of all, as a KroneckerMatrix."""
    if isinstance(matrix, KroneckerMatrix):
        return matrix
    if isinstance(matrix, KroneckerSum):
        return matrix.to_kronecker()
    if isinstance(matrix, Ket):
        raise TypeError(f"matrices must be all of type Ket where one is, got others beside matrices[{n}]")
    _, (array,), _ = check_floating(f"matrices[{n}]", construction.dense_factors([matrix]), arrays)
    if array.ndim != 2:
        shape = tuple(array.shape)
        raise ValueError(f"matrices[{n}] must be an operator or a matrix (p, q), got shape {shape}")
    return KroneckerMatrix([array])


def _checked(matrices: Sequence[Any], axis: int, what: str) -> tuple[Any, list[AnyArray]]:
    """Dense matrices of one number of rows (axis 0) or columns (axis 1)."""
    xp, matrices, _ = check_floating("matrices", construction.dense_factors(list(matrices)))
    shapes = [tuple(matrix.shape) for matrix in matrices]
    if any(len(s) != 2 or s[1 - axis] < 1 or s[axis] != shapes[0][axis] for s in shapes):
        raise ValueError(f"matrices must be 2-D with equal numbers of {what}, got shapes {shown(shapes)}")
    return xp, list(matrices)
