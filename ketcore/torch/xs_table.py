"""A table of words as one Kronecker matrix: what `EmbeddingKetXS` and `EmbeddingBagKetXS` share.

    table[i] = sum_k  F_0[k, i_0] (x) F_1[k, i_1] (x) ... (x) F_{N-1}[k, i_{N-1}]

with i_n the n-th digit of i, the first the most significant: words share leaves digit by digit.

Letters: N order, R rank, p_n and q_n rows and columns of factor n, P = prod p_n, Q = prod q_n.

Source: Panahi, Saeedi, Arodz, "word2ket", ICLR 2020 (word2ketXS).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import ketcore as kc
from ketcore.shapes import check_int
from ketcore.torch.embedding_tables import (
    as_permutation,
    described,
    given_parameter,
    in_few_bytes,
    leaf_std,
    moved,
    own_precision,
    take_word2ket,
)
from ketcore.torch.functional import rows
from ketcore.torch.inputs import mode_dims, order_of, table_dtype
from ketcore.torch.shared_table import SharedTable


class XSTable(SharedTable):
    """The parameters of a table (num_embeddings, embedding_dim) that is a Kronecker matrix, and its rows."""

    factors: nn.ParameterList
    permutation: Tensor | None

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
            row_scale,
            std,
        )
        _weight = None if _weight is None else _factors(_weight)
        self._set_dims(order, rank, row_dims, col_dims, _weight)
        self._set_parameters(_weight, not _freeze, device, dtype)
        found = permutation
        if permutation is not None:
            found = as_permutation(permutation, self.num_embeddings, self.factors[0].device)
        self.register_buffer("permutation", found)
        if _weight is None:
            self.reset_parameters()

    def _set_dims(self, order, rank, row_dims, col_dims, weight):
        """The dims and the rank, of the factors where they are given."""
        if weight is not None:
            shapes = [tuple(factor.shape) for factor in weight]
            if not shapes or any(len(shape) != 3 or shape[0] != shapes[0][0] for shape in shapes):
                raise ValueError(f"_weight must be arrays (rank, rows, columns) of one rank, got {shapes}")
            rank, row_dims, col_dims = shapes[0][0], [s[1] for s in shapes], [s[2] for s in shapes]
        self.order = order_of(order, row_dims=row_dims, col_dims=col_dims)
        self.rank = check_int("rank", rank, 1)
        self.row_dims = mode_dims("row_dims", row_dims, self.num_embeddings, self.order)
        self.col_dims = mode_dims("col_dims", col_dims, self.embedding_dim, self.order)

    def _set_parameters(self, weight, trained, device, dtype):
        """The factors and the scales of rows, of values that reset_parameters replaces unless given."""
        shapes = [(self.rank, p, q) for p, q in zip(self.row_dims, self.col_dims, strict=True)]
        if weight is None:
            dtype = table_dtype(dtype)
            factors = [torch.empty(shape, device=device, dtype=dtype) for shape in shapes]
        else:
            pairs = zip(weight, shapes, strict=True)
            factors = [given_parameter(factor, shape, "_weight", device, dtype) for factor, shape in pairs]
        self.factors = nn.ParameterList(nn.Parameter(factor, requires_grad=trained) for factor in factors)
        self._set_row_scale(factors[0], trained)

    def reset_parameters(self) -> None:
        """Draw the factors such that entries of the table have standard deviation `std`.

        Where `row_scale` starts at a number, it does so again, and that multiplies the deviation.
        """
        deviation = leaf_std(self.std, self.order, self.rank)
        for factor in self.factors:
            nn.init.normal_(factor, std=deviation)
        self._reset_row_scale()

    def matrix(self) -> kc.KroneckerMatrix[Tensor]:
        """The factors as a Kronecker matrix, which shares and trains them.

        Returns
        -------
        KroneckerMatrix, (num_embeddings, embedding_dim)
            The table itself where there is no `padding_idx`, `max_norm`, `row_scale` and `permutation`: those
            are what `forward` does to its rows.
        """
        return kc.KroneckerMatrix(list(self.factors), (self.num_embeddings, self.embedding_dim))

    def extra_repr(self) -> str:
        """What the layer was made with.

        Returns
        -------
        str
        """
        facts = described(self, "order", "rank", "row_dims", "col_dims")
        names = [name for name in ("row_scale", "permutation") if getattr(self, name) is not None]
        return ", ".join([facts, *(f"{name}=True" for name in names)])

    def balance(self) -> None:
        """Give the factors of each term equal norms, for weight decay and half precision; no row changes."""
        with torch.no_grad():
            balanced = self.matrix().balance().factors
            for factor, value in zip(self.factors, balanced, strict=True):
                factor.copy_(value)

    def _rows(self, ids: Tensor) -> Tensor:
        """The rows of checked ids, with the options in force."""
        shape = (self.num_embeddings, self.embedding_dim)
        factors: tuple[Tensor, ...] = tuple(self.factors)
        with own_precision(factors[0]):
            scale, places = self.row_scale, moved(ids, self.permutation)
            if scale is None or self.permutation is None:
                found: Tensor = rows(factors, places, shape, row_scale=scale)
            else:
                # Scales lie in the order of the words: one number a row is a matrix of one column.
                scales: Tensor = rows((scale[None, :, None],), ids, (self.num_embeddings, 1))
                found = rows(factors, places, shape) * scales
            found = self._normed(found)
        return self._divided(self._padded(found, ids), ids)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        """Torch's, with a permutation in as few bytes as hold it."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.permutation is not None:
            destination[f"{prefix}permutation"] = in_few_bytes(destination[f"{prefix}permutation"])

    def _load_from_state_dict(
        self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
    ):
        """Torch's, which also takes the tensor of the word2ket package under its old name."""
        leafs = take_word2ket(state_dict, prefix, error_msgs)
        if leafs is not None:
            state_dict |= {f"{prefix}factors.{n}": factor for n, factor in enumerate(leafs)}
        saved = state_dict.get(f"{prefix}permutation")
        if isinstance(saved, Tensor) and self.permutation is not None:
            # With assign=True the tensor that is saved becomes the buffer.
            state_dict[f"{prefix}permutation"] = saved.to(self.permutation.dtype)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _factors(weight):
    """Factors that are given, of one dtype on one device."""
    if not isinstance(weight, Iterable):
        raise TypeError(f"_weight must be a sequence of arrays, got {type(weight).__name__}")
    factors = list(weight)
    if wrong := [type(factor).__name__ for factor in factors if not hasattr(factor, "shape")]:
        raise TypeError(f"_weight must be a sequence of arrays, got some of {wrong[0]}")
    kinds = {(f.dtype, f.device) if isinstance(f, Tensor) else (f.dtype, None) for f in factors}
    if len(kinds) > 1:
        got = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
        raise TypeError(f"_weight must be arrays of one dtype on one device, got {got}")
    return factors
