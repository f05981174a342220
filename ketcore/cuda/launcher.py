"""Launches CUDA kernels on arrays of CuPy, from the sources in this folder.

A launcher is called as

    launch(source, kernel, types, grid, block, args, shared)

with args of device arrays, of what `launch.workspace` gave, of NumPy scalars, and of structs as `passed` of
`ketcore.cuda.structs` makes them; `launch.xp` is the namespace of its arrays and `launch.shared_limit` the
shared memory in bytes that a block may ask for.  Tests have others, which run the same sources on the CPU.

What a call takes before a kernel starts is what `python -m bench.host_time` measures.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ketcore.cuda.library import is_cupy
from ketcore.cuda.structs import address


def launcher_for(array: Any) -> "CupyLauncher | None":
    """What runs CUDA kernels on arrays like this one: None but for CuPy's."""
    if not is_cupy(array):
        return None
    return _launcher_on(array.data.device_id)


class CupyLauncher:
    """Launches the kernels of `ketcore/cuda/*.cu` on one device, the current one, on its current stream."""

    def __init__(self, device: int):
        import cupy
        from cupy.cuda import thrust

        self.xp = cupy
        self.device = device
        # Bytes of shared memory that a block may ask for; beyond 48 KiB a kernel must be told.
        self.shared_limit = cupy.cuda.Device(device).attributes["MaxSharedMemoryPerBlockOptin"]
        self._argsort = thrust.argsort

    def __call__(self, source, kernel, types, grid, block, args, shared):
        """Launch `kernel<types>` of `source`.cu on a 1-D grid.

        Of a Python number among the `args` CuPy would guess the C type; tests see to it that there is none.
        """
        _cupy_function(self.device, self.shared_limit, source, kernel, types)((grid,), (block,), args, shared)

    def workspace(self, count: int, dtype: np.dtype) -> Any:
        """Memory for so many numbers: to make an array of it would take three times as long."""
        return self.xp.cuda.alloc(count * dtype.itemsize)

    def sort(self, keys: Any, count: int, dtype: np.dtype) -> Any:
        """Sort so many `keys` in their place; the int64 positions that they had, a workspace.

        What `argsort` calls, which would sort a copy of the keys and give none of them.
        """
        order = self.workspace(count, _POSITION)
        self._argsort(dtype, order.ptr, address(keys), 0, (count,))
        return order


_POSITION = np.dtype(np.int64)


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
    """The compiled kernel of a source with these arguments of its template, as it is on this device."""
    import cupy

    name = f"{kernel}<{','.join(types)}>"
    with cupy.cuda.Device(device):
        module = cupy.RawModule(
            code=kernel_source(source), options=("--std=c++17",), name_expressions=(name,)
        )
        function = module.get_function(name)
        # Once, and not per launch, so that threads which launch with different sizes do not race.
        function.max_dynamic_shared_size_bytes = shared_limit
        return function.kernel
