"""Names of objects by what they hold, by which Dask knows equal ones: `__dask_tokenize__` of every object.

Dask names an array by its shape and its numbers as they lie in memory, by which a square matrix and its
transpose are one.  Here the order of the numbers is that of their indices, whatever the strides are.
"""

from hashlib import blake2b
from typing import Any

import numpy as np

from ketcore.arrays.elementary import as_dtype
from ketcore.arrays.namespaces import dtype_name, is_array, is_half, namespace_of, to_host

# That of two arrays one name is made is as good as impossible.
_HASH_BYTES = 20
# Numbers that are copied at once, of an array that may be a mapped file larger than memory.
_BLOCK_NUMBERS = 1 << 20


def object_token(obj: Any) -> tuple[Any, ...]:
    """The class of an object and what its attributes hold."""
    kind = type(obj)
    fields = sorted(vars(obj).items())
    return f"{kind.__module__}.{kind.__qualname__}", *[(name, token(value)) for name, value in fields]


def token(value: Any) -> Any:
    """What an attribute holds, in numbers and texts that are equal where it is.

    >>> square = np.arange(4.0).reshape(2, 2)
    >>> token(square) == token(square.copy()), token(square) == token(square.T)
    (True, False)
    """
    if value is None or isinstance(value, int | str):
        return value
    if is_array(value):
        return _array_token(value)
    if isinstance(value, tuple):
        return tuple([token(each) for each in value])
    if isinstance(value, frozenset):
        return tuple(sorted(value))
    if hasattr(value, "__dask_tokenize__"):
        return value.__dask_tokenize__()
    # Other parts, such as sparse ones, Dask knows, which is there: it is what asks.
    from dask.base import normalize_token

    return normalize_token(value)


def _array_token(array):
    """Library, dtype, shape and a hash of the numbers."""
    xp, dtype = namespace_of(array), dtype_name(array.dtype)
    if xp is not np and is_half(array.dtype):
        # NumPy may have no bfloat16.
        array = as_dtype(xp, array, xp.float32)
    return xp.__name__, dtype, tuple(array.shape), _hash(to_host(array))


def _hash(numbers):
    """Of all numbers, in blocks along the longest axis: of a mapped table those are words."""
    found = blake2b(digest_size=_HASH_BYTES)
    numbers = numbers.reshape(1) if numbers.ndim == 0 else numbers
    axis = int(np.argmax(numbers.shape))
    length = numbers.shape[axis]
    step = max(1, _BLOCK_NUMBERS * length // max(1, numbers.size))
    little = numbers.dtype.newbyteorder("<")
    for start in range(0, length, step):
        key = (*[slice(None)] * axis, slice(start, start + step))
        block = np.ascontiguousarray(numbers[key]).astype(little, copy=False)
        found.update(block.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
