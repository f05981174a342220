"""SimLauncher: the launch protocol of ketcore's kernels, on NumPy arrays and the simulator.

    launch(source, kernel, types, grid, block, args, shared)

It checks what a GPU would not: the number and the C type of every argument, that nothing read-only is
written to, and that the instantiation is in the table that the other checks iterate over.

In the modes ptx, ptx-asan and ptx-tsan what NVRTC makes of the source runs in place of the source (ptx.py).
The parameters of PTX have sizes and no types, so that of the arguments the sizes are checked.
"""

import ctypes
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np

from tests import nvrtc

from . import build, ptx

ORDERS = ("forward", "reverse", "random")
MODE = os.environ.get("KETCORE_CUSIM", "plain")
# Under a sanitizer the runner sets this: reports go to files with this prefix, and become errors of launches.
_LOG = os.environ.get("KETCORE_CUSIM_LOG", "")
# The architecture that PTX is made for.
_ARCHITECTURE = 90
# Structs of the kernels that stand for a NumPy dtype.
_STRUCTS = {"half": "float16", "float16": "float16", "bfloat16": "bfloat16"}


class OnHost:
    """What launchers on arrays of NumPy share: where kernels find room, and what sorts."""

    xp = np

    @staticmethod
    def workspace(count, dtype):
        # Whatever a kernel reads of it without having written it shows.
        return np.full(count, np.nan if dtype.kind == "f" else np.iinfo(dtype).min, dtype)

    @staticmethod
    def sort(keys, count, dtype):
        assert (keys.shape, keys.dtype) == ((count,), dtype)
        order = np.argsort(keys, kind="stable")
        keys[:] = keys[order]
        return order


class SimLauncher(OnHost):
    """Launches kernels on the simulator.

    directory      where the .cu files and kernel.cuh are
    table          (kernel, types, source) that may be launched
    order, seed    in which the threads of a block run between barriers: forward, reverse or random
    edits          (file name, old text, new text) of seeded bugs; old must stand in the file exactly once
    alone          compile an instantiation alone, and not with all of the table that begin with the same type
    mode           of build.MODES: which compilers make what runs, and what watches it
    rewrite        a function of the PTX that gives the PTX to run, for bugs seeded there
    launches       names of the kernels launched so far
    """

    # The most that a block gets on any supported architecture.
    shared_limit = 227 << 10

    def __init__(
        self, directory, table, *, order="forward", seed=0, edits=(), alone=False, mode=MODE, rewrite=str
    ):
        self.directory, self.table, self.edits, self.mode = Path(directory), tuple(table), tuple(edits), mode
        self.order, self.seed, self.alone, self.rewrite = order, seed, alone, rewrite
        self.launches = []
        self._kernels = {}

    def __call__(self, source, kernel, types, grid, block, args, shared):
        name = f"{kernel}<{', '.join(types)}>" if types else kernel
        found = self._find(source, kernel, tuple(types), name)
        # Structs, which CuPy takes as arrays.
        structs = [isinstance(arg, np.ndarray) and arg.dtype.type is np.void for arg in args]
        args = [arg[()] if struct else arg for arg, struct in zip(args, structs, strict=True)]
        values, keep = _marshal(name, found, args)
        launch = Launch((grid, 1, 1), (block, 1, 1), shared, ORDERS.index(self.order), self.seed)
        self.launches.append(kernel)
        error = found.launch(ctypes.byref(launch), values)
        del keep
        report = "\n".join(filter(None, (error, _sanitizer_report())))
        if report:
            raise RuntimeError(f"{name}: {report}")

    def text(self, source):
        """The C++ text of a source: kernel.cuh and the .cu file in one, as every compiler sees it."""
        return source_text(self.directory, source, self.edits)

    def _find(self, source, kernel, types, name):
        if (source, name) not in self._kernels:
            if (kernel, types, source) not in self.table:
                raise KeyError(f"{name} of {source}.cu is not in the table of instantiations")
            group = [entry for entry in self.table if entry[2] == source and entry[1][:1] == types[:1]]
            if self.alone:
                group = [(kernel, types, source)]
            names = tuple(f"{k}<{', '.join(t)}>" if t else k for k, t, _ in group)
            if self.mode.startswith("ptx"):
                kernels = _load_ptx(self.text(source), names, self.mode, source, self.rewrite)
            else:
                kernels = _load(self.text(source), names, self.mode)
            self._kernels.update({(source, kernel.name): kernel for kernel in kernels})
        return self._kernels[source, name]


def source_text(directory, source, edits=()):
    """kernel.cuh and `source`.cu of `directory` in one text, with those of the `edits` that are theirs."""
    parts = []
    for path in (Path(directory) / "kernel.cuh", Path(directory) / f"{source}.cu"):
        text = path.read_text(encoding="utf-8")
        for _, old, new in (edit for edit in edits if edit[0] == path.name):
            count = text.count(old)
            if count != 1:
                raise ValueError(f"{old!r} must stand in {path.name} exactly once, got {count} times")
            text = text.replace(old, new)
        parts += [f'#line 1 "{path}"', text.replace('#include "kernel.cuh"', "")]
    return "\n".join(parts)


class Launch(ctypes.Structure):
    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_size_t),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_uint64),
    )


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("text", ctypes.c_char_p),
        ("kind", ctypes.c_char),
        ("pointer", ctypes.c_bool),
        ("read_only", ctypes.c_bool),
        ("size", ctypes.c_int),
    )

    @property
    def dtype(self):
        """Name of the NumPy dtype that this is, or of the struct."""
        kind = self.kind.decode()
        if kind == "V":
            name = self.text.decode().split("T = ")[1].rstrip("]").split(";")[0].split("::")[-1]
            return _STRUCTS.get(name, f"struct {name}")
        return "bool" if kind == "b" else {"f": "float", "i": "int", "u": "uint"}[kind] + str(8 * self.size)


