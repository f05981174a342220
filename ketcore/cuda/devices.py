"""What CuPy says of itself and of the GPUs, for reports: asked in a process of its own.

CuPy may be broken, and a driver may hang or take the process with it; a report of that must still come out.
"""

import json
import sys
from contextlib import suppress
from importlib import metadata
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any

from ketcore.cuda.library import is_installed

# The same modules as here, in the same order.  The last line is the answer: imports may print, too.
_CODE = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from ketcore.cuda.devices import asked
print()
print(json.dumps(asked()), flush=True)
"""


def distributions() -> list[str]:
    """The names of the installed distributions of CuPy: more than one are in each other's way."""
    names = {str(found.metadata["Name"]).lower() for found in metadata.distributions() if found.metadata}
    return sorted(name for name in names if name == "cupy" or name.startswith(("cupy-cuda", "cupy-rocm")))


def gpus(timeout: float = 60.0) -> list[str]:
    """A line for each GPU that CuPy sees, then one of versions; or one line that says why there is none.

    timeout   seconds after which CuPy is given up
    """
    if not is_installed():
        return ["none: CuPy is not installed"]
    command = [sys.executable, "-c", _CODE, json.dumps(sys.path)]
    # What it writes to its standard error would speak of paths.
    streams: dict[str, Any] = {"stdin": DEVNULL, "stdout": PIPE, "stderr": DEVNULL}
    try:
        process = Popen(command, **streams)
    except OSError as error:
        return [f"unknown: no process can be started for CuPy ({type(error).__name__})"]
    try:
        answer, _ = process.communicate(timeout=timeout)
    except TimeoutExpired:
        process.kill()
        # What hangs in a driver may outlive even that.
        with suppress(TimeoutExpired):
            process.communicate(timeout=5)
        return [f"unknown: CuPy has not answered within {timeout:g} seconds"]
    try:
        return json.loads(answer.splitlines()[-1])
    except (ValueError, IndexError):
        return [f"unknown: the process that asked CuPy ended with status {process.returncode}"]


def asked() -> list[str]:
    """The lines of `gpus`, by CuPy in this process."""
    try:
        import cupy
        from cupy.cuda import runtime
    except Exception as error:
        return [f"unknown: CuPy cannot be imported: {_shown(error)}"]
    try:
        found = [runtime.getDeviceProperties(number) for number in range(runtime.getDeviceCount())]
        names = [
            f"{_text(each['name'])}, compute capability {each['major']}.{each['minor']}" for each in found
        ]
        versions = (
            f"driver {_version(runtime.driverGetVersion())}, runtime {_version(runtime.runtimeGetVersion())}"
        )
    except Exception as error:
        return [f"none: {_shown(error)}"]
    nvrtc = "no NVRTC"
    with suppress(Exception):
        nvrtc = "NVRTC {}.{}".format(*cupy.cuda.nvrtc.getVersion())
    return [*names, f"CUDA: {versions}, {nvrtc}"]


def _text(name):
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _version(number):
    """12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _shown(error):
    """What an error is at its root, in one line; without its text where that speaks of paths."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    return f"{name}: {lines[0][:100]}" if lines and not {*"/\\"} & {*lines[0]} else name
