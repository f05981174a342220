"""Arrays times Kronecker matrices on a GPU: by cuBLAS, by the kernel, by torch, and the least bytes moved."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

import ketcore as kc
from bench.gpu.cases import ITEMSIZE, TASKS
from bench.gpu.contestant import Contestant
from bench.gpu.device import has_torch
from ketcore.cuda import launcher
from ketcore.products import fused

# Entries of x: what launches cost, and what memory does.
SMALL, LARGE = 1 << 16, 1 << 26


@dataclass(frozen=True)
class Product:
    """Rows (batch, P) times a matrix of `rank` terms with modes `dims` ((p_0, q_0), ...)."""

    dims: tuple
    rank: int
    entries: int
    dtype: str
    task: str
    kind = "products"

    @property
    def batch(self) -> int:
        return max(1, self.entries // prod(p for p, _ in self.dims))

    @property
    def name(self) -> str:
        modes = " ".join(f"{p}x{q}" for p, q in self.dims)
        return f"{modes} rank {self.rank} {self.dtype} {self.task} B={self.batch}"

    @property
    def least_bytes(self) -> int:
        """Of x and the factors read and the product written; backward the same again, and both gradients."""
        rows, columns = (prod(pair[axis] for pair in self.dims) for axis in (0, 1))
        factors = self.rank * sum(p * q for p, q in self.dims)
        forward = self.batch * (rows + columns) + factors
        # Of the cotangent and the gradient of x, and x once more for the factors.
        backward = self.batch * (2 * rows + columns) + 2 * factors if self.task == "backward" else 0
        return ITEMSIZE[self.dtype] * (forward + backward)

    def problem(self, device) -> "Problem":
        rng = np.random.default_rng(0)
        rows, columns = (prod(pair[axis] for pair in self.dims) for axis in (0, 1))
        sizes = [(self.rank, p, q) for p, q in self.dims] + [(self.batch, rows), (self.batch, columns)]
        # Entries of the product are about one.
        scales = [(self.rank ** (1 / len(self.dims)) * p) ** -0.5 for p, _ in self.dims] + [1.0, 1.0]
        *factors, x, cotangent = (
            device.array(rng.standard_normal(size, np.float32) * np.float32(scale), self.dtype)
            for size, scale in zip(sizes, scales, strict=True)
        )
        return Problem(self, tuple(factors), x, cotangent)


@dataclass(frozen=True)
class Problem:
    """The arrays of a case on a device."""

    case: Product
    factors: tuple
    x: object
    cotangent: object

    def rows(self, path=None):
        return kc.ops.kron_matmul(self.factors, self.x, path=path)

    def gradients(self, path=None):
        to_factors, to_x = kc.ops.kron_matmul_vjp(self.factors, self.x, self.cotangent, path=path)
        return (*to_factors, to_x)

    def wide(self) -> "Problem":
        """The same numbers in float64."""
        wide = [array.astype("float64") for array in (*self.factors, self.x, self.cotangent)]
        return replace(self, factors=tuple(wide[:-2]), x=wide[-2], cotangent=wide[-1])

    def contestants(self, device) -> list[Contestant]:
        """Ketcore, its kernel where that takes the problem, and torch mode by mode."""
        library, moved, backward = device.xp.__name__, self.case.least_bytes, self.case.task == "backward"

        def ours(path):
            return lambda: (self.rows(path), self.gradients(path) if backward else ())

        found = [Contestant("ketcore", ours(None), "cublas", moved)]
        given = self.factors, self.x[:, :, None]
        if launcher.launcher_for(self.x) is not None and not fused.obstacle(*given):
            found.append(Contestant("ketcore, fused", ours("fused"), library, moved))
        if has_torch(device.torch_device):
            from bench.gpu import torch_code

            found.append(torch_code.product(self, device, moved))
        return found


def cases(small: bool = False) -> tuple[Product, ...]:
    """Small modes, where the kernel should be ahead, and larger ones, which it does not take.

    Or `small`, one product of few entries.
    """
    if small:
        return tuple(Product(((4, 4), (5, 3)), 2, 60, "float32", task) for task in TASKS)
    square = [(((side, side),) * order, 1) for side, order in ((2, 12), (4, 6), (8, 4), (16, 3), (64, 2))]
    uneven = [(((5, 3), (7, 9), (11, 13), (8, 4)), 1)]
    sums = [(((16, 16),) * 2, 10), (((8, 8),) * 4, 4)]
    shapes = [*square, *uneven, *sums]
    kinds = [(*shape, "float32") for shape in shapes] + [(*square[2], "float16"), (*square[2], "bfloat16")]
    return tuple(
        Product(dims, rank, entries, dtype, task)
        for dims, rank, dtype in kinds
        for task in TASKS
        for entries in (SMALL, LARGE)
    )
