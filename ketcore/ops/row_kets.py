"""Rows of a Kronecker-factorised matrix as kets: the leaves that the digits of each row number pick.

Row i of M = sum_k (x)_n F_n[k] is the ket with leaves F_n[k, i_n].  Nothing is multiplied out.

Letters: N order, R rank, p_n and q_n rows and columns of factor n, ... shape of `ids`.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Index
from ketcore.arrays.checks import (
    as_sequence,
    check_index,
    check_like,
    check_shape,
    check_table_shapes,
    shapes_of,
    to_namespace_of,
)
from ketcore.arrays.elementary import chosen, reshaped
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, quiet
from ketcore.arrays.quantized import decoded
from ketcore.arrays.quantized_lines import are_few, rows_of_terms
from ketcore.lookups.leaves import chosen_leaves, table_rows
from ketcore.lookups.lookup import made_safe, make_lookup, masked
from ketcore.lookups.segments import scatter
from ketcore.lookups.stored_tables import check_stored


@overload
def row_kets(
    factors: Sequence[HostLike],
    ids: Index,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[Host, ...]: ...
@overload
def row_kets(
    factors: Sequence[ForeignT],
    ids: Index,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[ForeignT, ...]: ...
@quiet
def row_kets(
    factors: Sequence[AnyArray], ids: Any, shape: tuple[int, int] | None = None, *, check: bool | None = None
) -> tuple[AnyArray, ...]:
    """Rows `ids` of a Kronecker-factorised matrix M as kets: their leaves, not multiplied out.

    Row i of M is the ket whose leaf n is a row of factor n, which the n-th digit of i names::

        M[i] = sum_k  F_0[k, i_0] (x) F_1[k, i_1] (x) ... (x) F_{N-1}[k, i_{N-1}]

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        Floating or complex, one R for all; integers and nested lists become floating.
    ids : int or array of ints, (...)
        Which rows, ``0 <= id < rows``, in any order and any number of times; of any integer dtype.
    shape : (int, int), optional
        ``(rows, Q)``, which crops the rows of M; a ket has no cropped columns, so that all Q must stay.
    check : bool, optional
        As in `rows`; a bad id gives a ket of NaN where it does not raise.

    Returns
    -------
    tuple of N arrays, (..., R, q_n)
        The leaves, each in the dtype of its factor: they may stand where `Ket` and `ket_inner` take factors.

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
    rows : The same rows, multiplied out.
    KroneckerMatrix.row_kets : The same of a matrix as an object.

    Notes
    -----
    Cost: ``O(R |ids| sum q_n)`` time and memory.

    Examples
    --------
    >>> a, b = np.arange(4.0).reshape(1, 2, 2), np.arange(6.0).reshape(1, 3, 2)
    >>> [leaf.tolist() for leaf in row_kets((a, b), 5)]
    [[[2.0, 3.0]], [[4.0, 5.0]]]
    """
    xp, factors, lookup, bad, batch = _lookup(factors, ids, shape, check, stored=True)
    return _leaves(xp, factors, lookup, bad, batch)


@overload
def row_kets_vjp(
    factors: Sequence[HostLike],
    ids: Index,
    cotangents: Sequence[HostLike],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[Host, ...]: ...
@overload
def row_kets_vjp(
    factors: Sequence[ForeignT],
    ids: Index,
    cotangents: Sequence[ForeignT],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[ForeignT, ...]: ...
@quiet
def row_kets_vjp(
    factors: Sequence[AnyArray],
    ids: Any,
    cotangents: Sequence[AnyArray],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[AnyArray, ...]:
    """Pull cotangents of `row_kets` back to the factors.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `row_kets`.
    ids : int or array of ints, (...)
        As of `row_kets`.
    cotangents : sequence of N arrays, (..., R, q_n)
        Of the leaves; those of real leaves are real.
    shape : (int, int), optional
        As of `row_kets`.
    check : bool, optional
        As of `row_kets`; a ket of NaN has no gradient.

    Returns
    -------
    tuple of N arrays, (R, p_n, q_n)
        Each in the dtype of its factor.  A row picked twice gets both contributions, one never picked gets
        zero.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `row_kets`, and on cotangents that do not fit the leaves.

    Notes
    -----
    Cost: ``O(R |ids| sum q_n)`` time, and the memory of the gradients.  The plain transpose: nothing is
    conjugated.

    Examples
    --------
    >>> a, b = np.ones((1, 2, 2)), np.ones((1, 3, 1))
    >>> to_a, to_b = row_kets_vjp((a, b), 5, ([[1.0, 2.0]], [[3.0]]))
    >>> to_a.tolist(), to_b.tolist()
    ([[[0.0, 0.0], [1.0, 2.0]]], [[[0.0], [0.0], [3.0]]])
    """
    xp, factors, lookup, bad, batch = _lookup(factors, ids, shape, check)
    cotangents = as_sequence("cotangents", cotangents)
    if len(cotangents) != len(factors):
        raise ValueError(f"cotangents must hold {len(factors)} arrays, one per factor, got {len(cotangents)}")
    records = [_records(xp, f, c, bad, batch) for f, c in zip(factors, cotangents, strict=True)]
    sums = scatter(xp, lookup, records)
    return tuple(cast_gradient(xp, total, f) for total, f in zip(sums, factors, strict=True))


@overload
def row_kets_jvp(
    factors: Sequence[HostLike],
    ids: Index,
    tangents: Sequence[HostLike],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[Host, ...]: ...
@overload
def row_kets_jvp(
    factors: Sequence[ForeignT],
    ids: Index,
    tangents: Sequence[ForeignT],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[ForeignT, ...]: ...
@quiet
def row_kets_jvp(
    factors: Sequence[AnyArray],
    ids: Any,
    tangents: Sequence[AnyArray],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> tuple[AnyArray, ...]:
    """The derivative of `row_kets` along tangents: the leaves of the tangents, since picking is linear.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `row_kets`.
    ids : int or array of ints, (...)
        As of `row_kets`.
    tangents : sequence of N arrays, (R, p_n, q_n)
        Of the factors, each real where its factor is.
    shape : (int, int), optional
        As of `row_kets`.
    check : bool, optional
        As of `row_kets`.

    Returns
    -------
    tuple of N arrays, (..., R, q_n)
        Each in the dtype of its factor.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `row_kets`, and on tangents that do not fit the factors.
    """
    xp, factors, lookup, bad, batch = _lookup(factors, ids, shape, check)
    tangents = as_sequence("tangents", tangents)
    if len(tangents) != len(factors):
        raise ValueError(f"tangents must hold {len(factors)} arrays, one per primal, got {len(tangents)}")
    checked = [
        check_like("tangents", tangent, factor.shape, xp, factor, factor.dtype)
        for tangent, factor in zip(tangents, factors, strict=True)
    ]
    moving = [xp.astype(t, f.dtype, copy=False) for t, f in zip(checked, factors, strict=True)]
    return _leaves(xp, moving, lookup, bad, batch)


def row_kets_shapes(
    factors: Sequence[AnyArray], ids: AnyArray, shape: tuple[int, int] | None = None, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `row_kets`, of anything that has a shape."""
    return tuple((*ids.shape, factor.shape[0], factor.shape[2]) for factor in factors)


