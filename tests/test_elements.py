"""The strategies draw simple, generic, huge and tiny values; failing tests shrink to matrices of 0 and 1."""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from ketcore import testing
from ketcore.testing import assert_dense_equal
from ketcore.testing.elements import huge_exponent

QUIET = settings(
    max_examples=300,
    database=None,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


def product(factors):
    dense = sum(np.kron(a, b) for a, b in zip(*factors, strict=True))
    return np.asarray(dense)


def test_a_product_that_does_not_commute_shrinks_to_unit_vectors():
    pairs = testing.factors(order=2, dtype="float64")
    a, b = find(pairs, lambda f: not np.array_equal(product(f), product(f[::-1])), settings=QUIET)
    assert a.size == b.size == 2
    assert {*a.flat, *b.flat} == {0.0, 1.0}


def test_a_matrix_that_is_not_symmetric_shrinks_to_one_entry():
    matrices = testing.kronecker_matrices(dtype="float64", cropped=False)

    def wrong(matrix):
        dense = matrix.to_dense()
        return dense.shape[0] == dense.shape[1] and not np.array_equal(dense, dense.T)

    found = find(matrices, wrong, settings=QUIET)
    assert found.to_dense().shape == (2, 2)
    assert sorted(abs(found.to_dense()).flat) == [0, 0, 0, 1]


def test_a_lost_imaginary_part_shrinks_to_i():
    (found,) = find(testing.factors(order=1, dtype="complex64"), lambda f: f[0].imag.any(), settings=QUIET)
    assert found.tolist() == [[[1j]]]


def test_a_large_array_shrinks_to_ones():
    large = testing.arrays((40, 40), "float32")
    assert find(large, lambda a: a.any(), settings=QUIET).tolist() == np.ones((40, 40)).tolist()
    assert not find(large, lambda a: True, settings=QUIET).any()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64"])
def test_values_are_simple_generic_huge_and_tiny_and_products_finite(dtype):
    seen, order, huge = set(), 3, 2.0 ** huge_exponent(dtype, 3)

    @settings(max_examples=80, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(testing.factors(order=order, rank=1, dtype=dtype))
    def collect(factors):
        for factor in factors:
            assert factor.dtype == dtype
            seen.update(factor.real.ravel().tolist())
        largest = np.prod([np.abs(factor.astype("complex128")).max() for factor in factors])
        # Squares of products, of which some hundred are added up.
        assert largest**2 * 64 < float(np.finfo(dtype).max) or dtype == "float16"

    collect()
    assert {0.0, 1.0, -1.0, 2.0} <= seen
    assert max(seen) > huge
    assert min(map(abs, seen - {0.0})) < 1 / huge
    assert len(seen) > 200


def test_extreme_values_are_the_ends_of_the_range():
    seen = set()

    @settings(max_examples=100, derandomize=True, database=None)
    @given(testing.arrays((4, 4), "float32", elements="extreme"))
    def collect(array):
        assert np.isfinite(array).all()
        seen.update(array.ravel().tolist())

    collect()
    ends = np.finfo(np.float32)
    assert {0.0, 1.0, float(ends.smallest_normal), float(ends.smallest_subnormal)} <= seen
    assert max(seen) > 0.99 * float(ends.max)


@settings(max_examples=10)
@given(st.data())
def test_elements_may_be_a_strategy_or_standard_normal(data):
    digits = data.draw(testing.factors(elements=st.integers(3, 5), dtype="complex64"))
    assert all(set(factor.ravel().tolist()) <= {3, 4, 5} for factor in digits)
    half = data.draw(testing.kets(elements=st.just(0.5), dtype=testing.half_dtypes()[-1], batch_shape=(2,)))
    assert (half.factors[0].astype("float32") == 0.5).all()
    normal = data.draw(testing.arrays((3, 50), "float64", elements="normal"))
    assert 0.5 < normal.std() < 1.5
    assert len(np.unique(normal)) == 150
    assert (data.draw(testing.arrays((3,), "int8")) >= 0).all()


def test_elements_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"^elements must be 'wide', 'normal', 'extreme' or .*, got 'ones'"):
        find(testing.arrays((2,), elements="ones"), lambda a: True, settings=QUIET)


@given(
    testing.kronecker_matrices(hermitian=True, max_dim=3), testing.factors(hermitian=True, col_dims=(2, 7))
)
def test_hermitian_factors(matrix, factors):
    assert matrix.shape[0] == matrix.shape[1]
    assert [factor.shape[1:] for factor in factors] == [(2, 2), (7, 7)]
    for factor in (*matrix.factors, *factors):
        assert np.array_equal(factor, factor.conj().swapaxes(1, 2))
    assert max(matrix.row_dims) <= 3
    dense = matrix.to_dense()
    assert_dense_equal(dense, dense.conj().T)


def test_hermitian_factors_must_be_square():
    message = r"^hermitian must be False unless factors are square, got row_dims \(2,\) and col_dims \(3,\)"
    with pytest.raises(ValueError, match=message):
        find(testing.factors(row_dims=(2,), col_dims=(3,), hermitian=True), lambda f: True, settings=QUIET)


def test_sizes_go_up_to_max_dim():
    seen = set()

    @settings(max_examples=60, derandomize=True, database=None)
    @given(testing.kronecker_matrices(max_dim=2), testing.kets(max_dim=70), testing.leaves(max_dim=2))
    def collect(matrix, ket, packed):
        assert max(*matrix.row_dims, *matrix.col_dims, *packed[1]) <= 2
        seen.update(ket.dims)

    collect()
    assert 64 < max(seen) <= 70


def test_a_failing_test_reports_the_factors_in_full():
    @QUIET
    @given(testing.kronecker_matrices(order=1, rank=1, dtype="float32"), testing.kets(dims=(1,), rank=1))
    def wrong(matrix, ket):
        assert matrix.rank == ket.order + 1

    with pytest.raises(AssertionError) as caught:
        wrong()
    notes = "\n".join(caught.value.__notes__)
    assert "KroneckerMatrix([[[[0.0]]]]), dtype float32" in notes
    assert "Ket([[[0.0]]]), dtype float32" in notes


def test_written_values_are_exact_and_long_ones_abridged():
    values = np.array([[0.1, 1 / 3], [1e-30, -2.0]], "float32")
    text = testing.values.written(values)
    assert text == "[[0.1, 0.33333334], [1e-30, -2.0]]"
    assert np.array_equal(np.array(eval(text), "float32"), values)
    assert len(testing.values.written(np.ones((50, 50)))) < 200
