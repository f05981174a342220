"""The layers that `ketify` puts in the place of modules that share one weight.

The layer of the first module owns the factors; the others hold the very same containers, so that they stay
shared wherever the model is moved, copied or loaded.
"""

from collections.abc import Iterator
from math import isfinite
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ketcore.torch.code_table import CodeTable
from ketcore.torch.codebook_embeddings import EmbeddingBagCodebook, EmbeddingCodebook
from ketcore.torch.embedding_bag import EmbeddingBagKet, EmbeddingBagKetXS
from ketcore.torch.embeddings import EmbeddingKet, EmbeddingKetXS
from ketcore.torch.head import TiedHead
from ketcore.torch.linear import KroneckerLinear
from ketcore.torch.module_groups import Group
from ketcore.torch.pretrained import drawn_layer, near_layer
from ketcore.torch.ratios import Method, greatest_ratio, table_sizes

Kind: TypeAlias = Literal["xs", "ket"]

# What stands in the place of which table.
TABLES: dict[str, dict[type[nn.Module], Any]] = {
    "xs": {nn.Embedding: EmbeddingKetXS, nn.EmbeddingBag: EmbeddingBagKetXS},
    "ket": {nn.Embedding: EmbeddingKet, nn.EmbeddingBag: EmbeddingBagKet},
}
# What tables of torch are told, under the names that those of ketcore have too.
_OF_ALL = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
_OF_BAGS = ("mode", "include_last_offset")


class LayerOptions(NamedTuple):
    """What `ketify` was told about the layers to make: their kind, and what they are told themselves."""

    kind: Kind
    table: dict[str, Any]
    linear: dict[str, Any]
    factorise: bool
    ratio: float | None
    method: Method


class Made(NamedTuple):
    """The layers of a group, one for each member, and where the weight was factorised its relative error.

    `norm` is that of the weight.
    """

    layers: list[nn.Module]
    error: float | None
    norm: float


def empty_layer(group: Group, options: LayerOptions) -> nn.Module:
    """The layer that is to own the factors, without a bias, on the meta device: to be counted."""
    return _drawn(group.members[0].module, options, 1.0, torch.device("meta"))


def table_class(options: LayerOptions, kind: type[nn.Module]) -> type[nn.Module]:
    """The layer in the place of a table, with "auto" the first one that is tried."""
    if options.method == "codebooks":
        return EmbeddingCodebook if kind is nn.Embedding else EmbeddingBagCodebook
    return TABLES[options.kind][kind]


def ratio_obstacle(weight: Tensor, options: LayerOptions) -> str:
    """Why no layer of the method takes so small a part of the bytes of a table; empty where one does."""
    assert options.ratio is not None
    if options.method == "codebooks" and weight.is_complex():
        return "it is complex, and there are no codes of such"
    methods = ["kronecker"] if weight.is_complex() else ["kronecker", "codebooks"]
    methods = methods if options.method == "auto" else [options.method]
    greatest = max(greatest_ratio(table_sizes(weight), method) for method in methods)
    return f"its bytes can be divided by {greatest:.3g} at most" if options.ratio > greatest else ""


def new_layers(group: Group, options: LayerOptions) -> Made:
    """The layers of a group."""
    module = group.members[0].module
    weight = module.get_parameter("weight")
    # What was never written may hold anything.
    norm = None if weight.is_meta or not isfinite(_norm(weight)) else _norm(weight)
    if options.factorise and (norm or (options.ratio and group.has_table)):
        first, error = _factorised(module, options)
    else:
        # A drawn weight has entries of the size of those that it replaces; one of zeros stays so.
        std = norm / weight.numel() ** 0.5 if norm else 1.0
        first = _drawn(module, options, std, weight.device)
        error = 0.0 if options.factorise else None
        if norm == 0:
            _zero_first_mode(first)
    first.requires_grad_(weight.requires_grad)
    layers = [first, *_others(group, first, options)]
    for member, layer in zip(group.members, layers, strict=True):
        if isinstance(member.module, nn.Linear):
            layer.bias = member.module.bias
        layer.train(member.module.training)
    return Made(layers, error, norm or 0.0)


def _drawn(module: nn.Module, options: LayerOptions, std: float, device: torch.device) -> Any:
    """A layer with fresh parameters, whose weight has entries of standard deviation `std`."""
    weight = module.get_parameter("weight")
    place: dict[str, Any] = {"device": device, "dtype": weight.dtype}
    if not isinstance(module, nn.Linear):
        told = {**_told(module), "std": std, **place}
        if options.ratio:
            is_bag = isinstance(module, nn.EmbeddingBag)
            return drawn_layer(table_sizes(weight), options.ratio, options.method, told, is_bag)
        kind = TABLES[options.kind][type(module)]
        return kind(module.num_embeddings, module.embedding_dim, **told, **options.table)
    layer = KroneckerLinear(module.in_features, module.out_features, bias=False, **options.linear, **place)
    if device.type != "meta":
        scale = std * weight.numel() ** 0.5 / _norm(layer.to_dense())
        with torch.no_grad():
            for factor in layer.factors:
                factor.mul_(scale ** (1 / layer.order))
    return layer


def _factorised(module: nn.Module, options: LayerOptions) -> tuple[Any, float | None]:
    """A layer with the weight that is nearest to that of the module, and the relative error."""
    weight = module.get_parameter("weight").detach()
    if isinstance(module, nn.Linear):
        linear = KroneckerLinear.from_linear(module, **options.linear)
        return linear, _norm(weight - linear.to_dense()) / _norm(weight)
    # The same model gives the same factors.
    told = {"freeze": False, **_told(module), **({"rng": 0} if options.kind == "xs" else {})}
    if options.ratio:
        is_bag = isinstance(module, nn.EmbeddingBag)
        table = near_layer(weight, options.ratio, options.method, told, is_bag)
    else:
        table = TABLES[options.kind][type(module)].from_pretrained(weight, **told, **options.table)
    return table, table.relative_error


def _others(group: Group, first: Any, options: LayerOptions) -> Iterator[Any]:
    """The layers of all members but the first, with the parameters of `first`."""
    # What was fitted by whichever method was nearer is of one of them.
    options = options._replace(method="codebooks" if hasattr(first, "codebooks") else "kronecker")
    for member in group.members[1:]:
        if isinstance(member.module, nn.Linear) and group.has_table:
            yield TiedHead(first)
            continue
        layer = _drawn(member.module, options, 1.0, torch.device("meta"))
        for name, child in first.named_children():
            setattr(layer, name, child)
        for name, parameter in first.named_parameters(recurse=False):
            setattr(layer, name, parameter)
        for name, buffer in first.named_buffers(recurse=False):
            setattr(layer, name, buffer)
        yield layer


def _told(module: nn.Module) -> dict[str, Any]:
    """The arguments that a new layer takes over."""
    names = (*_OF_ALL, *_OF_BAGS) if isinstance(module, nn.EmbeddingBag) else _OF_ALL
    return {name: getattr(module, name) for name in names}


def _zero_first_mode(layer: Any) -> None:
    """Make all entries zero by the leaves of one mode, which the others can train."""
    with torch.no_grad():
        if hasattr(layer, "leaves"):
            layer.leaves[..., : layer.dims[0]] = 0
        else:
            (layer.codebooks if isinstance(layer, CodeTable) else layer.factors)[0].zero_()


def _norm(weight: Tensor) -> float:
    """The Frobenius norm, which overflows in no dtype of the weight."""
    wide = torch.complex128 if weight.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(weight.detach(), dtype=wide))
