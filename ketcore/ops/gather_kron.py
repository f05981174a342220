"""Sums of tensor products of gathered rows: the one primitive.

    y[b] = sum_k  T_0[k, i_0b] (x) T_1[k, i_1b] (x) ... (x) T_{N-1}[k, i_{N-1}b]

With the digits of a row number as index it is a row of a Kronecker-factorised matrix (word2ketXS); with
the row number itself in every mode it is a table of kets (word2ket); with an index of its own per term a
permutation or a hash of the ids costs no storage.

Letters: N order, R rank, n mode, t_n and q_n rows and columns of table n, Q = prod q_n, ... batch of `index`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Index
from ketcore.arrays.checks import check_flag, check_table_shapes, check_tangents, shapes_of
from ketcore.arrays.namespaces import accumulation_dtype, quiet
from ketcore.lookups.gather import gather_vjp
from ketcore.lookups.index_lookup import index_lookup
from ketcore.lookups.lookup import narrowed, restored
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
def gather_kron(
    tables: Sequence[HostLike],
    index: Index,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: HostLike | None = None,
    check: bool | None = None,
    out: Host | None = None,
) -> Host: ...
@overload
def gather_kron(
    tables: Sequence[ForeignT],
    index: Index,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: ForeignT | None = None,
    check: bool | None = None,
    out: ForeignT | None = None,
) -> ForeignT: ...
@quiet
def gather_kron(
    tables: Sequence[AnyArray],
    index: Any,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: AnyArray | None = None,
    check: bool | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """Sums over terms of Kronecker products of the rows that `index` picks from each table.

    Entry b of the batch is a sum over R terms k of Kronecker products of one row of each of N tables::

        y[b] = sum_k  T_0[k, i_0b] (x) T_1[k, i_1b] (x) ... (x) T_{N-1}[k, i_{N-1}b]

    With the digits of a row number as index it is `rows`, with the row number itself in each mode `ket_rows`.

    Parameters
    ----------
    tables : sequence of N arrays, (R, t_n, q_n)
        Floating or complex, one R for all, while t_n may differ; integers and nested lists become floating.
    index : array of ints, (N, ...)
        The row to pick from each table, ``0 <= index[n] < t_n``; of any integer dtype.
    columns : int, optional
        Keep the first so many of the Q = prod q_n entries.  By default all.
    per_term : bool, default False
        Whether each term has an index of its own: `index` is (N, R, ...) then.
    row_scale : array, (...), optional
        One number for each entry of the batch, of any sign, that its row is multiplied by; floating or
        complex, and it counts for the dtype of the result.  By default no rows are scaled.
    check : bool, optional
        Whether to look for indices out of range: True raises on one, False gives a row of NaN for it.  By
        default as True where `index` lies in host memory, else as False, since a look would wait for the
        device.
    out : array, (..., columns), optional
        An array of NumPy or CuPy, C-contiguous and of the dtype of the result, to write it into.

    Returns
    -------
    array, (..., columns)
        In the promoted dtype of `tables` and `row_scale`; 16-bit storage is summed and scaled in float32, and
        rounded once.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape, and on columns out of range.
    IndexError
        On an index out of range, where `check` looks for it.

    See Also
    --------
    digits : The index of a row of a Kronecker product.
    khatri_rao : All rows of a product row by row.

    Notes
    -----
    Cost: ``O(R |batch| columns)`` time, and the memory of the output.
    `ketcore.engines` says what computes it.

    Examples
    --------
    >>> a, b = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[[1.0, 10.0]]])
    >>> gather_kron((a, b), [[1, 0], [0, 0]]).tolist()
    [[3.0, 30.0, 4.0, 40.0], [1.0, 10.0, 2.0, 20.0]]
    """
    xp, _, lookup, batch, scale = _lookup(tables, index, columns, per_term, check, row_scale, stored=True)
    return scaled_rows(xp, lookup, batch, scale, out)


@overload
def gather_kron_vjp(
    tables: Sequence[HostLike],
    index: Index,
    cotangent: HostLike,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[Host, ...]: ...
@overload
def gather_kron_vjp(
    tables: Sequence[HostLike],
    index: Index,
    cotangent: HostLike,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: HostLike,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[tuple[Host, ...], Host]: ...
@overload
def gather_kron_vjp(
    tables: Sequence[ForeignT],
    index: Index,
    cotangent: ForeignT,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[ForeignT, ...]: ...
@overload
def gather_kron_vjp(
    tables: Sequence[ForeignT],
    index: Index,
    cotangent: ForeignT,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: ForeignT,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[tuple[ForeignT, ...], ForeignT]: ...
@quiet
def gather_kron_vjp(
    tables: Sequence[AnyArray],
    index: Any,
    cotangent: AnyArray,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: AnyArray | None = None,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[AnyArray, ...] | tuple[tuple[AnyArray, ...], AnyArray]:
    """Pull a cotangent of `gather_kron` back to the tables.

    Parameters
    ----------
    tables : sequence of N arrays, (R, t_n, q_n)
        As of `gather_kron`.
    index : array of ints, (N, ...)
        As of `gather_kron`.
    cotangent : array, (..., columns)
        Of the result; real where this is.
    columns : int, optional
        As of `gather_kron`.
    per_term : bool, default False
        As of `gather_kron`.
    row_scale : array, (...), optional
        As of `gather_kron`.
    check : bool, optional
        As of `gather_kron`; a row of NaN has no gradient.
    deterministic : bool, default True
        False lets CUDA kernels sum with atomics, in no fixed order.  It changes nothing else.

    Returns
    -------
    tuple of N arrays, (R, t_n, q_n)
        Each in the dtype of its table: of a real one beside complex ones the real part.  A row picked twice
        gets both contributions, one never picked gets zero.  With `row_scale` the pair of this tuple and the
        gradient (...) of the scale, in its dtype.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `gather_kron`, and on a cotangent that does not fit the result.

    Notes
    -----
    Cost: ``O(R |batch| Q)`` time, ``O(R |batch| sum q_n)`` memory beyond the cotangent.

    The plain transpose: nothing is conjugated, also for complex input.

    Examples
    --------
    >>> a, b = np.ones((1, 2, 2)), np.array([[[1.0, 10.0]]])
    >>> to_a, to_b = gather_kron_vjp((a, b), [[1], [0]], [[1.0, 1.0, 0.0, 0.0]])
    >>> to_a.tolist(), to_b.tolist()
    ([[[0.0, 0.0], [11.0, 0.0]]], [[[1.0, 1.0]]])
    """
    xp, tables, lookup, batch, scale = _lookup(tables, index, columns, per_term, check, row_scale)
    deterministic = check_flag("deterministic", deterministic)
    cotangent, to_scale = scaled_cotangent(xp, lookup, batch, scale, cotangent)
    gradients = restored(xp, gather_vjp(lookup, cotangent, deterministic), tables)
    if scale is None:
        return gradients
    return gradients, scale_gradient(xp, lookup, scale, to_scale)


@overload
def gather_kron_jvp(
    tables: Sequence[HostLike],
    index: Index,
    tangents: Sequence[HostLike],
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: HostLike | None = None,
    row_scale_tangent: HostLike | None = None,
    check: bool | None = None,
) -> Host: ...
@overload
def gather_kron_jvp(
    tables: Sequence[ForeignT],
    index: Index,
    tangents: Sequence[ForeignT],
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: ForeignT | None = None,
    row_scale_tangent: ForeignT | None = None,
    check: bool | None = None,
) -> ForeignT: ...
@quiet
def gather_kron_jvp(
    tables: Sequence[AnyArray],
    index: Any,
    tangents: Sequence[AnyArray],
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: AnyArray | None = None,
    row_scale_tangent: AnyArray | None = None,
    check: bool | None = None,
) -> AnyArray:
    """The derivative of `gather_kron` along tangents of the tables.

    Parameters
    ----------
    tables : sequence of N arrays, (R, t_n, q_n)
        As of `gather_kron`.
    index : array of ints, (N, ...)
        As of `gather_kron`.
    tangents : sequence of N arrays, (R, t_n, q_n)
        Of the tables; real where all of these are.
    columns : int, optional
        As of `gather_kron`.
    per_term : bool, default False
        As of `gather_kron`.
    row_scale : array, (...), optional
        As of `gather_kron`.
    row_scale_tangent : array, (...), optional
        Of `row_scale`; None, the default, for zero.
    check : bool, optional
        As of `gather_kron`.

    Returns
    -------
    array, (..., columns)
        In the dtype of what `gather_kron` returns.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `gather_kron`, and on tangents that do not fit the tables.

    Notes
    -----
    Cost: ``O(N R |batch| Q)`` time.
    """
    xp, tables, lookup, batch, scale = _lookup(tables, index, columns, per_term, check, row_scale)
    tangents = check_tangents("tangents", tangents, tables, xp, lookup.dtype)
    tangents = narrowed(tangents, lookup.columns)
    return scaled_tangent(xp, lookup, batch, scale, tangents, row_scale_tangent)


def gather_kron_shapes(
    tables: Sequence[AnyArray],
    index: AnyArray,
    *,
    columns: int | None = None,
    per_term: bool = False,
    **options: object,
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `gather_kron`, of anything that has a shape."""
    width = prod(table.shape[2] for table in tables) if columns is None else columns
    return ((*index.shape[2 if per_term else 1 :], width),)


