"""Rows of a Kronecker-factorised matrix M = sum_k F_0[k] (x) ... (x) F_{N-1}[k], which is never formed.

Row i of a Kronecker product is the Kronecker product of one row per factor, and the digits of i say which:

    M[i] = sum_k  F_0[k, i_0] (x) F_1[k, i_1] (x) ... (x) F_{N-1}[k, i_{N-1}]

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n, ... shape of
`ids`.

Source: Panahi, Saeedi, Arodz, "word2ket", ICLR 2020 (the word2ketXS embedding).
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Index
from ketcore.arrays.checks import (
    check_flag,
    check_index,
    check_tangents,
    shapes_of,
    to_namespace_of,
)
from ketcore.arrays.elementary import flattened
from ketcore.arrays.namespaces import accumulation_dtype, quiet
from ketcore.lookups.gather import gather_vjp
from ketcore.lookups.lookup import Lookup, cut, matrix_form, narrowed, restored
from ketcore.lookups.row_scales import (
    beside_tables,
    check_row_scale,
    scale_gradient,
    scaled_cotangent,
    scaled_lookup,
    scaled_rows,
    scaled_tangent,
)
from ketcore.lookups.stored_tables import check_stored


@overload
def rows(
    factors: Sequence[HostLike],
    ids: Index,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: HostLike | None = None,
    check: bool | None = None,
    out: Host | None = None,
) -> Host: ...
@overload
def rows(
    factors: Sequence[ForeignT],
    ids: Index,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: ForeignT | None = None,
    check: bool | None = None,
    out: ForeignT | None = None,
) -> ForeignT: ...
@quiet
def rows(
    factors: Sequence[AnyArray],
    ids: Any,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: AnyArray | None = None,
    check: bool | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """Rows `ids` of a Kronecker-factorised matrix M, which is never formed.

    M is a sum over R terms k of Kronecker products of N factors.  Its row i takes from each factor the row
    that a digit of i names, most significant digit first::

        M[i] = sum_k  F_0[k, i_0] (x) F_1[k, i_1] (x) ... (x) F_{N-1}[k, i_{N-1}]

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        Floating or complex, one R for all; integers and nested lists become floating.
    ids : int or array of ints, (...)
        Which rows, ``0 <= id < rows``, in any order and any number of times; of any integer dtype.
    shape : (int, int), optional
        ``(rows, columns)`` of the leading block of (P, Q) that M is cropped to, with P = prod p_n and
        Q = prod q_n.  By default all of it.
    row_scale : array, (rows,), optional
        One number for each row of M, of any sign, that the row is multiplied by; floating or complex, and it
        counts for the dtype of the result.  By default no rows are scaled.
    check : bool, optional
        Whether to look for ids out of range: True raises on one, False gives a row of NaN for it.  By default
        as True where `ids` lie in host memory, else as False, since a look would wait for the device.
    out : array, (..., columns), optional
        An array of NumPy or CuPy, C-contiguous and of the dtype of the result, to write it into.

    Returns
    -------
    array, (..., columns)
        In the promoted dtype of `factors` and `row_scale`; 16-bit storage is summed and scaled in float32,
        and rounded once.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape.
    IndexError
        On an id out of range, where `check` looks for it.

    See Also
    --------
    row_kets : The same rows as kets, which are not multiplied out.
    ket_rows : Rows of a table of kets.
    gather_kron : Rows by an index of its own for each factor.
    KroneckerMatrix.rows : The same of a matrix as an object.

    Notes
    -----
    Cost: ``O(R |ids| columns)`` time, and the memory of the output; M itself would hold P Q numbers.
    `ketcore.engines` says what computes it.  Of
    factors that are quantized, and have many more rows than there are ids, only those of the ids are decoded.

    References
    ----------
    Panahi, Saeedi, Arodz, "word2ket", ICLR 2020: the word2ketXS embedding.

    Examples
    --------
    >>> a, b = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[1.0, 0.0], [0.0, 10.0]]])
    >>> np.kron(a[0], b[0])
    array([[ 1.,  0.,  2.,  0.],
           [ 0., 10.,  0., 20.],
           [ 3.,  0.,  4.,  0.],
           [ 0., 30.,  0., 40.]])
    >>> rows((a, b), [3, 0])
    array([[ 0., 30.,  0., 40.],
           [ 1.,  0.,  2.,  0.]])
    >>> rows((a, b), 3, shape=(4, 3))
    array([ 0., 30.,  0.])
    >>> rows((a, b), 3, row_scale=[1.0, 1.0, 1.0, 2.0])
    array([ 0., 60.,  0., 80.])
    """
    xp, _, lookup, batch, scale = _lookup(factors, ids, shape, check, row_scale, stored=True)
    return scaled_rows(xp, lookup, batch, scale, out)


@overload
def rows_vjp(
    factors: Sequence[HostLike],
    ids: Index,
    cotangent: HostLike,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[Host, ...]: ...
@overload
def rows_vjp(
    factors: Sequence[HostLike],
    ids: Index,
    cotangent: HostLike,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: HostLike,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[tuple[Host, ...], Host]: ...
@overload
def rows_vjp(
    factors: Sequence[ForeignT],
    ids: Index,
    cotangent: ForeignT,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[ForeignT, ...]: ...
@overload
def rows_vjp(
    factors: Sequence[ForeignT],
    ids: Index,
    cotangent: ForeignT,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: ForeignT,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[tuple[ForeignT, ...], ForeignT]: ...
@quiet
def rows_vjp(
    factors: Sequence[AnyArray],
    ids: Any,
    cotangent: AnyArray,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: AnyArray | None = None,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[AnyArray, ...] | tuple[tuple[AnyArray, ...], AnyArray]:
    """Pull a cotangent of `rows` back to the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `rows`.
    ids : int or array of ints, (...)
        As of `rows`.
    cotangent : array, (..., columns)
        Of the rows; real where these are.
    shape : (int, int), optional
        As of `rows`.
    row_scale : array, (rows,), optional
        As of `rows`.
    check : bool, optional
        As of `rows`; a row of NaN has no gradient.
    deterministic : bool, default True
        False lets CUDA kernels sum with atomics, in no fixed order.  It changes nothing else.

    Returns
    -------
    tuple of N arrays, (R, p_n, q_n)
        Each in the dtype of its factor: of a real one beside complex ones the real part.  A row picked twice
        gets both contributions, one never picked gets zero.  With `row_scale` the pair of this tuple and the
        gradient (rows,) of the scale, in its dtype.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `rows`, and on a cotangent that does not fit the rows.

    Notes
    -----
    Cost: ``O(R |ids| Q)`` time, ``O(R |ids| (qa + qb))`` memory for halves of qa qb = Q columns; with
    `row_scale` the time of `rows` more, and the memory of the rows.  CPU tensors of PyTorch of which nothing
    is recorded or traced take the time of NumPy arrays, in the same memory; others, and bfloat16, take array
    code, which is slower.

    The plain transpose: nothing is conjugated, also for complex input.

    Examples
    --------
    >>> a, b = np.ones((1, 2, 2)), np.ones((1, 3, 2))
    >>> [g.tolist() for g in rows_vjp((a, b), [5, 5], np.ones((2, 4)))]
    [[[[0.0, 0.0], [4.0, 4.0]]], [[[0.0, 0.0], [0.0, 0.0], [4.0, 4.0]]]]
    """
    xp, factors, lookup, batch, scale = _lookup(factors, ids, shape, check, row_scale)
    deterministic = check_flag("deterministic", deterministic)
    cotangent, to_scale = scaled_cotangent(xp, lookup, batch, scale, cotangent)
    gradients = restored(xp, gather_vjp(lookup, cotangent, deterministic), factors)
    if scale is None:
        return gradients
    return gradients, scale_gradient(xp, lookup, scale, to_scale)


@overload
def rows_jvp(
    factors: Sequence[HostLike],
    ids: Index,
    tangents: Sequence[HostLike],
    shape: tuple[int, int] | None = None,
    *,
    row_scale: HostLike | None = None,
    row_scale_tangent: HostLike | None = None,
    check: bool | None = None,
) -> Host: ...
@overload
def rows_jvp(
    factors: Sequence[ForeignT],
    ids: Index,
    tangents: Sequence[ForeignT],
    shape: tuple[int, int] | None = None,
    *,
    row_scale: ForeignT | None = None,
    row_scale_tangent: ForeignT | None = None,
    check: bool | None = None,
) -> ForeignT: ...
@quiet
def rows_jvp(
    factors: Sequence[AnyArray],
    ids: Any,
    tangents: Sequence[AnyArray],
    shape: tuple[int, int] | None = None,
    *,
    row_scale: AnyArray | None = None,
    row_scale_tangent: AnyArray | None = None,
    check: bool | None = None,
) -> AnyArray:
    """The derivative of `rows` along tangents of the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `rows`.
    ids : int or array of ints, (...)
        As of `rows`.
    tangents : sequence of N arrays, (R, p_n, q_n)
        Of the factors; real where all of these are.
    shape : (int, int), optional
        As of `rows`.
    row_scale : array, (rows,), optional
        As of `rows`.
    row_scale_tangent : array, (rows,), optional
        Of `row_scale`; None, the default, for zero.
    check : bool, optional
        As of `rows`.

    Returns
    -------
    array, (..., columns)
        In the dtype of what `rows` returns.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `rows`, and on tangents that do not fit the factors.

    Notes
    -----
    Cost: ``O(N R |ids| Q)`` time.

    Examples
    --------
    Rows are linear in each factor, so that along the factors themselves the derivative is N times the rows:

    >>> a, b = np.array([[[1.0, 2.0]]]), np.array([[[3.0, 4.0]]])
    >>> rows((a, b), 0).tolist(), rows_jvp((a, b), 0, (a, b)).tolist()
    ([3.0, 4.0, 6.0, 8.0], [6.0, 8.0, 12.0, 16.0])
    """
    xp, factors, lookup, batch, scale = _lookup(factors, ids, shape, check, row_scale)
    tangents = check_tangents("tangents", tangents, factors, xp, lookup.dtype)
    tangents = narrowed(tangents, lookup.columns)
    return scaled_tangent(xp, lookup, batch, scale, tangents, row_scale_tangent)


def rows_shapes(
    factors: Sequence[AnyArray], ids: AnyArray, shape: tuple[int, int] | None = None, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `rows`, of anything that has a shape."""
    columns = prod(factor.shape[2] for factor in factors) if shape is None else shape[1]
    return ((*ids.shape, columns),)


