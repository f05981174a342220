"""Factors of opposite scales: methods of objects and linear algebra give the numbers of level factors."""

import warnings
from functools import reduce
from math import prod

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg
from tests.scale_problems import compared, matrices, normal, scales, times_power


def _ids(A):
    return np.arange(min(5, A.shape[0]))


METHODS = {
    "to_dense": lambda A: A.to_dense(),
    "rows": lambda A: A.rows(_ids(A)),
    "many rows": lambda A: A.rows(np.arange(400) % A.shape[0]),
    "[i]": lambda A: A[1],
    "[i, j]": lambda A: A[1, 2],
    "[:, j]": lambda A: A[:, 1],
    "entries": lambda A: A[_ids(A), _ids(A)[::-1]],
    "A @ x": lambda A: A @ np.linspace(-1, 2, A.shape[1], dtype=A.dtype),
    "A @ X": lambda A: A @ np.linspace(-1, 2, 3 * A.shape[1], dtype=A.dtype).reshape(-1, 3),
    "x @ A": lambda A: np.linspace(-1, 2, A.shape[0], dtype=A.dtype) @ A,
    "A @ A.T": lambda A: (A @ A.T).to_dense(),
    "A @ ket": lambda A: (A @ kc.Ket([np.ones((1, f.shape[2]), A.dtype) for f in A.factors])).to_dense(),
    "A + A": lambda A: (A + A).to_dense(),
    "A + merged": lambda A: (A + kc.KroneckerMatrix([np.ones(A.shape, A.dtype)])).to_dense(),
    "inner": lambda A: A.inner(A),
    "inner cropped": lambda A: _cropped(A).inner(_cropped(A)),
    "norm": lambda A: A.norm(),
    "norm cropped": lambda A: _cropped(A).norm(),
    "sum": lambda A: A.sum(),
    "sum over rows": lambda A: A.sum(axis=0),
    "sum over columns": lambda A: _cropped(A).sum(axis=1),
    "diagonal": lambda A: A.diagonal(),
    "trace": lambda A: A.trace(),
    "trace cropped": lambda A: _cropped(A).trace(),
    "balance": lambda A: A.balance().to_dense(),
    "row_kets": lambda A: A.row_kets(_ids(A)).to_dense(),
    "kets' gram": lambda A: A.row_kets(_ids(A)).gram(A.row_kets(_ids(A))),
    "kets' norm": lambda A: A.row_kets(_ids(A)).norm(),
    "kets' inner": lambda A: A.row_kets(_ids(A)).inner(A.row_kets(_ids(A))),
    "normalize": lambda A: A.row_kets(_ids(A)).normalize().to_dense(),
    "ket's balance": lambda A: A.row_kets(_ids(A)).balance().to_dense(),
    "contract": lambda A: A.row_kets(_ids(A)).contract(np.ones(A.shape[1], A.dtype)),
    "sandwich": lambda A: A.sandwich(np.ones(A.shape[0], A.dtype), np.ones(A.shape[1], A.dtype)),
    "hadamard": lambda A: kc.hadamard(A, A).to_dense(),
}
SQUARE = {
    "partial_trace": lambda A: kc.partial_trace(A, 0).to_dense(),
    "partial_trace of the last": lambda A: kc.partial_trace(A, [0, -1][: A.order - 1]).to_dense(),
}
LINALG = {
    "solve": lambda A: linalg.solve(A, np.linspace(1, 2, A.shape[0], dtype=A.dtype)),
    "solve shifted": lambda A: linalg.solve(A, np.linspace(1, 2, A.shape[0], dtype=A.dtype), shift=0.5),
    "lstsq": lambda A: linalg.lstsq(A, np.linspace(1, 2, A.shape[0], dtype=A.dtype)).x,
    "inv": lambda A: linalg.inv(A).to_dense(),
    "pinv": lambda A: linalg.pinv(A).to_dense(),
    "det": lambda A: linalg.det(A),
    "slogdet": lambda A: np.array(linalg.slogdet(A)),
    "slogdet shifted": lambda A: np.array(linalg.slogdet(A, shift=0.5)),
    "cond": lambda A: linalg.cond(A),
    "norm": lambda A: linalg.norm(A, 2),
    "nuclear norm": lambda A: linalg.norm(A, "nuc"),
    "matrix_rank": lambda A: np.asarray(linalg.matrix_rank(A), float),
    "svdvals": lambda A: _largest(linalg.svdvals(A)),
    "eigvals": lambda A: np.sort(np.abs(_largest(linalg.eigvals(A)))),
    "matrix_power": lambda A: linalg.matrix_power(A, 3).to_dense(),
    "inverse power": lambda A: linalg.matrix_power(A, -2).to_dense(),
}
HERMITIAN = {
    "eigvalsh": lambda A: _largest(linalg.eigvalsh(A)),
    "cholesky": lambda A: linalg.cholesky(A).to_dense(),
    "sqrtm": lambda A: linalg.sqrtm(A).to_dense(),
    "likelihood": lambda A: linalg.gaussian_log_likelihood(
        A, np.linspace(1, 2, A.shape[0], dtype=A.dtype), shift=0.5
    ),
    "log-density": lambda A: kc.kron_log_likelihood(A.factors, np.ones(A.shape[0], A.dtype), 0.5),
}


