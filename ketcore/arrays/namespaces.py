"""What differs between array libraries: namespaces, dtypes, where values lie."""

from collections.abc import Sequence
from mmap import mmap
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import detached, is_torch, is_traced
from ketcore.cuda.library import device_namespace, host_values, is_cupy, on_one_device
from ketcore.tracing import FunctionT, is_compiling, unless_compiling


def quiet(function: FunctionT) -> FunctionT:
    """Decorates every public function that computes: what is not finite propagates in silence.

    So does what leaves the range of its dtype.  Whether NumPy would warn depends on the kernel that BLAS has
    for this processor.
    """
    return unless_compiling(function, np.errstate(all="ignore")(function))


def opts_out(value: Any) -> bool:
    """Whether `value` is no array and says so, as operators and kets do.

    What it yields are rows, made one by one.  SciPy's operators say it by opting out of NumPy's ufuncs.
    """
    kind = type(value)
    return hasattr(kind, "_refuse_conversion") or getattr(kind, "__array_ufunc__", True) is None


def is_array(value: Any) -> bool:
    """Whether `value` is an array of a library that follows the array API."""
    return isinstance(value, np.ndarray) or is_torch(value) or array_api_compat.is_array_api_obj(value)


def namespace_of(array: AnyArray) -> ModuleType:
    """The array-API namespace of one array.  NumPy's is NumPy itself, which needs no wrapper."""
    if isinstance(array, np.ndarray):
        return np
    if is_cupy(array):
        return device_namespace()
    # What array-api-compat keeps between calls, PyTorch does not trace without a warning.
    if is_compiling() and is_torch(array):
        from array_api_compat import torch

        return torch
    return array_api_compat.array_namespace(array)


def device_of(array: AnyArray) -> Any:
    """Where an array lies: what its library calls the device; None where JAX traces it."""
    return array.device if is_torch(array) else array_api_compat.device(array)


def _devices(array):
    """The device of an array, or all those that JAX has shared it out to, in whatever way."""
    found = device_of(array)
    return sorted(found.device_set, key=str) if hasattr(found, "device_set") else found


def namespace(name: str, arrays: Sequence[AnyArray]) -> ModuleType:
    """The one namespace of `arrays`; TypeError, naming `name`, where they differ in library or device."""
    if all([isinstance(a, np.ndarray) for a in arrays]):  # noqa: C419 - half the time
        return np
    if on_one_device(arrays):
        return device_namespace()
    try:
        same = all(map(is_torch, arrays))
        xp = namespace_of(arrays[0]) if same else array_api_compat.array_namespace(*arrays)
    except TypeError:
        libraries = sorted({library_of(a) for a in arrays})
        raise TypeError(f"{name} must be arrays of one library, got {', '.join(libraries)}") from None
    try:
        # An array that JAX traces has no device yet.
        devices = {str(_devices(a)) for a in arrays} - {"None"}
    except AttributeError:
        # It has a namespace and not the rest, as those that autograd traces.
        libraries = sorted({library_of(a) for a in arrays})
        rule = "arrays that follow the array API as a whole"
        raise TypeError(f"{name} must be {rule}, got those of {', '.join(libraries)}") from None
    if len(devices) > 1:
        raise TypeError(f"{name} must lie on one device, got {', '.join(sorted(devices))}")
    return xp


def library_of(array: Any) -> str:
    """The name of the package that the type of `array` comes from."""
    if type(array) is np.ndarray:
        return "numpy"
    # The name of a type's module is not traced.
    if is_torch(array):
        return "torch"
    return type(array).__module__.partition(".")[0]


def is_numpy(array: AnyArray) -> bool:
    """Whether `array` is a NumPy array."""
    return isinstance(array, np.ndarray)


def compact(array: AnyArray) -> AnyArray:
    """A NumPy array laid out in C order, so that elementwise work on it is one loop; others as they are."""
    return np.ascontiguousarray(array) if is_numpy(array) else array


def is_writeable_in_place(array: AnyArray) -> bool:
    """Whether results can be written into arrays of this library (NumPy, CuPy)."""
    return is_numpy(array) or is_cupy(array)


def on_host(array: AnyArray) -> bool:
    """Whether `array` has its values in host memory, so that reading them waits for no device."""
    if is_numpy(array):
        return True
    if is_cupy(array):
        return False
    return not is_traced(array) and str(device_of(array)).lower().startswith(("cpu", "tfrt_cpu"))


