"""Operations and linear algebra under jit, grad, jvp, vmap and scan of JAX, and in its default float32.

What JAX compiles takes seconds, so that all transformations of an operation are one function.
"""

import warnings

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg
from ketcore.testing import to_numpy
from tests.operator_problems import problems_to_compile
from tests.problems import Problem, drawn

OPS = {op.name: op for op in kc.ops.OPS}
RNG = np.random.default_rng(5)


def problems():
    """One problem of each operation, and of those with a shift one with and one without."""
    found = problems_to_compile(OPS, "float64", Problem.of)
    known = {problem.op.name for problem in found}
    return found + [drawn(op, "float64") for op in kc.ops.OPS if op.name not in known]


@pytest.mark.parametrize(
    "problem", [pytest.param(each, id=f"{n}-{each.op.name}") for n, each in enumerate(problems())]
)
def test_transformations_of_an_operation_are_its_derivatives_and_a_loop(jax, problem):
    arrays = [np.asarray(array) for array in problem.arrays]
    tangents = [np.roll(array, 1) if array.ndim else array for array in arrays]
    if any("assume_a" in name for name in problem.op.options):
        # What is Hermitian moves to what is.
        tangents = [array / 2 for array in arrays]
    outputs, many = problem.forward(*arrays), [np.stack([array, 1.25 * array]) for array in arrays]
    cotangents = tuple(RNG.standard_normal(output.shape) for output in outputs)

    own = kc.jax.custom_vjp(problem.op.forward)

    def with_own(*arrays):
        return problem.op.flat_outputs(problem.call(own, arrays))

    def transformed(arrays, tangents, cotangents, many):
        _, pull = jax.vjp(problem.forward, *arrays)
        _, own_pull = jax.vjp(with_own, *arrays)
        _, pushed = jax.jvp(problem.forward, arrays, tangents)
        mapped = jax.vmap(problem.forward)(*many)
        _, scanned = jax.lax.scan(lambda carry, each: (carry, problem.forward(*each)), 0, many)
        return pull(cotangents), own_pull(cotangents), pushed, mapped, scanned

    with jax.enable_x64(True):
        pulled, own_pulled, pushed, mapped, scanned = jax.tree.map(
            np.asarray, jax.jit(transformed)(arrays, tangents, cotangents, many)
        )
    loop = [problem.forward(*(array[k] for array in many)) for k in range(2)]
    near(pulled, problem.vjp(*arrays, cotangents))
    near(own_pulled, problem.vjp(*arrays, cotangents))
    near(pushed, problem.jvp(*arrays, *tangents))
    for found in (mapped, scanned):
        for k in range(2):
            near([output[k] for output in found], loop[k])


def test_what_has_no_vjp_of_its_own_is_named(jax):
    with pytest.raises(
        TypeError, match=r"operation must be one of ketcore's, gather_kron, .*, got <built-in"
    ):
        kc.jax.custom_vjp(len)
    with pytest.raises(TypeError, match=r"operation must be one of ketcore's, .*, got \["):
        kc.jax.custom_vjp([kc.rows])
    rows, factors = kc.jax.custom_vjp(kc.rows), [jax.numpy.ones((1, 2, 2))]
    with pytest.raises(TypeError, match="out must be None for a function that JAX differentiates"):
        rows(factors, [0], out=np.zeros((1, 2)))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda factors: rows(factors, [0]), (factors,), (factors,))
    # It maps, over what differs and beside what does not.
    gradient = jax.vmap(jax.grad(lambda factor, id: rows([factor], id[None]).sum()), (None, 0))
    found = gradient(factors[0], jax.numpy.array([1, 0]))
    assert found[:, 0].tolist() == [[[0, 0], [1, 1]], [[1, 1], [0, 0]]]
    # Beside what is quantized a gradient is that of what this decodes to.
    small = jax.tree.map(jax.numpy.asarray, kc.quantize(RNG.standard_normal((1, 3, 4)), 4))
    slope = jax.grad(lambda factor, first: rows([first, factor], [1]).sum())
    assert np.array_equal(slope(factors[0], small), slope(factors[0], small.dequantize()))


def near(found, expected, dtype="float64"):
    for one, other in zip(found, expected, strict=True):
        other = np.asarray(to_numpy(other))
        assert one.shape == other.shape
        size = np.abs(other).max(initial=1.0)
        # Sums of some hundred products, and what solving with condition numbers of a few multiplies them by.
        np.testing.assert_allclose(to_numpy(one), other, rtol=0, atol=1e4 * np.finfo(dtype).eps * size)


def spd(size):
    root = RNG.standard_normal((size, 3 * size))
    return (root @ root.T / (3 * size) + 0.2 * np.eye(size)).astype("float32")


