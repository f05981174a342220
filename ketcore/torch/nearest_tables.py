"""Parameters of embedding layers whose tables are near given ones.

A Kronecker matrix comes from `nearest_kronecker`, a table of codes from `fit_codebooks`.  Kets of two leaves
are truncated singular value decompositions; of more leaves they are found by alternating least squares, for
many words at once:

    G[r, s] = prod_{m != n} <v_m[r], v_m[s]>        G v_n = T . conj(v_m), m != n        mode by mode

Letters: N order, R rank, q_n dims; in einsum z word, r rank, a b c ... modes.
"""

from collections.abc import Sequence
from functools import reduce
from math import prod
from string import ascii_letters
from typing import Any, NamedTuple

import torch
from torch import Tensor

import ketcore as kc
from ketcore.arrays.checks import check_flag
from ketcore.shapes import check_dims, check_int
from ketcore.torch.embedding_tables import leaf_std
from ketcore.torch.functional import rows as rows_of
from ketcore.torch.inputs import mode_dims, order_of
from ketcore.torch.ratios import check_alone, check_ratio, kronecker_rank, sizes_of_codes, table_sizes

# Alternating least squares end after so many sweeps, or with one that adds less than this part of the rows.
_SWEEPS, _GAIN = 100, 1e-7
# A matrix of more elements, whose fit would take minutes, is fitted to so small a gain, from one start: a
# beginning of training needs three digits of the error and no more.
_LARGE, _LARGE_GAIN = 1 << 20, 1e-4
# Numbers of a chunk of words, times the rank: some 64 MB of doubles.
_CHUNK = 1 << 23
# In the place of a square of 0, by which is divided.
_TINY = torch.finfo(torch.float64).tiny
# Terms and codes where neither they nor a ratio are given.
_RANK, _CODES = 10, 8


class FittedFactors(NamedTuple):
    """Factors (rank, p_n, q_n), scales (words,) if there are to be any, and the relative error."""

    factors: list[Tensor]
    row_scale: Tensor | None
    error: float


def fitted_factors(
    embeddings: Tensor,
    order: int,
    rank: int | None,
    row_dims: Sequence[int] | None,
    col_dims: Sequence[int] | None,
    permutation: Any,
    rng: Any,
    row_scale: bool = False,
    ratio: float | None = None,
) -> FittedFactors:
    """A Kronecker matrix near the table, of so many terms or of those that a ratio of bytes leaves."""
    table, row_scale = checked_table(embeddings), check_flag("row_scale", row_scale)
    count = order_of(order, row_dims=row_dims, col_dims=col_dims)
    rows = mode_dims("row_dims", row_dims, table.shape[0], count)
    columns = mode_dims("col_dims", col_dims, table.shape[1], count)
    if ratio is None:
        rank = check_int("rank", _RANK if rank is None else rank, 1)
    else:
        check_alone("ratio", rank=rank)
        sizes = table_sizes(table, row_scale)
        rank = kronecker_rank(sizes, check_ratio(ratio), rows, columns, permutation is not None)
    if not row_scale:
        factors, error = near_factors(table, rows, columns, rank, rng, permutation)
        return FittedFactors(factors, None, error)
    return _scaled_factors(table, rows, columns, rank, rng, permutation)


