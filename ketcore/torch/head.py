"""Scores of all words against hidden vectors, by the embedding table itself: a tied head.

    logits = h T^T + b,   T the table (words, columns) that the embedding layer stores in factors

The table of an EmbeddingKetXS is never formed: T^T is a Kronecker matrix too.  For that of an
EmbeddingCodebook hidden vectors meet each vector of each codebook once, and the score of a word is a sum of
numbers that its codes pick.  That of an EmbeddingKet, or one with `max_norm`, is read by blocks of rows.  T
is the table as the layer gives it, with its `row_scale` and `permutation`, and a row of zeros at the
`padding_idx` of all but an EmbeddingKet; gradients reach the same parameters from both ends of a model.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ketcore.shapes import check_int
from ketcore.torch.code_table import joined
from ketcore.torch.codebook_embeddings import EmbeddingCodebook
from ketcore.torch.embeddings import EmbeddingKet, EmbeddingKetXS
from ketcore.torch.functional import codebook_rows, ket_rows, kron_matmul
from ketcore.torch.inputs import check_agree
from ketcore.torch.sampled_softmax import Distribution, sampled_loss

# Numbers in a block of rows or of scores: 16 MB of float32, beside which a call costs little.
_BLOCK = 1 << 22

Table: TypeAlias = EmbeddingKet | EmbeddingKetXS | EmbeddingCodebook


class TopK(NamedTuple):
    """The k largest scores of each hidden vector, from the largest on, and whose they are.

    Attributes
    ----------
    values : tensor, (..., k)
        The scores.
    indices : tensor, (..., k) of int64
        The words.
    """

    values: Tensor
    indices: Tensor


class TiedHead(nn.Module):
    """The output layer of a language model that shares the table of its embedding.

    Parameters
    ----------
    embedding : EmbeddingKet, EmbeddingKetXS or EmbeddingCodebook
        It stays a module of its own, and its parameters are those of both.
    bias : bool, default False
        Whether a learned number is added to the score of each word; it starts at zero.

    Attributes
    ----------
    embedding : EmbeddingKet, EmbeddingKetXS or EmbeddingCodebook
        As given.
    bias : Parameter, (num_embeddings,), or None
        What is added to the scores.

    Raises
    ------
    TypeError
        For another kind of embedding.

    Notes
    -----
    In a model that holds the embedding too, `parameters()` yields the table once, `state_dict()` has it under
    both names, as with tied weights of `nn.Linear`, and a deep copy of the model stays tied.

    Examples
    --------
    >>> embedding = EmbeddingKetXS(1000, 64)
    >>> head = TiedHead(embedding)
    >>> hidden = embedding(torch.tensor([3, 7]))
    >>> head(hidden).shape, head.top_k(hidden, 5).indices.shape
    (torch.Size([2, 1000]), torch.Size([2, 5]))
    >>> len(list(nn.ModuleList([embedding, head]).parameters()))
    2
    """

    bias: nn.Parameter | None

    def __init__(self, embedding: Table, bias: bool = False) -> None:
        super().__init__()
        like = _parameter(embedding)
        self.embedding = embedding
        empty = torch.zeros(embedding.num_embeddings, device=like.device, dtype=like.dtype) if bias else None
        self.register_parameter("bias", None if empty is None else nn.Parameter(empty))

    def reset_parameters(self) -> None:
        """Set the bias to zero; the table is the embedding's to draw."""
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """The scores of all words: see `logits`.

        Parameters
        ----------
        hidden : tensor, (..., embedding_dim)
            As of `logits`.

        Returns
        -------
        tensor, (..., num_embeddings)
            In the dtype of the parameters.

        Raises
        ------
        TypeError, ValueError
            As `logits`.
        """
        return logits(self.embedding, hidden, self.bias)

    def top_k(self, hidden: Tensor, k: int) -> TopK:
        """The k words of the largest scores: see `top_k`.

        Parameters
        ----------
        hidden : tensor, (..., embedding_dim)
            As of `top_k`.
        k : int
            As of `top_k`.

        Returns
        -------
        TopK
            Values and indices, tensors (..., k).

        Raises
        ------
        TypeError, ValueError
            As `top_k`.
        """
        return top_k(self.embedding, hidden, k, self.bias)

    def sampled_softmax_loss(
        self, hidden: Tensor, targets: Tensor, num_sampled: int, **options: Any
    ) -> Tensor:
        """The cross entropy over some words: see `sampled_softmax_loss`.

        Parameters
        ----------
        hidden : tensor, (..., embedding_dim)
            As of `sampled_softmax_loss`.
        targets : tensor, (...) of any integer dtype
            As of `sampled_softmax_loss`.
        num_sampled : int
            As of `sampled_softmax_loss`.
        **options : keywords
            As of `sampled_softmax_loss`.

        Returns
        -------
        tensor, (), or (...) with reduction "none"
            The loss.

        Raises
        ------
        TypeError, ValueError, IndexError
            As `sampled_softmax_loss`.
        """
        return sampled_softmax_loss(self.embedding, hidden, targets, num_sampled, bias=self.bias, **options)

    def extra_repr(self) -> str:
        """What stands between the parentheses of the repr.

        Returns
        -------
        str
        """
        return f"bias={self.bias is not None}"


