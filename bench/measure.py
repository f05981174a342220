"""Timing of one case: who agrees with whom, interleaved samples, peak memory."""

import gc
import statistics
import tracemalloc
from dataclasses import dataclass, field
from time import perf_counter, process_time, sleep

import numpy as np

# Largest difference allowed, over the largest entry: sums of thousands of products in float32 lose digits.
TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
# A sample shorter than this is mostly the clock and the loop around the call.
SAMPLE_SECONDS = 0.002
MOST_ROUNDS = 25
# A contestant this many times slower than the fastest is timed at most twice: its exact time decides nothing.
SLOW = 20
# One call longer than this is never repeated.
PATIENCE = 0.5
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
        error = float(np.abs(found - wanted).max(initial=0)) / float(np.abs(wanted).max(initial=1e-30))
        # Written so that a NaN disagrees.
        if not error <= TOLERANCE[dtype]:
            return f"disagrees: {name} by {error:.1e} of its largest entry"
    return None


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


def race(contestants, bounds: dict, dtype: str, threads: int, seconds: float) -> list[Timing]:
    """Check every contestant against the first one that works, then time those that agree, by turns.

    bounds  name -> seconds of one call on a smaller case; a contestant that must be slow is not called again
    """
    now = clock(threads)
    timings = [Timing(c.name, c.kind) for c in contestants]
    calls, probes, reference = {}, {}, None
    for contestant, timing in zip(contestants, timings, strict=True):
        bound = bounds.get(contestant.name, 0.0)
        if bound > PATIENCE and bound > SLOW * min(probes.values(), default=bound):
            timing.status, timing.samples = "bound", [bound]
            continue
        try:
            result, probe = _probe(contestant, now)
            reference = _check(contestant, timing, result, reference, dtype)
            # Before the next contestant allocates: it may be a hundred megabytes.
            del result
        # A peer may fail in any way it likes; the benchmark says how and goes on.
        except Exception as error:
            timing.status = failure(error)
        if timing.status == "ok":
            calls[contestant.name], probes[contestant.name] = contestant.call, probe
    samples = _rounds(calls, probes, threads, seconds)
    for timing in timings:
        if timing.name in samples:
            timing.samples = samples[timing.name]
    return timings


def _probe(contestant, now):
    """Its result, and the time of a call: the second one unless the first took too long to repeat."""
    start = now()
    result = contestant.call()
    probe = now() - start
    if probe < PATIENCE:
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


def _rounds(calls, probes, threads, seconds):
    """Name -> samples.  A round times each contestant once, in an order that turns: drift hits all alike."""
    fastest = min(probes.values(), default=0.0)
    samples = {name: [probe] if probe > PATIENCE else [] for name, probe in probes.items()}
    most = {name: 2 if probe > SLOW * fastest else MOST_ROUNDS for name, probe in probes.items()}
    most |= {name: 1 for name, probe in probes.items() if probe > PATIENCE}
    names, end = list(calls), perf_counter() + seconds
    gc.collect()
    gc.disable()
    try:
        for turn in range(MOST_ROUNDS):
            if turn > 2 and perf_counter() > end:
                break
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                if len(samples[name]) < most[name]:
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
