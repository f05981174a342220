"""What kets and operators share, so that libraries, numbers, `@` and solvers know how to treat them.

No library makes arrays of them, numbers multiply them, operators stand beside `@` and are what solvers take.

`Structured` is for all objects, `Scalable` for what numbers multiply, `Operator` for operators, `BarePart`
for what is no operator by itself.  A class says what is its own: its arrays, `shape`, `dtype`, `T`, `conj`,
`_scaled`, `_apply`, `_facts`.

Sums and products of two objects are asked for in one place, `_sum` and `_product`: of the left one, then of
the right one (`_plus`, `_times`, `_times_left`), and what neither knows is refused in words.
"""

from math import prod
from numbers import Complex
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, overload

import numpy as np

from ketcore.array_types import AnyArray, ArrayT, Host, Lists, Scalar
from ketcore.arrays import solvers, tokens
from ketcore.objects import arithmetic, display, numpy_calls, operands
from ketcore.objects.alignment import aligned_inner
from ketcore.objects.operands import applied, is_dense, operand, written
from ketcore.objects.refusals import divisor_refusal, factor_refusal, product_refusal, sum_refusal
from ketcore.objects.row_blocks import RowBlocks
from ketcore.shapes import as_int, check_int, checked_length, shown


class Structured:
    """What is no array: how libraries are to treat it, and how it describes itself."""

    def _refuse_conversion(self, *args: Any, **options: Any) -> NoReturn:
        """What libraries call to make an array of an object: nothing goes dense silently."""
        name, way = type(self).__name__, self._SUMS.removesuffix("to_dense()")
        way = f"{way}.to_dense(max_bytes=)".removeprefix(".")
        raise TypeError(f"a {name} must be made dense by {way}, got an implicit conversion")

    # Where libraries look at a number, it is above that of their arrays.
    __array_priority__: float = 1000.0
    # What never returns would count as a method that returns an array: checkers are told that there is none.
    if TYPE_CHECKING:
        __array__: None
        __dlpack__: None
        __dlpack_device__: None
        # By which arrays and scalars of NumPy leave their operators to the object.
        __array_ufunc__: None
    else:
        __array__ = __dlpack__ = __dlpack_device__ = _refuse_conversion

        def __array_ufunc__(self, ufunc, method, *inputs, **options):
            """Not None, by which arrays would leave their operators to the object, but not those in place."""
            return numpy_calls.ufunc_answer(self, ufunc, method, inputs, options)

        def __array_function__(self, function, types, args, options):
            return numpy_calls.function_answer(self, function, args, options)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        """By what Dask names an object: equal where kind, dtypes, shapes and values are."""
        return tokens.object_token(self)

    # What a class does not have though others do, and what serves instead.
    _INSTEAD: ClassVar[dict[str, str]] = {}
    # What serves where sums and multiples, or products, do not.
    _SUMS: ClassVar[str] = "to_dense()"
    _PRODUCTS: ClassVar[str] = "to_dense()"
    # What serves where elementwise products do not.
    _FACTORS: ClassVar[str] = "@, hadamard or to_dense()"

    # Checkers are told of + and - in the classes that have them, and of no attribute that is not there.
    if not TYPE_CHECKING:

        def __contains__(self, value):
            """Python would compare rows, whose equality is no truth value."""
            kind = type(self).__name__
            raise TypeError(f"value must be looked for in to_dense(), not in a {kind}, got {shown(value)}")

        def __getattr__(self, name):
            kind, way = type(self).__name__, self._INSTEAD.get(name)
            if way is None:
                raise AttributeError(f"{kind!r} object has no attribute {name!r}", name=name, obj=self)
            raise AttributeError(f"a {kind} has no {name}: {way} serves instead")

        def __add__(self, other):
            return self._sum(other, "+")

        def __radd__(self, other):
            return self._left_sum(other, "+")

        def __sub__(self, other):
            return self._sum(other, "-")

        def __rsub__(self, other):
            return self._left_sum(other, "-")

        def __matmul__(self, other):
            return self._product(other)

        def __rmatmul__(self, other):
            return _refused(other, product_refusal, self)

        def __mul__(self, scalar):
            return _refused(scalar, factor_refusal, self)

        __rmul__ = __truediv__ = __rtruediv__ = __mul__

        def __neg__(self):
            raise factor_refusal(self, -1)

    def _plus(self, other: "Structured") -> Any:
        """The sum with another object, NotImplemented where this kind does not know that one."""
        return NotImplemented

    def _times(self, other: "Structured") -> Any:
        """`self @ other`, NotImplemented where this kind does not know that one."""
        return NotImplemented

    def _times_left(self, other: "Structured") -> Any:
        """`other @ self`, NotImplemented where this kind does not know that one."""
        return NotImplemented

    def _sum(self, other: Any, sign: str) -> Any:
        """`self + other` or `self - other`: zero is that of every kind."""
        if not isinstance(other, Structured):
            if _is_zero(other):
                return self
            return _refused(other, sum_refusal, self, sign)
        found = NotImplemented
        if sign == "+" or isinstance(other, Scalable):
            added: Any = other
            other = other if sign == "+" else added._negative(self)
            found = self._plus(other)
            found = other._plus(self) if found is NotImplemented else found
        if found is NotImplemented:
            raise sum_refusal(self, other, sign)
        return found

    def _left_sum(self, other: Any, sign: str) -> Any:
        """`other + self` or `other - self`, where `other` is no object."""
        if _is_zero(other):
            own: Any = self
            return self if sign == "+" else -own
        return _refused(other, sum_refusal, self, sign)

    def _product(self, other: Any) -> Any:
        """`self @ other` for what is no array."""
        if not isinstance(other, Structured):
            return _refused(other, product_refusal, self)
        found = self._times(other)
        found = other._times_left(self) if found is NotImplemented else found
        if found is NotImplemented:
            raise product_refusal(self, other)
        return found

    def _like(self: Any) -> AnyArray:
        """An array of the library, device and dtype of the object."""
        return self.factors[0]

    def _facts(self) -> dict[str, Any]:
        """What `repr` and notebooks show."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return display.as_text(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return display.as_html(type(self).__name__, self._facts())


def _is_zero(other: Any) -> bool:
    """Whether `other` is the number zero; what other libraries hold is not looked at."""
    number = other[()] if isinstance(other, np.ndarray) and not other.ndim else other
    return isinstance(number, Complex) and number == 0


def _refused(other: Any, refusal: Any, own: Structured, *rest: Any) -> Any:
    """What `+`, `*` or `@` returns, or raises, beside what it does not take: others may know better."""
    if is_dense(other) or arithmetic.is_scalar(other) or isinstance(other, Structured):
        raise refusal(own, other, *rest)
    return NotImplemented


class Scalable(Structured):
    """What numbers multiply and divide, in its own precision."""

    def _scaled(self, scalar: Any, divide: bool) -> Self:
        """The object times a number, or over it."""
        raise NotImplementedError

    def __neg__(self) -> Self:
        """The object times -1."""
        return self * -1

    def _negative(self, beside: Structured) -> Structured:
        """-self to be added to another object."""
        return -self

    def __mul__(self, scalar: Scalar) -> Self:
        """The product with a number (scalars only), in the precision of the object.

        Parameters
        ----------
        scalar : number, or array without axes
            A complex one makes a real object complex.

        Returns
        -------
        Ket or operator
            Of the same kind.

        Raises
        ------
        TypeError
            On arrays with axes, and on a long double.
        ValueError
            On an int that float64 does not hold.

        Examples
        --------
        >>> from ketcore import ket
        >>> (2 * ket([1.0, 2.0])).to_dense().tolist()
        [2.0, 4.0]
        """
        if not arithmetic.is_scalar(scalar):
            return _refused(scalar, factor_refusal, self)
        return self._scaled(scalar, False)

    __rmul__ = __mul__

    def __truediv__(self, scalar: Scalar) -> Self:
        """The object over a number (scalars only), in its own precision."""
        if not arithmetic.is_scalar(scalar):
            return _refused(scalar, factor_refusal, self)
        return self._scaled(scalar, True)

    if not TYPE_CHECKING:

        def __rtruediv__(self, other):
            return _refused(other, divisor_refusal, self)


# What operators have and parts do not; what all operators share is found in `Operator`.
_OF_OPERATORS = frozenset(
    {"T", "astype", "balance", "conj", "diagonal", "dtype", "inner", "kron", "nbytes", "norm"}
    | {"order", "row_kets", "rows", "sum", "to_dense", "trace"}
)


class BarePart(Structured):
    """What is a part of a KroneckerProduct and no operator by itself."""

    _SUMS = _PRODUCTS = "KroneckerProduct([part])"

    if not TYPE_CHECKING:

        def __getattr__(self, name):
            if name in _OF_OPERATORS or (name[0] != "_" and hasattr(Operator, name)):
                way = f"KroneckerProduct([part]).{name} serves instead"
                raise AttributeError(f"a {type(self).__name__} has no {name}: {way}")
            return super().__getattr__(name)

        def __getitem__(self, key):
            raise TypeError(
                f"a {type(self).__name__} has no elements: KroneckerProduct([part])[key] serves instead"
            )


class Operator(Structured, Generic[ArrayT]):
    """A matrix that is not formed: its products with arrays, its rows in blocks, and what solvers ask for.

    Of `self` its methods use what a class has of its own, which they are not told of.
    """

    @property
    def H(self) -> Self:  # noqa: N802 - the name of NumPy's matrices
        """The conjugate transpose; a real operator shares its arrays."""
        own: Any = self
        return own.T.conj()

    @property
    def mT(self) -> Self:  # noqa: N802 - the name of the array API
        """The transpose, by the name of the array API: an operator has no batch."""
        own: Any = self
        return own.T

    @property
    def ndim(self) -> int:
        """The number of axes, 2."""
        return 2

    @property
    def size(self: Any) -> int:
        """The number of rows times that of columns: an int of Python, which does not overflow."""
        return prod(self.shape)

    def transpose(self, *axes: Any) -> Self:
        """The transpose, `T`, by the name of the method of arrays.

        Parameters
        ----------
        *axes : ints, or one tuple of ints, optional
            None, None or (1, 0), as NumPy takes them: no other order transposes.

        Returns
        -------
        Operator
            Of the same kind.

        Raises
        ------
        ValueError
            On other axes.

        Examples
        --------
        >>> from ketcore import KroneckerMatrix
        >>> KroneckerMatrix([[[1.0, 2.0]], [[3.0, 4.0, 5.0]]]).transpose().shape
        (6, 1)
        """
        given = axes[0] if len(axes) == 1 else axes
        known = isinstance(given, list | tuple) and [as_int(axis) for axis in given] in ([], [1, 0])
        if given is not None and not known:
            raise ValueError(f"axes must be None or (1, 0), got {shown(given)}")
        return self.mT

    def adjoint(self) -> Self:
        """The conjugate transpose, `H`, by the name that linear operators of SciPy have for it.

        Returns
        -------
        Operator
            Of the same kind.

        Examples
        --------
        >>> from ketcore import KroneckerMatrix
        >>> KroneckerMatrix([[[1.0, 2.0]], [[3.0, 4.0, 5.0]]]).adjoint().shape
        (6, 1)
        """
        return self.H

    def dot(self: Any, other: Any) -> Any:
        """The product A @ other, by the name of the method of arrays.

        Parameters
        ----------
        other : array, (columns,), (..., columns, n) or `(..., *col_dims)`, Ket or operator
            What `@` takes.

        Returns
        -------
        array, Ket or operator
            What `@` gives.

        Raises
        ------
        TypeError, ValueError
            As `@`, for what that leaves to `other` too.

        Examples
        --------
        >>> from ketcore import eye
        >>> eye((2, 2)).dot([1, 2, 3, 4]).tolist()
        [1.0, 2.0, 3.0, 4.0]
        """
        found = self.__matmul__(other)
        if found is NotImplemented:
            raise product_refusal(self, other)
        return found

    def toarray(self, max_bytes: float = 2**30) -> ArrayT:
        """The dense matrix, `to_dense`, by the name that sparse matrices of SciPy have for it.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.

        Returns
        -------
        array, (rows, columns)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.

        Examples
        --------
        >>> from ketcore import eye
        >>> eye(2).toarray().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        own: Any = self
        return own.to_dense(max_bytes)

    def __bool__(self) -> bool:
        """True: a size beyond 2**63, which `len` cannot have, is no reason to fail."""
        return True

    def __len__(self: Any) -> int:
        """The number of rows; OverflowError where Python does not count so far."""
        return checked_length(self.shape[0])

    def _operand(self: Any, value: Any) -> AnyArray:
        """What stands beside `@`, as an array."""
        return operand("x", value, self)

    def _grid(self: Any, side: int) -> tuple[int, ...]:
        """The row dims (side -2) or column dims (-1); () where numbers of rows and columns are no grid."""
        both = self.row_dims, self.col_dims
        whole = len(both[0]) > 1 and tuple(map(prod, both)) == self.shape
        return both[side] if whole else ()

    def _apply(self, x: AnyArray, turned: bool) -> AnyArray:
        """The product A x for x (lead, columns, trail); `turned`: A^T x for x (lead, rows, trail)."""
        raise NotImplementedError

    def _on_dense(self: Any, other: Any) -> Any:
        """A @ other where that is dense; refused in words where it is nothing that `@` takes."""
        if isinstance(other, Structured) or not is_dense(other):
            return self._product(other)
        return applied(self, self._operand(other), False)

    @overload
    def __rmatmul__(self, other: ArrayT | Lists) -> ArrayT: ...
    @overload
    def __rmatmul__(self: "Operator[Host]", other: Host) -> Host: ...
    def __rmatmul__(self: Any, other: Any) -> Any:
        """`other @ A` for an array (..., rows), or `(..., *row_dims)`, which gives `(..., *col_dims)`."""
        if not is_dense(other):
            return _refused(other, product_refusal, self)
        return applied(self, self._operand(other), True)

    def matmul(self: Any, x: ArrayT | Lists, out: ArrayT | None = None) -> ArrayT:
        """The product A @ x with an array, written into `out` where that is given.

        Parameters
        ----------
        x : array, (columns,), (..., columns, n) or `(..., *col_dims)`
            Nested lists and integers are taken in library and dtype of the operator; a Permutation keeps any
            dtype.  What has neither of the first two shapes may be on the grid, if the operator has two or
            more modes.
        out : array, (rows,), (..., rows, n) or `(..., *row_dims)`, optional
            NumPy and CuPy only: C-contiguous, of the shape and dtype of the result, which is written into it.

        Returns
        -------
        array, (rows,), (..., rows, n) or `(..., *row_dims)`
            In the promoted dtype of operator and `x`; `out` where that is given.

        Raises
        ------
        TypeError
            On dtypes, on mixed libraries, and on kets and operators, which `@` takes.
        ValueError
            On shapes.

        Notes
        -----
        Cost: that of `@`; with `out` a copy of the result more.

        Examples
        --------
        >>> from ketcore import KroneckerSum
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).matmul([1, 1]).tolist()
        [6.0, 10.0]
        """
        return written(applied(self, self._operand(x), False), out)

    def rmatmul(self: Any, x: ArrayT | Lists, out: ArrayT | None = None) -> ArrayT:
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
            In the promoted dtype of operator and `x`; `out` where that is given.

        Raises
        ------
        TypeError, ValueError
            As `matmul`.

        Notes
        -----
        Cost: as that of `matmul`.

        Examples
        --------
        >>> from ketcore import KroneckerSum
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).rmatmul([1, 1]).tolist()
        [7.0, 9.0]
        """
        return written(applied(self, self._operand(x), True), out)

    def sandwich(self: Any, x: Any, y: Any) -> Any:
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
            On shapes, batches and dims.

        Notes
        -----
        Cost: that of A @ y and of one inner product.

        Examples
        --------
        >>> from ketcore import KroneckerSum
        >>> float(KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).sandwich([1, 0], [0, 1]))
        3.0
        """
        # What numbers multiply and is no operator is a ket.
        if all(isinstance(each, Scalable) and not isinstance(each, Operator) for each in (x, y)):
            return aligned_inner(x, self @ y)
        return operands.sandwich(self, x, y)

    # Solvers of SciPy and CuPy take what has these four methods, as well as shape and dtype, as it is.

    def matvec(self: Any, x: ArrayT | Lists) -> ArrayT:
        """The product A @ x, by the name that solvers of SciPy and CuPy know.

        Parameters
        ----------
        x : array, (columns,) or (columns, 1)
            What else `@` takes, it takes too.

        Returns
        -------
        array, (rows,) or (rows, 1)

        Raises
        ------
        TypeError, ValueError
            As `@`.

        Notes
        -----
        With shape, dtype, `rmatvec`, `matmat` and `rmatmat` it makes an operator what `scipy.sparse.linalg`
        takes as it is.

        Examples
        --------
        >>> from ketcore import KroneckerMatrix
        >>> from scipy.sparse.linalg import cg
        >>> twice = KroneckerMatrix([[[2.0, 0.0], [0.0, 2.0]]])
        >>> twice.matvec([1.0, 2.0]).tolist(), cg(twice, np.array([2.0, 4.0]))[0].tolist()
        ([2.0, 4.0], [1.0, 2.0])
        """
        return self.dot(x)

    def rmatvec(self: Any, x: ArrayT | Lists) -> ArrayT:
        """The product A^H @ x, by the name that solvers of SciPy and CuPy know.

        Parameters
        ----------
        x : array, (rows,) or (rows, 1)
            What else `@` takes, it takes too.

        Returns
        -------
        array, (columns,) or (columns, 1)

        Raises
        ------
        TypeError, ValueError
            As `@`.

        Examples
        --------
        >>> from ketcore import KroneckerMatrix
        >>> KroneckerMatrix([[[1.0, 2.0]], [[3.0, 4.0]]]).rmatvec([1]).tolist()
        [3.0, 4.0, 6.0, 8.0]
        """
        return self.H.dot(x)

    def matmat(self: Any, x: ArrayT | Lists) -> ArrayT:
        """The product A @ x with several columns, by the name that solvers of SciPy and CuPy know.

        Parameters
        ----------
        x : array, (columns, n)
            What else `@` takes, it takes too.

        Returns
        -------
        array, (rows, n)

        Raises
        ------
        TypeError, ValueError
            As `@`.

        Examples
        --------
        >>> from ketcore import KroneckerMatrix
        >>> KroneckerMatrix([[[1.0, 2.0]], [[3.0, 4.0]]]).matmat(np.eye(4)).tolist()
        [[3.0, 4.0, 6.0, 8.0]]
        """
        return self.dot(x)

    def rmatmat(self: Any, x: ArrayT | Lists) -> ArrayT:
        """The product A^H @ x with several columns, by the name that solvers of SciPy and CuPy know.

        Parameters
        ----------
        x : array, (rows, n)
            What else `@` takes, it takes too.

        Returns
        -------
        array, (columns, n)

        Raises
        ------
        TypeError, ValueError
            As `@`.

        Examples
        --------
        >>> from ketcore import KroneckerMatrix
        >>> KroneckerMatrix([[[1.0, 2.0]], [[3.0, 4.0]]]).rmatmat([[1, 10]]).tolist()
        [[3.0, 30.0], [4.0, 40.0], [6.0, 60.0], [8.0, 80.0]]
        """
        return self.H.dot(x)

    def _arrays(self: Any) -> tuple[AnyArray, ...]:
        """The arrays that tell library, device and dtype; none where the operand does."""
        return self.factors

    def as_linear_operator(self: Any) -> Any:
        """A LinearOperator of SciPy (NumPy arrays) or of CuPy, for eigsh, svds, lsqr, cg and their like.

        Returns
        -------
        LinearOperator
            That of `scipy.sparse.linalg`, or CuPy's of the same name.

        Raises
        ------
        TypeError
            On arrays of other libraries.

        Examples
        --------
        >>> from ketcore import KroneckerMatrix
        >>> from scipy.sparse.linalg import eigsh
        >>> K = KroneckerMatrix([np.diag([1.0, 2.0, 3.0]), np.diag([1.0, 5.0])])
        >>> largest = eigsh(K.as_linear_operator(), k=1, return_eigenvectors=False)
        >>> round(float(largest[0]), 6)
        15.0
        """
        adjoint = self.H
        return solvers.linear_operator(self._like())(
            self.shape,
            matvec=self.matvec,
            rmatvec=adjoint.matvec,
            matmat=self.matmat,
            rmatmat=adjoint.matmat,
            dtype=self.dtype,
        )

    def iter_row_blocks(self: Any, size: int) -> RowBlocks:
        """All rows as dense blocks of at most `size`, from row 0 on, for what is too large to be held.

        Parameters
        ----------
        size : int
            Rows of a block, >= 1; the last one may have fewer.

        Returns
        -------
        RowBlocks
            Something to iterate over, more than once; it has a length for progress bars.  Each block (rows,
            columns) is a new array.

        Raises
        ------
        TypeError, ValueError
            On size.

        Notes
        -----
        Cost: memory that of one block.

        Examples
        --------
        >>> from ketcore import eye
        >>> blocks = eye((2, 2)).iter_row_blocks(3)
        >>> len(blocks), [block.shape for block in blocks]
        (2, [(3, 4), (1, 4)])
        """
        return RowBlocks(self.shape[0], check_int("size", size, 1), self._row_reader())
