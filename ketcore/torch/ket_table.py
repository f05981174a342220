"""A table of words that are kets: what `EmbeddingKet` and `EmbeddingBagKet` share.

    table[i] = sum_k  v_0[i, k] (x) v_1[i, k] (x) ... (x) v_{N-1}[i, k]

The leaves of a word are one packed record leaves[i], (R, q_0 + ... + q_{N-1}).

Letters: N order, R rank, q_n dims, Q = prod q_n.

Source: Panahi, Saeedi, Arodz, "word2ket", ICLR 2020 (word2ket; LayerNorm in section 2.3).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

import ketcore as kc
from ketcore.shapes import check_dense_size, check_int, check_size
from ketcore.torch.embedding_tables import (
    described,
    frequency_scaled,
    given_parameter,
    leaf_std,
    norm_options,
    norm_scale,
    own_precision,
    packed_word2ket,
    padding_row,
    refuse_weight,
    stored_bytes,
    table_size,
    take_word2ket,
)
from ketcore.torch.functional import ket_rows
from ketcore.torch.inputs import mode_dims, order_of, table_dtype


class KetTable(nn.Module):
    """The parameters of a table (num_embeddings, embedding_dim) of kets, and its rows."""

    leaves: nn.Parameter

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
        super().__init__()
        self.num_embeddings, self.embedding_dim = table_size(num_embeddings, embedding_dim)
        self.padding_idx = padding_row(padding_idx, self.num_embeddings)
        self.max_norm, self.norm_type = norm_options(max_norm, norm_type)
        self.scale_grad_by_freq, self.sparse = bool(scale_grad_by_freq), bool(sparse)
        self.layernorm, self.eps = bool(layernorm), check_size("eps", eps)
        self.std = check_size("std", std)
        self.relative_error: float | None = None
        self.order = order_of(order, dims=dims)
        self.dims = mode_dims("dims", dims, self.embedding_dim, self.order)
        if self.max_norm is not None and self.layernorm and self.order > 1:
            # A normalised row has its length whatever the lengths of its leaves are.
            raise ValueError(f"max_norm must be None with layernorm, got {max_norm}")
        self._set_leaves(rank, _weight, not _freeze, device, dtype)
        if _weight is None:
            self.reset_parameters()

    def _set_leaves(self, rank, weight, trained, device, dtype):
        """The records, of values that reset_parameters replaces unless given."""
        if weight is not None and getattr(weight, "ndim", 0) == 3:
            rank = weight.shape[1]
        self.rank = check_int("rank", rank, 1)
        shape = (self.num_embeddings, self.rank, sum(self.dims))
        if weight is None:
            leaves = torch.empty(shape, device=device, dtype=table_dtype(dtype))
        else:
            leaves = given_parameter(weight, shape, "_weight", device, dtype)
        self.leaves = nn.Parameter(leaves, requires_grad=trained)

    @property
    def nbytes(self) -> int:
        """The bytes of the parameters."""
        return stored_bytes(self)

    def reset_parameters(self) -> None:
        """Draw the leaves such that entries of the table have standard deviation `std`.

        The record of `padding_idx` is zero, and so is its row.
        """
        nn.init.normal_(self.leaves, std=leaf_std(self.std, self.order, self.rank))
        if self.padding_idx is not None:
            with torch.no_grad():
                self.leaves[self.padding_idx].fill_(0)

    def ket(self) -> kc.Ket[Tensor]:
        """The words as a batch of kets of length Q, which shares the leaves and trains them.

        Returns
        -------
        Ket
            Its batch shape is (num_embeddings,).

        Raises
        ------
        ValueError
            For a table with LayerNorm, whose rows are no kets.
        """
        if self.layernorm and self.order > 1:
            raise ValueError("layernorm must be False for rows that are kets, got True")
        return kc.Ket.from_packed(self.leaves, self.dims)

    def to_dense(self, max_bytes: float = 2**30) -> Tensor:
        """The rows of all words.

        Parameters
        ----------
        max_bytes : int, default 2**30
            What the result may take.

        Returns
        -------
        tensor, (num_embeddings, embedding_dim)
            In the dtype of the parameters, with gradients.

        Raises
        ------
        MemoryError
            Where it would take more than `max_bytes`; the message has the size.
        """
        elements = self.num_embeddings * self.embedding_dim
        check_dense_size(elements, self.leaves.element_size(), "table", max_bytes)
        with own_precision(self.leaves):
            return self._expanded(torch.arange(self.num_embeddings, device=self.leaves.device))

    def extra_repr(self) -> str:
        """What the layer was made with.

        Returns
        -------
        str
        """
        return described(self, "order", "rank", "dims")

    def balance(self) -> None:
        """Give the leaves of each term equal norms, for weight decay and half precision; no row changes."""
        with torch.no_grad():
            self.leaves.copy_(self.ket().balance().packed)

    def _expanded(self, ids):
        options = {"columns": self.embedding_dim, "eps": self.eps}
        return ket_rows(self.leaves, ids, self.dims, self.layernorm, **options)

    def _rows(self, ids: Tensor) -> Tensor:
        """The rows of checked ids, with the options in force."""
        with own_precision(self.leaves):
            if self.max_norm is not None:
                self._renormalise(ids, self.max_norm)
            if self.sparse:
                options = (self.dims, self.layernorm, self.embedding_dim, self.eps, self.padding_idx)
                found = _SparseRows.apply(self.leaves, ids, *options)
            else:
                found = self._expanded(ids)
        if self.padding_idx is not None:
            found = torch.where((ids == self.padding_idx)[..., None], found.detach(), found)
        return frequency_scaled(found, ids) if self.scale_grad_by_freq else found

    @torch.no_grad()
    def _renormalise(self, ids, max_norm):
        """Scale the records of `ids`, in place, whose rows are longer than max_norm: every leaf alike."""
        flat = ids.reshape(-1)
        if flat.device.type != "cpu":
            # On the host ket_rows refuses what is out of range; elsewhere it has no record to write to.
            flat = flat.clamp(0, self.num_embeddings - 1)
        scale = norm_scale(self._expanded(flat), max_norm, self.norm_type)
        # An id that stands here twice is written twice, and the same.
        self.leaves[flat] = self.leaves[flat] * (scale ** (1 / self.order))[..., None]

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        """Torch's, which also takes the tensor of the word2ket package under its old name."""
        leafs = take_word2ket(state_dict, prefix, error_msgs)
        if leafs is not None:
            state_dict[f"{prefix}leaves"] = packed_word2ket(leafs)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            refuse_weight(self)
        return super().__getattr__(name)


