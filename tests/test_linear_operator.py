"""LinearOperators of all operators in SciPy's solvers, and of CuPy."""

import pickle
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.sparse.linalg as sla

from ketcore import Diagonal, Identity, KroneckerMatrix, KroneckerProduct, KroneckerSum, Permutation, ket
from ketcore.arrays import solvers
from ketcore.arrays.conversions import as_array
from ketcore.objects.operands import is_dense, operand
from tests.algebra_problems import dense

RNG = np.random.default_rng(0)


def symmetric(n):
    a = RNG.standard_normal((n, n))
    return a @ a.T + np.eye(n)


def draw(*shape):
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


OPERATORS = {
    "matrix": KroneckerMatrix([draw(2, 3, 4), draw(2, 4, 3)]),
    "cropped": KroneckerMatrix([draw(2, 3, 4), draw(2, 4, 3)], (11, 10)),
    "real": KroneckerMatrix.random((12, 10), 2, rank=2, rng=0),
    "single": KroneckerMatrix.random((12, 10), 2, rank=2, rng=0, dtype="float32"),
    "sum": KroneckerSum([draw(3, 3), draw(4, 4)]),
    "product": KroneckerProduct([draw(3, 4), Identity(2), Diagonal([1.0, 2j])]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_linear_operator_is_the_matrix(name):
    matrix = OPERATORS[name]
    a, found = dense(matrix), matrix.as_linear_operator()
    assert isinstance(found, sla.LinearOperator)
    assert (found.shape, found.dtype) == (matrix.shape, matrix.dtype)
    (rows, columns), close = matrix.shape, {"rtol": 1e-4, "atol": 1e-4}
    x, y = draw(columns), draw(rows)
    np.testing.assert_allclose(found.matvec(x), a @ x, **close)
    np.testing.assert_allclose(found.matvec(x[:, None]), (a @ x)[:, None], **close)
    np.testing.assert_allclose(found.rmatvec(y), a.conj().T @ y, **close)
    np.testing.assert_allclose(found.matmat(draw(columns, 3)[::-1]).shape, (rows, 3))
    x, y = draw(columns, 3), np.asfortranarray(draw(rows, 2))
    np.testing.assert_allclose(found @ x, a @ x, **close)
    np.testing.assert_allclose(found.rmatmat(y), a.conj().T @ y, **close)
    np.testing.assert_allclose(found.H @ y, a.conj().T @ y, **close)
    np.testing.assert_allclose(found.T @ y, a.T @ y, **close)
    copied = pickle.loads(pickle.dumps(found))
    np.testing.assert_allclose(copied @ x, a @ x, **close)


def test_eigsh():
    m = KroneckerMatrix([symmetric(4), symmetric(5)])
    found = sla.eigsh(m.as_linear_operator(), k=3, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(dense(m))[-3:])
    s = KroneckerSum([symmetric(4), symmetric(5)])
    found = sla.eigsh(s.as_linear_operator(), k=3, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(dense(s))[-3:])


@pytest.mark.parametrize("name", ["matrix", "cropped", "real"])
def test_svds_and_lsqr(name):
    m = OPERATORS[name]
    a = dense(m)
    found = sla.svds(m.as_linear_operator(), k=2, return_singular_vectors=False, rng=0)
    np.testing.assert_allclose(np.sort(found), np.linalg.svd(a, compute_uv=False)[:2][::-1])
    b = a @ np.arange(1.0, a.shape[1] + 1)
    x = sla.lsqr(m.as_linear_operator(), b, atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(a @ x, b, rtol=1e-6, atol=1e-6)


def test_cg():
    m = KroneckerMatrix([np.stack([symmetric(4), symmetric(4)]), np.stack([symmetric(3), symmetric(3)])])
    b = RNG.standard_normal(12)
    x, info = sla.cg(m.as_linear_operator(), b, rtol=1e-12)
    assert info == 0
    np.testing.assert_allclose(dense(m) @ x, b, atol=1e-8)


def test_permutations():
    p = Permutation((2, 3), (1, 0))
    found, x = p.as_linear_operator(), np.arange(6.0)
    assert found.matvec(x).tolist() == (p @ x).tolist()
    assert found.rmatvec(x).tolist() == (p.T @ x).tolist()


def test_other_libraries_have_none():
    strict = pytest.importorskip("array_api_strict")
    m = KroneckerMatrix([strict.eye(2)])
    with pytest.raises(
        TypeError, match="factors must be arrays of NumPy or CuPy for a LinearOperator, got arr"
    ):
        m.as_linear_operator()


def test_cupy_has_its_own(monkeypatch):
    """Stand-ins for CuPy: its class is called with the same arguments as SciPy's."""
    like = SimpleNamespace()
    for name in ("cupy", "cupyx", "cupyx.scipy", "cupyx.scipy.sparse", "cupyx.scipy.sparse.linalg"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["cupy"].ndarray = SimpleNamespace
    sys.modules["cupyx.scipy.sparse.linalg"].LinearOperator = sla.LinearOperator
    assert solvers.linear_operator(like) is sla.LinearOperator


def test_what_counts_as_an_array():
    for value in (np.ones(2), [1.0], (), [[1, 2]]):
        assert is_dense(value)
    for value in (None, 1.0, "ab", {}, *OPERATORS.values(), Permutation((2,), (0,))):
        assert not is_dense(value)
    x = np.ones(2)
    narrow = ket(np.ones(2, np.float32))
    assert as_array("x", x) is operand("x", x, narrow) is x
    assert operand("x", [1, 2], narrow).dtype == np.float32
    with pytest.raises(ValueError, match="y must be arrays or regular nested lists, got ragged lists"):
        as_array("y", [[1], [1, 2]])
    with pytest.raises(TypeError, match="y must have a numeric dtype, got <U1"):
        operand("y", ["a"], narrow)


@pytest.mark.parametrize("name", OPERATORS)
def test_solvers_take_an_operator_as_it_is(name):
    matrix = OPERATORS[name]
    a, found, close = dense(matrix), sla.aslinearoperator(matrix), {"rtol": 1e-4, "atol": 1e-4}
    x, y = draw(a.shape[1], 3), draw(a.shape[0], 2)
    assert (found.shape, found.dtype) == (matrix.shape, matrix.dtype)
    np.testing.assert_allclose(found @ x, a @ x, **close)
    np.testing.assert_allclose(found.H @ y, a.conj().T @ y, **close)
    np.testing.assert_allclose(matrix.matvec(x[:, 0]), a @ x[:, 0], **close)
    np.testing.assert_allclose(matrix.matmat(x), a @ x, **close)
    np.testing.assert_allclose(matrix.rmatvec(y[:, 0]), a.conj().T @ y[:, 0], **close)
    np.testing.assert_allclose(matrix.rmatmat(y), a.conj().T @ y, **close)
    found = sla.svds(matrix, k=2, return_singular_vectors=False, rng=0)
    np.testing.assert_allclose(np.sort(found), np.linalg.svd(a, compute_uv=False)[:2][::-1], rtol=1e-3)
    b = a @ np.arange(1.0, a.shape[1] + 1)
    solution = sla.lsqr(matrix, b, atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(a @ solution, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", [KroneckerMatrix, KroneckerSum, KroneckerProduct])
def test_eigsh_and_cg_take_an_operator_as_it_is(kind):
    m = kind([symmetric(4), symmetric(5)])
    found = sla.eigsh(m, k=3, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), np.linalg.eigvalsh(dense(m))[-3:])
    b = RNG.standard_normal(20)
    for solver in (sla.cg, sla.minres, sla.gmres):
        x, info = solver(m, b, rtol=1e-12)
        assert info == 0
        np.testing.assert_allclose(dense(m) @ x, b, atol=1e-6)


def test_a_permutation_is_taken_as_it_is():
    p, x = Permutation((2, 3), (1, 0)), np.arange(6.0)
    found = sla.aslinearoperator(p)
    assert found.matvec(x).tolist() == (p @ x).tolist()
    assert found.rmatvec(x).tolist() == (p.T @ x).tolist()
    assert abs(sla.eigs(p, k=1, return_eigenvectors=False)).round(6).tolist() == [1.0]
