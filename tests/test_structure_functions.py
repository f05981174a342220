"""Operators from operators, against their dense definitions."""

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
import ketcore.testing
from ketcore import Ket, KroneckerMatrix, KroneckerProduct, KroneckerSum, Permutation
from ketcore.testing import assert_dense_equal
from tests.algebra_problems import TERMS, dense, kron, magnitude, wide
from tests.generic import arrays, kets, kronecker_matrices

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


def test_kron_of_every_kind():
    m, s, a = (
        KroneckerMatrix([draw(2, 2, 3), draw(2, 2, 1)]),
        KroneckerSum([draw(2, 2), draw(2, 2)]),
        draw(2, 3),
    )
    found = kc.kron(m, a, s)
    assert (found.rank, found.order) == (4, 5)
    np.testing.assert_allclose(found.to_dense(), kron(dense(m), a, dense(s)))
    assert kc.kron(m) is m
    np.testing.assert_allclose(kc.kron(scipy.sparse.eye_array(2), a).to_dense(), np.kron(np.eye(2), a))
    v = Ket([draw(2, 2), draw(2, 3)])
    np.testing.assert_allclose(kc.kron(v, v).to_dense(), np.kron(dense(v), dense(v)))
    p = KroneckerProduct([kc.Identity(2), a])
    np.testing.assert_allclose(kc.kron(p, p).to_dense(), np.kron(dense(p), dense(p)))
    np.testing.assert_allclose(kc.kron_power(m, 2).to_dense(), np.kron(dense(m), dense(m)))
    np.testing.assert_allclose(kc.kron_power(a, 3).to_dense(), kron(a, a, a))
    assert kc.kron_power(v, 3).rank == 8


