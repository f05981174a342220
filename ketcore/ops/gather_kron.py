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
from ketcore.arrays.checks import (
    as_integers,
    check_columns,
    check_flag,
    check_index,
    check_tables,
    check_tangents,
    is_within,
    to_namespace_of,
)
from ketcore.arrays.elementary import reshaped
from ketcore.arrays.namespaces import accumulation_dtype, quiet
from ketcore.lookups.gather import as_rows, expanded, gather_jvp, gather_vjp
from ketcore.lookups.lookup import make_lookup, narrowed, restored
from ketcore.shapes import halves_split


@overload
def gather_kron(
    tables: Sequence[HostLike],
    index: Index,
    *,
    columns: int | None = None,
    per_term: bool = False,
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
    check : bool, optional
        Whether to look for indices out of range: True raises on one, False gives a row of NaN for it.  By
        default as True where `index` lies in host memory, else as False, since a look would wait for the
        device.
    out : array, (..., columns), optional
        An array of NumPy or CuPy, C-contiguous and of the dtype of the result, to write it into.

    Returns
    -------
    array, (..., columns)
        In the promoted dtype of `tables`; 16-bit storage is summed in float32.

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
    xp, tables, lookup, batch = _lookup(tables, index, columns, per_term, check)
    return expanded(xp, lookup, batch, out)


@overload
def gather_kron_vjp(
    tables: Sequence[HostLike],
    index: Index,
    cotangent: HostLike,
    *,
    columns: int | None = None,
    per_term: bool = False,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[Host, ...]: ...
@overload
def gather_kron_vjp(
    tables: Sequence[ForeignT],
    index: Index,
    cotangent: ForeignT,
    *,
    columns: int | None = None,
    per_term: bool = False,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[ForeignT, ...]: ...
@quiet
def gather_kron_vjp(
    tables: Sequence[AnyArray],
    index: Any,
    cotangent: AnyArray,
    *,
    columns: int | None = None,
    per_term: bool = False,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[AnyArray, ...]:
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
    check : bool, optional
        As of `gather_kron`; a row of NaN has no gradient.
    deterministic : bool, default True
        False lets CUDA kernels sum with atomics, in no fixed order.  It changes nothing else.

    Returns
    -------
    tuple of N arrays, (R, t_n, q_n)
        Each in the dtype of its table: of a real one beside complex ones the real part.  A row picked twice
        gets both contributions, one never picked gets zero.

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
    xp, tables, lookup, batch = _lookup(tables, index, columns, per_term, check)
    cotangent = as_rows(xp, lookup, batch, cotangent)
    gradients = gather_vjp(lookup, cotangent, check_flag("deterministic", deterministic))
    return restored(xp, gradients, tables)


@overload
def gather_kron_jvp(
    tables: Sequence[HostLike],
    index: Index,
    tangents: Sequence[HostLike],
    *,
    columns: int | None = None,
    per_term: bool = False,
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
    Cost: ``O(R |batch| Q)`` time.
    """
    xp, tables, lookup, batch = _lookup(tables, index, columns, per_term, check)
    tangents = check_tangents("tangents", tangents, tables, xp, lookup.dtype)
    return xp.reshape(gather_jvp(lookup, narrowed(tangents, lookup.columns)), (*batch, lookup.columns))


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
    tables: Sequence[AnyArray], index: Any, *, columns: int | None = None, per_term: bool = False
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
    dtype = np.result_type(*tables)
    width = prod([table.shape[2] for table in tables])
    rows = np.zeros((*batch, width), accumulation_dtype(np, dtype))
    for b in np.ndindex(batch):
        for k in range(rank):
            term = np.ones(1, rows.dtype)
            for n, table in enumerate(tables):
                term = np.kron(term, table[k, index[(n, k, *b)]].astype(rows.dtype))
            rows[b] += term
    return rows[..., :columns].astype(dtype)


def _lookup(tables, index, columns, per_term, check):
    """Everything checked, as the lookup that engines take, and the batch of the index."""
    xp, tables, dtype = check_tables("tables", tables)
    per_term = check_flag("per_term", per_term)
    lead = (len(tables), tables[0].shape[0]) if per_term else (len(tables),)
    lengths = [table.shape[1] for table in tables]
    index, checked = _check_indices(index, lead, lengths, check, xp is np)
    index = to_namespace_of(index, xp, tables[0])
    batch = tuple(index.shape[len(lead) :])
    columns = check_columns("columns", columns, prod([table.shape[2] for table in tables]))
    cut = narrowed(tables, columns)
    lookup = make_lookup(
        tables=cut,
        index=index if len(batch) == 1 else reshaped(xp, index, (*lead, prod(batch))),
        kind="terms" if per_term else "modes",
        bound=0,
        checked=checked,
        columns=columns,
        layernorm=False,
        eps=0.0,
        split=halves_split(tuple([table.shape[2] for table in cut])),
        dtype=dtype,
    )
    return xp, tables, lookup, batch


def _check_indices(index, lead, lengths, check, narrow):
    """The index (*lead, ...) as integers, and whether each mode is known to stay within its table."""
    index = as_integers("index", index)
    if tuple(index.shape[: len(lead)]) != lead:
        rule = (
            "(N, R, ...), one entry per table and term" if len(lead) == 2 else "(N, ...), one entry per table"
        )
        raise ValueError(f"index must have shape {rule}, for {lead}, got {tuple(index.shape)}")
    # The least of the lengths is enough for most indices, and one look takes less than one for each mode.
    if is_within(index, min(lengths), check):
        return index, True
    known = [
        check_index(f"index[{n}]", index[n, ...], length, check, narrow)[1]
        for n, length in enumerate(lengths)
    ]
    return check_index("index", index, 0, False, narrow)[0], all(known)
