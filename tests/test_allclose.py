"""`allclose`: by norms, of all kinds, without going dense."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import Ket, KroneckerMatrix, KroneckerProduct, KroneckerSum, Permutation, allclose
from ketcore.testing import kets, kronecker_matrices

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 2)), RNG.standard_normal((3, 3))
K = KroneckerMatrix([A, B])
SAME = {
    "matrix": K,
    "merged": KroneckerMatrix([np.kron(A, B)]),
    "two terms": 0.25 * K + 0.75 * K,
    "product": KroneckerProduct([A, B]),
    "balanced": K.balance(),
    "turned twice": K.T.T,
}


@pytest.mark.parametrize("one", SAME)
@pytest.mark.parametrize("other", SAME)
def test_equal_matrices_of_all_kinds(one, other):
    assert allclose(SAME[one], SAME[other]) is True
    assert allclose(SAME[one] * (1 + 1e-6), SAME[other]) is False
    assert allclose(SAME[one] * (1 + 1e-6), SAME[other], rtol=1e-5)
    assert allclose(SAME[one] * (1 + 1e-6), SAME[other], rtol=0, atol=1e-4)


@given(kronecker_matrices(dtype="float64"), st.floats(-3, 3))
def test_it_is_the_comparison_of_dense_norms(matrix, exponent):
    other, size = matrix * (1 + 10.0**exponent), np.linalg.norm(matrix.to_dense())
    gap, larger = 10.0**exponent * size, (1 + 10.0**exponent) * size
    if size > 1e-3:
        assert allclose(matrix, other, rtol=1.1 * gap / larger)
        assert not allclose(matrix, other, rtol=0.9 * gap / larger)
        assert allclose(other, matrix, rtol=0, atol=1.1 * gap)
        assert not allclose(other, matrix, rtol=0, atol=0.9 * gap)


@given(kets())
def test_equal_kets(ket):
    assert allclose(ket, ket.balance())
    if np.abs(ket.to_dense()).max(initial=0) > 1e-3:
        assert not allclose(ket, ket * 1.1)


@pytest.mark.parametrize("seed", range(3))
def test_equal_objects_of_single_precision(seed):
    """The tolerance of norms that come of inner products, on both sides of it."""
    matrix = KroneckerMatrix.random((64, 64), 3, rank=20, rng=seed, dtype="float32")
    turned = KroneckerMatrix([f[::-1] for f in matrix.factors])
    assert allclose(matrix, turned)
    assert allclose(matrix.astype("float64"), matrix)
    assert not allclose(matrix, matrix * 1.005)
    assert allclose(matrix.astype("float16"), matrix.astype("float16"))


def test_each_ket_of_a_batch_is_compared():
    ket = Ket.random((2, 3), 2, (4,), rng=0)
    assert allclose(ket, ket)
    assert not allclose(ket, ket[[0, 1, 2, 0]])
    small = Ket.from_packed(ket.packed * np.array([1, 1, 1, 1e-9])[:, None, None], ket.dims)
    assert not allclose(small, small[[0, 1, 2, 2]] * np.float64(1))
    assert allclose(ket[:0], ket[:0])


def test_kets_of_other_splits():
    one, other = kc.ket([1.0, 2.0], [1.0, 2.0, 3.0]), kc.ket(np.kron([1.0, 2.0], [1.0, 2.0, 3.0]))
    assert allclose(one, other)
    assert not allclose(one, other * 1.001)


def test_sums_of_other_splits():
    one, other = KroneckerSum([A, B, A]), KroneckerSum([KroneckerSum([A, B]).to_dense(), A])
    assert allclose(one, other)
    assert allclose(one, one.to_kronecker())
    assert not allclose(one, other * 1.001)


def test_what_is_not_finite_is_close_to_nothing():
    for value in (np.nan, np.inf):
        one = KroneckerMatrix([A * value, B])
        assert allclose(one, one) is allclose(one, K) is allclose(K, one, rtol=10.0, atol=10.0) is False


def test_zeros():
    assert allclose(K * 0, K * 0)
    assert not allclose(K * 0, K * 1e-30)
    assert allclose(K * 0, K * 1e-30, atol=1e-20)
    assert allclose(KroneckerMatrix.random((4, 4), 2, rank=0), KroneckerMatrix([np.zeros((4, 4))]))


C = np.arange(1.0, 5.0).reshape(2, 2)
LOW, HIGH = 1e-200, 1e200


@pytest.mark.parametrize("kind", [KroneckerMatrix, KroneckerProduct, lambda f: kc.ket(f[0][0], f[1][0])])
@pytest.mark.parametrize("scales", [(LOW, LOW), (HIGH, HIGH), (LOW, HIGH)])
def test_norms_out_of_range(kind, scales):
    """Products of the factors have no norm in float64, or one only where they are multiplied in turn."""
    one = kind([C * scales[0], C * scales[1]])
    assert allclose(one, kind([C * (2 * scales[0]), C * (0.5 * scales[1])]))
    assert not allclose(one, kind([C * scales[0], C * (1.001 * scales[1])]))
    assert not allclose(kind([C * (1.001 * scales[0]), C * scales[1]]), one, rtol=9e-4)
    assert allclose(kind([C * (1.001 * scales[0]), C * scales[1]]), one, rtol=1.1e-3)


def test_terms_and_kets_of_far_scales():
    one = KroneckerMatrix([np.stack([C * HIGH, C * LOW]), np.stack([C * LOW, C.T * HIGH])])
    assert allclose(one, KroneckerMatrix.from_terms([[C, C], [C, C.T]]))
    assert not allclose(one, KroneckerMatrix.from_terms([[C, C], [C, C.T * 1.001]]))
    sizes = np.array([LOW, 1.0, HIGH])[:, None, None]
    leaves = [leaf * sizes for leaf in Ket.random((2, 3), 2, (3,), rng=0).factors]
    for n in range(3):
        spoiled = Ket([leaves[0] * np.where(np.arange(3) == n, 1.001, 1.0)[:, None, None], leaves[1]])
        assert not allclose(Ket(leaves), spoiled)
        assert allclose(Ket(leaves), spoiled, rtol=2e-3)


def test_an_absolute_tolerance_beside_norms_out_of_range():
    one, other = (KroneckerMatrix([C * 1e-150, C * (scale * 1e-150)]) for scale in (1, 2))
    assert allclose(one, other, rtol=0, atol=1.01 * 30e-300)
    assert not allclose(one, other, rtol=0, atol=0.99 * 30e-300)
    huge = KroneckerMatrix([C * HIGH, C * HIGH])
    assert not allclose(huge, huge * 2, rtol=0, atol=1e308)


@pytest.mark.parametrize("name", ["array_api_strict", "torch"])
def test_norms_out_of_range_of_other_libraries(name):
    xp = pytest.importorskip(name)
    one, double, half = (xp.asarray((C * c * 1e-30).astype(np.float32)) for c in (1, 2, 0.5))
    for kind in (KroneckerMatrix, KroneckerProduct):
        assert allclose(kind([one, one]), kind([double, half]))
        assert not allclose(kind([one, one]), kind([double, one]))


def test_products_by_their_parts():
    """Parts are not made dense, whatever their sizes are, and split as in sums."""
    big = KroneckerProduct([kc.Identity(10**9), kc.Diagonal([1.0, 2.0])])
    assert allclose(big, big)
    assert not allclose(big, big * 1.001)
    assert allclose(big * 1.001, big, rtol=1.1e-3)
    split = KroneckerProduct([kc.Identity(10**5), kc.Identity(10**4), kc.Diagonal([1.0, 2.0])])
    assert allclose(big, split)
    many = [kc.Identity(10**9)] * 60
    assert allclose(KroneckerProduct(many), KroneckerProduct(many))
    assert not allclose(KroneckerProduct([*many, C]), KroneckerProduct([*many, C * 1.001]))
    assert allclose(KroneckerProduct([A * 1j, B * 1j]), KroneckerProduct([A, -B]))
    assert not allclose(KroneckerProduct([A * 1j, B]), KroneckerProduct([A, B]))
    assert allclose(kc.Identity(10**9), kc.Identity(10**9))
    assert not allclose(kc.Diagonal([1.0, 2.0]), kc.Diagonal([1.0, 2.1]))


def test_sparse_parts_and_operators():
    sparse, linear = pytest.importorskip("scipy.sparse"), pytest.importorskip("scipy.sparse.linalg")
    one = KroneckerProduct([sparse.csr_array(A), linear.aslinearoperator(B)])
    assert allclose(one, KroneckerProduct([A, B]))
    assert not allclose(one, KroneckerProduct([A, B * 1.001]))
    nothing = KroneckerProduct([sparse.csr_array((2, 2)), B])
    assert allclose(nothing, KroneckerProduct([A, B * 0]))
    assert not allclose(nothing, one)
    for value in (np.nan, np.inf):
        assert not allclose(KroneckerProduct([A * value, B]), KroneckerProduct([A * value, B]))
    turned = KroneckerProduct([Permutation((2, 3), (1, 0))])
    assert allclose(turned, turned)
    assert allclose(turned, Permutation((2, 3), (1, 0)))


def test_identities_beside_other_libraries_and_dtypes():
    torch = pytest.importorskip("torch")
    same = KroneckerProduct([kc.Identity(2), kc.Identity(3)])
    assert allclose(KroneckerMatrix([torch.eye(2), torch.eye(3)]), same)
    assert allclose(same, kc.eye(6, dtype="float32") * np.float32(1.0001))


def test_crops():
    one, other = KroneckerMatrix([A, B], (5, 4)), KroneckerMatrix([np.kron(A, B)], (5, 4))
    assert allclose(one, other)
    spoiled = np.kron(A, B)
    spoiled[5:] = 7.0
    assert allclose(one, KroneckerMatrix([spoiled], (5, 4)))
    assert not allclose(one.T, KroneckerMatrix([spoiled.T * 1.01], (4, 5)))


def test_huge_matrices():
    assert allclose(kc.eye((2,) * 70), kc.eye((4,) * 35))
    assert not allclose(kc.eye((2,) * 70), kc.eye((4,) * 35) * 1.001)
    assert allclose(kc.swap((2,) * 99, 0, 98), kc.swap((2,) * 99, 0, 98))
    many = kc.eye((2,) * 2100)
    assert allclose(many, many)
    assert not allclose(many, many * 1.001)


DIMS = [(12,), (2, 6), (6, 2), (3, 4), (2, 2, 3), (2, 3, 2), (3, 1, 4), (3, 2, 1, 2)]


@pytest.mark.parametrize("dims", DIMS)
def test_permutations_are_compared_as_matrices(dims):
    orders = permutations(range(len(dims)))
    mine = [Permutation(dims, order) for order in orders]
    dense = [one.to_dense() for one in mine]
    for others in DIMS:
        for order in permutations(range(len(others))):
            other = Permutation(others, order)
            same = other.to_dense()
            assert [allclose(one, other) for one in mine] == [np.array_equal(one, same) for one in dense]


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 0, 1)])
def test_permutations_beside_other_kinds(order):
    one = Permutation((2, 1, 3), order)
    assert allclose(one, KroneckerMatrix([one.to_dense()]))
    assert allclose(KroneckerProduct([one.to_dense()]), one)
    assert not allclose(one, KroneckerMatrix([one.to_dense() * 1.001]))
    assert not allclose(KroneckerMatrix([-one.to_dense()]), one)


@pytest.mark.parametrize("name", ["array_api_strict", "torch"])
def test_arrays_of_other_libraries(name):
    xp = pytest.importorskip(name)
    one = KroneckerMatrix([xp.asarray(A.astype(np.float32)), xp.asarray(B.astype(np.float32))])
    assert allclose(one, one * 1.0001) is True
    assert allclose(one, one * 1.01) is False
    turn = kc.swap((2, 2), 0, 1)
    assert allclose(turn, KroneckerMatrix([xp.asarray(turn.to_dense())]))


def test_values_that_are_traced_are_refused():
    jax = pytest.importorskip("jax")
    with pytest.raises(
        TypeError, match="a and b must be known by their values for allclose, got one that is"
    ):
        jax.jit(lambda a: allclose(KroneckerMatrix([a]), KroneckerMatrix([a])))(jax.numpy.eye(2))


def test_values_with_gradients_and_halves_of_torch():
    torch = pytest.importorskip("torch")
    leaf = torch.tensor(A, requires_grad=True)
    assert allclose(KroneckerMatrix([leaf]), KroneckerMatrix([torch.tensor(A)]))
    assert allclose(KroneckerMatrix([leaf.bfloat16()]), KroneckerMatrix([leaf]))
    assert not allclose(KroneckerMatrix([leaf.bfloat16()]), KroneckerMatrix([leaf * 1.1]))


WRONG = [
    (lambda: allclose(K, K.to_dense()), TypeError, r"b must be a ket or an operator, got ndarray \(see to_"),
    (
        lambda: allclose(KroneckerProduct([A, B]), KroneckerProduct([B, A])),
        ValueError,
        r"matrices must have dims .* common places \(to_dense\(\) adds without\), got \[\(2, 2\)",
    ),
    (
        lambda: allclose(*[KroneckerProduct([Permutation((10**5, 10**5), (1, 0))])] * 2),
        MemoryError,
        r"hold the dense part \(10000000000, 10000000000\) of float64",
    ),
    (lambda: allclose(3, K), TypeError, "a must be a ket or an operator, got int"),
    (
        lambda: allclose(K, kc.ket(A[0], B[0])),
        TypeError,
        "a and b must be both kets or both operators, got KroneckerMatrix and Ket",
    ),
    (
        lambda: allclose(K, kc.eye(5)),
        ValueError,
        r"a and b must have equal shapes, got \(6, 6\) and \(5, 5\)",
    ),
    (
        lambda: allclose(kc.eye((2, 3)), kc.eye((3, 2))),
        ValueError,
        r"matrices must have dims .* common places \(to_dense\(\)",
    ),
    (
        lambda: allclose(kc.ket(A[0], B[0]), kc.ket(B[0], A[0])),
        ValueError,
        r"kets must have dims that split at common places, got .* \(see to_dense\)",
    ),
    (
        lambda: allclose(Permutation((2,) * 40, range(39, -1, -1)), kc.eye((2,) * 40)),
        MemoryError,
        r"a Permutation must have terms of at most 134217728 numbers .* \(see to_dense\)",
    ),
    (lambda: allclose(K, K, rtol=-1.0), ValueError, "rtol must be at least 0 and finite, got -1.0"),
    (lambda: allclose(K, K, atol="a"), TypeError, "atol must be a real number, got 'a'"),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG, ids=[text[:30] for _, _, text in WRONG])
def test_error_texts(call, error, text):
    with pytest.raises(error, match=text):
        call()


@pytest.mark.parametrize(("dtype", "near", "far"), [("float16", 3e-3, 5e-3), ("bfloat16", 0.025, 0.045)])
def test_halves_are_compared_to_four_of_their_own_eps(dtype, near, far):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    half = KroneckerMatrix([np.ones((2, 2)), np.ones((3, 3))]).astype(dtype)
    whole = half.astype("float32")
    assert kc.allclose(half, whole * (1 + near))
    assert not kc.allclose(half, whole * (1 + far))
