"""Kronecker matrices beside `@`: dense arrays of every shape and library, sandwiches, costs, identities."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from ketcore import Ket, KroneckerMatrix, eye, ket
from ketcore.testing import assert_dense_equal, mode_dims, to_numpy
from tests.algebra_problems import TERMS, dense, magnitude, wide
from tests.generic import arrays, kronecker_matrices

NAMES = ("float32", "float64", "complex64", "complex128")


@st.composite
def dense_problems(draw, asarray=np.asarray, names=NAMES):
    """A matrix, and an array to stand before it and one behind it."""
    dims = [draw(mode_dims(2, max_size=12)) for _ in range(2)]
    dtypes = [draw(st.sampled_from(names)) for _ in range(2)]
    m = draw(kronecker_matrices(row_dims=dims[0], col_dims=dims[1], dtype=dtypes[0], asarray=asarray))
    lead, trail = (
        draw(st.sampled_from([(), (2,), (0,), (2, 3)])),
        draw(st.sampled_from([(), (1,), (3,), (0,)])),
    )
    behind = (*lead, m.shape[1], *trail) if trail else (m.shape[1],)
    before = (*lead, m.shape[0])
    return m, *(asarray(draw(arrays(shape, dtypes[1]))) for shape in (behind, before))


def check_dense(problem):
    m, behind, before = problem
    a, x, y = dense(m), wide(behind), wide(before)
    size, dtype = magnitude(m), np.result_type(to_numpy(behind), to_numpy(m.factors[0]))
    close = {"terms": TERMS, "dtype": dtype}
    assert_dense_equal(m @ behind, a @ x, scale=size @ abs(x) if x.size else None, **close)
    assert_dense_equal(m.H.T @ behind, a.conj() @ x, scale=size @ abs(x) if x.size else None, **close)
    assert_dense_equal(m.rmatmul(before), y @ a, scale=abs(y) @ size if y.size else None, **close)


@given(dense_problems())
def test_products_with_dense_arrays(problem):
    check_dense(problem)
    m, behind, before = problem
    np.testing.assert_array_equal(before @ m, m.rmatmul(before))
    np.testing.assert_array_equal(m @ behind, m.matmul(behind))


def test_products_with_dense_arrays_on_every_backend(xp):
    xp.check(dense_problems(xp.asarray, ("float32",)), check_dense)


def test_an_array_of_another_library_may_stand_before():
    torch = pytest.importorskip("torch")
    m = KroneckerMatrix([torch.ones((2, 3), dtype=torch.float64), torch.eye(2, dtype=torch.float64)])
    x = torch.arange(8.0, dtype=torch.float64).reshape(2, 4)
    assert (x @ m).tolist() == (x.numpy() @ dense(m)).tolist()
    assert (torch.tensor(2.0) * m).factors[0][0, 0, 0] == 2.0
    message = "factors and x must be arrays of one library, got numpy, torch"
    with pytest.raises(TypeError, match=message):
        np.ones(4) @ m


def test_lists_integers_and_bools():
    m = KroneckerMatrix([[[1.0, 2.0]], np.eye(2, dtype=np.float32)]).astype("float32")
    for x in ([1, 2, 3, 4], np.arange(1, 5), np.arange(1, 5, dtype=np.uint8), (1.0, 2.0, 3.0, 4.0)):
        assert (m @ x).tolist() == [7.0, 10.0]
    assert (m @ np.arange(4)).dtype == np.float32
    assert (m @ np.array([True, False, True, False])).tolist() == [3.0, 0.0]
    assert ([1, 2] @ m).tolist() == [1.0, 2.0, 2.0, 4.0]


class OnlyDlpack:
    """What another library's array looks like where it has nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_that_have_dlpack_alone():
    a, x = np.arange(6.0).reshape(2, 3), np.arange(3.0)
    m = KroneckerMatrix([OnlyDlpack(a)])
    assert (m @ OnlyDlpack(x)).tolist() == (a @ x).tolist()
    assert (OnlyDlpack(x[:2]) @ m).tolist() == (x[:2] @ a).tolist()
    assert Ket([OnlyDlpack(x)]).to_dense().tolist() == x.tolist()


def test_sparse_factors_become_dense():
    a = scipy.sparse.random_array((3, 4), density=0.5, rng=0)
    m = KroneckerMatrix([a, scipy.sparse.eye_array(2, format="coo")])
    np.testing.assert_array_equal(m.to_dense(), np.kron(a.toarray(), np.eye(2)))
    big = scipy.sparse.coo_array((1 << 14, 1 << 14))
    message = r"max_bytes must be at least 2147483648 \(2 GiB\) to hold the dense factor"
    with pytest.raises(MemoryError, match=message):
        KroneckerMatrix([big])


