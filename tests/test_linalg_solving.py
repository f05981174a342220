"""Systems, inverses and least squares against NumPy and SciPy on the dense matrix."""

from functools import partial

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from ketcore.testing import to_numpy
from tests.linalg_problems import (
    CONDITION,
    dense,
    each_library,
    made,
    matrix_of,
    near,
    product_factors,
    values_of,
)


def right_side(factors, columns, seed=1):
    rng, dtype = np.random.default_rng(seed), factors[0].dtype
    rows = dense(factors).shape[0]
    values = rng.standard_normal((rows, *columns))
    return (values + 1j * rng.standard_normal(values.shape) if dtype.kind == "c" else values).astype(dtype)


def shifts(kind):
    return st.sampled_from([0.0, 3.5, -9.0] + ([2.0 + 9.0j] if kind == "c" else []))


@given(product_factors(), st.sampled_from([(), (3,), (0,)]), st.data())
def test_solve(factors, columns, data):
    shift = data.draw(shifts(factors[0].dtype.kind))
    b, full = right_side(factors, columns), dense(factors)
    shifted = full + shift * np.eye(len(full))
    found = linalg.solve(kc.KroneckerMatrix(factors), b, shift)
    # Next to a shift the condition is not that of the factors.
    scale = None if not shift else max(1.0, np.linalg.cond(shifted)) * 10 * np.abs(b).max(initial=0)
    near(found, np.linalg.solve(shifted, b), scale=scale, dtype=factors[0].dtype)


@given(product_factors("hermitian"), st.sampled_from([0.0, 20.0]))
def test_solve_of_hermitian_factors_and_batches(factors, shift):
    b, full = right_side(factors, (2,)), dense(factors)
    batch = np.stack([b, 2 * b])
    found = linalg.solve(kc.KroneckerMatrix(factors), batch, shift)
    expected = np.linalg.solve(full + shift * np.eye(len(full)), b)
    near(found, np.stack([expected, 2 * expected]), dtype=factors[0].dtype)


@given(product_factors(), st.sampled_from([1, 2]))
def test_solve_keeps_kets_and_matrices(factors, rank):
    a, full = kc.KroneckerMatrix(factors), dense(factors)
    v = kc.Ket.random(a.row_dims, rank, (2,), rng=0, dtype=a.dtype)
    found = linalg.solve(a, v)
    assert (found.rank, found.dims, found.dtype) == (rank, a.row_dims, a.dtype)
    expected = np.linalg.solve(full, v.to_dense().T).T
    near(found.to_dense(), expected, scale=CONDITION * rank * 10 * np.abs(v.to_dense()).max())
    shape = (a.shape[0], 2**a.order)
    m = kc.KroneckerMatrix.random(
        shape, row_dims=a.row_dims, col_dims=(2,) * a.order, rank=rank, rng=0, dtype=a.dtype
    )
    found = linalg.solve(a, m)
    near(
        found.to_dense(),
        np.linalg.solve(full, m.to_dense()),
        scale=CONDITION * rank * 10 * np.abs(m.to_dense()).max(),
    )


@given(product_factors())
def test_inv(factors):
    found = linalg.inv(kc.KroneckerMatrix(factors))
    near(found.to_dense(), np.linalg.inv(dense(factors)), dtype=factors[0].dtype)


@given(product_factors(square=False), st.sampled_from(["general", "singular"]))
def test_pinv(factors, kind):
    factors = [matrix_of(np.random.default_rng(3), *f.shape, f.dtype, kind) for f in factors]
    expected, rank = scipy.linalg.pinv(dense(factors), rtol=1e-5, return_rank=True)
    found, count = linalg.pinv(kc.KroneckerMatrix(factors), rtol=1e-5, return_rank=True)
    assert (found.rank, count) == (1, rank)
    scale = CONDITION * max(np.abs(expected).max(), 1.0)
    near(found.to_dense(), expected, scale=scale, dtype=factors[0].dtype)
    near(linalg.pinv(kc.KroneckerMatrix(factors)).to_dense(), expected, scale=scale)


