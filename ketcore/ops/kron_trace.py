"""The trace of a Kronecker matrix, cropped or not.

    tr(M) = sum_k prod_n tr(F_n[k])   for square factors; of a leading block, the same over boxes of digits

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence
from typing import Any

import array_api_compat
import numpy as np

from ketcore import scale
from ketcore.backend import Array, accumulation_dtype, cast_gradient, index_dtype, quiet
from ketcore.ops import terms
from ketcore.ops.checks import check_like, check_shape, check_tables, check_tangents
from ketcore.ops.segments import segment_sum

# Elements of a diagonal that are summed at a time where the factors are not square.
_CHUNK = 1 << 16


@quiet
def kron_trace(factors: Sequence[Array], shape: tuple[int, int] | None = None) -> Array:
    """sum_i M[i, i] over i < min(shape).

    factors  N arrays (R, p_n, q_n), floating or complex
    shape    (rows, columns), the leading block of (P, Q) that M is cropped to; None is all of it
    returns  an array without dimensions in the promoted dtype; 16-bit storage is summed in float32
    raises   TypeError, ValueError on kinds and shapes
    cost     O(N R sum p_n) for square factors, O(N R min(shape)) for others

    >>> a, b = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[5.0, 1.0], [1.0, 6.0]]])
    >>> float(kron_trace((a, b))), float(np.trace(np.kron(a[0], b[0])))
    (55.0, 55.0)
    """
    call = _Call(factors, shape)
    xp = call.xp
    total = sum(xp.sum(terms.product(call.parts(call.wide, piece))) for piece in call.pieces())
    return xp.astype(total, call.dtype, copy=False)


@quiet
def kron_trace_vjp(
    factors: Sequence[Array], cotangent: Array, shape: tuple[int, int] | None = None
) -> tuple[Array, ...]:
    """Pull `cotangent`, without dimensions, back through `kron_trace` to the factors.

    returns  N arrays in the shapes and dtypes of the factors: zero off the diagonals of square factors
    raises   as `kron_trace`; TypeError, ValueError on the cotangent
    """
    call = _Call(factors, shape)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, (), xp, call.factors[0], call.dtype)
    cotangent = xp.astype(cotangent, call.wide[0].dtype, copy=False)
    totals = [xp.zeros_like(factor) for factor in call.wide]
    for piece in call.pieces():
        others = terms.products_of_others(xp, call.parts(call.wide, piece))
        found = [call.spread(n, cotangent * other, piece) for n, other in enumerate(others)]
        totals = [total + more for total, more in zip(totals, found, strict=True)]
    totals = scale.shifted(totals, call.shifts)
    return tuple(cast_gradient(xp, t, f) for t, f in zip(totals, call.factors, strict=True))


@quiet
def kron_trace_jvp(
    factors: Sequence[Array], tangents: Sequence[Array], shape: tuple[int, int] | None = None
) -> Array:
    """The derivative of `kron_trace` along the tangents of the factors.

    raises   as `kron_trace`; TypeError, ValueError on the tangents
    """
    call = _Call(factors, shape)
    xp = call.xp
    tangents = check_tangents("tangents", tangents, call.factors, xp, call.dtype)
    tangents = [xp.astype(t, call.wide[0].dtype, copy=False) for t in tangents]
    tangents = scale.shifted(tangents, call.shifts)
    total = 0
    for piece in call.pieces():
        others = terms.products_of_others(xp, call.parts(call.wide, piece))
        moved = call.parts(tangents, piece)
        total = total + sum(xp.sum(o * m) for o, m in zip(others, moved, strict=True))
    return xp.astype(total, call.dtype, copy=False)


@quiet
def kron_trace_dense(factors: Sequence[Array], shape: tuple[int, int] | None = None) -> np.ndarray:
    """The definition on NumPy arrays: M multiplied out, then np.trace.  Costs P Q memory."""
    return np.trace(terms.dense(factors, shape)).astype(np.result_type(*factors))


class _Call:
    """The checked arguments of one call.

    A piece of the sum is what `parts` takes from each factor: for square factors all boxes of the diagonal,
    per box the range of each digit; otherwise some of the elements i, per element its place in each factor.
    """

    def __init__(self, factors: Sequence[Array], shape: Any) -> None:
        self.xp, self.factors, self.dtype = check_tables("factors", factors)
        self.count = min(check_shape(shape, self.factors))
        wide = accumulation_dtype(self.xp, self.dtype)
        wide = [self.xp.astype(factor, wide, copy=False) for factor in self.factors]
        self.wide, self.shifts = scale.level(wide, None)
        self.dims = [tuple(factor.shape[axis] for factor in self.factors) for axis in (1, 2)]
        self.square = self.dims[0] == self.dims[1]

    def pieces(self):
        """Per piece one array for each mode: masks (boxes, 1, p_n), or places (elements,)."""
        xp, like = self.xp, self.factors[0]
        if self.square:
            masks = terms.diagonal_masks(self.dims[0], self.count)
            yield [terms.on_device(xp, mask[:, None, :], like) for mask in masks]
            return
        for start in range(0, self.count, _CHUNK):
            ids = np.arange(start, min(start + _CHUNK, self.count))
            rows, columns = (np.unravel_index(ids, dims) for dims in self.dims)
            places = [i * q + j for i, j, q in zip(rows, columns, self.dims[1], strict=True)]
            device = array_api_compat.device(like)
            yield [xp.asarray(place, dtype=index_dtype(xp), device=device) for place in places]

    def parts(self, factors, piece):
        """What each factor adds to the sum: (boxes, R) partial traces, or (elements, R) entries."""
        return [self._part(factor, at) for factor, at in zip(factors, piece, strict=True)]

    def _part(self, factor, at):
        xp = self.xp
        if self.square:
            diagonal = xp.linalg.diagonal(factor)
            return xp.sum(xp.where(at, diagonal, xp.zeros_like(diagonal)), axis=-1)
        rank, rows, columns = factor.shape
        return xp.permute_dims(xp.take(xp.reshape(factor, (rank, rows * columns)), at, axis=1), (1, 0))

    def spread(self, n, cotangent, piece):
        """The transpose of `_part`: (boxes or elements, R) to (R, p_n, q_n)."""
        xp, at, (_, rows, columns) = self.xp, piece[n], self.factors[n].shape
        if not self.square:
            sums = segment_sum(xp, cotangent, at, rows * columns)
            return xp.reshape(xp.permute_dims(sums, (1, 0)), (-1, rows, columns))
        cotangent = cotangent[:, :, None]
        diagonal = xp.sum(xp.where(at, cotangent, xp.zeros_like(cotangent)), axis=0)
        eye = xp.eye(rows, dtype=xp.bool, device=array_api_compat.device(cotangent))
        return xp.where(eye, diagonal[:, :, None], xp.zeros_like(diagonal[:, :, None]))
