"""What a kernel is told besides its arrays: sizes, strides and places in shared memory.  Integers only.

A plan is computed once per `Geometry` and kept; a launch adds the addresses and strides of its arrays.
The structs are those of `ketcore.cuda.structs`.

Shared memory of a block of `expand` or `contract`, up to padding, in bytes.  W warps, sums of a bytes (4 or
8); nodes are the leaves and the inner products of the tree without its root.

    104 N + sum q_n + W * scratch
        + itemsize * R * sum t_n q_n                  where the tables are staged
    scratch = a * R * (sum of the sizes of nodes)     expand; twice that in contract
            + a * 1024                                contract: a panel of the cotangent, at least qb entries
            + a * R * (4 * (nodes + 1) + 5)           with LayerNorm; without the 5 in expand
            + 4 N                                     indices of the leaves; 4 N R with an index per term
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import numpy as np

from ketcore.cuda.structs import MAX_ORDER, MODE, PLAN, SHARED_FLOOR, Launch, address, passed, reciprocal
from ketcore.lookups.leaves import PackedTables, table_strides
from ketcore.lookups.lookup import Lookup, form
from ketcore.shapes import offsets, strides, tree_split

_KINDS = ("digits", "same", "modes", "terms")


@dataclass(frozen=True, eq=False)
class Geometry:
    """All of a `Lookup` that is not an array; letters as there, and `steps` are the strides of the tables.

    `geometry` gives one object for the same sizes, so that what is kept for it is found at once.
    """

    rows: int
    columns: int
    kind: str
    bound: int
    rank: int
    counts: tuple[int, ...]
    widths: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    split: int
    eps: float | None
    itemsize: int

    @property
    def width(self) -> int:
        """Entries of a record in one term: sum q_n."""
        return sum(self.widths)

    @property
    def entry(self) -> int:
        """Bytes of a number that sums run in."""
        return max(4, self.itemsize)

    @cached_property
    def right(self) -> int:
        """Entries of the right half."""
        return prod(self.widths[self.split :])


def geometry(lookup: Lookup) -> Geometry:
    """The geometry of a lookup, which remembers it."""
    if lookup.geometry is None:
        lookup.geometry = _geometry(lookup.form, lookup.batch, table_strides(lookup.tables))
    return lookup.geometry


@lru_cache(maxsize=1024)
def _geometry(of, rows, steps):
    kind, bound, shapes = of.kind, of.bound, of.shapes
    counts = tuple([shape[1] for shape in shapes])
    # Kernels count by int64, of which the last number is one that no table has.
    bound = min(counts) if kind == "modes" else min(bound, (1 << 63) - 1)
    # One mode takes its index as it is.
    single = len(shapes) == 1
    kind = "same" if single and kind in ("digits", "modes") else kind
    return Geometry(
        rows=rows,
        columns=of.columns,
        kind=kind,
        bound=bound,
        rank=shapes[0][0],
        counts=counts,
        widths=of.widths,
        steps=steps,
        split=of.split,
        eps=float(of.eps) if of.layernorm and not single else None,
        itemsize=of.dtypes[0].itemsize,
    )


def segment_geometry(rows: int, width: int, count: int, dtype: np.dtype) -> Geometry:
    """That of `rows` rows of so many entries whose sums by index are `count` rows."""
    shapes = ((1, count, width),)
    found = form(np.ndarray, "same", count, width, False, 0.0, 0, dtype, shapes, (dtype,))
    return _geometry(found, rows, ((0, 0, 0),))


# ---- expand and contract ----

# Warps of a block, the most that fit.
_WARPS = (8, 4, 2, 1)
# Blocks are persistent: enough of them to fill any GPU, fewer where each copies the tables to shared memory.
_GRID, _STAGED_GRID = 2048, 264
# Entries of a row's cotangent that a warp keeps in shared memory at a time, if a row of it is not longer.
_PANEL = 1024


@lru_cache(maxsize=256)
def gather_launch(
    shape: Geometry, backward: bool, limit: int, vector: bool, atomic: bool = False
) -> Launch | None:
    """The launch of `expand`, or with `backward` of `contract`; None where a warp's nodes do not fit.

    A block may have `limit` bytes of shared memory; staging the tables uses what is above the floor.  With
    `vector` the output is stored 16 bytes at a time; with `atomic` gradients are added to.
    """
    plan = _common(shape)
    nodes, entries = _place_nodes(plan, shape, 1 if backward else 16 // shape.entry)
    scratch = _place_scratch(plan, shape, backward, nodes, entries)
    fixed = int(plan["scratch"])
    warps = next((w for w in _WARPS if fixed + w * scratch <= SHARED_FLOOR), None)
    if warps is None:
        return None
    used, blocks = fixed + warps * scratch, -(-shape.rows // warps)
    entries_of_tables = shape.rank * sum(t * q for t, q in zip(shape.counts, shape.widths, strict=True))
    staged = used + shape.itemsize * entries_of_tables <= limit
    # A block copies every table; that pays where its rows read at least as much.
    staged = staged and shape.rows * shape.rank * shape.width >= min(blocks, _STAGED_GRID) * entries_of_tables
    plan["staged"], plan["staging"], plan["vector"], plan["atomic"] = staged, used, vector, atomic
    shared = used + staged * shape.itemsize * entries_of_tables
    return Launch(plan, min(blocks, _STAGED_GRID if staged else _GRID), 32 * warps, shared)


def _common(shape):
    """What the plans of all kernels of lookups begin with."""
    plan = np.zeros((), PLAN)
    order = len(shape.widths)
    plan["rows"], plan["columns"], plan["bound"] = shape.rows, shape.columns, shape.bound
    plan["eps"] = plan["single_eps"] = shape.eps or 0.0
    plan["layernorm"] = shape.eps is not None
    plan["order"], plan["rank"], plan["width"] = order, shape.rank, shape.width
    plan["per_width"], plan["kind"] = reciprocal(shape.width), _KINDS.index(shape.kind)
    plan["kept"] = -(-shape.columns // shape.right)
    modes = plan["modes"][:order]
    modes["count"], modes["size"] = shape.counts, shape.widths
    modes["first_column"] = offsets(shape.widths)[:-1]
    for axis, name in enumerate(("rank", "row", "column")):
        modes[name] = [step[axis] // shape.itemsize for step in shape.steps]
    if shape.kind == "digits":
        modes["radix_weight"] = strides(shape.counts)
    return plan


def _tree_nodes(widths: Sequence[int], split: int) -> list[tuple[int, int, int]]:
    """Nodes (left, right, size), children first: the leaves (-1, -1, q_n), inner products, last the root.

    >>> _tree_nodes((2, 3, 4), 1)
    [(-1, -1, 2), (-1, -1, 3), (-1, -1, 4), (1, 2, 12), (0, 3, 24)]
    """
    nodes = [(-1, -1, width) for width in widths]

    def add(left, right):
        nodes.append((left, right, nodes[left][2] * nodes[right][2]))
        return len(nodes) - 1

    def grow(low, high):
        if high - low == 1:
            return low
        if high == low:
            # The constant 1 of an empty half.
            nodes.append((-1, -1, 1))
            return len(nodes) - 1
        middle = low + tree_split(high - low)
        return add(grow(low, middle), grow(middle, high))

    add(grow(0, split), grow(split, len(widths)))
    return nodes


def _place_nodes(plan, shape, unit):
    """Fill the nodes; returns their number and how many entries the values of all but the root take.

    With a `unit` above 1 every vector begins at a multiple of it, for 16-byte loads; else pitches are odd, so
    that lanes which take one entry of neighbouring terms meet in no bank of shared memory.
    """

    def pitch_of(size):
        return -(-size // unit) * unit if unit > 1 else size | 1

    order = len(shape.widths)
    places = offsets([-(-width // unit) * unit for width in shape.widths])
    plan["modes"]["shift"][:order] = np.subtract(places, offsets(shape.widths))[:-1]
    nodes = _tree_nodes(shape.widths, shape.split)
    top = shape.rank * pitch_of(places[-1])
    for i, (left, right, size) in enumerate(nodes):
        pitch, offset = pitch_of(size), top
        if i < order:
            pitch, offset = pitch_of(places[-1]), places[i]
        elif i < len(nodes) - 1:
            top += shape.rank * pitch
        plan["nodes"][i] = (reciprocal(size), offset, pitch, size, left, right, 0)
    plan["root"] = len(nodes) - 1
    return len(nodes), top


def _place_scratch(plan, shape, backward, nodes, entries):
    """Fill the byte offsets in shared memory; returns the bytes of one warp's scratch."""
    layernorm, order = shape.eps is not None, len(shape.widths)
    left = prod(shape.widths[: shape.split])
    plan["panel_rows"] = min(left, max(1, _PANEL // shape.right))
    plan["panel_pitch"] = shape.right | 1
    panel = int(plan["panel_rows"]) * int(plan["panel_pitch"])
    digits = order * (shape.rank if shape.kind == "terms" else 1)
    parts = (
        shape.entry * entries,
        shape.entry * entries * backward,
        shape.entry * panel * backward,
        shape.entry * 4 * nodes * shape.rank * layernorm,
        shape.entry * 5 * shape.rank * layernorm * backward,
        4 * digits,
    )
    places = offsets([_round16(part) for part in parts])
    for name, place in zip(("slope", "panel", "moments", "backward", "digit"), places[1:], strict=False):
        plan[name] = place
    plan["owner"] = order * MODE.itemsize
    plan["scratch"] = _round16(order * MODE.itemsize + shape.width)
    plan["scratch_size"] = places[-1]
    return places[-1]


def _round16(size):
    return -(-size // 16) * 16


# ---- accumulate and reduce, pieces and segments ----

# Leaves of a table that a lane keeps sums of at a time: 192 in double for 32 lanes are 48 KiB.
_DIGIT_TILE = 192
# A chunk has sixteen rows for each leaf, so that partial sums are few beside what they sum; and there are at
# most 256 chunks.  Sizes alone decide, never the GPU at hand, so that results do not depend on it.
_LEAST_CHUNK, _HITS, _CHUNKS = 64, 16, 256
_MAX_GRID = 1 << 16


@lru_cache(maxsize=256)
def chunk_launches(shape: Geometry) -> tuple[Launch, Launch, int]:
    """The launches of `accumulate` and of `reduce`, and how many partial sums there are."""
    plan, order = _common(shape), len(shape.widths)
    tile = max(1, min(_DIGIT_TILE, max(shape.counts)))
    chunk = max(_LEAST_CHUNK, _HITS * max(shape.counts), -(-shape.rows // _CHUNKS))
    sizes = [shape.rank * width for width in shape.widths]
    sums = offsets([count * size for count, size in zip(shape.counts, sizes, strict=True)])
    slots = offsets(
        [-(-size // 32) * -(-count // tile) for count, size in zip(shape.counts, sizes, strict=True)]
    )
    plan["modes"]["first_sum"][:order], plan["modes"]["first_slot"][:order] = sums[:-1], slots[:-1]
    plan["chunk"], plan["chunks"], plan["sums"] = chunk, -(-shape.rows // chunk), sums[-1]
    plan["digit_tile"], plan["slots"] = tile, slots[-1]
    blocks = int(plan["chunks"]) * slots[-1]
    return (
        Launch(plan, min(blocks, _MAX_GRID), 32, 8 * 32 * tile),
        Launch(plan, min(-(-sums[-1] // 256), _MAX_GRID), 256, 0),
        int(plan["chunks"]) * sums[-1],
    )


@lru_cache(maxsize=256)
def segment_launch(shape: Geometry) -> Launch:
    """The launch of `pieces` and of `segments`."""
    return Launch(_common(shape), min(-(-shape.rows // 8), _MAX_GRID), 256, 0)


# ---- the arrays of a launch ----


def filled_plan(
    launch: Launch, tables: Sequence[Any] = (), gradients: Sequence[Any] = (), keys: Any = None
) -> np.ndarray:
    """The plan with the addresses of tables and keys, and those and the strides of gradients (R, t_n, q_n).

    It is an argument of a launch.
    """
    packed = launch.packed
    if gradients:
        size = (gradients.packed if type(gradients) is PackedTables else gradients[0]).dtype.itemsize
        packed = _strided(launch, table_strides(gradients), size)
    plan = bytearray(packed)
    words = memoryview(plan).cast("q")
    _put_addresses(words, 0, tables)
    _put_addresses(words, 1, gradients)
    if keys is not None:
        words[_KEYS] = address(keys)
    return passed(plan)


@lru_cache(maxsize=1024)
def _strided(launch, steps, size):
    """The plan with the strides of gradients, in bytes, whose entries have this size."""
    plan, order = launch.plan.copy(), len(steps)
    for axis, name in enumerate(("rank", "row", "column")):
        plan["modes"][f"gradient_{name}"][:order] = [step[axis] // size for step in steps]
    return plan.tobytes()


def _put_addresses(words, after, tables):
    """Write where each of the tables begins so many words behind where its mode begins."""
    if type(tables) is PackedTables:
        first, step = address(tables.packed), tables.packed.strides[2]
        for at, place in zip(_MODES, tables.places, strict=False):
            words[at + after] = first + place * step
    else:
        for at, table in zip(_MODES, tables, strict=False):
            words[at + after] = address(table)


# Where the modes of a plan begin, in words of eight bytes, by the addresses of a table and of its gradient.
_FIELDS: Any = PLAN.fields
_MODES = tuple([(_FIELDS["modes"][1] + n * MODE.itemsize) // 8 for n in range(MAX_ORDER)])
_KEYS = _FIELDS["keys"][1] // 8
