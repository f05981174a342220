"""Closed forms of products of parts, linear operators among the parts, against the dense definitions."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import ketcore as kc
from ketcore import Diagonal, Identity, KroneckerMatrix, KroneckerProduct, KroneckerSum, Permutation
from ketcore.objects.parts import name_of
from ketcore.testing import to_numpy
from tests import profiles

KINDS = ("dense", "diagonal", "identity", "csr", "csc", "operator")


def draw(rng, shape, dtype):
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def part_of(rng, kind, rows, columns, dtype):
    """A part, and the array that it is; diagonals and identities where it is square alone."""
    values = draw(rng, (rows, columns), dtype)
    if rows == columns and kind == "diagonal":
        return Diagonal(values[0].copy()), np.diag(values[0])
    if rows == columns and kind == "identity":
        return Identity(rows), np.eye(rows)
    if kind in ("csr", "csc"):
        values[abs(values) < 0.7] = 0
        return getattr(scipy.sparse, f"{kind}_array")(values), values
    return (aslinearoperator(values) if kind == "operator" else values), values


def kron(arrays):
    found = np.ones((1, 1))
    for array in arrays:
        found = np.kron(found, array)
    return found


@st.composite
def products(draw_, dims=None):
    """A product and its array, of these pairs of dims where they are given."""
    dims = (
        draw_(st.lists(st.tuples(*[st.integers(1, 4)] * 2), min_size=1, max_size=3)) if dims is None else dims
    )
    rng = np.random.default_rng(draw_(st.integers(0, 2**32 - 1)))
    dtype = draw_(st.sampled_from(("float64", "complex128")))
    pairs = [part_of(rng, draw_(st.sampled_from(KINDS)), *pair, dtype) for pair in dims]
    return KroneckerProduct([part for part, _ in pairs]), kron([array for _, array in pairs])


def close(found, expected):
    found = found.to_dense() if hasattr(type(found), "to_dense") else to_numpy(np.asarray(found))
    assert found.shape == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)


@st.composite
def chains(draw_):
    """Two products whose inner dims are equal, with their arrays."""
    order = draw_(st.integers(1, 3))
    outer, inner, last = (
        draw_(st.lists(st.integers(1, 3), min_size=order, max_size=order)) for _ in range(3)
    )
    square = draw_(st.booleans())
    outer, last = (inner, inner) if square else (outer, last)
    return draw_(products(list(zip(outer, inner, strict=True)))), draw_(
        products(list(zip(inner, last, strict=True)))
    )


@given(chains())
def test_products_go_part_by_part(pair):
    (m, a), (w, b) = pair
    found = m @ w
    assert isinstance(found, KroneckerProduct)
    close(found, a @ b)
    close(found.T, (a @ b).T)
    close(found @ np.ones(found.shape[1]), (a @ b).sum(axis=1))
    for left, right in zip(m.parts, w.parts, strict=True):
        kinds = {name_of(left), name_of(right)}
        product = (KroneckerProduct([left]) @ KroneckerProduct([right])).parts[0]
        if kinds <= {"Diagonal", "Identity", "sparse"}:
            assert name_of(product) in kinds
        assert name_of(product) == "dense" or "dense" not in kinds


@given(chains(), st.integers(0, 2))
def test_products_with_sums_of_terms(pair, rank):
    (m, a), (w, b) = pair
    rng = np.random.default_rng(rank)
    factors = [draw(rng, (rank, p, q), "float64") for p, q in zip(m.col_dims, w.row_dims, strict=True)]
    k = KroneckerMatrix(factors)
    dense = k.to_dense()
    close(m @ k, a @ dense)
    close(k @ w, dense @ b)
    assert (m @ k).rank == rank
    s = KroneckerSum([draw(rng, (q, q), "float64") for q in m.col_dims])
    close(m @ s, a @ s.to_dense())
    close(s @ w, s.to_dense() @ b)
    close(m @ w - 2 * (m @ w), -a @ b)


def test_dims_that_split_at_common_places():
    rng = np.random.default_rng(0)
    d = KroneckerProduct([Diagonal(draw(rng, 2, "float64")), Identity(3), Identity(2)])
    a, wide = draw(rng, (6, 6), "float64"), Diagonal(draw(rng, 6, "float64"))
    found = d @ KroneckerProduct([wide, Identity(2)])
    assert [name_of(part) for part in found.parts] == ["Diagonal", "Identity"]
    close(found, d.to_dense() @ kron([np.diag(wide.values), np.eye(2)]))
    close(KroneckerProduct([a, Identity(2)]) @ d, kron([a, np.eye(2)]) @ d.to_dense())
    close(KroneckerMatrix([a, np.eye(2)]) @ d, kron([a, np.eye(2)]) @ d.to_dense())
    close(d @ KroneckerMatrix([a, np.eye(2)]), d.to_dense() @ kron([a, np.eye(2)]))
    with pytest.raises(
        ValueError, match=r"split at common places \(to_dense\(\) mult.*, got \(2, 3\) and \(3, 2\)"
    ):
        KroneckerProduct([Identity(2), Identity(3)]) @ KroneckerProduct([Identity(3), Identity(2)])
    cropped = KroneckerMatrix([a, a], shape=(5, 36))
    close(cropped @ KroneckerProduct([wide, a]), cropped.to_dense() @ kron([np.diag(wide.values), a]))


def test_identities_of_any_size_meet_sums_of_terms():
    k = kc.eye((2, 3, 2)) + kc.eye((2, 3, 2))
    found = k @ KroneckerProduct([Identity(2), Diagonal([1.0, 2.0, 3.0]), Identity(2)])
    assert found.identities == {0, 2}
    huge = KroneckerProduct([Identity(10**9), Diagonal([1.0, np.inf])])
    assert (huge @ huge).parts[1].values.tolist() == [1.0, np.inf]
    assert float(huge[10**9, 10**9]) == 1.0


KEYS = st.one_of(
    st.integers(-3, 2),
    st.builds(
        slice, *[st.one_of(st.none(), st.integers(-40, 40))] * 2, st.sampled_from((None, 1, -1, 2, -3, 5))
    ),
    st.lists(st.integers(-3, 2), max_size=4).map(np.asarray).map(lambda a: a.astype(int)),
)


@given(products([(3, 4), (2, 1), (3, 3)]), KEYS, KEYS)
def test_indexing_is_that_of_arrays(pair, row, column):
    m, a = pair
    for key in (row, (row, column), (slice(None), column)):
        try:
            expected = a[key]
        except IndexError:
            with pytest.raises(IndexError, match="broadcast"):
                m[key]
            continue
        close(m[key], expected)
    close(m[a.real > 0.5], a[a.real > 0.5])


def test_indexing_costs_the_output():
    """Neither parts of many rows, nor digits that many modes have, are gone through."""
    m = KroneckerProduct([Identity(10**12), Diagonal(np.arange(4.0)), Identity(2**20), Identity(10**12)])
    last = m.shape[0] - 1
    assert m[last, last] == 3.0
    assert m[[0, last], [0, last]].tolist() == [0.0, 3.0]
    assert m[last - 1 :, -3:].tolist() == [[0.0, 3.0, 0.0], [0.0, 0.0, 3.0]]
    assert m[:: last // 2, last].shape == (3,)
    assert m[10**12 - 1 : 10**12 + 2, 0].tolist() == [0.0, 0.0, 0.0]
    with pytest.raises(MemoryError, match="iter_row_blocks"):
        m[0]
    with pytest.raises(IndexError, match="key must lie in"):
        m[m.shape[0]]


def test_rows_are_those_of_embedding_lookups():
    m = KroneckerProduct([Identity(2), Diagonal([1.0, 2.0])])
    out = np.empty((2, 1, 4))
    assert m.rows([[3], [0]], out=out) is out
    assert out.tolist() == [[[0.0, 0.0, 0.0, 2.0]], [[1.0, 0.0, 0.0, 0.0]]]
    for wrong, error in ((-1, IndexError), (4, IndexError), (1.0, TypeError)):
        with pytest.raises(error, match="ids must"):
            m.rows([wrong])
    assert m.rows(np.zeros((0,), int)).shape == (0, 4)


@given(products())
@settings(max_examples=profiles.scaled(10))
def test_sums_norms_and_inner_products(pair):
    m, a = pair
    close(m.sum(), a.sum())
    close(m.sum(0), a.sum(axis=0))
    close(m.sum(-1), a.sum(axis=1))
    close(m.norm(), np.linalg.norm(a))
    close(m.inner(2j * m), 2j * (abs(a) ** 2).sum())
    close(m.inner(m.to_kronecker()), (abs(a) ** 2).sum())
    close(m.to_kronecker().inner(m), (abs(a) ** 2).sum())
    close(m.balance(), a)
    assert m.balance().order == m.order
    close(m.sandwich(np.ones(len(a)), np.ones(a.shape[1])), a.sum())
    x, y = (kc.Ket([np.ones(dim) for dim in dims]) for dims in (m.row_dims, m.col_dims))
    close(m.sandwich(x, 2 * y), 2 * a.sum())
    found = m.astype("complex64")
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found.to_dense(), a, rtol=1e-5, atol=1e-5)


@given(products([(2, 2), (3, 3)]), products([(2, 2), (3, 3)]))
def test_inner_products_of_all_pairs_of_kinds(left, right):
    close(left[0].inner(right[0]), np.vdot(left[1], right[1]))
    close(left[0] + right[0], left[1] + right[1])
    close(left[0] - right[0].to_kronecker(), left[1] - right[1])


def test_what_is_stored_twice_counts_by_its_sum():
    part = scipy.sparse.csr_array((np.array([1.0, 2.0]), [0, 0], [0, 2]), shape=(1, 2))
    assert float(KroneckerProduct([part]).norm()) == 3.0
    assert part.nnz == 2


def test_sparse_parts_that_store_nothing():
    m = KroneckerProduct([scipy.sparse.csr_array((2, 2)), np.full((1, 1), 1e200), [[1e200]]])
    zero = np.zeros((2, 2))
    for found in (m, m @ m, m + m, 1e10 * m, m.balance(), m.astype("float32"), m @ np.eye(2), m[:]):
        close(found, zero)
    assert (float(m.norm()), float(m.sum()), float(m.trace())) == (0.0,) * 3


def test_parts_of_opposite_scales():
    """Products and casts stay in range where the whole does."""
    m = KroneckerProduct([Diagonal([1e200, 2e200]), [[1e-200]], Identity(1)])
    np.testing.assert_allclose((m @ m).to_dense(), np.diag([1.0, 4.0]), rtol=1e-12)
    np.testing.assert_allclose((m @ m.to_kronecker()).to_dense(), np.diag([1.0, 4.0]), rtol=1e-12)
    np.testing.assert_allclose(m.astype("float32").to_dense(), np.diag([1.0, 2.0]), rtol=1e-6)
    np.testing.assert_allclose([m.inner(m), m.norm() ** 2, m.sum()], [5.0, 5.0, 3.0], rtol=1e-12)
    small = KroneckerProduct([Diagonal(np.full(2, 6e4, np.float16)), np.full((1, 1), 3e-5, np.float16)])
    for found in (small @ small, small @ small.to_kronecker()):
        assert found.dtype == np.float16
        np.testing.assert_allclose(np.diagonal(found.to_dense()), 3.24, rtol=0.01)


def test_every_library(xp):
    rng = np.random.default_rng(0)
    a, v = draw(rng, (2, 3), "float32"), draw(rng, 3, "float32")
    m = KroneckerProduct([xp.asarray(a), Diagonal(xp.asarray(v)), Identity(2)])
    dense = kron([a, np.diag(v), np.eye(2)]).astype(np.float32)
    assert m.dtype == xp.asarray(a).dtype

    def check(found, expected):
        found = found.to_dense() if hasattr(type(found), "to_dense") else found
        assert type(found) is type(xp.asarray(a)) or np.ndim(expected) == 0
        np.testing.assert_allclose(xp.to_numpy(found), expected, rtol=1e-4, atol=1e-4)

    check(m @ m.T, dense @ dense.T)
    check(m.T.to_kronecker() @ m, dense.T @ dense)
    check(m + m, 2 * dense)
    check(m[3], dense[3])
    check(m[2:5, ::2], dense[2:5, ::2])
    check(m[[1, 5], [2, 0]], dense[[1, 5], [2, 0]])
    check(m.rows([1, 5]), dense[[1, 5]])
    check(m.sum(), dense.sum())
    check(m.sum(axis=0), dense.sum(axis=0))
    check(m.norm(), np.linalg.norm(dense))
    check(m.inner(m), (dense**2).sum())
    check(m.balance(), dense)


def test_gradients_go_through():
    torch = pytest.importorskip("torch")
    v = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    m = KroneckerProduct([Diagonal(v), Identity(3)])
    for call, gradient in (
        (lambda: (m @ m).trace(), [6.0, 12.0]),
        (lambda: m[4, 4] + m.rows([0])[0, 0], [1.0, 1.0]),
        (lambda: m.sum() + m.norm() ** 2, [9.0, 15.0]),
        (lambda: m.inner(m), [6.0, 12.0]),
    ):
        (found,) = torch.autograd.grad(call(), v)
        np.testing.assert_allclose(found, gradient)


def cumulative(dtype=float):
    """The lower triangle of ones, as an operator of three rows."""

    def down(x):
        return np.cumsum(x, axis=0)

    def up(x):
        return np.cumsum(x[::-1], axis=0)[::-1]

    return LinearOperator((3, 3), matvec=down, rmatvec=up, matmat=down, rmatmat=up, dtype=dtype)


def test_linear_operators_are_parts():
    lower, b = np.tril(np.ones((3, 3))), np.array([[1.0, 2.0j], [3.0, 4.0]])
    part, dense = cumulative(), np.kron(lower, b)
    for m in (KroneckerProduct([part, b]), kc.kron(part, b)):
        assert m.parts[0] is part
        assert repr(m) == "KroneckerProduct(_CustomLinearOperator(3, 3), dense(2, 2), dtype=complex128)"
        x = np.arange(12.0).reshape(6, 2) * (1 + 2j)
        close(m @ x, dense @ x)
        close(x.T @ m, x.T @ dense)
        close(m.H @ x, dense.conj().T @ x)
        close((2j * m) @ x, 2j * dense @ x)
        close(m.conj() @ x, dense.conj() @ x)
        close(m.T.T, dense)
        close(m @ np.ones((6, 0)), np.ones((6, 0)))
        close(m.to_kronecker(), dense)
        close(m.diagonal(), np.diagonal(dense))
        close(m.trace(), np.trace(dense))
    assert (2 * KroneckerProduct([part])).dtype == np.float64
    close(2j * KroneckerProduct([part]), 2j * lower)
    close(KroneckerProduct([part]).astype("complex64"), lower)
    assert KroneckerProduct([cumulative("float32")]).dtype == np.float32
    # Integers are entries of float64.
    assert KroneckerProduct([aslinearoperator(np.eye(2, dtype=int))]).dtype == np.float64


def test_operators_of_ours_are_parts():
    s, p = KroneckerSum([[[1.0]], [[2.0, 3.0], [4.0, 5.0]]]), Permutation((2, 3), (1, 0))
    m = kc.kron(s, p, Diagonal([1.0, 2.0]))
    dense = kron([s.to_dense(), p.to_dense(), np.diag([1.0, 2.0])])
    assert [name_of(part) for part in m.T.parts] == ["KroneckerSum", "Permutation", "Diagonal"]
    close(m, dense)
    close(m.T, dense.T)
    close(m[5], dense[5])
    close(m.norm(), np.linalg.norm(dense))
    close(m.trace(), np.trace(dense))
    for same in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        close(same, dense)
    assert kc.kron(p, p).dims == (2, 3, 2, 3)
    # A permutation has the dtype, and the library, of what is beside it.
    assert KroneckerProduct([p, np.eye(2, dtype=np.float32)]).dtype == np.float32
    assert (KroneckerProduct([p]) @ np.ones(6, np.float32)).dtype == np.float32
    nested = KroneckerProduct([KroneckerProduct([Diagonal([1.0, 2.0]), Identity(2)]), [[1.0, 2.0]]])
    close(nested, np.kron(np.diag([1.0, 1.0, 2.0, 2.0]), [[1.0, 2.0]]))


class Wrong:
    """An operator that does not do what it says."""

    shape, dtype = (2, 2), np.dtype(np.float64)

    def __init__(self, result):
        self.result = result

    def matmat(self, x):
        return self.result

    rmatmat = matmat


def without_dtype():
    found = Wrong(None)
    found.dtype = None
    return found


def with_shape(*shape):
    found = Wrong(None)
    found.shape = shape
    return found


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: KroneckerProduct([without_dtype()]),
            TypeError,
            r"parts\[0\] must have a dtype of NumPy, got Wrong",
        ),
        (
            lambda: KroneckerProduct([with_shape(2)]),
            ValueError,
            r"parts\[0\] must be a matrix .* shape \(2,\)",
        ),
        (
            lambda: KroneckerProduct([with_shape(0, 2)]),
            ValueError,
            r"parts\[0\].shape must be at least 1, got 0",
        ),
        (
            lambda: KroneckerProduct([Wrong(np.ones(2))]) @ np.ones(2),
            ValueError,
            r"must give \(2, 1\) by matmat",
        ),
        (
            lambda: KroneckerProduct([Wrong(None)]) @ np.ones(2),
            ValueError,
            "by matmat .*, got NoneType of Wrong",
        ),
        (
            lambda: KroneckerProduct([Wrong(np.ones((2, 1)) * 1j)]) @ np.ones(2),
            TypeError,
            "parts must have a dtype that their results have, got complex128 of Wrong",
        ),
        (
            lambda: np.ones(2) @ KroneckerProduct([LinearOperator((2, 2), matvec=lambda x: x, dtype=float)]),
            TypeError,
            "parts must have matmat and rmatmat for this product, got ",
        ),
        (
            lambda: KroneckerProduct([aslinearoperator(scipy.sparse.eye_array(10**5))]).trace(),
            MemoryError,
            r"to hold the dense part \(100000, 100000\) of float64",
        ),
    ],
)
def test_operators_that_do_not_fit_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("name", ["inv", "slogdet", "eigh", "svd", "cholesky", "matrix_rank"])
def test_linear_algebra_says_what_to_do_with_operators(name):
    m = KroneckerProduct([cumulative(), Identity(2)])
    with pytest.raises(
        TypeError, match=r"A must have no linear operators among its parts .*to_kronecker\(\)"
    ):
        getattr(kc.linalg, name)(m)
    with pytest.raises(TypeError, match=r"to_kronecker\(\) .* as part 0"):
        kc.linalg.solve(m, np.ones(6))
    with pytest.raises(TypeError, match=r"to_kronecker\(\) .* as part 0"):
        getattr(kc.linalg, name)(KroneckerProduct([cumulative()]))
    assert np.isfinite(kc.linalg.slogdet(m.to_kronecker())[1])


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "bsr", "dia", "dok", "lil"])
def test_sparse_matrices_of_all_formats_are_parts(form):
    values = np.array([[1, 0, 2], [0, 0, 3]])
    for kind in ("array", "matrix"):
        part = getattr(scipy.sparse, f"{form}_{kind}")(values)
        m = KroneckerProduct([part, Identity(2)])
        assert m.dtype == np.float64
        close(m @ m.T, np.kron(values @ values.T, np.eye(2)))
        close(m[1:, ::2], np.kron(values, np.eye(2))[1:, ::2])
    with pytest.raises(TypeError, match="x must be dense"):
        m @ scipy.sparse.eye_array(6, format=form)
    for call in (lambda: m + part, lambda: part + m, lambda: m * part):
        with pytest.raises(TypeError, match=r"to_dense\(\)"):
            call()


def test_permutations_that_move_no_mode_are_the_identity():
    rng = np.random.default_rng(0)
    a = KroneckerMatrix([draw(rng, (2, 2), "float64"), draw(rng, (3, 3), "float64")])
    p, still = Permutation((2, 3), (1, 0)), Permutation((2, 3), (0, 1))
    assert still @ a is a
    assert a @ still is a
    close(kc.permute_subsystems(a, (1, 0)), p.to_dense() @ a.to_dense() @ p.to_dense().T)
    with pytest.raises(TypeError, match=r"permute_subsystems\(A, order\), which is P @ A @ P.T"):
        p @ a @ p.T
    with pytest.raises(ValueError, match=r"for @, got \(6, 6\) and \(2, 2\)"):
        still @ KroneckerMatrix([np.eye(2)])


@given(st.permutations(range(3)), KEYS, KEYS)
def test_permutations_are_indexed_as_arrays(order, row, column):
    p = Permutation((2, 3, 2), order)
    a = p.to_dense()
    try:
        expected = a[row, column]
    except IndexError:
        return
    close(p[row, column], expected)
    close(p[row], a[row])
    close(p.trace(), np.trace(a))
    close(p.rows([3, 11]), a[[3, 11]])


@pytest.mark.parametrize("part", [Diagonal(np.ones(2)), Identity(2)], ids=["diagonal", "identity"])
def test_what_a_part_has_not_the_product_of_it_has(part):
    product = KroneckerProduct([part])
    names = {*dir(KroneckerMatrix), *dir(KroneckerSum), *dir(Permutation)}
    missing = [name for name in names if name[0] != "_" and not hasattr(part, name)]
    assert "rows" in missing
    for name in missing:
        with pytest.raises(AttributeError) as caught:
            getattr(part, name)
        assert "serves instead" not in str(caught.value) or hasattr(product, name), caught.value
