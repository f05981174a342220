"""The code one writes in torch, with care: mode-wise matmul on views, no transposed copies."""

from bench.algebra.peers import PRODUCTS, torch_contestant
from bench.peers import Contestant


def build(case):
    kind = case.workload.kind
    if kind == "gram":
        return _gram(case)
    if kind == "solve":
        return torch_contestant("torch code", "code", case, _solution, columns_first=True)
    return torch_contestant("torch code", "code", case, _product) if kind in PRODUCTS else None


def _product(x, factors):
    total = _one(x, factors[0])
    for term in factors[1:]:
        total = total + _one(x, term)
    return total


def _one(x, factors):
    batch, inner = x.shape
    outer = batch
    for factor in factors[:-1]:
        p, q = factor.shape
        inner //= p
        x = factor.T @ x.reshape(outer, p, inner)
        outer *= q
    return (x.reshape(outer, inner) @ factors[-1]).reshape(batch, -1)


def _solution(x, factors):
    import torch

    (rows, batch), rest = x.shape, x
    for factor in factors[0]:
        # The mode in front is solved for and goes to the back; the columns stay last.
        n = len(factor)
        solved = torch.cholesky_solve(rest.reshape(n, -1), torch.linalg.cholesky(factor))
        rest = solved.reshape(n, rows // n, batch).transpose(0, 1)
    return rest.reshape(rows, batch)


def _gram(case):
    import torch

    pairs = [tuple(map(torch.from_numpy, pair)) for pair in zip(case.factors, case.x, strict=True)]

    def call():
        total = None
        for v, w in pairs:
            gram = v.flatten(0, 1) @ w.flatten(0, 1).T
            total = gram if total is None else total.mul_(gram)
        split = total.view(*v.shape[:2], *w.shape[:2])
        return split.sum((1, 3)) if split.shape[1] > 1 else total

    return Contestant("torch code", "code", call, lambda value: (value.numpy(), []))
