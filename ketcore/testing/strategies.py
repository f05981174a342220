"""Hypothesis strategies: dtypes, sizes, factors, ids and objects to run tests of Kronecker identities on.

Sizes and dtypes are drawn by hypothesis and shrink; the values are standard normal from a drawn seed, since a
multilinear map has no interesting values but those that arithmetic makes interesting everywhere.  Order 1,
rank 1, modes of size 1, uneven modes, cropped shapes, repeated ids, empty and 0-d ids all come up.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ketcore.array_types import Host
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError('ketcore.testing must find hypothesis: pip install "ketcore[test]"') from error

_FLOATING = ("float32", "float64", "complex64", "complex128")
_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_ID_SHAPES = ((), (0,), (1,), (2,), (7,), (2, 3), (0, 2), (3, 1, 2))


def dtypes(*, real: bool | None = None, half: bool = False) -> st.SearchStrategy[np.dtype]:
    """A floating dtype: float32, float64, complex64 or complex128.

    real   True for the real ones only, False for the complex ones only
    half   float16 as well, and bfloat16 where ml_dtypes is installed
    """
    names = [name for name in _FLOATING if real is None or name.startswith("float") == real]
    found = [np.dtype(name) for name in names]
    if half and real is not False:
        found += half_dtypes()
    return st.sampled_from(found)


def half_dtypes() -> list[np.dtype]:
    """float16, and bfloat16 where ml_dtypes is installed."""
    try:
        import ml_dtypes
    except ImportError:
        return [np.dtype("float16")]
    return [np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]


@st.composite
def mode_dims(
    draw: st.DrawFn, order: int | None = None, *, max_order: int = 4, max_dim: int = 5, max_size: int = 64
) -> tuple[int, ...]:
    """The sizes of N modes, up to `max_dim` each, `max_size` in all; N is `order`, or up to `max_order`."""
    order = draw(st.integers(1, max_order)) if order is None else order
    sizes: list[int] = []
    for _ in range(order):
        sizes.append(draw(st.integers(1, max(1, min(max_dim, max_size // prod(sizes))))))
    return tuple(draw(st.permutations(sizes)))


@st.composite
def arrays(draw: st.DrawFn, shape: Sequence[int], dtype: np.dtype | str | None = None) -> Host:
    """A NumPy array of standard normal values, real and imaginary, of `dtype` or any of `dtypes()`."""
    dtype = np.dtype(draw(dtypes()) if dtype is None else dtype)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal(tuple(shape))
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(tuple(shape))
    return np.asarray(values).astype(dtype)


@st.composite
def factors(
    draw: st.DrawFn,
    *,
    row_dims: Sequence[int] | None = None,
    col_dims: Sequence[int] | None = None,
    order: int | None = None,
    rank: int | None = None,
    dtype: np.dtype | str | None = None,
) -> tuple[Host, ...]:
    """The factors of a Kronecker matrix: N NumPy arrays (R, p_n, q_n) of one dtype.  What is None is drawn.

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
    row_dims = draw(mode_dims(order)) if row_dims is None else row_dims
    col_dims = draw(mode_dims(order)) if col_dims is None else col_dims
    rank = draw(st.integers(1, 3)) if rank is None else rank
    dtype = draw(dtypes()) if dtype is None else dtype
    shapes = [(rank, p, q) for p, q in zip(row_dims, col_dims, strict=True)]
    return tuple(draw(arrays(shape, dtype)) for shape in shapes)


@st.composite
def leaves(
    draw: st.DrawFn,
    *,
    words: int | None = None,
    dims: Sequence[int] | None = None,
    rank: int | None = None,
    dtype: np.dtype | str | None = None,
) -> tuple[Host, tuple[int, ...]]:
    """Packed kets, one record per word: a pair (NumPy array (words, R, sum q_n), dims)."""
    dims = draw(mode_dims()) if dims is None else tuple(dims)
    words = draw(st.integers(1, 6)) if words is None else words
    rank = draw(st.integers(1, 3)) if rank is None else rank
    return draw(arrays((words, rank, sum(dims)), dtype)), dims


@st.composite
def indices(
    draw: st.DrawFn, bound: int, *, shape: Sequence[int] | None = None, dtype: np.dtype | str | None = None
) -> Host:
    """Ids in [0, bound): a NumPy array of any integer dtype and any shape, repeated ids included.

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
    """A shape: None, or (rows, columns) cropped to something smaller, never empty."""
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
) -> Ket[Any]:
    """A `ketcore.Ket` of arrays made by `asarray` from NumPy arrays.  What is None is drawn."""
    if batch_shape is None:
        batch_shape = draw(st.sampled_from(((), (1,), (3,), (2, 2), (0,))))
    dims = draw(mode_dims()) if dims is None else dims
    rank = draw(st.integers(1, 3)) if rank is None else rank
    dtype = draw(dtypes()) if dtype is None else dtype
    return Ket([asarray(draw(arrays((*(batch_shape or ()), rank, size), dtype))) for size in dims])


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
) -> KroneckerMatrix[Any]:
    """A `ketcore.KroneckerMatrix` of arrays made by `asarray`; `cropped=False` keeps the whole shape."""
    found = draw(factors(row_dims=row_dims, col_dims=col_dims, order=order, rank=rank, dtype=dtype))
    rows, columns = (prod(array.shape[axis] for array in found) for axis in (1, 2))
    shape = draw(crops(rows, columns)) if cropped else None
    return KroneckerMatrix([asarray(array) for array in found], shape=shape)
