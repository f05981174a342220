"""opt_einsum: one contraction, its path found beforehand; NumPy forward, torch with autograd backward."""

from bench.algebra.peers import PRODUCTS, padded
from bench.peers import Contestant


def build(case):
    kind = case.workload.kind
    if kind not in (*PRODUCTS, "gram"):
        return None
    import opt_einsum

    arrays, equation = _gram(case) if kind == "gram" else _product(case)
    expression = opt_einsum.contract_expression(equation, *(array.shape for array in arrays))
    if case.task == "backward":
        return _backward(case, expression, arrays)
    columns = case.batch if kind == "gram" else case.workload.sizes[1]

    def collect(value):
        return value.reshape(case.batch, -1)[:, :columns], []

    return Contestant("opt_einsum", "package", lambda: expression(*arrays), collect)


def _product(case):
    from opt_einsum import get_symbol

    order = len(case.factors)
    batch, rank = get_symbol(2 * order), get_symbol(2 * order + 1)
    rows = [get_symbol(n) for n in range(order)]
    columns = [get_symbol(order + n) for n in range(order)]
    many = case.workload.rank > 1
    factors = case.factors if many else [factor[0] for factor in case.factors]
    subscripts = [(rank if many else "") + p + q for p, q in zip(rows, columns, strict=True)]
    equation = ",".join([batch + "".join(rows), *subscripts]) + "->" + batch + "".join(columns)
    x = padded(case).reshape(case.batch, *case.workload.rows)
    return [x, *factors], equation


def _gram(case):
    from opt_einsum import get_symbol

    # i, j: the kets; a, b: their terms.
    i, a, j, b, *leaves = map(get_symbol, range(4 + len(case.factors)))
    inputs = [kets + leaf for kets in (i + a, j + b) for leaf in leaves]
    return [*case.factors, *case.x], ",".join(inputs) + "->" + i + j


def _backward(case, expression, arrays):
    import torch

    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    cotangent = torch.from_numpy(case.cotangent).view(case.batch, *case.workload.columns)

    def call():
        value = expression(*tensors, backend="torch")
        return value, torch.autograd.grad(value, tensors, cotangent)

    def collect(result):
        to_x, *to_factors = (gradient.numpy() for gradient in result[1])
        shaped = [g.reshape(f.shape) for g, f in zip(to_factors, case.factors, strict=True)]
        return result[0].detach().numpy().reshape(case.batch, -1), [to_x.reshape(case.x.shape), *shaped]

    return Contestant("opt_einsum", "package", call, collect)
