"""Kronecker matrices: sums of Kronecker products of small rectangular matrices, never formed.

    M = sum_k  F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

Letters: N order (modes), R rank (terms; a matrix of one term may have full matrix rank), p_n and q_n rows
and columns of factor n, P = prod p_n, Q = prod q_n.  `shape` is (P, Q) or a leading block of it.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Generic, overload

import numpy as np  # noqa: F401  (for the examples)
from numpy.typing import DTypeLike

from ketcore import ops, shapes
from ketcore.array_types import ArrayT, ForeignT, Host, HostFactor, Index, Key, Lists, Seed, Untyped
from ketcore.arrays.autodiff import as_leaf_view, from_leaf_view
from ketcore.arrays.checks import check_floating, check_identities, check_shape, check_tables
from ketcore.arrays.elementary import conjugated, itemsize, transposed, unboxed
from ketcore.arrays.namespaces import quiet
from ketcore.objects import alignment, arithmetic, blocks, construction, costs, display, operands, reductions
from ketcore.objects.ket import Ket
from ketcore.objects.operator import Operator, Scalable
from ketcore.products import term_plans
from ketcore.products.plans import Cost
from ketcore.shapes import check_int


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KroneckerMatrix(Operator[ArrayT], Scalable, Generic[ArrayT]):
    """A matrix (rows, columns) as a sum of R Kronecker products.

    factors  N arrays (R, p_n, q_n), one R for all; 2-D factors mean R = 1.  Mixed dtypes are promoted; nested
             lists and integers take library and dtype of the floating arrays beside them, and are of NumPy
             and float64 where there are none; arrays that fit are shared, not copied.
             So each array (R, q_n) of the factors of a ket is one matrix: see `Ket.to_column`.
             Matrices of scipy.sparse are made dense: a KroneckerProduct uses them as they are
    shape    (rows, columns) from (1, 1) to (P, Q): the leading block; None for all of it
    identities  modes whose factors are known to be identity matrices in every term, or R collections of
             modes, one for each term; products skip them, and their values are not checked
    raises   TypeError on dtypes and on mixed libraries or devices; ValueError on shapes

    Immutable; `==` is identity, and hashing goes by it.  `np.asarray(matrix)` is refused: see `to_dense`.
    `[...]` takes integers, slices, integer arrays and masks by NumPy's rules, at the cost of its output.

    >>> m = KroneckerMatrix([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0]]])
    >>> m.shape, m[1].tolist(), float(m[1, 3])
    ((2, 4), [0.0, 3.0, 0.0, 4.0], 4.0)
    """

    factors: tuple[ArrayT, ...]
    shape: tuple[int, int]
    term_identities: tuple[frozenset[int], ...]

    @overload
    def __init__(
        self: "KroneckerMatrix[Any]",
        factors: Sequence[Untyped],
        shape: Sequence[int] | None = None,
        identities: Iterable[int | Collection[int]] = (),
    ) -> None: ...
    @overload
    def __init__(
        self: "KroneckerMatrix[Host]",
        factors: Sequence[HostFactor],
        shape: Sequence[int] | None = None,
        identities: Iterable[int | Collection[int]] = (),
    ) -> None: ...
    @overload
    def __init__(
        self: "KroneckerMatrix[ForeignT]",
        factors: Sequence[ForeignT],
        shape: Sequence[int] | None = None,
        identities: Iterable[int | Collection[int]] = (),
    ) -> None: ...
    def __init__(
        self, factors: Any, shape: Sequence[int] | None = None, identities: Iterable[Any] = ()
    ) -> None:
        if isinstance(factors, Ket):
            rule = "a sequence of matrices (p_n, q_n) or (rank, p_n, q_n)"
            raise TypeError(f"factors must be {rule}, got Ket (see Ket.to_column)")
        xp, factors, dtype = check_floating("factors", construction.dense_factors(factors))
        factors = [f[None, ...] if f.ndim == 2 else f for f in factors]
        check_tables("factors", factors)
        object.__setattr__(self, "factors", tuple(xp.astype(f, dtype, copy=False) for f in factors))
        object.__setattr__(self, "shape", check_shape(shape, factors))
        known = check_identities(identities, (self.row_dims, self.col_dims), self.rank)
        object.__setattr__(self, "term_identities", known)

    @classmethod
    def random(
        cls: Any,
        shape: Sequence[int],
        order: int | None = None,
        *,
        row_dims: Sequence[int] | None = None,
        col_dims: Sequence[int] | None = None,
        rank: int = 1,
        std: float = 1.0,
        rng: Seed = None,
        dtype: DTypeLike = "float64",
    ) -> "KroneckerMatrix[Host]":
        """Normal factors such that the elements have standard deviation `std`.

        order    the number of modes, unless dims say so; dims that are not given come from `suggest_dims`
        rng      None, a seed, or a Generator of NumPy or CuPy

        >>> KroneckerMatrix.random((30428, 256), order=4, rng=0).row_dims
        (13, 13, 13, 14)
        """
        rank = check_int("rank", rank, 0)
        shape, dims = construction.random_shapes(shape, order, row_dims, col_dims)
        return cls(construction.random_leaves([(rank, *pair) for pair in dims], rank, std, rng, dtype), shape)

    @overload
    @classmethod
    def from_terms(cls, terms: Sequence[Sequence[HostFactor]]) -> "KroneckerMatrix[Host]": ...
    @overload
    @classmethod
    def from_terms(cls, terms: Sequence[Sequence[ForeignT]]) -> "KroneckerMatrix[ForeignT]": ...
    @classmethod
    def from_terms(cls, terms: Sequence[Sequence[Any]]) -> "KroneckerMatrix[Any]":
        """The sum of the Kronecker products of lists of matrices: [[A, B], [C, D]] is A (x) B + C (x) D.

        terms    R lists of N matrices (p_n, q_n); mode n has one shape in all terms

        >>> KroneckerMatrix.from_terms([[np.eye(2), np.eye(3)], [np.eye(2), np.ones((3, 3))]]).rank
        2
        """
        return cls(construction.stacked_terms(terms))

    @property
    def row_dims(self) -> tuple[int, ...]:
        """p_n: the radices of row numbers."""
        return reductions.dims_of(self.factors, 1)

    @property
    def col_dims(self) -> tuple[int, ...]:
        """q_n: the radices of column numbers."""
        return reductions.dims_of(self.factors, 2)

    @property
    def order(self) -> int:
        """The number N of modes."""
        return len(self.factors)

    @property
    def rank(self) -> int:
        """The number R of terms (not the rank of linear algebra)."""
        return self.factors[0].shape[0]

    @property
    def identities(self) -> frozenset[int]:
        """The modes that are known to be identities in all terms; `term_identities` has R sets."""
        return term_plans.common(self.term_identities)

    @property
    def dtype(self) -> Any:
        """The dtype of the factors and of every result."""
        return self.factors[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the factors."""
        return self._parameters() * itemsize(self.factors[0])

    @property
    def T(self) -> "KroneckerMatrix[ArrayT]":  # noqa: N802 - NumPy's name
        """The transpose; shares the factors."""
        return KroneckerMatrix([transposed(f) for f in self.factors], self.shape[::-1], self.term_identities)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"factors": tuple(map(as_leaf_view, self.factors))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"factors": tuple(map(from_leaf_view, state["factors"]))})

    def __iter__(self) -> Iterator[ArrayT]:
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, key: Key) -> ArrayT:
        """The dense row, rows, element or block that NumPy's rules choose.

        key      integers, slices, integer arrays (a pair broadcasts), a boolean mask; negative ones
                 count from the end
        raises   TypeError on None, Ellipsis and floats, IndexError outside; MemoryError, naming the size,
                 above 2**30 bytes, unless an index array says how many rows there are
        cost     that of the output: O(R) per element within rows or columns, O(R N) for scattered ones

        >>> KroneckerMatrix([np.eye(2), np.eye(2)])[[0, -1], 2:].tolist()
        [[0.0, 0.0], [0.0, 1.0]]
        """
        return unboxed(blocks.block(self.factors, self.shape, key))

    def _row_reader(self):
        return lambda start, stop: blocks.row_block(self.factors, range(start, stop), self.shape[1])

    def rows(self: Any, ids: Index, check: bool | None = None, out: ArrayT | None = None) -> ArrayT:
        """An embedding lookup: the rows (..., columns) of `ids`, which count from 0 and are never negative.

        check    None: host ids are checked, ids on a device are not (a bad one gives a row of NaN);
                 True: always, waiting for the device; False: never
        raises   TypeError unless ids are integers, IndexError outside [0, rows)

        >>> KroneckerMatrix([np.eye(2), np.eye(2)]).rows([3]).tolist()
        [[0.0, 0.0, 0.0, 1.0]]
        """
        return ops.rows(self.factors, ids, self.shape, check=check, out=out)

    def row_kets(self: Any, ids: Index, check: bool | None = None) -> Ket[ArrayT]:
        """The rows of `ids` as a batch of kets; `check` as in `rows`.

        raises   as `rows`; ValueError where the columns are cropped, as those of kets are not

        >>> KroneckerMatrix([np.eye(2), np.eye(3)]).row_kets([4, 5]).shape
        (2, 6)
        """
        kets: Any = ops.row_kets(self.factors, ids, self.shape, check=check)
        return Ket(kets)

    if TYPE_CHECKING:

        def __add__(self, other: "KroneckerMatrix[ArrayT]") -> "KroneckerMatrix[ArrayT]": ...
        def __sub__(self, other: "KroneckerMatrix[ArrayT]") -> "KroneckerMatrix[ArrayT]": ...

    def _plus(self, other):
        """The sum: ranks add.  Shapes must be equal, and dims split at common places (see `@`)."""
        if not isinstance(other, KroneckerMatrix):
            return NotImplemented
        return KroneckerMatrix(*alignment.matrix_sum(self, other))

    def _scaled(self, scalar, divide):
        return KroneckerMatrix(*arithmetic.times_number(self, scalar, divide))

    @overload
    def __matmul__(self, other: "KroneckerMatrix[ArrayT]") -> "KroneckerMatrix[ArrayT]": ...
    @overload
    def __matmul__(self, other: Ket[ArrayT]) -> Ket[ArrayT]: ...
    @overload
    def __matmul__(self, other: ArrayT | Lists) -> ArrayT: ...
    # A matrix of NumPy that promises a dtype meets arrays of any: what comes out promises none.
    @overload
    def __matmul__(self: "KroneckerMatrix[Host]", other: Host) -> Host: ...
    def __matmul__(self, other: Any) -> Any:
        """A @ other: an array gives an array, a Ket a Ket, a KroneckerMatrix a KroneckerMatrix.

        other    (columns,) or (..., columns, n), integers too; what is neither may be on the grid:
                 (..., *col_dims), of two or more modes and not cropped, gives (..., *row_dims).
                 Or structured: ranks multiply then, and dims must split at common places: (2, 3) and (6,)
                 do, (2, 3) and (3, 2) do not
        raises   ValueError on shapes, on dims, and for a Ket where the rows are cropped
        cost     see `cost`; on kets and matrices that of N products of factors

        >>> (KroneckerMatrix([np.eye(2), [[1.0, 1.0]]]) @ [1, 2, 3, 4]).tolist()
        [3.0, 7.0]
        """
        if isinstance(other, KroneckerMatrix):
            return KroneckerMatrix(*alignment.matrix_product(self, other))
        if isinstance(other, Ket):
            return Ket(alignment.ket_product(self, other))
        return self.matmul(other) if operands.is_dense(other) else self._product(other)

    @overload
    def __rmatmul__(self, other: ArrayT | Lists) -> ArrayT: ...
    @overload
    def __rmatmul__(self: "KroneckerMatrix[Host]", other: Host) -> Host: ...
    def __rmatmul__(self, other: Any) -> Any:
        """other @ A for an array (..., rows), or (..., *row_dims), which gives (..., *col_dims): that of tied
        logits is `x @ table.T`."""
        if not operands.is_dense(other):
            return super().__rmatmul__(other)
        return self.rmatmul(other)

    @overload
    def matmul(self, x: ArrayT | Lists, out: ArrayT | None = None) -> ArrayT: ...
    @overload
    def matmul(self: "KroneckerMatrix[Host]", x: Host, out: Host | None = None) -> Host: ...
    def matmul(self: Any, x: Any, out: Any = None) -> Any:
        """A @ x for an array (columns,) or (..., columns, n), or on the grid: (..., *col_dims) gives
        (..., *row_dims).  `out` is written into and returned.

        raises, cost   as `kron_matmul`

        >>> KroneckerMatrix([np.eye(2), [[1.0, 1.0]]]).matmul([1, 2, 3, 4]).tolist()
        [3.0, 7.0]
        >>> KroneckerMatrix([np.eye(2), [[1.0, 1.0]]]).matmul([[1, 2], [3, 4]]).tolist()
        [[3.0], [7.0]]
        """
        x, axis, grid = operands.after(operands.operand("x", x, self), self)
        turned, shape, known = [transposed(f) for f in self.factors], self.shape[::-1], operands.marks(self)
        if grid:
            product = partial(ops.kron_matmul, turned, x, shape, identities=known)
            return operands.product_on_grid(self, x, -2, product, out)
        return ops.kron_matmul(turned, x, shape, axis=axis, identities=known, out=out)

    @overload
    def rmatmul(self, x: ArrayT | Lists, out: ArrayT | None = None) -> ArrayT: ...
    @overload
    def rmatmul(self: "KroneckerMatrix[Host]", x: Host, out: Host | None = None) -> Host: ...
    def rmatmul(self: Any, x: Any, out: Any = None) -> Any:
        """x @ A for an array (..., rows), or on the grid: (..., *row_dims) gives (..., *col_dims).
        `out`, errors and cost as in `matmul`.

        >>> KroneckerMatrix([np.eye(2), [[1.0, 1.0]]]).rmatmul([1, 2]).tolist()
        [1.0, 1.0, 2.0, 2.0]
        """
        x, _, grid = operands.before(operands.operand("x", x, self), self)
        known = operands.marks(self)
        if grid:
            product = partial(ops.kron_matmul, self.factors, x, self.shape, identities=known)
            return operands.product_on_grid(self, x, -1, product, out)
        return ops.kron_matmul(self.factors, x, self.shape, identities=known, out=out)

    @overload
    def sandwich(self, x: Ket[ArrayT], y: Ket[ArrayT]) -> ArrayT: ...
    @overload
    def sandwich(self, x: ArrayT | Lists, y: ArrayT | Lists) -> ArrayT: ...
    @overload
    def sandwich(self: "KroneckerMatrix[Host]", x: Host | Lists, y: Host | Lists) -> Host: ...
    def sandwich(self, x: Any, y: Any) -> Any:
        """x^H A y, (...): x and y are kets, or arrays (..., rows) and (..., columns), or on the grid:
        (..., *row_dims) and (..., *col_dims).  Batches broadcast.

        >>> float(KroneckerMatrix([np.eye(2), np.eye(2)]).sandwich(np.ones(4), np.ones(4)))
        4.0
        """
        if isinstance(x, Ket) and isinstance(y, Ket):
            return alignment.aligned_sandwich(self, x, y)
        return operands.sandwich(self, x, y)

    def kron(self, other: Operator[ArrayT]) -> "KroneckerMatrix[ArrayT]":
        """The Kronecker product: orders add, ranks multiply.

        raises   ValueError where `other` is cropped, as the product is then no leading block of one Kronecker
                 matrix (but for an axis on which this matrix has size 1); a crop of this matrix carries over

        >>> KroneckerMatrix([np.eye(2)]).kron(KroneckerMatrix([np.eye(3)])).shape
        (6, 6)
        """
        return KroneckerMatrix(*alignment.matrix_kron(self, _as_matrix(self, other, "kron")))

    def conj(self) -> "KroneckerMatrix[ArrayT]":
        """The complex conjugate; a real matrix shares its factors."""
        factors = [conjugated(f) for f in self.factors]
        return KroneckerMatrix(factors, self.shape, self.term_identities)

    @overload
    def astype(self: "KroneckerMatrix[Host]", dtype: object) -> "KroneckerMatrix[Host]": ...
    @overload
    def astype(self, dtype: object) -> "KroneckerMatrix[ArrayT]": ...
    @quiet
    def astype(self, dtype: object) -> "KroneckerMatrix[Any]":
        """The same matrix with factors of another floating or complex dtype."""
        factors = construction.cast(self.factors, dtype, None, self.term_identities)
        return KroneckerMatrix(factors, self.shape, self.term_identities)

    @quiet
    def balance(self) -> "KroneckerMatrix[ArrayT]":
        """The same matrix with factors of equal Frobenius norm within each term.

        >>> [float(f.max()) for f in KroneckerMatrix([[[8.0]], [[2.0]]]).balance().factors]
        [4.0, 4.0]
        """
        return KroneckerMatrix(arithmetic.balanced_factors(self.factors), self.shape)

    def inner(self: Any, other: Operator[ArrayT]) -> ArrayT:
        """The Frobenius inner product sum_ij conj(self_ij) other_ij; dims and shapes must be equal.

        other    a KroneckerMatrix, KroneckerSum or KroneckerProduct

        cost     as `kron_inner`

        >>> float(KroneckerMatrix([np.eye(3)]).inner(KroneckerMatrix([np.ones((3, 3))])))
        3.0
        """
        matrix = _as_matrix(self, other, "inner")
        alignment.check_same_split(self, matrix)
        return unboxed(ops.kron_inner(self.factors, matrix.factors, self.shape))

    def norm(self: Any) -> ArrayT:
        """The Frobenius norm, real; rounding and cancellation as in `Ket.norm`.

        >>> float(KroneckerMatrix([np.eye(4), np.ones((2, 2))]).norm())
        4.0
        """
        return unboxed(ops.kron_norm(self.factors, self.shape))

    def sum(self, axis: int | None = None) -> ArrayT:
        """The sum of all elements, or over the rows (axis 0) or columns (axis 1); crops stay factored.

        >>> KroneckerMatrix([np.eye(2), np.ones((2, 2))]).sum(axis=0).tolist()
        [2.0, 2.0, 2.0, 2.0]
        """
        return reductions.sums(self.factors, self.shape, axis)

    def diagonal(self, max_bytes: int = 2**30) -> ArrayT:
        """M[i, i] for i < min(shape); MemoryError, naming the size, above `max_bytes`.

        >>> KroneckerMatrix([np.eye(2), np.full((2, 2), 5.0)]).diagonal().tolist()
        [5.0, 5.0, 5.0, 5.0]
        """
        return reductions.diagonal(self.factors, self.shape, max_bytes)

    def trace(self: Any) -> ArrayT:
        """The sum of the diagonal, at the cost of the factors where they are square, alone or merged with
        their neighbours, else of the diagonal.

        >>> float(KroneckerMatrix([np.eye(2)] * 40).trace()) == 2.0**40
        True
        """
        return unboxed(ops.kron_trace(self.factors, self.shape))

    def to_dense(self, max_bytes: int = 2**30, out: ArrayT | None = None) -> ArrayT:
        """The array (rows, columns).

        raises   MemoryError, naming the size, above `max_bytes`
        cost     O(R) per element
        """
        what = f"{self.shape} array of {self.dtype}"
        size = prod(self.shape), itemsize(self.factors[0])
        shapes.check_dense_size(*size, what, max_bytes, "iter_row_blocks(size)")
        return blocks.row_block(self.factors, range(self.shape[0]), self.shape[1], out)

    def cost(self, name: str = "matmul", n: int = 1) -> Cost:
        """Flops, bytes and path of "rows" or "row_kets" of n ids, "gather" (n single elements), "to_dense",
        "matmul" (A @ x, n columns) or "rmatmul" (x @ A, n rows), from the sizes alone.

        >>> KroneckerMatrix([np.eye(64), np.eye(64)]).cost("rmatmul", 10).flops
        10485760
        """
        return costs.matrix_cost(self, name, n)

    def _terms_beside(self, other):
        """As a sum of terms: of operators that have such."""
        return self

    def _facts(self):
        """What `repr` shows."""
        facts = {n: getattr(self, n) for n in ("shape", "order", "rank", "row_dims", "col_dims", "dtype")}
        return facts | display.sizes(self._parameters(), self.nbytes, prod(self.shape))

    def _parameters(self):
        return sum(prod(f.shape) for f in self.factors)