def extremes(array: AnyArray) -> tuple[int, int] | None:
    """The least and the largest of some integers; None where the array is traced and has no values."""
    if is_numpy(array):
        # Of a few entries the places of the extremes are found in a fifth of the time of the extremes.
        return array.item(array.argmin()), array.item(array.argmax())
    if is_traced(array):
        return None
    if is_torch(array) and not array.dtype.is_signed:
        # PyTorch has no extremes of unsigned integers but those of one byte.
        return extremes(to_host(array))
    xp = namespace_of(array)
    return int(xp.min(array)), int(xp.max(array))


def is_mapped(array: np.ndarray) -> bool:
    """Whether an array of NumPy lies in a file that is mapped into memory."""
    base: Any = array
    while base is not None and not isinstance(base, mmap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base is not None


def to_host(array: AnyArray) -> np.ndarray:
    """The values of `array` as a NumPy array, cut off from its derivatives; waits for its device."""
    if is_cupy(array):
        return host_values(array)
    if is_torch(array):
        # NumPy does not take the views that are conjugates or negatives for torch.
        array = array.detach().resolve_conj().resolve_neg().cpu()
        try:
            return np.asarray(array)
        except RuntimeError:  # within torch.func a tensor has values but no memory of its own
            return np.asarray(array.tolist(), dtype=str(array.dtype).rpartition(".")[2])
    return np.asarray(detached(array))


def value_of(array: AnyArray) -> Any:
    """What an array without dimensions holds, as a Python number; None where it is traced without one."""
    if is_traced(array):
        return None
    if is_torch(array):
        return array.detach().item()
    return array.item() if isinstance(array, np.ndarray | np.generic) else to_host(array).item()


def native(array: np.ndarray) -> np.ndarray:
    """An array of NumPy in the byte order of this machine: compiled code reads no other."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def cast_gradient(xp: ModuleType, gradient: AnyArray, primal: AnyArray) -> AnyArray:
    """`gradient` in the dtype of `primal`; its real part where the primal is real."""
    if gradient.dtype == primal.dtype:
        return gradient
    if is_complex(xp, gradient.dtype) and not is_complex(xp, primal.dtype):
        gradient = xp.real(gradient)
    return xp.astype(gradient, primal.dtype, copy=False)


def is_floating(xp: ModuleType, dtype: Any) -> bool:
    """Whether `dtype` is real or complex floating, bfloat16 included; long doubles are not."""
    if isinstance(dtype, np.dtype):
        # Long doubles (g and G) have no linear algebra, no kernels, and a size of their own on each platform.
        return dtype.char in "efdFD" or is_half(dtype)
    return is_half(dtype) or xp.isdtype(dtype, ("real floating", "complex floating"))


def is_complex(xp: ModuleType, dtype: Any) -> bool:
    """Whether `dtype` is complex floating."""
    if isinstance(dtype, np.dtype):
        return dtype.kind == "c"
    return not is_half(dtype) and xp.isdtype(dtype, "complex floating")


def is_integer(xp: ModuleType, dtype: Any) -> bool:
    """Whether `dtype` is an integer; bool is not."""
    if isinstance(dtype, np.dtype):
        return dtype.kind in "iu"
    return not is_half(dtype) and xp.isdtype(dtype, "integral")


def is_half(dtype: Any) -> bool:
    """Whether `dtype` is float16 or bfloat16 (NumPy has the latter from ml_dtypes)."""
    if isinstance(dtype, np.dtype) and dtype.itemsize != 2:
        return False
    return str(dtype).rpartition(".")[2] in ("float16", "bfloat16")


def dtype_name(dtype: Any) -> str:
    """What NumPy calls a dtype, of any library."""
    return dtype.name if isinstance(dtype, np.dtype) else str(dtype).rpartition(".")[2]


def accumulation_dtype(xp: ModuleType, dtype: Any) -> Any:
    """The dtype that sums run in: float32 for 16-bit storage, else `dtype` itself."""
    return xp.float32 if is_half(dtype) else dtype


def index_dtype(xp: ModuleType) -> Any:
    """int64, or the widest integer that the library is set to (JAX without 64-bit types has int32)."""
    if xp is np:
        return np.int64
    if array_api_compat.is_jax_namespace(xp):
        return xp.__array_namespace_info__().default_dtypes()["integral"]
    return xp.int64


def widest_floating(xp: ModuleType) -> Any:
    """float64, or the widest that the library is set to (JAX without 64-bit types has float32)."""
    if array_api_compat.is_jax_namespace(xp):
        return xp.__array_namespace_info__().default_dtypes()["real floating"]
    return xp.float64
