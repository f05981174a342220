"""Products and sums of Kronecker matrices, split alike or not, whole or cropped, against dense arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore import Ket, KroneckerMatrix, eye
from ketcore.objects.alignment import common_groups
from ketcore.testing import assert_dense_equal, kets
from tests.algebra_problems import (
    TERMS,
    common_splits,
    cropped,
    dense,
    factor_pairs,
    magnitude,
    matrix_of,
    outer_dims,
)


def check_product(pair):
    a, b = pair
    found = a @ b
    assert isinstance(found, KroneckerMatrix)
    assert found.shape == (a.shape[0], b.shape[1])
    scale = magnitude(a) @ magnitude(b)
    assert_dense_equal(found.to_dense(), dense(a) @ dense(b), terms=TERMS, scale=scale)


@given(factor_pairs())
def test_a_product_of_matrices(pair):
    check_product(pair)
    a, b = pair
    assert (a @ b).dtype == np.result_type(a.dtype, b.dtype)
    if a.col_dims == b.row_dims and a.shape[1] == np.prod(a.col_dims):
        assert (a @ b).rank == a.rank * b.rank
        assert ((a @ b).row_dims, (a @ b).col_dims) == (a.row_dims, b.col_dims)


def test_a_product_on_every_backend(xp):
    xp.check(factor_pairs(xp.asarray, ["float32", "float64", "complex64"]), check_product)


@st.composite
def summands(draw):
    """Two matrices of one shape whose dims split at common places."""
    rows, others = draw(common_splits(max_groups=2))
    columns = draw(outer_dims(len(rows)))
    sizes = list(zip(rows, columns, strict=True))
    # The other side merges the modes that common_splits merged, in both axes.
    groups = common_groups([(p,) for p in rows], [(p,) for p in others])
    pairs = ([], [])
    for mine, theirs in groups:
        merged = tuple(int(np.prod([sizes[n][axis] for n in mine])) for axis in (0, 1))
        if len(theirs) == 1:
            pairs[0].extend(sizes[n] for n in mine)
            pairs[1].append(merged)
        else:
            split = [(others[n], 1) for n in theirs[:-1]] + [(others[theirs[-1]], merged[1])]
            pairs[0].append(merged)
            pairs[1].extend(split)
    shape = draw(cropped(int(np.prod(rows)))), draw(cropped(int(np.prod(columns))))
    names = ["float32", "float64", "complex128"]
    factors = [draw(matrix_of(*zip(*p, strict=True), draw(st.sampled_from(names)))) for p in pairs]
    return [KroneckerMatrix(f, shape) for f in factors]


@given(summands())
def test_sums_of_matrices_that_are_split_differently(pair):
    a, b = pair
    scale = magnitude(a) + magnitude(b)
    assert (a + b).rank == a.rank + b.rank
    assert_dense_equal((a + b).to_dense(), dense(a) + dense(b), terms=TERMS, scale=scale)
    assert_dense_equal((a - b).to_dense(), dense(a) - dense(b), terms=TERMS, scale=scale)


def test_leading_dims_beyond_a_crop_do_not_count():
    """12 of 4 x 3 and 10 of 5 x 3 and of 12 have the first ten numbers in common."""
    rng = np.random.default_rng(0)
    shapes = [((4, 3), (10, 2)), ((5, 3), (10, 2)), ((12,), (10, 2)), ((7, 4, 3), (10, 2))]
    found = []
    for dims, shape in shapes:
        factors = [rng.standard_normal((2, p, 2 if n == 0 else 1)) for n, p in enumerate(dims)]
        found.append(KroneckerMatrix(factors, shape))
    for a in found:
        for b in found:
            np.testing.assert_allclose((a + b).to_dense(), dense(a) + dense(b), atol=1e-12)
            np.testing.assert_allclose((a.T @ b).to_dense(), dense(a).T @ dense(b), atol=1e-12)


def test_digits_that_no_number_below_a_crop_has_do_not_count():
    rng = np.random.default_rng(0)
    splits = ((7, 3, 4, 3), (5, 2, 2, 2, 3))
    left, right = ([rng.standard_normal((1, p, 1)) for p in dims] for dims in splits)
    a, b = KroneckerMatrix(left, (11, 1)), KroneckerMatrix(right, (11, 1))
    np.testing.assert_allclose((a.T @ b).to_dense(), dense(a).T @ dense(b), atol=1e-12)
    a, b = KroneckerMatrix(left, (11, 1)), KroneckerMatrix([np.ones_like(f) for f in right], (11, 1))
    np.testing.assert_allclose((a + b).to_dense(), dense(a) + 1)


@st.composite
def ket_problems(draw, asarray=np.asarray, names=("float32", "float64", "complex128")):
    """A matrix and a batch of kets that it applies to."""
    left, right = draw(common_splits())
    outer, dtype = draw(outer_dims(len(left))), draw(st.sampled_from(names))
    columns = int(np.prod(left))
    matrix = KroneckerMatrix(
        draw(matrix_of(outer, left, dtype, asarray=asarray)), (int(np.prod(outer)), columns)
    )
    return matrix, draw(kets(dims=right, dtype=draw(st.sampled_from(names)), asarray=asarray))


def check_ket(problem):
    a, v = problem
    found = a @ v
    assert isinstance(found, Ket)
    assert (found.batch_shape, found.rank) == (v.batch_shape, a.rank * v.rank)
    scale = magnitude(v) @ magnitude(a).T
    assert_dense_equal(found.to_dense(), dense(v) @ dense(a).T, terms=TERMS, scale=scale)


@given(ket_problems())
def test_a_matrix_applies_to_kets(problem):
    check_ket(problem)


def test_a_matrix_applies_to_kets_on_every_backend(xp):
    xp.check(ket_problems(xp.asarray, ("float32",)), check_ket)


def test_cropped_columns_apply_to_kets():
    rng = np.random.default_rng(0)
    a = KroneckerMatrix([rng.standard_normal((2, 2, 3)), rng.standard_normal((2, 2, 4))], (4, 10))
    for dims in ((10,), (1, 10)):
        v = Ket.random(dims, rank=2, batch_shape=(3,), rng=0)
        np.testing.assert_allclose((a @ v).to_dense(), dense(v) @ dense(a).T)
    split = KroneckerMatrix([rng.standard_normal((2, 2, 6)), rng.standard_normal((2, 2, 2))], (4, 10))
    v = Ket.random((5, 2), rank=2, rng=0)
    np.testing.assert_allclose((split @ v).to_dense(), dense(v) @ dense(split).T)


def test_marks_of_identities():
    x = KroneckerMatrix([np.ones((2, 2)), np.eye(3), np.eye(2)], identities=[1, 2])
    assert (x @ x).identities == {1, 2}
    assert (x + x).identities == {1, 2}
    assert (x @ eye((6, 2))).identities == {1}
    assert (x @ eye((2, 6))).identities == {1}
    assert (eye((2, 6)) + eye((2, 3, 2))).identities == {0, 1}
    cut = KroneckerMatrix(x.factors, (12, 11), x.identities)
    assert (cut @ cut.T).identities == set()
    np.testing.assert_allclose((cut @ cut.T).to_dense(), dense(cut) @ dense(cut).T)
    cut = KroneckerMatrix([np.eye(7)], (6, 7), identities=[0])
    assert (eye((2, 3)) @ cut).identities == (cut.T @ eye((2, 3))).identities == set()


def test_half_precision_accumulates_in_float32():
    a = KroneckerMatrix([np.ones((1, 1, 4096), np.float16)])
    v = Ket([np.ones((1, 4096), np.float16)])
    assert ((a @ v).to_dense().tolist(), (a @ v).dtype) == ([4096.0], np.float16)
    assert float((a @ a.T)[0, 0]) == 4096.0
    # The square of 3e-5 is no float16; the sum of 4 of them times 6e4 is.
    small = KroneckerMatrix([np.full((1, 1, 2), 3e-5, np.float16)] * 2)
    large = KroneckerMatrix([np.full((1, 4, 1), 6e4, np.float16)])
    assert abs(float((small @ large)[0, 0]) / 2.16e-4 - 1) < 0.02


@pytest.mark.parametrize(
    ("left", "right", "groups"),
    [
        ([(2,), (3,)], [(2,), (3,)], [((0,), (0,)), ((1,), (1,))]),
        ([(2,), (3,)], [(6,)], [((0, 1), (0,))]),
        ([(4,), (3,), (2,)], [(2,), (2,), (6,)], [((0,), (0, 1)), ((1, 2), (2,))]),
        ([(1,), (2,)], [(2,)], [((0, 1), (0,))]),
        ([(2,), (1,)], [(2,), (1,), (1,)], [((0, 1), (0, 1, 2))]),
        ([(1,)], [(1,), (1,)], [((0,), (0, 1))]),
        ([(4,), (1,)], [(2,), (2,)], [((0, 1), (0, 1))]),
        ([(2,), (3,)], [(3,), (2,)], None),
        ([(2, 1), (3, 2)], [(6, 2)], [((0, 1), (0,))]),
        ([(2, 3), (3, 2)], [(3, 3), (2, 2)], None),
        # The leading modes of a cropped axis need not have one product.
        ([(5,), (3,)], [(4,), (3,)], [((0,), (0,)), ((1,), (1,))]),
    ],
)
def test_groups(left, right, groups):
    found = common_groups(left, right)
    assert (found and [(tuple(a), tuple(b)) for a, b in found]) == groups


def test_what_has_no_common_split_is_refused():
    a, b = eye((2, 3)), eye((3, 2))
    for operation, dims in ((lambda: a @ b, r"\(2, 3\) and \(3, 2\)"), (lambda: a.T @ b, r"\(2, 3\)")):
        message = r"operands must have inner dims that split at common places \(kron_matmul takes a dense"
        with pytest.raises(ValueError, match=message + rf" operand\), got {dims}"):
            operation()
    with pytest.raises(ValueError, match=r"operands must have inner dims .* got \(2, 3\) and \(3, 2\)"):
        a @ Ket.random((3, 2), rng=0)
    message = (
        r"matrices must have dims \(p_n, q_n\) that split at common places .* got \[\(2, 2\), \(3, 3\)\]"
    )
    with pytest.raises(ValueError, match=message):
        a + b


def test_what_does_not_fit_is_refused():
    a = KroneckerMatrix([np.ones((2, 3)), np.ones((3, 2))])
    cut = KroneckerMatrix(a.factors, (5, 6))
    for operation, message in (
        (
            lambda: a @ cut,
            r"matrices must have shapes \(m, k\) and \(k, n\) for @, got \(6, 6\) and \(5, 6\)",
        ),
        (lambda: a + cut, r"matrices must have equal shapes to be added, got \(6, 6\) and \(5, 6\)"),
        (lambda: a @ Ket.random((5,), rng=0), r"ket must have length 6 for @, got shape \(5,\)"),
        (
            lambda: cut @ Ket.random((3, 2), rng=0),
            r"matrix must not have cropped rows for @ with a ket, got 5 of 6",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            operation()
