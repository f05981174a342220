"""assume_a, what counts as Hermitian, and the precision of shifts."""

import inspect
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg, ops
from ketcore.testing import to_numpy
from tests.linalg_problems import dense, dense_sum, each_library, made, near, product_factors

NAMES = "'gen', 'general', 'sym', 'symmetric', 'her', 'hermitian', 'pos', 'positive definite'"
MATRIX, SUM = kc.KroneckerMatrix, kc.KroneckerSum


def results(value):
    """All arrays of a result, in order."""
    if hasattr(value, "to_dense"):
        return [value.to_dense()]
    return [array for part in value for array in results(part)] if isinstance(value, tuple) else [value]


def parted(factors):
    return kc.KroneckerProduct([factors[0], kc.Diagonal(factors[1][0, :])])


def two_terms(factors):
    return MATRIX(factors) + MATRIX([f @ f for f in factors])


# What takes assume_a, of factors that are Hermitian and positive definite, and of right sides of 6 elements.
TAKING = {
    "solve": lambda f, b, **how: linalg.solve(MATRIX(f), b, **how),
    "solve with shift": lambda f, b, **how: linalg.solve(MATRIX(f), b, 0.5, **how),
    "solve of a sum": lambda f, b, **how: linalg.solve(SUM(f), b, 0.5, **how),
    "solve of parts": lambda f, b, **how: linalg.solve(parted(f), b, **how),
    "solve for a ket": lambda f, b, **how: linalg.solve(MATRIX(f), kc.Ket([g[:1, :] for g in f]), **how),
    "inv": lambda f, b, **how: linalg.inv(MATRIX(f), **how),
    "inv of parts": lambda f, b, **how: linalg.inv(parted(f), **how),
    "slogdet": lambda f, b, **how: linalg.slogdet(MATRIX(f), **how),
    "slogdet with shift": lambda f, b, **how: linalg.slogdet(MATRIX(f), 0.5, **how),
    "slogdet of a sum": lambda f, b, **how: linalg.slogdet(SUM(f), 0.5, **how),
    "slogdet of parts": lambda f, b, **how: linalg.slogdet(parted(f), **how),
    "gaussian": lambda f, b, **how: linalg.gaussian_log_likelihood(MATRIX(f), b, 0.5, **how),
    "solve of two terms": lambda f, b, **how: linalg.solve(two_terms(f), b, **how),
    "slogdet of two terms": lambda f, b, **how: linalg.slogdet(two_terms(f), **how),
    "gaussian of two terms": lambda f, b, **how: linalg.gaussian_log_likelihood(two_terms(f), b, **how),
    "eigvalsh": lambda f, b, **how: linalg.eigvalsh(MATRIX(f), **how),
    "eigvalsh of a sum": lambda f, b, **how: linalg.eigvalsh(SUM(f), **how),
    "eigh": lambda f, b, **how: linalg.eigh(MATRIX(f), **how).eigenvalues,
    "cholesky": lambda f, b, **how: linalg.cholesky(MATRIX(f), **how),
}  # fmt: skip


def definite(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal((2, p, p)) for p in (3, 2)]
    found = [real + 1j * imaginary if "c" in dtype else real for real, imaginary in found]
    return [(f @ f.conj().T + np.eye(len(f))).astype(dtype) for f in found]


@each_library
@pytest.mark.parametrize("name", TAKING)
def test_what_is_true_may_be_assumed(xp, name):
    call, right = TAKING[name], xp.asarray(np.arange(1.0, 7.0))
    factors = [xp.asarray(f) for f in definite()]
    for assume_a in ("pos", "positive definite", "her", "hermitian", "sym", "symmetric", "gen", "general"):
        if assume_a.startswith("gen") and name in ("gaussian", "eigh", "eigvalsh", "eigvalsh of a sum"):
            continue
        if not assume_a.startswith("pos") and (name == "cholesky" or name.endswith("of two terms")):
            continue
        for one, other in zip(
            results(call(factors, right, assume_a=assume_a)), results(call(factors, right)), strict=True
        ):
            near(to_numpy(one), to_numpy(other))


def test_symmetric_complex_factors_are_not_hermitian():
    factors = [f + f.T for f in definite("complex128")]
    b = np.arange(6.0)
    full = dense(factors) + 0.5 * np.eye(6)
    near(linalg.solve(MATRIX(factors), b, 0.5, assume_a="sym"), np.linalg.solve(full, b), scale=1e4)
    found = linalg.slogdet(MATRIX(factors), 0.5, assume_a="sym").logabsdet
    near(found, np.linalg.slogdet(full)[1], scale=1e4)
    with pytest.raises(ValueError, match="assume_a must say that A is Hermitian for eigvalsh, got 'sym'"):
        linalg.eigvalsh(MATRIX(factors), assume_a="sym")


