"""Dense definitions of all operators, and strategies for pairs that fit together."""

from functools import reduce
from math import prod

import numpy as np
from hypothesis import strategies as st

from ketcore import Diagonal, Identity, KroneckerMatrix, KroneckerProduct, KroneckerSum
from ketcore.testing import dtypes, to_numpy
from tests.generic import arrays

# Room for the rounding of every mode and term of two operators.
TERMS = 400


def wide(array):
    """A NumPy array in float64 or complex128."""
    found = to_numpy(array)
    return found.astype(np.complex128 if found.dtype.kind == "c" else np.float64)


def kron(*arrays_):
    """np.kron of several."""
    return reduce(np.kron, arrays_)


def dense(operator):
    """The definition of an operator (a ket: of its vectors), by np.kron in float64."""
    if isinstance(operator, KroneckerSum):
        return sum_dense([wide(f) for f in operator.factors])
    if isinstance(operator, KroneckerProduct):
        return kron(*(part_dense(part) for part in operator.parts))
    leaves = [wide(f) for f in operator.factors]
    if isinstance(operator, KroneckerMatrix):
        full = prod(operator.row_dims), prod(operator.col_dims)
        total = sum((kron(*(f[k] for f in leaves)) for k in range(operator.rank)), np.zeros(full))
        return total[: operator.shape[0], : operator.shape[1]]
    found = np.zeros(operator.shape, leaves[0].dtype)
    for at in np.ndindex(*operator.batch_shape):
        for k in range(operator.rank):
            found[at] += kron(*(leaf[at][k] for leaf in leaves))
    return found


def sum_dense(factors):
    """The Kronecker sum of square matrices."""
    sizes = [len(f) for f in factors]
    return sum(kron(np.eye(prod(sizes[:n])), f, np.eye(prod(sizes[n + 1 :]))) for n, f in enumerate(factors))


def part_dense(part):
    """A part of a KroneckerProduct as an array."""
    if isinstance(part, Diagonal):
        return np.diag(wide(part.values))
    if isinstance(part, Identity):
        return np.eye(part.size)
    return wide(part.toarray()) if hasattr(part, "tocsr") else wide(part)


def magnitude(operator):
    """The dense definition of the absolute values: the scale of rounding."""
    if isinstance(operator, KroneckerSum):
        return dense(KroneckerSum([np.abs(wide(f)) for f in operator.factors]))
    if isinstance(operator, KroneckerMatrix):
        return dense(KroneckerMatrix([np.abs(wide(f)) for f in operator.factors], operator.shape))
    if isinstance(operator, KroneckerProduct):
        return np.abs(dense(operator))
    return dense(type(operator)([np.abs(wide(f)) for f in operator.factors]))


@st.composite
def common_splits(draw, max_groups=3, max_dim=3):
    """Two splits of one axis: in each group one side has one mode, the other some with its product."""
    left, right = [], []
    for _ in range(draw(st.integers(1, max_groups))):
        several = draw(st.lists(st.integers(1, max_dim), min_size=1, max_size=2))
        sides = (several, [prod(several)])
        first, second = sides if draw(st.booleans()) else sides[::-1]
        left += first
        right += second
    return tuple(left), tuple(right)


@st.composite
def matrix_of(draw, row_dims, col_dims, dtype, rank=None, asarray=np.asarray):
    """Factors of drawn rank for these dims."""
    rank = draw(st.integers(1, 2)) if rank is None else rank
    shapes = [(rank, p, q) for p, q in zip(row_dims, col_dims, strict=True)]
    return [asarray(draw(arrays(shape, dtype))) for shape in shapes]


@st.composite
def outer_dims(draw, count):
    """Dims for the axis of a product that is not contracted."""
    return tuple(draw(st.lists(st.integers(1, 2), min_size=count, max_size=count)))


@st.composite
def cropped(draw, size):
    """A size of at most `size`, mostly all of it."""
    return size if draw(st.booleans()) else draw(st.integers(1, size))


@st.composite
def factor_pairs(draw, asarray=np.asarray, names=None):
    """Two matrices A (m, k) and B (k, n) whose inner dims split at common places; any axis may be cropped."""
    left, right = draw(common_splits())
    inner = draw(cropped(prod(left)))
    found = []
    for dims, inner_axis in ((left, 1), (right, 0)):
        outer = draw(outer_dims(len(dims)))
        dtype = draw(st.sampled_from(names)) if names else draw(dtypes())
        pair = (outer, dims) if inner_axis else (dims, outer)
        size = draw(cropped(prod(outer)))
        shape = (size, inner) if inner_axis else (inner, size)
        found.append(KroneckerMatrix(draw(matrix_of(*pair, dtype, asarray=asarray)), shape))
    return found


def partial_trace_dense(a, dims, where):
    """The array of all digits, summed over equal ones."""
    tensor = a.reshape(*dims, *dims)
    for n in sorted(where, reverse=True):
        tensor = np.trace(tensor, axis1=n, axis2=n + tensor.ndim // 2)
    size = int(np.prod([d for n, d in enumerate(dims) if n not in where]))
    return tensor.reshape(size, size) if len(where) < len(dims) else tensor
