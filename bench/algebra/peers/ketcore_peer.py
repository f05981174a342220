"""ketcore itself, as a user calls it: defaults, a forward call and a vjp call that share nothing."""

import ketcore
from bench.peers import Contestant


def build(case, kc=ketcore):
    return Contestant("ketcore", "ours", _call(case, kc), lambda result: (result[0], list(result[1])))


def _call(case, kc):
    factors, x, shape = case.factors, case.x, case.workload.shape
    if case.workload.kind == "gram":
        return lambda: (kc.ket_gram(factors, x), ())
    if case.workload.kind == "solve":
        return lambda: (kc.kron_solve(factors, x), ())
    if case.task == "forward":
        return lambda: (kc.kron_matmul(factors, x, shape), ())

    def both():
        value = kc.kron_matmul(factors, x, shape)
        to_factors, to_x = kc.kron_matmul_vjp(factors, x, case.cotangent, shape)
        return value, (to_x, *to_factors)

    return both
