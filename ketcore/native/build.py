"""How the library is compiled: `python -m ketcore.native.build` does it, beside the sources or in a folder.

No header of Python is needed, so that one library serves every version of it.  The installation runs this
file where neither ketcore nor NumPy is installed: it imports the standard library alone.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

SOURCES = Path(__file__).parent
# Not as extensions of Python are named, which tools would import.
NAME = "_kernels.so.1"

# What api.cpp calls KETCORE_PART, the longest to compile first; some are empty for some processors.
PARTS = (4, 3, 2, 0)

# No fast-math: NaN and infinity are what they are, and sums run in the order that is written.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wextra")
QUIET = ("-Wno-psabi", "-Wno-unknown-pragmas")
# With its own copy of the C++ library, whose symbols stay its own, a library runs wherever the C library is
# new enough; not every system has this copy.
ALONE = ("-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL")


def compiler() -> list[str]:
    """The command of a compiler that takes the flags of GCC: what CXX names, or the first of some names."""
    if sys.platform == "win32":
        raise RuntimeError("there are no kernels for Windows, whose compiler has no vector types")
    wanted = shlex.split(os.environ.get("CXX", ""))
    if wanted:
        return wanted
    found = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if found is None:
        raise RuntimeError("there is no C++ compiler: neither CXX is set, nor is there c++, g++ or clang++")
    return [found]


def fingerprint(sources: Path = SOURCES) -> str:
    """What tells these sources, flags and kind of machine from others; the library has that of its own."""
    found = hashlib.sha256(" ".join((sys.platform, platform.machine(), *FLAGS)).encode())
    for path in sorted([*sources.glob("*.cpp"), *sources.glob("*.hpp")]):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()[:16]


def is_current(library: Path) -> bool:
    """Whether this is a library of these sources and flags, for a machine like this one."""
    return library.exists() and fingerprint().encode() in library.read_bytes()


def build(folder: str | Path, flags: Sequence[str] = (), sources: Path = SOURCES) -> Path:
    """Compile the library into a folder, with more flags behind the usual ones; its path.

    Raises RuntimeError, in words, where that cannot be done.  What was there before stays until the new
    library takes its place: processes that run may have loaded it.
    """
    target = Path(folder) / NAME
    with TemporaryDirectory(prefix="_kernels-", dir=folder) as room:
        linked, named = Path(room, NAME), f'-DKETCORE_SOURCES="{fingerprint(sources)}"'
        compiled = [str(Path(room, f"part{part}.o")) for part in PARTS]

        def compile_part(part, target):
            own = (f"-DKETCORE_PART={part}", "-c", str(sources / "api.cpp"), "-o", target)
            _run([*FLAGS, *QUIET, named, *flags, *own])

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_part, PARTS, compiled))
        link = ["-shared", *flags, *compiled, "-o", str(linked)]
        if not (sys.platform.startswith("linux") and _run([*link, *ALONE], check=False)):
            _run(link)
        os.replace(linked, target)
    return target


def _run(arguments, check=True):
    """Whether the compiler takes these; an error where it must."""
    command = [*compiler(), *arguments]
    try:
        done = subprocess.run(command, check=False, stderr=None if check else subprocess.DEVNULL)
    except OSError as error:
        raise RuntimeError(f"the C++ compiler {command[0]} cannot be run: {error.strerror}") from None
    if check and done.returncode:
        raise RuntimeError(f"the C++ compiler {command[0]} has failed with status {done.returncode}")
    return done.returncode == 0


if __name__ == "__main__":
    try:
        print(build(sys.argv[1] if len(sys.argv) > 1 else SOURCES))
    except RuntimeError as failed:
        sys.exit(str(failed))
