"""The texts of the errors of the operations on square factors."""

import numpy as np
import pytest

import ketcore as kc

SQUARE = (np.eye(2)[None], 2 * np.eye(3)[None])
WRONG = [
    (
        lambda: kc.kron_solve(SQUARE, np.ones(5)),
        ValueError,
        r"b must have 6 entries along axis -1, got shape \(5,\)",
    ),
    (
        lambda: kc.kron_solve(SQUARE, np.ones(6), axis=-2),
        ValueError,
        r"b must have 6 .* axis -2, got shape \(6,\)",
    ),
    (lambda: kc.kron_solve(SQUARE, np.ones(6), axis=0), ValueError, r"axis must be -1 or -2, got 0"),
    (
        lambda: kc.kron_solve(SQUARE, np.ones(6, "<U1")),
        TypeError,
        r"b must have a numeric dtype, got <U1",
    ),
    (
        lambda: kc.kron_solve(SQUARE, np.ones(6), [1.0]),
        ValueError,
        r"shift must be one number, got shape \(1,\)",
    ),
    (
        lambda: kc.kron_solve(SQUARE, np.ones(6), "a"),
        TypeError,
        r"shift must have a numeric dtype, got <U1",
    ),
    (
        lambda: kc.kron_solve_vjp(SQUARE, np.ones(6), None, np.ones(5)),
        ValueError,
        r"cotangent must have shape \(6,\), got \(5,\)",
    ),
    (
        lambda: kc.kron_solve_jvp(SQUARE, np.ones(6), None, SQUARE[:1], np.ones(6), None),
        ValueError,
        r"factor_tangents must hold 2 arrays, one per primal, got 1",
    ),
    (
        lambda: kc.kron_slogdet_vjp(SQUARE, None, np.ones(())),
        ValueError,
        r"cotangents must be two arrays, of sign and logabsdet, got ndarray",
    ),
    (
        lambda: kc.kron_slogdet_vjp(SQUARE, None, (np.ones(()), np.ones(2))),
        ValueError,
        r"cotangents must have shape \(\), got \(2,\)",
    ),
    (
        lambda: kc.kron_trace(SQUARE, (7, 6)),
        ValueError,
        r"shape must be two ints from \(1, 1\) to \(6, 6\), got",
    ),
    (
        lambda: kc.kron_inner(SQUARE, SQUARE[::-1]),
        ValueError,
        r"a and b must have factors of the same shapes, got \[\(2, 2\), \(3, 3\)\] and",
    ),
    (
        lambda: kc.ket_sandwich((np.ones((1, 2)),) * 2, SQUARE, (np.ones((1, 2)), np.ones((1, 3)))),
        ValueError,
        r"v must have the dims \(2, 3\) of the factors, got \(2, 2\)",
    ),
    (
        lambda: kc.ket_sandwich((np.ones((3, 1, 2)), np.ones((3, 2, 3))), SQUARE, ()),
        ValueError,
        r"w must hold at least one array, got none",
    ),
    (
        lambda: kc.ket_sandwich(
            [np.ones((3, 1, 2)), np.ones((3, 1, 3))], SQUARE, [np.ones((2, 1, 2)), np.ones((2, 1, 3))]
        ),
        ValueError,
        r"v and w must have batches that broadcast, got \(3,\) and \(2,\)",
    ),
    (
        lambda: kc.ket_sandwich(
            [np.ones((3, 1, 2)), np.ones((2, 1, 3))], SQUARE, [np.ones((1, 2)), np.ones((1, 3))]
        ),
        ValueError,
        r"v must be arrays \(\.\.\., rank, dim\) of one batch and rank, got shapes",
    ),
    (
        lambda: kc.kron_sandwich(np.ones(6), SQUARE, np.ones(5)),
        ValueError,
        r"y must have 6 entries along its last axis, got shape \(5,\)",
    ),
    (
        lambda: kc.kron_sandwich(np.ones((3, 6)), SQUARE, np.ones((2, 6))),
        ValueError,
        r"x and y must have batches that broadcast, got \(3,\) and \(2,\)",
    ),
    (
        lambda: kc.kron_norm_vjp(SQUARE, np.ones((), complex)),
        TypeError,
        r"cotangent must be real as the primals are, got complex128",
    ),
    (
        lambda: kc.kron_log_likelihood(SQUARE, np.ones(5), 1.0),
        ValueError,
        r"y must have 6 entries along its last axis, got shape \(5,\)",
    ),
    (
        lambda: kc.kron_log_likelihood(SQUARE, np.ones(6), None),
        TypeError,
        r"shift must be a real number, got None",
    ),
    (
        lambda: kc.kron_log_likelihood(SQUARE, np.ones(6), 1j),
        TypeError,
        r"shift must be real for a covariance, got complex128",
    ),
    (
        lambda: kc.kron_log_likelihood((np.array([[[1.0, 2.0], [0.0, 1.0]]]),), np.ones(2), 1.0),
        np.linalg.LinAlgError,
        r"factors must be Hermitian, got factor 0 that is not",
    ),
    (
        lambda: kc.kron_log_likelihood(SQUARE, np.ones(6), -3.0),
        np.linalg.LinAlgError,
        r"shift must make the matrix positive definite, got -3.0: least eigenvalue -1",
    ),
]


@pytest.mark.parametrize(("call", "error", "text"), WRONG, ids=[text[:40] for _, _, text in WRONG])
def test_error_texts(call, error, text):
    with pytest.raises(error, match=text):
        call()
