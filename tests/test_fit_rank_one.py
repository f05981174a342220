"""nearest_rank_one: a single Kronecker product near a sum of them, definite where the sum is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from ketcore.fit import nearest_rank_one
from ketcore.fit.rank_one import is_hermitian_matrix
from tests import generic
from tests.fit_problems import relative_error, two_factor_optimum


def positive(rng, size, dtype):
    root = rng.standard_normal((size, size)).astype(dtype)
    if np.dtype(dtype).kind == "c":
        root = root + 1j * rng.standard_normal((size, size))
    return root @ root.conj().T + 0.1 * np.eye(size)


def positive_sum(seed, dims, rank, dtype):
    rng = np.random.default_rng(seed)
    return kc.KroneckerMatrix.from_terms([[positive(rng, n, dtype) for n in dims] for _ in range(rank)])


@given(
    st.integers(0, 99), testing.mode_dims(max_dim=3, max_size=24), st.sampled_from(("float64", "complex128"))
)
def test_a_positive_definite_sum_gives_a_positive_definite_product(seed, dims, dtype):
    matrix = positive_sum(seed, dims, 3, dtype)
    found = nearest_rank_one(matrix)
    assert (found.rank, found.row_dims, found.dtype) == (1, dims, matrix.dtype)
    for (factor,) in found.factors:
        assert np.abs(factor - factor.conj().T).max() <= 1e-15 * np.abs(factor).max()
        assert np.linalg.eigvalsh(factor).min() > 0
    assert relative_error(found.to_dense(), matrix.to_dense()) < 0.8


def test_two_modes_give_the_optimum(xp):
    matrix = positive_sum(1, (3, 4), 3, "complex128")
    moved = kc.KroneckerMatrix([xp.asarray(f) for f in matrix.factors])
    found = nearest_rank_one(moved)
    assert type(found.factors[0]) is type(moved.factors[0])
    error = relative_error(testing.to_numpy(found.to_dense()), matrix.to_dense())
    assert abs(error - two_factor_optimum(matrix.to_dense(), (3, 4), (3, 4), 1)) < 1e-10


@settings(max_examples=15)
@given(generic.kronecker_matrices(dtype="float64"))
def test_any_matrix_gives_a_product_that_is_no_worse_than_none(matrix):
    found = nearest_rank_one(matrix)
    assert found.rank == 1
    assert found.shape == matrix.shape
    whole = kc.KroneckerMatrix(matrix.factors).to_dense()
    near = kc.KroneckerMatrix(found.factors).to_dense()
    assert relative_error(near, whole) <= 1 + 1e-12
    # The residual is orthogonal to what was found.
    assert abs(np.vdot(near, whole - near)) <= 1e-5 * np.linalg.norm(whole) ** 2


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_definite_sum_of_indefinite_terms_gives_a_positive_definite_product(dtype, order):
    """I + 0.9 S, with S of eigenvalues 1 and -1 and orthogonal to I, whose largest term is given to be S."""
    rng, sides = np.random.default_rng(0), (2, 4, 2)[:order]
    signed = []
    for side in sides:
        unitary = np.linalg.eigh(positive(rng, side, dtype))[1]
        signed.append((unitary * np.where(np.arange(side) % 2, -1.0, 1.0)) @ unitary.conj().T)
    half = [0.5 * np.eye(sides[0]), *(np.eye(side) for side in sides[1:])]
    matrix = kc.KroneckerMatrix.from_terms([half, [0.9 * signed[0], *signed[1:]], half])
    found = nearest_rank_one(matrix)
    assert np.abs(found.to_dense() - np.eye(np.prod(sides))).max() < 1e-12


def test_skew_factors_of_a_symmetric_matrix():
    skew = np.array([[0.0, 1.0], [-1.0, 0.0]])
    matrix = kc.KroneckerMatrix.from_terms([[skew, skew], [0.0 * skew, skew]])
    found = nearest_rank_one(matrix)
    assert is_hermitian_matrix(found)
    assert np.allclose(found.to_dense(), matrix.to_dense())


def test_matrices_that_vanish():
    matrix = kc.KroneckerMatrix.random((6, 4), order=2, rank=2, rng=0)
    for zero in (matrix * 0, matrix - matrix):
        assert nearest_rank_one(zero).rank == 1
        assert np.abs(nearest_rank_one(zero).to_dense()).max() < 1e-15


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_short_dtypes_are_kept(dtype):
    matrix = positive_sum(0, (2, 3), 2, "float64").astype(dtype)
    found = nearest_rank_one(matrix)
    assert found.dtype == matrix.dtype
    assert is_hermitian_matrix(found)
    expected = two_factor_optimum(matrix.to_dense().astype("float64"), (2, 3), (2, 3), 1)
    assert (
        abs(
            relative_error(found.to_dense().astype("float64"), matrix.to_dense().astype("float64")) - expected
        )
        < 2e-3
    )
