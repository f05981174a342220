"""PyLops: Kronecker of MatrixMult, nested, @ columns; sums as a sum of operators.  Forward only."""

from functools import reduce
from math import prod
from operator import add

import numpy as np

from bench.algebra.peers import PRODUCTS, numpy_contestant, padded, terms

# Each level takes its columns one by one in Python: beyond this many calls, seconds go by.
MOST_CALLS = 512


def build(case):
    workload = case.workload
    calls = case.batch * workload.rank * prod(workload.rows[:-2])
    if workload.kind not in PRODUCTS or case.task != "forward" or calls > MOST_CALLS:
        return None
    import pylops

    dtype = case.dtype
    products = []
    for term in terms(case, transposed=True):
        modes = [pylops.MatrixMult(factor, dtype=dtype) for factor in term]
        # From the right: each level multiplies one mode at the front and leaves the rest to the next.
        products.append(reduce(lambda right, left: pylops.Kronecker(left, right, dtype=dtype), modes[::-1]))
    operator, columns = reduce(add, products), np.ascontiguousarray(padded(case).T)
    return numpy_contestant("PyLops", case, lambda: operator @ columns, columns_first=True)
