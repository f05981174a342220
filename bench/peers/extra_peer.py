"""Contestants from a file: `--extra PATH.py`, a module with `n(operation, spec)`.

`n` returns a function without arguments, or None where it has nothing.  Operations and their spec:

    xs_rows   factors: N arrays (R, t, q); ids; p: columns; cot: cotangent
    ket_rows  leaves: N arrays (R, vocab, q); ids; p; cot
    kron_mm   X (M, K); Fs: N arrays (R, p, q); cot
    logits    H (B, p); factors: N arrays (R, t, q); p; vocab
    gram      V, W: N arrays (kets, q)
    solve     Fs: N arrays (n, n), symmetric positive definite; X (M, K)

The function returns the rows, or the product; for the operation with `_fb` behind it, (rows, gradients): N
arrays like the factors, or, for kets, N pairs (unique ids, values (R, ids, q)); and for kron_mm_fb (product,
gradient of X, gradients of Fs).  The environment variable NT holds the number of threads.
"""

import importlib.util
from pathlib import Path

import numpy as np

from bench.peers import Contestant


def builder(path: str):
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda case: _build(module, Path(path).stem, case)


def _build(module, name, case):
    kind = case.workload.kind
    return (_tables if kind in ("rows", "kets") else _algebra)(module, name, case)


def _algebra(module, name, case):
    factors, workload, kind = list(case.factors), case.workload, case.workload.kind
    if kind == "gram":
        if workload.rank > 1:
            return None
        fields = {"V": [f[:, 0] for f in factors], "W": [w[:, 0] for w in case.x]}
    elif kind == "solve":
        fields = {"Fs": [f[0] for f in factors], "X": case.x}
    elif kind == "logits":
        tables = [np.ascontiguousarray(f.swapaxes(1, 2)) for f in factors]
        fields = {"H": case.x, "factors": tables, "p": workload.shape[0], "vocab": workload.shape[1]}
    else:
        fields = {"X": case.x, "Fs": factors, "cot": case.cotangent}
        kind = "kron_mm_fb" if case.task == "backward" else "kron_mm"
    call = module.n(kind, fields)
    if call is None:
        return None
    backward = case.task == "backward"
    return Contestant(name, "extra", call, lambda r: (r[0], [r[1], *r[2]]) if backward else (r, []))


def _tables(module, name, case):
    rows, workload = case.workload.kind == "rows", case.workload
    if workload.layernorm or (case.task == "backward" and not rows):
        return None
    backward = case.task != "forward"
    fields = {"ids": case.ids, "p": workload.dim, "cot": case.cotangent}
    if rows:
        fields["factors"] = list(case.tables)
    else:
        leaves = np.split(case.tables[0], workload.order, axis=-1)
        fields["leaves"] = [np.ascontiguousarray(leaf.swapaxes(0, 1)) for leaf in leaves]
    call = module.n(("xs_rows" if rows else "ket_rows") + ("_fb" if backward else ""), fields)
    if call is None:
        return None

    def collect(result):
        if not backward:
            return result, []
        values, gradients = result
        if rows:
            return values, list(gradients)
        return values, [gradients[0][0], np.concatenate([g.swapaxes(0, 1) for _, g in gradients], axis=-1)]

    return Contestant(name, "extra", call, collect)
