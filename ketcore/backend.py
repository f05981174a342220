"""What differs between array libraries: namespaces, dtypes, where values lie, sums by index, kernels.

The only file that names CuPy.  Everything above it is written once, for arrays of any namespace.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

from ketcore import numpy_sums
from ketcore.autodiff import detached

Array = Any

# Decorates every public function that computes: what is not finite, or leaves the range of its dtype,
# propagates in silence.  Whether NumPy would warn depends on the kernel that BLAS has for this processor.
quiet = np.errstate(all="ignore")


def as_arrays(arrays: Sequence[Any]) -> tuple[Array, ...]:
    """Arrays as they are; nested lists and scalars as NumPy arrays."""
    return tuple(a if is_array(a) else np.asarray(a) for a in arrays)


def is_array(value: Any) -> bool:
    """Whether `value` is an array of a library that follows the array API."""
    return isinstance(value, np.ndarray) or array_api_compat.is_array_api_obj(value)


def namespace_of(array: Array) -> ModuleType:
    """The array-API namespace of one array.  NumPy's is NumPy itself, which needs no wrapper."""
    return np if isinstance(array, np.ndarray) else array_api_compat.array_namespace(array)


def namespace(name: str, arrays: Sequence[Array]) -> ModuleType:
    """The one namespace of `arrays`; TypeError, naming `name`, where they differ in library or device."""
    if all(isinstance(a, np.ndarray) for a in arrays):
        return np
    libraries = sorted({library_of(a) for a in arrays})
    try:
        xp = array_api_compat.array_namespace(*arrays)
    except TypeError:
        raise TypeError(f"{name} must be arrays of one library, got {', '.join(libraries)}") from None
    # An array that JAX traces has no device yet.
    devices = {str(array_api_compat.device(a)) for a in arrays} - {"None"}
    if len(devices) > 1:
        raise TypeError(f"{name} must lie on one device, got {', '.join(sorted(devices))}")
    return xp


def library_of(array: Any) -> str:
    """The name of the package that the type of `array` comes from."""
    return type(array).__module__.partition(".")[0]


def is_numpy(array: Array) -> bool:
    """Whether `array` is a NumPy array."""
    return isinstance(array, np.ndarray)


def compact(array: Array) -> Array:
    """A NumPy array laid out in C order, so that elementwise work on it is one loop; others as they are."""
    return np.ascontiguousarray(array) if is_numpy(array) else array


def is_writeable_in_place(array: Array) -> bool:
    """Whether results can be written into arrays of this library (NumPy, CuPy)."""
    return is_numpy(array) or array_api_compat.is_cupy_array(array)


def on_host(array: Array) -> bool:
    """Whether the values of `array` lie in host memory, so that reading them waits for no device."""
    if is_numpy(array):
        return True
    # A traced array of JAX has no device yet; `extremes` finds out that it has no values either.
    return str(array_api_compat.device(array)).lower().startswith(("cpu", "tfrt_cpu", "none"))


def extremes(array: Array) -> tuple[int, int] | None:
    """The least and the largest of some integers; None where the array is traced and has no values."""
    if is_numpy(array):
        return array.min(), array.max()
    xp = namespace_of(array)
    try:
        return int(xp.min(array)), int(xp.max(array))
    except TypeError:  # what JAX raises where a traced array is asked for its values
        return None


def to_host(array: Array) -> np.ndarray:
    """The values of `array` as a NumPy array, cut off from its derivatives; waits for its device."""
    if array_api_compat.is_cupy_array(array):
        return array.get()
    if array_api_compat.is_torch_array(array):
        # NumPy does not take the views that are conjugates or negatives for torch.
        array = array.detach().resolve_conj().resolve_neg()
        try:
            return np.asarray(array)
        except RuntimeError:  # within torch.func a tensor has values but no memory of its own
            return np.asarray(array.tolist(), dtype=str(array.dtype).rpartition(".")[2])
    return np.asarray(detached(array))


def value_of(array: Array) -> Any:
    """What an array without dimensions holds, as a Python number; None where JAX traces it without one."""
    if isinstance(array, np.ndarray | np.generic):
        return array.item()
    if array_api_compat.is_torch_array(array):
        return array.detach().item()
    try:
        return to_host(array).item()
    except TypeError:  # what JAX raises where a traced array is asked for its values
        return None