class _SparseRows(torch.autograd.Function):
    """`ket_rows`, whose gradient is a sparse tensor of the records that were picked."""

    @staticmethod
    def forward(ctx: Any, leaves, ids, dims, layernorm, columns, eps, padding_idx):
        ctx.save_for_backward(leaves, ids)
        ctx.options = {"dims": dims, "layernorm": layernorm, "columns": columns, "eps": eps}
        ctx.padding_idx = padding_idx
        return ket_rows(leaves, ids, **ctx.options)

    @staticmethod
    @once_differentiable
    # The decorator hides the names of the arguments.
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *cotangents: Tensor
    ) -> tuple[Tensor | None, ...]:
        (leaves, ids), (cotangent,) = ctx.saved_tensors, cotangents
        if leaves.is_complex():
            # torch's gradients are the conjugates of ketcore's.
            cotangent = cotangent.conj()
        found, values = kc.ket_rows_vjp(leaves.detach(), ids, cotangent, sparse=True, **ctx.options)
        values = values.conj() if leaves.is_complex() else values
        if ctx.padding_idx is not None:
            found, values = found[found != ctx.padding_idx], values[found != ctx.padding_idx]
        gradient = torch.sparse_coo_tensor(
            found[None], values, leaves.shape, is_coalesced=True, check_invariants=False
        )
        return gradient, *(None,) * 6
