"""Hypothesis strategies: dtypes, sizes, factors, ids and objects to run tests of Kronecker identities on.

Sizes, dtypes and values are drawn by hypothesis and shrink: a matrix toward few and small modes, an entry
toward 0, then 1, -1 and small integers.  Order 1, rank 1, modes of size 1, uneven modes, cropped shapes,
repeated ids, empty and 0-d ids all come up, and values as `arrays` says.  A test that fails prints the
factors of its objects.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
from hypothesis import note
from hypothesis import strategies as st

from ketcore.array_types import Host
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.testing.elements import Elements, draw_elements
from ketcore.testing.values import written

__tracebackhide__ = True

_FLOATING = ("float32", "float64", "complex64", "complex128")
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_ID_SHAPES = ((), (0,), (1,), (2,), (7,), (2, 3), (0, 2), (3, 1, 2))


def dtypes(*, real: bool | None = None, half: bool = False) -> st.SearchStrategy[np.dtype]:
    """A floating dtype: float32, float64, complex64 or complex128.

    Parameters
    ----------
    real : bool, optional
        True for the real ones only, False for the complex ones only.
    half : bool, default False
        True: float16 as well, and bfloat16 where ml_dtypes is installed.

    Returns
    -------
    SearchStrategy of np.dtype

    Examples
    --------
    >>> from hypothesis import find
    >>> find(dtypes(real=False), lambda dtype: True)
    dtype('complex64')
    """
    names = [name for name in _FLOATING if real is None or name.startswith("float") == real]
    found = [np.dtype(name) for name in names]
    if half and real is not False:
        found += half_dtypes()
    return st.sampled_from(found)


def half_dtypes() -> list[np.dtype]:
    """The dtypes of 16 bits: float16, and bfloat16 where ml_dtypes is installed.

    Returns
    -------
    list of np.dtype

    Examples
    --------
    >>> half_dtypes()[0]
    dtype('float16')
    """
    try:
        import ml_dtypes
    except ImportError:
        return [np.dtype("float16")]
    return [np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]


@st.composite
def mode_dims(
    draw: st.DrawFn, order: int | None = None, *, max_order: int = 4, max_dim: int = 5, max_size: int = 64
) -> tuple[int, ...]:
    """The sizes of N modes.

    Parameters
    ----------
    order : int, optional
        N; None draws it.
    max_order : int, default 4
        The largest N that is drawn.
    max_dim : int, default 5
        The largest size of a mode.
    max_size : int, default 64
        The largest product of all.

    Returns
    -------
    SearchStrategy of tuple of ints

    Examples
    --------
    >>> from hypothesis import find
    >>> find(mode_dims(2), lambda dims: min(dims) > 1)
    (2, 2)
    """
    order = draw(st.integers(1, max_order)) if order is None else order
    sizes: list[int] = []
    for _ in range(order):
        sizes.append(draw(st.integers(1, max(1, min(max_dim, max_size // prod(sizes))))))
    return tuple(draw(st.permutations(sizes)))


@st.composite
def arrays(
    draw: st.DrawFn,
    shape: Sequence[int],
    dtype: np.dtype | str | None = None,
    *,
    elements: Elements = "wide",
    order: int = 1,
) -> Host:
    """A NumPy array.

    Parameters
    ----------
    shape : sequence of ints
        The shape, () and zeros included.
    dtype : dtype, optional
        A floating or complex dtype; None draws one of `dtypes`.
    elements : {"wide", "extreme", "normal"} or SearchStrategy, default "wide"
        What its entries are, in complex arrays real and imaginary parts alike:

        - "wide": 0, 1, -1, 2, -2, 3, -3, 0.5, -0.5 and standard normal ones.  Half of the arrays are such;
          the others have 0, 1, -1, 2 and -2 alone, or are times a huge or tiny power of two: the range of the
          dtype's exponents times 3/8, over `order`, which is 2**48 or 2**-48 for float32, 2**384 or 2**-384
          for float64. So squares of products of `order` entries are finite.
        - "extreme": with them the largest number, the smallest normal one and the smallest one of the dtype,
          side by side: all that can overflow or vanish does.
        - "normal": standard normal from a seed, which does not shrink.
        - a strategy of numbers, which draws each entry: slow for large arrays.
    order : int, default 1
        How many such arrays are multiplied.

    Returns
    -------
    SearchStrategy of np.ndarray

    Raises
    ------
    ValueError
        On other elements.

    Notes
    -----
    Cost: one draw of 128 bytes, twice for complex arrays.  An array of more than 128 entries is drawn by a
    seed, and shrinks to all 0 or all 1 only.

    Examples
    --------
    >>> from hypothesis import find
    >>> find(arrays((2, 2), "float64"), lambda a: not np.array_equal(a, a.T)).tolist()
    [[0.0, 1.0], [0.0, 0.0]]
    """
    dtype = np.dtype(draw(dtypes()) if dtype is None else dtype)
    return draw_elements(draw, tuple(shape), dtype, elements, order)


@st.composite
def factors(
    draw: st.DrawFn,
    *,
    row_dims: Sequence[int] | None = None,
    col_dims: Sequence[int] | None = None,
    order: int | None = None,
    rank: int | None = None,
    dtype: np.dtype | str | None = None,
    elements: Elements = "wide",
    hermitian: bool = False,
    max_dim: int = 5,
) -> tuple[Host, ...]:
    """The factors of a Kronecker matrix: N NumPy arrays (R, p_n, q_n) of one dtype.  What is None is drawn.

    Parameters
    ----------
    row_dims, col_dims : sequence of N ints, optional
        The p_n and the q_n.
    order, rank : int, optional
        N, where no dims say it, and R.
    dtype : dtype, optional
        A floating or complex dtype, for all.
    elements : {"wide", "extreme", "normal"} or SearchStrategy, default "wide"
        Entries as of `arrays`, for products of N of them.
    hermitian : bool, default False
        True: every factor is square and equal to its conjugate transpose, in each term.
    max_dim : int, default 5
        The largest p_n and q_n that are drawn; P and Q stay within 64, or `max_dim` if that is larger.

    Returns
    -------
    SearchStrategy of tuple of np.ndarray

    Raises
    ------
    ValueError
        On `row_dims` that are not `col_dims` if hermitian.

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(factors(order=2, rank=1))
    ... def transpose_of_a_product(pair):
    ...     (a,), (b,) = pair
    ...     assert np.array_equal(np.kron(a, b).T, np.kron(a.T, b.T))
    >>> transpose_of_a_product()
    """
    fixed = row_dims if row_dims is not None else col_dims
    order = draw(st.integers(1, 4)) if order is None and fixed is None else order
    order = len(fixed) if fixed is not None else order
    sizes = mode_dims(order, max_dim=max_dim, max_size=max(64, max_dim))
    if hermitian:
        if row_dims is not None and col_dims is not None and tuple(row_dims) != tuple(col_dims):
            dims = f"row_dims {tuple(row_dims)} and col_dims {tuple(col_dims)}"
            raise ValueError(f"hermitian must be False unless factors are square, got {dims}")
        row_dims = col_dims = draw(sizes) if fixed is None else fixed
    row_dims = draw(sizes) if row_dims is None else row_dims
    col_dims = draw(sizes) if col_dims is None else col_dims
    rank = draw(st.integers(1, 3)) if rank is None else rank
    dtype = draw(dtypes()) if dtype is None else dtype
    shapes = [(rank, p, q) for p, q in zip(row_dims, col_dims, strict=True)]
    found = (draw(arrays(shape, dtype, elements=elements, order=len(shapes))) for shape in shapes)
    return tuple(_hermitian(array) for array in found) if hermitian else tuple(found)


def _hermitian(stack):
    """The lower triangle of each matrix, mirrored: sums of two halves would not keep zeros and ones."""
    lower = np.tril(np.ones(stack.shape[-2:], bool))
    found = np.where(lower, stack, stack.conj().swapaxes(-1, -2))
    diagonal = np.arange(stack.shape[-1])
    found[..., diagonal, diagonal] = found[..., diagonal, diagonal].real
    return found


@st.composite
def leaves(
    draw: st.DrawFn,
    *,
    words: int | None = None,
    dims: Sequence[int] | None = None,
    rank: int | None = None,
    dtype: np.dtype | str | None = None,
    elements: Elements = "wide",
    max_dim: int = 5,
) -> tuple[Host, tuple[int, ...]]:
    """Packed kets, one record per word: a pair (NumPy array (words, R, sum q_n), dims).

    Parameters
    ----------
    words : int, optional
        How many records; None draws it.
    dims : sequence of N ints, optional
        The q_n; None draws them.
    rank : int, optional
        R; None draws it.
    dtype : dtype, optional
        As of `factors`.
    elements : {"wide", "extreme", "normal"} or SearchStrategy, default "wide"
        As of `factors`.
    max_dim : int, default 5
        As of `factors`.

    Returns
    -------
    SearchStrategy of (np.ndarray, tuple of ints)

    Examples
    --------
    >>> from hypothesis import find
    >>> record, dims = find(leaves(words=1, rank=1, dtype="float64"), lambda pair: len(pair[1]) == 2)
    >>> record.tolist(), dims
    ([[[0.0, 0.0]]], (1, 1))
    """
    dims = draw(mode_dims(max_dim=max_dim, max_size=max(64, max_dim))) if dims is None else tuple(dims)
    words = draw(st.integers(1, 6)) if words is None else words
    rank = draw(st.integers(1, 3)) if rank is None else rank
    return draw(arrays((words, rank, sum(dims)), dtype, elements=elements, order=len(dims))), dims


@st.composite
def indices(
    draw: st.DrawFn, bound: int, *, shape: Sequence[int] | None = None, dtype: np.dtype | str | None = None
) -> Host:
    """Ids in [0, bound): a NumPy array of any integer dtype and any shape, repeated ids included.

    Parameters
    ----------
    bound : int
        How many ids there are; 0 gives empty arrays.
    shape : sequence of ints, optional
        None draws it, () and empty ones included.
    dtype : dtype, optional
        An integer dtype; None draws one that holds all ids.

    Returns
    -------
    SearchStrategy of np.ndarray

    Examples
    --------
    >>> from hypothesis import given
    >>> @given(indices(300))
    ... def in_range(ids):
    ...     assert ids.dtype.kind in "iu" and all(0 <= i < 300 for i in ids.flat)
    >>> in_range()
    """
    shape = draw(st.sampled_from(_ID_SHAPES)) if shape is None else tuple(shape)
    if bound < 1:
        shape = (0,)
    if dtype is None:
        dtype = draw(st.sampled_from([name for name in _INTEGERS if np.iinfo(name).max >= bound - 1]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # A pool smaller than the batch makes repeated ids common; every other pool has the ends of the range.
    pool = rng.integers(0, max(bound, 1), size=draw(st.integers(1, 8)))
    if draw(st.booleans()):
        pool = np.append(pool, [0, max(bound - 1, 0)])
    return np.asarray(rng.choice(pool, size=shape)).astype(dtype)


@st.composite
def crops(draw: st.DrawFn, rows: int, columns: int) -> tuple[int, int] | None:
    """A shape: None, or (rows, columns) cropped to something smaller, never empty.

    Parameters
    ----------
    rows, columns : int
        P and Q.

    Returns
    -------
    SearchStrategy of (int, int) or None

    Examples
    --------
    >>> from hypothesis import find
    >>> find(crops(4, 6), lambda shape: shape is not None)
    (1, 1)
    """
    if draw(st.booleans()):
        return None
    return draw(st.integers(1, rows)), draw(st.integers(1, columns))


@st.composite
def kets(
    draw: st.DrawFn,
    *,
    batch_shape: Sequence[int] | None = None,
    dims: Sequence[int] | None = None,
    rank: int | None = None,
    dtype: np.dtype | str | None = None,
    asarray: Callable[..., Any] = np.asarray,
    elements: Elements = "wide",
    max_dim: int = 5,
) -> Ket[Any]:
    """A `ketcore.Ket`.  What is None is drawn.

    Parameters
    ----------
    batch_shape : sequence of ints, optional
        The shape of the batch; None draws (), (0,) and others.
    dims : sequence of N ints, optional
        The q_n.
    rank : int, optional
        R.
    dtype : dtype, optional
        A floating or complex dtype.
    asarray : callable, default np.asarray
        (NumPy array) -> array of the library whose kets they are to be.
    elements : {"wide", "extreme", "normal"} or SearchStrategy, default "wide"
        As of `factors`.
    max_dim : int, default 5
        As of `factors`.

    Returns
    -------
    SearchStrategy of Ket

    Examples
    --------
    >>> from hypothesis import find
    >>> find(kets(batch_shape=(), dims=(2,), rank=1), lambda ket: ket.norm() > 0).factors[0].tolist()
    [[1.0, 0.0]]
    """
    if batch_shape is None:
        batch_shape = draw(st.sampled_from(((), (1,), (3,), (2, 2), (0,))))
    dims = draw(mode_dims(max_dim=max_dim, max_size=max(64, max_dim))) if dims is None else dims
    rank = draw(st.integers(1, 3)) if rank is None else rank
    dtype = draw(dtypes()) if dtype is None else dtype
    shapes = [(*(batch_shape or ()), rank, size) for size in dims]
    found = [draw(arrays(shape, dtype, elements=elements, order=len(shapes))) for shape in shapes]
    note(_Note("Ket", found))
    return Ket([asarray(array) for array in found])


@st.composite
def kronecker_matrices(
    draw: st.DrawFn,
    *,
    row_dims: Sequence[int] | None = None,
    col_dims: Sequence[int] | None = None,
    order: int | None = None,
    rank: int | None = None,
    dtype: np.dtype | str | None = None,
    cropped: bool = True,
    asarray: Callable[..., Any] = np.asarray,
    elements: Elements = "wide",
    hermitian: bool = False,
    max_dim: int = 5,
) -> KroneckerMatrix[Any]:
    """A `ketcore.KroneckerMatrix`.  What is None is drawn.

    Parameters
    ----------
    row_dims, col_dims : sequence of N ints, optional
        As of `factors`.
    order, rank : int, optional
        As of `factors`.
    dtype : dtype, optional
        As of `factors`.
    cropped : bool, default True
        False keeps the whole shape (P, Q).
    asarray : callable, default np.asarray
        (NumPy array) -> array of the library whose matrices they are to be.
    elements : {"wide", "extreme", "normal"} or SearchStrategy, default "wide"
        Entries as of `arrays`, for products of N of them.
    hermitian : bool, default False
        As of `factors`; a Hermitian matrix is cropped to a square.
    max_dim : int, default 5
        The largest p_n and q_n that are drawn.

    Returns
    -------
    SearchStrategy of KroneckerMatrix

    Examples
    --------
    >>> from hypothesis import find
    >>> found = find(kronecker_matrices(order=1, rank=1, dtype="float64"), lambda matrix: matrix.norm() > 0)
    >>> [factor.tolist() for factor in found.factors]
    [[[[1.0]]]]
    """
    found = draw(
        factors(
            row_dims=row_dims,
            col_dims=col_dims,
            order=order,
            rank=rank,
            dtype=dtype,
            elements=elements,
            hermitian=hermitian,
            max_dim=max_dim,
        )
    )
    rows, columns = (prod(array.shape[axis] for array in found) for axis in (1, 2))
    shape = draw(crops(rows, columns)) if cropped else None
    if hermitian and shape is not None:
        shape = (shape[0], shape[0])
    note(_Note("KroneckerMatrix", found, shape))
    return KroneckerMatrix([asarray(array) for array in found], shape=shape)


class _Note:
    """The factors of an object for the report of a failing test, written only if there is one."""

    def __init__(self, kind, arrays, shape=None):
        self.kind, self.arrays, self.shape = kind, arrays, shape

    def __repr__(self):
        listed = ", ".join(map(written, self.arrays))
        shape = "" if self.shape is None else f", shape={self.shape}"
        return f"{self.kind}([{listed}]{shape}), dtype {self.arrays[0].dtype.name}"
