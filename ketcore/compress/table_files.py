"""Tables of words in files of other programs: npy, npz, safetensors, text.

What a file is its first bytes say, and not its name.  Arrays of npy and of safetensors are mapped, and read
by blocks of rows.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from lzma import LZMAError
from reprlib import repr as shortened
from typing import Any, NamedTuple
from zipfile import BadZipFile
from zlib import error as ZlibError  # noqa: N812 - a class

import numpy as np

from ketcore.compress.text_vectors import vectors_of_text
from ketcore.io.tensor_bytes import read_arrays
from ketcore.io.tensor_header import layout, read_header

# Numbers that are looked at at a time: 16 MB of float32.
_BLOCK = 1 << 22
# What is raised of a broken file; OverflowError of npy with sizes that no array has.
_BROKEN = ValueError, TypeError, IndexError, OverflowError, EOFError, BadZipFile, LZMAError, ZlibError
_FLOATS = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.float32}


class Table(NamedTuple):
    """A table (words, columns) of a file, what its words are, where the file has them, and their dtype there.

    `array` is one of NumPy, maybe mapped, or what has `shape`, `dtype` and rows of such.
    """

    array: Any
    words: list[str] | None
    stored: str

    def rows(self, ids: Any) -> np.ndarray:
        """Rows by a slice or an array of ids, in float32."""
        return np.asarray(self.array[ids], np.float32)


class _Bfloat16:
    """Numbers of bfloat16 as rows of float32: NumPy has no such dtype."""

    def __init__(self, halves: np.ndarray) -> None:
        self.halves, self.shape, self.dtype = halves, halves.shape, np.dtype(np.float32)

    def __getitem__(self, key: Any) -> np.ndarray:
        return (self.halves[key].astype(np.uint32) << 16).view(np.float32)


@contextmanager
def naming_input(name: str, path: str) -> Iterator[None]:
    """Whatever is wrong with a file is a ValueError that names it."""
    try:
        yield
    except OSError as error:
        if error.strerror is None:  # of what gzip cannot unpack
            raise ValueError(f"{name} must be a whole file, got {path!r}, in which {error}") from None
        raise ValueError(f"{name} must be a file that can be read, got {path!r}: {error.strerror}") from None
    except MemoryError:
        raise ValueError(f"{name} must fit into memory, got {path!r}") from None
    except _BROKEN as error:
        raise ValueError(f"{name} must be a whole file, got {path!r}, in which {error}") from None


def read_table(path: str, name: str | None = None, progress: Callable[[int], None] = lambda _: None) -> Table:
    """The table in a file, of several arrays that of this name.

    Raises
    ------
    ValueError
        On all that is wrong with the file, with its path.
    """
    with naming_input("TABLE", path):
        with open(path, "rb") as file:
            start = file.read(16)
        if not start:
            raise ValueError("there must be something, got nothing")
        table = _opened(path, start, name, progress)
        _check(table)
        return table


def _opened(path, start, name, progress):
    if start.startswith(b"\x93NUMPY"):
        _check_alone(name, "npy")
        return _of_array(np.load(path, mmap_mode="r", allow_pickle=False))
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _of_npz(path, name)
    # The length of a header, below 2^40, ends in zeros, which no text has.
    if start[5:9] == b"\0\0\0{":
        return _of_safetensors(path, name)
    _check_alone(name, "text")
    array, words = vectors_of_text(path, progress)
    return Table(array, words, "text")


def _check_alone(name, kind):
    if name is not None:
        raise ValueError(f"there must be names of arrays for --tensor, got {kind}, which has none")


def _of_array(array):
    return Table(array, None, str(array.dtype))


def _of_npz(path, name):
    # Of a path that is no whole zip NumPy leaves the file open.
    with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        found = arrays[_chosen(name, arrays.files, arrays.files)]
    return _of_array(np.asarray(found))


def _of_safetensors(path, name):
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        metadata, entries, start = read_header(file, size)
        if "ketcore_format" in metadata:
            raise ValueError("there must be a table, got one that is compressed: see ketcore decompress")
        tensors = layout(entries, size - start)
        tables = [each for each, t in tensors.items() if len(t.shape) == 2 and t.dtype in _FLOATS]
        chosen = _chosen(name, list(tensors), tables)
        tensor = tensors[chosen]
        if tensor.dtype not in _FLOATS:
            rule = f"tensor {shortened(chosen)} must have a dtype among {', '.join(_FLOATS)}"
            raise ValueError(f"{rule}, got {tensor.dtype}")
        if 0 in tensor.shape:
            raise ValueError(f"tensor {shortened(chosen)} must have numbers, got shape {tensor.shape}")
        array: Any = read_arrays(file, {chosen: tensor}, start, "r")[chosen]
    kind = np.dtype(_FLOATS[tensor.dtype]).name if tensor.dtype != "BF16" else "bfloat16"
    return Table(_Bfloat16(array) if tensor.dtype == "BF16" else array, None, kind)


def _chosen(name, names, tables):
    """The name of the array to be read: that which was asked for, or the only one that may be a table."""
    if name is not None and name not in names:
        raise ValueError(f"--tensor must be one of {shortened(names)}, got {name!r}")
    if name is None and len(tables) != 1:
        listed = f"{len(tables)}: {shortened(tables)}" if tables else f"none among {shortened(names)}"
        raise ValueError(f"there must be one table, or its name by --tensor, got {listed}")
    return tables[0] if name is None else name


def _check(table):
    """ValueError on axes, on dtypes, on nothing, and on what is not finite, with its row."""
    array = table.array
    if np.dtype(array.dtype).kind != "f" or array.dtype.itemsize > 8:
        raise ValueError(f"numbers must be of float16, float32, float64 or bfloat16, got {array.dtype}")
    if len(array.shape) != 2 or 0 in array.shape:
        raise ValueError(f"the table must have words and columns, got shape {tuple(array.shape)}")
    words, columns = array.shape
    step = max(1, _BLOCK // columns)
    for start in range(0, words, step):
        # Also what is too large for float32 is infinite.
        with np.errstate(over="ignore"):
            block = table.rows(slice(start, start + step))
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            row = int(np.argmax(bad))
            got = block[row][~np.isfinite(block[row])][0]
            word = "" if table.words is None else f" ({table.words[start + row]!r})"
            raise ValueError(f"numbers must be finite in float32, got {got} in row {start + row}{word}")
