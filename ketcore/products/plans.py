"""Which way to multiply: how modes are merged, in which order, where terms are added up.  Integers alone.

A product runs group by group, a group being consecutive modes whose factors are multiplied up beforehand:

    (outer, p, inner) -> (outer, q, inner),   p and q rows and columns of a group, R copies for R terms.

With R terms the first group fans out, to all terms at once, and the last one adds them up within its inner
product, so that one group is M made dense, two are two halves, and more are mode by mode.

Where inner is small these are many small matrix products.  The last groups of one term may run in a cycle:

    (outer, p, rest) -> (outer, rest, q),   larger products, after all of which the modes are in order again.

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise, product
from math import ceil, inf, prod
from struct import pack
from typing import Any, NamedTuple

from ketcore.shapes import halves_split, reached_dims
from ketcore.tracing import decided, is_compiling, is_symbol

PATHS = ("modes", "halves", "dense")

# Nanoseconds of one thread, fitted to OpenBLAS on one AVX2 core; a choice needs their ratios alone.
_CALL = 1700.0  # one call of a function on arrays
_PRODUCT = 110.0  # one matrix product within a batched call
_MULTIPLY = 0.0053  # one multiplication and addition, per byte of an entry
_READ = 0.03  # an entry that goes in, per byte
_TURN = 0.05  # an entry that goes in turned over, as in a cycle, per byte
_WRITE = 0.085  # an entry that comes out, per byte
_WEIGHT = 0.03  # an entry of the weights, per byte
_MERGE = 0.6  # an entry of a factor that is merged from two, per byte
_LAY_OUT = 0.35  # an entry of a matrix made dense, per byte
_FAR = 0.03  # an entry that goes out of the second-level cache and comes back, per byte

# The same of compiled kernels, on the same core, for vectors of _LANE_BYTES.
_NATIVE_CALL = 2000.0  # one product
_NATIVE_STEP = 100.0  # one step of a chunk
_NATIVE_MULTIPLY = 0.18  # one multiplication and addition
_NATIVE_READ = 0.2  # one that goes in
_NATIVE_WRITE = 0.9  # one that comes out,
_NATIVE_LAST = 1.0  # more where nothing lies behind the modes of the step,
_NATIVE_SINGLE = 1.0  # more where less than two of them do,
_NATIVE_NARROW = 6.0  # more where less than one does
_NATIVE_MERGE = 0.8  # an entry of a weight, not a vector
_NATIVE_MERGED = 500.0  # two factors that are merged, whose gradients NumPy takes apart

# Entries of the largest matrix that compiled kernels multiply by: it stays in the first-level cache.
_NATIVE_LARGEST = 1 << 12

# Registers of one SIMD row: a narrower row of a product takes as long.
_LANE_BYTES = 32

# Bytes that go in and out of a step of one chunk: few enough that the next step finds them in a cache, and so
# many that the calls of a chunk do not count.
CHUNK_BYTES = 1 << 20

# Rows, or columns, of products that are compiled: enough that merging factors for them counts little.
_TYPICAL = 1 << 10

# No size that fits a machine is cut by this; a product of several stays a float.
_HUGE = 1 << 200


class Step(NamedTuple):
    """One group of a product, for one entry of the batch.

    Attributes
    ----------
    start, stop : int
        Its modes.
    outer : int
        What lies before them (terms apart).
    rows, columns : int
        p and q of the group.
    inner : int
        What lies behind them, trailing axis included (terms apart).
    terms_in : int
        R where all terms come in side by side, 1 where there is one array for all.
    terms_out : int
        R where all terms go out.
    size_in : int
        Entries that come in.
    size_out : int
        Entries that go out.
    cyclic : bool
        The group goes out behind what lies behind it: (outer, p, inner) -> (outer, inner, q).
    """

    start: int
    stop: int
    outer: int
    rows: int
    columns: int
    inner: int
    terms_in: int
    terms_out: int
    size_in: int
    size_out: int
    cyclic: bool = False


class MatmulPlan(NamedTuple):
    """How to multiply.

    Attributes
    ----------
    path : {"modes", "halves", "dense"}
        The way.
    steps : tuple of Steps
        In the order in which they run; none where every mode is an identity.
    leftward : bool
        Terms lie before the last group that ran (True), or behind it.
    nested : bool
        Steps run from the first mode to the last: what the first one leaves is a batch for the others.
    chunk : int
        Entries of the batch that one pass through all steps should take.
    largest : int
        Entries of the largest array between two steps, for one entry of the batch.
    native : bytes
        The steps as compiled kernels read them, where these multiply; else empty.
    """

    path: str
    steps: tuple[Step, ...]
    leftward: bool
    nested: bool
    chunk: int
    largest: int
    native: bytes = b""


class _Sizes(NamedTuple):
    flops: int
    bytes: int
    path: str


class Cost(_Sizes):
    """What a call takes: a NamedTuple of flops, bytes and path.

    Attributes
    ----------
    flops : int
        Additions and multiplications.
    bytes : int
        Read and written, between the steps too.
    path : str
        How it is computed.
    engine : str
        What computes it, by a name of `ketcore.engines`.  It is no part of the tuple.
    """

    engine: str = ""


def matmul_plan(
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    rank: int,
    batch: int,
    trail: int = 1,
    identities: Collection[int] = (),
    itemsize: int = 8,
    path: str | None = None,
    native: bool = False,
) -> MatmulPlan:
    """The cheapest way to take (batch, P, trail) to (batch, Q, trail).

    Parameters
    ----------
    row_dims, col_dims : sequence of N ints
        p_n and q_n.
    rank : int
        The number of terms R.
    batch, trail : int
        The sizes before and behind.
    identities : collection of ints, default ()
        Modes that are identity matrices, and square.
    itemsize : int, default 8
        Bytes of an entry.
    path : str, optional
        None for any; else one of PATHS.
    native : bool, default False
        Whether compiled kernels can take the arrays: those of `ketcore.products.chains`.

    Notes
    -----
    Cost: O(N^3) once for every set of sizes; batches count by their power of two.

    Examples
    --------
    >>> plan = matmul_plan((2,) * 12, (2,) * 12, 1, 1024, itemsize=4)
    >>> plan.path, [step.rows for step in plan.steps]
    ('modes', [16, 16, 16])
    """
    dims, idle = (tuple(row_dims), tuple(col_dims)), frozenset(identities)
    if are_symbols(batch, trail):
        plan = _plan(*dims, max(rank, 1), *typical(trail), idle, itemsize, path, False)
        return plan if trail == 1 else with_trail(plan, trail)
    # Sizes that differ little share a plan; what runs are the sizes as they are.
    rounded = 1 << (batch - 1).bit_length() if batch > 1 else 1
    return _plan(*dims, max(rank, 1), rounded, max(trail, 1), idle, itemsize, path, native)


def are_symbols(batch: Any, trail: Any) -> bool:
    """Whether one of these may have no value: in a graph for all sizes, as while PyTorch compiles."""
    return is_compiling() or is_symbol(batch) or is_symbol(trail)


def typical(trail: int) -> tuple[int, int]:
    """The batch and the trail that a product is planned for where they are symbols."""
    return (_TYPICAL, 1) if trail == 1 else (1, _TYPICAL)


def with_trail(plan: MatmulPlan, trail: int) -> MatmulPlan:
    """A plan for the `typical` trail with another one."""
    # What `_replace` of a tuple does is not traced.
    steps = []
    for step in plan.steps:
        inner, size_in, size_out = (
            size // _TYPICAL * trail for size in (step.inner, step.size_in, step.size_out)
        )
        terms = step.terms_in, step.terms_out
        sizes = step.outer, step.rows, step.columns, inner, *terms, size_in, size_out
        steps.append(Step(step.start, step.stop, *sizes, step.cyclic))
    return MatmulPlan(plan.path, tuple(steps), plan.leftward, plan.nested, plan.chunk, plan.largest)


def matmul_cost(
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    rank: int,
    batch: int,
    trail: int = 1,
    shape: tuple[int, int] | None = None,
    identities: Collection[int] = (),
    itemsize: int = 8,
    path: str | None = None,
) -> Cost:
    """What `kron_matmul` takes for `batch` rows, or for `batch` matrices of `trail` columns.

    `shape` is the crop of (P, Q), None for all of it; the other arguments are those of `matmul_plan`.

    >>> matmul_cost((64, 64), (64, 64), 1, 10).flops
    10485760
    """
    if shape is not None:
        row_dims, col_dims = reached_dims(tuple(row_dims), shape[0]), reached_dims(tuple(col_dims), shape[1])
    square = [n for n in identities if row_dims[n] == col_dims[n]]
    plan = matmul_plan(row_dims, col_dims, rank, batch, trail, square, itemsize, path)
    return plan_cost(plan, rank, batch, itemsize)


def plan_cost(plan: MatmulPlan, rank: int, batch: int, itemsize: int) -> Cost:
    """What a plan takes for `batch` entries."""
    flops = moved = 0
    # Compiled kernels take all steps for one term after the other, each added to what those before it left.
    again = rank if plan.native and len(plan.steps) > 1 else 1
    if again > 1:
        moved = (again - 1) * batch * plan.steps[-1].size_out
    for step in plan.steps:
        terms = max(step.terms_in, step.terms_out, rank if plan.path == "dense" else 1)
        weights = again * terms * step.rows * step.columns
        merged = step.stop - step.start > 1
        products = again * step.outer * step.inner * _weight_entries(step)
        flops += 2 * batch * products + merged * weights
        moved += again * batch * (step.size_in + step.size_out) + weights
    return Cost(flops, moved * itemsize, plan.path)


def rows_cost(
    row_dims: Sequence[int], col_dims: Sequence[int], rank: int, count: int, columns: int, itemsize: int = 8
) -> Cost:
    """What `rows` takes for `count` ids: the halves of each row, and their products summed over the terms."""
    half = halves_split(tuple(col_dims))
    kept = -(-columns // prod(col_dims[half:]))
    entries = count * rank * (kept + prod(col_dims[half:]))
    flops = 2 * count * rank * columns + entries
    return Cost(flops, (2 * entries + count * columns) * itemsize, "halves")


class Problem(NamedTuple):
    """The sizes of one product, and the modes [low, high) between those that are identities."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    rank: int
    batch: int
    trail: int
    identities: frozenset[int]
    itemsize: int
    low: int
    high: int
    native: bool = False


