"""ketcore itself, as a user calls it: defaults, ids checked, a forward call and a vjp call."""

import ketcore
from bench.peers import Contestant


def build(case, kc=ketcore):
    return (_rows if case.workload.kind == "rows" else _kets)(case, kc)


def _rows(case, kc):
    shape = (case.workload.vocab, case.workload.dim)
    return _contestant(
        case.task,
        lambda: kc.rows(case.tables, case.ids, shape),
        lambda: kc.rows_vjp(case.tables, case.ids, case.cotangent, shape),
    )


def _kets(case, kc):
    (leaves,), workload = case.tables, case.workload
    options = {"dims": workload.dims, "layernorm": workload.layernorm, "columns": workload.dim}
    sparse = case.task == "sparse"
    return _contestant(
        case.task,
        lambda: kc.ket_rows(leaves, case.ids, **options),
        lambda: kc.ket_rows_vjp(leaves, case.ids, case.cotangent, sparse=sparse, **options),
    )


def _contestant(task, forward, vjp):
    calls = {"forward": lambda: (forward(), ()), "vjp": lambda: (None, vjp())}

    def both():
        return forward(), vjp()

    def collect(result):
        rows, gradients = result
        gradients = list(gradients) if isinstance(gradients, tuple) else [gradients]
        return (gradients.pop(0) if rows is None else rows), gradients

    return Contestant("ketcore", "ours", calls.get(task, both), collect)
