"""Products of sums whose terms leave different modes alone: part by part, and the derivatives of these.

`ketcore.products.term_plans` says which terms go together.

    y = sum over parts of  (sum over its terms of F_0[k] (x) ... (x) F_{N-1}[k])^T x

Values of factors that are marked as identities are never read.  Nothing is checked.

Letters: N order, R rank, p and q rows and columns of a window, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from math import prod
from types import ModuleType
from typing import NamedTuple

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import chosen, padded
from ketcore.arrays.namespaces import device_of, is_numpy, is_writeable_in_place
from ketcore.arrays.threads import run_chunks
from ketcore.products import backward, forward
from ketcore.products.plans import MatmulPlan
from ketcore.products.term_plans import Part, TermsPlan
from ketcore.shapes import Marks
from ketcore.tracing import kept

# Places of entries that the matrices of one plan may be made from: half a megabyte.
_PLACES = 1 << 16


def apply(
    xp: ModuleType,
    factors: Sequence[AnyArray],
    x: AnyArray,
    plan: MatmulPlan | TermsPlan,
    columns: int,
    out: AnyArray | None = None,
) -> AnyArray:
    """`forward.apply` by either kind of plan."""
    if isinstance(plan, MatmulPlan):
        return forward.apply(xp, factors, x, plan, columns, out)
    if is_numpy(x):
        return _numpy_apply(factors, x, plan, columns, out)
    total = None
    for part in plan.parts:
        terms = _part_factors(xp, factors, part)
        total = added(total, forward.apply(xp, terms, x, part.plan, columns))
    return total


def apply_vjp(
    xp: ModuleType,
    factors: Sequence[AnyArray],
    x: AnyArray,
    cotangent: AnyArray,
    plan: MatmulPlan | TermsPlan,
    x_too: bool = True,
) -> tuple[tuple[AnyArray, ...], AnyArray | None]:
    """`backward.apply_vjp` by either kind of plan; what comes for identities is not zero."""
    if isinstance(plan, MatmulPlan):
        return backward.apply_vjp(xp, factors, x, cotangent, plan, x_too)
    to_x, found = None, []
    for part in plan.parts:
        terms = _part_factors(xp, factors, part)
        gradients, back = backward.apply_vjp(xp, terms, x, cotangent, part.plan, x_too)
        found.append(gradients)
        to_x = added(to_x, back) if x_too else None
    # Back from the order of the parts to that of the terms.
    order = np.argsort([term for part in plan.parts for term in part.terms])
    joined = (xp.concat(list(mode), axis=0) for mode in zip(*found, strict=True))
    return tuple(_taken(xp, mode, order.tolist()) for mode in joined), to_x


def apply_jvp(
    xp: ModuleType,
    factors: Sequence[AnyArray],
    x: AnyArray,
    factor_tangents: Sequence[AnyArray],
    x_tangent: AnyArray,
    plan: MatmulPlan | TermsPlan,
    columns: int,
) -> AnyArray:
    """`backward.apply_jvp` by either kind of plan; tangents of identities must be zero."""
    if isinstance(plan, MatmulPlan):
        return backward.apply_jvp(xp, factors, x, factor_tangents, x_tangent, plan, columns)
    total = None
    for part in plan.parts:
        terms = _part_factors(xp, factors, part)
        tangents = [_taken(xp, tangent, part.terms) for tangent in factor_tangents]
        moved = backward.apply_jvp(xp, terms, x, tangents, x_tangent, part.plan, columns)
        total = added(total, moved)
    return total


def _part_factors(xp: ModuleType, factors: Sequence[AnyArray], part: Part) -> list[AnyArray]:
    """The terms of a part, with identity matrices in the modes that its plan multiplies by."""
    found = [_taken(xp, factor, part.terms) for factor in factors]
    return with_identities(xp, found, part.identities, part.plan)


def with_identities(
    xp: ModuleType, factors: Sequence[AnyArray], identities: Marks, plan: MatmulPlan | None = None
) -> list[AnyArray]:
    """Factors (..., R, p, q) with identity matrices in the place of those that are known to be.

    With a `plan` only in the modes that it multiplies by; without one in all.
    """
    touched: Sequence[int] = range(len(factors))
    if plan is not None:
        touched = [n for step in plan.steps for n in range(step.start, step.stop)]
    found = list(factors)
    for n in touched:
        factor, flags = found[n], [n in known for known in identities]
        if any(flags):
            eye = xp.eye(*factor.shape[-2:], dtype=factor.dtype, device=device_of(factor))
            whole = xp.broadcast_to(eye, factor.shape)
            found[n] = whole if all(flags) else chosen(xp, _mask(xp, flags, factor), whole, factor)
    return found


def without_identities(xp: ModuleType, arrays: Sequence[AnyArray], identities: Marks) -> list[AnyArray]:
    """Arrays (..., R, p, q) with zeros in the place of those that belong to identities."""
    found = list(arrays)
    for n, array in enumerate(found):
        flags = [n in known for known in identities]
        if any(flags):
            zeros = xp.zeros_like(array)
            found[n] = zeros if all(flags) else chosen(xp, _mask(xp, flags, array), zeros, array)
    return found


def added(total: AnyArray | None, more: AnyArray) -> AnyArray:
    """The sum, in place where the library can; `total` belongs to the caller, None stands for zero."""
    if total is None:
        return more
    if is_writeable_in_place(total):
        total += more
        return total
    return total + more


def _mask(xp, flags, like):
    return xp.asarray(np.array(flags)[:, None, None], device=device_of(like))


def _taken(xp, array, terms):
    """Some terms of an array (R, p, q)."""
    first, last = terms[0], terms[-1]
    if list(terms) == list(range(first, last + 1)):
        return array[first : last + 1, ...]
    return xp.take(array, xp.asarray(np.array(terms), device=device_of(array)), axis=0)


def _numpy_apply(factors, x, plan, columns, out):
    """`apply` on NumPy arrays, where parts add to what there is already."""
    full, x = prod(plan.col_dims), padded(np, x, prod(plan.row_dims), 1)
    y = out
    if y is None or columns < full:
        y = np.empty((x.shape[0], full, x.shape[2]), x.dtype)
    matrices = _window_matrices(factors, plan)
    for i, part in enumerate(plan.parts):
        if i in matrices:
            _window_apply(matrices[i], x, y, part.plan.steps[0], i > 0)
        elif i == 0:
            y[...] = forward.apply(np, _part_factors(np, factors, part), x, part.plan, full)
        else:
            y += forward.apply(np, _part_factors(np, factors, part), x, part.plan, full)
    if columns == full:
        return y
    if out is None:
        return y[:, :columns, :]
    out[...] = y[:, :columns, :]
    return out


# Bytes that are multiplied before they are added to others, so that they are still in a cache then.
_PIECE = 1 << 18


def _window_apply(matrix, x, y, step, more):
    """The array `y` becomes (I (x) matrix (x) I) x, which is added where there is `more` in y already."""
    outer, inner = x.shape[0] * step.outer, step.inner
    if inner == 1:
        source, target = x.reshape(outer, step.rows), y.reshape(outer, step.columns)
    else:
        source, target = x.reshape(outer, step.rows, inner), y.reshape(outer, step.columns, inner)

    def multiply(z, into):
        out = None if more else into
        found = np.matmul(z, matrix.T, out=out) if inner == 1 else np.matmul(matrix, z, out=out)
        if more:
            into += found

    if y.nbytes <= _PIECE:
        multiply(source, target)
        return
    width = max(1, _PIECE // (step.columns * x.itemsize))
    splits = -(-inner // width)

    def work(start, stop):
        if splits == 1:
            multiply(source[start:stop], target[start:stop])
            return
        for place in range(start, stop):
            i, j = divmod(place, splits)
            piece = slice(j * width, (j + 1) * width)
            multiply(source[i, :, piece], target[i, :, piece])

    alone = y.size < forward.WORTH_THREADS
    run_chunks(work, outer * splits, max(1, width // inner), alone=alone, limit_blas=True)


class _Recipe(NamedTuple):
    """How the matrices of all windows of a plan come from the entries of the factors.

    Attributes
    ----------
    sources : list of arrays of ints
        Places among these entries and a one behind them: what is multiplied with one another.
    starts : array of ints
        Where the products begin that are added up to one entry of a matrix.
    targets : array of ints
        The places of these entries.
    sizes : list of tuples
        For each window the number of its part, where its matrix begins, q and p.
    size : int
        Entries of all matrices.
    """

    sources: list[np.ndarray]
    starts: np.ndarray
    targets: np.ndarray
    sizes: list[tuple[int, int, int, int]]
    size: int


def _window_matrices(factors, plan):
    """The matrices (q, p) of the parts that are windows, by their numbers.

    They are gathered from the factors in a few calls for all: merging mode by mode takes longer than all
    products do.
    """
    found = {i: _one_mode(factors, part) for i, part in enumerate(plan.parts) if _is_one_mode(part)}
    # Views of transposed factors are read as they lie.
    turned = factors[0].strides[1] < factors[0].strides[2]
    recipe = _recipe(plan, turned)
    if recipe is None:
        return found
    one, laid_out = np.ones(1, factors[0].dtype), factors
    if turned:
        laid_out = [factor.swapaxes(1, 2) for factor in factors]
    entries = np.concatenate([*laid_out, one], axis=None)
    values = entries.take(recipe.sources[0])
    for source in recipe.sources[1:]:
        values *= entries.take(source)
    matrices = np.zeros(recipe.size, values.dtype)
    matrices[recipe.targets] = np.add.reduceat(values, recipe.starts)
    return found | {i: matrices[at : at + q * p].reshape(q, p) for i, at, q, p in recipe.sizes}


def _is_one_mode(part):
    """Whether the window is one mode, on which all terms act: nothing is to be merged."""
    window = part.window or (0, 0)
    return window[1] - window[0] == 1 and not any(window[0] in known for known in part.identities)


def _one_mode(factors, part):
    terms = _taken(np, factors[part.window[0]], part.terms)
    return (terms[0] if len(terms) == 1 else terms.sum(axis=0)).T


@kept(64)
def _recipe(plan, turned):
    """None where there is nothing to merge, or too much; `turned` for factors whose columns come first."""
    terms, sizes, size = [], [], 0
    for i, part in enumerate(plan.parts):
        if part.window is not None and not _is_one_mode(part):
            p, q = (prod(dims[slice(*part.window)]) for dims in (plan.row_dims, plan.col_dims))
            sizes.append((i, size, q, p))
            terms += [(size, term, (part.window, known)) for term, known in zip(*part[:2], strict=True)]
            size += p * q
    kinds = {kind for *_, kind in terms}
    if not terms or sum(_count(plan, *kind) for kind in kinds) > _PLACES:
        return None
    rank = sum(len(part.terms) for part in plan.parts)
    found = {kind: _entries(plan, rank, turned, *kind) for kind in kinds}
    depth = max(1, *(len(sources) for _, sources in found.values()))
    targets = np.concatenate([begin + found[kind][0] for begin, _, kind in terms])
    if max(size, targets.size * (depth + 1)) > _PLACES:
        return None
    one = rank * sum(p * q for p, q in zip(plan.row_dims, plan.col_dims, strict=True))
    order = np.argsort(targets, kind="stable")
    sources = []
    for k in range(depth):
        places = (_places(*found[kind], k, term, one) for _, term, kind in terms)
        sources.append(np.concatenate(list(places))[order])
    targets, starts = np.unique(targets[order], return_index=True)
    return _Recipe(sources, starts, targets, sizes, size)


def _count(plan, window, identities):
    """How many entries a term has in the matrix of its window."""
    sizes = zip(range(*window), plan.row_dims[slice(*window)], plan.col_dims[slice(*window)], strict=True)
    return prod([min(p, q) if n in identities else p * q for n, p, q in sizes])


def _entries(plan, rank, turned, window, identities):
    """The entries of the first term in the matrix (q, p) of its window.

    Their places there, and for each mode that it acts on the places in its factor, and how far apart two
    terms are.
    """
    rows = columns = np.zeros(1, np.intp)
    sources, first = [], 0
    dims = list(zip(plan.row_dims, plan.col_dims, strict=True))
    for n, (p, q) in enumerate(dims[: window[1]]):
        if n >= window[0]:
            if n in identities:
                i = j = np.arange(min(p, q))
            else:
                i, j = np.indices((p, q)).reshape(2, -1)
            sources = [(np.repeat(places, len(i)), apart) for places, apart in sources]
            if n not in identities:
                places = first + (j * p + i if turned else i * q + j)
                sources.append((np.tile(places, len(rows)), p * q))
            rows = np.repeat(rows * p, len(i)) + np.tile(i, len(rows))
            columns = np.repeat(columns * q, len(j)) + np.tile(j, len(columns))
        first += rank * p * q
    return columns * prod([p for p, _ in dims[slice(*window)]]) + rows, sources


def _places(targets, sources, k, term, one):
    """Where the k-th factors of the entries of a term are; a one where it has fewer."""
    if k >= len(sources):
        return np.full(len(targets), one)
    places, apart = sources[k]
    return places + term * apart
