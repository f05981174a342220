"""Make this process one where CuPy finds a device: `use()`, before anything imports CuPy.

A launch runs what NVRTC made of the kernel, on the simulator.  What that does not know is an error of CuPy,
with the name of the kernel.
"""

import ctypes
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from tests.cupy_host import libraries, wheels
from tests.cusim import build, ptx
from tests.cusim import launcher as simulator

# Codes of CUDA's driver.
_SUCCESS, _LAUNCH_FAILED = 0, 719


class Launch(ctypes.Structure):
    """A launch, as driver.cpp hands it over.

    symbol, name   of the kernel, mangled and as C++ has it
    ptx            of its module
    arguments      their addresses
    """

    _fields_ = (
        ("symbol", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("ptx", ctypes.c_char_p),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("arguments", ctypes.c_void_p),
    )


class _Note(ctypes.Structure):
    _fields_ = (
        ("function", ctypes.c_char_p),
        ("detail", ctypes.c_char_p),
        ("bytes", ctypes.c_size_t),
        ("stream", ctypes.c_void_p),
    )


@dataclass(frozen=True)
class Note:
    """A call of a stand-in; `detail` is the name of a kernel, or which way a copy goes."""

    function: str
    detail: str
    bytes: int
    stream: int

    @property
    def what(self) -> str:
        """The function, or the kernel of a launch without its types."""
        launched = self.function == "cuLaunchKernel"
        return re.split(r"<|\(|__", self.detail.removeprefix("void "))[0] if launched else self.function

    @property
    def is_work(self) -> bool:
        """Whether a GPU would do something for it: a launch, a copy or a fill."""
        return self.function.startswith(("cuLaunch", "cudaMemcpy", "cudaMemset", "cublas", "thrust"))


# ---- launches ----


def _run(launch):
    """Run a kernel of ketcore or of CuPy from the PTX of its module; what went wrong, or an empty string."""
    entry, name = _module(launch.ptx)[launch.symbol.decode()], launch.name.decode()
    made = simulator.Launch(launch.grid, launch.block, launch.shared, 0, 0)
    if _captured is None:
        return entry(ctypes.byref(made), launch.arguments)
    given = (ctypes.c_void_p * len(entry.sizes)).from_address(launch.arguments)
    pairs = zip(given, entry.sizes, strict=True)
    values = [ctypes.create_string_buffer(ctypes.string_at(*each), each[1]) for each in pairs]
    addresses = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))

    def again(kept=values):
        error = entry(ctypes.byref(made), ctypes.addressof(addresses))
        assert not error, f"{name}: {error}"

    _captured.append(again)
    return ""


# What is to be done by the graph that is being captured, and by those that were: functions without arguments.
_captured: list[Callable[[], object]] | None = None
_graphs: list[list[Callable[[], object]]] = []
# As in notes.h.
_BEGIN, _END, _LAUNCH, _FILL, _COPY = range(5)


def _graph(what, to, from_, size):
    """What stand_in_graph of notes.h says of graphs; a graph is its number, counted from one."""
    global _captured
    if what == _BEGIN:
        _captured = []
    elif what == _END:
        _graphs.append(_captured)
        _captured = None
        return len(_graphs)
    elif what == _LAUNCH:
        try:
            for work in _graphs[to - 1]:
                work()
        except Exception as error:
            _driver().stand_in_complain(str(error).encode())
            return _LAUNCH_FAILED
    elif _captured is not None:
        function = ctypes.memset if what == _FILL else ctypes.memmove
        _captured.append(partial(function, to, from_ or 0, size))
    return 0


@cache
def _module(text):
    return ptx.Module(text.decode())


def _launched(pointer):
    launch = pointer.contents
    try:
        text = _run(launch)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
    if not text:
        return _SUCCESS
    _driver().stand_in_complain(f"{launch.name.decode()}: {text}".encode())
    return _LAUNCH_FAILED


# ---- the device ----