MATRIX = kc.KroneckerMatrix([spd(3), spd(2)])
SUM = kc.KroneckerSum([spd(3), spd(2)])
PRODUCT = kc.KroneckerProduct([spd(3), kc.Diagonal(np.array([1.0, 2.0], "f"))])
TWO = MATRIX + kc.KroneckerMatrix([spd(3), spd(2)])
GENERAL = kc.KroneckerMatrix([(RNG.standard_normal((n, n)) + 2 * np.eye(n)).astype("f") for n in (3, 2)])
TALL = kc.KroneckerMatrix([RNG.standard_normal((n + 1, n)).astype("f") for n in (3, 2)])
X = np.arange(1, 7, dtype="f")
HALF = np.array(0.5, "f")

# What does not look at values, by name: a function that gives arrays which are unique, and its arguments.
# Signs of eigenvectors are not unique, nor is how large the factors of a product are.
TRACED = {
    "solve": (lambda A, b: linalg.solve(A, b, assume_a="gen"), GENERAL, X),
    "solve of a sum": (lambda A, b, s: linalg.solve(A, b, s, assume_a="pos"), SUM, X, HALF),
    "solve of a product": (lambda A, b: linalg.solve(A, b, assume_a="pos"), PRODUCT, X),
    "solve of two terms": (lambda A, b: linalg.solve(A, b, assume_a="pos"), TWO, X),
    "solve with shift": (lambda A, b, s: linalg.solve(A, b, s, assume_a="pos"), MATRIX, X, HALF),
    "inv": (lambda A: linalg.inv(A, assume_a="gen").to_dense(), GENERAL),
    "slogdet": (lambda A: linalg.slogdet(A, assume_a="gen"), GENERAL),
    "slogdet with shift": (lambda A, s: linalg.slogdet(A, s, assume_a="pos"), MATRIX, HALF),
    "det": (lambda A: linalg.det(A), GENERAL),
    "gaussian_log_likelihood": (
        lambda A, y, s: linalg.gaussian_log_likelihood(A, y, s, assume_a="pos"), MATRIX, X, HALF,
    ),
    "eigh": (lambda A: _together(*linalg.eigh(A, assume_a="pos")), MATRIX),
    "eigvalsh": (lambda A: linalg.eigvalsh(A, assume_a="pos").to_dense(), SUM),
    "eig": (lambda A: _together(*linalg.eig(A)), MATRIX),
    "eigvals": (lambda A: linalg.eigvals(A).to_dense().sum(), GENERAL),
    "svd": (lambda A: _product(*linalg.svd(A)), TALL),
    "svdvals": (lambda A: linalg.svdvals(A).to_dense(), TALL),
    "qr": (lambda A: (lambda q, r: (q @ r).to_dense())(*linalg.qr(A)), TALL),
    "cholesky": (lambda A: linalg.cholesky(A, assume_a="pos").to_dense(), MATRIX),
    "matrix_power": (lambda A: linalg.matrix_power(A, 3).to_dense(), MATRIX),
    "expm": (lambda A: linalg.expm(A).to_dense(), SUM),
    "norm": (lambda A: [linalg.norm(A, kind) for kind in (None, 1, -1, np.inf, 2, -2, "nuc")], TALL),
}  # fmt: skip


def _together(values, vectors):
    """V diag(values) V^T of orthonormal eigenvectors."""
    dense = vectors.to_dense()
    return (dense * values.to_dense()) @ dense.T


def _product(left, values, right):
    return (left.to_dense() * values.to_dense()) @ right.to_dense()


# JAX has no derivatives of the eigenvectors of general matrices.
NO_GRADIENT = {"eig"}


@pytest.mark.parametrize("name", TRACED)
def test_linear_algebra_is_compiled(jax, name):
    function, *arguments = TRACED[name]
    on_jax = jax.tree.map(jax.numpy.asarray, arguments)

    def summed(*arguments):
        leaves = jax.tree.leaves(function(*arguments))
        return sum(jax.numpy.sum(jax.numpy.real(leaf)) for leaf in leaves), leaves

    def compiled(arguments):
        if name in NO_GRADIENT:
            return summed(*arguments)[1], arguments
        slope, leaves = jax.grad(lambda arguments: summed(*arguments), has_aux=True)(arguments)
        return leaves, slope

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, slope = jax.jit(compiled)(on_jax)
    assert {str(leaf.dtype) for leaf in found} <= {"float32", "complex64"}
    near(found, jax.tree.leaves(function(*arguments)), "float32")
    if name not in NO_GRADIENT:
        _check_slope(jax, function, arguments, slope)


def _check_slope(jax, function, arguments, slope):
    """Along the arguments themselves, by central differences in float64 with NumPy."""
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, "float64"), arguments)
    step = 1e-5

    def value(scale):
        moved = jax.tree.map(lambda leaf: scale * leaf, wide)
        return sum(float(np.sum(np.real(leaf))) for leaf in jax.tree.leaves(function(*moved)))

    expected = (value(1 + step) - value(1 - step)) / (2 * step)
    pairs = zip(jax.tree.leaves(slope), jax.tree.leaves(wide), strict=True)
    found = sum(float(np.sum(np.asarray(one, "float64") * leaf)) for one, leaf in pairs)
    assert abs(found - expected) < 1e-3 * max(1.0, abs(expected))


