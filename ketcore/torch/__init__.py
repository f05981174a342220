"""ketcore in PyTorch: its operations with torch's derivatives, and modules made of them.

functional  the operations of `ketcore.ops`, differentiable in every way that torch has
memory      tensors as arrays of the engines' libraries, in the same memory
operators   the operations as operators of torch, for compilers
autograd            the operations of `ketcore.ops`, differentiable in every way that torch has
embedding_tables    what embedding layers share: checks of their arguments, what options do to rows
ket_table           the parameters and rows of a table of kets
xs_table            the parameters and rows of a table that is a Kronecker matrix
nearest_tables      parameters whose tables are near given ones
embeddings          EmbeddingKet and EmbeddingKetXS, in the place of torch.nn.Embedding
embedding_bag       EmbeddingBagKet and EmbeddingBagKetXS, in the place of torch.nn.EmbeddingBag
word2ket            layers of the word2ket package
inputs      what a module asks of the tensors that it is given
linear      KroneckerLinear, for nn.Linear
head                TiedHead: scores of all words by the table of an embedding, in whole or in part
sampled_softmax     the cross entropy over many words, from the scores of few
inputs              what a module asks of the tensors that it is given
linear              KroneckerLinear, in the place of torch.nn.Linear
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("ketcore.torch needs PyTorch: pip install 'ketcore[torch]'") from error

from ketcore.torch.embedding_bag import EmbeddingBagKet, EmbeddingBagKetXS
from ketcore.torch.embeddings import EmbeddingKet, EmbeddingKetXS
from ketcore.torch.word2ket import from_word2ket

__all__ = ["EmbeddingBagKet", "EmbeddingBagKetXS", "EmbeddingKet", "EmbeddingKetXS", "from_word2ket"]
from ketcore.torch.linear import KroneckerLinear
__all__ = ["KroneckerLinear"]
from ketcore.torch.head import TiedHead, TopK, logits, sampled_softmax_loss, top_k
__all__ = [
    "EmbeddingKet",
    "EmbeddingKetXS",
    "KroneckerLinear",
    "TiedHead",
    "TopK",
    "logits",
    "sampled_softmax_loss",
    "top_k",
]
