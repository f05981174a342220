"""Gaussian processes on grids against the dense formulas: mean, variance, and the map that makes samples."""

import numpy as np
import pytest

import ketcore as kc
from ketcore import linalg
from ketcore.testing import to_numpy
from tests.linalg_problems import each_library, near

SIZES, OTHER = (4, 3), (2, 5)
TIGHT = {"rtol": 1e-13, "maxiter": 500}


class Basis:
    """Stands in for a generator: as white noise it gives the unit vectors.

    Samples are then the columns of the map that makes them.
    """

    def standard_normal(self, shape):
        unit = np.eye(*shape[-2:])
        # Of complex noise real and imaginary parts have variance 1 / 2.
        return unit if len(shape) == 2 else np.stack([unit, 0 * unit]) * 2**0.5


def kernels(dtype="float64"):
    """Covariances of the data, of them with other points, and of these, per mode."""
    found = []
    for p, q in zip(SIZES, OTHER, strict=True):
        x = np.concatenate([np.linspace(0, 1, p), np.linspace(0.1, 1.3, q)])
        joint = np.exp(-np.abs(np.subtract.outer(x, x)) / 0.7)
        if np.dtype(dtype).kind == "c":
            joint = joint * np.exp(2j * np.subtract.outer(x, x))
        found.append([part.astype(dtype) for part in (joint[:p, :p], joint[p:, :p], joint[p:, p:])])
    return zip(*found, strict=True)


def noises(rng):
    """What noise may be, and its dense matrix."""
    tasks = kc.KroneckerProduct([kc.Diagonal(rng.uniform(0.1, 1, 4)), kc.Identity(3)])
    points = rng.uniform(0.1, 1, 12)
    return {
        "number": (0.3, 0.3 * np.eye(12)),
        "matrix": (tasks, tasks.to_dense()),
        "array": (points, np.diag(points)),
        "grid": (points.reshape(SIZES), np.diag(points)),
    }


def dense_posterior(own, cross, prior, noise, y, mask):
    gain = cross[:, mask] @ np.linalg.inv(own[np.ix_(mask, mask)] + noise[np.ix_(mask, mask)])
    return gain @ y[mask], prior - gain @ cross[:, mask].conj().T


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("kind", ["number", "matrix", "array", "grid", "masked number", "masked array"])
def test_all_is_that_of_the_dense_formulas(kind, elsewhere, dtype):
    rng = np.random.default_rng(0)
    own, cross, prior = (kc.KroneckerMatrix(list(part)) for part in kernels(dtype))
    noise, full = noises(rng)[kind.removeprefix("masked ")]
    y, mask = rng.standard_normal(12), np.ones(12, bool)
    options = dict(TIGHT)
    if kind.startswith("masked"):
        mask[[1, 5, 6, 11]] = False
        options["mask"] = mask.reshape(SIZES) if kind.endswith("array") else mask
        y[~mask] = np.nan
    if elsewhere:
        options |= {"cross": cross, "prior": prior}
    asked = (cross, prior) if elsewhere else (own, own)
    mean, covariance = dense_posterior(own.to_dense(), *(m.to_dense() for m in asked), full, y, mask)
    found = linalg.gaussian_posterior(own, y.reshape(SIZES), noise, **options)
    # As the data, all that is returned has the shape of its grid.
    grid = asked[0].row_dims
    near(found.mean(), mean.reshape(grid), dtype=dtype)
    points = np.arange(len(mean)).reshape(-1, 2)
    near(found.variance(points), np.diag(covariance).real.reshape(-1, 2), dtype="float64")
    if kind in ("number", "matrix"):
        near(found.variance(), np.diag(covariance).real.reshape(grid))
    t = 12 if kind in ("number", "matrix") and not elsewhere else 12 + (12 if not elsewhere else 6 * 8)
    samples = found.sample(t, Basis()) - found.mean()
    assert samples.shape == (t, *grid)
    assert found.sample(rng=0).shape == grid
    samples = samples.reshape(t, -1)
    # Row m is what the unit vector m becomes.
    near(samples.T @ samples.conj(), covariance)
    assert samples.dtype == dtype
    if elsewhere:
        again = linalg.gaussian_posterior(own, y, noise, **(options | {"cross": None, "prior": None}))
        near(again.at(cross, prior).mean(), mean)


