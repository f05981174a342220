"""Kronecker matrices against the arrays that they stand for."""

import copy
import pickle
from functools import reduce

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore.divisors import suggest_dims
from ketcore.objects.kronecker_matrix import KroneckerMatrix, eye
from ketcore.testing import assert_dense_equal, crops, mode_dims, to_numpy
from tests.generic import factors, kronecker_matrices

# Laws are checked with room for the rounding of every mode and term of two matrices.
TERMS = 400


def dense(m):
    """The definition: np.kron of the terms, summed and cropped, in float64."""
    arrays = [to_numpy(f) for f in m.factors]
    arrays = [a.astype(np.complex128 if a.dtype.kind == "c" else np.float64) for a in arrays]
    total = np.zeros(tuple(np.prod([a.shape[i] for a in arrays]) for i in (1, 2)), arrays[0].dtype)
    for k in range(arrays[0].shape[0]):
        total = total + reduce(np.kron, [a[k] for a in arrays])
    return total[: m.shape[0], : m.shape[1]]


def scale(m):
    """A bound on the magnitude of the terms of an element."""
    peaks = [np.abs(to_numpy(f).astype(complex)).max(axis=(1, 2)) for f in m.factors]
    return max(reduce(np.multiply, peaks).sum(), 1e-30)


@st.composite
def pairs(draw, asarray=np.asarray, dtype=None, row_dims=None, col_dims=None, ranks=(0, 1, 2, 3)):
    """Two matrices of the same dims and crop, of any ranks."""
    row_dims = draw(mode_dims(max_size=24)) if row_dims is None else row_dims
    col_dims = draw(mode_dims(len(row_dims), max_size=24)) if col_dims is None else col_dims
    shape = draw(crops(int(np.prod(row_dims)), int(np.prod(col_dims))))
    found = []
    for _ in range(2):
        rank = draw(st.sampled_from(ranks))
        drawn = draw(factors(row_dims=row_dims, col_dims=col_dims, rank=rank, dtype=dtype))
        found.append(KroneckerMatrix([asarray(f) for f in drawn], shape))
    return found


def check_algebra(m, other):
    """What gives matrices, against the same on dense arrays."""
    a, b = dense(m), dense(other)
    size, both = scale(m), scale(m) + scale(other)
    assert_dense_equal(m.to_dense(), a, terms=TERMS, scale=size, dtype=m.dtype)
    assert_dense_equal((m + other).to_dense(), a + b, terms=TERMS, scale=both)
    assert_dense_equal((m - other).to_dense(), a - b, terms=TERMS, scale=both)
    assert_dense_equal((-m).to_dense(), -a, terms=TERMS, scale=size)
    assert_dense_equal((2.5 * m).to_dense(), 2.5 * a, terms=TERMS, scale=2.5 * size, dtype=m.dtype)
    assert_dense_equal((m / 2.5).to_dense(), a / 2.5, terms=TERMS, scale=size)
    assert_dense_equal((m * 2j).to_dense(), 2j * a, terms=TERMS, scale=2 * size)
    assert_dense_equal(m.conj().to_dense(), a.conj(), terms=TERMS, scale=size)
    assert_dense_equal(m.T.to_dense(), a.T, terms=TERMS, scale=size)
    assert_dense_equal(m.H.to_dense(), a.conj().T, terms=TERMS, scale=size)
    assert_dense_equal(m.balance().to_dense(), a, terms=TERMS, scale=size, dtype=m.dtype)


def check_reductions(m, other):
    """What gives numbers, against the same on dense arrays: crops included."""
    a, b = dense(m), dense(other)
    size = scale(m) * a.size
    assert_dense_equal(m.sum(), a.sum(), terms=TERMS, scale=size, dtype=m.dtype)
    assert_dense_equal(m.sum(axis=0), a.sum(axis=0), terms=TERMS, scale=size, dtype=m.dtype)
    assert_dense_equal(m.sum(axis=-1), a.sum(axis=1), terms=TERMS, scale=size)
    assert_dense_equal(m.diagonal(), a.diagonal(), terms=TERMS, scale=scale(m), dtype=m.dtype)
    assert_dense_equal(m.trace(), a.trace(), terms=TERMS, scale=scale(m) * min(a.shape), dtype=m.dtype)
    assert_dense_equal(m.inner(other), np.vdot(a, b), terms=TERMS, scale=size * scale(other))
    norm = float(to_numpy(m.norm()))
    assert abs(norm**2 - np.linalg.norm(a) ** 2) <= 1e-5 * a.size * scale(m) ** 2


