"""Linear algebra of Kronecker matrices, factor by factor, under the names and conventions of SciPy.

By task:

- systems: `solve` (exact), `lstsq` (least squares), `cg` (iterative, for sums and masks), `inv`, `pinv`;
- determinants with sign and phase: `det`, `slogdet`; `shift` adds s I;
- Gaussians: `gaussian_log_likelihood` of data under a covariance A + s I, and `gaussian_posterior`, the mean,
  the variance and samples of a process on a grid, given data;
- spectra, the values as a Ket and the vectors as a KroneckerMatrix: `eigh`, `eig`, `svd`; the values alone:
  `eigvalsh`, `eigvals`, `svdvals`;
- triangular factorisations: `qr`, `cholesky`;
- functions of a matrix: `matrix_power`, `sqrtm`, `expm`;
- sizes: `norm`, `cond`, `matrix_rank`.

Nearly all of it is exact for one Kronecker product (`A.rank == 1`, or of order 1) that is not cropped, and
much of it for a KroneckerSum; `solve`, `slogdet`, `det` and `gaussian_log_likelihood` are for a sum of two
products of Hermitian factors as well, of which one is positive definite; what has no closed form raises a
TypeError that names what does the work instead.  A KroneckerProduct counts as the KroneckerMatrix that it
converts to.

Values decide here (a factor may be singular, or not Hermitian), so that these functions wait for a device;
`assume_a` says what needs no look.  Tensors of PyTorch that require gradients, and arrays under jax.grad, are
looked at without these, and results have the derivatives of the formula, or a TypeError says that there are
none.  Under jax.jit there are no values: where they decide, `assume_a` must say what is known, or a TypeError
says that they are needed; where they are only checked, what is not finite comes out as NaN.  Factors in 16
bits are computed in float32 and the result is cast back.
"""

from ketcore.linalg.determinants import SlogdetResult, det, slogdet
from ketcore.linalg.factorisations import QRResult, cholesky, qr
from ketcore.linalg.functions import expm, matrix_power, sqrtm
from ketcore.linalg.gaussian import gaussian_log_likelihood
from ketcore.linalg.iterative import cg
from ketcore.linalg.norms import cond, matrix_rank, norm
from ketcore.linalg.posterior import GaussianPosterior, gaussian_posterior
from ketcore.linalg.solving import LstsqResult, inv, lstsq, pinv, solve
from ketcore.linalg.spectral import (
    EigResult,
    SVDResult,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    svd,
    svdvals,
)

__all__ = [
    "EigResult",
    "GaussianPosterior",
    "LstsqResult",
    "QRResult",
    "SVDResult",
    "SlogdetResult",
    "cg",
    "cholesky",
    "cond",
    "det",
    "eig",
    "eigh",
    "eigvals",
    "eigvalsh",
    "expm",
    "gaussian_log_likelihood",
    "gaussian_posterior",
    "inv",
    "lstsq",
    "matrix_power",
    "matrix_rank",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "sqrtm",
    "svd",
    "svdvals",
]


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