@each_library
@pytest.mark.parametrize("kind", ["number", "matrix"])
def test_closed_forms_are_for_every_library(xp, kind):
    rng = np.random.default_rng(0)
    own, cross, prior = ([xp.asarray(f) for f in part] for part in kernels("float32"))
    diagonals = [np.diag(np.arange(1.0, p + 1)).astype("f4") for p in SIZES]
    noise = 0.5 if kind == "number" else kc.KroneckerMatrix([xp.asarray(d) for d in diagonals])
    full = 0.5 * np.eye(12) if kind == "number" else np.kron(*diagonals)
    y = rng.standard_normal(12).astype("float32")
    found = linalg.gaussian_posterior(kc.KroneckerMatrix(own), xp.asarray(y), noise)
    dense = [np.kron(*part) for part in kernels()]
    for posterior, other in (
        (found, (dense[0], dense[0])),
        (found.at(kc.KroneckerMatrix(cross), kc.KroneckerMatrix(prior)), dense[1:]),
    ):
        mean, covariance = dense_posterior(dense[0], *other, full, y, np.ones(12, bool))
        near(xp.to_numpy(posterior.mean()), mean, dtype="float32")
        near(xp.to_numpy(posterior.variance()), np.diag(covariance), dtype="float32")
        samples = posterior.sample(12 if posterior is found else 12 + 48, Basis())
        samples = xp.to_numpy(samples) - xp.to_numpy(posterior.mean())
        near(samples.T @ samples, covariance, dtype="float32")


def test_samples_follow_their_generator():
    own, _, _ = kernels()
    found = linalg.gaussian_posterior(kc.KroneckerMatrix(list(own)), np.ones(12), 0.3)
    one, many = found.sample(rng=3), found.sample(4000, np.random.default_rng(3))
    assert one.shape == (12,)
    assert many.shape == (4000, 12)
    near(one, many[0])
    assert found.sample(0, rng=0).shape == (0, 12)
    # Six standard errors of the mean and of a variance.
    error = 6 * np.sqrt(found.variance() / 4000)
    assert (np.abs(many.mean(axis=0) - found.mean()) < error).all()
    assert (np.abs(many.var(axis=0) / found.variance() - 1) < 6 * np.sqrt(2 / 4000)).all()


def test_data_without_noise_are_met():
    own, cross, prior = (kc.KroneckerMatrix(list(part)) for part in kernels())
    y = np.arange(12.0)
    for mask in (None, np.arange(12) != 5):
        found = linalg.gaussian_posterior(own, y, 0, mask=mask, **TIGHT)
        seen = np.arange(12) if mask is None else np.flatnonzero(mask)
        near(found.mean()[seen], y[seen], scale=1e3)
        near(found.variance(seen), np.zeros(len(seen)), scale=1e3)
        near(found.sample(2, rng=0)[:, seen], np.stack([y[seen]] * 2), scale=1e3)
        assert (found.at(cross, prior).variance([0]) >= 0).all()


