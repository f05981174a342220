"""Checks of arguments: once per call, before any allocation.  What comes after them trusts.

Every message reads `<argument> must <rule>, got <value>`.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray, Host
from ketcore.arrays.autodiff import is_recorded, is_traced
from ketcore.arrays.conversions import COMMON_INDICES, as_array, as_floating, plain, plain_type, promoted
from ketcore.arrays.namespaces import (
    device_of,
    extremes,
    index_dtype,
    is_array,
    is_complex,
    is_floating,
    is_integer,
    is_numpy,
    is_writeable_in_place,
    namespace,
    namespace_of,
    on_host,
    opts_out,
    to_host,
)
from ketcore.cuda.library import is_cupy, on_one_device
from ketcore.shapes import NO_SEQUENCES, broadcast, check_addressable, check_dense_size, shown
from ketcore.tracing import kept


def check_tables(
    name: str, tables: Sequence[Any], others: Sequence[Any] = ()
) -> tuple[ModuleType, Sequence[AnyArray], Any]:
    """The namespace, the arrays and the promoted dtype of N arrays (R, p_n, q_n) of one rank."""
    xp, tables, dtype = check_floating(name, tables, others)
    check_table_shapes(name, shapes_of(tables))
    return xp, tables, dtype


def shapes_of(arrays: Sequence[AnyArray]) -> tuple[tuple[int, ...], ...]:
    """The shapes, in the form that functions of sizes alone take."""
    return tuple([tuple(array.shape) for array in arrays])


def check_table_shapes(name: str, shapes: Sequence[Sequence[int]]) -> None:
    """ValueError unless these are shapes (R, p_n, q_n) with one R, and at least one row and one column."""
    if any(len(shape) != 3 or shape[0] != shapes[0][0] for shape in shapes):
        rule = "arrays (rank, rows, columns) of one rank"
        raise ValueError(f"{name} must be {rule}, got shapes {shown(list(shapes))}")
    if any(shape[1] < 1 or shape[2] < 1 for shape in shapes):
        rule = "at least one row and one column each"
        raise ValueError(f"{name} must have {rule}, got shapes {shown(list(shapes))}")


def check_floating(
    name: str, arrays: Sequence[Any], others: Sequence[Any] = ()
) -> tuple[ModuleType, Sequence[AnyArray], Any]:
    """The namespace, the arrays and the promoted dtype of at least one array, floating or made so.

    `others` are arrays beside them in the same call, from which lists and integers take library and dtype.
    """
    # Most calls have nothing but these, of which no more is to be known.
    if type(arrays) in (tuple, list) and arrays:
        known = plain_type(arrays)
        if known is not None:
            return known[0], tuple(arrays), known[1]
    try:
        if opts_out(arrays):
            raise TypeError
        arrays = tuple(arrays)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of arrays, got {type(arrays).__name__}") from None
    if not arrays:
        raise ValueError(f"{name} must hold at least one array, got none")
    arrays = as_floating(name, arrays, others)
    xp, dtypes = namespace(name, arrays), {array.dtype for array in arrays}
    for dtype in dtypes:
        check_dtype(name, xp, dtype)
    return xp, arrays, dtypes.pop() if len(dtypes) == 1 else promoted(name, arrays)


def check_optional(name: str, array: Any, others: Sequence[AnyArray]) -> Any:
    """An array that is floating, or made so beside the others; None for None."""
    return None if array is None else check_floating(name, (array,), others)[1][0]


def check_constant(name: str, arrays: Sequence[Any], function: str, what: str = "one") -> None:
    """TypeError where PyTorch or JAX would differentiate, or trace, what `function` computes on the host.

    `what` is what the message calls an array; {n} in it is the number of the array.
    """
    for n, array in enumerate(arrays):
        if is_array(array) and is_recorded([array]):
            rule, got = (
                f"not require gradients for {function}, which has none",
                "that does (see torch.no_grad)",
            )
            if is_traced(array):
                rule, got = f"be known by its values for {function}", "that is traced"
            raise TypeError(f"{name} must {rule}, got {what.format(n=n)} {got}")


def check_dtype(name: str, xp: ModuleType, dtype: Any) -> None:
    """TypeError, naming `name`, unless `dtype` is floating or complex, of at most double precision.

    What other numbers there were are floating by now.
    """
    if is_floating(xp, dtype):
        return
    rule = "a numeric dtype"
    if isinstance(dtype, np.dtype) and dtype.kind in "fc":
        rule += " of at most double precision"
    raise TypeError(f"{name} must have {rule}, got {dtype}")


def check_flag(name: str, value: Any, rule: str = "True or False") -> bool:
    """`value` as a bool, of Python or of NumPy; TypeError that names it where it is none."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise TypeError(f"{name} must be {rule}, got {shown(value)}")


