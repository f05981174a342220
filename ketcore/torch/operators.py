"""The operations of `ketcore.ops.OPS` as operators of torch: `torch.ops.ketcore.NAME` and `NAME_vjp`.

Every entry of the table becomes two operators with typed arguments, each one node for torch.compile and
torch.export:

    ketcore::rows(Tensor[] factors, Tensor ids, int[]? shape=None, bool? check=None) -> Tensor
    ketcore::rows_vjp(Tensor[] factors, Tensor ids, Tensor cotangent, int[]? shape=None, ...) -> Tensor[]

Tensors in host memory go to the engines as NumPy arrays of the same memory, others through array code.  The
shape and dtype of a result that is not computed yet are found by array code on tensors without values.

The derivative of `NAME` is registered with torch as `NAME_vjp`.  `ketcore.torch.autograd` has the functions
for users, with derivatives of every kind.
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from operator import index
from typing import Any

import numpy as np
import torch

from ketcore.ops import Op

# Without ml_dtypes NumPy has no bfloat16, and array code takes it.
BFLOAT16 = np.dtype(import_module("ml_dtypes").bfloat16) if find_spec("ml_dtypes") else None

# What the type of an option is called in a schema of torch, by its annotation in the operation's signature.
_TYPES: dict[Any, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    bool | None: "bool?",
    int | None: "int?",
    str | None: "str?",
    tuple[int, int] | None: "int[]?",
    Sequence[int]: "int[]",
    # Modes of all terms or collections of them, as `_flat_modes` writes them down.
    Sequence[Any]: "int[]",
}

# Tensors one after the other.
Tensors = tuple[torch.Tensor, ...]

_LIBRARY = torch.library.Library("ketcore", "DEF")


class Operator:
    """An entry of the table, and the operators that torch has of it.

    Tensors of a call come as one tuple: the constants, then the arrays of the primals, of which each primal has
    as many as `counts` says.

    op        the entry
    forward   torch's operator of primals, constants and options
    vjp       torch's operator of primals, constants, cotangents and options; it returns the flat gradients
    """

    def __init__(self, op: Op) -> None:
        parameters = signature(op.forward).parameters
        self.op = op
        self.constants = len(op.constants)
        self._kinds = tuple(parameters[name].annotation for name in op.options)
        self._defaults = tuple(parameters[name].default for name in op.options)
        arrays = [_declared(primal.several, primal.optional, primal.name) for primal in op.primals]
        arrays += [f"Tensor {name}" for name in op.constants]
        cotangents = [_declared(output.several, False, f"d_{output.name}") for output in op.outputs]
        returned = ", ".join("Tensor[]" if output.several else "Tensor" for output in op.outputs)
        returned = f"({returned})" if len(op.outputs) > 1 else returned
        self.forward = self._define(op.name, arrays, returned, self._kernel)
        self.vjp = self._define(f"{op.name}_vjp", arrays + cotangents, "Tensor[]", self._kernel_vjp)
        register = torch.library.register_autograd
        register(f"ketcore::{op.name}", self._backward, setup_context=self._setup, lib=_LIBRARY)
        register(f"ketcore::{op.name}_vjp", _no_second_derivative, lib=_LIBRARY)

    def run(self, tensors: Tensors, counts: Sequence[int], options: dict[str, Any]) -> Tensors:
        """The flat outputs, by the engine where it can see the tensors, else by array code."""
        if not all(map(has_array, tensors)):
            return self.op.flat_outputs(self.op.forward(*self.arguments(tensors, counts), **options))
        arguments = self.arguments(tuple(map(_to_array, tensors)), counts)
        return tuple(map(_to_tensor, self.op.flat_outputs(self.op.forward(*arguments, **options))))

    def run_vjp(
        self, tensors: Tensors, counts: Sequence[int], cotangents: Tensors, options: dict[str, Any]
    ) -> Tensors:
        """The flat gradients, not conjugated, of the cotangents of the flat outputs; as `run`."""
        seen = all(map(has_array, tensors))
        if seen:
            tensors, cotangents = (tuple(map(_to_array, given)) for given in (tensors, cotangents))
        arguments = *self.arguments(tensors, counts), self.op.cotangent(cotangents)
        gradients = self.op.flat_gradients(self.op.vjp(*arguments, **options))
        return tuple(map(_to_tensor, gradients)) if seen else gradients

    def arguments(self, tensors: Sequence[Any], counts: Sequence[int]) -> tuple[Any, ...]:
        """Primals and constants, as the operation and torch's operators take them."""
        return *self.op.unflatten(tensors[self.constants :], counts), *tensors[: self.constants]

    def encoded(self, options: dict[str, Any]) -> tuple[Any, ...]:
        """The values of all options as torch's operators take them."""
        found = map(options.get, self.op.options, self._defaults)
        return tuple(map(_encoded, found, self._kinds))

    def cotangents(self, tensors: Tensors) -> Tensors:
        """Cotangents as `vjp` takes them, of one tensor for each flat output."""
        # The outputs of an operation are one sequence, or arrays.
        return (tensors,) if self.op.outputs[0].several else tensors

    def _define(self, name, arrays, returned, kernel) -> Callable[..., Any]:
        options = map(_declared_option, self.op.options, self._kinds, self._defaults)
        schema = f"{name}({', '.join((*arrays, *options))}) -> {returned}"
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

        def real(*arguments):
            return kernel(arguments[: len(arrays)], self._decoded(arguments[len(arrays) :]))

        def fake(*arguments):
            options = self._decoded(arguments[len(arrays) :])
            if "check" in options:
                options["check"] = False
            return _each(_to_empty, kernel(arguments[: len(arrays)], options))

        _LIBRARY.impl(name, real, "CompositeExplicitAutograd")
        torch.library.register_fake(f"ketcore::{name}", fake, lib=_LIBRARY)
        return getattr(torch.ops.ketcore, name).default

    def _kernel(self, given, options):
        outputs = self.run(*self._tensors(given), options)
        if self.op.outputs[0].several:
            return list(outputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def _kernel_vjp(self, given, options):
        split = len(self.op.primals) + self.constants
        cotangents = given[split] if self.op.outputs[0].several else given[split:]
        return list(self.run_vjp(*self._tensors(given[:split]), tuple(cotangents), options))

    def _tensors(self, given):
        """Primals and constants as tensors and counts."""
        split = len(self.op.primals)
        arrays, counts = self.op.flatten(given[:split])
        return (*given[split:], *arrays), counts

    def _decoded(self, options):
        """The keywords of the operation; options left off at the end, as torch leaves off defaults, have theirs."""
        return dict(zip(self.op.options, map(_decoded, options, self._kinds), strict=False))

    def _setup(self, ctx, inputs, output):
        split = len(self.op.primals) + self.constants
        tensors, ctx.counts = self._tensors(inputs[:split])
        ctx.save_for_backward(*tensors)
        ctx.options = inputs[split:]

    def _backward(self, ctx, *cotangents):
        arguments = self.arguments(ctx.saved_tensors, ctx.counts)
        cotangents = [_each(torch.conj, cotangent) for cotangent in cotangents]
        gradients = tuple(map(torch.conj, self.vjp(*arguments, *cotangents, *ctx.options)))
        found = [list(one) if isinstance(one, tuple) else one for one in self.op.unflatten(gradients, ctx.counts)]
        return (*found, *[None] * (self.constants + len(ctx.options)))


def _no_second_derivative(ctx, *cotangents):
    raise NotImplementedError(
        "second derivatives must be taken of functions of ketcore.torch, got those of an operator's gradient"
    )


def _declared(several, optional, name):
    return f"Tensor{'[]' if several else ''}{'?' if optional else ''} {name}"


def _declared_option(name, kind, default):
    if default is Parameter.empty:
        return f"{_TYPES[kind]} {name}"
    text = "[]" if default == () else f'"{default}"' if isinstance(default, str) else default
    return f"{_TYPES[kind]} {name}={text}"


def _encoded(value, kind):
    """The value of an option as its schema has it."""
    if value is None and _TYPES[kind].endswith("?"):
        return None
    if kind == Sequence[Any]:
        return _flat_modes(value)
    if _TYPES[kind].startswith("int[]"):
        return [*map(index, value)]
    if _TYPES[kind].startswith("int"):
        return index(value)
    expected = {"bool": bool, "str": str, "float": float | int}[_TYPES[kind].rstrip("?")]
    if not isinstance(value, expected):
        raise TypeError
    return value


def _decoded(value, kind):
    if kind == Sequence[Any]:
        return _modes(value)
    return tuple(value) if isinstance(value, list) else value


def _flat_modes(modes):
    """Modes as they are; collections of modes, one for each term, as the modes of each followed by -1."""
    if all(isinstance(one, int | np.integer) for one in modes):
        return [*map(index, modes)]
    return [index(mode) for term in modes for mode in (*sorted(term), -1)]


def _modes(flat):
    if -1 not in flat:
        return tuple(flat)
    found, terms = set(), []
    for mode in flat:
        if mode == -1:
            terms.append(frozenset(found))
            found = set()
        else:
            found.add(mode)
    return tuple(terms)


def _each(function, value):
    """The function of a tensor, or of each in a sequence of them."""
    return type(value)(map(function, value)) if isinstance(value, list | tuple) else function(value)


def has_array(tensor: torch.Tensor) -> bool:
    """Whether NumPy can see the values: they lie in host memory, in a dtype that it has."""
    return tensor.is_cpu and (tensor.dtype is not torch.bfloat16 or BFLOAT16 is not None)


def _to_array(tensor):
    """The values of a tensor in the same memory; a copy where it is the conjugate of what it stores."""
    if tensor.dtype is torch.bfloat16:
        return tensor.detach().view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy(force=True)


def _to_tensor(array):
    # Of any strides and read-only, as views of one entry are.
    array = np.require(array, requirements=("C", "W"))
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _to_empty(tensor):
    """A new tensor of the same shape, its entries in the order in which kernels return them."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device)
