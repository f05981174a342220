"""Find, load and choose: the one place that knows the shared library.

It lies beside this file where it was built.  What it cannot do here is a reason in words, never an error.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from platform import machine
from struct import Struct
from typing import Any

import numpy as np

# What `ketcore_version` must answer.
VERSION = 2

# Of a file of ELF's form with addresses of 64 bits: its first bytes; from its header the processor, where the
# descriptions of segments begin, the size of one, and how many there are; from one of them kind, offset and
# size in the file; the kind of those that are mapped; and the processors by their names.
_ELF = b"\x7fELF\x02"
_HEADER = Struct("=18xH12xQ14x2H")
_SEGMENT = Struct("=I4xQ16xQ")
_LOADED = 1
_PROCESSORS = {"x86_64": 62, "aarch64": 183}

_FOLDER = Path(__file__).parent


class Library:
    """The functions of the loaded library, and the instruction set that they use.

    Attributes
    ----------
    instructions : str
        The name of the set, "x86-64-v3" for one.
    available : tuple of strs
        The names of all sets that the library has and this processor too, best first.
    """

    def __init__(self, path: Path, wanted: str | None):
        # With the GIL held for what looks into capsules, without for the rest.
        held, free = ctypes.PyDLL(str(path)), ctypes.CDLL(str(path))
        version = free.ketcore_version()
        if version != VERSION:
            raise OSError(f"it is version {version}, and {VERSION} is needed")
        held.ketcore_start(_address("PyCapsule_GetPointer"), _address("PyTuple_GetItem"))
        sets = _instruction_sets(free)
        self.available = tuple(name for name, _ in sets)
        if not sets:
            raise OSError("it has no kernels for this processor")
        chosen = next((each for each in sets if wanted in (None, each[0])), None)
        if chosen is None:
            names = ", ".join(self.available)
            raise ValueError(f"KETCORE_INSTRUCTIONS must be one of {names}, got {wanted!r}")
        self.instructions, position = chosen
        free.ketcore_use(position)
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self.lookup = _function(held.ketcore_lookup_python, pointer, ctypes.c_char_p, ctypes.py_object)
        self.forget = _function(free.ketcore_forget, None, pointer)
        self.prepare = _function(free.ketcore_prepare, ctypes.c_int, pointer)
        self.expand_at_once = _function(
            held.ketcore_expand_python, ctypes.c_int, ctypes.c_char_p, ctypes.py_object
        )
        self.expand = _function(free.ketcore_expand, ctypes.c_int, pointer, number, number)
        self.pull_at_once = _function(
            held.ketcore_pull_python, ctypes.c_int, ctypes.c_char_p, ctypes.py_object
        )
        self.pull_records = _function(free.ketcore_pull_records, ctypes.c_int, pointer, number, number)
        self.pull_groups_at_once = _function(
            held.ketcore_pull_groups_python, number, ctypes.c_char_p, ctypes.py_object
        )
        self.group_rows = _function(free.ketcore_group_rows, number, pointer)
        self.pull_groups = _function(free.ketcore_pull_groups, ctypes.c_int, pointer, number, number)
        self.pull_begin = _function(free.ketcore_pull_begin, number, pointer, number, number, number)
        self.pull_part = _function(free.ketcore_pull_part, ctypes.c_int, pointer, number)
        self.pull_end = _function(free.ketcore_pull_end, ctypes.c_int, pointer)
        self.index_sums = _function(held.ketcore_index_sums_python, pointer, ctypes.py_object)
        self.forget_index_sums = _function(free.ketcore_forget_index_sums, None, pointer)
        self.sort_rows = _function(free.ketcore_sort_rows, ctypes.c_int, pointer)
        self.sum_by_index = _function(
            free.ketcore_sum_by_index, ctypes.c_int, pointer, ctypes.c_int, number, number
        )
        self.product = _function(held.ketcore_product_python, pointer, ctypes.c_char_p, ctypes.py_object)
        self.multiply_at_once = _function(
            held.ketcore_multiply_python, ctypes.c_int, ctypes.c_char_p, ctypes.py_object
        )
        self.forget_product = _function(free.ketcore_forget_product, None, pointer)
        piece = ctypes.c_int, pointer, number, number
        self.multiply = _function(free.ketcore_multiply, *piece)
        self.multiply_back = _function(free.ketcore_multiply_back, *piece)
        self.multiply_first = _function(free.ketcore_multiply_first, *piece)
        self.multiply_behind = _function(free.ketcore_multiply_behind, *piece)
        self.multiply_behind_back = _function(free.ketcore_multiply_behind_back, *piece)
        self.multiply_first_back = _function(free.ketcore_multiply_first_back, *piece)


def _function(found, result, *arguments):
    found.restype, found.argtypes = result, arguments
    return found


def _address(name):
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p)


def _instruction_sets(library):
    """Names and positions of those that this processor has."""
    name = _function(library.ketcore_instruction_set, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p)
    found, works, position = [], ctypes.c_int(), 0
    while (text := name(position, ctypes.byref(works))) is not None:
        if works.value:
            found.append((text.decode(), position))
        position += 1
    return found


@cache
def found() -> tuple[Library | None, str]:
    """The library and no reason, or None and why there is none; decided once for a process."""
    path = next(_FOLDER.glob("_kernels.*"), None)
    if path is None:
        return None, "it was not compiled when ketcore was installed"
    try:
        _check_whole(path)
        return Library(path, os.environ.get("KETCORE_INSTRUCTIONS") or None), ""
    except ValueError as error:
        return None, str(error)
    except (OSError, AttributeError) as error:
        # The reason stands in reports, which name no folders.
        said = str(error).replace(f"{path}: ", "").replace(str(path), path.name)
        return None, f"{path.name} cannot be used: {said}"


_allowed = True


def allow(wanted: bool) -> None:
    """Let this process use the library, or not."""
    global _allowed
    _allowed = wanted


def active() -> Library | None:
    """The library where it is there and may be used."""
    return found()[0] if _allowed else None


def loaded() -> Library:
    """The library, for those that know it is there."""
    library = found()[0]
    assert library is not None
    return library


def check(status: int, reason: str) -> None:
    """MemoryError where a function of the library has not returned 0."""
    if status:
        raise MemoryError(reason)


def _check_whole(path):
    """Refuse a file of ELF's form that ends before what would be mapped: to touch that is a bus error.

    The loaders of other systems look themselves.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if not header.startswith(_ELF):
            return
        if len(header) < _HEADER.size:
            raise OSError("it is cut short")
        processor, start, size, count = _HEADER.unpack(header)
        file.seek(start)
        segments = file.read(size * count)
    if processor != _PROCESSORS.get(machine(), processor):
        raise OSError("it is for another kind of processor")
    if size >= _SEGMENT.size and len(segments) == size * count:
        found = (_SEGMENT.unpack_from(segments, at) for at in range(0, len(segments), size))
        ends = [offset + length for kind, offset, length in found if kind == _LOADED]
        if max(ends, default=0) <= path.stat().st_size:
            return
    raise OSError("it is cut short")


def capsules(arrays: Sequence[np.ndarray]) -> tuple[Any, ...]:
    """What the library reads arrays from; the caller keeps them alive."""
    return tuple([array.__array_struct__ for array in arrays])
