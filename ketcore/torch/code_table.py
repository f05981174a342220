"""A table of words as stored codes: what `EmbeddingCodebook` and `EmbeddingBagCodebook` share.

    row i = s_i (sum_k  C_0[k, i_0k] (x) C_1[k, i_1k] (x) ... (x) C_{N-1}[k, i_{N-1,k}]) D

The codes i_nk are a buffer that does not train; the codebooks C_n, the scales s and the decoder D do.

Letters: N order, R rank, K_n and q_n rows and columns of codebook n, w = prod q_n, Q columns of D.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import ketcore as kc
from ketcore.arrays.checks import check_index
from ketcore.fit.codebooks import codebook_sizes
from ketcore.objects import display
from ketcore.objects.codebook_lookups import all_codes
from ketcore.shapes import check_int
from ketcore.torch.embedding_tables import described, given_parameter, leaf_std, own_precision, table_size
from ketcore.torch.functional import codebook_rows, rows
from ketcore.torch.inputs import table_dtype
from ketcore.torch.shared_table import SharedTable


class CodeTable(SharedTable):
    """The parameters and codes of a table (num_embeddings, embedding_dim), and its rows."""

    codebooks: nn.ParameterList
    decoder: nn.Parameter | None
    codes: Tensor

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
        n_codes: int = 8,
        codebook_size: int | None = None,
        width: int | None = None,
        row_scale: bool | float = False,
        std: float = 1.0,
        _weight: kc.CodebookTable[Any] | None = None,
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
        shape = table_size(num_embeddings, embedding_dim)
        if _weight is None:
            sizes = codebook_sizes(shape, check_int("n_codes", n_codes, 1), codebook_size, width)
            self._draw(sizes, not _freeze, device, table_dtype(dtype))
            self.reset_parameters()
        else:
            self._take(_weight, not _freeze, device, dtype)

    def _draw(self, sizes, trained, device, dtype):
        """Random codes, and parameters without values."""
        shape = sizes.n_codes, sizes.codebook_size, sizes.width
        book = torch.empty(shape, device=device, dtype=dtype)
        decoder = None
        if sizes.width != self.embedding_dim:
            decoder = torch.empty((sizes.width, self.embedding_dim), device=device, dtype=dtype)
        self._hold([book], decoder, trained)
        self._set_row_scale(book, trained)
        codes = torch.randint(
            sizes.codebook_size, (self.num_embeddings, 1, sizes.n_codes), device=book.device
        )
        self.register_buffer("codes", as_bytes(codes, sizes.codebook_size))

    def _take(self, table, trained, device, dtype):
        """The arrays of a table, copied."""
        if not isinstance(table, kc.CodebookTable):
            raise TypeError(f"_weight must be a CodebookTable, got {type(table).__name__}")
        wanted = self.num_embeddings, self.embedding_dim
        if table.shape != wanted:
            raise ValueError(f"_weight must have shape {wanted}, got {table.shape}")

        def parameter(array):
            return given_parameter(array, array.shape, "_weight", device, dtype).clone()

        books = [parameter(book) for book in table.codebooks]
        dtype = books[0].dtype
        self._hold(books, None if table.decoder is None else parameter(table.decoder), trained)
        if table.row_scale is None:
            self._set_row_scale(books[0], trained)
        else:
            self.row_scale = nn.Parameter(parameter(table.row_scale), requires_grad=trained)
        codes = all_codes(table)
        codes = codes if isinstance(codes, Tensor) else torch.from_numpy(host_codes(codes))
        codes = codes.to(books[0].device)
        self.register_buffer("codes", as_bytes(codes.permute(2, 0, 1), max(b.shape[1] for b in books)))

    def _hold(self, books, decoder, trained):
        """The codebooks and the decoder as parameters."""
        self.codebooks = nn.ParameterList(nn.Parameter(book, requires_grad=trained) for book in books)
        if decoder is None:
            self.register_parameter("decoder", None)
        else:
            self.decoder = nn.Parameter(decoder, requires_grad=trained)

    @property
    def order(self) -> int:
        """The number N of modes."""
        return len(self.codebooks)

    @property
    def rank(self) -> int:
        """The number R of terms: with order 1, of codes of a word."""
        return self.codebooks[0].shape[0]

    @property
    def dims(self) -> tuple[int, ...]:
        """The widths q_n of the codebooks."""
        return tuple([book.shape[2] for book in self.codebooks])

    @property
    def codebook_rows(self) -> tuple[int, ...]:
        """The vectors K_n of each codebook."""
        return tuple([book.shape[1] for book in self.codebooks])

    def reset_parameters(self) -> None:
        """Draw codebooks and decoder such that entries of the table have standard deviation `std`.

        The codes stay.  Where `row_scale` starts at a number, it does so again, and that multiplies the
        deviation.
        """
        deviation = leaf_std(self.std, self.order, self.rank)
        for book in self.codebooks:
            nn.init.normal_(book, std=deviation)
        if self.decoder is not None:
            nn.init.normal_(self.decoder, std=self.decoder.shape[0] ** -0.5)
        self._reset_row_scale()

    def to_table(self) -> kc.CodebookTable[Tensor]:
        """The layer as a table of codes, which shares its parameters and trains them.

        Returns
        -------
        CodebookTable, (num_embeddings, embedding_dim)
            The table itself where there is no `padding_idx` and `max_norm`: those are what `forward` does to
            its rows.  Its codes are uint8 or uint16 where these hold them.
        """
        codes = stored_codes(self.codes).permute(1, 2, 0)
        return kc.CodebookTable(list(self.codebooks), codes, self.row_scale, self.decoder)

    def extra_repr(self) -> str:
        """What the layer was made with, and what it takes; the ratio is one of bytes.

        Returns
        -------
        str
        """
        names = ("order", "rank", "dims", "codebook_rows")
        numbers = sum(each.numel() for each in self.parameters())
        dense = self.num_embeddings * self.embedding_dim * self.codebooks[0].element_size()
        sizes = display.sizes(numbers, self.nbytes, dense)
        return ", ".join([described(self, *names), *(f"{name}={size}" for name, size in sizes.items())])

    def _rows(self, ids: Tensor) -> Tensor:
        """The rows of checked ids, with the options in force."""
        with own_precision(self.codebooks[0]):
            found = self._normed(self._looked_up(ids, self.decoder))
        return self._divided(self._padded(found, ids), ids)

    def _sums(self, ids: Tensor) -> Tensor:
        """The rows (..., w) of checked ids before the decoder; there is no option that acts after it."""
        with own_precision(self.codebooks[0]):
            return self._padded(self._looked_up(ids, None), ids)

    def _decoded(self, sums: Tensor) -> Tensor:
        """Sums (..., w), which may be wider than the decoder, times that."""
        with own_precision(sums):
            return sums if self.decoder is None else sums @ self.decoder.to(sums.dtype)

    def _looked_up(self, ids, decoder):
        """Rows of the parameters; NaN for ids out of range, where nobody looks for these."""
        words, scale = self.num_embeddings, None
        known = not torch.compiler.is_compiling() and check_index("ids", ids, words, None)[1]
        inside = None if known else (ids >= 0) & (ids < words)
        safe = ids if known else ids.clamp(0, words - 1)
        if self.row_scale is not None:
            # One number a row is a matrix of one column: what is out of range has no gradient.
            scale = rows((self.row_scale[None, :, None],), ids, (words, 1))[..., 0]
        codes = joined(self.codes[safe.long()])
        if inside is not None:
            codes = torch.where(inside[..., None, None], codes.long(), -1)
        books: tuple[Tensor, ...] = tuple(self.codebooks)
        return codebook_rows(books, scale, decoder, codes.movedim((-2, -1), (0, 1)))


def host_codes(codes: np.ndarray) -> np.ndarray:
    """Codes of NumPy as torch takes them: writeable, in the byte order of the machine.

    >>> host_codes(np.arange(2, dtype=">u2")).dtype.isnative
    True
    """
    return np.array(codes, dtype=codes.dtype.newbyteorder("="))


def as_bytes(codes: Tensor, size: int) -> Tensor:
    """Codes below `size` as so many bytes as hold them, on a last axis, the lowest first.

    torch.distributed broadcasts no buffers of two bytes, but any of single ones.

    >>> as_bytes(torch.tensor([3, 258]), 1000).tolist()
    [[3, 0], [2, 1]]
    """
    wide = codes.long()
    if not codes.is_meta and codes.numel() and not 0 <= int(wide.min()) <= int(wide.max()) < size:
        raise IndexError(f"codes must lie in [0, {size}), got {int(wide.min())} to {int(wide.max())}")
    count = max(1, -(-(size - 1).bit_length() // 8))
    return torch.stack([(wide >> (8 * n)) & 255 for n in range(count)], -1).to(torch.uint8)


def joined(parts: Tensor) -> Tensor:
    """The codes that `as_bytes` has split: of one byte as they are.

    >>> joined(as_bytes(torch.tensor([3, 258]), 1000)).tolist()
    [3, 258]
    """
    if parts.shape[-1] == 1:
        return parts[..., 0]
    wide = parts.to(torch.int32 if parts.shape[-1] < 4 else torch.int64)
    return sum((wide[..., n] << (8 * n) for n in range(1, parts.shape[-1])), wide[..., 0])


def stored_codes(parts: Tensor) -> Tensor:
    """The same in a dtype of their own, uint16 where there are two bytes.

    >>> stored_codes(as_bytes(torch.tensor([3, 258]), 1000)).dtype
    torch.uint16
    """
    codes = joined(parts)
    return codes.to(torch.uint16) if parts.shape[-1] == 2 else codes
