"""Kronecker matrices: sums of Kronecker products of small rectangular matrices, never formed.

    M = sum_k  F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

Letters: N order (modes), R rank (terms; a matrix of one term may have full matrix rank), p_n and q_n rows
and columns of factor n, P = prod p_n, Q = prod q_n.  `shape` is (P, Q) or a leading block of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import array_api_compat
import numpy as np

from ketcore import arithmetic, display, indexing, ops, reductions
from ketcore.backend import Array, is_array
from ketcore.ket import Ket
from ketcore.ops.checks import as_sequence, check_floating, check_shape, check_tables
from ketcore.shapes import check_dims, check_int, suggest_dims


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KroneckerMatrix:
    """A matrix (rows, columns) as a sum of R Kronecker products.

    factors  N arrays (R, p_n, q_n), floating or complex, one R for all; 2-D factors mean R = 1.  Nested
             lists become NumPy arrays, mixed dtypes are promoted; arrays that fit are shared, not copied
    shape    (rows, columns) from (1, 1) to (P, Q): the leading block; None for all of it
    raises   TypeError on dtypes and on mixed libraries or devices; ValueError on shapes

    Immutable; `==` is identity, and hashing goes by it.  `np.asarray(matrix)` is refused: see `to_dense`.
    `[...]` takes integers, slices, integer arrays and masks by NumPy's rules, at the cost of its output.

    >>> m = KroneckerMatrix([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0]]])
    >>> m.shape, m[1].tolist(), float(m[1, 3])
    ((2, 4), [0.0, 3.0, 0.0, 4.0], 4.0)
    """

    factors: tuple[Array, ...]
    shape: tuple[int, int]

    # NumPy arrays and scalars leave `array * matrix` to the matrix.
    __array_ufunc__ = None

    def __init__(self, factors: Sequence[Any], shape: Sequence[int] | None = None):
        xp, factors, dtype = check_floating("factors", factors)
        factors = [f[None, ...] if f.ndim == 2 else f for f in factors]
        check_tables("factors", factors)
        object.__setattr__(self, "factors", tuple(xp.astype(f, dtype, copy=False) for f in factors))
        object.__setattr__(self, "shape", check_shape(shape, factors))

    @classmethod
    def random(
        cls,
        shape: Sequence[int],
        order: int | None = None,
        *,
        row_dims: Sequence[int] | None = None,
        col_dims: Sequence[int] | None = None,
        rank: int = 1,
        std: float = 1.0,
        rng: Any = None,
        dtype: Any = "float64",
    ) -> "KroneckerMatrix":
        """Normal factors such that the elements have standard deviation `std`.

        order    the number of modes, unless dims say so; dims that are not given come from `suggest_dims`
        rng      None, a seed, or a Generator of NumPy or CuPy

        >>> KroneckerMatrix.random((30428, 256), order=4, rng=0).row_dims
        (13, 13, 13, 14)
        """
        rank, shape = check_int("rank", rank, 0), check_dims("shape", shape)
        if len(shape) != 2:
            raise ValueError(f"shape must be two ints (rows, columns), got {shape}")
        row_dims = None if row_dims is None else check_dims("row_dims", row_dims)
        col_dims = None if col_dims is None else check_dims("col_dims", col_dims)
        given = [dims for dims in (row_dims, col_dims) if dims is not None]
        orders = {len(dims) for dims in given} | ({order} if order is not None else set())
        if len(orders) != 1:
            raise ValueError(
                f"order, row_dims and col_dims must give one order, got {order}, {row_dims} and {col_dims}"
            )
        (order,) = orders
        row_dims = suggest_dims(shape[0], order) if row_dims is None else row_dims
        col_dims = suggest_dims(shape[1], order) if col_dims is None else col_dims
        shapes = [(rank, p, q) for p, q in zip(row_dims, col_dims, strict=True)]
        return cls(arithmetic.random_leaves(shapes, rank, std, rng, dtype), shape)

    @classmethod
    def from_terms(cls, terms: Sequence[Sequence[Any]]) -> "KroneckerMatrix":
        """The sum of the Kronecker products of lists of matrices: [[A, B], [C, D]] is A (x) B + C (x) D.

        terms    R lists of N matrices (p_n, q_n); mode n has one shape in all terms

        >>> KroneckerMatrix.from_terms([[np.eye(2), np.eye(3)], [np.eye(2), np.ones((3, 3))]]).rank
        2
        """
        terms = [as_sequence("terms", term) for term in as_sequence("terms", terms)]
        if not terms or any(len(term) != len(terms[0]) for term in terms):
            orders = [len(term) for term in terms]
            raise ValueError(f"terms must be at least one list of matrices, all of one order, got {orders}")
        xp, flat, dtype = check_floating("terms", [matrix for term in terms for matrix in term])
        shapes = [tuple(matrix.shape) for matrix in flat]
        modes = [shapes[mode :: len(terms[0])] for mode in range(len(terms[0]))]
        if any(len(set(mode)) > 1 or len(mode[0]) != 2 for mode in modes):
            raise ValueError(f"terms must hold matrices of one shape per mode, got shapes {modes}")
        flat = [xp.astype(matrix, dtype, copy=False) for matrix in flat]
        return cls([xp.stack(flat[mode :: len(terms[0])]) for mode in range(len(terms[0]))])

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
    def dtype(self) -> Any:
        """The dtype of the factors and of every result."""
        return self.factors[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the factors."""
        return self._parameters() * arithmetic.itemsize(self.factors[0])

    @property
    def T(self) -> "KroneckerMatrix":  # noqa: N802 - NumPy's name
        """The transpose; shares the factors."""
        xp = array_api_compat.array_namespace(*self.factors)
        return KroneckerMatrix([xp.matrix_transpose(f) for f in self.factors], self.shape[::-1])

    @property
    def H(self) -> "KroneckerMatrix":  # noqa: N802 - the name of NumPy's matrices
        """The conjugate transpose."""
        return self.T.conj()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Array:
        """The dense row, rows, element or block that NumPy's rules choose.

        key      integers, slices, integer arrays (a pair broadcasts), a boolean mask; negative ones
                 count from the end
        raises   TypeError on None, Ellipsis and floats, IndexError outside
        cost     that of the output: O(R) per element within rows or columns, O(R N) for scattered ones

        >>> KroneckerMatrix([np.eye(2), np.eye(2)])[[0, -1], 2:].tolist()
        [[0.0, 0.0], [0.0, 1.0]]
        """
        return arithmetic.unboxed(indexing.block(self.factors, self.shape, key))

    def rows(self, ids: Any, check: bool | None = None, out: Array | None = None) -> Array:
        """An embedding lookup: the rows (..., columns) of `ids`, which count from 0 and are never negative.

        check    None: host ids are checked, ids on a device are not (a bad one gives a row of NaN);
                 True: always, waiting for the device; False: never
        raises   TypeError unless ids are integers, IndexError outside [0, rows)

        >>> KroneckerMatrix([np.eye(2), np.eye(2)]).rows([3]).tolist()
        [[0.0, 0.0, 0.0, 1.0]]
        """
        return ops.rows(self.factors, ids, self.shape, check=check, out=out)

    def row_kets(self, ids: Any, check: bool | None = None) -> Ket:
        """The rows of `ids` as a batch of kets; `check` as in `rows`.

        raises   as `rows`; ValueError where the columns are cropped, as those of kets are not

        >>> KroneckerMatrix([np.eye(2), np.eye(3)]).row_kets([4, 5]).shape
        (2, 6)
        """
        return Ket(ops.row_kets(self.factors, ids, self.shape, check=check))

    def __add__(self, other: "KroneckerMatrix") -> "KroneckerMatrix":
        """The sum: ranks add.  Shapes, row dims and column dims must be equal."""
        if not isinstance(other, KroneckerMatrix):
            return NotImplemented
        self._check_same_dims(other)
        xp, _, dtype = check_floating("matrices", (*self.factors, *other.factors))
        terms = (
            xp.concat([xp.astype(f, dtype, copy=False) for f in pair], axis=0)
            for pair in zip(self.factors, other.factors, strict=True)
        )
        return KroneckerMatrix(list(terms), self.shape)

    def __neg__(self) -> "KroneckerMatrix":
        return self * -1

    def __sub__(self, other: "KroneckerMatrix") -> "KroneckerMatrix":
        return self + -other if isinstance(other, KroneckerMatrix) else NotImplemented

    def __mul__(self, scalar: Any) -> "KroneckerMatrix":
        """The matrix times a number (scalars only), in the precision of the matrix."""
        return self._scaled(scalar, False) if arithmetic.is_scalar(scalar) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, scalar: Any) -> "KroneckerMatrix":
        return self._scaled(scalar, True) if arithmetic.is_scalar(scalar) else NotImplemented

    def _scaled(self, scalar, divide):
        """The first factor carries the scalar."""
        first = arithmetic.scaled(self.factors[0], scalar, divide)
        return KroneckerMatrix((first, *self.factors[1:]), self.shape)

    def kron(self, other: "KroneckerMatrix") -> "KroneckerMatrix":
        """The Kronecker product: orders add, ranks multiply.

        raises   ValueError where `other` is cropped, as the product is then no leading block of one Kronecker
                 matrix (but for an axis on which this matrix has size 1); a crop of this matrix carries over

        >>> KroneckerMatrix([np.eye(2)]).kron(KroneckerMatrix([np.eye(3)])).shape
        (6, 6)
        """
        _check_matrix(other)
        full = (prod(other.row_dims), prod(other.col_dims))
        sizes = zip(self.shape, other.shape, full, strict=True)
        if any(mine > 1 and size < whole for mine, size, whole in sizes):
            raise ValueError(f"other must not be cropped, got shape {other.shape} of {full}")
        # A cropped axis of `other` stays so; elsewhere its size is the whole one.
        shape = tuple(mine * size for mine, size in zip(self.shape, other.shape, strict=True))
        xp, _, _ = check_floating("matrices", (*self.factors, *other.factors))
        pair = (self.rank, other.rank)
        left = (xp.broadcast_to(f[:, None, :, :], (*pair, *f.shape[1:])) for f in self.factors)
        right = (xp.broadcast_to(f[None, :, :, :], (*pair, *f.shape[1:])) for f in other.factors)
        factors = [xp.reshape(f, (prod(pair), *f.shape[2:])) for f in (*left, *right)]
        return KroneckerMatrix(factors, shape)

    def conj(self) -> "KroneckerMatrix":
        """The complex conjugate; a real matrix shares its factors."""
        return KroneckerMatrix([arithmetic.conjugated(f) for f in self.factors], self.shape)

    def astype(self, dtype: Any) -> "KroneckerMatrix":
        """The same matrix with factors of another floating or complex dtype."""
        xp = array_api_compat.array_namespace(*self.factors)
        return KroneckerMatrix([xp.astype(f, dtype) for f in self.factors], self.shape)

    def balance(self) -> "KroneckerMatrix":
        """The same matrix with factors of equal Frobenius norm within each term.

        >>> [float(f.max()) for f in KroneckerMatrix([[[8.0]], [[2.0]]]).balance().factors]
        [4.0, 4.0]
        """
        flat = arithmetic.balanced(reductions.flattened(self.factors))
        xp = array_api_compat.array_namespace(*flat)
        return KroneckerMatrix(
            [xp.reshape(f, like.shape) for f, like in zip(flat, self.factors, strict=True)], self.shape
        )

    def inner(self, other: "KroneckerMatrix") -> Array:
        """The Frobenius inner product sum_ij conj(self_ij) other_ij; dims and shapes must be equal.

        cost     O(R R' sum p_n q_n), and at most N^2 times that where both axes are cropped

        >>> float(KroneckerMatrix([np.eye(3)]).inner(KroneckerMatrix([np.ones((3, 3))])))
        3.0
        """
        _check_matrix(other)
        self._check_same_dims(other)
        return arithmetic.unboxed(reductions.inner(self.factors, other.factors, self.shape))

    def norm(self) -> Array:
        """The Frobenius norm, real; rounding and cancellation as in `Ket.norm`.

        >>> float(KroneckerMatrix([np.eye(4), np.ones((2, 2))]).norm())
        4.0
        """
        return reductions.norm(self.factors, self.shape)

    def sum(self, axis: int | None = None) -> Array:
        """The sum of all elements, or over the rows (axis 0) or columns (axis 1); crops stay factored.

        >>> KroneckerMatrix([np.eye(2), np.ones((2, 2))]).sum(axis=0).tolist()
        [2.0, 2.0, 2.0, 2.0]
        """
        if axis is None:
            return reductions.total(self.factors, self.shape)
        if axis in (0, -2):
            return reductions.column_sums(self.factors, self.shape)
        if axis in (1, -1):
            return self.T.sum(axis=0)
        raise ValueError(f"axis must be None, 0 or 1 (or -2 or -1), got {axis}")

    def diagonal(self) -> Array:
        """M[i, i] for i < min(shape).

        >>> KroneckerMatrix([np.eye(2), np.full((2, 2), 5.0)]).diagonal().tolist()
        [5.0, 5.0, 5.0, 5.0]
        """
        return reductions.diagonal(self.factors, self.shape)

    def trace(self) -> Array:
        """The sum of the diagonal, at the cost of the factors where they are square, else of the diagonal.

        >>> float(KroneckerMatrix([np.eye(2)] * 40).trace()) == 2.0**40
        True
        """
        return reductions.trace(self.factors, self.shape)

    def to_dense(self, max_bytes: int = 2**30, out: Array | None = None) -> Array:
        """The array (rows, columns).

        raises   MemoryError, naming the size, above `max_bytes`
        cost     O(R) per element
        """
        what = f"{self.shape} array of {self.dtype}"
        display.check_dense_size(prod(self.shape), arithmetic.itemsize(self.factors[0]), what, max_bytes)
        return ops.rows(self.factors, np.arange(self.shape[0]), self.shape, check=False, out=out)

    def __array__(self, dtype=None, copy=None):
        raise TypeError("a KroneckerMatrix must be made dense by to_dense(), got an implicit conversion")

    def __repr__(self) -> str:
        return display.as_text("KroneckerMatrix", self._facts())

    def _repr_html_(self) -> str:
        return display.as_html("KroneckerMatrix", self._facts())

    def _facts(self):
        """What `repr` shows."""
        facts = {"shape": self.shape, "order": self.order, "rank": self.rank}
        dims = {"row_dims": self.row_dims, "col_dims": self.col_dims, "dtype": self.dtype}
        return {**facts, **dims, **display.sizes(self._parameters(), self.nbytes, prod(self.shape))}

    def _parameters(self):
        return sum(prod(f.shape) for f in self.factors)

    def _check_same_dims(self, other):
        mine, others = ((m.shape, m.row_dims, m.col_dims) for m in (self, other))
        if mine != others:
            raise ValueError(f"matrices must have equal (shape, row_dims, col_dims), got {mine} and {others}")


def _check_matrix(other):
    if not isinstance(other, KroneckerMatrix):
        raise TypeError(f"other must be a KroneckerMatrix, got {type(other).__name__}")


def eye(dims: int | Sequence[int], dtype: Any = "float64", like: Array | None = None) -> KroneckerMatrix:
    """The identity on P = prod(dims) as a Kronecker product of identities.

    dims     an int or N ints >= 1
    like     an array whose library and device the factors take; None for NumPy

    >>> eye((2, 3)).shape, float(eye((2, 3)).trace())
    ((6, 6), 6.0)
    """
    dims = check_dims("dims", (dims,) if np.ndim(dims) == 0 else dims)
    identities = [np.eye(dim, dtype=dtype) for dim in dims]
    if like is not None:
        if not is_array(like):
            raise TypeError(f"like must be an array, got {type(like).__name__}")
        xp = array_api_compat.array_namespace(like)
        identities = [xp.asarray(matrix, device=array_api_compat.device(like)) for matrix in identities]
    return KroneckerMatrix(identities)
