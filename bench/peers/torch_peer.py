"""The code one writes in torch: index the leaves, multiply them up in a balanced tree, sum over the terms.

With some care: without LayerNorm the last product and the sum over the terms are one einsum.
"""

from bench.peers import torch_contestant


def build(case):
    import torch

    tables = [torch.tensor(table, requires_grad=True) for table in case.tables]
    ids, dim = torch.from_numpy(case.ids), case.workload.dim
    if case.workload.kind == "rows":

        def forward():
            digits, rest = [], ids
            for radix in reversed(case.workload.radices):
                digits.append(rest % radix)
                rest = rest // radix
            leaves = [table[:, digit] for table, digit in zip(tables, reversed(digits), strict=True)]
            left, right = (node(half, False) for half in halves(leaves))
            return torch.einsum("rbi,rbj->bij", left, right).flatten(1)[:, :dim]

        return torch_contestant("torch code", "code", case, forward, tables, list)
    return _kets(case, tables[0], ids)


def _kets(case, packed, ids):
    import torch

    workload, sparse = case.workload, case.task == "sparse"
    table = packed.detach().flatten(1).requires_grad_()

    def forward():
        words = torch.nn.functional.embedding(ids, table, sparse=sparse).view(-1, *packed.shape[1:])
        leaves = words.split(workload.dims, dim=-1)
        if workload.layernorm:
            return node(leaves, True).sum(1)[:, : workload.dim]
        left, right = (node(half, False) for half in halves(leaves))
        return torch.einsum("bri,brj->bij", left, right).flatten(1)[:, : workload.dim]

    def to_common(gradients):
        (gradient,) = gradients
        if not sparse:
            return [gradient.view_as(packed)]
        return [gradient.indices()[0], gradient.values().view(-1, *packed.shape[1:])]

    contestant = torch_contestant("torch code", "code", case, forward, [table], to_common)
    return _coalesced(contestant) if sparse else contestant


def _coalesced(contestant):
    # torch leaves a repeated word in its sparse gradient once per use; summing them makes it the same work.
    def call():
        rows, (gradient,) = contestant.call()
        return rows, (gradient.coalesce(),)

    return type(contestant)(contestant.name, contestant.kind, call, contestant.collect)


def halves(leaves):
    """The leaves under the left and under the right child of a balanced node."""
    return leaves[: len(leaves) // 2], leaves[len(leaves) // 2 :]


def node(leaves, layernorm):
    """The product of the leaves in a balanced tree, by hand-written torch code."""
    import torch

    if len(leaves) == 1:
        return leaves[0]
    left, right = (node(half, layernorm) for half in halves(leaves))
    product = (left[..., :, None] * right[..., None, :]).flatten(-2)
    return torch.nn.functional.layer_norm(product, product.shape[-1:]) if layernorm else product
