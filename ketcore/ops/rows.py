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
    check_shape,
    check_tables,
    check_tangents,
    to_namespace_of,
)
from ketcore.arrays.namespaces import accumulation_dtype, quiet
from ketcore.lookups.gather import as_rows, expanded, gather_jvp, gather_vjp
from ketcore.lookups.lookup import Lookup, narrowed, restored
from ketcore.shapes import halves_split


@overload
def rows(
    factors: Sequence[HostLike],
    ids: Index,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
    out: Host | None = None,
) -> Host: ...
@overload
def rows(
    factors: Sequence[ForeignT],
    ids: Index,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
    out: ForeignT | None = None,
) -> ForeignT: ...
@quiet
def rows(
    factors: Sequence[AnyArray],
    ids: Any,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """Rows `ids` of M.

    factors  N arrays (R, p_n, q_n), floating or complex, one R for all
    ids      (...) any integer dtype, 0 <= id < rows
    shape    (rows, columns), the leading block of (P, Q) that M is cropped to; None is all of it
    check    True: look for bad ids and raise; False: do not, a bad one gives a row of NaN;
             None: look where the ids lie in host memory
    out      array (..., columns) to write into, NumPy and CuPy only
    returns  (..., columns) in the promoted dtype of `factors`; 16-bit storage is summed in float32
    raises   TypeError, ValueError on kinds and shapes; IndexError on an id out of range
    cost     time O(R |ids| columns), memory that of the output; M itself would hold P Q

    >>> a, b = np.arange(4.0).reshape(1, 2, 2), np.arange(6.0).reshape(1, 3, 2)
    >>> rows((a, b), [5]).tolist() == np.kron(a[0], b[0])[[5]].tolist()
    True
    """
    xp, factors, lookup, batch = _lookup(factors, ids, shape, check)
    return expanded(xp, lookup, batch, out)


@overload
def rows_vjp(
    factors: Sequence[HostLike],
    ids: Index,
    cotangent: HostLike,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[Host, ...]: ...
@overload
def rows_vjp(
    factors: Sequence[ForeignT],
    ids: Index,
    cotangent: ForeignT,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[ForeignT, ...]: ...
@quiet
def rows_vjp(
    factors: Sequence[AnyArray],
    ids: Any,
    cotangent: AnyArray,
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[AnyArray, ...]:
    """Pull `cotangent`, shape (..., columns), back through `rows` to the factors.

    deterministic   CUDA kernels only: False sums with atomics, in no fixed order
    returns  N arrays, each of the shape and dtype of its factor.  A row picked twice gets both
             contributions, one never picked gets zero.  The plain transpose: no conjugation,
             also for complex input
    options  all others as in `rows`
    raises   as `rows`; TypeError, ValueError on the cotangent
    cost     time O(R |ids| Q), memory O(R |ids| (qa + qb)) for halves of qa qb = Q columns.  CPU tensors of
             PyTorch of which nothing is recorded or traced take the time of NumPy arrays, in the same memory;
             others, and bfloat16, take array code, which is slower

    >>> a, b = np.ones((1, 2, 2)), np.ones((1, 3, 2))
    >>> [g.tolist() for g in rows_vjp((a, b), [5, 5], np.ones((2, 4)))]
    [[[[0.0, 0.0], [4.0, 4.0]]], [[[0.0, 0.0], [0.0, 0.0], [4.0, 4.0]]]]
    """
    xp, factors, lookup, batch = _lookup(factors, ids, shape, check)
    cotangent = as_rows(xp, lookup, batch, cotangent)
    gradients = gather_vjp(lookup, cotangent, check_flag("deterministic", deterministic))
    return restored(xp, gradients, factors)


@overload
def rows_jvp(
    factors: Sequence[HostLike],
    ids: Index,
    tangents: Sequence[HostLike],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> Host: ...
@overload
def rows_jvp(
    factors: Sequence[ForeignT],
    ids: Index,
    tangents: Sequence[ForeignT],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> ForeignT: ...
@quiet
def rows_jvp(
    factors: Sequence[AnyArray],
    ids: Any,
    tangents: Sequence[AnyArray],
    shape: tuple[int, int] | None = None,
    *,
    check: bool | None = None,
) -> AnyArray:
    """The derivative of `rows` along `tangents`, N arrays of the shapes of the factors: (..., columns).

    options  all others as in `rows`
    raises   as `rows`; TypeError, ValueError on the tangents
    cost     time O(R |ids| Q)
    """
    xp, factors, lookup, batch = _lookup(factors, ids, shape, check)
    tangents = check_tangents("tangents", tangents, factors, xp, lookup.dtype)
    return xp.reshape(gather_jvp(lookup, narrowed(tangents, lookup.columns)), (*batch, lookup.columns))


def rows_shapes(
    factors: Sequence[AnyArray], ids: AnyArray, shape: tuple[int, int] | None = None, **options: object
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `rows`, of anything that has a shape."""
    columns = prod(factor.shape[2] for factor in factors) if shape is None else shape[1]
    return ((*ids.shape, columns),)


@quiet
def rows_dense(factors: Sequence[AnyArray], ids: Any, shape: tuple[int, int] | None = None) -> np.ndarray:
    """The definition on NumPy arrays: M built by np.kron, then indexed.  Costs P Q memory."""
    factors = [np.asarray(factor) for factor in factors]
    dtype = np.result_type(*factors)
    full = [prod([factor.shape[axis] for factor in factors]) for axis in (1, 2)]
    dense = np.zeros(full, accumulation_dtype(np, dtype))
    for terms in zip(*factors, strict=True):
        term = np.ones((1, 1), dense.dtype)
        for factor in terms:
            term = np.kron(term, factor.astype(dense.dtype))
        dense += term
    count, columns = full if shape is None else shape
    return dense[:count, :columns].astype(dtype)[np.asarray(ids)]


def _lookup(factors, ids, shape, check):
    xp, factors, dtype = check_tables("factors", factors)
    count, columns = check_shape(shape, factors)
    ids, checked = check_index("ids", ids, count, check)
    ids = to_namespace_of(ids, xp, factors[0])
    batch = tuple(ids.shape)
    cut = narrowed(factors, columns)
    lookup = Lookup(
        tables=cut,
        index=xp.reshape(ids, (prod(batch),)),
        kind="digits",
        bound=count,
        checked=checked,
        columns=columns,
        layernorm=False,
        eps=0.0,
        split=halves_split(tuple(table.shape[2] for table in cut)),
        dtype=dtype,
    )
    return xp, factors, lookup, batch
