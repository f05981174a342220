"""Embedding tables stored as Kronecker products, in the place of `torch.nn.Embedding`.

Source: Panahi, Saeedi, Arodz, "word2ket: Space-efficient Word Embeddings inspired by Quantum Entanglement",
ICLR 2020 (arXiv 1911.04975).

Letters: N order, R rank, p_n and q_n rows and columns of factor n, ... shape of the ids.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ketcore.torch.embedding_tables import check_ids
from ketcore.torch.ket_table import KetTable
from ketcore.torch.xs_table import XSTable


class EmbeddingKetXS(XSTable):
    """A table of words as one Kronecker matrix (word2ketXS), in the place of `torch.nn.Embedding`."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        order: int = 2,
        rank: int = 10,
        row_dims: Sequence[int] | None = None,
        col_dims: Sequence[int] | None = None,
        row_scale: bool | float = False,
        permutation: Any = None,
        std: float = 1.0,
        _weight: Sequence[Tensor] | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            order=order,
            rank=rank,
            row_dims=row_dims,
            col_dims=col_dims,
            row_scale=row_scale,
            permutation=permutation,
            std=std,
            _weight=_weight,
            _freeze=_freeze,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the ids `input` (...): (..., embedding_dim)."""
        return self._rows(check_ids("input", input))


class EmbeddingKet(KetTable):
    """A table of words, each a ket of its own (word2ket), in the place of `torch.nn.Embedding`."""

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        order: int = 4,
        rank: int = 1,
        dims: Sequence[int] | None = None,
        layernorm: bool = False,
        eps: float = 1e-5,
        std: float = 1.0,
        _weight: Tensor | None = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_embeddings,
            embedding_dim,
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            order=order,
            rank=rank,
            dims=dims,
            layernorm=layernorm,
            eps=eps,
            std=std,
            _weight=_weight,
            _freeze=_freeze,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the ids `input` (...): (..., embedding_dim)."""
        return self._rows(check_ids("input", input))
