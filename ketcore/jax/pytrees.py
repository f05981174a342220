"""Objects as pytrees of JAX: arrays are their leaves, all else is metadata, which is hashable.

An object is made anew without a check: its leaves may be tracers, or whatever a function of trees returns.
Factors that are marked as identities are leaves like others, which products do not look at: their gradient
is zero.
"""

from typing import Any

import jax

import ketcore as kc

# What holds arrays, or objects and tuples of them, by class.
LEAVES: dict[type, tuple[str, ...]] = {
    kc.Ket: ("stored",),
    kc.KroneckerMatrix: ("stored",),
    kc.KroneckerSum: ("stored",),
    kc.KroneckerProduct: ("parts",),
    kc.Diagonal: ("values",),
    kc.Identity: (),
    kc.Permutation: (),
    kc.CodebookTable: ("stored", "codes", "stored_row_scale", "stored_decoder"),
    kc.PackedCodes: ("packed",),
    kc.QuantizedArray: ("values", "scales"),
}


def register() -> None:
    """Tell JAX of all classes."""
    for kind in LEAVES:
        _register(kind, LEAVES[kind])


def _register(kind: type, names: tuple[str, ...]) -> None:
    def metadata(obj: Any) -> tuple[tuple[str, Any], ...]:
        return tuple([(name, value) for name, value in vars(obj).items() if name not in names])

    def flatten(obj: Any) -> tuple[Any, Any]:
        return [getattr(obj, name) for name in names], metadata(obj)

    def flatten_with_keys(obj: Any) -> tuple[Any, Any]:
        return [(jax.tree_util.GetAttrKey(name), getattr(obj, name)) for name in names], metadata(obj)

    def unflatten(known: Any, leaves: Any) -> Any:
        obj: Any = object.__new__(kind)
        # The constructor would look at shapes and dtypes.
        vars(obj).update(known)
        vars(obj).update(zip(names, leaves, strict=True))
        return obj

    jax.tree_util.register_pytree_with_keys(kind, flatten_with_keys, unflatten, flatten)
