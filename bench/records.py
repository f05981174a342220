"""What one record says: the measurements of one case, as saved."""

PEERS = ("package", "code")


def best(record: dict, kinds: tuple[str, ...]) -> dict | None:
    """The fastest contestant of these kinds, or None where none was timed."""
    timed = [c for c in record["contestants"] if c["kind"] in kinds and "median" in c]
    return min(timed, key=lambda contestant: contestant["median"], default=None)


def ratio(record: dict, kinds: tuple[str, ...], to: str = "ours") -> float | None:
    """Time of the fastest of these kinds / time of ketcore, or None where one of them was not timed."""
    base, theirs = best(record, (to,)), best(record, kinds)
    return theirs["median"] / base["median"] if base and theirs else None


def times_floor(record: dict, kind: str = "floor") -> float | None:
    """Time of ketcore / the machine's floor, that of a contestant or that of the record."""
    ours, floor = best(record, ("ours",)), best(record, (kind,))
    least = floor["median"] if floor else record["floor"] if kind == "floor" else None
    return ours["median"] / least if ours and least else None


def case_name(record: dict) -> str:
    """The case in words."""
    return f"{record['workload']} batch {record['batch']} {record['dtype']} {record['task']}"


def who(contestant: dict | None) -> str:
    """Name and time; > marks a lower bound."""
    if contestant is None:
        return "-"
    bound = ">" if contestant["status"] == "bound" else ""
    return f"{contestant['name']} {bound}{seconds(contestant['median'])}"


def seconds(value: float) -> str:
    """Three digits and a unit.

    >>> seconds(0.0000123), seconds(0.5), seconds(12.3)
    ('12.3us', '500ms', '12.3s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value / 1e-6:.3g}us"
