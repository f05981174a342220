"""Timing of one case: who agrees with ketcore in float64, then samples by turns."""

import gc
import statistics
from dataclasses import dataclass, field

import numpy as np

from bench.gpu.cases import contestants, make_problem

# Largest error allowed, over the largest entry.  torch also adds up gradients of 16-bit storage in 16 bits:
# hundreds of hits on a leaf lose digits.  The error itself is in the results.
TOLERANCE = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
ROUNDS = 25
# Calls from Python are timed in every third round, for so many seconds or so many calls.
CALL_SECONDS, MOST_CALLS = 0.005, 20


@dataclass
class Timing:
    """What became of one contestant.

    status  "ok", or what went wrong
    error   the largest error of rows and gradients, each over its largest entry
    how     of the device's time: "graph" replays; or "no graph" and why, with launches from Python between
    device, call   seconds of a call: on the device, caches flushed; as Python sees it, one after the other
    """

    name: str
    moved: int
    status: str = "ok"
    error: float | None = None
    how: str = ""
    device: list = field(default_factory=list)
    call: list = field(default_factory=list)

    def record(self, rate: float) -> dict:
        found = {"name": self.name, "status": self.status, "error": self.error, "bytes": self.moved}
        if self.device:
            found |= {"how": self.how, "device": spread(self.device), "call": spread(self.call)}
            found["share"] = self.moved / found["device"]["median"] / rate
        return found


def spread(samples: list) -> dict:
    """Median and quartiles.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'quartiles': [1.5, 2.5], 'samples': 3}
    """
    quartiles = [float(value) for value in np.percentile(samples, [25, 75])]
    return {"median": statistics.median(samples), "quartiles": quartiles, "samples": len(samples)}


def race(case, device, compiler, rounds: int = ROUNDS) -> list[Timing]:
    """Check every contestant, then time those that agree, by turns."""
    problem = make_problem(case, device)
    wide = problem.wide()
    reference = (wide.rows(), wide.gradients() if case.task == "backward" else ())
    del wide
    found, calls = [], {}
    for contestant in contestants(problem, device, compiler):
        timing = Timing(contestant.name, contestant.moved)
        found.append(timing)
        try:
            _check(contestant, timing, reference, case, device, compiler)
        # A contestant may fail in any way it likes; the benchmark says how and goes on.
        except Exception as error:
            timing.status = _failure(error)
        if timing.status == "ok":
            calls[contestant.name] = contestant.call, _replay(contestant, timing, device)
    del reference
    _rounds(found, calls, device, rounds)
    return found


def _check(contestant, timing, reference, case, device, compiler):
    if contestant.name == "torch.compile":
        with compiler.patient():
            result = contestant.call()
    else:
        result = contestant.call()
    dense = contestant.name == "nn.Embedding"
    pairs = list(zip(_flat(result), _flat(reference), strict=not dense))[: 1 if dense else None]
    timing.error = max(_error(found, wanted, device) for found, wanted in pairs)
    # Written so that a NaN disagrees.
    if not timing.error <= TOLERANCE[case.dtype]:
        timing.status = f"disagrees by {timing.error:.1e} of the largest entry"


def _flat(result):
    rows, gradients = result
    return [rows, *gradients]


def _error(found, wanted, device):
    found = device.plain(found)
    if found.shape != wanted.shape:
        raise ValueError(f"result must have shape {wanted.shape}, got {found.shape}")
    scale = max(float(abs(wanted).max()), 1e-30)
    return float(abs(found - wanted).max()) / scale


def _replay(contestant, timing, device):
    try:
        replay = device.captured(contestant.call, contestant.library)
        timing.how = "graph"
    except RuntimeError as error:
        replay, timing.how = contestant.call, f"no graph: {error}"
    return replay


def _rounds(timings, calls, device, rounds):
    """A round times each contestant once, in an order that turns: drift hits all alike."""
    running = [timing for timing in timings if timing.name in calls]
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds if running else 0):
            start = turn % len(running)
            for timing in running[start:] + running[:start]:
                call, replay = calls[timing.name]
                seconds = device.timed(replay)
                timing.device.append(seconds)
                if turn % 3 == 0:
                    repeats = max(1, min(MOST_CALLS, int(CALL_SECONDS / max(seconds, 1e-9))))
                    timing.call.append(device.called(call, repeats))
    except Exception as error:
        for timing in running:
            timing.status, timing.device = _failure(error), []
    finally:
        gc.enable()


def _failure(error):
    return f"failed: {type(error).__name__}: {error}".splitlines()[0][:200]
