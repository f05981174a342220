"""Contestants from a file: `--extra PATH.py`, a module with `n(operation, spec)`.

`n` returns a function without arguments, or None where it has nothing.  Operations and their spec:

    xs_rows   factors: N arrays (R, t, q); ids; p: columns; cot: cotangent
    ket_rows  leaves: N arrays (R, vocab, q); ids; p; cot

The function returns the rows; for the operation with `_fb` behind it, (rows, gradients): N arrays like the
factors, or, for kets, N pairs (unique ids, values (R, ids, q)).  The environment variable NT holds the number
of threads.
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
