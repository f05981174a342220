"""Rows of tables that are stored as codes: sums of products of vectors of codebooks, scaled and decoded.

    y_b = (s_b sum_k  C_0[k, i_0kb] (x) C_1[k, i_1kb] (x) ... (x) C_{N-1}[k, i_{N-1,k,b}]) D

A code i is the stored index of a vector in one small table of them, the codebook C_n[k].  The derivatives,
with g_b the sum of products, c the cotangent of the rows and u = c D^T:

    of D     sum_b s_b g_b^T c_b
    of s_b   sum of u_b g_b
    of C_n   those of `gather_kron` for the cotangent s_b u_b

Letters: N order, R rank, n mode, K_n and q_n rows and columns of codebook n, w = prod q_n, Q columns of D,
... batch of codes.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, HostLike, Index
from ketcore.arrays.checks import (
    check_flag,
    check_like,
    check_optional,
    check_out,
    check_table_shapes,
    check_tangents,
    shapes_of,
)
from ketcore.arrays.conversions import promoted
from ketcore.arrays.elementary import as_dtype, reshaped, transposed
from ketcore.arrays.namespaces import accumulation_dtype, cast_gradient, namespace, quiet
from ketcore.arrays.quantized import decoded
from ketcore.lookups.gather import gather, gather_jvp, gather_vjp
from ketcore.lookups.index_lookup import index_lookup
from ketcore.lookups.lookup import made_safe, masked
from ketcore.lookups.stored_tables import check_stored
from ketcore.shapes import check_addressable, shown


@overload
def codebook_rows(
    codebooks: Sequence[HostLike],
    row_scale: HostLike | None,
    decoder: HostLike | None,
    codes: Index,
    *,
    check: bool | None = None,
    out: Host | None = None,
) -> Host: ...
@overload
def codebook_rows(
    codebooks: Sequence[ForeignT],
    row_scale: ForeignT | None,
    decoder: ForeignT | None,
    codes: Index,
    *,
    check: bool | None = None,
    out: ForeignT | None = None,
) -> ForeignT: ...
@quiet
def codebook_rows(
    codebooks: Sequence[AnyArray],
    row_scale: AnyArray | None,
    decoder: AnyArray | None,
    codes: Any,
    *,
    check: bool | None = None,
    out: AnyArray | None = None,
) -> AnyArray:
    """Rows of a table that is stored as codes: sums of products of vectors of codebooks, scaled and decoded.

    With C_n[k] the codebook of mode n and term k, s the scale of a row and D the decoder::

        y[b] = (s_b sum_k  C_0[k, i_0kb] (x) C_1[k, i_1kb] (x) ... (x) C_{N-1}[k, i_{N-1,k,b}]) D

    Parameters
    ----------
    codebooks : sequence of N arrays, (R, K_n, q_n)
        Floating or complex; one R for all, while K_n may differ; integers and nested lists become floating.
    row_scale : array, (...), or None
        One number for each row, of any sign; None for ones.
    decoder : array, (w, Q), or None
        What rows of w = prod q_n numbers are multiplied by; None where they are the result.
    codes : array of ints, (N, R, ...)
        Which vector each row takes of each codebook, ``0 <= codes[n] < K_n``; of any integer dtype, those of
        the rows alone.
    check : bool, optional
        As of `gather_kron`.
    out : array, (..., Q), optional
        An array of NumPy or CuPy, C-contiguous and of the dtype of the result, to write it into.

    Returns
    -------
    array, (..., Q)
        In the promoted dtype of all floating arrays; 16-bit storage is summed in float32, and rounded once.

    Raises
    ------
    TypeError
        On a wrong kind or dtype, and on arrays of several libraries or devices.
    ValueError
        On a wrong shape.
    IndexError
        On a code out of range, where `check` looks for it.

    See Also
    --------
    CodebookTable : A table of codes as an object.
    gather_kron : The same without scale and decoder.

    Notes
    -----
    Cost: ``O(R |batch| w + |batch| w Q)`` time; with a scale or a decoder the memory of ``|batch| w`` numbers
    beyond the output.

    Examples
    --------
    >>> books = np.array([[[1.0, 0.0], [0.0, 1.0]], [[10.0, 0.0], [0.0, 10.0]]])
    >>> codebook_rows([books], [1.0, 2.0], None, [[[0, 1], [1, 1]]]).tolist()
    [[1.0, 10.0], [0.0, 22.0]]
    """
    call = _Call(codebooks, row_scale, decoder, codes, check, stored=True)
    xp, shape = call.xp, (*call.batch, call.columns)
    check_addressable(shape)
    found = None if out is None else check_out(out, shape, call.dtype, call.codebooks[0], xp)
    if found is not None and call.plain:
        gather(call.lookup, found.reshape((call.lookup.batch, call.columns)))
        return found
    rows = call.finished(call.decoded(call.scaled(gather(call.lookup))))
    if found is None:
        return rows
    found[...] = rows
    return found


@overload
def codebook_rows_vjp(
    codebooks: Sequence[HostLike],
    row_scale: HostLike | None,
    decoder: HostLike | None,
    codes: Index,
    cotangent: HostLike,
    *,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[tuple[Host, ...], Host | None, Host | None]: ...
@overload
def codebook_rows_vjp(
    codebooks: Sequence[ForeignT],
    row_scale: ForeignT | None,
    decoder: ForeignT | None,
    codes: Index,
    cotangent: ForeignT,
    *,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[tuple[ForeignT, ...], ForeignT | None, ForeignT | None]: ...
@quiet
def codebook_rows_vjp(
    codebooks: Sequence[AnyArray],
    row_scale: AnyArray | None,
    decoder: AnyArray | None,
    codes: Any,
    cotangent: AnyArray,
    *,
    check: bool | None = None,
    deterministic: bool = True,
) -> tuple[tuple[AnyArray, ...], AnyArray | None, AnyArray | None]:
    """Pull a cotangent of `codebook_rows` back to the codebooks, to the scale and to the decoder.

    Parameters
    ----------
    codebooks : sequence of N arrays, (R, K_n, q_n)
        As of `codebook_rows`.
    row_scale : array, (...), or None
        As of `codebook_rows`.
    decoder : array, (w, Q), or None
        As of `codebook_rows`.
    codes : array of ints, (N, R, ...)
        As of `codebook_rows`.
    cotangent : array, (..., Q)
        Of the result; real where this is.
    check : bool, optional
        As of `codebook_rows`; a row of NaN has no gradient.
    deterministic : bool, default True
        As of `gather_kron_vjp`.

    Returns
    -------
    to_codebooks : tuple of N arrays, (R, K_n, q_n)
        Each in the dtype of its codebook: of a real one beside complex ones the real part.  A vector picked
        twice gets both contributions, one never picked gets zero.
    to_row_scale : array, (...), or None
        The same for `row_scale`, a number for each row; None for a scale of None.
    to_decoder : array, (w, Q), or None
        The same for `decoder`.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `codebook_rows`, and on a cotangent that does not fit the result.

    Notes
    -----
    Cost: three times `codebook_rows`.

    The plain transpose: nothing is conjugated, also for complex input.

    Examples
    --------
    >>> to_books, to_scale, to_decoder = codebook_rows_vjp(
    ...     [[[[1.0, 2.0], [3.0, 4.0]]]], [2.0], [[1.0], [10.0]], [[[1]]], [[1.0]]
    ... )
    >>> to_books[0].tolist(), to_scale.tolist(), to_decoder.tolist()
    ([[[0.0, 0.0], [2.0, 20.0]]], [43.0], [[6.0], [8.0]])
    """
    call = _Call(codebooks, row_scale, decoder, codes, check)
    xp, shape = call.xp, (*call.batch, call.columns)
    cotangent = check_like("cotangent", cotangent, shape, xp, call.codebooks[0], call.dtype)
    deterministic = check_flag("deterministic", deterministic)
    # Rows of a bad index count for nothing, in sums over the batch as well.
    lookup, bad = made_safe(xp, call.lookup)
    pulled = reshaped(xp, as_dtype(xp, cotangent, call.wide), (lookup.batch, call.columns))
    pulled = masked(xp, pulled, bad)
    rows = None if call.plain else gather(lookup)
    to_scale = to_decoder = None
    if call.decoder is not None:
        to_decoder = cast_gradient(xp, xp.matmul(transposed(call.scaled(rows)), pulled), call.given_decoder)
        pulled = xp.matmul(pulled, transposed(call.decoder))
    if call.row_scale is not None:
        to_scale = xp.sum(pulled * rows, axis=1, dtype=call.wide)
        to_scale = cast_gradient(xp, reshaped(xp, to_scale, call.batch), call.given_scale)
    gradients = gather_vjp(lookup, call.scaled(pulled), deterministic)
    pairs = zip(gradients, call.codebooks, strict=True)
    return tuple(cast_gradient(xp, g, table) for g, table in pairs), to_scale, to_decoder


@overload
def codebook_rows_jvp(
    codebooks: Sequence[HostLike],
    row_scale: HostLike | None,
    decoder: HostLike | None,
    codes: Index,
    codebook_tangents: Sequence[HostLike],
    row_scale_tangent: HostLike | None,
    decoder_tangent: HostLike | None,
    *,
    check: bool | None = None,
) -> Host: ...
@overload
def codebook_rows_jvp(
    codebooks: Sequence[ForeignT],
    row_scale: ForeignT | None,
    decoder: ForeignT | None,
    codes: Index,
    codebook_tangents: Sequence[ForeignT],
    row_scale_tangent: ForeignT | None,
    decoder_tangent: ForeignT | None,
    *,
    check: bool | None = None,
) -> ForeignT: ...
@quiet
def codebook_rows_jvp(
    codebooks: Sequence[AnyArray],
    row_scale: AnyArray | None,
    decoder: AnyArray | None,
    codes: Any,
    codebook_tangents: Sequence[AnyArray],
    row_scale_tangent: AnyArray | None,
    decoder_tangent: AnyArray | None,
    *,
    check: bool | None = None,
) -> AnyArray:
    """The derivative of `codebook_rows` along tangents of the codebooks, of the scale and of the decoder.

    Parameters
    ----------
    codebooks : sequence of N arrays, (R, K_n, q_n)
        As of `codebook_rows`.
    row_scale : array, (...), or None
        As of `codebook_rows`.
    decoder : array, (w, Q), or None
        As of `codebook_rows`.
    codes : array of ints, (N, R, ...)
        As of `codebook_rows`.
    codebook_tangents : sequence of N arrays, (R, K_n, q_n)
        Of the codebooks, in their shapes; real where the result is.
    row_scale_tangent : array, (...), or None
        The same of `row_scale`; None where that is.
    decoder_tangent : array, (w, Q), or None
        The same of `decoder`; None where that is.
    check : bool, optional
        As of `codebook_rows`.

    Returns
    -------
    array, (..., Q)
        In the dtype of what `codebook_rows` returns.

    Raises
    ------
    TypeError, ValueError, IndexError
        As `codebook_rows`, and on tangents that do not fit.

    Notes
    -----
    Cost: three times `codebook_rows`.
    """
    call = _Call(codebooks, row_scale, decoder, codes, check)
    xp = call.xp
    moved = check_tangents("codebook_tangents", codebook_tangents, call.codebooks, xp, call.dtype)
    moved = [as_dtype(xp, tangent, call.wide) for tangent in moved]
    scale_moved = call.tangent("row_scale_tangent", row_scale_tangent, call.given_scale)
    decoder_moved = call.tangent("decoder_tangent", decoder_tangent, call.given_decoder)
    found = call.decoded(call.scaled(gather_jvp(call.lookup, moved)))
    rows = None if call.plain else gather(call.lookup)
    if scale_moved is not None:
        found = found + call.decoded(rows * reshaped(xp, scale_moved, (-1, 1)))
    if decoder_moved is not None:
        found = found + xp.matmul(call.scaled(rows), decoder_moved)
    return call.finished(found)


def codebook_rows_shapes(
    codebooks: Sequence[AnyArray],
    row_scale: AnyArray | None,
    decoder: AnyArray | None,
    codes: AnyArray,
    **options: object,
) -> tuple[tuple[int, ...], ...]:
    """The shapes of the outputs of `codebook_rows`, of anything that has a shape."""
    width = prod(table.shape[2] for table in codebooks) if decoder is None else decoder.shape[1]
    return ((*codes.shape[2:], width),)


@quiet
def codebook_rows_dense(
    codebooks: Sequence[AnyArray], row_scale: AnyArray | None, decoder: AnyArray | None, codes: Any
) -> np.ndarray:
    """The definition of `codebook_rows` on NumPy arrays, row by row and term by term.

    Parameters
    ----------
    codebooks : sequence of N arrays, (R, K_n, q_n)
        As of `codebook_rows`; they are not checked.
    row_scale : array, (...), or None
        As of `codebook_rows`; it is not checked.
    decoder : array, (w, Q), or None
        As of `codebook_rows`; it is not checked.
    codes : array of ints, (N, R, ...)
        As of `codebook_rows`; they are not checked.

    Returns
    -------
    np.ndarray, (..., Q)
        In the promoted dtype of all floating arrays.
    """
    codebooks, codes = [np.asarray(table) for table in codebooks], np.asarray(codes)
    batch, width = codes.shape[2:], prod([table.shape[2] for table in codebooks])
    scale = np.ones(batch, codebooks[0].dtype) if row_scale is None else np.asarray(row_scale)
    matrix = np.eye(width, dtype=codebooks[0].dtype) if decoder is None else np.asarray(decoder)
    dtype = np.result_type(*codebooks, scale.dtype, matrix.dtype)
    wide = accumulation_dtype(np, dtype)
    rows = np.zeros((*batch, matrix.shape[1]), wide)
    for b in np.ndindex(batch):
        total = np.zeros(width, wide)
        for k in range(codes.shape[1]):
            term = np.ones(1, wide)
            for n, table in enumerate(codebooks):
                term = np.kron(term, table[k, codes[(n, k, *b)]].astype(wide))
            total += term
        rows[b] = (scale[b].astype(wide) * total) @ matrix.astype(wide)
    return rows.astype(dtype)


class _Call:
    """Arguments that were checked: the lookup in the accumulation dtype where rows are worked on after it."""

    def __init__(self, codebooks, row_scale, decoder, codes, check, stored=False):
        beside = [each for each in (row_scale, decoder) if each is not None]
        xp, given, _, codebooks = check_stored("codebooks", codebooks, beside, stored)
        check_table_shapes("codebooks", shapes_of(given))
        self.codebooks, self.xp, self.plain = codebooks, xp, not beside
        self.given_scale = check_optional("row_scale", row_scale, (*codebooks, *beside))
        self.given_decoder = check_optional("decoder", decoder, (*codebooks, *beside))
        arrays = [each for each in (*codebooks, self.given_scale, self.given_decoder) if each is not None]
        name = "codebooks, row_scale and decoder"
        namespace(name, arrays)
        self.dtype = promoted(name, arrays)
        self.wide = accumulation_dtype(xp, self.dtype)
        tables = given if self.plain else [_cast(xp, table, self.wide) for table in given]
        dtype = self.dtype if self.plain else tables[0].dtype
        width = prod([table.shape[2] for table in tables])
        check_decoder(self.given_decoder, width)
        self.lookup, self.batch = index_lookup("codes", codes, xp, tables, dtype, check=check)
        self.columns = width if decoder is None else self.given_decoder.shape[1]
        self.row_scale = self.decoder = None
        if row_scale is not None:
            if tuple(self.given_scale.shape) != self.batch:
                rule = f"have shape {self.batch}, one number for each row of codes"
                raise ValueError(f"row_scale must {rule}, got {tuple(self.given_scale.shape)}")
            self.row_scale = reshaped(xp, as_dtype(xp, self.given_scale, self.wide), (-1, 1))
        if decoder is not None:
            self.decoder = as_dtype(xp, self.given_decoder, self.wide)

    def scaled(self, rows):
        """Rows (B, w) times their scale."""
        return rows if self.row_scale is None else rows * self.row_scale

    def decoded(self, rows):
        """Rows (B, w) as (B, Q)."""
        return rows if self.decoder is None else self.xp.matmul(rows, self.decoder)

    def finished(self, rows):
        """Rows (B, Q) in the shape and the dtype of the result."""
        return reshaped(self.xp, as_dtype(self.xp, rows, self.dtype), (*self.batch, self.columns))

    def tangent(self, name, tangent, primal):
        """A tangent in the accumulation dtype; None beside a primal of None."""
        if primal is None:
            if tangent is not None:
                raise ValueError(f"{name} must be None, as what it is the tangent of, got {shown(tangent)}")
            return None
        found = check_like(name, tangent, primal.shape, self.xp, primal, self.dtype)
        return as_dtype(self.xp, found, self.wide)


def _cast(xp, table, dtype):
    """A codebook in this dtype; one that is quantized, and decodes to it, as it is."""
    return table if table.dtype == dtype else as_dtype(xp, decoded(table), dtype)


def check_decoder(decoder: AnyArray | None, width: int) -> None:
    """ValueError unless a decoder is a matrix with a row for each of the `width` numbers of a row."""
    if decoder is None:
        return
    if decoder.ndim != 2 or decoder.shape[0] != width or not decoder.shape[1]:
        rule = f"have shape (w, Q), with w = {width} as the product of the widths of the codebooks and Q >= 1"
        raise ValueError(f"decoder must {rule}, got {tuple(decoder.shape)}")
