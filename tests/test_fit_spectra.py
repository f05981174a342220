"""nearest_kronecker of two factors where singular values are many: flat, repeated, in clusters, far apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore as kc
from ketcore.fit import fewer_terms, nearest, rearranged, search, singular
from ketcore.fit.als import Found
from tests import generic
from tests.fit_problems import RowSlices, problems, relative_error, two_factor_optimum, with_rearranged
from tests.kernel_problems import dtype_of as floating

# The rearranged matrix is 420 x 500, too large for a full SVD.
ROW_DIMS, COL_DIMS = (21, 20), (20, 25)
SIDES = (420, 500)
STEPS = np.arange(SIDES[0])
TAIL = 1 - STEPS / (4 * SIDES[0])
SPECTRA = {
    "flat": np.ones_like(TAIL),
    "one above a flat tail": np.concatenate([[100.0], TAIL[1:]]),
    "a cluster above a cluster": np.concatenate([10 + 1e-9 * STEPS[:3], 1 + 1e-6 * STEPS[3:]]),
    "repeated": np.repeat([9.0, 5.0, 3.0, 1.0], [3, 1, 20, 396]),
    "repeated more often than there are terms": np.repeat([9.0, 2.0, 1.0], [24, 24, 372]),
    "geometric": 0.5**STEPS,
    "slow": 0.97**STEPS,
    "a power": 1.0 / (1 + STEPS),
    "few": np.repeat([3.0, 1.0, 0.0], [2, 2, 416]),
    "none but rounding": np.repeat([1.0, 1e-17], [1, 419]),
}
HALF = {"float16": 2e-3, "bfloat16": 2e-2}
CLOSE = {"float32": 1e-6, "complex64": 1e-6, "float64": 1e-12, "complex128": 1e-12} | HALF


def with_spectrum(values, dtype="float64", exact=False):
    """A matrix whose rearranged one has these singular values, rounded to dtype; on a diagonal if exact."""
    rng = np.random.default_rng(0)
    if exact:
        T = np.zeros(SIDES)
        T[STEPS, rng.permutation(SIDES[1])[: SIDES[0]]] = rng.permutation(values)
        return with_rearranged(T, ROW_DIMS, COL_DIMS).astype(floating(dtype))
    sides = []
    for side in SIDES:
        square = rng.standard_normal((side, side))
        if dtype.startswith("complex"):
            square = square + 1j * rng.standard_normal((side, side))
        sides.append(np.linalg.qr(square)[0][:, : len(values)])
    T = (sides[0] * values) @ sides[1].conj().T
    return with_rearranged(T, ROW_DIMS, COL_DIMS).astype(floating(dtype))


def wide_of(A):
    return A.astype("complex128")


def assert_optimal(A, fit, rank, close, row_dims=ROW_DIMS, col_dims=COL_DIMS):
    found = relative_error(wide_of(np.asarray(fit.value.to_dense())), wide_of(A))
    assert fit.converged
    assert abs(fit.error - found) < close
    assert abs(fit.error - two_factor_optimum(wide_of(A), row_dims, col_dims, rank)) < close


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_any_spectrum_gives_the_optimum(spectrum, exact):
    A = with_spectrum(SPECTRA[spectrum], exact=exact)
    for rank in (1, 5, 20):
        assert_optimal(A, kc.nearest_kronecker(A, ROW_DIMS, COL_DIMS, rank, rng=0), rank, 1e-12)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("spectrum", ["one above a flat tail", "repeated", "geometric"])
def test_any_dtype_gives_the_optimum_held_or_not(spectrum, dtype, monkeypatch):
    A = with_spectrum(SPECTRA[spectrum], dtype)
    assert_optimal(A, kc.nearest_kronecker(A, ROW_DIMS, COL_DIMS, 4, rng=0), 4, CLOSE[dtype])
    monkeypatch.setattr(rearranged, "_SMALL", 0)
    fit = kc.nearest_kronecker(RowSlices(A), ROW_DIMS, COL_DIMS, 4, rng=0)
    assert fit.value.dtype == A.dtype
    assert_optimal(A, fit, 4, CLOSE[dtype])


def test_any_library_gives_the_optimum(xp):
    A = with_spectrum(SPECTRA["one above a flat tail"])
    fit = kc.nearest_kronecker(xp.asarray(A), ROW_DIMS, COL_DIMS, 3, rng=0)
    assert fit.converged
    assert abs(fit.error - two_factor_optimum(A, ROW_DIMS, COL_DIMS, 3)) < 1e-12


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e200, 1e300])
def test_any_size_gives_the_optimum(size):
    A = with_spectrum(SPECTRA["one above a flat tail"])
    fit = kc.nearest_kronecker(size * A, ROW_DIMS, COL_DIMS, 3, rng=0)
    assert fit.converged
    assert abs(fit.error - two_factor_optimum(A, ROW_DIMS, COL_DIMS, 3)) < 1e-12
    assert relative_error(fit.value.to_dense() / size, A) == pytest.approx(fit.error, abs=1e-12)


@pytest.mark.parametrize("turned", [False, True])
def test_weights_crops_and_tall_matrices_give_the_optimum(turned):
    """Weights that separate, zero among them as those of a crop are."""
    A = with_spectrum(SPECTRA["one above a flat tail"])
    rows, columns = (COL_DIMS, ROW_DIMS) if turned else (ROW_DIMS, COL_DIMS)
    A = A.T if turned else A
    weights = np.kron(np.arange(1.0, rows[0] + 1), np.ones(rows[1]))
    fit = kc.nearest_kronecker(A, rows, columns, 3, weights=weights, rng=0)
    scaled = np.sqrt(weights)[:, None] * A
    assert fit.converged
    assert abs(fit.error - two_factor_optimum(scaled, rows, columns, 3)) < 1e-12
    assert abs(fit.error - relative_error(fit.value.to_dense(), A, weights)) < 1e-12
    block = A[: (rows[0] - 1) * rows[1]]
    assert_optimal(block, kc.nearest_kronecker(block, rows, columns, 3, rng=0), 3, 1e-12, rows, columns)


@pytest.mark.parametrize("held", [True, False])
@pytest.mark.parametrize("spectrum", ["one above a flat tail", "repeated", "slow", "few"])
def test_a_tolerance_gives_the_least_rank(spectrum, held, monkeypatch):
    monkeypatch.setattr(rearranged, "_SMALL", 0 if not held else rearranged._SMALL)
    values = SPECTRA[spectrum]
    A = with_spectrum(values)
    tails = np.sqrt(np.cumsum(values[::-1] ** 2)[::-1] / np.sum(values**2))
    for rank in (1, 2, 4, 30):
        tol = float(tails[rank] * 1.0001 + 1e-12)
        least = int(np.argmax(tails <= tol)) if np.any(tails <= tol) else len(tails)
        fit = kc.nearest_kronecker(A if held else RowSlices(A), ROW_DIMS, COL_DIMS, tol=tol, rng=0)
        assert fit.error <= tol
        assert fit.value.rank == least


@pytest.mark.parametrize("spectrum", ["flat", "slow", "a power", "few", "geometric"])
def test_a_gain_ends_the_passes_near_the_optimum(spectrum, monkeypatch):
    A, passes, onto_left = with_spectrum(SPECTRA[spectrum]), [], rearranged.Halves.onto_left
    monkeypatch.setattr(
        rearranged.Halves, "onto_left", lambda self, right: passes.append(1) or onto_left(self, right)
    )
    settled = kc.nearest_kronecker(A, ROW_DIMS, COL_DIMS, 5, rng=0)
    slow = len(passes)
    fit = kc.nearest_kronecker(A, ROW_DIMS, COL_DIMS, 5, rng=0, gain=1e-3)
    assert fit.converged
    assert len(passes) - slow <= min(slow, 6)
    assert settled.error * (1 - 1e-12) <= fit.error <= settled.error * 1.0005 + 1e-12
    assert abs(fit.error - relative_error(fit.value.to_dense(), A)) < 1e-12


def test_a_gain_ends_the_sweeps():
    A, dims = np.random.default_rng(0).standard_normal((27, 27)), (3, 3, 3)
    settled = kc.nearest_kronecker(A, dims, dims, 2, rng=0, restarts=0)
    fit = kc.nearest_kronecker(A, dims, dims, 2, rng=0, restarts=0, gain=1e-2)
    assert fit.converged
    assert fit.iterations < settled.iterations / 2
    assert settled.error <= fit.error <= 1.02 * settled.error


def test_a_seed_gives_the_same_fit():
    A = with_spectrum(SPECTRA["a power"])
    first, second = (kc.nearest_kronecker(A, ROW_DIMS, COL_DIMS, 3, rng=5) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first.value.factors, second.value.factors, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tables_stay_orthonormal_where_residuals_are_rounding(dtype):
    """Projecting twice left rows of the second block within the first."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((60, 9)))[0].T.astype(dtype)
    rows = np.concatenate([rng.standard_normal((2, 9)) @ basis, 1e-30 * rng.standard_normal((3, 60))])
    found = singular._orthonormal(np, np.concatenate([basis, rows.astype(dtype)]))
    assert np.abs(found @ found.T - np.eye(14)).max() < 20 * np.finfo(dtype).eps