class _Kernel:
    def __init__(self, library, index):
        self.library, self.index = library, index
        self.name = library.cusim_name(index).decode()
        first = library.cusim_parameters(index)
        self.parameters = [first[i] for i in range(library.cusim_count(index))]

    def launch(self, launch, values):
        """Launch it; what went wrong, or an empty string."""
        error = self.library.cusim_launch(self.index, launch, values)
        return error.decode() if error else ""


@cache
def _load(text, names, mode):
    entries = ",\n".join(f'  cusim::make_kernel("{name}", &{name})' for name in names)
    table = f"static const cusim::Kernel kernels[] = {{\n{entries}}};"
    parts = ('#include "cuda.h"', text, '#include "launch.h"', table, '#include "exports.h"\n')
    # PyDLL keeps the GIL: the simulator has one state for all threads of Python.
    library = ctypes.PyDLL(str(build.library("\n".join(parts), mode)))
    library.cusim_launch.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    library.cusim_launch.restype = library.cusim_name.restype = ctypes.c_char_p
    library.cusim_parameters.restype = ctypes.POINTER(_Parameter)
    return [_Kernel(library, index) for index in range(len(names))]


class _Sized:
    """A parameter of which PTX tells the size."""

    def __init__(self, size):
        self.size = size


class _PtxKernel:
    def __init__(self, name, entry):
        self.name, self.launch = name, entry
        self.parameters = [_Sized(size) for size in entry.sizes]


# The entries that were loaded, by source and name: which of their lines have run is asked of them.
ptx_entries: dict[tuple[str, str], ptx.Entry] = {}


@cache
def _load_ptx(text, names, mode, source, rewrite):
    compiler = nvrtc.load(12 if nvrtc.path(12) else 13)

    def make(path):
        found = compiler.ptx(text, _ARCHITECTURE, names)
        path.write_text(json.dumps(found), encoding="utf-8")

    key = (text, *names, str(compiler.version), str(_ARCHITECTURE), *nvrtc.OPTIONS)
    code, lowered = json.loads(build.kept(key, ".json", make).read_text(encoding="utf-8"))
    module = ptx.Module(rewrite(code), mode, f"{source}.ptx")
    entries = {name: module[lowered[name]] for name in names}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(ptx.Entry.compile, entries.values()))
    ptx_entries.update({(source, name): entry for name, entry in entries.items()})
    return [_PtxKernel(name, entry) for name, entry in entries.items()]


def _marshal(name, kernel, args):
    """The addresses of the arguments, and what must live until the launch is over."""
    if len(args) != len(kernel.parameters):
        raise TypeError(f"{name} must have {len(kernel.parameters)} arguments, got {len(args)}")
    values, keep = (ctypes.c_void_p * len(args))(), []
    for position, (value, parameter) in enumerate(zip(args, kernel.parameters, strict=True)):
        what = f"{name}: argument {position}"
        keep.append(_marshaller(parameter)(what, value, parameter))
        values[position] = keep[-1].ctypes.data
    return values, keep


def _marshaller(parameter):
    if isinstance(parameter, _Sized):
        return _sized
    return _pointer if parameter.pointer else _scalar


def _sized(what, value, parameter):
    array = isinstance(value, np.ndarray)
    bytes_ = (np.uint64(value.ctypes.data) if array else value).tobytes()
    if len(bytes_) != parameter.size:
        raise TypeError(f"{what} must have {parameter.size} bytes, got {len(bytes_)}")
    return np.frombuffer(bytes_, np.uint8)


def _pointer(what, value, parameter):
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{what} must be an array of {parameter.dtype}, got {type(value).__name__}")
    if value.dtype.name != parameter.dtype:
        raise TypeError(f"{what} must be an array of {parameter.dtype}, got {value.dtype.name}")
    if not (parameter.read_only or value.flags.writeable):
        raise TypeError(f"{what} must be writeable, got a read-only array")
    return np.array([value.ctypes.data], np.uint64)


def _scalar(what, value, parameter):
    if not isinstance(value, np.generic):
        raise TypeError(f"{what} must be a NumPy scalar, got {type(value).__name__}")
    if isinstance(value, np.void):
        size = value.dtype.itemsize
        if parameter.kind != b"V" or size != parameter.size:
            raise TypeError(f"{what} must be a {parameter.dtype} of {parameter.size} bytes, got {size}")
    elif value.dtype.name != parameter.dtype:
        raise TypeError(f"{what} must be {parameter.dtype}, got {value.dtype.name}")
    # A copy in an array of doubles is aligned for any struct that kernels take by value.
    copy = np.zeros(-(-parameter.size // 16) * 2)
    copy.view(np.uint8)[: parameter.size] = np.frombuffer(value.tobytes(), np.uint8)
    return copy


def _sanitizer_report():
    """What a sanitizer has written since the last launch."""
    path = Path(f"{_LOG}.{os.getpid()}")
    if not (_LOG and path.exists()):
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(_sanitizer_report.position)
        text = file.read()
        _sanitizer_report.position = file.tell()
    return _with_lines(text[:6000])


_sanitizer_report.position = 0


def _with_lines(report):
    """The report with file and line for addresses in kernels, where the sanitizer's symbolizer has none."""

    def place(match):
        library = build.cache_directory() / Path(match[1]).name
        if not library.exists():
            return match[0]
        return f"({build.call(['addr2line', '-e', str(library), match[2]]).stdout.strip()})"

    return re.sub(r"\(([\w./-]+\.so)\+(0x\w+)\)", place, report) if shutil.which("addr2line") else report
