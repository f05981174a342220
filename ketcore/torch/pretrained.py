"""`from_pretrained`: a small embedding near a table that is there, of one kind or of whichever is nearer.

"kronecker" is an EmbeddingKetXS, its words in the order that `vocabulary_permutation` finds; "codebooks" is
an EmbeddingCodebook, by `fit_codebooks`.
"""

from typing import Any, TypeAlias, overload

import torch
from torch import Tensor

import ketcore as kc
from ketcore.array_types import Seed
from ketcore.shapes import check_choice
from ketcore.torch.codebook_embeddings import EmbeddingBagCodebook, EmbeddingCodebook
from ketcore.torch.embedding_bag import EmbeddingBagKetXS
from ketcore.torch.embeddings import EmbeddingKetXS
from ketcore.torch.nearest_tables import checked_table
from ketcore.torch.ratios import (
    METHODS,
    Method,
    TableSizes,
    check_ratio,
    greatest_ratio,
    is_permuted,
    kronecker_dims,
    kronecker_rank,
    sizes_of_codes,
    table_sizes,
    unreachable,
)

One: TypeAlias = EmbeddingKetXS | EmbeddingCodebook
Bag: TypeAlias = EmbeddingBagKetXS | EmbeddingBagCodebook

# The layers of rows and of bags.
_KINDS: dict[str, tuple[type[One], type[Bag]]] = {
    "kronecker": (EmbeddingKetXS, EmbeddingBagKetXS),
    "codebooks": (EmbeddingCodebook, EmbeddingBagCodebook),
}


@overload
def from_pretrained(
    embeddings: Tensor,
    ratio: float,
    method: Method = "auto",
    *,
    freeze: bool = True,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: None = None,
    row_scale: bool = False,
    rng: Seed = None,
) -> One: ...
@overload
def from_pretrained(
    embeddings: Tensor,
    ratio: float,
    method: Method = "auto",
    *,
    freeze: bool = True,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str,
    row_scale: bool = False,
    rng: Seed = None,
) -> Bag: ...
def from_pretrained(
    embeddings: Tensor,
    ratio: float,
    method: Method = "auto",
    *,
    freeze: bool = True,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str | None = None,
    row_scale: bool = False,
    rng: Seed = None,
) -> One | Bag:
    """A layer near a given table, of at most 1 / `ratio` of its bytes: see what its `relative_error` says.

    Parameters
    ----------
    embeddings : tensor, (num_embeddings, embedding_dim)
        The table, finite.
    ratio : float
        At least 1: the bytes of the table over those of the layer are this or more.
    method : {"auto", "kronecker", "codebooks"}, default "auto"
        "kronecker": an EmbeddingKetXS of order 2, with as many terms as the bytes leave, and the order of
        the words by `ketcore.vocabulary_permutation`, where there is room for that.  "codebooks": an
        EmbeddingCodebook.  "auto": both are fitted, and the one of the smaller error is kept.
    freeze : bool, default True
        Parameters that do not train, as of `nn.Embedding.from_pretrained`.
    padding_idx : int, optional
        As of `nn.Embedding`.
    max_norm : float, optional
        As of `EmbeddingKetXS`.
    norm_type : float, default 2.0
        As of `EmbeddingKetXS`.
    scale_grad_by_freq : bool, default False
        As of `EmbeddingKetXS`.
    mode : {"sum", "mean", "max"}, optional
        A layer of bags, of this mode.  None: one of rows.
    row_scale : bool, default False
        Whether each row has a number of its own, which counts among the bytes.
    rng : int, Generator or None, optional
        As of `ketcore.nearest_kronecker` and `ketcore.fit_codebooks`.

    Returns
    -------
    EmbeddingKetXS, EmbeddingCodebook, EmbeddingBagKetXS or EmbeddingBagCodebook
        Its `nbytes` are those of the ratio or fewer, its `relative_error` is `|table - given| / |given|`.

    Raises
    ------
    TypeError, ValueError
        On kinds and shapes, on NaN and infinity, with the row that has them, and on a ratio that no layer of
        the method reaches, with the greatest one.

    Notes
    -----
    "auto" takes the time of both fits.  A ratio that one of them does not reach, and a complex table, of
    which there are no codes, leave it the other one.

    Sizes are chosen by those of the table alone.  The bytes of a permutation are those of a state dict, 2 a
    word up to 65,536 words; as a buffer it has 4.

    Examples
    --------
    >>> teacher = torch.randn(2000, 16) @ torch.randn(16, 128)
    >>> layer = from_pretrained(teacher, ratio=10, rng=0)
    >>> type(layer).__name__, teacher.nbytes / layer.nbytes >= 10, layer.relative_error < 0.5
    ('EmbeddingCodebook', True, True)
    """
    check_choice("method", method, METHODS)
    table, number = checked_table(embeddings), check_ratio(ratio)
    options: dict[str, Any] = {"freeze": freeze, "padding_idx": padding_idx, "max_norm": max_norm}
    options |= {"norm_type": norm_type, "scale_grad_by_freq": scale_grad_by_freq, "row_scale": row_scale}
    options |= {} if mode is None else {"mode": mode}
    return near_layer(table, number, method, {**options, "rng": rng}, mode is not None)


