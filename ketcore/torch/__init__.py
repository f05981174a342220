"""ketcore in PyTorch: its operations with torch's derivatives, and modules made of them.

autograd    the operations of `ketcore.ops`, differentiable in every way that torch has
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("ketcore.torch needs PyTorch: pip install 'ketcore[torch]'") from error