@pytest.mark.parametrize("passes", [1, 2])
def test_an_unsettled_fit_is_no_worse_than_its_leading_terms_nor_than_zero(passes, monkeypatch):
    monkeypatch.setattr(singular, "_PASSES", passes)
    for spectrum in ("one above a flat tail", "flat", "slow"):
        A = with_spectrum(SPECTRA[spectrum])
        fit = kc.nearest_kronecker(A, ROW_DIMS, COL_DIMS, 6, rng=0)
        assert fit.converged == (spectrum == "flat")
        errors = [
            relative_error(kc.KroneckerMatrix([f[:count] for f in fit.value.factors]).to_dense(), A)
            for count in range(1, 7)
        ]
        assert abs(errors[-1] - fit.error) < 1e-12
        assert np.all(np.diff([1.0, *errors]) < 1e-12)


@settings(max_examples=15)
@given(st.data())
def test_no_fit_is_worse_than_zero_nor_than_itself_without_a_term(data):
    order = data.draw(st.integers(2, 4))
    A, row_dims, col_dims, rank = data.draw(problems(order=order))
    kind = data.draw(st.sampled_from(("plain", "weights", "crop")))
    weights = data.draw(generic.arrays((len(A),), "float64")) ** 2 + 1e-3 if kind == "weights" else None
    A = A[: max(1, len(A) - 1), : max(1, A.shape[1] - 1)] if kind == "crop" else A
    options = {"weights": weights, "rng": 0, "restarts": 0}
    for iterations in (1, 30):
        fit = kc.nearest_kronecker(A, row_dims, col_dims, rank, iterations=iterations, **options)
        assert fit.error <= 1 + 1e-12
        for term in range(fit.value.rank if fit.value.rank > 1 else 0):
            fewer = kc.KroneckerMatrix([np.delete(f, term, 0) for f in fit.value.factors], A.shape)
            assert fit.error <= relative_error(fewer.to_dense(), A, weights) + 1e-9


