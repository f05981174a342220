"""The process that measures, one for each number of threads: libraries read that number when they load."""

import json
import re
import sys
import warnings
from pathlib import Path

from bench import machine
from bench.measure import failure, peak_memory, race
from bench.peers import builders
from bench.workloads import Case, Workload, make_case, workloads


def run(options) -> None:
    """Measure what `options` of `bench.__main__` select; write the records after every workload."""
    machine.limit_memory()
    # Peers use parts of torch that were deprecated after their release.
    warnings.simplefilter("ignore")
    threads = options.threads[0]
    contestants, missing, records = builders(tuple(options.extra)), set(), []
    chosen = [w for w in workloads() if re.search(options.only, w.name)]
    for number, workload in enumerate(chosen):
        for dtype in options.dtype:
            records += _workload(workload, dtype, threads, contestants, missing, options)
        saved = {"records": records, "missing": sorted(missing), "machine": machine.describe()}
        Path(options.worker).write_text(json.dumps(saved))
        print(
            f"threads {threads}, {number + 1} of {len(chosen)}: {workload.name}", file=sys.stderr, flush=True
        )


def _workload(workload: Workload, dtype, threads, contestants, missing, options):
    records, bounds = [], {}
    for batch in options.batch:
        for task in workload.tasks:
            case = make_case(workload, batch, dtype, task)
            entrants, failed = _build(contestants, case, missing)
            timings = race(entrants, bounds, dtype, threads, options.seconds)
            # More ids, or a gradient as well, cannot take less time; other pairs of cases say nothing.
            if task == "forward":
                bounds = {t.name: t.median for t in timings if t.timed}
            sound = {timing.name for timing in timings if timing.status == "ok"}
            record = _record(case, threads, [entrant for entrant in entrants if entrant.name in sound])
            records.append(record | {"contestants": [timing.record() for timing in timings] + failed})
    return records


def _build(contestants, case: Case, missing):
    entrants, failed = [], []
    for name, build in contestants.items():
        if name in missing:
            continue
        try:
            entrant = build(case)
        except ImportError:
            missing.add(name)
        # As in `race`: a peer may fail in any way.
        except Exception as error:
            failed.append({"name": name, "kind": "package", "status": failure(error)})
        else:
            entrants += [entrant] if entrant is not None else []
    return entrants, failed


def _record(case: Case, threads, sound):
    memory = None
    ours = [entrant for entrant in sound if entrant.kind == "ours"]
    if case.task == "forward" and ours:
        memory = peak_memory(ours[0].call) / case.output_bytes
    return {
        "workload": case.workload.name,
        "kind": case.workload.kind,
        "batch": case.batch,
        "dtype": case.dtype,
        "task": case.task,
        "threads": threads,
        "floor": machine.floor_seconds(case, threads),
        "memory": memory,
    }