def test_kron_keeps_parts_what_they_are():
    a, sparse = draw(2, 3), scipy.sparse.csr_array([[0.0, 2.0]])
    kinds = [kc.Identity(2), kc.Diagonal([1.0, 2.0]), KroneckerProduct([a, kc.Identity(3)])]
    for first in kinds:
        found = kc.kron(a, sparse, first, [[1.0, 2.0]])
        assert isinstance(found, KroneckerProduct)
        alone = KroneckerProduct([first]) if first is not kinds[2] else first
        np.testing.assert_allclose(found.to_dense(), kron(a, sparse.toarray(), dense(alone), [[1.0, 2.0]]))
        assert found.parts[1] is sparse
    assert kc.kron_power(kc.Identity(2**20), 3).shape == (2**60, 2**60)
    for other in (kc.eye((2, 2)), KroneckerSum([a[:, :2]]), kc.swap((2, 3), 0, 1)):
        found = kc.kron(other, kc.Identity(2), a)
        assert found.parts[0] is other
        np.testing.assert_allclose(found.to_dense(), kron(other.to_dense(), np.eye(2), a))
    with pytest.raises(TypeError, match="matrices must be all of type Ket where one is, got a Ket beside op"):
        kc.kron(Ket([draw(2)]), kc.Identity(2))


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (lambda m: kc.kron(), ValueError, "matrices must hold at least one operator, got none"),
        (
            lambda m: kc.kron(m, np.ones(2)),
            ValueError,
            r"matrices\[1\] must be .* a matrix \(p, q\), got shape",
        ),
        (
            lambda m: kc.kron(m, np.eye(2).astype("U1")),
            TypeError,
            r"matrices\[1\] must have a numeric dtype, got <U1",
        ),
        (lambda m: kc.kron(m, Ket([np.ones(2)])), TypeError, "matrices must be all of type Ket where one is"),
        (lambda m: kc.kron_power(m, 0), ValueError, "k must be at least 1, got 0"),
        (lambda m: kc.kron_power(m, 1.5), TypeError, "k must be an int, got 1.5"),
        (
            lambda m: kc.khatri_rao(np.ones((2, 3)), np.ones((2, 2))),
            ValueError,
            r"matrices must be 2-D with equal numbers of columns, got shapes \[\(2, 3\), \(2, 2\)\]",
        ),
        (lambda m: kc.khatri_rao(), ValueError, "matrices must hold at least one array, got none"),
        (
            lambda m: kc.face_splitting(np.ones((2, 3)), np.ones((3, 3))),
            ValueError,
            r"matrices must be 2-D with equal numbers of rows, got shapes \[\(2, 3\), \(3, 3\)\]",
        ),
        (
            lambda m: kc.hadamard(m, 3),
            TypeError,
            "right must be a KroneckerMatrix, KroneckerSum or KroneckerProduct, got int",
        ),
        (
            lambda m: kc.hadamard(3, m),
            TypeError,
            "left must be a KroneckerMatrix, KroneckerSum or KroneckerProduct, got int",
        ),
        (
            lambda m: kc.hadamard(m, m.T),
            ValueError,
            r"matrices must have equal \(shape, row_dims, col_dims\), got \(\(6, 4\), \(2, 3\), .* and",
        ),
        (lambda m: kc.partial_trace(m, 2), ValueError, r"where must hold modes in \[-2, 2\), got 2"),
        (lambda m: kc.partial_trace(m, -3), ValueError, "where must be at least -2, got -3"),
        (lambda m: kc.partial_trace(m, (0, -2)), ValueError, r"where must hold no mode twice, got \(0, -2\)"),
        (lambda m: kc.partial_trace(m, 0.5), TypeError, "where must be an int, got 0.5"),
        (
            lambda m: kc.partial_trace(m, (0, 1)),
            ValueError,
            r"where must choose square modes, got \(0, 1\) of shapes \[\(2, 2\), \(3, 2\)\]",
        ),
        (
            lambda m: kc.partial_trace(m, 1),
            ValueError,
            r"where must choose square modes, got 1 of shapes \[\(3, 2\)\]",
        ),
        (
            lambda m: kc.partial_trace(KroneckerMatrix(m.factors, (5, 4)), 0),
            ValueError,
            r"matrix must not be cropped, got shape \(5, 4\) of \(6, 4\)",
        ),
        (
            lambda m: kc.partial_trace(np.eye(4), 0),
            TypeError,
            r"matrix must be a KroneckerMatrix, .* or Ket, got ndarray \(see embed\)",
        ),
        (
            lambda m: kc.permute_subsystems(m, (0,)),
            ValueError,
            r"order must hold each mode of 2 once, got \(0,\)",
        ),
        (
            lambda m: kc.permute_subsystems(m, (0, 0)),
            ValueError,
            r"order must hold no mode twice, got \(0, 0\)",
        ),
        (
            lambda m: kc.permute_subsystems(3, (0,)),
            TypeError,
            "operator must be a KroneckerMatrix, .* Permutation or Ket, got int",
        ),
        (
            lambda m: Permutation((2, 3), (0, 2)),
            ValueError,
            r"order must hold modes in \[-2, 2\), got 2",
        ),
        (
            lambda m: Permutation((2, 0), (0, 1)),
            ValueError,
            r"dims must be at least one int >= 1, got \(2, 0\)",
        ),
        (lambda m: kc.swap((2, 3), 0, 2), ValueError, r"j must hold modes in \[-2, 2\), got 2"),
        (lambda m: kc.commutation(0, 2), ValueError, "m must be at least 1, got 0"),
        (
            lambda m: kc.commutation(2, 2) @ np.ones(3),
            ValueError,
            r"x must have shape \(4,\), \(..., 4, n\) or \(..., 2, 2\) after @, got \(3,\)",
        ),
        (
            lambda m: np.ones(3) @ kc.commutation(2, 2),
            ValueError,
            r"x must have shape \(..., 4\) or .* before @",
        ),
        (
            lambda m: kc.commutation(2, 3) @ Ket([np.ones(6)]),
            ValueError,
            r"ket must have dims \(3, 2\), got \(6,\)",
        ),
        (
            lambda m: kc.commutation(2, 3) @ kc.commutation(2, 3),
            ValueError,
            r"permutations must have fitting dims for @, got \(3, 2\) after \(2, 3\)",
        ),
        (lambda m: kc.commutation(2, 3) @ m, TypeError, r"go through permute_subsystems\(A, order\), which"),
        (lambda m: m.T @ kc.commutation(2, 3), TypeError, "permute_subsystems.*, got Permutation"),
        (
            lambda m: kc.commutation(9, 9).to_dense(81 * 81 * 8 - 1),
            MemoryError,
            r"max_bytes must be at least 52488 .* dense \(81, 81\) array of float64, got 52487",
        ),
        (
            lambda m: np.asarray(kc.commutation(2, 2)),
            TypeError,
            "a Permutation must be made dense by to_dense",
        ),
        (
            lambda m: kc.embed(np.eye(3), (2, 2), 0),
            ValueError,
            r"op must have shape \(2, 2\) for modes \(2,\)",
        ),
        (
            lambda m: kc.embed(np.eye(4), (2, 2), ()),
            ValueError,
            "where must hold at least one mode, got none",
        ),
        (
            lambda m: kc.embed(np.eye(4), (2, 2), (0, 2)),
            ValueError,
            r"where must hold modes in \[-2, 2\), got",
        ),
        (
            lambda m: kc.embed(np.full((4, 4), np.nan), (2, 2), (0, 1)),
            ValueError,
            "op must be finite to be split into several modes, got nan or infinite elements",
        ),
        (
            lambda m: kc.commutation(2, 3).to_dense(like=3),
            TypeError,
            "like must be an array, got int",
        ),
        (
            lambda m: kc.embed(m, (2, 3), (0, 1)),
            ValueError,
            r"op must have row_dims and col_dims \(2, 3\) and no crop, got \(2, 3\) and \(2, 2\) of shape",
        ),
        (
            lambda m: kc.embed(np.eye(2).astype("U1"), (2,), 0),
            TypeError,
            "op must have a numeric dtype, got <U1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(operation, error, message):
    with pytest.raises(error, match=message):
        operation(KroneckerMatrix([np.ones((2, 2)), np.ones((3, 2))]))


@st.composite
def matrices_of(draw, axis, asarray=np.asarray, names=("float32", "complex128")):
    """Two or three matrices with one number of rows (axis 0) or columns (axis 1)."""
    count = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    shapes = [(count, size)[:: 1 - 2 * axis] for size in sizes]
    dtype = draw(st.sampled_from(names))
    return [asarray(draw(arrays(shape, dtype))) for shape in shapes]


def check_khatri_rao(matrices):
    found = kc.khatri_rao(*matrices)
    K = scipy_khatri_rao([wide(m) for m in matrices])
    assert_dense_equal(found.to_dense(), K.T, terms=TERMS, dtype=matrices[0].dtype)
    x, c = np.ones((len(K), 2)), np.arange(1.0, K.shape[1] + 1)
    like = lambda a: kc.testing.from_numpy(a, matrices[0])  # noqa: E731
    assert_dense_equal(found.contract(like(x)), K.T @ x, terms=TERMS, scale=100.0)
    assert_dense_equal(found.combine(like(c)).to_dense(), K @ c, terms=TERMS, scale=100.0)


def scipy_khatri_rao(matrices):
    found = matrices[0]
    for matrix in matrices[1:]:
        found = scipy.linalg.khatri_rao(found, matrix)
    return found


@given(matrices_of(1))
def test_khatri_rao(matrices):
    check_khatri_rao(matrices)


@given(matrices_of(0))
def test_face_splitting(matrices):
    found = kc.face_splitting(*matrices)
    F = np.stack([kron(*(wide(m)[r] for m in matrices)) for r in range(len(matrices[0]))])
    assert_dense_equal(found.to_dense(), F, terms=TERMS, dtype=matrices[0].dtype)
    x, c = RNG.standard_normal(F.shape[1]), RNG.standard_normal(F.shape[0])
    assert_dense_equal(found.contract(x), F @ x, terms=TERMS, scale=100.0)
    assert_dense_equal(found.combine(c).to_dense(), F.T @ c, terms=TERMS, scale=100.0)


def test_khatri_rao_on_every_backend(xp):
    xp.check(matrices_of(1, xp.asarray, ("float32",)), check_khatri_rao)


@given(kets())
def test_contractions_of_kets(v):
    x = RNG.standard_normal((v.shape[-1], 2))
    a, scale = dense(v), magnitude(v) @ abs(x)
    assert_dense_equal(v.contract(x), a @ x, terms=TERMS, scale=scale if scale.size else None)
    assert_dense_equal(v.contract(x[:, 0]), a @ x[:, 0], terms=TERMS, scale=100.0)
    weights = RNG.standard_normal(v.batch_shape)
    flat = np.tensordot(weights, a, axes=weights.ndim)
    assert_dense_equal(v.combine(weights).to_dense(), flat, terms=TERMS, scale=1000.0)


def test_contractions_refuse():
    v = Ket.random((2, 3), 2, (4,), rng=0)
    with pytest.raises(ValueError, match=r"x must have shape \(6,\), \(6, n\) or \(2, 3\), got \(5,\)"):
        v.contract(np.ones(5))
    with pytest.raises(ValueError, match=r"weights must have the batch shape \(4,\), got \(3,\)"):
        v.combine(np.ones(3))


def test_marks_of_hadamard_products():
    m = KroneckerMatrix([np.eye(2), np.eye(2), np.eye(3)], identities=[0, 2])
    other = KroneckerMatrix([np.eye(2), np.eye(2), np.ones((3, 3))], identities=[0, 1])
    assert kc.hadamard(m, other).identities == {0}


@given(kronecker_matrices(), st.integers(1, 2))
def test_hadamard(m, rank):
    factors = [RNG.standard_normal((rank, *f.shape[1:])) for f in m.factors]
    other = KroneckerMatrix(factors, m.shape)
    found = kc.hadamard(m, other)
    assert found.rank == m.rank * rank
    assert_dense_equal(
        found.to_dense(), dense(m) * dense(other), terms=TERMS, scale=magnitude(m) * magnitude(other) + 1e-30
    )
