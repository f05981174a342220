"""What linalg refuses, and the text that names the way out."""

import inspect
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg
from ketcore.linalg import closed_forms

OPERATOR = r"scipy.sparse.linalg.{}\(A.as_linear_operator\(\)\)".format
LSQR = r"scipy.sparse.linalg.lsqr\(A.as_linear_operator\(\), b\)"
EIGENVALUES = r"the eigenvalues of A.to_dense\(\)"
# Every function of one matrix, with the way out for a sum of products and that for a Kronecker sum; None
# where it has a closed form.
FUNCTIONS = {
    "solve": (lambda a: linalg.solve(a, np.ones(a.shape[0])), "ketcore.linalg.cg", None),
    "inv": (linalg.inv, "ketcore.linalg.cg", "ketcore.linalg.solve"),
    "lstsq": (lambda a: linalg.lstsq(a, np.ones(a.shape[0])), LSQR, LSQR),
    "pinv": (linalg.pinv, LSQR, "ketcore.linalg.eigh"),
    "det": (linalg.det, EIGENVALUES, None),
    "slogdet": (linalg.slogdet, EIGENVALUES, None),
    "eigh": (linalg.eigh, OPERATOR("eigsh"), None),
    "eigvalsh": (linalg.eigvalsh, OPERATOR("eigsh"), None),
    "eig": (linalg.eig, OPERATOR("eigs"), None),
    "eigvals": (linalg.eigvals, OPERATOR("eigs"), None),
    "svd": (linalg.svd, OPERATOR("svds"), OPERATOR("svds")),
    "svdvals": (linalg.svdvals, OPERATOR("svds"), OPERATOR("svds")),
    "qr": (linalg.qr, r"ketcore.recompress\(A, rank=1\)", "ketcore.linalg.eigh"),
    "cholesky": (linalg.cholesky, r"ketcore.recompress\(A, rank=1\)", "ketcore.linalg.eigh"),
    "matrix_power": (partial(linalg.matrix_power, n=-1), "products A @ A", r"products of A.to_kronecker\(\)"),
    "sqrtm": (linalg.sqrtm, r"ketcore.recompress\(A, rank=1\)", "ketcore.linalg.eigh"),
    "expm": (linalg.expm, r"scipy.sparse.linalg.expm_multiply\(A.as_linear_operator\(\), b\)", None),
    "gaussian_log_likelihood": (
        lambda a: linalg.gaussian_log_likelihood(a, np.ones(a.shape[0])),
        "ketcore.linalg.cg",
        "ketcore.linalg.solve and slogdet",
    ),
    "norm": (partial(linalg.norm, ord="nuc"), OPERATOR("svds"), OPERATOR("svds")),
    "cond": (linalg.cond, OPERATOR("svds"), OPERATOR("svds")),
    "matrix_rank": (linalg.matrix_rank, OPERATOR("svds"), OPERATOR("svds")),
}
KET, UPPER = kc.ket([1.0, 2.0], [1.0, 2.0]), np.triu(np.ones((2, 2)))
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def test_every_function_is_listed():
    public = {name for name in linalg.__all__ if inspect.isfunction(getattr(linalg, name))}
    assert public == {*FUNCTIONS, "cg", "gaussian_posterior"}


@each_function
def test_sums_of_products(name):
    function, way, _ = FUNCTIONS[name]
    ranks = "rank 1 or 2" if name in ("solve", "det", "slogdet", "gaussian_log_likelihood") else "rank 1"
    a = kc.eye((2, 2)) + kc.eye((2, 2)) + kc.eye((2, 2))
    text = rf"^A must have {ranks} for {name}, or go through {way}, got rank 3$"
    with pytest.raises(TypeError, match=text):
        function(a)


@each_function
def test_cropped_products(name):
    function, way, _ = FUNCTIONS[name]
    a = kc.KroneckerMatrix([np.eye(2), np.eye(2)], (3, 3))
    text = rf"^A must not be cropped for {name}, or go through {way}, got shape \(3, 3\) of \(4, 4\)$"
    with pytest.raises(ValueError, match=text):
        function(a)


@each_function
def test_kronecker_sums(name):
    function, _, way = FUNCTIONS[name]
    a = kc.KroneckerSum([np.eye(2), np.eye(2)])
    if way is None:
        function(a)
        return
    with pytest.raises(
        TypeError, match=f"^A must be a KroneckerMatrix for {name}, or go through {way}, got a Kron"
    ):
        function(a)


@each_function
def test_dense_arrays(name):
    text = f"^A must be a KroneckerMatrix or a KroneckerSum for {name}, got ndarray$"
    with pytest.raises(TypeError, match=text):
        FUNCTIONS[name][0](np.eye(2))


