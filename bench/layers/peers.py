"""The contestants in training steps.

The common form, a sequence of NumPy arrays::

    embeddings   (rows, gradients of the parameters as in `bench.peers`)
    linear       (y, [gradient of x, of the N factors (R, p_n, q_n), of the bias])

Packages and code for tables are those of `bench.peers`, which make a step of a case whose task is one.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from bench.layers import linear_peers
from bench.peers import tensorly_peer, torch_peer, word2ket_peer
from bench.peers.steps import step_contestant


def builders(extra: tuple[str, ...] = (), before: str = "") -> dict[str, Callable]:
    """Name of each contestant -> its `build`."""
    if extra or before:
        raise ValueError(f"extra and before must be empty for layers, got {extra} and {before!r}")
    eager = {
        "ketcore": _ketcore,
        "torch code": partial(_either, torch_peer.build, linear_peers.torch_code),
        "nn": partial(_either, _nn_embedding, linear_peers.nn_linear),
        "LoKr code": partial(_either, None, linear_peers.lokr_code),
    }
    packages = {
        "word2ket": partial(_either, word2ket_peer.build, None),
        "tensorly-torch": partial(_either, tensorly_peer.build, linear_peers.tensorly),
        "lycoris": partial(_either, None, linear_peers.lycoris),
        "ketcore sparse": partial(_ketcore, sparse=True),
        "nn sparse": partial(_either, partial(_nn_embedding, sparse=True), None),
    }
    # A lookup or one product of matrices has nothing to gain.
    compiled = {f"{name} compiled": partial(_compiled, eager[name]) for name in ("ketcore", "torch code")}
    # Ours comes first: unless there is a definition, it is what the others are compared with.
    return eager | packages | compiled


def _compiled(build, case):
    return build(replace(case, compiled=True))


def _either(of_tables, of_linear, case):
    """What there is for the kind of the case."""
    build = of_linear if case.workload.kind == "linear" else of_tables
    return None if build is None else build(case)


def _ketcore(case, sparse=False):
    """Its layers with the factors of the case."""
    import torch

    import ketcore.torch as kt

    workload, kind = case.workload, "ours"
    if case.compiled or sparse:
        kind = "variant"
    if workload.kind == "linear":
        return None if sparse else linear_peers.ketcore(case, kind)
    if sparse and workload.kind == "rows":
        return None
    weight = [torch.tensor(table) for table in case.tables]
    size, ids = (workload.vocab, workload.dim), torch.from_numpy(case.ids)
    if workload.kind == "rows":
        layer = kt.EmbeddingKetXS(*size, _weight=weight)
    else:
        layer = kt.EmbeddingKet(*size, sparse=sparse, dims=workload.dims, _weight=weight[0])
    name, parameters = "ketcore sparse" if sparse else "ketcore", list(layer.parameters())
    return step_contestant(name, kind, case, lambda: layer(ids), parameters, list, sparse=sparse)


def _nn_embedding(case, sparse=False):
    """The dense table of the same rows, several hundred times larger."""
    import torch

    workload = case.workload
    layer = torch.nn.Embedding(workload.vocab, workload.dim, sparse=sparse)
    ids = torch.from_numpy(case.ids)
    name, parameters = "nn.Embedding sparse" if sparse else "nn.Embedding", list(layer.parameters())
    made = step_contestant(name, "yardstick", case, lambda: layer(ids), parameters, list, sparse=sparse)
    # Its numbers are its own: there is nothing to compare.
    return replace(made, collect=lambda result: None)