def _cropped(A):
    return kc.KroneckerMatrix(A.factors, (A.shape[0] - 1, A.shape[1] - 1))


def _largest(values):
    return np.asarray(values.to_dense() if hasattr(values, "to_dense") else values)


# Each order of scales for real factors, one of each kind for complex ones.
CASES = [(dtype, exponents) for dtype in ("float32", "float64") for exponents in scales(dtype)]
CASES += [("complex64", scales("complex64")[1]), ("complex128", scales("complex128")[-1])]
every_scale = pytest.mark.parametrize(("dtype", "exponents"), CASES)


@pytest.mark.parametrize("name", METHODS)
@every_scale
def test_methods_of_matrices_and_kets(name, dtype, exponents):
    for rank, square in ((1, True), (2, False)):
        A, B = matrices(dtype, exponents, np.random.default_rng(rank), square, rank)
        compared(METHODS[name], A, B)


@pytest.mark.parametrize("name", SQUARE)
@every_scale
def test_partial_traces(name, dtype, exponents):
    compared(SQUARE[name], *matrices(dtype, exponents, np.random.default_rng(3), rank=2))


@pytest.mark.parametrize("name", LINALG)
@every_scale
def test_linear_algebra(name, dtype, exponents):
    A, B = matrices(dtype, exponents, np.random.default_rng(1))
    compared(LINALG[name], A, B, float(linalg.cond(A)))


@pytest.mark.parametrize("name", HERMITIAN)
@every_scale
def test_linear_algebra_of_hermitian_matrices(name, dtype, exponents):
    A, _ = matrices(dtype, exponents, np.random.default_rng(2))
    factors = [f[0] @ f[0].conj().T for f in A.factors]
    shifts = [round(e * np.log2(10)) for e in exponents]
    shifts[-1] -= sum(shifts)
    A, B = (
        kc.KroneckerMatrix([times_power(f, s) for f, s in zip(factors, each, strict=True)])
        for each in ([0] * len(shifts), shifts)
    )
    compared(HERMITIAN[name], A, B, float(linalg.cond(A)))


@pytest.mark.parametrize("library", ["array_api_strict", "torch"])
def test_linear_algebra_of_other_libraries(library):
    xp = pytest.importorskip(library)
    for name in ("solve", "inv", "det", "cond", "svdvals"):
        A, B = matrices("float64", (200, 200, -200, -200), np.random.default_rng(1))
        A, B = (kc.KroneckerMatrix([xp.asarray(f) for f in m.factors]) for m in (A, B))
        function = LINALG[name]
        if name == "solve":
            function = lambda A: linalg.solve(A, xp.ones(A.shape[0], dtype=xp.float64))  # noqa: E731
        compared(function, A, B, float(linalg.cond(A)))