@settings(max_examples=5)
@given(st.data())
def test_one_term_more_is_no_worse(data):
    """By SVDs for certain; by least squares in these examples, which are the same in every run."""
    A, row_dims, col_dims, _ = data.draw(problems(order=data.draw(st.integers(2, 3))))
    errors = [kc.nearest_kronecker(A, row_dims, col_dims, rank, rng=0).error for rank in (1, 2, 3)]
    chosen = [kc.from_dense(A, len(row_dims), rank, rng=0).error for rank in (1, 2, 3)]
    assert np.all(np.diff([1.0, *errors]) < 1e-9)
    assert np.all(np.diff([1.0, *chosen]) < 1e-9)


@settings(max_examples=40)
@given(generic.kronecker_matrices(order=2, dtype="float64", rank=4))
def test_one_term_more_of_a_recompressed_matrix_is_no_worse(matrix):
    """Of a crop as well, though the terms are those of the whole."""
    dense = matrix.to_dense()
    errors = [kc.recompress(matrix, rank).error for rank in (1, 2, 3, 4)]
    fit = kc.recompress(matrix, 2)
    assert abs(fit.error - relative_error(fit.value.to_dense(), dense)) < 1e-12
    assert np.all(np.diff([1.0, *errors]) < 1e-7)


def test_terms_that_spoil_the_block_are_left_out_of_a_crop():
    """[[-1, 10], [10, 99]] is near 100 (.1, 1) (.1, 1), whose first element has the wrong sign."""
    columns = np.array([[[-1.0], [10.0]], [[10.0], [99.0]]])
    matrix = kc.KroneckerMatrix([np.eye(2)[:, :, None], columns], (1, 1))
    fit = kc.recompress(matrix, 1)
    assert (fit.value.rank, fit.value.shape, fit.error) == (1, (1, 1), 1.0)
    assert fit.value.to_dense().tolist() == [[0.0]]
    assert kc.recompress(matrix, 2).error < 1e-12
    assert kc.recompress(matrix, tol=0.5).error < 1e-12