@each_function
def test_values_that_are_not_finite(name):
    a = kc.KroneckerMatrix([np.eye(2), np.full((2, 2), np.nan)])
    with pytest.raises(
        np.linalg.LinAlgError, match=f"^A must be finite for {name}, got NaN or infinity in factor 1$"
    ):
        FUNCTIONS[name][0](a)
    if FUNCTIONS[name][2] is None:
        with pytest.raises(
            np.linalg.LinAlgError, match=r"^A must be finite for .*, got NaN or infinity in factor 0$"
        ):
            FUNCTIONS[name][0](kc.KroneckerSum([np.full((2, 2), np.inf), np.eye(2)]))


@pytest.mark.parametrize(
    "name",
    [
        "solve",
        "inv",
        "det",
        "slogdet",
        "eigh",
        "eigvalsh",
        "eig",
        "eigvals",
        "cholesky",
        "matrix_power",
        "sqrtm",
    ],
)
def test_matrices_that_are_not_square(name):
    a = kc.KroneckerMatrix([np.ones((2, 3)), np.eye(2)])
    with pytest.raises(np.linalg.LinAlgError, match=rf"^A must be square for {name}, got shape \(4, 6\)$"):
        FUNCTIONS[name][0](a)


@pytest.mark.parametrize("name", ["eigh", "eigvalsh", "eig", "eigvals", "cholesky", "sqrtm"])
def test_factors_that_are_not_square(name):
    a = kc.KroneckerMatrix([np.ones((2, 3)), np.ones((3, 2))])
    text = rf"^A must have square factors for {name}, got shapes \[\(2, 3\), \(3, 2\)\]$"
    with pytest.raises(TypeError, match=text):
        FUNCTIONS[name][0](a)


@pytest.mark.parametrize("name", ["solve", "inv", "matrix_power"])
def test_inverses_of_factors_that_are_not_square(name):
    a = kc.KroneckerMatrix([np.eye(1), np.ones((2, 3)), np.ones((3, 2))])
    with pytest.raises(
        np.linalg.LinAlgError, match=r"^A must be invertible, got factor 1 of shape \(2, 3\)$"
    ):
        FUNCTIONS[name][0](a)


def test_a_shift_needs_square_factors_but_does_not_make_their_product_singular():
    a = kc.KroneckerMatrix([np.ones((2, 3)), np.ones((3, 2))])
    for name, call in (
        ("solve", lambda: linalg.solve(a, np.ones(6), 0.5)),
        ("slogdet", lambda: linalg.slogdet(a, 0.5)),
    ):
        text = rf"^A must have square factors for {name} with a shift, got shapes \[\(2, 3\), \(3, 2\)\]$"
        with pytest.raises(TypeError, match=text):
            call()


@pytest.mark.parametrize("name", ["eigh", "eigvalsh", "cholesky"])
def test_factors_that_are_not_hermitian(name):
    upper = np.array([[1.0, 1.0], [0.0, 2.0]])
    with pytest.raises(
        np.linalg.LinAlgError, match=f"^A must be Hermitian for {name}, got factor 1 that is not$"
    ):
        FUNCTIONS[name][0](kc.KroneckerMatrix([np.eye(2), upper]))
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    text = f"^A must be Hermitian for {name}, got factors whose phases multiply to "
    with pytest.raises(np.linalg.LinAlgError, match=text):
        FUNCTIONS[name][0](kc.KroneckerMatrix([np.eye(2), rotation]))


