"""The table of training steps: every contestant of every case, from the records that were saved."""

from bench.records import seconds
from bench.report import clock_of, opening, troubles

LEGEND = """
A training step of a layer: forward, backward, Adam.  In the order of time, of each case and contestant
time      median of one step, and its quartiles
ratio     its time / ketcore's: below 1, it is ahead
memory    the most that a step takes beyond what is held, and its ratio to ketcore's
held      parameters and Adam's two moments of each, and the ratio to ketcore's
*         does other work: a dense layer, a yardstick; "sparse" is SparseAdam on the rows of the batch
"""
HEADER = (
    f"    {'':<24} {'time':>7} {'quartiles':>17} {'ratio':>6}"
    f" {'memory':>9} {'ratio':>6} {'held':>9} {'ratio':>6}"
)


def table(results: dict) -> str:
    """All of it as text: a table for each number of threads, who is missing, who is ahead of ketcore."""
    lines = [*opening(results), LEGEND]
    for threads in sorted({record["threads"] for record in results["records"]}):
        records = [record for record in results["records"] if record["threads"] == threads]
        lines += [clock_of(threads), "", HEADER]
        for record in records:
            lines += _case(record)
        lines += ["", *_losses(records), ""]
    return "\n".join(lines + troubles(results))


def _case(record):
    ours = _ours(record)
    timed = [contestant for contestant in record["contestants"] if "median" in contestant]
    lines = [_title(record)]
    for contestant in sorted(timed, key=lambda contestant: contestant["median"]):
        low, high = contestant["quartiles"]
        name = contestant["name"] + " *" * _is_other_work(contestant)
        cells = [
            f"    {name:<24} {seconds(contestant['median']):>7} {f'{seconds(low)}..{seconds(high)}':>17}"
        ]
        cells.append(f"{_ratio(contestant, ours, 'median'):>6}")
        for key in ("memory", "held"):
            size = contestant.get(key)
            cells.append(f"{'-' if size is None else f'{size / 2**20:.2f} MB':>9}")
            cells.append(f"{_ratio(contestant, ours, key):>6}")
        lines.append(" ".join(cells))
    return lines


def _title(record):
    return f"{record['workload']}, batch {record['batch']}"


def _losses(records):
    """Who is faster or takes less memory than ketcore at the same work, case by case."""
    lines = []
    for key, words in (("median", "faster"), ("memory", "smaller")):
        lost = []
        for record in records:
            ours = _ours(record)
            rivals = [c for c in record["contestants"] if c["kind"] in ("package", "code")]
            lost += [
                f"    {rival['name']} {_ratio(rival, ours, key)}: {_title(record)}"
                for rival in rivals
                if ours and None not in (rival.get(key), ours.get(key)) and rival[key] < ours[key]
            ]
        lines += [f"{words} than ketcore: {len(lost)} times in {len(records)} cases", *lost]
    return lines


def _ours(record):
    found = (c for c in record["contestants"] if c["kind"] == "ours" and "median" in c)
    return next(found, None)


def _is_other_work(contestant):
    return contestant["kind"] == "yardstick" or contestant["name"].endswith(" sparse")


def _ratio(contestant, ours, key):
    if not ours or not ours.get(key) or contestant.get(key) is None:
        return "-"
    return f"{contestant[key] / ours[key]:.3g}"
