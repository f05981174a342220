"""The other code one writes in torch: large plain matrix products, with a transposed copy for each mode."""

from bench.algebra.peers import PRODUCTS, torch_contestant


def build(case):
    if case.workload.kind not in PRODUCTS:
        return None
    return torch_contestant("torch shuffle", "code", case, _product)


def _product(x, factors):
    total = _one(x, factors[0])
    for term in factors[1:]:
        total = total + _one(x, term)
    return total


def _one(x, factors):
    batch = len(x)
    for factor in factors:
        # The mode in front is multiplied and goes to the back.
        x = x.reshape(batch, len(factor), -1).transpose(1, 2) @ factor
    return x.reshape(batch, -1)