def logits(embedding: Table, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
    """The scores of all words: hidden T^T + bias.

    Parameters
    ----------
    embedding : EmbeddingKet, EmbeddingKetXS or EmbeddingCodebook
        The layer whose table T is (num_embeddings, embedding_dim).
    hidden : tensor, (..., embedding_dim)
        Vectors in the dtype and on the device of the parameters.
    bias : tensor, (num_embeddings,), optional
        What is added to the score of each word.

    Returns
    -------
    tensor, (..., num_embeddings)
        In the dtype of the parameters.

    Raises
    ------
    TypeError, ValueError
        On kinds and shapes, and where dtypes or devices differ.

    Notes
    -----
    EmbeddingKetXS: time `O(rank |hidden| sum p_n)` where modes are square, as `kron_matmul`; with `max_norm`,
    and for an EmbeddingKet, that of all rows and of a dense product, in the memory of the result and of a
    block of rows, whose derivative makes the rows again. `max_norm` scales rows of an EmbeddingKet where they
    are looked up, and not here. EmbeddingCodebook of order 1: `O(|hidden| (rank (w K + words) + w columns))`
    with codebooks (K, w), of other orders as an EmbeddingKet.

    Examples
    --------
    >>> embedding = EmbeddingKetXS(10, 4)
    >>> hidden = torch.ones(2, 4)
    >>> bool(torch.allclose(logits(embedding, hidden), hidden @ embedding.to_dense().T, atol=1e-5))
    True
    """
    _check(embedding, hidden, bias)
    if _is_coded(embedding, hidden):
        books = _book_scores(embedding, hidden)
        words = torch.arange(embedding.num_embeddings, device=hidden.device)
        found = _of_codes(embedding, books, words).reshape(*hidden.shape[:-1], -1)
    elif _is_multilinear(embedding):
        found = _of_matrix(embedding, tuple(embedding.factors), hidden, embedding.num_embeddings)
        if embedding.permutation is not None:
            found = found.index_select(-1, embedding.permutation.long())
        words = torch.arange(embedding.num_embeddings, device=found.device)
        found = _scaled(embedding, found, words)
    else:
        found = torch.cat([_of_rows(embedding, hidden, words) for words in _row_blocks(embedding)], -1)
    return found if bias is None else found + bias.to(found.dtype)


def top_k(
    embedding: Table,
    hidden: Tensor,
    k: int,
    bias: Tensor | None = None,
    *,
    block: int | None = None,
) -> TopK:
    """The k words of the largest scores, found without the scores of all.

    Parameters
    ----------
    embedding : EmbeddingKet, EmbeddingKetXS or EmbeddingCodebook
        As of `logits`.
    hidden : tensor, (..., embedding_dim)
        As of `logits`.
    k : int
        From 1 to num_embeddings.
    bias : tensor, (num_embeddings,), optional
        As of `logits`.
    block : int, optional
        The number of words whose scores are held at a time, about. None: 16 MB of them in float32.

    Returns
    -------
    TopK
        Values and indices, tensors (..., k), in descending order; which of two equal scores comes first is
        not said. Indices are words. Where gradients are recorded, the values are computed again from the rows
        of those words, and have them.

    Raises
    ------
    TypeError, ValueError
        As `logits`, and where k is no int or out of range.

    Examples
    --------
    >>> embedding = EmbeddingKetXS(10, 4)
    >>> hidden = torch.ones(2, 4)
    >>> bool((top_k(embedding, hidden, 3).indices == logits(embedding, hidden).topk(3).indices).all())
    True
    """
    _check(embedding, hidden, bias)
    _check_real(hidden, "top_k")
    k, block = check_int("k", k, 1), None if block is None else check_int("block", block, 1)
    if k > embedding.num_embeddings:
        raise ValueError(f"k must be at most {embedding.num_embeddings}, the number of words, got {k}")
    flat = hidden.reshape(-1, hidden.shape[-1])
    with torch.no_grad():
        size = block or max(k, _BLOCK // max(1, flat.shape[0]))
        best: TopK | None = None
        for scores, words in _score_blocks(embedding, flat, size):
            scores = scores if bias is None else scores + bias[words].to(scores.dtype)
            best = _merged(best, scores, words, k)
    assert best is not None
    shape = (*hidden.shape[:-1], k)
    values, indices = best.values.reshape(shape), best.indices.reshape(shape)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (hidden, *embedding.parameters())):
        values = _paired(embedding, hidden, indices, bias)
    return TopK(values, indices)


def sampled_softmax_loss(
    embedding: Table,
    hidden: Tensor,
    targets: Tensor,
    num_sampled: int,
    *,
    bias: Tensor | None = None,
    distribution: Distribution = "log_uniform",
    ignore_index: int = -100,
    reduction: str = "mean",
    generator: torch.Generator | None = None,
) -> Tensor:
    """The cross entropy of the softmax over all words, estimated from the target and some sampled words.

    Parameters
    ----------
    embedding : EmbeddingKet, EmbeddingKetXS or EmbeddingCodebook
        As of `logits`.
    hidden : tensor, (..., embedding_dim)
        As of `logits`.
    targets : tensor, (...) of any integer dtype
        The right word for each hidden vector.
    num_sampled : int
        How many words are drawn, with replacement, and shared by all hidden vectors of the call.
    bias : tensor, (num_embeddings,), optional
        As of `logits`.
    distribution : {"log_uniform", "uniform"} or tensor, (num_embeddings,), default "log_uniform"
        What they are drawn from. "log_uniform" gives word i the probability
        log((i + 2) / (i + 1)) / log(num_embeddings + 1), which fits words in the order of their frequency,
        the most frequent first. A tensor holds relative frequencies; a word of frequency 0 is left out of
        the softmax, unless it is the target.
    ignore_index : int, default -100
        A target that counts for nothing, as in `torch.nn.functional.cross_entropy`.
    reduction : {"mean", "sum", "none"}, default "mean"
        The mean of the losses that count, their sum, or each of them.
    generator : torch.Generator, optional
        Where the random numbers come from; on the device of the parameters.

    Returns
    -------
    tensor, (), or (...) with reduction "none"
        The loss.

    Raises
    ------
    TypeError, ValueError
        On kinds and shapes.
    IndexError
        For a target that is no word.

    Notes
    -----
    With s_j the score of word j and q_j its probability, the sum of exponentials is estimated by ::

        exp(s_target) + sum over samples j other than the target of exp(s_j) / (num_sampled q_j)

    whose expectation is the sum over all words; samples that hit the target are left out. Its logarithm, and
    so the loss, is below that of the full softmax in expectation, by an amount that falls as
    1 / num_sampled. Only the rows of targets and samples are made.

    References
    ----------
    Jean, Cho, Memisevic, Bengio, "On Using Very Large Target Vocabulary for Neural Machine Translation", ACL
    2015 (arXiv 1412.2007).

    Examples
    --------
    >>> embedding = EmbeddingKetXS(1000, 64)
    >>> hidden, targets = torch.ones(2, 64), torch.tensor([3, 7])
    >>> sampled_softmax_loss(embedding, hidden, targets, 100).shape
    torch.Size([])
    """
    _check(embedding, hidden, bias)
    _check_real(hidden, "sampled_softmax_loss")
    return sampled_loss(
        lambda words: _looked_up(embedding, words), hidden, bias, targets, num_sampled,
        embedding.num_embeddings, distribution, ignore_index, reduction, generator,
    )  # fmt: skip


def _parameter(embedding: object) -> Tensor:
    """The first parameter of a table; TypeError for what is none of ours."""
    if isinstance(embedding, EmbeddingKetXS):
        return embedding.factors[0]
    if isinstance(embedding, EmbeddingKet):
        return embedding.leaves
    if isinstance(embedding, EmbeddingCodebook):
        return embedding.codebooks[0]
    kinds = "EmbeddingKet, EmbeddingKetXS or EmbeddingCodebook"
    raise TypeError(f"embedding must be an {kinds}, got {type(embedding).__name__}")


def _check(embedding, hidden, bias):
    like = _parameter(embedding)
    check_agree("hidden", hidden, "the embedding", like)
    columns, words = embedding.embedding_dim, embedding.num_embeddings
    if hidden.ndim == 0 or hidden.shape[-1] != columns:
        raise ValueError(f"hidden must be (..., {columns}), got shape {tuple(hidden.shape)}")
    if bias is not None:
        check_agree("bias", bias, "the embedding", like)
        if bias.shape != (words,):
            raise ValueError(f"bias must have shape ({words},), got {tuple(bias.shape)}")


def _check_real(hidden, function):
    if hidden.is_complex():
        raise TypeError(f"hidden must be real for {function}, whose scores are ordered, got {hidden.dtype}")


def _is_multilinear(embedding: Table) -> TypeGuard[EmbeddingKetXS]:
    """Whether the table is a Kronecker matrix, up to scales and the order of its rows."""
    return isinstance(embedding, EmbeddingKetXS) and embedding.max_norm is None


def _is_coded(embedding: Table, hidden: Tensor) -> TypeGuard[EmbeddingCodebook]:
    """Whether scores are sums of numbers that codes pick, of which there are some."""
    coded = isinstance(embedding, EmbeddingCodebook) and embedding.order == 1
    return coded and embedding.max_norm is None and hidden.numel() > 0


def _book_scores(embedding: EmbeddingCodebook, hidden: Tensor) -> Tensor:
    """The scores (R, K, B) of the vectors of the codebooks against B hidden ones."""
    flat = hidden.reshape(-1, embedding.embedding_dim)
    flat = flat if embedding.decoder is None else flat @ embedding.decoder.mT
    return embedding.codebooks[0] @ flat.mT


def _of_codes(embedding: EmbeddingCodebook, books: Tensor, words: Tensor) -> Tensor:
    """The scores (B, n) of n words, given those of the vectors that their codes pick."""
    codes = joined(embedding.codes[words]).movedim((-2, -1), (0, 1))
    return _scaled(embedding, codebook_rows((books,), None, None, codes).mT, words)


def _of_matrix(embedding: EmbeddingKetXS, factors: Sequence[Tensor], hidden: Tensor, rows: int) -> Tensor:
    """The product `hidden` F^T for the first so many rows of the Kronecker matrix of `factors`."""
    turned = [factor.transpose(1, 2) for factor in factors]
    return kron_matmul(turned, hidden, (embedding.embedding_dim, rows))


def _scaled(embedding: EmbeddingKetXS | EmbeddingCodebook, scores: Tensor, words: Tensor) -> Tensor:
    """Scores of rows that are not scaled as those of the words that lie there."""
    if embedding.row_scale is not None:
        scores = scores * embedding.row_scale[words].to(scores.dtype)
    if embedding.padding_idx is not None:
        scores = scores.masked_fill(words == embedding.padding_idx, 0)
    return scores


def _rows(embedding: Table, words: Tensor) -> Tensor:
    """Rows of a table that is read by blocks, each word once."""
    if not isinstance(embedding, EmbeddingKet):
        return embedding(words)
    found = ket_rows(
        embedding.leaves, words, embedding.dims, embedding.layernorm,
        columns=embedding.embedding_dim, eps=embedding.eps,
    )  # fmt: skip
    if embedding.padding_idx is None:
        return found
    return torch.where((words == embedding.padding_idx)[..., None], found.detach(), found)


def _looked_up(embedding: Table, words: Tensor) -> Tensor:
    """Rows of words that may repeat, with the sparse gradient of an embedding that has one."""
    if isinstance(embedding, EmbeddingKet) and (embedding.max_norm is not None or not embedding.sparse):
        return _rows(embedding, words)
    if not embedding.scale_grad_by_freq:
        return embedding(words)
    # The frequency that it means is that of a look-up of ids, and every word has one row here.
    found, places = torch.unique(words, return_inverse=True)
    return embedding(found)[places]


def _row_blocks(embedding):
    """The words of a table in blocks of rows."""
    like, words = _parameter(embedding), embedding.num_embeddings
    size = max(1, _BLOCK // embedding.embedding_dim)
    return [
        torch.arange(start, min(start + size, words), device=like.device) for start in range(0, words, size)
    ]


def _of_rows(embedding: Table, hidden: Tensor, words: Tensor) -> Tensor:
    """Scores by the rows of `words`, which the backward makes again where there are more blocks than one."""

    def scores(hidden):
        return nn.functional.linear(hidden, _rows(embedding, words))

    if len(words) == embedding.num_embeddings or not torch.is_grad_enabled():
        return scores(hidden)
    return checkpoint(scores, hidden, use_reentrant=False, preserve_rng_state=False)


def _score_blocks(embedding, hidden, size) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores (batch, n) of about `size` words at a time, and the words (n,)."""
    words = torch.arange(embedding.num_embeddings, device=hidden.device)
    if _is_coded(embedding, hidden):
        books = _book_scores(embedding, hidden)
        for block in words.split(size):
            yield _of_codes(embedding, books, block), block
        return
    if not _is_multilinear(embedding):
        size = min(size, max(1, _BLOCK // embedding.embedding_dim))
        for block in words.split(size):
            yield nn.functional.linear(hidden, _rows(embedding, block)), block
        return
    if embedding.permutation is not None:
        # The word that lies in each row.
        words = torch.empty_like(words).index_copy_(0, embedding.permutation.long(), words)
    for start, stop, factors in _boxes(tuple(embedding.factors), embedding.num_embeddings, size):
        block = words[start:stop]
        yield _scaled(embedding, _of_matrix(embedding, factors, hidden, stop - start), block), block


def _boxes(factors, rows, size):
    """Blocks of consecutive rows: (start, stop, the factors of a matrix of these rows).

    A block holds all digits of the last modes, some of one, and a single digit of each of those before it.
    """
    dims = [factor.shape[1] for factor in factors]
    mode = next(n for n in range(len(dims)) if prod(dims[n + 1 :]) <= size)
    stride = prod(dims[mode + 1 :])
    start = 0
    while start < rows:
        rest, first = divmod(start // stride, dims[mode])
        last = min(first + max(1, size // stride), dims[mode])
        cut = list(factors)
        cut[mode] = factors[mode][:, first:last]
        for n in reversed(range(mode)):
            rest, digit = divmod(rest, dims[n])
            cut[n] = factors[n][:, digit : digit + 1]
        stop = start + (last - first) * stride
        yield start, min(stop, rows), cut
        start = stop


def _merged(best, scores, words, k):
    """The k best of those so far and of a block."""
    values, places = scores.topk(min(k, scores.shape[-1]), -1)
    indices = words[places]
    if best is None:
        return TopK(values, indices)
    values = torch.cat([best.values, values], -1)
    indices = torch.cat([best.indices, indices], -1)
    values, places = values.topk(min(k, values.shape[-1]), -1)
    return TopK(values, indices.gather(-1, places))


def _paired(embedding: Table, hidden: Tensor, words: Tensor, bias: Tensor | None) -> Tensor:
    """The scores (..., k) of the words (..., k) of each hidden vector, by their rows."""
    found = (_looked_up(embedding, words) @ hidden[..., None])[..., 0]
    return found if bias is None else found + bias[words].to(found.dtype)
