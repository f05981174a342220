"""A Kronecker matrix times a dense array: the matrix is never formed unless that is the cheapest way.

    x M,   M = sum_k F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import check_identities, check_like, check_out, check_tangents
from ketcore.arrays.elementary import itemsize, padded, reshaped, transposed
from ketcore.arrays.namespaces import accumulation_dtype, is_numpy, quiet
from ketcore.products import backward, chains, direct, forward, fused, plans, term_plans, term_products
from ketcore.products.call import Call, Operands, capturable, check_not_captured, checked, operands
from ketcore.products.term_products import with_identities, without_identities
from ketcore.shapes import broadcast


@overload
def kron_matmul(
    factors: Sequence[HostLike],
    x: HostLike,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
    out: Host | None = None,
) -> Host: ...
@overload
def kron_matmul(
    factors: Sequence[ForeignT],
    x: ForeignT,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
    out: ForeignT | None = None,
) -> ForeignT: ...
@quiet
def kron_matmul(
    factors: Sequence[AnyArray],
    x: AnyArray,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """The product of a dense array with a Kronecker-factorised matrix M: x M, or M^T x.

    M is formed only where that is the cheapest way::

        M = sum_k  F_0[k] (x) F_1[k] (x) ... (x) F_{N-1}[k]

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n) or (batch..., R, p_n, q_n)
        Floating or complex, one R for all; integers and nested lists become floating.  Those with a batch are
        batches of matrices, which broadcast against the leading axes of `x`.
    x : array, (..., rows) or (..., rows, n)
        What is multiplied along axis -1, or along axis -2.
    shape : (int, int), optional
        ``(rows, columns)`` of the leading block of (P, Q) that M is cropped to, with P = prod p_n and
        Q = prod q_n.  By default all of it.
    axis : {-1, -2}, default -1
        -1 gives x M, -2 gives M^T x.
    identities : sequence of ints, or of R collections of ints, default ()
        Modes whose factors are known to be identity matrices: in all terms, or in each of the R terms.  Their
        values are not read, and they have no derivative.
    path : {"modes", "halves", "dense", "terms", "fused"}, optional
        How to multiply.  By default whatever is estimated to cost least.

        - "modes": by one factor after the other.
        - "halves": by two groups of modes, of which the second adds up the terms.
        - "dense": by M itself.
        - "terms": adds up products of a few terms that leave the same modes alone, or most of them.
        - "fused": the CUDA kernel, for arrays of CuPy; on request, and while a CUDA graph is being captured.

        Where the modes do not have what is asked for, the nearest that they have is taken.  Batches of
        matrices have no choice.
    out : array, (..., columns) or (..., columns, n), optional
        An array of NumPy or CuPy, C-contiguous and of the dtype of the result, to write it into.  It may
        overlap what goes in.

    Returns
    -------
    array, (..., columns) or (..., columns, n)
        In the promoted dtype of `factors` and `x`, where ... are the leading axes of `x`, broadcast against a
        batch of matrices; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape, and on an unknown axis, mode or path.
    RuntimeError
        While a CUDA graph is being captured, on another path than None and "fused" and on what the kernel of
        "fused" does not take.

    See Also
    --------
    kron_solve : Systems of linear equations with such a matrix.
    KroneckerMatrix : The matrix as an object, for ``x @ M`` and ``M @ x``.

    Notes
    -----
    Cost: ``O(R |x| sum q_n)`` time for square factors, and the memory of the output and a few megabytes a
    thread.  Compiled kernels multiply NumPy arrays in float32 and float64 by small factors, where ketcore was
    installed with them; BLAS multiplies the others.

    While a CUDA graph is being captured on CuPy's current stream, the CUDA kernel multiplies, since CuPy
    refuses to call cuBLAS then: call with ``path="fused"`` once before, which compiles it.  Results differ
    from those of other paths by rounding.

    NaN and infinity spread at least as far as by the dense product: a zero of one factor does not shield from
    those of another.

    Examples
    --------
    >>> a, b = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[0.0], [1.0]]])
    >>> kron_matmul((a, b), [1.0, 2.0, 3.0, 4.0]).tolist(), np.kron(a[0], b[0]).T.tolist()
    ([14.0, 20.0], [[0.0, 1.0, 0.0, 3.0], [0.0, 2.0, 0.0, 4.0]])
    """
    if out is None and path is None and type(identities) is tuple and not identities:
        found = direct.small_product(factors, x, shape, axis)
        if found is not None:
            return found
    call = capturable(checked(factors, x, shape, axis, identities, path))
    if out is None:
        return _finished(call, _product(call))
    found = check_out(out, call.sizes.result_shape, call.dtype, call.x, call.xp)
    apart = is_numpy(found) and not any(np.may_share_memory(found, a) for a in (call.x, *call.factors))
    if apart and call.dtype == call.wide and call.launch is None and not call.sizes.batched:
        _product(call, found.reshape(call.sizes.count, call.sizes.columns, call.sizes.trail))
    else:
        found[...] = _finished(call, _product(call))
    return found


@overload
def kron_matmul_vjp(
    factors: Sequence[HostLike],
    x: HostLike,
    cotangent: HostLike,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> tuple[tuple[Host, ...], Host]: ...
@overload
def kron_matmul_vjp(
    factors: Sequence[ForeignT],
    x: ForeignT,
    cotangent: ForeignT,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> tuple[tuple[ForeignT, ...], ForeignT]: ...
@quiet
def kron_matmul_vjp(
    factors: Sequence[AnyArray],
    x: AnyArray,
    cotangent: AnyArray,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> tuple[tuple[AnyArray, ...], AnyArray]:
    """Pull a cotangent of `kron_matmul` back to the factors and to x.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n) or (batch..., R, p_n, q_n)
        As of `kron_matmul`.
    x : array, (..., rows) or (..., rows, n)
        As of `kron_matmul`.
    cotangent : array, (..., columns) or (..., columns, n)
        Of the product; real where this is.
    shape : (int, int), optional
        As of `kron_matmul`.
    axis : {-1, -2}, default -1
        As of `kron_matmul`.
    identities : sequence of ints, or of R collections of ints, default ()
        As of `kron_matmul`.
    path : {"modes", "halves", "dense", "terms", "fused"}, optional
        As of `kron_matmul`; "fused" is for the gradient of `x`, those of the factors come as by None.

    Returns
    -------
    to_factors : tuple of N arrays, (R, p_n, q_n) or (batch..., R, p_n, q_n)
        Each in the shape and dtype of its factor: of a real one beside complex ones the real part, zero for
        `identities`.
    to_x : array, (..., rows) or (..., rows, n)
        The same for `x`.

    Raises
    ------
    TypeError, ValueError
        As `kron_matmul`, and on a cotangent that does not fit the product.
    RuntimeError
        While a CUDA graph is being captured: the gradients of the factors are products by cuBLAS.

    Notes
    -----
    Cost: three times `kron_matmul`.

    The plain transpose: nothing is conjugated, also for complex input.

    Examples
    --------
    >>> a, b = np.ones((1, 2, 2)), np.ones((1, 1, 1))
    >>> (to_a, to_b), to_x = kron_matmul_vjp((a, b), [1.0, 2.0], [1.0, 0.0])
    >>> to_a.tolist(), to_b.tolist(), to_x.tolist()
    ([[[1.0, 0.0], [2.0, 0.0]]], [[[3.0]]], [1.0, 1.0])
    """
    call = checked(factors, x, shape, axis, identities, path)
    check_not_captured(call, "kron_matmul_vjp")
    xp, given, fused = call.xp, operands(call), call.launch is not None
    cotangent = check_like("cotangent", cotangent, call.sizes.result_shape, xp, call.x, call.dtype)
    c = call.columns_of(cotangent)
    if call.sizes.batched:
        to_factors, to_x = backward.terms_vjp(xp, _live(call, given), given.x, c)
        to_x = to_x[..., : call.sizes.rows, :]
    else:
        factors, plan = _planned(call, given)
        to_factors, to_x = term_products.apply_vjp(xp, factors, given.x, c, plan, not fused)
        if fused:
            to_x = _fused(call, cotangent, back=True)
    return given.to_factors(call, to_factors), given.to_x(call, to_x)


@overload
def kron_matmul_jvp(
    factors: Sequence[HostLike],
    x: HostLike,
    factor_tangents: Sequence[HostLike],
    x_tangent: HostLike,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> Host: ...
@overload
def kron_matmul_jvp(
    factors: Sequence[ForeignT],
    x: ForeignT,
    factor_tangents: Sequence[ForeignT],
    x_tangent: ForeignT,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> ForeignT: ...
@quiet
def kron_matmul_jvp(
    factors: Sequence[AnyArray],
    x: AnyArray,
    factor_tangents: Sequence[AnyArray],
    x_tangent: AnyArray,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> AnyArray:
    """The derivative of `kron_matmul` along tangents of the factors and of x.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n) or (batch..., R, p_n, q_n)
        As of `kron_matmul`.
    x : array, (..., rows) or (..., rows, n)
        As of `kron_matmul`.
    factor_tangents : sequence of N arrays, (R, p_n, q_n) or (batch..., R, p_n, q_n)
        Of the factors, in their shapes; real where all of `factors` and `x` are.  Those of `identities` count
        as zero.
    x_tangent : array, (..., rows) or (..., rows, n)
        The same of `x`.
    shape : (int, int), optional
        As of `kron_matmul`.
    axis : {-1, -2}, default -1
        As of `kron_matmul`.
    identities : sequence of ints, or of R collections of ints, default ()
        As of `kron_matmul`.
    path : {"modes", "halves", "dense", "terms", "fused"}, optional
        As of `kron_matmul`; "fused" counts as None.

    Returns
    -------
    array, (..., columns) or (..., columns, n)
        In the dtype of what `kron_matmul` returns.

    Raises
    ------
    TypeError, ValueError
        As `kron_matmul`, and on tangents that do not fit.
    RuntimeError
        While a CUDA graph is being captured: tangents are products by cuBLAS.

    Notes
    -----
    Cost: three times `kron_matmul`, N + 1 times for batches of matrices.

    Examples
    --------
    The product is linear in each of a, b and x, so that along these themselves the derivative is three times
    it:

    >>> a, b, x = np.array([[[1.0, 2.0]]]), np.array([[[3.0]]]), np.array([4.0])
    >>> kron_matmul((a, b), x).tolist(), kron_matmul_jvp((a, b), x, (a, b), x).tolist()
    ([12.0, 24.0], [36.0, 72.0])
    """
    call = checked(factors, x, shape, axis, identities, path)
    check_not_captured(call, "kron_matmul_jvp")
    xp, given, columns = call.xp, operands(call), call.sizes.columns
    moved = check_tangents("factor_tangents", factor_tangents, call.factors, xp, call.dtype)
    moved = without_identities(xp, moved, call.marks)
    moved = scale.shifted(call.narrowed(moved), given.shifts)
    x_tangent = check_like("x_tangent", x_tangent, call.x.shape, xp, call.x, call.dtype)
    x_tangent = given.carried(call.rows_of(x_tangent))
    if call.sizes.batched:
        live = _live(call, given)
        total = forward.terms_product(xp, live, x_tangent)
        for n, tangent in enumerate(moved):
            replaced = [*live[:n], tangent, *live[n + 1 :]]
            total = total + forward.terms_product(xp, replaced, given.x)
        total = total[..., :columns, :]
    else:
        factors, plan = _planned(call, given, False)
        total = term_products.apply_jvp(xp, factors, given.x, moved, x_tangent, plan, columns)
    return _finished(call, total)


def kron_matmul_shapes(
    factors: Sequence[AnyArray],
    x: AnyArray,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    **options: object,
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_matmul`, of anything that has a shape."""
    columns = prod(factor.shape[-1] for factor in factors) if shape is None else shape[1]
    lead = reduce(broadcast, (factor.shape[:-3] for factor in factors), tuple(x.shape[:axis]))
    return ((*lead, columns, *x.shape[x.ndim + axis + 1 :]),)


