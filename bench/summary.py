"""Who is ahead and how near the aims are, by dtype, from the records of one number of threads."""

from collections.abc import Callable, Iterator
from functools import partial
from statistics import geometric_mean, median

from bench.peers import FLOORS
from bench.records import PEERS, best, case_name, ratio, seconds, times_floor, who

# Batches from here on count for shares of cases; below, Python is most of what a call takes.
LARGE = 1024
RIVALS = {"every package": ("package",), "code in torch or jax": ("code",), "every peer": PEERS}
# Beyond this rank a row takes more arithmetic than memory can hide.
FLOOR_TIMES, FLOOR_RANK = 2.5, 10
# (kind, or workload; batch; task): seconds that a call may take.
SMALL_CALLS = {
    ("rows", 32, "forward"): 15e-6,
    ("rows", 32, "vjp"): 30e-6,
    ("square 32^2", 1, "forward"): 12e-6,
}
# Peak memory of a forward over its output.
MEMORY = {1024: 1.5, 16384: 1.1}


def summary(records: list[dict]) -> list[str]:
    """The lines for every dtype."""
    lines = []
    for dtype in dict.fromkeys(record["dtype"] for record in records):
        chosen = [record for record in records if record["dtype"] == dtype]
        parts = (_by_group(chosen), _totals(chosen), _floors(chosen), _embeddings(chosen), _small(chosen))
        found = [line for part in (*parts, _memory(chosen), _speedups(chosen)) for line in part]
        lines += [dtype, *(f"  {line}" for line in found)] if found else []
    return lines


def group(record: dict) -> str:
    """The kind of a case; kets with LayerNorm are one of their own."""
    return "kets LayerNorm" if record["workload"].endswith(" LayerNorm") else record["kind"]


def _grouped(records):
    for name in dict.fromkeys(map(group, records)):
        yield name, [record for record in records if group(record) == name]


def _by_group(records) -> Iterator[str]:
    """Against packages and against code: how often ahead, by pass and by batch, and every loss."""
    for name, chosen in _grouped(records):
        for words, kinds in list(RIVALS.items())[:2]:
            known = [(value, r) for r in chosen if (value := ratio(r, kinds))]
            if not known:
                continue
            mean = geometric_mean([value for value, _ in known])
            lost = [(value, r) for value, r in known if value < 1]
            ahead = _count(len(known) - len(lost), len(known))
            yield f"{name}: ahead of {words} in {ahead}, {mean:.3g} times in the geometric mean"
            yield from _by(known, "task", "")
            yield from _by(known, "batch", "batch ")
            for value, record in lost:
                yield f"    {who(best(record, kinds))} wins {value:.3g}: {case_name(record)}"


def _by(known, key, word):
    for one in dict.fromkeys(record[key] for _, record in known):
        values = sorted(value for value, record in known if record[key] == one)
        ahead = sum(value >= 1 for value in values)
        spread = f"least {values[0]:.3g}, median {median(values):.3g}"
        yield f"  {word}{one}: ahead in {ahead} of {len(values)}, {spread}"


def _totals(records) -> Iterator[str]:
    """All kinds together: the shares."""
    for words, kinds in RIVALS.items():
        known = [(value, r) for r in records if (value := ratio(r, kinds))]
        if not known:
            continue
        line = f"all: ahead of {words} in {_count(sum(value >= 1 for value, _ in known), len(known))}"
        large = [value for value, record in known if record["batch"] >= LARGE]
        if large:
            line += f"; batches from {LARGE} on: {_count(sum(value >= 1 for value in large), len(large))}"
        yield line


def _floors(records) -> Iterator[str]:
    """Forward beside the floors that are contestants."""
    chosen = [r for r in records if r["task"] == "forward" and r["batch"] >= LARGE and best(r, ("floor",))]
    for name, found in _grouped([r for r in chosen if r["rank"] <= FLOOR_RANK]):
        for kind in FLOORS:
            words = f"{name}: forward within {FLOOR_TIMES} times the {kind}"
            yield from _share(words, found, partial(times_floor, kind=kind), FLOOR_TIMES)


def _embeddings(records) -> Iterator[str]:
    """Forward and backward beside a dense table."""
    chosen = [r for r in records if r["task"] == "backward" and r["batch"] >= LARGE and group(r) == "rows"]
    words = "rows: forward and backward within the time of nn.Embedding"
    yield from _share(words, chosen, lambda r: _inverse(ratio(r, ("yardstick",))), 1.0)


def _small(records) -> Iterator[str]:
    for (kind, batch, task), limit in SMALL_CALLS.items():
        chosen = [r for r in records if kind in (r["kind"], r["workload"]) and r["batch"] == batch]
        chosen = [r for r in chosen if r["task"] == task]
        words = f"{kind} batch {batch} {task} within {seconds(limit)}"
        yield from _share(words, chosen, _seconds, limit, seconds)


def _memory(records) -> Iterator[str]:
    for batch, limit in MEMORY.items():
        chosen = [
            r for r in records if r["batch"] == batch and group(r) in ("rows", "kets", "kets LayerNorm")
        ]
        words = f"forward of {batch} ids within {limit} times the memory of its output"
        yield from _share(words, chosen, lambda r: r["memory"], limit)


def _speedups(records) -> Iterator[str]:
    """How much longer ketcore on NumPy alone, and another ketcore, take; and NumPy alone beside that one."""
    names = {"ours": "ketcore", "numpy": "ketcore numpy"}
    for kind, to in (("numpy", "ours"), ("before", "ours"), ("before", "numpy")):
        for name, found in _grouped(records):
            for size, fits in (("small", lambda b: b < LARGE), ("large", lambda b: b >= LARGE)):
                known = [(v, r) for r in found if fits(r["batch"]) and (v := ratio(r, (kind,), to))]
                if not known:
                    continue
                mean = geometric_mean([value for value, _ in known])
                least, record = min(known, key=lambda pair: pair[0])
                spread = f"{mean:.3g} in the geometric mean, least {least:.3g}: {case_name(record)}"
                yield f"{name}, {size} batches: {names.get(kind, kind)} / {names[to]} {spread}"


def _share(words, records, measure: Callable, limit: float, shown=lambda value: f"{value:.2f}"):
    """How many of the records measure at most `limit`; every one that does not."""
    known = [(value, record) for record in records if (value := measure(record)) is not None]
    if not known:
        return
    over = [(value, record) for value, record in known if value > limit]
    most = shown(max(value for value, _ in known))
    yield f"{words}: {_count(len(known) - len(over), len(known))}, at most {most}"
    for value, record in over:
        yield f"    {shown(value)}: {case_name(record)}"


def _count(part, whole):
    return f"{part} of {whole} cases ({part / whole:.0%})"


def _seconds(record):
    ours = best(record, ("ours",))
    return ours["median"] if ours else None


def _inverse(value):
    return 1 / value if value else None
