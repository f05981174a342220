"""Objects of arrays of CuPy give what those of NumPy's give; what needs cuSOLVER is not among it."""

import cupy
import numpy as np
import pytest

import ketcore as kc

IDS = np.array([0, 5, 3, 5])


def normal(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def matrix(xp):
    return kc.KroneckerMatrix([xp.asarray(normal(2, 3, 4)), xp.asarray(normal(2, 2, 3))])


def square(xp):
    return kc.KroneckerMatrix([xp.asarray(normal(2, 3, 3)), xp.asarray(normal(2, 2, 2))])


def kets(xp):
    return kc.Ket.from_packed(xp.asarray(normal(5, 2, 7)), (3, 4))


CALLS = {
    "rows": lambda xp: matrix(xp).rows(xp.asarray(IDS)),
    "rows by brackets": lambda xp: matrix(xp)[xp.asarray(IDS)],
    "a block": lambda xp: matrix(xp)[1:4, 2:5],
    "dense": lambda xp: matrix(xp).to_dense(),
    "columns": lambda xp: matrix(xp).T.rows(xp.asarray(IDS)),
    "a product": lambda xp: matrix(xp) @ xp.asarray(normal(12, 3)),
    "a sum": lambda xp: (2 * square(xp) + square(xp)).to_dense(),
    "a diagonal": lambda xp: square(xp).diagonal(),
    "a trace": lambda xp: square(xp).trace(),
    "a partial trace": lambda xp: kc.partial_trace(square(xp), [0]).to_dense(),
    "a ket": lambda xp: kets(xp)[1].to_dense(),
    "all kets": lambda xp: kets(xp).conj().to_dense(),
    "inner products": lambda xp: kets(xp).inner(kets(xp)),
    "norms": lambda xp: kets(xp).norm(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_values(call):
    found, expected = call(cupy), call(np)
    assert isinstance(found, cupy.ndarray)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.get(), expected, rtol=1e-4, atol=1e-5)
