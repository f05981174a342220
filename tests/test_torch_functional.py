"""The operations as functions of torch: values, every derivative, what torch compiles, maps and exports."""

import warnings
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from ketcore.ops import OPS
from tests.problems import Problem, drawn, problems
from tests.require import imported

torch = imported("torch")
from ketcore.torch import functional  # noqa: E402

every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
DTYPES = ("float64", "complex128")
close = torch.testing.assert_close


@dataclass(frozen=True)
class Case:
    """A call of an operation as a function of tensors alone.

    function   of flat arrays, returns flat outputs
    arrays     where to differentiate it
    """

    op: Any
    problem: Problem
    function: Any
    arrays: tuple

    def recorded(self):
        """The arrays as tensors that autograd records."""
        return tuple(array.clone().requires_grad_() for array in self.arrays)

    def loss(self, *arrays):
        """A real number that depends on all outputs in a way that is not linear."""
        return sum((output.abs() ** 2).sum() for output in self.function(*arrays))

    def arguments(self, arrays, cotangents=()):
        """Primals, constants, cotangents and options as torch's operators take them."""
        operator = operator_of(self.op)
        tensors = (*constants_of(self.problem), *arrays)
        arguments = operator.arguments(tensors, self.problem.counts, cotangents)
        return arguments, operator.encoded(self.problem.options)


def constants_of(problem):
    return () if problem.index is None else (torch.as_tensor(np.asarray(problem.index)),)


def function_of(op, problem):
    function, constants = getattr(functional, op.name), constants_of(problem)

    def flat(*arrays):
        if problem.op is not op:  # of the Hermitian parts of factors, by which the problem is defined
            arrays = [(a + a.mH) / 2 if a.ndim == 3 else a for a in arrays]
        primals = op.unflatten(tuple(arrays), problem.counts)
        return tuple(op.flat_outputs(op.call(function, primals, constants, **problem.options)))

    return flat


def itself(op, problem):
    """The problem of the operation itself: one of the Hermitian parts of factors has these in their place."""
    if problem.op is op:
        return problem
    arrays = [
        (a + a.conj().swapaxes(-1, -2)) / 2 if a.ndim == 3 else a for a in map(np.asarray, problem.arrays)
    ]
    return replace(problem, op=op, arrays=tuple(arrays))


def case_of(op, problem):
    arrays = tuple(torch.tensor(np.asarray(array)) for array in problem.arrays)
    return Case(op, problem, function_of(op, problem), arrays)


@cache
def case(op, dtype="float64"):
    return case_of(op, drawn(op, dtype))


@cache
def operator_of(op):
    cells = [cell.cell_contents for cell in getattr(functional, op.name).__closure__]
    (found,) = [cell.operator for cell in cells if hasattr(cell, "operator")]
    return found


def test_every_operation_has_its_function():
    assert sorted(functional.__all__) == sorted(op.name for op in OPS)
    for op in OPS:
        function = getattr(functional, op.name)
        assert (function.__name__, function.__doc__) == (op.name, op.forward.__doc__)


@every_op
def test_values_and_gradients_are_those_of_the_engine(op):
    @given(problems(op))
    def body(problem):
        problem = itself(op, problem)
        found = case_of(op, problem)
        arrays = found.recorded()
        outputs = found.function(*arrays)
        for output, expected in zip(outputs, problem.forward(*problem.arrays), strict=True):
            assert np.array_equal(output.detach().numpy(), expected, equal_nan=True)
            assert output.numpy(force=True).dtype == expected.dtype
            assert output.is_contiguous()
        with torch.no_grad():
            assert all(
                torch.equal(one, other) for one, other in zip(found.function(*arrays), outputs, strict=True)
            )
        cotangents = [torch.ones_like(output) for output in outputs]
        gradients = torch.autograd.grad(outputs, arrays, cotangents)
        right = problem.vjp(*problem.arrays, tuple(one.numpy() for one in cotangents))
        for gradient, expected in zip(gradients, right, strict=True):
            assert np.array_equal(gradient.numpy(force=True), expected.conj(), equal_nan=True)

    body()


