"""`fake_quantize`: training of parameters that are stored in 8, 4 or 2 bits afterwards.

    x' = dequantize(quantize(x)),    dx := dx'

What a layer computes with is x'; what is trained is x, to which the gradient of x' goes as it is (the
straight-through estimator of Bengio, Leonard and Courville, 2013).
"""

from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import ketcore as kc
from ketcore.arrays.quantized import check_bits
from ketcore.shapes import check_int
from ketcore.torch.ket_table import KetTable
from ketcore.torch.shared_table import SharedTable

_ModuleT = TypeVar("_ModuleT", bound=nn.Module)


def fake_quantize(module: _ModuleT, bits: int = 8, block: int = 32) -> _ModuleT:
    """Let embeddings of ketcore compute with the numbers that `ketcore.quantize` stores, and go on learning.

    Parameters
    ----------
    module : Module
        An embedding of ketcore, of rows or of bags, or a model with some, which is changed: factors, leaves,
        codebooks and decoders get a parametrization of torch.  Scales of rows stay as they are.
    bits : {8, 4, 2}, default 8
        What a number is to take.
    block : int, default 32
        The neighbouring numbers that share a scale, as of `ketcore.quantize`.

    Returns
    -------
    Module
        `module` itself.

    Raises
    ------
    TypeError, ValueError
        On kinds, on bits and block, where there is no such layer or all have a parametrization already, on
        complex parameters, and on values that are not finite, here or at a call.

    See Also
    --------
    ketcore.quantize : Of what the layer gives, by `matrix`, `to_table` or `ket`, it stores the same numbers.

    Notes
    -----
    Cost: two passes on the host over each such parameter, whenever it is read; with
    `torch.nn.utils.parametrize.cached` once.  The gradient is that of the rounded parameters.  Parameters of
    16 bits are rounded to their dtype once more, and are not what is stored.

    In a state dict the names end in ``original``, behind the name of the parametrization.  It is undone, with
    the rounded numbers kept or not, by `torch.nn.utils.parametrize.remove_parametrizations`.

    Examples
    --------
    >>> from ketcore.torch import EmbeddingKetXS
    >>> layer = fake_quantize(EmbeddingKetXS(60, 12), bits=4)
    >>> with torch.no_grad():
    ...     small = kc.quantize(layer.matrix(), bits=4)
    >>> torch.allclose(small.rows([7, 9]), layer(torch.tensor([7, 9])), atol=1e-5)
    True
    """
    rounding = _Rounding(check_bits(bits), check_int("block", block, 1))
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a Module, got {type(module).__name__}")
    places = list(_parameters(module))
    if not places:
        rule = "be or have embeddings of ketcore without a parametrization"
        raise ValueError(f"module must {rule}, got {type(module).__name__}")
    for owner, name in places:
        parametrize.register_parametrization(owner, name, rounding)
    return module


def _parameters(module) -> Iterator[tuple[nn.Module, str]]:
    """Where factors, leaves, codebooks and decoders are that have no parametrization."""
    for layer in module.modules():
        if isinstance(layer, SharedTable | KetTable):
            for owner in (layer, *(each for each in layer.children() if isinstance(each, nn.ParameterList))):
                for name, value in owner.named_parameters(recurse=False):
                    if value.ndim > 1:
                        yield owner, name


class _Rounding(nn.Module):
    """The parametrization, one for all parameters."""

    def __init__(self, bits, block):
        super().__init__()
        self.bits, self.block = bits, block

    def forward(self, x: Tensor) -> Tensor:
        rounded: Any = _rounded
        return rounded(x, self.bits, self.block)

    def extra_repr(self) -> str:
        return f"bits={self.bits}, block={self.block}"


@torch.library.custom_op("ketcore::fake_quantize", mutates_args=())
def _rounded(x: Tensor, bits: int, block: int) -> Tensor:
    """Along all axes, but for the terms of leaves and codebooks and the words of kets, as objects have it."""
    lines = x.detach().flatten(1) if x.ndim > 2 else x.detach().flatten()
    return kc.quantize(lines, bits, block).dequantize().to(x.dtype).reshape(x.shape)


@_rounded.register_fake
def _(x, bits, block):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


_rounded.register_autograd(lambda ctx, gradient: (gradient, None, None))