@quiet
def rows_dense(
    factors: Sequence[AnyArray],
    ids: Any,
    shape: tuple[int, int] | None = None,
    *,
    row_scale: AnyArray | None = None,
) -> np.ndarray:
    """The definition of `rows` on NumPy arrays: M built by ``np.kron``, then indexed.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `rows`; they are not checked.
    ids : int or array of ints, (...)
        As of `rows`; they are not checked.
    shape : (int, int), optional
        As of `rows`; they are not checked.
    row_scale : array, (rows,), optional
        As of `rows`; it is not checked.

    Returns
    -------
    np.ndarray, (..., columns)
        In the dtype of what `rows` returns.

    Notes
    -----
    Cost: O(P Q) memory.
    """
    factors = [np.asarray(factor) for factor in factors]
    dtype = np.result_type(*factors) if row_scale is None else np.result_type(*factors, row_scale)
    full = [prod([factor.shape[axis] for factor in factors]) for axis in (1, 2)]
    dense = np.zeros(full, accumulation_dtype(np, dtype))
    for terms in zip(*factors, strict=True):
        term = np.ones((1, 1), dense.dtype)
        for factor in terms:
            term = np.kron(term, factor.astype(dense.dtype))
        dense += term
    count, columns = full if shape is None else shape
    dense = dense[:count, :columns]
    if row_scale is not None:
        dense = np.asarray(row_scale).astype(dense.dtype)[:, None] * dense
    return dense.astype(dtype)[np.asarray(ids)]


def _lookup(factors, ids, shape, check, row_scale, stored=False):
    """Everything checked, as the lookup that engines take, and the batch of the ids.

    With `stored` quantized factors stay so, until the rows are made.
    """
    xp, factors, dtype, kinds = check_stored("factors", factors, beside_tables(row_scale), stored)
    scale, dtype = check_row_scale("factors", kinds, dtype, row_scale, by_id=True)
    dtypes = tuple([factor.dtype for factor in factors])
    form, widths = matrix_form(type(kinds[0]), shapes_of(factors), dtypes, dtype, shape)
    ids, checked = check_index("ids", ids, form.bound, check, narrow=xp is np)
    ids = to_namespace_of(ids, xp, kinds[0])
    lookup, batch = Lookup(cut(factors, widths), flattened(xp, ids), checked, form), tuple(ids.shape)
    lookup.stored = kinds is not factors
    return xp, factors, scaled_lookup(xp, lookup, batch, scale), batch, scale
