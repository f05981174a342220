"""What g++ makes of the stand-ins: libraries under NVIDIA's names, kept by the hash of what goes in."""

import re
import sysconfig
from pathlib import Path

from tests.cupy_host import wheels
from tests.cusim import build

HERE = Path(__file__).parent
OURS = ("-O2", "-fPIC", "-std=c++17", "-Wall", "-Wextra", "-fvisibility=hidden")


def driver() -> Path:
    """The library libcuda.so.1."""
    return _library("libcuda.so.1", _text("driver.cpp"))


def cublas() -> Path:
    """The library libcublas.so.12."""
    binding = next((wheels.folder() / "site" / "cupy_backends/cuda/libs").glob("cublas.*.so"))
    ours = build.built(_text("cublas.cpp"), ("-c", *OURS), ".o")
    return _library("libcublas.so.12", _refusals("cublas", 15, binding, ours), ours, driver())


def cublas_lt() -> Path:
    """The library libcublasLt.so.12, which CuPy loads before the other and asks for nothing."""
    return _library("libcublasLt.so.12", "")


def runtime() -> Path:
    """CuPy's binding of the runtime, and in it what stands for the runtime."""
    folder = wheels.folder()
    site, source = folder / "site", folder / "source" / "cupy_backends" / "cuda" / "api"
    headers = [f"-I{path / 'include'}" for path in sorted((site / "nvidia").iterdir())]
    ours = build.built(_text("runtime.cpp"), ("-c", *OURS, *headers), ".o")
    included = (*headers, f"-I{sysconfig.get_paths()['include']}", f"-I{source}", f"-I{HERE / 'include'}")
    text = (folder / "runtime.cpp").read_text(encoding="utf-8")
    binding = build.built(text, ("-c", "-O0", "-fPIC", "-w", *included), ".o")
    return _library("runtime.so", _refusals("cuda", 801, binding, ours), binding, ours, driver())


def _library(name, text, *objects):
    return build.built(text, ("-shared", *OURS, f"-Wl,-soname,{name}"), ".so", *objects)


def _text(name):
    """A source with the header in it."""
    header = (HERE / "notes.h").read_text(encoding="utf-8")
    return (HERE / name).read_text(encoding="utf-8").replace('#include "notes.h"', header)


def _refusals(prefix, status, binding, ours):
    """Functions that say that they are not provided: all that a binding of CuPy wants and we do not have."""
    names = _symbols(binding, "--undefined-only", prefix) - _symbols(ours, "--defined-only", prefix)
    functions = (
        f'STAND_IN int {name}() {{ return stand_in_refuse("{name}"), {status}; }}' for name in sorted(names)
    )
    return "\n".join((_text("notes.h"), *functions))


def _symbols(path, which, prefix):
    """Names in an object or a library that begin with `prefix` and a capital."""
    command = ["nm", which, *(["--dynamic"] if path.suffix == ".so" else []), str(path)]
    result = build.call(command)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed\n{result.stderr}")
    return set(re.findall(rf"\b({prefix}[A-Z]\w*)", result.stdout))
