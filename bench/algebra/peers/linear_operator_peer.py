"""linear_operator: KroneckerProductLinearOperator @ columns; sums as a batch of operators, summed."""

from bench.algebra.peers import PRODUCTS, torch_contestant


def build(case):
    kind = case.workload.kind
    if kind not in (*PRODUCTS, "solve"):
        return None
    import torch
    from linear_operator.operators import KroneckerProductLinearOperator

    def product(x, factors):
        if len(factors) == 1:
            return KroneckerProductLinearOperator(*factors[0]) @ x
        batch = [torch.stack(mode) for mode in zip(*factors, strict=True)]
        return (KroneckerProductLinearOperator(*batch) @ x).sum(0)

    def solution(x, factors):
        # A new operator each time: it keeps the Cholesky factors of the last one.
        return KroneckerProductLinearOperator(*factors[0]).solve(x)

    forward = solution if kind == "solve" else product
    return torch_contestant("linear_operator", "package", case, forward, columns_first=True, transposed=True)
