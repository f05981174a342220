"""What PyTorch and JAX record of an array to differentiate what is computed of it.

The libraries are looked up and not imported: who has an array of theirs has them.
"""

import sys
from collections.abc import Sequence
from importlib import import_module

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray


def detached(array: AnyArray) -> AnyArray:
    """The same values without what PyTorch and JAX record to differentiate them; others as they are."""
    if isinstance(array, np.ndarray):
        return array
    if array_api_compat.is_torch_array(array):
        return array.detach()
    return sys.modules["jax"].lax.stop_gradient(array) if array_api_compat.is_jax_array(array) else array


def is_recorded(arrays: Sequence[AnyArray]) -> bool:
    """Whether what is computed of one of them may be differentiated: PyTorch records it, or JAX traces it."""
    return any(not isinstance(array, np.ndarray) and _is_recorded(array) for array in arrays)


def _is_recorded(array):
    if array_api_compat.is_jax_array(array):
        return isinstance(array, sys.modules["jax"].core.Tracer)
    if not array_api_compat.is_torch_array(array):
        return False
    torch = sys.modules["torch"]
    if array.requires_grad:
        return torch.is_grad_enabled()
    return torch.autograd.forward_ad.unpack_dual(array).tangent is not None


def is_traced(array: AnyArray) -> bool:
    """Whether JAX traces an array that has no values: under jit or vmap, though not under grad alone."""
    return array_api_compat.is_jax_array(array) and isinstance(
        detached(array), sys.modules["jax"].core.Tracer
    )


def matrix_exponential(matrix: AnyArray) -> AnyArray:
    """exp of a square matrix of PyTorch or JAX, by the library itself, which has its derivatives."""
    name = ("jax.scipy.linalg", "expm") if array_api_compat.is_jax_array(matrix) else ("torch", "matrix_exp")
    return getattr(import_module(name[0]), name[1])(matrix)
