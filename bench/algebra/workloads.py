"""What is timed of the operator algebra, as plain data and NumPy arrays.

    square, rectangular   x @ M,  x (M rows, prod p),  one Kronecker product of factors p x q
    sum                   the same with a sum of r terms
    logits                h @ table.T for a cropped table: the last layer of a language model, weights tied
    gram                  all inner products of two batches of kets
    solve                 M x = b, symmetric positive definite factors

    forward     the result
    backward    the result and the gradients of x and of every factor, for a given cotangent

Both dtypes get the same numbers, rounded to float32, so that one definition in float64 serves both.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from bench.workloads import ceil_root

BATCHES = (1, 16, 128, 1024)
# No array of a case has more elements than this.
MOST_ELEMENTS = 1 << 24
# Cases with larger arrays are run in float32 alone; with --quick, the largest batch of no larger arrays.
DOUBLE_ELEMENTS, QUICK_ELEMENTS = 1 << 20, 1 << 19
# The condition number of the whole matrix of a solve: in float32 every method still has three digits left.
CONDITION = 1e3
# The cropped tables whose logits are timed: (vocab, dim, order, rank).
TABLES = ((30428, 256, 4, 1), (118655, 300, 2, 2), (32011, 256, 2, 10), (32011, 256, 2, 30))


@dataclass(frozen=True)
class Workload:
    """A Kronecker matrix.

    rows, columns  the p_n and the q_n (kets: q_n); shape  what is left of it where it is cropped, else None
    """

    kind: str
    label: str
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    rank: int = 1
    shape: tuple[int, int] | None = None
    batches: tuple[int, ...] = BATCHES

    @property
    def name(self) -> str:
        return f"{self.kind} {self.label}"

    @property
    def tasks(self) -> tuple[str, ...]:
        return ("forward", "backward") if self.kind in ("square", "rectangular", "sum") else ("forward",)

    def takes(self, batch: int, dtype: str) -> bool:
        """Whether a batch is run in a dtype: float64 for the smallest and for what is no large work."""
        if batch not in self.batches:
            return False
        widest = max(prod(self.rows), prod(self.columns))
        return dtype == "float32" or batch == self.batches[0] or batch * widest <= DOUBLE_ELEMENTS

    @property
    def quick_batches(self) -> tuple[int, ...]:
        """The largest one that is still small work."""
        widest = max(prod(self.rows), prod(self.columns))
        small = tuple(batch for batch in self.batches if batch * widest <= QUICK_ELEMENTS)
        return small[-1:] or self.batches[:1]

    @property
    def sizes(self) -> tuple[int, int]:
        """Rows and columns after cropping."""
        return self.shape or (prod(self.rows), prod(self.columns))


@dataclass(frozen=True)
class Case:
    """One thing to time.

    factors    N arrays (R, p, q);  gram: N arrays (batch, R, q)
    x          (batch, rows);  gram: N arrays like the factors
    cotangent  (batch, columns)
    """

    workload: Workload
    batch: int
    dtype: str
    task: str
    factors: tuple
    x: np.ndarray | tuple
    cotangent: np.ndarray | None

    @property
    def output_bytes(self) -> int:
        width = self.batch if self.workload.kind == "gram" else self.workload.sizes[1]
        return self.batch * width * np.dtype(self.dtype).itemsize

    @property
    def copied_bytes(self) -> int:
        """Input read and output written, which is a copy of half of both; backward the same once more."""
        width = sum(self.workload.columns) if self.workload.kind == "gram" else self.workload.sizes[0]
        moved = self.batch * width * np.dtype(self.dtype).itemsize + self.output_bytes
        return moved if self.task == "backward" else moved // 2

    @property
    def flops(self) -> int:
        return flops(self.workload, self.batch) * (3 if self.task == "backward" else 1)


def workloads() -> tuple[Workload, ...]:
    """The cases of the comparison."""
    powers = [(2, n) for n in (12, 14, 16, 18, 20)] + [(4, n) for n in range(6, 11)]
    powers += [(8, n) for n in (4, 5, 6)] + [(16, n) for n in (3, 4, 5)] + [(32, n) for n in (2, 3, 4)]
    powers += [(64, 2), (64, 3), (128, 2)]
    made = [_product("square", [(p, p)] * n, label=f"{p}^{n}") for p, n in powers]
    mixed = [[(52, 50), (65, 20)], [(5, 3), (7, 9), (11, 13), (8, 4)]]
    mixed += [[(8, 16)] * 4, [(16, 8)] * 4, [(3, 3)] * 7]
    made += [_product("rectangular", modes) for modes in mixed]
    sums = [([(16, 16)] * 2, 10), ([(16, 179)] * 2, 10), ([(8, 8)] * 4, 4), ([(32, 32)] * 2, 8)]
    sums += [([(4, 4)] * 6, 4)]
    made += [_product("sum", modes, rank) for modes, rank in sums]
    made += [_logits(*table) for table in TABLES]
    made += [_gram(*kets) for kets in ((4, 4, 1, (1000,)), (2, 8, 1, (1000,)), (4, 4, 10, (16,)))]
    made += [_gram(16, 2, rank, (32, 4096)) for rank in (1, 4)]
    solved = [(16, 3), (8, 5), (32, 3), (64, 2)]
    made += [Workload("solve", f"{p}^{n}", (p,) * n, (p,) * n, batches=BATCHES[:3]) for p, n in solved]
    return tuple(made)


def make_case(workload: Workload, batch: int, dtype: str, task: str) -> Case:
    """Arrays for one case; the same numbers in every process, for every dtype."""
    factors, x, cotangent = numbers(workload, batch)
    cast = tuple(factor.astype(dtype) for factor in factors)
    if workload.kind == "gram":
        return Case(workload, batch, dtype, task, cast, tuple(w.astype(dtype) for w in x), None)
    return Case(workload, batch, dtype, task, cast, x.astype(dtype), cotangent.astype(dtype))


@lru_cache(maxsize=1)
def numbers(workload: Workload, batch: int) -> tuple:
    """(factors, x, cotangent) in float32; the entries of the product have a standard deviation near 1."""
    rng = np.random.default_rng([*workload.rows, *workload.columns, workload.rank, batch])
    if workload.kind == "gram":
        shapes = [(batch, workload.rank, q) for q in workload.columns]
        v, w = (tuple(rng.standard_normal(shape, np.float32) for shape in shapes) for _ in range(2))
        return v, w, None
    maker = _definite if workload.kind == "solve" else _normal
    modes = zip(workload.rows, workload.columns, strict=True)
    factors = tuple(maker(rng, workload.rank, p, q, len(workload.rows)) for p, q in modes)
    rows, columns = workload.sizes
    return factors, *(rng.standard_normal((batch, width), np.float32) for width in (rows, columns))


def flops(workload: Workload, batch: int) -> int:
    """The fewest multiplications and additions of the ways there are to the result.

    Products: term by term, one mode after the other in the best order; two halves, all terms in one sum; or
    dense.  A solve costs what the product costs (triangles, twice).  Gram: by modes, or kets multiplied out.
    """
    rows, columns, rank = workload.rows, workload.columns, workload.rank
    if workload.kind == "gram":
        return batch**2 * min(rank**2 * (2 * sum(columns) + len(columns)), 2 * prod(columns))
    # Modes that shrink x come first: between neighbours, the one with the smaller 1/p - 1/q.
    order = sorted(zip(rows, columns, strict=True), key=lambda mode: 1 / mode[0] - 1 / mode[1])
    ways = [rank * _in_order(batch, order)]
    for cut in range(1, len(rows)):
        (p, q), (p_, q_) = ((prod(rows[s]), prod(columns[s])) for s in (slice(cut), slice(cut, None)))
        ways += [2 * batch * rank * q_ * (p * p_ + q * p), 2 * batch * rank * q * (p * p_ + q_ * p_)]
    row, column = workload.sizes
    return min(*ways, row * column * (2 * batch + 2 * rank - 1))


def _in_order(batch, modes):
    size, total = batch * prod(p for p, _ in modes), 0
    for p, q in modes:
        total += 2 * size * q
        size = size // p * q
    return total


def _product(kind, modes, rank=1, label=None):
    rows, columns = zip(*modes, strict=True)
    if label is None:
        written = [f"({p}.{q})" for p, q in modes]
        label = f"{written[0]}^{len(written)}" if len(set(written)) == 1 else "".join(written)
        label += f" r={rank}" if rank > 1 else ""
    widest = max(prod(rows), prod(columns))
    batches = tuple(batch for batch in BATCHES if batch * widest <= MOST_ELEMENTS)
    return Workload(kind, label, rows, columns, rank, batches=batches)


def _logits(vocab, dim, order, rank):
    t, q = ceil_root(vocab, order), ceil_root(dim, order)
    label, modes = f"{vocab}x{dim} {order}/{rank}", ((q,) * order, (t,) * order)
    return Workload("logits", label, *modes, rank, (dim, vocab), batches=(1, 32, 256))


def _gram(q, order, rank, batches):
    label = f"{q}^{order} r={rank}"
    return Workload("gram", label, (1,) * order, (q,) * order, rank, batches=batches)


def _normal(rng, rank, p, q, order):
    std = p**-0.5 * rank ** (-0.5 / order)
    return np.float32(std) * rng.standard_normal((rank, p, q), np.float32)


def _definite(rng, rank, p, q, order):
    base, _ = np.linalg.qr(rng.standard_normal((rank, p, p)))
    values = np.geomspace(1.0, CONDITION ** (1 / order), p)
    return (base * values @ base.swapaxes(1, 2)).astype(np.float32)
