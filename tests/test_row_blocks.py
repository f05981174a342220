"""Rows in blocks: together the matrix, sized, to be iterated again, at any number of rows."""

from itertools import islice
from sys import maxsize

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore.testing import assert_dense_equal
from tests.generic import kronecker_matrices

RNG = np.random.default_rng(0)
SPARSE = scipy.sparse.random_array((4, 3), density=0.5, rng=0, format="csr")
OPERATORS = {
    "matrix": kc.KroneckerMatrix.random((30, 12), 3, rank=2, rng=0),
    "float32": kc.KroneckerMatrix.random((9, 5), 2, rng=0, dtype="float32"),
    "tall": kc.KroneckerMatrix.random((60, 1), 2, rng=0),
    "sum": kc.KroneckerSum([RNG.standard_normal((3, 3)), RNG.standard_normal((4, 4))]),
    "product": kc.KroneckerProduct([kc.Identity(3), RNG.standard_normal((2, 5)), kc.Diagonal([1.0, -2.0])]),
    "sparse": kc.KroneckerProduct([SPARSE, SPARSE.T.tocsr().T, [[1j, 2]]]),
    "identities": kc.KroneckerProduct([kc.Identity(3), kc.Identity(2)]),
    "swap": kc.swap((2, 3, 4), 0, 2),
    "permutation": kc.Permutation((2, 3, 4), (1, 2, 0)),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("size", [1, 4, 7, 1000])
def test_blocks_are_the_rows(name, size):
    operator = OPERATORS[name]
    a = operator.to_dense()
    blocks = operator.iter_row_blocks(size)
    found = list(blocks)
    assert len(blocks) == len(found) == -(-len(a) // size)
    assert [len(block) for block in found[:-1]] == [size] * (len(found) - 1)
    assert all(block.dtype == a.dtype and block.flags.c_contiguous for block in found)
    assert_dense_equal(np.concatenate(found), a, scale=10, dtype=a.dtype)
    first = next(iter(blocks))
    first[...] = -1
    assert_dense_equal(np.concatenate(list(blocks)), a, scale=10, dtype=a.dtype)
    assert_dense_equal(found[0], a[:size], scale=10, dtype=a.dtype)


@given(kronecker_matrices(), st.integers(1, 9))
def test_blocks_of_any_matrix(m, size):
    assert_dense_equal(np.concatenate(list(m.iter_row_blocks(size))), m.to_dense(), scale=1e3, dtype=m.dtype)


def test_blocks_on_every_library(xp):
    m = OPERATORS["matrix"]
    blocks = kc.KroneckerMatrix([xp.asarray(f) for f in m.factors], m.shape).iter_row_blocks(8)
    found = [xp.to_numpy(block) for block in blocks]
    assert_dense_equal(np.concatenate(found), m.to_dense(), scale=10)


def test_infinity_of_a_diagonal_stays_where_it_is():
    m = kc.KroneckerProduct([kc.Diagonal([np.inf, 1.0])])
    assert np.concatenate(list(m.iter_row_blocks(1))).tolist() == [[np.inf, 0.0], [0.0, 1.0]]


def test_more_rows_than_len_counts():
    """Iterating works; a length in our words where Python's own would speak of an index-sized integer."""
    tall = kc.KroneckerMatrix([np.array([[1.0], [2.0]])] * 80)
    blocks = tall.iter_row_blocks(3)
    assert [block.ravel().tolist() for block in islice(blocks, 2)] == [[1.0, 2.0, 2.0], [4.0, 2.0, 4.0]]
    text = rf"the number of blocks must be at most {maxsize} for len\(\), got {-(-(2**80) // 3)}"
    with pytest.raises(OverflowError, match=text):
        len(blocks)
    assert bool(blocks) is True
    assert len(tall.iter_row_blocks(2**70)) == 2**10
    swap = kc.swap((2,) * 70, 0, 1)
    with pytest.raises(MemoryError, match=r"the result must have at most \d+ elements, got shape \(1, "):
        next(iter(swap.iter_row_blocks(1)))


@pytest.mark.parametrize("name", ["matrix", "sum", "product", "swap"])
@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (0, ValueError, "size must be at least 1, got 0"),
        (-2, ValueError, "size must be at least 1, got -2"),
        (1.5, TypeError, "size must be an int, got 1.5"),
        (True, TypeError, "size must be an int, got True"),
        (None, TypeError, "size must be an int, got None"),
    ],
)
def test_sizes_are_refused(name, size, error, text):
    with pytest.raises(error, match=text):
        OPERATORS[name].iter_row_blocks(size)