@quiet
def gather_kron_dense(
    tables: Sequence[AnyArray],
    index: Any,
    *,
    columns: int | None = None,
    per_term: bool = False,
    row_scale: AnyArray | None = None,
) -> np.ndarray:
    """The definition of `gather_kron` on NumPy arrays, term by term and row by row.

    Parameters
    ----------
    tables : sequence of N arrays, (R, t_n, q_n)
        As of `gather_kron`; they are not checked.
    index : array of ints, (N, ...)
        As of `gather_kron`; they are not checked.
    columns : int, optional
        As of `gather_kron`; they are not checked.
    per_term : bool, default False
        As of `gather_kron`; they are not checked.
    row_scale : array, (...), optional
        As of `gather_kron`; it is not checked.

    Returns
    -------
    np.ndarray, (..., columns)
        In the promoted dtype of `tables`.
    """
    tables = [np.asarray(table) for table in tables]
    index = np.asarray(index)
    rank = tables[0].shape[0]
    if not per_term:
        index = np.broadcast_to(index[:, None], (len(tables), rank, *index.shape[1:]))
    batch = index.shape[2:]
    dtype = np.result_type(*tables) if row_scale is None else np.result_type(*tables, row_scale)
    width = prod([table.shape[2] for table in tables])
    rows = np.zeros((*batch, width), accumulation_dtype(np, dtype))
    for b in np.ndindex(batch):
        for k in range(rank):
            term = np.ones(1, rows.dtype)
            for n, table in enumerate(tables):
                term = np.kron(term, table[k, index[(n, k, *b)]].astype(rows.dtype))
            rows[b] += term
    if row_scale is not None:
        rows = np.asarray(row_scale).astype(rows.dtype)[..., None] * rows
    return rows[..., :columns].astype(dtype)


def _lookup(tables, index, columns, per_term, check, row_scale, stored=False):
    """Everything checked, as the lookup that engines take, and the batch of the index.

    With `stored` quantized tables stay so, until the rows are made.
    """
    xp, tables, dtype, kinds = check_stored("tables", tables, beside_tables(row_scale), stored)
    check_table_shapes("tables", shapes_of(tables))
    scale, dtype = check_row_scale("tables", kinds, dtype, row_scale, by_id=False)
    per_term = check_flag("per_term", per_term)
    lookup, batch = index_lookup(
        "index", index, xp, tables, dtype, columns=columns, per_term=per_term, check=check
    )
    return xp, tables, scaled_lookup(xp, lookup, batch, scale), batch, scale
