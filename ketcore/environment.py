"""What a report of a bug needs to say of the machine and of what is installed: `python -m ketcore`.

No paths, and no names of hosts or users: it is made to be published.
"""

import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path, PurePath

import array_api_compat
import numpy as np
import scipy.linalg
import threadpoolctl

from ketcore._version import __version__
from ketcore.arrays.threads import thread_count
from ketcore.cuda import devices
from ketcore.lookups.gather import engines
from ketcore.native import loader

# Named where they are installed, and not imported: that would take seconds, or fail.
_OTHERS = ("torch", "jax", "hypothesis", "safetensors", "transformers", "peft")
# Whose a library of BLAS is that came with neither NumPy nor SciPy.
_SHARED = "shared"
# Where Linux names the processor.
_CPUINFO = "/proc/cpuinfo"


def environment() -> str:
    """Versions, BLAS, threads, engines and GPUs of this process, as lines of text."""
    needed = (
        ("numpy", np),
        ("scipy", scipy),
        ("array-api-compat", array_api_compat),
        ("threadpoolctl", threadpoolctl),
    )
    bits = 64 if sys.maxsize > 2**32 else 32
    lines = {
        "ketcore": [__version__],
        "Python": [f"{platform.python_implementation()} {platform.python_version()}, {bits} bit"],
        "platform": [platform.platform()],
        "processor": [f"{_processor()}, {_cores()}"],
        "requires": [", ".join(f"{name} {module.__version__}" for name, module in needed)],
        "optional": [", ".join(_others()) or "none"],
        "BLAS": _blas(),
        "threads": [f"{thread_count()} at most in a call of ketcore"],
        "engines": _engines(),
        "GPU": devices.gpus(),
    }
    first = {name: f"{name}:" for name in lines}
    width = max(map(len, first.values()))
    rows = [
        (first[name] if not i else "", text) for name, texts in lines.items() for i, text in enumerate(texts)
    ]
    return "\n".join(f"{name:<{width}} {text}" for name, text in rows)


def _processor():
    """Its name where Linux or Python knows it, else the kind of machine."""
    with suppress(OSError):
        for line in Path(_CPUINFO).read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


def _cores():
    """How many cores this process may use; macOS and Windows do not say which."""
    every = os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else every
    return f"{mine} of {every} cores"


def _others():
    """Names and versions of what works with ketcore and is installed."""
    for name in (*devices.distributions(), *_OTHERS):
        with suppress(metadata.PackageNotFoundError):
            yield f"{name} {metadata.version(name)}"


def _blas():
    """A line for each library of BLAS, and for NumPy and SciPy where they have one that cannot be asked."""
    found = [each for each in threadpoolctl.threadpool_info() if each["user_api"] == "blas"]
    owners = [_owner(each) for each in found]
    lines = [f"{owner}: {_library(each)}" for owner, each in zip(owners, found, strict=True)]
    for name, module in (("NumPy", np), ("SciPy", scipy)):
        if name not in owners and _SHARED not in owners:
            lines.append(f"{name}: {_built(module)}, threads unknown")
    return sorted(lines)


def _owner(info):
    """NumPy or SciPy where the library came with it: in numpy.libs, or in numpy/.dylibs."""
    folders = {part.partition(".")[0] for part in PurePath(info["filepath"]).parts[-3:-1]}
    return next((name for name in ("NumPy", "SciPy") if name.lower() in folders), _SHARED)


def _library(info):
    """Which library of BLAS it is, and how many threads it is set to; not every one says all."""
    name = f"{info['internal_api']} {info.get('version') or 'of unknown version'}"
    known = [name, info.get("architecture"), info.get("threading_layer"), f"{info['num_threads']} threads"]
    return ", ".join(filter(None, known))


def _built(module):
    """The BLAS that a package was built with, as it says."""
    said = module.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    return f"{said.get('name') or 'unknown'} {said.get('version') or ''}".strip()


def _engines():
    """The engines of this process, what sets them, and why each other one is not there."""
    here = engines()
    yield f"{', '.join(here) or 'none'}; KETCORE_ENGINE is {_setting('KETCORE_ENGINE')}"
    if "native" in here:
        kernels = loader.found()[0]
        sets, wanted = ", ".join(kernels.available), _setting("KETCORE_INSTRUCTIONS")
        yield f"native by {kernels.instructions}, of {sets}; KETCORE_INSTRUCTIONS is {wanted}"
    for name, reason in here.missing.items():
        yield f"no {name}: {reason}"


def _setting(name):
    return os.environ.get(name) or "not set"
