"""Sums of two products of Hermitian factors against dense ones: systems, determinants, densities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

import ketcore as kc
from ketcore import linalg
from ketcore.testing import to_numpy
from tests.linalg_problems import CONDITION, each_library, matrix_of, near, product_factors

WORDS = ("float32", "float64", "complex64", "complex128")
hermitian_factors = st.sampled_from(WORDS).flatmap(
    lambda dtype: product_factors("hermitian", dtype=dtype, orders=(2, 3))
)


def definite(factors, rng):
    return [matrix_of(rng, len(f), len(f), f.dtype, "positive") for f in factors]


def summed(xp, *terms):
    return kc.KroneckerMatrix.from_terms([[xp.asarray(f) for f in term] for term in terms])


def dense(*terms):
    return kc.KroneckerMatrix.from_terms(terms).astype(np.result_type(terms[0][0], np.float64)).to_dense()


@given(hermitian_factors, st.integers(0, 999), st.data())
def test_one_definite_term_is_enough(factors, seed, data):
    """Whichever, or in each mode another factor; negative ones are definite as well."""
    rng = np.random.default_rng(seed)
    other = definite(factors, rng)
    terms = [factors, other]
    if data.draw(st.booleans()):
        terms[0][0], terms[1][0] = terms[1][0], terms[0][0]
    if data.draw(st.booleans()):
        terms[1][-1] = -terms[1][-1]
    full = dense(*terms)
    # What cancels is singular, and has its own test.
    if np.linalg.cond(full) > 1e3:
        return
    A = summed(np, *terms)
    for shape in ((len(full),), (len(full), 2), (2, len(full), 1)):
        b = rng.standard_normal(shape).astype(factors[0].real.dtype)
        expected = np.linalg.solve(full, b if b.ndim > 1 else b[:, None]).reshape(shape)
        near(linalg.solve(A, b), expected, scale=1e5, dtype=factors[0].dtype)
    sign, logarithm = linalg.slogdet(A)
    near(sign, np.linalg.slogdet(full)[0], scale=CONDITION, dtype=factors[0].dtype)
    near(logarithm, np.linalg.slogdet(full)[1], scale=1e3)


@each_library
def test_a_kronecker_diagonal_is_added_to_a_covariance(xp):
    rng = np.random.default_rng(0)
    kernels = [np.exp(-(np.subtract.outer(x, x) ** 2)) for x in (np.linspace(0, 3, 5), np.linspace(0, 2, 4))]
    noise = [np.diag(rng.uniform(0.1, 1.0, len(f))) for f in kernels]
    A, y = summed(xp, kernels, noise), rng.standard_normal((3, 20))
    full = dense(kernels, noise)
    expected = multivariate_normal(cov=full).logpdf(y)
    near(xp.to_numpy(linalg.gaussian_log_likelihood(A, xp.asarray(y))), expected, scale=1e3)
    near(to_numpy(linalg.det(A)), np.linalg.det(full))
    near(xp.to_numpy(linalg.solve(A, xp.asarray(y[0]))), np.linalg.solve(full, y[0]), scale=1e3)


@pytest.mark.parametrize("kind", ["a", "y"])
def test_complex_densities_are_circular(kind):
    rng, dtype = np.random.default_rng(0), "complex128" if kind == "a" else "float64"
    terms = [[matrix_of(rng, p, p, dtype, "positive") for p in (3, 2)] for _ in range(2)]
    y = rng.standard_normal((2, 6)) + (1j * rng.standard_normal((2, 6)) if kind == "y" else 0)
    full = dense(*terms)
    squares = np.real((y.conj() * np.linalg.solve(full, y.T).T).sum(axis=-1))
    expected = -squares - np.linalg.slogdet(full)[1] - 6 * np.log(np.pi)
    near(linalg.gaussian_log_likelihood(summed(np, *terms), y), expected, dtype=np.float64)


@pytest.mark.parametrize("sizes", [(3, 4), (1, 4), (3, 1)])
def test_a_kronecker_sum_written_as_two_terms_takes_a_shift(sizes):
    rng = np.random.default_rng(0)
    factors = [matrix_of(rng, p, p, "float64", "hermitian") for p in sizes]
    S, b = kc.KroneckerSum(factors), rng.standard_normal(np.prod(sizes))
    A = S.to_kronecker()
    for shift in (0.0, 0.3, np.float32(-0.2), 0.3 + 1j):
        near(linalg.solve(A, b, shift), linalg.solve(S, b, shift), scale=1e4)
        for one, other in zip(linalg.slogdet(A, shift), linalg.slogdet(S, shift), strict=True):
            near(one, other, scale=1e3)
    # The eigenvalues are between -4 and 4.
    expected = multivariate_normal(cov=S.to_dense() + 5 * np.eye(len(b))).logpdf(b)
    near(linalg.gaussian_log_likelihood(A, b, 5.0), expected, scale=1e3)


def test_a_multiple_of_the_identity_is_seen_where_there_is_a_shift():
    rng = np.random.default_rng(0)
    kernel = [matrix_of(rng, p, p, "float64", "positive") for p in (3, 4)]
    A, b = summed(np, kernel, [0.5 * np.eye(3), -0.1 * np.eye(4)]), rng.standard_normal(12)
    full = A.to_dense() + 0.7 * np.eye(12)
    near(linalg.solve(A, b, 0.7), np.linalg.solve(full, b))
    near(linalg.slogdet(A, 0.7).logabsdet, np.linalg.slogdet(full)[1], scale=1e3)
    near(linalg.gaussian_log_likelihood(A, b, 0.7), multivariate_normal(cov=full).logpdf(b), scale=1e3)
    A = summed(np, kernel, kernel)
    for call in (linalg.slogdet, lambda A, s: linalg.solve(A, b, s)):
        text = (
            r"^shift must be 0 for \w+ of two terms unless each mode has a multiple of the identity, or go "
        )
        with pytest.raises(TypeError, match=text + "through ketcore.linalg.cg, got none known in mode 0$"):
            call(A, 0.7)


def test_known_identities_are_neither_read_nor_factorised(monkeypatch):
    """What stands in the place of an identity is never looked at: here it is NaN."""
    rng = np.random.default_rng(0)
    a, b = (matrix_of(rng, p, p, "float64", "hermitian") for p in (3, 4))
    S = kc.KroneckerSum([a, b])
    parts = S.to_kronecker()
    factors = [f.copy() for f in parts.factors]
    for k, marks in enumerate(parts.term_identities):
        for n in marks:
            factors[n][k] = np.nan
    A, y = kc.KroneckerMatrix(factors, identities=parts.term_identities), rng.standard_normal(12)

    def refused(matrix):
        raise AssertionError("a Cholesky factorisation was made")

    monkeypatch.setattr(np.linalg, "cholesky", refused)
    for how in (None, "her", "pos", "sym"):
        near(linalg.solve(A, y, assume_a=how), linalg.solve(S, y), scale=1e3)
        near(linalg.slogdet(A, assume_a=how).logabsdet, linalg.slogdet(S).logabsdet, scale=1e3)


def test_of_two_definite_factors_the_better_conditioned_one_whitens():
    """The other one is singular but for rounding, as the covariance of a smooth process is."""
    x = np.linspace(0, 1, 40)
    kernel = np.exp(-(np.subtract.outer(x, x) ** 2))
    assert np.linalg.cond(kernel) > 1e15
    noise = np.diag(0.1 + x)
    b = np.random.default_rng(0).standard_normal(1600)
    # Bare rounding may leave the kernel positive definite, so that it would be taken by its sign alone.
    kernel = kernel + 1e-13 * np.eye(40)
    for terms in ([[kernel] * 2, [noise] * 2], [[noise] * 2, [kernel] * 2]):
        A = summed(np, *terms)
        residual = A @ linalg.solve(A, b) - b
        assert np.linalg.norm(residual) <= 1e-12 * np.linalg.norm(b)


@pytest.mark.parametrize("xp", ["numpy-awkward", "torch"], indirect=True)
@pytest.mark.parametrize("seed", range(3))
def test_single_precision_is_as_exact_as_lapack_at_condition_1e3(xp, seed):
    """Twice LAPACK's error in float32, and 4 roundings where that happens to be less."""
    rng = np.random.default_rng(seed)

    def covariance(size):
        values = np.geomspace(1.0, 1e-3, size)
        q = np.linalg.qr(rng.standard_normal((size, size)))[0]
        return ((q * values) @ q.T).astype("float32")

    terms = [
        [covariance(6), covariance(8)],
        [np.diag(1e-3 * np.arange(1, 7)).astype("float32"), covariance(8)],
    ]
    A, full = summed(xp, *terms), dense(*terms)
    full = (full + full.T) / 2
    assert 1e3 < np.linalg.cond(full) < 1e6
    b = rng.standard_normal(48).astype("float32")
    expected = np.linalg.solve(full, b)
    lapack = np.linalg.solve(full.astype("float32"), b)
    allowed = max(2 * np.linalg.norm(lapack - expected), 4 * 6e-8 * np.linalg.norm(expected))
    found = xp.to_numpy(linalg.solve(A, xp.asarray(b)))
    assert found.dtype == np.float32
    assert np.linalg.norm(found - expected) <= allowed
    logarithm = np.linalg.slogdet(full)[1]
    assert abs(xp.to_numpy(linalg.slogdet(A).logabsdet) - logarithm) <= 1e-7 * abs(logarithm)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_halves_are_computed_in_wider_ones(name):
    dtype = np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    terms = [[np.array(f, dtype) for f in t] for t in (
        ([[2, 1], [1, 2]], [[3, 1], [1, 1]]), ([[1, 0.5], [0.5, 2]], [[1, 0], [0, 4]]))]  # fmt: skip
    A, b = kc.KroneckerMatrix.from_terms(terms), np.ones(4, dtype)
    full = A.astype("float64").to_dense()
    for found, expected in (
        (linalg.solve(A, b), np.linalg.solve(full, np.ones(4))),
        (linalg.slogdet(A).logabsdet, np.linalg.slogdet(full)[1]),
        (linalg.gaussian_log_likelihood(A, b), multivariate_normal(cov=full).logpdf(np.ones(4))),
    ):
        assert found.dtype == dtype
        # One rounding to storage.
        np.testing.assert_allclose(
            found.astype(float), expected, rtol=2.0**-8 if name == "bfloat16" else 2.0**-11
        )


