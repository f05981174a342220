"""What kets and operators share: no library makes arrays of them, numbers multiply them, operators stand
beside `@` and are what solvers take.

`Structured` and `Scalable` are for kets and operators, `Operator` for operators.  A class says what is its
own: its arrays, `shape`, `dtype`, `T`, `conj`, `_scaled`, `_apply`, `_facts`.
"""

from typing import Any, NoReturn, Self

from ketcore.arrays import solvers
from ketcore.arrays.namespaces import Array
from ketcore.objects import construction, display
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
    __array_ufunc__ = None
    __array_priority__ = 1000.0
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

    def __sub__(self, other: Any) -> Any:
        return self.__add__(-other) if isinstance(other, Scalable) else NotImplemented

    def __add__(self, other: Any) -> Any:
        return NotImplemented

    def __mul__(self, scalar: Any) -> Self:
        """The product with a number (scalars only), in the precision of the object."""
        return self._scaled(scalar, False) if construction.is_scalar(scalar) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, scalar: Any) -> Self:
        return self._scaled(scalar, True) if construction.is_scalar(scalar) else NotImplemented


class Operator(Structured):
    """A matrix that is not formed: its products with arrays, its rows in blocks, and what solvers ask for."""

    @property
    def H(self) -> Self:  # noqa: N802 - the name of NumPy's matrices
        """The conjugate transpose."""
        return self.T.conj()

    def __bool__(self) -> bool:
        """True: a size beyond 2**63, which `len` cannot have, is no reason to fail."""
        return True

    def _operand(self, value: Any) -> Array:
        """What stands beside `@`, as an array."""
        return operand("x", value, self.dtype)

    def _apply(self, x: Array, turned: bool) -> Array:
        """A x for x (lead, columns, trail); `turned`: A^T x for x (lead, rows, trail)."""
        raise NotImplementedError

    def _on_dense(self, other: Any) -> Any:
        """A @ other where that is dense."""
        if not is_dense(other):
            return NotImplemented
        return applied(self._operand(other), *self.shape, lambda x: self._apply(x, False))

    def __rmatmul__(self, other: Any) -> Any:
        """other @ A for a dense array (..., rows)."""
        if not is_dense(other):
            return NotImplemented
        return applied_right(self._operand(other), *self.shape, lambda x: self._apply(x, True))

    # Solvers of SciPy and CuPy take what has these four methods, as well as shape and dtype, as it is.

    def matvec(self, x: Any) -> Any:
        """A @ x, by the name under which solvers of SciPy and CuPy ask for it."""
        return self @ x

    def rmatvec(self, x: Any) -> Any:
        """A^H @ x, by the name under which solvers of SciPy and CuPy ask for it."""
        return self.H @ x

    matmat, rmatmat = matvec, rmatvec

    def _like(self) -> Array:
        """An array of the library and device of the operator."""
        return self.factors[0]

    def as_linear_operator(self) -> Any:
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

    def iter_row_blocks(self, size: int) -> RowBlocks:
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
