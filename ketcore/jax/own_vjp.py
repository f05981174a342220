"""Operations whose reverse derivative is ketcore's own vjp, in place of what JAX makes of their code."""

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import Any, TypeVar, cast

import jax
import numpy as np  # noqa: F401  (for the example)

from ketcore.arrays.quantized import decoded
from ketcore.ops import OPS
from ketcore.shapes import shown

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


def custom_vjp(operation: FunctionT) -> FunctionT:
    """An operation of ketcore that JAX differentiates backwards by ketcore's own vjp.

    Parameters
    ----------
    operation : callable
        One of those of `ketcore.OPS`: `ketcore.rows`, `ketcore.ket_inner`, ...

    Returns
    -------
    callable
        The same function, of arrays of JAX, under `jit`, `vmap` and reverse derivatives; without `out`.

    Raises
    ------
    TypeError
        Where `operation` is none of these, and by a call with `out`.

    See Also
    --------
    ketcore.OPS : The table that it is made from.

    Notes
    -----
    Cost: that of the operation; a gradient costs what the vjp does, which computes again what it needs and
    keeps nothing.  Under `jit` most operations take less time so, and rows of many ids from a large table of
    order 2 do not: `docs/benchmarks.md` has the figures.  JAX allows no forward derivatives of such a
    function: `jvp`, `linearize`, `jacfwd` and `hessian` are for the operation itself.  Ids and codes are not
    looked at: of those out of range rows are NaN.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from ketcore import kron_norm
    >>> norm = custom_vjp(kron_norm)
    >>> [gradient.tolist() for gradient in jax.grad(norm)([jnp.array([[[3.0]]]), jnp.array([[[2.0]]])])]
    [[[[2.0]]], [[[3.0]]]]
    """
    op = next((each for each in OPS if each.forward is operation), None)
    if op is None:
        known = ", ".join(each.name for each in OPS)
        raise TypeError(f"operation must be one of ketcore's, {known}, got {shown(operation)}")
    named = signature(operation)

    @wraps(operation)
    def function(*args: Any, **options: Any) -> Any:
        bound = named.bind(*args, **options)
        for name in op.forward_options:
            if bound.arguments.get(name) is not None:
                raise TypeError(f"{name} must be None for a function that JAX differentiates")
        bound.apply_defaults()
        given = bound.arguments
        arrays, counts = op.flatten([given[each.name] for each in op.primals])
        # A vjp gives gradients of what is quantized as of what it decodes to.
        arrays = tuple([decoded(array) for array in arrays])
        constants = [given[name] for name in op.constants]
        return _recorded(op, counts, {name: given[name] for name in op.options})(arrays, constants)

    return cast(FunctionT, function)


def _recorded(op, counts, options):
    """The operation as a function of flat arrays and of constants, with its vjp."""

    def forward(arrays, constants):
        return op.call(op.forward, op.unflatten(arrays, counts), constants, **options)

    def keep(arrays, constants):
        return forward(arrays, constants), (arrays, constants)

    def pull(kept, cotangent):
        arrays, constants = kept
        found = op.call(op.vjp, op.unflatten(arrays, counts), (*constants, cotangent), **options)
        return tuple(op.flat_gradients(found, counts)), None

    function = jax.custom_vjp(forward)
    function.defvjp(keep, pull)
    return function