@quiet
def row_kets_dense(
    factors: Sequence[AnyArray], ids: Any, shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, ...]:
    """The definition of `row_kets` on NumPy arrays, one id at a time.

    Parameters
    ----------
    factors : sequence of N arrays, (R, p_n, q_n)
        As of `row_kets`; they are not checked.
    ids : int or array of ints, (...)
        As of `row_kets`; they are not checked.
    shape : (int, int), optional
        As of `row_kets`; they are not checked.

    Returns
    -------
    tuple of N np.ndarrays, (..., R, q_n)
        Each in the dtype of its factor.
    """
    factors, ids = [np.asarray(factor) for factor in factors], np.asarray(ids)
    lengths = [factor.shape[1] for factor in factors]
    found = [np.empty((*ids.shape, f.shape[0], f.shape[2]), f.dtype) for f in factors]
    for b in np.ndindex(ids.shape):
        for leaf, factor, digit in zip(found, factors, np.unravel_index(ids[b], lengths), strict=True):
            leaf[b] = factor[:, digit]
    return tuple(found)


def _lookup(factors, ids, shape, check, stored=False):
    """The lookup of each row's leaves, with no bad index, and the mask (B,) of rows that had one."""
    xp, factors, dtype, kinds = check_stored("factors", factors, (), stored)
    check_table_shapes("factors", shapes_of(factors))
    count, columns = check_shape(shape, factors)
    full = prod([factor.shape[2] for factor in factors])
    if columns != full:
        raise ValueError(f"shape must keep all {full} columns, since a ket has no cropped ones, got {shape}")
    ids, checked = check_index("ids", ids, count, check)
    ids = to_namespace_of(ids, xp, kinds[0])
    batch = tuple(ids.shape)
    lookup = make_lookup(
        tables=tuple(factors),
        index=reshaped(xp, ids, (prod(batch),)),
        kind="digits",
        bound=count,
        checked=checked,
        columns=columns,
        layernorm=False,
        eps=0.0,
        split=0,
        dtype=dtype,
    )
    return xp, factors, *made_safe(xp, lookup), batch


def _leaves(xp, tables, lookup, bad, batch):
    """The chosen leaves of each mode, NaN where an id is bad."""
    leaves = []
    for table, digit in zip(tables, chosen_leaves(lookup, lookup.index), strict=True):
        few = are_few(table, lookup.batch, table.shape[1])
        leaf = rows_of_terms(table, digit) if few else table_rows(xp, decoded(table), digit)
        leaf = xp.permute_dims(leaf, (1, 0, 2))
        if bad is not None:
            leaf = chosen(xp, bad[:, None, None], xp.full_like(leaf, float("nan")), leaf)
        leaves.append(reshaped(xp, leaf, (*batch, table.shape[0], table.shape[2])))
    return tuple(leaves)


def _records(xp, factor, cotangent, bad, batch):
    """A cotangent (..., R, q_n) as (B, R, q_n) in the accumulation dtype, zero where the id was bad."""
    rank, _, width = factor.shape
    cotangent = check_like("cotangents", cotangent, (*batch, rank, width), xp, factor, factor.dtype)
    values = xp.astype(cotangent, accumulation_dtype(xp, factor.dtype), copy=False)
    return masked(xp, reshaped(xp, values, (prod(batch), rank, width)), bad)
