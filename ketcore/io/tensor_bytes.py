"""The numbers of a file: read, mapped into memory, written."""

import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import BinaryIO

import numpy as np

from ketcore.array_types import Host
from ketcore.arrays.namespaces import native
from ketcore.io.tensor_header import DTYPES, Tensor


def read_arrays(
    file: BinaryIO, tensors: Mapping[str, Tensor], start: int, mapped: str | None, scattered: str = ""
) -> dict[str, Host]:
    """The tensors by name, as arrays of the dtypes of `DTYPES` in native byte order.

    `start` is the byte of the file at which the tensors begin.  `mapped` None reads them; "r" gives views of
    the file, read-only; "c" gives views, of which a page becomes memory where it is written.
    `scattered` is a tensor of which few pages are read here and there: the system is told to read no others.
    """
    if mapped is None:
        return {name: _read(file, tensor, start) for name, tensor in tensors.items()}
    access = mmap.ACCESS_READ if mapped == "r" else mmap.ACCESS_COPY
    pages = mmap.mmap(file.fileno(), 0, access=access)
    # Windows has no such advice.
    if scattered in tensors and hasattr(pages, "madvise"):
        begin, end = start + tensors[scattered].begin, start + tensors[scattered].end
        aligned = begin - begin % mmap.PAGESIZE
        pages.madvise(mmap.MADV_RANDOM, aligned, end - aligned)
    return {name: _view(pages, tensor, start) for name, tensor in tensors.items()}


def _read(file, tensor, start):
    found = np.empty(tensor.shape, DTYPES[tensor.dtype])
    if found.size:
        file.seek(start + tensor.begin)
        count = file.readinto(found.reshape(-1).view(np.uint8))
        if count != found.nbytes:
            raise ValueError(
                f"the file must keep its size while it is read, got {count} of {found.nbytes} bytes"
            )
    return native(found)


def _view(pages, tensor, start):
    found = np.ndarray(tensor.shape, DTYPES[tensor.dtype], buffer=pages, offset=start + tensor.begin)
    if found.flags.aligned:
        return native(found)
    # Others may begin their tensors anywhere; compiled code reads numbers where they are whole words.
    copied = native(found.copy())
    copied.flags.writeable = found.flags.writeable
    return copied


@contextmanager
def replacing(path: str) -> Iterator[BinaryIO]:
    """A file to be written, which takes the place of `path` once it is whole and on the disk.

    Until then it lies in the same folder under another name, and is removed on any error.  Its permissions
    are those of the file that it replaces, or of any new file.  A link stays; what it leads to is replaced.
    """
    target = os.path.realpath(path)
    mode = _mode(target, path)
    temporary = os.path.join(os.path.dirname(target), f".ketcore-{os.urandom(8).hex()}")
    descriptor = _opened(temporary, os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), path)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _mode(target, path):
    """The permissions of a file that is there and may be written; None where there is none."""
    try:
        found = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    if not (stat.S_ISREG(found) or stat.S_ISDIR(found)):
        raise ValueError(f"path must be a file or new, got {path!r}, which is a device or a pipe")
    # To replace a file needs no leave to write it; to open it, as one writes otherwise, does.
    os.close(_opened(target, 0, path))
    return stat.S_IMODE(found)


def _opened(name, flags, path):
    """A descriptor to write to; of what fails the error names `path`."""
    try:
        return os.open(name, os.O_WRONLY | flags, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
