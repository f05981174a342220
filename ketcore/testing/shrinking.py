"""Simpler draws for which a law still fails: smaller sizes first, then entries 0, 1 and small integers."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

__tracebackhide__ = True

Draw: TypeAlias = int | np.ndarray
# A run takes about a millisecond, and a law of small matrices needs some dozens of runs.
_RUNS = 150
# A fraction is further from simple than the integers that take its place.
_FRACTION = 100.0


class Failed(Protocol):
    """What a run that failed knows of itself: what was drawn in it."""

    draws: list[Draw]


FailedT = TypeVar("FailedT", bound=Failed)


def simplest(failed: FailedT, run: Callable[[Sequence[Draw]], FailedT | None]) -> FailedT:
    """The last of a chain of runs that fail, each with one draw simpler than in the one before.

    `run` makes a run with some draws, as far as they fit, or None if it does not fail in the same way.
    """
    left, before = _RUNS, None
    while before is not failed:
        before, place = failed, 0
        while place < len(failed.draws):
            for edit in _edits(failed.draws[place]):
                draw = failed.draws[place]
                edited = edit(draw)
                if left and _weight(edited) < _weight(draw):
                    left -= 1
                    simpler = run([*failed.draws[:place], edited, *failed.draws[place + 1 :]])
                    # With other sizes other things may be drawn.
                    if simpler is None or len(simpler.draws) <= place:
                        continue
                    if _total(simpler) < _total(failed):
                        failed = simpler
            place += 1
    return failed


def _edits(draw: Draw) -> Iterator[Callable[[Any], Draw]]:
    """Ways to make a draw simpler, those that do most first."""
    if isinstance(draw, int):
        yield from (partial(_changed, value=value) for value in range(draw))
        return
    yield np.zeros_like
    yield _identity
    for at in np.ndindex(draw.shape):
        for value in (0, 1, 1j, None) if draw.dtype.kind == "c" else (0, 1, None):
            yield partial(_replaced, places=[at], value=value)
            # A Hermitian matrix stays one.
            yield partial(_replaced, places=[at, at[::-1]], value=value)


def _changed(draw: int, value: int) -> int:
    return value


def _identity(draw: np.ndarray) -> np.ndarray:
    return np.eye(*draw.shape, dtype=draw.dtype) if draw.ndim == 2 else np.ones_like(draw)


def _replaced(draw: np.ndarray, places: list[tuple[int, ...]], value: complex | None) -> np.ndarray:
    """A copy with `value` at the places that there are; None for the nearest integer."""
    found = draw.copy()
    for number, at in enumerate(places):
        if all(n < size for n, size in zip(at, found.shape, strict=True)):
            entry = np.round(found[at]) if value is None else value
            found[at] = np.conj(entry) if number else entry
    return found


def _weight(draw: Draw) -> tuple[float, float]:
    """Its size, then how far its entries are from simple: draws with less are simpler."""
    if isinstance(draw, int):
        return draw, 0.0
    # Entries 0 and 1 are the simplest, then by size, and fractions last.
    parts = np.concatenate([draw.real, draw.imag]) if draw.dtype.kind == "c" else draw
    fractions = np.count_nonzero(parts != np.rint(parts))
    return draw.size, float(np.abs(parts).sum() + np.count_nonzero(parts < 0) / 2) + _FRACTION * fractions


def _total(failed: Failed) -> tuple[float, float]:
    sizes, entries = zip(*map(_weight, failed.draws), strict=True)
    return sum(sizes), sum(entries)