@cache
def use() -> None:
    """Let CuPy find the stand-ins in this process; RuntimeError where they cannot be had."""
    reason = wheels.fetched(True)
    if reason:
        raise RuntimeError(reason)
    os.environ |= {
        # What CUB has is machine code, and would leave unwritten what it should write.
        "CUPY_ACCELERATORS": "",
        "CUPY_COMPILE_WITH_PTX": "1",
        "CUPY_CACHE_DIR": str(build.cache_directory() / "cupy-host-kernels"),
    }
    sys.path.insert(0, str(wheels.folder() / "site"))
    # Whoever opens them later by their names finds these.
    _driver()
    for library in (libraries.cublas_lt(), libraries.cublas()):
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    _load("cupy_backends.cuda.api", "runtime", libraries.runtime())
    import cupy

    # New memory for each array: it is full of NaN.
    cupy.cuda.set_allocator(None)
    _replace_machine_code()


def _load(package, name, path):
    """Import an extension module from a place of its own."""
    importlib.import_module(package)
    loader = importlib.machinery.ExtensionFileLoader(f"{package}.{name}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    setattr(sys.modules[package], name, module)


def _replace_machine_code():
    """Thrust sorts on the host; all else of it and of CUB is refused."""
    from cupy.cuda import cub, thrust

    for module in (cub, thrust):
        for name, value in list(vars(module).items()):
            if callable(value) and not name.startswith("_"):
                setattr(module, name, _refusal(f"{module.__name__}.{name}"))
    thrust.argsort = _argsort


def _refusal(name):
    def refuse(*arguments, **options):
        raise NotImplementedError(f"{name} is not provided by the stand-in")

    return refuse


def _argsort(dtype, to, values, keys, shape):
    """What thrust.argsort does for one dimension, where values and result lie in memory: it sorts both."""
    if len(shape) != 1:
        _refusal("cupy.cuda.thrust.argsort of several dimensions")()
    _driver().stand_in_note(b"thrust::argsort", b"", 0, None)
    if _driver().stand_in_does_nothing():
        return
    if _captured is not None:
        _captured.append(partial(_sort, dtype, to, values, shape))
    else:
        _sort(dtype, to, values, shape)


def _sort(dtype, to, values, shape):
    found, given = _view(to, np.dtype(np.int64), shape, (8,)), _view(values, dtype, shape, (dtype.itemsize,))
    found[...] = np.argsort(given, kind="stable")
    given[...] = given[found]


def _view(address: int, dtype: np.dtype, shape, strides) -> np.ndarray:
    """An array in memory that is another's."""
    interface = {"data": (address, False), "shape": tuple(shape), "strides": tuple(strides), "version": 3}
    # Bytes, since what the interface has no name for, bfloat16, is no less an array.
    holder = type("Memory", (), {"__array_interface__": interface | {"typestr": f"|V{dtype.itemsize}"}})()
    return np.asarray(holder).view(dtype)


@cache
def _driver():
    library = ctypes.PyDLL(str(libraries.driver()), mode=ctypes.RTLD_GLOBAL)
    library.stand_in_notes.restype = ctypes.POINTER(_Note)
    library.stand_in_count.restype = ctypes.c_size_t
    library.stand_in_note.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
    library.callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Launch))(_launched)
    library.stand_in_does_nothing.restype = ctypes.c_bool
    library.stand_in_launcher(library.callback)
    numbers = ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t
    library.keep_graphs = ctypes.CFUNCTYPE(ctypes.c_size_t, *numbers)(_graph)
    library.stand_in_graphs(library.keep_graphs)
    return library


# ---- what tests ask for ----


@contextmanager
def noted() -> Iterator[list[Note]]:
    """A context whose list has a note of each call, when it ends."""
    found: list[Note] = []
    _driver().stand_in_set_noting(True)
    try:
        yield found
    finally:
        notes = _driver().stand_in_notes()
        for i in range(_driver().stand_in_count()):
            note = notes[i]
            found.append(Note(note.function.decode(), note.detail.decode(), note.bytes, note.stream or 0))
        _driver().stand_in_set_noting(False)


@contextmanager
def capturing() -> Iterator[None]:
    """A context in which every stream says that a graph is being captured."""
    _driver().stand_in_set_capturing(True)
    try:
        yield
    finally:
        _driver().stand_in_set_capturing(False)


@contextmanager
def launches_that_do_nothing() -> Iterator[None]:
    """A context in which no kernel runs and no memory is filled: what is left is the time of the host."""
    _driver().stand_in_do_nothing(True)
    try:
        yield
    finally:
        _driver().stand_in_do_nothing(False)
