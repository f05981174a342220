"""What is timed: embeddings of the shapes of `bench.workloads`, and linear layers, one training step each."""

from dataclasses import dataclass, fields
from math import prod

import numpy as np

from bench import workloads as tables

IDS = (1024, 16384)
TOKENS = (128, 1024)


class Embedding(tables.Workload):
    """A table as in `bench.workloads`, trained."""

    batches = IDS
    quick_batches = IDS[:1]
    tasks = ("step",)

    def takes(self, batch: int, dtype: str) -> bool:
        return dtype == "float32"


@dataclass(frozen=True)
class Linear:
    """A linear layer: y = x M + bias, M a sum of `rank` Kronecker products of N factors (p_n, q_n)."""

    row_dims: tuple[int, ...]
    col_dims: tuple[int, ...]
    rank: int
    kind: str = "linear"
    batches: tuple[int, ...] = TOKENS
    quick_batches: tuple[int, ...] = TOKENS[:1]
    tasks: tuple[str, ...] = ("step",)

    @property
    def sizes(self) -> tuple[int, int]:
        return prod(self.row_dims), prod(self.col_dims)

    @property
    def name(self) -> str:
        rows, columns = self.sizes
        return f"linear {rows}x{columns} {len(self.row_dims)}/{self.rank}"

    def takes(self, batch: int, dtype: str) -> bool:
        return dtype == "float32"


@dataclass(frozen=True)
class TableCase(tables.Case):
    """A case of an embedding; `compiled`: by torch.compile."""

    compiled: bool = False


@dataclass(frozen=True)
class LinearCase:
    """One linear layer to train.

    tables  N factors (R, p_n, q_n)
    """

    workload: Linear
    batch: int
    dtype: str
    task: str
    tables: tuple
    bias: np.ndarray
    x: np.ndarray
    cotangent: np.ndarray
    compiled: bool = False


def workloads() -> tuple[Embedding | Linear, ...]:
    """Tables as one Kronecker matrix, tables of kets, linear layers."""
    rows = [(30522, 768, 2, 10), (30428, 256, 4, 1)]
    kets = [(30428, 256, 4, 1)]
    linear = [((24, 32), (48, 64), 1), ((24, 32), (48, 64), 8), ((64, 64), (64, 64), 1)]
    found = [Embedding("rows", *numbers) for numbers in rows]
    found += [Embedding("kets", *numbers) for numbers in kets]
    return (*found, *(Linear(*numbers) for numbers in linear))


def make_case(workload: Embedding | Linear, batch: int, dtype: str, task: str) -> TableCase | LinearCase:
    """Arrays for one case; the same numbers in every process."""
    if isinstance(workload, Embedding):
        case = tables.make_case(workload, batch, dtype, task)
        return TableCase(**{field.name: getattr(case, field.name) for field in fields(case)})
    rng = np.random.default_rng([*workload.row_dims, *workload.col_dims, workload.rank, batch])
    rows, columns = workload.sizes
    std = (rows * workload.rank) ** (-0.5 / len(workload.row_dims))
    dims = zip(workload.row_dims, workload.col_dims, strict=True)
    factors = tuple((std * rng.standard_normal((workload.rank, p, q))).astype(dtype) for p, q in dims)
    bias, x, cotangent = (
        rng.standard_normal(shape).astype(dtype) for shape in (columns, (batch, rows), (batch, columns))
    )
    return LinearCase(workload, batch, dtype, task, factors, bias, x, cotangent)
