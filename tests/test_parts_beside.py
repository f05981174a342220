"""Parts beside other kinds and libraries: dtypes, multiples, sizes, what lacks a product."""

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

import ketcore as kc
from ketcore import Diagonal, KroneckerMatrix, KroneckerProduct
from ketcore.testing import to_numpy

SAME = kc.KroneckerProduct([kc.Identity(2), kc.Identity(3)])
SINGLE = kc.KroneckerMatrix([np.ones((2, 2), np.float32), np.ones((3, 3), np.float32)])
BESIDE = {
    "same + K": lambda K: SAME + K,
    "K + same": lambda K: K + SAME,
    "same - K": lambda K: SAME - K,
    "K - same": lambda K: K - SAME,
    "same @ K": lambda K: SAME @ K,
    "K @ same": lambda K: K @ SAME,
    "K @ merged": lambda K: K @ kc.KroneckerProduct([kc.Identity(6)]),
    "merged @ K": lambda K: kc.KroneckerProduct([kc.Identity(6)]) @ K,
    "same.inner(K)": lambda K: SAME.inner(K),
    "K.inner(same)": lambda K: K.inner(SAME),
    "hadamard(K, same)": lambda K: kc.hadamard(K, SAME),
    "hadamard(same, K)": lambda K: kc.hadamard(SAME, K),
    "K.kron(same)": lambda K: K.kron(SAME),
}


@pytest.mark.parametrize("name", BESIDE)
def test_identities_alone_leave_library_and_dtype(name):
    """As beside arrays, which the class says: of matrices and of sums, split alike or not."""
    xp = pytest.importorskip("array_api_strict")
    other = kc.KroneckerMatrix([xp.asarray(factor) for factor in SINGLE.factors])
    for K in (SINGLE, other, kc.KroneckerSum([np.eye(2, dtype=np.float32), np.eye(3, dtype=np.float32)])):
        found, same = BESIDE[name](K), BESIDE[name](K.astype(xp.float64 if K is other else np.float64))
        assert "float32" in str(found.dtype)
        found, same = (each.to_dense() if hasattr(each, "to_dense") else each for each in (found, same))
        np.testing.assert_array_equal(to_numpy(found), to_numpy(same))


def test_multiples_are_as_precise_as_the_promoted_dtype():
    thirds = np.full((2, 2), 1 / 3)
    for parts in ([thirds.astype(np.float32), thirds], [thirds.astype(np.complex64), thirds]):
        for found in (3 * kc.KroneckerProduct(parts), kc.KroneckerProduct(parts) / (1 / 3)):
            expected = 3 * np.kron(*(part.astype(np.complex128) for part in parts))
            np.testing.assert_allclose(found.to_dense(), expected, rtol=1e-14)


def test_complex_multiples_of_operators_without_a_dtype():
    turn = kc.Permutation((2, 3), (1, 0))
    for parts in ([turn], [turn, aslinearoperator(np.ones((2, 2)))], [kc.Identity(2), turn]):
        matrix = kc.KroneckerProduct(parts)
        np.testing.assert_array_equal((2j * matrix).to_dense(), 2j * matrix.to_dense())
        assert (2j * matrix).dtype == np.complex128
        assert matrix.astype(np.complex64).to_dense().dtype == np.complex64


def test_operators_without_a_dtype_beside_other_libraries():
    xp = pytest.importorskip("array_api_strict")
    matrix = kc.KroneckerProduct([kc.Permutation((2, 2), (1, 0)), xp.ones((2, 2), dtype=xp.float32)])
    assert matrix.astype(xp.float64).dtype == xp.float64
    assert (matrix * 2j).to_dense().dtype == xp.complex64


def test_identities_that_are_too_large_for_numbers():
    for call in (lambda same: same * 2, lambda same: -same, lambda same: same.astype(np.float32)):
        with pytest.raises(MemoryError, match=r"identities must give at most .* \(see a part Diagonal\(\["):
            call(kc.KroneckerProduct([kc.Identity(10**9), kc.Identity(10**10)]))
    with pytest.raises(MemoryError, match="identities must give at most"):
        kc.partial_trace(kc.KroneckerProduct([kc.Identity(10**9), [[2.0]]]), 1)
    with pytest.raises(MemoryError, match="parts that are merged must give at most"):
        kc.KroneckerProduct([kc.Identity(10**9), [[2.0]]]) @ kc.KroneckerProduct([kc.Identity(10**9)])
    with pytest.raises(MemoryError, match="dense part"):
        kc.KroneckerProduct([kc.Permutation((10**5, 10**5), (1, 0))]).inner(
            kc.KroneckerProduct([kc.Permutation((10**5, 10**5), (1, 0))])
        )


def test_multiples_of_operators_keep_the_dtype():
    """That of an operator of double precision counts beside other parts, also where it carries the number."""
    single = aslinearoperator(np.ones((2, 2), np.float32))
    matrix = KroneckerProduct([aslinearoperator(np.full((2, 2), 1 / 3)), single])
    for found in (matrix * 3, -matrix, matrix / 3):
        assert found.dtype == np.float64
    assert (2j * matrix).dtype == np.complex128
    other = KroneckerMatrix([np.ones((2, 2), np.float32)] * 2)
    assert (other - matrix).dtype == (matrix * 3 + other).dtype == np.float64


class OneSided:
    """What multiplies from the left alone."""

    shape, dtype = (2, 2), np.dtype(float)

    def matmat(self, x):
        return x


def test_what_lacks_a_product_is_named():
    with pytest.raises(TypeError, match=r"parts\[1\] must have matmat and rmatmat, .* OneSided with matmat"):
        KroneckerProduct([np.eye(2), OneSided()])
    for part in (Diagonal([1.0, 2.0]), aslinearoperator(np.eye(2))):
        with pytest.raises(TypeError, match=r"factors must be dense, got \w+ \(see KroneckerProduct\)"):
            KroneckerMatrix([part])


def test_adjoints_of_complex_multiples_of_operators():
    values = np.arange(1.0, 5.0).reshape(2, 2) + 1j * np.eye(2)
    matrix = KroneckerProduct([aslinearoperator(values)]) * (2 + 3j)
    np.testing.assert_allclose(matrix.T.to_dense(), (2 + 3j) * values.T)
    np.testing.assert_allclose(matrix.H.to_dense(), ((2 + 3j) * values).conj().T)