@decided(1024)
def _plan(rows, columns, rank, batch, trail, identities, itemsize, path, native):
    """The fastest plan by the model of costs, on one path where that is asked for."""
    live = [n for n in range(len(rows)) if n not in identities]
    if not live:
        return MatmulPlan(path or "modes", (), False, True, 1, 1)
    problem = Problem(rows, columns, rank, batch, trail, identities, itemsize, live[0], live[-1] + 1)
    candidates = _candidates(problem) + (_native_candidates(problem) if native else [])
    counts, plans = zip(*candidates, strict=True)
    # A path that these modes do not have stands for the nearest one that they have.
    wanted = {"dense": min(counts), "modes": max(counts), "halves": min(2, max(counts))}.get(path)
    allowed = [plan for count, plan in zip(counts, plans, strict=True) if wanted in (None, count)]
    _, compiled, leftward, steps = min(allowed, key=lambda plan: plan[0])
    plan = _scheduled(path or _name(steps, rank), steps, leftward, _is_nested(steps), itemsize)
    return plan._replace(native=_packed(steps)) if compiled else plan


def _packed(steps):
    """Steps as the library reads them: StepNumbers in native/product.hpp."""
    fields = [(s.start, s.stop, s.outer, s.rows, s.columns, s.inner) for s in steps]
    return b"".join(pack("=6q", *numbers) for numbers in fields)