@every_op
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_derivatives_of_every_kind(op, dtype):
    """Backwards, forwards, several at once, and second ones of both kinds, by torch's own checker."""
    found = case(op, dtype)
    arrays = found.recorded()
    check = torch.autograd.gradcheck
    assert check(
        found.function, arrays, fast_mode=True, check_forward_ad=True, check_batched_grad=dtype == "float64"
    )
    second = torch.autograd.gradgradcheck
    more = {"check_fwd_over_rev": True} if dtype == "float64" else {}
    assert second(found.function, arrays, fast_mode=True, check_undefined_grad=False, **more)


@every_op
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_transforms_of_torch_func(op):
    found = case(op)
    places = tuple(range(len(found.arrays)))
    gradient = torch.func.grad(found.loss, argnums=places)
    expected = torch.autograd.grad(found.loss(*(arrays := found.recorded())), arrays)
    close(gradient(*found.arrays), expected)
    outputs, tangents = torch.func.jvp(found.function, found.arrays, found.arrays)
    close(outputs, found.function(*found.arrays))
    # <c, J t> = <J^T c, t>
    paired = sum((one * other).sum() for one, other in zip(outputs, tangents, strict=True))
    pulled = torch.func.vjp(found.function, *found.arrays)[1](outputs)
    close(paired, sum((one * other).sum() for one, other in zip(pulled, found.arrays, strict=True)))
    several = [(array, array * 1.25) for array in found.arrays]
    stacked = [torch.stack(pair) for pair in several]
    each = list(zip(*several, strict=True))
    for function in (found.function, gradient):
        mapped = torch.vmap(function)(*stacked)
        close(
            mapped, tuple(torch.stack(pair) for pair in zip(*(function(*one) for one in each), strict=True))
        )
    # Along the last axis, of the first array alone.
    dims = (-1, *[None] * (len(stacked) - 1))
    first = torch.vmap(found.function, in_dims=dims)(stacked[0].movedim(0, -1), *found.arrays[1:])
    expected = [found.function(array, *found.arrays[1:]) for array in several[0]]
    close(first, tuple(torch.stack(pair) for pair in zip(*expected, strict=True)))


@pytest.mark.parametrize("name", ["rows", "ket_rows", "row_kets", "gather_kron"])
def test_ids_are_mapped_over(name):
    """A batch of ids of its own for each: the engine is asked once, and gradients sum over all."""
    (op,) = (op for op in OPS if op.name == name)
    found = case(op)
    (ids,), split = constants_of(found.problem), len(found.arrays)
    ids = ids.to(torch.int64)
    many = torch.stack([ids, ids.flip(-1)])
    arrays = found.recorded()

    def function(ids, *arrays):
        primals = op.unflatten(arrays, found.problem.counts)
        outputs = op.call(getattr(functional, name), primals, (ids,), **found.problem.options)
        return tuple(op.flat_outputs(outputs))

    mapped = torch.vmap(function, in_dims=(0, *[None] * split))(many, *arrays)
    alone = [torch.stack(pair) for pair in zip(*(function(one, *arrays) for one in many), strict=True)]
    close(mapped, tuple(alone))
    gradients, expected = (
        torch.autograd.grad(sum((one**2).sum() for one in outputs), arrays) for outputs in (mapped, alone)
    )
    close(gradients, expected)
    per_sample = torch.vmap(
        torch.func.grad(
            lambda ids, *arrays: sum((one**2).sum() for one in function(ids, *arrays)), argnums=1
        ),
        in_dims=(0, *[None] * split),
    )(many, *found.arrays)
    close(per_sample.sum(0), expected[0])


