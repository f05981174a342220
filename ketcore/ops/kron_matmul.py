"""A Kronecker matrix times a dense array: the matrix is never formed unless that is the cheapest way.

    x M,   M = sum_k F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from functools import lru_cache, reduce
from math import prod
from typing import Any

import numpy as np

from ketcore import backend, plans, scale, term_plans
from ketcore.backend import Array, accumulation_dtype, cast_gradient, is_numpy, namespace, quiet
from ketcore.display import check_addressable
from ketcore.elementary import itemsize, padded, reshaped, transposed
from ketcore.ops import matmul_kernels, mode_gradients, mode_products, term_products
from ketcore.ops.checks import (
    COMMON,
    check_floating,
    check_identities,
    check_like,
    check_out,
    check_shape,
    check_tangents,
)
from ketcore.ops.term_products import with_identities, without_identities
from ketcore.shapes import reached_dims

_PATHS = (None, *plans.PATHS, term_plans.TERMS, "fused")


@quiet
def kron_matmul(
    factors: Sequence[Array],
    x: Array,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
    out: Array | None = None,
) -> Array:
    """x M, or M^T x: the product of a dense array with M along one of its axes.

    factors     N arrays (R, p_n, q_n), floating or complex, one R for all; (*batch, R, p_n, q_n) are batches
                of matrices, which broadcast against the leading axes of x
    x           (..., rows), or (..., rows, n) where axis is -2
    shape       (rows, columns), the leading block of (P, Q) that M is cropped to; None is all of it
    axis        -1: x M, (..., columns).  -2: M^T x, (..., columns, n)
    identities  modes whose factors are known to be identity matrices in all terms, or R collections of
                modes, one for each term: their values are not read, and they have no derivative
    path        None: the cheapest by `ketcore.plans`; "modes", "halves" (two groups of modes, of which the
                second adds up the terms) and "dense" force one, or the nearest that these modes have; "terms"
                adds up products of a few terms that leave the same modes alone, or most; "fused" is the CUDA
                kernel.  Batches of matrices have no choice
    out         array of the shape and dtype of the result to write into, NumPy and CuPy only; it may overlap
                what goes in
    returns     (*lead, columns) or (*lead, columns, n) in the promoted dtype of `factors` and `x`, `lead`
                being the leading axes of x, broadcast; 16-bit storage is summed in float32
    raises      TypeError, ValueError on kinds and shapes
    cost        time O(R |x| sum q_n) for square factors, memory that of the output and a few megabytes a
                thread.  NaN and infinity spread at least as far as by the dense product: a zero of one factor
                does not shield from those of another

    >>> a, b = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[0.0], [1.0]]])
    >>> kron_matmul((a, b), [1.0, 2.0, 3.0, 4.0]).tolist(), np.kron(a[0], b[0]).T.tolist()
    ([14.0, 20.0], [[0.0, 1.0, 0.0, 3.0], [0.0, 2.0, 0.0, 4.0]])
    """
    call = _Call(factors, x, shape, axis, identities, path)
    xp, room = call.xp, None
    if out is not None:
        out = check_out(out, call.result_shape, call.dtype, call.x, xp)
        apart = is_numpy(out) and not any(np.may_share_memory(out, a) for a in (call.x, *call.factors))
        room = out.reshape(call.flat_shape(call.columns)) if apart and call.dtype == call.wide else None
    if path == "fused":
        result = call.fused(call.x)
    elif call.batched:
        result = mode_products.terms_product(xp, call.live(), call.wide_x)[..., : call.columns, :]
    else:
        factors, plan = call.planned()
        result = term_products.apply(xp, factors, call.wide_x, plan, call.columns, room)
        if room is not None:
            return out
    result = result if result.dtype == call.dtype else xp.astype(result, call.dtype)
    result = reshaped(xp, result, call.result_shape)
    if out is None:
        return result
    out[...] = result
    return out


@quiet
def kron_matmul_vjp(
    factors: Sequence[Array],
    x: Array,
    cotangent: Array,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> tuple[tuple[Array, ...], Array]:
    """Pull `cotangent`, of the shape of the product, back through `kron_matmul` to the factors and to x.

    returns  N arrays in the shapes and dtypes of the factors (zero for `identities`), and one in those of x.
             The plain transpose: no conjugation, also for complex input
    options  all others as in `kron_matmul`; "fused" is for the gradient of x, the factors' come as by None
    raises   as `kron_matmul`; TypeError, ValueError on the cotangent
    cost     three times `kron_matmul`

    >>> a, b = np.ones((1, 2, 2)), np.ones((1, 1, 1))
    >>> (to_a, to_b), to_x = kron_matmul_vjp((a, b), [1.0, 2.0], [1.0, 0.0])
    >>> to_a.tolist(), to_b.tolist(), to_x.tolist()
    ([[[1.0, 0.0], [2.0, 0.0]]], [[[3.0]]], [1.0, 1.0])
    """
    call = _Call(factors, x, shape, axis, identities, path)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, call.result_shape, xp, call.x, call.dtype)
    if call.batched:
        c = call.in_wide(cotangent, (*call.lead, call.columns, call.trail))
        c = padded(xp, c, prod(call.reached[1]), -2)
        to_factors, to_x = mode_gradients.terms_vjp(xp, call.live(), call.wide_x, c)
        to_x = to_x[..., : call.rows, :]
    else:
        c = call.in_wide(cotangent, call.flat_shape(call.columns))
        factors, plan = call.planned()
        to_factors, to_x = term_products.apply_vjp(xp, factors, call.wide_x, c, plan, path != "fused")
        if path == "fused":
            to_x = call.fused(cotangent, back=True)
    return call.whole(to_factors), call.like_x(to_x)


@quiet
def kron_matmul_jvp(
    factors: Sequence[Array],
    x: Array,
    factor_tangents: Sequence[Array],
    x_tangent: Array,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> Array:
    """The derivative of `kron_matmul` along the tangents of the factors and of x.

    options  all others as in `kron_matmul`; tangents of `identities` count as zero, "fused" counts as None
    raises   as `kron_matmul`; TypeError, ValueError on the tangents
    cost     three times `kron_matmul`, N + 1 times for batches of matrices
    """
    call = _Call(factors, x, shape, axis, identities, path)
    xp = call.xp
    moved = check_tangents("factor_tangents", factor_tangents, call.factors, xp, call.dtype)
    moved = without_identities(xp, moved, call.marks)
    moved = scale.shifted(call.narrowed(moved), call.shifts)
    x_tangent = check_like("x_tangent", x_tangent, call.x.shape, xp, call.x, call.dtype)
    x_tangent = call.carried(call.rows_of(x_tangent))
    if call.batched:
        live = call.live()
        total = mode_products.terms_product(xp, live, x_tangent)
        for n, tangent in enumerate(moved):
            replaced = [*live[:n], tangent, *live[n + 1 :]]
            total = total + mode_products.terms_product(xp, replaced, call.wide_x)
        total = total[..., : call.columns, :]
    else:
        factors, plan = call.planned()
        total = term_products.apply_jvp(xp, factors, call.wide_x, moved, x_tangent, plan, call.columns)
    return xp.reshape(xp.astype(total, call.dtype, copy=False), call.result_shape)


@quiet
def kron_matmul_dense(
    factors: Sequence[Array],
    x: Array,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> np.ndarray:
    """The definition on NumPy arrays: M built by np.kron, then multiplied.  Costs P Q memory."""
    factors, x = [np.asarray(factor) for factor in factors], np.asarray(x)
    dtype = np.result_type(*factors, x)
    wide = accumulation_dtype(np, dtype)
    batch = np.broadcast_shapes(*(factor.shape[:-3] for factor in factors))
    dims = [[factor.shape[axis] for factor in factors] for axis in (-2, -1)]
    marks = check_identities(identities, dims, factors[0].shape[-3])
    rows, columns = shape or map(prod, dims)
    dense = np.zeros((*batch, rows, columns), wide)
    for at in np.ndindex(*batch):
        members = [np.broadcast_to(f, (*batch, *f.shape[-3:]))[at].astype(wide) for f in factors]
        for known, *terms in zip(marks, *members, strict=True):
            terms = [np.eye(len(m), dtype=wide) if n in known else m for n, m in enumerate(terms)]
            dense[at] += reduce(np.kron, terms)[:rows, :columns]
    if axis == -1:
        return (x.astype(wide)[..., None, :] @ dense)[..., 0, :].astype(dtype)
    return (np.swapaxes(dense, -1, -2) @ x.astype(wide)).astype(dtype)


class _Call:
    """The checked arguments of one call.

    factors, x   as given, as arrays
    cut          the factors as far as a crop reaches, in the dtype of sums and at one level
    wide_x       x as (batch, rows, trail) in the dtype of sums; (*lead, P, trail) for batches of matrices
    shifts, carry    what levelled the factors and scaled x, see `ketcore.scale`
    marks        the modes that are identities, R sets; none where nothing is known to be
    """

    def __init__(self, factors, x, shape, axis, identities, path):
        xp, self.factors, self.x, self.dtype = _check_arrays(factors, x)
        self.xp = xp
        known = xp is np and self.dtype.itemsize > 2
        self.wide = self.dtype if known else accumulation_dtype(xp, self.dtype)
        shapes = tuple([tuple(factor.shape) for factor in self.factors])
        if shape is not None:
            _dims(shapes)
            shape = check_shape(shape, self.factors)
        if axis not in (-1, -2):
            raise ValueError(f"axis must be -1 or -2, got {axis}")
        sizes = _sizes(shapes, tuple(self.x.shape), axis, shape)
        dims, self.reached, self.uncropped, self.batched = sizes[:4]
        self.lead, self.trail, self.result_shape, self.rows, self.columns = sizes[4:]
        self.marks = ()
        if type(identities) is not tuple or identities:
            self.marks = check_identities(identities, dims, shapes[0][-3])
        self.path, self.launch, self.shifts, self.carry = path, None, None, 0
        if path is not None:
            self.launch, self.path = _check_path(path, self), None if path == "fused" else path
        if self.launch is None:
            self.widen()

    def widen(self):
        """Set `cut` and `wide_x`, which the product by the kernel does without."""
        self.cut = self.narrowed(self.factors)
        if self.xp is np and len(self.cut) > 1:
            self.cut, self.shifts, self.carry = scale.level_and_carry(self.cut, None, self.marks)
        self.wide_x = self.carried(self.rows_of(self.x))

    def carried(self, x):
        """An array like `wide_x`, or its gradient, with the scale of M where that is out of range."""
        return scale.times_power(x, self.carry) if self.carry else x

    def flat_shape(self, size):
        """(batch, size, trail): leading axes as one."""
        return (prod(self.lead), size, self.trail)

    def rows_of(self, array):
        """An array like x as (batch, rows, trail), in the dtype of sums; see `wide_x`."""
        if not self.batched:
            return self.in_wide(array, self.flat_shape(self.rows))
        lead = self.x.shape[: self.x.ndim - len(self.result_shape) + len(self.lead)]
        return padded(self.xp, self.in_wide(array, (*lead, self.rows, self.trail)), prod(self.reached[0]), -2)

    def in_wide(self, array, shape):
        """`array` in the dtype of sums and in another shape."""
        array = array if array.dtype == self.wide else self.xp.astype(array, self.wide)
        return reshaped(self.xp, array, shape)

    def narrowed(self, arrays):
        """Arrays in the shapes of the factors as far as a crop reaches, in the dtype of sums."""
        if self.uncropped and all(array.dtype == self.wide for array in arrays):
            return arrays
        found = []
        for array, p, q in zip(arrays, *self.reached, strict=True):
            if array.shape[-2:] != (p, q):
                array = array[..., :p, :q]
            found.append(array if array.dtype == self.wide else self.xp.astype(array, self.wide))
        return found

    def live(self):
        """The factors, with identity matrices in the place of those that are known to be."""
        return with_identities(self.xp, self.cut, self.marks)

    def planned(self):
        """The factors and the plan for `mode_products.apply`."""
        if self.launch is not None:
            self.widen()
        size, path = itemsize(self.wide_x), self.path
        sizes = self.wide_x.shape[0], self.trail
        if not self.marks:
            rank, path = self.cut[0].shape[0], None if path == term_plans.TERMS else path
            return self.cut, plans.matmul_plan(*self.reached, rank, *sizes, (), size, path)
        plan = term_plans.terms_plan(*self.reached, self.marks, *sizes, size, path)
        if isinstance(plan, term_plans.TermsPlan):
            return self.cut, plan
        return with_identities(self.xp, self.cut, self.marks, plan), plan

    def fused(self, array, back=False):
        """M^T x by the CUDA kernel, or `back` M c."""
        factors = [factor[:, :p, :q] for factor, p, q in zip(self.factors, *self.reached, strict=True)]
        idle = [n for n in term_plans.common(self.marks) if self.reached[0][n] == self.reached[1][n]]
        # Those that all terms leave alone are not multiplied by, and need no values; one mode at least is.
        idle = idle[: len(factors) - 1]
        marks = [known.difference(idle) for known in self.marks]
        factors = with_identities(self.xp, factors, marks)
        sizes, reached = (self.rows, self.columns), self.reached
        if back:
            factors, sizes, reached = [transposed(f) for f in factors], sizes[::-1], reached[::-1]
        x = padded(self.xp, reshaped(self.xp, array, self.flat_shape(sizes[0])), prod(reached[0]), 1)
        return matmul_kernels.matmul(self.launch, factors, x, idle)[:, : sizes[1], :]

    def like_x(self, gradient):
        """A gradient in the shape and dtype of x."""
        return self.cast(reshaped(self.xp, self.carried(gradient), tuple(self.x.shape)), self.x)

    def cast(self, gradient, primal):
        """A gradient in the dtype of its primal."""
        return gradient if gradient.dtype == primal.dtype else cast_gradient(self.xp, gradient, primal)

    def whole(self, gradients):
        """Gradients of the reached parts as gradients of the factors."""
        found = []
        gradients = without_identities(self.xp, scale.shifted(gradients, self.shifts), self.marks)
        for gradient, factor in zip(gradients, self.factors, strict=True):
            if not self.uncropped:
                for axis in (-2, -1):
                    gradient = padded(self.xp, gradient, factor.shape[axis], axis)
            found.append(self.cast(gradient, factor))
        return tuple(found)


def _check_arrays(factors, x):
    """The namespace, the factors, x, and the dtype of the result."""
    # Most calls have NumPy arrays of one dtype, of which this is all there is to know.
    if type(x) is np.ndarray and isinstance(factors, list | tuple) and factors and x.dtype in COMMON:
        dtype = x.dtype
        for factor in factors:
            if type(factor) is not np.ndarray or factor.dtype != dtype:
                break
        else:
            return np, tuple(factors), x, dtype
    _, factors, dtype = check_floating("factors", factors)
    _, (x,), x_dtype = check_floating("x", (x,))
    xp = namespace("factors and x", (*factors, x))
    if dtype != x_dtype:
        _, _, dtype = check_floating("factors and x", (*factors, x))
    return xp, factors, x, dtype


@lru_cache(maxsize=1024)
def _dims(shapes):
    """Of factors of these shapes (row dims, column dims), (P, Q), and whether they are batches."""
    if any(len(shape) < 3 or shape[-3] != shapes[0][-3] for shape in shapes):
        raise ValueError(
            f"factors must be arrays (..., rank, rows, columns) of one rank, got shapes {list(shapes)}"
        )
    dims = tuple(shape[-2] for shape in shapes), tuple(shape[-1] for shape in shapes)
    if min(*dims[0], *dims[1]) < 1:
        raise ValueError(f"factors must have at least one row and one column each, got shapes {list(shapes)}")
    return dims, (prod(dims[0]), prod(dims[1])), max(map(len, shapes)) > 3


@lru_cache(maxsize=1024)
def _sizes(shapes, given, axis, shape):
    """Of factors and x of these shapes: dims, reached, uncropped, batched, lead, trail, result_shape, rows
    and columns as `_Call` has them.
    """
    dims, full, batched = _dims(shapes)
    rows, columns = shape = shape or full
    if len(given) < -axis or given[axis] != rows:
        raise ValueError(f"x must have {rows} entries along axis {axis}, got shape {given}")
    behind = given[axis + 1 :] if axis == -2 else ()
    lead = given[: len(given) - 1 - len(behind)]
    lead = _broadcast(shapes, lead) if batched else lead
    reached = dims
    if shape != full:
        reached = reached_dims(dims[0], rows), reached_dims(dims[1], columns)
    result_shape = (*lead, columns, *behind)
    check_addressable(result_shape)
    return dims, reached, shape == full, batched, lead, prod(behind), result_shape, rows, columns


def _check_path(path, call):
    """What launches the CUDA kernel, where that is the path."""
    if path not in _PATHS:
        raise ValueError(f"path must be one of {_PATHS}, got {path!r}")
    if path is not None and call.batched:
        raise ValueError(f"path must be None for batches of matrices, got {path!r}")
    if path != "fused":
        return None
    launch = backend.launcher(call.x)
    if launch is None:
        raise TypeError(f"path must not be 'fused' but for arrays of CuPy, got {type(call.x).__name__}")
    reason = matmul_kernels.obstacle(call.factors, call.x, term_plans.common(call.marks))
    if reason:
        raise ValueError(f"factors and x {reason}")
    return launch


def _broadcast(shapes, lead):
    batches = [shape[:-3] for shape in shapes]
    try:
        return np.broadcast_shapes(*batches, lead)
    except ValueError:
        rule = "must have batches that broadcast against the leading axes of x"
        raise ValueError(f"factors {rule}, got {batches} and {lead}") from None
