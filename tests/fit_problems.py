"""Matrices to be fitted, and the dense definitions that fits are compared with."""

from math import prod

import numpy as np
from hypothesis import strategies as st

from ketcore import testing
from tests import generic


def rearrangement(A, row_dims, col_dims):
    """T[(i_0, j_0), (i_1, j_1)] = A[(i_0, i_1), (j_0, j_1)], of a matrix padded with zeros."""
    A = np.asarray(A)
    A = np.pad(A, [(0, prod(dims) - size) for dims, size in zip((row_dims, col_dims), A.shape, strict=True)])
    p, q = row_dims[0] * col_dims[0], row_dims[1] * col_dims[1]
    return A.reshape(*row_dims, *col_dims).transpose(0, 2, 1, 3).reshape(p, q)


def with_rearranged(T, row_dims, col_dims):
    """The matrix whose rearrangement one is T."""
    (p, P), (q, Q) = row_dims, col_dims
    return T.reshape(p, q, P, Q).transpose(0, 2, 1, 3).reshape(p * P, q * Q)


def two_factor_optimum(A, row_dims, col_dims, rank):
    """The least relative error of a sum of `rank` Kronecker products of two factors."""
    values = np.linalg.svd(rearrangement(A, row_dims, col_dims), compute_uv=False)
    return np.sqrt(np.sum(values[rank:] ** 2) / np.sum(values**2))


def relative_error(value, A, weights=None):
    """The weighted distance of dense `value` to A over the weighted norm of A."""
    scale = 1.0 if weights is None else np.sqrt(np.asarray(weights))[:, None]
    return np.linalg.norm(scale * (value - A)) / np.linalg.norm(scale * np.asarray(A))


@st.composite
def problems(draw, order=2, max_rank=3):
    """(A, row_dims, col_dims, rank) with A of standard normal values in float64 or complex128."""
    row_dims = draw(testing.mode_dims(order, max_dim=4, max_size=24))
    col_dims = draw(testing.mode_dims(order, max_dim=4, max_size=24))
    dtype = draw(st.sampled_from(("float64", "complex128")))
    A = draw(generic.arrays((prod(row_dims), prod(col_dims)), dtype))
    return A, row_dims, col_dims, draw(st.integers(1, max_rank))


class RowSlices:
    """An array that gives its rows alone, and remembers how many it gave at a time."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.most = 0

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        found = self.array[rows]
        self.most = max(self.most, len(found))
        return found
