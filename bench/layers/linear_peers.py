"""The contestants among linear layers: y = x M + bias, M a sum of Kronecker products."""

from dataclasses import replace

import numpy as np

from bench.peers.steps import step_contestant


def ketcore(case, kind):
    """KroneckerLinear, which stores the factors as the case has them."""
    import torch

    from ketcore.torch import KroneckerLinear

    workload = case.workload
    layer = KroneckerLinear(
        *workload.sizes, rank=workload.rank, in_dims=workload.row_dims, out_dims=workload.col_dims
    )
    with torch.no_grad():
        for factor, table in zip(layer.factors, case.tables, strict=True):
            factor.copy_(torch.from_numpy(table))
        layer.bias.copy_(torch.from_numpy(case.bias))
    return _contestant("ketcore", kind, case, layer, [*layer.factors, layer.bias], list)


def torch_code(case):
    """One mode after the other, the terms side by side: two products of matrices."""
    import torch

    parameters = _parameters(case)
    left, right, bias = parameters

    def forward(x):
        parts = torch.matmul(x.view(-1, 1, left.shape[1], right.shape[1]), right)
        return torch.einsum("brij,rik->bkj", parts, left).flatten(1) + bias

    return _contestant("torch code", "code", case, forward, parameters, list)


def lokr_code(case):
    """The matrix formed by torch.kron in every step, as PEFT does; a sum of terms term by term."""
    import torch

    parameters = _parameters(case)
    left, right, bias = parameters

    def forward(x):
        matrix = sum(torch.kron(one, other) for one, other in zip(left, right, strict=True))
        return torch.addmm(bias, x, matrix)

    return _contestant("LoKr code", "code", case, forward, parameters, list)


def lycoris(case):
    """The function of LyCORIS that applies (w1 (x) w2) without forming it: one term."""
    if case.workload.rank > 1:
        return None
    import torch
    from lycoris.functional.lokr import kron_bypass

    turned = [np.ascontiguousarray(table[0].T) for table in case.tables]
    left, right, bias = parameters = [torch.tensor(a, requires_grad=True) for a in (*turned, case.bias)]

    def forward(x):
        return kron_bypass(x, left, None, None, right, None, None) + bias

    def to_common(gradients):
        *of_factors, of_bias = gradients
        return [*(gradient.T[None] for gradient in of_factors), of_bias]

    return _contestant("lycoris", "package", case, forward, parameters, to_common)


def tensorly(case):
    """FactorizedLinear, block tensor train of two cores, whose bond is our sum over terms."""
    import tltorch
    import torch

    workload = case.workload
    layer = tltorch.FactorizedLinear(
        workload.row_dims,
        workload.col_dims,
        factorization="blocktt",
        rank=[1, workload.rank, 1],
        implementation="factorized",
    )
    cores = list(layer.weight.factors)

    # Cores (1, q_0, p_0, R) and (R, q_1, p_1, 1).
    def to_factors(first, second):
        return [first[0].permute(2, 1, 0), second[..., 0].transpose(1, 2)]

    with torch.no_grad():
        for view, table in zip(to_factors(*cores), case.tables, strict=True):
            view.copy_(torch.from_numpy(table))
        layer.bias.copy_(torch.from_numpy(case.bias))

    def to_common(gradients):
        return [*to_factors(*gradients[:2]), gradients[2]]

    return _contestant("tensorly-torch", "package", case, layer, [*cores, layer.bias], to_common)


def nn_linear(case):
    """The dense matrix, trained as such: its gradient of x is that of the case, those of the rest its own."""
    import torch

    layer = torch.nn.Linear(*case.workload.sizes)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(dense_weight(case).T))
        layer.bias.copy_(torch.from_numpy(case.bias))
    made = _contestant("nn.Linear", "yardstick", case, layer, list(layer.parameters()), list)
    return replace(made, collect=lambda result: None)


def dense_weight(case) -> np.ndarray:
    """The matrix, (rows, columns)."""
    return sum(np.kron(left, right) for left, right in zip(*case.tables, strict=True))


def _parameters(case):
    import torch

    return [torch.tensor(array, requires_grad=True) for array in (*case.tables, case.bias)]


def _contestant(name, kind, case, forward, parameters, to_common):
    import torch

    x = torch.tensor(case.x, requires_grad=True)
    return step_contestant(name, kind, case, lambda: forward(x), parameters, to_common, inputs=(x,))
