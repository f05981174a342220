"""The table and the picture, from the records that the measuring processes saved."""

from itertools import product
from statistics import geometric_mean

from bench.records import PEERS, best, case_name, ratio, seconds, times_floor, who
from bench.summary import summary

WIDTH = 36
SHORT = {"float32": "f32", "float64": "f64"}
HEADER = (
    f"{'workload':<{WIDTH}} {'batch':>6} {'type':<4} {'pass':<8} {'ketcore':>9} {'quartiles':>17}"
    f"   {'best package':<26} {'best peer':<26} {'ratio':>6} {'dense':>6}"
    f" {'numpy':>6} {'floor':>6} {'warm':>6} {'memory':>7}"
)
LEGEND = """
ketcore       median of one call; quartiles of its samples
best package  fastest package that does the same work; > before its time: a lower bound, from a smaller batch
best peer     that, or the obvious code in torch or jax
ratio         best peer / ketcore: above 1, ketcore is ahead
dense         a dense table (torch.nn.Embedding; NumPy's matmul) / ketcore: a yardstick, not a peer
numpy         ketcore on its engine for NumPy alone / ketcore
floor         ketcore / the least time of this machine for the case (README.md)
warm          the same, into memory that is kept from call to call
memory        peak memory growth of the forward / its output; ! marks 2 and more
"""


def merge(parts: list[dict]) -> dict:
    """One result from those of several processes."""
    records = [record for part in parts for record in part["records"]]
    missing = sorted({name for part in parts for name in part["missing"]})
    status = [part["status"] for part in parts]
    return {"machine": parts[0]["machine"], "missing": missing, "status": status, "records": records}


def table(results: dict) -> str:
    """All of it as text: a table for each number of threads, who is missing, who wins."""
    lines = [*opening(results), LEGEND]
    extras = _extras(results["records"])
    for threads in sorted({record["threads"] for record in results["records"]}):
        records = [record for record in results["records"] if record["threads"] == threads]
        lines += [clock_of(threads), "", HEADER + "".join(f" {name:>22}" for name in extras)]
        lines += [_line(record, extras) for record in records]
        lines += ["", *summary(records), *_summaries_of_extras(records, extras), ""]
    return "\n".join(lines + troubles(results))


def opening(results: dict) -> list[str]:
    """The machine and the versions."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return [f"{machine['processor']}, {machine['cores']} cores, Python {machine['python']}", versions]


def troubles(results: dict) -> list[str]:
    """Who is missing, and what was not timed."""
    lines = [f"{name}: not installed" for name in results["missing"]]
    lines += [f"a measuring process ended with status {status}" for status in results["status"] if status]
    return lines + _troubles(results["records"])


def clock_of(threads: int) -> str:
    """How times on so many threads were taken."""
    return "1 thread, CPU time" if threads == 1 else f"{threads} threads, wall time"


def plot(results: dict, path: str) -> None:
    """A picture of others / ketcore on a log axis: best package and best peer side by side, by threads."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = results["records"]
    names = list(dict.fromkeys(record["workload"] for record in records))
    threads = sorted({record["threads"] for record in records})
    kinds = {"package": ("package",), "package or code": PEERS}
    # No wider than a page, where it is to be read.
    size = (5 * len(kinds), len(threads) * (2 + 0.35 * len(names)))
    figure, panels = pyplot.subplots(len(threads), len(kinds), sharex=True, sharey=True, figsize=size)
    for panel, (count, words) in zip(panels.flat, product(threads, kinds), strict=True):
        chosen = [record for record in records if record["threads"] == count]
        _panel(panel, chosen, names, kinds[words])
        panel.set_title(f"{clock_of(count)}: best {words}", size=10)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _panel(panel, records, names, kinds):
    styles = {"forward": ("o", "C0"), "vjp": ("v", "C3"), "backward": ("s", "C1"), "sparse": ("^", "C2")}
    for record in [record for record in records if ratio(record, kinds)]:
        batches = sorted({r["batch"] for r in records if r["workload"] == record["workload"]})
        marker, colour = styles[record["task"]]
        fill = colour if record["dtype"] == "float32" else "none"
        offset = batches.index(record["batch"]) - (len(batches) - 1) / 2
        place = names.index(record["workload"]) + 0.8 / max(len(batches), 3) * offset
        panel.plot(ratio(record, kinds), place, marker, color=colour, markerfacecolor=fill, markersize=4)
    shown = {record["task"] for record in records}
    for task, (marker, colour) in [(t, style) for t, style in styles.items() if t in shown]:
        panel.plot([], [], marker, color=colour, label=task)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_xscale("log")
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(max(len(names), 1) - 0.5, -0.5)
    panel.set_xlabel("its time / time of ketcore; hollow: float64;\ntop to bottom in a row: batches", size=9)
    if shown:
        panel.legend()


def _extras(records):
    contestants = [contestant for record in records for contestant in record["contestants"]]
    return list(dict.fromkeys(c["name"] for c in contestants if c["kind"] in ("before", "extra")))


def _line(record, extras):
    ours, low, high = best(record, ("ours",)), None, None
    if ours:
        low, high = ours["quartiles"]
    spread = f"{seconds(low)}..{seconds(high)}" if ours else ""
    cells = [
        f"{record['workload']:<{WIDTH}} {record['batch']:>6} {SHORT[record['dtype']]:<4} {record['task']:<8}",
        f"{seconds(ours['median']) if ours else '-':>9} {spread:>17}  ",
        f"{who(best(record, ('package',))):<26} {who(best(record, PEERS)):<26}",
        f"{_number(ratio(record, PEERS)):>6} {_number(ratio(record, ('yardstick',))):>6}",
        f"{_number(ratio(record, ('numpy',))):>6} {_number(times_floor(record)):>6}",
        f"{_number(times_floor(record, 'warm floor')):>6} {_memory(record['memory']):>7}",
    ]
    times = {c["name"]: c["median"] for c in record["contestants"] if "median" in c}
    return " ".join(cells + [f"{_against(ours, times.get(name)):>22}" for name in extras])


def _against(ours, time):
    """An extra contestant: its time, and how many of its times ketcore takes."""
    if time is None:
        return "-"
    return f"{seconds(time)}, x{_number(ours['median'] / time if ours else None)}"


def _number(value):
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _memory(value):
    return "" if value is None else f"{value:.2f}{'!' if value >= 2 else ''}"


def _summaries_of_extras(records, extras):
    return [line for name in extras for line in _summary_of_extra(records, name)]


def _summary_of_extra(records, name):
    ratios = []
    for record in records:
        ours = best(record, ("ours",))
        times = [c["median"] for c in record["contestants"] if c["name"] == name and "median" in c]
        ratios += [ours["median"] / time for time in times if ours]
    if not ratios:
        return []
    mean, most = f"{geometric_mean(ratios):.3g}", f"{max(ratios):.3g}"
    return [f"{name}: ketcore takes {mean} of its time in the mean of {len(ratios)} cases, {most} at most"]


def _troubles(records):
    cases = {}
    for record in records:
        for contestant in record["contestants"]:
            if contestant["status"] not in ("ok", "bound"):
                cases.setdefault((contestant["name"], contestant["status"]), []).append(case_name(record))
    return [
        f"not timed: {name}: {status} ({len(found)} cases, first {found[0]})"
        for (name, status), found in cases.items()
    ]
