"""Embeddings that are stored as codes, in the place of `torch.nn.Embedding` and `torch.nn.EmbeddingBag`.

Letters: N order, R rank, K_n and q_n rows and columns of codebook n, w = prod q_n, Q columns; B bags, L ids.
"""

from typing import Any, Self

import torch
from torch import Tensor

import ketcore as kc
from ketcore.array_types import Array, Lists, Seed
from ketcore.torch.bags import checked_mode, reduced
from ketcore.torch.code_table import CodeTable
from ketcore.torch.embedding_tables import check_ids
from ketcore.torch.nearest_tables import fitted_codebooks


class EmbeddingCodebook(CodeTable):
    """A table of words as stored codes, in the place of `torch.nn.Embedding`.

    The row of a word is a sum of vectors that its codes pick from small codebooks, times a decoder that all
    words share.  The codes are stored and do not train; codebooks, decoder and scales of rows do.  A table
    that is there is turned into codes by `from_pretrained`; codes that are drawn make the words of a layer
    share vectors by chance.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table.
    padding_idx : int, optional
        The row of this id is zero, and no gradient flows from it.  Negative ones count from the end.
    max_norm : float, optional
        Longer rows are scaled to this norm: the output is, as of `EmbeddingKetXS`.
    norm_type : float, default 2.0
        The p of the norm.
    scale_grad_by_freq : bool, default False
        Divide the gradient of a row by the number of its ids in the call.
    sparse : bool, default False
        Refused: words share vectors, and the gradient of a codebook is dense.
    n_codes : int, default 8
        The codes of a word, of which each picks a vector of a codebook of its own.
    codebook_size : int, optional
        The vectors of a codebook, at most 65,536 and at most the words; 256, or as many as there are words,
        if left out.
    width : int, optional
        The length of the vectors, at most the columns and the words; 64, or as much as may be, if left out.
        A decoder (width, embedding_dim) makes rows of their sums, unless `width` is `embedding_dim`.
    row_scale : bool or float, default False
        One learned number a row, which multiplies it.  True starts them at 1, a number at that number.
    std : float, default 1.0
        The standard deviation of the entries at the start, times that of `row_scale`; that of `nn.Embedding`.
    _weight : CodebookTable, (num_embeddings, embedding_dim), optional
        Codes, codebooks, decoder and scales, instead of random ones; they decide all sizes.
    _freeze : bool, default False
        Parameters that do not train.
    device : torch.device, optional
        As of `nn.Embedding`.
    dtype : torch.dtype, optional
        As of `nn.Embedding`; the dtype is floating or complex.

    Attributes
    ----------
    codebooks : ParameterList of N parameters, (R, K_n, q_n)
        One of (n_codes, codebook_size, width) unless a table was given.
    decoder : Parameter, (w, embedding_dim), or None
    row_scale : Parameter, (num_embeddings,), or None
    codes : buffer, (num_embeddings, N, R, b) uint8
        The b bytes of each code, the lowest first: one up to 256 vectors, two up to 65,536.
    relative_error : float or None
        What `from_pretrained` left, as `ketcore.fit_codebooks` says it.

    Raises
    ------
    TypeError, ValueError, IndexError
        On arguments.  A call raises TypeError on ids that are no integers and, on the CPU, IndexError on ids
        out of range; on other devices those give a row of NaN and no gradient.  AttributeError on `weight`:
        no dense table is built by accident, see `to_dense`.

    Notes
    -----
    A call costs ``O(|ids| w (R + Q))`` time and the memory of its output.

    `to(dtype)` changes the dtype of parameters and leaves that of codes.  Codes are of single bytes since
    torch.distributed broadcasts no buffers of two.  A buffer does not survive `to_empty`, and
    `reset_parameters` does not draw it: load `codes` from a state dict after it.

    References
    ----------
    R. Shu and H. Nakayama, Compressing word embeddings via deep compositional code learning, ICLR 2018.

    Examples
    --------
    >>> layer = EmbeddingCodebook(50000, 300, n_codes=8, width=32)
    >>> layer(torch.tensor([[101, 2054], [2003, 102]])).shape
    torch.Size([2, 2, 300])
    >>> layer.nbytes, 50000 * 300 * 4 // layer.nbytes
    (700544, 85)
    """

    def forward(self, input: Tensor) -> Tensor:
        """The rows of some ids.

        Parameters
        ----------
        input : tensor, (...) of any integer dtype
            Ids, 0 <= id < num_embeddings.

        Returns
        -------
        tensor, (..., embedding_dim)
            In the dtype of the parameters.

        Raises
        ------
        TypeError
            Unless `input` is a tensor of integers.
        IndexError
            On an id out of range, on the CPU; on other devices it gives a row of NaN and no gradient.
        """
        return self._rows(check_ids("input", input, self.codebooks[0]))

    @classmethod
    def from_table(
        cls,
        table: kc.CodebookTable[Any],
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """A layer of the arrays of a table of codes, which are copied.

        Parameters
        ----------
        table : CodebookTable
            Of any order, of arrays of NumPy or tensors.
        freeze : bool, default True
            Parameters that do not train.
        padding_idx : int, optional
            As of the constructor.
        max_norm : float, optional
            As of the constructor.
        norm_type : float, default 2.0
            As of the constructor.
        scale_grad_by_freq, sparse : bool, default False
            As of the constructor.
        device : torch.device, optional
            As of the constructor.
        dtype : torch.dtype, optional
            As of the constructor; that of the first codebook if left out.

        Returns
        -------
        EmbeddingCodebook

        Raises
        ------
        TypeError, IndexError
            On what is no table, and on codes out of range.

        Examples
        --------
        >>> table = kc.CodebookTable([[[1.0, 2.0], [3.0, 4.0]]], [[[1, 0, 1]]])
        >>> EmbeddingCodebook.from_table(table)(torch.tensor([0, 1])).tolist()
        [[3.0, 4.0], [1.0, 2.0]]
        """
        return cls(
            *_shape_of(table),
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            _weight=table,
            _freeze=freeze,
            device=device,
            dtype=dtype,
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Tensor,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        *,
        n_codes: int | None = None,
        codebook_size: int | None = None,
        width: int | None = None,
        weights: Array | Lists | None = None,
        row_scale: bool = False,
        ratio: float | None = None,
        rng: Seed = None,
    ) -> Self:
        """A layer near a given table, by `ketcore.fit_codebooks`: see what `relative_error` says.

        Parameters
        ----------
        embeddings : tensor, (num_embeddings, embedding_dim)
            The table, real and finite.
        freeze : bool, default True
            Parameters that do not train, as of `nn.Embedding.from_pretrained`.
        padding_idx : int, optional
            As of the constructor.
        max_norm : float, optional
            As of the constructor.
        norm_type : float, default 2.0
            As of the constructor.
        scale_grad_by_freq, sparse : bool, default False
            As of the constructor.
        n_codes : int, optional
            As of the constructor; 8 if left out, unless there is a `ratio`.
        codebook_size, width : int, optional
            As of the constructor.
        weights : array, (num_embeddings,), optional
            Real, above 0: how much a row counts, such as the square root of how often its word occurs.
        row_scale : bool, default False
            Whether each row has a number, near 1, beside its codes.
        ratio : float, optional
            At least 1: sizes that are not given are chosen, such that `nbytes` is at most the bytes of the
            table over this.
        rng : int, Generator or None, optional
            As of `ketcore.fit_codebooks`.

        Returns
        -------
        EmbeddingCodebook
            Its `relative_error` is that of `ketcore.fit_codebooks`, in which rows count by `weights`.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes, on NaN and infinity, with the row that has them, and on a ratio beyond that
            of the smallest layer, which is said.
        ImportError
            Without scikit-learn, the extra ``ketcore[codebooks]``.

        Examples
        --------
        >>> table = torch.tensor([[1.0, 2.0], [5.0, 0.0]])[[0, 1, 1, 0, 1]]
        >>> layer = EmbeddingCodebook.from_pretrained(table, n_codes=1, codebook_size=2, rng=0)
        >>> layer.relative_error < 1e-6, torch.allclose(layer(torch.tensor([3, 4])), table[3:], atol=1e-5)
        (True, True)
        """
        options: dict[str, Any] = {"n_codes": n_codes, "codebook_size": codebook_size, "width": width}
        options |= {"weights": weights, "row_scale": row_scale, "rng": rng}
        table, error = fitted_codebooks(embeddings, ratio, **options)
        layer = cls.from_table(table, freeze, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        layer._take_fit(None, error)
        return layer


class EmbeddingBagCodebook(CodeTable):
    """Reduced bags of rows that are stored as codes, in the place of `torch.nn.EmbeddingBag`.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        As of `EmbeddingCodebook`.
    max_norm : float, optional
        As of `EmbeddingCodebook`.
    norm_type : float, default 2.0
        As of `EmbeddingCodebook`.
    scale_grad_by_freq : bool, default False
        As of `EmbeddingCodebook`, in the order of `nn.EmbeddingBag`.
    mode : {"sum", "mean", "max"}, default "mean"
        How the rows of a bag are reduced; a bag without ids gives zeros.
    sparse : bool, default False
        As of `EmbeddingCodebook`.
    _weight : CodebookTable, (num_embeddings, embedding_dim), optional
        As of `EmbeddingCodebook`.
    include_last_offset : bool, default False
        `offsets` has one number more, where the last bag ends.
    padding_idx : int, optional
        Ids that count for nothing: their rows are in no sum, mean or maximum, and have no gradient.
    device : torch.device, optional
        As of `EmbeddingCodebook`.
    dtype : torch.dtype, optional
        As of `EmbeddingCodebook`.
    n_codes : int, default 8
        As of `EmbeddingCodebook`.
    codebook_size, width : int, optional
        As of `EmbeddingCodebook`.
    row_scale : bool or float, default False
        As of `EmbeddingCodebook`.
    std : float, default 1.0
        As of `EmbeddingCodebook`.
    _freeze : bool, default False
        As of `EmbeddingCodebook`.

    Raises
    ------
    TypeError, ValueError, IndexError
        On arguments, as of `EmbeddingCodebook`.

    Notes
    -----
    Sums and means are decoded after they are made, so that the decoder costs each bag and not each id: time
    ``O(L R w + B w Q)``, memory ``O(L w)``.  With `max_norm` or `scale_grad_by_freq`, which are about rows,
    and for maxima, all L rows are decoded.

    Examples
    --------
    >>> layer = EmbeddingBagCodebook(1000, 96, mode="sum")
    >>> layer(torch.tensor([4, 7, 7, 999]), torch.tensor([0, 3])).shape
    torch.Size([2, 96])
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
        _weight: kc.CodebookTable[Any] | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        n_codes: int = 8,
        codebook_size: int | None = None,
        width: int | None = None,
        row_scale: bool | float = False,
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
            n_codes=n_codes,
            codebook_size=codebook_size,
            width=width,
            row_scale=row_scale,
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
            As of `EmbeddingBagKetXS`.
        per_sample_weights : tensor, of the shape of `input` and the dtype of the parameters, optional
            What multiplies each row; for ``mode="sum"`` alone.

        Returns
        -------
        tensor, (B, embedding_dim)
            In the dtype of the parameters.

        Raises
        ------
        TypeError, ValueError, IndexError
            As of `EmbeddingBagKetXS`.
        """
        if self.mode == "max" or self.max_norm is not None or self.scale_grad_by_freq:
            return reduced(self, input, offsets, per_sample_weights, self._rows)
        return reduced(self, input, offsets, per_sample_weights, self._sums, self._decoded)

    @classmethod
    def from_table(
        cls,
        table: kc.CodebookTable[Any],
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        *,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """A layer of the arrays of a table of codes, as `EmbeddingCodebook.from_table`.

        Parameters
        ----------
        table : CodebookTable
            As of `EmbeddingCodebook.from_table`.
        freeze : bool, default True
            As of `EmbeddingCodebook.from_table`.
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
        device : torch.device, optional
            As of the constructor.
        dtype : torch.dtype, optional
            As of `EmbeddingCodebook.from_table`.

        Returns
        -------
        EmbeddingBagCodebook

        Raises
        ------
        TypeError, IndexError
            As of `EmbeddingCodebook.from_table`.
        """
        return cls(
            *_shape_of(table),
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            table,
            include_last_offset,
            padding_idx,
            device,
            dtype,
            _freeze=freeze,
        )

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
        n_codes: int | None = None,
        codebook_size: int | None = None,
        width: int | None = None,
        weights: Array | Lists | None = None,
        row_scale: bool = False,
        ratio: float | None = None,
        rng: Seed = None,
    ) -> Self:
        """A layer near a given table, as `EmbeddingCodebook.from_pretrained`.

        Parameters
        ----------
        embeddings : tensor, (num_embeddings, embedding_dim)
            As of `EmbeddingCodebook.from_pretrained`.
        freeze : bool, default True
            As of `EmbeddingCodebook.from_pretrained`.
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
        n_codes : int, optional
            As of the constructor; 8 if left out, unless there is a `ratio`.
        codebook_size, width : int, optional
            As of the constructor.
        weights : array, (num_embeddings,), optional
            As of `EmbeddingCodebook.from_pretrained`.
        row_scale : bool, default False
            As of `EmbeddingCodebook.from_pretrained`.
        ratio : float, optional
            As of `EmbeddingCodebook.from_pretrained`.
        rng : int, Generator or None, optional
            As of `EmbeddingCodebook.from_pretrained`.

        Returns
        -------
        EmbeddingBagCodebook
            Its `relative_error` is that of the table.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes, and on NaN and infinity.
        ImportError
            Without scikit-learn, the extra ``ketcore[codebooks]``.
        """
        options: dict[str, Any] = {"n_codes": n_codes, "codebook_size": codebook_size, "width": width}
        options |= {"weights": weights, "row_scale": row_scale, "rng": rng}
        table, error = fitted_codebooks(embeddings, ratio, **options)
        layer = cls.from_table(
            table,
            freeze,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            sparse,
            include_last_offset,
            padding_idx,
        )
        layer._take_fit(None, error)
        return layer


def _shape_of(table: Any) -> tuple[int, int]:
    """The shape of a table of codes."""
    if not isinstance(table, kc.CodebookTable):
        raise TypeError(f"table must be a CodebookTable, got {type(table).__name__}")
    return table.shape
