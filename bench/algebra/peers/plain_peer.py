"""The algorithm of pykronecker's repository (`kronecker_product_tensor`), written out here on NumPy.

Mode after mode: the array as a matrix with that mode in front, multiplied and turned over, so that the next
one is in front.  All columns at once, where the package takes them one by one.
"""

import numpy as np

from bench.algebra.peers import PRODUCTS, numpy_contestant, padded, terms


def build(case):
    if case.workload.kind not in PRODUCTS or case.task != "forward":
        return None
    factors, columns = terms(case, transposed=True), np.ascontiguousarray(padded(case).T)

    def call():
        total = _product(factors[0], columns)
        for term in factors[1:]:
            total += _product(term, columns)
        return total

    return numpy_contestant("pykronecker's algorithm", case, call)


def _product(factors, columns):
    # The columns end up in front: (batch, Q).
    out = columns
    for factor in factors:
        out = (factor @ out.reshape(factor.shape[1], -1)).T
    return out.reshape(columns.shape[1], -1)
