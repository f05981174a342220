"""Timing of one case: who agrees with whom, interleaved samples, peak memory."""

import gc
import statistics
import tracemalloc
from contextlib import nullcontext
from dataclasses import dataclass, field
from time import perf_counter, process_time, sleep

import numpy as np

from bench.peers import FLOORS

# Largest difference allowed, over the largest entry: sums of thousands of products in float32 lose digits.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
# A sample shorter than this is mostly the clock and the loop around the call.
SAMPLE_SECONDS = 0.002
MOST_ROUNDS = 25
# If the family says so, a contestant this many times slower than the fastest is left out of larger batches
# where it would take longer than that, unless it is near the fastest package.  One row foretells less.
HOPELESS, HOPELESS_ALONE, HOPELESS_SECONDS = 3, 8, 0.2
# Arrays are compared in pieces of so many entries, which stay in cache.
PIECE = 1 << 16
# A contestant this many times slower than the fastest is timed at most twice: its exact time decides nothing.
SLOW = 20
# One call longer than this is not repeated, unless it is within a factor of the fastest.
PATIENCE = 0.5
NEAR = 3
# OpenMP threads spin for milliseconds after a call: a sample on several threads first lets them stop.
SETTLE_SECONDS = 0.005


@dataclass
class Timing:
    """What became of one contestant.

    status  "ok"; "bound": not run, since slow on a smaller case, whose time is `median`; else what went wrong
    """

    name: str
    kind: str
    status: str = "ok"
    samples: list = field(default_factory=list)

    @property
    def timed(self) -> bool:
        return bool(self.samples)

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.percentile(self.samples, [25, 75])
        return float(low), float(high)

    def record(self) -> dict:
        found = {"name": self.name, "kind": self.kind, "status": self.status}
        if self.timed:
            found |= {"median": self.median, "quartiles": self.quartiles, "samples": len(self.samples)}
        return found


def clock(threads: int):
    """CPU time of the whole process for one thread, wall time for more."""
    return process_time if threads == 1 else perf_counter


def disagreement(result, reference, dtype: str) -> str | None:
    """What differs between two results (rows, gradients) in the common form, or None."""
    names = ["rows", *(f"gradient {n}" for n in range(len(reference[1])))]
    pairs = zip(names, [result[0], *result[1]], [reference[0], *reference[1]], strict=True)
    for name, found, wanted in pairs:
        if found.shape != wanted.shape:
            return f"disagrees: {name} of shape {found.shape}, not {wanted.shape}"
        error = _largest(found, wanted) / max(_largest(wanted), 1e-30)
        # Written so that a NaN disagrees.
        if not error <= TOLERANCE[dtype]:
            return f"disagrees: {name} by {error:.1e} of its largest entry"
    return None


