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
from ketcore.array_types import ArrayT, ForeignT, Host, HostFactor, HostLike, Index, Key, Lists, Seed, Untyped
from ketcore.arrays.autodiff import as_leaf_view, from_leaf_view
from ketcore.arrays.checks import check_identities, check_shape, check_table_shapes, shapes_of
from ketcore.arrays.elementary import conjugated, itemsize, transposed, unboxed
from ketcore.arrays.namespaces import quiet
from ketcore.arrays.quantized import (
    QuantizedArray,
    as_kept,
    decoded,
    is_quantized,
    like_of,
    nbytes_of,
    with_axes,
)
from ketcore.lookups.stored_tables import check_stored
from ketcore.objects import alignment, arithmetic, blocks, construction, costs, display, operands, reductions
from ketcore.objects.ket import Ket
from ketcore.objects.operator import Operator, Scalable
from ketcore.products import term_plans
from ketcore.products.plans import Cost
from ketcore.shapes import check_int


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KroneckerMatrix(Operator[ArrayT], Scalable, Generic[ArrayT]):
    """A matrix (rows, columns) as a sum of R Kronecker products.

    With factors (p_n, q_n) in each term, P and Q the products of the p_n and of the q_n::

        M = sum_k  F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        One R for all; 2-D factors mean R = 1.  Mixed dtypes are promoted; nested lists and integers take
        library and dtype of the floating arrays beside them, and are of NumPy and float64 where there are
        none; arrays that fit are shared, not copied.  So each array (R, q_n) of the factors of a ket is one
        matrix: see `Ket.to_column`.  Matrices of scipy.sparse are made dense: a KroneckerProduct uses them as
        they are.
    shape : (int, int), (rows, columns), optional
        From (1, 1) to (P, Q): the leading block; None for all of it.
    identities : iterable of ints, or of R collections of ints, default ()
        Modes whose factors are known to be identity matrices in every term, or R collections of modes, one
        for each term; products skip them, and their values are not checked.

    Attributes
    ----------
    stored : tuple of N arrays, (R, p_n, q_n)
        The factors as they are kept, in one dtype; some may be of the kind QuantizedArray.
    factors : tuple of N arrays, (R, p_n, q_n)
        The same as arrays: where they are quantized, decoded at each use of the attribute.
    shape : (int, int)
        (rows, columns), ints of Python.
    term_identities : tuple of R frozensets of ints
        The modes that are known to be identities in each term.

    Raises
    ------
    TypeError
        On dtypes and on mixed libraries or devices.
    ValueError
        On shapes.

    Notes
    -----
    Immutable; `==` is identity, and hashing goes by it.  `np.asarray(matrix)` is refused: see `to_dense`.
    `[...]` takes integers, slices, integer arrays and masks by NumPy's rules, at the cost of its output.

    `@` takes arrays, Kronecker sums and products on either side, and kets on the right; `+` and `-` take
    operators of equal shape, whose ranks add, and the number 0; `*` and `/` take numbers.  A matrix is
    iterated over by its dense rows.

    Examples
    --------
    >>> m = KroneckerMatrix([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0]]])
    >>> m.shape, m[1].tolist(), float(m[1, 3])
    ((2, 4), [0.0, 3.0, 0.0, 4.0], 4.0)
    >>> (m @ [1, 1, 1, 1]).tolist(), (m + m).rank
    ([3.0, 7.0], 2)
    """

    stored: tuple[ArrayT | QuantizedArray[ArrayT], ...]
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
        xp, factors, dtype, _ = check_stored("factors", construction.dense_factors(factors))
        factors = [with_axes(f, 3) if f.ndim == 2 else f for f in factors]
        check_table_shapes("factors", shapes_of(factors))
        object.__setattr__(self, "stored", as_kept(xp, factors, dtype))
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

        Parameters
        ----------
        shape : (int, int), (rows, columns)
            Each >= 1.
        order : int, optional
            The number of modes, unless dims say so; dims that are not given come from `suggest_dims`.
        row_dims : sequence of N ints, optional
            The p_n, whose product is at least the number of rows.
        col_dims : sequence of N ints, optional
            The q_n, whose product is at least the number of columns.
        rank : int, default 1
            The number of terms, >= 0.
        std : float, default 1.0
            At least 0.
        rng : int, Generator or None, optional
            A seed, or several in a list; or a Generator of NumPy, or of CuPy, whose arrays the factors then
            are.
        dtype : dtype, default "float64"
            A floating or complex one of NumPy; real and imaginary parts of complex factors are independent.

        Returns
        -------
        KroneckerMatrix
            Cropped to `shape` where the product of the dims is larger.

        Raises
        ------
        TypeError, ValueError
            On arguments of another kind, shape or value, and unless `order` and dims give one order.

        Examples
        --------
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
        """The sum of the Kronecker products of lists of matrices: `[[A, B], [C, D]]` is A (x) B + C (x) D.

        Parameters
        ----------
        terms : sequence of R sequences of N arrays, (p_n, q_n)
            Mode n has one shape in all terms.

        Returns
        -------
        KroneckerMatrix

        Raises
        ------
        TypeError
            On dtypes and on mixed libraries or devices.
        ValueError
            On shapes, and on terms of different lengths.

        Examples
        --------
        >>> KroneckerMatrix.from_terms([[np.eye(2), np.eye(3)], [np.eye(2), np.ones((3, 3))]]).rank
        2
        """
        return cls(construction.stacked_terms(terms))

    @property
    def factors(self: Any) -> tuple[ArrayT, ...]:
        """The factors as arrays (R, p_n, q_n): those of `stored`, decoded anew where they are quantized."""
        return tuple(map(decoded, self.stored))

    @property
    def row_dims(self) -> tuple[int, ...]:
        """p_n: the radices of row numbers."""
        return reductions.dims_of(self.stored, 1)

    @property
    def col_dims(self) -> tuple[int, ...]:
        """q_n: the radices of column numbers."""
        return reductions.dims_of(self.stored, 2)

    @property
    def order(self) -> int:
        """The number N of modes."""
        return len(self.stored)

    @property
    def rank(self) -> int:
        """The number R of terms (not the rank of linear algebra)."""
        return self.stored[0].shape[0]

    @property
    def identities(self) -> frozenset[int]:
        """The modes that are known to be identities in all terms.

        Those of each term are `term_identities`, R sets.
        """
        return term_plans.common(self.term_identities)

    @property
    def dtype(self) -> Any:
        """The dtype of the factors and of every result."""
        return self.stored[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the factors, as they are stored."""
        return sum(map(nbytes_of, self.stored))

    @property
    def T(self) -> "KroneckerMatrix[ArrayT]":  # noqa: N802 - NumPy's name
        """The transpose; shares the factors."""
        return KroneckerMatrix([transposed(f) for f in self.factors], self.shape[::-1], self.term_identities)

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"stored": tuple(map(as_leaf_view, self.stored))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state | {"stored": tuple(map(from_leaf_view, state["stored"]))})

    def __iter__(self) -> Iterator[ArrayT]:
        """The dense rows, one after the other."""
        return (self[i] for i in range(self.shape[0]))

    def __getitem__(self, key: Key) -> ArrayT:
        """The dense row, rows, element or block that NumPy's rules choose.

        Parameters
        ----------
        key : int, slice, array of ints or of bools, or a pair of these
            Negative ones count from the end; a pair of integer arrays broadcasts; a boolean mask has the
            shape of the axes that it stands for.

        Returns
        -------
        array
            Of the shape that NumPy gives it; a single element of NumPy is a scalar.

        Raises
        ------
        TypeError
            On None, Ellipsis and floats.
        IndexError
            On an index outside, but on a device, where it gives NaN; on a mask of another shape.
        MemoryError
            Naming the size, above 2**30 bytes, unless an index array says how many rows there are.

        Notes
        -----
        Cost: that of the output: O(R) per element within rows or columns, O(R N) for scattered ones.

        Examples
        --------
        >>> KroneckerMatrix([np.eye(2), np.eye(2)])[[0, -1], 2:].tolist()
        [[0.0, 0.0], [0.0, 1.0]]
        """
        return unboxed(blocks.block(self.stored, self.shape, key))

    def _row_reader(self):
        factors = self.stored if self.order == 1 else self.factors
        return lambda start, stop: blocks.row_block(factors, range(start, stop), self.shape[1])

    def rows(
        self: Any,
        ids: Index,
        check: bool | None = None,
        out: ArrayT | None = None,
        *,
        row_scale: ArrayT | HostLike | None = None,
    ) -> ArrayT:
        """An embedding lookup: the dense rows of `ids`.

        Parameters
        ----------
        ids : array of ints, (...)
            Row numbers, which count from 0 and are never negative.
        check : bool, optional
            None: host ids are checked, ids on a device are not (a bad one gives a row of NaN); True: always,
            waiting for the device; False: never.
        out : array, (..., columns), optional
            NumPy and CuPy only: C-contiguous, of the shape and dtype of the result, which is written into it.
        row_scale : array, (rows,), optional
            One number for each row of the matrix, of any sign, that the row is multiplied by.

        Returns
        -------
        array, (..., columns)
            `out` where that is given.

        Raises
        ------
        TypeError
            Unless ids are integers; on an `out` of another library.
        IndexError
            On an id outside [0, rows), where ids are checked.
        ValueError
            On an `out` or a `row_scale` that does not fit.

        See Also
        --------
        ketcore.rows : The same on factors, with derivatives.

        Notes
        -----
        Cost: O(R) per element of the output.

        Examples
        --------
        >>> KroneckerMatrix([np.eye(2), np.eye(2)]).rows([3]).tolist()
        [[0.0, 0.0, 0.0, 1.0]]
        """
        return ops.rows(self.stored, ids, self.shape, row_scale=row_scale, check=check, out=out)

    def row_kets(self: Any, ids: Index, check: bool | None = None) -> Ket[ArrayT]:
        """The rows of `ids` as a batch of kets, not multiplied out.

        Parameters
        ----------
        ids : int or array of ints, (...)
            As of `rows`.
        check : bool, optional
            As of `rows`.

        Returns
        -------
        Ket
            Of batch shape (...), rank R and dims q_n.

        Raises
        ------
        TypeError, IndexError
            As `rows`.
        ValueError
            Where the columns are cropped, as those of kets are not.

        See Also
        --------
        ketcore.row_kets : The same on factors, with derivatives.

        Notes
        -----
        Cost: a copy of R sum q_n numbers for each id.

        Examples
        --------
        >>> KroneckerMatrix([np.eye(2), np.eye(3)]).row_kets([4, 5]).shape
        (2, 6)
        """
        kets: Any = ops.row_kets(self.stored, ids, self.shape, check=check)
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
        """A @ other: an array gives an array, a Ket a Ket, an operator a KroneckerMatrix.

        Parameters
        ----------
        other : array, Ket, KroneckerMatrix, KroneckerSum or KroneckerProduct
            An array (columns,) or (..., columns, n), integers too; what is neither may be on the grid:
            `(..., *col_dims)`, of two or more modes and not cropped, gives `(..., *row_dims)`.  Of what is
            structured ranks multiply, and dims must split at common places: (2, 3) and (6,) do, (2, 3) and
            (3, 2) do not.

        Returns
        -------
        array, Ket or KroneckerMatrix

        Raises
        ------
        TypeError
            On other kinds, and on mixed libraries or devices.
        ValueError
            On shapes, on dims, and for a Ket where the rows are cropped.

        Notes
        -----
        Cost: see `cost`; on kets and matrices that of N products of factors.

        Examples
        --------
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
        """`other @ A` for an array (..., rows), or `(..., *row_dims)`, which gives `(..., *col_dims)`.

        Tied logits are `x @ table.T`.
        """
        if not operands.is_dense(other):
            return super().__rmatmul__(other)
        return self.rmatmul(other)

    @overload
    def matmul(self, x: ArrayT | Lists, out: ArrayT | None = None) -> ArrayT: ...
    @overload
    def matmul(self: "KroneckerMatrix[Host]", x: Host, out: Host | None = None) -> Host: ...
    def matmul(self: Any, x: Any, out: Any = None) -> Any:
        """The product A @ x with an array, written into `out` where that is given.

        Parameters
        ----------
        x : array, (columns,), (..., columns, n) or `(..., *col_dims)`
            Nested lists and integers are taken in library and dtype of the matrix.  What has neither of the
            first two shapes may be on the grid, if the matrix has two or more modes and is not cropped.
        out : array, (rows,), (..., rows, n) or `(..., *row_dims)`, optional
            NumPy and CuPy only: C-contiguous, of the shape and dtype of the result, which is written into it.

        Returns
        -------
        array, (rows,), (..., rows, n) or `(..., *row_dims)`
            In the promoted dtype of factors and `x`; `out` where that is given.

        Raises
        ------
        TypeError
            On dtypes, on mixed libraries, and on kets and operators, which `@` takes.
        ValueError
            On shapes.

        See Also
        --------
        kron_matmul : The same on factors, with derivatives.

        Notes
        -----
        Cost: time `O(R |x| sum p_n)` for square factors, memory that of the output; `cost` counts it for any.

        Examples
        --------
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
        """The product x @ A with an array, written into `out` where that is given.

        Parameters
        ----------
        x : array, (..., rows) or `(..., *row_dims)`
            As of `matmul`.
        out : array, (..., columns) or `(..., *col_dims)`, optional
            As of `matmul`.

        Returns
        -------
        array, (..., columns) or `(..., *col_dims)`
            In the promoted dtype of factors and `x`; `out` where that is given.

        Raises
        ------
        TypeError, ValueError
            As `matmul`.

        See Also
        --------
        kron_matmul : The same on factors, with derivatives.

        Notes
        -----
        Cost: as that of `matmul`.

        Examples
        --------
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
        """The numbers `x^H A y` for two kets or two arrays; batches broadcast.

        Parameters
        ----------
        x : Ket, or array, (..., rows) or `(..., *row_dims)`
            It is conjugated.
        y : Ket, or array, (..., columns) or `(..., *col_dims)`
            A ket where `x` is one.

        Returns
        -------
        array, (...)
            In the promoted dtype.

        Raises
        ------
        TypeError
            Unless both are kets or both arrays.
        ValueError
            On shapes and batches, and on kets whose dims do not split where those of the matrix do.

        See Also
        --------
        kron_sandwich : The same on factors and arrays, with derivatives.
        ket_sandwich : The same on factors and leaves, with derivatives.

        Examples
        --------
        >>> float(KroneckerMatrix([np.eye(2), np.eye(2)]).sandwich(np.ones(4), np.ones(4)))
        4.0
        """
        if isinstance(x, Ket) and isinstance(y, Ket):
            return alignment.aligned_sandwich(self, x, y)
        return operands.sandwich(self, x, y)

    def kron(self, other: Operator[ArrayT]) -> "KroneckerMatrix[ArrayT]":
        """The Kronecker product with another operator on its right: orders add, ranks multiply.

        Parameters
        ----------
        other : KroneckerMatrix, KroneckerSum or KroneckerProduct
            Its digits are the less significant ones; parts become dense factors.

        Returns
        -------
        KroneckerMatrix

        Raises
        ------
        TypeError
            On other kinds, of which `ketcore.kron` takes some.
        ValueError
            Where `other` is cropped, as the product is then no leading block of one Kronecker matrix (but for
            an axis on which this matrix has size 1); a crop of this matrix carries over.
        MemoryError
            Where a part of a KroneckerProduct is too large to be made dense.

        Examples
        --------
        >>> KroneckerMatrix([np.eye(2)]).kron(KroneckerMatrix([np.eye(3)])).shape
        (6, 6)
        """
        return KroneckerMatrix(*alignment.matrix_kron(self, _as_matrix(self, other, "kron")))

    def conj(self) -> "KroneckerMatrix[ArrayT]":
        """The complex conjugate; a real matrix shares its factors.

        Returns
        -------
        KroneckerMatrix

        Examples
        --------
        >>> KroneckerMatrix([[[2.0j]]]).conj().to_dense().imag.tolist()
        [[-2.0]]
        """
        factors = [conjugated(f) for f in self.factors]
        return KroneckerMatrix(factors, self.shape, self.term_identities)

    @overload
    def astype(self: "KroneckerMatrix[Host]", dtype: object) -> "KroneckerMatrix[Host]": ...
    @overload
    def astype(self, dtype: object) -> "KroneckerMatrix[ArrayT]": ...
    @quiet
    def astype(self, dtype: object) -> "KroneckerMatrix[Any]":
        """The same matrix with factors of another floating or complex dtype.

        Parameters
        ----------
        dtype : dtype
            One of the library of the factors.  A real one drops imaginary parts, as `astype` of NumPy does,
            with its warning.

        Returns
        -------
        KroneckerMatrix
            Factors that have the dtype are shared.

        Raises
        ------
        TypeError
            On a dtype of NumPy that is neither floating nor complex.

        Notes
        -----
        Where a factor leaves the range of the dtype, the factors of its term are brought to one level first
        (NumPy only).

        Examples
        --------
        >>> KroneckerMatrix([np.eye(2)]).astype("complex64").dtype
        dtype('complex64')
        """
        factors = construction.cast(self.factors, dtype, None, self.term_identities)
        return KroneckerMatrix(factors, self.shape, self.term_identities)

    def dequantize(self) -> "KroneckerMatrix[ArrayT]":
        """The same matrix with factors that are arrays; itself where they are.

        Returns
        -------
        KroneckerMatrix

        Examples
        --------
        >>> from ketcore import quantize
        >>> small = quantize(KroneckerMatrix([np.ones((64, 64))], (50, 64)))
        >>> small.nbytes, small.dequantize().nbytes
        (4352, 16384)
        """
        if not is_quantized(self.stored):
            return self
        factors: Any = self.factors
        return KroneckerMatrix(factors, self.shape, self.term_identities)

    @quiet
    def balance(self) -> "KroneckerMatrix[ArrayT]":
        """The same matrix with factors of equal Frobenius norm within each term.

        Returns
        -------
        KroneckerMatrix
            Its factors are new, and none is marked as an identity; a term with a factor of zeros has zeros in
            all modes.

        Examples
        --------
        >>> [float(f.max()) for f in KroneckerMatrix([[[8.0]], [[2.0]]]).balance().factors]
        [4.0, 4.0]
        """
        return KroneckerMatrix(arithmetic.balanced_factors(self.factors), self.shape)

    def inner(self: Any, other: Operator[ArrayT]) -> ArrayT:
        """The Frobenius inner product `sum_ij conj(self_ij) other_ij`.

        Parameters
        ----------
        other : KroneckerMatrix, KroneckerSum or KroneckerProduct
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
            Where a part of a KroneckerProduct is too large to be made dense.

        See Also
        --------
        kron_inner : The same on factors, with derivatives.

        Notes
        -----
        Cost: as `kron_inner`.

        Examples
        --------
        >>> float(KroneckerMatrix([np.eye(3)]).inner(KroneckerMatrix([np.ones((3, 3))])))
        3.0
        """
        matrix = _as_matrix(self, other, "inner")
        alignment.check_same_split(self, matrix)
        return unboxed(ops.kron_inner(self.factors, matrix.factors, self.shape))

    def norm(self: Any) -> ArrayT:
        """The Frobenius norm, real.

        Returns
        -------
        array, ()
            A scalar of NumPy, or an array of another library, in the real dtype of the factors.

        See Also
        --------
        kron_norm : The same on factors, with derivatives.

        Notes
        -----
        Rounding and cancellation are as in `Ket.norm`.

        Examples
        --------
        >>> float(KroneckerMatrix([np.eye(4), np.ones((2, 2))]).norm())
        4.0
        """
        return unboxed(ops.kron_norm(self.factors, self.shape))

    def sum(self, axis: int | None = None) -> ArrayT:
        """The sum of all elements, or over the rows or columns.

        Parameters
        ----------
        axis : {None, 0, 1, -1, -2}, optional
            None: all elements; 0 or -2: over the rows, (columns,); 1 or -1: over the columns, (rows,).

        Returns
        -------
        array, (), (columns,) or (rows,)
            Of all elements a scalar of NumPy, or an array of another library.

        Raises
        ------
        ValueError
            On another axis.
        MemoryError
            Naming the size, above 2**30 bytes.

        Notes
        -----
        Cost: that of sums of the factors and of the output: a crop is at most N^2 matrices that are not
        cropped.

        Examples
        --------
        >>> KroneckerMatrix([np.eye(2), np.ones((2, 2))]).sum(axis=0).tolist()
        [2.0, 2.0, 2.0, 2.0]
        """
        return reductions.sums(self.factors, self.shape, axis)

    def diagonal(self, max_bytes: float = 2**30) -> ArrayT:
        """The elements M[i, i] for i < min(shape).

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.

        Returns
        -------
        array, (min(shape),)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.

        Notes
        -----
        Cost: O(R) per element for square factors, O(R N) otherwise.

        Examples
        --------
        >>> KroneckerMatrix([np.eye(2), np.full((2, 2), 5.0)]).diagonal().tolist()
        [5.0, 5.0, 5.0, 5.0]
        """
        return reductions.diagonal(self.factors, self.shape, max_bytes)

    def trace(self: Any) -> ArrayT:
        """The sum of the diagonal.

        Returns
        -------
        array, ()
            A scalar of NumPy, or an array of another library.

        See Also
        --------
        kron_trace : The same on factors, with derivatives.

        Notes
        -----
        Cost: that of the factors where they are square, alone or merged with their neighbours, else of the
        diagonal.

        Examples
        --------
        >>> float(KroneckerMatrix([np.eye(2)] * 40).trace()) == 2.0**40
        True
        """
        return unboxed(ops.kron_trace(self.factors, self.shape))

    def to_dense(self, max_bytes: float = 2**30, out: ArrayT | None = None) -> ArrayT:
        """The dense matrix.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.
        out : array, (rows, columns), optional
            NumPy and CuPy only: C-contiguous, of the shape and dtype of the result, which is written into it.

        Returns
        -------
        array, (rows, columns)
            `out` where that is given.

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.
        TypeError, ValueError
            On an `out` that does not fit.

        Notes
        -----
        Cost: O(R) per element.  What is too large to be held comes block by block from `iter_row_blocks`.

        Examples
        --------
        >>> KroneckerMatrix([[[1.0, 2.0]], [[3.0], [4.0]]]).to_dense().tolist()
        [[3.0, 6.0], [4.0, 8.0]]
        """
        what = f"{self.shape} array of {self.dtype}"
        size = prod(self.shape), itemsize(self._like())
        shapes.check_dense_size(*size, what, max_bytes, "iter_row_blocks(size)")
        return blocks.row_block(self.factors, range(self.shape[0]), self.shape[1], out)

    def cost(self, name: str = "matmul", n: int = 1) -> Cost:
        """What a method would take: flops, bytes, path and engine, from the sizes alone.

        Parameters
        ----------
        name : {"matmul", "rmatmul", "rows", "row_kets", "gather", "to_dense"}, default "matmul"
            "gather" is that of single elements; products are those with dense arrays.
        n : int, default 1
            Columns of "matmul", rows of "rmatmul", ids of "rows" and "row_kets", elements of "gather".

        Returns
        -------
        Cost
            A NamedTuple of flops, bytes and path: how it is computed.  Its attribute `engine` says by what.

        Raises
        ------
        TypeError, ValueError
            On name and n.

        Examples
        --------
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
        facts |= display.storage(self.stored)
        return facts | display.sizes(
            self._parameters(), self.nbytes, prod(self.shape) * itemsize(self._like())
        )

    def _parameters(self):
        return sum(prod(f.shape) for f in self.stored)

    def _like(self):
        return like_of(self.stored[0])


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

    Parameters
    ----------
    dims : int or sequence of N ints
        Each >= 1.
    dtype : dtype, default "float64"
        A floating or complex one of NumPy; not None.
    like : array of any shape, optional
        An array whose library and device the factors take; None for NumPy.

    Returns
    -------
    KroneckerMatrix
        Of rank 1, with all modes marked as identities: products skip them.

    Raises
    ------
    TypeError, ValueError
        On dims, dtype and like.

    Examples
    --------
    >>> eye((2, 3)).shape, float(eye((2, 3)).trace())
    ((6, 6), 6.0)
    """
    identities = construction.identities(dims, dtype, like)
    return KroneckerMatrix(identities, identities=range(len(identities)))
