"""Embedding tables stored as Kronecker products, in the place of `torch.nn.Embedding`.

Source: Panahi, Saeedi, Arodz, "word2ket: Space-efficient Word Embeddings inspired by Quantum Entanglement",
ICLR 2020 (arXiv 1911.04975).

Letters: N order, R rank, p_n and q_n rows and columns of factor n, ... shape of the ids.
"""

from collections.abc import Sequence
from typing import Any, Self

import torch  # noqa: F401  (for the examples)
from torch import Tensor

from ketcore.array_types import Seed
from ketcore.torch.embedding_tables import check_ids
from ketcore.torch.ket_table import KetTable
from ketcore.torch.nearest_tables import fitted_factors, fitted_leaves
from ketcore.torch.xs_table import XSTable


class EmbeddingKetXS(XSTable):
    """A table of words as one Kronecker matrix (word2ketXS), in the place of `torch.nn.Embedding`.

    ``nn.Embedding(30522, 768)`` becomes ``EmbeddingKetXS(30522, 768)``.  The table is a sum of R Kronecker
    products of N small matrices, of which a call multiplies out the rows that it is asked for, and no others.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table.
    padding_idx : int, optional
        The row of this id is zero, and no gradient flows from it.  Negative ones count from the end.
    max_norm : float, optional
        Longer rows are scaled to this norm.  `nn.Embedding` writes to its table, of which each row is its
        own; here the output is scaled, and gradients are those of the scaled rows.
    norm_type : float, default 2.0
        The p of the norm.
    scale_grad_by_freq : bool, default False
        Divide the gradient of a row by the number of its ids in the call.
    sparse : bool, default False
        Refused: words share leaves, and the gradient of a leaf is dense.
    order : int, default 2
        The number N of factors, where no dims are given.
    rank : int, default 10
        The number R of terms.
    row_dims, col_dims : sequence of N ints, optional
        The rows and the columns of the factors, whose products must reach `num_embeddings` and
        `embedding_dim`; by `ketcore.suggest_dims` if left out.
    row_scale : bool or float, default False
        One learned number a row, which multiplies it.  True starts them at 1, a number at that number.  A
        start of 0.05 to 0.1, and five times the learning rate of the factors, is a good first try.
    permutation : tensor or array of num_embeddings ints, optional
        Word i is stored as row ``permutation[i]``: words that are near in this order share leaves.  Such as
        `ketcore.vocabulary_permutation` gives.
    std : float, default 1.0
        The standard deviation of the entries at the start, times that of `row_scale`; that of `nn.Embedding`.
    _weight : sequence of N tensors, (R, p_n, q_n), optional
        The factors, instead of random ones; they decide `order`, `rank` and dims.
    _freeze : bool, default False
        Parameters that do not train.
    device : torch.device, optional
        As of `nn.Embedding`.
    dtype : torch.dtype, optional
        As of `nn.Embedding`; the dtype is floating or complex.

    Attributes
    ----------
    factors : ParameterList of N parameters, (R, p_n, q_n)
    row_scale : Parameter, (num_embeddings,), or None
    permutation : buffer, (num_embeddings,) int32 where that holds them, or None
    relative_error : float or None
        What `from_pretrained` left: Frobenius norm of the difference over that of the given table.

    Raises
    ------
    TypeError, ValueError, IndexError
        On arguments.  A call raises TypeError on ids that are no integers and, on the CPU, IndexError on ids
        out of range; on other devices those give a row of NaN and no gradient.  AttributeError on `weight`:
        no dense table is built by accident, see `to_dense`.

    Notes
    -----
    A call costs `R |ids| embedding_dim` multiplications and the memory of its output.  The table holds
    R sum p_n q_n numbers.

    Users of the word2ket package keep `order` and `rank`, which mean the same, and write them by name: there
    they stand before `padding_idx`, and default to 1.  A cropped table answers no ids beyond num_embeddings.

    A buffer does not survive `to_empty`: load `permutation` from a state dict after it.  A state dict has it
    in uint8 or uint16 where these hold it: of 50,000 words, two bytes a word.  The buffer itself has four,
    since torch.distributed broadcasts none of two.

    References
    ----------
    Panahi, Saeedi, Arodz, "word2ket: Space-efficient Word Embeddings inspired by Quantum Entanglement",
    ICLR 2020.

    Examples
    --------
    >>> layer = EmbeddingKetXS(30522, 768)
    >>> layer(torch.tensor([[101, 2054], [2003, 102]])).shape
    torch.Size([2, 2, 768])
    >>> sum(parameter.numel() for parameter in layer.parameters()), 30522 * 768
    (98000, 23440896)
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
        return self._rows(check_ids("input", input, self.factors[0]))

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
        order: int = 2,
        rank: int | None = None,
        row_dims: Sequence[int] | None = None,
        col_dims: Sequence[int] | None = None,
        permutation: Any = None,
        row_scale: bool = False,
        ratio: float | None = None,
        rng: Seed = None,
    ) -> Self:
        """A layer near a given table, which mostly is not near: see what `relative_error` says.

        Parameters
        ----------
        embeddings : tensor, (num_embeddings, embedding_dim)
            The table, finite.
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
        order : int, default 2
            As of the constructor.
        rank : int, optional
            As of the constructor; 10 if left out, unless there is a `ratio`.
        row_dims, col_dims : sequence of N ints, optional
            As of the constructor.
        permutation : tensor or array of num_embeddings ints, optional
            As of the constructor; row ``permutation[i]`` of the factors is near row i of the table.
        row_scale : bool, default False
            Whether each row is scaled by the number that brings it nearest to that of the table.
        ratio : float, optional
            At least 1: the layer has as many terms as it may, such that `nbytes` is at most the bytes of the
            table over this.
        rng : int, Generator or None, optional
            As of `ketcore.nearest_kronecker`.

        Returns
        -------
        EmbeddingKetXS
            Its `relative_error` is `|table - given| / |given|`, in Frobenius norms.  Of a table of more than
            a million entries it is near the least one in three digits, see `gain` of
            `ketcore.nearest_kronecker`.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes, on NaN and infinity, with the row that has them, and on a ratio beyond that
            of one term, which is said.

        Examples
        --------
        >>> table = torch.kron(torch.randn(6, 4), torch.randn(5, 2))
        >>> layer = EmbeddingKetXS.from_pretrained(table, row_dims=(6, 5), col_dims=(4, 2), rank=1)
        >>> layer.relative_error < 1e-6
        True
        """
        fit = fitted_factors(embeddings, order, rank, row_dims, col_dims, permutation, rng, row_scale, ratio)
        layer = cls(
            embeddings.shape[0],
            embeddings.shape[1],
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            row_scale=fit.row_scale is not None,
            permutation=permutation,
            _weight=fit.factors,
            _freeze=freeze,
        )
        layer._take_fit(fit.row_scale, fit.error)
        return layer


class EmbeddingKet(KetTable):
    """A table of words, each a ket of its own (word2ket), in the place of `torch.nn.Embedding`.

    The vector of a word is a sum of R tensor products of N short vectors: one record of R sum q_n numbers for
    each word, and no word shares it with another.

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        Rows and columns of the table.
    padding_idx : int, optional
        The record of this id starts as zeros and has no gradient, as the row of `nn.Embedding`.
    max_norm : float, optional
        In each call the records of longer rows are scaled, in place, so that the rows have this norm.
        Refused with `layernorm`, where rows keep their length whatever their leaves are.
    norm_type : float, default 2.0
        The p of the norm.
    scale_grad_by_freq : bool, default False
        Divide the gradient of a row by the number of its ids in the call.
    sparse : bool, default False
        The gradient of `leaves` is a sparse tensor of the records that were picked, for optimizers that take
        one.
    order : int, default 4
        The number N of leaves in a term, where no dims are given.
    rank : int, default 1
        The number R of terms.
    dims : sequence of N ints, optional
        The lengths q_n of the leaves, whose product must reach `embedding_dim`; by `ketcore.suggest_dims` if
        left out.
    layernorm : bool, default False
        Multiply the leaves of a term in a balanced tree, and normalise each node but the leaves to mean 0 and
        variance 1 (the paper's section 2.3).
    eps : float, default 1e-5
        Added to the variance of a node.
    std : float, default 1.0
        The standard deviation of the entries at the start.  With `layernorm` that is sqrt(R), whatever this
        is.
    _weight : tensor, (num_embeddings, R, sum q_n), optional
        The records, instead of random ones.
    _freeze : bool, default False
        Parameters that do not train.
    device : torch.device, optional
        As of `nn.Embedding`.
    dtype : torch.dtype, optional
        As of `nn.Embedding`; the dtype is floating or complex.

    Attributes
    ----------
    leaves : Parameter, (num_embeddings, R, sum q_n)
    relative_error : float or None
        What `from_pretrained` left: Frobenius norm of the difference over that of the given table.

    Raises
    ------
    TypeError, ValueError, IndexError, AttributeError
        As of `EmbeddingKetXS`.

    Notes
    -----
    A call costs `R |ids| embedding_dim` multiplications and the memory of its output.

    Users of the word2ket package keep `order` and `rank`, which mean the same, and write them by name: there
    they stand before `padding_idx`, and default to 1.

    References
    ----------
    Panahi, Saeedi, Arodz, "word2ket: Space-efficient Word Embeddings inspired by Quantum Entanglement",
    ICLR 2020.

    Examples
    --------
    >>> layer = EmbeddingKet(1000, 256)
    >>> layer.dims, layer(torch.tensor([3, 999])).shape
    ((4, 4, 4, 4), torch.Size([2, 256]))
    >>> sum(parameter.numel() for parameter in layer.parameters()), 1000 * 256
    (16000, 256000)
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
        return self._rows(check_ids("input", input, self.leaves))

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
        order: int = 4,
        rank: int = 1,
        dims: Sequence[int] | None = None,
    ) -> Self:
        """A layer near a given table, which mostly is not near: see what `relative_error` says.

        Parameters
        ----------
        embeddings : tensor, (num_embeddings, embedding_dim)
            The table, finite.
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
        order : int, default 4
            As of the constructor.
        rank : int, default 1
            As of the constructor.
        dims : sequence of N ints, optional
            As of the constructor.

        Returns
        -------
        EmbeddingKet
            Its `relative_error` is `|table - given| / |given|`, in Frobenius norms.  Of two leaves its rows
            are the nearest kets, of more they are near ones, by alternating least squares.

        Raises
        ------
        TypeError, ValueError
            On kinds and shapes, and on NaN and infinity.

        Examples
        --------
        >>> table = torch.stack([torch.kron(torch.randn(4), torch.randn(3)) for _ in range(5)])
        >>> EmbeddingKet.from_pretrained(table, dims=(4, 3)).relative_error < 1e-6
        True
        """
        leaves, dims, error = fitted_leaves(embeddings, order, rank, dims)
        layer = cls(
            embeddings.shape[0],
            embeddings.shape[1],
            padding_idx,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            sparse,
            dims=dims,
            _weight=leaves,
            _freeze=freeze,
        )
        layer.relative_error = error
        return layer
