"""Random products of Kronecker matrices with dense arrays, for every test of ops."""

from functools import reduce
from math import prod
from operator import add

import numpy as np
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from tests import generic

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
    marked = draw(st.sets(st.integers(0, order - 1), max_size=3)) if draw(st.integers(0, 2)) == 0 else set()
    columns = tuple(p if n in marked else q for n, (p, q) in enumerate(zip(rows, columns, strict=True)))
    lead, batch = draw(st.sampled_from(_BATCHES))
    rank = draw(st.sampled_from((1, 1, 2, 3, 0)))
    identities = tuple(marked)
    if marked and draw(st.booleans()):
        identities = tuple(draw(st.sets(st.sampled_from(sorted(marked)))) for _ in range(rank))
    factors = []
    for p, q in zip(rows, columns, strict=True):
        own = () if batch is None or draw(st.booleans()) else batch
        factors.append(draw(generic.arrays((*own, rank, p, q), dtype)))
    shape = draw(testing.crops(prod(rows), prod(columns)))
    kept = prod(rows) if shape is None else shape[0]
    axis = draw(st.sampled_from((-1, -1, -2)))
    behind = () if axis == -1 else (draw(st.sampled_from((1, 2, 5, 0))),)
    x = draw(generic.arrays((*lead, kept, *behind), dtype))
    paths = (None, None, "modes", "halves", "dense", "terms")
    path = draw(st.sampled_from(paths)) if batch is None else None
    return tuple(factors), x, {"shape": shape, "axis": axis, "identities": identities, "path": path}


def any_marks(identities):
    """Whether there are identities, of all terms or of one."""
    return any(isinstance(each, int) or each for each in identities)


@st.composite
def kron_matmul_problems(draw, op, dtype, make):
    """A problem: `make` is `Problem.of` of tests/problems.py."""
    factors, x, options = draw(matmul_arguments(dtype))
    # A factor known to be the identity is a constant.
    multilinear = not any_marks(options["identities"])
    return make(op, factors, x, options=options, multilinear=multilinear)


def normal(shape, dtype="float64", seed=0):
    """Standard normal values."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return values.astype(dtype)


# The Pauli matrices.
X, Y, Z = (
    np.array([[0.0, 1.0], [1.0, 0.0]]),
    np.array([[0, -1j], [1j, 0]]),
    np.array([[1.0, 0.0], [0.0, -1.0]]),
)


def chain(count, *operators):
    """The sum of embedded operators of one or more sites each, at every place of a chain of qubits."""
    terms = []
    for operator in operators:
        sites = len(operator).bit_length() - 1
        for first in range(count - sites + 1):
            terms.append(kc.embed(operator, (2,) * count, tuple(range(first, first + sites))))
    return reduce(add, terms)


@st.composite
def marks_of_terms(draw, rows, columns, rank):
    """For each term some of the square modes, most of them as a rule."""
    square = [n for n, (p, q) in enumerate(zip(rows, columns, strict=True)) if p == q]
    found = []
    for _ in range(rank):
        live = draw(st.sets(st.sampled_from(square), max_size=2)) if square else set()
        found.append(frozenset(square) - live)
    return tuple(found)
