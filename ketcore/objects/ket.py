"""Kets: batches of sums of tensor products of small vectors.

    v = sum_k  v_0k (x) v_1k (x) ... (x) v_{N-1}k

Letters: N order (modes), R rank (terms; nothing to do with matrix rank), q_n dims, Q = prod q_n.
A batch of kets is one packed array (..., R, sum q_n), so that the leaves of one ket lie together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Generic, overload

import numpy as np
from numpy.typing import DTypeLike

from ketcore import shapes
from ketcore.array_types import ArrayT, ForeignT, Host, HostFactor, Key, Lists, Number, Seed, Untyped
from ketcore.arrays import scale
from ketcore.arrays.checks import as_sequence, check_batches, check_floating
from ketcore.arrays.conversions import as_array
from ketcore.arrays.elementary import conjugated, itemsize
from ketcore.arrays.namespaces import namespace_of, quiet
from ketcore.arrays.quantized import QuantizedArray, decoded, is_quantized, like_of, nbytes_of
from ketcore.objects import arithmetic, construction, display
from ketcore.objects.indexing import parse_key, take_stored
from ketcore.objects.operands import flat, operand
from ketcore.objects.operator import Scalable
from ketcore.ops import ket_gram, ket_inner, ket_rows
from ketcore.shapes import check_dims, check_int, offsets, shown

if TYPE_CHECKING:
    from ketcore.objects.kronecker_matrix import KroneckerMatrix


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Ket(Scalable, Generic[ArrayT]):
    """A batch of vectors of length Q, each a sum of R tensor products.

    With leaves v_nk of length q_n, and Q the product of the dims q_n::

        v = sum_k  v_0k (x) v_1k (x) ... (x) v_{N-1}k

    Parameters
    ----------
    factors : sequence of N arrays, (..., R, q_n)
        One R and one batch shape `...` for all; 1-D factors (q_n,) mean R = 1 without batch.  Mixed dtypes
        are promoted; nested lists and integers take library and dtype of the floating arrays beside them, and
        are of NumPy and float64 where there are none; the values are copied.

    Attributes
    ----------
    stored : array, (..., R, sum q_n)
        The leaves as they are kept, those of one ket together; it may be of the kind QuantizedArray.
    packed : array, (..., R, sum q_n)
        The same as an array: where it is quantized, decoded at each use of the attribute.
    dims : tuple of N ints
        q_n: the lengths of the leaves.

    Raises
    ------
    TypeError
        On dtypes and on mixed libraries or devices.
    ValueError
        On shapes.

    Notes
    -----
    Immutable; `==` is identity, and hashing goes by it.  `np.asarray(ket)` is refused: see `to_dense`.

    `+` and `-` take kets of equal dims, whose ranks add; `*` and `/` take numbers.  `K @ ket` is a ket again
    for a `KroneckerMatrix` and other operators.  A batch has a length, and is iterated over ket by ket.

    Examples
    --------
    >>> v = Ket([[[1.0, 2.0]], [[1.0, 0.0, 3.0]]])
    >>> v.to_dense().tolist()
    [1.0, 0.0, 3.0, 2.0, 0.0, 6.0]
    >>> (v + 2 * v).rank
    2
    """

    stored: ArrayT | QuantizedArray[ArrayT]
    dims: tuple[int, ...]

    _PRODUCTS = "contract(x), inner(ket) or K.T @ ket"
    _FACTORS = "kron, inner or to_dense()"
    _INSTEAD = (
        dict.fromkeys(("T", "H", "mT", "transpose", "adjoint", "toarray"), "to_dense()")
        | dict.fromkeys(("matmul", "rmatmul", "dot", "matvec", "rmatvec", "matmat", "rmatmat"), "contract(x)")
        | dict.fromkeys(("rows", "row_kets", "iter_row_blocks"), "ket[ids], which chooses from the batch,")
        | dict.fromkeys(("trace", "diagonal", "sandwich", "as_linear_operator"), "a KroneckerMatrix")
        | {"sum": "contract(ones)"}
    )

    @overload
    def __init__(self: "Ket[Any]", factors: Sequence[Untyped]) -> None: ...
    @overload
    def __init__(self: "Ket[Host]", factors: Sequence[HostFactor]) -> None: ...
    @overload
    def __init__(self: "Ket[ForeignT]", factors: Sequence[ForeignT]) -> None: ...
    def __init__(self, factors: Any) -> None:
        xp, factors, _ = check_floating("factors", construction.dense_factors(factors))
        shapes = [tuple(f.shape) for f in factors]
        factors = [xp.reshape(f, (1, *f.shape)) if f.ndim == 1 else f for f in factors]
        lead = factors[0].shape[:-1]
        if any(f.ndim < 2 or f.shape[:-1] != lead or f.shape[-1] < 1 for f in factors):
            rule = "arrays (..., rank, q_n) of one batch shape, one rank and q_n >= 1"
            raise ValueError(f"factors must be {rule}, got shapes {shown(shapes)}")
        object.__setattr__(self, "stored", xp.concat(factors, axis=-1))
        object.__setattr__(self, "dims", tuple(f.shape[-1] for f in factors))

    @overload
    @classmethod
    def from_packed(cls, packed: Untyped, dims: Sequence[int]) -> "Ket[Any]": ...
    @overload
    @classmethod
    def from_packed(cls, packed: Host | Lists | QuantizedArray[Host], dims: Sequence[int]) -> "Ket[Host]": ...
    @overload
    @classmethod
    def from_packed(
        cls, packed: ForeignT | QuantizedArray[ForeignT], dims: Sequence[int]
    ) -> "Ket[ForeignT]": ...
    @classmethod
    def from_packed(cls, packed: Any, dims: Sequence[int]) -> "Ket[Any]":
        """A ket around an array that is already packed; nothing is copied.

        Parameters
        ----------
        packed : array, (..., R, sum(dims))
            The leaves, floating or complex; the ket shares it, but for integers, which become float64.  A
            QuantizedArray stays one.
        dims : sequence of N ints
            Each >= 1.

        Returns
        -------
        Ket

        Raises
        ------
        TypeError
            On dtypes and dims.
        ValueError
            On shapes and dims.

        Examples
        --------
        >>> Ket.from_packed(np.ones((1, 5)), (2, 3)).shape
        (6,)
        """
        if not isinstance(packed, QuantizedArray):
            _, (packed,), _ = check_floating("packed", (packed,))
        dims = check_dims("dims", dims)
        if packed.ndim < 2 or packed.shape[-1] != sum(dims):
            rule = f"shape (..., rank, {shown(sum(dims))}) for dims {shown(dims)}"
            raise ValueError(f"packed must have {rule}, got {tuple(packed.shape)}")
        self = cls.__new__(cls)
        object.__setattr__(self, "stored", packed)
        object.__setattr__(self, "dims", dims)
        return self

    @classmethod
    def random(
        cls: Any,
        dims: Sequence[int],
        rank: int = 1,
        batch_shape: Sequence[int] = (),
        *,
        std: float = 1.0,
        rng: Seed = None,
        dtype: DTypeLike = "float64",
    ) -> "Ket[Host]":
        """Normal leaves such that the entries of the kets have standard deviation `std`.

        Parameters
        ----------
        dims : sequence of N ints
            Each >= 1.
        rank : int, default 1
            The number of terms, >= 0.
        batch_shape : sequence of ints, default ()
            The shape of the batch; () for one vector.
        std : float, default 1.0
            At least 0.
        rng : int, Generator or None, optional
            A seed, or several in a list; or a Generator of NumPy, or of CuPy, whose arrays the leaves then
            are.
        dtype : dtype, default "float64"
            A floating or complex one of NumPy; real and imaginary parts of complex leaves are independent.

        Returns
        -------
        Ket

        Raises
        ------
        TypeError, ValueError
            On arguments of another kind, shape or value.

        Examples
        --------
        >>> Ket.random((2, 3), rank=4, batch_shape=(5,), rng=0).shape
        (5, 6)
        """
        rank = check_int("rank", rank, 0)
        batch_shape = tuple(
            check_int("batch_shape", size, 0) for size in as_sequence("batch_shape", batch_shape)
        )
        shapes = [(*batch_shape, rank, dim) for dim in check_dims("dims", dims)]
        return cls(construction.random_leaves(shapes, rank, std, rng, dtype))

    @property
    def packed(self: Any) -> ArrayT:
        """The leaves as an array (..., R, sum q_n): `stored`, decoded anew where that is quantized."""
        return decoded(self.stored)

    @property
    def factors(self: Any) -> tuple[ArrayT, ...]:
        """The leaves of each mode: N views (..., R, q_n) of the packed array.

        Of one ket a KroneckerMatrix would read each as one matrix of R rows: its column is `to_column()`.
        """
        packed = self.packed
        return tuple(packed[..., a:b] for a, b in pairwise(offsets(self.dims)))

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The shape of the batch, () for one vector."""
        return tuple(self.stored.shape[:-2])

    @property
    def shape(self) -> tuple[int, ...]:
        """The batch shape and Q."""
        return (*self.batch_shape, prod(self.dims))

    @property
    def ndim(self) -> int:
        """The number of axes of `shape`: 1 for one vector."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many numbers the dense vectors hold: an int of Python, which does not overflow."""
        return prod(self.shape)

    @property
    def order(self) -> int:
        """The number N of modes."""
        return len(self.dims)

    @property
    def rank(self) -> int:
        """The number R of terms."""
        return self.stored.shape[-2]

    @property
    def dtype(self) -> Any:
        """The dtype of the leaves and of every result."""
        return self.stored.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the leaves, as they are stored."""
        return nbytes_of(self.stored)

    def __len__(self) -> int:
        """The first size of the batch; TypeError without a batch."""
        if not self.batch_shape:
            raise TypeError(f"a ket must have a batch for len(), got shape {self.shape}")
        return self.batch_shape[0]

    def __iter__(self) -> "Iterator[Ket[ArrayT]]":
        """The kets along the first axis of the batch."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Key) -> "Ket[ArrayT]":
        """The kets that NumPy's rules choose from the batch.

        Parameters
        ----------
        key : int, slice, array of ints or of bools, or a tuple of these
            Negative indices count from the end; a boolean mask has the shape of the axes that it stands for.

        Returns
        -------
        Ket

        Raises
        ------
        TypeError
            On None, Ellipsis and floats.
        IndexError
            On an index outside, but on a device, where it gives leaves of NaN; on a mask of another shape; on
            more entries than the batch has axes.

        Examples
        --------
        >>> Ket.random((2, 2), batch_shape=(5,))[[0, -1, 0]].batch_shape
        (3,)
        """
        return Ket.from_packed(take_stored(self.stored, parse_key(key, self.batch_shape)), self.dims)

    if TYPE_CHECKING:

        def __add__(self, other: "Ket[ArrayT]") -> "Ket[ArrayT]": ...
        def __sub__(self, other: "Ket[ArrayT]") -> "Ket[ArrayT]": ...

    def _plus(self, other):
        """The sum: ranks add.  Batch shapes broadcast; `dims` must be equal."""
        if not isinstance(other, Ket):
            return NotImplemented
        if other.dims != self.dims:
            raise ValueError(f"kets must have equal dims to be added, got {self.dims} and {other.dims}")
        xp, terms, _ = check_floating("kets", _batched(self.packed, other.packed))
        return Ket.from_packed(xp.concat(terms, axis=-2), self.dims)

    @quiet
    def _scaled(self, scalar, divide):
        """The first leaf of each term carries the scalar."""
        leaves = self.factors
        level = scale.for_number(leaves, scalar, -1)
        packed: Any = self.packed if level is leaves else Ket(level).packed
        first = arithmetic.scaled(packed[..., : self.dims[0]], scalar, divide)
        xp, parts, _ = check_floating("factors", (first, packed[..., self.dims[0] :]))
        return Ket.from_packed(xp.concat(parts, axis=-1), self.dims)

    def kron(self, other: "Ket[ArrayT]") -> "Ket[ArrayT]":
        """The tensor product: orders add, ranks multiply, batch shapes broadcast.

        Parameters
        ----------
        other : Ket
            The factor on the right, whose digits are the less significant ones.

        Returns
        -------
        Ket
            Of dims `(*dims, *other.dims)`.

        Raises
        ------
        TypeError
            On other kinds, and on mixed libraries.
        ValueError
            Where the batch shapes do not broadcast.

        Examples
        --------
        >>> (ket([1.0, 2.0]).kron(ket([1.0, 3.0]))).to_dense().tolist()
        [1.0, 3.0, 2.0, 6.0]
        """
        _check_ket(other)
        left, right = _batched(self.packed, other.packed)
        xp, (left, right), _ = check_floating("kets", (left, right))
        ranks = (self.rank, other.rank)
        pair = (
            xp.broadcast_to(part, (*part.shape[:-3], *ranks, part.shape[-1]))
            for part in (left[..., :, None, :], right[..., None, :, :])
        )
        packed = xp.concat(list(pair), axis=-1)
        packed = xp.reshape(packed, (*packed.shape[:-3], prod(ranks), packed.shape[-1]))
        return Ket.from_packed(packed, self.dims + other.dims)

    def conj(self) -> "Ket[ArrayT]":
        """The complex conjugate; a real ket shares its leaves.

        Returns
        -------
        Ket

        Examples
        --------
        >>> ket([2.0j]).conj().to_dense().imag.tolist()
        [-2.0]
        """
        return Ket.from_packed(conjugated(self.packed), self.dims)

    @overload
    def astype(self: "Ket[Host]", dtype: object) -> "Ket[Host]": ...
    @overload
    def astype(self, dtype: object) -> "Ket[ArrayT]": ...
    @quiet
    def astype(self, dtype: object) -> "Ket[Any]":
        """The same kets with leaves of another floating or complex dtype.

        Parameters
        ----------
        dtype : dtype
            One of the library of the leaves.  A real one drops imaginary parts, as `astype` of NumPy does,
            with its warning.

        Returns
        -------
        Ket

        Raises
        ------
        TypeError
            On a dtype of NumPy that is neither floating nor complex.

        Notes
        -----
        Where a leaf leaves the range of the dtype, the leaves of its term are brought to one level first
        (NumPy only).

        Examples
        --------
        >>> ket([1.0, 2.0]).astype("float32").dtype
        dtype('float32')
        """
        return Ket(construction.cast(self.factors, dtype, -1))

    def dequantize(self) -> "Ket[ArrayT]":
        """The same kets with leaves that are an array; itself where they are.

        Returns
        -------
        Ket

        Examples
        --------
        >>> from ketcore import quantize
        >>> quantize(ket([1.0, 0.0], [0.0, 1.0])).dequantize().to_dense().round(2).tolist()
        [0.0, 1.0, 0.0, 0.0]
        """
        if not is_quantized((self.stored,)):
            return self
        packed: Any = self.packed
        return Ket.from_packed(packed, self.dims)

    def inner(self: Any, other: "Ket[ArrayT]") -> ArrayT:
        """The inner product <self, other>, the first conjugated as in `np.vdot`; batch shapes broadcast.

        Parameters
        ----------
        other : Ket
            Of the same dims.

        Returns
        -------
        array, (...)
            In the promoted dtype, of the broadcast batch shape.

        Raises
        ------
        TypeError
            On other kinds, and on mixed libraries.
        ValueError
            Where dims differ, or batch shapes do not broadcast.

        See Also
        --------
        ket_inner : The same on factors, with derivatives.

        Notes
        -----
        Cost: O(R R' sum q_n) for each entry of the batch.

        Examples
        --------
        >>> float(ket([1.0, 2.0], [1.0, 1.0]).inner(ket([3.0, 1.0], [1.0, 0.0])))
        5.0
        """
        _check_ket(other)
        return ket_inner(self.factors, other.factors)

    def gram(self: Any, other: "Ket[ArrayT]") -> ArrayT:
        """All inner products between two batches, the first conjugated.

        Parameters
        ----------
        other : Ket
            Of the same dims; its batch may have any shape.

        Returns
        -------
        array, `(*batch_shape, *other.batch_shape)`
            In the promoted dtype.

        Raises
        ------
        TypeError
            On other kinds, and on mixed libraries.
        ValueError
            Where dims differ.

        See Also
        --------
        ket_gram : The same on factors, with derivatives.

        Examples
        --------
        >>> kets = Ket.from_packed(np.eye(3)[:, None], (3,))
        >>> kets.gram(kets).tolist() == np.eye(3).tolist()
        True
        """
        _check_ket(other)
        return ket_gram(self.factors, other.factors)

    def contract(self, x: ArrayT | Lists) -> ArrayT:
        """The sums `sum_j v[j] x[j]` with an array, NOT conjugated.

        Parameters
        ----------
        x : array, (Q,), (Q, n) or of shape `dims`
            One vector, n of them as columns, or one on the grid of the dims.  (Q, 1) is a column, also where
            the dims are (Q, 1).  Nested lists and integers are taken in library and dtype of the ket.

        Returns
        -------
        array, (...) or (..., n)
            In the promoted dtype: a number for each ket, and for each column.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes of `x`.

        Notes
        -----
        Cost: time O(R Q) an entry of the batch, memory O(R Q / q_0).

        Examples
        --------
        >>> ket([1.0, 2.0], [1.0, 1.0]).contract([[1, 0], [1, 0], [1, 0], [1, 1]]).tolist()
        [6.0, 2.0]
        """
        x, _, _ = flat("x", operand("x", x, self), self, -1, columns=True, batch=False)
        return arithmetic.contracted(self.factors, x)

    def combine(self, weights: ArrayT | Lists | Number) -> "Ket[ArrayT]":
        """The sum `sum_b weights[b] v[b]` over the batch, as one ket: batch and rank multiply to its rank.

        Parameters
        ----------
        weights : array, (...)
            Of the batch shape, real or complex numbers; not conjugated.

        Returns
        -------
        Ket
            Without batch.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes of `weights`.

        Notes
        -----
        Cost: a copy of the leaves.

        Examples
        --------
        >>> Ket([[[[1.0, 0.0]], [[0.0, 1.0]]]]).combine([2, 3]).to_dense().tolist()
        [2.0, 3.0]
        """
        return Ket(arithmetic.combined(self.factors, operand("weights", weights, self)))

    def norm(self) -> ArrayT:
        """Euclidean norms, real, one for each ket.

        Returns
        -------
        array, (...)
            In the real dtype of the leaves.

        Notes
        -----
        Rounding is relative to the terms: where they cancel to nothing, the result is zero or about the
        square root of machine precision, never NaN.

        Examples
        --------
        >>> float(ket([3.0, 4.0], [2.0]).norm())
        10.0
        """
        return arithmetic.ket_norm(self.factors)

    @quiet
    def normalize(self) -> "Ket[ArrayT]":
        """Kets of norm 1, with the scale spread over all modes; a ket of norm 0 stays zero.

        Returns
        -------
        Ket

        Examples
        --------
        >>> float(ket([3.0, 4.0], [2.0]).normalize().norm())
        1.0
        """
        if self.rank == 0:
            return self
        xp = namespace_of(self._like())
        units, _ = scale.unit_leaves(self.factors)
        length = arithmetic.root_of_squared(ket_inner(units, units))
        length = xp.where(length > 0, length, xp.ones_like(length))
        packed = xp.concat(units, axis=-1) / (length ** (1 / self.order))[..., None, None]
        return Ket.from_packed(xp.astype(packed, self.dtype, copy=False), self.dims)

    @quiet
    def balance(self) -> "Ket[ArrayT]":
        """The same kets with leaves of equal norm within each term.

        Returns
        -------
        Ket
            A term with a leaf of zeros has zeros in all modes.

        Examples
        --------
        >>> balanced = ket([8.0, 0.0], [2.0, 0.0]).balance()
        >>> [round(float(abs(f).max()), 12) for f in balanced.factors]
        [4.0, 4.0]
        """
        return Ket(scale.balanced(self.factors))

    def to_column(self) -> "KroneckerMatrix[ArrayT]":
        """One ket v as a matrix (Q, 1) of the same rank, not conjugated.

        Returns
        -------
        KroneckerMatrix
            With factors (R, q_n, 1).

        Raises
        ------
        ValueError
            For a batch, of which each ket has a column of its own.

        Notes
        -----
        Cost: none, the leaves are shared.  `column.T.row_kets(0)` is the ket again.

        Examples
        --------
        >>> column = ket([1.0, 2.0], [0.0, 1.0]).to_column()
        >>> column.shape, column.T.row_kets(0).to_dense().tolist()
        ((4, 1), [0.0, 1.0, 0.0, 2.0])
        """
        from ketcore.objects.kronecker_matrix import KroneckerMatrix

        self._check_one("to_column")
        leaves: Any = self.factors
        return KroneckerMatrix([leaf[..., None] for leaf in leaves])

    def projector(self) -> "KroneckerMatrix[ArrayT]":
        """The matrix `v v^H`, or `|v><v|`, of one ket: of rank R^2, and as v is, not normalised.

        Returns
        -------
        KroneckerMatrix
            (Q, Q).

        Raises
        ------
        ValueError
            For a batch, of which each ket has a projector of its own.

        Notes
        -----
        Cost: time and memory O(R^2 sum q_n^2); `partial_trace(ket, where)` makes what it leaves alone.

        Examples
        --------
        >>> ket([1.0, 2.0j]).projector().to_dense().tolist()
        [[(1+0j), -2j], [2j, (4+0j)]]
        """
        from ketcore.objects.kronecker_matrix import KroneckerMatrix

        self._check_one("projector")
        return KroneckerMatrix(arithmetic.projector_factors(self.factors))

    def _check_one(self, name):
        if self.batch_shape:
            got = f"batch shape {self.batch_shape} (see ket[i].{name}())"
            raise ValueError(f"ket must be a single vector, got {got}")

    def to_dense(self, max_bytes: float = 2**30, out: ArrayT | None = None) -> ArrayT:
        """The dense vectors.

        Parameters
        ----------
        max_bytes : float, default 2**30
            What the result may take; infinity for no limit.
        out : array, (..., Q), optional
            NumPy and CuPy only: C-contiguous, of the shape and dtype of the result, which is written into it.

        Returns
        -------
        array, (..., Q)
            `out` where that is given.

        Raises
        ------
        MemoryError
            Naming the size, above `max_bytes`.
        TypeError, ValueError
            On an `out` that does not fit.

        Notes
        -----
        Cost: O(R) per element.

        Examples
        --------
        >>> ket([1.0, 2.0], [0.0, 1.0]).to_dense().tolist()
        [0.0, 1.0, 0.0, 2.0]
        """
        what = f"{self.shape} array of {self.dtype}"
        shapes.check_dense_size(prod(self.shape), itemsize(self._like()), what, max_bytes)
        packed: Any = self.packed
        words = prod(self.batch_shape)
        leaves = namespace_of(packed).reshape(packed, (words, *packed.shape[-2:]))
        ids = np.arange(words).reshape(self.batch_shape)
        return ket_rows(leaves, ids, self.dims, check=False, out=out)

    def _like(self):
        return like_of(self.stored)

    def _grid(self, side):
        """The dims, () where there is one."""
        return self.dims if len(self.dims) > 1 else ()

    def _facts(self):
        """What `repr` shows."""
        facts = {"shape": self.shape, "order": self.order, "rank": self.rank, "dims": self.dims}
        counts = display.sizes(
            prod(self.stored.shape), self.nbytes, prod(self.shape) * itemsize(self._like())
        )
        return {**facts, "dtype": self.dtype, **display.storage((self.stored,)), **counts}


