"""Gradients through linalg on tensors of torch and under jax.grad, against those through the dense matrix."""

from importlib.util import find_spec

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg
from tests.gradient_problems import CASES, Jax, Torch, direction, loss_of, product, random
from tests.require import require

# jax compiles for seconds each: one of each way through the code.
OF_JAX = (
    "solve", "solve with shift", "solve of Hermitian ones with shift", "solve of a sum", "inv",
    "pinv of a tall one", "matrix_rank", "det", "slogdet with shift", "gaussian_log_likelihood", "expm",
    "sqrtm",
)  # fmt: skip
TWICE = (
    "solve", "solve with shift", "solve with a complex shift", "solve of Hermitian ones with shift",
    "solve by its shift", "solve of a sum", "solve of a Hermitian sum", "pinv", "pinv of low rank",
    "slogdet with shift", "sqrtm", "pinv of equal singular values",
    "gaussian_log_likelihood of symmetrised ones", "solve of two terms",
    "gaussian_log_likelihood of two terms without equal eigenvalues",
)  # fmt: skip


@pytest.fixture(params=["torch", "jax"])
def library(request):
    require(request.param, find_spec(request.param) is not None, f"{request.param} is not installed")
    return {"torch": Torch, "jax": Jax}[request.param]()


def case(library, name, dtype):
    """The arrays, and the losses of ours and of the dense definition."""
    if isinstance(library, Jax) and (name not in OF_JAX or dtype != "float64"):
        pytest.skip("jax takes long to compile, and has a few cases")
    values, *functions = CASES[name]
    return values(np.random.default_rng(5), dtype), *[loss_of(f, library) for f in functions]


def same(found, expected):
    scale = max(np.abs(e).max() for e in expected)
    assert scale > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_through_the_dense_matrix(library, name, dtype):
    arrays, ours, theirs = case(library, name, dtype)
    same(library.gradient(ours, arrays), library.gradient(theirs, arrays))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", TWICE)
def test_so_are_second_derivatives(library, name, dtype):
    arrays, ours, theirs = case(library, name, dtype)
    if isinstance(library, Jax) and name != "solve of Hermitian ones with shift":
        pytest.skip("jax takes long to compile, and has a few cases")
    same(library.hessian(ours, arrays), library.hessian(theirs, arrays))


def host_calls(xp, a, b):
    """Calls of what has no gradient, of differentiated arrays (3, 3) and (2, 2), by what they say."""
    both = kc.KroneckerMatrix([a, b]) + kc.KroneckerMatrix([2 * a, a[:2, :2]])
    return {
        "sqrtm where a factor is not Hermitian, which has none, got such a factor": (
            "A", lambda: linalg.sqrtm(product([a, b]))),
        "recompress, which has none, got factor 0": ("x", lambda: kc.recompress(both, 1)),
        "recompress, which has none, got a Ket": ("x", lambda: kc.recompress(kc.Ket([a, a]), 1)),
        "nearest_kronecker, which has none, got one": (
            "A", lambda: kc.nearest_kronecker(xp.kron(a, b), (3, 2), (3, 2), 1)),
        "nearest_kronecker, which has none, got one ": (
            "weights", lambda: kc.nearest_kronecker(np.eye(6), (3, 2), (3, 2), 1, weights=a.reshape(-1)[:6])),
    }  # fmt: skip


def test_what_has_no_gradient_says_so_instead_of_giving_none(library):
    def checked(arrays):
        for text, (name, call) in host_calls(library, *arrays).items():
            rule = f"^{name} must not require gradients for {text.strip()} that does"
            with pytest.raises(TypeError, match=rule):
                call()
        return sum((array**2).sum() for array in arrays)

    library.gradient(checked, [direction((3, 3)) + 4 * np.eye(3), direction((2, 2)) + 3 * np.eye(2)])


