"""FastKron (pyfastkron): gemkm, NumPy forward, torch with autograd backward; sums term by term into one y."""

from bench.algebra.peers import PRODUCTS, numpy_contestant, padded, terms, torch_contestant


def build(case):
    if case.workload.kind not in PRODUCTS:
        return None
    if case.task == "backward":
        from pyfastkron import fastkrontorch

        def forward(x, factors):
            total = fastkrontorch.gemkm(x, factors[0])
            for term in factors[1:]:
                total = total + fastkrontorch.gemkm(x, term)
            return total

        return torch_contestant("pyfastkron", "package", case, forward)
    from pyfastkron import fastkronnumpy

    factors = terms(case)

    def call():
        x = padded(case)
        total = fastkronnumpy.gemkm(x, factors[0])
        for term in factors[1:]:
            total = fastkronnumpy.gemkm(x, term, 1.0, 1.0, total)
        return total

    return numpy_contestant("pyfastkron", case, call)
