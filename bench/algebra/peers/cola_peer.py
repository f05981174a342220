"""CoLA (cola-ml): its Kronecker operator on torch @ columns; sums term by term."""

from bench.algebra.peers import PRODUCTS, torch_contestant


def build(case):
    kind = case.workload.kind
    if kind not in (*PRODUCTS, "solve"):
        return None
    import cola

    def product(x, factors):
        total = cola.ops.Kronecker(*map(cola.ops.Dense, factors[0])) @ x
        for term in factors[1:]:
            total = total + cola.ops.Kronecker(*map(cola.ops.Dense, term)) @ x
        return total

    def solution(x, factors):
        definite = [cola.PSD(cola.ops.Dense(factor)) for factor in factors[0]]
        return cola.solve(cola.ops.Kronecker(*definite), x, cola.linalg.Cholesky())

    forward = solution if kind == "solve" else product
    return torch_contestant("CoLA", "package", case, forward, columns_first=True, transposed=True)