def near_layer(table: Tensor, ratio: float, method: Method, options: dict[str, Any], bags: bool) -> Any:
    """The layer for a table that is checked; `options` are those of the layers' `from_pretrained`."""
    sizes = table_sizes(table, bool(options.get("row_scale")))
    if method == "auto":
        methods = _reachable(sizes, ratio, table.is_complex())
        layers = [near_layer(table, ratio, each, options, bags) for each in methods]
        return min(layers, key=lambda layer: layer.relative_error)
    kind: Any = _KINDS[method][bags]
    if method == "codebooks":
        return kind.from_pretrained(table, ratio=ratio, **options)
    permutation = None
    row_dims, col_dims = kronecker_dims(sizes.words, sizes.columns)
    if is_permuted(sizes, ratio):
        # NumPy has no bfloat16, and to find an order float32 is enough.
        wide = table.float() if table.dtype in (torch.float16, torch.bfloat16) else table
        permutation = kc.vocabulary_permutation(wide.cpu(), row_dims, col_dims=col_dims)
    place = {"row_dims": row_dims, "col_dims": col_dims, "permutation": permutation}
    return kind.from_pretrained(table, ratio=ratio, **place, **options)


def drawn_layer(sizes: TableSizes, ratio: float, method: Method, options: dict[str, Any], bags: bool) -> Any:
    """A layer of the sizes of `near_layer`, with random parameters; `options` are those of constructors."""
    kind: Any = _KINDS[method][bags]
    shape = sizes.words, sizes.columns
    if method == "codebooks":
        return kind(*shape, **sizes_of_codes(sizes, ratio)._asdict(), **options)
    row_dims, col_dims = kronecker_dims(*shape)
    permuted = is_permuted(sizes, ratio)
    rank = kronecker_rank(sizes, ratio, row_dims, col_dims, permuted)
    permutation = torch.arange(sizes.words, device=options["device"]) if permuted else None
    place = {"row_dims": row_dims, "col_dims": col_dims, "permutation": permutation}
    return kind(*shape, rank=rank, **place, **options)


def _reachable(sizes: TableSizes, ratio: float, is_complex: bool) -> list[Method]:
    """The methods that reach a ratio; ValueError where none does."""
    greatest: dict[Method, float] = {"kronecker": greatest_ratio(sizes, "kronecker")}
    if not is_complex:
        greatest["codebooks"] = greatest_ratio(sizes, "codebooks")
    most = max(greatest.values())
    if ratio > most:
        raise unreachable(sizes, ratio, most)
    return [method for method, most in greatest.items() if ratio <= most]
