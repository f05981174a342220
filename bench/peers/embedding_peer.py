"""torch.nn.Embedding with a dense table of the same shape: a yardstick, not a peer."""

from functools import lru_cache

from bench.peers import Contestant


def build(case):
    import torch

    # Several workloads share a table shape, and the largest table takes a third of a gigabyte.
    table = _table(case.workload.vocab, case.workload.dim, case.dtype)
    ids, cotangent = torch.from_numpy(case.ids), torch.from_numpy(case.cotangent)
    layer = torch.nn.Embedding(*table.shape, sparse=case.task == "sparse", _weight=table)

    def value():
        with torch.no_grad():
            return layer(ids)

    def both():
        rows = layer(ids)
        (gradient,) = torch.autograd.grad(rows, [layer.weight], cotangent)
        return rows, gradient.coalesce() if gradient.is_sparse else gradient

    # Its numbers are its own: there is nothing to compare.
    call = value if case.task == "forward" else both
    return Contestant("nn.Embedding", "yardstick", call, lambda result: None)


@lru_cache(maxsize=1)
def _table(vocab, dim, dtype):
    import torch

    return torch.full((vocab, dim), 0.5, dtype=getattr(torch, dtype))