def test_the_whole_product_decides_what_pinv_cuts():
    left, right = np.diag([1.0, 1e-9]), np.diag([1.0, 1e-9, 1e-3])
    full = np.kron(left, right)
    found, rank = linalg.pinv(kc.KroneckerMatrix([left, right]), return_rank=True)
    # Each factor alone has full rank; of the six products the smallest, 1e-18, counts as zero.
    assert (found.rank, rank) == (2, 5) == (2, np.linalg.matrix_rank(full))
    np.testing.assert_allclose(found.to_dense(), scipy.linalg.pinv(full), rtol=1e-12)
    # A large singular value of one factor keeps small ones of the other, whose own largest is no measure.
    kept = linalg.pinv(kc.KroneckerMatrix([left, right]), rtol=0.0)
    np.testing.assert_allclose(kept.to_dense(), np.linalg.inv(full), rtol=1e-12)


@given(st.integers(0, 1000), st.sampled_from([1e-1, 1e-2, 1e-3]))
def test_pinv_cuts_as_scipy_wherever_the_cut_falls(seed, rtol):
    rng = np.random.default_rng(seed)
    factors = [unitary_times(rng, size) for size in (3, 2, 3)]
    expected, rank = scipy.linalg.pinv(dense(factors), atol=1e-3, rtol=rtol, return_rank=True)
    found, count = linalg.pinv(kc.KroneckerMatrix(factors), atol=1e-3, rtol=rtol, return_rank=True)
    assert count == rank
    near(found.to_dense(), expected, scale=1e4)


def unitary_times(rng, size):
    values = 10.0 ** rng.uniform(-2, 0, size)
    return np.linalg.qr(rng.standard_normal((size, size)))[0] * values


def test_pinv_of_zeros():
    found = linalg.pinv(kc.KroneckerMatrix([np.zeros((2, 3)), np.ones((2, 2))]))
    assert found.shape == (6, 4)
    assert not found.to_dense().any()


@given(product_factors(square=False), st.sampled_from(["general", "singular"]), st.sampled_from([(), (2,)]))
def test_lstsq(factors, kind, columns):
    factors = [matrix_of(np.random.default_rng(5), *f.shape, f.dtype, kind) for f in factors]
    full, b = dense(factors), right_side(factors, columns)
    x, residuals, rank, values = linalg.lstsq(kc.KroneckerMatrix(factors), b)
    wide = b.astype(full.dtype)
    expected = np.linalg.lstsq(full, wide, rcond=1e-5)
    scale = CONDITION * np.abs(b).max() * 10
    near(x, expected[0], scale=scale, dtype=factors[0].dtype)
    assert rank == expected[2]
    near(np.sort(values.to_dense())[::-1][:rank], expected[3][:rank])
    assert np.shape(residuals) == (columns if full.shape[0] > full.shape[1] == rank else (0,))
    if np.size(residuals):
        near(residuals, expected[1].reshape(columns), scale=scale**2)


def test_lstsq_cuts_products_of_singular_values():
    left, right = np.diag([1.0, 1e-9]), np.diag([1.0, 1e-9])
    full, b = np.kron(left, right), np.ones(4)
    found = linalg.lstsq(kc.KroneckerMatrix([left, right]), b)
    expected = np.linalg.lstsq(full, b)
    assert found.rank == expected[2] == 3
    np.testing.assert_allclose(found.x, expected[0], rtol=1e-12)
    assert linalg.lstsq(kc.KroneckerMatrix([left, right]), b, cond=1e-6).rank == 1
    # The product of the largest singular values overflows; what matters does not.
    x = linalg.lstsq(kc.KroneckerMatrix([[[1e200]], [[1e200]]]), np.array([1e300])).x
    np.testing.assert_allclose(x, [1e-100], rtol=1e-12)


@pytest.mark.parametrize("sizes", [(30,), (16, 16), (12, 9, 10)])
def test_the_residual_in_float32_is_that_of_a_factorisation(sizes):
    rng = np.random.default_rng(0)
    factors = [conditioned(rng, size, 1e3) for size in sizes]
    a = kc.KroneckerMatrix(factors)
    b = (a.astype("float64") @ rng.standard_normal(a.shape[0])).astype(np.float32)
    by_cholesky = by_inverse = b.reshape(sizes)
    for n, factor in enumerate(factors):
        by_cholesky = along(n, by_cholesky, partial(scipy.linalg.cho_solve, scipy.linalg.cho_factor(factor)))
        by_inverse = along(n, by_inverse, np.linalg.inv(factor).__matmul__)
    found = linalg.solve(a, b)
    assert found.dtype == np.float32
    assert residual(a, found, b) <= 2 * residual(a, by_cholesky, b) < residual(a, by_inverse, b) / 5


