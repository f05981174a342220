"""The `xp` fixture: one test body on every array library, on awkward NumPy arrays and on simulated CUDA.

And `jax`, the package, for tests of what it does with objects.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from threadpoolctl import threadpool_limits

from ketcore.cuda import launcher, table
from ketcore.testing import to_numpy
from tests import profiles
from tests.cusim import SimLauncher, available
from tests.require import require

profiles.register()

# Read by type checkers and never run: half of what is in them is wrong, and one needs torch.
collect_ignore_glob = ["typing_uses*.py"]
# They have CuPy on stand-ins, by `python -m tests.cupy_host`.
collect_ignore_glob += [] if find_spec("cupy") else ["cupy_host/*"]
# What other processes run with these.
collect_ignore_glob += [] if find_spec("torch") else ["torch_world.py"]
collect_ignore_glob += [] if find_spec("jax") else ["jax_devices.py"]

# What takes longest begins first, so that no worker of pytest-xdist is left with it at the end.
LONG = ("test_sanitized", "test_ptx", "test_notebooks", "test_nvrtc", "test_machine_code", "test_types")


def pytest_configure(config):
    """Workers of pytest-xdist share the cores: threads of BLAS that wait for one another take very long."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        share = max(1, (os.cpu_count() or 1) // workers)
        threads = int(os.environ.get("OPENBLAS_NUM_THREADS") or share)
        threadpool_limits(threads, user_api="blas")
        # For what is loaded later, and for processes that tests start.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(threads))


def pytest_collection_modifyitems(items):
    """Long tests first, the others in their order."""
    items.sort(key=lambda item: item.path.stem not in LONG)


# jax compiles every operation for every new shape, seconds an example: test_autodiff.py has a few shapes for
# it.
LIBRARIES = ("numpy", "numpy-awkward", "array-api-strict", "torch", "cusim", "cusim-awkward")


@dataclass(frozen=True)
class Library:
    """An array library under test.

    name       as in LIBRARIES, or cupy
    asarray    makes its array from a NumPy one
    examples   how many examples `check` runs: fewer where a call is slow
    half       whether it has float16 and bfloat16
    writes     whether results can be written into its arrays
    """

    name: str
    asarray: Callable[[np.ndarray], Any]
    examples: int
    half: bool = True
    writes: bool = True

    def to_numpy(self, array: Any) -> np.ndarray:
        """A copy in NumPy, a bfloat16 of torch as float32."""
        return to_numpy(array)

    def check(self, strategy: Any, body: Callable[[Any], None]) -> None:
        """Run `body` on examples of `strategy`."""

        # An undecorated name, so that hypothesis finds no arguments but its own.
        def example(case):
            body(case)

        settings(max_examples=profiles.scaled(self.examples))(given(strategy)(example))()


@pytest.fixture(params=[*LIBRARIES, pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request, monkeypatch) -> Library:
    """Every library in turn; one that is missing skips, or fails where KETCORE_REQUIRE names it."""
    return {
        "numpy": lambda: Library("numpy", np.array, 25),
        "numpy-awkward": lambda: Library("numpy-awkward", awkward, 25),
        "array-api-strict": _strict,
        "torch": _torch,
        "cusim": lambda: _cusim(monkeypatch, "cusim", np.array, "forward"),
        "cusim-awkward": lambda: _cusim(monkeypatch, "cusim-awkward", awkward, "random"),
        "cupy": _cupy,
    }[request.param]()


@pytest.fixture(scope="session")
def jax():
    """JAX, which knows objects of ketcore."""
    require("jax", find_spec("jax") is not None, "jax is not installed")
    import jax

    import ketcore.jax  # noqa: F401

    return jax


@pytest.fixture
def jax_of_64_bits(jax):
    """JAX with its types of 64 bits, which the tests after this one do not have."""
    with jax.enable_x64(True):
        yield jax


def awkward(values: np.ndarray) -> np.ndarray:
    """The same values read-only, with negative strides and gaps."""
    values = np.asarray(values)
    spread = np.empty(tuple(2 * size for size in values.shape), values.dtype)
    backwards = (slice(None, None, -2),) * values.ndim
    spread[backwards] = values
    view = spread[backwards] if values.ndim else values.copy()
    view.flags.writeable = False
    return view


def _library(name, module):
    require(name, find_spec(module) is not None, f"{module} is not installed")
    return import_module(module)


def _strict():
    strict = _library("array-api-strict", "array_api_strict")
    return Library(
        "array-api-strict", lambda values: strict.asarray(np.array(values)), 6, half=False, writes=False
    )


def _torch():
    torch = _library("torch", "torch")

    def asarray(values):
        values = np.array(values)
        if values.dtype.name == "bfloat16":
            return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16)
        return torch.from_numpy(values)

    return Library("torch", asarray, 10, writes=False)


def _cusim(monkeypatch, name, asarray, order):
    """NumPy arrays that run the CUDA sources on the simulator, through the same host code as CuPy's."""
    require("cusim", not available(), available())
    launch = _simulator(order)
    monkeypatch.setattr("ketcore.cuda.launcher.launcher_for", lambda array: launch)
    return Library(name, asarray, 25)


@cache
def _simulator(order):
    launch = SimLauncher(Path(launcher.__file__).parent, table.TABLE, order=order)
    launch.xp = _Poisoned()
    return launch


class _Poisoned:
    """NumPy, but that new arrays hold NaN: what a kernel leaves unwritten shows."""

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype):
        dtype = np.dtype(dtype)
        return np.full(shape, -1 if dtype.kind in "iu" else np.nan, dtype)


def _cupy():
    cupy = _library("cupy", "cupy")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    require("cupy", count > 0, "there is no GPU")
    return Library("cupy", cupy.asarray, 25)
