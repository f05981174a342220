"""Powers, roots and exponentials against SciPy on the dense matrix."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from ketcore.linalg import branches
from tests.linalg_problems import (
    CONDITION,
    dense,
    dense_sum,
    each_library,
    made,
    near,
    product_factors,
    values_of,
)


@given(product_factors(), st.integers(-3, 4))
def test_matrix_power(factors, n):
    found = linalg.matrix_power(kc.KroneckerMatrix(factors), n)
    near(
        found.to_dense(),
        np.linalg.matrix_power(dense(factors), n),
        scale=CONDITION ** abs(n),
        dtype=factors[0].dtype,
    )
    assert found.rank == 1


def test_positive_powers_of_sums_of_products():
    a = kc.KroneckerMatrix.random((6, 6), row_dims=(2, 3), col_dims=(2, 3), rank=2, rng=0)
    found = linalg.matrix_power(a, 3)
    assert found.rank == 8
    near(found.to_dense(), np.linalg.matrix_power(a.to_dense(), 3), scale=1e4)
    near(linalg.matrix_power(a, 1).to_dense(), a.to_dense())
    cropped = kc.KroneckerMatrix([f[:1] for f in a.factors], (5, 5))
    near(linalg.matrix_power(cropped, 2).to_dense(), np.linalg.matrix_power(cropped.to_dense(), 2))
    for matrix in (a, cropped):
        assert np.array_equal(linalg.matrix_power(matrix, 0).to_dense(), np.eye(matrix.shape[0]))


REFUSED = (
    "A must have eigenvalues whose principal roots are products of roots per factor for sqrtm, "
    "got arguments that add up beyond a turn"
)


def rearranged_rank(matrix, left, right):
    """How many Kronecker products a matrix is the sum of."""
    blocks = matrix.reshape(left, right, left, right).transpose(0, 2, 1, 3).reshape(left**2, right**2)
    return np.linalg.matrix_rank(blocks, tol=1e-6)


def principal_root(matrix):
    """SciPy's root; of a Hermitian matrix by eigenvalues, which SciPy lets round across the cut."""
    if not np.array_equal(matrix, matrix.conj().T):
        return scipy.linalg.sqrtm(matrix)
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(values.astype(complex))) @ vectors.conj().T


def check_root(factors):
    """The principal root as SciPy's; or an error, and SciPy's is not a single product either."""
    full, a = dense(factors), kc.KroneckerMatrix(factors)
    expected = principal_root(full)
    error = None
    try:
        found = linalg.sqrtm(a).to_dense()
    except np.linalg.LinAlgError as refusal:
        error = str(refusal)
    if error is not None:
        assert error == REFUSED
        assert any(rearranged_rank(expected, *split) > 1 for split in splits(factors))
        return False
    near(found, expected, scale=1e4)
    near(found @ found, full, scale=1e4)
    return True


def splits(factors):
    sizes = [len(f) for f in factors]
    return [(int(np.prod(sizes[:n])), int(np.prod(sizes[n:]))) for n in range(1, len(sizes))]


@given(product_factors(dtype="float64", max_size=12, orders=(1, 2)))
def test_sqrtm_of_real_matrices(factors):
    check_root(factors)


@given(product_factors(dtype="complex128", max_size=12))
def test_sqrtm_of_complex_matrices(factors):
    check_root(factors)


@given(product_factors("hermitian", max_size=12))
def test_sqrtm_of_hermitian_matrices(factors):
    factors = [f.astype(np.complex128 if f.dtype.kind == "c" else np.float64) for f in factors]
    check_root([(f + f.conj().T) / 2 for f in factors])


@pytest.mark.parametrize("kind", ["positive", "singular hermitian"])
@pytest.mark.parametrize("dtype", ["float32", "complex64", "float64", "complex128"])
def test_sqrtm_of_semidefinite_matrices(kind, dtype):
    @given(product_factors(kind, dtype=dtype))
    def check(factors):
        found, full = linalg.sqrtm(kc.KroneckerMatrix(factors)).to_dense(), dense(factors)
        near(found @ found, full, dtype=dtype, scale=CONDITION)
        assert np.linalg.eigvalsh(found.astype(full.dtype)).min() > -1e-3

    check()