@pytest.mark.parametrize("name", TAKING)
@pytest.mark.parametrize("value", ["posdef", "", 1, True, ("gen",)])
def test_other_words_are_refused(name, value):
    text = f"assume_a must be None or one of {NAMES}, got "
    text = "assume_a must be one of (None, 'pos', 'positive definite'), got " if name == "cholesky" else text
    with pytest.raises(ValueError, match=f"^{re.escape(text + repr(value))}$"):
        TAKING[name](definite(), np.ones(6), assume_a=value)


def test_operations_take_and_refuse_the_same():
    factors, b = [f[None] for f in definite()], np.arange(6.0)
    for name in ("kron_solve", "kron_slogdet", "kron_log_likelihood"):
        for suffix in ("", "_vjp", "_jvp", "_dense"):
            assert inspect.signature(getattr(ops, name + suffix)).parameters["assume_a"].default is None
    for call in (
        lambda how: ops.kron_solve(factors, b, 0.5, assume_a=how),
        lambda how: ops.kron_slogdet(factors, 0.5, assume_a=how),
        lambda how: ops.kron_log_likelihood(factors, b, 0.5, assume_a=how),
    ):
        with pytest.raises(ValueError, match=r"^assume_a must be None or one of 'gen', .*, got 'foo'$"):
            call("foo")
    with pytest.raises(ValueError, match="assume_a must say that a covariance is Hermitian, got 'gen'"):
        ops.kron_log_likelihood(factors, b, 0.5, assume_a="gen")


class Unread:
    """What stands in for the reading of values: none may be read."""

    def __call__(self, array):
        raise AssertionError("a value was read")


@pytest.mark.parametrize("xp", ["array-api-strict", "torch"], indirect=True)
@pytest.mark.parametrize("name", TAKING)
def test_what_is_assumed_reads_no_value(xp, name, monkeypatch):
    factors, right = [xp.asarray(f) for f in definite()], xp.asarray(np.arange(1.0, 7.0))
    below = ["arrays.namespaces", "spectra.symmetry", "spectra.decompositions", "spectra.schur"]
    names = ("closed_forms", "of_products", "solving", "of_sums", "norms", "factorisations", "of_two_terms")
    for module in (*below, *(f"linalg.{name}" for name in names)):
        for function in ("value_of", "to_host"):
            monkeypatch.setattr(f"ketcore.{module}.{function}", Unread(), raising=False)
    TAKING[name](factors, right, assume_a="pos")
    with pytest.raises(AssertionError, match="a value was read"):
        TAKING[name](factors, right)


@pytest.mark.parametrize(
    "name",
    [
        "solve with shift",
        "solve of a sum",
        "solve of two terms",
        "inv",
        "slogdet with shift",
        "gaussian",
        "eigvalsh",
    ],
)
def test_jit_of_what_is_assumed_by_jax(name, jax_of_64_bits):
    jax = jax_of_64_bits
    factors, right = [jax.numpy.asarray(f) for f in definite()], jax.numpy.arange(1.0, 7.0)
    found = jax.jit(lambda f: results(TAKING[name](f, right, assume_a="pos"))[-1])(factors)
    near(to_numpy(found), to_numpy(results(TAKING[name](definite(), np.arange(1.0, 7.0)))[-1]))
    function = "gaussian_log_likelihood" if name.startswith("gaussian") else name.partition(" ")[0]
    text = f"^A must be known by its values or by assume_a for {function}, got factor 0 that is traced"
    with pytest.raises(TypeError, match=text):
        jax.jit(lambda f: results(TAKING[name](f, right))[-1])(factors)


def test_jit_of_what_must_be_looked_at():
    jax = pytest.importorskip("jax")
    factors = [jax.numpy.asarray(f) for f in definite()]
    with pytest.raises(TypeError, match="A must be known by its values for sqrtm, got factor 0"):
        jax.jit(lambda f: linalg.sqrtm(MATRIX(f)).factors)(factors)
    text = "assume_a must say that factors are Hermitian where they are traced and there is a shift, got 'gen"
    ones = jax.numpy.ones(6)
    for kind in (MATRIX, SUM):
        with pytest.raises(TypeError, match=text):
            jax.jit(lambda f, kind=kind: linalg.solve(kind(f), ones, 0.5, assume_a="gen"))(factors)
    text = "^x must be known by its values for recompress, got factor 0 that is traced"
    with pytest.raises(TypeError, match=text):
        jax.jit(lambda f: kc.recompress(MATRIX(f), 1).value.factors[0])(factors)


