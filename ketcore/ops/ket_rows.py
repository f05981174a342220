"""Rows of a table of kets: one packed record of leaves per word, multiplied out.

    row[i] = sum_k  v_0[i, k] (x) v_1[i, k] (x) ... (x) v_{N-1}[i, k]

with v_n[i, k] = leaves[i, k, s_n : s_n + q_n], s_n = q_0 + ... + q_{n-1}.  The leaves of a word are one
contiguous record, so that a lookup reads one piece of memory.  With LayerNorm the leaves of each term are
multiplied in a balanced binary tree, node by node normalised (`ketcore.lookups.tree`), before the sum over
terms.

Letters: N order, R rank, S = sum q_n, Q = prod q_n, ... shape of `ids`.

Source: Panahi, Saeedi, Arodz, "word2ket", ICLR 2020 (the word2ket embedding; LayerNorm in section 2.3).
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Literal, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Index
from ketcore.arrays.checks import (
    check_columns,
    check_flag,
    check_index,
    check_like,
    to_namespace_of,
)
from ketcore.arrays.elementary import flattened
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, is_complex, quiet
from ketcore.lookups.gather import ids_vjp, packed_vjp
from ketcore.lookups.leaves import packed_views
from ketcore.lookups.lookup import Lookup, form, narrowed, narrowed_widths, restored_records
from ketcore.lookups.row_scales import (
    beside_tables,
    check_row_scale,
    scale_gradient,
    scaled_cotangent,
    scaled_lookup,
    scaled_rows,
    scaled_tangent,
    sparse_scale_gradient,
)
from ketcore.lookups.stored_tables import check_stored, tables_of_packed
from ketcore.shapes import check_dims, check_size, halves_split, offsets, shown, tree_split
from ketcore.tracing import kept


@overload
def ket_rows(
    leaves: HostLike,
    ids: Index,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: HostLike | None = None,
    check: bool | None = None,
    out: Host | None = None,
) -> Host: ...
@overload
def ket_rows(
    leaves: ForeignT,
    ids: Index,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: ForeignT | None = None,
    check: bool | None = None,
    out: ForeignT | None = None,
) -> ForeignT: ...
@quiet
def ket_rows(
    leaves: AnyArray,
    ids: Any,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: AnyArray | None = None,
    check: bool | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """Rows `ids` of a table of kets, multiplied out.

    Row i is a sum over R terms k of tensor products of N leaves, which lie side by side in record i::

        row[i] = sum_k  v_0[i, k] (x) v_1[i, k] (x) ... (x) v_{N-1}[i, k]
        v_n[i, k] = leaves[i, k, s_n : s_n + q_n],   s_n = q_0 + ... + q_{n-1}

    Parameters
    ----------
    leaves : array, (words, R, S)
        Floating or complex, with S = sum q_n; integers and nested lists become floating.
    ids : int or array of ints, (...)
        Which rows, ``0 <= id < words``, in any order and any number of times; of any integer dtype.
    dims : sequence of N ints
        The lengths q_n >= 1 of the leaves.
    layernorm : bool, default False
        Whether to multiply the leaves of each term in a balanced binary tree and normalise each node of it,
        by mean and variance and without weights, before terms are added up.  For real leaves only.
    columns : int, optional
        Keep the first so many of the Q = prod q_n entries of a row.  By default all.
    eps : float, default 1e-5
        Added to the variance of a node.
    row_scale : array, (words,), optional
        One number for each word, of any sign, that its row is multiplied by, after LayerNorm; floating or
        complex, and it counts for the dtype of the result.  By default no rows are scaled.
    check : bool, optional
        Whether to look for ids out of range: True raises on one, False gives a row of NaN for it.  By default
        as True where `ids` lie in host memory, else as False, since a look would wait for the device.
    out : array, (..., columns), optional
        An array of NumPy or CuPy, C-contiguous and of the dtype of the result, to write it into.

    Returns
    -------
    array, (..., columns)
        In the promoted dtype of `leaves` and `row_scale`; 16-bit storage is summed and scaled in float32, and
        rounded once.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape, and on dims, columns or eps out of range.
    IndexError
        On an id out of range, where `check` looks for it; of an empty table on any id.

    See Also
    --------
    rows : Rows of a Kronecker-factorised matrix.
    Ket.from_packed : The table as an object.

    Notes
    -----
    Cost: ``O(R |ids| columns)`` time, and the memory of the output.  LayerNorm, which is over whole nodes,
    multiplies both halves of a row out whatever `columns` is.
    `ketcore.engines` says what computes it.

    A single leaf is no node, so that LayerNorm leaves it as it is.

    References
    ----------
    Panahi, Saeedi, Arodz, "word2ket", ICLR 2020: the word2ket embedding, with LayerNorm in section 2.3.

    Examples
    --------
    >>> ket_rows(np.array([[[1.0, 2.0, 1.0, 10.0]]]), 0, (2, 2)).tolist()
    [1.0, 10.0, 2.0, 20.0]
    """
    xp, _, _, lookup, batch, scale = _lookup(
        leaves, ids, dims, layernorm, columns, eps, check, row_scale, stored=True
    )
    return scaled_rows(xp, lookup, batch, scale, out)


@overload
def ket_rows_vjp(
    leaves: HostLike,
    ids: Index,
    cotangent: HostLike,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[False] = False,
) -> Host: ...
@overload
def ket_rows_vjp(
    leaves: HostLike,
    ids: Index,
    cotangent: HostLike,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: HostLike,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[False] = False,
) -> tuple[Host, Host]: ...
@overload
def ket_rows_vjp(
    leaves: HostLike,
    ids: Index,
    cotangent: HostLike,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[True],
) -> tuple[Host, Host]: ...
@overload
def ket_rows_vjp(
    leaves: HostLike,
    ids: Index,
    cotangent: HostLike,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: HostLike,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[True],
) -> tuple[Host, Host, Host]: ...
@overload
def ket_rows_vjp(
    leaves: ForeignT,
    ids: Index,
    cotangent: ForeignT,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[False] = False,
) -> ForeignT: ...
@overload
def ket_rows_vjp(
    leaves: ForeignT,
    ids: Index,
    cotangent: ForeignT,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: ForeignT,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[False] = False,
) -> tuple[ForeignT, ForeignT]: ...
@overload
def ket_rows_vjp(
    leaves: ForeignT,
    ids: Index,
    cotangent: ForeignT,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: None = None,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[True],
) -> tuple[ForeignT, ForeignT]: ...
@overload
def ket_rows_vjp(
    leaves: ForeignT,
    ids: Index,
    cotangent: ForeignT,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: ForeignT,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: Literal[True],
) -> tuple[ForeignT, ForeignT, ForeignT]: ...
@quiet
def ket_rows_vjp(
    leaves: AnyArray,
    ids: Any,
    cotangent: AnyArray,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: AnyArray | None = None,
    check: bool | None = None,
    deterministic: bool = True,
    sparse: bool = False,
) -> AnyArray | tuple[AnyArray, ...]:
    """Pull a cotangent of `ket_rows` back to the leaves.

    Parameters
    ----------
    leaves : array, (words, R, S)
        As of `ket_rows`.
    ids : int or array of ints, (...)
        As of `ket_rows`.
    cotangent : array, (..., columns)
        Of the rows; real where these are.
    dims : sequence of N ints
        As of `ket_rows`.
    layernorm : bool, default False
        As of `ket_rows`.
    columns : int, optional
        As of `ket_rows`.
    eps : float, default 1e-5
        As of `ket_rows`.
    row_scale : array, (words,), optional
        As of `ket_rows`.
    check : bool, optional
        As of `ket_rows`; a row of NaN has no gradient.
    deterministic : bool, default True
        False lets CUDA kernels sum with atomics, in no fixed order.  It changes nothing else.
    sparse : bool, default False
        Whether to return the gradients of those words alone that were picked; on a device this waits for
        their number.

    Returns
    -------
    array, (words, R, S)
        In the dtype of `leaves`: zero for a word never picked, a sum for one picked repeatedly.  With
        `sparse` the pair of unique ids (U,), ascending, and their gradients (U, R, S).
    array, (words,)
        Only with `row_scale`: its gradient, in its dtype.  With `sparse`, which gives three arrays then, it
        is that of the unique ids, (U,).

    Raises
    ------
    TypeError, ValueError, IndexError
        As `ket_rows`, and on a cotangent that does not fit the rows.

    Notes
    -----
    Cost: ``O(R |ids| Q)`` time, with `row_scale` that of `ket_rows` more and the memory of the rows;
    ``O(R |ids| S)`` memory, and that of the dense gradient unless `sparse`.

    The plain transpose: nothing is conjugated, also for complex input.

    Examples
    --------
    >>> ket_rows_vjp(np.ones((3, 1, 4)), [1, 1], np.ones((2, 4)), (2, 2), sparse=True)
    (array([1]), array([[[4., 4., 4., 4.]]]))
    """
    xp, leaves, dims, lookup, batch, scale = _lookup(
        leaves, ids, dims, layernorm, columns, eps, check, row_scale
    )
    deterministic, sparse = check_flag("deterministic", deterministic), check_flag("sparse", sparse)
    cotangent, to_scale = scaled_cotangent(xp, lookup, batch, scale, cotangent)
    if not sparse:
        packed = cast_gradient(xp, packed_vjp(lookup, dims, cotangent, deterministic), leaves)
        return packed if scale is None else (packed, scale_gradient(xp, lookup, scale, to_scale))
    found, sums = ids_vjp(lookup, cotangent)
    sums = cast_gradient(xp, restored_records(xp, sums, lookup.widths, dims), leaves)
    return (
        (found, sums) if scale is None else (found, sums, sparse_scale_gradient(xp, lookup, scale, to_scale))
    )


@overload
def ket_rows_jvp(
    leaves: HostLike,
    ids: Index,
    tangent: HostLike,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: HostLike | None = None,
    row_scale_tangent: HostLike | None = None,
    check: bool | None = None,
) -> Host: ...
@overload
def ket_rows_jvp(
    leaves: ForeignT,
    ids: Index,
    tangent: ForeignT,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: ForeignT | None = None,
    row_scale_tangent: ForeignT | None = None,
    check: bool | None = None,
) -> ForeignT: ...
@quiet
def ket_rows_jvp(
    leaves: AnyArray,
    ids: Any,
    tangent: AnyArray,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: AnyArray | None = None,
    row_scale_tangent: AnyArray | None = None,
    check: bool | None = None,
) -> AnyArray:
    """The derivative of `ket_rows` along a tangent of the leaves.

    Parameters
    ----------
    leaves : array, (words, R, S)
        As of `ket_rows`.
    ids : int or array of ints, (...)
        As of `ket_rows`.
    tangent : array, (words, R, S)
        Of `leaves`; real where these are.
    dims : sequence of N ints
        As of `ket_rows`.
    layernorm : bool, default False
        As of `ket_rows`.
    columns : int, optional
        As of `ket_rows`.
    eps : float, default 1e-5
        As of `ket_rows`.
    row_scale : array, (words,), optional
        As of `ket_rows`.
    row_scale_tangent : array, (words,), optional
        Of `row_scale`; None, the default, for zero.
    check : bool, optional
        As of `ket_rows`.

    Returns
    -------
    array, (..., columns)
        In the dtype of what `ket_rows` returns.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `ket_rows`, and on a tangent that does not fit the leaves.

    Notes
    -----
    Cost: ``O(N R |ids| Q)`` time.
    """
    xp, leaves, dims, lookup, batch, scale = _lookup(
        leaves, ids, dims, layernorm, columns, eps, check, row_scale
    )
    tangent = check_like("tangent", tangent, leaves.shape, xp, leaves, lookup.dtype)
    moving = packed_views(xp, tangent, dims)
    moving = moving if lookup.layernorm else narrowed(moving, lookup.columns)
    return scaled_tangent(xp, lookup, batch, scale, moving, row_scale_tangent)


def ket_rows_shapes(
    leaves: AnyArray, ids: AnyArray, dims: Sequence[int], *, columns: int | None = None, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `ket_rows`, of anything that has a shape."""
    return ((*ids.shape, prod(dims) if columns is None else columns),)


