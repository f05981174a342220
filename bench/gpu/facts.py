"""The GPU and the libraries that results depend on, and what the kernels take on it."""

import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

from ketcore.cuda import launcher, table

PACKAGES = ("ketcore", "numpy", "scipy", "torch", "triton", "array-api-compat", "ml_dtypes")
QUERY = "name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu"


# What the name of a device begins with that stands for a GPU in tests.
STAND_IN = "no GPU"


def about(small: bool = False) -> dict:
    """Name, driver, sizes and versions; raises what CuPy raises where there is no GPU.

    Stand-ins for a GPU are for `small` cases alone: RuntimeError for others.
    """
    import cupy

    device = cupy.cuda.Device()
    properties = cupy.cuda.runtime.getDeviceProperties(device.id)
    name = properties["name"]
    name = name.decode() if isinstance(name, bytes) else name
    if name.startswith(STAND_IN) and not small:
        raise RuntimeError(f"the device is {name!r}, which is for --small")
    return {
        "name": name,
        "small": small,
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "runtime": cupy.cuda.runtime.runtimeGetVersion(),
        "compute_capability": device.compute_capability,
        "multiprocessors": device.attributes["MultiProcessorCount"],
        "l2_bytes": device.attributes["L2CacheSize"],
        "shared_bytes": device.attributes["MaxSharedMemoryPerBlockOptin"],
        "memory_bytes": device.mem_info[1],
        "devices": cupy.cuda.runtime.getDeviceCount(),
        "cupy": cupy.__version__,
        "python": platform.python_version(),
        "nvidia_smi": _nvidia_smi(),
        **{package: _version(package) for package in PACKAGES},
    }


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _nvidia_smi():
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=20)
        return done.stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired) as error:
        return [str(error)]


def kernel_facts(small: bool = False) -> list[dict]:
    """Compile every instantiation of the table, many at a time: registers, and local memory in bytes.

    With the text, options and name of the launcher, which then finds them in CuPy's cache on disk.  Where it
    is `small`, one of each kernel.
    """
    entries = {entry[0]: entry for entry in table.TABLE}.values() if small else table.TABLE
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_kernel, entries))


def _kernel(entry):
    import cupy

    kernel, types, source = entry
    name = f"{kernel}<{','.join(types)}>"
    try:
        module = cupy.RawModule(
            code=launcher.kernel_source(source), options=("--std=c++17",), name_expressions=(name,)
        )
        function = module.get_function(name)
    # The report is complete: one kernel that fails does not hide the others.
    except Exception as error:
        return {"kernel": name, "failed": f"{type(error).__name__}: {error}"}
    return {"kernel": name, "registers": function.num_regs, "local_bytes": function.local_size_bytes}
