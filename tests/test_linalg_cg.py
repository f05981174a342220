"""Conjugate gradients against a dense solve: sums of products, Kronecker sums, masks, crops."""

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import linalg
from ketcore.linalg import preconditioners
from tests.linalg_problems import matrix_of, near, product_factors

TIGHT = {"rtol": 1e-12, "maxiter": 500}


def definite(factors, rank=3, seed=0):
    """A positive definite sum of products of the dims of `factors`."""
    rng = np.random.default_rng(seed)
    terms = [[matrix_of(rng, *f.shape, f.dtype, "positive") for f in factors] for _ in range(rank)]
    return kc.KroneckerMatrix.from_terms(terms)


def right_side(a, seed=1):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(a.shape[0])
    return (b + 1j * rng.standard_normal(b.shape) if np.dtype(a.dtype).kind == "c" else b).astype(a.dtype)


doubles = st.sampled_from(["float64", "complex128"]).flatmap(lambda dtype: product_factors(dtype=dtype))


@given(doubles, st.sampled_from([0.0, 0.7]))
def test_sums_of_products(factors, shift):
    a = definite(factors)
    b = right_side(a)
    x, info = linalg.cg(a, b, shift=shift, **TIGHT)
    assert info == 0
    near(x, np.linalg.solve(a.to_dense() + shift * np.eye(len(b)), b), scale=1e5, dtype=a.dtype)


@given(doubles, st.integers(0, 99), st.booleans())
def test_a_diagonal_matrix_is_added(factors, seed, masked):
    a = definite(factors)
    rng = np.random.default_rng(seed)
    mask = rng.random(a.shape[0]) < (0.6 if masked else 2.0)
    mask[0] = True
    b, shift = right_side(a), np.exp(rng.uniform(-3, 3, a.shape[0]))
    expected = np.linalg.solve((a.to_dense() + np.diag(shift))[np.ix_(mask, mask)], b[mask])
    # What is masked is not read.
    shift[~mask] = np.nan
    x, info = linalg.cg(a, b, mask=mask if masked else None, shift=shift.reshape(a.row_dims), **TIGHT)
    assert info == 0
    near(x[mask], expected, scale=1e5, dtype=a.dtype)


def test_uneven_diagonals_are_preconditioned():
    """Noise over three orders of magnitude, and an exact kernel: the deflation knows both."""
    x = np.linspace(0, 1, 20)
    a = kc.KroneckerMatrix([np.exp(-(np.subtract.outer(x, x) ** 2) / 0.02)] * 2)
    rng = np.random.default_rng(0)
    b, shift, mask = rng.standard_normal(400), np.exp(rng.uniform(-6, 1, 400)), rng.random(400) < 0.8
    for options in ({"shift": shift}, {"shift": shift, "mask": mask}):
        assert steps_of(a, b, **options) < steps_of(a, b, M=kc.eye((20, 20)), **options) / 10
    s, uneven = kc.KroneckerSum([np.diag([1.0, 2.0]), a.factors[0][0]]), np.linspace(0.1, 3.0, 40)
    x, _ = linalg.cg(s, b[:40], shift=uneven, **TIGHT)
    near(x, np.linalg.solve(s.to_dense() + np.diag(uneven), b[:40]), scale=1e3)
    p = kc.KroneckerProduct([kc.Diagonal([1.0, 2.0]), kc.Identity(2)])
    x, _ = linalg.cg(p, np.ones(4), shift=np.arange(4.0), **TIGHT)
    near(x, 1 / (p.diagonal() + np.arange(4.0)))


@given(doubles, st.integers(0, 99))
def test_masks(factors, seed):
    a = definite(factors)
    rng = np.random.default_rng(seed)
    mask = rng.random(a.shape[0]) < 0.6
    mask[0] = True
    b, full = right_side(a), a.to_dense() + 0.1 * np.eye(a.shape[0])
    expected = np.linalg.solve(full[np.ix_(mask, mask)], b[mask])
    short, info = linalg.cg(a, b[mask], mask=mask, shift=0.1, **TIGHT)
    assert info == 0
    near(short, expected, scale=1e5)
    # Of a whole right side what is masked is not read, and comes back as zero.
    b[~mask] = np.nan
    whole, info = linalg.cg(a, b, mask=mask.reshape(a.row_dims), shift=0.1, **TIGHT)
    assert info == 0
    near(whole[mask], expected, scale=1e5)
    assert not whole[~mask].any()


