"""Layers of the word2ket package (release 0.0.2) as layers of ketcore."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ketcore.io import load_word2ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.torch.embedding_tables import WORD2KET_LEAVES, packed_word2ket
from ketcore.torch.embeddings import EmbeddingKet, EmbeddingKetXS


def from_word2ket(
    source: Mapping[str, Tensor] | torch.nn.Module,
    num_embeddings: int | None = None,
    embedding_dim: int | None = None,
    prefix: str = "",
    *,
    layer: str | None = None,
    padding_idx: int | None = None,
) -> EmbeddingKet | EmbeddingKetXS:
    """The layer that gives the outputs of a layer of the word2ket package.

    Parameters
    ----------
    source : state dict, or layer of the package
        A state dict holds one tensor (order, rank, t, q) under ``prefix + "weight_leafs"``.
    num_embeddings, embedding_dim : int, optional
        The sizes of the table, which a state dict does not hold, and a layer does.
    prefix : str, default ""
        What stands before the name of the tensor: "encoder.embed." of a layer ``model.encoder.embed``.
    layer : "EmbeddingKet" or "EmbeddingKetXS", optional
        Which of the two it is.  Needed where their tensors could have this shape alike.
    padding_idx : int, optional
        As of the layers of ketcore.  The package keeps one and ignores it in EmbeddingKetXS.

    Returns
    -------
    EmbeddingKet or EmbeddingKetXS
        Of the dtype and device of the tensor.

    Raises
    ------
    TypeError, ValueError
        Where no such tensor is there, it has another shape, or the sizes do not fit it; the text names both.

    Notes
    -----
    Both are in C order, the first leaf the most significant.  Ids beyond num_embeddings, which the package
    answers with rows that were never trained, are errors.

    The layers also load such checkpoints as they are: `load_state_dict` of a model takes the tensor under its
    old name, if the layer has the dims of the package, N equal numbers, as those that are made here.

    Examples
    --------
    >>> checkpoint = {"embed.weight_leafs": torch.randn(4, 1, 14, 4)}
    >>> from_word2ket(checkpoint, 30000, 256, prefix="embed.")
    ...     # doctest: +ELLIPSIS
    EmbeddingKetXS(
      30000, 256, order=4, rank=1, row_dims=(14, 14, 14, 14), col_dims=(4, 4, 4, 4)
      ...
    """
    leafs = _leafs(source, prefix)
    if isinstance(source, torch.nn.Module):
        layer = layer or type(source).__name__
        num_embeddings = num_embeddings or getattr(source, "num_embeddings", None)
        embedding_dim = embedding_dim or getattr(source, "embedding_dim", None)
    if num_embeddings is None or embedding_dim is None:
        got = f"{num_embeddings} and {embedding_dim}"
        raise TypeError(f"num_embeddings and embedding_dim must be ints for a state dict, got {got}")
    # Shapes alone tell which layer it is, and whether they fit: on the host, where NumPy has no bfloat16.
    shape = (num_embeddings, embedding_dim)
    table = load_word2ket(torch.empty(()).expand(leafs.shape), shape, layer)
    if isinstance(table, KroneckerMatrix):
        return EmbeddingKetXS(*shape, padding_idx, _weight=list(leafs.clone()))
    return EmbeddingKet(*shape, padding_idx, dims=table.dims, _weight=packed_word2ket(leafs).clone())


def _leafs(source: Any, prefix: str) -> Tensor:
    """The tensor of the layer, detached."""
    name = f"{prefix}{WORD2KET_LEAVES}"
    if isinstance(source, torch.nn.Module):
        source = source.state_dict()
    if not isinstance(source, Mapping):
        raise TypeError(f"source must be a state dict or a module, got {type(source).__name__}")
    if name not in source:
        raise ValueError(f"source must hold {name!r}, got {sorted(map(str, source))}")
    found = source[name]
    if not isinstance(found, Tensor) or found.ndim != 4 or 0 in found.shape:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"source must hold a tensor (order, rank, t, q) under {name!r}, got {got}")
    return found.detach()