def native(array: np.ndarray) -> np.ndarray:
    """An array of NumPy in the byte order of this machine: compiled code reads no other."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def cast_gradient(xp: ModuleType, gradient: Array, primal: Array) -> Array:
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


def accumulation_dtype(xp: ModuleType, dtype: Any) -> Any:
    """The dtype that sums run in: float32 for 16-bit storage, else `dtype` itself."""
    return xp.float32 if is_half(dtype) else dtype


def index_dtype(xp: ModuleType) -> Any:
    """int64, or the widest integer that the library is set to (JAX without 64-bit types has int32)."""
    if array_api_compat.is_jax_namespace(xp):
        return xp.__array_namespace_info__().default_dtypes()["integral"]
    return xp.int64


def segment_sum(xp: ModuleType, values: Array, index: Array, count: int) -> Array:
    """Sum the rows of `values` that share an index.

    values   (B, W) floating
    index    (B,) integers in [0, count)
    returns  (count, W) in the dtype of `values`; an index that never occurs gives zeros.  On NumPy
             float32 sums of one sign are accurate to 1e-6 of themselves at any length
    cost     time and memory O(B W + count W)
    """
    if is_numpy(values):
        return numpy_sums.segment_sum(values, index, count)
    zeros = xp.zeros((count, values.shape[1]), dtype=values.dtype, device=array_api_compat.device(values))
    if array_api_compat.is_jax_array(values):
        return zeros.at[index].add(values)
    if array_api_compat.is_torch_array(values):
        return _accumulate_wide(xp, values, lambda wide: zeros.to(wide.dtype).index_add(0, index, wide))
    # No function of the array API scatters.  A product with a 0/1 matrix would spread NaN to every index.
    nothing = xp.zeros_like(values)
    sums = [xp.sum(xp.where((index == i)[:, None], values, nothing), axis=0) for i in range(count)]
    return xp.stack(sums) if sums else zeros


def _accumulate_wide(xp, values, total):
    """`total` of float64 copies where `values` is float32, so that long sums keep their digits."""
    if values.dtype != xp.float32:
        return total(values)
    return xp.astype(total(xp.astype(values, xp.float64)), values.dtype)


def linear_operator(like: Array) -> type:
    """The LinearOperator class for arrays like this one: SciPy's for NumPy, CuPy's own for CuPy."""
    if is_numpy(like):
        from scipy.sparse.linalg import LinearOperator
    elif array_api_compat.is_cupy_array(like):
        from cupyx.scipy.sparse.linalg import LinearOperator
    else:
        library = library_of(like)
        raise TypeError(f"factors must be arrays of NumPy or CuPy for a LinearOperator, got {library}")
    return LinearOperator


def conjugate_gradients(like: Array) -> Callable:
    """The `cg` of SciPy for NumPy arrays and of CuPy for its own, under SciPy's names of the options."""
    if not array_api_compat.is_cupy_array(like):
        from scipy.sparse.linalg import cg

        return cg
    from cupyx.scipy.sparse.linalg import cg

    def renamed(A, b, x0=None, *, rtol, **options):
        # CuPy took SciPy's name of this option late.
        name = "rtol" if "rtol" in signature(cg).parameters else "tol"
        return cg(A, b, x0, **{name: rtol}, **options)

    return renamed


def cublas(array: Array) -> tuple[ModuleType, ModuleType, int] | None:
    """CuPy, its functions of cuBLAS, and a handle on the current device; None but for arrays of CuPy."""
    if is_numpy(array) or not array_api_compat.is_cupy_array(array):
        return None
    import cupy

    return cupy, cupy.cuda.cublas, cupy.cuda.device.get_cublas_handle()


def launcher(array: Array) -> "CupyLauncher | None":
    """What runs CUDA kernels on arrays like this one: None but for CuPy's."""
    if not array_api_compat.is_cupy_array(array):
        return None
    return _cupy_launcher(int(array.device.id))


def has_cuda() -> bool:
    """Whether CuPy is installed; that does not import it."""
    return find_spec("cupy") is not None


_ANYWHERE = nullcontext()


def on_device_of(array: Array) -> AbstractContextManager:
    """A context in which new arrays lie on the device of this one: CuPy's is the current device otherwise."""
    return array.device if array_api_compat.is_cupy_array(array) else _ANYWHERE


class CupyLauncher:
    """Launches the kernels of `ketcore/ops/*.cu` on one device, on its current stream."""

    def __init__(self, device: int):
        import cupy

        self.xp = cupy
        self.device = device
        # Bytes of shared memory that a block may ask for; beyond 48 KiB a kernel must be told.
        self.shared_limit = cupy.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"]

    def __call__(self, source, kernel, types, grid, block, args, shared):
        """Launch `kernel<types>` of `source`.cu on a 1-D grid; `args` as in `kernel_arguments`."""
        function = _cupy_function(self.device, self.shared_limit, source, f"{kernel}<{','.join(types)}>")
        with self.xp.cuda.Device(self.device):
            function((grid,), (block,), kernel_arguments(args), shared_mem=shared)


def kernel_arguments(args: Sequence[Any]) -> tuple[Any, ...]:
    """`args` as CuPy wants them: device arrays, exact NumPy scalars, structures as 0-d arrays.

    raises   TypeError for a Python number, of which CuPy would silently guess the C type
    """
    for position, arg in enumerate(args):
        if isinstance(arg, bool | int | float | complex) and not isinstance(arg, np.generic):
            raise TypeError(f"kernel argument {position} must be a NumPy scalar, got {type(arg).__name__}")
    return tuple(np.asarray(arg) if isinstance(arg, np.void) else arg for arg in args)


def kernel_source(source: str) -> str:
    """The text of `source`.cu with the header before it.

    One string, because CuPy's cache of compiled kernels hashes the text and not the files that it includes.
    """
    folder = Path(__file__).parent / "ops"
    files = ("kernel.cuh", f"{source}.cu")
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}\n' for name in files)


# An engine asks for it two or three times a call, and CuPy reads all attributes of a device for one of them.
@cache
def _cupy_launcher(device):
    return CupyLauncher(device)


@cache
def _cupy_function(device, shared_limit, source, name):
    import cupy

    with cupy.cuda.Device(device):
        module = cupy.RawModule(
            code=kernel_source(source), options=("--std=c++17",), name_expressions=(name,)
        )
        function = module.get_function(name)
        # Once, and not per launch, so that threads which launch with different sizes do not race.
        function.max_dynamic_shared_size_bytes = shared_limit
        return function
