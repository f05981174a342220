"""What the machine can do, measured in the process that measures the contestants."""

import os
import platform
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib import metadata
from time import perf_counter

import numpy as np

from bench.measure import clock

# Below this, handing half of a buffer to a second thread costs more than it saves.
SHARED_BYTES = 1 << 20
# The libraries read these when they load; NPROC is XLA's, NT that of modules given with --extra.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC", "NT")
PACKAGES = ("ketcore", "numpy", "scipy", "torch", "jax", "word2ket", "gpytorch", "tensorly-torch")
PACKAGES += ("linear_operator", "pyfastkron", "pykronecker", "cola-ml", "pylops", "opt_einsum")


def floor_seconds(case, threads: int) -> float:
    """The least time for a product: its bytes at the bandwidth or its flops at the GEMM rate, as measured.

    A warm buffer is copied into another; one that fits a cache at the bandwidth of that cache.
    """
    return max(copy_seconds(case.copied_bytes, threads), case.flops / gemm_rate(case.dtype, threads))


@lru_cache
def copy_seconds(size: int, threads: int) -> float:
    target, origin = np.zeros(size, np.uint8), np.ones(size, np.uint8)
    return _fastest(lambda part: np.copyto(target[part], origin[part]), size, threads)


@lru_cache
def gemm_rate(dtype: str, threads: int) -> float:
    """Multiplications and additions per second of a product of two square matrices of size 1024."""
    n = 1024
    left, right, out = (np.ones((n, n), dtype) for _ in range(3))
    return 2 * n**3 / _fastest(lambda part: np.matmul(left, right, out=out), 1, threads)


def _fastest(work, size, threads):
    """Seconds of `work` over [0, size): the least of many tries, as a floor must hold no disturbance."""
    now, best, end = clock(threads), np.inf, perf_counter() + 0.1
    parts = threads if size >= SHARED_BYTES else 1
    slices = [slice(size * n // parts, size * (n + 1) // parts) for n in range(parts)]
    repeats = max(1, (1 << 20) // size) if size > 1 else 1
    with ThreadPoolExecutor(parts) as pool:
        while perf_counter() < end:
            start = now()
            for _ in range(repeats):
                if parts == 1:
                    work(slices[0])
                else:
                    list(pool.map(work, slices))
            best = min(best, (now() - start) / repeats)
    return best


def run_again(module: str, environment: dict[str, str]) -> int | None:
    """The status of the same command in a process with this environment; None where this one has it.

    Libraries read theirs when they load.
    """
    if environment.items() <= os.environ.items():
        return None
    command = [sys.executable, "-m", module, *sys.argv[1:]]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


def limit_memory(share: float = 0.7) -> None:
    """Let an allocation beyond this share of the machine's memory fail, instead of the machine."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    resource.setrlimit(resource.RLIMIT_DATA, (int(share * total), resource.RLIM_INFINITY))


def describe() -> dict:
    """The machine and the versions, for the saved results."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    python = platform.python_version()
    return {"processor": _processor(), "cores": os.cpu_count(), "python": python, "versions": found}


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
