"""Rows and gradients on arrays of CuPy are those of NumPy."""

import numpy as np
import pytest

from tests.cupy_host.problems import problems

TOLERANCES = {"float32": 1e-5, "float64": 1e-13, "float16": 4e-3}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("call", ["forward", "backward"])
def test_values(dtype, call):
    given, expected = problems(dtype), problems(dtype, np.array)
    for name, problem in given.items():
        check(getattr(problem, call)(), getattr(expected[name], call)(), TOLERANCES[dtype])


def check(found, expected, tolerance):
    if not isinstance(expected, tuple):
        found, expected = (found,), (expected,)
    for one, right in zip(found, expected, strict=True):
        assert one.dtype == right.dtype
        scale = np.abs(right).max()
        np.testing.assert_allclose(one.get() / scale, right / scale, atol=tolerance)
