"""The operations of `ketcore.ops.OPS` as operators of torch: `torch.ops.ketcore.NAME` and `NAME_vjp`.

Every entry of the table becomes two operators with typed arguments, each one node for torch.compile and
torch.export:

    ketcore::rows(Tensor[] factors, Tensor ids, Tensor? row_scale=None, *, int[]? shape=None, ...) -> Tensor
    ketcore::rows_vjp(Tensor[] factors, Tensor ids, Tensor d_output, Tensor? row_scale=None, ...) -> Tensor[]

Tensors go to the engines as arrays in the same memory (`ketcore.torch.memory`), or through array code.  What
a compiler must know of a result that is not computed yet is in the table too, `Op.shapes`.

The derivative of `NAME` is registered with torch as `NAME_vjp`.  `ketcore.torch.functional` has the functions
for users, with derivatives of every kind.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from inspect import Parameter, signature
from operator import index
from typing import Any

import numpy as np
import torch

from ketcore.ops import Op
from ketcore.torch.memory import Bridge, bridge

# The type of `identities`, which the schema has as int[].
_MODES = "modes"

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
    # Modes of all terms, or collections of them: see `_flat_modes`.
    Sequence[Any]: _MODES,
}

# Tensors one after the other.
Tensors = tuple[torch.Tensor, ...]

_LIBRARY = torch.library.Library("ketcore", "DEF")


class TorchOperator:
    """An entry of the table, and the operators that torch has of it.

    Tensors of a call come as one tuple: the constants, then the arrays of the primals; `counts` says how many
    each primal has.

    Attributes
    ----------
    op
        The entry.
    forward
        The operator of primals, constants and options.
    vjp
        That of primals, constants, cotangents and options; it returns the flat gradients.
    """

    def __init__(self, op: Op) -> None:
        parameters = signature(op.forward).parameters
        self.op = op
        self.constants = len(op.constants)
        self._placed = sum(not primal.keyword for primal in op.primals)
        self._kinds = {name: _TYPES[parameters[name].annotation] for name in op.options}
        self._defaults = [parameters[name].default for name in op.options]
        declared = [_declared(primal.several, primal.optional, primal.name) for primal in op.primals]
        # torch has no gradients of what is given by keyword, so that these primals come last instead.
        placed, named = op.by_place(declared)
        arrays = [*placed, *(f"Tensor {name}" for name in op.constants)]
        last = [f"{tensor}=None" for tensor in named.values()]
        cotangents = [_declared(output.several, False, f"d_{output.name}") for output in op.outputs]
        returned = ", ".join("Tensor[]" if output.several else "Tensor" for output in op.outputs)
        returned = f"({returned})" if len(op.outputs) > 1 else returned
        self.forward = self._define(op.name, arrays + last, returned, self._forward, self._fake)
        names = arrays + cotangents + last
        self.vjp = self._define(f"{op.name}_vjp", names, "Tensor[]", self._vjp, self._fake_vjp)
        register = torch.library.register_autograd
        register(f"ketcore::{op.name}", self._backward, setup_context=self._setup, lib=_LIBRARY)
        register(f"ketcore::{op.name}_vjp", _no_second_derivative, lib=_LIBRARY)

    def run(
        self, tensors: Tensors, counts: Sequence[int], options: dict[str, Any], found: Bridge | None = None
    ) -> Tensors:
        """The flat outputs, by an engine where one can see the tensors, else by array code.

        `found` is the way to the engine, from whoever asked for it before.
        """
        found = found or bridge(self.op, tensors)
        if found is None:
            return self.traced(tensors, counts, options)
        with found.current(tensors[0]):
            arrays = tuple(map(found.to_array, tensors))
            return tuple(map(found.to_tensor, self.traced(arrays, counts, options)))

    def run_vjp(
        self, tensors: Tensors, counts: Sequence[int], cotangents: Tensors, options: dict[str, Any]
    ) -> Tensors:
        """The flat gradients, not conjugated, of the cotangents of the flat outputs; as `run`."""
        found = bridge(self.op, (*tensors, *cotangents))
        if found is None:
            return self.traced_vjp(tensors, counts, cotangents, options)
        with found.current(tensors[0]):
            arrays, pulled = (tuple(map(found.to_array, given)) for given in (tensors, cotangents))
            return tuple(map(found.to_tensor, self.traced_vjp(arrays, counts, pulled, options)))

    def traced(self, tensors: Tensors, counts: Sequence[int], options: dict[str, Any]) -> Tensors:
        """The flat outputs by the operation itself: on tensors, array code that torch can follow."""
        primals, constants = self.parted(tensors, counts)
        return self.op.flat_outputs(self.op.call(self.op.forward, primals, constants, **options))

    def traced_vjp(
        self, tensors: Tensors, counts: Sequence[int], cotangents: Tensors, options: dict[str, Any]
    ) -> Tensors:
        """The flat gradients, not conjugated, by the operation itself."""
        primals, constants = self.parted(tensors, counts)
        more = *constants, self.op.cotangent(cotangents)
        return self.op.flat_gradients(self.op.call(self.op.vjp, primals, more, **options), counts)

    def parted(
        self, tensors: Sequence[Any], counts: Sequence[int]
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The primals and the constants."""
        return self.op.unflatten(tensors[self.constants :], counts), tuple(tensors[: self.constants])

    def arguments(
        self, tensors: Sequence[Any], counts: Sequence[int], cotangents: Sequence[Any] = ()
    ) -> tuple[Any, ...]:
        """Primals, constants and cotangents, as torch's operators take them."""
        primals, constants = self.parted(tensors, counts)
        placed, named = self.op.by_place(primals)
        return *placed, *constants, *cotangents, *named.values()

    def encoded(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options as torch's operators take them."""
        return {name: _encoded(value, self._kinds[name]) for name, value in options.items()}

    def cotangents(self, tensors: Tensors) -> tuple[Any, ...]:
        """Cotangents as `vjp` takes them, of one tensor for each flat output."""
        # The outputs of an operation are one sequence, or arrays.
        return (tensors,) if self.op.outputs[0].several else tensors

    def _define(self, name, arrays, returned, kernel, fake) -> Callable[..., Any]:
        """Declare an operator of torch, with its kernel and the one for tensors without values."""
        options = [*map(_declared_option, self._kinds, self._kinds.values(), self._defaults)]
        words = (*arrays, *(["*", *options] if options else []))
        schema = f"{name}({', '.join(words)}) -> {returned}"
        _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))

        def called(function):
            # torch leaves off options that have their defaults.
            def of(*given, **options):
                return function(given, {n: _decoded(value, self._kinds[n]) for n, value in options.items()})

            return of

        _LIBRARY.impl(name, called(kernel), "CompositeExplicitAutograd")
        torch.library.register_fake(f"ketcore::{name}", called(fake), lib=_LIBRARY)
        return getattr(torch.ops.ketcore, name).default

    def _forward(self, given, options):
        return self._returned(self.run(*self._tensors(given), options))

    def _vjp(self, given, options):
        start = self._placed + self.constants
        stop = start + len(self.op.outputs)
        cotangents = given[start] if self.op.outputs[0].several else given[start:stop]
        return list(self.run_vjp(*self._tensors(given, stop), tuple(cotangents), options))

    def _fake(self, given, options):
        """New tensors of the shapes and dtypes of the outputs, in C order as kernels return them."""
        tensors, counts = self._tensors(given)
        (primals, constants), arrays = self.parted(tensors, counts), tensors[self.constants :]
        shapes = self.op.call(self.op.shapes, primals, constants, **options)
        if self.op.outputs[0].several:
            dtypes = [array.dtype for array in arrays]
        else:
            promoted = _promoted(arrays)
            dtypes = [promoted.to_real() if output.real else promoted for output in self.op.outputs]
        pairs = zip(shapes, dtypes, strict=True)
        return self._returned([arrays[0].new_empty(shape, dtype=dtype) for shape, dtype in pairs])

    def _fake_vjp(self, given, options):
        tensors, _ = self._tensors(given, self._placed + self.constants + len(self.op.outputs))
        return [array.new_empty(array.shape) for array in tensors[self.constants :]]

    def _returned(self, outputs):
        if self.op.outputs[0].several:
            return list(outputs)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]

    def _tensors(self, given, stop=None):
        """Primals and constants of an operator's arguments, of which the last begin at `stop`, and counts."""
        split = self._placed + self.constants
        last = iter(given[split if stop is None else stop :])
        placed = iter(given[: self._placed])
        # torch leaves off what is None.
        primals = [next(last, None) if each.keyword else next(placed) for each in self.op.primals]
        arrays, counts = self.op.flatten(primals)
        return (*given[self._placed : split], *arrays), counts

    def _setup(self, ctx, inputs, output, keyword_only_inputs=None):
        tensors, ctx.counts = self._tensors(inputs)
        ctx.save_for_backward(*tensors)
        ctx.options, ctx.kinds = keyword_only_inputs or {}, [*map(type, inputs)]

    def _backward(self, ctx, *cotangents):
        cotangents = [_each(torch.conj, cotangent) for cotangent in cotangents]
        arguments = self.arguments(ctx.saved_tensors, ctx.counts, cotangents)
        gradients = tuple(map(torch.conj, self.vjp(*arguments, **ctx.options)))
        found = self.arguments((*[None] * self.constants, *gradients), ctx.counts)
        found = *found, *[None] * (len(ctx.kinds) - len(found))
        # torch takes a list of gradients for a list, and a tuple for a tuple.
        pairs = zip(found, ctx.kinds, strict=True)
        found = [kind(one) if isinstance(one, tuple) else one for one, kind in pairs]
        # A compiled graph leaves off a last None, of which torch then wants no gradient.
        return tuple(found[: len(ctx.needs_input_grad)])


