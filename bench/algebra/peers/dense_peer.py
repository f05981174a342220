"""A dense matrix, or dense kets, made beforehand, and NumPy's matmul: a yardstick, not a peer."""

from functools import lru_cache

import numpy as np

from bench.algebra.peers import PRODUCTS
from bench.peers import Contestant

# Nobody would keep more than this.
MOST_BYTES = 1 << 26


def build(case):
    workload = case.workload
    if workload.kind == "gram":
        v, w = _kets(case.factors), _kets(case.x)
        return Contestant("dense", "yardstick", lambda: v @ w.T, lambda value: (value, []))
    rows, columns = workload.sizes
    small = rows * columns * np.dtype(case.dtype).itemsize <= MOST_BYTES
    if workload.kind not in PRODUCTS or case.task != "forward" or not small:
        return None
    matrix = _matrix(workload, case.batch, case.dtype)
    return Contestant("dense", "yardstick", lambda: case.x @ matrix, lambda value: (value, []))


def _kets(leaves):
    total = leaves[0]
    for leaf in leaves[1:]:
        total = (total[..., :, None] * leaf[..., None, :]).reshape(*total.shape[:-1], -1)
    return total.sum(1)


@lru_cache(maxsize=1)
def _matrix(workload, batch, dtype):
    from bench.algebra.workloads import numbers

    rows, columns = workload.sizes
    terms = np.zeros((), dtype)
    for k in range(workload.rank):
        term = np.ones((1, 1), dtype)
        for factor in numbers(workload, batch)[0]:
            term = np.kron(term, factor[k].astype(dtype))
        terms = terms + term
    return np.ascontiguousarray(terms[:rows, :columns])