def test_scales_that_only_cancel_in_the_product():
    """Of four factors in one term two overflow, and all of them do not."""
    rng = np.random.default_rng(0)
    terms = [[matrix_of(rng, p, p, "float64", "positive") for p in (3, 2, 2, 1)] for _ in range(2)]
    scaled = [[f * s for f, s in zip(terms[0], (1e200, 1e150, 1e-150, 1e-200), strict=True)], terms[1]]
    b = rng.standard_normal(12)
    near(linalg.solve(summed(np, *scaled), b), np.linalg.solve(dense(*terms), b))


def test_what_is_hermitian_but_for_rounding_is_solved_for_as_it_is():
    """Factors of float32 beside a right side of float64: the gap of mirrored elements counts there."""
    rng = np.random.default_rng(0)
    terms = [[matrix_of(rng, p, p, "float32", "positive") for p in (4, 5)] for _ in range(2)]
    terms[0][0][0, 1] *= 1 + np.finfo("float32").eps
    b = rng.standard_normal(20)
    found, expected = linalg.solve(summed(np, *terms), b), np.linalg.solve(dense(*terms), b)
    near(found, expected, dtype=np.float64)


def indefinite(size):
    return np.diag(np.linspace(-1.0, 1.5, size))


@pytest.mark.parametrize("name", ["solve", "slogdet", "det", "gaussian_log_likelihood"])
def test_errors_name_the_way_out(name):
    b, spd = np.ones(6), [2 * np.eye(2), np.diag([1.0, 2.0, 3.0])]
    takes_b = name in ("solve", "gaussian_log_likelihood")
    function = getattr(linalg, name)
    # The determinant is that of slogdet.
    said = "slogdet" if name == "det" else name

    def call(*terms, **how):
        A = kc.KroneckerMatrix.from_terms(terms)
        return function(A, b, **how) if takes_b else function(A, **how)

    text = rf"^A must have rank 1, or a definite factor in each mode for {said} of two terms, or go through "
    with pytest.raises(
        np.linalg.LinAlgError, match=text + "ketcore.linalg.cg, got two in mode 1 that are not$"
    ):
        call([np.eye(2), indefinite(3)], [np.eye(2), indefinite(3)])
    text = rf"^A must have Hermitian factors for {said} of two terms, or go through ketcore.linalg.cg, got "
    with pytest.raises(np.linalg.LinAlgError, match=text + "factor 1 of term 0 that is not$"):
        call([np.eye(2), np.triu(np.ones((3, 3)))], spd)
    with pytest.raises(
        np.linalg.LinAlgError, match=f"^A must be finite for {said}, got NaN or infinity in f"
    ):
        call([np.eye(2), np.full((3, 3), np.nan)], spd)
    way = r"ketcore.linalg.cg" if takes_b else r"the eigenvalues of A.to_dense\(\)"
    text = rf"^A must have rank 1 or 2 for {name}, or go through {way}, got rank 3$"
    with pytest.raises(TypeError, match=text):
        call(spd, spd, spd)
    cropped = kc.KroneckerMatrix([np.ones((2, 2, 2)), np.ones((2, 3, 3))], (5, 5))
    with pytest.raises(
        ValueError, match=rf"^A must not be cropped for {name}, or go through {way}, got shape"
    ):
        function(cropped, np.ones(5)) if takes_b else function(cropped)
    if name != "det":
        text = (
            r"^assume_a must be None or 'pos' for two terms without a known identity in each mode, got 'her'"
        )
        with pytest.raises(ValueError, match=text + " and none in mode 0$"):
            call(spd, spd, assume_a="her")