def rounded(dtype, order=2, seed=0):
    """Factors C C^T / n that are Hermitian but for rounding: by an ulp, where their product is exact."""
    rng, found = np.random.default_rng(seed), []
    for p in (5, 4, 3)[:order]:
        c = rng.standard_normal((p, 3 * p))
        c = c + 1j * rng.standard_normal(c.shape) if np.dtype(dtype).kind == "c" else c
        f = (c @ c.conj().T / (3 * p) + 0.2 * np.eye(p)).astype(dtype)
        f[0, 1] *= 1 + np.finfo(dtype).eps
        f[-1, 0] *= 1 - 2 * np.finfo(dtype).eps
        assert (f != f.conj().T).any()
        found.append(f)
    return found


@each_library
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("wide", [False, True])
def test_hermitian_but_for_rounding(xp, dtype, wide):
    """Every function takes them, and gives what the matrix says that they hold."""
    factors = rounded(dtype)
    rng, size = np.random.default_rng(1), 20
    b = rng.standard_normal(size).astype("float64" if wide else np.zeros(0, dtype).real.dtype)
    a, s, right = made(xp, factors), SUM([xp.asarray(f) for f in factors]), xp.asarray(b)
    full, both = dense(factors), dense_sum(factors)
    like = np.result_type(dtype, b.dtype)
    for operator, matrix in ((a, full), (s, both)):
        shifted = matrix + 0.3 * np.eye(size)
        x = xp.to_numpy(linalg.solve(operator, right, 0.3))
        near(x, np.linalg.solve(shifted, b), scale=1e3, dtype=like)
        logarithm = xp.to_numpy(linalg.slogdet(operator, 0.3).logabsdet)
        near(logarithm, np.linalg.slogdet(shifted)[1], scale=1e3)
    log_density = linalg.gaussian_log_likelihood(a, right, 0.3)
    symmetric = dense([(f + f.conj().T) / 2 for f in factors]) + 0.3 * np.eye(size)
    constant = np.linalg.slogdet(symmetric)[1] + size * np.log(np.pi if full.dtype.kind == "c" else 2 * np.pi)
    expected = -(b @ np.linalg.solve(symmetric, b).real + constant) / (1 if full.dtype.kind == "c" else 2)
    single = np.finfo(dtype).eps > 1e-10
    near(xp.to_numpy(log_density), expected, scale=1e3 * (1e9 if single and wide else 1.0))
    assert linalg.eigvalsh(a).dtype == linalg.eigvalsh(s).dtype
    near(np.sort(xp.to_numpy(linalg.eigvalsh(a).to_dense())), np.linalg.eigvalsh(full), scale=1e3)
    near(xp.to_numpy(linalg.cholesky(a, lower=True).to_dense()), np.linalg.cholesky(full), scale=1e3)
    near(xp.to_numpy(linalg.norm(s, 2)), np.linalg.norm(both, 2), scale=1e3)


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_hermitian_but_for_the_rounding_of_halves(name):
    dtype = np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    ulp = 2.0**-10 if name == "float16" else 2.0**-7
    factor = np.array([[2.0, 1.0 + ulp], [1.0, 3.0]]).astype(dtype)
    assert factor[0, 1] != factor[1, 0]
    a, b = MATRIX([factor, factor]), np.ones(4, dtype)
    for call in (linalg.eigvalsh, linalg.cholesky, lambda a: linalg.gaussian_log_likelihood(a, b, 0.5)):
        assert np.isfinite(results(call(a))[0].astype(float)).all()
    far = np.array([[2.0, 1.1], [1.0, 3.0]]).astype(dtype)
    with pytest.raises(np.linalg.LinAlgError, match="A must be Hermitian for cholesky, got factor 0"):
        linalg.cholesky(MATRIX([far, factor]))
    with pytest.raises(np.linalg.LinAlgError, match="A must be Hermitian, got factor 0 that is not"):
        linalg.gaussian_log_likelihood(MATRIX([far, factor]), b, 0.5)


