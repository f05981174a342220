"""The sum of all entries of a Kronecker matrix: the operation that tests/test_new_operation.py adds.

    sum_ij M_ij = sum_k prod_n s_n[k],   s_n[k] = sum_ij F_n[k, i, j]

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Sequence

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays import scale
from ketcore.arrays.checks import check_like, check_tables, check_tangents
from ketcore.arrays.elementary import elementwise_product
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, quiet
from ketcore.products import terms


@quiet
def kron_total(factors: Sequence[AnyArray]) -> AnyArray:
    """sum_ij M[i, j].

    factors  N arrays (R, p_n, q_n), floating or complex
    returns  an array without dimensions in the promoted dtype; 16-bit storage is summed in float32
    raises   TypeError, ValueError on kinds and shapes
    cost     O(R sum p_n q_n)

    >>> float(kron_total((np.array([[[1.0, 2.0]]]), np.array([[[3.0], [4.0]]]))))
    21.0
    """
    xp, factors, dtype = check_tables("factors", factors)
    sums = _sums(xp, _level(xp, factors, dtype)[0])
    return xp.astype(xp.sum(elementwise_product(sums)), dtype, copy=False)


@quiet
def kron_total_vjp(factors: Sequence[AnyArray], cotangent: AnyArray) -> tuple[AnyArray, ...]:
    """Pull `cotangent`, without dimensions, back through `kron_total` to the factors.

    returns  N arrays in the shapes and dtypes of the factors
    raises   as `kron_total`; TypeError, ValueError on the cotangent
    """
    xp, factors, dtype = check_tables("factors", factors)
    cotangent = check_like("cotangent", cotangent, (), xp, factors[0], dtype)
    wide, shifts = _level(xp, factors, dtype)
    pulled = xp.astype(cotangent, wide[0].dtype, copy=False)
    others = terms.products_of_others(xp, _sums(xp, wide))
    found = [xp.zeros_like(f) + (pulled * o)[:, None, None] for f, o in zip(wide, others, strict=True)]
    found = scale.shifted(found, shifts)
    return tuple(cast_gradient(xp, g, f) for g, f in zip(found, factors, strict=True))


@quiet
def kron_total_jvp(factors: Sequence[AnyArray], tangents: Sequence[AnyArray]) -> AnyArray:
    """The derivative of `kron_total` along the tangents of the factors.

    raises   as `kron_total`; TypeError, ValueError on the tangents
    """
    xp, factors, dtype = check_tables("factors", factors)
    tangents = check_tangents("tangents", tangents, factors, xp, dtype)
    wide, shifts = _level(xp, factors, dtype)
    tangents = scale.shifted([xp.astype(t, wide[0].dtype, copy=False) for t in tangents], shifts)
    others = terms.products_of_others(xp, _sums(xp, wide))
    total = sum(xp.sum(o * moved) for o, moved in zip(others, _sums(xp, tangents), strict=True))
    return xp.astype(total, dtype, copy=False)


@quiet
def kron_total_dense(factors: Sequence[AnyArray]) -> np.ndarray:
    """The definition on NumPy arrays: M multiplied out, then np.sum.  Costs P Q memory."""
    return np.sum(terms.dense_matrix(factors)).astype(np.result_type(*factors))


def kron_total_shapes(factors: Sequence[AnyArray]) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `kron_total`, of anything that has a shape."""
    return ((),)


def _level(xp, factors, dtype):
    """The factors at one scale, in the dtype of the sums, and the powers of two that made it."""
    wide = accumulation_dtype(xp, dtype)
    return scale.level([xp.astype(factor, wide, copy=False) for factor in factors], None)


def _sums(xp, factors):
    """Per factor the sums (R,) of its terms."""
    return [xp.sum(factor, axis=(1, 2)) for factor in factors]