@given(pairs())
def test_algebra_equals_the_dense_computation(pair):
    check_algebra(*pair)


@given(pairs())
def test_reductions_equal_the_dense_computation(pair):
    check_reductions(*pair)


@given(st.data())
def test_traces_of_square_factors(data):
    dims = data.draw(mode_dims(max_size=24))
    check_reductions(*data.draw(pairs(row_dims=dims, col_dims=dims)))


def check_core(m, other):
    """A few methods that between them use every kind of array code."""
    a, b = dense(m), dense(other)
    assert_dense_equal((m + 2.0 * other.conj()).T.to_dense(), (a + 2.0 * b.conj()).T, terms=TERMS, scale=1e3)
    assert_dense_equal(m.sum(), a.sum(), terms=TERMS, scale=1e3, dtype=m.dtype)
    assert_dense_equal(m.norm(), np.linalg.norm(a), terms=TERMS, scale=1e3)
    ids = np.array([[4, 0], [2, 2]])
    assert_dense_equal(m.rows(ids), a[ids], terms=TERMS, scale=1e3)
    assert_dense_equal(KroneckerMatrix(m.factors).row_kets(ids).to_dense()[..., :7], a[ids], scale=1e3)
    assert_dense_equal(m[ids, -2], a[ids, -2], terms=TERMS, scale=1e3)


def test_methods_on_every_backend(xp):
    # JAX compiles every operation anew for each shape and dtype, which takes its time.
    jax = xp.name == "jax"
    names = st.sampled_from(["float32"] if jax else ["float32", "complex128"])

    def body(pair):
        m, other = (KroneckerMatrix(p.factors, (6, 7) if jax else (5, 7)) for p in pair)
        check_core(m, other)
        if not jax:
            check_algebra(m, other)
            check_reductions(m, other)
            for key in (-1, (slice(None), [1, 0]), (slice(4, 1, -2), slice(1, None))):
                assert_dense_equal(m[key], dense(m)[key], terms=TERMS, scale=scale(m))

    xp.check(names.flatmap(lambda name: pairs(xp.asarray, name, (2, 3), (4, 2), (2,))), body)


@given(kronecker_matrices(order=2), st.sampled_from([1, 2]))
def test_kron(m, order):
    other = KroneckerMatrix.random((6, 4), order, rank=2, rng=order, dtype=m.dtype)
    product = m.kron(other)
    assert product.order == m.order + other.order
    assert product.rank == m.rank * 2
    expected = np.kron(dense(m), dense(other))
    assert_dense_equal(product.to_dense(), expected, terms=TERMS, scale=scale(m) * scale(other))


def test_kron_of_a_cropped_matrix():
    left = KroneckerMatrix.random((1, 3), row_dims=(1, 1), rng=0)
    right = KroneckerMatrix.random((5, 4), row_dims=(2, 3), col_dims=(2, 2), rng=1)
    assert_dense_equal(left.kron(right).to_dense(), np.kron(dense(left), dense(right)), terms=TERMS)
    with pytest.raises(ValueError, match=r"other must not be cropped, got shape \(5, 4\) of \(6, 4\)"):
        right.kron(right)


def test_mixed_products_of_traces_and_norms():
    a, b = (KroneckerMatrix.random((6, 6), 2, rank=2, rng=seed) for seed in (0, 1))
    np.testing.assert_allclose(a.kron(b).trace(), a.trace() * b.trace())
    np.testing.assert_allclose(a.kron(b).norm(), a.norm() * b.norm())
    np.testing.assert_allclose(a.kron(b).sum(), a.sum() * b.sum())


