"""The table of operations is true: adapters, tests and pages read it instead of signatures."""

from inspect import Parameter, signature

import numpy as np
import pytest
from hypothesis import given

from ketcore.ops import OPS
from tests.problems import problems

every_op = pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])

# Options that change no value; a dense definition need not have them.
OF_THE_COMPUTATION = {"check", "max_bytes"}


def names(function):
    return tuple(signature(function).parameters)


def arguments(op):
    return (*(primal.name for primal in op.primals if not primal.keyword), *op.constants)


def named(op):
    return tuple(primal.name for primal in op.primals if primal.keyword)


def cotangent(op):
    return "cotangents" if len(op.outputs) > 1 or op.outputs[0].several else "cotangent"


def tangents(op):
    """One per primal, and named after it where there are more than one."""
    primals = [primal for primal in op.primals if not primal.keyword]
    words = ["tangents" if primal.several else "tangent" for primal in primals]
    if len(words) == 1:
        return tuple(words)
    return tuple(f"{p.name.removesuffix('s')}_{word}" for p, word in zip(primals, words, strict=True))


@every_op
def test_signatures_are_those_of_the_table(op):
    assert without(op, op.forward) == (*arguments(op), *op.options, *op.forward_options)
    assert without(op, op.vjp) == (*arguments(op), cotangent(op), *op.options, *op.vjp_options)
    assert without(op, op.jvp) == (*arguments(op), *tangents(op), *op.options)
    in_dense = without(op, op.dense)
    assert in_dense == (*arguments(op), *(option for option in op.options if option in in_dense))
    assert set(op.options) - set(in_dense) <= OF_THE_COMPUTATION


def without(op, function):
    """The names of the arguments but for the primals that are given by keyword, and their tangents."""
    more = [*named(op), *(f"{name}_tangent" for name in named(op) if function is op.jvp)]
    parameters = signature(function).parameters
    for name in more:
        assert parameters[name].kind is Parameter.KEYWORD_ONLY
        assert parameters[name].default is None
    return tuple(name for name in parameters if name not in more)


@every_op
def test_optional_primals_and_the_defaults_of_options(op):
    parameters = signature(op.forward).parameters
    for primal in op.primals:
        if primal.keyword:
            assert primal.optional
            continue
        default = None if primal.optional and not op.constants else Parameter.empty
        assert parameters[primal.name].default is default
    for function in (op.vjp, op.jvp, op.dense):
        for option in set(op.options) & set(names(function)):
            assert signature(function).parameters[option].default == parameters[option].default


@every_op
def test_the_shapes_of_outputs_are_known_before_them(op):
    """Of anything that has a shape and a number of dimensions."""
    assert names(op.shapes)[: len(arguments(op))] == arguments(op)

    @given(problems(op))
    def body(problem):
        class Shaped:
            def __init__(self, array):
                self.shape, self.ndim = tuple(array.shape), array.ndim

        primals = op.unflatten([*map(Shaped, problem.arrays)], problem.counts)
        constants = () if problem.index is None else (Shaped(problem.index),)
        outputs = problem.forward(*problem.arrays)
        found = op.call(op.shapes, primals, constants, **problem.options)
        assert found == tuple(output.shape for output in outputs)

    body()


@every_op
def test_arrays_are_taken_apart_and_put_together(op):
    @given(problems(op))
    def body(problem):
        primals = op.unflatten(problem.arrays, problem.counts)
        for described, primal, count in zip(op.primals, primals, problem.counts, strict=True):
            assert (primal is None) == (count == 0)
            assert primal is not None or described.optional
            assert isinstance(primal, tuple) == described.several
        arrays, counts = op.flatten(primals)
        assert counts == problem.counts
        assert all(one is other for one, other in zip(arrays, problem.arrays, strict=True))
        outputs = problem.forward(*problem.arrays)
        returned = op.cotangent(outputs)
        assert all(one is other for one, other in zip(op.flat_outputs(returned), outputs, strict=True))
        # As they are returned, and one per primal.
        given = problem.vjp(*problem.arrays, outputs)
        assert [g.shape for g in given] == [array.shape for array in arrays]

    body()


@every_op
def test_real_arrays_among_complex_ones(op):
    """The table says which outputs and which primals are real where the factors are complex."""

    @given(problems(op, wide=True))
    def body(problem):
        kind = problem.arrays[0].dtype.kind
        described = [p for p, count in zip(op.primals, problem.counts, strict=True) for _ in range(count)]
        assert [a.dtype.kind for a in problem.arrays] == ["f" if p.real else kind for p in described]
        outputs = problem.forward(*problem.arrays)
        kinds = [np.asarray(output).dtype.kind for output in outputs]
        described = op.outputs * len(outputs) if op.outputs[0].several else op.outputs
        assert kinds == ["f" if output.real else kind for output in described]

    body()
