"""What the results must be: float64, by the definition, in the plainest NumPy.

One term after the other: np.kron of neighbouring factors up to `LARGEST` rows or columns, then tensordot over
each of the resulting modes.  tests/test_bench_algebra.py compares it with the matrix written out.
"""

from functools import lru_cache
from math import prod

import numpy as np

from bench.algebra.workloads import numbers

LARGEST = 64
# Entries of x that are taken at a time: they stay in cache.
PIECE = 1 << 17


@lru_cache(maxsize=1)
def value_and_gradients(workload, batch):
    """(value, [gradient of x, gradients of the factors]), or (value, []) where nothing is differentiated."""
    factors, x, cotangent = numbers(workload, batch)
    wide = [np.float64(factor) for factor in factors]
    if workload.kind == "gram":
        return _expanded(wide) @ _expanded([np.float64(w) for w in x]).T, []
    if workload.kind == "solve":
        # Symmetric, so that b times the inverse is the inverse times b.
        wide = [np.linalg.inv(factor) for factor in wide]
    rows, columns = workload.sizes
    padded = [(0, 0), (0, prod(workload.rows) - rows)]
    x, backward = np.pad(x, padded), "backward" in workload.tasks
    terms = [[factor[k] for factor in wide] for k in range(workload.rank)]
    step = max(1, PIECE // x.shape[1])
    pieces = [slice(start, start + step) for start in range(0, batch, step)]
    found = [_piece(terms, np.float64(x[s]), np.float64(cotangent[s]) if backward else None) for s in pieces]
    value = np.concatenate([piece[0] for piece in found])[:, :columns]
    if not backward:
        return value, []
    return value, [
        np.concatenate([piece[1] for piece in found]),
        *map(sum, zip(*(p[2] for p in found), strict=True)),
    ]


def _piece(terms, x, cotangent):
    """(value, gradient of x, gradients of the factors) for some rows of x."""
    found = [_term(term, x, cotangent) for term in terms]
    value = sum(part[0] for part in found)
    if cotangent is None:
        return value, None, None
    to_factors = [np.stack(stack) for stack in zip(*(part[2] for part in found), strict=True)]
    return value, sum(part[1] for part in found), to_factors


def _expanded(kets):
    total = kets[0]
    for leaf in kets[1:]:
        total = (total[..., :, None] * leaf[..., None, :]).reshape(*total.shape[:-1], -1)
    return total.sum(1)


def _term(factors, x, cotangent):
    """(value, gradient of x, gradients of the factors) of one Kronecker product."""
    groups = _groups(factors)
    merged = [_kron(group) for group in groups]
    steps = [x.reshape(len(x), *(matrix.shape[0] for matrix in merged))]
    for mode, matrix in enumerate(merged):
        steps.append(_along(steps[-1], matrix, mode + 1))
    value = steps[-1].reshape(len(x), -1)
    if cotangent is None:
        return value, None, None
    pulled, gradients = cotangent.reshape(steps[-1].shape), []
    for mode in reversed(range(len(merged))):
        others = [axis for axis in range(pulled.ndim) if axis != mode + 1]
        gradients.insert(0, np.tensordot(steps[mode], pulled, (others, others)))
        pulled = _along(pulled, merged[mode].T, mode + 1)
    split = [_unmerged(group, grad) for group, grad in zip(groups, gradients, strict=True)]
    return value, pulled.reshape(x.shape), [gradient for group in split for gradient in group]


def _along(tensor, matrix, axis):
    return np.moveaxis(np.tensordot(tensor, matrix, ([axis], [0])), -1, axis)


def _groups(factors):
    groups = [[factors[0]]]
    for factor in factors[1:]:
        if max(_kron(groups[-1]).shape) * max(factor.shape) <= LARGEST:
            groups[-1].append(factor)
        else:
            groups.append([factor])
    return groups


def _kron(factors):
    total = factors[0]
    for factor in factors[1:]:
        total = np.kron(total, factor)
    return total


def _unmerged(factors, gradient):
    """The gradient of the Kronecker product of `factors` -> those of the factors."""
    found = []
    for n, factor in enumerate(factors):
        left, right = (_kron([np.eye(1), *side]) for side in (factors[:n], factors[n + 1 :]))
        (p, q), (p_, q_) = left.shape, right.shape
        split = gradient.reshape(p, factor.shape[0], p_, q, factor.shape[1], q_)
        found.append(np.einsum("aibcjd,ac,bd->ij", split, left, right))
    return found
