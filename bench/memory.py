"""The memory of calls that make tensors."""

from collections.abc import Callable, Iterator
from typing import Any

from bench.measure import peak_memory


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
