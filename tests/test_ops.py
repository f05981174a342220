"""Every op of the table on every library: against its dense definition, and its derivatives."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

import ketcore as kc
from ketcore import ops, testing
from ketcore.cuda import launcher
from ketcore.ops import OPS
from ketcore.testing import assert_dense_equal, assert_jvp, assert_second_order, assert_vjp, to_numpy
from tests.problems import STRATEGIES, problems

# Of these a part runs in kernels where there are some.
WITH_KERNELS = {"gather_kron", "rows", "row_kets", "ket_rows", "kron_trace"}

every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])


def check(op, xp, strategy, body):
    """`xp.check`, with few examples where the simulator has nothing to run and NumPy has had its turn."""
    idle = xp.name.startswith("cusim") and op.name not in WITH_KERNELS
    (replace(xp, examples=3) if idle else xp).check(strategy, body)


def test_every_op_has_a_strategy():
    assert {op.name for op in OPS} == set(STRATEGIES)


def test_every_op_is_public_with_its_derivatives():
    for op in OPS:
        for suffix, function in (("", op.forward), ("_vjp", op.vjp), ("_jvp", op.jvp), ("_dense", op.dense)):
            assert getattr(kc, op.name + suffix) is getattr(ops, op.name + suffix) is function
            assert function.__doc__


@every_op
def test_equals_its_dense_definition(op, xp):
    def body(problem):
        problem = problem.on(xp)
        before = to_numpy(problem.index) if problem.index is not None else None
        outputs, scales = problem.forward(*problem.arrays), problem.scale()
        for place, (output, expected, scale) in enumerate(
            zip(outputs, problem.expected(), scales, strict=True)
        ):
            dtype = problem.dtype(place)
            # As np.vdot does, NumPy gives a scalar where the batch is 0-d.
            assert isinstance(output, type(problem.arrays[0]) | np.generic)
            assert_dense_equal(output, expected, terms=problem.terms, scale=scale, dtype=dtype)
        if before is not None:
            assert np.array_equal(to_numpy(problem.index), before)

    check(op, xp, problems(op, half=xp.half), body)


@every_op
def test_vjp_is_the_transpose(op, xp):
    def body(problem):
        problem = problem.on(xp)
        known = {"multilinear": problem.multilinear, "scale": problem.derivative_scale()}
        assert_vjp(problem.forward, problem.vjp, problem.arrays, jvp=problem.jvp, **known)

    check(op, xp, problems(op, half=xp.half), body)


@every_op
def test_jvp_is_the_derivative(op, xp):
    def body(problem):
        problem = problem.on(xp)
        known = {"multilinear": problem.multilinear, "scale": problem.derivative_scale()}
        assert_jvp(problem.forward, problem.jvp, problem.arrays, **known)

    check(op, xp, problems(op, half=xp.half), body)


@every_op
def test_second_order(op, xp):
    def body(problem):
        problem = problem.on(xp)
        assert_second_order(
            problem.forward, problem.vjp, problem.arrays, jvp=problem.jvp, multilinear=problem.multilinear
        )

    check(op, xp, problems(op, wide=True), body)


@every_op
def test_results_are_new_arrays(op):
    @given(problems(op))
    def body(problem):
        outputs = problem.forward(*problem.arrays)
        cotangents = tuple(np.ones_like(output) for output in outputs)
        gradients = problem.vjp(*problem.arrays, cotangents)
        for result in (*outputs, *gradients):
            assert not any(np.may_share_memory(result, given) for given in (*problem.arrays, *cotangents))

    body()


def test_the_simulator_runs_the_kernels(xp):
    """Or the tests under this name would be those of NumPy over again."""
    if not xp.name.startswith("cusim"):
        pytest.skip("no simulator")
    launch = launcher.launcher_for(None)
    before = len(launch.launches)
    factors, ids = [xp.asarray(np.ones((2, 3, 2), "float32"))] * 2, xp.asarray(np.array([0, 8]))
    ops.rows_vjp(factors, ids, ops.rows(factors, ids))
    assert launch.launches[before : before + 2] == ["expand", "contract"]


def reference_rows(leaves):
    """Rows from leaves, N arrays (B, R, q_n), in float64 or complex128."""
    rows = leaves[0].astype(np.result_type(leaves[0], np.float64))
    for leaf in leaves[1:]:
        rows = (rows[..., :, None] * leaf[..., None, :]).reshape(*rows.shape[:2], -1)
    return rows.sum(axis=1)


# (row dims, column dims, rank): the paper's settings, orders to 8, odd orders, and a left half with a single
# mode.
WORKLOADS = [
    ((14, 14, 14, 12), (4, 4, 4, 4), 1),
    ((175, 174), (20, 20), 10),
    ((4, 4, 4, 4, 4, 4, 3, 3), (2,) * 8, 1),
    ((345, 344), (15, 20), 2),
    ((180, 178), (16, 16), 30),
    ((32, 32, 32), (8, 8, 4), 10),
    ((3, 500), (100, 3), 3),
    ((700,), (30,), 4),
    ((7, 7, 7, 7, 7), (3, 1, 4, 1, 5), 2),
]


def normal(rng, shape, dtype):
    imaginary = 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0
    return (rng.standard_normal(shape) + imaginary).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("batch", [3, 1500])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: "x".join(map(str, workload[0])))
def test_rows_of_real_sizes(workload, batch, dtype):
    row_dims, col_dims, rank = workload
    rng = np.random.default_rng(3)
    factors = [normal(rng, (rank, p, q), dtype) for p, q in zip(row_dims, col_dims, strict=True)]
    shape = (int(np.prod(row_dims)) - 5, int(np.prod(col_dims)) - (3 if batch == 3 else 0))
    ids = np.concatenate([rng.integers(0, shape[0], batch - 2), [0, shape[0] - 1]])
    digits = np.unravel_index(ids, row_dims)
    leaves = [factor[:, digit].swapaxes(0, 1) for factor, digit in zip(factors, digits, strict=True)]
    expected, scale = reference_rows(leaves), reference_rows([np.abs(leaf) for leaf in leaves])
    actual = ops.rows(factors, ids, shape)
    columns = slice(shape[1])
    terms = rank * len(row_dims)
    assert_dense_equal(actual, expected[:, columns], terms=terms, scale=scale[:, columns], dtype=dtype)

    cotangent = normal(rng, actual.shape, dtype)
    tangents = [normal(rng, factor.shape, dtype) for factor in factors]
    gradients = ops.rows_vjp(factors, ids, cotangent, shape)
    pushed = ops.rows_jvp(factors, ids, tangents, shape).astype("complex128")
    left = sum(np.sum(t * g.astype("complex128")).real for t, g in zip(tangents, gradients, strict=True))
    right = np.sum(cotangent * pushed).real
    bound = np.linalg.norm(cotangent) * np.linalg.norm(pushed)
    assert abs(left - right) <= testing.tolerance(dtype, batch) * bound
