"""Operands in the shape of the grid: what comes back is what flat ones give, in the shape of the other side.

NumPy's reading of a shape comes first; only what it does not fit is read as a grid.
"""

import re
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import (
    Diagonal,
    Identity,
    Ket,
    KroneckerMatrix,
    KroneckerProduct,
    KroneckerSum,
    Permutation,
    linalg,
)
from ketcore.testing import kets
from tests.linalg_problems import each_library, near

RNG = np.random.default_rng(7)
SIZES = (2, 3)
POSITIVE = [np.array([[2.0, 0.5], [0.5, 1.0]]), np.diag([1.0, 2.0, 4.0]) + 0.25]
PRODUCT, OTHER = KroneckerMatrix(POSITIVE), KroneckerMatrix([np.eye(2), np.diag([3.0, 1.0, 2.0])])
WIDE = KroneckerMatrix([RNG.standard_normal((2, *dims)) for dims in ((2, 4), (3, 1), (2, 3))])
OPERATORS = {
    "matrix": WIDE,
    "identities": KroneckerMatrix([np.ones((2, 2, 3)), np.stack([np.eye(3)] * 2)], identities=[1]),
    "sum": KroneckerSum([RNG.standard_normal((2, 2)), RNG.standard_normal((3, 3))]),
    "product": KroneckerProduct([RNG.standard_normal((2, 3)), Diagonal([1.0, 2.0]), Identity(2)]),
    "permutation": Permutation((2, 3, 4), (2, 0, 1)),
}
LEADS = [(), (5,), (0,), (2, 3)]


def same(found, expected):
    """Equal in shape, and but for rounding in value."""
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert found.shape == expected.shape


def flat_of(x, dims):
    """An x (..., *dims) as (..., size)."""
    return x.reshape(*x.shape[: x.ndim - len(dims)], prod(dims))


def fortran(shape):
    """Numbers that do not lie in C order."""
    return RNG.standard_normal(shape[::-1]).transpose()


@st.composite
def operators(draw):
    """One of any kind and of few modes, many of them of size one."""
    rows = tuple(draw(st.lists(st.sampled_from([1, 1, 2, 3]), min_size=1, max_size=3)))
    columns = tuple(draw(st.sampled_from([1, 2, 3])) for _ in rows)
    kind = draw(st.sampled_from(["matrix", "sum", "product", "permutation", "cropped"]))
    if kind == "sum":
        return KroneckerSum([RNG.standard_normal((p, p)) for p in rows])
    if kind == "permutation":
        return Permutation(rows, draw(st.permutations(range(len(rows)))))
    factors = [RNG.standard_normal(pair) for pair in zip(rows, columns, strict=True)]
    if kind == "product":
        return KroneckerProduct([*factors[1:], Identity(rows[0])])
    shape = prod(rows), prod(columns)
    crops = [(max(1, shape[0] - 1), shape[1]), (shape[0], max(1, shape[1] - 1))]
    return KroneckerMatrix(factors, draw(st.sampled_from(crops)) if kind == "cropped" else shape)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("name", OPERATORS)
def test_products_of_every_kind(name, lead):
    operator = OPERATORS[name]
    matrix, rows, columns = operator.to_dense(), operator.row_dims, operator.col_dims
    x, y = fortran((*lead, *columns)), fortran((*lead, *rows))
    image = (flat_of(x, columns) @ matrix.T).reshape(*lead, *rows)
    back = (flat_of(y, rows) @ matrix).reshape(*lead, *columns)
    for found in (operator @ x, operator.matmul(x), operator.dot(x)):
        same(found, image)
    for found in (y @ operator, operator.rmatmul(y), operator.T @ y):
        same(found, back)
    same(operator.sandwich(y, x), (flat_of(y, rows) * flat_of(image, rows)).sum(axis=-1))
    same(operator.sandwich(flat_of(y, rows), x), operator.sandwich(y, x))
    for call, operand, expected in ((operator.matmul, x, image), (operator.rmatmul, y, back)):
        out = np.full(expected.shape, np.nan)
        assert call(operand, out=out) is out
        same(out, expected)


