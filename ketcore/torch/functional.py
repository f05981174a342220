"""The operations of `ketcore.ops` as functions of torch, differentiable in every way that torch has.

A call takes one of three ways, the first that fits:

array code      tensors that no engine takes, and torch.func within torch.compile; torch differentiates it
an operator     of `ketcore.torch.operators`, while torch.compile or torch.export look, and where nothing is
                differentiated
`_Recorded`     else: the engine computes values and gradients; derivatives of gradients, and those forwards,
                are torch's of the array code

Gradients of complex tensors are conjugated, as torch has them; those of ketcore are plain transposes.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import wraps
from inspect import Parameter, signature
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np  # noqa: F401  (for the examples that operations bring)
import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from ketcore import ops
from ketcore.arrays.autodiff import is_traced
from ketcore.arrays.checks import as_integers
from ketcore.arrays.conversions import as_floating
from ketcore.ops import OPS
from ketcore.torch.memory import Bridge, bridge
from ketcore.torch.operators import Tensors, TorchOperator

__all__ = [
    "codebook_rows",
    "gather_kron",
    "ket_gram",
    "ket_inner",
    "ket_rows",
    "ket_sandwich",
    "kron_inner",
    "kron_log_likelihood",
    "kron_matmul",
    "kron_norm",
    "kron_sandwich",
    "kron_slogdet",
    "kron_solve",
    "kron_trace",
    "row_kets",
    "rows",
]

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

# What torch's autocast lowers, as it does products of matrices.  Lookups keep the dtype of their tables, as
# torch.nn.Embedding does, and so does everything else.
_LOWERED = {"kron_matmul"}

_SEQUENCES = (tuple, list, torch.nn.ParameterList)


class _Call(NamedTuple):
    """What a call is told besides its tensors, which are the constants and then the arrays of the primals.

    Attributes
    ----------
    counts
        How many arrays each primal has.
    options
        Keywords of the operation.
    """

    operator: TorchOperator
    counts: tuple[int, ...]
    options: dict[str, Any]

    def compute(self, tensors: Tensors, found: Bridge | None = None) -> Tensors:
        """The flat outputs, by the engine, to which `found` is the way if it is known."""
        if _is_plain(tensors):
            return self.operator.run(tensors, self.counts, self.options, found)
        return self.node(tensors)

    def node(self, tensors: Tensors) -> Tensors:
        """The flat outputs by torch's operator, which whatever traces or looks on sees as one node."""
        operator = self.operator
        arguments = operator.arguments(tensors, self.counts)
        outputs = operator.forward(*arguments, **operator.encoded(self.options))
        return (outputs,) if isinstance(outputs, torch.Tensor) else tuple(outputs)

    def pull(self, tensors: Tensors, cotangents: Tensors) -> Tensors:
        """The gradients of the arrays, as torch has them, by the engine."""
        operator = self.operator
        cotangents = tuple(one.conj() for one in cotangents)
        if not torch.compiler.is_compiling() and _is_plain((*tensors, *cotangents)):
            found = operator.run_vjp(tensors, self.counts, cotangents, self.options)
        else:
            arguments = operator.arguments(tensors, self.counts, operator.cotangents(cotangents))
            found = operator.vjp(*arguments, **operator.encoded(self.options))
        return tuple(one.conj().resolve_conj() for one in found)

    def traced(self, tensors: Tensors) -> Tensors:
        """`compute` by array code, which torch can differentiate and map."""
        self._check_assumed(tensors)
        return self.operator.traced(tensors, self.counts, self.options)

    def traced_pull(self, tensors: Tensors, cotangents: Tensors) -> Tensors:
        """`pull` by array code."""
        split = self.operator.constants
        pull = torch.func.vjp(lambda *arrays: self.traced((*tensors[:split], *arrays)), *tensors[split:])[1]
        return pull(cotangents)

    def traced_push(self, tensors: Tensors, tangents: Tensors) -> Tensors:
        """The tangents of the flat outputs along those of the arrays, by array code."""
        self._check_assumed(tensors)
        op = self.operator.op
        primals, constants = self.operator.parted(tensors, self.counts)
        tangents = op.unflatten(tuple(tangents), self.counts)
        return op.flat_outputs(op.call(op.jvp, primals, constants, tangents, **self.options))

    def traced_curvature(self, tensors: Tensors, tangents: Tensors) -> tuple[Tensors, Callable[..., Tensors]]:
        """`traced_push`, and the function of cotangents that pulls it back to the arrays.

        What it returns is also the derivative of `pull` along the tangents, since second derivatives commute.
        """
        split = self.operator.constants

        def pushed(*arrays):
            return self.traced_push((*tensors[:split], *arrays), tangents)

        outputs, pull = torch.func.vjp(pushed, *tensors[split:])[:2]
        return outputs, pull

    def _check_assumed(self, tensors):
        """ValueError where array code would have to look at values that it cannot see."""
        op, start = self.operator.op, self.operator.constants
        if "assume_a" not in op.options or self.options.get("assume_a") is not None:
            return
        shifted = any(
            count and primal.optional for primal, count in zip(op.primals, self.counts, strict=True)
        )
        factors = tensors[start : start + self.counts[0]]
        if shifted and any(is_traced(factor) and not factor.is_meta for factor in factors):
            rule = "say what the factors are where there is a shift and their values cannot be looked at"
            raise ValueError(f"assume_a must {rule}, got None")


