"""What PyTorch and JAX record of an array to differentiate what is computed of it.

The libraries are looked up and not imported: who has an array of theirs has them.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray
from ketcore.tracing import is_compiling


def is_torch(array: Any) -> bool:
    """Whether `array` is a tensor of PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def is_jax(array: Any) -> bool:
    """Whether `array` is one of JAX, or traced by it."""
    return "jax" in sys.modules and not is_torch(array) and array_api_compat.is_jax_array(array)


def detached(array: AnyArray) -> AnyArray:
    """The same values without what PyTorch and JAX record to differentiate them; others as they are."""
    if isinstance(array, np.ndarray):
        return array
    if is_torch(array):
        return array.detach()
    return sys.modules["jax"].lax.stop_gradient(array) if is_jax(array) else array


def is_recorded(arrays: Sequence[AnyArray]) -> bool:
    """Whether what is computed of one of them may be differentiated: PyTorch records it, or it is traced."""
    return any(not isinstance(array, np.ndarray) and _is_recorded(array) for array in arrays)


def _is_recorded(array):
    if is_jax(array):
        return isinstance(array, sys.modules["jax"].core.Tracer)
    if not is_torch(array):
        return False
    torch = sys.modules["torch"]
    if is_traced(array):
        return True
    if array.requires_grad:
        return torch.is_grad_enabled()
    forward_ad, functorch = torch.autograd.forward_ad, torch._C._functorch
    if not functorch.is_functorch_wrapped_tensor(array):
        return forward_ad.unpack_dual(array).tangent is not None
    # A level of torch.func knows what it records itself; of those around it nothing says what has tangents.
    return forward_ad._current_level >= 0 or _is_recorded(functorch.get_unwrapped(array))


def is_traced(array: AnyArray) -> bool:
    """Whether an array has no values that could be looked at, as while functions of it are traced.

    So it is under jit and vmap of JAX, though not under its grad alone; where PyTorch compiles or exports,
    under torch.func.vmap and torch.func.linearize, and for fake tensors and those on the device "meta".
    """
    if is_torch(array):
        return is_compiling() or array.is_meta or _is_graphed() or _is_symbolic(array)
    return is_jax(array) and isinstance(detached(array), sys.modules["jax"].core.Tracer)


def _is_graphed():
    """Whether PyTorch makes a graph of what it computes, as make_fx and torch.func.linearize do."""
    torch = sys.modules["torch"]
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def _is_symbolic(tensor):
    """Whether a tensor outside of a compiler stands for values that it does not hold."""
    torch = sys.modules["torch"]
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        if functorch.is_batchedtensor(tensor):
            return True
        tensor = functorch.get_unwrapped(tensor)
    return isinstance(tensor, torch._subclasses.FakeTensor)


def is_bare(tensors: Sequence[AnyArray]) -> bool:
    """Whether these are tensors of PyTorch that are numbers in host memory and nothing else, as NumPy's are.

    Not so where they are recorded or traced, within a transform of torch.func, or under a mode that watches
    what PyTorch computes, as one that makes a graph of it does.
    """
    if is_compiling() or not all(map(is_torch, tensors)) or is_recorded(tensors):
        return False
    torch = sys.modules["torch"]
    return not torch._C._len_torch_dispatch_stack() and all(
        type(tensor) in (torch.Tensor, torch.nn.Parameter)
        and tensor.device.type == "cpu"
        and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        for tensor in tensors
    )


class LeafView(NamedTuple):
    """What is copied and pickled for a view of a tensor that PyTorch trains, so that it stays a view of it.

    The view itself PyTorch would refuse to copy.
    """

    leaf: AnyArray
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int


def as_leaf_view(array: AnyArray) -> AnyArray:
    """What to copy or pickle for `array`: mostly itself."""
    if isinstance(array, np.ndarray) or not is_torch(array):
        return array
    leaf = array._base
    if leaf is None or not leaf.is_leaf:
        return array
    return LeafView(leaf, tuple(array.shape), array.stride(), array.storage_offset())


def from_leaf_view(found: AnyArray) -> AnyArray:
    """The array of which `as_leaf_view` made `found`."""
    if not isinstance(found, LeafView):
        return found
    return found.leaf.as_strided(found.shape, found.strides, found.offset)


def matrix_exponential(matrix: AnyArray) -> AnyArray:
    """The exponential of a square matrix of PyTorch or JAX, by the library, which has its derivatives."""
    name = ("jax.scipy.linalg", "expm") if is_jax(matrix) else ("torch", "matrix_exp")
    return getattr(import_module(name[0]), name[1])(matrix)


def dense_solve(xp: ModuleType, matrix: AnyArray, right: AnyArray) -> AnyArray:
    """M^-1 B for a square matrix, as `xp.linalg.solve`.

    Of that PyTorch has wrong derivatives of forward derivatives, but not of the parts it is made of.
    """
    if not (is_torch(matrix) and is_recorded([matrix])):
        return xp.linalg.solve(matrix, right)
    linalg = sys.modules["torch"].linalg
    packed, pivots, _ = linalg.lu_factor_ex(matrix)
    return linalg.lu_solve(packed, pivots, right)


def dense_slogdet(xp: ModuleType, matrix: AnyArray) -> tuple[AnyArray, AnyArray]:
    """The sign and log |det M| of a square matrix, as `xp.linalg.slogdet`; see `dense_solve`."""
    if not (is_torch(matrix) and is_recorded([matrix])):
        sign, logabsdet = xp.linalg.slogdet(matrix)
        return sign, logabsdet
    torch = sys.modules["torch"]
    packed, pivots, _ = torch.linalg.lu_factor_ex(matrix)
    diagonal = torch.linalg.diagonal(packed)
    swaps = (pivots != torch.arange(1, len(matrix) + 1, device=matrix.device)).sum()
    sign = torch.sgn(diagonal).prod() * (1 - 2 * (swaps % 2))
    return sign, diagonal.abs().log().sum()
