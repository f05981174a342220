"""ketcore inside automatic differentiation: the array-API path under torch.autograd and jax."""

from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

from ketcore import ops
from ketcore.testing import assert_dense_equal, assert_second_order, assert_vjp, to_numpy
from tests.operator_problems import problems_to_compile
from tests.problems import Problem, drawn
from tests.require import require

RNG = np.random.default_rng(21)
FACTORS = [RNG.standard_normal((2, 3, 2)), RNG.standard_normal((2, 4, 3))]
LEAVES = RNG.standard_normal((4, 2, 7))
IDS = np.array([0, 11, 5, 5])
X = np.random.default_rng(22).standard_normal((2, 10))
INDEX = np.array([[[0, 2, 1], [1, 1, 1]], [[3, 0, 0], [2, 1, 3]]])


@pytest.fixture
def torch():
    require("torch", find_spec("torch") is not None, "torch is not installed")
    import torch

    return torch


@pytest.fixture
def jax():
    require("jax", find_spec("jax") is not None, "jax is not installed")
    import jax

    with jax.enable_x64(True):
        yield jax


def _as(array, dtype):
    if dtype == "bfloat16":
        return array.astype(import_module("ml_dtypes").bfloat16)
    return (array * (1 + 0.5j) if dtype.startswith("complex") else array).astype(dtype)


def functions(asarray):
    """Differentiable functions by name, with the arrays to differentiate them at."""
    ids, words, index = asarray(IDS), asarray(IDS % 4), asarray(INDEX)
    return {
        "rows": (lambda a, b: ops.rows((a, b), ids), FACTORS),
        "rows cropped": (lambda a, b: ops.rows((a, b), asarray(IDS % 10), (10, 5)), FACTORS),
        "gather_kron": (lambda a, b: ops.gather_kron((a, b), index, per_term=True), FACTORS),
        "row_kets": (lambda a, b: ops.row_kets((a, b), ids), FACTORS),
        "ket_rows": (lambda leaves: ops.ket_rows(leaves, words, (2, 2, 3)), [LEAVES]),
        "ket_rows with LayerNorm": (lambda leaves: ops.ket_rows(leaves, words, (2, 2, 3), True), [LEAVES]),
        "ket_inner": (lambda v, w: ops.ket_inner((v,), (w,)), [RNG.standard_normal((3, 2, 4))] * 2),
        "ket_gram": (lambda v, w: ops.ket_gram((v,), (w,)), [RNG.standard_normal((3, 2, 4))] * 2),
    }


