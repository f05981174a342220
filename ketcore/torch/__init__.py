"""ketcore in PyTorch: its operations with torch's derivatives, and modules made of them.

functional          the operations of `ketcore.ops`, differentiable in every way that torch has
memory              tensors as arrays of the engines' libraries, in the same memory
operators           the operations as operators of torch, for compilers
inputs              what a module asks of the dims and tensors that it is given
embedding_tables    what embedding layers share: checks of their arguments, what options do to rows
ket_table           the parameters and rows of a table of kets
sharded_table       ShardedEmbeddingKet: a table of kets divided between processes
shared_table        options of tables whose words share parameters
xs_table            the parameters and rows of a table that is a Kronecker matrix
code_table          the parameters, codes and rows of a table of codes
nearest_tables      parameters whose tables are near given ones
ratios              sizes of tables for a ratio of bytes
pretrained          from_pretrained: a small table near one that is given
quantized_training  fake_quantize: training with the numbers that 8, 4 or 2 bits hold
embeddings          EmbeddingKet and EmbeddingKetXS, in the place of torch.nn.Embedding
bags                sums, means and maxima of rows
embedding_bag       EmbeddingBagKet and EmbeddingBagKetXS, in the place of torch.nn.EmbeddingBag
codebook_embeddings EmbeddingCodebook and EmbeddingBagCodebook, in the place of both
word2ket            layers of the word2ket package
head                TiedHead: scores of all words by the table of an embedding, in whole or in part
sampled_softmax     the cross entropy over many words, from the scores of few
linear              KroneckerLinear, in the place of torch.nn.Linear
lokr                LoKrLinear: a linear layer fine-tuned by a Kronecker product
lokr_files          LoKr adapters in the files of PEFT and LyCORIS
peft_patch          patch_peft: LoKr adapters of a model of PEFT, run without their products
peft_layers         the layers that it puts there; needs PEFT
ketify              ketify: layers of ketcore in the place of those of any model
module_groups       the modules of a model by the weights that they share
replacements        the layers that ketify puts in their place
ketify_report       what ketify did, as a table
tied_names          what models of the transformers library say about tied parameters
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("ketcore.torch needs PyTorch: pip install 'ketcore[torch]'") from error

from ketcore.torch import functional
from ketcore.torch.codebook_embeddings import EmbeddingBagCodebook, EmbeddingCodebook
from ketcore.torch.embedding_bag import EmbeddingBagKet, EmbeddingBagKetXS
from ketcore.torch.embeddings import EmbeddingKet, EmbeddingKetXS
from ketcore.torch.head import TiedHead, TopK, logits, sampled_softmax_loss, top_k
from ketcore.torch.ketify import ketify
from ketcore.torch.ketify_report import KetifyReport, Replaced, Skipped
from ketcore.torch.linear import KroneckerLinear
from ketcore.torch.lokr import LoKrLinear, LoKrWeights, lokr_conv2d, lokr_linear
from ketcore.torch.lokr_files import load_lokr, read_lokr
from ketcore.torch.peft_patch import PeftPatch, patch_peft
from ketcore.torch.pretrained import from_pretrained
from ketcore.torch.quantized_training import fake_quantize
from ketcore.torch.sharded_table import ShardedEmbeddingKet
from ketcore.torch.word2ket import from_word2ket

__all__ = [
    "EmbeddingBagCodebook",
    "EmbeddingBagKet",
    "EmbeddingBagKetXS",
    "EmbeddingCodebook",
    "EmbeddingKet",
    "EmbeddingKetXS",
    "KetifyReport",
    "KroneckerLinear",
    "LoKrLinear",
    "LoKrWeights",
    "PeftPatch",
    "Replaced",
    "ShardedEmbeddingKet",
    "Skipped",
    "TiedHead",
    "TopK",
    "fake_quantize",
    "from_pretrained",
    "from_word2ket",
    "functional",
    "ketify",
    "load_lokr",
    "logits",
    "lokr_conv2d",
    "lokr_linear",
    "patch_peft",
    "read_lokr",
    "sampled_softmax_loss",
    "top_k",
]


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
