"""ketcore itself, as a user calls it: defaults, ids checked, a forward call and a vjp call."""

import ketcore as kc
from bench.peers import Contestant


def build(case):
    return (_rows if case.workload.kind == "rows" else _kets)(case)


def _rows(case):
    shape = (case.workload.vocab, case.workload.dim)

    def value():
        return kc.rows(case.tables, case.ids, shape), ()

    def both():
        return value()[0], kc.rows_vjp(case.tables, case.ids, case.cotangent, shape)

    def collect(result):
        rows, gradients = result
        return rows, list(gradients)

    return Contestant("ketcore", "ours", value if case.task == "forward" else both, collect)


def _kets(case):
    (leaves,), workload = case.tables, case.workload
    options = {"dims": workload.dims, "layernorm": workload.layernorm, "columns": workload.dim}
    sparse = case.task == "sparse"

    def value():
        return kc.ket_rows(leaves, case.ids, **options), ()

    def both():
        return value()[0], kc.ket_rows_vjp(leaves, case.ids, case.cotangent, sparse=sparse, **options)

    def collect(result):
        rows, gradient = result
        return rows, list(gradient) if isinstance(gradient, tuple) else [gradient]

    return Contestant("ketcore", "ours", value if case.task == "forward" else both, collect)