NAMES = list(functions(np.asarray))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_torch_gradients_to_second_order(torch, name, dtype):
    if "LayerNorm" in name and dtype == "complex128":
        pytest.skip("LayerNorm is for real leaves")
    function, arrays = functions(torch.as_tensor)[name]
    tensors = [torch.tensor(_as(array, dtype), requires_grad=True) for array in arrays]
    assert torch.autograd.gradcheck(function, tensors, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("name", ["rows", "ket_rows with LayerNorm"])
def test_torch_gradients_are_those_of_the_vjp(torch, name):
    function, arrays = functions(torch.as_tensor)[name]
    tensors = [torch.tensor(array, requires_grad=True) for array in arrays]
    output = function(*tensors)
    cotangent = torch.tensor(RNG.standard_normal(tuple(output.shape)))
    output.backward(cotangent)
    if name == "rows":
        expected = ops.rows_vjp(FACTORS, IDS, cotangent.numpy())
    else:
        expected = [ops.ket_rows_vjp(LEAVES, IDS % 4, cotangent.numpy(), (2, 2, 3), True)]
    for tensor, gradient in zip(tensors, expected, strict=True):
        assert_dense_equal(tensor.grad, gradient, terms=8)


def test_a_vjp_is_itself_differentiable_in_torch(torch):
    """The gradient of the gradient: through rows_vjp as a function of factors and cotangent."""
    ids = torch.as_tensor(IDS)
    inputs = [torch.tensor(a, requires_grad=True) for a in (*FACTORS, RNG.standard_normal((4, 6)))]
    assert torch.autograd.gradcheck(lambda a, b, c: ops.rows_vjp((a, b), ids, c), inputs, fast_mode=True)


def torch_function(torch, op):
    """An operation as a function of torch with the operation's own vjp, made of its entry in the table."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, counts, constants, options, *arrays):
            ctx.save_for_backward(*arrays)
            ctx.rest = counts, constants, options
            outputs = op.call(op.forward, op.unflatten(arrays, counts), constants, **options)
            outputs = op.flat_outputs(outputs)
            return outputs if len(outputs) > 1 else outputs[0]

        @staticmethod
        def backward(ctx, *cotangents):
            counts, constants, options = ctx.rest
            primals = op.unflatten(ctx.saved_tensors, counts)
            cotangent = op.cotangent([c.conj() for c in cotangents])
            gradients = op.call(op.vjp, primals, (*constants, cotangent), **options)
            return None, None, None, *(g.conj() for g in op.flat_gradients(gradients, counts))

    def function(primals, constants, **options):
        arrays, counts = op.flatten(primals)
        return Function.apply(counts, constants, options, *arrays)

    return function


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("op", ops.OPS, ids=[op.name for op in ops.OPS])
def test_an_adapter_to_torch_needs_the_table_alone(torch, op, dtype):
    problem = drawn(op, dtype)
    function = torch_function(torch, problem.op)
    constants = () if problem.index is None else (torch.as_tensor(problem.index),)
    tensors = [torch.tensor(np.asarray(array), requires_grad=True) for array in problem.arrays]

    def flat(*arrays):
        return function(op.unflatten(arrays, problem.counts), constants, **problem.options)

    assert torch.autograd.gradcheck(flat, tensors, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_jax_derivatives_are_right_to_second_order(jax, name):
    function, arrays = functions(jax.numpy.asarray)[name]
    arrays = [jax.numpy.asarray(array) for array in arrays]

    # Compiled once: the assertion calls it at many points.
    @jax.jit
    def vjp(*arrays_and_cotangent):
        *at, cotangent = arrays_and_cotangent
        return jax.vjp(function, *at)[1](cotangent)

    @jax.jit
    def jvp(*arrays_and_tangents):
        half = len(arrays_and_tangents) // 2
        return jax.jvp(function, arrays_and_tangents[:half], arrays_and_tangents[half:])[1]

    @jax.jit
    def vjp_jvp(*given):
        at, cotangent, tangents = given[: len(arrays)], given[len(arrays)], given[len(arrays) + 1 :]
        return jax.jvp(lambda *at: vjp(*at, cotangent), at, tangents)[1]

    assert_vjp(jax.jit(function), vjp, arrays, jvp=jvp)
    assert_second_order(jax.jit(function), vjp, arrays, jvp=jvp, vjp_jvp=vjp_jvp)


def problems_of(dtype):
    """At least one problem per op: with uneven modes, repeated ids and a crop, or else a drawn one."""
    arrays = [_as(array, dtype) for array in FACTORS]
    leaves = _as(LEAVES, dtype)
    kets = [_as(RNG.standard_normal(shape), dtype) for shape in ((3, 2, 4), (3, 2, 2), (3, 1, 4), (3, 1, 2))]
    by_name = {op.name: op for op in ops.OPS}
    found = [
        Problem.of(by_name["rows"], arrays, index=IDS % 10, options={"shape": (10, 5)}),
        Problem.of(by_name["gather_kron"], arrays, index=INDEX, options={"per_term": True, "columns": 5}),
        Problem.of(by_name["row_kets"], arrays, index=IDS.reshape(2, 2)),
        Problem.of(by_name["ket_rows"], leaves, index=IDS % 4, options={"dims": (2, 2, 3)}),
        Problem.of(by_name["ket_inner"], kets[:2], kets[2:]),
        Problem.of(by_name["ket_gram"], kets[:2], kets[2:]),
        Problem.of(by_name["kron_matmul"], arrays, _as(X, dtype), options={"shape": (10, 5)}),
    ]
    if dtype in ("float64", "complex64"):  # two are enough for what takes seconds to compile
        found += problems_to_compile(by_name, dtype, Problem.of)
        known = {problem.op.name for problem in found}
        found += [drawn(op, dtype) for op in ops.OPS if op.name not in known]
    if dtype != "complex64":
        options = {"dims": (2, 2, 3), "layernorm": True, "eps": 1e-2}
        found.append(
            Problem.of(by_name["ket_rows"], leaves, index=IDS % 4, options=options, multilinear=False)
        )
    return found


DTYPES = ("float32", "float64", "complex64", *(["bfloat16"] if find_spec("ml_dtypes") else []))
COMPILED = [
    pytest.param(dtype, n, id=f"{problem.op.name}-{dtype}-{n}")
    for dtype in DTYPES
    for n, problem in enumerate(problems_of(dtype))
]


@pytest.mark.parametrize(("dtype", "n"), COMPILED)
def test_jax_agrees_with_the_dense_definition_and_with_numpy(jax, dtype, n):
    problem = problems_of(dtype)[n]
    traced = replace(problem, index=None if problem.index is None else jax.numpy.asarray(problem.index))
    arrays = [jax.numpy.asarray(array) for array in problem.arrays]
    outputs = jax.jit(traced.forward)(*arrays)
    for k, (output, expected, scale) in enumerate(
        zip(outputs, problem.expected(), problem.scale(), strict=True)
    ):
        assert_dense_equal(output, expected, terms=problem.terms, scale=scale, dtype=problem.dtype(k))
    tangents = [jax.numpy.asarray(np.roll(array, 1)) for array in problem.arrays]
    pushed = jax.jit(traced.jvp)(*arrays, *tangents)
    right = problem.jvp(*problem.arrays, *map(to_numpy, tangents))
    cotangents = tuple(jax.numpy.ones_like(output) for output in outputs)
    gradients = jax.jit(traced.vjp)(*arrays, cotangents)
    numpy_cotangents = tuple(map(to_numpy, cotangents))
    expected = problem.vjp(*problem.arrays, numpy_cotangents)
    terms, scales = derivative_sizes(problem, tangents, numpy_cotangents)
    for k, (one, other) in enumerate(zip((*pushed, *gradients), (*right, *expected), strict=True)):
        scale = np.abs(other).astype("float64").max() + 1 if scales is None else scales[k]
        assert_dense_equal(one, other, terms=terms, scale=scale, dtype=other.dtype)


def derivative_sizes(problem, tangents, cotangents):
    """The length of the sums in derivatives of both libraries, and the magnitudes of what they add up.

    Those of a multilinear map are its derivatives at absolute values: a tangent sums over the arrays, a
    gradient over the outputs.  The other maps are solved with, or normalised: at most twice n = 6 terms at a
    condition of 3, once from the left and once from the right, relative to the largest entry.
    """
    if not problem.multilinear:
        return 100, None
    arrays, tangents, cotangents = (
        [np.abs(to_numpy(array)).astype("float64") for array in given]
        for given in (problem.arrays, tangents, cotangents)
    )
    pushed = problem.jvp(*arrays, *tangents)
    pulled = problem.vjp(*arrays, cotangents)
    # Twice, for two libraries that each round.
    terms = 2 * problem.terms * max(len(arrays), *(cotangent.size for cotangent in cotangents))
    return terms, (*pushed, *pulled)


@pytest.mark.parametrize("name", NAMES)
def test_jax_compiled_and_mapped_results_are_the_same(jax, name):
    function, arrays = functions(jax.numpy.asarray)[name]
    arrays = [jax.numpy.asarray(array) for array in arrays]
    plain, compiled = function(*arrays), jax.jit(function)(*arrays)
    mapped = jax.vmap(function)(*[jax.numpy.stack([array, 2 * array]) for array in arrays])
    for one, other, many in zip(*map(_several, (plain, compiled, mapped)), strict=True):
        assert_dense_equal(other, to_numpy(one), terms=8)
        assert_dense_equal(many[0], to_numpy(one), terms=8)


def _several(outputs):
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def test_jax_hessian_of_a_multilinear_map(jax):
    """Of a loss linear in the rows: zero on the diagonal, and across it each block transposes the other."""
    ids = jax.numpy.asarray(IDS)
    weights = jax.numpy.asarray(RNG.standard_normal((4, 6)))
    arrays = [jax.numpy.asarray(array) for array in FACTORS]
    hessian = jax.hessian(lambda a, b: (weights * ops.rows((a, b), ids)).sum(), argnums=(0, 1))(*arrays)
    assert not np.any(to_numpy(hessian[0][0]))
    assert not np.any(to_numpy(hessian[1][1]))
    across = to_numpy(hessian[0][1])
    assert np.abs(across).max() > 0
    assert_dense_equal(to_numpy(hessian[1][0]), across.transpose(3, 4, 5, 0, 1, 2), terms=4)


def test_jax_traced_ids_are_not_checked(jax):
    """A traced id has no value to check: a bad one gives a row of NaN."""
    factors = [jax.numpy.asarray(array) for array in FACTORS]
    rows = to_numpy(jax.jit(lambda ids: ops.rows(factors, ids))(jax.numpy.asarray([0, 12, -1, 11])))
    assert np.isnan(rows[1:3]).all()
    assert_dense_equal(rows[[0, 3]], ops.rows_dense(FACTORS, [0, 11]), terms=2)
    with pytest.raises(IndexError, match=r"ids must lie in \[0, 12\), got 12"):
        ops.rows(factors, jax.numpy.asarray([0, 12]))


def test_jax_gives_no_gradient_to_a_bad_id(jax):
    factors = [jax.numpy.asarray(array) for array in FACTORS]
    cotangent = RNG.standard_normal((3, 6))
    pull = jax.jit(lambda ids, c: ops.rows_vjp(factors, ids, c))
    actual = pull(jax.numpy.asarray([0, 12, 7]), jax.numpy.asarray(cotangent))
    for gradient, expected in zip(actual, ops.rows_vjp(FACTORS, [0, 7], cotangent[[0, 2]]), strict=True):
        assert_dense_equal(gradient, expected, terms=4)


def test_jax_without_64_bit_types(jax):
    """The default of jax: float32 arrays, int32 ids."""
    with jax.enable_x64(False):
        factors = [jax.numpy.asarray(array, dtype="float32") for array in FACTORS]
        rows = ops.rows(factors, jax.numpy.asarray(IDS))
        gradients = ops.rows_vjp(factors, jax.numpy.asarray(IDS), rows)
        sparse = ops.ket_rows_vjp(
            jax.numpy.asarray(LEAVES, dtype="float32"),
            [1, 3, 1],
            jax.numpy.ones((3, 12)),
            (2, 2, 3),
            sparse=True,
        )
    assert_dense_equal(rows, ops.rows_dense(FACTORS, IDS), terms=4, dtype="float32")
    assert [g.dtype.name for g in gradients] == ["float32"] * 2
    assert np.asarray(sparse[0]).tolist() == [1, 3]