def test_singular_covariances_are_fine():
    """Those of smooth processes are singular but for rounding, with eigenvalues below zero among them."""
    x = np.linspace(0, 1, 25)
    kernel = np.exp(-(np.subtract.outer(x, x) ** 2))
    assert np.linalg.eigvalsh(kernel).min() < 0
    A = kc.KroneckerMatrix([kernel, kernel])
    y = np.random.default_rng(0).standard_normal(625)
    found = linalg.gaussian_posterior(A, y, 0.01)
    covariance = A.to_dense() - A.to_dense() @ np.linalg.solve(
        A.to_dense() + 0.01 * np.eye(625), A.to_dense()
    )
    assert np.abs(found.variance() - np.diag(covariance)).max() < 1e-10
    assert (found.variance() > 0).all()
    assert np.isfinite(found.sample(2, rng=0)).all()


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_halves_are_stored_and_not_computed_in(name):
    dtype = np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    own = kc.KroneckerMatrix([np.array([[1, 0.5], [0.5, 1]], dtype)] * 2)
    y = np.arange(4).astype(dtype)
    found, wide = (linalg.gaussian_posterior(A, y, 0.01) for A in (own, own.astype("float64")))
    for one, other in ((found.mean(), wide.mean()), (found.variance(), wide.variance())):
        assert one.dtype == dtype
        # One rounding to storage.
        np.testing.assert_allclose(one.astype(float), other, rtol=2.0**-7 if name == "bfloat16" else 2.0**-10)


def test_the_mean_has_derivatives_and_the_rest_says_that_it_has_none():
    torch = pytest.importorskip("torch")
    own, cross, prior = (list(part) for part in kernels())
    leaves = [torch.tensor(f, requires_grad=True) for f in own]
    level = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = torch.arange(12.0, dtype=torch.float64)
    found = linalg.gaussian_posterior(kc.KroneckerMatrix(leaves), y, level)
    there = found.at(*(kc.KroneckerMatrix([torch.tensor(f) for f in part]) for part in (cross, prior)))
    eye = torch.eye(12, dtype=torch.float64)
    weights = torch.linalg.solve(torch.kron(*leaves) + level * eye, y)
    for posterior, matrix in ((found, torch.kron(*leaves)), (there, torch.kron(*map(torch.tensor, cross)))):
        ours, theirs = (
            torch.autograd.grad(values.sin().sum(), [*leaves, level], retain_graph=True)
            for values in (posterior.mean(), matrix @ weights)
        )
        for one, other in zip(ours, theirs, strict=True):
            near(to_numpy(one), to_numpy(other), scale=1e3)
        for call in (posterior.variance, posterior.sample):
            text = f"^A must not require gradients for {call.__name__}, which has none, got one that"
            with pytest.raises(TypeError, match=text):
                call()
    A, text = (
        kc.KroneckerMatrix([f.detach() for f in leaves]),
        "^y must be an array of NumPy or CuPy where noise",
    )
    for noise, mask in ((torch.ones(12), None), (0.1, y > 3)):
        with pytest.raises(TypeError, match=text + " is an array or there is a mask, got torch"):
            linalg.gaussian_posterior(A, y, noise, mask=mask)


