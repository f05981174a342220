"""The trace of a Kronecker matrix, cropped or not.

    tr(M) = sum_k prod_n tr(F_n[k])   for square factors; of a leading block, the same over boxes of digits

Where factors are not square, neighbours are merged to square ones if there are such; else the elements of the
diagonal are summed.

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import add
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike
from ketcore.arrays import scale
from ketcore.arrays.checks import check_like, check_shape, check_tables, check_tangents
from ketcore.arrays.elementary import as_dtype, beside, elementwise_product
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, device_of, index_dtype, quiet
from ketcore.lookups.digits import split_digits
from ketcore.lookups.segments import segment_sum
from ketcore.products import terms
from ketcore.products.backward import merged_tangent, unmerged
from ketcore.products.forward import merged_modes
from ketcore.tracing import decided

# Elements that factors may be merged to.
_MERGED = 1 << 20

# Entries of factors that are multiplied at a time where the factors are not square.
_CHUNK = 1 << 18


@overload
def kron_trace(factors: Sequence[HostLike], shape: tuple[int, int] | None = None) -> Host: ...
@overload
def kron_trace(factors: Sequence[ForeignT], shape: tuple[int, int] | None = None) -> ForeignT: ...
@quiet
def kron_trace(factors: Sequence[AnyArray], shape: tuple[int, int] | None = None) -> AnyArray:
    """The trace of a Kronecker matrix, which is never formed.

    For square factors it is a sum over terms of products of traces::

        tr(M) = sum_k prod_n tr(F_n[k])

    Others are merged with their neighbours where these are square together; else the elements of the diagonal
    are summed.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        Floating or complex, one R for all; integers and nested lists become floating.
    shape : (int, int), optional
        ``(rows, columns)`` of the leading block of (P, Q) that M is cropped to, with P = prod p_n and
        Q = prod q_n.  By default all of it.  The sum is over ``i < min(shape)``, as that of ``np.trace``.

    Returns
    -------
    array, ()
        In the promoted dtype; 16-bit storage is summed in float32.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape.

    See Also
    --------
    partial_trace : Over some modes alone.
    KroneckerMatrix.trace : The same of a matrix as an object.

    Notes
    -----
    Cost: ``O(N R sum p_n)`` time for square factors; ``O(R sum p_n q_n)`` of merged ones for those that are
    square together with their neighbours; ``O(N R min(shape))`` for others.

    Examples
    --------
    >>> a, b = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[5.0, 1.0], [1.0, 6.0]]])
    >>> float(kron_trace((a, b))), float(np.trace(np.kron(a[0], b[0])))
    (55.0, 55.0)
    """
    call = _Call(factors, shape)
    xp = call.xp
    total = reduce(add, [xp.sum(elementwise_product(call.parts(piece))) for piece in call.pieces()])
    return as_dtype(xp, total, call.dtype)


@overload
def kron_trace_vjp(
    factors: Sequence[HostLike], cotangent: HostLike, shape: tuple[int, int] | None = None
) -> tuple[Host, ...]: ...
@overload
def kron_trace_vjp(
    factors: Sequence[ForeignT], cotangent: ForeignT, shape: tuple[int, int] | None = None
) -> tuple[ForeignT, ...]: ...
@quiet
def kron_trace_vjp(
    factors: Sequence[AnyArray], cotangent: AnyArray, shape: tuple[int, int] | None = None
) -> tuple[AnyArray, ...]:
    """Pull a cotangent of `kron_trace` back to the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_trace`.
    cotangent : float, complex or array, ()
        Of the trace; real where this is.
    shape : (int, int), optional
        As of `kron_trace`.

    Returns
    -------
    tuple of N arrays, (R, p_n, q_n)
        Each in the dtype of its factor: of a real one beside complex ones the real part.  Zero off the
        diagonals of square factors.

    Raises
    ------
    TypeError, ValueError
        As `kron_trace`, and on a cotangent that is no number.

    Notes
    -----
    The plain transpose: nothing is conjugated, also for complex input.

    Examples
    --------
    >>> [g.tolist() for g in kron_trace_vjp(([[[1.0, 2.0], [3.0, 4.0]]], [[[5.0]]]), 1.0)]
    [[[[5.0, 0.0], [0.0, 5.0]]], [[[5.0]]]]
    """
    call = _Call(factors, shape)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, (), xp, call.factors[0], call.dtype)
    cotangent = xp.astype(cotangent, call.wide[0].dtype, copy=False)
    totals: Any = None
    for piece in call.pieces():
        others = terms.products_of_others(xp, call.parts(piece))
        found = call.spread([cotangent * other for other in others], piece)
        totals = found if totals is None else [t + more for t, more in zip(totals, found, strict=True)]
    totals = scale.shifted(totals, call.shifts)
    return tuple(cast_gradient(xp, t, f) for t, f in zip(totals, call.factors, strict=True))


@overload
def kron_trace_jvp(
    factors: Sequence[HostLike], tangents: Sequence[HostLike], shape: tuple[int, int] | None = None
) -> Host: ...
@overload
def kron_trace_jvp(
    factors: Sequence[ForeignT], tangents: Sequence[ForeignT], shape: tuple[int, int] | None = None
) -> ForeignT: ...
@quiet
def kron_trace_jvp(
    factors: Sequence[AnyArray], tangents: Sequence[AnyArray], shape: tuple[int, int] | None = None
) -> AnyArray:
    """The derivative of `kron_trace` along tangents of the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_trace`.
    tangents : sequence of N arrays, (R, p_n, q_n)
        Of the factors; real where all of these are.
    shape : (int, int), optional
        As of `kron_trace`.

    Returns
    -------
    array, ()
        In the dtype of what `kron_trace` returns.

    Raises
    ------
    TypeError, ValueError
        As `kron_trace`, and on tangents that do not fit the factors.
    """
    call = _Call(factors, shape)
    xp = call.xp
    tangents = check_tangents("tangents", tangents, call.factors, xp, call.dtype)
    tangents = [xp.astype(t, call.wide[0].dtype, copy=False) for t in tangents]
    tangents = scale.shifted(tangents, call.shifts)
    total = 0
    for piece in call.pieces():
        others = terms.products_of_others(xp, call.parts(piece))
        moved = call.parts(piece, tangents)
        total = total + sum(xp.sum(o * m) for o, m in zip(others, moved, strict=True))
    return xp.astype(total, call.dtype, copy=False)


def kron_trace_shapes(factors: Sequence[AnyArray], **options: object) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_trace`, of anything that has a shape."""
    return ((),)


