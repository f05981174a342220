"""The structs that kernels are told by value, field by field as in their sources, and their limits.

MODE, NODE and PLAN are those of kernel.cuh, FACTOR, LINK, SIDE and PASS those of matmul.cu.
"""

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

MAX_ORDER = 16
MAX_NODES = 2 * MAX_ORDER
# What every block may ask for on every GPU.
SHARED_FLOOR = 48 << 10

MODE = np.dtype(
    [(name, np.uint64) for name in ("table", "gradient")]
    + [(name, np.int64) for name in ("rank", "row", "column")]
    + [(f"gradient_{name}", np.int64) for name in ("rank", "row", "column")]
    + [(name, np.int64) for name in ("count", "radix_weight", "first_sum")]
    + [(name, np.int32) for name in ("size", "first_column", "shift", "first_slot")]
)
NODE = np.dtype(
    [("per_size", np.uint64)]
    + [(name, np.int32) for name in ("offset", "pitch", "size", "left", "right", "unused")]
)
PLAN = np.dtype(
    [(name, np.int64) for name in ("rows", "columns", "bound", "chunk", "chunks", "sums")]
    + [("eps", np.float64), ("per_width", np.uint64), ("keys", np.uint64)]
    + [(name, np.int32) for name in ("order", "rank", "width", "kind")]
    + [(name, np.int32) for name in ("root", "layernorm", "kept", "vector")]
    + [(name, np.int32) for name in ("staged", "atomic", "panel_rows", "panel_pitch")]
    + [(name, np.int32) for name in ("digit_tile", "slots")]
    + [(name, np.int32) for name in ("owner", "scratch", "scratch_size", "staging")]
    + [(name, np.int32) for name in ("slope", "panel", "moments", "backward", "digit")]
    + [("single_eps", np.float32)]
    + [("modes", MODE, MAX_ORDER), ("nodes", NODE, MAX_NODES)]
)
assert PLAN.itemsize == 2856, "the layout of Plan in kernel.cuh"

# The sides of a factor, and of the matrix of a link.
LARGEST_SIDE = 16
MAX_LINKS, MAX_FACTORS = 4, 16

FACTOR = np.dtype(
    [("table", np.uint64)]
    + [(name, np.int64) for name in ("term", "row", "column")]
    + [(name, np.int32) for name in ("rows", "columns")]
)
LINK = np.dtype(
    [("per_inner", np.uint64)]
    + [(name, np.int32) for name in ("first_factor", "factors", "rows", "columns", "pitch", "matrix")]
    + [(name, np.int32) for name in ("inner", "fibres", "source", "source_left")]
    + [(name, np.int32) for name in ("target", "target_left", "target_column", "unused")]
)
SIDE = np.dtype(
    [("term", np.int64), ("per_size", np.uint64), ("per_row", np.uint64)]
    + [(name, np.int32) for name in ("size", "buffer", "row", "pitch", "wide", "unused")]
)
PASS = np.dtype(
    [(name, np.int64) for name in ("outer", "inner", "tiles", "inner_tiles")]
    + [("per_inner", np.uint64)]
    + [(name, np.int32) for name in ("tile_outer", "tile_inner", "terms", "summed", "held")]
    + [(name, np.int32) for name in ("links", "matrices", "unused")]
    + [("source", SIDE), ("target", SIDE), ("chain", LINK, MAX_LINKS), ("factors", FACTOR, MAX_FACTORS)]
)
assert PASS.itemsize == 1064, "the layout of Pass in matmul.cu"


@dataclass(frozen=True, eq=False)
class Launch:
    """A plan without addresses, and the sizes of its launch.

    There is one object for the same sizes, so that what is kept for it is found at once.

    Attributes
    ----------
    plan : np.ndarray, ()
        Of dtype PLAN or PASS.
    grid, block, shared : int
        Blocks, threads of a block, and its bytes of shared memory.
    """

    plan: np.ndarray
    grid: int
    block: int
    shared: int

    @cached_property
    def packed(self) -> bytes:
        """The plan as it lies in memory: to copy a struct, NumPy goes through all of its fields."""
        return self.plan.tobytes()


def passed(struct: bytes | bytearray) -> np.ndarray:
    """A struct as an argument of a kernel, by value: of one with fields CuPy would go through all of them."""
    return np.ndarray((), _bytes(len(struct)), struct)


@cache
def _bytes(size):
    return np.dtype(f"V{size}")


def reciprocal(divisor: int) -> int:
    """What `quotient` of kernel.cuh multiplies by, for numbers below 2**16: entries of shared memory."""
    return (1 << 32) // divisor + 1


def address(array: Any) -> int:
    """Where the first element of a NumPy or CuPy array lies, or memory of CuPy's pool begins."""
    if type(array) is np.ndarray:
        return array.__array_interface__["data"][0]
    return getattr(array, "data", array).ptr