def _as_matrix(own, other, function):
    """Another operator as a KroneckerMatrix."""
    if isinstance(other, Operator) and hasattr(other, "_terms_beside"):
        return other._terms_beside(own)
    way = "ketcore.kron takes other kinds" if function == "kron" else "to_dense() makes arrays of other kinds"
    raise TypeError(
        f"other must be a KroneckerMatrix or have to_kronecker() ({way}), got {type(other).__name__}"
    )


@overload
def eye(
    dims: int | Sequence[int], dtype: DTypeLike = "float64", like: Host | None = None
) -> KroneckerMatrix[Host]: ...
@overload
def eye(
    dims: int | Sequence[int], dtype: DTypeLike = "float64", *, like: ForeignT
) -> KroneckerMatrix[ForeignT]: ...
def eye(dims: int | Sequence[int], dtype: DTypeLike = "float64", like: Any = None) -> KroneckerMatrix[Any]:
    """The identity on P = prod(dims) as a Kronecker product of identities.

    dims     an int or N ints >= 1
    dtype    a floating or complex one of NumPy; not None
    like     an array whose library and device the factors take; None for NumPy
    raises   TypeError, ValueError on dims, dtype and like

    >>> eye((2, 3)).shape, float(eye((2, 3)).trace())
    ((6, 6), 6.0)
    """
    identities = construction.identities(dims, dtype, like)
    return KroneckerMatrix(identities, identities=range(len(identities)))
