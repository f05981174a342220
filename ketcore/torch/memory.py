"""Tensors as arrays of the library that an engine computes in, and back, in the same memory.

`bridge` says which library that is: NumPy for tensors in host memory, CuPy for lookups of real tensors on a
CUDA device, where CuPy is installed, and none for all others, which array code takes as they are.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch

from ketcore.cuda import library
from ketcore.ops import Op

# Without ml_dtypes neither NumPy nor CuPy has bfloat16.
BFLOAT16 = np.dtype(import_module("ml_dtypes").bfloat16) if find_spec("ml_dtypes") else None

_HAS_KERNELS = library.is_installed()


class Bridge(NamedTuple):
    """How tensors become arrays and arrays tensors.

    Attributes
    ----------
    to_array
        An array in the memory of a tensor; a copy where the tensor is the conjugate of what it stores.
    to_tensor
        A tensor in the memory of an array, C-contiguous; a copy where the array is not.
    current
        A context for work on arrays that lie where this tensor does.
    """

    to_array: Callable[[torch.Tensor], Any]
    to_tensor: Callable[[Any], torch.Tensor]
    current: Callable[[torch.Tensor], AbstractContextManager[Any]]


def bridge(op: Op, tensors: Sequence[torch.Tensor]) -> Bridge | None:
    """The way of these tensors to an engine for `op`; None where there is none."""
    if _are_on_host(tensors):
        known = BFLOAT16 is not None or all(tensor.dtype is not torch.bfloat16 for tensor in tensors)
        return HOST if known else None
    # The operations whose order of summation may be chosen are those with kernels.  Products are torch's own.
    if (
        not _HAS_KERNELS
        or "deterministic" not in op.vjp_options
        or not all(tensor.is_cuda for tensor in tensors)
    ):
        return None
    return DEVICE if all(map(_has_kernel, tensors)) else None


def _are_on_host(tensors):
    # A loop takes half the time of all(), and every call comes here.
    for tensor in tensors:  # noqa: SIM110
        if not tensor.is_cpu:
            return False
    return True


def _has_kernel(tensor):
    return not tensor.is_complex() and (tensor.dtype is not torch.bfloat16 or BFLOAT16 is not None)


def _to_host_array(tensor):
    if tensor.dtype is torch.bfloat16:
        return _numbers(tensor.detach().view(torch.int16)).view(BFLOAT16)
    return _numbers(tensor)


def _numbers(tensor):
    # Memory that Tensor.numpy has shown can no longer be resized, by which FSDP frees what it has gathered.
    # DLPack leaves it so, and takes some microseconds longer.
    # torch.compile loads FSDP too, and has no processes.
    if "torch.distributed.fsdp" in sys.modules and torch.distributed.is_initialized():
        return np.from_dlpack(tensor.detach().resolve_conj().resolve_neg())
    return tensor.numpy(force=True)


def _of_host_array(array):
    if not array.flags.carray:
        # Of any strides and read-only, as views of one entry are.
        array = np.require(array, requirements=("C", "A", "W"))
    if array.itemsize == 2 and array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_device_array(tensor):
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:
        return library.shared(tensor.view(torch.int16)).view(BFLOAT16)
    return library.shared(tensor)


def _of_device_array(array):
    array = library.contiguous(array)
    device = torch.device("cuda", array.device.id)
    if array.dtype == BFLOAT16:
        return torch.as_tensor(array.view(np.int16), device=device).view(torch.bfloat16)
    return torch.as_tensor(array, device=device)


def _in_torch(tensor):
    """CuPy on torch's current stream, with memory of torch."""
    stream = torch.cuda.current_stream(tensor.device).cuda_stream

    def allocate(size, device):
        return torch.cuda.caching_allocator_alloc(size, device, stream) if size else 0

    def release(pointer, device):
        if pointer:
            torch.cuda.caching_allocator_delete(pointer)

    return library.working_for(stream, tensor.device.index, allocate, release)


def _anywhere(tensor):
    return _NOWHERE


_NOWHERE = nullcontext()

HOST = Bridge(_to_host_array, _of_host_array, _anywhere)
DEVICE = Bridge(_to_device_array, _of_device_array, _in_torch)
