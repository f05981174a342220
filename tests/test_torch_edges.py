"""Where derivatives of PyTorch go wrong in silence: transforms within transforms, arrays closed over."""

import pickle

import numpy as np
import pytest

import ketcore as kc
from ketcore.ops import OPS
from tests.require import imported
from tests.test_torch_functional import case

torch = imported("torch")
from ketcore.torch import functional  # noqa: E402

close = torch.testing.assert_close
jvp, grad = torch.func.jvp, torch.func.grad
# What PyTorch warns about itself: deprecated parts that torch.func.jvp uses, constants of traced functions.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated"),
    pytest.mark.filterwarnings("ignore:Attempted to insert a get_attr Node"),
]
both = pytest.mark.parametrize("module", [functional, kc], ids=["functional", "ketcore"])

SOME = ("rows", "ket_rows", "kron_matmul", "kron_solve", "kron_slogdet")
some_ops = pytest.mark.parametrize("op", [op for op in OPS if op.name in SOME], ids=lambda op: op.name)

RNG = np.random.default_rng(5)
MATRIX = torch.as_tensor(RNG.standard_normal((3, 3)) * 0.3 + 2 * np.eye(3))
B = torch.as_tensor(RNG.standard_normal(9))
ONE = torch.eye(9, dtype=torch.float64)


def second(function, direction):
    """The second derivative of a function of one tensor along a direction, twice, in all four ways."""

    def forwards(array):
        return jvp(function, (array,), (direction,))[1]

    def paired(array):
        return (grad(function)(array) * direction).sum()

    return {
        "forward over forward": lambda array: jvp(forwards, (array,), (direction,))[1],
        "reverse over forward": lambda array: (grad(forwards)(array) * direction).sum(),
        "forward over reverse": lambda array: jvp(paired, (array,), (direction,))[1],
        "reverse over reverse": lambda array: (grad(paired)(array) * direction).sum(),
    }


@some_ops
def test_second_derivatives_are_the_same_in_every_order(op):
    found = case(op)
    first, *others = found.arrays
    ways = second(lambda array: found.loss(array, *others), first.flip(-1) + 0.25)
    expected = ways.pop("reverse over reverse")(first)
    for name, way in ways.items():
        close(way(first), expected, msg=lambda text, name=name: f"{name}: {text}")


def _solve(module, matrix, b, **options):
    return (module.kron_solve([matrix[None]] * 2, b, **options) ** 2).sum()


def _dense(matrix, b, shift=0.0):
    return (torch.linalg.inv(torch.kron(matrix, matrix) + shift * ONE) @ b).square().sum()


@both
@pytest.mark.parametrize("options", [{}, {"shift": 0.5}], ids=str)
def test_a_solution_has_second_derivatives_in_every_order(module, options):
    direction = MATRIX.T.contiguous()
    expected = second(lambda m: _dense(m, B, **options), direction)["reverse over reverse"](MATRIX)
    for way in second(lambda m: _solve(module, m, B, **options), direction).values():
        close(way(MATRIX), expected)


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_a_determinant_has_second_derivatives_in_every_order(module, dtype):
    matrix = MATRIX.to(dtype) * (1 if dtype is torch.float64 else 1 + 0.5j)

    def loss(part):
        sign, logabsdet = module.kron_slogdet([(matrix * (1 + part))[None], matrix.T[None]])
        return logabsdet + (sign * (2 + 3j)).real.sum()

    def dense(part):
        det = torch.linalg.det(matrix * (1 + part)) ** 3 * torch.linalg.det(matrix) ** 3
        return det.abs().log() + (det / det.abs() * (2 + 3j)).real.sum()

    start, direction = torch.zeros(3, 3, dtype=torch.float64), MATRIX.T.contiguous()
    ways = second(dense, direction)
    close(loss(start), dense(start))
    close(grad(loss)(start), grad(dense)(start))
    expected = ways["reverse over reverse"](start)
    for way in second(loss, direction).values():
        close(way(start), expected)


def test_the_sign_of_a_recorded_determinant_counts_exchanges_of_rows():
    for order in ([0, 1, 2], [1, 0, 2], [1, 2, 0], [2, 1, 0]):
        matrix = torch.eye(3)[order].requires_grad_()
        sign, logabsdet = kc.kron_slogdet([matrix[None]])
        assert (sign.item(), logabsdet.item()) == (torch.linalg.det(matrix).item(), 0.0)
    sign, logabsdet = kc.kron_slogdet([torch.zeros(1, 2, 2, requires_grad=True)])
    assert (sign.item(), logabsdet.item()) == (0.0, -float("inf"))