@pytest.mark.parametrize("residual", [np.nan, np.inf, 2.0])
def test_a_fit_that_diverged_is_zero(residual, monkeypatch):
    A = np.random.default_rng(0).standard_normal((8, 8))

    def diverged(target, leaves, *rest):
        return Found([1e9 * leaf for leaf in leaves], residual * target.norm, False, 1)

    alternate = search.alternate
    monkeypatch.setattr(search, "alternate", diverged)
    fit = kc.nearest_kronecker(A, (2, 2, 2), (2, 2, 2), 2, rng=0)
    assert (fit.value.rank, fit.error, fit.converged) == (2, 1.0, False)
    assert not fit.value.to_dense().any()
    ket = kc.Ket.random((2, 2, 2), rank=4, rng=0)
    assert kc.recompress(ket, 1, rng=0).error == 1.0
    starts = iter([diverged] + [alternate] * 99)
    monkeypatch.setattr(search, "alternate", lambda *args: next(starts)(*args))
    assert kc.nearest_kronecker(A, (2, 2, 2), (2, 2, 2), 2, rng=0).error < 1


def test_terms_that_cancel_to_less_than_their_rounding_are_zero(monkeypatch):
    """Three terms cancel in float32; in float16 each is off by more than the matrix has."""
    A = np.eye(4, dtype="float16")
    first, second, right = 100 * np.random.default_rng(0).standard_normal((3, 4)).astype("float32")

    def cancelling(scaled, options):
        leaves = [np.stack([first + second, -first, -second]), np.stack([right] * 3)]
        return Found(leaves, scaled.norm, True, 0)

    monkeypatch.setattr(nearest, "fit_halves", cancelling)
    fit = kc.nearest_kronecker(A, (2, 2), (2, 2), 3)
    assert (fit.error, fit.value.rank, fit.value.dtype) == (1.0, 3, A.dtype)
    assert not fit.value.to_dense().any()


@pytest.mark.parametrize("products", [False, True])
def test_a_search_keeps_the_fit_of_fewer_terms_where_more_are_no_nearer(products, monkeypatch):
    """The second fit of a search, which the cap makes the last, is spoiled."""
    calls, best_of = [], search.best_of

    def spoiled(target, *rest):
        calls.append(best_of(target, *rest))
        return calls[-1]._replace(residual=target.norm) if len(calls) == 2 else calls[-1]

    monkeypatch.setattr(fewer_terms, "_CORE", 0)
    monkeypatch.setattr(fewer_terms if products else search, "best_of", spoiled)
    # Two halves are one term, and the four elements of the wider one are two.
    pair = np.kron(np.eye(2), [[1.0, 2.0], [3.0, 4.0]]) + np.diag([3.0, 0.0, 0.0, 3.0])
    matrix = kc.KroneckerMatrix([np.ones((1, 2, 2)), pair.reshape(1, 4, 4)])
    if products:
        matrix = kc.KroneckerMatrix.random((8, 8), order=3, rank=4, rng=0)
        fit = kc.recompress(matrix, 2, tol=1e-3, rng=0)
    else:
        fit = kc.nearest_kronecker(matrix.to_dense(), (2, 2, 2), (2, 2, 2), 2, tol=1e-3, rng=0)
    assert (len(calls), fit.value.rank, fit.iterations) == (2, 1, calls[1].sweeps)
    assert abs(fit.error - relative_error(fit.value.to_dense(), matrix.to_dense())) < 1e-12


@pytest.mark.parametrize("dims", [((4, 4), (4, 4)), ((2, 4, 2), (2, 2, 4))])
def test_awkward_arrays_are_fitted_and_left_alone(dims):
    """Read-only, with negative strides and gaps, and nested lists."""
    wide = np.random.default_rng(0).standard_normal((32, 32))
    view = wide[::-2, ::2]
    view.flags.writeable = False
    before = wide.copy()
    options = {"rng": 0, "restarts": 0, "iterations": 3}
    expected = kc.nearest_kronecker(view.copy(), *dims, 3, **options).error
    for A in (view, np.asfortranarray(view), view.tolist()):
        assert abs(kc.nearest_kronecker(A, *dims, 3, **options).error - expected) < 1e-12
    assert np.array_equal(wide, before)


def test_more_terms_than_there_can_be_are_not_made():
    A = np.random.default_rng(0).standard_normal((16, 16))
    fit = kc.nearest_kronecker(A, (4, 4), (4, 4), 10**9)
    assert fit.error < 1e-13
    assert fit.value.rank == 16
