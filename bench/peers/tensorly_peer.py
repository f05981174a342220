"""tensorly-torch: FactorizedEmbedding as a block tensor train whose inner cores are diagonal in the ranks.

At order 2, and at rank 1, the tensor train has exactly our parameters.  At order 3 and rank R its middle core
holds R * R leaves, of which our sum of Kronecker products is the diagonal: same rows, more work.
"""

import numpy as np

from bench.peers import torch_contestant


def build(case):
    workload = case.workload
    if workload.kind != "rows":
        return None
    import tltorch
    import torch

    rows, columns, order, rank = workload.radices, workload.dims, workload.order, workload.rank
    layer = tltorch.FactorizedEmbedding(
        int(np.prod(rows)),
        int(np.prod(columns)),
        auto_tensorize=False,
        tensorized_num_embeddings=rows,
        tensorized_embedding_dim=columns,
        factorization="blocktt",
        rank=[1, *[rank] * (order - 1), 1],
        dtype=getattr(torch, case.dtype),
    )
    cores = list(layer.weight.factors)
    for mode, (core, table) in enumerate(zip(cores, case.tables, strict=True)):
        with torch.no_grad():
            core.zero_()
            _diagonal(core, mode, order).copy_(torch.from_numpy(table))
    ids = torch.from_numpy(case.ids)

    def to_common(gradients):
        return [_diagonal(gradient, mode, order) for mode, gradient in enumerate(gradients)]

    return torch_contestant(
        "tensorly-torch", "package", case, lambda: layer(ids)[:, : workload.dim], cores, to_common
    )


def _diagonal(core, mode, order):
    """The view (R, t, q) of a core (R', t, q, R'') that holds our factor."""
    if mode == 0:
        return core[0].permute(2, 0, 1)
    if mode == order - 1:
        return core[..., 0]
    return core.diagonal(dim1=0, dim2=3).permute(2, 0, 1)