def test_torch_without_gradients_takes_what_requires_them():
    torch = pytest.importorskip("torch")
    a = torch.tensor(direction((3, 3)) + 4 * np.eye(3), requires_grad=True)
    with torch.no_grad():
        assert kc.recompress(product([a, a]), 1).error < 1e-12
        assert linalg.sqrtm(product([a, a])).shape == (9, 9)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda a, b: linalg.pinv(product([a, b * b.detach()]), rtol=0.5),
         "A must have singular values that are kept or zero where gradients are required, got cut ones up"),
        (lambda a, b: linalg.lstsq(product([a, b]), a.new_ones(6), 0.5), "kept or zero where gradients"),
        (lambda a, b: linalg.slogdet(product([a.triu(), b]), 1.0),
         "A must be Hermitian or diagonalisable where gradients are required, got factor 0 with eigen"),
        (lambda a, b: linalg.slogdet(kc.KroneckerSum([b, a.triu()]), 1.0), "^A must .* got factor 1 with"),
        (lambda a, b: linalg.det(kc.KroneckerSum([b, a.triu()])), "^A must .* got factor 1 with eigen"),
        (lambda a, b: linalg.sqrtm(product([a - a, b + b.T])),
         "A must be invertible for sqrtm where gradients are required, got a singular factor"),
    ],
)  # fmt: skip
def test_gradients_that_are_not_there(call, text):
    torch = pytest.importorskip("torch")
    a = torch.tensor(np.ones((3, 3)) + np.eye(3), requires_grad=True)
    b = torch.tensor([[2.0, 1.0], [0.0, 3.0]], dtype=torch.float64, requires_grad=True)
    with pytest.raises(np.linalg.LinAlgError, match=text):
        call(a, b)


# torch compiles some derivatives when forward mode is first used, by what it deprecates itself.
@pytest.mark.filterwarnings("ignore:.torch.jit.script.:DeprecationWarning")
def test_forward_mode_of_torch_is_refined_too():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b, moved = (torch.tensor(random(rng, (3, 3), "float64")) for _ in range(3))
    v = torch.ones(9, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(a, moved)
        found = torch.autograd.forward_ad.unpack_dual(linalg.solve(product([dual, b]), v, 0.3)).tangent
    full, change = torch.kron(a, b) + 0.3 * torch.eye(9, dtype=a.dtype), torch.kron(moved, b)
    x = torch.linalg.solve(full, v)
    expected = -torch.linalg.solve(full, change @ x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * float(x.abs().max()))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exponentials_of_recorded_factors_do_not_overflow_where_the_whole_does_not(library, dtype):
    """By the sum of all elements of exp(A (+) B), of which the gradient is known for commuting factors."""
    if isinstance(library, Jax) and dtype == "float64":
        pytest.skip("jax takes long to compile, and has a few cases")
    far = 200.0 if dtype == "float32" else 2000.0
    arrays = [np.diag([-far, 0.0]).astype(dtype), np.array([[-far, far], [far / 2, -far / 2]], dtype)]

    def total(leaves):
        return linalg.expm(kc.KroneckerSum(leaves)).to_dense().sum()

    # A generator keeps its row sums: exp(B) sums to 2, and exp(A) to 1.
    np.testing.assert_allclose(float(total([library.asarray(a) for a in arrays])), 2.0, rtol=1e-5)
    to_first, to_second = library.gradient(total, arrays)
    assert np.isfinite(to_first).all()
    assert np.isfinite(to_second).all()
    np.testing.assert_allclose(to_first[1, 1], 2.0, rtol=1e-5)
    shifted = [np.diag([far, 0.0]).astype(dtype), np.diag([-far, -far]).astype(dtype)]
    to_first, to_second = library.gradient(total, shifted)
    np.testing.assert_allclose(to_first[0, 0], 2.0, rtol=1e-5)
    np.testing.assert_allclose(np.diag(to_second), [1.0, 1.0], rtol=1e-5)
