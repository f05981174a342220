"""LoKr adapters in the files of PEFT and LyCORIS.

    PEFT      base_model.model.<module>.lokr_w1 ...; alpha and r stand in adapter_config.json
    LyCORIS   lycoris_<module with _ for .>.lokr_w1 ..., .alpha; r is that of the pair

The scale is alpha / r, in LyCORIS 1 where neither w1 nor w2 is a pair.
"""

import json
import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ketcore.torch.lokr import TENSORS, LoKrLinear, LoKrWeights, check_weights

_PEFT = "base_model.model."
# What LyCORIS, and those who write its files, put before the name of a module.
_PREFIXES = ("lycoris_", "lora_unet_", "lora_te_", "lora_te1_", "lora_te2_")

Source = str | PathLike[str] | Mapping[str, Tensor]


def read_lokr(source: Source, config: Mapping[str, Any] | None = None) -> dict[str, LoKrWeights]:
    """The LoKr adapters of a file of PEFT or LyCORIS.

    Parameters
    ----------
    source : path, or mapping of str to tensors
        A file of safetensors, a folder in which PEFT saved an adapter, or what such a file holds.
    config : mapping of str to anything, optional
        What PEFT's adapter_config.json holds: r, alpha, rank_pattern and alpha_pattern are read. None: the
        file of the folder. Weights with an alpha of their own need none.

    Returns
    -------
    dict of str to LoKrWeights
        By the names that stand before `.lokr_w1`; those of PEFT without `base_model.model.`.

    Raises
    ------
    ValueError
        For keys of other kinds of adapters, a weight decomposition (`dora_scale`), missing tensors, and where
        nothing tells the scale.
    ImportError
        Where a file is read and the package safetensors is missing.

    Notes
    -----
    The scale is what the writer of the file means: where w1 and w2 are both stored whole, LyCORIS takes it to
    be 1 whatever alpha is, and PEFT alpha / r.

    Examples
    --------
    >>> import torch
    >>> found = read_lokr({
    ...     "lycoris_up.lokr_w1": torch.ones(2, 2), "lycoris_up.lokr_w2_a": torch.ones(6, 4),
    ...     "lycoris_up.lokr_w2_b": torch.ones(4, 8), "lycoris_up.alpha": torch.tensor(2.0),
    ... })
    >>> found["lycoris_up"].scale, found["lycoris_up"].shape
    (0.5, (12, 16))
    """
    tensors, config = _opened(source, config)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, kind = key.removeprefix(_PEFT).rpartition(".")
        if kind == "dora_scale":
            raise ValueError(f"source must have no weight decomposition (DoRA), got {key!r}")
        if kind not in (*TENSORS, "alpha") or not name:
            raise ValueError(f"source must hold keys of LoKr alone, got {key!r}")
        parts.setdefault(name, {})[kind] = tensor
    return {name: _weights(name, part, config) for name, part in parts.items()}


def load_lokr(
    model: nn.Module, source: Source, *, prefix: str | None = None, config: Mapping[str, Any] | None = None
) -> list[str]:
    """Put the LoKr adapters of a file of PEFT or LyCORIS on the linear layers of a model, in place.

    Parameters
    ----------
    model : nn.Module
        Each layer that has an adapter is replaced by a `LoKrLinear` of it, under all of its names.
    source : path, or mapping of str to tensors
        As of `read_lokr`.
    prefix : str, optional
        What stands before the names of modules, such as `lora_unet_`; names without it are left alone, for
        files with adapters of several models. None: that of PEFT, or one that LyCORIS is known to use.
    config : mapping of str to anything, optional
        As of `read_lokr`.

    Returns
    -------
    list of str
        The names of the layers that were replaced.

    Raises
    ------
    ValueError
        Where a name is none of the model's, no name has the prefix, or shapes differ; and as `read_lokr`.
    TypeError
        Where a layer is no `nn.Linear`.

    Notes
    -----
    Nothing is changed where it raises.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 6))
    >>> load_lokr(model, {
    ...     "lycoris_0.lokr_w1": torch.ones(2, 2), "lycoris_0.lokr_w2": torch.ones(3, 2),
    ...     "lycoris_0.alpha": torch.tensor(1.0),
    ... })
    ['0']
    """
    layers: dict[str, LoKrLinear] = {}
    found: dict[nn.Module, LoKrLinear] = {}
    for key, weights in read_lokr(source, config).items():
        if prefix is not None and not key.startswith(prefix):
            continue
        name = _module_name(model, key, prefix)
        base = model.get_submodule(name)
        if not isinstance(base, nn.Linear):
            raise TypeError(f"model must have an nn.Linear at {name!r}, got {type(base).__name__}")
        check_weights(f"source at {key!r}", weights, (base.out_features, base.in_features))
        layers[name] = found[base] = LoKrLinear.from_weights(base, weights)
    if not layers:
        which = "" if prefix is None else f" whose names begin with {prefix!r}"
        raise ValueError(f"source must hold LoKr adapters{which}, got none")
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child in found and parent is not found[child]:
                setattr(parent, name, found[child])
    return list(layers)


def _opened(source, config):
    """The tensors, and the configuration of PEFT where there is one."""
    if isinstance(source, Mapping):
        return source, config
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError("reading adapters needs safetensors: pip install safetensors") from error
    path = Path(source)
    if path.is_dir():
        if config is None:
            config = json.loads((path / "adapter_config.json").read_text(encoding="utf-8"))
        path = path / "adapter_model.safetensors"
    return load_file(path), config


def _weights(name, part, config):
    """The weights of one layer, with alpha and r from beside them or from the configuration."""
    tensors = [part.get(key) for key in TENSORS]
    pairs = (("lokr_w1", *tensors[0:3]), ("lokr_w2", *tensors[3:6]))
    for key, whole, a, b in pairs:
        if (whole is None) != (a is not None and b is not None):
            what = f"{key}, or {key}_a and {key}_b, for {name!r}"
            raise ValueError(f"source must hold {what}, got {sorted(part)}")
    if "alpha" in part:
        # The first axis of a right half, which is r with a core too.
        right = next((b for _, _, _, b in pairs if b is not None), None)
        scale = 1.0 if right is None else part["alpha"].item() / right.shape[0]
    elif config is None:
        what = f"r and alpha where weights have no alpha, as those of {name!r}"
        raise ValueError(f"config must give {what}, got None")
    else:
        scale = _configured(config, "alpha", name) / _configured(config, "r", name)
    return LoKrWeights(scale, *tensors)


def _configured(config, key, name):
    """The r or alpha of a module, as PEFT has it: that of the first pattern that its name ends with."""
    patterns = config.get({"r": "rank_pattern", "alpha": "alpha_pattern"}[key]) or {}
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    if key not in config:
        raise ValueError(f"config must give r and alpha, got {sorted(config)}")
    return config[key]


def _module_name(model, key, prefix):
    """The name of the module of a model that a key means."""
    names = dict(model.named_modules(remove_duplicate=False))
    prefixes = ("", *_PREFIXES) if prefix is None else (prefix,)
    rests = [key[len(each) :] for each in prefixes if key.startswith(each)]
    found = [rest for rest in rests if rest in names]
    found = found or [name for name in names if name.replace(".", "_") in rests]
    if len(found) != 1:
        what = f"one module, got {found}" if found else "a module of the model, got none"
        raise ValueError(f"source must name {what} for {key!r}")
    return found[0]