class _Recorded(torch.autograd.Function):
    """A call that torch's autograd records."""

    @staticmethod
    def forward(ctx, call, *tensors):
        ctx.call = call
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        return call.compute(tensors)

    @staticmethod
    def backward(ctx, *cotangents):
        tensors = ctx.saved_tensors

        def pull(*cotangents):
            if _is_dual_twice():
                return ctx.call.traced_pull(tensors, cotangents)
            if torch.is_grad_enabled():
                return _Pulled.apply(ctx.call, len(tensors), *tensors, *cotangents)
            return ctx.call.pull(tensors, cotangents)

        found = _one_by_one(pull, cotangents)
        return (None, *[None] * ctx.call.operator.constants, *found)

    @staticmethod
    def jvp(ctx, _, *tangents):
        tensors = ctx.saved_tensors
        split = ctx.call.operator.constants
        given = zip(tangents[split:], tensors[split:], strict=True)
        tangents = [torch.zeros_like(tensor) if one is None else one for one, tensor in given]
        with _exact(tensors[-1]):
            return _one_by_one(lambda *tangents: ctx.call.traced_push(tensors, tangents), tangents)


class _Transformed(_Recorded):
    """A call that torch.func transforms, which asks for another form and takes longer."""

    @staticmethod
    def forward(call, *tensors):
        return call.compute(tensors)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.call, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def vmap(info, in_dims, call, *tensors):
        of_arrays = in_dims[1 + call.operator.constants :]
        if call.operator.op.constants == ("ids",) and of_arrays == (None,) * len(of_arrays):
            # Rows are computed one by one, whatever the shape of their ids.
            return _apply(call, (tensors[0].movedim(in_dims[1], 0), *tensors[1:])), 0
        return _mapped(lambda *one: _apply(call, one), info.batch_size, in_dims[1:], tensors)


class _Pulled(torch.autograd.Function):
    """The gradients of the arrays as a function of all tensors and the cotangents."""

    @staticmethod
    def forward(call, split, *tensors):
        return call.pull(tensors[:split], tensors[split:])

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.call, ctx.split, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx, *tangents):
        tensors, cotangents = ctx.saved_tensors[: ctx.split], ctx.saved_tensors[ctx.split :]

        def curved(*tangents):
            pushed, pull = ctx.call.traced_curvature(tensors, tangents)
            return *pull(cotangents), *pushed

        with _exact(tensors[-1]):
            found = _one_by_one(curved, tangents)
        return (None, None, *[None] * ctx.call.operator.constants, *found)

    @staticmethod
    def jvp(ctx, _call, _split, *tangents):
        pairs = zip(tangents, ctx.saved_tensors, strict=True)
        tangents = [torch.zeros_like(one) if tangent is None else tangent for tangent, one in pairs]
        tensors, cotangents = ctx.saved_tensors[: ctx.split], ctx.saved_tensors[ctx.split :]

        def pushed(*tangents):
            along = tangents[ctx.call.operator.constants : ctx.split]
            curved = ctx.call.traced_curvature(tensors, along)[1](cotangents)
            pulled = ctx.call.traced_pull(tensors, tangents[ctx.split :])
            return tuple((one + other).resolve_conj() for one, other in zip(curved, pulled, strict=True))

        with _exact(tensors[-1]):
            return _one_by_one(pushed, tangents)

    @staticmethod
    def vmap(info, in_dims, call, split, *tensors):
        return _mapped(lambda *one: _Pulled.apply(call, split, *one), info.batch_size, in_dims[2:], tensors)


