"""The process that measures, one for each number of threads: libraries read that number when they load."""

import gc
import json
import re
import sys
import warnings
from contextlib import suppress
from itertools import product
from pathlib import Path

from bench import machine
from bench.families import FAMILIES
from bench.measure import failure, hopeless, peak_memory, race


def run(options) -> None:
    """Measure what `options` of `bench.__main__` select; write the records after every workload."""
    machine.limit_memory()
    # Peers use parts of torch that were deprecated after their release.
    warnings.simplefilter("ignore")
    family, threads = FAMILIES[options.family], options.threads[0]
    everyone = family.builders(tuple(options.extra), options.before)
    contestants = {name: _warmed(build) for name, build in everyone.items() if re.search(options.who, name)}
    missing, records = set(), []
    chosen = [w for w in family.workloads() if re.search(options.only, w.name)]
    for number, workload in enumerate(chosen):
        records += _workload(workload, family, threads, contestants, missing, options)
        # A collection before every case would walk through the modules of every peer.
        gc.freeze()
        saved = {"records": records, "missing": sorted(missing), "machine": machine.describe()}
        Path(options.worker).write_text(json.dumps(saved), encoding="utf-8")
        print(
            f"threads {threads}, {number + 1} of {len(chosen)}: {workload.name}", file=sys.stderr, flush=True
        )


def _warmed(build):
    """As `build`; the first contestant of each task is called once, since libraries load and start then."""
    met = set()

    def built(case):
        entrant = build(case)
        if entrant is not None and case.task not in met:
            met.add(case.task)
            # How it fails is said where it is timed.
            with suppress(Exception), entrant.around():
                entrant.call()
        return entrant

    return built


def _workload(workload, family, threads, contestants, missing, options):
    seconds = options.seconds or family.seconds[options.quick]
    chosen = options.batch or (workload.quick_batches if options.quick else workload.batches)
    records, bounds, last = [], {dtype: {} for dtype in options.dtype}, {}
    # Batches outside, so that the definition of a case serves both dtypes.
    for batch, dtype, task in product(sorted(chosen), options.dtype, workload.tasks):
        if not workload.takes(batch, dtype):
            continue
        case = family.make_case(workload, batch, dtype, task)
        smaller, timed, left_out = last.get((dtype, task), (batch, [], {}))
        # Once out, out for all larger batches.
        left_out = left_out | hopeless(timed, smaller, batch) if family.leaves_out else {}
        entrants, failed = _build(contestants, case, missing)
        failed += [
            _failed(entrant, left_out[entrant.name]) for entrant in entrants if entrant.name in left_out
        ]
        entrants = [entrant for entrant in entrants if entrant.name not in left_out]
        settings = {"reference": family.definition(case), "patience": family.patience}
        timings = race(entrants, bounds[dtype], dtype, threads, seconds, **settings)
        last[dtype, task] = batch, timings, left_out
        # More ids, or a gradient as well, cannot take less time; other pairs of cases say nothing.
        if task == "forward":
            bounds[dtype] = {t.name: t.median for t in timings if t.timed}
        names = {timing.name for timing in timings if timing.status == "ok"}
        sound = [entrant for entrant in entrants if entrant.name in names]
        record, sizes = _record(case, family.floor(case, threads), threads, sound), _sizes(sound, family)
        timed = [timing.record() | sizes.get(timing.name, {}) for timing in timings]
        records.append(record | {"contestants": timed + failed})
    return sorted(records, key=lambda record: options.dtype.index(record["dtype"]))


def _sizes(sound, family):
    """Name -> what a call takes and what is held between calls, where the family asks."""
    if family.memory is None:
        return {}
    return {entrant.name: {"memory": family.memory(entrant.call), "held": entrant.held} for entrant in sound}


def _failed(entrant, status):
    return {"name": entrant.name, "kind": entrant.kind, "status": status}


def _build(contestants, case, missing):
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


def _record(case, floor, threads, sound):
    memory = None
    ours = [entrant for entrant in sound if entrant.kind == "ours"]
    if case.task == "forward" and ours:
        memory = peak_memory(ours[0].call) / case.output_bytes
    return {
        "workload": case.workload.name,
        "kind": case.workload.kind,
        "rank": case.workload.rank,
        "batch": case.batch,
        "dtype": case.dtype,
        "task": case.task,
        "threads": threads,
        "floor": floor,
        "memory": memory,
    }