def test_results_are_written_into_out():
    m = KroneckerMatrix.random((5, 6), 2, rng=0)
    out = np.empty((5, 2))
    assert m.matmul(np.ones((6, 2)), out=out) is out
    np.testing.assert_allclose(out, dense(m) @ np.ones((6, 2)))
    out = np.empty((3, 6))
    assert m.rmatmul(np.ones((3, 5)), out=out) is out
    np.testing.assert_allclose(out, np.ones((3, 5)) @ dense(m))


def test_tied_logits_of_a_cropped_table():
    table = KroneckerMatrix.random((13, 6), row_dims=(4, 4), col_dims=(2, 3), rank=3, rng=0)
    hidden = np.random.default_rng(1).standard_normal((5, 6))
    np.testing.assert_allclose(hidden @ table.T, hidden @ dense(table).T)


def test_known_identities_are_not_read():
    spoiled = np.full((3, 3), np.nan)
    m = KroneckerMatrix([np.ones((2, 2)), spoiled], identities=[1])
    assert np.isfinite(m @ np.ones(6)).all()
    assert np.isfinite(np.ones(6) @ m).all()


def test_marks_stay_where_they_are_true():
    m = KroneckerMatrix([np.eye(2), np.ones((3, 3)), np.eye(2)], identities=[0, 2])
    for same in (
        m.T,
        m.H,
        m.conj(),
        m.astype("complex64"),
        2 * m,
        m / 3,
        -m,
        copy.deepcopy(m),
        m + m,
        m - 2 * m,
    ):
        assert same.identities == {0, 2}
        assert_dense_equal(same @ np.arange(12.0), dense(same) @ np.arange(12.0), terms=TERMS)
    assert m.balance().identities == set()
    assert m.kron(m).identities == {0, 2, 3, 5}
    scaled = 2 * eye((2, 3))
    assert (eye((2, 3)).identities, scaled.identities) == ({0, 1}, {1})
    np.testing.assert_array_equal(scaled @ np.ones(6), 2 * np.ones(6))
    assert pickle.loads(pickle.dumps(m)).identities == {0, 2}
    assert "identities" not in repr(m)


@pytest.mark.parametrize(
    ("identities", "error", "message"),
    [
        ([2], ValueError, r"identities must be modes in \[0, 2\), got 2"),
        ([0], ValueError, r"identities must be modes of square factors, got 0 of shape \(1, 2\)"),
        (1, TypeError, "identities must be a sequence, got int"),
    ],
)
def test_bad_marks(identities, error, message):
    with pytest.raises(error, match=message):
        KroneckerMatrix([np.ones((1, 2)), np.eye(2)], identities=identities)


@given(kronecker_matrices(order=2, cropped=False), st.integers(0, 99))
def test_sandwiches(m, seed):
    rng = np.random.default_rng(seed)
    x, y = (Ket([rng.standard_normal((3, 2, d)) + 1j for d in dims]) for dims in (m.row_dims, m.col_dims))
    a, p, q = dense(m), dense(x), dense(y)
    expected = np.einsum("bi,ij,bj->b", p.conj(), a, q)
    scale = np.einsum("bi,ij,bj->b", magnitude(x), magnitude(m), magnitude(y))
    assert_dense_equal(m.sandwich(x, y), expected, terms=TERMS, scale=scale)
    assert_dense_equal(m.sandwich(p, q), expected, terms=TERMS, scale=scale)


def test_sandwiches_of_kets_that_are_split_otherwise():
    m = KroneckerMatrix.random((6, 7), row_dims=(2, 3), col_dims=(2, 4), rank=2, rng=0)
    x, y = Ket.random((6,), 2, rng=1), Ket.random((7,), 2, (3,), rng=2)
    np.testing.assert_allclose(m.sandwich(x, y), dense(y) @ dense(m).T @ dense(x))
    with pytest.raises(ValueError, match="matrix must not have cropped rows for @ with a ket, got 5 of 6"):
        KroneckerMatrix(m.factors, (5, 7)).sandwich(Ket.random((5,), rng=0), y)


def test_sandwiches_of_cropped_matrices():
    m = KroneckerMatrix.random((5, 7), row_dims=(2, 3), col_dims=(2, 4), rank=2, rng=0)
    x, y = np.arange(5.0), np.arange(14).reshape(2, 7)
    np.testing.assert_allclose(m.sandwich(x, y), y @ dense(m).T @ x)
    for pair, error, message in (
        ((x, x), ValueError, r"^y must have shape \(..., 7\), got \(5,\)$"),
        ((x, ket(x)), TypeError, "x and y must be two kets or two arrays, got ndarray and Ket"),
    ):
        with pytest.raises(error, match=message):
            m.sandwich(*pair)