def test_results_in_place():
    whole = KroneckerMatrix([RNG.standard_normal((2, 2)), RNG.standard_normal((3, 3))])
    x = np.ascontiguousarray(RNG.standard_normal((4, 2, 3)))
    expected = whole @ x
    assert whole.matmul(x, out=x) is x
    same(x, expected)
    for out, text in (
        (np.empty((2, 6)), r"^out must have shape \(4, 2, 3\) and dtype float64, got \(2, 6\) and float64$"),
        (np.empty((4, 6)), r"^out must have shape \(4, 2, 3\) and dtype float64, got \(4, 6\) and float64$"),
        (np.empty((4, 2, 3), "f4"), r"^out must have shape \(4, 2, 3\) and dtype float64, got .* float32$"),
        (np.empty((4, 2, 3), order="F"), "^out must be C-contiguous and writeable, got strides"),
    ):
        for call in (whole.matmul, whole.rmatmul):
            with pytest.raises(ValueError, match=text):
                call(x, out=out)
    with pytest.raises(TypeError, match=r"^out must be a NumPy or CuPy array like the factors, got list$"):
        whole.matmul(x, out=[[0.0] * 3] * 2)


def test_lists_integers_and_one_row_each():
    assert (kc.eye((2, 3)) @ [[1, 2, 3], [4, 5, 6]]).tolist() == [[1, 2, 3], [4, 5, 6]]
    assert (kc.eye((2, 3)) @ np.arange(6, dtype="f4").reshape(2, 3)).dtype == np.float64
    found = Permutation((2, 3), (1, 0)) @ np.arange(6, dtype=np.int8).reshape(2, 3)
    assert found.dtype == np.int8
    same(found, np.arange(6, dtype=np.int8).reshape(2, 3).T)


@given(operator=operators(), data=st.data())
def test_numpy_reads_first(operator, data):
    """A shape that NumPy multiplies means what it means to NumPy.

    Else the last axes are the dims, and else there is an error: the rule in other words.
    """
    whole = operator.shape == (prod(operator.row_dims), prod(operator.col_dims))
    for turned in (False, True):
        dims, other = (operator.row_dims, operator.col_dims)[:: 1 if turned else -1]
        size = operator.shape[0 if turned else 1]
        pieces = st.sampled_from([(), dims, (size,), (size, 2), other, dims[1:], (1,), (0,)])
        x = RNG.standard_normal(data.draw(pieces) + data.draw(pieces))
        dense = operator.to_dense()
        try:
            expected = x @ dense if turned else dense @ x
        except ValueError:
            expected = None
        if expected is None and whole and len(dims) > 1 and x.shape[-len(dims) :] == dims:
            flat = flat_of(x, dims)
            expected = (flat @ operator if turned else flat @ operator.T).reshape(*flat.shape[:-1], *other)
        if expected is None:
            with pytest.raises(ValueError, match=r"^x must have shape"):
                x @ operator if turned else operator @ x
        else:
            same(x @ operator if turned else operator @ x, expected)


def test_which_dims_have_two_readings():
    """Only where all dims but one are one, and the other is where NumPy looks: then NumPy's is taken."""
    for dims in ((6, 1), (1, 6), (1, 6, 1), (6, 1, 1), (1, 1)):
        operator = KroneckerMatrix([np.eye(2 * q, q) for q in dims])
        column, row = dims[-2] == operator.shape[1], dims[-1] == operator.shape[1]
        x = np.ones((7, *dims))
        assert (operator @ x).shape == (
            (7, *dims[:-2], operator.shape[0], 1) if column else (7, *operator.row_dims)
        )
        found = x @ operator.T
        assert found.shape == ((7, *dims[:-1], operator.shape[0]) if row else (7, *operator.row_dims))
    # A batch whose last axes are the dims by chance is no batch of columns: nothing else would fit.
    assert (kc.eye((2, 3)) @ np.ones((6, 2, 3))).shape == (6, 2, 3)
    # Columns as many as there are rows are columns.
    x = np.arange(12.0).reshape(6, 2)
    same(KroneckerMatrix([np.eye(3), np.ones((2, 2))]) @ x, np.kron(np.eye(3), np.ones((2, 2))) @ x)