@pytest.fixture
def compiled():
    """torch.compile, of whole functions or not at all; what was compiled is forgotten afterwards."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield lambda function: torch.compile(function, fullgraph=True, backend="aot_eager")
    torch._dynamo.reset()


@every_op
def test_compiled_values_and_gradients(op, compiled):
    found = case(op)
    function = compiled(lambda *arrays: (found.loss(*arrays), *found.function(*arrays)))
    one, other = found.recorded(), found.recorded()
    outputs = function(*one)
    close(outputs[1:], found.function(*other))
    close(torch.autograd.grad(outputs[0], one), torch.autograd.grad(found.loss(*other), other))


@every_op
def test_exported_programs_keep_the_operator(op):
    found = case(op)

    class Module(torch.nn.Module):
        def forward(self, *arrays):
            return found.function(*arrays)

    program = torch.export.export(Module(), found.arrays)
    assert f"ketcore.{op.name}" in program.graph_module.code
    close(program.module()(*found.arrays), found.function(*found.arrays))


@every_op
def test_operators_keep_the_contract_of_torch(op):
    """Schemas, results without values, registered derivatives, dynamic shapes; of arrays of any strides."""
    found = case(op)
    operator = operator_of(op)
    if found.problem.op is not op:
        arrays = [(a + a.mH) / 2 if a.ndim == 3 else a for a in found.arrays]
    else:
        arrays = [a.mT.contiguous().mT if a.ndim > 1 else a for a in found.arrays]
    arrays = [array.clone().requires_grad_() for array in arrays]
    arguments, options = found.arguments(arrays)
    torch.library.opcheck(operator.forward, arguments, options)
    cotangents = tuple(torch.ones_like(output) for output in found.function(*found.arrays))
    cotangents = operator.cotangents(cotangents)
    plain, options = found.arguments([array.detach() for array in arrays], cotangents)
    torch.library.opcheck(operator.vjp, plain, options)


@every_op
def test_operators_called_by_themselves_have_gradients(op):
    found = case(op)
    if found.problem.op is not op:
        pytest.skip("of factors that are symmetric, which is not what a gradient of each entry is of")
    arrays = found.recorded()
    arguments, options = found.arguments(arrays)
    outputs = operator_of(op).forward(*arguments, **options)
    outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
    loss = sum((output.abs() ** 2).sum() for output in outputs)
    close(torch.autograd.grad(loss, arrays), torch.autograd.grad(found.loss(*(a := found.recorded())), a))


def test_second_derivatives_of_compiled_functions_are_refused(compiled):
    found = case(OPS[1])
    arrays = found.recorded()
    (gradient, *_) = torch.autograd.grad(compiled(found.loss)(*arrays), arrays, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        torch.autograd.grad(gradient.sum(), arrays)
    arguments, options = found.arguments(arrays)
    output = operator_of(OPS[1]).forward(*arguments, **options)
    (gradient, *_) = torch.autograd.grad((output**2).sum(), arrays, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives must be taken of functions of ketcore"):
        torch.autograd.grad(gradient.sum(), arrays)


TRANSFORMS = {
    "grad": lambda found: torch.func.grad(found.loss, argnums=tuple(range(len(found.arrays)))),
    "jvp": lambda found: lambda *arrays: torch.func.jvp(found.function, arrays, arrays),
    "vmap": lambda found: lambda *arrays: torch.vmap(found.function)(*(torch.stack([a, -a]) for a in arrays)),
    "hessian": lambda found: torch.func.hessian(found.loss),
}


@pytest.mark.parametrize(
    ("name", "transform"),
    [("rows", "grad"), ("rows", "jvp"), ("rows", "vmap"), ("rows", "hessian"), ("kron_matmul", "jvp")],
)
def test_compiled_transforms(name, transform, compiled):
    """By array code, which has no rules that torch.compile would not see: right, in one graph."""
    found = case(*(op for op in OPS if op.name == name))
    function = TRANSFORMS[transform](found)
    close(compiled(function)(*found.arrays), function(*found.arrays))


def test_a_compiled_transform_cannot_look_whether_factors_are_hermitian(compiled):
    factors = (torch.tensor([[[3.0, 1.0], [0.0, 2.0]]]),)
    b = torch.ones(2)

    def gradient(assume_a):
        solve = functional.kron_solve
        return torch.func.grad(lambda b: solve(factors, b, 1.0, assume_a=assume_a).sum())

    with pytest.raises(Exception, match="assume_a must say what the factors are"):
        compiled(gradient(None))(b)
    close(gradient(None)(b), torch.linalg.solve((factors[0][0] + torch.eye(2)).T, torch.ones(2)))
