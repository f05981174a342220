"""Compile CUDA sources with g++ into libraries for the simulator, kept under the hash of all that goes in."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
HEADERS = sorted(path for path in HERE.iterdir() if path.suffix == ".h")
COMPILER = os.environ.get("CXX", "g++")

# Undefined behaviour is checked by handlers of the simulator's own, except under ThreadSanitizer.
# Contraction is off so that the results are those of the source; a GPU contracts.
FLAGS = ("-std=c++17", "-fPIC", "-w", "-ffp-contract=off", "-U_FORTIFY_SOURCE")
# Translated PTX has no undefined behaviour: it is checked as it runs.  Compiling takes longer than running.
_QUICK = ("-O1", "-fno-tree-pta", "-fira-region=one", "-fira-algorithm=priority")
MODES = {
    "plain": ("-O1", "-fsanitize=undefined"),
    "asan": ("-O1", "-g", "-fsanitize=address,undefined", "-fsanitize-recover=address"),
    "tsan": ("-O1", "-g", "-fsanitize=thread"),
    "ptx": _QUICK,
    "ptx-asan": (*_QUICK, "-g", "-fsanitize=address", "-fsanitize-recover=address"),
    "ptx-tsan": (*_QUICK, "-g", "-fsanitize=thread"),
}
# The core fills shared memory itself: a call of memset would be an access in the sanitizers' eyes.
# One process loads many libraries with kernels of the same names: none may see another's.
KERNEL_FLAGS = ("-fvisibility=hidden", "-fno-gnu-unique")
CORE_FLAGS = ("-O2", "-fno-tree-loop-distribute-patterns")


@cache
def available() -> str:
    """An empty string if kernels can be compiled here, else the reason why not."""
    if not hasattr(os, "getuid"):
        return "the simulator is for Unix"
    if sys.platform == "darwin":
        return "g++ is clang here, which does not know the flags"
    return "" if shutil.which(COMPILER) else f"{COMPILER} is not installed"


def library(text: str, mode: str) -> Path:
    """The shared library of C++ source `text`."""
    flags = (*FLAGS, *KERNEL_FLAGS, *MODES[mode], f"-I{HERE}")
    header = precompiled("ptx.h" if mode.startswith("ptx") else "cuda.h", flags)
    return built(text, ("-shared", f"-I{header.parent}", *flags), ".so", core(sanitizer(mode)))


@cache
def precompiled(header: str, flags: tuple[str, ...]) -> Path:
    """A header of the simulator as g++ has read it, which takes longer than most kernels.

    What is compiled with the same flags, and begins with the header, finds it in the folder; what does not
    finds the header itself.
    """

    def make(folder):
        folder.mkdir()
        _compile((*flags, "-x", "c++-header", str(HERE / header)), folder / f"{header}.gch")

    return kept((header, *flags, _surroundings()), ".pch", make) / f"{header}.gch"


def sanitizer(mode: str) -> str:
    """The mode of the simulator's core that goes with `mode`: plain, asan or tsan."""
    return "plain" if mode == "ptx" else mode.removeprefix("ptx-")


@cache
def core(mode: str) -> Path:
    """The shared library of the simulator's core, one for all kernels."""
    defines = {"plain": (), "asan": ("-DCUSIM_ASAN=1",), "tsan": ("-DCUSIM_TSAN=1",)}[mode]
    flags = ("-shared", *FLAGS, *CORE_FLAGS, *defines, f"-I{HERE}")
    return built((HERE / "core.cpp").read_text(encoding="utf-8"), flags, ".so")


def built(text: str, flags: tuple[str, ...], suffix: str, *objects: Path) -> Path:
    """What g++ makes of C++ source `text`, linked with `objects`."""

    def compile_to(target):
        source = target.with_name(target.name.split(".")[0] + ".cpp")
        source.write_text(text, encoding="utf-8")
        _compile((*flags, str(source), *map(str, objects)), target)

    return kept((text, *flags, *map(str, objects), _surroundings()), suffix, compile_to)


def _compile(arguments, target):
    command = [COMPILER, *arguments, "-o", str(target)]
    result = call(command)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed\n{result.stderr[:6000]}")


def kept(ingredients: tuple[str, ...], suffix: str, make: Callable[[Path], None]) -> Path:
    """A file that depends on the `ingredients` alone; if it is not there, `make` writes it to a path."""
    digest = hashlib.sha256("\0".join(ingredients).encode()).hexdigest()[:24]
    target = cache_directory() / (digest + suffix)
    if not target.exists():
        with alone(target.with_suffix(".lock")):
            # Another process may have made it while this one waited.
            if not target.exists():
                scratch = target.with_suffix(f".{os.getpid()}{suffix}")
                make(scratch)
                # At once, so that nobody finds half of it.
                os.replace(scratch, target)
    return target


@contextmanager
def alone(path: Path):
    """A context that one process at a time is in; the system lets go of the lock of one that dies."""
    import fcntl

    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _surroundings() -> str:
    """What a build depends on besides its own text: the simulator's headers and the compiler."""
    headers = "".join(path.read_text(encoding="utf-8") for path in HEADERS)
    return call([COMPILER, "--version"]).stdout + headers


def call(command) -> subprocess.CompletedProcess:
    """Run a tool, without the sanitizer that this process may have been given."""
    environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment)


@cache
def cache_directory() -> Path:
    """Where the libraries are kept from one run to the next."""
    directory = Path(tempfile.gettempdir()) / f"ketcore-cusim-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise PermissionError(f"{directory} belongs to another user")
    return directory
