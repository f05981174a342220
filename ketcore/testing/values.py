"""Arrays of any library to NumPy and back: the assertions compute in NumPy, in float64 or complex128.

Array: an array of NumPy, CuPy, torch, jax, array-api-strict or another library of the array-API standard.
"""

from collections.abc import Callable, Sequence
from typing import Any

import array_api_compat as compat
import numpy as np

from ketcore.array_types import AnyArray

__tracebackhide__ = True


def dtype_name(dtype: Any) -> str:
    """The name that every library gives a dtype.

    >>> dtype_name(np.float32), dtype_name("complex64"), dtype_name(np.dtype("int8"))
    ('float32', 'complex64', 'int8')
    """
    try:
        return np.dtype(dtype).name
    except TypeError:
        # torch.float32 and array_api_strict.float32 print as they are written.
        return str(dtype).rsplit(".", 1)[-1]


def written(array: AnyArray, most: int = 36) -> str:
    """An array on one line, to the last digit; the middle of one with more than `most` entries is left out.

    >>> written(np.array([[0.1, 1.0]], "float32")), written(np.arange(100.0))
    ('[[0.1, 1.0]]', '[0.0, 1.0, ..., 98.0, 99.0]')
    """
    values = to_numpy(array)
    text = np.array2string(
        values, separator=", ", threshold=most, edgeitems=2, max_line_width=10**6, formatter={"all": str}
    )
    return " ".join(text.split()).replace("[ ", "[")


def to_numpy(array: AnyArray) -> np.ndarray:
    """A copy of an array in NumPy: of the same dtype, or float32 where torch holds a bfloat16.

    Parameters
    ----------
    array : array, (...), or number
        Of any library, on any device.

    Returns
    -------
    np.ndarray, (...)

    Examples
    --------
    >>> to_numpy(np.arange(3.0)).tolist()
    [0.0, 1.0, 2.0]
    """
    if isinstance(array, np.ndarray | np.generic | int | float | complex):
        return np.array(array)
    if compat.is_torch_array(array):
        array = array.detach().resolve_conj().resolve_neg().cpu()
        # NumPy has no bfloat16 of its own, and every bfloat16 is a float32.
        return np.array((array.float() if dtype_name(array.dtype) == "bfloat16" else array).numpy())
    if compat.is_jax_array(array):
        return np.array(array)
    if array.__dlpack_device__()[0] != 1:
        return np.array(compat.to_device(array, "cpu"))
    return np.array(np.from_dlpack(array))


def from_numpy(values: np.ndarray, like: AnyArray) -> AnyArray:
    """Values as an array of the library, device and dtype of another; only the real part if that is real.

    Parameters
    ----------
    values : np.ndarray, (...)
        The values.
    like : array of any shape
        Of any library.

    Returns
    -------
    array, (...)

    Examples
    --------
    >>> from_numpy(np.array([1.0 + 2.0j]), np.zeros(1, "float32"))
    array([1.], dtype=float32)
    """
    dtype = like.dtype
    if is_complex(values) and not is_complex(like):
        values = np.real(values)
    if isinstance(like, np.ndarray | np.generic):
        return np.array(values, dtype=dtype)
    xp = compat.array_namespace(like)
    moved = xp.asarray(np.array(values), device=compat.device(like))
    return moved if moved.dtype == dtype else xp.astype(moved, dtype)


def is_complex(array: AnyArray) -> bool:
    """Whether the dtype of `array` is complex."""
    return dtype_name(array.dtype).startswith("complex")


def widen(array: AnyArray) -> AnyArray:
    """An array in float64, or complex128 where it is complex.

    Raises
    ------
    TypeError
        If its dtype is not floating or its library has no float64 (jax without x64).
    """
    name = dtype_name(array.dtype)
    if not name.startswith(("float", "bfloat", "complex")):
        raise TypeError(f"primals must be real or complex floating, got {name}")
    wide = "complex128" if is_complex(array) else "float64"
    if isinstance(array, np.ndarray | np.generic):
        return np.array(array, dtype=wide)
    xp = compat.array_namespace(array)
    moved = xp.asarray(to_numpy(array).astype(wide), device=compat.device(array))
    if dtype_name(moved.dtype) != wide:
        raise TypeError(f"primals must convert to {wide}, got {dtype_name(moved.dtype)} (jax: enable x64)")
    return moved


def to_wide(array: AnyArray) -> np.ndarray:
    """`array` in NumPy, as float64 or complex128."""
    array = to_numpy(array)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def many(arrays: AnyArray | Sequence[AnyArray]) -> tuple[AnyArray, ...]:
    """One array or several, as a tuple."""
    return tuple(arrays) if isinstance(arrays, tuple | list) else (arrays,)


def call_untouched(function: Callable[..., Any], name: str, *groups: tuple[str, Sequence[AnyArray]]) -> Any:
    """Call `function` on all groups, (word for messages, arrays); fail if it wrote into one of them."""
    before = [[to_numpy(array) for array in arrays] for _, arrays in groups]
    result = function(*(array for _, arrays in groups for array in arrays))
    for (word, arrays), copies in zip(groups, before, strict=True):
        for n, (array, copy) in enumerate(zip(arrays, copies, strict=True)):
            # Bytes, because a NaN must stay the same NaN.
            if to_numpy(array).tobytes() != copy.tobytes():
                raise AssertionError(f"{name} must leave its arguments untouched, got {word} {n} changed")
    return result