@given(doubles)
def test_kronecker_sums_and_products_are_solved_at_once(factors):
    positive = [matrix_of(np.random.default_rng(7), *f.shape, f.dtype, "positive") for f in factors]
    for a in (kc.KroneckerSum(positive), kc.KroneckerMatrix(positive)):
        steps = []
        b = right_side(a)
        x, info = linalg.cg(a, b, shift=0.3, callback=steps.append, rtol=1e-9)
        assert (info, len(steps)) == (0, 1)
        near(x, np.linalg.solve(a.to_dense() + 0.3 * np.eye(len(b)), b), scale=1e5, like=np.float32)


def kernel(size, length):
    points = np.linspace(0.0, 1.0, size)
    return np.exp(-0.5 * ((points[:, None] - points) / length) ** 2)


def steps_of(a, b, **options):
    steps = []
    _, info = linalg.cg(a, b, callback=steps.append, rtol=1e-8, **options)
    assert info == 0
    return len(steps)


def test_the_preconditioner_saves_iterations():
    one = kc.KroneckerMatrix([kernel(12, 0.3), kernel(15, 0.2)])
    near_it = kc.KroneckerMatrix([0.1 * kernel(12, 0.1), kernel(15, 0.4)])
    a, b = one + near_it, np.random.default_rng(0).standard_normal(180)
    none = kc.eye(a.row_dims)
    assert steps_of(a, b, shift=1e-3) < steps_of(a, b, shift=1e-3, M=none) / 2
    for density in (0.9, 0.4):
        mask = np.random.default_rng(1).random(180) < density
        assert steps_of(a, b, shift=1e-2, mask=mask) < steps_of(a, b, shift=1e-2, mask=mask, M=none) / 2


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_few_columns_of_the_spectrum_deflate_a_mask(dtype, monkeypatch):
    rng = np.random.default_rng(0)
    factors = [matrix_of(rng, n, n, dtype, "positive") for n in (6, 5, 7)]
    factors = [f @ f @ f for f in factors]
    a, mask = kc.KroneckerMatrix(factors), rng.random(210) < 0.4
    b = right_side(a)
    # With all of them the inverse is exact, with fewer it is that of what is left.
    assert steps_of(a, b, shift=0.1, mask=mask) == 1
    monkeypatch.setattr(preconditioners, "_COLUMNS", (60, 60))
    few = steps_of(a, b, shift=0.1, mask=mask)
    assert 1 < few < steps_of(a, b, shift=0.1, mask=mask, M=kc.eye(a.row_dims))
    x, _ = linalg.cg(a, b, shift=0.1, mask=mask, **TIGHT)
    full = a.to_dense() + 0.1 * np.eye(210)
    near(x[mask], np.linalg.solve(full[np.ix_(mask, mask)], b[mask]), scale=1e5)
    cropped = kc.KroneckerMatrix(factors, (100, 100))
    x, info = linalg.cg(cropped, b[:100], shift=0.1, **TIGHT)
    assert info == 0
    near(x, np.linalg.solve(full[:100, :100], b[:100]), scale=1e5)


def test_the_columns_kept_are_the_ones_that_matter(monkeypatch):
    monkeypatch.setattr(preconditioners, "_COLUMNS", (36, 36))
    a, b = kc.KroneckerMatrix([kernel(20, 0.3)] * 2), np.random.default_rng(0).standard_normal(400)
    mask = np.random.default_rng(1).random(400) < 0.5
    # What 36 of the 400 eigenvalues leave is small beside the shift.
    assert steps_of(a, b, shift=0.1, mask=mask) < 10
    assert steps_of(a, b, shift=0.1, mask=mask, M=kc.eye((20, 20))) > 40


def test_columns_are_those_of_the_largest_eigenvalues():
    assert preconditioners._counts([np.array([4.0, 3.0, 0.1]), np.array([9.0, 1.0])], 4) == [2, 2]
    assert preconditioners._counts([np.array([4.0, 3.0, 2.0]), np.array([9.0, 1.0])], 4) == [3, 1]
    assert preconditioners._counts([np.array([0.0, 0.0])], 9) == [2]