@pytest.mark.parametrize("exponents", scales("float64"))
def test_parts_of_products(exponents):
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    values = [normal(rng, n, "f8") for n in (3, (2, 3), (4, 4), (3, 3))][: len(exponents)]
    values[0] = values[0] + 3
    shifts = [round(e * np.log2(10)) for e in exponents]
    shifts[-1] -= sum(shifts)
    products = []
    for shift in ([0] * len(shifts), shifts):
        first, *rest = map(times_power, values, shift)
        parts = [kc.Diagonal(first), kc.Identity(2), *rest]
        if len(parts) > 3:
            parts[3] = sparse.csr_array(np.triu(parts[3]))
        products.append(kc.KroneckerProduct(parts))
    for name in ("A @ x", "A @ X", "x @ A", "to_dense", "trace", "diagonal"):
        compared(METHODS[name], *products)


def test_one_term_of_opposite_scales_beside_others():
    rng = np.random.default_rng(0)
    level = [normal(rng, (2, 2, 3), "f8") for _ in range(4)]
    shifts = [np.array([s, 0])[:, None, None] for s in (700, 700, -700, -700)]
    turned = list(map(times_power, level, shifts))
    A, B = kc.KroneckerMatrix(level), kc.KroneckerMatrix(turned)
    for name in METHODS:
        if name != "A @ A.T":
            compared(METHODS[name], A, B)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_subnormal_leaves(dtype):
    info = np.finfo(dtype)
    tiny, large = info.smallest_subnormal, 1 / info.tiny
    factors = [np.array([[[3 * tiny, 0], [0, tiny]]], dtype), np.array([[[large, 0], [large, large]]], dtype)]
    A = kc.KroneckerMatrix(factors)
    expected = reduce(np.kron, [f[0].astype("complex128" if info.dtype == "f4" else dtype) for f in factors])
    for method in ("to_dense", "balance"):
        found = A.to_dense() if method == "to_dense" else A.balance().to_dense()
        assert np.allclose(found, expected, rtol=100 * info.eps, atol=0)
    assert np.isclose(A.norm(), np.linalg.norm(expected), rtol=100 * info.eps)
    assert np.allclose(linalg.solve(A, A @ np.ones(4, dtype)), 1, rtol=1000 * info.eps)
    norms = [np.linalg.norm(f[0].astype("complex128")) for f in A.balance().factors]
    assert np.isclose(*norms, rtol=100 * info.eps)


