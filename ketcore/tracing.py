"""Whether torch.compile or torch.export traces a call, and what such a call cannot go through.

Nothing that is traced has values.  Code asks here before it looks at one; whether an array has values at all
is asked of `ketcore.arrays.autodiff`.  PyTorch is looked up and not imported: who compiles with it has it.
"""

import sys
from collections.abc import Callable
from functools import lru_cache, wraps
from numbers import Integral
from operator import index
from typing import Any, TypeVar, cast

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def is_compiling() -> bool:
    """Whether torch.compile or torch.export traces this call."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def is_symbol(size: Any) -> bool:
    """Whether a size has no value, in a graph that is made for all of them (`jax.export`, `make_fx`)."""
    return type(size) is not int and not isinstance(size, Integral)


def unless_compiling(function: FunctionT, wrapped: Callable[..., Any]) -> FunctionT:
    """`wrapped`, a form of `function` that PyTorch cannot trace; while it compiles the function itself."""

    # `is_compiling`, without a call of its own: this stands around everything.
    @wraps(function)
    def chosen(*args: Any, **options: Any) -> Any:
        torch = sys.modules.get("torch")
        compiling = torch is not None and torch.compiler.is_compiling()
        return (function if compiling else wrapped)(*args, **options)

    return cast(FunctionT, chosen)


def kept(most: int) -> Callable[[FunctionT], FunctionT]:
    """Decorates a function of integers whose last results, at most so many, are kept between calls."""

    def decorate(function: FunctionT) -> FunctionT:
        cached = lru_cache(most)(function)

        # As `unless_compiling`, without a call of its own.
        @wraps(function)
        def chosen(*args: Any, **options: Any) -> Any:
            torch = sys.modules.get("torch")
            # Sizes that PyTorch traces are symbols, of which no cache should keep any.
            if torch is not None and torch.compiler.is_compiling():
                return function(*args, **options)
            try:
                return cached(*args, **options)
            except TypeError:
                # Those of a graph that make_fx makes have no hash.  All other errors come once more.
                return function(*args, **options)

        # For tests, which ask for what is computed anew.
        chosen.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
        return cast(FunctionT, chosen)

    return decorate


def decided(most: int) -> Callable[[FunctionT], FunctionT]:
    """As `kept`, for what takes long to trace: while PyTorch compiles it is called, with sizes as they are.

    These, which may be symbols, become constants of what is compiled.
    """

    def decorate(function: FunctionT) -> FunctionT:
        cached = lru_cache(most)(function)

        def constant(*args: Any) -> Any:
            return cached(*args)

        # All that torch.compiler.assume_constant_result does, which would import PyTorch.
        constant._dynamo_marked_constant = True  # type: ignore[attr-defined]

        @wraps(function)
        def chosen(*args: Any) -> Any:
            return constant(*_fixed(args)) if is_compiling() else cached(*args)

        chosen.cache_clear = cached.cache_clear  # type: ignore[attr-defined]
        return cast(FunctionT, chosen)

    return decorate


def _fixed(value: Any) -> Any:
    """Sizes in nested tuples as plain integers."""
    if isinstance(value, tuple):
        return tuple([_fixed(each) for each in value])
    # PyTorch makes a constant of a symbol where an index is asked for; of int(symbol) it makes a symbol.
    return index(value) if isinstance(value, int) else value
