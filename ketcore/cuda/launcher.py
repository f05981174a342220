"""Launches CUDA kernels on arrays of CuPy, from the sources in this folder.

A launcher is called as

    launch(source, kernel, types, grid, block, args, shared)

with args of device arrays and NumPy scalars, structs among them; `launch.xp` is the namespace of its arrays
and `launch.shared_limit` the shared memory in bytes that a block may ask for.  Tests have another one, which
runs the same sources on the CPU.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ketcore.cuda.library import is_cupy


def launcher_for(array: Any) -> "CupyLauncher | None":
    """What runs CUDA kernels on arrays like this one: None but for CuPy's."""
    if not is_cupy(array):
        return None
    return _launcher_on(array.data.device_id)


class CupyLauncher:
    """Launches the kernels of `ketcore/cuda/*.cu` on one device, the current one, on its current stream."""

    def __init__(self, device: int):
        import cupy

        self.xp = cupy
        self.device = device
        # Bytes of shared memory that a block may ask for; beyond 48 KiB a kernel must be told.
        self.shared_limit = cupy.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"]

    def __call__(self, source, kernel, types, grid, block, args, shared):
        """Launch `kernel<types>` of `source`.cu on a 1-D grid; `args` as in `kernel_arguments`."""
        function = _cupy_function(self.device, self.shared_limit, source, kernel, types)
        function((grid,), (block,), kernel_arguments(args), shared_mem=shared)


def kernel_arguments(args: Sequence[Any]) -> tuple[Any, ...]:
    """The `args` as CuPy wants them: device arrays, exact NumPy scalars, structures as 0-d arrays.

    TypeError for a Python number, of which CuPy would silently guess the C type.
    """
    if not _NUMBERS.isdisjoint(map(type, args)):
        position, kind = next((i, type(arg)) for i, arg in enumerate(args) if type(arg) in _NUMBERS)
        raise TypeError(f"kernel argument {position} must be a NumPy scalar, got {kind.__name__}")
    return tuple([np.asarray(arg) if isinstance(arg, np.void) else arg for arg in args])


_NUMBERS = {bool, int, float, complex}


def kernel_source(source: str) -> str:
    """The text of `source`.cu with the header before it.

    One string, because CuPy's cache of compiled kernels hashes the text and not the files that it includes.
    """
    folder = Path(__file__).parent
    files = ("kernel.cuh", f"{source}.cu")
    return "".join(f'#line 1 "{name}"\n{(folder / name).read_text(encoding="utf-8")}\n' for name in files)


# An engine asks for it two or three times a call, and CuPy reads all attributes of a device for one of them.
@cache
def _launcher_on(device):
    return CupyLauncher(device)


@cache
def _cupy_function(device, shared_limit, source, kernel, types):
    """The compiled kernel of a source, with these arguments of its template."""
    import cupy

    name = f"{kernel}<{','.join(types)}>"
    with cupy.cuda.Device(device):
        module = cupy.RawModule(
            code=kernel_source(source), options=("--std=c++17",), name_expressions=(name,)
        )
        function = module.get_function(name)
        # Once, and not per launch, so that threads which launch with different sizes do not race.
        function.max_dynamic_shared_size_bytes = shared_limit
        return function