def test_terms_of_zeros():
    factors = [np.full((2, 2, 2), 1e300) for _ in range(3)] + [np.zeros((2, 2, 2))]
    factors[0][1], factors[1][1], factors[3][1] = 1e-300, 1.0, 1e-300
    A = kc.KroneckerMatrix(factors)
    expected = np.full((16, 16), 1e-300)
    with np.errstate(all="ignore"):
        for name in ("to_dense", "rows", "many rows", "A @ x", "inner", "norm", "sum", "trace", "sandwich"):
            assert np.isfinite(METHODS[name](A)).all(), name
        assert np.allclose(A.to_dense(), expected, rtol=1e-12, atol=0)
        assert np.allclose(A @ np.ones(16), 16e-300, rtol=1e-12, atol=0)
        # The leaf of zeros has the derivative that the others make.
        tables = [np.full((1, 1, 1), 2.0**500), np.full((1, 1, 1), 2.0**-600), np.zeros((1, 1, 1))]
        found = kc.kron_trace_vjp(tables, np.array(1.0))
        assert [float(f[0, 0, 0]) for f in found] == [0.0, 0.0, 2.0**-100]
        found = kc.gather_kron_vjp([*tables, np.full((1, 1, 1), 2.0**700)], [[0]] * 4, np.ones((1, 1)))
        assert [float(f[0, 0, 0]) for f in found] == [0.0, 0.0, 2.0**600, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(value):
    factors = [np.full((1, 2, 2), s) for s in (1e200, 1e200, 1e-200, 1e-200)]
    factors[1][0, 0, 0] = value
    A = kc.KroneckerMatrix(factors)
    with np.errstate(all="ignore"):
        dense = A.to_dense()
        expected = np.broadcast_to(reduce(np.kron, [f[0] for f in factors[1:2]]), (2, 2)) == 1e200
        expected = reduce(np.kron, [np.ones((2, 2)), expected, np.ones((4, 4))]).astype(bool)
        assert np.array_equal(np.isfinite(dense), expected)
        assert np.allclose(dense[expected], 1.0)
        assert not np.isfinite(A @ np.ones(16)).all()
        assert np.isnan(A.norm()) or np.isinf(A.norm())
        found = A.balance().to_dense()
        assert not np.isfinite(found).all()


def test_terms_that_cancel():
    rng = np.random.default_rng(5)
    first = [normal(rng, (1, 3, 3), "f8") for _ in range(3)]
    A = kc.KroneckerMatrix([times_power(f, s) for f, s in zip(first, (800, -400, -400), strict=True)])
    B = kc.KroneckerMatrix([times_power(f, s) for f, s in zip(first, (-700, 400, 300), strict=True)])
    rest = A - B
    with np.errstate(all="ignore"):
        assert np.abs(rest.to_dense()).max() <= 1e-15 * np.abs(A.to_dense()).max()
        assert np.abs(rest @ np.ones(27)).max() <= 1e-14 * np.abs(A.to_dense()).max()
        assert abs(rest.inner(A)) <= 1e-13 * A.inner(A)
        # Each term came out level: the sum is exact in a dtype that rounds alike.
        assert np.isclose(rest.inner(rest), 0.0, atol=1e-13 * A.inner(A))


def test_identities_are_not_scaled():
    A = kc.KroneckerMatrix([np.full((2, 2), 1e200), np.eye(3), np.full((2, 2), 1e-200)], identities=[1])
    B = kc.KroneckerMatrix([np.full((2, 2), 1e-200), np.eye(3), np.full((2, 2), 1e200)], identities=[1])
    for product in (A @ B, A @ A, kc.hadamard(A, B), kc.partial_trace(A, 0)):
        for n in product.identities:
            assert np.array_equal(product.factors[n], np.broadcast_to(np.eye(3), product.factors[n].shape))
    assert linalg.inv(kc.KroneckerMatrix([2 * np.eye(2), np.eye(3)], identities=[1])).identities == {1}
    expected = np.kron(np.kron(np.full((2, 2), 2.0), np.eye(3)), np.full((2, 2), 2.0))
    assert np.allclose((A @ B).to_dense(), expected)
    assert np.allclose(A @ np.ones(12), 4.0)


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        A, B = matrices("f4", (30, 30, -30, -30), np.random.default_rng(0))
        for name in ("rows", "A @ x", "inner", "balance", "norm", "trace"):
            METHODS[name](A)
            METHODS[name](B)


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_a_wider_range(half):
    pytest.importorskip("ml_dtypes")
    dtype = np.dtype(half)
    factors = [np.full((1, 2, 2), s).astype(dtype) for s in (6e4, 6e4, 2.0**-14, 2.0**-15)]
    A = kc.KroneckerMatrix(factors)
    expected = prod(float(f[0, 0, 0]) for f in factors)
    with np.errstate(all="ignore"):
        for found in (A.to_dense()[0, 0], (A @ np.ones(16, dtype))[0] / 16, A.sum() / 256, A.trace() / 16):
            assert np.isclose(float(found), expected, rtol=2e-2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_multiples_do_not_leave_the_range_before_the_product_does(dtype):
    top = 30 if dtype in ("float32", "complex64") else 200
    for signs in ((1, -1), (-1, 1), (1, 1, -1, -1)):
        leaves = [np.array([[10.0 ** (sign * top)]], dtype) for sign in signs]
        kinds = kc.KroneckerMatrix(leaves), kc.Ket([leaf[0] for leaf in leaves]), kc.KroneckerProduct(leaves)
        for number in (10.0 ** (top // 2), 10.0 ** -(top // 2), -3.0):
            for thing in kinds:
                for found in (thing * number, thing / (1 / number)):
                    np.testing.assert_allclose(found.to_dense().ravel(), [number], rtol=1e-5)
        kets, number = kc.Ket([np.stack([leaf, leaf]) for leaf in leaves]), 10.0 ** (top // 2)
        np.testing.assert_allclose(kets.combine([number, 0.0]).to_dense(), [number], rtol=1e-5)
        # Each term of each ket of a batch has scales of its own.
        terms = [np.array([[[1], [leaf.item()]], [[1 / leaf.item()], [1]]], dtype) for leaf in leaves]
        turned = kc.Ket([np.repeat(term, 2, axis=2) for term in terms])
        for found in (turned * number, turned / (1 / number)):
            np.testing.assert_allclose(found.to_dense(), np.full(found.shape, 2 * number), rtol=1e-5)


def test_casts_do_not_leave_the_range_before_the_product_does():
    wide = [np.array([[1e200]]), np.array([[1e-200]])]
    narrow = [np.array([[2.0**20]], "float32"), np.array([[2.0**-20]], "float32")]
    for leaves, dtype in ((wide, "float32"), (wide, "float16"), (narrow, "float16"), (wide, "complex64")):
        for thing in (kc.KroneckerMatrix(leaves), kc.Ket([leaf[0] for leaf in leaves])):
            found = thing.astype(dtype)
            assert found.dtype == dtype
            assert found.to_dense().ravel().tolist() == [1.0]
    known = kc.KroneckerMatrix([*wide, np.eye(2)], identities=[2]).astype("float32")
    assert known.factors[2][0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_results_in_16_bits_do_not_leave_the_range_before_the_product_does():
    a = kc.KroneckerMatrix([np.array([[1024.0]], "float16"), np.array([[2.0**-10]], "float16")])
    v, three = kc.Ket([f[0] for f in a.factors]), kc.kron(a.factors[0][0], a.factors[0][0], a.factors[1][0])
    one = [a @ a, a @ v, kc.hadamard(a, a), linalg.matrix_power(a, 3), linalg.inv(a @ a), linalg.sqrtm(a @ a)]
    assert [thing.to_dense().ravel().tolist() for thing in one] == [[1.0]] * len(one)
    assert all(thing.dtype == "float16" for thing in one)
    assert kc.partial_trace(three, 0).to_dense().tolist() == [[1024.0]]


def test_structured_solutions_do_not_leave_the_range_before_the_product_does():
    tiny, large = np.array([1e-200]), np.array([[1e200]])
    parts = [kc.Diagonal(tiny), kc.Diagonal(tiny), large, large]
    np.testing.assert_allclose(linalg.solve(kc.KroneckerProduct(parts), np.ones(1)), [1.0])
    uneven = kc.KroneckerProduct([large, large, kc.Diagonal([1e-300])])
    np.testing.assert_allclose(linalg.solve(uneven, np.ones(1)), [1e-100])


def test_leaves_far_apart_are_balanced_on_every_library(xp):
    """A single power of two would overflow on the way from one to the other."""
    for dtype, low, high in (("float64", 5e-324, 1e300), ("float32", 1e-45, 1e38)):
        leaves = [xp.asarray(np.array([[value, 0.0]], dtype)) for value in (low, high)]
        balanced = kc.Ket(leaves).balance()
        sizes = [float(xp.to_numpy(leaf).max()) for leaf in balanced.factors]
        assert sizes[0] == pytest.approx(sizes[1], rel=1e-5)
        assert sizes[0] * sizes[1] == pytest.approx(float(np.dtype(dtype).type(low)) * high, rel=1e-5)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_norms_of_many_modes(dtype):
    """Of many qubits the norm is that of the product, not what their entries multiply to."""
    plus = (np.ones(2) / 2**0.5).astype(dtype)
    ket = kc.ket(*[plus] * 1500)
    tolerance = 6000 * float(np.finfo(dtype).eps)
    for found in (ket.norm(), ket.normalize().norm(), (ket * 2).normalize().norm(), ket.to_column().norm()):
        assert abs(found - 1) < tolerance
    turn = kc.KroneckerMatrix([(np.array([[1, 1], [1, -1]]) / 2**0.5).astype(dtype)] * 240)
    assert abs(turn.norm() / 2.0**120 - 1) < tolerance