@quiet
def kron_matmul_dense(
    factors: Sequence[AnyArray],
    x: AnyArray,
    shape: tuple[int, int] | None = None,
    *,
    axis: int = -1,
    identities: Sequence[Any] = (),
    path: str | None = None,
) -> np.ndarray:
    """The definition of `kron_matmul` on NumPy arrays: M built by ``np.kron``, then multiplied.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n) or (batch..., R, p_n, q_n)
        As of `kron_matmul`; they are not checked.
    x : array, (..., rows) or (..., rows, n)
        As of `kron_matmul`; they are not checked.
    shape : (int, int), optional
        As of `kron_matmul`; they are not checked.
    axis : {-1, -2}, default -1
        As of `kron_matmul`; they are not checked.
    identities : sequence of ints, or of R collections of ints, default ()
        As of `kron_matmul`.
    path : {"modes", "halves", "dense", "terms", "fused"}, optional
        As of `kron_matmul`; it changes nothing here.

    Returns
    -------
    np.ndarray, (..., columns) or (..., columns, n)
        In the promoted dtype of `factors` and `x`.

    Notes
    -----
    Cost: O(P Q) memory.
    """
    factors, x = [np.asarray(factor) for factor in factors], np.asarray(x)
    dtype = np.result_type(*factors, x)
    wide = accumulation_dtype(np, dtype)
    batch = np.broadcast_shapes(*(factor.shape[:-3] for factor in factors))
    dims = [factor.shape[-2] for factor in factors], [factor.shape[-1] for factor in factors]
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


