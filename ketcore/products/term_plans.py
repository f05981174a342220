"""Which way to multiply a sum whose terms leave different modes alone: how they are shared out.  Integers.

Where every term acts on a few modes, as the terms of a Hamiltonian or of a Laplacian do, most of the work of
multiplying all terms together is by identity matrices.  Instead the terms are shared out among parts, whose
products are added up:

    windows   neighbouring modes [start, stop) of few rows: all terms that leave the others alone are added up
              into one small matrix
    groups    terms too wide for a window that leave the same modes alone

Windows overlap: a chain of terms on neighbouring pairs of modes needs windows that share a mode.

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from ketcore.products import plans
from ketcore.products.plans import Cost, MatmulPlan, Problem
from ketcore.shapes import Marks, reached_dims
from ketcore.tracing import decided

# The path of products that are added up; the others are those of `plans`.
TERMS = "terms"

# Rows and columns of a window of several modes.
_WINDOW = 64

# Nanoseconds of one thread, as in `plans`: of a part, per byte of its matrix, per byte that is added.
_PART, _LAY_OUT, _ADD = 1700.0, 0.35, 0.145

# No size that fits a machine is cut by this, and its products stay floats.
_HUGE = 1 << 200


class Part(NamedTuple):
    """Some terms, which are multiplied together.

    Attributes
    ----------
    terms : tuple of ints
        Their places in the sum, ascending.
    identities : tuple of frozensets
        The modes that each of them has as an identity.
    window : pair of ints or None
        The modes [start, stop) in which the terms are added up beforehand; None for a group.
    plan : MatmulPlan
        How to multiply.
    """

    terms: tuple[int, ...]
    identities: Marks
    window: tuple[int, int] | None
    plan: MatmulPlan


@dataclass(frozen=True, eq=False)
class TermsPlan:
    """How to multiply part by part; hashes by identity, which takes no time.

    Attributes
    ----------
    row_dims, col_dims : tuple of N ints
        p_n and q_n.
    parts : tuple of Parts
        Each term is in one of them.
    """

    row_dims: tuple[int, ...]
    col_dims: tuple[int, ...]
    parts: tuple[Part, ...]


def common(identities: Marks) -> frozenset[int]:
    """The modes that are identities in every term; none where there are no terms.

    >>> sorted(common((frozenset({0, 1}), frozenset({1, 2}))))
    [1]
    """
    return frozenset.intersection(*identities) if identities else frozenset()


def terms_plan(
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    identities: Marks,
    batch: int,
    trail: int = 1,
    itemsize: int = 8,
    path: str | None = None,
) -> MatmulPlan | TermsPlan:
    """The cheapest way to take (batch, P, trail) to (batch, Q, trail), by all terms together or by parts.

    Parameters
    ----------
    row_dims, col_dims : sequence of N ints
        p_n and q_n.
    identities : tuple of R frozensets
        The modes that each term has as an identity; one that is not square counts as none.
    batch, trail : int
        As of `plans.matmul_plan`.
    itemsize : int, default 8
        As of `plans.matmul_plan`.
    path : str, optional
        None for any; one of `plans.PATHS` for all terms together; TERMS for parts.

    Notes
    -----
    Cost: O(N^2 + R log R) once for every set of sizes and identities.

    Examples
    --------
    >>> chain = tuple(frozenset(range(12)) - {n, n + 1} for n in range(11))
    >>> [part.window for part in terms_plan((2,) * 12, (2,) * 12, chain, 1, path="terms").parts]
    [(0, 4), (3, 8), (7, 12)]
    """
    dims = tuple(row_dims), tuple(col_dims)
    if plans.are_symbols(batch, trail):
        plan = _terms_plan(*dims, identities, *plans.typical(trail), itemsize, path)
        return plan if trail == 1 else _with_trail(plan, trail)
    rounded = 1 << (batch - 1).bit_length() if batch > 1 else 1
    return _terms_plan(*dims, identities, rounded, max(trail, 1), itemsize, path)


def _with_trail(plan, trail):
    if isinstance(plan, MatmulPlan):
        return plans.with_trail(plan, trail)
    parts = [Part(*part[:-1], plans.with_trail(part.plan, trail)) for part in plan.parts]
    return TermsPlan(plan.row_dims, plan.col_dims, tuple(parts))


def terms_cost(
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    identities: Marks,
    batch: int,
    trail: int = 1,
    shape: tuple[int, int] | None = None,
    itemsize: int = 8,
) -> Cost:
    """What `kron_matmul` takes for `batch` rows, or for `batch` matrices of `trail` columns, of R terms.

    `shape` is the crop of (P, Q), None for all of it; the other arguments are those of `terms_plan`.

    >>> marks = frozenset({1}), frozenset({0})
    >>> terms_cost((64, 64), (64, 64), marks, 10).flops
    10526720
    """
    if shape is not None:
        row_dims, col_dims = reached_dims(tuple(row_dims), shape[0]), reached_dims(tuple(col_dims), shape[1])
    plan = terms_plan(row_dims, col_dims, identities, batch, trail, itemsize)
    if isinstance(plan, MatmulPlan):
        return plans.plan_cost(plan, len(identities), batch, itemsize)
    each = [plans.plan_cost(part.plan, len(part.terms), batch, itemsize) for part in plan.parts]
    # Each part but the first is added to what those before it left.
    added = (len(each) - 1) * batch * prod(col_dims) * trail
    flops, moved = sum(cost.flops for cost in each), sum(cost.bytes for cost in each)
    return Cost(flops + added, moved + 3 * added * itemsize, TERMS)


class _Sum(NamedTuple):
    """The sizes of a product, and the modes that each term has as an identity and leaves alone."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    identities: Marks
    idle: Marks
    batch: int
    trail: int
    itemsize: int


