"""The families of cases that `python -m bench --family` chooses from."""

from collections.abc import Callable
from dataclasses import dataclass

from bench import report
from bench import workloads as tables
from bench.algebra import definition
from bench.algebra import peers as algebra_peers
from bench.algebra import workloads as algebra
from bench.layers import peers as layer_peers
from bench.layers import report as layer_report
from bench.layers import workloads as layers
from bench.machine import floor_seconds
from bench.memory import peak_tensor_memory
from bench.peers import builders


@dataclass(frozen=True)
class Family:
    """What is timed and by whom.

    definition  case -> (value, gradients) that everyone is compared with, or None: ketcore's own are
    seconds     timing of one case, all contestants together; and with --quick
    patience    one call longer than this many seconds is hardly repeated
    floor       (case, threads) -> seconds of the machine's floor, or None: a contestant is the floor
    leaves_out  whether the hopelessly slow on a small batch are left out of larger ones
    table       the text of the results
    memory      call -> bytes that it takes at the most, asked of every contestant; None: see the records
    """

    workloads: Callable
    make_case: Callable
    builders: Callable
    definition: Callable
    seconds: tuple[float, float]
    patience: float
    floor: Callable = lambda case, threads: None
    leaves_out: bool = False
    table: Callable = report.table
    memory: Callable | None = None


def _defined(case):
    value, gradients = definition.value_and_gradients(case.workload, case.batch)
    return value, gradients if case.task == "backward" else []


FAMILIES = {
    "rows": Family(tables.workloads, tables.make_case, builders, lambda case: None, (0.7, 0.15), 0.5),
    "algebra": Family(
        algebra.workloads,
        algebra.make_case,
        algebra_peers.builders,
        _defined,
        (0.15, 0.05),
        0.15,
        floor=floor_seconds,
        leaves_out=True,
    ),
    "layers": Family(
        layers.workloads,
        layers.make_case,
        layer_peers.builders,
        lambda case: None,
        (1.5, 0.5),
        1.0,
        table=layer_report.table,
        memory=peak_tensor_memory,
    ),
}
