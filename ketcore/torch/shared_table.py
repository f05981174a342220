"""What tables whose words share parameters have in common: options, one number a row, the dense table.

Rows are made of what all words share, so that options act on the rows of a call: see `embedding_tables`.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ketcore.shapes import check_dense_size, check_size
from ketcore.torch.embedding_tables import (
    frequency_scaled,
    norm_options,
    norm_scale,
    padding_row,
    refuse_weight,
    stored_bytes,
    table_size,
)


class SharedTable(nn.Module):
    """The options of a table (num_embeddings, embedding_dim) whose words share parameters."""

    row_scale: nn.Parameter | None

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        row_scale: bool | float,
        std: float,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = table_size(num_embeddings, embedding_dim)
        self.padding_idx = padding_row(padding_idx, self.num_embeddings)
        self.max_norm, self.norm_type = norm_options(max_norm, norm_type)
        self.scale_grad_by_freq = bool(scale_grad_by_freq)
        if sparse:
            raise ValueError("sparse must be False for a table whose words share leaves, got True")
        self.sparse = False
        self.std = check_size("std", std)
        self.row_scale_start = _start("row_scale", row_scale)
        self.relative_error: float | None = None

    @property
    def nbytes(self) -> int:
        """The bytes of parameters and buffers, as a state dict has them."""
        return stored_bytes(self)

    def _take_fit(self, row_scale: Tensor | None, error: float) -> None:
        """Take the scales and the error of a fit to a given table."""
        if row_scale is not None and self.row_scale is not None:
            with torch.no_grad():
                self.row_scale.copy_(row_scale)
        self.relative_error = error

    def _set_row_scale(self, like: Tensor, trained: bool) -> None:
        """The scales of rows, where they are asked for."""
        if self.row_scale_start is None:
            self.register_parameter("row_scale", None)
        else:
            start = torch.full((self.num_embeddings,), self.row_scale_start)
            start = start.to(device=like.device, dtype=like.dtype)
            self.row_scale = nn.Parameter(start, requires_grad=trained)

    def _reset_row_scale(self) -> None:
        """The scales of rows as they start."""
        if self.row_scale is not None and self.row_scale_start is not None:
            nn.init.constant_(self.row_scale, self.row_scale_start)

    def to_dense(self, max_bytes: float = 2**30) -> Tensor:
        """The rows of all words, as `forward` gives them.

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
        like = next(self.parameters())
        elements = self.num_embeddings * self.embedding_dim
        check_dense_size(elements, like.element_size(), "table", max_bytes)
        return self._rows(torch.arange(self.num_embeddings, device=like.device))

    def _rows(self, ids: Tensor) -> Tensor:
        """The rows of checked ids, with the options in force."""
        raise NotImplementedError

    def _normed(self, rows: Tensor) -> Tensor:
        """Rows that are no longer than `max_norm`."""
        if self.max_norm is None:
            return rows
        return rows * norm_scale(rows, self.max_norm, self.norm_type)

    def _padded(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Rows (..., columns) of ids (...), with zeros for `padding_idx`."""
        if self.padding_idx is None:
            return rows
        return rows.masked_fill((ids == self.padding_idx)[..., None], 0)

    def _divided(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Rows as they are, with gradients that are divided as `scale_grad_by_freq` says."""
        return frequency_scaled(rows, ids) if self.scale_grad_by_freq else rows

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            refuse_weight(self)
        return super().__getattr__(name)


def _start(name, value):
    """Where the scales of rows begin: None for False, 1 for True."""
    if isinstance(value, bool):
        return 1.0 if value else None
    return check_size(name, value)
