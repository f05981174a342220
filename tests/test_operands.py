"""What is nearly an array, a number or a size: subclasses of NumPy's arrays, sparse operands, 2**70 rows."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import (
    Ket,
    KroneckerMatrix,
    KroneckerProduct,
    KroneckerSum,
    Permutation,
    eye,
    hadamard,
    kron_matmul,
)
from ketcore.testing import assert_dense_equal
from tests.algebra_problems import TERMS, common_splits, dense, magnitude, matrix_of, outer_dims

# NumPy announces the end of np.matrix wherever one is made.
pytestmark = pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 2)), RNG.standard_normal((3, 3))
OPERATORS = {
    "matrix": KroneckerMatrix([A, B]),
    "sum": KroneckerSum([A, B]),
    "product": KroneckerProduct([A, B]),
    "permutation": Permutation((2, 3), (1, 0)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_numpy_matrix_counts_as_an_array(name):
    operator, x = OPERATORS[name], np.matrix(RNG.standard_normal((6, 6)))
    a = operator.to_dense()
    for found, expected in ((operator @ x, a @ np.asarray(x)), (x @ operator, np.asarray(x) @ a)):
        assert type(found) is np.ndarray
        np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("make", [KroneckerMatrix, KroneckerSum, KroneckerProduct])
def test_numpy_matrices_as_factors(make):
    found, expected = make([np.matrix(A), np.matrix(B)]), make([A, B])
    assert_dense_equal(found.to_dense(), expected.to_dense())
    assert {type(f) for f in getattr(found, "factors", getattr(found, "parts", ()))} == {np.ndarray}


def test_numpy_matrices_and_memory_maps_in_functions(tmp_path):
    factors, x = [A[None], B[None]], np.matrix(np.ones((2, 6)))
    np.testing.assert_allclose(kron_matmul(factors, x), np.asarray(x) @ np.kron(A, B))
    mapped = np.memmap(tmp_path / "x", np.float64, "w+", shape=(2, 6))
    found = kron_matmul(factors, mapped)
    assert type(found) is np.ndarray
    assert not found.any()


@pytest.mark.parametrize("dtype", ["float64", "complex128", "float32"])
def test_narrow_factors_beside_a_wide_operand(dtype):
    """Terms are summed in the dtype of the result, also where no mode remains to promote them."""
    for dims in ((2, 4), (3, 1)), ((2, 2), (3, 3), (1, 2)):
        m = KroneckerMatrix([RNG.standard_normal((3, *d)).astype(np.float16) for d in dims])
        x, a = RNG.standard_normal((5, m.shape[0])).astype(dtype), dense(m)
        for found, expected in ((x @ m, x @ a), (m.T @ x.T, a.T @ x.T)):
            assert found.dtype == dtype
            assert_dense_equal(found, expected, terms=TERMS, scale=10.0)


MASKED = np.ma.masked_array(np.ones((6, 6)), np.eye(6))


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (lambda m: m @ MASKED, "x"),
        (lambda m: MASKED @ m, "x"),
        (lambda m: m.sandwich(MASKED, MASKED), "x"),
        (lambda m: kron_matmul(m.factors, MASKED), "x"),
        (lambda m: KroneckerMatrix([MASKED]), "factors"),
        (lambda m: KroneckerSum([MASKED]), "factors"),
        (lambda m: KroneckerProduct([MASKED]), r"parts\[0\]"),
        (lambda m: Ket([MASKED]), "factors"),
        (lambda m: KroneckerSum(m.factors[0]) @ MASKED[:2], "x"),
        (lambda m: Permutation((6,), (0,)) @ MASKED, "x"),
    ],
)
def test_masks_are_refused(operation, name):
    with pytest.raises(TypeError, match=f"^{name} must have no mask, got MaskedArray"):
        operation(OPERATORS["matrix"])


def test_ids_of_an_embedding_lookup():
    m = OPERATORS["matrix"]
    np.testing.assert_array_equal(m.rows(np.matrix([[0, 5]])), m.to_dense()[[[0, 5]]])
    with pytest.raises(TypeError, match="ids must have no mask, got MaskedArray"):
        m.rows(np.ma.masked_array([0, 5], [True, False]))


@pytest.mark.parametrize("name", OPERATORS)
def test_sparse_operands_are_refused_by_name(name):
    operator = OPERATORS[name]
    for x in (scipy.sparse.eye_array(6, format="csr"), scipy.sparse.eye(6)):
        with pytest.raises(TypeError, match=rf"^x must be dense, got {type(x).__name__}"):
            operator @ x
        # SciPy asks the operator to be an array before it asks the operator to multiply.
        with pytest.raises(TypeError, match=r"must be made dense by to_dense\(max_bytes=\)"):
            x @ operator


def test_sparse_factors_of_a_sum():
    s = KroneckerSum([scipy.sparse.csr_array(A), scipy.sparse.coo_matrix(B)])
    np.testing.assert_array_equal(s.to_dense(), KroneckerSum([A, B]).to_dense())
    with pytest.raises(TypeError, match=r"factors must be dense, got KroneckerMatrix \(see to_dense\)"):
        KroneckerSum([OPERATORS["matrix"]])


@pytest.mark.parametrize("name", ["matrix", "sum", "product"])
def test_what_is_no_number_does_not_scale(name):
    operator = OPERATORS[name]
    no_numbers = [
        np.str_("a"),
        np.datetime64("2020-01-01"),
        np.timedelta64(1, "s"),
        np.array("a"),
        np.array(None),
        np.array(1, "m8[s]"),
        Decimal(2),
    ]
    for value in no_numbers:
        for scale in (lambda v: operator * v, lambda v: v * operator, lambda v: operator / v):
            ways = r"unsupported operand|multiply seq|must be an array for np\.|must be a number beside"
            with pytest.raises(TypeError, match=ways):
                scale(value)
    for value in (2, np.float32(2.0), np.array(2.0), np.uint8(2), Fraction(2)):
        np.testing.assert_allclose((operator * value).to_dense(), 2 * operator.to_dense())


@given(st.data())
def test_sandwiches_of_kets_of_any_common_split(data):
    left, right = data.draw(common_splits())
    columns = data.draw(outer_dims(len(left)))
    m = KroneckerMatrix(data.draw(matrix_of(left, columns, "float64")))
    x, y = Ket.random(right, 2, (3,), rng=0), Ket.random(columns, 2, rng=1)
    expected = dense(x) @ (dense(m) @ dense(y))
    scale = magnitude(x) @ (magnitude(m) @ magnitude(y))
    assert_dense_equal(m.sandwich(x, y), expected, terms=TERMS, scale=scale)


def test_sandwiches_of_kets_without_a_common_split():
    m, y = eye((2, 3)), Ket.random((2, 3), rng=0)
    message = r"kets must have dims that split at common places, got \(3, 2\) and \(2, 3\)"
    with pytest.raises(ValueError, match=message):
        m.sandwich(Ket.random((3, 2), rng=0), y)
    with pytest.raises(ValueError, match=r"x must have length 6, got shape \(5,\)"):
        m.sandwich(Ket.random((5,), rng=0), y)


@pytest.mark.parametrize(
    ("identities", "error", "message"),
    [
        ([0.0], TypeError, "identities must be ints, got 0.0"),
        ([True], TypeError, "identities must be ints, got True"),
        (["a"], TypeError, "identities must be ints, got 'a'"),
        ([[0.0]], TypeError, "identities must be ints, got 0.0"),
        ([[[0]]], TypeError, r"identities must be ints, got \[0\]"),
        ([0, [0]], TypeError, r"identities must be ints, got \[0\]"),
        (
            [[0], [0]],
            ValueError,
            "identities must be modes, or one collection of modes for each of 1 terms, got 2 collections",
        ),
        ([[2]], ValueError, r"identities must be modes in \[0, 2\), got 2"),
        ([{1}], ValueError, r"identities must be modes of square factors, got 1 of shape \(2, 3\)"),
        ([-1], ValueError, r"identities must be modes in \[0, 2\), got -1"),
        ([2], ValueError, r"identities must be modes in \[0, 2\), got 2"),
        (0, TypeError, "identities must be a sequence, got int"),
        ([1], ValueError, r"identities must be modes of square factors, got 1 of shape \(2, 3\)"),
    ],
)
def test_marks_that_are_none(identities, error, message):
    factors = [np.eye(2)[None], np.ones((1, 2, 3))]
    for make in (
        lambda: KroneckerMatrix(factors, identities=identities),
        lambda: kron_matmul(factors, np.ones(4), identities=identities),
    ):
        if identities != 0:
            with pytest.raises(error, match=message):
                make()
    with pytest.raises(error, match=message):
        KroneckerMatrix(factors, identities=identities)
    marks = KroneckerMatrix(factors, identities=np.array([0])).identities
    assert [type(n) for n in marks] == [int]


def test_dims_of_an_identity_are_checked():
    for dims in ((2, (3,)), ((2, 3),), "ab", None, 2.0):
        with pytest.raises(TypeError, match="dims must be a sequence of ints, got"):
            eye(dims)


def test_more_rows_than_int64_counts():
    m = eye((2,) * 70)
    size = 2**70
    assert m.shape == (size, size)
    assert (float(m.trace()), float(m.norm()), float((m @ m).sum())) == (size, 2.0**35, size)
    assert float(hadamard(m, m).trace()) == size
    assert float(m[2**62, 2**62]) == 1.0
    s = KroneckerSum([np.eye(3)] * 50)
    assert float(s.trace()) == pytest.approx(50 * 3.0**50)
    assert s.cost("matmul").flops > 2**63


@pytest.mark.parametrize("operator", [eye((2,) * 70), KroneckerSum([np.eye(2)] * 70)])
def test_a_diagonal_is_bounded(operator):
    with pytest.raises(MemoryError, match=r"max_bytes must be at least .* to hold the dense diagonal \("):
        operator.diagonal()
    with pytest.raises(MemoryError, match=r"max_bytes must be at least 48 .* diagonal .*, got 47"):
        eye((2, 3)).diagonal(max_bytes=47)
    assert eye((2, 3)).diagonal(48).tolist() == [1.0] * 6


def test_transposes_of_sparse_parts_are_views():
    part = scipy.sparse.random_array((50, 60), density=0.1, rng=0, format="csr")
    m = KroneckerProduct([part, np.ones((1, 2))])
    for turned in (m.T, m.H, m.conj()):
        assert np.shares_memory(turned.parts[0].data, part.data)
    np.testing.assert_allclose(m.H @ np.ones(50), np.ones(50) @ m.to_dense())


@pytest.mark.parametrize("name", OPERATORS)
def test_what_cannot_be_added_or_subtracted_says_so(name):
    operator, vector = OPERATORS[name], Ket([A[0], B[0]])
    for sign, call in (("\\+", lambda a, b: a + b), ("-", lambda a, b: a - b)):
        for own, other in ((operator, vector), (vector, operator), (operator, 2.0)):
            got = other if other == 2.0 else type(other).__name__
            message = (
                f"of a kind that {type(own).__name__} adds to beside {sign}, or .* to_dense\\(\\), got {got}"
            )
            with pytest.raises(TypeError, match=message):
                call(own, other)


def test_permutations_have_no_multiples():
    with pytest.raises(
        TypeError, match=r"a Permutation must go through to_dense\(\) for its multiples, got -1"
    ):
        assert -OPERATORS["permutation"]


@pytest.mark.parametrize("value", [kc.eye((2, 2)), kc.ket([1.0, 2.0], [3.0, 4.0])], ids=["matrix", "ket"])
def test_an_object_among_arrays_is_no_sequence(value):
    """It is the one that is refused, not the sequence that holds it."""
    kind, factors = type(value).__name__, [np.eye(2)[None]]
    for call, name in (
        (lambda: kc.ket_rows(value, [0], (2, 2)), "leaves"),
        (lambda: kc.kron_matmul(factors, value), "x"),
        (lambda: kc.kron_solve(factors, value), "b"),
        (lambda: kc.rows([*factors, value], [0]), "factors"),
        (lambda: kc.KroneckerMatrix([np.eye(2), value]), "factors"),
    ):
        with pytest.raises(TypeError, match=rf"^{name} must be dense, got {kind} \(see to_dense\)$"):
            call()