def _largest(array, other=None):
    """The largest absolute entry of an array, or of a difference; NaN if there is one."""
    found, step = [0.0], max(1, PIECE // max(1, array[:1].size))
    for start in range(0, len(array), step):
        piece = array[start : start + step]
        piece = piece if other is None else piece - other[start : start + step]
        found.append(np.abs(piece).max(initial=0))
    return float(np.max(found))


def failure(error: Exception) -> str:
    """A status line for an exception."""
    return f"failed: {type(error).__name__}: {error}".splitlines()[0][:200]


def peak_memory(call) -> int:
    """Bytes that Python and NumPy held at the most during one call, its result included."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def race(
    contestants, bounds: dict, dtype: str, threads: int, seconds: float, reference=None, patience=PATIENCE
) -> list[Timing]:
    """Check every contestant, then time those that agree, by turns.

    bounds     name -> seconds of one call on a smaller case; one that must be slow is not called again
    reference  what they are compared with in the common form; by default the first one that works
    patience   one call longer than this is repeated only where it is near the fastest
    """
    now = clock(threads)
    timings = [Timing(c.name, c.kind) for c in contestants]
    sound, probes, fastest = [], {}, np.inf
    for contestant, timing in zip(contestants, timings, strict=True):
        bound = bounds.get(contestant.name, 0.0)
        if bound > patience and bound > SLOW * fastest:
            timing.status, timing.samples = "bound", [bound]
            continue
        try:
            result, probe = _probe(contestant, now, patience)
            reference = _check(contestant, timing, result, reference, dtype)
            # Before the next contestant allocates: it may be a hundred megabytes.
            del result
        # A peer may fail in any way it likes; the benchmark says how and goes on.
        except Exception as error:
            timing.status = failure(error)
        if timing.status == "ok":
            sound.append(contestant)
            probes[contestant.name] = probe
            # A floor is faster than any that work.
            fastest = fastest if contestant.kind in FLOORS else min(fastest, probe)
    calls, around = {c.name: c.call for c in sound}, {c.name: c.around for c in sound}
    samples = rounds(calls, probes, threads, seconds, patience, around, fastest) if calls else {}
    for timing in timings:
        if timing.name in samples:
            timing.samples = samples[timing.name]
    return timings


def hopeless(timings: list[Timing], smaller: int, batch: int) -> dict[str, str]:
    """Name -> why it is left out of the same work on `batch`, after the `timings` on a smaller batch."""
    factor = HOPELESS_ALONE if smaller == 1 else HOPELESS
    sound = [timing for timing in timings if timing.status == "ok" and timing.timed]
    timed = {t.name: t.median for t in sound if t.kind not in ("ours", "numpy", "before")}
    fastest = min((t.median for t in sound if t.kind in ("ours", "package", "code")), default=0.0)
    # One of the packages always stays.
    kept = 1.5 * min((t.median for t in sound if t.kind == "package"), default=0.0)
    return {
        name: f"left out: {factor} times slower than the fastest on a smaller batch"
        for name, time in timed.items()
        if time > max(factor * fastest, kept) and batch / smaller * time > HOPELESS_SECONDS
    }


def _probe(contestant, now, patience):
    """Its result, and the time of a call: the second one unless the first took too long to repeat."""
    with contestant.around():
        start = now()
        result = contestant.call()
        probe = now() - start
        if probe < patience:
            start = now()
            contestant.call()
            probe = now() - start
    return result, probe


def _check(contestant, timing, result, reference, dtype):
    """Write a disagreement into `timing`; the reference for the next one."""
    common = contestant.collect(result)
    if common is None:
        return reference
    if reference is None:
        return common
    timing.status = disagreement(common, reference, dtype) or "ok"
    return reference


def rounds(calls, probes, threads, seconds, patience, around=None, fastest=None):
    """Name -> samples.  A round times each contestant once, in an order that turns: drift hits all alike.

    around   name -> what makes the context of its calls; by default none has any
    fastest  the probe that the others are compared with; by default the least
    """
    around = around or dict.fromkeys(calls, nullcontext)
    fastest = min(probes.values(), default=0.0) if fastest is None else fastest
    # What its exact time decides: the first call of one near the fastest was cold, and does not count.
    done = {name for name, probe in probes.items() if probe > patience and probe > NEAR * fastest}
    samples = {name: [probe] if name in done else [] for name, probe in probes.items()}
    most = {name: 2 if probe > SLOW * fastest else MOST_ROUNDS for name, probe in probes.items()}
    most |= dict.fromkeys(done, 1)
    names, end = list(calls), perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        for turn in range(MOST_ROUNDS):
            if turn > 2 and perf_counter() > end:
                break
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if len(samples[name]) < most[name]:
                    with around[name]():
                        samples[name].append(_sample(calls[name], probes[name], threads))
    finally:
        gc.enable()
    return samples


def _sample(call, probe, threads):
    repeats = max(1, min(1000, int(SAMPLE_SECONDS / max(probe, 1e-9))))
    if threads > 1:
        sleep(SETTLE_SECONDS)
    now = clock(threads)
    start = now()
    for _ in range(repeats):
        call()
    return (now() - start) / repeats


def single_calls(calls: dict, duration: float) -> dict[str, list[float]]:
    """Name -> times of single calls, of which a round has one of each: what is looked for is microseconds."""
    now, names = clock(1), list(calls)
    samples = {name: [] for name in names}
    for call in calls.values():
        call()
    gc.collect()
    gc.disable()
    end, turn = perf_counter() + duration, 0
    try:
        while turn < len(names) or perf_counter() < end:
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                start = now()
                calls[name]()
                samples[name].append(now() - start)
            turn += 1
    finally:
        gc.enable()
    return samples
