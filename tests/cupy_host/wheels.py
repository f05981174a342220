"""What is fetched by pip: CuPy and what it needs, and its source of the same version for one module.

Nothing is fetched but by `fetched(True)`: these are some hundred megabytes, kept in the simulator's folder
from one run to the next.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from tests.cusim import build

CUPY = "14.2.0"
# What runs. The third has headers that those of the second include; NumPy is that of the tests.
WHEELS = (
    f"cupy-cuda12x=={CUPY}",
    "nvidia-cuda-runtime-cu12==12.9.79",
    "nvidia-cuda-nvcc-cu12==12.9.86",
    "nvidia-cuda-nvrtc-cu12==12.9.86",
    "cuda-pathfinder==1.9.1",
)
# What builds the module, and what CuPy's own source asks for before it says its name.
TOOLS = ("Cython==3.2.4", "setuptools==80.9.0", "wheel==0.45.1")
SOURCE = ("--no-binary", "cupy", f"cupy=={CUPY}")
MODULE = "cupy_backends/cuda/api/runtime.pyx"
# The version of CUDA that the headers are of, as CuPy writes it.
CUDA = 12090


def folder() -> Path:
    """Where the wheels of these versions are unpacked, in `site`, with the module in C++."""
    parts = (*WHEELS, *TOOLS, str(CUDA), sys.version, Path(__file__).read_text(encoding="utf-8"))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    return build.cache_directory() / f"cupy-host-{key}"


@cache
def fetched(fetch: bool) -> str:
    """An empty string if all is there, or was fetched where that is asked for; else the reason why not."""
    if build.available():
        return build.available()
    if sys.platform != "linux":
        return "the stand-ins are libraries of Linux"
    if folder().exists():
        return ""
    if not fetch:
        return "python -m tests.cupy_host fetches CuPy and its like, some hundred megabytes"
    with build.alone(folder().with_suffix(".lock")):
        return "" if folder().exists() else _fetch()


def _fetch():
    with tempfile.TemporaryDirectory(dir=build.cache_directory()) as scratch:
        made, tools, source = (Path(scratch) / name for name in ("made", "tools", "source"))
        # Without a GPU the source says nothing of itself, but to those who build documentation.
        alone = {"READTHEDOCS": "True", "PYTHONPATH": str(tools)}
        for arguments, environment in (
            (("install", "--target", made / "site", *WHEELS), {}),
            (("install", "--target", tools, *TOOLS), {}),
            (("download", "--dest", source, "--no-build-isolation", *SOURCE), alone),
        ):
            reason = _pip([*map(str, arguments)], environment)
            if reason:
                return reason
        _translate(source, tools, made)
        os.replace(made, folder())
    return ""


def _pip(arguments, environment):
    """An empty string if pip has done it, else what it says."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--no-deps", "--retries", "1"]
    result = _called(command, {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **environment})
    if not result.returncode:
        return ""
    said = [line for line in result.stderr.splitlines() if line.lower().startswith("error")]
    return f"pip {arguments[0]}: {' '.join(said) or result.stderr[-300:]}"


def _translate(source, tools, made):
    """Make C++ of the module, beside what that includes."""
    with tarfile.open(next(source.glob("cupy-*.tar.gz")), encoding="utf-8") as archive:
        archive.extractall(source, filter="data")
    root = next(path for path in source.iterdir() if path.is_dir())
    constants = {"CUPY_CUDA_VERSION": CUDA, "CUPY_HIP_VERSION": 0, "CUPY_USE_CUDA_PYTHON": False}
    options = [option for name, value in constants.items() for option in ("-E", f"{name}={value}")]
    files = [MODULE, "-o", str(made / "runtime.cpp")]
    command = [sys.executable, "-m", "cython", "-3", "--cplus", *options, *files]
    result = _called(command, {"PYTHONPATH": str(tools)}, root)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed\n{result.stderr[-3000:]}")
    shutil.copytree(root / "cupy_backends", made / "source" / "cupy_backends")


def _called(command, environment, folder=None):
    given = {**os.environ, **environment}
    written = {"capture_output": True, "text": True, "encoding": "utf-8", "check": False}
    return subprocess.run(command, cwd=folder, env=given, **written)
