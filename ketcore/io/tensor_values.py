"""Arrays of any library as tensors of a file, and back."""

from collections.abc import Sequence
from importlib import import_module

import numpy as np

from ketcore.array_types import AnyArray, Host
from ketcore.arrays.autodiff import is_torch
from ketcore.arrays.namespaces import dtype_name, library_of, namespace_of, to_host
from ketcore.objects.construction import placed

# What the format calls a dtype, and whether a number is a pair of it: there is no complex128, and older
# readers refuse a file with complex64.
_STORED = {
    "float64": ("F64", False),
    "float32": ("F32", False),
    "float16": ("F16", False),
    "bfloat16": ("BF16", False),
    "complex128": ("F64", True),
    "complex64": ("F32", True),
    "int64": ("I64", False),
    "int32": ("I32", False),
    "int16": ("I16", False),
    "int8": ("I8", False),
    "uint64": ("U64", False),
    "uint32": ("U32", False),
    "uint16": ("U16", False),
    "uint8": ("U8", False),
    "bool": ("BOOL", False),
}
_OF_PAIRS = {np.dtype(np.float64): np.complex128, np.dtype(np.float32): np.complex64}


def are_pairs(array: AnyArray) -> bool:
    """Whether an array is stored as pairs of its real and imaginary parts."""
    return _stored(array)[1]


def stored_as(array: AnyArray) -> tuple[str, Sequence[int]]:
    """What the format calls the dtype of an array, and its shape in a file; TypeError on dtypes."""
    dtype, pairs = _stored(array)
    return dtype, (*array.shape, 2) if pairs else tuple(array.shape)


def _stored(array):
    dtype = dtype_name(array.dtype)
    if dtype not in _STORED:
        raise TypeError(f"obj must have a dtype among {', '.join(_STORED)}, got {array.dtype}")
    return _STORED[dtype]


def bytes_of(array: AnyArray) -> Host:
    """The bytes of an array in the order of a file, uint8; waits for its device."""
    if is_torch(array):
        array = array.detach().cpu()
        if str(array.dtype) == "torch.bfloat16":
            # NumPy has no such dtype without ml_dtypes, and none is needed to copy bytes.
            array = array.view(namespace_of(array).int16)
    values = to_host(array)
    return np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)


def as_numbers(found: Host, dtype: str, pairs: bool, like: AnyArray | None) -> AnyArray:
    """A tensor that was read, as numbers of its dtype beside `like`; None for NumPy.

    `dtype` is what the format calls it.  ImportError where NumPy has no bfloat16, TypeError where the library
    of `like` has not the dtype.
    """
    if pairs:
        found = found.view(_OF_PAIRS[found.dtype])[..., 0]
    elif dtype == "BF16" and is_torch(like):
        xp = namespace_of(like)
        return _owned(found.view(np.int16), like).view(xp.bfloat16)
    elif dtype == "BF16":
        try:
            found = found.view(import_module("ml_dtypes").bfloat16)
        except ImportError as error:
            raise ImportError("bfloat16 in NumPy needs ml_dtypes: pip install ml_dtypes") from error
    return found if like is None else _owned(found, like)


def _owned(values, like):
    """Beside `like`, in the same dtype."""
    # Where it shares memory, PyTorch warns of an array that is read-only.
    result = placed(values if values.flags.writeable else values.copy(), like)
    if str(result.dtype).rpartition(".")[2] != values.dtype.name:
        rule = f"an array of a library that has {values.dtype.name}"
        raise TypeError(f"like must be {rule}, got one of {library_of(like)}, which makes it {result.dtype}")
    return result
