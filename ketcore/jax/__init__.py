"""ketcore in JAX: objects as pytrees, so that `jit`, `grad`, `vmap` and `scan` take and return them.

    pytrees       how JAX takes objects apart, and makes them anew
    own_vjp       operations with ketcore's own vjp

Importing it is all: functions of ketcore take arrays of JAX without it, and JAX differentiates them.
"""

try:
    import jax as _jax  # noqa: F401
except ImportError as error:
    raise ImportError("ketcore.jax needs JAX: pip install 'ketcore[jax]'") from error

from ketcore.jax import pytrees as _pytrees
from ketcore.jax.own_vjp import custom_vjp as custom_vjp

_pytrees.register()

__all__ = ["custom_vjp"]


def __dir__() -> list[str]:
    return __all__
