"""`--before FOLDER`: the ketcore of another checkout, or of an older release, in the same process."""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType


def builder(ours: Callable, folder: str) -> Callable:
    """`ours`, the `build` of ketcore's module in a family, for the ketcore in `folder`."""
    before = other(folder)
    return lambda case: replace(ours(case, before), name="before", kind="before")


def other(folder: str) -> ModuleType:
    """The ketcore in `folder`; the one that is imported stays so for everyone else."""
    folder = str(Path(folder).resolve())
    if not Path(folder, "ketcore", "__init__.py").exists():
        raise ValueError(f"before must be a folder with a ketcore in it, got {folder}")
    ours = _modules()
    for name in ours:
        del sys.modules[name]
    sys.path.insert(0, folder)
    try:
        return import_module("ketcore")
    finally:
        sys.path.remove(folder)
        for name in _modules():
            del sys.modules[name]
        sys.modules.update(ours)


def _modules():
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "ketcore"}