@quiet
def kron_trace_dense(factors: Sequence[AnyArray], shape: tuple[int, int] | None = None) -> np.ndarray:
    """The definition of `kron_trace` on NumPy arrays: M multiplied out, then ``np.trace``.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_trace`; they are not checked.
    shape : (int, int), optional
        As of `kron_trace`; they are not checked.

    Returns
    -------
    np.ndarray, ()
        In the promoted dtype.

    Notes
    -----
    Cost: O(P Q) memory.
    """
    return np.trace(terms.dense_matrix(factors, shape)).astype(np.result_type(*factors))


class _Call:
    """The checked arguments of one call.

    A piece of the sum is what `parts` takes from each factor: of square ones the boxes of the diagonal, None
    for all of it; otherwise some of the elements i, per element its place in each factor.
    """

    def __init__(self, factors: Sequence[AnyArray], shape: Any) -> None:
        self.xp, self.factors, self.dtype = check_tables("factors", factors)
        self.count = min(check_shape(shape, self.factors))
        wide = accumulation_dtype(self.xp, self.dtype)
        wide = [as_dtype(self.xp, factor, wide) for factor in self.factors]
        self.wide, self.shifts = scale.level(wide, None)
        self.dims = [tuple([factor.shape[axis] for factor in self.factors]) for axis in (1, 2)]
        self.groups: Any = _square_groups(*self.dims)

    def pieces(self):
        """Per piece one array for each mode or group: masks (boxes, 1, p_n), None, or places (elements,)."""
        like = self.factors[0]
        if self.groups is not None:
            masks: list[Any] = [None] * len(self.groups)
            if self.count < prod(self.dims[0]):
                masks = terms.diagonal_masks(self.sizes(), self.count)
                masks = [beside(mask[:, None, :], like) for mask in masks]
            yield masks
            return
        device = device_of(like)
        step = max(1, _CHUNK // (len(self.factors) * max(1, like.shape[0])))
        for start in range(0, self.count, step):
            ids = np.arange(start, min(start + step, self.count))
            rows, columns = (split_digits(ids, dims) for dims in self.dims)
            places = [i * q + j for i, j, q in zip(rows, columns, self.dims[1], strict=True)]
            yield [self.xp.asarray(p, dtype=index_dtype(self.xp), device=device) for p in places]

    def sizes(self):
        return tuple([prod(self.dims[0][group]) for group in self.groups])

    def parts(self, piece, tangents=None):
        """What each factor, or group of factors, adds to the sum.

        That is (boxes, R) partial traces, or (elements, R) entries; with tangents of the factors, the
        derivatives of these along them.
        """
        if self.groups is None:
            arrays = self.wide if tangents is None else tangents
            return [self._entries(array, at) for array, at in zip(arrays, piece, strict=True)]
        xp, found = self.xp, []
        for mask, group in zip(piece, self.groups, strict=True):
            if tangents is None:
                matrix = merged_modes(xp, self.wide[group])
            else:
                matrix = merged_tangent(xp, self.wide[group], tangents[group], False)
            if mask is None:
                found.append(xp.linalg.trace(matrix)[None, :])
                continue
            diagonal = xp.linalg.diagonal(matrix)
            found.append(xp.sum(xp.where(mask, diagonal, xp.zeros_like(diagonal)), axis=-1))
        return found

    def _entries(self, factor, at):
        """The entries of a factor at flat places, (places, R)."""
        rank, rows, columns = factor.shape
        flat = self.xp.reshape(factor, (rank, rows * columns))
        return self.xp.permute_dims(self.xp.take(flat, at, axis=1), (1, 0))

    def spread(self, cotangents, piece):
        """The transpose of `parts`: N arrays (R, p_n, q_n)."""
        xp, found = self.xp, []
        if self.groups is None:
            for cotangent, at, rows, columns in zip(cotangents, piece, *self.dims, strict=True):
                sums = segment_sum(xp, cotangent, at, rows * columns)
                found.append(xp.reshape(xp.permute_dims(sums, (1, 0)), (-1, rows, columns)))
            return found
        for group, size, mask, cotangent in zip(self.groups, self.sizes(), piece, cotangents, strict=True):
            cotangent = cotangent[:, :, None]
            if mask is not None:
                cotangent = xp.where(mask, cotangent, xp.zeros_like(cotangent))
            diagonal = xp.sum(cotangent, axis=0)[:, :, None]
            eye = xp.eye(size, dtype=xp.bool, device=device_of(cotangent))
            found += unmerged(xp, self.wide[group], xp.where(eye, diagonal, xp.zeros_like(diagonal)))
        return found


@decided(256)
def _square_groups(row_dims, col_dims):
    """Slices of neighbours that are square together, as short as can be; None where there are none."""
    found, start = [], 0
    for stop in range(1, len(row_dims) + 1):
        rows, columns = prod(row_dims[start:stop]), prod(col_dims[start:stop])
        if stop - start > 1 and rows * columns > _MERGED:
            return None
        if rows == columns:
            found.append(slice(start, stop))
            start = stop
    return found if start == len(row_dims) else None
