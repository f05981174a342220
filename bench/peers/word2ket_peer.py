"""word2ket 0.0.2, unmodified, on gpytorch 1.0.1: EmbeddingKetXS for rows, EmbeddingKet for kets.

Both are looked for on the path and in the folder `word2ket` of the environment (README.md).
EmbeddingKet has orders 2, 4 and 8, no LayerNorm and no sparse gradient of its leaves.
"""

import sys
from pathlib import Path

from bench.peers import torch_contestant


def build(case):
    workload = case.workload
    if workload.layernorm or case.task == "sparse":
        return None
    word2ket = _import()
    import torch

    rows = workload.kind == "rows"
    layer = (word2ket.EmbeddingKetXS if rows else word2ket.EmbeddingKet)(
        workload.vocab, workload.dim, order=workload.order, rank=workload.rank
    )
    layer.weight_leafs = torch.nn.Parameter(torch.from_numpy(_leaves(case)))
    ids = torch.from_numpy(case.ids)

    def to_common(gradients):
        (gradient,) = gradients
        return list(gradient) if rows else [gradient.permute(2, 1, 0, 3).flatten(2)]

    return torch_contestant("word2ket", "package", case, lambda: layer(ids), [layer.weight_leafs], to_common)


def _leaves(case):
    """Our tables in its layout (order, rank, leaf rows, leaf columns)."""
    import numpy as np

    if case.workload.kind == "rows":
        return np.stack(case.tables)
    (packed,) = case.tables
    return np.ascontiguousarray(np.stack(np.split(packed, case.workload.order, axis=-1)).swapaxes(1, 2))


def _import():
    folder = str(Path(sys.prefix, "word2ket"))
    if folder not in sys.path and Path(folder).is_dir():
        # At the end, so that nothing else in that folder hides an installed package.
        sys.path.append(folder)
    import gpytorch  # noqa: F401  (word2ket raises a bare Exception where this is missing)
    import word2ket

    return word2ket
