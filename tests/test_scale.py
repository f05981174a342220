"""Factors of opposite scales: the same numbers as at one level, wherever the result can be held."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from ketcore.arrays import scale
from ketcore.arrays.namespaces import quiet
from ketcore.ops import OPS
from ketcore.testing import tolerance
from tests.problems import problems
from tests.scale_problems import gauge, normal, times_power

# What picks leaves multiplies nothing.
_LINEAR = ("row_kets",)
_OPS = [op for op in OPS if op.name not in _LINEAR]


def assert_same(actual, expected, terms, scale=0.0):
    """Equal to a few roundings of the largest number, or of `scale` where more is added up."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype)
    largest = max(np.abs(expected).max(initial=0.0), np.max(scale, initial=0.0))
    allowed = 64 * tolerance(expected.dtype, terms) * largest
    assert np.isfinite(actual).all()
    assert np.abs(actual - expected).max(initial=0.0) <= allowed, (actual, expected)


@pytest.mark.parametrize("op", _OPS, ids=[op.name for op in _OPS])
@settings(max_examples=60)
@given(data=st.data())
def test_operations_and_derivatives_do_not_see_the_gauge(op, data):
    problem = data.draw(problems(op))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    arrays = tuple(np.asarray(array) for array in problem.arrays)
    shifts = gauge(problem, rng)
    turned = replace(problem, arrays=tuple(map(times_power, arrays, shifts)))
    with np.errstate(all="ignore"):
        expected, actual = (p.forward(*p.arrays) for p in (problem, turned))
    for place, (one, other) in enumerate(zip(actual, expected, strict=True)):
        # The logarithm of a determinant near 1 is a sum of larger ones.
        is_log = op.outputs[place].name.startswith("log")
        assert_same(one, other, problem.terms, problem.scale()[place] if is_log else 0.0)
    cotangents = [normal(rng, np.shape(e), e.dtype) for e in expected]
    expected = problem.vjp(*arrays, cotangents)
    actual = map(times_power, turned.vjp(*turned.arrays, cotangents), shifts)
    for one, other in zip(actual, expected, strict=True):
        assert_same(one, other, 100 * problem.terms)
    tangents = [normal(rng, a.shape, a.dtype) for a in arrays]
    moved = list(map(times_power, tangents, shifts))
    expected = problem.jvp(*arrays, *tangents)
    for one, other in zip(turned.jvp(*turned.arrays, *moved), expected, strict=True):
        assert_same(one, other, 100 * problem.terms)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_scale_of_a_whole_matrix_goes_to_the_operand(dtype):
    rng, power = np.random.default_rng(0), {"float32": 100, "float64": 900}[dtype]
    factors = [normal(rng, (1, 3, 3), dtype) + 2 * np.eye(3, dtype=dtype) for _ in range(2)]
    x = normal(rng, (5, 9), dtype)
    for sign in (1, -1):
        scaled = [times_power(f, -sign * power) for f in factors]
        large = times_power(x, sign * power)
        for path in (None, "modes", "halves", "dense"):
            expected = kc.kron_matmul(factors, x, path=path)
            actual = times_power(kc.kron_matmul(scaled, large, path=path), sign * power)
            assert np.array_equal(actual, expected)
        actual = times_power(kc.kron_solve(scaled, times_power(large, -2 * sign * power)), -sign * power)
        assert_same(actual, kc.kron_solve(factors, x), 100)
        right = times_power(kc.kron_sandwich(x[0], scaled, large[0]), sign * power)
        assert_same(right, kc.kron_sandwich(x[0], factors, x[0]), 10)
        to_factors, to_x = kc.kron_matmul_vjp(scaled, large, np.ones_like(x))
        expected, to = kc.kron_matmul_vjp(factors, x, np.ones_like(x))
        assert all(np.array_equal(f, e) for f, e in zip(to_factors, expected, strict=True))
        assert not to_x.any() if sign > 0 else np.isinf(to_x).any()
        assert to.any()


