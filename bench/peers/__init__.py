"""The contestants of the benchmark: ketcore, the peers, the yardstick.

Each module here has `build(case) -> Contestant`, or None where it has nothing for that case; it raises
ImportError where its library is missing.  To add a peer: one such module, and its name in MODULES.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib import import_module

import numpy as np

MODULES = (
    "ketcore_peer",
    "numpy_peer",
    "floor_peer",
    "warm_floor_peer",
    "word2ket_peer",
    "tensorly_peer",
    "linear_operator_peer",
    "torch_peer",
    "jax_peer",
    "embedding_peer",
)

# "numpy": ketcore on its engine for NumPy alone.  "before": another ketcore.  Floors only move bytes.
FLOORS = ("floor", "warm floor")
KINDS = ("ours", "numpy", "before", "package", "code", "yardstick", "extra", *FLOORS)
# Who has the derivative alone: that of others needs what their forward keeps, and is a part of "backward".
ALONE = ("ketcore", "numpy", "floor", "warm_floor")


@dataclass(frozen=True)
class Contestant:
    """Who, and how to call it.

    call     no arguments -> anything; this is what is timed
    collect  the result of `call` -> (rows (batch, dim), list of gradients), NumPy arrays in the common form:
             rows: the N factors (R, t, q);  kets: the packed leaves (vocab, R, N q), or unique ids and values
    around   no arguments -> a context in which it is called, entered outside the clock
    """

    name: str
    kind: str
    call: Callable
    collect: Callable
    around: Callable[[], AbstractContextManager] = nullcontext


def builders(extra: tuple[str, ...] = (), before: str = "") -> dict[str, Callable]:
    """Name of each contestant's module -> its `build`, with the modules at the paths `extra` at the end.

    before  a folder with another ketcore, which takes part if it is given
    """
    found = {name.removesuffix("_peer"): import_module(f"bench.peers.{name}").build for name in MODULES}
    found |= {name: _not_alone(build) for name, build in found.items() if name not in ALONE}
    return found | others("bench.peers", extra, before)


def others(package: str, extra: tuple[str, ...], before: str) -> dict[str, Callable]:
    """The contestants that the command line names, in a family whose modules are in `package`."""
    from bench.peers import before_peer, extra_peer

    ours = import_module(f"{package}.ketcore_peer").build
    found = {"before": before_peer.builder(ours, before)} if before else {}
    return found | {path: _not_alone(extra_peer.builder(path)) for path in extra}


def _not_alone(build):
    return lambda case: None if case.task == "vjp" else build(case)


def torch_contestant(name: str, kind: str, case, forward: Callable, parameters: list, to_common: Callable):
    """A contestant from a torch expression: `forward()` -> rows, `to_common(gradients)` -> common form."""
    import torch

    if case.task == "step":
        from bench.peers.steps import step_contestant

        return step_contestant(name, kind, case, forward, parameters, to_common)

    cotangent = torch.from_numpy(case.cotangent)

    def value():
        with torch.no_grad():
            return forward(), ()

    def value_and_gradients():
        rows = forward()
        return rows, torch.autograd.grad(rows, parameters, cotangent)

    def collect(result):
        rows, gradients = result
        common = to_common(gradients) if gradients else []
        return rows.detach().numpy(), [np.asarray(array) for array in common]

    return Contestant(name, kind, value if case.task == "forward" else value_and_gradients, collect)
