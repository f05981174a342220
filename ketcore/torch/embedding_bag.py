"""Sums, means and maxima of bags of embeddings, in the place of `torch.nn.EmbeddingBag`.

Letters: B bags, L ids of all bags.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from ketcore.array_types import Seed
from ketcore.torch.bags import checked_mode, reduced
from ketcore.torch.ket_table import KetTable
from ketcore.torch.nearest_tables import fitted_factors, fitted_leaves
from ketcore.torch.xs_table import XSTable


class EmbeddingBagKetXS(XSTable):
    """Reduced bags of rows of one Kronecker matrix, in the place of `torch.nn.EmbeddingBag`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        As of `EmbeddingKetXS`.
    max_norm : float, optional
        As of `EmbeddingKetXS`.
    norm_type : float, default 2.0
        As of `EmbeddingKetXS`.
    scale_grad_by_freq : bool, default False
        As of `EmbeddingKetXS`, in the order of `nn.EmbeddingBag`.
    mode : {"sum", "mean", "max"}, default "mean"
        How the rows of a bag are reduced; a bag without ids gives zeros.
    sparse : bool, default False
        As of `EmbeddingKetXS`.
    _weight : sequence of N tensors, (R, p_n, q_n), optional
        As of `EmbeddingKetXS`.
    include_last_offset : bool, default False
        `offsets` has one number more, where the last bag ends.
    padding_idx : int, optional
        Ids that count for nothing: their rows are in no sum, mean or maximum, and have no gradient.
    device : torch.device, optional
        As of `EmbeddingKetXS`.
    dtype : torch.dtype, optional
        As of `EmbeddingKetXS`.
    order : int, default 2
        As of `EmbeddingKetXS`.
    rank : int, default 10
        As of `EmbeddingKetXS`.
    row_dims, col_dims : sequence of N ints, optional
        As of `EmbeddingKetXS`.
    row_scale : bool or float, default False
        As of `EmbeddingKetXS`.
    permutation : tensor or array of num_embeddings ints, optional
        As of `EmbeddingKetXS`.
    std : float, default 1.0
        As of `EmbeddingKetXS`.
    _freeze : bool, default False
        As of `EmbeddingKetXS`.

    Raises
    ------
    TypeError, ValueError, IndexError
        On arguments, as of `EmbeddingKetXS`.

    Notes
    -----
    The L rows of all bags are made before they are reduced: memory O(L embedding_dim).

    Examples
    --------
    >>> layer = EmbeddingBagKetXS(1000, 16, mode="sum")
    >>> layer(torch.tensor([4, 7, 7, 999]), torch.tensor([0, 3])).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Sequence[Tensor] | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        order: int = 2,
        rank: int = 10,
        row_dims: Sequence[int] | None = None,
        col_dims: Sequence[int] | None = None,
        row_scale: bool | float = False,
        permutation: Any = None,
        std: float = 1.0,
        _freeze: bool = False,
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
        self.mode, self.include_last_offset = checked_mode(mode), bool(include_last_offset)

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """The reduced bags.

        Parameters
        ----------
        input : tensor, (B, n) or (L,) of any integer dtype
            Ids, 0 <= id < num_embeddings: of B bags of n, or of bags one after the other.
        offsets : tensor, (B,) of any integer dtype, optional
            Where each bag begins, from 0 on and ascending; for one-dimensional `input` alone.  With
            `include_last_offset` (B + 1,), the last of which is where the last bag ends.
        per_sample_weights : tensor, of the shape of `input` and the dtype of the parameters, optional
            What multiplies each row; for ``mode="sum"`` alone.

        Returns
        -------
        tensor, (B, embedding_dim)
            In the dtype of the parameters.

        Raises
        ------
        TypeError
            Unless ids and offsets are tensors of integers, and on weights of another dtype.
        ValueError
            On shapes, on offsets that do not ascend or stand beside two-dimensional ids, and on weights with
            another mode than "sum".
        IndexError
            On an id out of range, on the CPU.
        """
        return reduced(self, input, offsets, per_sample_weights, self._rows)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        order: int = 2,
        rank: int | None = None,
        row_dims: Sequence[int] | None = None,
        col_dims: Sequence[int] | None = None,
        permutation: Any = None,
        row_scale: bool = False,
        ratio: float | None = None,
        rng: Seed = None,
    ) -> Self:
        """A layer near a given table, as `EmbeddingKetXS.from_pretrained`.

        Parameters
        ----------
        embeddings : tensor, (num_embeddings, embedding_dim)
            As of `EmbeddingKetXS.from_pretrained`.
        freeze : bool, default True
            As of `EmbeddingKetXS.from_pretrained`.
        max_norm : float, optional
            As of the constructor.
        norm_type : float, default 2.0
            As of the constructor.
        scale_grad_by_freq : bool, default False
            As of the constructor.
        mode : {"sum", "mean", "max"}, default "mean"
            As of the constructor.
        sparse, include_last_offset : bool, default False
            As of the constructor.
        padding_idx : int, optional
            As of the constructor.
        order : int, default 2
            As of the constructor.
        rank : int, optional
            As of the constructor; 10 if left out, unless there is a `ratio`.
        row_dims, col_dims : sequence of N ints, optional
            As of the constructor.
        permutation : tensor or array of num_embeddings ints, optional
            As of the constructor.
        row_scale : bool, default False
            As of `EmbeddingKetXS.from_pretrained`.
        ratio : float, optional
            As of `EmbeddingKetXS.from_pretrained`.
        rng : int, Generator or None, optional
            As of `EmbeddingKetXS.from_pretrained`.

        Returns
        -------
        EmbeddingBagKetXS
            Its `relative_error` is that of the table.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes, and on NaN and infinity.
        """
        fit = fitted_factors(embeddings, order, rank, row_dims, col_dims, permutation, rng, row_scale, ratio)
        layer = cls(
            embeddings.shape[0],
            embeddings.shape[1],
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            fit.factors,
            include_last_offset,
            padding_idx,
            row_scale=fit.row_scale is not None,
            permutation=permutation,
            _freeze=freeze,
        )
        layer._take_fit(fit.row_scale, fit.error)
        return layer


