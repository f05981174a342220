"""Small functions of arrays that every library has under another name, in another speed, or not at all."""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.namespaces import accumulation_dtype, device_of, is_complex, is_numpy, namespace_of


def conjugated(array: AnyArray) -> AnyArray:
    """The complex conjugate; a real array as it is."""
    xp = namespace_of(array)
    return xp.conj(array) if is_complex(xp, array.dtype) else array


def transposed(array: AnyArray) -> AnyArray:
    """A view (..., q, p) of an array (..., p, q)."""
    if is_numpy(array):  # whose own method takes a tenth of the time
        return array.swapaxes(-1, -2)
    return namespace_of(array).matrix_transpose(array)


def adjoint(array: AnyArray) -> AnyArray:
    """The conjugate transpose of matrices (..., p, q)."""
    return conjugated(transposed(array))


def reshaped(xp: ModuleType, array: AnyArray, shape: tuple[int, ...]) -> AnyArray:
    """`array` in another shape; NumPy's own method takes a third of the time of its function."""
    return array.reshape(shape) if xp is np else xp.reshape(array, shape)


def flattened(xp: ModuleType, array: AnyArray) -> AnyArray:
    """`array` with one axis, the last: (...) -> (B,)."""
    return array if array.ndim == 1 else reshaped(xp, array, (prod(array.shape),))


def permuted(xp: ModuleType, array: AnyArray, axes: tuple[int, ...]) -> AnyArray:
    """`array` with its axes in another order, by NumPy's own method as in `reshaped`."""
    return array.transpose(axes) if xp is np else xp.permute_dims(array, axes)


def sum_along(xp: ModuleType, array: AnyArray, axis: int) -> AnyArray:
    """The sum over an axis, in the dtype of `array`."""
    if xp is np:  # whose function takes twice the time of what it calls
        return np.add.reduce(array, axis=axis, dtype=array.dtype)
    return xp.sum(array, axis=axis, dtype=array.dtype)


def mean_along(xp: ModuleType, array: AnyArray, axis: int) -> AnyArray:
    """The mean over an axis, in the dtype of `array`, without what NumPy's own function asks first."""
    return np.add.reduce(array, axis=axis) / array.shape[axis] if xp is np else xp.mean(array, axis=axis)


def padded(xp: ModuleType, array: AnyArray, size: int, axis: int) -> AnyArray:
    """Zeros behind `array` up to `size` along `axis`; it is returned as it is where it has that size."""
    missing = size - array.shape[axis]
    if not missing:
        return array
    shape = [missing if n == axis % array.ndim else length for n, length in enumerate(array.shape)]
    if is_numpy(array):
        return np.concatenate([array, np.zeros(shape, array.dtype)], axis=axis)
    nothing = xp.zeros_like(xp.sum(array, axis=axis, keepdims=True, dtype=array.dtype))
    return xp.concat([array, xp.broadcast_to(nothing, tuple(shape))], axis=axis)


def widened(array: AnyArray) -> AnyArray:
    """An array in its accumulation dtype."""
    xp = namespace_of(array)
    wide = accumulation_dtype(xp, array.dtype)
    return array if array.dtype == wide else xp.astype(array, wide)


def as_dtype(xp: ModuleType, array: AnyArray, dtype: Any) -> AnyArray:
    """`array` in another dtype; NumPy's own function takes long to find that there is nothing to do."""
    if array.dtype == dtype:
        return array
    return array.astype(dtype) if xp is np else xp.astype(array, dtype)


def elementwise_product(arrays: Sequence[AnyArray]) -> AnyArray:
    """The elementwise product of arrays that broadcast."""
    total = arrays[0]
    for array in arrays[1:]:
        total = total * array
    return total


def unboxed(result: AnyArray) -> AnyArray:
    """A NumPy array without dimensions as the scalar that NumPy's own functions return."""
    return result[()] if result.ndim == 0 else result


def itemsize(array: AnyArray) -> int:
    """Bytes of one element; array-api-strict alone keeps it from its dtypes and arrays."""
    known = getattr(array.dtype, "itemsize", None)
    if known is not None:
        return int(known)
    xp = namespace_of(array)
    return xp.finfo(array.dtype).bits * (2 if is_complex(xp, array.dtype) else 1) // 8


def real_dtype(xp: ModuleType, dtype: Any) -> Any:
    """The dtype of absolute values."""
    if not is_complex(xp, dtype):
        return dtype
    return xp.float64 if dtype == xp.complex128 else xp.float32


def complex_dtype(xp: ModuleType, dtype: Any) -> Any:
    """The complex dtype of the precision of `dtype`."""
    if is_complex(xp, dtype):
        return dtype
    return xp.complex128 if dtype == xp.float64 else xp.complex64


def beside(values: np.ndarray, like: AnyArray) -> AnyArray:
    """An array of NumPy as one of the library and the device of `like`."""
    if is_numpy(like):
        return values
    return namespace_of(like).asarray(np.ascontiguousarray(values), device=device_of(like))


def identity(size: int, like: AnyArray, dtype: Any = None) -> AnyArray:
    """The identity matrix (size, size) beside `like`, in its dtype unless another is given."""
    device = device_of(like)
    return namespace_of(like).eye(size, dtype=like.dtype if dtype is None else dtype, device=device)


def chosen(xp: ModuleType, condition: AnyArray, array: AnyArray, other: AnyArray) -> AnyArray:
    """`xp.where` of two arrays of one dtype, in that dtype: CuPy's gives float32 for bfloat16."""
    return as_dtype(xp, xp.where(condition, array, other), array.dtype)
