"""pytest in a process of its own that has the stand-ins."""

import os
import subprocess
import sys
from pathlib import Path

from tests.cupy_host import wheels
from tests.require import require, required

ROOT = Path(__file__).parent.parent.parent


def command(arguments) -> list[str]:
    """The command that runs pytest with `arguments` where CuPy finds the stand-ins."""
    plugins = ["-p", "tests.cupy_host.plugin", "-p", "no:cacheprovider"]
    return [sys.executable, "-m", "pytest", *plugins, *arguments]


def require_stand_ins() -> None:
    """Skip the running test where they are not there, or fail; fetched is only what is asked for by name."""
    reason = wheels.fetched("cupy-host" in required())
    require("cupy-host", not reason, reason)


def run(arguments, timeout: float = 900) -> subprocess.CompletedProcess:
    """Run that command; what it says is captured."""
    # One thread: a pool of BLAS would only cost time.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    written = {"capture_output": True, "text": True, "encoding": "utf-8", "check": False}
    return subprocess.run(command(arguments), cwd=ROOT, env=environment, timeout=timeout, **written)