def conditioned(rng, size, condition):
    left = np.linalg.qr(rng.standard_normal((size, size)))[0]
    found = (left / np.geomspace(1.0, condition, size)) @ left.T
    return ((found + found.T) / 2).astype(np.float32)


def along(n, x, function):
    """`function` of the columns of x along axis n."""
    moved = np.moveaxis(x, n, 0)
    return np.moveaxis(function(moved.reshape(len(moved), -1)).reshape(moved.shape), 0, n)


def residual(a, x, b):
    """|b - A x| / |b|, in float64."""
    gap = np.linalg.norm(a.astype("float64") @ x.ravel().astype(np.float64) - b)
    return gap / np.linalg.norm(b)


def test_order_one_is_one_matrix_whatever_its_rank_and_crop():
    rng = np.random.default_rng(0)
    terms = rng.standard_normal((3, 5, 6))
    a = kc.KroneckerMatrix([terms], (4, 4))
    full = terms.sum(axis=0)[:4, :4]
    near(linalg.inv(a).to_dense(), np.linalg.inv(full))
    near(linalg.solve(a, np.arange(4.0)), np.linalg.solve(full, np.arange(4.0)))


def test_products_with_structured_parts_convert():
    product = kc.KroneckerProduct(
        [kc.Diagonal([1.0, 4.0]), kc.Identity(3), np.array([[2.0, 1.0], [0.0, 5.0]])]
    )
    b = np.arange(12.0)
    near(linalg.solve(product, b), np.linalg.solve(product.to_dense(), b))
    near(linalg.inv(product).to_dense(), np.linalg.inv(product.to_dense()))


@each_library
def test_other_libraries(xp):
    def body(factors):
        a, full, b = made(xp, factors), dense(factors), right_side(factors, (2,))
        near(xp.to_numpy(linalg.solve(a, xp.asarray(b))), np.linalg.solve(full, b), dtype=b.dtype)
        near(
            xp.to_numpy(linalg.solve(a, xp.asarray(b), 9.0)),
            np.linalg.solve(full + 9.0 * np.eye(len(full)), b),
            scale=1e3,
        )
        near(values_of(linalg.inv(a)), np.linalg.inv(full), dtype=b.dtype)
        near(values_of(linalg.pinv(a)), np.linalg.inv(full), dtype=b.dtype)
        x, _, rank, values = linalg.lstsq(a, xp.asarray(b))
        near(xp.to_numpy(x), np.linalg.solve(full, b), dtype=b.dtype)
        assert rank == len(full) == values.shape[0]

    xp.check(product_factors(), body)


def test_half_precision_is_computed_in_float32():
    factors = [np.array([[2.0, 1.0], [1.0, 3.0]], np.float16)] * 2
    a, full = kc.KroneckerMatrix(factors), dense(factors)
    for found in (linalg.inv(a).to_dense(), linalg.pinv(a).to_dense()):
        near(found, np.linalg.inv(full), dtype=np.float16)
    b = np.arange(4, dtype=np.float16)
    expected = np.linalg.solve(full, b.astype(float))
    near(linalg.solve(a, b), expected, dtype=np.float16)
    near(linalg.lstsq(a, b).x, expected, dtype=np.float16)


@pytest.mark.parametrize("function", [linalg.inv, lambda a: linalg.solve(a, np.ones(4))])
def test_singular_matrices_are_refused(function):
    a = kc.KroneckerMatrix([np.eye(2), np.ones((2, 2))])
    with pytest.raises(np.linalg.LinAlgError, match=r"A must be invertible, got .*factor 1"):
        function(a)