def test_errors_of_arguments():
    spd = [2 * np.eye(2), np.diag([1.0, 2.0, 3.0])]
    A = summed(np, spd, spd)
    for b in (kc.ket([1.0, 2.0], [1.0, 2.0, 3.0]), kc.eye((2, 3))):
        text = rf"^b must be dense where A has two terms \(b.to_dense\(\)\), got a {type(b).__name__}$"
        with pytest.raises(TypeError, match=text):
            linalg.solve(A, b)
    with pytest.raises(
        ValueError, match=r"^b must have shape \(6,\), \(..., 6, n\) or \(..., 2, 3\), got \(5,\)$"
    ):
        linalg.solve(A, np.ones(5))
    with pytest.raises(ValueError, match=r"^y must have shape \(..., 6\) or \(..., 2, 3\), got \(5,\)$"):
        linalg.gaussian_log_likelihood(A, np.ones(5))
    with pytest.raises(
        ValueError, match=r"^assume_a must say that A is Hermitian for solve of two terms, or go"
    ):
        linalg.solve(A, np.ones(6), assume_a="gen")
    with pytest.raises(TypeError, match=r"^shift must be real for a covariance, got complex128$"):
        linalg.gaussian_log_likelihood(A, np.ones(6), 1j)
    negative = summed(np, [-2 * spd[0], spd[1]], spd)
    with pytest.raises(np.linalg.LinAlgError, match=r"^A must be positive definite, got a curvature of -"):
        linalg.gaussian_log_likelihood(negative, np.ones(6))
    rng = np.random.default_rng(0)
    a, b = (matrix_of(rng, p, p, "float64", "positive") for p in (2, 3))
    # They cancel to rounding, and not to zero.
    text = r"^A must be invertible with its shift, got terms of 1 that cancel to \d\S*e-1\d$"
    with pytest.raises(np.linalg.LinAlgError, match=text):
        linalg.solve(summed(np, [a, b], [-a, (1 + 1e-15) * b]), np.ones(6))
    assert linalg.slogdet(summed(np, spd, [-spd[0], spd[1]])) == (0.0, -np.inf)
    with pytest.raises(MemoryError, match=r"spectrum \(6,\)"):
        linalg.slogdet(A, max_bytes=40)
    wide = kc.KroneckerMatrix([np.ones((2, 2, 3)), np.ones((2, 3, 2))])
    with pytest.raises(TypeError, match=r"^A must have square factors for solve, got shapes"):
        linalg.solve(wide, np.ones(6))
    with pytest.raises(
        np.linalg.LinAlgError, match="positive definite factors where assume_a says so, got factor 0"
    ):
        linalg.solve(summed(np, spd, [-spd[0], spd[1]]), np.ones(6), assume_a="pos")
    with pytest.raises(TypeError, match="A and y must be arrays of one library"):
        linalg.gaussian_log_likelihood(A, pytest.importorskip("torch").ones(6))


