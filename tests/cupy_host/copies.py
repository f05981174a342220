"""CuPy's kernel of copies, in NumPy: what `astype`, `ascontiguousarray` and `fill` launch."""

import ctypes
import re

import numpy as np

# Scalars of Python keep their width until they are copied.
_SCALARS = {"bool": "?", "int": "i8", "float": "f8", "complex": "c16"}
_PARAMETER = re.compile(r"\.param (?:\.align \d+ )?\.(\w+) \w+_param_\d+(?:\[(\d+)\])?")


def by_numpy(launch) -> bool:
    """Run a copy to an array, from another one or of a scalar; False if it is another kernel."""
    match = re.fullmatch(r"cupy_copy__([a-z]+\d*)_([a-z]+\d+|bool)", launch.name.decode())
    if not match:
        return False
    source, target, _ = _parameters(launch)
    dtypes = [np.dtype(_SCALARS.get(name, name)) for name in match.groups()]
    _array(target, dtypes[1])[...] = _array(source, dtypes[0])
    return True


def _parameters(launch):
    """The address of each parameter, and its size in bytes where it is a struct, else 0."""
    symbol = launch.symbol.decode()
    declared = launch.ptx.decode().partition(f".entry {symbol}(")[2].partition(")")[0]
    addresses = ctypes.cast(launch.arguments, ctypes.POINTER(ctypes.c_void_p))
    return [(addresses[i], int(size or 0)) for i, (_, size) in enumerate(_PARAMETER.findall(declared))]


def _array(parameter, dtype):
    """A view of the array that CuPy's struct speaks of: address, size, then its shape and strides."""
    address, size = parameter
    if not size:
        return np.frombuffer((ctypes.c_char * dtype.itemsize).from_address(address), dtype)[0]
    words = np.frombuffer((ctypes.c_int64 * (size // 8)).from_address(address), np.int64).tolist()
    dims = (len(words) - 2) // 2
    return view(words[0], dtype, words[2 : 2 + dims], words[2 + dims :])


def view(address: int, dtype: np.dtype, shape, strides) -> np.ndarray:
    """An array in memory that is another's."""
    interface = {"data": (address, False), "shape": tuple(shape), "strides": tuple(strides), "version": 3}
    # Bytes, since what the interface has no name for, bfloat16, is no less an array.
    holder = type("Memory", (), {"__array_interface__": interface | {"typestr": f"|V{dtype.itemsize}"}})()
    return np.asarray(holder).view(dtype)
