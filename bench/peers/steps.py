"""A training step of a layer as a contestant: forward, backward and Adam."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.peers import Contestant

# Small enough that thousands of steps along one gradient leave the numbers what they are; no less work.
LEARNING_RATE = 1e-6


@dataclass(frozen=True)
class Step(Contestant):
    """held: bytes of the parameters and of what the optimizer keeps of them from step to step."""

    held: int = 0


def step_contestant(
    name: str,
    kind: str,
    case,
    forward: Callable,
    parameters: list,
    to_common: Callable,
    inputs: tuple = (),
    sparse: bool = False,
) -> Step:
    """A contestant that trains `parameters`.

    forward     () -> output; compiled beforehand where the case says so
    to_common   gradients of the parameters -> common form
    inputs      tensors whose gradients are computed as well, and come first in the common form
    sparse      gradients are sparse tensors: SparseAdam
    """
    import torch

    if case.compiled:
        # Else a limit of recompilations, which cases share, would make later ones run as they are.
        torch._dynamo.reset()
        forward, name = torch.compile(forward, dynamic=False), f"{name} compiled"
    cotangent = torch.from_numpy(case.cotangent)
    optimizer = (torch.optim.SparseAdam if sparse else torch.optim.Adam)(parameters, lr=LEARNING_RATE)

    def call():
        output = forward()
        output.backward(cotangent)
        optimizer.step()
        gradients = [tensor.grad for tensor in (*inputs, *parameters)]
        for tensor in inputs:
            tensor.grad = None
        optimizer.zero_grad()
        return output, gradients

    if case.compiled:
        # Compilation takes seconds and is not timed, nor may it count as a slow first call.
        forward().backward(cotangent)
        for tensor in (*inputs, *parameters):
            tensor.grad = None
    held = 3 * sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    return Step(name, kind, call, partial(_collected, to_common, len(inputs)), held=held)


def _collected(to_common, given, result):
    output, gradients = result
    gradients = [gradient.to_dense() if gradient.is_sparse else gradient for gradient in gradients]
    common = [*gradients[:given], *to_common(gradients[given:])]
    return output.detach().numpy(), [np.asarray(array) for array in common]
