"""Products of stacks of matrices: on CuPy one call of cuBLAS, elsewhere `matmul` of the library."""

from types import ModuleType

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.cuda import library
from ketcore.cuda.structs import address

_LETTERS = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}


def matrix_products(xp: ModuleType, a: AnyArray, b: AnyArray) -> AnyArray:
    """`xp.matmul` of a (m, k) or (count, m, k) and b (count, k, n).

    On CuPy one strided-batched call, which reads a single matrix again and again, and transposed views as
    they lie; CuPy's own matmul makes lists of pointers for the first, and copies the second.
    """
    blas = library.cublas(b)
    if blas is None or a.dtype != b.dtype or b.dtype.name not in _LETTERS or not (a.size and b.size):
        return xp.matmul(a, b)
    with library.on_device_of(b):
        return strided_batched(*blas, a, b)


def strided_batched(xp: ModuleType, functions: ModuleType, handle: int, a: AnyArray, b: AnyArray) -> AnyArray:
    """`matrix_products` by the functions of cuBLAS, with none of the sizes zero."""
    a, a_by_columns, a_pitch, a_step = _laid_out(xp, a)
    b, b_by_columns, b_pitch, b_step = _laid_out(xp, b)
    m, k = a.shape[-2:]
    count, _, n = b.shape
    out = xp.empty((count, m, n), dtype=b.dtype)
    one, zero = np.ones(1, b.dtype), np.zeros(1, b.dtype)
    multiply = getattr(functions, _LETTERS[b.dtype.name] + "gemmStridedBatched")
    # cuBLAS takes matrices by columns: what lies by rows is its transpose, and (a b)^T = b^T a^T.
    multiply(
        *(handle, int(b_by_columns), int(a_by_columns), n, m, k, one.ctypes.data),
        *(address(b), b_pitch, b_step, address(a), a_pitch, a_step),
        *(zero.ctypes.data, address(out), n, m * n, count),
    )
    return out


def _laid_out(xp, array):
    """The array, whether its matrices lie by columns, the distance of rows or columns, that of matrices."""
    rows, columns = array.shape[-2:]
    strides = (0,) * (3 - array.ndim) + array.strides
    step, *pair = (stride / array.itemsize for stride in strides)
    for by_columns, (pitch, run), length in ((False, pair, columns), (True, pair[::-1], rows)):
        if run == 1 and pitch >= length and step >= 0 and step.is_integer() and pitch.is_integer():
            return array, by_columns, int(pitch), int(step)
    return xp.ascontiguousarray(array), False, columns, rows * columns if array.ndim == 3 else 0
