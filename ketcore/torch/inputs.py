"""What a module asks of what it is given: dims that fit, tensors of its dtype on its device."""

from collections.abc import Sequence
from math import prod

import torch

from ketcore.divisors import suggest_dims
from ketcore.shapes import check_dims, check_int


def order_of(order: int, **dims: Sequence[int] | None) -> int:
    """The number of dims where some are given, and `order` where none are.

    >>> order_of(2, row_dims=None, col_dims=(4, 4, 4))
    3
    """
    for name, given in dims.items():
        if given is not None:
            return len(check_dims(name, given))
    return check_int("order", order, 1)


def mode_dims(name: str, dims: Sequence[int] | None, size: int, order: int) -> tuple[int, ...]:
    """`dims` whose product reaches `size`, `order` of them; those of `suggest_dims` where there are none.

    >>> mode_dims("dims", None, 12, 2), mode_dims("dims", (2, 7), 12, 2)
    ((3, 4), (2, 7))
    """
    if dims is None:
        return suggest_dims(size, order)
    found = check_dims(name, dims)
    if len(found) != order:
        raise ValueError(f"{name} must be {order} ints, got {found}")
    if prod(found) < size:
        raise ValueError(f"{name} must have a product of at least {size}, got {found}")
    return found


def table_dtype(dtype: torch.dtype | None, name: str = "dtype") -> torch.dtype:
    """`dtype`, or torch's default; TypeError that names it unless it is floating or complex."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"{name} must be floating or complex, got {dtype}")
    if dtype.itemsize < 2:
        # Types of 8 bits have no arithmetic.
        raise TypeError(f"{name} must have at least 16 bits, got {dtype}")
    return dtype


def check_agree(name: str, tensor: object, other_name: str, other: torch.Tensor) -> None:
    """A TypeError that names both unless `tensor` is one on the device and of the dtype of `other`.

    Under autocast of that device dtypes may differ, as they may in PyTorch's own layers.

    >>> check_agree("x", torch.ones(2), "factors", torch.ones(3))
    """
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if tensor.device != other.device:
        raise TypeError(
            f"{name} and {other_name} must lie on one device, got {tensor.device}, {other.device}"
        )
    if tensor.dtype != other.dtype and not (tensor.is_floating_point() and autocasts(tensor)):
        raise TypeError(f"{name} and {other_name} must have one dtype, got {tensor.dtype}, {other.dtype}")


def autocasts(tensor: torch.Tensor) -> bool:
    """Whether autocast is on for the device of `tensor`."""
    kind = tensor.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