def test_errors_name_the_rule():
    own, cross, prior = (kc.KroneckerMatrix(list(part)) for part in kernels())
    y, call = np.ones(12), linalg.gaussian_posterior
    for error, text, arguments in (
        (TypeError, "^A must be a KroneckerMatrix for gaussian_posterior, got ndarray", (np.eye(12), y, 1)),
        (TypeError, "^A must have rank 1 for gaussian_posterior, or go through ketcore.linalg.cg, got rank 2",
         (own + own, y, 1)),
        (ValueError, r"^A must not be cropped for gaussian_posterior, got shape \(11, 11\)",
         (kc.KroneckerMatrix(own.factors, (11, 11)), y, 1)),
        (TypeError, r"^A must have square factors for gaussian_posterior, got dims \(2, 5\) and \(4, 3\)",
         (cross, y, 1)),
        (ValueError, r"^y must have shape \(12,\) or \(4, 3\), got \(3, 4\)", (own, y.reshape(3, 4), 1)),
        (ValueError, "^noise must be at least 0 and finite, got -1", (own, y, -1)),
        (TypeError, "^noise must be a number, an array or a KroneckerMatrix, got NoneType", (own, y, None)),
        (ValueError, "^noise must be at least 0 and finite, got -1.0", (own, y, -y)),
        (ValueError, "^noise must be at least 0 and finite, got nan", (own, y, np.nan * y)),
        (ValueError, "^noise must be at least 0 and finite, got inf", (own, y, np.inf)),
        (ValueError, "^noise must be at least 0 and finite, got inf", (own, y, np.inf * y)),
        (np.linalg.LinAlgError, "^noise must be positive definite, got factor 0 that is not",
         (own, y, -1 * kc.eye(SIZES))),
        (np.linalg.LinAlgError, "^noise must be finite and Hermitian, got factor 1 that is not",
         (own, y, kc.KroneckerMatrix([np.eye(4), np.triu(np.ones((3, 3)))]))),
        (np.linalg.LinAlgError, "^A must be finite and Hermitian, got factor 0 that is not",
         (kc.KroneckerMatrix([np.triu(np.ones((4, 4))), np.eye(3)]), y, 1)),
        (TypeError, "^noise must be real, got 1j", (own, y, 1j)),
        (TypeError, "^noise must be real, got complex128", (own, y, 1j * y)),
        (ValueError, r"^noise must have shape \(12,\) or \(4, 3\), got \(2,\)", (own, y, [1.0, 2.0])),
        (ValueError, r"^noise must have row and column dims \(4, 3\), got \(2, 5\)", (own, y, prior)),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            call(*arguments)
    for error, text, options in (
        (TypeError, "^mask must be booleans, got int64", {"mask": np.arange(12)}),
        (ValueError, "^mask must be true somewhere, got none", {"mask": np.zeros(12, bool)}),
        (TypeError, "^prior must be None without cross, got a KroneckerMatrix", {"prior": prior}),
        (TypeError, "^cross must be a KroneckerMatrix for gaussian_posterior, got int", {"cross": 3}),
        (TypeError, "^cross must have rank 1 for gaussian_posterior, got rank 2", {"cross": cross + cross}),
        (ValueError, r"^cross must have column dims \(4, 3\), got \(2, 5\)", {"cross": cross.T}),
        (ValueError, r"^prior must have row and column dims \(2, 5\), got", {"cross": cross, "prior": own}),
        (ValueError, "^rtol must be at least 0 and finite, got -1", {"rtol": -1}),
        (np.linalg.LinAlgError, "^maxiter must let conjugate gradients reach rtol 1e-06, got 1 iterations",
         {"mask": np.arange(12) % 3 > 0, "maxiter": 1}),
    ):  # fmt: skip
        with pytest.raises(error, match=text):
            call(own, y, 0.1, **options)
    with pytest.raises(
        TypeError, match="noise must be a number or an array where there is a mask, got a KroneckerP"
    ):
        call(own, y, kc.KroneckerProduct([kc.Identity(4), kc.Identity(3)]), mask=np.arange(12) > 3)


def test_errors_of_what_is_asked():
    own, cross, prior = (kc.KroneckerMatrix(list(part)) for part in kernels())
    y, call = np.ones(12), linalg.gaussian_posterior
    found, masked = call(own, y, 0.1), call(own, y, 0.1, mask=np.arange(12) > 3)
    with pytest.raises(
        TypeError, match=r"^points must be given where noise is an array or there is a mask, as each"
    ):
        masked.variance()
    for posterior in (found, masked):
        with pytest.raises(IndexError, match=r"^points must lie in \[0, 12\), got 12"):
            posterior.variance([12])
        for name in ("variance", "sample"):
            with pytest.raises(TypeError, match=f"^prior must be given with cross for {name}, got None"):
                getattr(posterior.at(cross), name)()
    with pytest.raises(
        np.linalg.LinAlgError, match=r"^A, cross and prior must be a positive semidefinite covar"
    ):
        found.at(2 * cross, prior).sample()
    with pytest.raises(TypeError, match=r"^rng must be None, a seed >= 0 or a Generator, got 'x'"):
        found.sample(rng="x")
    assert repr(masked) == "GaussianPosterior(row_dims=(4, 3), dtype=float64, data at 8 of 12 points)"
    assert repr(found.at(cross)) == "GaussianPosterior(row_dims=(2, 5), dtype=float64, data at 12 points)"
    with pytest.raises(ValueError, match=r"^size must be at least 0, got -1"):
        found.sample(-1)


@pytest.mark.parametrize("noise", [0.0, 3.0, [3.0] * 8, kc.eye((2, 2, 2))], ids=["0", "3", "array", "matrix"])
def test_a_covariance_is_not_negative(noise):
    """Else the mean would be that of no process, wherever A + noise is."""
    text = r"^A must be positive semidefinite, got an eigenvalue of -(1|0.25) times the largest"
    for diagonals in ([1, 1], [4, -1], [-1, -1]), ([-1, -2], [1, 1], [0.5, 2]), ([0, 1], [-1, 4], [3, 3]):
        negative = kc.KroneckerMatrix([np.diag(diagonal) for diagonal in diagonals])
        with pytest.raises(np.linalg.LinAlgError, match=text):
            kc.linalg.gaussian_posterior(negative, np.ones(8), noise)
    # Zero, twice a negative one, and of the size of rounding.
    for diagonals in ([0, 0], [1, 1], [1, 1]), ([-1, -2], [-1, -1], [1, 1]), ([1, 1], [1, -1e-16], [1, 2]):
        positive = kc.KroneckerMatrix([np.diag(diagonal) for diagonal in diagonals])
        assert kc.linalg.gaussian_posterior(positive, np.ones(8), noise or 1.0).variance([0, 7]).min() >= 0


def test_data_that_conjugate_gradients_read_are_finite():
    own, y = kc.eye((3, 2)), np.array([1.0, np.nan, 2.0, 3.0, np.inf, 4.0])
    with pytest.raises(ValueError, match=r"^y must be finite, got NaN or infinity \(mask says where there "):
        kc.linalg.gaussian_posterior(own, y, np.ones(6))
    with pytest.raises(ValueError, match=r"^y must be finite where the mask is true, got NaN or infinity"):
        kc.linalg.gaussian_posterior(own, y, 1.0, mask=np.arange(6) != 1)
    found = kc.linalg.gaussian_posterior(own, y, 1.0, mask=np.isfinite(y))
    np.testing.assert_allclose(found.mean(), [0.5, 0, 1, 1.5, 0, 2])
    assert np.isnan(kc.linalg.gaussian_posterior(own, y, 1.0).mean()).any()


def test_rounding_is_no_negative_eigenvalue_but_more_is():
    for least, refused in ((-2e-12, True), (-1e-15, False)):
        A = kc.KroneckerMatrix([np.diag([1.0, least]), np.eye(2)])
        if refused:
            with pytest.raises(
                np.linalg.LinAlgError, match=r"^A must be positive semidefinite, got .* -2e-12"
            ):
                kc.linalg.gaussian_posterior(A, np.ones(4), 1.0)
        else:
            assert kc.linalg.gaussian_posterior(A, np.ones(4), 1.0).variance().min() >= 0


def test_variances_at_the_points_of_the_data_are_not_negative():
    root = np.random.default_rng(0).standard_normal((30, 30))
    A = kc.KroneckerMatrix([root @ root.T, np.eye(1)])
    found = kc.linalg.gaussian_posterior(A, np.ones(30), 0.0, cross=A, prior=A).variance()
    # Of rounding half would be negative.
    assert found.min() == 0
    assert found.max() < 1e-9


def test_a_mask_that_is_true_everywhere_is_none_and_noise_behind_one_is_not_read():
    A, y = kc.KroneckerMatrix([np.diag([1.0, 2.0]), np.eye(2)]), np.ones(4)
    whole = kc.linalg.gaussian_posterior(A, y, 1.0, mask=np.ones((2, 2), bool))
    np.testing.assert_allclose(whole.variance(), [1 / 2, 1 / 2, 2 / 3, 2 / 3])
    noise, mask = np.array([1.0, np.nan, -1.0, 2.0]), np.array([True, False, False, True])
    part = kc.linalg.gaussian_posterior(A, y, noise, mask=mask)
    np.testing.assert_allclose(part.mean(), [1 / 2, 0, 0, 1 / 2], rtol=1e-6, atol=1e-12)