@given(st.integers(0, 100), st.sampled_from([1e-3, 1e-6, 1e-9]))
def test_what_is_hermitian_in_float32_is_solved_for_as_it_is_in_float64(seed, shift):
    """However badly conditioned: half of the gap between mirrored elements is not small beside the shift."""
    factors, rng = rounded("float32", seed=seed), np.random.default_rng(seed)
    c = rng.standard_normal((5, 2))
    # Two of its eigenvectors are mixed by the gap, which is rounding beside the others alone.
    factors[0] = (c @ c.T + 1e-7 * np.triu(rng.standard_normal((5, 5)))).astype("f4")
    b = rng.standard_normal(20)
    full = dense(factors) + shift * np.eye(20)
    expected = np.linalg.solve(full, b)
    scale = 10 * np.linalg.cond(full) * np.abs(expected).max()
    near(linalg.solve(MATRIX(factors), b, shift), expected, scale=scale)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_gradients_of_what_is_hermitian_but_for_rounding(dtype):
    torch = pytest.importorskip("torch")
    factors, b = rounded(dtype), torch.ones(20, dtype=torch.float64)

    def gradients(function):
        leaves = [torch.tensor(f, requires_grad=True) for f in factors]
        return torch.autograd.grad(function(leaves), leaves)

    eye = torch.eye(20, dtype=torch.float64)
    for ours, theirs in (
        (lambda f: linalg.solve(MATRIX(f), b, 0.3).real.sum(),
         lambda f: torch.linalg.solve(torch.kron(*f) + 0.3 * eye, b.to(f[0].dtype)).real.sum()),
        (lambda f: linalg.slogdet(MATRIX(f), 0.3)[1],
         lambda f: torch.linalg.slogdet(torch.kron(*f) + 0.3 * eye)[1]),
    ):  # fmt: skip
        for one, other in zip(gradients(ours), gradients(theirs), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * float(other.abs().max()))


@given(product_factors(dtype=np.float32, max_size=12), st.sampled_from([0.1, -7.3, 1 / 3]), st.data())
def test_a_shift_counts_in_the_precision_of_the_result(factors, number, data):
    """A float32, b float64: the shift is not rounded to float32 on the way."""
    forms = [number, number + 2.1j, np.float64(number), np.array(number), Fraction(1, 3)]
    number = data.draw(st.sampled_from(forms))
    size = len(dense(factors))
    b, eye = np.arange(1.0, size + 1), np.eye(size)
    for kind, full in ((MATRIX, dense(factors)), (SUM, dense_sum(factors))):
        shifted = full + complex(number) * eye if isinstance(number, complex) else full + float(number) * eye
        if np.linalg.cond(shifted) > 1e4:
            continue
        found = linalg.solve(kind(factors), b, number)
        expected = np.linalg.solve(shifted, b)
        near(found, expected, scale=1e4 * np.linalg.cond(shifted), dtype=expected.dtype)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_a_shift_of_a_library_is_not_rounded_either(library, request):
    jax = library == "jax"
    xp = request.getfixturevalue("jax_of_64_bits").numpy if jax else pytest.importorskip(library)
    factors = [f.astype("float32") for f in definite()]
    b, number = np.arange(1.0, 7.0), 0.1
    for kind, full in ((MATRIX, dense(factors)), (SUM, dense_sum(factors))):
        for shift in (number, xp.asarray(number, dtype=xp.float64)):
            found = linalg.solve(kind([xp.asarray(f) for f in factors]), xp.asarray(b), shift)
            near(to_numpy(found), np.linalg.solve(full + number * np.eye(6), b), dtype=np.float64)


def test_determinants_take_the_shift_whole_too():
    factors = [np.eye(2, dtype="float32"), np.eye(30, dtype="float32")]
    # 1 + shift is no number of float32, and its rounding counts 60 times.
    shift = 1e-5 / 3
    stacked = [f[None] for f in factors]
    for found in (linalg.slogdet(MATRIX(factors), shift), ops.kron_slogdet(stacked, shift)):
        assert found[1] == np.float32(60 * np.log1p(shift))
    half = [np.eye(2, dtype="float16")] * 2
    assert linalg.solve(MATRIX(half), np.ones(4), 0.1)[0] == pytest.approx(1 / 1.1, rel=1e-15)
    assert linalg.solve(MATRIX(half), np.ones(4, "float16"), 0.1).dtype == np.float16
    assert linalg.solve(MATRIX(half), np.ones(4, "float32"), 1j).dtype == np.complex64
