"""A matrix of any kind as blocks of dense rows.

Arrays are sliced; so is whatever has a two-dimensional `shape`, a `dtype` and row slices (memory maps,
HDF5 and Zarr datasets, sparse matrices, Kronecker matrices), block by block.  A linear operator gives the
rows start..stop as (A^H E)^H, with E the columns start..stop of the identity.  Rows may be read in another
order than they lie in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray, Host
from ketcore.arrays.checks import check_dtype
from ketcore.arrays.conversions import as_array, as_floating
from ketcore.arrays.namespaces import accumulation_dtype, device_of, is_array, namespace_of, opts_out, to_host
from ketcore.arrays.quantized import QuantizedArray

# Elements of the columns of the identity that an operator is given at a time: 4 MB of float64.
_IDENTITY = 1 << 19


@dataclass(frozen=True)
class Rows:
    """Row blocks of a matrix.

    Attributes
    ----------
    shape : tuple
        (rows, columns).
    read : callable
        Of (start, stop), gives an array (stop - start, columns) in the accumulation dtype.
    sample : array
        An empty one of the library, the dtype and the device of what `read` gives.
    dtype : dtype
        That of the matrix: a fit is returned in it.
    held : bool
        Whether all rows lie in memory as one array.
    order : array of NumPy, (rows,), or None
        Which row of the matrix each row is; None where it is the same one.
    alone : bool
        Whether a row has no numbers but those of its own: those of an operator come from products.
    """

    shape: tuple[int, int]
    read: Callable[[int, int], AnyArray]
    sample: AnyArray
    dtype: Any
    held: bool
    order: Host | None
    alone: bool

    @property
    def xp(self) -> ModuleType:
        """The namespace of the rows."""
        return namespace_of(self.sample)

    def not_finite(self) -> str:
        """An entry that is NaN or infinite with its row in the matrix, as far as that is known."""
        words, columns = self.shape
        step = max(1, _IDENTITY // columns)
        for start in range(0, words if self.alone else 0, step):
            found = place_not_finite(to_host(self.read(start, min(start + step, words))))
            if found is not None:
                row = start + found[0]
                return f"{found[1]} in row {row if self.order is None else self.order[row]}"
        return "NaN or infinity"


def place_not_finite(block: np.ndarray) -> tuple[int, Any] | None:
    """The first row with an entry that is NaN or infinite, and that entry.

    >>> row, value = place_not_finite(np.array([[1.0, 2.0], [np.inf, 0.0]]))
    >>> row, float(value)
    (1, inf)
    """
    finite = np.isfinite(block)
    row = int(np.argmin(finite.all(axis=1)))
    return None if finite[row].all() else (row, block[row, np.argmin(finite[row])])


def open_rows(matrix: Any, name: str = "A", order: Host | None = None) -> Rows:
    """`matrix` as row blocks; nothing is read yet but the first row of what is no array.

    Parameters
    ----------
    matrix : array or operator
        What has rows.
    name : str, default "A"
        What errors call it.
    order : array of NumPy, (rows,), optional
        Block rows start..stop are the rows ``order[start:stop]`` of the matrix.

    Raises
    ------
    TypeError
        On what has no rows or no adjoint, and on dtypes.
    ValueError
        Unless it has two dimensions and at least one row and one column.
    """
    held: Any = None
    read: Callable[[Any], AnyArray]
    if hasattr(matrix, "rmatmat"):
        read = _operator_rows(name, matrix)
    elif is_array(matrix) and not isinstance(matrix, np.memmap):
        held = matrix
    elif isinstance(matrix, list | tuple | QuantizedArray) or (not opts_out(matrix) and _is_whole(matrix)):
        held = as_array(name, matrix)
    else:
        read = _sliced(name, matrix)
    if held is not None:
        read = _held_rows(held)
    shape = _two_sizes(name, matrix if held is None else held)
    (first,) = as_floating(name, (read(slice(0, 1)),))
    xp = namespace_of(first)
    check_dtype(name, xp, first.dtype)
    wide = accumulation_dtype(xp, first.dtype)

    def read_wide(start, stop):
        block = read(slice(start, stop) if order is None else order[start:stop])
        return xp.astype(block, wide, copy=False)

    sample, alone = xp.astype(first[:0, :], wide, copy=False), not hasattr(matrix, "rmatmat")
    return Rows(shape, read_wide, sample, first.dtype, held is not None, order, alone)


def _held_rows(held):
    """A reader of rows of an array, by a slice or by an array of NumPy."""

    def read(where):
        if isinstance(where, slice):
            return held[where, :]
        xp = namespace_of(held)
        return xp.take(held, xp.asarray(where, device=device_of(held)), axis=0)

    return read


def _two_sizes(name, matrix):
    shape = tuple(matrix.shape)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{name} must be a matrix of at least one row and one column, got shape {shape}")
    return int(shape[0]), int(shape[1])


def _is_whole(matrix):
    """Whether there are no slices of rows, but an array of all (a DataFrame, whose columns have dtypes)."""
    return hasattr(matrix, "__array__") and not hasattr(matrix, "dtype")


def _operator_rows(name, operator):
    """Rows through the adjoint of a SciPy LinearOperator."""
    size, dtype = operator.shape[0], np.dtype(operator.dtype or np.float64)
    try:
        operator.rmatvec(np.zeros(size, dtype))
    except NotImplementedError:
        kind = type(operator).__name__
        raise TypeError(f"{name} must have an adjoint, got a {kind} without rmatvec") from None

    # Columns of the identity are as long as A has rows: a few of them at a time.
    step = max(1, _IDENTITY // size)

    def few(rows):
        identity = np.zeros((size, len(rows)), dtype)
        identity[rows, np.arange(len(rows))] = 1
        # Infinity times the zeros of the identity is NaN, and refused as such.
        return np.conj(np.asarray(operator.rmatmat(identity))).T

    def read(where):
        rows = np.arange(where.start, where.stop) if isinstance(where, slice) else where
        return np.concatenate([few(rows[at : at + step]) for at in range(0, len(rows), step)])

    return read


def _sliced(name, matrix):
    """A reader of blocks of rows, of what can be sliced."""
    if not all(hasattr(matrix, attribute) for attribute in ("shape", "dtype", "__getitem__")):
        raise TypeError(
            f"{name} must be an array, a linear operator or sliceable by rows, got {type(matrix).__name__}"
        )

    def read(where):
        if isinstance(where, slice):
            return block_of(where)
        # Files take the numbers of rows in ascending order alone, and read faster so.
        order = np.argsort(where)
        block = block_of(where[order])
        xp = namespace_of(block)
        return xp.take(block, xp.asarray(np.argsort(order), device=device_of(block)), axis=0)

    def block_of(where):
        block = matrix[where]
        block = block.toarray() if hasattr(block, "toarray") else block
        return as_array(name, block)

    return read
