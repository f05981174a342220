"""Arrays between two pages that nothing may touch: what reads or writes beside them ends the process."""

import ctypes
import mmap
from math import prod

import numpy as np

_NOTHING = 0  # PROT_NONE


def guarded(shape: tuple[int, ...], dtype: np.dtype, at_the_end: bool) -> np.ndarray:
    """A C-contiguous array of zeros that ends where its memory does, or begins where it begins.

    Only where the operating system has `mprotect`.
    """
    page, size = mmap.PAGESIZE, prod(shape) * dtype.itemsize
    pages = -(-size // page)
    area = mmap.mmap(-1, (pages + 2) * page)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for at in (begin, begin + (pages + 1) * page):
        if ctypes.CDLL(None).mprotect(ctypes.c_void_p(at), ctypes.c_size_t(page), _NOTHING):
            raise OSError("mprotect failed")
    return np.ndarray(shape, dtype, buffer=area, offset=page + (pages * page - size) * at_the_end)
