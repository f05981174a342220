"""ketcore in PyTorch: its operations with torch's derivatives, and modules made of them.

functional  the operations of `ketcore.ops`, differentiable in every way that torch has
memory      tensors as arrays of the engines' libraries, in the same memory
operators   the operations as operators of torch, for compilers
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("ketcore.torch needs PyTorch: pip install 'ketcore[torch]'") from error