def test_costs():
    m = KroneckerMatrix([np.ones((3, 4, 5)), np.ones((3, 6, 7))], (20, 30))
    for name in ("rows", "row_kets", "gather", "to_dense", "matmul", "rmatmul"):
        cost = m.cost(name, 10)
        assert isinstance(cost.flops, int)
        assert isinstance(cost.bytes, int)
        assert isinstance(cost.path, str)
    assert m.cost("gather", 10).flops == 10 * 3 * 2
    assert m.cost("row_kets", 10) == (0, 10 * 3 * 2 * (5 + 7) * 8, "gather")
    assert m.cost().path == m.cost("matmul", 1).path
    assert eye((4, 4)).cost("matmul", 5).flops == 0
    with pytest.raises(ValueError, match=r"name must be one of \('rows', .*\), got 'lookup'"):
        m.cost("lookup", 1)
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        m.cost("rows", -1)


def small():
    return eye((2, 2))


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (
            lambda: small() @ np.ones(3),
            ValueError,
            r"x must have shape \(4,\), \(..., 4, n\) or \(..., 2, 2\) after @, got \(3,\)",
        ),
        (lambda: small() @ np.ones((2, 3, 5)), ValueError, r"x must have shape .* got \(2, 3, 5\)"),
        (lambda: small() @ np.ones(()), ValueError, r"x must have shape .* after @, got \(\)"),
        (
            lambda: np.ones((2, 3)) @ small(),
            ValueError,
            r"x must have shape \(..., 4\) or \(..., 2, 2\) before @, got \(2, 3\)",
        ),
        (lambda: small() @ np.array(["a"] * 4), TypeError, "x must have a numeric dtype, got <U1"),
        (lambda: small() @ np.array([None] * 4), TypeError, "x must have a numeric dtype, got object"),
        (
            lambda: small() @ [[1.0], [1.0, 2.0]],
            ValueError,
            "x must be arrays or regular nested lists, got",
        ),
        (lambda: small() @ None, TypeError, "unsupported operand"),
        (lambda: small() @ 2.0, TypeError, "KroneckerMatrix multiplies by @, or .* to_dense.*, got 2.0"),
        (lambda: ket([1.0] * 4) @ small(), TypeError, r"or K\.T @ ket, got KroneckerMatrix"),
    ],
)
def test_what_does_not_fit_is_refused(operation, error, message):
    with pytest.raises(error, match=message):
        operation()


IMPLICIT = [
    np.asarray,
    np.array,
    np.linalg.norm,
    np.linalg.det,
    np.linalg.inv,
    np.trace,
    np.diagonal,
    np.mean,
    np.sort,
    np.ravel,
    np.exp,
    np.conj,
    lambda m: np.dot(m, np.ones(4)),
    lambda m: np.dot(np.ones(4), m),
    lambda m: np.matmul(np.ones(4), m, out=np.ones(4)),
    lambda m: np.kron(m, m),
    lambda m: np.einsum("ij->i", m),
    lambda m: np.vdot(m, m),
    lambda m: np.allclose(m, m),
    lambda m: np.concatenate([m, m]),
    lambda m: np.stack([m, m]),
    lambda m: np.asarray([m, m]),
    lambda m: np.multiply(m, np.ones(4)),
    lambda m: np.float64(2.0) + m,
    lambda m: np.from_dlpack(m),
    lambda m: scipy.sparse.eye_array(4) @ m,
    lambda m: np.ones((2, 4)) @ [m],
]


@pytest.mark.parametrize("implicit", IMPLICIT, ids=range(len(IMPLICIT)))
@pytest.mark.parametrize("make", [small, lambda: ket([1.0, 2.0], [1.0, 3.0])])
def test_nothing_goes_dense_silently(implicit, make):
    """Never a wrong number, an array of objects or a dense matrix: a TypeError that names the way."""
    with pytest.raises(TypeError, match=r"to_dense|unsupported operand|^other must be "):
        implicit(make())


def test_scipy_makes_no_sparse_array():
    m = small()
    # SciPy puts an error of its own before ours.
    with pytest.raises(ValueError, match="unrecognized csr_array constructor input"):
        scipy.sparse.csr_array(m)


def test_torch_does_not_go_dense_silently():
    torch = pytest.importorskip("torch")
    for operator in (small(), KroneckerMatrix([torch.eye(2)]), ket([1.0, 2.0])):
        for convert in (torch.as_tensor, torch.tensor, torch.asarray, torch.from_dlpack):
            with pytest.raises(TypeError, match=r"made dense by to_dense\(max_bytes=\), got an implicit"):
                convert(operator)
