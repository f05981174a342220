"""Compile CUDA sources for every architecture with NVRTC, through ctypes: no GPU, no driver, no nvcc.

The library comes from a wheel, nvidia-cuda-nvrtc-cu12 or nvidia-cuda-nvrtc.  It brings no headers, nor do
the kernels need any.  What ptxas says tells how many registers a kernel takes, and whether it spills or
keeps arrays in memory; the PTX runs on the simulator.
"""

import ctypes
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# As CuPy compiles: it appends the flushing of subnormals to the options that it is given; the last counts.
OPTIONS = ("--std=c++17", "-ftz=true", "--device-as-default-execution-space")
ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)
_PLACES = {12: "cuda_nvrtc/lib/libnvrtc.so.12", 13: "cu13/lib/libnvrtc.so.13"}
_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\S+)'"
    r"|(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r"|Used (?P<registers>\d+) registers"
)


@dataclass(frozen=True)
class Usage:
    """What one kernel takes on one architecture; stack and spills in bytes per thread."""

    kernel: str
    architecture: int
    registers: int
    stack: int
    spills: int

    @property
    def clean(self) -> bool:
        return self.stack == self.spills == 0


def path(major: int) -> Path | None:
    """The library of CUDA `major` that pip has installed, or None."""
    spec = find_spec("nvidia")
    for place in spec.submodule_search_locations if spec else ():
        library = Path(place) / _PLACES[major]
        if library.exists():
            return library
    return None


@cache
def load(major: int) -> "Nvrtc":
    return Nvrtc(path(major))


class Nvrtc:
    """NVRTC of one version: its `version` and the `architectures` that it and this project know."""

    def __init__(self, library: Path):
        # Version 13 does not find its own built-in functions next to itself.
        for builtins in library.parent.glob("libnvrtc-builtins.so.*"):
            ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
        self._library = ctypes.CDLL(str(library))
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        self.version = self._version()
        self.architectures = tuple(sorted(set(ARCHITECTURES) & set(self._supported())))

    def compile(self, text: str, architecture: int, names) -> list[Usage]:
        """Compile `text` with the instantiations `names`; RuntimeError with the log where that fails."""
        options = (f"--gpu-architecture=sm_{architecture}", *OPTIONS, "--ptxas-options=-v")
        with self._program(text, options, names) as (program, lowered):
            log = self._log(program)
        return _usages(log, architecture, {mangled: name for name, mangled in lowered.items()})

    def ptx(self, text: str, architecture: int, names) -> tuple[str, dict[str, str]]:
        """The PTX of `text` with the instantiations `names`, and the mangled name of each."""
        with self._program(text, (f"--gpu-architecture=compute_{architecture}", *OPTIONS), names) as found:
            program, lowered = found
            return self._text(program, "PTX"), lowered

    def cubin(self, text: str, architecture: int, names) -> tuple[bytes, dict[str, str]]:
        """The machine code of `text` with the instantiations `names`, and the mangled name of each."""
        with self._program(text, (f"--gpu-architecture=sm_{architecture}", *OPTIONS), names) as found:
            program, lowered = found
            return self._bytes(program, "CUBIN"), lowered

    @contextmanager
    def _program(self, text, options, names):
        """A compiled program, and the mangled names by `names`."""
        program, create = ctypes.c_void_p(), self._library.nvrtcCreateProgram
        self._check(create(ctypes.byref(program), text.encode(), b"kernel.cu", 0, None, None))
        try:
            for name in names:
                self._check(self._library.nvrtcAddNameExpression(program, name.encode()))
            vector = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
            code = self._library.nvrtcCompileProgram(program, len(options), vector)
            self._check(code, self._log(program))
            yield program, {name: self._lowered(program, name) for name in names}
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _version(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check(self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        return major.value, minor.value

    def _supported(self):
        count = ctypes.c_int()
        self._check(self._library.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
        found = (ctypes.c_int * count.value)()
        self._check(self._library.nvrtcGetSupportedArchs(found))
        return found

    def _log(self, program):
        return self._text(program, "ProgramLog")

    def _text(self, program, what):
        return self._bytes(program, what).rstrip(b"\0").decode()

    def _bytes(self, program, what):
        size = ctypes.c_size_t()
        self._check(getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        found = ctypes.create_string_buffer(size.value)
        self._check(getattr(self._library, f"nvrtcGet{what}")(program, found))
        return found.raw

    def _lowered(self, program, name):
        lowered = ctypes.c_char_p()
        self._check(self._library.nvrtcGetLoweredName(program, name.encode(), ctypes.byref(lowered)))
        return lowered.value.decode()

    def _check(self, code, log=""):
        if code:
            raise RuntimeError(f"{self._library.nvrtcGetErrorString(code).decode()}\n{log}")


def _usages(log, architecture, lowered):
    """What ptxas wrote: for every kernel its name, then its stack and spills, then its registers."""
    usages, name, memory = [], None, None
    for match in _ENTRY.finditer(log):
        if match["name"]:
            name, memory = match["name"], None
        elif match["stack"] and name:
            memory = int(match["stack"]), int(match["stores"]) + int(match["loads"])
        elif match["registers"] and memory:
            usages.append(Usage(lowered.get(name, name), architecture, int(match["registers"]), *memory))
            name = memory = None
    missing = set(lowered.values()) - {usage.kernel for usage in usages}
    if missing:
        raise RuntimeError(f"ptxas has said nothing about {sorted(missing)}\n{log}")
    return usages