def _candidates(problem):
    """Pairs of a number of groups, 3 standing for more, and (time, False, leftward, steps)."""
    found = []
    for leftward in (False, True):
        for count, groups in _groupings(problem, leftward).items():
            found.append((count, leftward, groups if not leftward else groups[::-1]))
            if problem.rank == 1:
                found.append((count, leftward, _contracting_first(problem, groups)))
    if problem.rank == problem.trail == 1 and not problem.identities:
        found += _with_cycles(problem)
    steps = [(count, leftward, steps_of(problem, groups)) for count, leftward, groups in found]
    return [(count, (total_time(problem, each), False, leftward, each)) for count, leftward, each in steps]


def _native_candidates(problem):
    """The same of compiled kernels, which take the terms one after the other."""
    found, one = [], problem._replace(rank=1, native=True)
    lane = max(1, _LANE_BYTES // problem.itemsize)
    for count, groups in _groupings(one, False).items():
        for order in (groups, _contracting_first(problem, groups)):
            steps = steps_of(one, order)
            time = total_time(one, steps)
            if count > 1:
                # Each term is added to what those before it left.
                added = 4 * _NATIVE_READ * problem.batch * min(steps[-1].size_out, _HUGE) / lane
                time = problem.rank * (time + added) - added
            found.append((count, (time + _NATIVE_CALL, True, False, steps)))
    return [candidate for candidate in found if candidate[1][0] < inf]


def _scheduled(path: str, steps: tuple[Step, ...], leftward: bool, nested: bool, itemsize: int) -> MatmulPlan:
    """The plan of these steps, with its chunks."""
    chunk = CHUNK_BYTES // (itemsize * max(step.size_in + step.size_out for step in steps))
    # Every chunk reads all weights, and has gradients of them: no more bytes than go in and out.
    chunk = max([chunk, *(-(-_weight_entries(step) // (step.size_in + step.size_out)) for step in steps)])
    largest = max(max(step.size_in, step.size_out) for step in steps)
    return MatmulPlan(path, steps, leftward, nested, max(1, chunk), largest)


def _weight_entries(step):
    return max(step.terms_in, step.terms_out) * step.rows * step.columns


def _is_nested(steps):
    """Whether each step works on modes behind those of the steps before it, or in the cycle of the last."""
    return all(b.start >= a.stop or (a.cyclic and b.cyclic) for a, b in pairwise(steps))


def _with_cycles(problem):
    """Plans whose last groups run in a cycle: all of them, or as many as fit a chunk."""
    order, found = problem.high, []
    fitting = [n for n in range(order) if 8 * prod(problem.rows[n:]) * problem.itemsize <= CHUNK_BYTES]
    heads = _swept_groupings(problem, problem.low, order, False)
    for first in {0, *fitting[:1]}:
        tails = _swept_groupings(problem, first, order, False, first)[order]
        for (count, (_, head)), (more, (_, tail)) in product(heads[first].items(), tails.items()):
            groups = [*head, *(_Cycle(start, stop, first) for start, stop in tail)]
            found.append((min(count + more, 3), False, groups))
    return found


class _Cycle(NamedTuple):
    """A group of the cycle of the modes from `first` on."""

    start: int
    stop: int
    first: int


def _name(steps, rank):
    if rank == 1 and all(step.stop - step.start == 1 for step in steps):
        return "modes"
    return {1: "dense", 2: "halves"}.get(len(steps), "modes")


def _groupings(problem, leftward):
    """By number of groups, 3 standing for more: the cheapest cut of the modes into groups, in their order."""
    best = _swept_groupings(problem, problem.low, problem.high, leftward)
    return {count: groups for count, (_, groups) in best[problem.high].items()}


def _swept_groupings(problem, low, high, leftward, cycle=None):
    """For every mode up to `high`: by number of groups (time, groups) of the modes from `low` up to it."""
    best = {low: {0: (0.0, [])}}
    for stop in range(low + 1, high + 1):
        found = {}
        for start in range(low, stop):
            step = _swept(problem, start, stop, leftward, cycle)
            idle = _is_idle(problem, start, stop)
            if idle and step.stop - step.start > 1:
                continue
            time = 0.0 if idle else step_time(problem, step) + _merge_time(problem, step)
            for count, (before, groups) in best[start].items():
                total, more = before + time, min(count + (not idle), 3)
                if total < found.get(more, (inf,))[0]:
                    found[more] = total, groups if idle else [*groups, (start, stop)]
        best[stop] = found
    return best


def _is_idle(problem, start, stop):
    """Whether modes need no group: one term alone can leave identities between its groups as they are."""
    ends = start in problem.identities or stop - 1 in problem.identities
    return problem.rank == 1 and ends


def _contracting_first(problem, groups):
    """The order of groups of one term with the fewest multiplications: by 1/p - 1/q."""

    def growth(group):
        p, q = (prod(dims[slice(*group)]) for dims in (problem.rows, problem.columns))
        return 1 / p - 1 / q

    return sorted(groups, key=growth)


def _swept(problem, start, stop, leftward, cycle=None):
    """The step of a group when the groups run from the last to the first (leftward), or from the first on."""
    first, last = (stop == problem.high, start == problem.low)
    if not leftward:
        first, last = last, first
    done = range(stop, len(problem.rows)) if leftward else range(start)
    return _step(problem, start, stop, done, first, last, cycle)


def steps_of(problem: Problem, groups: Sequence[tuple[int, ...]]) -> tuple[Step, ...]:
    """The steps of groups in the order in which they run."""
    found: list[Step] = []
    done: set[int] = set()
    for i, (start, stop, *cycle) in enumerate(groups):
        found.append(_step(problem, start, stop, done, i == 0, i == len(groups) - 1, *cycle))
        done.update(range(start, stop))
    return tuple(found)


def _step(problem, start, stop, done, first, last, cycle=None):
    """The merged modes start to stop as one product, and what it takes."""
    sizes = [problem.columns[n] if n in done else problem.rows[n] for n in range(len(problem.rows))]
    outer, inner = prod(sizes[:start]), prod(sizes[stop:]) * problem.trail
    if cycle is not None:
        outer, inner = prod(sizes[:cycle]), prod(sizes[cycle:start]) * inner
    p, q = prod(problem.rows[start:stop]), prod(problem.columns[start:stop])
    terms_in, terms_out = (1 if end else problem.rank for end in (first, last))
    size_in, size_out = terms_in * outer * p * inner, terms_out * outer * q * inner
    sizes = outer, p, q, inner, terms_in, terms_out, size_in, size_out
    return Step(start, stop, *sizes, cycle is not None)


def total_time(problem: Problem, steps: Sequence[Step]) -> float:
    """Nanoseconds of all steps, and of the merges before them."""
    return sum(step_time(problem, step) + _merge_time(problem, step) for step in steps)


def step_time(problem: Problem, step: Step) -> float:
    """Nanoseconds of a step for the whole batch."""
    if problem.native:
        return _native_step_time(problem, step)
    count, m, k, n = (float(min(size, _HUGE)) for size in _step_products(step, problem.batch))
    entry, lane = problem.itemsize, max(1, _LANE_BYTES // problem.itemsize)
    work = _MULTIPLY * ceil(m / 4) * 4 * k * ceil(n / lane) * lane
    moves = _READ * k * n + _WRITE * m * n + (_TURN if step.cyclic else _WEIGHT) * m * k
    time = count * (_PRODUCT + entry * (work + moves))
    one = float(min(step.size_in + step.size_out, _HUGE)) * entry
    moved = one * problem.batch
    far = _FAR * moved if one > CHUNK_BYTES else 0.0
    return time + far + _CALL * max(1.0, moved / CHUNK_BYTES)


def _native_step_time(problem, step):
    """Nanoseconds of a step by compiled kernels; no end of them for matrices that belong to BLAS."""
    p, q = step.rows, step.columns
    if p * q > _NATIVE_LARGEST:
        return inf
    lane, outer = max(1, _LANE_BYTES // problem.itemsize), float(min(problem.batch * step.outer, _HUGE))
    width = ceil(min(step.inner, _HUGE) / lane)
    if step.inner == 1:
        read, written, more = outer * p / lane, outer * ceil(q / lane), _NATIVE_LAST
    else:
        read, written = outer * p * width, outer * q * width
        narrow = step.inner < lane
        more = _NATIVE_NARROW if narrow else _NATIVE_SINGLE if step.inner < 2 * lane else 0.0
    one = float(min(step.size_in + step.size_out, _HUGE)) * problem.itemsize
    far = _FAR * one * problem.batch if one > CHUNK_BYTES else 0.0
    steps = _NATIVE_STEP * max(1.0, one * problem.batch / CHUNK_BYTES)
    each = _NATIVE_MULTIPLY * p + _NATIVE_WRITE + more
    return steps + each * written + _NATIVE_READ * read + far


def _step_products(step: Step, batch: int) -> tuple[int, int, int, int]:
    """The matrix products that make up a step: their number, and (m, k, n) of each one (m, k) @ (k, n)."""
    p, q = step.rows, step.columns
    if step.terms_in > 1 and step.terms_out > 1:
        return batch * step.outer * step.terms_in, q, p, step.inner
    if step.cyclic:
        return batch * step.outer, step.inner, p, q
    if step.inner == 1:
        return 1, batch * step.outer, p * step.terms_in, q * step.terms_out
    return batch * step.outer, q * step.terms_out, p * step.terms_in, step.inner


def _merge_time(problem, step):
    """Nanoseconds to multiply up the factors of a group, and to lay them out for its terms."""
    merges, size = step.stop - step.start - 1, float(min(step.rows * step.columns, _HUGE))
    if problem.native:
        return _NATIVE_MERGE * size + _NATIVE_MERGED * merges
    alone = step.terms_in == step.terms_out == 1
    if problem.rank > 1 and alone:
        added = problem.rank * _MULTIPLY + _LAY_OUT
        return (merges + 1) * 2 * _CALL + problem.itemsize * size * added
    time = 0.0
    if merges:
        time += merges * 2 * _CALL + 1.3 * _MERGE * problem.itemsize * problem.rank * size
    if problem.rank > 1:
        time += _CALL + _MERGE * problem.itemsize * size * problem.rank
    return time


def rest_of(plan: MatmulPlan, itemsize: int) -> MatmulPlan:
    """The plan of all steps but the first of a nested plan, for what that leaves of one entry as a batch."""
    rows = plan.steps[1].outer
    steps = tuple(
        step._replace(outer=step.outer // rows, size_in=step.size_in // rows, size_out=step.size_out // rows)
        for step in plan.steps[1:]
    )
    return _scheduled(plan.path, steps, plan.leftward, True, itemsize)
