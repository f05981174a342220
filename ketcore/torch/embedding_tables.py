"""What the embedding layers share: how their parameters start, what their options do to rows.

    nn.Embedding's option      a table of kets (Ket)              a Kronecker matrix (XS)
    padding_idx                the record stays, no gradient      the row is zero, no gradient
    max_norm                   the record is scaled in place      the output is scaled
    scale_grad_by_freq         the gradient of a row is divided by the number of its ids in the call
    sparse                     sparse gradient of the records     refused

Letters: N order, R rank, p_n and q_n rows and columns of factor n.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ketcore.arrays.checks import check_permutation
from ketcore.shapes import check_int, check_size
from ketcore.torch.inputs import table_dtype

# The name of the one parameter of a layer of the word2ket package.
WORD2KET_LEAVES = "weight_leafs"


def table_size(num_embeddings: int, embedding_dim: int) -> tuple[int, int]:
    """The two sizes of a table, checked."""
    return check_int("num_embeddings", num_embeddings, 1), check_int("embedding_dim", embedding_dim, 1)


def padding_row(padding_idx: int | None, num_embeddings: int) -> int | None:
    """`padding_idx` counted from the start; negative ones count from the end, as those of nn.Embedding."""
    if padding_idx is None:
        return None
    row = check_int("padding_idx", padding_idx, -(2**63))
    if not -num_embeddings <= row < num_embeddings:
        raise IndexError(f"padding_idx must lie in [{-num_embeddings}, {num_embeddings}), got {row}")
    return row % num_embeddings


def norm_options(max_norm: float | None, norm_type: float) -> tuple[float | None, float]:
    """`max_norm` and the p of the norm, which may be infinite, checked."""
    if isinstance(norm_type, bool) or not isinstance(norm_type, Real) or norm_type != norm_type:
        raise TypeError(f"norm_type must be a real number, got {norm_type!r}")
    return None if max_norm is None else check_size("max_norm", max_norm), float(norm_type)


def leaf_std(std: float, order: int, rank: int) -> float:
    """The standard deviation of leaves whose sum of `rank` products of `order` has that of `std`.

    >>> leaf_std(1.0, 2, 16)
    0.5
    """
    return (std / rank**0.5) ** (1 / order)


def check_ids(name: str, ids: Any, parameter: Tensor) -> Tensor:
    """A tensor of int32 or int64 ids, beside a parameter of the layer; TypeError that names it otherwise."""
    if not isinstance(ids, Tensor):
        raise TypeError(f"{name} must be a tensor of integers, got {type(ids).__name__}")
    if ids.is_nested:
        raise TypeError(f"{name} must be no nested tensor, got one")
    if ids.device != parameter.device:
        got = f"{ids.device} and {parameter.device}"
        raise TypeError(f"{name} must lie on the device of the parameters, got {got}")
    if ids.dtype in (torch.int64, torch.int32):
        return ids
    if ids.dtype.is_floating_point or ids.dtype.is_complex or ids.dtype == torch.bool:
        raise TypeError(f"{name} must have an integer dtype, got {ids.dtype}")
    return ids.long()


@contextmanager
def own_precision(like: Tensor) -> Iterator[None]:
    """The dtype of the parameters also under autocast, which casts products and no lookups."""
    kind = like.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        yield
        return
    with torch.autocast(kind, enabled=False):
        yield


def moved(ids: Tensor, permutation: Tensor | None) -> Tensor:
    """The rows of the table in which words `ids` lie; what is out of range stays so, to be refused."""
    if permutation is None:
        return ids
    last = permutation.shape[0] - 1
    inside = (ids >= 0) & (ids <= last)
    return torch.where(inside, permutation[ids.clamp(0, last)].to(ids.dtype), ids)


def norm_scale(rows: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """The factors (..., 1) that bring longer rows to `max_norm`, and leave others alone."""
    half = rows.dtype in (torch.float16, torch.bfloat16)
    wide = rows.float() if half else rows
    norm = torch.linalg.vector_norm(wide, norm_type, dim=-1, keepdim=True)
    # The small number is that of nn.Embedding.
    scale = torch.where(norm > max_norm, max_norm / (norm + 1e-7), 1.0)
    return scale.to(rows.dtype) if half else scale


class _FrequencyScaled(torch.autograd.Function):
    """Rows as they are, whose gradient is divided by how often the id of a row stands in the call."""

    generate_vmap_rule = True

    @staticmethod
    def forward(rows: Tensor, count: Tensor) -> Tensor:
        return rows.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        (count,) = ctx.saved_tensors
        return cotangents[0] / count[..., None].to(cotangents[0].dtype), None


def frequency_scaled(rows: Tensor, ids: Tensor) -> Tensor:
    """`rows` (..., columns) with the gradient of each divided by the number of its ids."""
    flat = ids.reshape(-1)
    # Sorting has a shape that is known beforehand, which torch.unique has not.
    ordered = flat.sort().values
    count = torch.searchsorted(ordered, flat, right=True) - torch.searchsorted(ordered, flat)
    return _FrequencyScaled.apply(rows, count.reshape(ids.shape))


def as_permutation(permutation: Any, num_embeddings: int, device: Any) -> Tensor:
    """A permutation of the numbers below `num_embeddings`, int32 where they fit."""
    if isinstance(permutation, Tensor) and permutation.is_meta:
        # Its values are loaded later.
        if permutation.shape != (num_embeddings,):
            got = tuple(permutation.shape)
            raise ValueError(f"permutation must have shape ({num_embeddings},), got {got}")
        found = permutation
    else:
        found = torch.from_numpy(check_permutation("permutation", permutation, num_embeddings))
    # Not of two bytes, which `in_few_bytes` is: of these torch.distributed broadcasts no buffer.
    dtype = torch.int32 if num_embeddings <= 2**31 else torch.int64
    # A copy: a buffer that a caller could write to would not stay a permutation.
    return found.to(device=device, dtype=dtype, copy=True)


def in_few_bytes(permutation: Tensor) -> Tensor:
    """The same numbers in one byte or two where these hold them: what is saved.

    >>> in_few_bytes(torch.arange(256)).dtype, in_few_bytes(torch.arange(50000)).dtype
    (torch.uint8, torch.uint16)
    """
    for size, dtype in ((2**8, torch.uint8), (2**16, torch.uint16)):
        if permutation.shape[0] <= size:
            return permutation.to(dtype)
    return permutation


def stored_bytes(module: nn.Module) -> int:
    """The bytes of the parameters and buffers of a layer, of a permutation those of a state dict.

    >>> stored_bytes(nn.Embedding(10, 4))
    160
    """
    buffers = dict(module.named_buffers())
    if isinstance(order := buffers.get("permutation"), Tensor):
        buffers["permutation"] = in_few_bytes(order)
    return sum(each.numel() * each.element_size() for each in (*module.parameters(), *buffers.values()))


def refuse_weight(module: nn.Module) -> NoReturn:
    """AttributeError in place of a dense table that nobody asked for."""
    kind = type(module).__name__
    raise AttributeError(f"{kind} must be made dense by to_dense(max_bytes=), got a use of its weight")


def described(module: Any, *names: str) -> str:
    """Sizes, then `name=value`: of `names`, and of the options that are not as nn.Embedding has them."""
    usual = {"padding_idx": None, "max_norm": None, "norm_type": 2.0, "scale_grad_by_freq": False}
    usual |= {"sparse": False, "layernorm": False, "mode": None, "include_last_offset": False}
    options = [name for name, value in usual.items() if getattr(module, name, value) != value]
    facts = [f"{name}={getattr(module, name)!r}" for name in (*names, *options)]
    return ", ".join([str(module.num_embeddings), str(module.embedding_dim), *facts])


def given_parameter(value: Any, shape: Sequence[int], name: str, device: Any, dtype: Any) -> Tensor:
    """A tensor given for a parameter, in the shape that it must have."""
    tensor = torch.as_tensor(value, device=device, dtype=dtype).detach()
    if tuple(tensor.shape) != tuple(shape):
        raise ValueError(f"{name} must have shape {tuple(shape)}, got {tuple(tensor.shape)}")
    table_dtype(tensor.dtype, name)
    # What saves models asks for it.
    return tensor.contiguous()


def take_word2ket(state_dict: dict[str, Any], prefix: str, errors: list[str]) -> Tensor | None:
    """The leaves (order, rank, words, q) of a word2ket layer, out of a state dict.

    Where there is something else under their name, the list of errors gets a line.
    """
    name = f"{prefix}{WORD2KET_LEAVES}"
    leafs = state_dict.pop(name, None)
    if leafs is None or (isinstance(leafs, Tensor) and leafs.ndim == 4):
        return leafs
    got = tuple(leafs.shape) if isinstance(leafs, Tensor) else type(leafs).__name__
    errors.append(f"{name} must be a tensor (order, rank, words, q), got {got}")
    return None


def packed_word2ket(leafs: Tensor) -> Tensor:
    """The leaves (order, rank, words, q) of the word2ket package as records (words, rank, order q)."""
    order, rank, words, width = leafs.shape
    return leafs.permute(2, 1, 0, 3).reshape(words, rank, order * width)
