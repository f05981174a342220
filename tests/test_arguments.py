"""Arguments of the wrong kind: the error names the argument, the rule and the value."""

import numpy as np
import pytest

import ketcore as kc

LEAVES = np.ones((3, 1, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kc.Ket.random(5), TypeError, "dims must be a sequence of ints, got 5"),
        (lambda: kc.Ket.random((-1, 3)), ValueError, r"dims must be at least one int >= 1, got \(-1, 3\)"),
        (lambda: kc.Ket.random((2,), batch_shape=3), TypeError, "batch_shape must be a sequence, got int"),
        (
            lambda: kc.Ket.random((2,), batch_shape=(-3,)),
            ValueError,
            "batch_shape must be at least 0, got -3",
        ),
        (lambda: kc.Ket.random((2,), rank=1.5), TypeError, "rank must be an int, got 1.5"),
        (lambda: kc.Ket.random((2,), std="a"), TypeError, "std must be a real number, got 'a'"),
        (lambda: kc.Ket.random((2,), std=np.inf), ValueError, "std must be at least 0 and finite, got inf"),
        (lambda: kc.Ket.random((2,), std=10**400), ValueError, "std must be at most .*, got a number"),
        (lambda: kc.Ket.from_packed(LEAVES, 5), TypeError, "dims must be a sequence of ints, got 5"),
        (lambda: kc.KroneckerMatrix.random((3.0, 3), order=1), TypeError, "shape must be a sequence of ints"),
        (
            lambda: kc.KroneckerMatrix.random((3,), order=1),
            ValueError,
            r"shape must be two ints .* got \(3,\)",
        ),
        (lambda: kc.KroneckerMatrix.random((3, 3), order=0), ValueError, "order must be at least 1, got 0"),
        (
            lambda: kc.KroneckerMatrix.random((3, 3), row_dims=5),
            TypeError,
            "row_dims must be a sequence of ints",
        ),
        (lambda: kc.KroneckerMatrix.from_terms(None), TypeError, "terms must be a sequence, got NoneType"),
        (lambda: kc.eye(-1), ValueError, r"dims must be at least one int >= 1, got \(-1,\)"),
        (lambda: kc.eye(2.5), TypeError, "dims must be a sequence of ints, got 2.5"),
        (lambda: kc.eye(2, "int64"), TypeError, "dtype must be floating or complex, got int64"),
        (lambda: kc.eye(2, "float33"), TypeError, "dtype must be floating or complex, got 'float33'"),
        (lambda: kc.eye(2, like=3), TypeError, "like must be an array, got int"),
        (lambda: kc.ket_inner(None, [LEAVES]), TypeError, "v must be a sequence, got NoneType"),
        (lambda: kc.ket_rows(LEAVES, [0], (2, 2), eps="a"), TypeError, "eps must be a real number, got 'a'"),
        (
            lambda: kc.ket_rows(LEAVES, [0], (2, 2), eps=-1.0),
            ValueError,
            "eps must be at least 0 and finite, got",
        ),
        (lambda: kc.rows_jvp([LEAVES], [0], None), TypeError, "tangents must be a sequence, got NoneType"),
        (
            lambda: kc.row_kets_vjp([LEAVES], [0], None),
            TypeError,
            "cotangents must be a sequence, got NoneType",
        ),
        (lambda: kc.rows([LEAVES], [0], (True, 2)), ValueError, r"shape must be two ints .* got \(True, 2\)"),
        (lambda: kc.rows([LEAVES], [[0], [0, 1]]), ValueError, "ids must be integers .* got ragged lists"),
        (lambda: kc.gather_kron([LEAVES], [[0]], columns=True), ValueError, "columns must be an int in"),
        (
            lambda: kc.ket([1.0]).to_dense(max_bytes=None),
            TypeError,
            "max_bytes must be a number of bytes, got None",
        ),
        (lambda: kc.suggest_dims(2.5, 1), TypeError, "n must be an int, got 2.5"),
        (lambda: kc.suggest_dims(0, 1), ValueError, "n must be at least 1, got 0"),
    ],
)
def test_message(call, error, message):
    with pytest.raises(error, match=message):
        call()
