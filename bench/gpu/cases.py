"""What is timed on a GPU: the cases, the least bytes that each must move, and the contestants."""

from dataclasses import dataclass, replace

import ketcore as kc
from bench.gpu import compiled
from bench.gpu.contestant import Contestant
from bench.gpu.device import has_torch
from bench.workloads import Workload, make_case

BATCHES = (1024, 16384, 131072)
TASKS = ("forward", "backward")
ITEMSIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
ID_BYTES = 8


@dataclass(frozen=True)
class Case:
    workload: Workload
    batch: int
    dtype: str
    task: str
    kind = "lookups"

    @property
    def name(self) -> str:
        return f"{self.workload.name} {self.dtype} {self.task} B={self.batch}"


def cases(small: bool = False) -> tuple[Case, ...]:
    """All cases: those of one table together, as torch.compile is slow; or `small`, a few of small tables."""
    if small:
        few = Workload("rows", 60, 15, 2, 3), Workload("kets", 50, 16, 4, 2, layernorm=True)
        return tuple(Case(workload, 16, "float32", task) for workload in few for task in TASKS)
    rows = [(32011, 256, 2, 30), (32011, 256, 2, 10), (30428, 256, 4, 1), (118655, 300, 2, 2)]
    kets = [Workload("kets", *numbers) for numbers in ((30428, 256, 4, 1), (32011, 256, 4, 5))]
    tables = [Workload("rows", *numbers) for numbers in rows] + kets
    tables += [replace(workload, layernorm=True) for workload in kets]
    kinds = [(workload, "float32") for workload in tables]
    kinds += [(tables[1], dtype) for dtype in ("float16", "bfloat16")]
    return tuple(
        Case(workload, batch, dtype, task) for workload, dtype in kinds for task in TASKS for batch in BATCHES
    )


def least_bytes(case: Case) -> int:
    """Ids and leaves read, rows written; backward also the cotangent read, the gradient written; all once."""
    workload, size = case.workload, ITEMSIZE[case.dtype]
    rows = case.batch * workload.dim * size
    leaf = workload.rank * size
    if workload.kind == "rows":
        table = leaf * sum(t * q for t, q in zip(workload.radices, workload.dims, strict=True))
        read = table
    else:
        table = leaf * sum(workload.dims) * workload.vocab
        read = leaf * sum(workload.dims) * min(case.batch, workload.vocab)
    backward = rows + table if case.task == "backward" else 0
    return rows + read + case.batch * ID_BYTES + backward


def dense_bytes(case: Case) -> int:
    """The same for a dense table of that shape."""
    workload, size = case.workload, ITEMSIZE[case.dtype]
    rows, table = case.batch * workload.dim * size, workload.vocab * workload.dim * size
    read = min(case.batch, workload.vocab) * workload.dim * size
    return rows + read + case.batch * ID_BYTES + (rows + table if case.task == "backward" else 0)


@dataclass(frozen=True)
class Problem:
    """The arrays of a case on a device: tables, ids and cotangent, in the dtype of the case."""

    case: Case
    tables: tuple
    ids: object
    cotangent: object

    def rows(self, ids=None):
        workload, ids = self.case.workload, self.ids if ids is None else ids
        if workload.kind == "rows":
            return kc.rows(self.tables, ids, (workload.vocab, workload.dim))
        return kc.ket_rows(self.tables[0], ids, **self._options)

    def gradients(self, deterministic=True):
        workload, given = self.case.workload, {"deterministic": deterministic}
        if workload.kind == "rows":
            return kc.rows_vjp(self.tables, self.ids, self.cotangent, (workload.vocab, workload.dim), **given)
        return (kc.ket_rows_vjp(self.tables[0], self.ids, self.cotangent, **self._options, **given),)

    def wide(self) -> "Problem":
        """The same numbers in float64."""
        tables = tuple(table.astype("float64") for table in self.tables)
        return replace(self, tables=tables, cotangent=self.cotangent.astype("float64"))

    @property
    def _options(self):
        workload = self.case.workload
        return {"dims": workload.dims, "layernorm": workload.layernorm, "columns": workload.dim}


def make_problem(case: Case, device) -> Problem:
    if not isinstance(case, Case):
        return case.problem(device)
    arrays = make_case(case.workload, case.batch, "float32", case.task)
    tables = tuple(device.array(table, case.dtype) for table in arrays.tables)
    ids, cotangent = device.array(arrays.ids, "int64"), device.array(arrays.cotangent, case.dtype)
    return Problem(case, tables, ids, cotangent)


def contestants(problem: Problem, device, compiler: "compiled.Compiler") -> list[Contestant]:
    """Ketcore first; with torch installed its embedding layer and the code one writes with it, too."""
    if not isinstance(problem, Problem):
        return problem.contestants(device)
    case = problem.case
    library, moved = device.xp.__name__, least_bytes(case)

    def ours(deterministic):
        def call():
            return problem.rows(), problem.gradients(deterministic) if case.task == "backward" else ()

        return call

    found = [Contestant("ketcore", ours(True), library, moved)]
    if case.task == "backward":
        found.append(Contestant("ketcore, atomics", ours(False), library, moved))
    if has_torch(device.torch_device):
        from bench.gpu import torch_code

        found.append(torch_code.embedding(problem, device, dense_bytes(case)))
        found.append(torch_code.contestant("torch eager", problem, device, moved))
        if case.dtype == "float32" and not compiler.reason:
            found.append(torch_code.contestant("torch.compile", problem, device, moved, compiler))
    return found