@pytest.mark.parametrize(
    ("operation", "text"),
    [
        (
            lambda m, s: m @ s((3, 2)),
            r"x must have shape (6,), (..., 6, n) or (..., 2, 3) after @, got (3, 2)",
        ),
        (lambda m, s: m @ s((2, 3, 1)), r"(..., 6, n) or (..., 2, 3) after @, got (2, 3, 1)"),
        (lambda m, s: s((3, 2)) @ m, r"x must have shape (..., 6) or (..., 2, 3) before @, got (3, 2)"),
        (lambda m, s: m @ s((3,)), r"(..., 6, n) or (..., 2, 3) after @, got (3,)"),
        (lambda m, s: m.sandwich(s((3, 2)), s(6)), r"x must have shape (..., 6) or (..., 2, 3), got (3, 2)"),
        (lambda m, s: m.sandwich(s(6), s(())), r"y must have shape (..., 6) or (..., 2, 3), got ()"),
        (
            lambda m, s: linalg.solve(m, s((3, 2))),
            r"b must have shape (6,), (..., 6, n) or (..., 2, 3), got (3, 2)",
        ),
        (
            lambda m, s: linalg.lstsq(m, s((3, 2))),
            r"b must have shape (6,), (..., 6, n) or (..., 2, 3), got (3, 2)",
        ),
        (lambda m, s: linalg.cg(m, s((1, 2, 3))), r"b must have shape (6,) or (2, 3), got (1, 2, 3)"),
        (lambda m, s: linalg.cg(m, s(6), s((3, 2))), r"x0 must have shape (6,) or (2, 3), got (3, 2)"),
        (
            lambda m, s: linalg.cg(m, s(6), shift=s((3, 2))),
            r"shift must have shape (6,) or (2, 3), got (3, 2)",
        ),
        (
            lambda m, s: linalg.cg(m, s(6), mask=s((3, 2)) > 0),
            r"mask must have shape (6,) or (2, 3), got (3, 2)",
        ),
        (
            lambda m, s: Ket([s(2), s(3)]).contract(s((3, 2))),
            r"x must have shape (6,), (6, n) or (2, 3), got (3, 2)",
        ),
        (lambda m, s: Ket([s(2), s(3)]).contract(s((1, 2, 3))), r"(6, n) or (2, 3), got (1, 2, 3)"),
        # Cropped operators and those of one mode have no grid.
        (
            lambda m, s: KroneckerMatrix(m.factors, (5, 6)) @ s((2, 3)),
            r"x must have shape (6,) or (..., 6, n) after",
        ),
        (lambda m, s: s((2, 3)) @ KroneckerMatrix(m.factors, (6, 5)), r"x must have shape (..., 6) before @"),
        (lambda m, s: kc.eye(4) @ s((2, 2)), r"x must have shape (4,) or (..., 4, n) after @, got (2, 2)"),
        (lambda m, s: s((2, 2)) @ kc.eye(4), r"x must have shape (..., 4) before @, got (2, 2)"),
        (lambda m, s: Permutation((2, 3), (1, 0)) @ s((3, 2)), r"or (..., 2, 3) after @, got (3, 2)"),
        (
            lambda m, s: s((2, 3)) @ Permutation((2, 3), (1, 0)),
            r"x must have shape (..., 6) or (..., 3, 2) before",
        ),
    ],
)
def test_what_fits_neither_is_told_all_shapes(operation, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        operation(PRODUCT, np.ones)


@given(ket=kets(), extra=st.sampled_from([(), (1,), (2,)]))
def test_contractions(ket, extra):
    x = RNG.standard_normal((*ket.dims, *extra)).astype(ket.dtype)
    flat = x.reshape(prod(ket.dims), *extra)
    if x.ndim == 2 and x.shape[0] == prod(ket.dims):
        assert ket.contract(x).shape == (*ket.batch_shape, x.shape[1])
    elif not extra:
        found = ket.contract(x)
        assert found.shape == ket.batch_shape
        np.testing.assert_array_equal(found, ket.contract(flat))


SYSTEMS = {
    "product": (PRODUCT, 0.0),
    "shift": (PRODUCT, 0.7),
    "general shift": (KroneckerMatrix([RNG.standard_normal((2, 2)), RNG.standard_normal((3, 3))]), 0.7),
    "sum": (KroneckerSum(POSITIVE), 0.0),
    "shifted sum": (KroneckerSum(POSITIVE), 0.3),
    "general sum": (KroneckerSum([POSITIVE[0] @ [[1.0, 1.0], [0.0, 1.0]], POSITIVE[1]]), 0.0),
    "parts": (KroneckerProduct([POSITIVE[0], Diagonal([1.0, 2.0, 3.0])]), 0.0),
    "two terms": (PRODUCT + OTHER, 0.0),
}


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("name", SYSTEMS)
def test_systems(name, lead):
    operator, shift = SYSTEMS[name]
    b = fortran((*lead, *SIZES))
    x = linalg.solve(operator, b, shift)
    assert x.shape == b.shape
    near(operator @ x + shift * x, b, scale=1e3)
    flat = np.linalg.solve(operator.to_dense() + shift * np.eye(6), flat_of(b, SIZES)[..., None])[..., 0]
    near(flat_of(x, SIZES), flat, scale=1e3)


def test_systems_of_one_column_stay_columns():
    operator = KroneckerMatrix([np.diag(np.arange(1.0, 7)), np.ones((1, 1))])
    b = np.ones((6, 1))
    same(linalg.solve(operator, b), 1 / np.arange(1.0, 7)[:, None])
    # Of the other order it is a grid, since it is no column; as data it is a batch of one.
    turned = KroneckerMatrix(operator.factors[::-1])
    same(linalg.solve(turned, b.T), 1 / np.arange(1.0, 7)[None, :])
    assert linalg.gaussian_log_likelihood(turned, b.T).shape == (1,)
    assert linalg.gaussian_log_likelihood(operator, b).shape == ()
    # Where there are no batches, both are grids.
    for own, y in ((operator, b), (turned, b.T)):
        assert linalg.gaussian_posterior(own, y, 0.5).mean().shape == y.shape
        assert linalg.cg(own, y)[0].shape == y.shape


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("dims", [((4, 2), (3, 3)), ((2, 4), (3, 2)), ((2, 1), (3, 3))])
def test_least_squares(lead, dims):
    operator = KroneckerMatrix([RNG.standard_normal(pair) for pair in dims])
    rows, columns = operator.row_dims, operator.col_dims
    b = fortran((*lead, *rows))
    found, flat = linalg.lstsq(operator, b), linalg.lstsq(operator, flat_of(b, rows)[..., None])
    near(found.x, flat.x.reshape(*lead, *columns), scale=1e3)
    assert found.rank == flat.rank
    if operator.shape[0] > operator.shape[1]:
        near(found.residuals, flat.residuals[..., 0], scale=1e3)
        assert found.residuals.shape == lead


@pytest.mark.parametrize("name", ["product", "sum", "two terms"])
def test_conjugate_gradients(name):
    operator, tight = SYSTEMS[name][0], {"rtol": 1e-13, "maxiter": 200}
    b, shift, mask = RNG.standard_normal(6), RNG.uniform(0.5, 1, 6), np.arange(6) % 4 > 0
    grids = {"shift": shift.reshape(SIZES, order="C"), "mask": mask.reshape(SIZES)}
    expected = linalg.cg(operator, b, shift=shift, mask=mask, **tight)[0]
    near(expected[mask], np.linalg.solve((operator.to_dense() + np.diag(shift))[mask][:, mask], b[mask]))
    options = {**grids, **tight, "x0": np.asfortranarray(b.reshape(SIZES))}
    same(linalg.cg(operator, np.asfortranarray(b.reshape(SIZES)), **options)[0], expected.reshape(SIZES))
    same(linalg.cg(operator, b, **options)[0], expected)
    same(linalg.cg(operator, b[mask], **options)[0], expected[mask])
    with pytest.raises(
        ValueError, match=r"^x0 must have shape \(6,\) or \(2, 3\), or \(4,\) where the mask is"
    ):
        linalg.cg(operator, b, np.ones(5), mask=mask)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("operator", [PRODUCT, PRODUCT + OTHER, KroneckerProduct([POSITIVE[0], Identity(3)])])
def test_likelihoods(operator, lead):
    y = fortran((*lead, *SIZES))
    found = linalg.gaussian_log_likelihood(operator, y)
    np.testing.assert_array_equal(found, linalg.gaussian_log_likelihood(operator, flat_of(y, SIZES)))
    assert found.shape == lead


@pytest.mark.parametrize("noise", [0.5, np.linspace(1, 2, 6).reshape(SIZES)])
def test_posteriors_come_as_the_data_do(noise):
    y, cross, prior = (
        RNG.standard_normal(SIZES),
        KroneckerMatrix([np.ones((4, 2)), np.eye(3)]),
        kc.eye((4, 3)),
    )
    on_grid, flat = (linalg.gaussian_posterior(PRODUCT, data, noise, rtol=1e-12) for data in (y, y.ravel()))
    for shape, (one, other) in (
        (SIZES, (on_grid, flat)),
        ((4, 3), (on_grid.at(cross, 30 * prior), flat.at(cross, 30 * prior))),
    ):
        points = np.array([[0, 5]])
        np.testing.assert_array_equal(one.variance(points), other.variance(points))
        assert one.variance(points).shape == (1, 2)
        if isinstance(noise, float):
            same(one.variance(), other.variance().reshape(shape))
        assert other.mean().shape == (prod(shape),)
        same(one.mean(), other.mean().reshape(shape))
    same(on_grid.sample(2, rng=0), flat.sample(2, rng=0).reshape(2, *SIZES))
    same(on_grid.sample(rng=0), flat.sample(rng=0).reshape(SIZES))
    assert on_grid.sample(0, rng=0).shape == (0, *SIZES)


@each_library
def test_grids_of_every_library(xp):
    for dtype in ("float32", "float64", "complex64", "complex128"):
        factors = [xp.asarray((f @ f).astype(dtype)) for f in POSITIVE]
        operator, b = KroneckerMatrix(factors), RNG.standard_normal((4, *SIZES)).astype(dtype)
        full, grid = np.kron(*(f @ f for f in POSITIVE)), xp.asarray(b)
        for found, expected in (
            (operator @ grid, b.reshape(4, 6) @ full.T),
            (operator.rmatmul(grid), b.reshape(4, 6) @ full),
            (KroneckerProduct(factors) @ grid, b.reshape(4, 6) @ full.T),
            (linalg.solve(operator, grid), np.linalg.solve(full, b.reshape(4, 6).T).T),
            (linalg.lstsq(operator, grid).x, np.linalg.solve(full, b.reshape(4, 6).T).T),
        ):
            assert type(found) is type(grid)
            assert xp.to_numpy(found).dtype == dtype
            near(xp.to_numpy(found), expected.reshape(b.shape), scale=1e3, dtype=dtype)
        found = linalg.gaussian_log_likelihood(operator, grid, 0.5)
        flat = linalg.gaussian_log_likelihood(operator, xp.asarray(b.reshape(4, 6)), 0.5)
        np.testing.assert_array_equal(xp.to_numpy(found), xp.to_numpy(flat))


def test_gradients_of_pytorch():
    torch = pytest.importorskip("torch")
    factors = [torch.tensor(f, requires_grad=True) for f in POSITIVE]
    x = torch.tensor(RNG.standard_normal((2, *SIZES)), requires_grad=True)
    for call in (lambda m, x: m @ x, lambda m, x: m.T.rmatmul(x), linalg.solve):
        operator = KroneckerMatrix(factors)
        found = torch.autograd.grad((call(operator, x) ** 3).sum(), [x, *factors])
        flat = call(operator, x.reshape(2, 6, 1)) if call is linalg.solve else x.reshape(2, 6) @ operator.T
        if call is linalg.solve:
            flat = flat[..., 0]
        for one, other in zip(found, torch.autograd.grad((flat**3).sum(), [x, *factors]), strict=True):
            torch.testing.assert_close(one, other)
    summed = KroneckerSum(factors)
    (found,) = torch.autograd.grad(linalg.solve(summed, x).sum(), [factors[0]])
    (other,) = torch.autograd.grad(linalg.solve(summed, x.reshape(2, 6).T).sum(), [factors[0]])
    torch.testing.assert_close(found, other)


def test_grids_of_jax():
    jax = pytest.importorskip("jax")
    operator = KroneckerMatrix([jax.numpy.asarray(f, dtype="float32") for f in POSITIVE])
    x = jax.numpy.asarray(RNG.standard_normal(SIZES), dtype="float32")
    found = jax.jit(operator.matmul)(x)
    near(np.asarray(found), (PRODUCT @ np.asarray(x, "f8")), dtype="float32")
    slope = jax.grad(lambda x: (x @ operator).sum())(x)
    near(np.asarray(slope), PRODUCT @ np.ones(SIZES), scale=10.0, dtype="float32")