def test_gradients_of_jax_under_jit(jax_of_64_bits):
    """Of equal factors in one mode, so that the whitened ones have equal eigenvalues."""
    jax = jax_of_64_bits
    rng, jnp = np.random.default_rng(0), jax.numpy
    terms = [[matrix_of(rng, p, p, "float64", "positive") for p in (3, 2)] for _ in range(2)]
    terms[1][1] = 1.5 * terms[0][1]
    y = rng.standard_normal(6)

    def ours(factors):
        A = kc.KroneckerMatrix(factors)
        return linalg.gaussian_log_likelihood(A, jnp.asarray(y), assume_a="pos")

    def theirs(factors):
        full = sum(jnp.kron(*[f[k] for f in factors]) for k in range(2))
        return -(y @ jnp.linalg.solve(full, y) + jnp.linalg.slogdet(full)[1]) / 2

    factors = [jnp.asarray(f) for f in kc.KroneckerMatrix.from_terms(terms).factors]
    found, expected = (jax.jit(jax.grad(function))(factors) for function in (ours, theirs))
    for one, other in zip(found, expected, strict=True):
        near(to_numpy(one), to_numpy(other))


def test_factors_that_are_singular_to_rounding_whiten_nothing():
    """Though each has positive eigenvalues, and the sum is well conditioned."""
    other = np.array([[2.0, 1.0], [1.0, 2.0]])
    A = kc.KroneckerMatrix([np.diag([1.0, 1e-17]), other]) + kc.KroneckerMatrix(
        [np.diag([1e-17, 1.0]), other]
    )
    for function in (lambda A: linalg.solve(A, np.ones(4)), linalg.slogdet):
        with pytest.raises(np.linalg.LinAlgError, match=r"got two in mode 0 that are not$"):
            function(A)


def test_second_derivatives_of_a_solution():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    terms = [[torch.asarray(matrix_of(rng, p, p, "float64", "positive")) for p in (2, 3)] for _ in range(2)]
    b, along = torch.asarray(rng.standard_normal(6)), torch.asarray(rng.standard_normal((2, 2)))

    def ours(t):
        moved = [terms[0][0] + t * (along + along.T), terms[0][1]]
        return (linalg.solve(kc.KroneckerMatrix.from_terms([moved, terms[1]]), b) ** 2).sum()

    def theirs(t):
        moved = torch.kron(terms[0][0] + t * (along + along.T), terms[0][1])
        return (torch.linalg.solve(moved + torch.kron(*terms[1]), b) ** 2).sum()

    zero = torch.zeros((), dtype=torch.float64)
    found, expected = (torch.autograd.functional.hessian(function, zero) for function in (ours, theirs))
    near(to_numpy(found), to_numpy(expected))
