"""`python -m bench.host_time`: what a call on CuPy arrays takes before a GPU has anything to do.

CuPy is itself and runs without a GPU, on the stand-ins of `tests.cupy_host`; launches do nothing.  CPU time
of one thread, single calls by turns: medians and quartiles.  They are figures of the processor, not of a GPU.
Beside them stands what CuPy alone takes for the same outputs and launches, without workspaces and sorts.
"""

import argparse
import json
import statistics
import sys
from itertools import product
from pathlib import Path

import numpy as np

from bench.machine import THREAD_VARIABLES, describe, run_again
from bench.measure import single_calls
from bench.records import seconds
from bench.workloads import Workload, make_case
from ketcore.cuda.structs import PLAN
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
            calls = _calls(workload, batch)
            samples = single_calls(
                calls | {_least(name): _floor(calls[name]) for name in calls}, options.seconds
            )
        for name in calls:
            low, middle, high = statistics.quantiles(samples[name], n=4)
            floor = statistics.median(samples[_least(name)])
            records.append({"call": name, "batch": batch, "quartiles": [low, middle, high], "floor": floor})
            line = f"{name:<14}{batch:>6} ids{seconds(middle):>9}   {seconds(low)}..{seconds(high)}"
            print(f"{line:<48}CuPy alone{seconds(floor):>9}   x {middle / floor:.1f}", flush=True)
    if options.json:
        saved = {"machine": describe(), "records": records}
        Path(options.json).write_text(json.dumps(saved, indent=1), encoding="utf-8")
    return 0


def _use_pool():
    """Memory as CuPy has it; the stand-ins would ask for new memory each time, and fill it."""
    import cupy

    cupy.cuda.set_allocator(cupy.cuda.MemoryPool().malloc)


def _least(name):
    return f"{name}, CuPy alone"


def _floor(call):
    """What CuPy alone has to do for a call: make its outputs, launch with a struct and two arrays."""
    import cupy

    with device.noted() as notes:
        outputs = call()
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    launches = sum(note.function == "cuLaunchKernel" for note in notes)
    make = cupy.zeros if any(note.function == "cudaMemsetAsync" for note in notes) else cupy.empty
    shapes = [(array.shape, array.dtype) for array in outputs]
    kernel = cupy.RawModule(code=_KERNEL).get_function("nothing")
    arrays, struct = (cupy.empty(1), cupy.empty(1)), bytes(_STRUCT)

    def floor():
        made = [make(shape, dtype) for shape, dtype in shapes]
        for _ in range(launches):
            argument = np.ndarray((), _BYTES, bytearray(struct))
            kernel((1,), (32,), (argument, *arrays), shared_mem=1024)
        return made

    return floor


# As large as what the kernels of lookups are told.
_STRUCT = PLAN.itemsize
_BYTES = np.dtype(f"V{_STRUCT}")
_KERNEL = f"""struct Plan {{ char bytes[{_STRUCT}]; }};
extern "C" __global__ void nothing(const Plan plan, const double* in, double* out) {{}}"""


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
