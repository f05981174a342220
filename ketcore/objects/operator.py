"""What kets and operators share: no library makes arrays of them, numbers multiply them, operators stand
beside `@` and are what solvers take.

`Structured` and `Scalable` are for kets and operators, `Operator` for operators.  A class says what is its
own: its arrays, `shape`, `dtype`, `T`, `conj`, `_scaled`, `_apply`, `_facts`.
"""

from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, overload

from ketcore.array_types import AnyArray, ArrayT, Host, Lists, Scalar
from ketcore.arrays import solvers
from ketcore.objects import arithmetic, display
from ketcore.objects.operands import applied, applied_right, is_dense, operand
from ketcore.objects.row_blocks import RowBlocks
from ketcore.shapes import check_int


class Structured:
    """What is no array: how libraries are to treat it, and how it describes itself."""

    def _refuse_conversion(self, *args: Any, **options: Any) -> NoReturn:
        """What libraries call to make an array of an object: nothing goes dense silently."""
        name = type(self).__name__
        raise TypeError(f"a {name} must be made dense by to_dense(max_bytes=), got an implicit conversion")

    # Arrays and scalars of NumPy leave their operators to the object.
    __array_ufunc__: None = None
    __array_priority__: float = 1000.0
    # What never returns would count as a method that returns an array: checkers are told that there is none.
    if TYPE_CHECKING:
        __array__: None
        __dlpack__: None
        __dlpack_device__: None
    else:
        __array__ = __dlpack__ = __dlpack_device__ = _refuse_conversion

    def _facts(self) -> dict[str, Any]:
        """What `repr` and notebooks show."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return display.as_text(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return display.as_html(type(self).__name__, self._facts())


class Scalable(Structured):
    """What numbers multiply and divide, in its own precision; `-` is by way of its `+`, if it has one."""

    def _scaled(self, scalar: Any, divide: bool) -> Self:
        """The object times a number, or over it."""
        raise NotImplementedError

    def __neg__(self) -> Self:
        return self * -1

    # Checkers are told of + and - in the classes that have them.
    if not TYPE_CHECKING:

        def __sub__(self, other):
            return self.__add__(-other) if isinstance(other, Scalable) else NotImplemented

        def __add__(self, other):
            return NotImplemented

    def __mul__(self, scalar: Scalar) -> Self:
        """The product with a number (scalars only), in the precision of the object."""
        if not arithmetic.is_scalar(scalar):
            return NotImplemented
        return self._scaled(scalar, False)

    __rmul__ = __mul__

    def __truediv__(self, scalar: Scalar) -> Self:
        if not arithmetic.is_scalar(scalar):
            return NotImplemented
        return self._scaled(scalar, True)


class Operator(Structured, Generic[ArrayT]):
    """A matrix that is not formed: its products with arrays, its rows in blocks, and what solvers ask for.

    Of `self` its methods use what a class has of its own, which they are not told of.
    """

    @property
    def H(self) -> Self:  # noqa: N802 - the name of NumPy's matrices
        """The conjugate transpose."""
        own: Any = self
        return own.T.conj()

    def __bool__(self) -> bool:
        """True: a size beyond 2**63, which `len` cannot have, is no reason to fail."""
        return True

    def _operand(self: Any, value: Any) -> AnyArray:
        """What stands beside `@`, as an array."""
        return operand("x", value, self.dtype)

    def _apply(self, x: AnyArray, turned: bool) -> AnyArray:
        """A x for x (lead, columns, trail); `turned`: A^T x for x (lead, rows, trail)."""
        raise NotImplementedError

    def _on_dense(self: Any, other: Any) -> Any:
        """A @ other where that is dense."""
        if not is_dense(other):
            return NotImplemented
        rows, columns = self.shape
        return applied(self._operand(other), rows, columns, lambda x: self._apply(x, False))

    @overload
    def __rmatmul__(self, other: ArrayT | Lists) -> ArrayT: ...
    @overload
    def __rmatmul__(self: "Operator[Host]", other: Host) -> Host: ...
    def __rmatmul__(self: Any, other: Any) -> Any:
        """other @ A for a dense array (..., rows)."""
        if not is_dense(other):
            return NotImplemented
        rows, columns = self.shape
        return applied_right(self._operand(other), rows, columns, lambda x: self._apply(x, True))

    # Solvers of SciPy and CuPy take what has these four methods, as well as shape and dtype, as it is.

    def matvec(self: Any, x: ArrayT | Lists) -> ArrayT:
        """A @ x, by the name under which solvers of SciPy and CuPy ask for it."""
        return self @ x

    def rmatvec(self: Any, x: ArrayT | Lists) -> ArrayT:
        """A^H @ x, by the name under which solvers of SciPy and CuPy ask for it."""
        return self.H @ x

    def matmat(self: Any, x: ArrayT | Lists) -> ArrayT:
        """As `matvec`, for several columns."""
        return self @ x

    def rmatmat(self: Any, x: ArrayT | Lists) -> ArrayT:
        """As `rmatvec`, for several columns."""
        return self.H @ x

    def _like(self: Any) -> AnyArray:
        """An array of the library and device of the operator."""
        return self.factors[0]

    def as_linear_operator(self: Any) -> Any:
        """A LinearOperator of SciPy (NumPy arrays) or of CuPy, for eigsh, svds, lsqr, cg and their like.

        raises   TypeError on arrays of other libraries
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

        size     an int >= 1
        returns  something to iterate over, more than once; it has a length for progress bars.  Each block
                 (rows, columns) is a new array
        raises   TypeError, ValueError on size
        cost     memory that of one block

        >>> from ketcore import eye
        >>> blocks = eye((2, 2)).iter_row_blocks(3)
        >>> len(blocks), [block.shape for block in blocks]
        (2, [(3, 4), (1, 4)])
        """
        return RowBlocks(self.shape[0], check_int("size", size, 1), self._row_reader())