@quiet
def ket_rows_dense(
    leaves: AnyArray,
    ids: Any,
    dims: Sequence[int],
    layernorm: bool = False,
    *,
    columns: int | None = None,
    eps: float = 1e-5,
    row_scale: AnyArray | None = None,
) -> np.ndarray:
    """The definition of `ket_rows` on NumPy arrays, word by word and term by term.

    Parameters
    ----------
    leaves : array, (words, R, S)
        As of `ket_rows`; they are not checked.
    ids : int or array of ints, (...)
        As of `ket_rows`; they are not checked.
    dims : sequence of N ints
        As of `ket_rows`; they are not checked.
    layernorm : bool, default False
        As of `ket_rows`; they are not checked.
    columns : int, optional
        As of `ket_rows`; they are not checked.
    eps : float, default 1e-5
        As of `ket_rows`; they are not checked.
    row_scale : array, (words,), optional
        As of `ket_rows`; it is not checked.

    Returns
    -------
    np.ndarray, (..., columns)
        In the dtype of what `ket_rows` returns.
    """
    leaves, ids = np.asarray(leaves), np.asarray(ids)
    dtype = leaves.dtype if row_scale is None else np.result_type(leaves, row_scale)
    wide = leaves.astype(accumulation_dtype(np, dtype))

    def node(vectors):
        if len(vectors) == 1:
            return vectors[0]
        half = len(vectors) // 2
        vector = np.kron(node(vectors[:half]), node(vectors[half:]))
        return (vector - vector.mean()) / np.sqrt(vector.var() + eps) if layernorm else vector

    rows = np.zeros((*ids.shape, prod(dims)), wide.dtype)
    for b in np.ndindex(ids.shape):
        for record in wide[ids[b]]:
            rows[b] += node(np.split(record, offsets(dims)[1:-1]))
    if row_scale is not None:
        rows = np.asarray(row_scale).astype(wide.dtype)[ids][..., None] * rows
    return rows[..., :columns].astype(dtype)


