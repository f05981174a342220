"""ketcore's array code where PyTorch traces it: no value is looked at, and nothing breaks a graph."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import ketcore as kc
from ketcore.ops import OPS
from tests import profiles
from tests.operator_problems import problems_to_compile
from tests.problems import Problem, drawn
from tests.require import imported

torch = imported("torch")

from torch._dynamo.testing import CompileCounter  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

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
    # What pytest keeps of every log, PyTorch would take most of the time to write.
    logging.getLogger("torch.__trace").setLevel(logging.WARNING)


def on_torch(problem, move=torch.as_tensor):
    index = None if problem.index is None else move(torch.as_tensor(problem.index))
    return replace(problem, arrays=tuple(move(torch.as_tensor(a)) for a in problem.arrays), index=index)


def everything(problem, arrays):
    """What forward, vjp and jvp return, one after the other."""
    outputs = problem.forward(*arrays)
    cotangents = tuple(torch.ones_like(output) for output in outputs)
    return (*outputs, *problem.vjp(*arrays, cotangents), *problem.jvp(*arrays, *arrays))


# What layers are made of; PyTorch takes seconds to trace each of the others.
COMMON = {"rows", "gather_kron", "kron_matmul", "row_kets"}


@every_problem
def test_forward_vjp_and_jvp_compile_in_one_graph(problem):
    problem = on_torch(problem)
    most = problem.op.name in COMMON or profiles.is_thorough()
    function = partial(everything, problem) if most else lambda arrays: problem.forward(*arrays)
    compiled = torch.compile(lambda *arrays: function(arrays), fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*problem.arrays), function(problem.arrays))


@every_problem
def test_gradients_go_through_a_compiled_function(problem):
    if problem.op.name not in COMMON:
        profiles.only_thorough("derivatives of what PyTorch takes seconds to trace")
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


def test_rows_of_what_is_quantized_are_exported_for_batches_of_every_size():
    stored = kc.quantize(torch.randn(1, 300, 32), 4)

    class Module(torch.nn.Module):
        def forward(self, ids):
            return kc.rows([stored], ids)

    ids = torch.tensor([[299, 0, 7]])
    shapes = ({1: torch.export.Dim("batch")},)
    exported = torch.export.export(Module(), (ids,), dynamic_shapes=shapes).module()
    torch.testing.assert_close(exported(ids[:, :2]), stored.dequantize()[0][ids[:, :2]])


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


FACTORS = [torch.as_tensor(RNG.standard_normal((2, 5, 3))) for _ in range(3)]
LEAVES = torch.as_tensor(RNG.standard_normal((125, 2, 9)))
X = torch.as_tensor(RNG.standard_normal((125, 4)))
IDS = torch.tensor([0, 99, 7, 7])


@pytest.mark.parametrize("check", [None, True])
def test_an_id_out_of_range_gives_nan_and_no_gradient_where_it_is_traced(check):
    ids, cotangent = torch.tensor([3, -1, 100, 2**62]), torch.ones(4, 27, dtype=torch.float64)

    def function(ids):
        rows = kc.rows(FACTORS, ids, (100, 27), check=check)
        return rows, kc.rows_vjp(FACTORS, ids, cotangent, (100, 27), check=check)

    rows, gradients = torch.compile(function, fullgraph=True, backend="eager")(ids)
    assert torch.isnan(rows[1:]).all()
    torch.testing.assert_close(rows[0], kc.rows(FACTORS, ids[:1], (100, 27))[0])
    torch.testing.assert_close(gradients, kc.rows_vjp(FACTORS, ids[:1], cotangent[:1], (100, 27)))
    with pytest.raises(IndexError, match=r"ids must lie in \[0, 100\), got -1"):
        function(ids)


SIZED = {
    "rows": (lambda ids: kc.rows(FACTORS, ids), 0),
    "ket_rows": (lambda ids: kc.ket_rows(LEAVES, ids, (3, 3, 3), True), 0),
    "gather_kron": (lambda ids: kc.gather_kron(FACTORS, torch.stack([ids % 5] * 3)), 0),
    "kron_matmul": (lambda ids: kc.kron_matmul(FACTORS, ids[:, None] * X[None, :, 0]), 0),
    "kron_matmul of columns": (lambda ids: kc.kron_matmul(FACTORS, X[:, :1] * ids, axis=-2), 0),
    "kron_matmul of local terms": (
        lambda ids: kc.kron_matmul(
            [torch.ones(2, 5, 5, dtype=torch.float64)] * 3,
            X[:, :1] * ids,
            axis=-2,
            identities=(frozenset({0}), frozenset({1})),
        ),
        0,
    ),
}


@pytest.mark.parametrize("name", SIZED)
def test_one_graph_serves_batches_of_every_size(name):
    function, axis = SIZED[name]
    counter = CompileCounter()
    compiled = torch.compile(function, fullgraph=True, backend=counter)
    for size in (5, 9, 40):
        ids = torch.arange(size)
        torch._dynamo.mark_dynamic(ids, axis)
        torch.testing.assert_close(compiled(ids), function(ids))
    assert counter.frame_count == 1


def test_a_graph_of_symbols_serves_kets_of_every_number():
    # make_fx is no compilation: nothing says that sizes are symbols but that they have no hash.
    def function(leaves, ids):
        return kc.ket_rows(leaves, ids, dims=(3, 3), layernorm=True)

    def given(words):
        return torch.tensor(RNG.standard_normal((words, 2, 6))), torch.arange(words + 3) % words

    graph = make_fx(function, tracing_mode="symbolic")(*given(7))
    for words in (5, 9):
        arrays = given(words)
        torch.testing.assert_close(graph(*arrays), function(*arrays))


def test_factors_of_other_sizes_are_compiled_anew():
    """PyTorch makes symbols of the sizes that changed: of those of factors plans make constants again."""
    compiled = torch.compile(kc.kron_matmul, fullgraph=True, backend="eager")
    for p, q in ((2, 3), (4, 5), (6, 7)):
        factors = [torch.ones(2, p, q, dtype=torch.float64)] * 2
        x = torch.ones(3, p * p, dtype=torch.float64)
        torch.testing.assert_close(compiled(factors, x), kc.kron_matmul(factors, x))


def test_vmap_over_ids():
    ids = torch.stack([IDS, IDS - 1])
    found = torch.func.vmap(lambda row: kc.rows(FACTORS, row, (100, 27)))(ids)
    torch.testing.assert_close(found[0], kc.rows(FACTORS, IDS, (100, 27)))
    assert torch.isnan(found[1, 0]).all()
    torch.testing.assert_close(found[1, 1:], kc.rows(FACTORS, IDS[1:] - 1, (100, 27)))


K = kc.KroneckerMatrix(FACTORS, (100, 20))
METHODS = {
    "rows": lambda: K.rows(IDS),
    "ids": lambda: K[IDS],
    "matmul": lambda: K.matmul(X[:20]),
    "rmatmul": lambda: K.rmatmul(X[:100].T),
    "matmul of a grid": lambda: kc.KroneckerMatrix(FACTORS).matmul(X[:54, :1].reshape(2, 3, 3, 3)),
    "trace": lambda: K.trace(),
    "made inside": lambda: kc.KroneckerMatrix([2 * factor for factor in FACTORS], (100, 20)).rows(IDS),
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_of_matrices_compile(name):
    compiled = torch.compile(METHODS[name], fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(), METHODS[name]())


def test_what_must_be_looked_at_says_so():
    factors, b = [torch.ones(1, 3, 3, device="meta"), torch.ones(1, 2, 2, device="meta")], torch.ones(6)
    text = "assume_a must say that factors are Hermitian where they are traced and there is a shift, got 'gen"
    with pytest.raises(TypeError, match=text):
        kc.kron_solve(factors, b.to("meta"), 1.0, assume_a="gen")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "bfloat16"])
@pytest.mark.parametrize("name", ["rows", "gather_kron", "ket_rows"])
def test_gradients_of_bare_tensors_are_those_of_array_code(name, dtype):
    dtype = getattr(torch, dtype)
    factors = [factor.to(dtype).mT.contiguous().mT for factor in FACTORS]
    ids = torch.arange(200) % 100
    cotangent = torch.as_tensor(RNG.standard_normal((200, 27))).to(dtype)
    if dtype.is_complex:
        cotangent = (cotangent * (1 + 2j)).conj()
    call = {
        "rows": lambda *f: kc.rows_vjp(f, ids, cotangent),
        "gather_kron": lambda *f: kc.gather_kron_vjp(f, torch.stack([ids % 5] * 3), cotangent),
        "ket_rows": lambda *_: kc.ket_rows_vjp(LEAVES.to(dtype), ids, cotangent, (3, 3, 3)),
    }[name]
    bare = call(*factors)
    with torch.utils.flop_counter.FlopCounterMode(display=False):  # a mode that watches what PyTorch computes
        watched = call(*factors)
    torch.testing.assert_close(bare, watched, rtol=2e-2 if dtype.itemsize == 2 else 1e-4, atol=1e-2)


def test_a_long_sum_of_a_bare_tensor_keeps_its_digits():
    factor, ids = torch.ones(1, 1, 1), torch.zeros(1 << 18, dtype=torch.int64)
    cotangent = torch.full((1 << 18, 1), 0.1)
    (found,) = kc.rows_vjp((factor,), ids, cotangent)
    assert abs(float(found) / (float(cotangent[0]) * (1 << 18)) - 1) < 1e-6