@overload
def ket(*vectors: Host | Lists) -> Ket[Host]: ...
@overload
def ket(*vectors: ForeignT) -> Ket[ForeignT]: ...
def ket(*vectors: Any) -> Ket[Any]:
    """One product vector: `ket(a, b, c)` is a (x) b (x) c.

    Parameters
    ----------
    *vectors : N arrays, (q_n,)
        First the most significant; nested lists and integers as in `Ket`.

    Returns
    -------
    Ket
        Of rank 1, without batch.

    Raises
    ------
    TypeError
        On dtypes and on mixed libraries or devices.
    ValueError
        Where there is none, or one has other axes.

    Examples
    --------
    >>> ket([1.0, 2.0], [0.0, 1.0]).to_dense().tolist()
    [0.0, 1.0, 0.0, 2.0]
    """
    # Kets, operators and ragged lists have their errors of `Ket`.
    shapes = [tuple(as_array("vectors", vector).shape) for vector in vectors]
    if any(len(shape) != 1 for shape in shapes):
        raise ValueError(f"vectors must be 1-D, got shapes {shown(shapes)}")
    return Ket(vectors)


def _check_ket(other):
    if not isinstance(other, Ket):
        raise TypeError(f"other must be a Ket, got {type(other).__name__}")


def _batched(left, right):
    """Two packed arrays broadcast to one batch shape."""
    batch = check_batches("kets", left.shape[:-2], right.shape[:-2])
    arrays = []
    for array in (left, right):
        xp = namespace_of(array)
        arrays.append(xp.broadcast_to(array, (*batch, *array.shape[-2:])))
    return arrays
