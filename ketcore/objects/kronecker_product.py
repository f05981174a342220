"""One Kronecker product of parts of any kind: diagonal, identity and sparse parts stay what they are.

    M = A_0 (x) A_1 (x) ... (x) A_{N-1}

A product with a dense array takes one pass per part: a small matrix product for a dense one, an elementwise
one for a `Diagonal`, none for an `Identity`, a sparse one for a matrix of scipy.sparse.

Letters: N order, p_n and q_n rows and columns of part n, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import inf, prod
from operator import mul
from typing import Any, Generic, overload

from ketcore import shapes
from ketcore.array_types import ArrayT, ForeignT, Host, HostFactor, Lists, Untyped
from ketcore.arrays.checks import as_sequence
from ketcore.arrays.elementary import itemsize, unboxed
from ketcore.arrays.namespaces import accumulation_dtype, quiet
from ketcore.objects import blocks
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.operator import Operator, Scalable
from ketcore.objects.parts import (
    Diagonal,
    Identity,
    as_dense,
    as_part,
    conjugated_part,
    diagonal_of,
    kind_of,
    level_parts,
    multiplied,
    name_of,
    on_rows,
    picked_rows,
    scaled_part,
    transposed_part,
    values_of,
)

__all__ = ["Diagonal", "Identity", "KroneckerProduct"]


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KroneckerProduct(Operator[ArrayT], Scalable, Generic[ArrayT]):
    """A matrix (P, Q) as one Kronecker product of parts of any kind.

    parts    N matrices: dense arrays (p_n, q_n) or nested lists, `Diagonal`, `Identity`, or sparse matrices
             of scipy.sparse (of CuPy beside its arrays), which are used as they are
    raises   TypeError on dtypes and on mixed libraries or devices; ValueError on shapes

    Immutable; `==` is identity.  Results have the promoted dtype of the parts and the other operand;
    identities alone leave that of the operand, and count as NumPy's float64.

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
        parts = tuple(as_part(n, part) for n, part in enumerate(as_sequence("parts", parts)))
        if not parts:
            raise ValueError("parts must hold at least one matrix, got none")
        kind_of(parts)
        object.__setattr__(self, "parts", parts)

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
        """(P, Q)."""
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
        """The complex conjugate."""
        return KroneckerProduct([conjugated_part(part) for part in self.parts])

    @quiet
    def _scaled(self, scalar, divide):
        """The first part that holds numbers carries the scalar; of identities alone, the smallest becomes a
        `Diagonal`."""
        known = [n for n, part in enumerate(self.parts) if not isinstance(part, Identity)]
        at = known[0] if known else self.row_dims.index(min(self.row_dims))
        parts = level_parts(self.parts)
        return KroneckerProduct([*parts[:at], scaled_part(parts[at], scalar, divide), *parts[at + 1 :]])

    def kron(self, other: "KroneckerProduct[ArrayT]") -> "KroneckerProduct[ArrayT]":
        """The Kronecker product: the parts of both.

        >>> KroneckerProduct([Identity(2)]).kron(KroneckerProduct([Identity(3)])).shape
        (6, 6)
        """
        if not isinstance(other, KroneckerProduct):
            raise TypeError(f"other must be a KroneckerProduct, got {type(other).__name__}")
        return KroneckerProduct([*self.parts, *other.parts])

    @overload
    def __matmul__(self, other: Ket[ArrayT]) -> Ket[ArrayT]: ...
    @overload
    def __matmul__(self, other: ArrayT | Lists) -> ArrayT: ...
    @overload
    def __matmul__(self: "KroneckerProduct[Host]", other: Host) -> Host: ...
    def __matmul__(self, other: Any) -> Any:
        """M @ other: a dense array gives an array, a Ket of the same dims a Ket of the same rank.

        cost     for dense arrays one pass per part, those that shrink the array first

        >>> (KroneckerProduct([[[1.0, 1.0]], Identity(2)]) @ [1, 2, 3, 4]).tolist()
        [4.0, 6.0]
        """
        if isinstance(other, Ket):
            return self._on_ket(other)
        return self._on_dense(other)

    def _apply(self, x, turned):
        return multiplied(self.T.parts if turned else self.parts, x)

    def _on_ket(self, ket):
        if ket.dims != self.col_dims:
            raise ValueError(f"ket must have dims {self.col_dims}, got {ket.dims}")
        # A leaf is a row vector: the part applies to its last axis.
        return Ket([on_rows(part, leaf) for part, leaf in zip(self.parts, ket.factors, strict=True)])

    @quiet
    def trace(self) -> ArrayT:
        """The sum of the diagonal: the product of traces where all parts are square, else over its elements.

        >>> float(KroneckerProduct([Identity(10**9), Diagonal([1.0, 2.0])]).trace())
        3000000000.0
        """
        if self.row_dims != self.col_dims:
            return self.to_kronecker().trace()
        xp, like, dtype = kind_of(self.parts)
        wide = accumulation_dtype(xp, dtype)
        size = prod([part.size for part in self.parts if isinstance(part, Identity)])
        others = level_parts([part for part in self.parts if not isinstance(part, Identity)])
        sums = [xp.sum(xp.astype(diagonal_of(part, like), wide)) for part in others]
        total = reduce(mul, sums, xp.astype(xp.ones_like(like), wide)) * float(size)
        return unboxed(xp.astype(total, dtype))

    @quiet
    def diagonal(self, max_bytes: int = 2**30) -> ArrayT:
        """M[i, i] for i < min(shape).

        raises   MemoryError, naming the size, above `max_bytes`
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

        raises   MemoryError, naming the size, where a factor is above `max_bytes`
        """
        _, like, dtype = kind_of(self.parts)
        for part in self.parts:
            what = f"factor {tuple(part.shape)} of {dtype}"
            shapes.check_dense_size(prod(part.shape), itemsize(like), what, max_bytes)
        identities = [n for n, part in enumerate(self.parts) if isinstance(part, Identity)]
        return KroneckerMatrix([as_dense(part, like) for part in self.parts], identities=identities)

    def to_dense(self, max_bytes: int = 2**30) -> ArrayT:
        """The array (P, Q).

        raises   MemoryError, naming the size, above `max_bytes`
        """
        _, like, dtype = kind_of(self.parts)
        what = f"{self.shape} array of {dtype}"
        size = prod(self.shape), itemsize(like)
        shapes.check_dense_size(*size, what, max_bytes, "iter_row_blocks(size)")
        return self.to_kronecker(max_bytes).to_dense(max_bytes)

    def _row_reader(self):
        """A row is one product vector: the rows that its digits pick from the parts."""
        _, like, _ = kind_of(self.parts)

        def read(start, stop):
            digits = blocks.digits_of(range(start, stop), self.row_dims)
            leaves = [picked_rows(part, digit, like) for part, digit in zip(self.parts, digits, strict=True)]
            return Ket([leaf[:, None, :] for leaf in leaves]).to_dense(inf)

        return read

    def _like(self):
        return kind_of(self.parts)[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._kinds()}, dtype={self.dtype})"

    def _facts(self):
        """What notebooks show."""
        return {"shape": self.shape, "parts": self._kinds(), "dtype": self.dtype, "bytes": f"{self.nbytes:,}"}

    def _kinds(self):
        return ", ".join(f"{name_of(part)}{tuple(part.shape)}" for part in self.parts)
