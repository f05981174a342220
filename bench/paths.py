"""`python -m bench.paths`: whether the way that ketcore chooses for a product is the fastest of those it has.

Every product of the algebra family is timed as called by default and with each path forced: modes, halves
and dense.  One thread, CPU time, by turns; a path of more than `HOPELESS` times the operations of the choice
is not tried.  The verdict: in how many cases the choice takes at most 15% more than the best.  Exit status 1
where that is not all of them.
"""

import argparse
import json
import re
import statistics
import sys
from itertools import product
from pathlib import Path

from bench.algebra.peers import PRODUCTS
from bench.algebra.workloads import make_case, workloads
from bench.machine import THREAD_VARIABLES, run_again
from bench.measure import clock, rounds
from bench.records import seconds
from bench.workloads import DTYPES

ALLOWED = 1.15
HOPELESS = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.paths", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="workloads whose name matches")
    parser.add_argument("--batch", type=int, action="append", help="these batches alone")
    parser.add_argument("--dtype", action="append", choices=DTYPES, help="these dtypes alone")
    parser.add_argument("--seconds", type=float, default=0.15, help="timing of one case, all paths together")
    parser.add_argument("--json", metavar="FILE", help="save every number")
    options = parser.parse_args()
    alone = dict.fromkeys(THREAD_VARIABLES, "1")
    status = run_again("bench.paths", alone)
    if status is not None:
        return status
    records = list(_records(options))
    if options.json:
        Path(options.json).write_text(json.dumps(records, indent=1), encoding="utf-8")
    print("\n".join(verdict(records)))
    return int(any(record["ratio"] > ALLOWED for record in records))


def verdict(records: list[dict]) -> list[str]:
    """The count, and the cases in which another path is better by more than is allowed."""
    late = [record for record in records if record["ratio"] > ALLOWED]
    good = len(records) - len(late)
    lines = [f"the choice is within {ALLOWED - 1:.0%} of the best path in {good} of {len(records)} cases"]
    for record in sorted(late, key=lambda record: -record["ratio"]):
        best = min(record["times"], key=record["times"].get)
        lines.append(
            f"    {best} is {record['ratio']:.2f} times as fast as {record['choice']}: {record['case']}"
        )
    return lines


def _records(options):
    dtypes = options.dtype or DTYPES
    for workload in workloads():
        if workload.kind not in PRODUCTS or not re.search(options.only, workload.name):
            continue
        chosen = [batch for batch in workload.batches if not options.batch or batch in options.batch]
        for batch, dtype, task in product(chosen, dtypes, workload.tasks):
            if not workload.takes(batch, dtype):
                continue
            record = _record(make_case(workload, batch, dtype, task), options.seconds)
            times = ", ".join(f"{name} {seconds(time)}" for name, time in record["times"].items())
            print(f"{record['case']:<64} {record['choice']:<7} {record['ratio']:5.2f}  {times}", flush=True)
            yield record


def _record(case, duration):
    choice = _choice(case)
    calls = {"default": _call(case, None)}
    calls |= {path: _call(case, path) for path in ("modes", "halves", "dense") if _worth(case, path)}
    probes, now = {}, clock(1)
    for name, call in calls.items():
        call()
        start = now()
        call()
        probes[name] = now() - start
    found = {name: statistics.median(s) for name, s in rounds(calls, probes, 1, duration, 1.0).items()}
    # The default and its own path forced are the same work: the better of the two is what it takes.
    ours = min(found.pop("default"), found.get(choice, float("inf")))
    times = found | {choice: ours}
    name = f"{case.workload.name} batch {case.batch} {case.dtype} {case.task}"
    return {"case": name, "choice": choice, "times": times, "ratio": ours / min(times.values())}


def _call(case, path):
    import ketcore as kc

    factors, x, shape = case.factors, case.x, case.workload.shape
    if case.task == "forward":
        return lambda: kc.kron_matmul(factors, x, shape, path=path)
    return lambda: kc.kron_matmul_vjp(factors, x, case.cotangent, shape, path=path)


def _cost(case, path):
    from ketcore.products import plans

    workload, itemsize = case.workload, case.x.itemsize
    sizes = workload.rows, workload.columns, workload.rank, case.batch
    return plans.matmul_cost(*sizes, shape=workload.shape, itemsize=itemsize, path=path)


def _choice(case):
    return _cost(case, None).path


def _worth(case, path):
    cost = _cost(case, path)
    return cost.path == path and cost.flops <= HOPELESS * _cost(case, None).flops


if __name__ == "__main__":
    sys.exit(main())