@pytest.mark.parametrize("xp", ["array-api-strict", "torch"], indirect=True)
def test_singular_matrices_of_other_libraries_are_refused(xp):
    a = made(xp, [np.eye(2), np.ones((2, 2))])
    with pytest.raises(np.linalg.LinAlgError, match="A must be invertible, got a singular factor 1"):
        linalg.inv(a)
    with pytest.raises(np.linalg.LinAlgError, match="A must be invertible"):
        linalg.solve(a, xp.asarray(np.ones(4)))
    assert to_numpy(linalg.pinv(a).to_dense()).any()


@given(product_factors(max_size=12), st.sampled_from([(), (2,), (0,)]))
def test_structured_parts_are_solved_as_what_they_are(factors, columns):
    values = np.diagonal(factors[-1]) + 3
    parts = [factors[0], kc.Diagonal(values), kc.Identity(2), scipy.sparse.csr_array(factors[-1])]
    product, dtype = kc.KroneckerProduct(parts), factors[0].dtype
    plain = [factors[0], np.diag(values), np.eye(2, dtype=dtype), factors[-1]]
    full, b = dense(plain), right_side(plain, columns)
    scale = CONDITION**2 * np.abs(b).max(initial=0.0)
    near(linalg.solve(product, b), np.linalg.solve(full, b), scale=scale, dtype=dtype)
    inverse = linalg.inv(product)
    assert isinstance(inverse.parts[1], kc.Diagonal)
    assert isinstance(inverse.parts[2], kc.Identity)
    near(inverse.to_dense(), np.linalg.inv(full), scale=CONDITION**2, dtype=dtype)
    near(linalg.slogdet(product).logabsdet, np.linalg.slogdet(full)[1], scale=1e4)
    near(linalg.slogdet(product).sign, np.linalg.slogdet(full)[0], scale=1e4, dtype=dtype)
    expected = np.linalg.det(full)
    # Beyond that float32 overflows, rightly.
    if abs(expected) < 1e30:
        near(linalg.det(product), expected, scale=1e4 * abs(expected), dtype=dtype)


def test_identities_cost_nothing():
    product = kc.KroneckerProduct(
        [kc.Identity(10**6), kc.Diagonal([-2.0]), kc.Identity(1), [[0.0, 1.0], [1.0, 0.0]]]
    )
    b = np.ones(2 * 10**6)
    assert np.array_equal(linalg.solve(product, b), -b / 2)
    assert float(linalg.slogdet(product).sign) == 1.0
    for size, sign in ((10**18 + 1, -1.0), (10**18, 1.0)):
        assert float(linalg.det(kc.KroneckerProduct([kc.Identity(size), kc.Diagonal([-1.0])]))) == sign
    assert tuple(map(float, linalg.slogdet(kc.KroneckerProduct([kc.Identity(5)])))) == (1.0, 0.0)


def test_structured_parts_that_are_singular():
    rows, zeros = np.ones((2, 2)), kc.Diagonal([1.0, 0.0])
    for parts, n in (([kc.Identity(2), zeros], 1), ([zeros, kc.Identity(2)], 0), ([kc.Identity(2), rows], 1)):
        product = kc.KroneckerProduct(parts)
        text = rf"A must be invertible, got .*factor {n}\b"
        for function in (linalg.inv, lambda a: linalg.solve(a, np.ones(4))):
            with pytest.raises(np.linalg.LinAlgError, match=text):
                function(product)
        assert float(linalg.det(product)) == 0.0
    with pytest.raises(
        np.linalg.LinAlgError, match="A must be finite for inv, got NaN or infinity in factor 1"
    ):
        linalg.inv(kc.KroneckerProduct([kc.Identity(2), kc.Diagonal([np.nan])]))


@each_library
def test_structured_parts_tell_the_dtype_and_the_library(xp):
    wide, narrow = np.array([[2.0, 1.0], [0.0, 4.0]]), np.arange(1.0, 5.0, dtype=np.float32)
    product = kc.KroneckerProduct([xp.asarray(wide), kc.Identity(2)])
    found = xp.to_numpy(linalg.solve(product, xp.asarray(narrow)))
    near(found, np.linalg.solve(np.kron(wide, np.eye(2)), narrow), dtype=np.float64)
    strict = pytest.importorskip("array_api_strict")
    if xp.name != "array-api-strict":
        with pytest.raises(TypeError, match="A and b must be arrays of one library, got array_api_strict"):
            linalg.solve(product, strict.ones(4))
