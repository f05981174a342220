"""What a module asks of the tensors that it is given: the device and the dtype of its parameters."""

import torch


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
