"""What CuPy says of itself and of the GPUs, for reports: asked in a process of its own.

CuPy may be broken, and a driver may hang or take the process with it; a report of that must still come out.
"""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import Any

from ketcore.cuda.library import is_installed

# What is installed of CuPy, by the folder or file that says so: cupy_cuda12x-14.0.0.dist-info.
_INSTALLED = re.compile(r"(cupy(?:_(?:cuda|rocm)\w*)?)(?:-.*)?\.(?:dist|egg)-info$")
_ANSWER = Path(__file__).with_name("answer.py")


def distributions() -> list[str]:
    """The names of the installed distributions of CuPy: more than one are in each other's way."""
    # By their names alone: to read what every installed distribution says of itself takes a second and more.
    paths = (path for entry in sys.path for path in Path(entry).glob("cupy*-info"))
    found = filter(None, (_INSTALLED.match(path.name) for path in paths))
    return sorted({each[1].replace("_", "-") for each in found})


def gpus(timeout: float = 60.0) -> list[str]:
    """A line for each GPU that CuPy sees, then one of versions; or one line that says why there is none.

    timeout   seconds after which CuPy is given up
    """
    if not is_installed():
        return ["none: CuPy is not installed"]
    command = [sys.executable, "-P", str(_ANSWER), json.dumps(sys.path)]
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
