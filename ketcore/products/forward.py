"""Kronecker matrices times dense arrays, group by group of modes and without transposes.

    y = (F_0 (x) ... (x) F_{N-1})^T x:   x as (outer, p, inner)  ->  W x, (outer, q, inner),  for each group

with W the transposed Kronecker product of the factors of a group.  `ketcore.products.plans` says which
groups, in which order and how terms are added up.  Arrays here are (..., P, trail): P runs along the axis
that is contracted, trail is what lies behind it (1 for rows times a matrix).  Nothing is checked: that is
done once, by `ketcore.products.call`.

Letters: N order, R rank, p and q rows and columns of a group, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Collection, Sequence
from math import prod
from threading import local
from types import ModuleType

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import itemsize, padded, permuted, reshaped, transposed
from ketcore.arrays.namespaces import is_numpy, namespace_of
from ketcore.arrays.threads import run_chunks
from ketcore.products import chains
from ketcore.products.cublas import matrix_products
from ketcore.products.plans import CHUNK_BYTES, MatmulPlan, Step, matmul_plan, rest_of


def matmul_by_modes(factors: Sequence[AnyArray], x: AnyArray, axis: int) -> AnyArray:
    """The product x M along the last axis (-1), or M^T x along the one before it (-2); unchecked.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n) or (*batch, R, p_n, q_n)
        Of one dtype, that of x.  Batches broadcast against the leading axes of x.
    x : array, (..., P)
        Or (..., P, trail) where axis is -2.
    axis : {-1, -2}
        Where x has its P.

    Returns
    -------
    array, (..., Q)
        Or (..., Q, trail).
    """
    if axis == -1:
        return matmul_by_modes(factors, x[..., None], -2)[..., 0]
    xp = namespace_of(x)
    if any(factor.ndim > 3 for factor in factors):
        return terms_product(xp, factors, x)
    *lead, rows, trail = x.shape
    flat = xp.reshape(x, (prod(lead), rows, trail))
    plan = plan_of(xp, factors, flat.shape[0], trail)
    y = apply(xp, factors, flat, plan, prod([factor.shape[2] for factor in factors]))
    return xp.reshape(y, (*lead, y.shape[1], trail))


def plan_of(
    xp: ModuleType,
    factors: Sequence[AnyArray],
    batch: int,
    trail: int,
    identities: Collection[int] = (),
    path: str | None = None,
) -> MatmulPlan:
    """The plan for factors (R, p_n, q_n) of one dtype."""
    rows, columns = (tuple(factor.shape[axis] for factor in factors) for axis in (1, 2))
    size = itemsize(factors[0])
    rank, native = factors[0].shape[0], not chains.obstacle(factors, factors[0])
    return matmul_plan(rows, columns, rank, batch, trail, identities, size, path, native)


def apply(
    xp: ModuleType,
    factors: Sequence[AnyArray],
    x: AnyArray,
    plan: MatmulPlan,
    columns: int,
    out: AnyArray | None = None,
) -> AnyArray:
    """M^T x along the middle axis: (batch, rows, trail) to (batch, columns, trail).

    Parameters
    ----------
    xp, factors
        As of `plan_of`, which made the plan.
    x : array, (batch, rows, trail)
        Rows up to P; what is missing counts as zero.
    plan : MatmulPlan
        How to multiply.
    columns : int
        Up to Q; the others are left out.
    out : array, optional
        A C-contiguous NumPy array for the result, which shares no memory with x and the factors.
    """
    rank = factors[0].shape[0]
    if not plan.steps or rank == 0 or 0 in x.shape:
        return _without_steps(xp, x, plan, rank, columns, out)
    if plan.native:
        return chains.apply(factors, x, plan, columns, out)
    weights = group_weights(xp, factors, plan)
    if is_numpy(x):
        plan, weights = _cut(plan, weights, columns * x.shape[2])
        if x.shape[0] == 1:
            x = padded(np, x, plan.steps[0].size_in // x.shape[2], 1)
        if out is None and _in_one_piece(plan, x, columns):
            z = _chain(plan, weights, x, x.shape[0], None, None)
            # Of one row the crop is its beginning.
            return z.reshape(-1)[: x.shape[0] * columns * x.shape[2]].reshape(x.shape[0], columns, x.shape[2])
        out = np.empty((x.shape[0], columns, x.shape[2]), x.dtype) if out is None else out
        _run(plan, weights, x, out)
        return out
    batch, _, trail = x.shape
    z = padded(xp, x, plan.steps[0].size_in // trail, 1)
    for step, weight in zip(plan.steps, weights, strict=True):
        z = step_forward(xp, step, weight, z, batch, plan.leftward)
    return xp.reshape(z, (batch, plan.steps[-1].size_out // trail, trail))[:, :columns, :]


def _cut(plan, weights, size):
    """A plan that is one product of matrices, without the rows of the weight that a crop would drop."""
    step, weight = plan.steps[0], weights[0]
    matrices = weight.ndim == 2 and step.outer == step.inner == 1 and not step.cyclic
    if len(plan.steps) > 1 or not matrices or size == step.size_out:
        return plan, weights
    kept = step._replace(columns=size, size_out=size)
    return plan._replace(steps=(kept,), largest=max(kept.size_in, size)), [weight[:size]]


def _without_steps(xp, x, plan, rank, columns, out):
    y = repeated(xp, x, rank, columns)
    if out is None:
        return y
    out[...] = y
    return out


def repeated(xp: ModuleType, x: AnyArray, rank: int, columns: int) -> AnyArray:
    """R x (batch, columns, trail): the product where there are no terms, no entries, or identities alone."""
    kept = x[:, : min(columns, x.shape[1]), :]
    return padded(xp, kept * rank if rank else xp.zeros_like(kept), columns, 1)


def _in_one_piece(plan: MatmulPlan, x: AnyArray, columns: int) -> bool:
    """Whether a plan takes all rows of x at once, without zeros behind them, and leaves `columns`.

    One row may leave a little more, which stays in memory behind the result.
    """
    batch, _, trail = x.shape
    if batch > plan.chunk or x.size != batch * plan.steps[0].size_in:
        return False
    size, whole = columns * trail, plan.steps[-1].size_out
    fits = size == whole or (batch == 1 and 8 * (whole - size) <= whole)
    return fits and not (batch == 1 and is_deep(plan, x.itemsize))


def _run(plan, weights, x, out):
    """A plan on NumPy arrays: `x` (batch, rows, trail) to `out` (batch, columns, trail)."""
    batch, first, last = x.shape[0], plan.steps[0].size_in, plan.steps[-1].size_out
    source, target = x.reshape(batch, -1), out.reshape(batch, -1)
    if batch == 1 and is_deep(plan, x.itemsize):
        _descend(plan, weights, padded(np, source, first, 1), target)
        return
    # One chunk has no use for the arrays between its steps after it.
    memory = None if batch <= plan.chunk else local()

    def work(start, stop):
        count = stop - start
        z, end = padded(np, source[start:stop], first, 1), target[start:stop]
        if end.shape[1] == last:
            _chain(plan, weights, z, count, end, memory)
            return
        whole = _chain(plan, weights, z, count, np.empty(count * last, out.dtype), memory)
        end[...] = whole.reshape(count, last)[:, : end.shape[1]]

    if batch <= plan.chunk:
        work(0, batch)
    else:
        run_chunks(work, batch, plan.chunk, alone=batch * plan.largest < WORTH_THREADS, limit_blas=True)


def is_deep(plan: MatmulPlan, itemsize: int) -> bool:
    """Whether one row alone fills the cache, and what its first step leaves splits into rows of its own."""
    large = plan.largest * itemsize > CHUNK_BYTES
    return large and plan.nested and len(plan.steps) > 1 and plan.steps[1].outer > 1


def _descend(plan, weights, z, target):
    """One large row: its first step, then the others on what that leaves, as a batch."""
    middle = np.empty(plan.steps[0].size_out, z.dtype)
    _spread(plan.steps[0], weights[0], z, middle, plan.leftward)
    rest, rows, size = rest_of(plan, z.itemsize), plan.steps[1].outer, plan.steps[-1].size_out
    full = target if target.shape[1] == size else np.empty((1, size), target.dtype)
    _run(rest, weights[1:], middle.reshape(rows, -1, 1), full.reshape(rows, -1, 1))
    if full is not target:
        target[...] = full[:, : target.shape[1]]


def _chain(plan, weights, z, batch, out, memory):
    """All steps in turn: z (batch, P trail) into `out`, by way of two buffers of this thread."""
    for i, (step, weight) in enumerate(zip(plan.steps[:-1], weights, strict=False)):
        room = None
        if memory is not None:
            room = _buffers(memory, batch * plan.largest, z.dtype)[i & 1][: batch * step.size_out]
        z = step_forward(np, step, weight, z, batch, plan.leftward, room)
    return step_forward(np, plan.steps[-1], weights[-1], z, batch, plan.leftward, out)


def _buffers(memory, size, dtype):
    """Two arrays of at least `size` entries, one pair for each thread."""
    found = getattr(memory, "buffers", None)
    if found is None or found[0].size < size:
        found = memory.buffers = np.empty(size, dtype), np.empty(size, dtype)
    return found


# Entries from which threads of our own pay.
WORTH_THREADS = 1 << 17


def _spread(step, weight, z, out, leftward):
    """One step of one large row, over threads by what lies behind its modes."""
    m, k = weight.shape[-2:]
    if weight.ndim == 3 or step.cyclic or step.outer > 1 or step.inner == 1:
        step_forward(np, step, weight, z, 1, leftward, out)
        return
    source, target = z.reshape(k, step.inner), out.reshape(m, step.inner)

    def work(start, stop):
        np.matmul(weight, source[:, start:stop], out=target[:, start:stop])

    run_chunks(work, step.inner, max(1, WORTH_THREADS // (k + m)), limit_blas=True)


def step_forward(
    xp: ModuleType,
    step: Step,
    weight: AnyArray,
    z: AnyArray,
    batch: int,
    leftward: bool,
    out: AnyArray | None = None,
) -> AnyArray:
    """What one step makes of z, as an array of any shape whose entries lie in order.

    `weight` is (m, k), or (R, q, p) between the terms; `out` is a contiguous NumPy array of the size of the
    result.
    """
    outer, inner = batch * step.outer, step.inner
    if weight.ndim == 3:
        return _terms_forward(xp, step, weight, z, outer, leftward, out)
    if xp is np:
        return _numpy_forward(step, weight, z, outer, out)
    k = weight.shape[1]
    if step.cyclic:
        return xp.matmul(transposed(xp.reshape(z, (outer, k, inner))), transposed(weight))
    if inner == 1:
        return xp.matmul(xp.reshape(z, (outer, k)), transposed(weight))
    if outer == 1:
        return xp.matmul(weight, xp.reshape(z, (k, inner)))
    return matrix_products(xp, weight, xp.reshape(z, (outer, k, inner)))


def _numpy_forward(step, weight, z, outer, out):
    """`step_forward` of a matrix `weight`, on NumPy arrays."""
    m, k = weight.shape
    inner = step.inner
    if step.cyclic:
        shape = (outer, inner, m)
        a, b = z.reshape(outer, k, inner).swapaxes(1, 2), weight.T
        if outer == 1:
            a, shape = a[0], (inner, m)
    elif inner == 1:
        a, b, shape = z.reshape(outer, k), weight.T, (outer, m)
    elif outer == 1:
        a, b, shape = weight, z.reshape(k, inner), (m, inner)
    else:
        a, b, shape = weight, z.reshape(outer, k, inner), (outer, m, inner)
    return np.matmul(a, b) if out is None else np.matmul(a, b, out=out.reshape(shape))


def _terms_forward(xp, step, weight, z, outer, leftward, out):
    """One step in which every term has a weight of its own."""
    z = reshaped(xp, z, terms_shape(step, outer, step.rows, not leftward))
    z = z if not leftward else swapped_middle(xp, z)
    if out is None:
        y = xp.matmul(weight, z)
        return y if leftward else swapped_middle(xp, y)
    y = out.reshape(terms_shape(step, outer, step.columns, leftward))
    np.matmul(weight, z, out=y if leftward else swapped_middle(np, y))
    return y


def terms_shape(step: Step, outer: int, size: int, before: bool) -> tuple[int, ...]:
    """The shape of a group between two others: terms before its `size` entries, or behind them."""
    pair = (step.terms_in, size) if before else (size, step.terms_in)
    return (outer, *pair, step.inner)


def group_weights(xp: ModuleType, factors: Sequence[AnyArray], plan: MatmulPlan) -> list[AnyArray]:
    """Per step the matrix that multiplies from the left: (m, k), or (R, q, p) for all terms side by side."""
    rank, found = factors[0].shape[0], []
    for step in plan.steps:
        if rank == 1 and step.stop - step.start == 1:
            found.append(transposed(factors[step.start][0, ...]))
            continue
        group = merged_modes(xp, factors[step.start : step.stop], is_summed(step, rank))
        found.append(as_weight(xp, group, step, plan.leftward))
    return found


def is_summed(step: Step, rank: int) -> bool:
    """Whether a group adds up the terms before it multiplies: it is the only one."""
    return rank > 1 and step.terms_in == step.terms_out == 1


def merged_modes(xp: ModuleType, factors: Sequence[AnyArray], summed: bool = False) -> AnyArray:
    """(R, p, q): per term the Kronecker product of factors; (1, p, q), the sum of the terms, if `summed`."""
    if len(factors) == 1:
        return xp.sum(factors[0], axis=0, keepdims=True) if summed else factors[0]
    half = len(factors) // 2
    left, right = merged_modes(xp, factors[:half]), merged_modes(xp, factors[half:])
    (rank, p, q), (_, s, t) = left.shape, right.shape
    if not summed:
        pairs = left[:, :, None, :, None] * right[:, None, :, None, :]
        return reshaped(xp, pairs, (rank, p * s, q * t))
    flat = xp.matmul(transposed(reshaped(xp, left, (rank, p * q))), reshaped(xp, right, (rank, s * t)))
    return reshaped(xp, swapped_middle(xp, reshaped(xp, flat, (p, q, s, t))), (1, p * s, q * t))


def swapped_middle(xp: ModuleType, array: AnyArray) -> AnyArray:
    """Four axes with the two in the middle exchanged."""
    return permuted(xp, array, (0, 2, 1, 3))


def weight_axes(step: Step, leftward: bool) -> tuple[int, int, int]:
    """How the axes (R, p, q) of merged factors are ordered in the weight of a step.

    Terms lie right before what the next group multiplies: behind a group on the way to the last mode, before
    it on the way to the first.
    """
    if step.terms_in > 1 and step.terms_out > 1:
        return (0, 2, 1)
    if step.terms_out > 1:
        return (0, 2, 1) if leftward else (2, 0, 1)
    return (2, 1, 0) if leftward else (2, 0, 1)


def as_weight(xp: ModuleType, factor: AnyArray, step: Step, leftward: bool) -> AnyArray:
    """Merged factors (R, p, q) as the weight of a step."""
    rank, p, q = factor.shape
    if rank == 1:
        return transposed(factor[0, ...])
    weight = permuted(xp, factor, weight_axes(step, leftward))
    if step.terms_in > 1 and step.terms_out > 1:
        return weight
    return reshaped(xp, weight, (step.terms_out * q, step.terms_in * p))


def terms_product(xp: ModuleType, factors: Sequence[AnyArray], x: AnyArray) -> AnyArray:
    """(..., P, trail) to (..., Q, trail): one mode after another, all terms side by side.

    The way for any factors: also for batches of matrices.
    """
    return xp.sum(modes(xp, factors, x)[-1], axis=-3)


def modes(xp: ModuleType, factors: Sequence[AnyArray], x: AnyArray) -> list[AnyArray]:
    """What goes into each mode, (..., R or 1, outer, p_n, inner), and last the terms (..., R, Q, trail)."""
    trail, outer, inner = x.shape[-1], 1, prod(x.shape[-2:])
    z, found = x[..., None, :, :], []
    for factor in factors:
        rows, columns = factor.shape[-2:]
        inner //= rows
        z = xp.reshape(z, (*z.shape[:-2], outer, rows, inner))
        found.append(z)
        z = xp.matmul(transposed(factor)[..., None, :, :], z)
        outer *= columns
        z = xp.reshape(z, (*z.shape[:-3], outer, inner))
    return [*found, xp.reshape(z, (*z.shape[:-2], outer, trail))]
