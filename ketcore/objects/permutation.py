"""Permutations of modes as matrices: swaps, the commutation (vec-permutation) matrix.

    P (v_0 (x) ... (x) v_{N-1}) = v_{order[0]} (x) ... (x) v_{order[N-1]}

As a sum of Kronecker products a permutation needs many terms; as a transpose of an array it costs one copy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
from numpy.typing import DTypeLike

from ketcore import shapes
from ketcore.array_types import ArrayT, ForeignT, Host, Index, Key, Lists
from ketcore.arrays.checks import as_integers, check_index
from ketcore.arrays.conversions import as_array
from ketcore.arrays.elementary import unboxed
from ketcore.arrays.namespaces import namespace_of, to_host
from ketcore.lookups.digits import split_digits
from ketcore.objects import blocks, construction
from ketcore.objects.indexing import parse_key
from ketcore.objects.ket import Ket
from ketcore.objects.operator import Operator
from ketcore.shapes import check_dims, check_int, check_mode, check_order, strides


@dataclass(frozen=True, init=False, eq=False)
class Permutation(Operator[Any]):
    """The matrix (Q, Q) that puts the modes of a vector in another order.

    dims     the N dims of the vector that it is applied to
    order    each mode once: mode n of the result is mode order[n], as in np.transpose
    raises   TypeError, ValueError on dims and on an order that has not each mode once
    cost     of a product one transpose of the operand; nothing is stored

    Immutable, holds no array; `==` is identity.  `@` takes dense arrays on either side, kets, and
    permutations.  The inverse is `.T`.  P @ A @ P.T of a KroneckerMatrix A is `permute_subsystems(A, order)`;
    P @ A alone is no Kronecker product, but where the order leaves all modes in place.

    >>> (Permutation((2, 3), (1, 0)) @ np.arange(6)).tolist()
    [0, 3, 1, 4, 2, 5]
    """

    dims: tuple[int, ...]
    order: tuple[int, ...]

    _PRODUCTS = "permute_subsystems(A, order), which is P @ A @ P.T, or to_dense()"
    _INSTEAD: ClassVar[dict[str, str]] = {
        "astype": "to_dense(dtype=)",
        "balance": "the permutation itself, which holds no numbers,",
        "inner": "to_dense()",
    }

    def __init__(self, dims: Sequence[int], order: Sequence[int]):
        object.__setattr__(self, "dims", check_dims("dims", dims))
        object.__setattr__(self, "order", check_order(order, len(self.dims)))

    @property
    def row_dims(self) -> tuple[int, ...]:
        """The dims of the vector that a product is."""
        return tuple(self.dims[n] for n in self.order)

    @property
    def col_dims(self) -> tuple[int, ...]:
        """`dims`, by the name that they have in other operators."""
        return self.dims

    @property
    def shape(self) -> tuple[int, int]:
        """(Q, Q)."""
        return prod(self.dims), prod(self.dims)

    @property
    def dtype(self) -> Any:
        """float64, of which `to_dense` is by default; a product has the dtype of the other operand."""
        return np.dtype(np.float64)

    @property
    def T(self) -> "Permutation":  # noqa: N802 - NumPy's name
        """The transpose, which is the inverse."""
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return Permutation(self.row_dims, inverse)

    @property
    def H(self) -> "Permutation":  # noqa: N802 - the name of NumPy's matrices
        """The conjugate transpose, which is the transpose."""
        return self.T

    @overload
    def __matmul__(self, other: "Permutation") -> "Permutation": ...
    @overload
    def __matmul__(self, other: Ket[ArrayT]) -> Ket[ArrayT]: ...
    @overload
    def __matmul__(self, other: Host | Lists) -> Host: ...
    @overload
    def __matmul__(self, other: ForeignT) -> ForeignT: ...
    def __matmul__(self, other: Any) -> Any:
        """P @ other: an array (Q,), (..., Q, n) or (..., *dims) of any dtype, a Ket of these dims, or a
        Permutation.  Of (..., *dims) the modes come as axes in their new order."""
        return self._on_dense(other)

    def _times(self, other):
        if isinstance(other, Permutation):
            return self._after(other)
        if not isinstance(other, Ket):
            return self._beside(other, 0)
        if other.dims != self.dims:
            raise ValueError(f"ket must have dims {self.dims}, got {other.dims}")
        return Ket([other.factors[n] for n in self.order])

    def _times_left(self, other):
        return self._beside(other, 1)

    def _beside(self, other, axis):
        """Another operator as it is, where no mode moves."""
        if not isinstance(other, Operator) or self.order != tuple(range(len(self.order))):
            return NotImplemented
        if other.shape[axis] != self.shape[0]:
            pair = (self.shape, other.shape) if axis == 0 else (other.shape, self.shape)
            raise ValueError(
                f"matrices must have shapes (m, k) and (k, n) for @, got {pair[0]} and {pair[1]}"
            )
        return other

    def _operand(self, value):
        """Of any dtype: nothing is computed."""
        return as_array("x", value)

    def _apply(self, x, turned):
        return self.T._transposed(x) if turned else self._transposed(x)

    def _after(self, first):
        if first.row_dims != self.dims:
            got = f"{self.dims} after {first.row_dims}"
            raise ValueError(f"permutations must have fitting dims for @, got {got}")
        return Permutation(first.dims, [first.order[n] for n in self.order])

    def _transposed(self, x):
        """P x for x (lead, Q, trail)."""
        xp = namespace_of(x)
        lead, size, trail = x.shape
        axes = (0, *(n + 1 for n in self.order), len(self.dims) + 1)
        moved = xp.permute_dims(xp.reshape(x, (lead, *self.dims, trail)), axes)
        return xp.reshape(moved, (lead, size, trail))

    if TYPE_CHECKING:

        @overload
        def __rmatmul__(self, other: Host | Lists) -> Host: ...
        @overload
        def __rmatmul__(self, other: ForeignT) -> ForeignT: ...
        def __rmatmul__(self, other: Any) -> Any: ...

    @overload
    def to_dense(self, max_bytes: int = ..., dtype: DTypeLike = ..., like: Host | None = None) -> Host: ...
    @overload
    def to_dense(self, max_bytes: int = ..., dtype: DTypeLike = ..., *, like: ForeignT) -> ForeignT: ...
    def to_dense(self, max_bytes: int = 2**30, dtype: DTypeLike = "float64", like: Any = None) -> Any:
        """The array (Q, Q) of zeros and ones, of NumPy or of the library and device of `like`.

        raises   MemoryError, naming the size, above `max_bytes`

        >>> swap((2, 2), 0, 1).to_dense().tolist()[1]
        [0.0, 0.0, 1.0, 0.0]
        """
        dtype = construction.numeric_dtype(dtype, "be one of NumPy's numbers")
        size = self.shape[0]
        what = f"{self.shape} array of {dtype}"
        shapes.check_dense_size(size * size, dtype.itemsize, what, max_bytes, "iter_row_blocks(size)")
        return construction.placed(self._rows(0, size, dtype), like)

    def conj(self) -> "Permutation":
        """The permutation itself, which is real."""
        return self

    @property
    def nbytes(self) -> int:
        """0: nothing is stored."""
        return 0

    def kron(self, other: "Permutation") -> "Permutation":
        """The Kronecker product: the modes of `other` behind those of this one.

        >>> swap((2, 3), 0, 1).kron(swap((4, 5), 0, 1)).order
        (1, 0, 3, 2)
        """
        if not isinstance(other, Permutation):
            rule = "a Permutation (ketcore.kron takes other kinds)"
            raise TypeError(f"other must be {rule}, got {type(other).__name__}")
        behind = [len(self.order) + n for n in other.order]
        return Permutation((*self.dims, *other.dims), (*self.order, *behind))

    def norm(self) -> np.floating[Any]:
        """The Frobenius norm, the square root of Q."""
        return np.sqrt(np.float64(self.shape[0]))

    def diagonal(self, max_bytes: int = 2**30) -> Host:
        """P[i, i], (Q,) zeros and ones of NumPy; MemoryError, naming the size, above `max_bytes`."""
        size = self.shape[0]
        shapes.check_dense_size(size, 8, f"diagonal ({size},) of float64", max_bytes)
        return (self._columns(range(size)) == np.arange(size)).astype(np.float64)

    def trace(self) -> np.floating[Any]:
        """The number of entries that stay in place; MemoryError where Q numbers take more than 2**30 bytes.

        >>> float(commutation(3, 5).trace())
        3.0
        """
        return self.diagonal().sum()

    def sum(self, axis: int | None = None) -> Any:
        """Q, or ones (Q,) along an axis: each row and column has a single one.

        raises   ValueError on axis; MemoryError, naming the size, above 2**30 bytes
        """
        size = self.shape[0]
        if shapes.check_sum_axis(axis) is None:
            return np.float64(size)
        shapes.check_result_size("axis", (size,), 8, np.dtype(np.float64))
        return np.ones(size)

    def row_kets(self, ids: Index) -> Ket[Host]:
        """The rows of `ids`, which count from 0, as a batch of kets of rank 1: all zeros but a single one.

        raises   TypeError unless ids are integers, IndexError outside [0, rows)
        """
        ids, _ = check_index("ids", as_integers("ids", ids), self.shape[0], True)
        digits = split_digits(to_host(ids), self.row_dims)
        sides = zip(digits, self.order, strict=True)
        leaves = {n: np.eye(self.dims[n])[digit][..., None, :] for digit, n in sides}
        return Ket([leaves[n] for n in range(len(self.dims))])

    def rows(self, ids: Index, *, out: Host | None = None) -> Host:
        """The rows (..., Q) of `ids`, arrays of NumPy; ids and errors as in `row_kets`.

        >>> swap((2, 2), 0, 1).rows([1]).tolist()
        [[0.0, 0.0, 1.0, 0.0]]
        """
        return self.row_kets(ids).to_dense(inf, out)

    def __getitem__(self, key: Key) -> Host:
        """The dense row, rows, element or block that NumPy's rules choose, of zeros and ones of NumPy.

        raises   as KroneckerMatrix
        """
        row, column = parse_key(key, self.shape)
        if isinstance(row, int | range):
            found = (*blocks.shape_of(row), *blocks.shape_of(column))
            shapes.check_result_size("key", found, 8, np.dtype(np.float64), "iter_row_blocks(size)")
        if isinstance(row, range) or isinstance(column, range):
            row, column = blocks.all_pairs(row, column)
        row, column = (to_host(blocks.as_indices(side)) for side in (row, column))
        return unboxed((self._columns(row) == column).astype(np.float64))

    def _columns(self, rows):
        """Where each of these rows has its one."""
        places = [strides(self.dims)[n] for n in self.order]
        digits = blocks.digits_of(rows, self.row_dims)
        return sum(digit * place for digit, place in zip(digits, places, strict=True))

    def _row_reader(self):
        return self._rows

    def _rows(self, start, stop, dtype: DTypeLike = np.float64):
        """Rows start..stop-1: row i has its one where the digits of i, put back in order, say."""
        shapes.check_addressable((stop - start, self.shape[1]))
        found = np.zeros((stop - start, self.shape[1]), dtype)
        found[np.arange(stop - start), self._columns(range(start, stop))] = 1
        return found

    def _arrays(self):
        return ()

    def _like(self):
        return np.zeros(())

    def _facts(self):
        return {"shape": self.shape, "dims": self.dims, "order": self.order}


def swap(dims: Sequence[int], i: int, j: int) -> Permutation:
    """The permutation that exchanges the modes i and j of vectors of these dims.

    dims     N ints >= 1
    i, j     modes, ints
    returns  a `Permutation`: a product costs one transpose
    raises   TypeError, ValueError on dims and modes

    >>> (swap((2, 1, 3), 0, 2) @ np.arange(6)).tolist()
    [0, 3, 1, 4, 2, 5]
    """
    dims = check_dims("dims", dims)
    i, j = (check_mode(name, mode, len(dims)) for name, mode in (("i", i), ("j", j)))
    order = list(range(len(dims)))
    order[i], order[j] = order[j], order[i]
    return Permutation(dims, order)


def commutation(m: int, n: int) -> Permutation:
    """The commutation (vec-permutation) matrix K: K vec(X) = vec(X.T) for X (m, n), vec stacking columns.

    It turns Kronecker products around: K_pm (A (x) B) K_nq = B (x) A for A (m, n) and B (p, q), with K_pm for
    commutation(p, m).  Where vec stacks rows, as X.reshape(-1) does, use commutation(n, m).

    m, n     ints >= 1
    returns  a `Permutation` (m n, m n): a product costs one transpose
    raises   TypeError, ValueError on m and n
    source   J. R. Magnus and H. Neudecker, The commutation matrix, Annals of Statistics 7 (1979)

    >>> x = np.array([[1, 2, 3], [4, 5, 6]])
    >>> (commutation(2, 3) @ x.reshape(-1, order="F")).tolist(), x.T.reshape(-1, order="F").tolist()
    ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])
    """
    # The columns of X lie behind one another: its row number is the less significant digit.
    return Permutation((check_int("n", n, 1), check_int("m", m, 1)), (1, 0))