def _scaled_factors(table, row_dims, col_dims, rank, rng, permutation):
    """The nearest Kronecker matrix, and for each of its rows the number that brings it nearest."""
    factors, _ = near_factors(table, row_dims, col_dims, rank, rng, permutation)
    wide = torch.complex128 if table.is_complex() else torch.float64
    scale, lost, given = table.new_ones(table.shape[0]), 0.0, 0.0
    words = torch.arange(table.shape[0])
    places = words if permutation is None else torch.as_tensor(permutation).long().cpu()
    for ids in words.split(max(_CHUNK // table.shape[1], 1)):
        found = rows_of(factors, places[ids].to(table.device), table.shape).to(wide)
        block = table[ids].to(wide)
        squares = found.abs().square().sum(1)
        # A row of zeros is scaled by 1.
        best = torch.where(squares > 0, (found.conj() * block).sum(1) / squares.clamp(min=_TINY), 1)
        scale[ids] = best.to(scale.dtype)
        lost += float((block - found * scale[ids].to(wide)[:, None]).abs().square().sum())
        given += float(block.abs().square().sum())
    return FittedFactors(factors, scale, (lost / given) ** 0.5 if given else 0.0)


def near_factors(
    table: Tensor,
    row_dims: Sequence[int],
    col_dims: Sequence[int],
    rank: int,
    rng: Any,
    permutation: Any = None,
) -> tuple[list[Tensor], float]:
    """Factors (rank, p_n, q_n) of a Kronecker matrix near a finite one, and its relative error.

    >>> factors, error = near_factors(torch.eye(6), (2, 3), (2, 3), 2, 0)
    >>> [tuple(factor.shape) for factor in factors], error < 1e-6
    ([(2, 2, 2), (2, 3, 3)], True)
    """
    # On the host: sweeps over small arrays take several times as long in torch.
    wide = table.float() if table.dtype in (torch.float16, torch.bfloat16) else table
    options: dict[str, Any] = {"gain": _LARGE_GAIN, "restarts": 0} if table.numel() > _LARGE else {}
    options |= {"rng": rng, "permutation": permutation}
    fit = kc.nearest_kronecker(wide.cpu().numpy(), row_dims, col_dims, rank, **options)
    factors = [torch.tensor(factor).to(table) for factor in fit.value.factors]
    return _with_terms(factors, rank, 0), float(fit.error)


def _with_terms(parts, rank, axis):
    """Arrays of fewer terms along an axis with further ones of zero, in which the last leaf alone is zero.

    A term of zeros in all leaves would have no gradient.  The others are of the size of those that are there.
    """
    missing = rank - parts[0].shape[axis]
    if not missing:
        return parts
    shapes = [(*part.shape[:axis], missing, *part.shape[axis + 1 :]) for part in parts]
    # A generator of its own: the random state of torch is the caller's.
    generator = torch.Generator().manual_seed(0)
    more = [part.new_zeros(shape) for part, shape in zip(parts, shapes, strict=True)]
    for leaf, part in zip(more[:-1], parts[:-1], strict=True):
        size = float(torch.linalg.vector_norm(part)) / part.numel() ** 0.5 or leaf_std(1.0, len(parts), rank)
        drawn = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)
        leaf.copy_(size * drawn)
    return [torch.cat(pair, axis) for pair in zip(parts, more, strict=True)]


def fitted_codebooks(
    embeddings: Tensor,
    ratio: float | None = None,
    n_codes: int | None = None,
    codebook_size: int | None = None,
    width: int | None = None,
    row_scale: bool = False,
    **options: Any,
) -> tuple[kc.CodebookTable[Tensor], float]:
    """A table of codes near the table, of so many or of those that a ratio of bytes leaves, and its error.

    >>> table, error = fitted_codebooks(torch.eye(4), n_codes=1, codebook_size=4, rng=0)
    >>> table.shape, error < 1e-6
    ((4, 4), True)
    """
    table, row_scale = checked_table(embeddings), check_flag("row_scale", row_scale)
    if ratio is None:
        sizes: tuple[int, int | None, int | None] = (
            _CODES if n_codes is None else n_codes,
            codebook_size,
            width,
        )
    else:
        check_alone("ratio", n_codes=n_codes)
        dense = table_sizes(table, row_scale)
        sizes = sizes_of_codes(dense, check_ratio(ratio), codebook_size, width)
    fit = kc.fit_codebooks(table, *sizes, row_scale=row_scale, **options)
    return fit.value, float(fit.error)


def fitted_leaves(
    embeddings: Tensor, order: int, rank: int, dims: Sequence[int] | None
) -> tuple[Tensor, tuple[int, ...], float]:
    """Records (words, rank, sum dims) of kets near the rows of the table, dims, and the relative error."""
    table, rank = checked_table(embeddings), check_int("rank", rank, 1)
    words, columns = table.shape
    dims = kc.suggest_dims(columns, order) if dims is None else check_dims("dims", dims)
    if prod(dims) < columns:
        raise ValueError(f"dims must have a product of at least {columns}, got {dims}")
    wide = torch.complex128 if table.is_complex() else torch.float64
    leaves = table.new_empty((words, rank, sum(dims)))
    lost = 0.0
    size = max(_CHUNK // (prod(dims) * rank), 1)
    for start in range(0, words, size):
        block = table[start : start + size].to(wide)
        full = torch.nn.functional.pad(block, (0, prod(dims) - columns)).reshape(-1, *dims)
        found = _by_svd(full, rank) if len(dims) < 3 else _by_sweeps(full, rank)
        found = _with_terms(kc.Ket(found).balance().factors, rank, 1)
        leaves[start : start + size] = torch.cat(found, -1).to(table.dtype)
        stored = kc.Ket.from_packed(leaves[start : start + size].to(wide), dims).to_dense()
        lost += float((stored[:, :columns] - block).abs().square().sum())
    given = float(table.to(wide).abs().square().sum())
    return leaves, dims, (lost / given) ** 0.5 if given else 0.0


def _by_svd(rows, rank):
    """The nearest kets of one leaf or two, of at most `rank` terms."""
    left, values, right = torch.linalg.svd(rows.reshape(*rows.shape[:2], -1), full_matrices=False)
    left, right = (left.mT * values[..., None])[:, :rank], right[:, :rank]
    return (left * right,) if rows.ndim == 2 else (left, right)


def _by_sweeps(rows, rank):
    """Near kets of three leaves or more, by alternating least squares from singular vectors of every mode."""
    order = rows.ndim - 1
    letters = ascii_letters.translate({ord("r"): None, ord("z"): None})[:order]
    leaves = [_start(rows.movedim(mode + 1, 1), rank) for mode in range(order)]
    size = 0.0
    for _ in range(_SWEEPS):
        before = size
        for mode in range(order):
            others = [n for n in range(order) if n != mode]
            gram = reduce(torch.mul, [leaves[n].conj() @ leaves[n].mT for n in others])
            terms = ",".join(f"zr{letters[n]}" for n in others)
            equation = f"z{letters},{terms}->zr{letters[mode]}"
            right = torch.einsum(equation, rows, *(leaves[n].conj() for n in others))
            leaves[mode] = torch.linalg.solve(_damped(gram), right)
        size = float((gram * (leaves[-1].conj() @ leaves[-1].mT)).real.sum())
        if size - before <= _GAIN * size:
            break
    return leaves


def _start(rows, rank):
    """Singular vectors (words, rank, q) of the first mode; beyond their number, fixed random vectors."""
    vectors = torch.linalg.svd(rows.reshape(*rows.shape[:2], -1), full_matrices=False)[0].mT[:, :rank]
    short = rank - vectors.shape[1]
    generator = torch.Generator().manual_seed(0)
    more = torch.randn(short, rows.shape[1], generator=generator, dtype=torch.float64).to(rows)
    return torch.cat([vectors, more.expand(len(rows), short, rows.shape[1])], 1)


def _damped(gram):
    """Gram matrices, of terms that may be parallel or zero, with a little on their diagonals."""
    size = gram.diagonal(dim1=-2, dim2=-1).real.mean(-1)
    little = 1e-10 * size + torch.finfo(torch.float64).tiny
    return gram + little[:, None, None] * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


def checked_table(embeddings: Any) -> Tensor:
    """The table, whose gradient nobody asked for."""
    if not isinstance(embeddings, Tensor):
        raise TypeError(f"embeddings must be a tensor, got {type(embeddings).__name__}")
    if embeddings.ndim != 2 or 0 in embeddings.shape:
        raise ValueError(
            "embeddings must have shape (num_embeddings, embedding_dim) and entries, "
            f"got {tuple(embeddings.shape)}"
        )
    if not (embeddings.is_floating_point() or embeddings.is_complex()):
        raise TypeError(f"embeddings must have a floating or complex dtype, got {embeddings.dtype}")
    if embeddings.is_meta:
        raise ValueError("embeddings must have values, got a tensor on meta")
    bad = first_not_finite(embeddings)
    if bad is not None:
        raise ValueError(f"embeddings must hold finite values, got {bad}")
    return embeddings.detach()


def first_not_finite(table: Tensor) -> str | None:
    """The first entry of a table that is NaN or infinite, with its row; None where all are finite.

    >>> first_not_finite(torch.tensor([[1.0, 2.0], [float("nan"), 3.0]]))
    'nan in row 1'
    """
    finite = torch.isfinite(table.detach())
    if bool(finite.all()):
        return None
    row = int((~finite).any(1).nonzero()[0])
    return f"{table[row][~finite[row]][0].item()} in row {row}"