def test_facts():
    m = KroneckerMatrix([np.ones((2, 3, 4), np.float32), np.ones((2, 5, 2), np.float64)], (14, 7))
    assert (m.shape, m.row_dims, m.col_dims, m.order, m.rank) == ((14, 7), (3, 5), (4, 2), 2, 2)
    assert (m.dtype, m.nbytes, len(m)) == (np.float64, 2 * 22 * 8, 14)
    assert KroneckerMatrix([np.eye(2), np.ones((1, 3, 3))]).rank == 1
    assert KroneckerMatrix(m.factors).shape == (15, 8)
    shared = np.ones((2, 3, 3))
    assert KroneckerMatrix([shared]).factors[0] is shared
    assert np.shares_memory(KroneckerMatrix([shared]).T.factors[0], shared)


def test_from_terms_and_eye():
    a, b, c, d = (np.random.default_rng(i).standard_normal((2, 3)) for i in range(4))
    m = KroneckerMatrix.from_terms([[a, b.T], [c, d.T]])
    np.testing.assert_allclose(m.to_dense(), np.kron(a, b.T) + np.kron(c, d.T))
    assert eye((2, 3)).to_dense().tolist() == np.eye(6).tolist()
    assert eye(4, dtype="float32").to_dense().dtype == np.float32
    assert eye((2, 2), like=np.ones(1, np.float32)).order == 2


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize(("order", "rank"), [(1, 1), (2, 4), (4, 3)])
def test_random_elements_have_the_standard_deviation_asked_for(order, rank, dtype):
    # Elements of one draw are products of few numbers, so that many draws are averaged.
    draws = [
        KroneckerMatrix.random((81, 16), order, rank=rank, std=0.2, rng=s, dtype=dtype) for s in range(150)
    ]
    variance = np.mean([float(m.norm()) ** 2 / (81 * 16) for m in draws])
    assert abs(variance / 0.04 - 1) < 0.15
    assert draws[0].dtype == dtype


def test_random_dims():
    m = KroneckerMatrix.random((100, 12), 2, rng=0)
    assert (m.row_dims, m.col_dims, m.shape) == (suggest_dims(100, 2), suggest_dims(12, 2), (100, 12))
    assert KroneckerMatrix.random((6, 8), row_dims=(2, 3), rng=0).col_dims == (2, 4)
    assert KroneckerMatrix.random((6, 8), col_dims=(4, 2), rng=0).col_dims == (4, 2)


def test_rank_0_is_the_zero_matrix():
    zero = KroneckerMatrix([np.zeros((0, 2, 3)), np.zeros((0, 2, 2))], (3, 5))
    assert zero.to_dense().tolist() == np.zeros((3, 5)).tolist()
    for value in (zero.norm(), zero.sum(), zero.trace(), zero.inner(zero), zero[1, 1], zero.balance().norm()):
        assert value == 0.0
    assert zero.rows([0, 2]).tolist() == np.zeros((2, 5)).tolist()


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_half_storage_sums_in_float32(dtype):
    m = KroneckerMatrix.random((11, 6), row_dims=(3, 4), col_dims=(2, 3), rank=3, rng=0, dtype=dtype)
    a = dense(m)
    for value, expected in (
        (m.to_dense(), a),
        (m[2], a[2]),
        (m[[1, 2], [3, 4]], a[[1, 2], [3, 4]]),
        (m.sum(), a.sum()),
        (m.sum(axis=1), a.sum(axis=1)),
        (m.trace(), a.trace()),
        (m.norm(), np.linalg.norm(a)),
        (m.inner(m), np.vdot(a, a)),
    ):
        assert_dense_equal(value, expected, terms=TERMS, dtype=dtype)
    assert m.astype("float64").dtype == np.float64
    assert (2.0 * m).dtype == m.T.dtype == m.balance().dtype == dtype


