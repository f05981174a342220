"""pykronecker 0.1.3 as published: square factors, columns one by one, compiled where jax is there."""

import contextlib
import io
from functools import reduce
from operator import add

import numpy as np

from bench.algebra.peers import PRODUCTS, numpy_contestant, padded, terms

# It takes columns one by one in Python, hopelessly far behind beyond this many.
MOST_COLUMNS = 16


def build(case):
    workload = case.workload
    wanted = workload.kind in (*PRODUCTS, "solve") and case.task == "forward"
    if not wanted or workload.rows != workload.columns or case.batch > MOST_COLUMNS:
        return None
    # It prints on import.
    with contextlib.redirect_stdout(io.StringIO()):
        from pykronecker import KroneckerProduct
    if case.dtype == "float64":
        import jax

        jax.config.update("jax_enable_x64", True)
    columns = np.ascontiguousarray(padded(case).T)
    columns = columns[:, 0] if case.batch == 1 else columns
    operator = reduce(add, (KroneckerProduct(term) for term in terms(case, transposed=True)))

    def call():
        result = (operator.inv() if workload.kind == "solve" else operator) @ columns
        # jax computes while Python goes on.
        return result.block_until_ready() if hasattr(result, "block_until_ready") else result

    contestant = numpy_contestant("pykronecker", case, call, columns_first=True)
    if case.batch > 1:
        return contestant
    return type(contestant)(
        contestant.name, contestant.kind, call, lambda value: (np.asarray(value)[None], [])
    )
