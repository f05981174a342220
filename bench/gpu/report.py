"""The results of a GPU as a table in Markdown."""

NAMES = {
    "lookups": ("ketcore", "ketcore, atomics", "torch eager", "torch.compile", "nn.Embedding"),
    "products": ("ketcore", "ketcore, fused", "torch eager"),
}


def markdown(results: dict) -> str:
    """Device time in microseconds with its quartiles, and the share of the copy bandwidth, by contestant."""
    about, copy = results["about"], results["copy"]
    lines = [
        f"# {about['name']}" + (": small cases, which measure nothing" if about.get("small") else ""),
        "",
        f"{_versions(about)}. Copy bandwidth, read and written: {copy['rate'] / 1e9:.0f} GB/s, "
        f"from {copy['samples']} copies of {copy['bytes'] / 1e9:.2g} GB.",
        "",
        "Microseconds on the device (quartiles), share of the copy bandwidth; below them microseconds of a",
        "call from Python. `*`: no graph, so that the launches from Python are in the time. The last column:",
        "the time of the fastest torch code over that of ketcore; of products that of ketcore as it is, by",
        'cuBLAS, over that of its kernel (`path="fused"`).',
    ]
    for kind in NAMES:
        lines += _table(kind, [record for record in results["cases"] if record["kind"] == kind])
    return "\n".join([*lines, "", *_notes(results)]) + "\n"


def _table(kind, records):
    """One table, with a blank line before it; nothing without records."""
    if not records:
        return []
    names = NAMES[kind]
    head = ["", "| case | " + " | ".join(names) + " | ratio |", "| --- |" + " --- |" * (len(names) + 1)]
    return head + [_row(record) for record in records]


def ratio(record: dict) -> float | None:
    """Device time of the fastest torch code over that of ketcore; above 1 ketcore is ahead.

    Of products: that of ketcore as it is over that of its kernel.
    """
    times = {c["name"]: c["device"]["median"] for c in record["contestants"] if "device" in c}
    if record["kind"] == "products":
        fused = times.get("ketcore, fused")
        return times["ketcore"] / fused if fused and "ketcore" in times else None
    peers = [times[name] for name in ("torch eager", "torch.compile") if name in times]
    return min(peers) / times["ketcore"] if peers and "ketcore" in times else None


def _versions(about):
    known = {name: about[name] for name in ("driver", "cupy", "torch", "triton", "numpy") if about.get(name)}
    return ", ".join(f"{name} {version}" for name, version in known.items())


def _row(record):
    found = {contestant["name"]: contestant for contestant in record["contestants"]}
    cells = [_cell(found.get(name)) for name in NAMES[record["kind"]]]
    times = ratio(record)
    return f"| {record['name']} | " + " | ".join(cells) + f" | {'' if times is None else f'{times:.2f}'} |"


def _cell(contestant):
    if contestant is None:
        return ""
    if "device" not in contestant:
        return contestant["status"].split(":")[0]
    device, star = contestant["device"], "" if contestant["how"] == "graph" else "*"
    low, high = (f"{1e6 * value:.3g}" for value in device["quartiles"])
    return (
        f"{1e6 * device['median']:.3g}{star} ({low} to {high}) {100 * contestant['share']:.0f} %"
        f"<br>{1e6 * contestant['call']['median']:.3g}"
    )


def _notes(results):
    """What the cells leave out: why somebody was not timed, what was not run."""
    notes = []
    for record in results["cases"]:
        for contestant in record["contestants"]:
            if contestant["status"] != "ok":
                notes.append(f"- {record['name']}, {contestant['name']}: {contestant['status']}")
            elif contestant.get("how", "graph") != "graph":
                notes.append(f"- {record['name']}, {contestant['name']}: {contestant['how']}")
    return notes + [f"- {note}" for note in results["notes"]]