def as_sequence(name: str, values: Any) -> tuple[Any, ...]:
    """`values` as a tuple; TypeError where it is no sequence."""
    try:
        # Of sparse matrices the rows would be what they hold.
        if opts_out(values) or isinstance(values, NO_SEQUENCES) or hasattr(values, "tocsr"):
            raise TypeError
        return tuple(values)
    except TypeError:
        raise TypeError(f"{name} must be a sequence, got {type(values).__name__}") from None


def as_integers(name: str, index: Any) -> AnyArray:
    """`index` as an array; TypeError unless its dtype is an integer.  An empty list counts as integers."""
    if (type(index) is np.ndarray or is_cupy(index)) and index.dtype in COMMON_INDICES:
        return index
    if not is_array(index):
        given = index
        try:
            index = np.asarray(index)
        except ValueError:
            raise ValueError(f"{name} must be integers or regular nested lists, got ragged lists") from None
        index = index.astype(np.int64) if index.size == 0 and index.dtype == np.float64 else index
        if index.dtype.kind in "Of":
            _check_counted(name, given)
    index = plain(name, index)
    if not is_integer(namespace_of(index), index.dtype):
        raise TypeError(f"{name} must have an integer dtype, got {index.dtype}")
    return index


def _check_counted(name, values):
    """IndexError where all values are ints, some of them beyond 64 bits, of which NumPy makes other kinds."""
    flat = np.array(values, dtype=object).ravel().tolist()
    if flat and all(map(_is_int, flat)):
        largest = max(flat, key=abs)
        raise IndexError(f"{name} must lie in [{-(2**63)}, {2**63}), got {shown(largest)}")


def check_index(
    name: str, index: Any, bound: int, check: bool | None, narrow: bool = False
) -> tuple[AnyArray, bool]:
    """An integer array of 32 or 64 bits, and whether all its values are known to lie in [0, bound).

    With `narrow` it may have any integer dtype of NumPy whose values an int64 holds.
    """
    # Most calls have nothing else, and are right.
    if is_within(index, bound, check):
        return index, True
    index = as_integers(name, index)
    xp = namespace_of(index)
    # A uint64 above 2**63 turns negative here, which is out of range as well; the message shows the original.
    stays = _is_wide(xp, index.dtype) or (narrow and _is_narrow(index.dtype))
    wide = index if stays else xp.astype(index, index_dtype(xp))
    if check is not None:
        check = check_flag("check", check, "True, False or None")
    if check is False or not (check or on_host(index)):
        return wide, False
    if 0 in wide.shape:
        return wide, True
    # The two extremes decide, and 64-bit integers compare with any Python int.
    found = extremes(wide)
    if found is None:
        return wide, False
    if found[0] < 0 or found[1] >= bound:
        value = _first_outside(index, min(bound, 1 << 63))
        # Of more than 2**63 rows a uint64 can name some that int64 cannot.
        limit = 1 << 63 if 0 <= value < bound else bound
        raise IndexError(f"{name} must lie in [0, {limit}), got {value}")
    return wide, True


def is_within(index: Any, bound: int, check: bool | None) -> bool:
    """Whether this is a NumPy array that needs no other check, all of whose values lie in [0, bound).

    False means that more has to be asked, for which `check_index` is.
    """
    if type(index) is not np.ndarray or index.dtype not in COMMON_INDICES or not index.size:
        return False
    if check is not None and check is not True:
        return False
    # What `extremes` does, without a call of its own.
    return index.item(index.argmin()) >= 0 and index.item(index.argmax()) < bound


def outside(xp: ModuleType, index: AnyArray, bound: int) -> AnyArray:
    """Which of the indices are not in [0, bound)."""
    # A bound beyond the dtype of the indices is above all of them, and no number to compare them with.
    if bound > xp.iinfo(index.dtype).max:
        return index < 0
    return (index < 0) | (index >= bound)


def _is_wide(xp, dtype):
    if isinstance(dtype, np.dtype):
        return dtype.kind == "i" and dtype.itemsize >= 4
    return dtype in (xp.int32, xp.int64)


