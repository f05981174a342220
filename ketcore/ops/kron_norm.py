"""The Frobenius norm of a Kronecker matrix, cropped or not.

    |M| = sqrt(sum_{k,l} prod_n <F_n[k], F_n[l]>),   d |M| = Re <M, dM> / |M|

Every leaf is scaled by a power of two to a magnitude near 1, so that products over modes do not overflow
where the norm does not.

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ketcore.backend import Array, accumulation_dtype, cast_gradient, is_complex, quiet
from ketcore.elementary import conjugated, transposed
from ketcore.ops import terms
from ketcore.ops.checks import check_like, check_shape, check_tables, check_tangents


@quiet
def kron_norm(factors: Sequence[Array], shape: tuple[int, int] | None = None) -> Array:
    """sqrt(sum_ij |M_ij|^2).

    factors  N arrays (R, p_n, q_n), floating or complex
    shape    (rows, columns), the leading block of (P, Q) that M is cropped to; None is all of it
    returns  an array without dimensions in the real dtype of the factors; 16-bit storage is summed in
             float32.  Where the terms cancel, rounding is relative to the terms and not to their sum
    raises   TypeError, ValueError on kinds and shapes
    cost     O(R^2 sum p_n q_n), up to N^2 times that where both axes are cropped

    >>> a, b = np.array([[[3.0, 4.0]]]), np.array([[[0.0], [2.0]]])
    >>> float(kron_norm((a, b))), float(np.linalg.norm(np.kron(a[0], b[0])))
    (10.0, 10.0)
    """
    call = _Call(factors, shape)
    return call.finished(call.xp.sqrt(call.squared) * call.top)


@quiet
def kron_norm_vjp(
    factors: Sequence[Array], cotangent: Array, shape: tuple[int, int] | None = None
) -> tuple[Array, ...]:
    """Pull `cotangent`, real and without dimensions, back through `kron_norm` to the factors.

    returns  N arrays in the shapes and dtypes of the factors.  At a norm of zero, where there is no
             derivative, they are zero: the subgradient of least norm
    raises   as `kron_norm`; TypeError, ValueError on the cotangent
    """
    call = _Call(factors, shape)
    xp = call.xp
    cotangent = check_like("cotangent", cotangent, (), xp, call.factors[0], xp.float64)
    cotangent = xp.astype(cotangent, call.real, copy=False) * call.inverse_root
    found = []
    for n, (unit, other) in enumerate(zip(call.units, call.others(), strict=True)):
        rest = 2.0 ** (call.total - call.exponents[n])[:, None, None]
        pulled = transposed(other * call.weights[:, None]) @ conjugated(unit)
        pulled = xp.reshape(xp.sum(pulled, axis=0), call.factors[n].shape)
        found.append(cast_gradient(xp, cotangent * rest * pulled, call.factors[n]))
    return tuple(found)


@quiet
def kron_norm_jvp(
    factors: Sequence[Array], tangents: Sequence[Array], shape: tuple[int, int] | None = None
) -> Array:
    """The derivative of `kron_norm` along the tangents of the factors; zero at a norm of zero.

    raises   as `kron_norm`; TypeError, ValueError on the tangents
    """
    call = _Call(factors, shape)
    xp = call.xp
    tangents = check_tangents("tangents", tangents, call.factors, xp, call.dtype)
    moved = terms.masked_leaves(xp, tangents, call.shape, call.working)
    total = 0
    for n, (unit, other) in enumerate(zip(call.units, call.others(), strict=True)):
        rest = 2.0 ** (call.total - call.exponents[n])
        gram = conjugated(unit) @ transposed(moved[n])
        total = total + xp.sum(call.weights[:, None] * rest[None, :] * other * gram)
    total = xp.real(total) if is_complex(xp, call.working) else total
    return call.finished(total * call.inverse_root)


@quiet
def kron_norm_dense(factors: Sequence[Array], shape: tuple[int, int] | None = None) -> np.ndarray:
    """The definition on NumPy arrays: M multiplied out, then np.linalg.norm.  Costs P Q memory."""
    dtype = np.zeros((), np.result_type(*factors)).real.dtype
    return np.linalg.norm(terms.dense(factors, shape)).astype(dtype)


class _Call:
    """The checked arguments of one call, scaled: F_n[k] = 2^exponents[n][k] units[n][k]."""

    def __init__(self, factors: Sequence[Array], shape: Any) -> None:
        self.xp, self.factors, self.dtype = check_tables("factors", factors)
        xp = self.xp
        self.shape = check_shape(shape, self.factors)
        self.working = accumulation_dtype(xp, self.dtype)
        leaves = terms.masked_leaves(xp, self.factors, self.shape, self.working)
        sizes = [xp.max(xp.abs(leaf), axis=(0, 2)) for leaf in leaves]
        sizes = [xp.where((s > 0) & xp.isfinite(s), s, xp.ones_like(s)) for s in sizes]
        self.real = sizes[0].dtype
        self._scale(leaves, [xp.floor(xp.log2(size)) for size in sizes])

    def _scale(self, leaves, powers):
        xp = self.xp
        self.units = [leaf / (2.0**power)[:, None] for leaf, power in zip(leaves, powers, strict=True)]
        self.exponents, self.total = powers, sum(powers)
        largest = xp.max(self.total) if self.total.shape[0] else xp.sum(self.total)
        self.top, self.weights = 2.0**largest, 2.0 ** (self.total - largest)
        self.grams = terms.grams(xp, self.units, self.units)
        both = self.weights[:, None] * self.weights[None, :]
        squared = xp.sum(both * terms.product(self.grams))
        squared = xp.real(squared) if is_complex(xp, self.working) else squared
        self.squared = xp.where(squared < 0, xp.zeros_like(squared), squared)
        safe = xp.where(self.squared == 0, xp.ones_like(squared), self.squared)
        self.inverse_root = xp.where(self.squared == 0, xp.zeros_like(safe), 1 / xp.sqrt(safe))

    def others(self):
        return terms.products_of_others(self.xp, self.grams)

    def finished(self, total):
        xp = self.xp
        dtype = self.dtype if not is_complex(xp, self.dtype) else self.real
        return xp.astype(total, dtype, copy=False)
