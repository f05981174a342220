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

    With Q the product of the dims, and leaves v_n of the vector::

        P (v_0 (x) ... (x) v_{N-1}) = v_{order[0]} (x) ... (x) v_{order[N-1]}

    Parameters
    ----------
    dims : sequence of N ints
        The dims of the vector that it is applied to, each >= 1.
    order : sequence of N ints
        Each mode once: mode n of the result is mode order[n], as in `np.transpose`.

    Raises
    ------
    TypeError, ValueError
        On dims and on an order that has not each mode once.

    Notes
    -----
    Cost: of a product one transpose of the operand; nothing is stored.

    Immutable, holds no array; `==` is identity.  `@` takes dense arrays on either side, kets, and
    permutations.  The inverse is `T`.  P @ A @ P.T of a KroneckerMatrix A is `permute_subsystems(A, order)`;
    P @ A alone is no Kronecker product, but where the order leaves all modes in place.

    Examples
    --------
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
        """The dims of the vector that a product is: `dims` in the new order."""
        return tuple(self.dims[n] for n in self.order)

    @property
    def col_dims(self) -> tuple[int, ...]:
        """`dims`, by the name that they have in other operators."""
        return self.dims

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns, (Q, Q)."""
        return prod(self.dims), prod(self.dims)

    @property
    def dtype(self) -> Any:
        """The dtype float64, of which `to_dense` is by default; a product has that of the other operand."""
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
        """P @ other: an array gives an array, a Ket a Ket, a Permutation a Permutation.

        Parameters
        ----------
        other : array, Ket or Permutation
            An array (Q,), (..., Q, n) or `(..., *dims)` of any dtype, a Ket of these dims, or a Permutation
            whose `row_dims` these are.  Another operator is taken where the order leaves all modes in place.

        Returns
        -------
        array, Ket or Permutation
            Of `(..., *dims)` the modes come as axes in their new order.

        Raises
        ------
        TypeError
            On other kinds.
        ValueError
            On shapes and dims.

        Examples
        --------
        >>> swap = Permutation((2, 3), (1, 0))
        >>> (swap @ [[0, 1, 2], [3, 4, 5]]).tolist(), (swap.T @ swap).order
        ([[0, 3], [1, 4], [2, 5]], (0, 1))
        """
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
        """The product P x for x (lead, Q, trail)."""
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
    def to_dense(self, max_bytes: float = ..., dtype: DTypeLike = ..., like: Host | None = None) -> Host: ...
    @overload
    def to_dense(self, max_bytes: float = ..., dtype: DTypeLike = ..., *, like: ForeignT) -> ForeignT: ...
    def to_dense(self, max_bytes: float = 2**30, dtype: DTypeLike = "float64", like: Any = None) -> Any:
        """The dense matrix of zeros and ones.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.
        dtype : dtype, default "float64"
            One of NumPy's numbers, or bool.
        like : array of any shape, optional
            An array whose library and device the result takes; None for NumPy.

        Returns
        -------
        array, (Q, Q)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.
        TypeError
            On dtype and like.

        Examples
        --------
        >>> swap((2, 2), 0, 1).to_dense().tolist()[1]
        [0.0, 0.0, 1.0, 0.0]
        """
        dtype = construction.numeric_dtype(dtype, "be one of NumPy's numbers")
        size = self.shape[0]
        what = f"{self.shape} array of {dtype}"
        shapes.check_dense_size(size * size, dtype.itemsize, what, max_bytes, "iter_row_blocks(size)")
        return construction.placed(self._rows(0, size, dtype), like)

    def conj(self) -> "Permutation":
        """The permutation itself, which is real.

        Returns
        -------
        Permutation

        Examples
        --------
        >>> flip = swap((2, 2), 0, 1)
        >>> flip.conj() is flip
        True
        """
        return self

    @property
    def nbytes(self) -> int:
        """The number 0: nothing is stored."""
        return 0

    def kron(self, other: "Permutation") -> "Permutation":
        """The Kronecker product: the modes of `other` behind those of this one.

        Parameters
        ----------
        other : Permutation
            Its digits are the less significant ones.

        Returns
        -------
        Permutation

        Raises
        ------
        TypeError
            On other kinds, which `ketcore.kron` takes.

        Examples
        --------
        >>> swap((2, 3), 0, 1).kron(swap((4, 5), 0, 1)).order
        (1, 0, 3, 2)
        """
        if not isinstance(other, Permutation):
            rule = "a Permutation (ketcore.kron takes other kinds)"
            raise TypeError(f"other must be {rule}, got {type(other).__name__}")
        behind = [len(self.order) + n for n in other.order]
        return Permutation((*self.dims, *other.dims), (*self.order, *behind))

    def norm(self) -> np.floating[Any]:
        """The Frobenius norm, the square root of Q.

        Returns
        -------
        float64
            A scalar of NumPy.

        Examples
        --------
        >>> float(swap((2, 2), 0, 1).norm())
        2.0
        """
        return np.sqrt(np.float64(self.shape[0]))

    def diagonal(self, max_bytes: float = 2**30) -> Host:
        """The elements P[i, i], zeros and ones of NumPy.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.

        Returns
        -------
        array, (Q,)
            Of float64.

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.

        Examples
        --------
        >>> swap((2, 2), 0, 1).diagonal().tolist()
        [1.0, 0.0, 0.0, 1.0]
        """
        size = self.shape[0]
        shapes.check_dense_size(size, 8, f"diagonal ({size},) of float64", max_bytes)
        return (self._columns(range(size)) == np.arange(size)).astype(np.float64)

    def trace(self) -> np.floating[Any]:
        """The number of entries that stay in place.

        Returns
        -------
        float64
            A scalar of NumPy.

        Raises
        ------
        MemoryError
            Where Q numbers take more than 2**30 bytes.

        Examples
        --------
        >>> float(commutation(3, 5).trace())
        3.0
        """
        return self.diagonal().sum()

    def sum(self, axis: int | None = None) -> Any:
        """The sum of all elements, or over the rows or columns: each of them has a single one.

        Parameters
        ----------
        axis : {None, 0, 1, -1, -2}, optional
            None: all elements; 0 or -2: over the rows; 1 or -1: over the columns.

        Returns
        -------
        float64 or array, (Q,)
            Q, or ones along an axis, of NumPy.

        Raises
        ------
        ValueError
            On another axis.
        MemoryError
            Naming the size, above 2**30 bytes.

        Examples
        --------
        >>> swap((2, 2), 0, 1).sum(axis=0).tolist()
        [1.0, 1.0, 1.0, 1.0]
        """
        size = self.shape[0]
        if shapes.check_sum_axis(axis) is None:
            return np.float64(size)
        shapes.check_result_size("axis", (size,), 8, np.dtype(np.float64))
        return np.ones(size)

    def row_kets(self, ids: Index) -> Ket[Host]:
        """The rows of `ids` as a batch of kets: all zeros but a single one.

        Parameters
        ----------
        ids : array of ints, (...)
            Row numbers, which count from 0 and are never negative; all are read and checked, on a device too.

        Returns
        -------
        Ket
            Of NumPy, of batch shape (...), rank 1 and dims `dims`.

        Raises
        ------
        TypeError
            Unless ids are integers.
        IndexError
            On an id outside [0, rows).

        Examples
        --------
        >>> [f.tolist() for f in swap((2, 2), 0, 1).row_kets(1).factors]
        [[[0.0, 1.0]], [[1.0, 0.0]]]
        """
        ids, _ = check_index("ids", as_integers("ids", ids), self.shape[0], True)
        digits = split_digits(to_host(ids), self.row_dims)
        sides = zip(digits, self.order, strict=True)
        leaves = {n: np.eye(self.dims[n])[digit][..., None, :] for digit, n in sides}
        return Ket([leaves[n] for n in range(len(self.dims))])

    def rows(self, ids: Index, *, out: Host | None = None) -> Host:
        """The dense rows of `ids`.

        Parameters
        ----------
        ids : int or array of ints, (...)
            As of `row_kets`.
        out : array, (..., Q), optional
            Of NumPy: C-contiguous, of the shape and dtype of the result, which is written into it.

        Returns
        -------
        array, (..., Q)
            Of NumPy and float64; `out` where that is given.

        Raises
        ------
        TypeError, IndexError
            As `row_kets`.
        ValueError
            On an `out` that does not fit.

        Examples
        --------
        >>> swap((2, 2), 0, 1).rows([1]).tolist()
        [[0.0, 0.0, 1.0, 0.0]]
        """
        return self.row_kets(ids).to_dense(inf, out)

    def __getitem__(self, key: Key) -> Host:
        """The dense row, rows, element or block that NumPy's rules choose, of zeros and ones of NumPy.

        Parameters
        ----------
        key : int, slice, array of ints or of bools, or a pair of these
            As of `KroneckerMatrix`.

        Returns
        -------
        array

        Raises
        ------
        TypeError, ValueError, IndexError, MemoryError
            As KroneckerMatrix.

        Examples
        --------
        >>> swap((2, 2), 0, 1)[1].tolist()
        [0.0, 0.0, 1.0, 0.0]
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

    Parameters
    ----------
    dims : sequence of N ints
        Each >= 1.
    i, j : int
        Modes, from 0; negative ones count from the end.

    Returns
    -------
    Permutation
        A product costs one transpose.

    Raises
    ------
    TypeError, ValueError
        On dims and modes.

    Examples
    --------
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
    `commutation(p, m)`.  Where vec stacks rows, as `X.reshape(-1)` does, use `commutation(n, m)`.

    Parameters
    ----------
    m, n : int
        Rows and columns of X, each >= 1.

    Returns
    -------
    Permutation
        (m n, m n): a product costs one transpose.

    Raises
    ------
    TypeError, ValueError
        On m and n.

    References
    ----------
    J. R. Magnus and H. Neudecker, The commutation matrix, Annals of Statistics 7 (1979).

    Examples
    --------
    >>> x = np.array([[1, 2, 3], [4, 5, 6]])
    >>> (commutation(2, 3) @ x.reshape(-1, order="F")).tolist(), x.T.reshape(-1, order="F").tolist()
    ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6])
    """
    # The columns of X lie behind one another: its row number is the less significant digit.
    return Permutation((check_int("n", n, 1), check_int("m", m, 1)), (1, 0))
