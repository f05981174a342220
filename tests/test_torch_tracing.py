"""ketcore's array code where PyTorch traces it: no value is looked at, and nothing breaks a graph."""

from dataclasses import replace

import numpy as np
import pytest

from ketcore.ops import OPS
from tests.operator_problems import problems_to_compile
from tests.problems import Problem, drawn
from tests.require import imported

torch = imported("torch")

BY_NAME = {op.name: op for op in OPS}
RNG = np.random.default_rng(31)


def _table():
    found = problems_to_compile(BY_NAME, "float64", Problem.of)
    known = {problem.op.name for problem in found}
    found += [drawn(op, "float64") for op in OPS if op.name not in known]
    leaves, options = RNG.standard_normal((4, 2, 7)), {"dims": (2, 2, 3), "layernorm": True, "eps": 1e-2}
    found.append(Problem.of(BY_NAME["ket_rows"], leaves, index=np.arange(6) % 4, options=options))
    return [replace(problem, arrays=[np.asarray(array) for array in problem.arrays]) for problem in found]


TABLE = _table()
every_problem = pytest.mark.parametrize(
    "problem", TABLE, ids=[f"{problem.op.name}-{n}" for n, problem in enumerate(TABLE)]
)


@pytest.fixture(autouse=True)
def _nothing_compiled_before():
    torch.compiler.reset()


def on_torch(problem, move=torch.as_tensor):
    index = None if problem.index is None else move(torch.as_tensor(problem.index))
    return replace(problem, arrays=tuple(move(torch.as_tensor(a)) for a in problem.arrays), index=index)


def everything(problem, arrays):
    """What forward, vjp and jvp return, one after the other."""
    outputs = problem.forward(*arrays)
    cotangents = tuple(torch.ones_like(output) for output in outputs)
    return (*outputs, *problem.vjp(*arrays, cotangents), *problem.jvp(*arrays, *arrays))


@every_problem
def test_forward_vjp_and_jvp_compile_in_one_graph(problem):
    problem = on_torch(problem)
    compiled = torch.compile(lambda *arrays: everything(problem, arrays), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*problem.arrays), everything(problem, problem.arrays))


@every_problem
def test_gradients_go_through_a_compiled_function(problem):
    problem = on_torch(problem, lambda a: a.clone().requires_grad_(a.is_floating_point()))
    compiled = torch.compile(problem.forward, fullgraph=True, backend="aot_eager")

    def gradients(function):
        outputs = function(*problem.arrays)
        total = sum((output**2).sum() for output in outputs if output.requires_grad)
        return torch.autograd.grad(total, problem.arrays)

    torch.testing.assert_close(gradients(compiled), gradients(problem.forward))


@every_problem
def test_every_operation_is_exported(problem):
    problem = on_torch(problem)

    class Module(torch.nn.Module):
        def forward(self, *arrays):
            return problem.forward(*arrays)

    exported = torch.export.export(Module(), problem.arrays)
    torch.testing.assert_close(exported.module()(*problem.arrays), problem.forward(*problem.arrays))


@every_problem
@pytest.mark.parametrize("kind", ["meta", "fake"])
def test_arrays_without_values_give_shapes_and_dtypes(problem, kind):
    if kind == "meta":
        mode, move = torch.no_grad(), lambda a: a.to("meta")
    else:
        mode = torch._subclasses.FakeTensorMode()
        move = mode.from_tensor
    expected = everything(on_torch(problem), on_torch(problem).arrays)
    moved = on_torch(problem, move)
    with mode:
        found = everything(moved, moved.arrays)
    assert [(f.shape, f.dtype) for f in found] == [(e.shape, e.dtype) for e in expected]


@every_problem
def test_vmap_over_what_is_differentiated(problem):
    problem = on_torch(problem)
    stacked = [torch.stack([array, 2 * array]) for array in problem.arrays]
    found = torch.func.vmap(lambda *arrays: everything(problem, arrays))(*stacked)
    for n in (0, 1):
        expected = everything(problem, [array[n] for array in stacked])
        torch.testing.assert_close([part[n] for part in found], list(expected))
