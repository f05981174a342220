"""Run pytest, or any Python, with the simulator under a sanitizer.

    python -m tests.run_sanitized {plain,asan,tsan,ptx,ptx-asan,ptx-tsan} [pytest arguments]

Kernels, or the PTX of theirs, are then compiled with the sanitizer; Python itself is not.  What the sanitizer
reports becomes an error of the launch during which it was found, so that the test that made it fails, with
file and line of the kernel.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests import nvrtc, profiles
from tests.cusim import build
from tests.require import require

ROOT = Path(__file__).parent.parent
MODES = ("plain", "asan", "tsan")
RUNTIMES = {"plain": (), "asan": ("libasan.so", "libubsan.so"), "tsan": ("libtsan.so",)}
# The launcher finds file and line for the first lines of a report; the sanitizers would do so for all,
# slowly. A second report of one place in the code is left out; not one of an address reported before,
# because memory is used again.
OPTIONS = {
    "asan": "detect_leaks=0:detect_stack_use_after_return=0:halt_on_error=0:symbolize=0",
    "tsan": "exitcode=0:report_signal_unsafe=0:suppress_equal_addresses=0:symbolize=0",
}


def run_sanitized(mode: str, arguments, timeout: float = 900) -> subprocess.CompletedProcess:
    """Run this Python with `arguments` in a process of its own, its kernels under `mode`."""
    # The launcher reads the reports from files: pytest swallows them there no more than it can mix them up.
    with tempfile.TemporaryDirectory(prefix="ketcore-cusim-") as reports:
        return _run(mode, [sys.executable, *arguments], _prefix(mode), Path(reports) / "report", timeout)


def run_reporting(mode: str, arguments, timeout: float = 600) -> subprocess.CompletedProcess:
    """As `run_sanitized`, for a library that is not the simulator's: reports are in its stderr."""
    return _run(mode, [sys.executable, *arguments], _prefix(mode), "", timeout)


@cache
def outcomes(module: str, modes: tuple[str, ...] = MODES) -> dict[str, dict[str, str | None]]:
    """What became of the bugs that `module` prints a report of, for each of the modes that can run here.

    The modes run side by side.  A mode in which the module fails is an error; so it does if kernels
    without bugs are not clean.
    """
    able = [mode for mode in modes if not missing(mode)]
    with ThreadPoolExecutor(len(modes)) as pool:
        results = list(pool.map(lambda mode: run_sanitized(mode, ["-m", module]), able))
    for mode, result in zip(able, results, strict=True):
        assert result.returncode == 0, f"{mode}\n{result.stdout}\n{result.stderr}"
    return {mode: json.loads(result.stdout) for mode, result in zip(able, results, strict=True)}


def require_mode(mode: str) -> None:
    """Skip the running test if `mode` cannot run here, or fail where KETCORE_REQUIRE names cusim, or tsan."""
    require("tsan" if mode.endswith("tsan") else "cusim", not missing(mode), missing(mode))
    if mode.startswith("ptx"):
        require("nvrtc", any(map(nvrtc.path, (12, 13))), "the wheel nvidia-cuda-nvrtc-cu12 is not installed")


@cache
def missing(mode: str) -> str:
    """An empty string if `mode` can run here, else the reason why not."""
    if build.available():
        return build.available()
    runtimes = RUNTIMES[build.sanitizer(mode)]
    absent = [name for name in runtimes if not Path(_runtime(name)).exists()]
    if absent:
        return f"{', '.join(absent)} is not installed"
    return "" if _prefix(mode) is not None else f"a process with {runtimes[0]} does not start here"


@cache
def _prefix(mode):
    """What to put before a command, or None if there is nothing with which it starts."""
    sanitizer = build.sanitizer(mode)
    if sanitizer == "plain":
        return ()
    # Python is not built with the runtime, so it is preloaded; by env, for setarch is to run without it.
    preload = ("env", "LD_PRELOAD=" + " ".join(map(_runtime, RUNTIMES[sanitizer])))
    # ThreadSanitizer cannot map its shadow where the kernel randomises addresses widely, and a container may
    # not be allowed to have them fixed.
    prefixes = (("setarch", "-R", *preload), preload) if sanitizer == "tsan" else (preload,)
    for prefix in prefixes:
        try:
            if _run(mode, [sys.executable, "-c", ""], prefix, "", 60).returncode == 0:
                return prefix
        except FileNotFoundError:
            continue
    return None


def _run(mode, command, prefix, log, timeout):
    # One thread: a pool of BLAS would only cost time.
    environment = {**os.environ, "KETCORE_CUSIM": mode, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # Kernels reach the same memory in every example of a kind, and the cases of every instantiation run all
    # lines of PTX.
    environment["HYPOTHESIS_PROFILE"] = "normal" if profiles.is_thorough() else "short"
    sanitizer = build.sanitizer(mode)
    if sanitizer != "plain":
        environment["KETCORE_CUSIM_LOG"] = str(log)
        environment[f"{sanitizer.upper()}_OPTIONS"] = OPTIONS[sanitizer] + (f":log_path={log}" if log else "")
    command = [*prefix, *command]
    written = {"capture_output": True, "text": True, "encoding": "utf-8"}
    return subprocess.run(command, cwd=ROOT, env=environment, timeout=timeout, **written)


def _runtime(name):
    return build.call([build.COMPILER, f"-print-file-name={name}"]).stdout.strip()


if __name__ == "__main__":
    finished = run_sanitized(sys.argv[1], ["-m", "pytest", "-p", "no:cacheprovider", *sys.argv[2:]], 3600)
    print(finished.stdout, finished.stderr, sep="\n")
    sys.exit(finished.returncode)