def test_sizes_beyond_32_bits():
    order = 40
    m = KroneckerMatrix([np.array([[2.0, 1.0], [0.0, 1.0]])] * order)
    assert m.shape == (2**40, 2**40)
    assert m[0, 0] == 2.0**order
    assert m[2**39 - 1, 2**39 - 1] == 2.0
    assert m[-1, -1] == 1.0
    assert m[[0, -1], [2**39, 0]].tolist() == [2.0 ** (order - 1), 0.0]
    assert m.trace() == 3.0**order
    assert m.sum() == 4.0**order
    assert m.norm() == pytest.approx(6.0 ** (order / 2))
    assert m[5, 7:9].tolist() == [m[5, 7], m[5, 8]]
    cropped = KroneckerMatrix(m.factors, (2**39, 2**39 + 1))
    assert cropped.sum() == 2 * 4.0 ** (order - 1) + 1 * 2.0 ** (order - 1) * 1.0
    assert cropped.trace() == 2 * 3.0 ** (order - 1)


def test_an_embedding_lookup_refuses_what_it_does_not_hold():
    m = KroneckerMatrix.random((5, 3), 2, rng=0)
    for ids in ([5], [-1], np.uint64(2**63)):
        with pytest.raises(IndexError, match=r"ids must lie in \[0, 5\), got"):
            m.rows(ids)
    with pytest.raises(TypeError, match="ids must have an integer dtype, got float64"):
        m.rows([0.5])
    assert np.isnan(m.rows([9], check=False)).all()
    out = np.empty((2, 3))
    assert m.rows([0, 1], out=out) is out
    assert_dense_equal(out, dense(m)[:2], terms=TERMS)


def test_a_dense_conversion_is_asked_for_and_bounded():
    m = KroneckerMatrix.random((2**20, 2**10), 2, rng=0)
    with pytest.raises(
        MemoryError, match=r"max_bytes must be at least 8589934592 \(8 GiB\) to hold the dense "
    ):
        m.to_dense()
    small = eye((2, 2))
    with pytest.raises(MemoryError, match=r"dense \(4, 4\) array of float64, got 100"):
        small.to_dense(max_bytes=100)
    out = np.empty((4, 4))
    assert small.to_dense(max_bytes=128, out=out) is out
    for implicit in (np.asarray, np.linalg.norm, np.trace, lambda m: np.add(m, 1.0)):
        with pytest.raises(TypeError, match=r"to_dense"):
            implicit(small)


def test_operators_take_nothing_else():
    m = eye((2, 2))
    for operation in (
        lambda: m * m,
        lambda: m * np.eye(4),
        lambda: np.eye(4) * m,
        lambda: m + 1,
        lambda: np.eye(4) + m,
        lambda: m / m,
        lambda: m**2,
        lambda: m @ "ab",
    ):
        # The last ones are what Python and NumPy say where an array is on the left.
        with pytest.raises(
            TypeError, match=r"unsupported operand|not support ufuncs|not implemented for|^other must be "
        ):
            operation()