def _product(call: Call, out: AnyArray | None = None) -> AnyArray:
    """The product in the dtype of sums, (batch, columns, trail), or (*lead, columns, trail) for batches."""
    if call.launch is not None:
        return _fused(call, call.x)
    given, columns = operands(call), call.sizes.columns
    if call.sizes.batched:
        return forward.terms_product(call.xp, _live(call, given), given.x)[..., :columns, :]
    factors, plan = _planned(call, given)
    return term_products.apply(call.xp, factors, given.x, plan, columns, out)


def _finished(call, result):
    """A product, or its tangent, in the dtype and shape of the result."""
    result = result if result.dtype == call.dtype else call.xp.astype(result, call.dtype)
    return reshaped(call.xp, result, call.sizes.result_shape)


def _live(call, given):
    """The factors, with identity matrices in the place of those that are known to be."""
    return with_identities(call.xp, given.factors, call.marks)


def _planned(call: Call, given: Operands, native: bool = True) -> tuple[Sequence[AnyArray], Any]:
    """The factors and the plan for `term_products.apply`; only where `native`, by compiled kernels too."""
    xp, factors, marks, path = call.xp, given.factors, call.marks, call.path
    size, sizes = itemsize(given.x), (given.x.shape[0], call.sizes.trail)
    if not marks:
        path = None if path == term_plans.TERMS else path
        rank = factors[0].shape[0]
        native = native and not chains.obstacle(factors, given.x)
        return factors, plans.matmul_plan(*call.sizes.reached, rank, *sizes, (), size, path, native)
    plan = term_plans.terms_plan(*call.sizes.reached, marks, *sizes, size, path)
    if isinstance(plan, term_plans.TermsPlan):
        return factors, plan
    return with_identities(xp, factors, marks, plan), plan


def _fused(call: Call, array: AnyArray, back: bool = False) -> AnyArray:
    """M^T x by the CUDA kernel, or `back` M c."""
    xp, (rows, columns), sizes = call.xp, call.sizes.reached, (call.sizes.rows, call.sizes.columns)
    factors = [factor[:, :p, :q] for factor, p, q in zip(call.factors, rows, columns, strict=True)]
    idle = [n for n in term_plans.common(call.marks) if rows[n] == columns[n]]
    # Those that all terms leave alone are not multiplied by, and need no values; one mode at least is.
    idle = idle[: len(factors) - 1]
    factors = with_identities(xp, factors, tuple(known.difference(idle) for known in call.marks))
    if back:
        factors, sizes, rows = [transposed(f) for f in factors], sizes[::-1], columns
    x = reshaped(xp, array, (call.sizes.count, sizes[0], call.sizes.trail))
    x = padded(xp, x, prod(rows), 1)
    return fused.matmul(call.launch, factors, x, idle)[:, : sizes[1], :]