def _no_second_derivative(ctx, *cotangents):
    raise NotImplementedError(
        "second derivatives must be taken of functions of ketcore.torch, got those of an operator's gradient"
    )


def _declared(several, optional, name):
    return f"Tensor{'[]' if several else ''}{'?' if optional else ''} {name}"


def _declared_option(name, kind, default):
    kind = "int[]" if kind == _MODES else kind
    if default is Parameter.empty:
        return f"{kind} {name}"
    text = "[]" if default == () else f'"{default}"' if isinstance(default, str) else default
    return f"{kind} {name}={text}"


def _encoded(value, kind):
    """The value of an option as its schema has it."""
    if value is None:
        return None
    if kind == _MODES:
        return _flat_modes(value)
    if kind.startswith("int[]"):
        return [index(each) for each in value]
    return index(value) if kind.startswith("int") else value


def _decoded(value, kind):
    if kind == _MODES:
        return _modes(value)
    return tuple(value) if kind.startswith("int[]") and value is not None else value


def _flat_modes(modes):
    """Modes as they are; collections of modes, one for each term, as the modes of each followed by -1."""
    if all(isinstance(one, int | np.integer) for one in modes):
        return [index(mode) for mode in modes]
    return [index(mode) for term in modes for mode in (*sorted(term), -1)]


def _modes(flat):
    """Identities as they were before a -1 was put after those of each term."""
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


def _promoted(arrays):
    """The dtype of the result: as ketcore has it, one without dimensions widens no other of its kind."""
    shaped = [array.dtype for array in arrays if array.ndim]
    dtype = reduce(torch.promote_types, shaped)
    alone = [array for array in arrays if not array.ndim]
    if any(array.is_complex() for array in alone):
        return dtype.to_complex()
    return dtype