def test_matrices_are_values():
    m = KroneckerMatrix.random((5, 3), 2, rng=0)
    for name in ("factors", "shape", "rank", "other"):
        with pytest.raises(AttributeError):
            setattr(m, name, None)
    for same in (copy.copy(m), copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert same.shape == m.shape
        assert [f.tolist() for f in same.factors] == [f.tolist() for f in m.factors]
    assert m != copy.copy(m)
    assert len({m, m, m.T}) == 2


@given(kronecker_matrices(rank=3))
def test_balance_equalises_the_norms_of_each_term(m):
    norms = np.stack([np.linalg.norm(f, axis=(1, 2)) for f in m.balance().factors])
    np.testing.assert_allclose(norms, np.broadcast_to(norms[:1], norms.shape), rtol=1e-4)


def test_values_that_are_not_finite_propagate():
    for value in (np.nan, np.inf):
        m = KroneckerMatrix([np.full((2, 2), value), np.ones((2, 2))])
        for result in (m[0, 0], m.trace(), m.sum(), m.norm(), m.rows([0]), m.balance()[1]):
            assert not np.isfinite(result).all()


A, B = np.ones((2, 3)), np.ones((3, 2))


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: KroneckerMatrix([]), ValueError, "factors must hold at least one array, got none"),
        (
            lambda: KroneckerMatrix([np.ones((1, 2, 2)), np.ones((2, 2, 2))]),
            ValueError,
            "factors must be .* of one rank",
        ),
        (
            lambda: KroneckerMatrix([np.ones(3)]),
            ValueError,
            r"factors must be arrays .* got shapes \[\(3,\)\]",
        ),
        (
            lambda: KroneckerMatrix([np.ones((1, 0, 3))]),
            ValueError,
            "factors must have at least one row and one column",
        ),
        (
            lambda: KroneckerMatrix([np.eye(2).astype("U1")]),
            TypeError,
            "factors must have a numeric dtype, got <U1",
        ),
        (
            lambda: KroneckerMatrix([A, B], (7, 6)),
            ValueError,
            r"shape must be two ints from \(1, 1\) to \(6, 6\), got",
        ),
        (lambda: KroneckerMatrix([A], (0, 1)), ValueError, r"shape must be two ints .* got \(0, 1\)"),
        (lambda: KroneckerMatrix([A], 5), ValueError, "shape must be two ints .* got 5"),
        (lambda: KroneckerMatrix.from_terms([]), ValueError, r"terms must be at least one list .* got \[\]"),
        (lambda: KroneckerMatrix.from_terms([[A, B], [A]]), ValueError, r"all of one order, got \[2, 1\]"),
        (lambda: KroneckerMatrix.from_terms([[A], [B]]), ValueError, r"one shape per mode, got shapes"),
        (
            lambda: KroneckerMatrix.from_terms([[]]),
            ValueError,
            "terms must hold at least one array, got none",
        ),
        (
            lambda: KroneckerMatrix.random((4, 4)),
            ValueError,
            "order, row_dims and col_dims must give one order, got",
        ),
        (
            lambda: KroneckerMatrix.random((4, 4), 3, row_dims=(2, 2)),
            ValueError,
            "must give one order, got 3",
        ),
        (
            lambda: KroneckerMatrix.random((9, 4), row_dims=(2, 2)),
            ValueError,
            r"shape must be two ints .* got \(9, 4\)",
        ),
        (
            lambda: KroneckerMatrix.random(4, 2),
            TypeError,
            "shape must be a sequence of ints, got 4",
        ),
        (lambda: KroneckerMatrix.random((4, 4), 2, rank=-1), ValueError, "rank must be at least 0, got -1"),
        (lambda: eye((2, 0)), ValueError, r"dims must be at least one int >= 1, got \(2, 0\)"),
        (lambda: eye(()), ValueError, r"dims must be at least one int >= 1, got \(\)"),
    ],
)
def test_constructors_refuse(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_methods_refuse():
    m = KroneckerMatrix([np.ones((2, 3)), np.ones((3, 2))])
    other = KroneckerMatrix([np.ones((3, 2)), np.ones((2, 3))])
    for operation in (lambda: m + other, lambda: m - other, lambda: m.inner(other)):
        with pytest.raises(ValueError, match=r"matrices must have .* got .*\(2, 3\), .* and .*\(3, 2\), "):
            operation()
    for method in (m.inner, m.kron):
        with pytest.raises(
            TypeError, match=r"other must be a KroneckerMatrix or have to_kronecker.*, got ndarray"
        ):
            method(np.ones((6, 6)))
    for axis in (2, -3, "rows"):
        with pytest.raises(ValueError, match=f"axis must be None, 0 or 1 .* got {axis!r}"):
            m.sum(axis=axis)


def test_libraries_do_not_mix():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="factors must be arrays of one library, got numpy, torch"):
        KroneckerMatrix([np.eye(2), torch.eye(2)])
    with pytest.raises(TypeError, match="matrices must be arrays of one library"):
        eye(2) + KroneckerMatrix([torch.eye(2)])
