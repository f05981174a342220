"""The contestants in the operator algebra: modules as in `bench.peers`.

The common form::

    (value, [gradient of x, gradients of the N factors (R, p, q)]);  forward: (value, [])

`value` is (batch, columns).  Packages that multiply columns, A @ X, get X and A = M.T in their own layout,
contiguous and made beforehand, and `collect` turns their results over outside the clock.
"""

from collections.abc import Callable
from importlib import import_module

import numpy as np

from bench.peers import Contestant, others

MODULES = (
    "ketcore_peer",
    "numpy_peer",
    "fastkron_peer",
    "pykronecker_peer",
    "plain_peer",
    "linear_operator_peer",
    "cola_peer",
    "pylops_peer",
    "opt_einsum_peer",
    "torch_peer",
    "shuffle_peer",
    "dense_peer",
)
PRODUCTS = ("square", "rectangular", "sum", "logits")


def builders(extra: tuple[str, ...] = (), before: str = "") -> dict[str, Callable]:
    """As `bench.peers.builders`."""
    found = {name: import_module(f"bench.algebra.peers.{name}").build for name in MODULES}
    return {name.removesuffix("_peer"): build for name, build in found.items()} | others(
        "bench.algebra.peers", extra, before
    )


def terms(case, transposed: bool = False) -> list[list[np.ndarray]]:
    """R lists of N contiguous matrices (p, q), or (q, p)."""
    turned = [factor.swapaxes(1, 2) if transposed else factor for factor in case.factors]
    return [[np.ascontiguousarray(factor[k]) for factor in turned] for k in range(case.workload.rank)]


def padded(case) -> np.ndarray:
    """An x with zeros for rows that a cropped matrix lacks, as users of packages without crops have it."""
    missing = int(np.prod(case.workload.rows)) - case.workload.sizes[0]
    return np.pad(case.x, [(0, 0), (0, missing)]) if missing else case.x


def numpy_contestant(name: str, case, call: Callable, columns_first: bool = False) -> Contestant:
    """A package that gives a NumPy array (batch, Q), or (Q, batch), forward only."""

    def collect(value):
        value = np.asarray(value)
        return (value.T if columns_first else value)[:, : case.workload.sizes[1]], []

    return Contestant(name, "package", call, collect)


def torch_contestant(name, kind, case, forward, columns_first=False, transposed=False) -> Contestant:
    """A contestant from a torch expression.

    forward        (x, parameters) -> (batch, Q), or (Q, batch) from x (P, batch) with `columns_first`
    transposed     whether the parameters, R lists of N tensors, are (q, p) and not (p, q)
    """
    import torch

    turn = (lambda array: np.ascontiguousarray(array.T)) if columns_first else (lambda array: array)
    x = torch.from_numpy(turn(padded(case))).requires_grad_()
    factors = [[torch.tensor(f, requires_grad=True) for f in term] for term in terms(case, transposed)]
    flat = [factor for term in factors for factor in term]

    def value():
        with torch.no_grad():
            return forward(x, factors), ()

    def value_and_gradients():
        result = forward(x, factors)
        return result, torch.autograd.grad(result, [x, *flat], cotangent)

    def collect(result):
        value, gradients = result[0].detach().numpy(), [g.numpy() for g in result[1]]
        value = (value.T if columns_first else value)[:, : case.workload.sizes[1]]
        if not gradients:
            return value, []
        by_mode = zip(*(gradients[1 + k : 1 + k + order] for k in range(0, len(flat), order)), strict=True)
        stacked = [np.stack(stack) for stack in by_mode]
        stacked = [g.swapaxes(1, 2) for g in stacked] if transposed else stacked
        return value, [gradients[0].T if columns_first else gradients[0], *stacked]

    order = len(case.factors)
    if case.task == "forward":
        return Contestant(name, kind, value, collect)
    cotangent = torch.from_numpy(turn(case.cotangent))
    return Contestant(name, kind, value_and_gradients, collect)
