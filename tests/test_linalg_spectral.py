"""Spectra and triangular factorisations against NumPy on the dense matrix, and by their definitions."""

import numpy as np
import pytest
from hypothesis import given

import ketcore as kc
from ketcore import linalg
from tests.linalg_problems import (
    CONDITION,
    dense,
    dense_sum,
    each_library,
    made,
    near,
    product_factors,
    same_multiset,
    values_of,
)

# Tolerance of eigenvalues of general matrices relative to those of Hermitian ones: their condition is drawn.
DEFECTIVE = {"f": 3e-3, "d": 1e-6, "F": 3e-3, "D": 1e-6}


def real(dtype):
    return np.zeros(0, dtype).real.dtype


def check_eigh(found, full, dtype):
    values, vectors = found
    w, v = values_of(values), values_of(vectors)
    near(np.sort(w), np.linalg.eigvalsh(full), dtype=real(dtype))
    near(v.conj().T @ v, np.eye(len(full)), dtype=dtype)
    near((v * w) @ v.conj().T, full, scale=CONDITION * max(np.abs(full).max(), 1.0))


@given(product_factors("hermitian"))
def test_eigh(factors):
    found = linalg.eigh(kc.KroneckerMatrix(factors))
    check_eigh(found, dense(factors), factors[0].dtype)
    assert (found.eigenvalues.rank, found.eigenvectors.rank) == (1, 1)
    near(linalg.eigvalsh(kc.KroneckerMatrix(factors)).to_dense(), found.eigenvalues.to_dense())


@given(product_factors("hermitian"))
def test_eigh_of_sums(factors):
    found = linalg.eigh(kc.KroneckerSum(factors))
    check_eigh(found, dense_sum(factors), factors[0].dtype)
    assert (found.eigenvalues.rank, found.eigenvectors.rank) == (len(factors), 1)
    near(linalg.eigvalsh(kc.KroneckerSum(factors)).to_dense(), found.eigenvalues.to_dense())


def test_eigh_of_factors_that_are_hermitian_but_for_phases():
    skew, pauli = np.array([[0.0, 1.0], [-1.0, 0.0]]), np.array([[0.0, -1j], [1j, 0.0]])
    check_eigh(linalg.eigh(kc.KroneckerMatrix([skew, skew])), np.kron(skew, skew), np.complex128)
    symmetric = np.array([[2.0, 1.0], [1.0, -1.0]])
    turned = [symmetric * np.exp(0.7j), pauli * np.exp(0.4j), symmetric * -np.exp(-1.1j)]
    check_eigh(linalg.eigh(kc.KroneckerMatrix(turned)), dense(turned), np.complex128)
    real_ones = linalg.eigh(kc.KroneckerMatrix([symmetric, symmetric]))
    assert real_ones.eigenvectors.dtype == np.float64


@given(product_factors())
def test_eig(factors):
    full, kind = dense(factors), factors[0].dtype.char
    for a, matrix in ((kc.KroneckerMatrix(factors), full), (kc.KroneckerSum(factors), dense_sum(factors))):
        values, vectors = linalg.eig(a)
        w, v = values_of(values), values_of(vectors)
        assert w.dtype == v.dtype == np.result_type(factors[0].dtype, np.complex64)
        near(matrix @ v, v * w, scale=CONDITION, like=v.dtype)
        near(np.linalg.norm(v, axis=0), np.ones(len(full)))
        same_multiset(w, np.linalg.eigvals(matrix), allowed=DEFECTIVE[kind] * CONDITION)
        same_multiset(linalg.eigvals(a).to_dense(), w, allowed=DEFECTIVE[kind])


@given(product_factors(square=False))
def test_svd(factors):
    full, dtype = dense(factors), factors[0].dtype
    u, s, vh = linalg.svd(kc.KroneckerMatrix(factors))
    left, values, right = (values_of(part) for part in (u, s, vh))
    near((left * values) @ right, full, dtype=dtype)
    near(left.conj().T @ left, np.eye(len(values)), dtype=dtype)
    near(right @ right.conj().T, np.eye(len(values)))
    expected = np.linalg.svd(full, compute_uv=False)
    near(np.sort(values)[::-1], expected[: len(values)], dtype=real(dtype))
    assert np.all(expected[len(values) :] < 1e-5)
    near(linalg.svdvals(kc.KroneckerMatrix(factors)).to_dense(), values)


