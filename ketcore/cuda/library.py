"""CuPy, as far as ketcore knows it by name: whose arrays are its, where they lie, what stands for SciPy."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib.util import find_spec
from inspect import signature
from types import ModuleType
from typing import Any

import numpy as np


def is_installed() -> bool:
    """Whether CuPy is installed; that does not import it."""
    return find_spec("cupy") is not None


def is_cupy(array: Any) -> bool:
    """Whether `array` is one of CuPy."""
    cupy = sys.modules.get("cupy")
    return cupy is not None and isinstance(array, cupy.ndarray)


def on_one_device(arrays: Sequence[Any]) -> bool:
    """Whether all of these, at least one, are arrays of CuPy itself on one device, as in most calls."""
    cupy = sys.modules.get("cupy")
    if cupy is None or type(arrays[0]) is not cupy.ndarray:
        return False
    kind, device = cupy.ndarray, arrays[0].data.device_id
    # A loop takes half the time of all(), and every call on a device comes here.
    for each in arrays:  # noqa: SIM110
        if type(each) is not kind or each.data.device_id != device:
            return False
    return True


@cache
def device_namespace() -> ModuleType:
    """The array-API namespace of CuPy."""
    from array_api_compat import cupy

    return cupy


def host_values(array: Any) -> np.ndarray:
    """The values of an array of CuPy in NumPy; waits for its device."""
    return array.get()


_ANYWHERE = nullcontext()


def on_device_of(array: Any) -> AbstractContextManager[Any]:
    """A context in which new arrays lie on the device of this one: CuPy's is the current device otherwise."""
    return array.device if is_cupy(array) else _ANYWHERE


def cublas(array: Any) -> tuple[ModuleType, ModuleType, int] | None:
    """CuPy, its functions of cuBLAS, and a handle on the current device; None but for arrays of CuPy."""
    if not is_cupy(array):
        return None
    import cupy

    return cupy, cupy.cuda.cublas, cupy.cuda.device.get_cublas_handle()


def is_capturing(array: Any) -> bool:
    """Whether a CUDA graph is being captured on the current stream of this array's device."""
    if not is_cupy(array):
        return False
    import cupy

    with array.device:
        return bool(cupy.cuda.get_current_stream().is_capturing())


def shared(tensor: Any) -> Any:
    """An array of CuPy in the memory of another library's array; nothing waits."""
    import cupy

    if 0 in tensor.shape:
        # Without entries there is no memory to share, and CuPy refuses its address.
        return cupy.empty(tuple(tensor.shape), dtype=tensor.__cuda_array_interface__["typestr"])
    return cupy.asarray(tensor)


def contiguous(array: Any) -> Any:
    """An array of CuPy in C order."""
    import cupy

    return cupy.ascontiguousarray(array)


class _Stream:
    """A stream of another library as CuPy takes it: those of older torch cannot say so."""

    def __init__(self, pointer: int):
        self._pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        # The version of this protocol, and the stream.
        return 0, self._pointer


@contextmanager
def working_for(
    stream: int, device: int, allocate: Callable[[int, int], int], release: Callable[[int, int], None]
) -> Iterator[None]:
    """A context in which CuPy works on the stream of another library, a pointer, and with its memory.

    `allocate` takes a size in bytes and a device, and says where memory is; `release` takes what `allocate`
    returned, and the device.
    """
    import cupy

    memory = cupy.cuda.PythonFunctionAllocator(allocate, release)
    current = cupy.cuda.Stream.from_external(_Stream(stream))
    with cupy.cuda.Device(device), current, cupy.cuda.using_allocator(memory.malloc):
        yield


def linear_operator_class() -> type:
    """The LinearOperator of CuPy."""
    from cupyx.scipy.sparse.linalg import LinearOperator

    return LinearOperator


def zero_of_operator(operator: Any, dtype: np.dtype) -> Any:
    """A zero without dimensions of CuPy for a LinearOperator of its own, of NumPy for all others."""
    solvers = sys.modules.get("cupyx.scipy.sparse.linalg")
    if solvers is None or not isinstance(operator, solvers.LinearOperator):
        return np.zeros((), dtype)
    import cupy

    return cupy.zeros((), dtype)


def device_cg() -> Callable[..., Any]:
    """The conjugate gradients of CuPy, under SciPy's names of the options."""
    from cupyx.scipy.sparse.linalg import cg

    def renamed(A, b, x0=None, *, rtol, **options):
        # CuPy took SciPy's name of this option late.
        name = "rtol" if "rtol" in signature(cg).parameters else "tol"
        return cg(A, b, x0, **{name: rtol}, **options)

    return renamed
