"""Orders of words in which similar ones share digits, and fits of tables in another order."""

from math import prod

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import ketcore as kc
from ketcore import nearest_kronecker, vocabulary_permutation

RNG = np.random.default_rng


def draw(*shape, dtype="float64", seed=0):
    return RNG(seed).standard_normal(shape).astype(dtype)


def relative(matrix, table):
    return np.linalg.norm(matrix - table) / np.linalg.norm(table)


@st.composite
def problems(draw):
    dims = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    words = draw(st.integers(1, prod(dims)))
    values = RNG(draw(st.integers(0, 5))).integers(-3, 4, (words, draw(st.integers(1, 40))))
    weights = draw(st.none() | st.lists(st.floats(1e-300, 1e300), min_size=words, max_size=words))
    widths = draw(st.none() | st.lists(st.integers(1, 9), min_size=len(dims), max_size=len(dims)))
    return values.astype(draw(st.sampled_from(["float16", "float32", "float64"]))), dims, weights, widths


@given(problems())
def test_it_is_a_permutation_and_the_same_each_time(problem):
    table, dims, weights, widths = problem
    found = vocabulary_permutation(table, dims, weights, col_dims=widths)
    assert found.dtype == np.intp
    assert np.array_equal(np.sort(found), np.arange(len(table)))
    assert np.array_equal(found, vocabulary_permutation(table, dims, weights, col_dims=widths))


def test_it_is_that_of_the_same_numbers_in_any_form(xp, tmp_path):
    # More columns than components, and more words than a sample.
    table = draw(1500, 50, dtype="float32")
    expected = vocabulary_permutation(table, (30, 50))
    table.tofile(tmp_path / "table")
    mapped = np.memmap(tmp_path / "table", "float32", "r", shape=table.shape)
    forms = [xp.asarray(table), mapped, scipy.sparse.csr_array(table), table.astype(">f4"), table[::-1][::-1]]
    for form in forms:
        assert np.array_equal(vocabulary_permutation(form, (30, 50)), expected)
    with_weights = vocabulary_permutation(xp.asarray(table), (30, 50), xp.asarray(np.full(1500, 3.0)))
    assert np.array_equal(with_weights, expected)


@pytest.mark.parametrize("power", [-900, -130, 90, 1000])
def test_it_does_not_depend_on_the_scale(power):
    table = draw(60, 4)
    found = vocabulary_permutation(table * 2.0**power, (6, 10))
    assert np.array_equal(found, vocabulary_permutation(table, (6, 10)))


def test_parts_of_complex_numbers_count_alike():
    table = draw(60, 8)
    found = vocabulary_permutation(table.view("complex128"), (6, 10))
    assert np.array_equal(found, vocabulary_permutation(table, (6, 10)))


@pytest.mark.parametrize(
    ("row_dims", "col_dims"), [((12, 25), (2, 6)), ((25, 12), (6, 2)), ((25, 12), (4, 3))]
)
def test_groups_of_similar_words_share_the_digit_of_the_mode_with_most_columns(row_dims, col_dims):
    wide = int(np.argmax(col_dims))
    means, groups = draw(25, 12), RNG(1).permutation(np.arange(300) % 25)
    table = means[groups] + 1e-3 * draw(300, 12, seed=2)
    digit = kc.digits(vocabulary_permutation(table, row_dims, col_dims=col_dims), row_dims)[wide]
    assert len(set(zip(groups, digit, strict=True))) == 25


@pytest.mark.parametrize("words", [600, 590])
def test_a_shuffled_table_comes_back(words):
    # Groups with means, and words that lie along a line in each.  The lines are symmetric: their ends are not
    # told apart.
    means, lines, steps = 9 * draw(20, 8), draw(20, 8, seed=1), np.linspace(-1, 1, 30)
    table = (means + steps[:, None, None] * lines).reshape(600, 8)[:words]
    shuffled = RNG(3).permutation(table)
    permutation = vocabulary_permutation(shuffled, (30, 20))
    given, found = (
        nearest_kronecker(shuffled, (30, 20), (1, 8), 2, permutation=p, rng=0, restarts=0)
        for p in (None, permutation)
    )
    assert given.error > 0.5
    assert found.error < (1e-12 if words == 600 else given.error / 3)
    assert found.value.shape == table.shape
    assert np.isclose(relative(found.value.to_dense()[permutation], shuffled), found.error, atol=1e-12)


def test_words_of_large_weight_are_told_apart():
    # Two directions, of which the narrow one has the weight.
    table = draw(400, 2) * [3.0, 1.0]
    heavy = np.abs(table[:, 0]) < 1
    weights = np.where(heavy, 1e4, 1.0)
    low = [vocabulary_permutation(table, (200, 2), w) % 2 for w in (None, weights)]
    gaps = [abs(np.diff([table[heavy & (digit == d), 1].mean() for d in (0, 1)])[0]) for digit in low]
    assert gaps[1] > gaps[0] + 1


def kinds(table, tmp_path, xp):
    table.tofile(tmp_path / "table")
    yield xp.asarray(table)
    yield np.memmap(tmp_path / "table", table.dtype, "r", shape=table.shape)
    yield scipy.sparse.csr_array(table)
    yield aslinearoperator(table)
    yield table.tolist()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("row_dims", [(4, 6), (5, 5), (2, 3, 4)])