def _one_by_one(function, tensors):
    """Of several tensors at once, as is_grads_batched and vectorize=True give them, the function of each.

    torch maps these by a mechanism that knows no rules of ours, and few of torch's own operations.
    """
    batched = [*map(torch._C._functorch.is_legacy_batchedtensor, tensors)]
    if not any(batched):
        return function(*tensors)
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    pairs = [*zip(tensors, batched, strict=True)]
    stacks = [torch._remove_batch_dim(tensor, level, 1, 0) if one else tensor for tensor, one in pairs]
    count = len(stacks[batched.index(True)])
    dims = [0 if one else None for one in batched]
    found, _ = _mapped(function, count, dims, stacks)
    return tuple(torch._add_batch_dim(each, 0, level) for each in found)


def _mapped(function, count, in_dims, tensors):
    """What torch.vmap asks for: the stacked outputs of `count` calls, and the dimension that counts them."""

    def one(n):
        pairs = zip(tensors, in_dims, strict=True)
        return function(*(tensor if dim is None else tensor.select(dim, n) for tensor, dim in pairs))

    outputs = [one(n) for n in range(count)]
    return tuple(map(torch.stack, zip(*outputs, strict=True))), 0


def _apply(call, tensors):
    """The flat outputs of a call, by whichever of the three ways fits."""
    compiles, found = torch.compiler.is_compiling(), bridge(call.operator.op, tensors)
    if found is None or (compiles and _is_transformed()):
        with _exact(tensors[-1]):
            return call.traced(tensors)
    if compiles:
        return call.node(tensors)
    if _is_transformed():
        if not _is_dual_twice():
            return _Transformed.apply(call, *tensors)
        with _exact(tensors[-1]):
            return call.traced(tensors)
    # Constants are integers, which require no gradient.
    if (torch.is_grad_enabled() and _is_trained(tensors)) or _is_dual():
        return _Recorded.apply(call, *tensors)
    return call.compute(tensors, found)


def _is_trained(tensors):
    # Here and below a loop takes half the time of any() or all(), and every call comes by.
    for tensor in tensors:  # noqa: SIM110
        if tensor.requires_grad:
            return True
    return False


def _is_plain(tensors):
    """Whether tensors hold values and nothing looks on, so that an engine may be called at once."""
    if is_in_torch_dispatch_mode():
        return False
    for tensor in tensors:
        if type(tensor) is not torch.Tensor and type(tensor) is not torch.nn.Parameter:
            return False
    return True


def _is_transformed():
    """Whether torch.func differentiates or maps what runs now."""
    return torch._C._are_functorch_transforms_active()


def _is_dual():
    """Whether tangents may be attached to tensors."""
    return torch.autograd.forward_ad._current_level >= 0


def _is_dual_twice():
    """Whether torch.func.jvp runs within another.

    torch then calls the `jvp` of a Function without the tangents of the outer one, and its result has none.
    """
    levels = _is_dual() and torch._C._functorch.get_interpreter_stack()
    jvp = torch._C._functorch.TransformType.Jvp
    return bool(levels) and sum(level.key() == jvp for level in levels) > 1


def _exact(like):
    """No autocast: within an operation every step has the dtype that the operation says."""
    device = like.device.type
    lowered = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if lowered else nullcontext()