@decided(256)
def _terms_plan(rows, columns, identities, batch, trail, itemsize, path):
    """Terms apart where that is estimated to be faster, or is asked for; else together."""
    square = frozenset(n for n, (p, q) in enumerate(zip(rows, columns, strict=True)) if p == q)
    idle = tuple(known & square for known in identities)
    shared = common(idle)
    sizes = (rows, columns, len(identities), batch, trail, shared, itemsize)
    together = plans.matmul_plan(*sizes, path=None if path == TERMS else path)
    if path not in (None, TERMS) or all(known == shared for known in idle):
        return together
    problem = _Sum(rows, columns, identities, idle, batch, trail, itemsize)
    parts, time = _parts(problem)
    if path is None and time >= _plan_time(together, sizes):
        return together
    return TermsPlan(rows, columns, parts)


def _parts(problem):
    """The parts, and the time that they take."""
    spans = [_span(problem, term) for term in range(len(problem.idle))]
    narrow = sorted({span for span in spans if span})
    windows = _windows(problem, narrow)
    found = {window: [] for window in windows}
    for term, (span, idle) in enumerate(zip(spans, problem.idle, strict=True)):
        inside = (w for w in windows if not span or (w[0] <= span[0] and span[1] <= w[1]))
        # A term of identities alone is at home in any window.
        home = next(inside, None) if span or len(idle) == len(problem.rows) else None
        found.setdefault(home or idle, []).append(term)
    parts = [_part(problem, tuple(terms), home) for home, terms in found.items() if terms]
    between = problem.batch * prod(problem.columns) * problem.trail * problem.itemsize
    added = (len(parts) - 1) * (_PART + _ADD * min(between, _HUGE))
    return tuple(part for part, _ in parts), added + sum(time for _, time in parts)


def _span(problem, term):
    """The modes [start, stop) between those that a term leaves alone, where they make a window; else None."""
    live = [n for n in range(len(problem.rows)) if n not in problem.idle[term]]
    if not live:
        return None
    start, stop = live[0], live[-1] + 1
    return (start, stop) if stop == start + 1 or _fits(problem, start, stop) else None


def _fits(problem, start, stop):
    return max(prod(dims[start:stop]) for dims in (problem.rows, problem.columns)) <= _WINDOW


def _windows(problem, spans):
    """The cheapest windows of which one holds each span, ascending.

    A window begins where the first span does that no window before it holds, so that what is best from there
    on depends on nothing before it.
    """
    ends = sorted({stop for _, stop in spans})
    best = {None: (0.0, ())}
    for start in sorted({start for start, _ in spans}, reverse=True):
        least = max(stop for first, stop in spans if first == start)
        choices = []
        for stop in ends:
            if stop == least or (stop > least and _fits(problem, start, stop)):
                after = min((a for a, b in spans if a >= start and b > stop), default=None)
                time, windows = best[after]
                time += _window_time(problem, start, stop)
                choices.append((time, ((start, stop), *windows)))
        best[start] = min(choices)
    return best[spans[0][0]][1] if spans else ()


def _part(problem, terms, home):
    """The part of these terms, and its time; `home` is a window, or the set of modes that all leave alone."""
    sizes, count = (problem.batch, problem.trail), len(terms)
    identities = tuple(problem.identities[term] for term in terms)
    window = home if isinstance(home, tuple) else None
    if window is not None:
        home = frozenset(range(len(problem.rows))) - set(range(*window))
    sizes = (problem.rows, problem.columns, count, *sizes, home, problem.itemsize)
    plan = plans.matmul_plan(*sizes, path="dense" if window else None)
    time = _window_time(problem, *window) if window else _plan_time(plan, sizes)
    return Part(terms, identities, window, plan), time


def _window_time(problem, start, stop):
    """Nanoseconds of one matrix on the modes [start, stop), which is made first."""
    rows, columns, _, _, batch, trail, itemsize = problem
    one = Problem(rows, columns, 1, batch, trail, frozenset(), itemsize, start, stop)
    (step,) = plans.steps_of(one, [(start, stop)])
    return plans.step_time(one, step) + _PART + _LAY_OUT * itemsize * min(step.rows * step.columns, _HUGE)


def _plan_time(plan, sizes):
    """Nanoseconds of a plan for the sizes that it was made of."""
    rows, columns, rank, batch, trail, home, itemsize = sizes
    problem = Problem(rows, columns, rank, batch, trail, home, itemsize, 0, len(rows))
    return _PART + plans.total_time(problem, plan.steps)