# What values decide, with what the error says is needed: values, or these or assume_a.
DECIDED = {
    "solve": ("solve", lambda A: linalg.solve(A, X), True),
    "inv": ("inv", lambda A: linalg.inv(A), True),
    "slogdet": ("slogdet", lambda A: linalg.slogdet(A, 0.5), True),
    "eigh": ("eigh", lambda A: linalg.eigh(A), True),
    "eigvalsh": ("eigvalsh", lambda A: linalg.eigvalsh(A), True),
    "cholesky": ("cholesky", lambda A: linalg.cholesky(A), True),
    "gaussian_log_likelihood": (
        "gaussian_log_likelihood", lambda A: linalg.gaussian_log_likelihood(A, X, 0.5), True,
    ),
    "gaussian_posterior": ("solve", lambda A: linalg.gaussian_posterior(A, X.tolist(), 0.5).mean(), True),
    "det of two terms": ("slogdet", lambda A: linalg.det(A + A), True),
    "matrix_power": ("matrix_power", lambda A: linalg.matrix_power(A, -1), False),
    "sqrtm": ("sqrtm", linalg.sqrtm, False),
    "pinv": ("pinv", linalg.pinv, False),
    "lstsq": ("lstsq", lambda A: linalg.lstsq(A, X), False),
    "cond": ("cond", linalg.cond, False),
    "matrix_rank": ("matrix_rank", linalg.matrix_rank, False),
}  # fmt: skip


@pytest.mark.parametrize("name", DECIDED)
def test_what_values_decide_is_refused_under_jit(jax, name):
    function, call, assuming = DECIDED[name]
    known = "its values or by assume_a" if assuming else "its values"
    text = f"^A must be known by {known} for {function}, got factor 0 that is traced"
    with pytest.raises(TypeError, match=text):
        jax.jit(call)(jax.tree.map(jax.numpy.asarray, MATRIX))


def test_all_of_linear_algebra_is_in_the_tables():
    functions = {name for name in linalg.__all__ if not isinstance(getattr(linalg, name), type)}
    # Conjugate gradients are SciPy's.
    assert functions <= {name.partition(" ")[0] for name in (*TRACED, *DECIDED)} | {"cg"}


def test_what_is_not_finite_is_nan_where_it_is_not_looked_at(jax):
    spoiled = jax.tree.map(lambda leaf: jax.numpy.full_like(leaf, np.nan), GENERAL)
    assert np.isnan(jax.jit(linalg.det)(spoiled))
    with pytest.raises(np.linalg.LinAlgError, match="A must be finite for det, got NaN or infinity in"):
        linalg.det(spoiled)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_default_of_32_bits_and_16_bits_have_no_warnings(jax, dtype):
    """Also with numbers of Python and NumPy and with lists, which have no dtype beside arrays of JAX."""
    matrix = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, dtype), MATRIX)
    ket, ids, wide = kc.Ket([f[:, 0] for f in matrix.factors]), np.array([0, 5, 0]), np.float64(0.5)

    def main(matrix, ket, traced):
        rows = matrix.rows(ids, row_scale=[1.0, 2, 3, 4, 5, 6])
        scaled = [
            wide * (2.0 * matrix / 3),
            traced * matrix,
            matrix @ (traced * X.tolist()[0] * matrix.rows(0)),
        ]
        kets = [
            ket * traced,
            ket / 2.5,
            ket.norm(),
            ket.inner(ket),
            ket.normalize(),
            kc.ket_inner([ket.factors[0]], [[[1.0, 2, 3]]]),
        ]
        gradients = (
            kc.rows_vjp(matrix.factors, ids, rows),
            kc.kron_matmul_vjp(matrix.factors, rows[0], rows[1]),
        )
        tangents = kc.rows_jvp(matrix.factors, ids, matrix.factors)
        solved = (
            linalg.solve(matrix, X.tolist(), traced, assume_a="pos"),
            linalg.slogdet(matrix, wide, assume_a="pos"),
        )
        return rows, scaled, kets, gradients, tangents, solved, matrix.norm(), matrix @ X.tolist()

    with warnings.catch_warnings(), jax.enable_x64(False):
        warnings.simplefilter("error")
        found = jax.tree.leaves(jax.jit(main)(matrix, ket, 0.5))
        assert linalg.lstsq(matrix, X.tolist()).rank == 6
        assert kc.rows(matrix.factors, [0, 5]).dtype == dtype
        # What both libraries hold is not moved in silence.
        with pytest.raises(TypeError, match="must be arrays of one library, got jaxlib, numpy"):
            matrix @ X
    assert {str(leaf.dtype) for leaf in found} <= {dtype}
    assert all(np.isfinite(leaf.astype("float32")).all() for leaf in found)