class EmbeddingBagKet(KetTable):
    """Reduced bags of rows that are kets, in the place of `torch.nn.EmbeddingBag`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        As of `EmbeddingKet`.
    max_norm : float, optional
        As of `EmbeddingKet`.
    norm_type : float, default 2.0
        As of `EmbeddingKet`.
    scale_grad_by_freq : bool, default False
        As of `EmbeddingKet`, in the order of `nn.EmbeddingBag`.
    mode : {"sum", "mean", "max"}, default "mean"
        As of `EmbeddingBagKetXS`.
    sparse : bool, default False
        As of `EmbeddingKet`.
    _weight : tensor, (num_embeddings, R, sum q_n), optional
        As of `EmbeddingKet`.
    include_last_offset : bool, default False
        As of `EmbeddingBagKetXS`.
    padding_idx : int, optional
        As of `EmbeddingBagKetXS`.
    device : torch.device, optional
        As of `EmbeddingKet`.
    dtype : torch.dtype, optional
        As of `EmbeddingKet`.
    order : int, default 4
        As of `EmbeddingKet`.
    rank : int, default 1
        As of `EmbeddingKet`.
    dims : sequence of N ints, optional
        As of `EmbeddingKet`.
    layernorm : bool, default False
        As of `EmbeddingKet`.
    eps : float, default 1e-5
        As of `EmbeddingKet`.
    std : float, default 1.0
        As of `EmbeddingKet`.
    _freeze : bool, default False
        As of `EmbeddingKet`.

    Raises
    ------
    TypeError, ValueError, IndexError
        On arguments, as of `EmbeddingKet`.

    Notes
    -----
    The L rows of all bags are made before they are reduced: memory O(L embedding_dim).

    Examples
    --------
    >>> EmbeddingBagKet(1000, 16, mode="max")(torch.tensor([[4, 7, 7], [1, 2, 999]])).shape
    torch.Size([2, 16])
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        order: int = 4,
        rank: int = 1,
        dims: Sequence[int] | None = None,
        layernorm: bool = False,
        eps: float = 1e-5,
        std: float = 1.0,
        _freeze: bool = False,
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
        self.mode, self.include_last_offset = checked_mode(mode), bool(include_last_offset)

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        """The reduced bags.

        Parameters
        ----------
        input : tensor, (B, n) or (L,) of any integer dtype
            As of `EmbeddingBagKetXS.forward`.
        offsets : tensor, (B,) of any integer dtype, optional
            As of `EmbeddingBagKetXS.forward`.
        per_sample_weights : tensor, of the shape of `input` and the dtype of the parameters, optional
            As of `EmbeddingBagKetXS.forward`.

        Returns
        -------
        tensor, (B, embedding_dim)
            In the dtype of the parameters.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `EmbeddingBagKetXS.forward`.
        """
        return reduced(self, input, offsets, per_sample_weights, self._rows)

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        order: int = 4,
        rank: int = 1,
        dims: Sequence[int] | None = None,
    ) -> Self:
        """A layer near a given table, as `EmbeddingKet.from_pretrained`.

        Parameters
        ----------
        embeddings : tensor, (num_embeddings, embedding_dim)
            As of `EmbeddingKet.from_pretrained`.
        freeze : bool, default True
            As of `EmbeddingKet.from_pretrained`.
        max_norm : float, optional
            As of the constructor.
        norm_type : float, default 2.0
            As of the constructor.
        scale_grad_by_freq : bool, default False
            As of the constructor.
        mode : {"sum", "mean", "max"}, default "mean"
            As of the constructor.
        sparse, include_last_offset : bool, default False
            As of the constructor.
        padding_idx : int, optional
            As of the constructor.
        order : int, default 4
            As of the constructor.
        rank : int, default 1
            As of the constructor.
        dims : sequence of N ints, optional
            As of the constructor.

        Returns
        -------
        EmbeddingBagKet
            Its `relative_error` is that of the table.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes, and on NaN and infinity.
        """
        leaves, dims, error = fitted_leaves(embeddings, order, rank, dims)
        layer = cls(
            embeddings.shape[0],
            embeddings.shape[1],
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            leaves,
            include_last_offset,
            padding_idx,
            dims=dims,
            _freeze=freeze,
        )
        layer.relative_error = error
        return layer
