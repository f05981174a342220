"""Random products of Kronecker matrices with dense arrays, for every test of ops."""

from math import prod

import numpy as np
from hypothesis import strategies as st

from ketcore import testing

# Leading axes of x, and per factor those of a batch of matrices, None for all without.
_BATCHES = (
    ((), None),
    ((), None),
    ((3,), None),
    ((3,), None),
    ((1,), None),
    ((0,), None),
    ((2, 3), None),
    ((40,), None),
    ((), (2,)),
    ((2,), (2,)),
    ((3, 2), (2,)),
    ((1,), (3,)),
    ((2, 1), (1, 3)),
    ((0,), (1,)),
)


@st.composite
def matmul_arguments(draw, dtype):
    """(factors, x, options) of `kron_matmul`."""
    dims = [draw(testing.mode_dims(max_size=30)) for _ in range(2)]
    order = min(map(len, dims))
    rows, columns = (dim[:order] for dim in dims)
    marked = draw(st.sets(st.integers(0, order - 1), max_size=2)) if draw(st.integers(0, 3)) == 0 else set()
    columns = tuple(p if n in marked else q for n, (p, q) in enumerate(zip(rows, columns, strict=True)))
    lead, batch = draw(st.sampled_from(_BATCHES))
    rank = draw(st.sampled_from((1, 1, 2, 3, 0)))
    factors = []
    for p, q in zip(rows, columns, strict=True):
        own = () if batch is None or draw(st.booleans()) else batch
        factors.append(draw(testing.arrays((*own, rank, p, q), dtype)))
    shape = draw(testing.crops(prod(rows), prod(columns)))
    kept = prod(rows) if shape is None else shape[0]
    axis = draw(st.sampled_from((-1, -1, -2)))
    behind = () if axis == -1 else (draw(st.sampled_from((1, 2, 5, 0))),)
    x = draw(testing.arrays((*lead, kept, *behind), dtype))
    path = draw(st.sampled_from((None, None, "modes", "halves", "dense"))) if batch is None else None
    return tuple(factors), x, {"shape": shape, "axis": axis, "identities": tuple(marked), "path": path}


@st.composite
def kron_matmul_problems(draw, op, dtype, make):
    """A problem: `make` is the class `Problem` of tests/problems.py."""
    factors, x, options = draw(matmul_arguments(dtype))
    # A factor known to be the identity is a constant.
    multilinear = not options["identities"]
    return make(op, (*factors, x), options=options, groups=(len(factors), None), multilinear=multilinear)


def normal(shape, dtype="float64", seed=0):
    """Standard normal values."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(dtype)
