"""One Kronecker product of parts of any kind: diagonal, identity and sparse parts stay what they are.

    M = A_0 (x) A_1 (x) ... (x) A_{N-1}

A product with a dense array takes one pass per part: a small matrix product for a dense one, an elementwise
one for a `Diagonal`, none for an `Identity`, a sparse one for a matrix of scipy.sparse, `matmat` for a linear
operator.

Letters: N order, p_n and q_n rows and columns of part n, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod, sqrt
from typing import TYPE_CHECKING, Any, Generic, overload

from ketcore import shapes
from ketcore.array_types import ArrayT, ForeignT, Host, HostFactor, Index, Key, Lists, Untyped
from ketcore.arrays import scale
from ketcore.arrays.elementary import itemsize, unboxed, widened
from ketcore.arrays.namespaces import device_of, namespace_of, quiet
from ketcore.objects import alignment, construction, part_blocks, part_products
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.operator import Operator, Scalable
from ketcore.objects.part_operators import is_operator
from ketcore.objects.parts import (
    Diagonal,
    Identity,
    as_dense,
    as_parts,
    changed,
    column_sums,
    conjugated_part,
    diagonal_of,
    holds_values,
    kind_arrays,
    kind_of,
    level_parts,
    multiplied,
    name_of,
    numbers_of,
    on_rows,
    product_over_modes,
    scaled_part,
    sum_of,
    together,
    trace_of,
    transposed_part,
    unit_diagonal,
    values_of,
)

__all__ = ["Diagonal", "Identity", "KroneckerProduct"]


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KroneckerProduct(Operator[ArrayT], Scalable, Generic[ArrayT]):
    """A matrix (P, Q) as one Kronecker product of parts of any kind.

    With parts A_n of (p_n, q_n), P and Q the products of the p_n and of the q_n::

        M = A_0 (x) A_1 (x) ... (x) A_{N-1}

    Parameters
    ----------
    parts : sequence of N matrices, (p_n, q_n)
        Dense arrays or nested lists, `Diagonal`, `Identity`, sparse matrices of scipy.sparse (of CuPy beside
        its arrays), or linear operators: what has shape, dtype, matmat and rmatmat, as those of
        scipy.sparse.linalg and of ketcore have.  All are used as they are.

    Raises
    ------
    TypeError
        On dtypes and on mixed libraries or devices.
    ValueError
        On shapes.

    Notes
    -----
    Immutable; `==` is identity.  Results have the promoted dtype of the parts and the other operand;
    identities alone leave that of the operand, and count as NumPy's float64.  `+` and `-` give a
    KroneckerMatrix, of one term more.

    A product with a dense array takes one pass per part: a small matrix product for a dense one, an
    elementwise one for a `Diagonal`, none for an `Identity`, a sparse one for a sparse matrix, `matmat` for a
    linear operator.

    Examples
    --------
    >>> m = KroneckerProduct([Diagonal([1.0, 2.0]), Identity(2)])
    >>> (m @ [1.0, 1.0, 1.0, 1.0]).tolist()
    [1.0, 1.0, 2.0, 2.0]
    """

    parts: tuple[Any, ...]

    @overload
    def __init__(self: "KroneckerProduct[Any]", parts: Sequence[Untyped]) -> None: ...
    @overload
    def __init__(
        self: "KroneckerProduct[Host]", parts: Sequence[HostFactor | Diagonal[Host] | Identity]
    ) -> None: ...
    @overload
    def __init__(
        self: "KroneckerProduct[ForeignT]", parts: Sequence[ForeignT | Diagonal[ForeignT] | Identity]
    ) -> None: ...
    def __init__(self, parts: Any) -> None:
        object.__setattr__(self, "parts", as_parts(parts))

    @property
    def row_dims(self) -> tuple[int, ...]:
        """p_n: the radices of row numbers."""
        return tuple(part.shape[0] for part in self.parts)

    @property
    def col_dims(self) -> tuple[int, ...]:
        """q_n: the radices of column numbers."""
        return tuple(part.shape[1] for part in self.parts)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns, (P, Q)."""
        return prod(self.row_dims), prod(self.col_dims)

    @property
    def order(self) -> int:
        """The number N of parts."""
        return len(self.parts)

    @property
    def dtype(self) -> Any:
        """The promoted dtype of the parts; float64 where all are identities."""
        return kind_of(self.parts)[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers that the parts hold: of a sparse one its nonzeros, without their positions."""
        return sum(prod(array.shape) * itemsize(array) for array in values_of(self.parts))

    @property
    def T(self) -> "KroneckerProduct[ArrayT]":  # noqa: N802 - NumPy's name
        """The transpose; shares the parts."""
        return KroneckerProduct([transposed_part(part) for part in self.parts])

    def conj(self) -> "KroneckerProduct[ArrayT]":
        """The complex conjugate; what is real is shared.

        Returns
        -------
        KroneckerProduct

        Examples
        --------
        >>> KroneckerProduct([Diagonal([2.0j])]).conj().to_dense().imag.tolist()
        [[-2.0]]
        """
        return KroneckerProduct([conjugated_part(part) for part in self.parts])

    def astype(self, dtype: object) -> "KroneckerProduct[Any]":
        """The same matrix with parts of another floating or complex dtype.

        Parameters
        ----------
        dtype : dtype
            One of the library of the parts.  A real one drops imaginary parts, as `astype` of NumPy does,
            with its warning.

        Returns
        -------
        KroneckerProduct
            Of parts of the same kinds; of identities alone the smallest becomes a `Diagonal`.

        Raises
        ------
        TypeError
            On a dtype of NumPy that is neither floating nor complex.

        Examples
        --------
        >>> KroneckerProduct([Diagonal([1.0, 2.0])]).astype("float32").dtype
        dtype('float32')
        """
        return KroneckerProduct(self._stored(self._with_numbers(), dtype))

    @staticmethod
    @quiet
    def _stored(parts, dtype):
        """Parts in a dtype; what has the dtype of its operand takes it only where no part has another."""
        found = together(parts, lambda leaves: construction.cast(leaves, dtype, -1))

        def cast(array):
            return construction.cast([array], dtype, None)[0]

        # What has the dtype of its operand takes that of the others, but where there are none.
        alone = not kind_arrays(found)
        return [
            changed(part, cast) if is_operator(part) and (alone or kind_arrays([part])) else part
            for part in found
        ]

    @quiet
    def balance(self) -> "KroneckerProduct[ArrayT]":
        """The same matrix with equal Frobenius norms of the parts that hold numbers, identities aside.

        Returns
        -------
        KroneckerProduct
            Of parts of the same kinds; linear operators stay as they are.

        Examples
        --------
        >>> KroneckerProduct([[[8.0]], Identity(3), Diagonal([2.0])]).balance().parts[2].values.tolist()
        [4.0]
        """
        return KroneckerProduct(together(self.parts, scale.balanced))

    @quiet
    def _scaled(self, scalar, divide):
        """The product times a number, or over it, which one part carries.

        That is the first of the most precise parts that hold numbers, or else an operator; of identities
        alone, the smallest becomes a `Diagonal`.
        """
        parts = level_parts(self._with_numbers())
        known = [n for n, part in enumerate(parts) if not isinstance(part, Identity)]
        at = min(known, key=lambda n: _coarseness(parts[n]))
        return KroneckerProduct([*parts[:at], scaled_part(parts[at], scalar, divide), *parts[at + 1 :]])

    def _with_numbers(self):
        """The parts, of which one at least is no identity."""
        if not all(isinstance(part, Identity) for part in self.parts):
            return self.parts
        at = self.row_dims.index(min(self.row_dims))
        return [*self.parts[:at], unit_diagonal(self.row_dims[at], self._like()), *self.parts[at + 1 :]]

    def kron(self, other: "KroneckerProduct[ArrayT]") -> "KroneckerProduct[ArrayT]":
        """The Kronecker product with another on its right: the parts of both.

        Parameters
        ----------
        other : KroneckerProduct
            Its digits are the less significant ones.

        Returns
        -------
        KroneckerProduct

        Raises
        ------
        TypeError
            On other kinds, which `ketcore.kron` takes, and on mixed libraries.

        Examples
        --------
        >>> KroneckerProduct([Identity(2)]).kron(KroneckerProduct([Identity(3)])).shape
        (6, 6)
        """
        if not isinstance(other, KroneckerProduct):
            rule = "a KroneckerProduct (ketcore.kron takes other kinds)"
            raise TypeError(f"other must be {rule}, got {type(other).__name__}")
        return KroneckerProduct([*self.parts, *other.parts])

    if TYPE_CHECKING:

        def __add__(
            self, other: "KroneckerProduct[ArrayT] | KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT]"
        ) -> KroneckerMatrix[ArrayT]: ...
        def __sub__(
            self, other: "KroneckerProduct[ArrayT] | KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT]"
        ) -> KroneckerMatrix[ArrayT]: ...

    def _plus(self, other):
        """The sum as a KroneckerMatrix, whose factors are dense."""
        if isinstance(other, KroneckerProduct | KroneckerSum | KroneckerMatrix):
            return self._terms_beside(other) + other._terms_beside(self)
        return NotImplemented

    def _negative(self, beside):
        return -(self if self._arrays() else self._terms_beside(beside))

    @overload
    def __matmul__(self, other: "KroneckerProduct[ArrayT]") -> "KroneckerProduct[ArrayT]": ...
    @overload
    def __matmul__(
        self, other: KroneckerMatrix[ArrayT] | KroneckerSum[ArrayT]
    ) -> KroneckerMatrix[ArrayT]: ...
    @overload
    def __matmul__(self, other: Ket[ArrayT]) -> Ket[ArrayT]: ...
    @overload
    def __matmul__(self, other: ArrayT | Lists) -> ArrayT: ...
    @overload
    def __matmul__(self: "KroneckerProduct[Host]", other: Host) -> Host: ...
    def __matmul__(self, other: Any) -> Any:
        """M @ other: an array gives an array, a Ket a Ket, an operator an operator.

        Parameters
        ----------
        other : array, Ket or operator
            Dense: (Q,) or (..., Q, n), or on the grid: `(..., *col_dims)` gives `(..., *row_dims)`.  A Ket of
            the same dims keeps its rank.  A KroneckerProduct is multiplied part by part; a KroneckerMatrix or
            a KroneckerSum gives a KroneckerMatrix.

        Returns
        -------
        array, Ket, KroneckerProduct or KroneckerMatrix

        Raises
        ------
        TypeError
            On other kinds, and on mixed libraries or devices.
        ValueError
            On shapes, on the dims of a ket, and on dims that do not split at common places.

        Notes
        -----
        Cost: for dense arrays one pass per part, those that shrink the array first.  Of two products diagonal
        parts stay diagonal, identities cost nothing, sparse ones stay sparse; modes that are split
        differently are merged, as dense ones.

        Examples
        --------
        >>> (KroneckerProduct([[[1.0, 1.0]], Identity(2)]) @ [1, 2, 3, 4]).tolist()
        [4.0, 6.0]
        >>> m = KroneckerProduct([Diagonal([1.0, 2.0]), Identity(2)])
        >>> (m @ m).parts[0].values.tolist()
        [1.0, 4.0]
        """
        return self._on_dense(other)

    def _times(self, other):
        if isinstance(other, Ket):
            return self._on_ket(other)
        if isinstance(other, KroneckerProduct):
            self._check_inner(self, other)
            return KroneckerProduct(part_products.parts_product(self.parts, other.parts))
        return self._times_operator(other, True)

    def _times_left(self, other):
        return self._times_operator(other, False)

    def _times_operator(self, other, first):
        """`self @ other`, or `other @ self` if not `first`, for sums of terms."""
        if isinstance(other, KroneckerSum):
            other = other.to_kronecker()
        if not isinstance(other, KroneckerMatrix):
            return NotImplemented
        self._check_inner(*((self, other) if first else (other, self)))
        mine, others = (self.col_dims, other.row_dims) if first else (self.row_dims, other.col_dims)
        if mine == others:
            return KroneckerMatrix(*part_products.parts_times_matrix(self.parts, other, first))
        converted = self._terms_beside(other)
        return converted @ other if first else other @ converted

    @staticmethod
    def _check_inner(left, right):
        if left.shape[1] != right.shape[0]:
            shapes = f"{left.shape} and {right.shape}"
            raise ValueError(f"matrices must have shapes (m, k) and (k, n) for @, got {shapes}")

    def _apply(self, x, turned):
        return multiplied(self.T.parts if turned else self.parts, x)

    def _on_ket(self, ket):
        if ket.dims != self.col_dims:
            raise ValueError(f"ket must have dims {self.col_dims}, got {ket.dims}")
        # A leaf is a row vector: the part applies to its last axis.
        return Ket([on_rows(part, leaf) for part, leaf in zip(self.parts, ket.factors, strict=True)])

    def __getitem__(self, key: Key) -> ArrayT:
        """The dense row, rows, element or block that NumPy's rules choose.

        Parameters
        ----------
        key : int, slice, array of ints or of bools, or a pair of these
            As of `KroneckerMatrix`; indices on a device are read.

        Returns
        -------
        array

        Raises
        ------
        TypeError, ValueError, IndexError, MemoryError
            As KroneckerMatrix.
        TypeError
            On indices that are traced.

        Notes
        -----
        Cost: O(N) times the output.

        Examples
        --------
        >>> KroneckerProduct([Identity(10**6), Diagonal([1.0, 2.0])])[-1, -2:].tolist()
        [0.0, 2.0]
        """
        return part_blocks.parts_block(self.parts, key)

    def rows(self, ids: Index, *, out: ArrayT | None = None) -> ArrayT:
        """The dense rows of `ids`.

        Parameters
        ----------
        ids : array of ints, (...)
            Row numbers, which count from 0 and are never negative; all are read and checked, on a device too.
        out : array, (..., Q), optional
            NumPy and CuPy only: C-contiguous, of the shape and dtype of the result, which is written into it.

        Returns
        -------
        array, (..., Q)
            `out` where that is given.

        Raises
        ------
        TypeError
            Unless ids are integers; where they are traced; on an `out` of another library.
        IndexError
            On an id outside [0, rows).
        ValueError
            On an `out` that does not fit.

        Examples
        --------
        >>> KroneckerProduct([Identity(2), Diagonal([1.0, 2.0])]).rows([3]).tolist()
        [[0.0, 0.0, 0.0, 2.0]]
        """
        return self.row_kets(ids).to_dense(inf, out)

    def row_kets(self, ids: Index) -> Ket[ArrayT]:
        """The rows of `ids` as a batch of kets, not multiplied out.

        Parameters
        ----------
        ids : int or array of ints, (...)
            As of `rows`.

        Returns
        -------
        Ket
            Of batch shape (...), rank 1 and dims q_n.

        Raises
        ------
        TypeError, IndexError
            As `rows`.

        Examples
        --------
        >>> KroneckerProduct([Identity(2), Diagonal([1.0, 2.0])]).row_kets([3]).factors[1].tolist()
        [[[0.0, 2.0]]]
        """
        return part_blocks.parts_row_kets(self.parts, ids)

    def inner(self, other: Operator[ArrayT]) -> ArrayT:
        """The Frobenius inner product `sum_ij conj(self_ij) other_ij`.

        Parameters
        ----------
        other : KroneckerProduct, KroneckerMatrix or KroneckerSum
            Of the same shape and dims.

        Returns
        -------
        array, ()
            A scalar of NumPy, or an array of another library.

        Raises
        ------
        TypeError
            On other kinds, and on mixed libraries.
        ValueError
            Where shapes or dims differ.
        MemoryError
            Where a linear operator, or beside another kind any part, is too large to be made dense.

        Notes
        -----
        Cost: of two products that of their parts; a KroneckerMatrix meets dense factors.

        Examples
        --------
        >>> float(KroneckerProduct([Identity(10**9)]).inner(KroneckerProduct([Identity(10**9)])))
        1000000000.0
        """
        if not isinstance(other, KroneckerProduct):
            return self._terms_beside(other).inner(other)
        alignment.check_same_split(self, other)
        return _product_of(part_products.part_inner, self.parts, other.parts)

    def norm(self) -> ArrayT:
        """The Frobenius norm, real: the product of those of the parts.

        Returns
        -------
        array, ()
            A scalar of NumPy, or an array of another library, in the real dtype of the parts.

        Raises
        ------
        MemoryError
            Where a linear operator is too large to be made dense.

        Examples
        --------
        >>> float(KroneckerProduct([Identity(4), Diagonal([3.0, 4.0])]).norm())
        10.0
        """
        xp, like, _ = kind_of(self.parts)
        leaves = [
            xp.asarray([sqrt(part.size)], dtype=like.dtype, device=device_of(like))
            if isinstance(part, Identity)
            else numbers_of(part, like)
            for part in self.parts
        ]
        return Ket(leaves).norm()

    def sum(self, axis: int | None = None) -> ArrayT:
        """The sum of all elements, or over the rows or columns.

        Parameters
        ----------
        axis : {None, 0, 1, -1, -2}, optional
            None: all elements; 0 or -2: over the rows, (Q,); 1 or -1: over the columns, (P,).

        Returns
        -------
        array, (), (Q,) or (P,)
            Of all elements a scalar of NumPy, or an array of another library.

        Raises
        ------
        ValueError
            On another axis.
        MemoryError
            Naming the size, above 2**30 bytes.

        Examples
        --------
        >>> KroneckerProduct([Identity(2), [[1.0, 2.0]]]).sum(axis=0).tolist()
        [1.0, 2.0, 1.0, 2.0]
        """
        axis = shapes.check_sum_axis(axis)
        if axis is None:
            return _product_of(sum_of, self.parts)
        parts = self.parts if axis == 0 else self.T.parts
        _, like, dtype = kind_of(parts)
        shapes.check_result_size("axis", (self.shape[1 - axis],), itemsize(like), dtype)
        return Ket([column_sums(part, like) for part in parts]).to_dense(inf)

    def trace(self) -> ArrayT:
        """The sum of the diagonal: the product of traces where all parts are square, else over its elements.

        Returns
        -------
        array, ()
            A scalar of NumPy, or an array of another library.

        Raises
        ------
        MemoryError
            Where a linear operator that is not one of ours, or a part that is not square, is too large to be
            made dense.

        Examples
        --------
        >>> float(KroneckerProduct([Identity(10**9), Diagonal([1.0, 2.0])]).trace())
        3000000000.0
        """
        if self.row_dims != self.col_dims:
            return self.to_kronecker().trace()
        return _product_of(trace_of, self.parts)

    @quiet
    def diagonal(self, max_bytes: float = 2**30) -> ArrayT:
        """The elements M[i, i] for i < min(shape).

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.

        Returns
        -------
        array, (min(P, Q),)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`, which holds for each dense factor too where some part is not
            square.

        Examples
        --------
        >>> KroneckerProduct([Identity(2), Diagonal([1.0, 2.0])]).diagonal().tolist()
        [1.0, 2.0, 1.0, 2.0]
        """
        if self.row_dims != self.col_dims:
            return self.to_kronecker(max_bytes).diagonal(max_bytes)
        xp, like, dtype = kind_of(self.parts)
        size = self.shape[0]
        shapes.check_dense_size(size, itemsize(like), f"diagonal ({size},) of {dtype}", max_bytes)
        leaves = [xp.astype(diagonal_of(part, like), dtype) for part in self.parts]
        return Ket(leaves).to_dense(max_bytes)

    def to_kronecker(self, max_bytes: float = 2**30) -> KroneckerMatrix[ArrayT]:
        """The same matrix with dense factors.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What each factor may take; infinity for no limit.

        Returns
        -------
        KroneckerMatrix
            Of rank 1, which knows its identities.

        Raises
        ------
        MemoryError
            Naming the size, where a factor is above `max_bytes`.

        Examples
        --------
        >>> KroneckerProduct([Identity(2), Diagonal([1.0, 2.0])]).to_kronecker().identities
        frozenset({0})
        """
        return self._terms(self._like(), max_bytes)

    def _terms_beside(self, other):
        """`to_kronecker` beside another object, of which identities alone take library and dtype."""
        return self._terms((self if self._arrays() else other)._like(), 2**30)

    def _terms(self, like, max_bytes):
        """A Kronecker matrix of rank 1, of parts made dense."""
        for part in self.parts:
            what = f"factor {tuple(part.shape)} of {like.dtype}"
            shapes.check_dense_size(prod(part.shape), itemsize(like), what, max_bytes)
        identities = [n for n, part in enumerate(self.parts) if isinstance(part, Identity)]
        return KroneckerMatrix([as_dense(part, like) for part in self.parts], identities=identities)

    def to_dense(self, max_bytes: float = 2**30) -> ArrayT:
        """The dense matrix.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.

        Returns
        -------
        array, (P, Q)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.

        Notes
        -----
        What is too large to be held comes block by block from `iter_row_blocks`.

        Examples
        --------
        >>> KroneckerProduct([Diagonal([1.0, 2.0]), [[3.0]]]).to_dense().tolist()
        [[3.0, 0.0], [0.0, 6.0]]
        """
        _, like, dtype = kind_of(self.parts)
        what = f"{self.shape} array of {dtype}"
        size = prod(self.shape), itemsize(like)
        shapes.check_dense_size(*size, what, max_bytes, "iter_row_blocks(size)")
        return self.to_kronecker(max_bytes).to_dense(max_bytes)

    def _row_reader(self):
        """A row is one product vector: the rows that its digits pick from the parts."""
        return lambda start, stop: part_blocks.row_kets_at(self.parts, range(start, stop)).to_dense(inf)

    def _arrays(self):
        return tuple(kind_arrays(self.parts))

    def _like(self):
        return kind_of(self.parts)[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._kinds()}, dtype={self.dtype})"

    def _facts(self):
        """What notebooks show."""
        return {"shape": self.shape, "parts": self._kinds(), "dtype": self.dtype, "bytes": f"{self.nbytes:,}"}

    def _kinds(self):
        return ", ".join(f"{name_of(part)}{tuple(part.shape)}" for part in self.parts)


def _coarseness(part):
    """Small where numbers that change round little: where a part has them, and by their precision.

    An operator has only those of its products; one that holds no array has not even a dtype to change.
    """
    arrays = kind_arrays([part])
    precision = [namespace_of(array).finfo(array.dtype).bits for array in arrays]
    return not holds_values(part), -min(precision, default=0)


@quiet
def _product_of(number, *sides):
    """The product over the modes of a number of the part there, or of the parts of two sides."""
    xp, like, dtype = kind_of([part for side in sides for part in side])
    like = widened(like)
    levels = (level_parts(side) for side in sides)
    total = product_over_modes(number, like, *levels)
    return unboxed(xp.astype(total, dtype))
