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
    """The sum of all entries of a Kronecker matrix, which is never formed.

    It is a sum over terms of products of sums::

        sum_ij M_ij = sum_k prod_n s_n[k],   s_n[k] = sum_ij F_n[k, i, j]

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        Floating or complex, one R for all; integers and nested lists become floating.

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

    Notes
    -----
    Cost: ``O(R sum p_n q_n)`` time.

    Examples
    --------
    >>> float(kron_total((np.array([[[1.0, 2.0]]]), np.array([[[3.0], [4.0]]]))))
    21.0
    """
    xp, factors, dtype = check_tables("factors", factors)
    sums = _sums(xp, _level(xp, factors, dtype)[0])
    return xp.astype(xp.sum(elementwise_product(sums)), dtype, copy=False)


@quiet
def kron_total_vjp(factors: Sequence[AnyArray], cotangent: AnyArray) -> tuple[AnyArray, ...]:
    """Pull a cotangent of `kron_total` back to the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_total`.
    cotangent : float, complex or array, ()
        Of the sum; real where this is.

    Returns
    -------
    tuple of N arrays, (R, p_n, q_n)
        Each in the dtype of its factor: of a real one beside complex ones the real part.

    Raises
    ------
    TypeError, ValueError
        As `kron_total`, and on a cotangent that is no number.

    Notes
    -----
    The plain transpose: nothing is conjugated, also for complex input.
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
    """The derivative of `kron_total` along tangents of the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_total`.
    tangents : sequence of N arrays, (R, p_n, q_n)
        Of the factors; real where all of these are.

    Returns
    -------
    array, ()
        In the dtype of what `kron_total` returns.

    Raises
    ------
    TypeError, ValueError
        As `kron_total`, and on tangents that do not fit the factors.
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
    """The definition of `kron_total` on NumPy arrays: M multiplied out, then ``np.sum``.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `kron_total`; they are not checked.

    Returns
    -------
    np.ndarray, ()
        In the promoted dtype.

    Notes
    -----
    Cost: O(P Q) memory.
    """
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
