"""LoKr adapters of a model of PEFT, run without their products."""

from types import TracebackType
from typing import Self

from torch import nn


class PeftPatch:
    """What `patch_peft` changed: `remove()` undoes it, and so does leaving a `with` block.

    Parameters
    ----------
    changed : sequence of (nn.Module, type)
        Each layer that was changed, and its own class.
    """

    def __init__(self, changed: dict[nn.Module, type[nn.Module]]) -> None:
        self._changed = changed

    def __len__(self) -> int:
        return len(self._changed)

    def remove(self) -> None:
        """Give the layers their own way back; a second time does nothing."""
        for module, own in self._changed.items():
            module.__class__ = own
        self._changed = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def patch_peft(model: nn.Module) -> PeftPatch:
    """Run the LoKr adapters of a model of PEFT without forming their products, in place.

    Parameters
    ----------
    model : nn.Module
        With LoKr layers of PEFT on `nn.Linear` and on `nn.Conv2d` of one group.

    Returns
    -------
    PeftPatch
        Its length is the number of layers that were changed; `remove()` undoes it.

    Raises
    ------
    ValueError
        Where the model holds no LoKr layer.
    TypeError
        Where it holds one of another kind (`nn.Conv1d`, grouped convolutions); nothing is changed then.
    ImportError
        Where PEFT is missing.

    Notes
    -----
    The layers change their class to one derived from their own, and stay PEFT's in all else: parameters and
    their names, active, disabled and merged adapters, dropout (by the same random numbers), scaling, saving,
    adding adapters. `get_delta_weight`, and so merging, is PEFT's and forms the product. Layers that were
    changed before are left alone; layers that PEFT makes later are its own until this is called again. Copies
    of the model stay changed when this is undone.

    Outputs and gradients equal PEFT's up to rounding. Dropout is applied to the output where PEFT applies it
    to rows of the weight, which is the same.

    Examples
    --------
    >>> from peft import LoKrConfig, get_peft_model  # doctest: +SKIP
    >>> model = get_peft_model(model, LoKrConfig(target_modules=["q", "v"]))  # doctest: +SKIP
    >>> patch = patch_peft(model)  # doctest: +SKIP
    """
    try:
        from ketcore.torch import peft_layers
    except ImportError as error:
        raise ImportError("patch_peft needs PEFT: pip install peft") from error
    own = set(peft_layers.PATCHED.values())
    found = {n: m for n, m in model.named_modules() if isinstance(m, peft_layers.LoKrLayer)}
    if not found:
        raise ValueError("model must hold LoKr layers of PEFT, got none")
    changed = {}
    for name, module in found.items():
        if type(module) in own:
            continue
        kind, base = peft_layers.PATCHED.get(type(module)), module.get_base_layer()
        groups = getattr(base, "groups", 1)
        if kind is None or groups != 1:
            what = f"{type(base).__name__} of {groups} groups" if groups != 1 else type(base).__name__
            kinds = "nn.Linear and nn.Conv2d of one group"
            raise TypeError(f"model must have LoKr on {kinds}, got {what} at {name!r}")
        changed[module] = kind
    patch = PeftPatch({module: type(module) for module in changed})
    for module, kind in changed.items():
        module.__class__ = kind
    return patch
