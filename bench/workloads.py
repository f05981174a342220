"""What is timed: tables of the paper's shapes, as plain data and NumPy arrays.

A workload is a table (vocab, dim) of order N and rank R with equal leaves, as in the paper:
q = ceil(dim ** (1/N)) columns and, for rows, t = ceil(vocab ** (1/N)) rows per leaf, cropped to (vocab, dim).
A case is a workload with a batch size, a dtype and a task:

    forward     the rows of a batch of ids
    vjp         the gradient of every leaf alone, as dense arrays
    backward    the rows and the gradient of every leaf, as dense arrays
    sparse      kets only: the rows and the gradient of the words of the batch, as (unique ids, values)
"""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

BATCHES = (1, 32, 1024, 16384)
DTYPES = ("float32", "float64")
TASKS = ("forward", "vjp", "backward", "sparse")


@dataclass(frozen=True)
class Workload:
    kind: str
    vocab: int
    dim: int
    order: int
    rank: int
    layernorm: bool = False

    @property
    def name(self) -> str:
        ending = " LayerNorm" if self.layernorm else ""
        return f"{self.kind} {self.vocab}x{self.dim} {self.order}/{self.rank}{ending}"

    @property
    def dims(self) -> tuple[int, ...]:
        return (ceil_root(self.dim, self.order),) * self.order

    @property
    def radices(self) -> tuple[int, ...]:
        return (ceil_root(self.vocab, self.order),) * self.order

    @property
    def batches(self) -> tuple[int, ...]:
        return BATCHES

    def takes(self, batch: int, dtype: str) -> bool:
        return True

    @property
    def quick_batches(self) -> tuple[int, ...]:
        return BATCHES[2:]

    @property
    def tasks(self) -> tuple[str, ...]:
        return TASKS if self.kind == "kets" else TASKS[:3]


@dataclass(frozen=True)
class Case:
    """One thing to time.

    tables  rows: N factors (R, t, q);  kets: one packed array (vocab, R, N q)
    """

    workload: Workload
    batch: int
    dtype: str
    task: str
    tables: tuple
    ids: np.ndarray
    cotangent: np.ndarray

    @property
    def output_bytes(self) -> int:
        return self.batch * self.workload.dim * np.dtype(self.dtype).itemsize


def ceil_root(number: int, degree: int) -> int:
    """The least k with k**degree >= number, by integers: a float root of 32768 misses 8**5.

    >>> ceil_root(32768, 5), ceil_root(30428, 4)
    (8, 14)
    """
    root = 1
    while root**degree < number:
        root += 1
    return root


def workloads() -> tuple[Workload, ...]:
    """The tables of the comparison: rows, kets, and the same kets with LayerNorm."""
    rows = [(30428, 256, 4, 1), (30428, 400, 2, 10), (30428, 256, 8, 1), (118655, 300, 2, 2)]
    rows += [(118655, 300, 4, 1), (32011, 256, 2, 30), (32011, 256, 2, 10), (32011, 256, 3, 10)]
    kets = [(30428, 256, 4, 1), (32011, 256, 4, 5), (30428, 256, 8, 2), (118655, 300, 2, 2)]
    plain = [Workload("kets", *numbers) for numbers in kets]
    normed = [replace(workload, layernorm=True) for workload in plain]
    return (*(Workload("rows", *numbers) for numbers in rows), *plain, *normed)


def make_case(workload: Workload, batch: int, dtype: str, task: str) -> Case:
    """Arrays for one case; the same numbers in every process."""
    rng = np.random.default_rng([workload.vocab, workload.dim, batch])
    ids = rng.integers(0, workload.vocab, batch)
    cotangent = rng.standard_normal((batch, workload.dim)).astype(dtype)
    tables = _tables(replace(workload, layernorm=False), dtype)
    return Case(workload, batch, dtype, task, tables, ids, cotangent)


@lru_cache(maxsize=2)
def _tables(workload, dtype):
    rng = np.random.default_rng([workload.vocab, workload.dim, workload.order, workload.rank])
    # This standard deviation of the leaves gives table entries of standard deviation 1.
    std = workload.rank ** (-0.5 / workload.order)
    if workload.kind == "kets":
        shapes = [(workload.vocab, workload.rank, sum(workload.dims))]
    else:
        shapes = [(workload.rank, t, q) for t, q in zip(workload.radices, workload.dims, strict=True)]
    return tuple((std * rng.standard_normal(shape)).astype(dtype) for shape in shapes)
