"""The derivatives of `ketcore.products.forward`, pulled back (cotangents) and pushed forward (tangents).

For a group with weight W, what goes into it z and the cotangent c of what comes out, both (outer, ., inner):

    to W   sum over outer and inner of c z^T        to z   W^T c

The gradient of the merged factors of a group falls back to the factors by contraction with the others.
Nothing is checked and nothing is conjugated.

Letters: N order, R rank, p and q rows and columns of a group, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from itertools import zip_longest
from math import prod
from threading import local
from types import ModuleType
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.elementary import padded, reshaped, transposed
from ketcore.arrays.namespaces import is_numpy, namespace_of
from ketcore.arrays.threads import run_chunks
from ketcore.products import chains
from ketcore.products.cublas import matrix_products
from ketcore.products.forward import (
    WORTH_THREADS,
    as_weight,
    group_weights,
    is_deep,
    is_summed,
    merged_modes,
    modes,
    plan_of,
    repeated,
    step_forward,
    swapped_middle,
    terms_shape,
    weight_axes,
)
from ketcore.products.plans import MatmulPlan, Step, rest_of
from ketcore.tracing import is_symbol


def matmul_vjp(
    factors: Sequence[AnyArray], x: AnyArray, cotangent: AnyArray, axis: int
) -> tuple[tuple[AnyArray, ...], AnyArray]:
    """The gradients of `forward.matmul_by_modes` with respect to the factors and to x; unchecked.

    Parameters
    ----------
    factors, x
        As of `forward.matmul_by_modes`.
    cotangent : array, (..., Q)
        Or (..., Q, trail) where axis is -2.
    axis
        As of `forward.matmul_by_modes`.

    Returns
    -------
    to_factors : tuple of N arrays
        In the shapes of the factors.
    to_x : array
        In the shape of x.
    """
    if axis == -1:
        to_factors, to_x = matmul_vjp(factors, x[..., None], cotangent[..., None], -2)
        return to_factors, to_x[..., 0]
    xp = namespace_of(x)
    if any(factor.ndim > 3 for factor in factors):
        return terms_vjp(xp, factors, x, cotangent)
    *lead, _, trail = x.shape
    flat, c = (reshaped(xp, a, (prod(lead), a.shape[-2], trail)) for a in (x, cotangent))
    plan = plan_of(xp, factors, flat.shape[0], trail)
    to_factors, to_x = apply_vjp(xp, factors, flat, c, plan)
    return to_factors, reshaped(xp, to_x, tuple(x.shape))


def apply_vjp(
    xp: ModuleType,
    factors: Sequence[AnyArray],
    x: AnyArray,
    cotangent: AnyArray,
    plan: MatmulPlan,
    x_too: bool = True,
) -> tuple[tuple[AnyArray, ...], AnyArray | None]:
    """The gradients of `forward.apply`: of the factors (zero for identities), and of x.

    Parameters
    ----------
    xp, factors
        As of `forward.apply`.
    x : array, (batch, rows, trail)
        Rows up to P.
    cotangent : array, (batch, columns, trail)
        Columns up to Q.
    plan
        As of `forward.apply`.
    x_too : bool, default True
        Whether the gradient of x is wanted; None stands for it where it is not.
    """
    rank = factors[0].shape[0]
    if not plan.steps or rank == 0 or 0 in x.shape:
        to_x = repeated(xp, cotangent, rank, x.shape[1])
        return tuple(xp.zeros_like(factor) for factor in factors), to_x
    if plan.native:
        to_groups, to_x = chains.apply_vjp(factors, x, cotangent, plan)
        return _spread_over_factors(xp, factors, plan, to_groups), to_x
    weights = group_weights(xp, factors, plan)
    if is_numpy(x):
        to_weights, to_x = _rows_vjp(plan, weights, x, cotangent)
    else:
        batch, rows, trail = x.shape
        z = padded(xp, x, plan.steps[0].size_in // trail, 1)
        c = padded(xp, cotangent, plan.steps[-1].size_out // trail, 1)
        to_weights, to_x = _chunk_vjp(xp, plan, weights, z, c, batch, x_too=x_too)
        if x_too:
            to_x = reshaped(xp, to_x, (batch, plan.steps[0].size_in // trail, trail))[:, :rows, :]
    return _factor_gradients(xp, factors, plan, to_weights), to_x


def _rows_vjp(plan, weights, x, cotangent):
    """Chunk by chunk, whose gradients of the weights are added up in order."""
    batch, rows, trail = x.shape
    source, c = x.reshape(batch, rows * trail), cotangent.reshape(batch, -1)
    first, last = plan.steps[0].size_in, plan.steps[-1].size_out
    if batch == 1 and is_deep(plan, x.itemsize):
        to_weights, to_x = _deep_vjp(plan, weights, padded(np, source, first, 1), padded(np, c, last, 1))
        return to_weights, to_x.reshape(1, first)[:, : rows * trail].reshape(x.shape)
    if batch <= plan.chunk and first == rows * trail:
        to_weights, to_x = _chunk_vjp(np, plan, weights, source, padded(np, c, last, 1), batch)
        return to_weights, to_x.reshape(x.shape)
    to_x, found, memory = np.empty((batch, rows * trail), x.dtype), {}, local()

    def work(start, stop):
        z, cut = (padded(np, a[start:stop], size, 1) for a, size in ((source, first), (c, last)))
        room = to_x[start:stop] if first == rows * trail and weights[0].ndim == 2 else None
        arrays = _between(memory, plan, min(batch, plan.chunk), x.dtype)
        between = [array[: stop - start] for array in arrays]
        found[start], back = _chunk_vjp(np, plan, weights, z, cut, stop - start, room, between=between)
        if room is None:
            to_x[start:stop] = back.reshape(stop - start, first)[:, : rows * trail]

    run_chunks(work, batch, plan.chunk, alone=batch * plan.largest < WORTH_THREADS, limit_blas=True)
    total, *others = (found[start] for start in sorted(found))
    for part in others:
        total = [one + other for one, other in zip(total, part, strict=True)]
    return total, to_x.reshape(batch, rows, trail)


def _deep_vjp(plan, weights, z, c):
    """One large row: what its first step leaves is a batch for the others."""
    step, weight, rows = plan.steps[0], weights[0], plan.steps[1].outer
    middle = step_forward(np, step, weight, z, 1, plan.leftward)
    rest = rest_of(plan, z.itemsize)
    to_rest, c = _rows_vjp(rest, weights[1:], middle.reshape(rows, -1, 1), c.reshape(rows, -1, 1))
    to_weight, to_z = step_vjp(np, step, weight, z, c, 1, plan.leftward)
    return [to_weight, *to_rest], to_z


def _between(memory, plan, count, dtype):
    """For each step but the last an array for what it leaves of `count` rows, kept by this thread."""
    if not hasattr(memory, "arrays"):
        memory.arrays = [np.empty((count, step.size_out), dtype) for step in plan.steps[:-1]]
    return memory.arrays


def _chunk_vjp(xp, plan, weights, z, c, batch, out=None, x_too=True, between=()):
    """Gradients of the weights, and of z if `x_too`; `between` has room for what the steps leave."""
    inputs, to_weights, leftward = [z], [], plan.leftward
    for step, weight, room in zip_longest(plan.steps[:-1], weights[:-1], between):
        inputs.append(step_forward(xp, step, weight, inputs[-1], batch, leftward, room))
    for i in range(len(inputs) - 1, -1, -1):
        z, wanted = inputs.pop(), i > 0 or x_too
        room = _room(z) if i else out
        to_weight, c = step_vjp(xp, plan.steps[i], weights[i], z, c, batch, leftward, room, wanted)
        to_weights.append(to_weight)
    return to_weights[::-1], c


def _room(z):
    """What went into a step, for its own gradient: no new memory, whose pages cost as much as the product."""
    return z if is_numpy(z) and z.flags.c_contiguous else None


def step_vjp(
    xp: ModuleType,
    step: Step,
    weight: AnyArray,
    z: AnyArray,
    c: AnyArray,
    batch: int,
    leftward: bool,
    out: AnyArray | None = None,
    z_too: bool = True,
) -> tuple[AnyArray, Any]:
    """The gradients of `forward.step_forward`: of the weight, in its shape, and of z if `z_too`."""
    outer, inner = batch * step.outer, step.inner
    if weight.ndim == 3:
        z = reshaped(xp, z, terms_shape(step, outer, step.rows, not leftward))
        c = reshaped(xp, c, terms_shape(step, outer, step.columns, leftward))
        z, c = (swapped_middle(xp, z), c) if leftward else (z, swapped_middle(xp, c))
        to_weight = xp.sum(xp.matmul(c, transposed(z)), axis=0)
        if not z_too:
            return to_weight, None
        to_z = xp.matmul(transposed(weight), c)
        return to_weight, swapped_middle(xp, to_z) if leftward else to_z
    m, k = weight.shape
    batches = (outer,) if is_symbol(outer) or outer > 1 else ()
    if step.cyclic:
        z, c = reshaped(xp, z, (*batches, k, inner)), transposed(reshaped(xp, c, (*batches, inner, m)))
        to_weight = _matmul(xp, c, transposed(z), None)
        to_weight = xp.sum(to_weight, axis=0) if batches else to_weight
        return to_weight, _matmul(xp, transposed(weight), c, out) if z_too else None
    if inner == 1:
        z, c = reshaped(xp, z, (outer, k)), reshaped(xp, c, (outer, m))
        return xp.matmul(transposed(c), z), _matmul(xp, c, weight, out) if z_too else None
    z, c = reshaped(xp, z, (*batches, k, inner)), reshaped(xp, c, (*batches, m, inner))
    to_weight = _outer_sum(xp, c, z) if batches else xp.matmul(c, transposed(z))
    return to_weight, _matmul(xp, transposed(weight), c, out) if z_too else None


def _matmul(xp, a, b, out):
    if out is None:
        return xp.matmul(a, b) if xp is np or b.ndim == 2 else matrix_products(xp, a, b)
    lead = a.shape[:-2] if a.ndim > b.ndim else b.shape[:-2]
    return np.matmul(a, b, out=out.reshape(*lead, a.shape[-2], b.shape[-1]))


def _outer_sum(xp, c, z):
    """The sum over outer and inner of c (outer, m, inner) and z (outer, k, inner): (m, k)."""
    outer, m, inner = c.shape
    k = z.shape[1]
    if inner * (m + k) > _COPIES * m * k:
        return xp.sum(matrix_products(xp, c, transposed(z)), axis=0)
    c = reshaped(xp, xp.permute_dims(c, (1, 0, 2)), (m, outer * inner))
    z = reshaped(xp, xp.permute_dims(z, (1, 0, 2)), (k, outer * inner))
    return xp.matmul(c, transposed(z))


# Entries of a sum of products that cost as much as one entry that is copied first, for one product instead.
_COPIES = 1


def _factor_gradients(xp, factors, plan, to_weights):
    """Gradients of the factors from those of the weights of each step, in the order of modes."""
    groups, rank = [], factors[0].shape[0]
    for step, to_weight in zip(plan.steps, to_weights, strict=True):
        if is_summed(step, rank):
            groups.append(transposed(to_weight)[None, ...])
        else:
            groups.append(_as_factor(xp, to_weight, step, rank, plan.leftward))
    return _spread_over_factors(xp, factors, plan, groups)


def _spread_over_factors(xp, factors, plan, to_groups):
    """The same from gradients of the merged factors of each step, (R, p, q), or (1, p, q) of their sum."""
    found = {}
    for step, gradient in zip(plan.steps, to_groups, strict=True):
        for n, part in enumerate(unmerged(xp, factors[step.start : step.stop], gradient), step.start):
            found[n] = part
    return tuple(found[n] if n in found else xp.zeros_like(f) for n, f in enumerate(factors))


def _as_factor(xp, weight, step, rank, leftward):
    """The transpose of `as_weight`: (R, p, q)."""
    p, q = step.rows, step.columns
    if rank == 1:
        return transposed(weight)[None, ...]
    axes, sizes = weight_axes(step, leftward), (rank, p, q)
    weight = reshaped(xp, weight, tuple(sizes[n] for n in axes))
    return xp.permute_dims(weight, tuple(axes.index(n) for n in range(3)))


def unmerged(xp: ModuleType, factors: Sequence[AnyArray], gradient: AnyArray) -> list[AnyArray]:
    """The gradient (R or 1, p, q) of merged factors, pulled back to each; 1 where they were added up."""
    rank = factors[0].shape[0]
    if len(factors) == 1:
        if tuple(gradient.shape) == tuple(factors[0].shape):
            return [gradient]
        return [xp.broadcast_to(gradient, factors[0].shape) + xp.zeros_like(factors[0])]
    half = len(factors) // 2
    left, right = merged_modes(xp, factors[:half]), merged_modes(xp, factors[half:])
    (_, p, q), (_, s, t) = left.shape, right.shape
    split = reshaped(xp, gradient, (gradient.shape[0], p, s, q, t))
    split = reshaped(xp, xp.permute_dims(split, (0, 1, 3, 2, 4)), (gradient.shape[0], p * q, s * t))
    to_left = xp.matmul(split, reshaped(xp, right, (rank, s * t, 1)))
    to_right = xp.matmul(transposed(split), reshaped(xp, left, (rank, p * q, 1)))
    return [
        *unmerged(xp, factors[:half], reshaped(xp, to_left, left.shape)),
        *unmerged(xp, factors[half:], reshaped(xp, to_right, right.shape)),
    ]


def apply_jvp(
    xp: ModuleType,
    factors: Sequence[AnyArray],
    x: AnyArray,
    factor_tangents: Sequence[AnyArray],
    x_tangent: AnyArray,
    plan: MatmulPlan,
    columns: int,
) -> AnyArray:
    """The derivative (batch, columns, trail) of `forward.apply` along tangents of factors and x."""
    batch, _, trail = x.shape
    rank = factors[0].shape[0]
    if not plan.steps or rank == 0 or 0 in x.shape:
        return repeated(xp, x_tangent, rank, columns)
    weights, width = group_weights(xp, factors, plan), plan.steps[0].size_in // trail
    z, moved = padded(xp, x, width, 1), padded(xp, x_tangent, width, 1)
    for step, weight in zip(plan.steps, weights, strict=True):
        group = slice(step.start, step.stop)
        tangent = merged_tangent(xp, factors[group], factor_tangents[group], is_summed(step, rank))
        tangent = as_weight(xp, tangent, step, plan.leftward)
        sides = (
            step_forward(xp, step, w, side, batch, plan.leftward)
            for w, side in ((weight, moved), (tangent, z))
        )
        moved = _added(xp, *sides)
        z = step_forward(xp, step, weight, z, batch, plan.leftward)
    return reshaped(xp, moved, (batch, plan.steps[-1].size_out // trail, trail))[:, :columns, :]


def _added(xp, left, right):
    return left + reshaped(xp, right, left.shape)


def merged_tangent(
    xp: ModuleType, factors: Sequence[AnyArray], tangents: Sequence[AnyArray], summed: bool
) -> AnyArray:
    """The derivative of `forward.merged_modes` along tangents of the factors."""
    total = None
    for n, tangent in enumerate(tangents):
        part = merged_modes(xp, [*factors[:n], tangent, *factors[n + 1 :]], summed)
        total = part if total is None else total + part
    return total


def terms_vjp(
    xp: ModuleType, factors: Sequence[AnyArray], x: AnyArray, cotangent: AnyArray
) -> tuple[tuple[AnyArray, ...], AnyArray]:
    """The transpose of `forward.terms_product`."""
    *inputs, last = modes(xp, factors, x)
    c = xp.broadcast_to(cotangent[..., None, :, :], last.shape)
    found = []
    for factor, z in zip(reversed(factors), reversed(inputs), strict=True):
        outer, rows, inner = z.shape[-3:]
        c = reshaped(xp, c, (*c.shape[:-2], outer, factor.shape[-1], inner))
        found.append(summed_like(xp, xp.sum(xp.matmul(z, transposed(c)), axis=-3), factor.shape))
        c = xp.matmul(factor[..., None, :, :], c)
        c = reshaped(xp, c, (*c.shape[:-3], outer * rows, inner))
    to_x = xp.sum(reshaped(xp, c, (*c.shape[:-2], *x.shape[-2:])), axis=-3)
    return tuple(reversed(found)), summed_like(xp, to_x, x.shape)


def summed_like(xp: ModuleType, gradient: AnyArray, shape: Sequence[int]) -> AnyArray:
    """`gradient` summed over the axes that broadcasting `shape` added."""
    extra = gradient.ndim - len(shape)
    stretched = (extra + i for i, size in enumerate(shape) if size == 1 != gradient.shape[extra + i])
    axes = (*range(extra), *stretched)
    gradient = xp.sum(gradient, axis=axes) if axes else gradient
    return reshaped(xp, gradient, tuple(shape))