def test_the_branch_of_roots_is_that_of_the_product():
    one, rotation = np.eye(2), scipy.linalg.expm(np.array([[0.0, 2.0], [-2.0, 0.0]]))
    positive = np.array([[2.0, 1.0], [1.0, 3.0]])
    # i * i is -1, but the principal root of a positive definite product is positive definite, and real.
    both = kc.KroneckerMatrix([-positive, -positive])
    assert linalg.sqrtm(both).dtype == np.float64
    near(linalg.sqrtm(both).to_dense(), scipy.linalg.sqrtm(both.to_dense()))
    for turn in (0.3, 1.0, 2.0, 3.0, -3.0):
        phase = np.exp(1j * turn)
        assert check_root([positive * phase, positive * phase])
        assert check_root([positive * phase, positive / phase])
        assert check_root([rotation * phase, positive])
    assert check_root([one, -one, one])
    assert not check_root([np.diag([1.0, -1.0]), np.diag([1.0, -1.0])])
    # The arguments 2 and -2 add up to 4, but counted from 0 to 2 pi all sums lie within one turn.
    assert check_root([rotation, rotation])
    assert check_root([rotation, positive])
    beside = scipy.linalg.block_diag(rotation, 1.0)
    assert check_root([beside, positive])
    assert not check_root([beside, beside])


def test_windows_take_the_turn_that_fits_all():
    pi = np.pi
    assert branches.windows([np.array([0.1]), np.array([])], 1e-9) == ([(0.1, 0.1), (0.0, 0.0)], 0)
    assert branches.windows([np.array([pi])] * 3, 1e-9)[1] == 1
    assert branches.windows([np.array([-0.9 * pi])] * 2, 1e-9)[1] == -1
    # What rounds to just above -pi counts as pi.
    chosen, turn = branches.windows([np.array([-pi + 1e-12])], 1e-9)
    assert (chosen[0][0], turn) == (-pi + 1e-12, -1)


def test_sqrtm_of_singular_factors_that_are_not_hermitian_is_refused():
    a = kc.KroneckerMatrix([np.eye(2), [[0.0, 1.0], [0.0, 0.0]]])
    with pytest.raises(
        np.linalg.LinAlgError, match="A must be Hermitian or invertible for sqrtm, got a singular fact"
    ):
        linalg.sqrtm(a)


@given(product_factors())
def test_expm_of_kronecker_sums(factors):
    found, expected = linalg.expm(kc.KroneckerSum(factors)), scipy.linalg.expm(dense_sum(factors))
    near(
        found.to_dense(),
        expected,
        scale=10 * CONDITION * np.exp(np.linalg.norm(dense_sum(factors), 2)),
        dtype=factors[0].dtype,
    )
    assert found.rank == 1


def test_expm_of_one_matrix():
    terms = np.random.default_rng(0).standard_normal((2, 3, 3))
    near(linalg.expm(kc.KroneckerMatrix([terms])).to_dense(), scipy.linalg.expm(terms.sum(axis=0)))
    embedded = kc.embed(terms[0], (2, 3, 2), 1)
    near(linalg.expm(embedded).to_dense(), scipy.linalg.expm(embedded.to_dense()), scale=1e4)
    near(linalg.expm(kc.eye((2, 3))).to_dense(), np.e * np.eye(6))
    of_parts = kc.KroneckerProduct([kc.Identity(2), terms[0]])
    near(linalg.expm(of_parts).to_dense(), scipy.linalg.expm(of_parts.to_dense()), scale=1e4)
    with pytest.raises(
        TypeError, match=r"one mode that is no identity for expm, .*expm_multiply\(.*, got 2 modes"
    ):
        linalg.expm(kc.KroneckerMatrix([np.eye(2), np.eye(2)]))


def moved(factors, shifts):
    """The factors plus multiples of the identity, and what their exponential should be, in 64 bits."""
    factors = [(f + s * np.eye(len(f))).astype(f.dtype) for f, s in zip(factors, shifts, strict=True)]
    return factors, scipy.linalg.expm(dense_sum(factors))


