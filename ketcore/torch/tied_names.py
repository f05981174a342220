"""The names of tied parameters that models of the transformers library keep, and `ketify` brings up to date.

Such a model says {"lm_head.weight": "transformer.wte.weight"} in `_tied_weights_keys`, and expanded in
`all_tied_weights_keys`; its `tie_weights` and `save_pretrained` read them. After the replacement both have
{"lm_head.factors.0": "transformer.wte.factors.0", ...}.
"""

from collections.abc import Iterable, Mapping

from torch import nn

# A module, its name in the model, and what its `_tied_weights_keys` says before the replacement.
_Found = tuple[nn.Module, str, Mapping[str, str]]


def tied_names(model: nn.Module) -> list[_Found]:
    """What the modules of a model say about tied parameters, patterns expanded, before any is replaced."""
    found: list[_Found] = []
    for name, module in model.named_modules():
        expand = getattr(module, "get_expanded_tied_weights_keys", None)
        if callable(expand) and isinstance(getattr(module, "_tied_weights_keys", None), Mapping):
            expanded = expand()
            if isinstance(expanded, Mapping):
                found.append((module, name, expanded))
    return found


def rename_tied(model: nn.Module, found: Iterable[_Found], replaced: Iterable[str]) -> None:
    """Say the same of the parameters of the layers that stand now where `replaced` modules stood."""
    weights = {f"{name}.weight" for name in replaced}
    for module, prefix, before in found:
        start = f"{prefix}." if prefix else ""
        renamed = _renamed(module, start, before, weights)
        if renamed != before:
            # On the instance: its class is that of other models, which are not replaced.
            vars(module)["_tied_weights_keys"] = renamed
        expanded = vars(module).get("all_tied_weights_keys")
        if isinstance(expanded, Mapping):
            vars(module)["all_tied_weights_keys"] = _renamed(module, start, expanded, weights)


def _renamed(module, start, before, weights):
    """`before` with names of the parameters that are shared now for those of replaced weights."""
    after: dict[str, str] = {}
    for target, source in before.items():
        if start + target not in weights:
            after[target] = source
            continue
        if start + source not in weights:
            # They were said to be tied, and were not.
            continue
        shared = {id(value): name for name, value in _tensors(module, source)}
        after |= {name: shared[id(value)] for name, value in _tensors(module, target) if id(value) in shared}
    return after


def _tensors(module, weight):
    """The parameters and buffers of the layer that had `weight`, by their names in `module`."""
    name = weight.removesuffix(".weight")
    layer = module.get_submodule(name)
    yield from layer.named_parameters(prefix=name, remove_duplicate=False)
    yield from layer.named_buffers(prefix=name, remove_duplicate=False)
