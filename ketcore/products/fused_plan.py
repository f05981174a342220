"""How `matmul.cu` multiplies by a Kronecker matrix: passes of a few modes, links of merged modes, tiles.

Integers only.  A pass takes an array seen as (terms, outer, P, inner) through some neighbouring modes, in one
launch.  Within it, neighbouring small modes are merged into at most four links of at most 16 x 16.  FACTOR,
LINK, SIDE and PASS are structs of `ketcore.cuda.structs`.

Shared memory of a block in bytes, with a bytes (4 or 8) for a number that sums run in:

    a * (matrices of the terms held + buffers),  at most SHARED_FLOOR
    buffers: what goes into each link of the tile, (tile_outer * L, p, U); two take turns.  A sum over terms
    needs one more for the sum, and one more for what goes into the first link if all terms share that
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np

from ketcore.cuda.structs import (
    LARGEST_SIDE,
    MAX_FACTORS,
    MAX_LINKS,
    PASS,
    SHARED_FLOOR,
    Launch,
    address,
    passed,
    reciprocal,
)
from ketcore.shapes import offsets

_TALL, _THREADS = 8, 256


# Bytes that a multiprocessor can move to and from memory in the time of a step, which is a link's entry of x
# times TALL entries of its matrix, and the steps that writing TALL outputs takes.  Arithmetic, not measured.
_BYTES_PER_STEP, _WRITING = 1.2, 4
# Neighbours in memory that are read for one.
_SECTOR = 32
_GRID = 2048
_WIDTHS, _LEAST_WIDTH = (128, 64, 32, 16, 8, 4, 2, 1), 32


class Limits(NamedTuple):
    """What a plan keeps to; other limits than these are for tests.

    Attributes
    ----------
    shared : int
        Bytes of shared memory of a block.
    held : int
        Bytes of matrices of all terms up to which they stay there, and are not merged for every tile.
    blocks : int
        Enough to fill any GPU: tiles are made smaller until there are as many.
    """

    shared: int = SHARED_FLOOR
    held: int = 8 << 10
    blocks: int = 264


LIMITS = Limits()


@dataclass(frozen=True)
class FusedStep:
    """One pass: modes [start, stop), the launch, and the shape (terms, outer, Q, inner) of what it gives."""

    start: int
    stop: int
    launch: Launch
    target: tuple[int, int, int, int]


@lru_cache(maxsize=256)
def fused_steps(
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    terms: int,
    batch: int,
    trail: int,
    entry: int,
    identities: frozenset[int] = frozenset(),
    limits: Limits = LIMITS,
) -> tuple[FusedStep, ...] | None:
    """The passes from (batch, P, trail) to (batch, Q, trail), in order; None where the kernel cannot.

    Parameters
    ----------
    rows, columns : tuple of N ints
        p_n and q_n.
    terms : int
        The rank R.
    batch, trail : int
        The sizes before and behind.
    entry : int
        Bytes of a number that sums run in.
    identities : frozenset, optional
        Square modes that are left out, if there are others.
    limits : Limits, optional
        What the plan keeps to.

    Examples
    --------
    >>> steps = fused_steps((8, 8, 8, 8, 8), (8, 8, 8, 8, 8), 1, 10, 1, 4)
    >>> [(step.start, step.stop) for step in steps]
    [(0, 3), (3, 5)]
    """
    left_out = identities if len(identities) < len(rows) else frozenset()
    kept = [n for n in range(len(rows)) if n not in left_out]
    if not kept or terms < 1 or max(max(rows[n], columns[n]) for n in kept) > LARGEST_SIDE:
        return None

    def group(start, stop, backwards):
        before, after = (rows, columns) if backwards else (columns, rows)
        ends = (stop - 1 == kept[-1], start == kept[0])
        return _Group(
            rows[start:stop],
            columns[start:stop],
            terms,
            entry,
            limits,
            batch * prod(before[:start]),
            prod(after[stop:]) * trail,
            *(ends if backwards else ends[::-1]),
        )

    # The first modes first, or the last: whichever keeps what lies between smaller.
    ways = [_shortest(len(rows), left_out, lambda a, b, way=way: group(a, b, way)) for way in (False, True)]
    backwards = ways[1][0] < ways[0][0]
    cuts = ways[backwards][1][:: -1 if backwards else 1]
    return tuple(_step(start, stop, group(start, stop, backwards)) for start, stop in cuts)


def _shortest(count, left_out, group) -> tuple[float, tuple[tuple[int, int], ...]]:
    """Cost of the cheapest way to cut the modes into passes, and its cuts (start, stop)."""
    best: list[tuple[float, tuple[tuple[int, int], ...]]] = [(0.0, ()), *[(inf, ())] * count]
    for stop in range(1, count + 1):
        if stop - 1 in left_out:
            best[stop] = best[stop - 1]
            continue
        for start in range(stop - 1, max(-1, stop - 1 - MAX_FACTORS), -1):
            if start in left_out:
                break
            cost, cuts = best[start]
            cost += group(start, stop).cost
            if cost < best[stop][0]:
                best[stop] = cost, (*cuts, (start, stop))
    return best[count]


@lru_cache(maxsize=1024)
def _links(rows, columns):
    """Steps for one outer and inner index, and where links end: the cheapest way to merge neighbouring modes.

    >>> _links((2, 2, 2, 2, 8), (2, 2, 2, 2, 8))[1]
    (4, 5)
    """
    best: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, 0): (0.0, ())}
    for stop in range(1, len(rows) + 1):
        for start in range(stop - 1, -1, -1):
            p, q = prod(rows[start:stop]), prod(columns[start:stop])
            if max(p, q) > LARGEST_SIDE:
                break
            fibres = prod(columns[:start]) * prod(rows[stop:])
            work = fibres * -(-q // _TALL) * (p + _WRITING)
            for links in range(MAX_LINKS):
                cost, ends = best.get((start, links), (inf, ()))
                if cost + work < best.get((stop, links + 1), (inf, ()))[0]:
                    best[stop, links + 1] = cost + work, (*ends, stop)
    return min(best.get((len(rows), links), (inf, ())) for links in range(1, MAX_LINKS + 1))


@dataclass(frozen=True)
class _Group:
    """A pass in the making: the modes it multiplies, what lies around them, whether it is first or last."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    terms: int
    entry: int
    limits: Limits
    outer: int
    inner: int
    first: bool
    last: bool

    @property
    def cost(self):
        """Steps; `inf` where no tile fits."""
        work, ends = _links(self.rows, self.columns)
        if not ends or self.tile is None:
            return inf
        width = self.tile[1]
        wasted = max(1.0, _SECTOR / (width * self.entry)) if width < self.inner else 1.0
        read = prod(self.rows) * (1 if self.first else self.terms)
        written = prod(self.columns) * (1 if self.last else self.terms)
        moved = self.entry * wasted * (read + written) / _BYTES_PER_STEP
        return (moved + self.terms * work) * self.outer * self.inner

    @property
    def summed(self):
        return self.last and self.terms > 1

    @cached_property
    def merged(self):
        """(p, q) of every link."""
        ends = _links(self.rows, self.columns)[1]
        cuts = list(zip((0, *ends), ends, strict=False))
        return [(prod(self.rows[a:b]), prod(self.columns[a:b])) for a, b in cuts]

    @property
    def slots(self):
        """Which buffer holds what goes into each link, and last what comes out."""
        links = len(self.merged)
        if not self.summed:
            return [0, 1, 0, 1, 0][: links + 1]
        # A source of all terms stays in its buffer, and the sum over terms has its own.
        return [*([0, 1, 2, 1] if self.first else [0, 1, 0, 1])[:links], 3]

    @property
    def matrices(self):
        """Entries of the matrices of one term."""
        return sum(p * _padded(q) for p, q in self.merged)

    @property
    def held(self):
        """Terms whose matrices stay in shared memory."""
        return self.terms if self.terms * self.matrices * self.entry <= self.limits.held else 1

    @property
    def room(self):
        """Entries that a block has for buffers."""
        return self.limits.shared // self.entry - self.held * self.matrices

    @cached_property
    def tile(self) -> Any:
        """Outer and inner size: what fits with an eighth to spare, or one of each; None if none fits."""
        unit: dict[int, int] = {}
        for s, slot in enumerate(self.slots):
            size = prod(q for _, q in self.merged[:s]) * prod(p for p, _ in self.merged[s:])
            unit[slot] = max(unit.get(slot, 0), size)
        needed = sum(unit.values())
        most = max(self.room * 8 // (9 * needed), int(self.room >= needed))
        if not most:
            return None
        width = self.inner if self.inner <= most else next(width for width in _WIDTHS if width <= most)
        height = min(most // width, self.outer) if width == self.inner else 1
        items = 1 if self.last else self.terms
        while items * -(-self.outer // height) * -(-self.inner // width) < self.limits.blocks:
            if height > 1:
                height = -(-height // 2)
            elif width > _LEAST_WIDTH:
                width = next(smaller for smaller in _WIDTHS if smaller < width)
            else:
                break
        return height, width

    def buffers(self):
        """Row, pitch and offset of each buffer, and entries of all; padded where there is room for that."""
        height, width = self.tile
        for padding in (True, False):
            found = [self._rows(s, height, width, padding) for s in range(len(self.merged) + 1)]
            taken = {}
            for slot, (left, _, pitch) in zip(self.slots, found, strict=True):
                taken[slot] = max(taken.get(slot, 0), left * pitch)
            if sum(taken.values()) <= self.room:
                break
        places = offsets(list(taken.values()))
        starts = dict(zip(taken, places, strict=False))
        pairs = zip(found, self.slots, strict=True)
        return [(row, pitch, starts[slot]) for (_, row, pitch), slot in pairs], places[-1]

    def _rows(self, s, height, width, padding):
        """Number, length and pitch of rows of buffer s: (left, p, inner) of link s, last (left, q, inner)."""
        last = s == len(self.merged)
        link = s - last
        left = height * prod(q for _, q in self.merged[:link])
        inner = width * prod(p for p, _ in self.merged[link + 1 :])
        row = self.merged[link][last] * inner
        # The link before writes its columns, runs of what is a row here, a pitch apart.
        writes = (self.merged[s - 1][1], row) if s > 0 and not last else (1, inner)
        return left, row, _pitch(row, inner, writes, 128 // self.entry) if padding and left > 1 else row


def _padded(columns):
    return -(-columns // _TALL) * _TALL


def _pitch(row, inner, writes, banks):
    """Distance of rows, at most an eighth or one entry longer, for which fewest lanes meet in a bank.

    Lanes read runs of `inner` entries, one of every row.  `writes` is (columns, run): they write runs of
    `run` entries, one of every `columns` rows.
    """
    columns, run = writes

    def conflicts(pitch):
        return max(_conflicts(pitch % banks, inner, banks), _conflicts(columns * pitch % banks, run, banks))

    longest = row + max(1, min(row // 8, banks - 1))
    return min(range(row, longest + 1), key=lambda pitch: (conflicts(pitch), pitch))


@lru_cache(maxsize=4096)
def _conflicts(stride, run, banks):
    """Most lanes of `banks` that meet in one bank where runs of neighbours are `stride` apart.

    >>> _conflicts(0, 1, 32), _conflicts(1, 1, 32), _conflicts(16, 16, 32)
    (32, 1, 1)
    """
    places = [(lane // run * stride + lane % run) % banks for lane in range(banks)]
    return max(map(places.count, places))


# ---- the launch ----


def _step(start, stop, group):
    """A record of the plan, for the modes that one pass over the array multiplies."""
    plan, (buffers, entries) = np.zeros((), PASS), group.buffers()
    height, width = group.tile
    inner_tiles = -(-group.inner // width)
    tiles = -(-group.outer // height) * inner_tiles
    plan["outer"], plan["inner"] = group.outer, group.inner
    plan["tiles"], plan["inner_tiles"] = tiles, inner_tiles
    plan["per_inner"], plan["tile_outer"], plan["tile_inner"] = reciprocal(width), height, width
    plan["terms"], plan["summed"], plan["held"] = group.terms, group.summed, group.held
    plan["links"], plan["matrices"] = len(group.merged), group.matrices
    plan["factors"]["rows"][: stop - start] = group.rows
    plan["factors"]["columns"][: stop - start] = group.columns
    for name, alone, sizes, buffer in (
        ("source", group.first, group.rows, buffers[0]),
        ("target", group.last, group.columns, buffers[-1]),
    ):
        row, pitch, place = buffer
        size, term = prod(sizes), 0 if alone else group.outer * prod(sizes) * group.inner
        plan[name] = (term, reciprocal(size * width), reciprocal(row), size, place, row, pitch, 0, 0)
    _fill_chain(plan["chain"], group, buffers)
    shared = group.entry * (group.held * group.matrices + entries)
    items = tiles * (1 if group.last else group.terms)
    target = (1 if group.last else group.terms, group.outer, prod(group.columns), group.inner)
    return FusedStep(start, stop, Launch(plan, min(items, _GRID), _THREADS, shared), target)


def _fill_chain(chain, group, buffers):
    """The links of one pass: which box each reads and writes, and by which strides."""
    ends, (height, width) = (0, *_links(group.rows, group.columns)[1]), group.tile
    matrix = 0
    for s, (p, q) in enumerate(group.merged):
        inner = width * prod(p for p, _ in group.merged[s + 1 :])
        left = height * prod(q for _, q in group.merged[:s])
        (_, pitch, source), (_, next_pitch, target) = buffers[s], buffers[s + 1]
        # Before another link every column is a row of its own; after the last one they share a row.
        last = s == len(group.merged) - 1
        to = (target, next_pitch, inner) if last else (target, q * next_pitch, next_pitch)
        chain[s] = (
            *(reciprocal(inner), ends[s], ends[s + 1] - ends[s], p, q, _padded(q), matrix),
            *(inner, left * inner, source, pitch, *to, 0),
        )
        matrix += p * _padded(q)


def filled_pass(step: FusedStep, factors: Sequence[Any], wide_source: bool, wide_target: bool) -> np.ndarray:
    """The plan of a pass with addresses and strides of its factors (R, p_n, q_n), for a launch."""
    plan: Any = step.launch.plan.copy()
    used = factors[step.start : step.stop]
    plan["source"]["wide"], plan["target"]["wide"] = wide_source, wide_target
    entries = plan["factors"][: len(used)]
    entries["table"] = [address(factor) for factor in used]
    steps = np.array([factor.strides for factor in used]) // used[0].dtype.itemsize
    for axis, name in enumerate(("term", "row", "column")):
        entries[name] = steps[:, axis]
    return passed(plan.tobytes())