def test_options_are_those_of_scipy():
    a = definite([np.eye(3), np.eye(4)])
    b, full = right_side(a), a.to_dense()
    x, info = linalg.cg(a, b, maxiter=1, rtol=1e-14)
    assert info == 1
    exact = np.linalg.solve(full, b)
    x, info = linalg.cg(a, b, x0=exact, rtol=1e-6, maxiter=1)
    assert np.array_equal(x, exact)
    x, _ = linalg.cg(a, b, atol=1e3)
    assert np.linalg.norm(full @ x - b) <= 1e3
    inverse = scipy.sparse.linalg.aslinearoperator(np.linalg.inv(full))
    assert steps_of(a, b, M=inverse) == 1
    mask = np.arange(12) < 7
    assert steps_of(a, b, mask=mask, M=linalg.inv(kc.KroneckerMatrix([np.eye(3), np.eye(4)]))) > 1


def test_cropped_and_structured_matrices():
    whole = definite([np.eye(3), np.eye(4)])
    cropped = kc.KroneckerMatrix(whole.factors, (10, 10))
    b = right_side(cropped)
    x, info = linalg.cg(cropped, b, **TIGHT)
    assert info == 0
    near(x, np.linalg.solve(cropped.to_dense(), b), scale=1e4)
    mask = np.arange(10) % 3 > 0
    x, info = linalg.cg(cropped, b[mask], mask=mask, **TIGHT)
    near(x, np.linalg.solve(cropped.to_dense()[np.ix_(mask, mask)], b[mask]), scale=1e4)
    product = kc.KroneckerProduct(
        [kc.Diagonal([1.0, 3.0]), kc.Identity(2), np.array([[2.0, 1.0], [1.0, 3.0]])]
    )
    x, info = linalg.cg(product, np.arange(8.0), **TIGHT)
    near(x, np.linalg.solve(product.to_dense(), np.arange(8.0)), scale=1e4)
    # Square, but with factors that are not.
    wide = kc.KroneckerMatrix([[[1.0, 0.0]], [[1.0], [0.0]]])
    x, info = linalg.cg(wide, np.ones(2), shift=1.0, **TIGHT)
    near(x, np.linalg.solve(wide.to_dense() + np.eye(2), np.ones(2)), scale=1e4)
    nothing = kc.KroneckerMatrix([np.zeros((0, 2, 2)), np.zeros((0, 2, 2))])
    near(linalg.cg(nothing, np.ones(4), shift=2.0)[0], np.full(4, 0.5))


def test_precisions():
    a = definite([np.eye(3, dtype=np.float32), np.eye(4, dtype=np.float32)])
    b = right_side(a)
    x, info = linalg.cg(a, b, rtol=1e-6)
    assert (x.dtype, info) == (np.float32, 0)
    near(x, np.linalg.solve(a.to_dense().astype(float), b), scale=1e3)
    half, info = linalg.cg(a.astype("float16"), b.astype("float16"))
    assert (half.dtype, info) == (np.float16, 0)
    mixed, _ = linalg.cg(a, b * 1j)
    near(mixed, 1j * x, scale=1e4, dtype=np.complex64)