@given(product_factors("general"), st.integers(-800, 800), st.integers(-800, 800), st.integers(-3, 3))
def test_expm_where_the_factors_alone_overflow(factors, first, second, total):
    shifts = [first, second, total - first - second][-len(factors) :]
    shifts[0] += total - sum(shifts)
    if factors[0].dtype.kind == "c":
        shifts = [s + 1j * k for s, k in zip(shifts, (3.0, -50.0, 700.0), strict=False)]
    factors, expected = moved(factors, shifts)
    found = linalg.expm(kc.KroneckerSum(factors))
    near(found.to_dense(), expected, scale=1e4 * np.abs(expected).max(), dtype=factors[0].dtype)
    # None of the factors is far from the others.
    sizes = [np.abs(f).max() for f in found.factors]
    assert max(sizes) == pytest.approx(min(sizes), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_expm_where_one_factor_spans_more_than_the_range(dtype):
    """The mean of its eigenvalues is far from the largest of them, which alone decides what overflows."""
    rng, limit = np.random.default_rng(0), 800.0 if dtype in ("float64", "complex128") else 100.0
    turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
    wide = turn @ np.diag([limit, 0.0, -8 * limit]) @ turn.T
    shear = np.array([[limit, 1.0], [0.0, -limit]])
    swap, rotation = limit * np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, limit], [-limit, 0.0]])
    for factor in (wide, shear, swap, np.diag([limit, -limit])):
        pair = [factor.astype(dtype), (np.array([[0.5, 1.0], [0.0, 0.5]]) - limit * np.eye(2)).astype(dtype)]
        for factors in (pair, pair[::-1]):
            expected = scipy.linalg.expm(dense_sum(factors))
            assert 0.1 < np.abs(expected).max() < 10
            near(linalg.expm(kc.KroneckerSum(factors)).to_dense(), expected, scale=1e4, dtype=dtype)
    factors = [rotation.astype(dtype), np.eye(2, dtype=dtype)]
    near(linalg.expm(kc.KroneckerSum(factors)).to_dense(), scipy.linalg.expm(dense_sum(factors)), scale=1e4)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_exponentials_that_overflow_or_vanish_do_so_in_silence(dtype):
    full, limit = np.array([[0.0, 1.0], [1.0, 0.0]]), np.finfo(dtype).max
    for size, order in ((900.0, 1), (900.0, 2), (5000.0, 2), (900.0, 3)):
        grown = [(size * np.eye(2) + full).astype(dtype)] * order
        found = linalg.expm(kc.KroneckerSum(grown))
        assert found.dtype == np.dtype(dtype)
        assert not np.isfinite(multiplied(found)).any()
        assert np.all(multiplied(found).real > limit) or np.dtype(dtype).kind == "c"
        assert not multiplied(linalg.expm(kc.KroneckerSum([f - 2 * f for f in grown]))).any()
    # What overflows in one place leaves the others as they are.
    for size in (100.0, 900.0, 1400.0, 9000.0):
        factor = np.diag([size, 1.0, -size]).astype(dtype)
        for a in (kc.KroneckerMatrix([factor]), kc.KroneckerSum([factor, np.zeros((1, 1), dtype)])):
            values = np.diagonal(multiplied(linalg.expm(a)))
            near(values[1:], [np.e, 0.0], scale=1e3)
            assert values[0].real == np.inf or size < np.log(float(limit))
    # Each factor of the result stays below the largest float where the whole overflows in places only.
    half = np.log(float(limit)) * 0.7
    found = linalg.expm(kc.KroneckerSum([np.diag([half, -half]).astype(dtype)] * 2))
    assert all(np.isfinite(f).all() for f in found.factors)
    values = np.diagonal(multiplied(found))
    assert not np.isfinite(values[0])
    near(values[1:3], [1.0, 1.0], scale=1e3, like=dtype)


def multiplied(a):
    """The dense matrix, in which products of infinities and zeros may be NaN."""
    with np.errstate(all="ignore"):
        return a.to_dense()


