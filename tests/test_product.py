"""Products of parts of any kind, against their dense definition."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from ketcore import Diagonal, Identity, Ket, KroneckerProduct
from ketcore.objects.parts import name_of
from ketcore.testing import assert_dense_equal
from tests.algebra_problems import TERMS, dense, wide
from tests.generic import arrays

NAMES = ("float32", "float64", "complex64", "complex128")


@st.composite
def parts(draw, asarray=np.asarray, names=NAMES, sparse=True, square=False):
    """One part of any kind, of size up to 3."""
    kinds = ["dense", "diagonal", "identity"] + ["csr", "coo", "matrix"] * sparse
    kind, dtype = draw(st.sampled_from(kinds)), draw(st.sampled_from(names))
    rows, columns = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    if kind == "identity":
        return Identity(rows)
    if kind == "diagonal":
        return Diagonal(asarray(draw(arrays((rows,), dtype))))
    values = draw(arrays((rows, rows if square else columns), dtype))
    if kind == "dense":
        return asarray(values)
    values[np.abs(values) < 0.5] = 0
    make = {"csr": scipy.sparse.csr_array, "coo": scipy.sparse.coo_array, "matrix": scipy.sparse.csc_matrix}
    return make[kind](values)


@st.composite
def products(draw, **options):
    """A product of up to four parts."""
    return KroneckerProduct([draw(parts(**options)) for _ in range(draw(st.integers(1, 4)))])


def check_product(m):
    a = dense(m)
    scale = np.abs(a).max(initial=1e-30)
    close = {"terms": TERMS, "scale": scale}
    assert m.shape == a.shape
    assert_dense_equal(m.to_dense(), a, dtype=m.dtype, **close)
    assert_dense_equal(m.to_kronecker().to_dense(), a, **close)
    assert_dense_equal(m.T.to_dense(), a.T, **close)
    assert_dense_equal(m.H.to_dense(), a.conj().T, **close)
    assert_dense_equal((m * 2).to_dense(), 2 * a, terms=TERMS, scale=2 * scale)
    assert_dense_equal((-m / 2).to_dense(), -a / 2, **close)
    assert_dense_equal(m.diagonal(), np.diagonal(a), **close)
    assert_dense_equal(m.trace(), np.trace(a), terms=TERMS, scale=scale * len(a) * 3)


@given(products())
def test_a_product_is_its_definition(m):
    check_product(m)
    assert_dense_equal((m * 2j).to_dense(), 2j * dense(m), terms=TERMS, scale=2 * abs(dense(m)).max() + 1e-30)


@given(products(square=True))
def test_square_parts(m):
    check_product(m)


@given(products(), st.sampled_from(NAMES), st.sampled_from([(), (2,), (0,), (2, 1)]))
def test_products_with_dense_arrays(m, dtype, lead):
    rng = np.random.default_rng(0)
    a = dense(m)
    x, y = (rng.standard_normal((*lead, *shape)).astype(dtype) for shape in ((a.shape[1], 3), (a.shape[0],)))
    values = [p.data if hasattr(p, "tocsr") else getattr(p, "values", p) for p in m.parts]
    values = [v for v in values if not isinstance(v, Identity)]
    close = {"terms": TERMS, "scale": 300.0, "dtype": np.result_type(dtype, *values)}
    assert_dense_equal(m @ x, a @ wide(x), **close)
    assert_dense_equal(y @ m, wide(y) @ a, **close)
    vector = x.reshape(-1)[: a.shape[1]] if x.size else np.ones(a.shape[1], dtype)
    assert_dense_equal(m @ vector, a @ wide(vector), **close)


def test_every_backend(xp):
    def body(m):
        check_product(m)
        rows, columns = m.shape
        x, y = np.ones((2, columns, 3), np.float32), np.ones((2, rows), np.float32)
        assert_dense_equal(m @ xp.asarray(x), dense(m) @ x, terms=TERMS, scale=100.0)
        assert_dense_equal(m.__rmatmul__(xp.asarray(y)), y @ dense(m), terms=TERMS, scale=100.0)

    some = products(asarray=xp.asarray, names=("float32",), sparse=False)
    xp.check(some.filter(lambda m: not all(isinstance(part, Identity) for part in m.parts)), body)


@given(products())
def test_kets(m):
    v = Ket.random(m.col_dims, 2, (3,), rng=0)
    found = m @ v
    assert (found.rank, found.dims) == (2, m.row_dims)
    assert_dense_equal(found.to_dense(), dense(v) @ dense(m).T, terms=TERMS, scale=300.0)


def test_parts_stay_what_they_are():
    a = scipy.sparse.random_array((1000, 1000), density=1e-3, rng=0, format="csr")
    m = KroneckerProduct([Identity(10**6), a, Diagonal(np.ones(10)), np.ones((1, 2))])
    assert m.parts[1] is a
    assert m.shape == (10**10, 2 * 10**10)
    assert m.nbytes == (1000 + 10 + 2) * 8
    assert [name_of(p) for p in m.H.parts] == ["Identity", "sparse", "Diagonal", "dense"]
    assert (m * 2).parts[1].nnz == a.nnz
    assert a.max() * 2 == (m * 2).parts[1].max()
    with pytest.raises(
        MemoryError, match=r"max_bytes must be at least .* to hold the dense factor \(1000000, "
    ):
        m.to_kronecker()
    with pytest.raises(MemoryError, match=r"to hold the dense \(10000000000, 20000000000\) array of float64"):
        m.to_dense()
    with pytest.raises(MemoryError, match=r"to hold the dense diagonal \(10000000000,\) of float64"):
        KroneckerProduct([Identity(10**10)]).diagonal()
    assert float(KroneckerProduct([Identity(10**10), Diagonal([1.0, 2.0])]).trace()) == 3e10


def test_identities():
    m = KroneckerProduct([Identity(2), Identity(3)])
    x = np.arange(6, dtype=np.float32)
    assert (m @ x).tolist() == x.tolist()
    assert ((m @ x).dtype, m.dtype) == (np.float32, np.float64)
    assert isinstance((2 * m).parts[0], Diagonal)
    assert m.to_kronecker().identities == {0, 1}
    assert repr(2 * m) == "KroneckerProduct(Diagonal(2, 2), Identity(3, 3), dtype=float64)"
    assert m.kron(m).order == 4
    huge = 2 * KroneckerProduct([Identity(10**12), Identity(2)])
    assert [type(part) for part in huge.parts] == [Identity, Diagonal]


def test_products_are_values():
    m = KroneckerProduct([Identity(2), [[1.0, 2.0]], scipy.sparse.eye_array(2)])
    for same in (copy.copy(m), copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        np.testing.assert_array_equal(same.to_dense(), m.to_dense())
    assert m != copy.copy(m)
    with pytest.raises(AttributeError):
        m.parts = ()


def test_half_precision_accumulates_in_float32():
    m = KroneckerProduct([np.ones((1, 4096), np.float16), Diagonal(np.ones(1, np.float16))])
    assert (m @ np.ones(4096, np.float16)).tolist() == [4096.0]
    assert (m @ np.ones(4096, np.float16)).dtype == np.float16
    # The square of 3e-5 is no float16; 6e4 times it is.
    m = KroneckerProduct([np.full((1, 1), 3e-5, np.float16), Identity(1), np.full((1, 1), 6e4, np.float16)])
    assert abs(float((m @ np.full(1, 3e-5, np.float16))[0]) / 5.4e-5 - 1) < 0.02


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (lambda m: KroneckerProduct([]), ValueError, "parts must hold at least one matrix, got none"),
        (lambda m: KroneckerProduct(3), TypeError, "parts must be a sequence, got int"),
        (
            lambda m: KroneckerProduct([np.ones(2)]),
            ValueError,
            r"parts\[0\] must be a matrix of at least \(1, 1\), got shape \(2,\)",
        ),
        (
            lambda m: KroneckerProduct([Identity(2), np.ones((0, 2))]),
            ValueError,
            r"parts\[1\] must be a matrix",
        ),
        (lambda m: KroneckerProduct([[["a"]]]), TypeError, r"parts\[0\] must have a numeric dtype, got <U1"),
        (
            lambda m: KroneckerProduct([scipy.sparse.eye_array(2, dtype=np.longdouble)]),
            TypeError,
            r"parts\[0\] must have a numeric dtype of at most double precision, got float",
        ),
        (lambda m: Diagonal([[1.0]]), ValueError, r"values must have shape \(n,\) with n >= 1, got \(1, 1\)"),
        (lambda m: Diagonal(["a"]), TypeError, "values must have a numeric dtype, got <U1"),
        (lambda m: Identity(0), ValueError, "size must be at least 1, got 0"),
        (lambda m: Identity(2.0), TypeError, "size must be an int, got 2.0"),
        (
            lambda m: m @ np.ones(3),
            ValueError,
            r"x must have shape \(4,\), \(..., 4, n\) or \(..., 2, 2\) after @, got \(3,\)",
        ),
        (
            lambda m: np.ones(3) @ m,
            ValueError,
            r"x must have shape \(..., 2\) or \(..., 2, 1\) before @, got \(3,\)",
        ),
        (lambda m: m @ Ket([np.ones(4)]), ValueError, r"ket must have dims \(2, 2\), got \(4,\)"),
        (
            lambda m: m @ m,
            ValueError,
            r"must have shapes \(m, k\) and \(k, n\) for @, got \(2, 4\) and \(2, 4\)",
        ),
        (lambda m: m * m, TypeError, "must be a number beside"),
        (lambda m: m + 1, TypeError, r"or an array beside to_dense\(\), got 1"),
        (lambda m: m.kron(3), TypeError, r"other must be a KroneckerProduct \(ketcore.kron .*\), got int"),
        (np.asarray, TypeError, r"a KroneckerProduct must be made dense by to_dense\(max_bytes=\), got"),
        (np.exp, TypeError, r"x must be an array for np\.exp, got KroneckerProduct"),
    ],
)
def test_what_does_not_fit_is_refused(operation, error, message):
    with pytest.raises(error, match=message):
        operation(KroneckerProduct([Identity(2), [[1.0, 2.0]]]))


def test_libraries_do_not_mix():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="parts must be arrays of one library, got numpy, torch"):
        KroneckerProduct([np.eye(2), torch.eye(2)])
    m = KroneckerProduct([torch.ones((1, 2)), Identity(2)])
    assert (m @ torch.arange(4.0)).tolist() == [2.0, 4.0]
    with pytest.raises(TypeError, match="parts and x must be arrays of one library, got numpy, torch"):
        m @ np.ones(4)
