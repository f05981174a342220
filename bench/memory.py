"""The memory of calls; `python -m bench.memory`: what a forward of rows and kets takes beside its output.

For every table of the rows and kets, on 1024 and 16384 ids: the largest growth during a call over the size of
the output, of what Python and NumPy hold, and of what is resident of the process, where Linux says so: that
counts what compiled code allocates too.  Exit status 1 where one of them is beyond its limit.
"""

import argparse
import ctypes
import gc
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

from bench.machine import THREAD_VARIABLES, run_again
from bench.measure import peak_memory
from bench.peers import ketcore_peer
from bench.summary import MEMORY
from bench.workloads import DTYPES, make_case, workloads

# A call may meet memory that an earlier one has left; the least of a few is what it needs.
TRIES = 3
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", metavar="REGEX", help="workloads whose name matches")
    parser.add_argument("--threads", default="1", metavar="N", help="that a call may use (default 1)")
    options = parser.parse_args()
    # Huge pages would round what is resident up to megabytes.
    environment = dict.fromkeys(THREAD_VARIABLES, options.threads) | {"NUMPY_MADVISE_HUGEPAGE": "0"}
    status = run_again("bench.memory", environment)
    if status is not None:
        return status
    print(f"{'forward, peak / output':<36} {'batch':>6} type    NumPy resident  limit")
    chosen = [workload for workload in workloads() if re.search(options.only, workload.name)]
    over = [_shown(*each) for each in product(chosen, MEMORY, DTYPES)]
    print(f"within the limit in {len(over) - sum(over)} of {len(over)} cases")
    return int(any(over))


def _shown(workload, batch, dtype):
    """Print a line for a case; whether it is over its limit."""
    case, limit = make_case(workload, batch, dtype, "forward"), MEMORY[batch]
    call = ketcore_peer.build(case).call
    call()
    traced, resident = peak_memory(call) / case.output_bytes, _peak_resident(call)
    found = [traced] if resident is None else [traced, resident / case.output_bytes]
    cells = [f"{value:>8.2f}" for value in found] + ["       -"] * (2 - len(found))
    mark = " !" * (max(found) > limit)
    print(f"{workload.name:<36} {batch:>6} {dtype} {' '.join(cells)} {limit:>6}{mark}", flush=True)
    return max(found) > limit


def _peak_resident(call):
    """Bytes by which what is resident of the process grew at the most during a call, or None if unknown."""
    found = []
    for _ in range(TRIES):
        gc.collect()
        # What the allocator keeps for later would hide what a call takes; musl has no such function.
        with suppress(AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        try:
            RESET.write_text("5", encoding="ascii")
            before = _status("VmRSS")
            result = call()
            found.append(_status("VmHWM") - before)
        except OSError:
            return None
        del result
    return min(found)


def _status(name):
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def peak_tensor_memory(call: Callable[[], Any]) -> int:
    """Bytes of tensors at the most, by torch's profiler, beyond those that were there.

    Plus those of NumPy's arrays at the most, which need not be at the same time.
    """
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        call()
    held = most = 0
    for event in sorted(_allocations(found), key=lambda event: event.start_time_ns):
        held += event.extra_fields.alloc_size
        most = max(most, held)
    return most + peak_memory(call)


def _allocations(found: Any) -> Iterator[Any]:
    """The allocations and releases of a profile, at any depth of its tree of events."""
    pending = list(found.profiler.kineto_results.experimental_event_tree())
    while pending:
        event = pending.pop()
        pending += event.children
        if event.tag.name == "Allocation":
            yield event


if __name__ == "__main__":
    sys.exit(main())
