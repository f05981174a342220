"""Bags of rows: sums, means and maxima, as `torch.nn.EmbeddingBag` has them.

Letters: B bags, L ids of all bags.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ketcore.torch.embedding_tables import check_ids

_MODES = ("sum", "mean", "max")


def checked_mode(mode: str) -> str:
    """The mode of a bag."""
    if mode not in _MODES:
        raise ValueError(f"mode must be one of {_MODES}, got {mode!r}")
    return mode


def reduced(
    layer: Any,
    input: Tensor,
    offsets: Tensor | None,
    weights: Tensor | None,
    rows: Callable[[Tensor], Tensor],
    finish: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """What layers of bags compute of the `rows` of ids, and make of the reduced ones.

    Rows of half precision are reduced in float32, in which `finish` gets them.
    """
    ids = check_ids("input", input, next(layer.parameters()))
    bag, inside, bags = _bags(ids, offsets, layer.include_last_offset)
    _check_weights(weights, ids, layer)
    ids = ids.reshape(-1)
    picked = rows(ids)
    if layer.padding_idx is not None:
        inside = inside & (ids != layer.padding_idx)
    half = picked.dtype in (torch.float16, torch.bfloat16)
    # Long sums of half precision lose digits, those of nn.EmbeddingBag do not.
    wide = picked.float() if half else picked
    if weights is not None:
        wide = wide * weights.reshape(-1, 1)
    found = _maxima(wide, bag, inside, bags) if layer.mode == "max" else _sums(wide, bag, inside, bags)
    if layer.mode == "mean":
        count = inside.new_zeros(bags, dtype=wide.dtype).index_add(0, bag, inside.to(wide.dtype))
        found = found / count.real.clamp(min=1)[:, None]
    found = found if finish is None else finish(found)
    return found.to(picked.dtype)


def _sums(rows, bag, inside, bags):
    kept = rows.masked_fill(~inside[:, None], 0)
    return rows.new_zeros(bags, rows.shape[1]).index_add(0, bag, kept)


def _maxima(rows, bag, inside, bags):
    """The greatest entries of each bag, 0 where it is empty."""
    if rows.is_complex():
        raise TypeError(f"mode must be sum or mean for complex rows, got max and {rows.dtype}")
    least = float("-inf")
    kept = rows.masked_fill(~inside[:, None], least)
    start = rows.new_full((bags, rows.shape[1]), least)
    found = start.scatter_reduce(0, bag[:, None].expand_as(kept), kept, "amax")
    filled = inside.new_zeros(bags, dtype=torch.int64).index_add(0, bag, inside.long()) > 0
    return found.masked_fill(~filled[:, None], 0)


def _bags(ids, offsets, include_last):
    """Of each id its bag, and whether it is in one; the number of bags."""
    if ids.ndim == 2:
        if offsets is not None:
            raise ValueError("offsets must be None for two-dimensional input, got a tensor")
        bags, length = ids.shape
        number = torch.arange(bags, device=ids.device)[:, None].expand(bags, length).reshape(-1)
        return number, torch.ones_like(number, dtype=torch.bool), bags
    if ids.ndim != 1:
        raise ValueError(f"input must have one or two dimensions, got shape {tuple(ids.shape)}")
    offsets = check_ids("offsets", offsets, ids).long()
    if offsets.ndim != 1 or offsets.shape[0] < (1 if include_last or ids.shape[0] else 0):
        raise ValueError(f"offsets must be a vector with a number for each bag, got {tuple(offsets.shape)}")
    bags = offsets.shape[0] - bool(include_last)
    _check_offsets(offsets, ids.shape[0])
    place = torch.arange(ids.shape[0], device=ids.device)
    number = torch.searchsorted(offsets.contiguous(), place, right=True) - 1
    inside = (number >= 0) & (number < bags)
    return number.clamp(0, max(bags - 1, 0)), inside, bags


def _check_offsets(offsets, length):
    """Offsets on the host begin with 0, ascend and end within the input; no value of others is looked at."""
    if offsets.device.type != "cpu" or torch.compiler.is_compiling() or not offsets.shape[0]:
        return
    steps = torch.cat([offsets, offsets.new_tensor([length])]).diff()
    if int(offsets[0]) or bool((steps < 0).any()):
        raise ValueError(f"offsets must ascend from 0 to at most {length}, got {offsets.tolist()}")


def _check_weights(weights, ids, layer):
    if weights is None:
        return
    if layer.mode != "sum":
        raise ValueError(f"per_sample_weights must be None unless mode is sum, got mode {layer.mode}")
    if not isinstance(weights, Tensor):
        raise TypeError(f"per_sample_weights must be a tensor, got {type(weights).__name__}")
    if weights.shape != ids.shape:
        raise ValueError(f"per_sample_weights must have shape {tuple(ids.shape)}, got {tuple(weights.shape)}")
    dtype = next(layer.parameters()).dtype
    if weights.dtype != dtype:
        raise TypeError(f"per_sample_weights must have dtype {dtype}, got {weights.dtype}")