@pytest.mark.parametrize("order", [3, 5])
def test_leaves_under_a_layernorm_keep_their_scales(order):
    """A node has a scale of its own, beside which `eps` is large or small: none may go to another leaf."""
    rng = np.random.default_rng(order)
    dims, sizes = (3,) * order, np.resize([1e-16, 1e16, 1.0], order)
    leaves = normal(rng, (4, 2, 3 * order), "float32") * np.repeat(sizes, 3).astype("float32")
    ids, tangent = np.array([0, 3, 3, 1]), normal(rng, leaves.shape, "float32")
    cotangent = normal(rng, (4, 3**order), "float32")
    narrow, wide = (
        (leaves, cotangent, tangent),
        (leaves.astype("f8"), cotangent.astype("f8"), tangent.astype("f8")),
    )
    found = [
        (
            kc.ket_rows(table, ids, dims, layernorm=True),
            kc.ket_rows_vjp(table, ids, c, dims, layernorm=True),
            kc.ket_rows_jvp(table, ids, t, dims, layernorm=True),
        )
        for table, c, t in (narrow, wide)
    ]
    exact = kc.ket_rows_dense(wide[0], ids, dims, layernorm=True)
    for actual, expected in zip(found[0], (exact, *found[1][1:]), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_results_out_of_range_are_infinite_or_zero():
    big, small = np.full((1, 2, 2), 1e200), np.full((1, 2, 2), 1e-200)
    with np.errstate(all="ignore"):
        assert np.isposinf(kc.KroneckerMatrix([big, big, small]).to_dense() * 1e200).all()
        assert np.isposinf(kc.rows((big, big, np.ones((1, 1, 1))), [0])).all()
        assert not kc.rows((small, small, np.ones((1, 1, 1))), [0]).any()
        assert np.isposinf(kc.kron_matmul((big, big), np.ones(4))).all()
        assert not kc.kron_matmul((small, small), np.ones(4)).any()


def test_level_factors_are_used_as_they_are():
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64", "complex64", "float16"):
        factors = [normal(rng, (2, 4, 5), dtype) for _ in range(6)]
        assert scale.level(factors, None) == (factors, None)
        assert scale.level_and_carry(factors, None) == (factors, None, 0)
    # Long batches of level kets are level, though their sums of squares are not.
    kets = [np.full((30000, 2, 4), 100.0, "f4") for _ in range(6)]
    assert prod(float(np.vdot(ket, ket)) for ket in kets) > 2.0**96
    assert scale.is_level(kets, -1)
    assert not scale.is_level([100 * ket for ket in kets], -1)
    assert linalg.closed_forms.single(kc.KroneckerMatrix([np.eye(2), np.eye(3)]), "solve")[1][0].max() == 1.0


@settings(max_examples=200)
@given(data=st.data())
def test_shifts_add_up_and_level(data):
    order = data.draw(st.integers(1, 8))
    dtype = data.draw(st.sampled_from(("f4", "f8", "c8", "c16")))
    top = {"f4": 100, "c8": 100, "f8": 900, "c16": 900}[dtype]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    sizes = rng.integers(-top, top, (order, 3, 1, 1))
    factors = [times_power(normal(rng, (3, 2, 2), dtype), size) for size in sizes]
    carry = data.draw(st.sampled_from((0, 0, 37, -5)))
    with np.errstate(all="ignore"):
        found, shifts = scale.level(factors, None, carry)
    if shifts is None:
        assert not carry or order == 1
        return
    assert all(s.shape == (3, 1, 1) for s in shifts)
    assert (sum(shifts) == -carry).all()
    # The logarithms of the norms before, and what was added to them.
    moderate = map(times_power, factors, -sizes)
    norms = np.log2([np.abs(factor).max(axis=(1, 2)) for factor in moderate])
    norms = norms + (sizes + np.array(shifts))[:, :, 0, 0]
    # The last leaf takes what rounding leaves of the others.
    assert order == 1 or (np.ptp(norms[:-1], axis=0) <= 3).all()
    assert (np.ptp(norms, axis=0) <= 3 + order / 2).all()
    for factor, level, shift in zip(factors, found, shifts, strict=True):
        assert np.array_equal(level, times_power(factor, shift.astype(int)))


@quiet
def test_leaves_that_fill_one_array_are_level_together():
    packed = np.ones((50, 2, 12), "f4")
    leaves = [packed[..., start : start + 4] for start in (0, 4, 8)]
    assert scale._lie_level(leaves)
    packed[7, 1] *= np.repeat([1e20, 1e20, 1e-20], 4).astype("f4")
    assert not scale._lie_level(leaves)
    assert scale.level(leaves, -1)[1] is not None
    packed[7, 1] = np.nan
    assert not scale._lie_level(leaves)
    # Of a long array few kets are read, and arrays of their own are looked at one by one.
    assert not scale._lie_level([leaf[:2] for leaf in leaves])
    assert not scale._lie_level([leaf.copy() for leaf in leaves])
