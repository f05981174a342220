"""Kronecker sums against their dense definition."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore import Ket, KroneckerMatrix, KroneckerSum, eye
from ketcore.testing import assert_dense_equal, dtypes, mode_dims, to_numpy
from tests.algebra_problems import TERMS, dense, magnitude, wide
from tests.generic import arrays


@st.composite
def sums(draw, dims=None, dtype=None, asarray=np.asarray):
    """A Kronecker sum of small square factors."""
    dims = draw(mode_dims(max_order=3, max_size=24)) if dims is None else dims
    dtype = draw(dtypes()) if dtype is None else dtype
    return KroneckerSum([asarray(draw(arrays((n, n), dtype))) for n in dims])


def check_sum(s):
    a, size = dense(s), magnitude(s)
    close = {"terms": TERMS, "dtype": s.dtype}
    assert_dense_equal(s.to_dense(), a, scale=size, **close)
    assert_dense_equal(s.to_kronecker().to_dense(), a, scale=size, **close)
    assert_dense_equal(s.T.to_dense(), a.T, scale=size.T, **close)
    assert_dense_equal(s.H.to_dense(), a.conj().T, scale=size.T, **close)
    assert_dense_equal((s * 2.5).to_dense(), 2.5 * a, scale=3 * size, **close)
    assert_dense_equal((-s / 2).to_dense(), -a / 2, scale=size, **close)
    assert_dense_equal(s.trace(), np.trace(a), scale=np.trace(size), **close)
    assert_dense_equal(s.diagonal(), np.diagonal(a), scale=np.diagonal(size), **close)
    assert_dense_equal(s.norm(), np.linalg.norm(a), scale=np.linalg.norm(size), terms=TERMS)
    assert_dense_equal(s[-1], a[-1], scale=size[-1], **close)


@given(sums())
def test_a_sum_is_its_definition(s):
    check_sum(s)


@given(st.data())
def test_products(data):
    s = data.draw(sums())
    a, size = dense(s), len(dense(s))
    lead = data.draw(st.sampled_from([(), (2,), (0,), (2, 1)]))
    x = data.draw(arrays((*lead, size, 3)))
    close = {"terms": TERMS, "dtype": np.result_type(s.dtype, x.dtype)}
    scale = magnitude(s) @ abs(wide(x)) if x.size else None
    assert_dense_equal(s @ x, a @ wide(x), scale=scale, **close)
    rows = np.swapaxes(x, -1, -2)
    assert_dense_equal(rows @ s, wide(rows) @ a, terms=TERMS, scale=1e2)
    vector = data.draw(arrays((size,)))
    assert_dense_equal(s @ vector, a @ wide(vector), terms=TERMS, scale=1e2)
    assert_dense_equal(vector @ s, wide(vector) @ a, terms=TERMS, scale=1e2)


def test_every_backend(xp):
    def body(s):
        check_sum(s)
        x = xp.asarray(np.arange(24.0, dtype=np.float32).reshape(6, 4))
        assert_dense_equal(s @ x, dense(s) @ wide(x), terms=TERMS, scale=100.0)
        ones = xp.asarray(np.ones(6, np.float32))
        assert_dense_equal(s.__rmatmul__(ones), np.ones(6) @ dense(s), terms=TERMS, scale=100.0)

    xp.check(sums((2, 3), "float32", xp.asarray), body)


@given(st.data())
def test_structured_operands(data):
    s = data.draw(sums((2, 3)))
    other = data.draw(sums((2, 3)))
    a, b = dense(s), dense(other)
    m, v = KroneckerMatrix.random((6, 4), row_dims=(6,), rank=2, rng=0), Ket.random((2, 3), 2, (4,), rng=0)
    close = {"terms": TERMS, "scale": 100.0}
    assert isinstance(s + other, KroneckerSum)
    assert_dense_equal((s + other).to_dense(), a + b, **close)
    assert_dense_equal((s - other).to_dense(), a - b, **close)
    assert_dense_equal((s + eye((2, 3))).to_dense(), a + np.eye(6), **close)
    assert_dense_equal((eye((2, 3)) + s).to_dense(), a + np.eye(6), **close)
    assert_dense_equal((s - eye((2, 3))).to_dense(), a - np.eye(6), **close)
    assert_dense_equal((eye((2, 3)) - s).to_dense(), np.eye(6) - a, **close)
    assert_dense_equal((s @ other).to_dense(), a @ b, **close)
    assert_dense_equal((s @ m).to_dense(), a @ dense(m), **close)
    assert_dense_equal((m.T @ s).to_dense(), dense(m).T @ a, **close)
    assert_dense_equal((s @ v).to_dense(), dense(v) @ a.T, **close)


def test_facts():
    s = KroneckerSum([np.eye(2), np.ones((3, 3), np.complex64)])
    assert (s.shape, s.dims, s.order, s.dtype, s.nbytes) == ((6, 6), (2, 3), 2, np.complex128, 13 * 16)
    assert (s.astype("complex64").dtype, s.conj().dtype) == (np.complex64, np.complex128)
    assert s.to_kronecker().rank == 2
    assert repr(s).startswith(
        "KroneckerSum(shape=(6, 6), order=2, dims=(2, 3), dtype=complex128, parameters="
    )
    assert s._repr_html_().startswith("<table><caption>KroneckerSum</caption>")
    shared = np.eye(2)
    assert KroneckerSum([shared]).factors[0] is shared
    for same in (copy.deepcopy(s), pickle.loads(pickle.dumps(s))):
        np.testing.assert_array_equal(same.to_dense(), s.to_dense())
    assert s != copy.copy(s)
    with pytest.raises(AttributeError):
        s.factors = ()


def test_a_large_sum_is_never_formed():
    s = KroneckerSum([np.diag([1.0, 2.0])] * 40)
    assert float(s.trace()) == 40 * 1.5 * 2.0**40
    assert (s @ Ket([np.array([1.0, 0.0])] * 40)).inner(Ket([np.ones(2)] * 40)) == 40.0
    with pytest.raises(
        MemoryError, match=r"max_bytes must be at least .* to hold the dense \(1099511627776, "
    ):
        s.to_dense()


def test_costs():
    s = KroneckerSum([np.ones((4, 4)), np.ones((5, 5))])
    assert s.cost("matmul", 3).flops == 2 * 20 * 3 * (4 + 5)
    assert s.cost("rmatmul", 3).flops == 2 * 20 * 3 * (4 + 5)
    with pytest.raises(ValueError, match=r"name must be one of \('matmul', 'rmatmul'\), got 'rows'"):
        s.cost("rows")


def test_half_precision_is_rounded_once():
    s = KroneckerSum([np.full((1, 1), 2048.0, np.float16)] + [np.ones((1, 1), np.float16)] * 8)
    assert (s @ np.ones(1, np.float16)).tolist() == [2056.0]
    assert (s @ np.ones(1, np.float16)).dtype == np.float16
    assert float(s.trace()) == 2056.0


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (lambda s: KroneckerSum([]), ValueError, "factors must hold at least one array, got none"),
        (
            lambda s: KroneckerSum([np.ones((2, 3))]),
            ValueError,
            r"factors must be square matrices \(n, n\) with n >= 1, got shapes \[\(2, 3\)\]",
        ),
        (lambda s: KroneckerSum([np.ones((0, 0))]), ValueError, r"factors must be square .* \[\(0, 0\)\]"),
        (lambda s: KroneckerSum([np.ones((1, 2, 2))]), ValueError, "factors must be square matrices"),
        (
            lambda s: KroneckerSum([np.eye(2).astype("U1")]),
            TypeError,
            "factors must have a numeric dtype, got <U1",
        ),
        (
            lambda s: s @ np.ones(5),
            ValueError,
            r"x must have shape \(6,\), \(..., 6, n\) or \(..., 2, 3\) after @, got \(5,\)",
        ),
        (
            lambda s: np.ones((2, 5)) @ s,
            ValueError,
            r"x must have shape \(..., 6\) or \(..., 2, 3\) before @, got \(2, 5\)",
        ),
        (
            lambda s: s + KroneckerSum([np.eye(3), np.eye(2)]),
            ValueError,
            r"sums must have equal dims to be added, got \(2, 3\) and \(3, 2\)",
        ),
        (lambda s: s * s, TypeError, "must be a number beside .* hadamard .*, got KroneckerSum"),
        (lambda s: s + 1, TypeError, r"or an array beside to_dense\(\), got 1"),
        (lambda s: s - 1, TypeError, "KroneckerSum adds to beside -, .* got 1"),
        (lambda s: s @ "a", TypeError, "unsupported operand"),
        (
            np.asarray,
            TypeError,
            r"a KroneckerSum must be made dense by to_dense\(max_bytes=\), got an implicit",
        ),
        (lambda s: np.exp(s), TypeError, r"x must be an array for np\.exp, got KroneckerSum"),
        (lambda s: s.to_dense(10), MemoryError, r"max_bytes must be at least 288 .* dense \(6, 6\) array"),
    ],
)
def test_what_does_not_fit_is_refused(operation, error, message):
    with pytest.raises(error, match=message):
        operation(KroneckerSum([np.eye(2), np.eye(3)]))


def test_libraries_do_not_mix():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="sums must be arrays of one library, got numpy, torch"):
        KroneckerSum([np.eye(2)]) + KroneckerSum([torch.eye(2)])
    s = KroneckerSum([torch.eye(2), torch.eye(2)])
    assert to_numpy(torch.ones(4) @ s).tolist() == [2.0] * 4
