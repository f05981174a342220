"""Attributes of arrays, zeros and foreign objects beside objects of all kinds."""

import numpy as np
import pytest

import ketcore as kc
from ketcore import Diagonal, Identity, KroneckerProduct, Permutation


def test_the_attributes_of_arrays_and_linear_operators():
    m = KroneckerProduct([Identity(2**40), [[1.0, 2.0]], Identity(2**40)])
    assert (m.ndim, m.size, type(m.size)) == (2, 2**161, int)
    for turned in (m.transpose(), m.transpose(None), m.transpose((1, 0)), m.transpose(1, 0), m.mT):
        assert turned.shape == m.shape[::-1]
    for axes in ((0, 1), 5, "a"):
        with pytest.raises(ValueError, match=r"axes must be None or \(1, 0\), got"):
            m.transpose(axes)
    ket = kc.Ket.random((2, 3), batch_shape=(4,), rng=0)
    assert (ket.ndim, ket.size) == (2, 24)
    assert not hasattr(ket, "mT")
    with pytest.raises(TypeError, match=r"made dense by KroneckerProduct\(\[part\]\).to_dense\(max_bytes=\)"):
        np.asarray(Diagonal([1.0]))


@pytest.mark.parametrize("zero", [0, 0.0, False, 0j, np.int8(0), np.float32(0), np.array(0)])
def test_every_zero_is_that_of_every_kind(zero):
    for x in (kc.eye((2, 2)), kc.ket([1.0, 2.0]), Permutation((2,), (0,)), Diagonal([1.0]), Identity(2)):
        assert all(found is x for found in (x + zero, zero + x, x - zero))


def test_foreign_objects_are_left_to_their_own():
    """Python asks the other side, and says what it always does."""
    for x in (kc.eye((2, 2)), kc.ket([1.0, 2.0]), Permutation((2,), (0,)), Diagonal([1.0])):
        for call in (lambda x: x + None, lambda x: {} - x, lambda x: x @ "a", lambda x: x * None):
            with pytest.raises(TypeError, match="unsupported operand"):
                call(x)