def _lowered(arrays):
    """The arrays in autocast's dtype, where it is on: all but those that are wider than float32."""
    device = arrays[0].device.type
    if not (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return arrays
    dtype = torch.get_autocast_dtype(device)
    narrow = (torch.float32, torch.float16, torch.bfloat16)
    return tuple(array.to(dtype) if array.dtype in narrow else array for array in arrays)


class _Signature:
    """How the arguments of an operation become a call and its tensors."""

    def __init__(self, op):
        parameters = signature(op.forward).parameters
        self.operator = TorchOperator(op)
        self.positional = [n for n, p in parameters.items() if p.kind is Parameter.POSITIONAL_OR_KEYWORD]
        self.needed = [n for n in parameters if parameters[n].default is Parameter.empty]
        self.known = {*(primal.name for primal in op.primals), *op.constants, *op.options}

    def bound(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[_Call, Tensors] | None:
        """The call and its tensors; None where the operation itself must say what is wrong."""
        if len(args) > len(self.positional):
            return None
        given = dict(zip(self.positional, args, strict=False))
        for name in kwargs:
            if name in given or name not in self.known:
                return None
        given.update(kwargs)
        for name in self.needed:
            if name not in given:
                return None
        op = self.operator.op
        arrays, counts = [], []
        for primal in op.primals:
            value = given.pop(primal.name, None)
            if not primal.several:
                value = () if value is None and primal.optional else (value,)
            elif not isinstance(value, _SEQUENCES):
                return None
            counts.append(len(value))
            arrays.extend(value)
        constants = [given.pop(name) for name in op.constants]
        if not arrays or not _are_tensors(arrays):
            arrays = [_beside(arrays, one) for one in arrays]
            if not arrays or not _are_tensors(arrays):
                return None
        if not _are_floating(arrays):
            arrays = [*as_floating(" and ".join(primal.name for primal in op.primals), arrays)]
        if not _are_tensors(constants):
            pairs = zip(op.constants, constants, strict=True)
            constants = [_integers(name, value, arrays[0].device) for name, value in pairs]
        if op.name in _LOWERED:
            arrays = _lowered(arrays)
        return _Call(self.operator, tuple(counts), given), (*constants, *arrays)


def _are_tensors(values):
    for value in values:  # noqa: SIM110
        if not isinstance(value, torch.Tensor):
            return False
    return True


def _are_floating(tensors):
    for tensor in tensors:  # noqa: SIM110
        if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
            return False
    return True


def _integers(name, value, device):
    if isinstance(value, torch.Tensor):
        return value
    return torch.as_tensor(as_integers(name, value), device=device)


def _beside(arrays, value):
    """A number as a tensor like the first of `arrays`; all else as it is."""
    number = isinstance(value, int | float | complex) and not isinstance(value, bool)
    if not number or not isinstance(arrays[0], torch.Tensor):
        return value
    dtype = arrays[0].dtype
    wide = torch.promote_types(dtype, torch.complex64) if isinstance(value, complex) else dtype
    return torch.tensor(value, dtype=wide, device=arrays[0].device)


def _function(forward: FunctionT) -> FunctionT:
    """The function of torch that an operation of the table becomes."""
    (op,) = (op for op in OPS if op.forward is forward)
    of, alone = _Signature(op), len(op.outputs) == 1 and not op.outputs[0].several

    @wraps(forward)
    def function(*args, **kwargs):
        bound = of.bound(args, kwargs)
        if bound is None:
            return forward(*args, **kwargs)
        outputs = _apply(*bound)
        return outputs[0] if alone else tuple(outputs)

    # Where pickle finds it.
    function.__module__ = __name__
    return cast(FunctionT, function)


codebook_rows = _function(ops.codebook_rows)
gather_kron = _function(ops.gather_kron)
ket_gram = _function(ops.ket_gram)
ket_inner = _function(ops.ket_inner)
ket_rows = _function(ops.ket_rows)
ket_sandwich = _function(ops.ket_sandwich)
kron_inner = _function(ops.kron_inner)
kron_log_likelihood = _function(ops.kron_log_likelihood)
kron_matmul = _function(ops.kron_matmul)
kron_norm = _function(ops.kron_norm)
kron_sandwich = _function(ops.kron_sandwich)
kron_slogdet = _function(ops.kron_slogdet)
kron_solve = _function(ops.kron_solve)
kron_trace = _function(ops.kron_trace)
row_kets = _function(ops.row_kets)
rows = _function(ops.rows)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
