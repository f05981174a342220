"""Products on CUDA: the kernel of `matmul.cu`, one launch a pass, and cuBLAS on strided batches.

    matmul     (batch, P, trail) to (batch, Q, trail): passes of a few small modes, between them arrays of all
               terms in the accumulation dtype
    products   one matrix times many, or many times many, none of them copied

Launchers are those of `ketcore.lookups.kernels`.
"""

from collections.abc import Collection, Sequence
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.arrays.namespaces import Array
from ketcore.cuda import library
from ketcore.cuda.structs import LARGEST_SIDE, address
from ketcore.cuda.table import STORAGE
from ketcore.products.fused_plan import filled_pass, fused_steps


def obstacle(factors: Sequence[Array], x: Array, identities: Collection[int] = ()) -> str:
    """Why the kernel cannot take these, in words that follow a name; empty if it can.

    factors, x, identities   as in `matmul`
    """
    names = [array.dtype.name for array in (*factors, x)]
    if len(set(names)) > 1 or names[0] not in STORAGE:
        return f"must have one real floating dtype, got {', '.join(dict.fromkeys(names))}"
    if any(factor.ndim != 3 for factor in factors):
        return "must be arrays (rank, rows, columns) without a batch"
    if not factors or not factors[0].shape[0]:
        return "must have one mode and one term at least"
    if any(stride % factor.dtype.itemsize for factor in factors for stride in factor.strides):
        return "must have strides of whole entries"
    dims = [tuple(factor.shape[1:]) for factor in factors]
    if _steps(factors, 1, 1, identities) is None:
        return f"must have at most {LARGEST_SIDE} rows and columns in each mode, got {dims}"
    return ""


def matmul(launch: Any, factors: Sequence[Array], x: Array, identities: Collection[int] = ()) -> Array:
    """M^T x along the middle axis; `obstacle` says whether it can.

    factors     N arrays (R, p_n, q_n), any strides
    x           (batch, P, trail) of the same dtype; copied if it is not contiguous
    identities  modes known to be identity matrices
    returns     (batch, Q, trail) in that dtype; sums run in its accumulation dtype, in an order that sizes
                alone decide
    """
    with library.on_device_of(x):
        return _passes(launch, factors, x, identities)


def _passes(launch, factors, x, identities):
    batch, _, trail = x.shape
    xp, storage = launch.xp, x.dtype.name
    shape = (batch, prod(factor.shape[2] for factor in factors), trail)
    if not batch or not trail:
        return xp.empty(shape, dtype=storage)
    wide = "float64" if storage == "float64" else "float32"
    # Stands for the arrays of the other type, which the kernel does not touch.
    unused = {name: xp.empty(0, dtype=name) for name in (storage, wide)}
    steps, z = _steps(factors, batch, trail, identities), xp.ascontiguousarray(x)
    assert steps is not None  # or there would be an obstacle
    for i, step in enumerate(steps):
        out = xp.empty(step.target, dtype=storage if i == len(steps) - 1 else wide)
        plan = filled_pass(step, factors, i > 0, i < len(steps) - 1)
        arrays = [a if a.dtype.name == name else unused[name] for a in (z, out) for name in (storage, wide)]
        size = step.launch
        launch("matmul", "multiply", (STORAGE[storage],), size.grid, size.block, (plan, *arrays), size.shared)
        z = out
    return z.reshape(shape)


def _steps(factors, batch, trail, identities):
    rows, columns = (tuple(factor.shape[axis] for factor in factors) for axis in (1, 2))
    entry = max(4, factors[0].dtype.itemsize)
    return fused_steps(rows, columns, factors[0].shape[0], batch, trail, entry, frozenset(identities))


# ---- cuBLAS ----

_LETTERS = {"float32": "s", "float64": "d", "complex64": "c", "complex128": "z"}


def matrix_products(xp: ModuleType, a: Array, b: Array) -> Array:
    """`xp.matmul` of a (m, k) or (count, m, k) and b (count, k, n).

    On CuPy one strided-batched call, which reads a single matrix again and again, and transposed views as
    they lie; CuPy's own matmul makes lists of pointers for the first, and copies the second.
    """
    blas = library.cublas(b)
    if blas is None or a.dtype != b.dtype or b.dtype.name not in _LETTERS or not (a.size and b.size):
        return xp.matmul(a, b)
    with library.on_device_of(b):
        return strided_batched(*blas, a, b)


def strided_batched(xp: ModuleType, functions: ModuleType, handle: int, a: Array, b: Array) -> Array:
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
