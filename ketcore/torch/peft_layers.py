"""The LoKr layers of PEFT with products that are never formed; needs PEFT, so `patch_peft` alone loads it.

They are PEFT's own in everything else: adapters by name, which of them are active, merging, dropout, saving.
"""

from typing import Any

import torch
from peft.tuners.lokr.layer import Conv2d, Linear, LoKrLayer
from torch import Tensor

from ketcore.torch.inputs import check_agree
from ketcore.torch.lokr import TENSORS, LoKrWeights, lokr_conv2d, lokr_linear


def _weights(layer: LoKrLayer, adapter: str) -> LoKrWeights:
    tensors = (getattr(layer, name) for name in TENSORS)
    found = (each.get(adapter) for each in tensors)
    return LoKrWeights(layer.scaling[adapter], *found)


def _input(layer: LoKrLayer, x: Tensor, weights: LoKrWeights) -> Tensor:
    first = next(tensor for tensor in weights[1:] if tensor is not None)
    x = layer._cast_input_dtype(x, first.dtype)
    check_agree("x", x, "the adapter", first)
    return x


def _dropped(layer: LoKrLayer, adapter: str, delta: Tensor, axis: int) -> Tensor:
    """PEFT drops rows of the weight, with these random numbers: they are channels of the output."""
    rate = layer.rank_dropout[adapter]
    if not (layer.training and rate):
        return delta
    kept = (torch.rand(delta.shape[axis]) > rate).float().to(delta.device)
    if layer.rank_dropout_scale[adapter]:
        kept = kept / kept.mean()
    return delta * kept.to(delta.dtype).reshape(-1, *[1] * (-1 - axis))


class KroneckerLoKr(Linear):
    """PEFT's LoKr on an nn.Linear, without the product."""

    def _get_delta_activations(self, adapter_name, input, *args, **kwargs):
        weights = _weights(self, adapter_name)
        delta = lokr_linear(_input(self, input, weights), weights)
        return _dropped(self, adapter_name, delta, -1)


class KroneckerConv2d(Conv2d):
    """PEFT's LoKr on an nn.Conv2d of one group, without the product."""

    def _get_delta_activations(self, adapter_name, input, *args, **kwargs):
        weights = _weights(self, adapter_name)
        base: Any = self.get_base_layer()
        options = (base.kernel_size, base.stride, base.padding, base.dilation)
        delta = lokr_conv2d(_input(self, input, weights), weights, *options)
        return _dropped(self, adapter_name, delta, -3)


# The layers of PEFT, and what stands in their place.
PATCHED: dict[type[LoKrLayer], type[LoKrLayer]] = {Linear: KroneckerLoKr, Conv2d: KroneckerConv2d}
