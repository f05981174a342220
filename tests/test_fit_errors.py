"""Every mistake that a fit refuses, with the text that it gives."""

import re

import numpy as np
import pytest
import scipy.sparse.linalg

import ketcore as kc
from ketcore.fit import sources

A = np.arange(24.0).reshape(4, 6)
KET = kc.Ket([np.ones((2, 3)), np.ones((2, 2))])
KETS = kc.Ket.random((2, 3), batch_shape=(4,), rng=0)

MISTAKES = [
    (((2, 2), (2, 3)), {}, ValueError, "rank or tol must be given, got None for both"),
    (((2, 2), (2, 3), 0), {}, ValueError, "rank must be at least 1, got 0"),
    (((2, 2), (2, 3), 1.5), {}, TypeError, "rank must be an int, got 1.5"),
    (((2, 2), (2, 3)), {"tol": -0.1}, ValueError, "tol must be at least 0 and finite, got -0.1"),
    (((2, 2), (2, 3)), {"tol": "1"}, TypeError, "tol must be a real number, got '1'"),
    (((2, 2), (2, 3), 1), {"restarts": -1}, ValueError, "restarts must be at least 0, got -1"),
    (((2, 2), (2, 3), 1), {"iterations": 0}, ValueError, "iterations must be at least 1, got 0"),
    (((2, 2), (2, 3), 1), {"gain": -1}, ValueError, "gain must be at least 0 and finite, got -1"),
    (
        ((2, 2), (2, 3), 1),
        {"rng": "a"},
        TypeError,
        "rng must be None, a seed >= 0 or a Generator, got 'a'",
    ),
    (
        ((2, 2), (2, 3), 1),
        {"rng": -1},
        ValueError,
        "rng must be None, a seed >= 0 or a Generator, got -1",
    ),
    (((2, 2), (2, 3), 1), {"callback": 3}, TypeError, "callback must be callable, got int"),
    (((2, 0), (2, 3), 1), {}, ValueError, "row_dims must be at least one int >= 1, got (2, 0)"),
    ((4, (2, 3), 1), {}, TypeError, "row_dims must be a sequence of ints, got 4"),
    (((3,), (2, 3), 1), {}, ValueError, "row_dims and col_dims must have one length, got (3,) and (2, 3)"),
    (((3, 1), (2, 3), 1), {}, ValueError, "row_dims must have a product of at least 4, got (3, 1)"),
    (((2, 2), (2, 2), 1), {}, ValueError, "col_dims must have a product of at least 6, got (2, 2)"),
    (((2, 2), (2, 3), 1), {"weights": np.ones(3)}, ValueError, "weights must have shape (4,), got (3,)"),
    (((2, 2), (2, 3), 1), {"weights": ["a"] * 4}, TypeError, "weights must be real numbers, got <U1"),
    (
        ((2, 2), (2, 3), 1),
        {"weights": [1, -1, 0, 0]},
        ValueError,
        "weights must be finite, at least 0 and not all 0, got values from -1.0 to 1.0",
    ),
    (
        ((2, 2), (2, 3), 1),
        {"weights": np.zeros(4)},
        ValueError,
        "weights must be finite, at least 0 and not all 0, got values from 0.0 to 0.0",
    ),
    (
        ((2, 2), (2, 3), 1),
        {"weights": [1, np.nan, 0, 0]},
        ValueError,
        "weights must be finite, at least 0 and not all 0, got values from nan to nan",
    ),
]


def raises(error, text):
    return pytest.raises(error, match=f"^{re.escape(text)}$")


@pytest.mark.parametrize(("args", "options", "error", "text"), MISTAKES)
def test_arguments_of_nearest_kronecker(args, options, error, text):
    with raises(error, text):
        kc.nearest_kronecker(A, *args, **options)


@pytest.mark.parametrize(
    ("matrix", "error", "text"),
    [
        (A.astype("<U3"), TypeError, "A must have a numeric dtype, got <U3"),
        (A[0], ValueError, "A must be a matrix of at least one row and one column, got shape (6,)"),
        (A[:0], ValueError, "A must be a matrix of at least one row and one column, got shape (0, 6)"),
        ([[1.0], [1.0, 2.0]], ValueError, "A must be arrays or regular nested lists, got ragged lists"),
        (3, TypeError, "A must be an array, a linear operator or sliceable by rows, got int"),
        (KETS, TypeError, "A must be dense, got Ket (see to_dense)"),
        (KET, ValueError, "A must be a matrix of at least one row and one column, got shape (6,)"),
    ],
)
def test_what_is_no_matrix(matrix, error, text):
    for fit in (
        lambda: kc.nearest_kronecker(matrix, (2, 2), (2, 3), 1),
        lambda: kc.from_dense(matrix, rank=1),
    ):
        with raises(error, text):
            fit()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity(value):
    bad = A.copy()
    bad[3, 5] = value
    for dims in (((2, 2), (2, 3)), ((2, 2, 1), (2, 3, 1)), ((4,), (6,))):
        # Every row that an operator gives is a product with all of its rows.
        operator, order = scipy.sparse.linalg.aslinearoperator(bad), [2, 0, 3, 1]
        for matrix, got in ((bad, f"{value} in row 3"), (operator, "NaN or infinity")):
            for permutation in (None, order):
                with raises(ValueError, f"A must hold finite values, got {got}"):
                    kc.nearest_kronecker(matrix, *dims, 1, permutation=permutation)
    for x in (kc.KroneckerMatrix([bad, A]), kc.Ket([bad, A])):
        with raises(ValueError, "x must hold finite values, got NaN or infinity"):
            kc.recompress(x, 1)


def test_arguments_of_from_dense():
    with raises(ValueError, "rank or tol must be given, got None for both"):
        kc.from_dense(A)
    with raises(ValueError, "row_dims must be 2 ints, as order is, got (2, 2, 1)"):
        kc.from_dense(A, rank=1, row_dims=(2, 2, 1))
    with raises(ValueError, "col_dims must be 3 ints, as order is, got (2, 3)"):
        kc.from_dense(A, 3, 1, col_dims=(2, 3))
    with raises(ValueError, "order must be at least 1, got 0"):
        kc.from_dense(A, 0, 1)


def test_arguments_of_recompress():
    with raises(ValueError, "rank or tol must be given, got None for both"):
        kc.recompress(KET)
    with raises(TypeError, "x must be a Ket or a KroneckerMatrix, got ndarray"):
        kc.recompress(A, 1)
    with raises(ValueError, "rank must be at least 1, got 0"):
        kc.recompress(KET, 0)


def test_a_linear_operator_without_an_adjoint_is_refused():
    operator = scipy.sparse.linalg.LinearOperator((4, 6), matvec=lambda x: A @ x, dtype=float)
    with raises(TypeError, f"A must have an adjoint, got a {type(operator).__name__} without rmatvec"):
        kc.nearest_kronecker(operator, (2, 2), (2, 3), 1)


def test_rows_are_read_in_the_accumulation_dtype():
    rows = sources.open_rows(A.astype("float16"))
    assert rows.read(1, 3).dtype == np.float32
    assert rows.dtype == np.float16