def test_expm_of_a_factor_that_grows_far_beyond_its_eigenvalues():
    shear = np.array([[800.0, 1e9], [0.0, -800.0]])
    found = linalg.expm(kc.KroneckerSum([shear, -800.0 * np.eye(2)])).to_dense()
    near(found, np.kron(np.array([[1.0, 1e9 / 1600], [0.0, 0.0]]), np.eye(2)), scale=1e10)


def test_expm_of_one_live_mode_with_a_large_mean():
    inner = np.array([[300.0, 2.0], [1.0, 301.0]])
    for sign in (1.0, -1.0):
        embedded = kc.embed(sign * inner, (2, 2, 3), 1)
        expected = np.kron(np.kron(np.eye(2), scipy.linalg.expm(sign * inner)), np.eye(3))
        found = linalg.expm(embedded).to_dense()
        near(found / np.abs(expected).max(), expected / np.abs(expected).max(), scale=1e4)


@each_library
def test_expm_of_other_libraries_where_factors_overflow(xp):
    factors, expected = moved([np.array([[0.0, 1.0], [0.5, 0.2]]), np.diag([0.0, 1.0])], [800.0, -800.0])
    found = linalg.expm(kc.KroneckerSum([xp.asarray(f) for f in factors]))
    near(values_of(found), expected, scale=1e4, dtype=np.float64)


@each_library
def test_other_libraries(xp):
    def body(factors):
        full, dtype = dense(factors), factors[0].dtype
        for n in (-1, 0, 2):
            near(
                values_of(linalg.matrix_power(made(xp, factors), n)),
                np.linalg.matrix_power(full, n),
                scale=1e4,
                dtype=dtype,
            )
        root = values_of(linalg.sqrtm(made(xp, factors)))
        near(root @ root, full, dtype=dtype)
        found = values_of(linalg.expm(kc.KroneckerSum([xp.asarray(f) for f in factors])))
        near(found, scipy.linalg.expm(dense_sum(factors)), dtype=dtype)

    xp.check(product_factors("positive"), body)


@each_library
def test_roots_of_general_matrices_of_other_libraries(xp):
    turn = scipy.linalg.expm(np.array([[0.1, 1.0], [-1.0, 0.0]]))
    for factors in ([turn, turn], [turn * np.exp(0.5j), turn], [-turn, np.diag([2.0, 1.0])]):
        factors = [np.asarray(f, np.result_type(*factors)) for f in factors]
        near(values_of(linalg.sqrtm(made(xp, factors))), scipy.linalg.sqrtm(dense(factors)))


def test_half_precision_is_computed_in_float32():
    factors = [np.array([[2.0, 1.0], [1.0, 3.0]], np.float16)] * 2
    a, full = kc.KroneckerMatrix(factors), dense(factors)
    near(linalg.matrix_power(a, -2).to_dense(), np.linalg.matrix_power(full, -2), dtype=np.float16)
    near(linalg.matrix_power(a, 0).to_dense(), np.eye(4), dtype=np.float16)
    near(linalg.sqrtm(a).to_dense(), scipy.linalg.sqrtm(full), dtype=np.float16)
    near(
        linalg.expm(kc.KroneckerSum(factors) / 2).to_dense(),
        scipy.linalg.expm(dense_sum(factors) / 2),
        dtype=np.float16,
    )


@pytest.mark.parametrize("shift", [0.0, 800.0])
def test_expm_that_is_differentiated_has_its_means_taken_out(shift):
    torch = pytest.importorskip("torch")
    values = (np.array([[0.0, 1.0], [0.5, 0.2]]), np.diag([0.0, 1.0]))
    factors, expected = moved(values, [shift, -shift])
    recorded = [torch.tensor(f, requires_grad=True) for f in factors]
    found = linalg.expm(kc.KroneckerSum(recorded)).to_dense()
    near(found.detach().numpy(), expected, scale=1e4)
    # The derivative along the identity is the exponential itself.
    gradient = torch.autograd.grad(found.sum(), recorded)
    for one in gradient:
        near(float(torch.trace(one)), expected.sum(), scale=1e4)