def test_full_svd_where_the_first_factor_alone_is_rectangular():
    rng = np.random.default_rng(0)
    for shape in ((4, 2), (2, 4), (3, 3)):
        a = kc.KroneckerMatrix([rng.standard_normal(shape), rng.standard_normal((3, 3))])
        u, s, vh = linalg.svd(a, full_matrices=True)
        assert (u.shape, vh.shape) == ((a.shape[0],) * 2, (a.shape[1],) * 2)
        count = s.shape[0]
        near((u.to_dense()[:, :count] * s.to_dense()) @ vh.to_dense()[:count], a.to_dense())
    tall = kc.KroneckerMatrix([np.eye(2), np.ones((3, 2))])
    with pytest.raises(
        ValueError, match=r"full_matrices must be False where .*, got factors of shapes \[\(2, 2\)"
    ):
        linalg.svd(tall, full_matrices=True)


@given(product_factors(square=False))
def test_qr(factors):
    a, full, dtype = kc.KroneckerMatrix(factors), dense(factors), factors[0].dtype
    q, r = linalg.qr(a)
    left, right = q.to_dense(), r.to_dense()
    near(left @ right, full, dtype=dtype)
    near(left.conj().T @ left, np.eye(left.shape[1]), dtype=dtype)
    assert not np.tril(right, -1).any()
    near(linalg.qr(a, mode="r").to_dense(), right)


def test_full_qr_where_r_stays_triangular():
    rng = np.random.default_rng(0)
    a = kc.KroneckerMatrix([rng.standard_normal((4, 2)), rng.standard_normal((2, 3))])
    q, r = linalg.qr(a, mode="full")
    assert (q.shape, r.shape) == ((8, 8), (8, 6))
    near(q.to_dense() @ r.to_dense(), a.to_dense())
    assert not np.tril(r.to_dense(), -1).any()
    with pytest.raises(
        ValueError, match=r"mode must not be 'full' where .*, got factors of shapes \[\(2, 3\), \(4"
    ):
        linalg.qr(kc.KroneckerMatrix([np.ones((2, 3)), np.ones((4, 2))]), mode="full")
    with pytest.raises(ValueError, match=r"mode must be one of \('economic', 'full', 'r'\), got 'raw'"):
        linalg.qr(a, mode="raw")


@given(product_factors("positive"))
def test_cholesky(factors):
    a, full, dtype = kc.KroneckerMatrix(factors), dense(factors), factors[0].dtype
    near(linalg.cholesky(a, lower=True).to_dense(), np.linalg.cholesky(full), dtype=dtype)
    near(linalg.cholesky(a).to_dense(), np.linalg.cholesky(full).conj().T, dtype=dtype)


def test_cholesky_of_factors_that_are_definite_but_for_signs():
    positive = np.array([[2.0, 1.0], [1.0, 3.0]])
    full = np.kron(positive, positive)
    near(
        linalg.cholesky(kc.KroneckerMatrix([-positive, -positive]), lower=True).to_dense(),
        np.linalg.cholesky(full),
    )
    turned = kc.KroneckerMatrix([1j * positive, -1j * positive])
    near(linalg.cholesky(turned, lower=True).to_dense(), np.linalg.cholesky(full))
    for factors in (
        [-positive, positive],
        [positive, np.diag([1.0, -1.0])],
        [positive, np.ones((2, 2)) - np.eye(2)],
    ):
        with pytest.raises(np.linalg.LinAlgError, match="A must be positive definite, got "):
            linalg.cholesky(kc.KroneckerMatrix(factors))


@each_library
def test_other_libraries(xp):
    def body(factors):
        full, dtype = dense(factors), factors[0].dtype
        check_eigh(linalg.eigh(made(xp, factors)), full, dtype)
        u, s, vh = (values_of(part) for part in linalg.svd(made(xp, factors)))
        near((u * s) @ vh, full, dtype=dtype)
        q, r = (values_of(part) for part in linalg.qr(made(xp, factors)))
        near(q @ r, full, dtype=dtype)
        near(values_of(linalg.cholesky(made(xp, factors), lower=True)), np.linalg.cholesky(full), dtype=dtype)
        values, vectors = (values_of(part) for part in linalg.eig(made(xp, factors)))
        near(full @ vectors, vectors * values, scale=CONDITION, like=dtype)

    xp.check(product_factors("positive"), body)


def test_half_precision_is_computed_in_float32():
    factors = [np.array([[2.0, 1.0], [1.0, 3.0]], np.float16)] * 2
    a, full = kc.KroneckerMatrix(factors), dense(factors)
    values, vectors = linalg.eigh(a)
    assert values.dtype == vectors.dtype == np.float16
    near(np.sort(values.to_dense()), np.linalg.eigvalsh(full), dtype=np.float16)
    near(linalg.cholesky(a, lower=True).to_dense(), np.linalg.cholesky(full), dtype=np.float16)
    assert [part.dtype for part in linalg.svd(a)] == [np.float16] * 3
    assert linalg.eigvals(a).dtype == np.complex64