@pytest.mark.parametrize(
    ("error", "options", "text"),
    [
        (TypeError, {"A": np.eye(4)}, "A must be a KroneckerMatrix or a KroneckerSum for cg, got ndarray"),
        (
            ValueError,
            {"A": kc.KroneckerMatrix([np.ones((2, 3))])},
            r"A must be square for cg, got shape \(2, 3\)",
        ),
        (
            ValueError,
            {"A": kc.KroneckerMatrix([[[1.0, 2.0], [0.0, 1.0]]] * 2)},
            "A must be finite and Hermitian for cg",
        ),
        (
            ValueError,
            {"A": kc.KroneckerMatrix([[[1.0, 1e-6], [0.0, 1.0]]] * 2)},
            "A must be finite and Hermitian for cg",
        ),
        (
            ValueError,
            {"A": kc.eye((2, 2)) * np.nan},
            "A must be finite and Hermitian for cg, got a matrix that is not",
        ),
        (
            ValueError,
            {"A": -kc.eye((2, 2))},
            r"A \+ shift I must be positive definite for cg, got a curvature of -1",
        ),
        (TypeError, {"shift": 1j}, "shift must be a real number for cg, or 4 of them, got 1j"),
        (ValueError, {"shift": [1.0]}, r"^shift must have shape \(4,\) or \(2, 2\), got \(1,\)"),
        (TypeError, {"shift": "ab"}, "shift must be a real number for cg, or 4 of them, got 'ab'"),
        (TypeError, {"shift": np.full(4, 1j)}, "shift must be real for cg, got complex128"),
        (ValueError, {"shift": np.full(4, np.nan)}, "shift must be finite, got NaN or infinity"),
        (ValueError, {"shift": np.nan}, "shift must be finite, got nan"),
        (ValueError, {"b": np.ones(3)}, r"b must have shape \(4,\) or \(2, 2\), got \(3,\)"),
        (ValueError, {"b": np.ones((4, 1))}, r"b must have shape \(4,\) or \(2, 2\), got \(4, 1\)"),
        (
            ValueError,
            {"b": np.ones(3), "mask": np.arange(4) < 2},
            r"b must have shape \(4,\) or \(2, 2\), or \(2,\) where the mask is true, got \(3,\)",
        ),
        (TypeError, {"b": np.array(list("abcd"))}, "b must have a numeric dtype, got <U1"),
        (ValueError, {"x0": np.ones(2)}, r"x0 must have shape \(4,\) or \(2, 2\), got \(2,\)"),
        (TypeError, {"mask": np.arange(4)}, "mask must be booleans, got int64"),
        (ValueError, {"mask": np.ones(3, bool)}, r"mask must have shape \(4,\) or \(2, 2\), got \(3,\)"),
        (ValueError, {"mask": np.zeros(4, bool)}, "mask must be true somewhere, got none"),
        (ValueError, {"rtol": -1e-3}, "rtol must be at least 0 and finite, got -0.001"),
        (ValueError, {"atol": np.nan}, "atol must be at least 0 and finite, got nan"),
        (ValueError, {"maxiter": 0}, "maxiter must be at least 1, got 0"),
        (TypeError, {"callback": 3}, "callback must be callable, got int"),
        (TypeError, {"M": 3}, "M must be a linear operator, got int"),
        (ValueError, {"M": kc.eye((2, 3))}, r"M must have shape \(4, 4\), got \(6, 6\)"),
        (ValueError, {"M": np.eye(4), "mask": np.arange(4) < 2}, r"M must have shape \(2, 2\), got \(4, 4\)"),
    ],
)
def test_errors(error, options, text):
    arguments = {"A": kc.eye((2, 2)), "b": np.ones(4), **options}
    with pytest.raises(error, match=text):
        linalg.cg(**arguments)


def test_arrays_of_other_libraries_are_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="arrays of NumPy or CuPy for a LinearOperator, got torch"):
        linalg.cg(kc.eye((2, 2), like=torch.ones(1)), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_arrays_of_another_library_are_refused(library):
    other = pytest.importorskip(library)
    a, b = kc.KroneckerMatrix([2 * np.eye(2), np.eye(2)]), np.ones(4)
    ones = other.ones(4, dtype=other.float64)
    eyes = [other.eye(2, dtype=other.float64)] * 2
    for options, name in (
        ({"x0": ones}, "x0"),
        ({"M": kc.KroneckerMatrix(eyes)}, "M"),
        ({"M": kc.KroneckerProduct(eyes)}, "M"),
        ({"M": kc.KroneckerSum(eyes)}, "M"),
        ({"M": other.eye(4, dtype=other.float64)}, "M"),
    ):
        text = f"^{name} and b must be arrays of one library, got {', '.join(sorted([library, 'numpy']))}$"
        with pytest.raises(TypeError, match=text):
            linalg.cg(a, b, **options)
    with pytest.raises(TypeError, match="A and b must be arrays of one library, got"):
        linalg.cg(a, ones)
    # A mask is read, wherever it comes from.
    mask = other.asarray([True, False, True, True])
    assert linalg.cg(a, b, mask=mask)[0].tolist() == pytest.approx([0.5, 0.0, 0.5, 0.5])