@pytest.mark.parametrize(
    ("error", "call", "text"),
    [
        (
            ValueError,
            lambda a: linalg.solve(a, np.ones(3)),
            r"b must have shape \(4,\), \(..., 4, n\) or \(..., 2, 2\), got \(3,\)",
        ),
        (ValueError, lambda a: linalg.solve(a, np.float64(1)), r"b must have shape \(4,\), .*, got \(\)"),
        (TypeError, lambda a: linalg.solve(a, ["a"] * 4), "b must have a numeric dtype, got <U1"),
        (TypeError, lambda a: linalg.solve(a, np.ones(4), [1.0]), "shift must be a number, got list"),
        (TypeError, lambda a: linalg.slogdet(a, "x"), "shift must be a number, got str"),
        (TypeError, lambda a: linalg.solve(a, KET, 1.0), "b must be dense where there is a shift, got a Ket"),
        (
            ValueError,
            lambda a: linalg.solve(a, kc.ket([1.0] * 4)),
            r"b must have row dims \(2, 2\) and all their rows, got \(4,\) of shape \(4,\)",
        ),
        (
            ValueError,
            lambda a: linalg.solve(a, kc.KroneckerMatrix(a.factors, (3, 4))),
            r"b must have row dims \(2, 2\) and all their rows, got \(2, 2\) of shape \(3, 4\)",
        ),
        (ValueError, lambda a: linalg.pinv(a, rtol=-1.0), "rtol must be at least 0, got -1.0"),
        (ValueError, lambda a: linalg.pinv(a, atol=np.nan), "atol must be at least 0, got nan"),
        (ValueError, lambda a: linalg.pinv(a, rtol=Fraction(10**400)), "rtol must be at most"),
        (ValueError, lambda a: linalg.lstsq(a, np.ones(4), cond=-1.0), "cond must be at least 0, got -1.0"),
        (TypeError, lambda a: linalg.pinv(a, rtol="a"), "rtol must be a real number, got 'a'"),
        (TypeError, lambda a: linalg.pinv(a, atol="a"), "atol must be a real number, got 'a'"),
        (
            TypeError,
            lambda a: linalg.lstsq(a, np.ones(4), cond=np.ones(2)),
            "cond must be a real number, got",
        ),
        (TypeError, lambda a: linalg.matrix_rank(a, "a"), "tol must be a real number, got 'a'"),
        (
            ValueError,
            lambda a: linalg.norm(a, np.ones(2)),
            "ord must be one of .*, got a ndarray of shape",
        ),
        (ValueError, lambda a: linalg.cond(a, [1]), r"p must be one of None, fro, .*, got \[1\]"),
        (ValueError, lambda a: linalg.slogdet(a, np.nan), "shift must be finite, got nan"),
        (ValueError, lambda a: linalg.solve(a, np.ones(4), np.inf), "shift must be finite, got inf"),
        (
            ValueError,
            lambda a: linalg.matrix_power(a + a @ a, 17),
            "n must give a power of at most 65536 terms, or go through ketcore.recompress, got 2..17",
        ),
        (TypeError, lambda a: linalg.matrix_power(a, 0.5), "n must be an int, got 0.5"),
        (
            ValueError,
            lambda a: linalg.solve(a, np.ones(4), -1.0),
            "shift must not be minus an eigenvalue of the matrix, got -1.0",
        ),
        (
            TypeError,
            lambda a: linalg.norm(kc.KroneckerSum([UPPER]), 2),
            "A must have Hermitian factors for norm, or go through scipy.*, got a KroneckerSum with others",
        ),
        (
            ValueError,
            lambda a: linalg.eigh(kc.KroneckerSum([UPPER])),
            "A must have Hermitian factors for eigh, or go through ketcore.linalg.eig, got a Kron",
        ),
        (
            TypeError,
            lambda a: linalg.slogdet(kc.KroneckerMatrix([np.ones((2, 3)), np.ones((3, 2))]), 1.0),
            r"A must have square factors for slogdet with a shift, got shapes \[\(2, 3\), \(3, 2\)\]",
        ),
    ],
)
def test_arguments(error, call, text):
    with pytest.raises(error, match=text):
        call(kc.eye((2, 2)))


def test_a_library_that_answers_with_nan_is_told_from_one_that_raises():
    # As CuPy does where a factor is singular.
    with pytest.raises(np.linalg.LinAlgError, match=r"^factor 1 of A$"):
        closed_forms.factor_wise(
            np, lambda matrix: 1 / matrix, [np.eye(1), np.full((1, 1), np.nan)], "factor {n} of A"
        )
    with pytest.raises(RuntimeError, match="out of memory"):
        closed_forms.factor_wise(np, out_of_memory, [np.eye(1)], "factor {n} of A")


def out_of_memory(matrix):
    raise RuntimeError("out of memory")


def test_mixed_libraries():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="A and b must be arrays of one library, got numpy, torch"):
        linalg.solve(kc.eye((2, 2)), torch.ones(4))
    with pytest.raises(TypeError, match="A and b must be arrays of one library, got numpy, torch"):
        linalg.lstsq(kc.eye((2, 2)), torch.ones(4))
    with pytest.raises(TypeError, match="A and shift must be arrays of one library, got numpy, torch"):
        linalg.solve(kc.eye((2, 2)), np.ones(4), torch.ones(()))


def test_ints_that_no_float_holds_are_refused():
    a, huge = kc.KroneckerMatrix([np.eye(2), np.eye(2)]), 10**400
    calls = {
        "scalar": (lambda: a * huge, lambda: a / huge, lambda: kc.ket([1.0], [2.0]) * huge),
        "shift": (lambda: linalg.solve(a, np.ones(4), shift=huge), lambda: linalg.slogdet(a, -huge)),
        "rtol": (lambda: linalg.pinv(a, rtol=huge),),
        "tol": (lambda: linalg.matrix_rank(a, huge),),
    }
    for name, attempts in calls.items():
        rule = rf"^{name} must be at most 1.79\S+, got an int of 1329 bits"
        for call in attempts:
            with pytest.raises(ValueError, match=rule):
                call()