@both
def test_what_a_transform_closes_over_is_differentiated_outside_of_it(module):
    """The factors are recorded outside only, while the inner transform is along b."""

    def inner(function):
        return {
            "grad": lambda matrix: grad(lambda b: function(matrix, b))(B).sum(),
            "jvp": lambda matrix: jvp(lambda b: function(matrix, b), (B,), (torch.ones_like(B),))[1],
        }

    def outer(function):
        recorded = MATRIX.clone().requires_grad_()
        yield torch.autograd.grad(function(recorded), recorded)[0].sum()
        yield grad(function)(MATRIX).sum()
        yield jvp(function, (MATRIX,), (torch.ones_like(MATRIX),))[1]

    ours = inner(lambda matrix, b: _solve(module, matrix, b, shift=0.5))
    for name, function in inner(lambda matrix, b: _dense(matrix, b, 0.5)).items():
        expected = grad(function)(MATRIX).sum()
        for found in outer(ours[name]):
            close(found, expected)


@some_ops
def test_linear_maps_of_torch_func(op):
    found = case(op)
    options = found.problem.options
    if op.name in ("kron_solve", "kron_slogdet") and not options.get("assume_a"):
        with pytest.raises(ValueError, match="assume_a must say what the factors are where there is a shift"):
            torch.func.linearize(found.function, *found.arrays)
        return
    outputs, push = torch.func.linearize(found.function, *found.arrays)
    close(outputs, found.function(*found.arrays))
    close(push(*found.arrays), jvp(found.function, found.arrays, found.arrays)[1])


@pytest.mark.parametrize("name", ["kron_solve", "kron_slogdet"])
def test_mapped_derivatives_do_not_guess_whether_factors_are_hermitian(name):
    given = (B,) if name == "kron_solve" else ()

    def tangent(matrix, **options):
        def function(m):
            found = getattr(functional, name)([m[None], m[None]], *given, 0.5, **options)
            return found[1] if name == "kron_slogdet" else found

        return jvp(function, (matrix,), (matrix,))[1]

    stack = torch.stack([MATRIX, MATRIX.T])
    with pytest.raises(ValueError, match=r"assume_a must say what the factors .* looked at, got None"):
        torch.vmap(tangent)(stack)
    hermitian = stack + stack.mT
    found = torch.vmap(lambda m: tangent(m, assume_a="her"))(hermitian)
    close(found, torch.stack([tangent(m) for m in hermitian]))


def test_a_bool_is_no_shift():
    for module in (functional, kc):
        with pytest.raises(TypeError, match="shift must have a numeric dtype, got bool"):
            module.kron_solve([MATRIX[None]], B[:3], True)


def test_derivatives_by_the_vectorised_functions_of_torch():
    """By torch's first vmap, which maps few operations: backwards, forwards, and both after the first."""
    found = case(*(op for op in OPS if op.name == "kron_matmul"))

    def output(*arrays):
        return found.function(*arrays)[0]

    for function, of, how in (
        (torch.autograd.functional.jacobian, output, "strategy"),
        (torch.autograd.functional.hessian, found.loss, "outer_jacobian_strategy"),
    ):
        expected = function(of, found.arrays)
        for mode in ("reverse-mode", "forward-mode"):
            close(function(of, found.arrays, vectorize=True, **{how: mode}), expected)


def test_functions_are_pickled_by_their_names():
    assert pickle.loads(pickle.dumps(functional.rows)) is functional.rows


def test_what_has_no_tangent_is_constant():
    factors = [torch.as_tensor(RNG.standard_normal((2, 3, 2))) for _ in range(2)]
    forward, ids = torch.autograd.forward_ad, torch.arange(9)
    tangent = factors[0] + 1
    with forward.dual_level():
        dual = functional.rows((forward.make_dual(factors[0], tangent), factors[1]), ids)
        found = forward.unpack_dual(dual).tangent
    close(found, kc.rows_jvp(factors, ids, (tangent, torch.zeros_like(factors[1]))))


class Distant(torch.Tensor):
    """Stands for a tensor of a GPU: NumPy cannot read it where it is."""

    def __array__(self, *arguments, **options):
        raise TypeError("can't convert device type tensor to numpy")

    def cpu(self):
        return self.as_subclass(torch.Tensor)


def test_bad_ids_of_a_device_are_named():
    ids, factors = torch.tensor([0, 7]).as_subclass(Distant), [torch.ones(1, 3, 2), torch.ones(1, 2, 2)]
    with pytest.raises(IndexError, match=r"ids must lie in \[0, 6\), got 7"):
        kc.rows(factors, ids, check=True)