def _is_narrow(dtype):
    return isinstance(dtype, np.dtype) and dtype.kind in "iu" and dtype.itemsize <= 4


def _first_outside(index, bound):
    flat = np.asarray(to_host(index)).ravel()
    return next(value for value in flat.tolist() if not 0 <= value < bound)


def to_namespace_of(array: AnyArray, xp: ModuleType, like: AnyArray) -> AnyArray:
    """`array`, moved to the library and device of `like` where it is a NumPy array of host values."""
    if is_numpy(array):
        if xp is np:
            return array
        return xp.asarray(array, device=device_of(like))
    if not on_one_device((array, like)):
        namespace("ids and factors", (array, like))
    return array


def _is_int(value):
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_columns(name: str, columns: Any, width: int) -> int:
    """The length of an output row: all of `width`, or the int `columns` in [1, width]."""
    if columns is None:
        return width
    if not _is_int(columns) or not 1 <= columns <= width:
        raise ValueError(f"{name} must be an int in [1, {width}], got {shown(columns)}")
    return int(columns)


def check_shape(shape: Any, factors: Sequence[AnyArray]) -> tuple[int, int]:
    """(rows, columns): all of (P, Q), or the leading block `shape`."""
    return check_block(
        shape,
        (prod([factor.shape[-2] for factor in factors]), prod([factor.shape[-1] for factor in factors])),
    )


def check_block(shape: Any, full: tuple[int, int]) -> tuple[int, int]:
    """`check_shape` of a matrix of the size `full`."""
    if shape is None:
        return full
    try:
        rows, columns = shape if type(shape) is tuple else as_sequence("shape", shape)
    except (TypeError, ValueError):
        raise ValueError(f"shape must be two ints (rows, columns), got {shown(shape)}") from None
    if not _is_int(rows) or not _is_int(columns) or not (1 <= rows <= full[0] and 1 <= columns <= full[1]):
        raise ValueError(f"shape must be two ints from (1, 1) to {full}, got {shown(shape)}")
    return int(rows), int(columns)


def is_plain_block(shape: Any) -> bool:
    """Whether `shape` is None or a tuple of two ints, so that what is found of it may be kept.

    What else equals such a pair is none, or has no hash.
    """
    if type(shape) is not tuple:
        return shape is None
    return len(shape) == 2 and type(shape[0]) is type(shape[1]) is int


def check_identities(
    identities: Any, dims: tuple[Sequence[int], Sequence[int]], rank: int
) -> tuple[frozenset[int], ...]:
    """The modes of square factors that are identities in each of R terms, R sets.

    `identities` are modes for all terms, or R collections of modes; `dims` are those of rows and those of
    columns.
    """
    if type(identities) is tuple and set(map(type, identities)) == {frozenset}:
        rows, columns = map(tuple, dims)
        return _checked_sets(identities, rows, columns, rank)
    alone = isinstance(identities, set | frozenset)
    found = tuple(identities) if alone else as_sequence("identities", identities)
    if found and all(isinstance(each, _COLLECTIONS) for each in found):
        return _checked_terms(found, dims, rank)
    return (_modes(found, dims),) * rank


# What holds the modes of one term.
_COLLECTIONS = list | tuple | set | frozenset | range | np.ndarray


@kept(1024)
def _checked_sets(identities, rows, columns, rank):
    # Sets that equal those of an earlier call hold the same modes, of whatever kinds their numbers are.
    return _checked_terms(identities, (rows, columns), rank)


def _checked_terms(identities, dims, rank):
    if len(identities) != rank:
        rule = f"modes, or one collection of modes for each of {rank} terms"
        raise ValueError(f"identities must be {rule}, got {len(identities)} collections")
    if all(type(each) is frozenset for each in identities):
        # Of many terms few leave different modes alone.
        checked = {each: _modes(each, dims) for each in set(identities)}
        return tuple(checked[each] for each in identities)
    return tuple(_modes(tuple(each), dims) for each in identities)


def _modes(found, dims):
    """The modes as a set, each of a square factor."""
    for n in found:
        if not _is_int(n):
            raise TypeError(f"identities must be ints, got {shown(n)}")
        if not 0 <= n < len(dims[0]):
            raise ValueError(f"identities must be modes in [0, {len(dims[0])}), got {shown(n)}")
        if dims[0][n] != dims[1][n]:
            got = f"{n} of shape {(dims[0][n], dims[1][n])}"
            raise ValueError(f"identities must be modes of square factors, got {got}")
    return frozenset(map(int, found))