def _lookup(leaves, ids, dims, layernorm, columns, eps, check, row_scale, stored=False):
    """Everything checked, as the lookup that engines take, and the batch of the ids.

    With `stored` quantized leaves stay so, until the rows are made.
    """
    xp, (leaves,), own, kinds = check_stored("leaves", (leaves,), beside_tables(row_scale), stored)
    scale, dtype = check_row_scale("leaves", kinds, own, row_scale, by_id=True)
    dims, eps = check_dims("dims", dims), check_size("eps", eps)
    length, width = _sizes(dims)
    if leaves.ndim != 3 or leaves.shape[2] != length:
        rule = f"shape (words, rank, {shown(length)}) for dims {shown(dims)}"
        raise ValueError(f"leaves must have {rule}, got {tuple(leaves.shape)}")
    layernorm = check_flag("layernorm", layernorm)
    if layernorm and is_complex(xp, own):
        raise TypeError(f"layernorm must be False for complex leaves, got leaves of {own}")
    # No stand-in row can be read from an empty table, so there an id is always an error.
    check = check if leaves.shape[0] else True
    ids, checked = check_index("ids", ids, leaves.shape[0], check, narrow=xp is np)
    ids = to_namespace_of(ids, xp, kinds[0])
    columns = check_columns("columns", columns, width)
    found = _form(type(kinds[0]), tuple(leaves.shape), dims, columns, layernorm, eps, dtype, own)
    tables, quantized = tables_of_packed(xp, leaves, dims, found.widths), leaves is not kinds[0]
    records = leaves if quantized or found.widths == dims else None
    lookup, batch = Lookup(tables, flattened(xp, ids), checked, found, records, quantized), tuple(ids.shape)
    return xp, leaves, dims, scaled_lookup(xp, lookup, batch, scale), batch, scale


@kept(1024)
def _form(array, shape, dims, columns, layernorm, eps, dtype, own):
    """The form of rows of leaves of this shape."""
    words, rank, _ = shape
    # The mean and the variance of a node are those of all its entries.
    widths = dims if layernorm else narrowed_widths(dims, columns)
    split = tree_split(len(dims)) if layernorm else halves_split(widths)
    shapes, dtypes = tuple([(rank, words, width) for width in widths]), (own,) * len(dims)
    return form(array, "same", words, columns, layernorm, eps, split, dtype, shapes, dtypes)


@kept(1024)
def _sizes(dims):
    """The sum and the product of the lengths of leaves."""
    return sum(dims), prod(dims)
