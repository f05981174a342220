"""What stands beside arrays and is to count as one: the one rule of all constructors, functions and operands.

arrays      keep their dtype where it is floating; integers and bools take the floating dtype of the others
numbers     and nested lists of them have no library and no dtype of their own: they take both from the arrays
            beside them, and are complex where they hold complex numbers
quantized   a QuantizedArray is what it decodes to: here it is read, for every operation and engine
the rest    what has `__array__` or `__dlpack__` alone (a DataFrame) is an array of NumPy
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import complex_dtype
from ketcore.arrays.namespaces import (
    accumulation_dtype,
    device_of,
    is_array,
    is_floating,
    is_integer,
    namespace,
    namespace_of,
    native,
    opts_out,
    widest_floating,
)
from ketcore.arrays.quantized import QuantizedArray
from ketcore.cuda.library import device_namespace, on_one_device

# The dtypes of nearly all calls: what is one of these needs no second look.
COMMON = frozenset(map(np.dtype, ("float32", "float64", "float16", "complex64", "complex128")))

# The dtypes of nearly all indices.
COMMON_INDICES = frozenset(map(np.dtype, ("int32", "int64")))

# Numbers and lists, which have no library and no dtype.
_WEAK = (list, tuple, range, int, float, complex, np.generic)


def plain(name: str, array: Any) -> Any:
    """An array of NumPy in native byte order and of no derived class (np.matrix, np.memmap); others as it is.

    TypeError where it has a mask, which no result would have.
    """
    if not isinstance(array, np.ndarray):
        return array
    if type(array) is np.ndarray:
        return native(array)
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} must have no mask, got {type(array).__name__}")
    return native(array.view(np.ndarray))


def as_array(name: str, value: Any) -> AnyArray:
    """An array as it is; numbers, lists, and what has `__array__` or `__dlpack__` alone as one of NumPy.

    TypeError on kets, operators and sparse matrices, on arrays with a mask, and on lists of what is no
    number; ValueError on ragged lists.
    """
    if isinstance(value, _WEAK):
        return _listed(name, value)
    if is_array(value):
        return plain(name, value)
    if isinstance(value, QuantizedArray):
        return value.dequantize()
    kind = type(value).__name__
    if opts_out(value):
        way = "to_dense" if hasattr(type(value), "to_dense") else "KroneckerProduct"
        raise TypeError(f"{name} must be dense, got {kind} (see {way})")
    if hasattr(value, "tocsr"):
        raise TypeError(f"{name} must be dense, got {kind}")
    try:
        # NumPy makes an array of objects of anything else, which has no numeric dtype.
        own = hasattr(value, "__array__") or not hasattr(value, "__dlpack__")
        return plain(name, np.asarray(value) if own else np.from_dlpack(value))
    except (TypeError, RuntimeError):
        raise TypeError(f"{name} must be an array or a nested list of numbers, got {kind}") from None


def plain_type(arrays: Sequence[Any]) -> tuple[ModuleType, np.dtype[Any]] | None:
    """The namespace of arrays of NumPy itself, and the dtype that they promote to; None for all else.

    Their dtypes are some of `COMMON`.  Arrays of CuPy on one device that share such a dtype have it as well.
    Of such arrays, at least one, nothing remains to be checked or converted; to find that takes half a
    microsecond.
    """
    if type(arrays[0]) is not np.ndarray:
        if not on_one_device(arrays):
            return None
        dtype = arrays[0].dtype
        same = all([array.dtype is dtype for array in arrays])  # noqa: C419 - half the time
        return (device_namespace(), dtype) if same and dtype in COMMON else None
    dtype, mixed = arrays[0].dtype, False
    for array in arrays:
        if type(array) is not np.ndarray:
            return None
        # Nearly all arrays of one dtype share the object.
        mixed = mixed or array.dtype is not dtype
    if not mixed:
        return (np, dtype) if dtype in COMMON else None
    return (np, np.result_type(*arrays)) if COMMON.issuperset([array.dtype for array in arrays]) else None


def promoted(name: str, arrays: Sequence[AnyArray]) -> Any:
    """The dtype that arrays of one library promote to; TypeError where there is none."""
    if len({array.dtype for array in arrays}) == 1:
        return arrays[0].dtype
    try:
        return namespace(name, arrays).result_type(*arrays)
    except TypeError:  # NumPy promotes no float16 with bfloat16
        got = ", ".join(sorted({str(array.dtype) for array in arrays}))
        raise TypeError(f"{name} must have dtypes that promote to one, got {got}") from None


def as_floating(name: str, values: Sequence[Any], others: Sequence[Any] = ()) -> tuple[AnyArray, ...]:
    """The `values` as arrays, floating as far as they are numeric.

    `others` stand beside them in the same call: their arrays count for library, device and dtype.  Raises
    what `as_array` does, and TypeError where arrays of `values` differ in library or device, or do not
    promote.

    >>> [a.dtype.name for a in as_floating("x", ([1, 2], np.ones(2, np.float32), np.arange(2)))]
    ['float32', 'float32', 'float32']
    """
    weak = [isinstance(value, _WEAK) for value in values]
    arrays = [as_array(name, value) for value in values]
    known = [array for array, is_weak in zip(arrays, weak, strict=True) if not is_weak]
    if len(known) > 1:
        namespace(name, known)
    known += [other for other in others if not isinstance(other, _WEAK) and is_array(other)]
    if not known and {array.dtype for array in arrays} <= COMMON:
        return tuple(arrays)
    like = known[0] if known else arrays[0]
    xp = namespace_of(like)
    # Arrays of another library are refused where the libraries of the whole call are compared.
    floats = [a for a in known or arrays if namespace_of(a) is xp and is_floating(xp, a.dtype)]
    dtype = promoted(name, floats) if floats else widest_floating(xp)
    made = (_placed if is_weak and known else _converted for is_weak in weak)
    return tuple(make(array, dtype, like) for make, array in zip(made, arrays, strict=True))


def _listed(name, value):
    """A number, or a nested list of numbers, as an array of NumPy."""
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} must be arrays or regular nested lists, got ragged lists") from None
    except (TypeError, RuntimeError):
        # Arrays within lists that NumPy may not have: on a device, traced, or with derivatives.
        kind = type(value).__name__
        raise TypeError(f"{name} must be an array or a nested list of numbers, got a {kind}") from None


def _converted(array, dtype, like):
    """Integers and bools in `dtype`; all others as they are."""
    if array.dtype == dtype:
        return array
    xp = namespace_of(array)
    whole = is_integer(xp, array.dtype) or array.dtype == xp.bool
    return xp.astype(array, dtype) if whole else array


def _placed(array, dtype, like):
    """Numbers of a list in `dtype` beside `like`; what are no numbers as it is, to be refused."""
    xp = namespace_of(like)
    if xp is np and array.dtype == dtype:
        return array
    if not (array.dtype.kind in "biu" or is_floating(np, array.dtype)):
        return array
    target = complex_dtype(xp, dtype) if array.dtype.kind == "c" else dtype
    if xp is np:
        return array.astype(target, copy=False)
    # Libraries take from NumPy neither bfloat16 nor its integers of all sizes.
    array = array.astype(np.complex128 if array.dtype.kind == "c" else np.float64, copy=False)
    wide = xp.asarray(array, dtype=accumulation_dtype(xp, target), device=device_of(like))
    return xp.astype(wide, target, copy=False)
