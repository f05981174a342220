"""`python -m bench.host_time`: what a call on CuPy arrays takes before a GPU has anything to do.

CuPy is itself and runs without a GPU, on the stand-ins of `tests.cupy_host`; launches do nothing.  CPU time
of one thread, single calls by turns: medians and quartiles.  They are figures of the processor, not of a GPU.
"""

import argparse
import json
import statistics
import sys
from itertools import product
from pathlib import Path

from bench.machine import THREAD_VARIABLES, describe, run_again
from bench.measure import single_calls
from bench.records import seconds
from bench.workloads import Workload, make_case
from tests.cupy_host import device

WORKLOADS = (Workload("rows", 30428, 256, 4, 2), Workload("kets", 30428, 256, 4, 2))
BATCHES = (32, 1024)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.host_time", description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, action="append", help="these numbers of ids alone")
    parser.add_argument("--seconds", type=float, default=3.0, help="timing of one case, all together")
    parser.add_argument("--json", metavar="FILE", help="save every number")
    options = parser.parse_args()
    status = run_again("bench.host_time", dict.fromkeys(THREAD_VARIABLES, "1"))
    if status is not None:
        return status
    device.use()
    _use_pool()
    records = []
    for workload, batch in product(WORKLOADS, options.batch or BATCHES):
        with device.launches_that_do_nothing():
            samples = single_calls(_calls(workload, batch), options.seconds)
        for name, found in samples.items():
            low, middle, high = statistics.quantiles(found, n=4)
            records.append({"call": name, "batch": batch, "quartiles": [low, middle, high]})
            line = f"{name:<14}{batch:>6} ids{seconds(middle):>9}   {seconds(low)}..{seconds(high)}"
            print(line, flush=True)
    if options.json:
        saved = {"machine": describe(), "records": records}
        Path(options.json).write_text(json.dumps(saved, indent=1), encoding="utf-8")
    return 0


def _use_pool():
    """Memory as CuPy has it; the stand-ins would ask for new memory each time, and fill it."""
    import cupy

    cupy.cuda.set_allocator(cupy.cuda.MemoryPool().malloc)


def _calls(workload, batch):
    """Name -> a call on arrays of CuPy."""
    import cupy

    import ketcore as kc

    case = make_case(workload, batch, "float32", "backward")
    tables = [cupy.asarray(table) for table in case.tables]
    ids, cotangent = cupy.asarray(case.ids), cupy.asarray(case.cotangent)
    if workload.kind == "rows":
        shape = workload.vocab, workload.dim
        return {
            "rows": lambda: kc.rows(tables, ids, shape),
            "rows_vjp": lambda: kc.rows_vjp(tables, ids, cotangent, shape),
        }
    (packed,), dims = tables, workload.dims
    return {
        "ket_rows": lambda: kc.ket_rows(packed, ids, dims=dims),
        "ket_rows_vjp": lambda: kc.ket_rows_vjp(packed, ids, cotangent, dims=dims),
    }


if __name__ == "__main__":
    sys.exit(main())
