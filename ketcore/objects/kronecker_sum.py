"""Kronecker sums: the sum of matrices that act on one mode each.

    S = A_0 (+) A_1 (+) ... (+) A_{N-1} = sum_n  I (x) ... (x) A_n (x) ... (x) I

Eigenvalues of a Kronecker sum are all sums of eigenvalues of its factors, and its exponential is the
Kronecker product of theirs.  Letters: N order, n_i size of factor i, Q = prod n_i.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar, Generic, overload

from ketcore import ops, shapes
from ketcore.array_types import ArrayT, ForeignT, Host, HostFactor, Index, Key, Lists, Untyped
from ketcore.arrays.checks import check_floating
from ketcore.arrays.elementary import chosen, conjugated, identity, itemsize, transposed, unboxed, widened
from ketcore.arrays.namespaces import accumulation_dtype, namespace, namespace_of, quiet
from ketcore.arrays.quantized import QuantizedArray, as_kept, decoded, is_quantized, like_of, nbytes_of
from ketcore.lookups.stored_tables import check_stored
from ketcore.objects import arithmetic, construction, costs, display
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.operator import Operator, Scalable
from ketcore.products.plans import Cost
from ketcore.products.term_products import added
from ketcore.shapes import shown

# Up to this size neighbouring modes are summed beforehand.
_MERGED = 16


@dataclass(frozen=True, init=False, repr=False, eq=False)
class KroneckerSum(Operator[ArrayT], Scalable, Generic[ArrayT]):
    """A square matrix (Q, Q) as the Kronecker sum of N square matrices.

    With factors A_i of (n_i, n_i), and Q the product of the n_i::

        S = A_0 (+) A_1 (+) ... (+) A_{N-1} = sum_i  I (x) ... (x) A_i (x) ... (x) I

    Parameters
    ----------
    factors : sequence of N arrays, (n_i, n_i)
        Mixed dtypes are promoted, nested lists and integers are taken as by KroneckerMatrix, arrays that fit
        are shared; matrices of scipy.sparse are made dense.

    Attributes
    ----------
    stored : tuple of N arrays, (n_i, n_i)
        The factors as they are kept, in one dtype; some may be of the kind QuantizedArray.
    factors : tuple of N arrays, (n_i, n_i)
        The same as arrays: where they are quantized, decoded at each use of the attribute.

    Raises
    ------
    TypeError
        On dtypes and on mixed libraries or devices.
    ValueError
        On shapes.

    Notes
    -----
    Immutable; `==` is identity.  `@` takes dense arrays, kets and Kronecker matrices; the product with a
    dense array costs one small product per mode.

    Sums of equal dims add to a sum, and with other operators to a `KroneckerMatrix`; the product of two is a
    `KroneckerMatrix`.  `*` and `/` take numbers.

    Examples
    --------
    >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).to_dense().tolist()
    [[3.0, 3.0], [4.0, 6.0]]
    """

    stored: tuple[ArrayT | QuantizedArray[ArrayT], ...]

    # Its factors cannot trade scales, as those of a product do.
    _INSTEAD: ClassVar[dict[str, str]] = {"balance": "to_kronecker().balance()"}

    @overload
    def __init__(self: "KroneckerSum[Any]", factors: Sequence[Untyped]) -> None: ...
    @overload
    def __init__(self: "KroneckerSum[Host]", factors: Sequence[HostFactor]) -> None: ...
    @overload
    def __init__(self: "KroneckerSum[ForeignT]", factors: Sequence[ForeignT]) -> None: ...
    def __init__(self, factors: Any) -> None:
        xp, factors, dtype, _ = check_stored("factors", construction.dense_factors(factors))
        shapes = [tuple(f.shape) for f in factors]
        if any(len(s) != 2 or s[0] != s[1] or s[0] < 1 for s in shapes):
            rule = "square matrices (n, n) with n >= 1"
            raise ValueError(f"factors must be {rule}, got shapes {shown(shapes)}")
        object.__setattr__(self, "stored", as_kept(xp, factors, dtype))

    @property
    def factors(self: Any) -> tuple[ArrayT, ...]:
        """The factors as arrays (n_i, n_i): those of `stored`, decoded anew where they are quantized."""
        return tuple(map(decoded, self.stored))

    @property
    def dims(self) -> tuple[int, ...]:
        """The sizes n_i of the factors: the radices of row and of column numbers."""
        return tuple(f.shape[0] for f in self.stored)

    @property
    def row_dims(self) -> tuple[int, ...]:
        """`dims`, by the name that they have in other operators."""
        return self.dims

    col_dims = row_dims

    @property
    def shape(self) -> tuple[int, int]:
        """The number of rows and of columns, (Q, Q)."""
        return prod(self.dims), prod(self.dims)

    @property
    def order(self) -> int:
        """The number N of modes."""
        return len(self.stored)

    @property
    def dtype(self) -> Any:
        """The dtype of the factors and of every result."""
        return self.stored[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the factors, as they are stored."""
        return sum(map(nbytes_of, self.stored))

    @property
    def T(self) -> "KroneckerSum[ArrayT]":  # noqa: N802 - NumPy's name
        """The transpose; shares the factors."""
        return KroneckerSum([transposed(f) for f in self.factors])

    def conj(self) -> "KroneckerSum[ArrayT]":
        """The complex conjugate; a real sum shares its factors.

        Returns
        -------
        KroneckerSum

        Examples
        --------
        >>> KroneckerSum([[[2.0j]]]).conj().to_dense().imag.tolist()
        [[-2.0]]
        """
        return KroneckerSum([conjugated(f) for f in self.factors])

    @overload
    def astype(self: "KroneckerSum[Host]", dtype: object) -> "KroneckerSum[Host]": ...
    @overload
    def astype(self, dtype: object) -> "KroneckerSum[ArrayT]": ...
    @quiet
    def astype(self, dtype: object) -> "KroneckerSum[Any]":
        """The same sum with factors of another floating or complex dtype.

        Parameters
        ----------
        dtype : dtype
            One of the library of the factors.  A real one drops imaginary parts, as `astype` of NumPy does,
            with its warning.

        Returns
        -------
        KroneckerSum
            Factors that have the dtype are shared.

        Raises
        ------
        TypeError
            On a dtype of NumPy that is neither floating nor complex.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0]]]).astype("float32").dtype
        dtype('float32')
        """
        return KroneckerSum([construction.cast([factor], dtype, None)[0] for factor in self.factors])

    def dequantize(self) -> "KroneckerSum[ArrayT]":
        """The same sum with factors that are arrays; itself where they are.

        Returns
        -------
        KroneckerSum

        Examples
        --------
        >>> from ketcore import quantize
        >>> quantize(KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]])).dequantize().dtype
        dtype('float32')
        """
        factors: Any = self.factors
        return KroneckerSum(factors) if is_quantized(self.stored) else self

    def __getitem__(self, key: Key) -> ArrayT:
        """The dense row, rows, element or block that NumPy's rules choose.

        Parameters
        ----------
        key : int, slice, array of ints or of bools, or a pair of these
            As of `KroneckerMatrix`, with its errors.

        Returns
        -------
        array

        Notes
        -----
        Cost: N times the output.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]])[0].tolist()
        [3.0, 3.0]
        """
        return self.to_kronecker()[key]

    def rows(self: Any, ids: Index, check: bool | None = None, out: ArrayT | None = None) -> ArrayT:
        """The dense rows of `ids`.

        Parameters
        ----------
        ids : array of ints, (...)
            As of `KroneckerMatrix.rows`.
        check : bool, optional
            As of `KroneckerMatrix.rows`.
        out : array, (..., columns), optional
            As of `KroneckerMatrix.rows`.

        Returns
        -------
        array, (..., Q)
            `out` where that is given.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `KroneckerMatrix.rows`.

        Notes
        -----
        Cost: N times that of a matrix of one term.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).rows([1]).tolist()
        [[4.0, 6.0]]
        """
        return self.to_kronecker().rows(ids, check, out)

    def row_kets(self: Any, ids: Index, check: bool | None = None) -> Ket[ArrayT]:
        """The rows of `ids` as a batch of kets, not multiplied out.

        Parameters
        ----------
        ids : array of ints, (...)
            As of `KroneckerMatrix.rows`.
        check : bool, optional
            As of `KroneckerMatrix.rows`.

        Returns
        -------
        Ket
            Of batch shape (...), rank N and dims n_i.

        Raises
        ------
        TypeError, IndexError
            As `KroneckerMatrix.rows`.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).row_kets([1]).rank
        2
        """
        return self.to_kronecker().row_kets(ids, check)

    @quiet
    def _row_reader(self):
        return self.to_kronecker()._row_reader()

    if TYPE_CHECKING:

        @overload
        def __add__(self, other: "KroneckerSum[ArrayT]") -> "KroneckerSum[ArrayT]": ...
        @overload
        def __add__(self, other: KroneckerMatrix[ArrayT]) -> KroneckerMatrix[ArrayT]: ...
        def __add__(self, other: Any) -> Any: ...
        def __radd__(self, other: KroneckerMatrix[ArrayT]) -> KroneckerMatrix[ArrayT]: ...
        def __rsub__(self, other: KroneckerMatrix[ArrayT]) -> KroneckerMatrix[ArrayT]: ...
        @overload
        def __sub__(self, other: "KroneckerSum[ArrayT]") -> "KroneckerSum[ArrayT]": ...
        @overload
        def __sub__(self, other: KroneckerMatrix[ArrayT]) -> KroneckerMatrix[ArrayT]: ...
        def __sub__(self, other: Any) -> Any: ...

    @quiet
    def _plus(self, other):
        """Factor by factor with a Kronecker sum of equal dims; a KroneckerMatrix with a KroneckerMatrix."""
        if isinstance(other, KroneckerMatrix):
            return self.to_kronecker() + other
        if not isinstance(other, KroneckerSum):
            return NotImplemented
        if self.dims != other.dims:
            raise ValueError(f"sums must have equal dims to be added, got {self.dims} and {other.dims}")
        check_floating("sums", (*self.factors, *other.factors))
        return KroneckerSum([a + b for a, b in zip(self.factors, other.factors, strict=True)])

    def _scaled(self, scalar, divide):
        """Every factor carries the scalar: a Kronecker sum is linear in all of them together."""
        return KroneckerSum([arithmetic.scaled(f, scalar, divide) for f in self.factors])

    @overload
    def __matmul__(
        self, other: "KroneckerSum[ArrayT] | KroneckerMatrix[ArrayT]"
    ) -> KroneckerMatrix[ArrayT]: ...
    @overload
    def __matmul__(self, other: Ket[ArrayT]) -> Ket[ArrayT]: ...
    @overload
    def __matmul__(self, other: ArrayT | Lists) -> ArrayT: ...
    @overload
    def __matmul__(self: "KroneckerSum[Host]", other: Host) -> Host: ...
    def __matmul__(self, other: Any) -> Any:
        """S @ other: a dense array gives an array, a Ket a Ket of N times its rank, an operator an operator.

        Parameters
        ----------
        other : array, Ket or operator
            Dense: (Q,) or (..., Q, n), or on the grid, `(..., *dims)`.  A KroneckerSum, KroneckerMatrix or
            KroneckerProduct gives a KroneckerMatrix; dims must split at common places.

        Returns
        -------
        array, Ket or KroneckerMatrix

        Raises
        ------
        TypeError
            On other kinds, and on mixed libraries or devices.
        ValueError
            On shapes and dims.

        Notes
        -----
        Cost: for dense arrays time O(Q sum n_i) per column.

        Examples
        --------
        >>> (KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]) @ [1, 1]).tolist()
        [6.0, 10.0]
        """
        return self._on_dense(other)

    def _times(self, other):
        if isinstance(other, KroneckerSum):
            return self.to_kronecker() @ other.to_kronecker()
        return self.to_kronecker() @ other if isinstance(other, Ket | KroneckerMatrix) else NotImplemented

    def _times_left(self, other):
        return other @ self.to_kronecker() if isinstance(other, KroneckerMatrix) else NotImplemented

    if TYPE_CHECKING:

        @overload
        def __rmatmul__(self, other: KroneckerMatrix[ArrayT]) -> KroneckerMatrix[ArrayT]: ...
        @overload
        def __rmatmul__(self, other: ArrayT | Lists) -> ArrayT: ...
        @overload
        def __rmatmul__(self: Operator[Host], other: Host) -> Host: ...
        # pyright does not see that the signatures of `Operator` are among these.
        def __rmatmul__(self, other: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            """`other @ S` for a dense array (..., Q) or a KroneckerMatrix."""
            ...

    def _apply(self, x, turned):
        return _contracted(self.factors if turned else [transposed(f) for f in self.factors], x)

    @quiet
    def trace(self) -> ArrayT:
        """The sum of the diagonal: the sum of tr(A_i) Q / n_i.

        Returns
        -------
        array, ()
            A scalar of NumPy, or an array of another library.

        Examples
        --------
        >>> float(KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).trace())
        9.0
        """
        wide = [widened(f) for f in self.factors]
        xp, size = namespace_of(wide[0]), self.shape[0]
        total = reduce(add, [xp.linalg.trace(f) * float(size // f.shape[0]) for f in wide])
        return unboxed(xp.astype(total, self.dtype, copy=False))

    def diagonal(self, max_bytes: float = 2**30) -> ArrayT:
        """The elements S[i, i]: all sums of diagonal elements.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.

        Returns
        -------
        array, (Q,)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).diagonal().tolist()
        [3.0, 6.0]
        """
        return self.to_kronecker().diagonal(max_bytes)

    def norm(self) -> ArrayT:
        """The Frobenius norm, real.

        Returns
        -------
        array, ()
            A scalar of NumPy, or an array of another library, in the real dtype of the factors.

        Notes
        -----
        Rounding and cancellation are as in `Ket.norm`.

        Examples
        --------
        >>> round(float(KroneckerSum([[[1.0]], [[2.0, 0.0], [0.0, 3.0]]]).norm()), 12)
        5.0
        """
        return self.to_kronecker().norm()

    def inner(self, other: Operator[ArrayT]) -> ArrayT:
        """The Frobenius inner product `sum_ij conj(self_ij) other_ij`.

        Parameters
        ----------
        other : KroneckerSum, KroneckerMatrix or KroneckerProduct
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

        Examples
        --------
        >>> s = KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]])
        >>> float(s.inner(s))
        70.0
        """
        return self.to_kronecker().inner(other)

    def sum(self, axis: int | None = None) -> ArrayT:
        """The sum of all elements, or over the rows or columns.

        Parameters
        ----------
        axis : {None, 0, 1, -1, -2}, optional
            None: all elements; 0 or -2: over the rows; 1 or -1: over the columns.

        Returns
        -------
        array, () or (Q,)
            Of all elements a scalar of NumPy, or an array of another library.

        Raises
        ------
        ValueError
            On another axis.
        MemoryError
            Naming the size, above 2**30 bytes.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).sum(axis=0).tolist()
        [7.0, 9.0]
        """
        return self.to_kronecker().sum(axis)

    def kron(self, other: Operator[ArrayT]) -> KroneckerMatrix[ArrayT]:
        """The Kronecker product with another operator on its right: orders add, ranks multiply.

        Parameters
        ----------
        other : KroneckerMatrix, KroneckerSum or KroneckerProduct
            Its digits are the less significant ones.

        Returns
        -------
        KroneckerMatrix
            Of N times the rank of `other`.

        Raises
        ------
        TypeError, ValueError, MemoryError
            As `KroneckerMatrix.kron`.

        Examples
        --------
        >>> s = KroneckerSum([[[1.0]], [[2.0]]])
        >>> s.kron(s).rank
        4
        """
        return self.to_kronecker().kron(other)

    def to_kronecker(self) -> KroneckerMatrix[ArrayT]:
        """The same matrix as a sum of N Kronecker products.

        Returns
        -------
        KroneckerMatrix
            Of rank N, which knows the identities of each term.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).to_kronecker().rank
        2
        """
        xp = namespace_of(self.factors[0])
        identities = [identity(f.shape[0], f) for f in self.factors]
        terms = [[*identities] for _ in self.factors]
        for n, factor in enumerate(self.factors):
            terms[n][n] = factor
        every = frozenset(range(self.order))
        factors = [xp.stack(list(mode)) for mode in zip(*terms, strict=True)]
        return KroneckerMatrix(factors, identities=[every - {n} for n in range(self.order)])

    def to_dense(self, max_bytes: float = 2**30) -> ArrayT:
        """The dense matrix.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.

        Returns
        -------
        array, (Q, Q)

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.

        Notes
        -----
        Cost: O(N) per element.  What is too large to be held comes block by block from `iter_row_blocks`.

        Examples
        --------
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).to_dense().tolist()
        [[3.0, 3.0], [4.0, 6.0]]
        """
        what, entry = f"{self.shape} array of {self.dtype}", itemsize(self._like())
        shapes.check_dense_size(prod(self.shape), entry, what, max_bytes, "iter_row_blocks(size)")
        return self.to_kronecker().to_dense(max_bytes)

    def cost(self, name: str = "matmul", n: int = 1) -> Cost:
        """What a product with an array would take: flops, bytes, path and engine, from the sizes alone.

        Parameters
        ----------
        name : {"matmul", "rmatmul"}, default "matmul"
            S @ x or x @ S.
        n : int, default 1
            Columns of "matmul", rows of "rmatmul".

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
        >>> KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]).cost("matmul", 10).flops
        120
        """
        return costs.sum_cost(self, name, n)

    def _terms_beside(self, other):
        return self.to_kronecker()

    def _facts(self):
        """What `repr` shows."""
        facts = {"shape": self.shape, "order": self.order, "dims": self.dims, "dtype": self.dtype}
        facts |= display.storage(self.stored)
        dense = prod(self.shape) * itemsize(self._like())
        return {**facts, **display.sizes(sum(n * n for n in self.dims), self.nbytes, dense)}

    def _like(self):
        return like_of(self.stored[0])


def _contracted(factors, x):
    """sum_n (I (x) F_n^T (x) I) x for x (lead, Q, trail), one small product per mode."""
    xp = namespace("factors and x", (*factors, x))
    dtype = xp.result_type(factors[0], x)
    wide = accumulation_dtype(xp, dtype)
    factors = [xp.astype(factor, wide, copy=False) for factor in factors]
    lead, size, trail = x.shape
    total, before, after = None, lead, size * trail
    for factor in _merged(xp, factors):
        dim = factor.shape[0]
        after //= dim
        part = (
            ops.kron_matmul([factor[None, ...]], xp.reshape(x, (before, dim)))
            if after == 1
            else ops.kron_matmul([factor[None, ...]], xp.reshape(x, (before, dim, after)), axis=-2)
        )
        total = added(total, xp.reshape(part, (lead, size, trail)))
        before *= dim
    return xp.astype(total, dtype, copy=False)


def _merged(xp, factors):
    """Neighbouring small factors as one, their Kronecker sum: a pass costs what it reads and writes."""
    found = [factors[0]]
    for factor in factors[1:]:
        if found[-1].shape[0] * factor.shape[0] <= _MERGED:
            found[-1] = _pair_sum(xp, found[-1], factor)
        else:
            found.append(factor)
    return found


def _pair_sum(xp, a, b):
    """A (x) I + I (x) B as an array; zeros are put in, so that infinities stay where they are."""
    sizes = a.shape[0], b.shape[0]
    on_a, on_b = (identity(n, a, xp.bool) for n in sizes)
    zero = xp.zeros_like(a[:1, :1])
    first = chosen(xp, on_b[None, :, None, :], a[:, None, :, None], zero)
    second = chosen(xp, on_a[:, None, :, None], b[None, :, None, :], zero)
    return xp.reshape(first + second, (prod(sizes), prod(sizes)))