def check_batches(names: str, one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """The shape to which two batches broadcast."""
    one, other = tuple(one), tuple(other)
    try:
        return np.broadcast_shapes(one, other)
    except TypeError:
        # Symbols, which NumPy does not take.
        return broadcast(one, other)
    except ValueError:
        raise ValueError(f"{names} must have batches that broadcast, got {one} and {other}") from None


def check_like(
    name: str, values: Any, shape: Sequence[int], xp: ModuleType, like: AnyArray, dtype: Any
) -> AnyArray:
    """Values as an array beside `like`, floating, of this shape; complex only where `dtype` is.

    Lists and integers take `dtype`.
    """
    plain_pair = (type(values) is np.ndarray and is_numpy(like)) or on_one_device((values, like))
    if plain_pair and values.dtype == dtype and values.shape == tuple(shape):
        return values
    other = like if like.dtype == dtype else xp.empty((), dtype=dtype, device=device_of(like))
    (values,) = as_floating(name, (values,), (other,))
    namespace(f"{name} and primals", (values, like))
    check_dtype(name, xp, values.dtype)
    if is_complex(xp, values.dtype) and not is_complex(xp, dtype):
        raise TypeError(f"{name} must be real as the primals are, got {values.dtype}")
    if tuple(values.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(values.shape)}")
    return values


def check_tangents(
    name: str, tangents: Sequence[Any], primals: Sequence[AnyArray], xp: ModuleType, dtype: Any
) -> Sequence[AnyArray]:
    """One tangent per primal, of its shape."""
    tangents = as_sequence(name, tangents)
    if len(tangents) != len(primals):
        raise ValueError(f"{name} must hold {len(primals)} arrays, one per primal, got {len(tangents)}")
    return tuple(
        check_like(name, tangent, primal.shape, xp, primal, dtype)
        for tangent, primal in zip(tangents, primals, strict=True)
    )


def check_out(
    out: AnyArray | None, shape: Sequence[int], dtype: Any, like: AnyArray, xp: ModuleType
) -> AnyArray:
    """A new array, or `out` if results can be written into it as they are."""
    shape = tuple(shape)
    if out is None:
        check_addressable(shape)
        return xp.empty(shape, dtype=dtype, device=device_of(like))
    if type(out) is not type(like) or not is_writeable_in_place(out):
        raise TypeError(f"out must be a NumPy or CuPy array like the factors, got {type(out).__name__}")
    if tuple(out.shape) != shape or out.dtype != dtype:
        raise ValueError(f"out must have shape {shape} and dtype {dtype}, got {out.shape} and {out.dtype}")
    writeable = not is_numpy(out) or out.flags.writeable
    if not (out.flags.c_contiguous and writeable):
        raise ValueError(
            f"out must be C-contiguous and writeable, got strides {out.strides}, writeable={writeable}"
        )
    return out


def check_spectrum(like: Any, dims: Sequence[int], max_bytes: int) -> None:
    """MemoryError, naming the size, where the eigenvalues take more than `max_bytes`.

    They are numbers like those of `like`, one for each choice of digits below `dims`; without dims there are
    none.
    """
    if not dims:
        return check_dense_size(0, 1, "spectrum", max_bytes)
    size, bits = prod(dims), namespace_of(like).finfo(like.dtype).bits
    itemsize = bits // 8 * (2 if is_complex(namespace_of(like), like.dtype) else 1)
    return check_dense_size(size, itemsize, f"spectrum ({size},)", max_bytes)


def check_permutation(name: str, value: Any, size: int) -> Host:
    """A permutation of the numbers below `size` as intp on the host.

    >>> check_permutation("permutation", [2, 0, 1], 3).tolist()
    [2, 0, 1]
    """
    array = as_array(name, value)
    if not is_integer(namespace_of(array), array.dtype):
        raise TypeError(f"{name} must have an integer dtype, got {array.dtype}")
    if tuple(array.shape) != (size,):
        raise ValueError(f"{name} must have shape ({size},), got {tuple(array.shape)}")
    found = to_host(array)
    ordered = np.sort(found)
    if not np.array_equal(ordered, np.arange(size)):
        outside = [number for number in (ordered[0], ordered[-1]) if not 0 <= number < size]
        got = outside[0] if outside else f"{ordered[:-1][ordered[1:] == ordered[:-1]][0]} more than once"
        raise ValueError(f"{name} must hold every number below {size} once, got {got}")
    return found.astype(np.intp)
