"""What one writes in torch: the same expressions as the benchmark's peers on a processor, on any device."""

import torch

from bench.gpu.contestant import Contestant
from bench.peers.torch_peer import halves, node


def contestant(name, problem, device, moved, compiler=None) -> Contestant:
    """The obvious code: leaves indexed, multiplied up in a balanced tree, summed over the terms."""
    case = problem.case
    tables = [_tensor(table, device).requires_grad_(case.task == "backward") for table in problem.tables]
    ids, cotangent = _tensor(problem.ids, device), _tensor(problem.cotangent, device)
    function = _rows(case.workload) if case.workload.kind == "rows" else _kets(case.workload)
    if compiler is not None:
        function = compiler.compile(function)
    if case.task == "forward":

        def call():
            with torch.no_grad():
                return function(ids, *tables), ()

    else:

        def call():
            rows = function(ids, *tables)
            return rows, torch.autograd.grad(rows, tables, cotangent)

    return Contestant(name, call, "torch", moved)


def embedding(problem, device, moved) -> Contestant:
    """nn.Embedding with the dense table of the same rows: a yardstick, its gradient is that of the table."""
    case = problem.case
    weight = _tensor(problem.rows(device.xp.arange(case.workload.vocab)), device)
    layer = torch.nn.Embedding(*weight.shape, _weight=weight)
    ids, cotangent = _tensor(problem.ids, device), _tensor(problem.cotangent, device)
    if case.task == "forward":

        def call():
            with torch.no_grad():
                return layer(ids), ()

    else:

        def call():
            rows = layer(ids)
            return rows, torch.autograd.grad(rows, [layer.weight], cotangent)

    return Contestant("nn.Embedding", call, "torch", moved)


def product(problem, device, moved) -> Contestant:
    """The obvious code: one mode after another, term by term."""
    backward = problem.case.task == "backward"
    *factors, x, cotangent = (_tensor(a, device) for a in (*problem.factors, problem.x, problem.cotangent))
    given = [array.requires_grad_(backward) for array in (*factors, x)]

    def call():
        if not backward:
            with torch.no_grad():
                return _multiply(factors, x), ()
        y = _multiply(factors, x)
        return y, torch.autograd.grad(y, given, cotangent)

    return Contestant("torch eager", call, "torch", moved)


def _multiply(factors, x):
    total = 0
    for terms in zip(*factors, strict=True):
        z, outer = x, len(x)
        for matrix in terms:
            z = torch.matmul(matrix.T, z.reshape(outer, len(matrix), -1))
            outer *= matrix.shape[1]
        total = total + z.reshape(len(x), -1)
    return total


def _tensor(array, device):
    # By way of the host: no memory is shared, and every dtype has a way.
    values = array.get() if hasattr(array, "get") else array
    if values.dtype.name == "bfloat16":
        return torch.from_numpy(values.astype("float32")).to(torch.bfloat16).to(device.torch_device)
    return torch.tensor(values, device=device.torch_device)


def _rows(workload):
    def rows(ids, *tables):
        digits, rest = [], ids
        for radix in reversed(workload.radices):
            digits.append(rest % radix)
            rest = rest // radix
        leaves = [table[:, digit] for table, digit in zip(tables, reversed(digits), strict=True)]
        left, right = (node(half, False) for half in halves(leaves))
        return torch.einsum("rbi,rbj->bij", left, right).flatten(1)[:, : workload.dim]

    return rows


def _kets(workload):
    def kets(ids, packed):
        words = torch.nn.functional.embedding(ids, packed.flatten(1)).view(-1, *packed.shape[1:])
        leaves = words.split(workload.dims, dim=-1)
        if workload.layernorm:
            return node(leaves, True).sum(1)[:, : workload.dim]
        left, right = (node(half, False) for half in halves(leaves))
        return torch.einsum("bri,brj->bij", left, right).flatten(1)[:, : workload.dim]

    return kets