def test_a_fit_in_another_order_is_that_of_the_moved_table(row_dims, weighted, tmp_path, xp):
    words = 24
    table, permutation = draw(words, 6), RNG(5).permutation(words)
    weights = RNG(6).uniform(0, 1, words) if weighted else None
    moved, moved_weights = np.empty_like(table), None if weights is None else np.empty(words)
    moved[permutation] = table
    if weighted:
        moved_weights[permutation] = weights
    col_dims = (2, 3) if len(row_dims) == 2 else (1, 2, 3)
    options = {"restarts": 0, "rng": 0, "iterations": 20}
    expected = nearest_kronecker(moved, row_dims, col_dims, 2, weights=moved_weights, **options)
    options |= {"weights": weights, "permutation": xp.asarray(permutation)}
    for kind in kinds(table, tmp_path, xp):
        found = nearest_kronecker(kind, row_dims, col_dims, 2, **options)
        assert np.isclose(found.error, expected.error)
        assert np.allclose(np.asarray(found.value.to_dense()), expected.value.to_dense(), atol=1e-9)


def test_rows_of_kronecker_matrices_are_moved_too():
    matrix = kc.KroneckerMatrix.random((24, 6), row_dims=(4, 6), col_dims=(2, 3), rank=2, rng=0)
    permutation = RNG(0).permutation(24)
    found = kc.from_dense(matrix, rank=5, row_dims=(4, 6), col_dims=(2, 3), permutation=permutation)
    expected = nearest_kronecker(matrix.to_dense(), (4, 6), (2, 3), 5, permutation=permutation)
    assert np.isclose(found.error, expected.error)


def test_a_large_table_is_read_by_blocks_in_its_new_order(tmp_path):
    permutation = RNG(0).permutation(1100)
    table = np.kron(draw(20, 10), draw(55, 100)).astype("float32")[permutation]
    table.tofile(tmp_path / "table")
    mapped = np.memmap(tmp_path / "table", "float32", "r", shape=table.shape)
    assert nearest_kronecker(mapped, (20, 55), (10, 100), 1, permutation=permutation, rng=0).error < 1e-5


def test_few_words_and_dims_beyond_them():
    for dims in ((1,), (7,), (1, 7), (3, 2), (2**40, 2**40), (2**62, 1, 2)):
        for words in (1, 2):
            if prod(dims) >= words:
                found = vocabulary_permutation(draw(words, 3), dims)
                assert sorted(found) == list(range(words))


def test_equal_words_take_any_place():
    assert sorted(vocabulary_permutation(np.ones((10, 3)), (3, 4))) == list(range(10))
    assert sorted(vocabulary_permutation(np.zeros((3000, 3)), (60, 50))) == list(range(3000))


TABLE = np.ones((4, 2))


def with_nan(row):
    table = np.zeros((5000, 70), "float32")
    table[row, 3] = np.nan
    return table


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        ((with_nan(4321), (50, 100)), ValueError, "table must hold finite values, got nan in row 4321"),
        ((-np.inf * TABLE, (4,)), ValueError, "table must hold finite values, got -inf in row 0"),
        ((TABLE, (3, 1)), ValueError, r"row_dims must have a product of at least 4, got \(3, 1\)"),
        ((TABLE[:0], (2, 2)), ValueError, "table must be a matrix of at least one row and one column, got"),
        ((TABLE[0], (2, 2)), ValueError, r"table must be a matrix .*, got shape \(2,\)"),
        ((TABLE, (2, 0)), ValueError, "row_dims must"),
        ((TABLE, 4), TypeError, "row_dims must"),
        ((TABLE, (2, 2), [1, 2, 3]), ValueError, r"weights must have shape \(4,\), got \(3,\)"),
        ((TABLE, (2, 2), [1, 2, 0, 3]), ValueError, "weights must be finite and above 0, got 0.0 for row 2"),
        ((TABLE, (2, 2), [1, 2, 3, -1.5]), ValueError, "weights must be .* above 0, got -1.5 for row 3"),
        ((TABLE, (2, 2), [np.nan, 1, 1, 1]), ValueError, "weights must be finite .*, got nan for row 0"),
        ((TABLE, (2, 2), [1j] * 4), TypeError, "weights must be real numbers, got complex128"),
        (("words", (2, 2)), TypeError, "table must be"),
        ((np.array([["a"]]), (2, 2)), TypeError, "table must have"),
    ],
)
def test_what_is_wrong_is_named(call, error, text):
    with pytest.raises(error, match=text):
        vocabulary_permutation(*call)


def test_wrong_columns_are_named():
    with pytest.raises(
        ValueError, match=r"row_dims and col_dims must have one length, got \(2, 2\) and \(2,\)"
    ):
        vocabulary_permutation(TABLE, (2, 2), col_dims=(2,))


@pytest.mark.parametrize(
    ("permutation", "error", "text"),
    [
        ([0, 1, 2], ValueError, r"permutation must have shape \(4,\), got \(3,\)"),
        ([[0, 1, 2, 3]], ValueError, r"permutation must have shape \(4,\), got \(1, 4\)"),
        ([0, 1, 2, 2.0], TypeError, "permutation must have an integer dtype, got float64"),
        ([True, False, True, True], TypeError, "permutation must have an integer dtype, got bool"),
        ([0, 1, 2, 4], ValueError, "permutation must hold every number below 4 once, got 4"),
        ([0, 1, 2, -1], ValueError, "permutation must hold every number below 4 once, got -1"),
        (
            np.array([0, 1, 2, 2**63], "uint64"),
            ValueError,
            "permutation must hold every number below 4 once, got 9223372036854775808",
        ),
        ([0, 3, 3, 2], ValueError, "permutation must hold every number below 4 once, got 3 more than once"),
        ("0123", TypeError, "permutation must"),
    ],
)
def test_what_is_no_permutation_is_named(permutation, error, text):
    with pytest.raises(error, match=text):
        nearest_kronecker(TABLE, (2, 2), (1, 2), 1, permutation=permutation)
