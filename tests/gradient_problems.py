"""Functions of linalg and their dense definitions, on torch and on JAX, for `test_linalg_gradients`."""

from functools import reduce

import numpy as np

import ketcore as kc
from ketcore import linalg
from ketcore.testing import to_numpy

SIZES = (3, 2)


class Torch:
    """What the cases need of torch; gradients by torch.autograd."""

    def __init__(self):
        import torch

        self.lib, self.linalg, self.kron = torch, torch.linalg, torch.kron
        self.expm = torch.linalg.matrix_exp

    def asarray(self, values):
        return self.lib.asarray(np.array(values))

    def eye(self, size, like):
        return self.lib.eye(size, dtype=like.dtype)

    def gradient(self, loss, arrays):
        leaves = [self.asarray(a).requires_grad_() for a in arrays]
        return [to_numpy(g) for g in self.lib.autograd.grad(loss(leaves), leaves)]

    def hessian(self, loss, arrays):
        """Of the loss, times a fixed direction."""
        leaves = [self.asarray(a).requires_grad_() for a in arrays]
        first = self.lib.autograd.grad(loss(leaves), leaves, create_graph=True)
        moved = sum((g * self.asarray(direction(g.shape))).sum().real for g in first)
        return [to_numpy(g) for g in self.lib.autograd.grad(moved, leaves)]


class Jax:
    """The same of JAX; gradients by jax.grad."""

    def __init__(self):
        import jax

        jax.config.update("jax_enable_x64", True)
        self.lib, self.jax, self.linalg, self.kron = jax.numpy, jax, jax.numpy.linalg, jax.numpy.kron
        self.expm = jax.scipy.linalg.expm

    def asarray(self, values):
        return self.lib.asarray(values)

    def eye(self, size, like):
        return self.lib.eye(size, dtype=like.dtype)

    def gradient(self, loss, arrays):
        return [to_numpy(g) for g in self.jax.grad(loss)([self.asarray(a) for a in arrays])]

    def hessian(self, loss, arrays):
        def moved(leaves):
            first = self.jax.grad(loss)(leaves)
            return sum((g * self.asarray(direction(g.shape))).sum().real for g in first)

        return self.gradient(moved, arrays)


def direction(shape):
    return np.cos(1.0 + np.arange(int(np.prod(shape)))).reshape(shape)


def general(rng, dtype, sizes=SIZES):
    """Factors, each near a multiple of the identity."""
    return [random(rng, (p, p), dtype) + (3 + p) * np.eye(p) for p in sizes]


def definite(rng, dtype, sizes=SIZES):
    """Hermitian positive definite ones, one of them with all eigenvalues equal."""
    found = [random(rng, (p, p), dtype) for p in sizes]
    found = [f @ f.conj().T + np.eye(len(f)) for f in found]
    found[-1] = 1.5 * np.eye(sizes[-1], dtype=dtype)
    return found


def pairs(rng, dtype):
    """Those of two terms: of the whitened ones some are all equal, and all eigenvalues of one mode."""
    return [*definite(rng, dtype), *definite(rng, dtype)]


def distinct_pairs(rng, dtype):
    return [*distinct(rng, dtype), *distinct(rng, dtype)]


def beside_diagonal(rng, dtype):
    """Those of a Kronecker sum."""
    return [definite(rng, dtype)[0], definite(rng, dtype, (SIZES[1],))[0] + 2 * np.eye(SIZES[1])]


def distinct(rng, dtype):
    """Hermitian ones whose product has no eigenvalue twice."""
    found = [random(rng, (p, p), dtype) for p in SIZES]
    return [f @ f.conj().T + np.eye(len(f)) for f in found]


def tall(rng, dtype):
    return [random(rng, (4, 2), dtype), random(rng, (3, 3), dtype) + 4 * np.eye(3)]


def wide(rng, dtype):
    return [random(rng, (2, 4), dtype), random(rng, (2, 3), dtype)]


def deficient(rng, dtype):
    """Two factors of a matrix of rank 2 and one of rank 1."""
    return [random(rng, shape, dtype) for shape in ((4, 2), (2, 3), (3, 1), (1, 2))]


def random(rng, shape, dtype):
    values = rng.standard_normal(shape)
    return (values + 1j * rng.standard_normal(shape) if dtype == "complex128" else values).astype(dtype)


def product(factors):
    return kc.KroneckerMatrix(factors)


def dense(xp, factors):
    return reduce(xp.kron, factors)


def dense_sum(xp, factors):
    total = 0
    for n in range(len(factors)):
        parts = [f if m == n else xp.eye(f.shape[0], f) for m, f in enumerate(factors)]
        total = total + reduce(xp.kron, parts)
    return total


def shifted(xp, matrix, shift):
    return matrix + shift * xp.eye(matrix.shape[0], matrix)


def right(xp, factors, columns=()):
    size = int(np.prod([f.shape[0] for f in factors]))
    return xp.lib.asarray(direction((size, *columns)), dtype=factors[0].dtype)


def adjoint(matrix):
    return matrix.conj().T


def low_rank(f):
    return [f[0] @ f[1], f[2] @ f[3]]


def spectral_function(values, vectors):
    return (vectors * values**2) @ adjoint(vectors)


def root(xp, matrix):
    values, vectors = xp.linalg.eigh(matrix)
    return spectral_function(values**0.25, vectors)


def gaussian(xp, matrix, y):
    """The density, continued to all matrices by the real part as ketcore's is."""
    is_real = matrix.dtype in (xp.lib.float64,)
    half = 0.5 if is_real else 1.0
    inner = (y.conj() * xp.linalg.solve(matrix, y[:, None])[:, 0]).sum()
    constant = np.log(2 * np.pi if is_real else np.pi) * matrix.shape[0]
    return -half * (inner.real + xp.linalg.slogdet(matrix)[1] + constant)


def without_gauge(q, r):
    """What does not depend on the phases that a decomposition leaves open."""
    return [q @ adjoint(q), adjoint(r) @ r]


def both(parts):
    return [part.to_dense() for part in parts]


def diagonal_product(factors):
    return kc.KroneckerProduct([factors[0], kc.Diagonal(factors[1].diagonal()), kc.Identity(2)])


def dense_of_diagonal_product(xp, factors):
    parts = [factors[0], factors[1] * xp.eye(factors[1].shape[0], factors[1]), xp.eye(2, factors[0])]
    return reduce(xp.kron, parts)


def constant_sum(xp, make):
    """A Kronecker sum that is not differentiated."""
    like = xp.asarray(np.ones(1))
    return make([xp.asarray(direction((p, p)) + 9 * np.eye(p)) * like for p in SIZES])


# name: (values of the arrays, ours, the dense definition).  Both are functions of the library and the arrays.
CASES = {
    "solve": (general, lambda xp, f: linalg.solve(product(f), right(xp, f)),
              lambda xp, f: xp.linalg.solve(dense(xp, f), right(xp, f))),
    "solve of columns": (general, lambda xp, f: linalg.solve(product(f), right(xp, f, (2,))),
                         lambda xp, f: xp.linalg.solve(dense(xp, f), right(xp, f, (2,)))),
    "solve with shift": (general, lambda xp, f: linalg.solve(product(f), right(xp, f), 0.7),
                         lambda xp, f: xp.linalg.solve(shifted(xp, dense(xp, f), 0.7), right(xp, f))),
    "solve with a complex shift": (
        general, lambda xp, f: linalg.solve(product(f), right(xp, f, (2,)), 0.7 + 2j),
        lambda xp, f: xp.linalg.solve(shifted(xp, dense(xp, f) + 0j, 0.7 + 2j), right(xp, f, (2,)) + 0j)),
    "solve of Hermitian ones with shift": (
        definite, lambda xp, f: linalg.solve(product(f), right(xp, f, (2,)), 0.7),
        lambda xp, f: xp.linalg.solve(shifted(xp, dense(xp, f), 0.7), right(xp, f, (2,)))),
    "solve by its shift": (
        definite, lambda xp, f: linalg.solve(product(f), right(xp, f), f[0][0, 0].real),
        lambda xp, f: xp.linalg.solve(shifted(xp, dense(xp, f), f[0][0, 0].real), right(xp, f))),
    "solve by its right side": (
        general, lambda xp, f: linalg.solve(product(f), (f[0] @ right(xp, f, (2,))[:3, :]).reshape(-1)),
        lambda xp, f: xp.linalg.solve(dense(xp, f), (f[0] @ right(xp, f, (2,))[:3, :]).reshape(-1))),
    "solve for a ket": (
        general, lambda xp, f: linalg.solve(product(f), kc.Ket([f[0][:1, :], f[1][1:, :]])).to_dense(),
        lambda xp, f: xp.linalg.solve(dense(xp, f), xp.kron(f[0][0, :], f[1][1, :]))),
    "solve of structured parts": (
        general, lambda xp, f: linalg.solve(diagonal_product(f), right(xp, [*f, np.eye(2)], (2,))),
        lambda xp, f: xp.linalg.solve(dense_of_diagonal_product(xp, f), right(xp, [*f, np.eye(2)], (2,)))),
    "solve of a sum": (general, lambda xp, f: linalg.solve(kc.KroneckerSum(f), right(xp, f)),
                       lambda xp, f: xp.linalg.solve(dense_sum(xp, f), right(xp, f))),
    "solve of a sum with shift": (
        general, lambda xp, f: linalg.solve(kc.KroneckerSum(f), right(xp, f, (2,)), -0.3),
        lambda xp, f: xp.linalg.solve(shifted(xp, dense_sum(xp, f), -0.3), right(xp, f, (2,)))),
    "solve of a sum by its right side": (
        general,
        lambda xp, f: linalg.solve(constant_sum(xp, kc.KroneckerSum), f[0].reshape(-1)[:6], f[1][0, 0]),
        lambda xp, f: xp.linalg.solve(shifted(xp, constant_sum(xp, lambda g: dense_sum(xp, g)), f[1][0, 0]),
                                      f[0].reshape(-1)[:6])),
    "solve of a Hermitian sum": (
        definite, lambda xp, f: linalg.solve(kc.KroneckerSum(f), right(xp, f, (2,)), 0.3),
        lambda xp, f: xp.linalg.solve(shifted(xp, dense_sum(xp, f), 0.3), right(xp, f, (2,)))),
    "inv": (general, lambda xp, f: linalg.inv(product(f)).to_dense(),
            lambda xp, f: xp.linalg.inv(dense(xp, f))),
    "inv of structured parts": (general, lambda xp, f: linalg.inv(diagonal_product(f)).to_dense(),
                                lambda xp, f: xp.linalg.inv(dense_of_diagonal_product(xp, f))),
    "pinv": (general, lambda xp, f: linalg.pinv(product(f)).to_dense(),
             lambda xp, f: xp.linalg.inv(dense(xp, f))),
    "pinv of equal singular values": (definite, lambda xp, f: linalg.pinv(product(f)).to_dense(),
                                      lambda xp, f: xp.linalg.inv(dense(xp, f))),
    "pinv of a tall one": (tall, lambda xp, f: linalg.pinv(product(f)).to_dense(),
                           lambda xp, f: xp.linalg.pinv(dense(xp, f))),
    "pinv of a wide one": (wide, lambda xp, f: linalg.pinv(product(f)).to_dense(),
                           lambda xp, f: xp.linalg.pinv(dense(xp, f))),
    "pinv of low rank": (deficient, lambda xp, f: linalg.pinv(product(low_rank(f)), rtol=1e-9).to_dense(),
                         lambda xp, f: xp.linalg.pinv(dense(xp, low_rank(f)), rtol=1e-9)),
    "lstsq": (tall, lambda xp, f: list(linalg.lstsq(product(f), right(xp, f))[:2]),
              lambda xp, f: least_squares(xp, dense(xp, f), right(xp, f))),
    "lstsq of low rank": (
        deficient, lambda xp, f: linalg.lstsq(product(low_rank(f)), right(xp, low_rank(f)), 1e-9).x,
        lambda xp, f: xp.linalg.pinv(dense(xp, low_rank(f)), rtol=1e-9) @ right(xp, low_rank(f))),
    "matrix_rank": (general, lambda xp, f: linalg.matrix_rank(product(f)) * f[0] + f[1][0, 0],
                    lambda xp, f: 6 * f[0] + f[1][0, 0]),
    "det": (general, lambda xp, f: linalg.det(product(f)), lambda xp, f: xp.linalg.det(dense(xp, f))),
    "slogdet": (general, lambda xp, f: list(linalg.slogdet(product(f))),
                lambda xp, f: list(xp.linalg.slogdet(dense(xp, f)))),
    "slogdet with shift": (general, lambda xp, f: list(linalg.slogdet(product(f), 0.7)),
                           lambda xp, f: list(xp.linalg.slogdet(shifted(xp, dense(xp, f), 0.7)))),
    "slogdet of Hermitian ones with shift": (
        definite, lambda xp, f: linalg.slogdet(product(f), 0.7)[1],
        lambda xp, f: xp.linalg.slogdet(shifted(xp, dense(xp, f), 0.7))[1]),
    "slogdet of a sum": (general, lambda xp, f: list(linalg.slogdet(kc.KroneckerSum(f), 0.7)),
                         lambda xp, f: list(xp.linalg.slogdet(shifted(xp, dense_sum(xp, f), 0.7)))),
    "det of a sum": (general, lambda xp, f: linalg.det(kc.KroneckerSum(f)),
                     lambda xp, f: xp.linalg.det(dense_sum(xp, f))),
    "det of structured parts": (general, lambda xp, f: linalg.det(diagonal_product(f)),
                                lambda xp, f: xp.linalg.det(dense_of_diagonal_product(xp, f))),
    "cond": (general, lambda xp, f: linalg.cond(product(f)), lambda xp, f: xp.linalg.cond(dense(xp, f))),
    "cond 1": (general, lambda xp, f: linalg.cond(product(f), 1),
               lambda xp, f: norm_1(xp, dense(xp, f)) * norm_1(xp, xp.linalg.inv(dense(xp, f)))),
    "norm": (tall, lambda xp, f: linalg.norm(product(f)), lambda xp, f: xp.linalg.norm(dense(xp, f))),
    "norm 2": (tall, lambda xp, f: linalg.norm(product(f), 2), lambda xp, f: xp.linalg.norm(dense(xp, f), 2)),
    "norm nuc": (tall, lambda xp, f: linalg.norm(product(f), "nuc"),
                 lambda xp, f: xp.linalg.norm(dense(xp, f), "nuc")),
    "norm 1": (tall, lambda xp, f: linalg.norm(product(f), 1), lambda xp, f: xp.linalg.norm(dense(xp, f), 1)),
    "norm 2 of a sum": (distinct, lambda xp, f: linalg.norm(kc.KroneckerSum(f), 2),
                        lambda xp, f: xp.linalg.eigvalsh(dense_sum(xp, f)).max()),
    "eigvalsh": (distinct, lambda xp, f: (linalg.eigvalsh(product(f)).to_dense() ** 3).sum(),
                 lambda xp, f: (xp.linalg.eigvalsh(dense(xp, f)) ** 3).sum()),
    "eigh": (distinct, lambda xp, f: spectral_function(*both(linalg.eigh(product(f)))),
             lambda xp, f: spectral_function(*xp.linalg.eigh(dense(xp, f)))),
    "eigh of a sum": (distinct, lambda xp, f: spectral_function(*both(linalg.eigh(kc.KroneckerSum(f)))),
                      lambda xp, f: spectral_function(*xp.linalg.eigh(dense_sum(xp, f)))),
    "eigvals": (general, lambda xp, f: (linalg.eigvals(product(f)).to_dense() ** 3).sum(),
                lambda xp, f: (xp.linalg.eigvals(dense(xp, f)) ** 3).sum()),
    "svdvals": (tall, lambda xp, f: (linalg.svdvals(product(f)).to_dense() ** 3).sum(),
                lambda xp, f: (xp.linalg.svd(dense(xp, f), full_matrices=False)[1] ** 3).sum()),
    "svd": (tall, lambda xp, f: polar(*both(linalg.svd(product(f)))),
            lambda xp, f: polar(*xp.linalg.svd(dense(xp, f), full_matrices=False))),
    "qr": (tall, lambda xp, f: without_gauge(*both(linalg.qr(product(f)))),
           lambda xp, f: without_gauge(*xp.linalg.qr(dense(xp, f)))),
    "cholesky": (definite, lambda xp, f: linalg.cholesky(product(f), lower=True).to_dense(),
                 lambda xp, f: xp.linalg.cholesky(symmetric(dense(xp, f)))),
    "matrix_power": (general, lambda xp, f: linalg.matrix_power(product(f), 3).to_dense(),
                     lambda xp, f: xp.linalg.matrix_power(dense(xp, f), 3)),
    "matrix_power -2": (general, lambda xp, f: linalg.matrix_power(product(f), -2).to_dense(),
                        lambda xp, f: xp.linalg.matrix_power(dense(xp, f), -2)),
    "gaussian_log_likelihood": (
        definite, lambda xp, f: linalg.gaussian_log_likelihood(product(f), right(xp, f), 0.7),
        lambda xp, f: gaussian(xp, shifted(xp, dense(xp, f), 0.7), right(xp, f))),
    "gaussian_log_likelihood of symmetrised ones": (
        distinct,
        lambda xp, f: linalg.gaussian_log_likelihood(product([symmetric(p) for p in f]), right(xp, f), 0.7),
        lambda xp, f: gaussian(xp, shifted(xp, dense(xp, [symmetric(p) for p in f]), 0.7), right(xp, f))),
    "solve of two terms": (
        pairs, lambda xp, f: linalg.solve(two_terms(f), right(xp, f[:2], (2,))),
        lambda xp, f: xp.linalg.solve(dense_of_two(xp, f), right(xp, f[:2], (2,)))),
    "solve of two terms by their shift": (
        beside_diagonal, lambda xp, f: linalg.solve(with_identity(xp, f), right(xp, f), f[0][0, 0].real),
        lambda xp, f: xp.linalg.solve(dense_with_identity(xp, f, f[0][0, 0].real), right(xp, f))),
    "slogdet of two terms": (
        pairs, lambda xp, f: list(linalg.slogdet(two_terms(f)))[1],
        lambda xp, f: xp.linalg.slogdet(dense_of_two(xp, f))[1]),
    "gaussian_log_likelihood of two terms": (
        pairs, lambda xp, f: linalg.gaussian_log_likelihood(two_terms(f), right(xp, f[:2])),
        lambda xp, f: gaussian(xp, dense_of_two(xp, f), right(xp, f[:2]))),
    "gaussian_log_likelihood of two terms without equal eigenvalues": (
        distinct_pairs,
        lambda xp, f: linalg.gaussian_log_likelihood(two_terms(list(map(symmetric, f))), right(xp, f[:2])),
        lambda xp, f: gaussian(xp, dense_of_two(xp, list(map(symmetric, f))), right(xp, f[:2]))),
    "expm": (general, lambda xp, f: linalg.expm(kc.KroneckerSum([0.1 * part for part in f])).to_dense(),
             lambda xp, f: xp.expm(0.1 * dense_sum(xp, f))),
    "sqrtm": (distinct, lambda xp, f: linalg.sqrtm(product([symmetric(part) for part in f])).to_dense(),
              lambda xp, f: root(xp, dense(xp, [symmetric(part) for part in f]))),
    "sqrtm of a negative one": (
        distinct, lambda xp, f: linalg.sqrtm(product([-symmetric(f[0]), symmetric(f[1])])).to_dense(),
        lambda xp, f: 1j * root(xp, dense(xp, [symmetric(part) for part in f]))),
}  # fmt: skip


def two_terms(f):
    return product(f[:2]) + product(f[2:])


def dense_of_two(xp, f):
    return xp.kron(*f[:2]) + xp.kron(*f[2:])


def with_identity(xp, f):
    """A (x) I + I (x) B, of which the identities are known."""
    known = kc.KroneckerMatrix([xp.eye(f[0].shape[0], f[0]), f[1]], identities=[0])
    return kc.KroneckerMatrix([f[0], xp.eye(f[1].shape[0], f[1])], identities=[1]) + known


def dense_with_identity(xp, f, shift):
    eyes = [xp.eye(part.shape[0], part) for part in f[:2]]
    return shifted(xp, xp.kron(f[0], eyes[1]) + xp.kron(eyes[0], f[1]), shift)


def least_squares(xp, matrix, b):
    x = xp.linalg.pinv(matrix) @ b
    return [x, ((abs(b - matrix @ x)) ** 2).sum()]


def symmetric(matrix):
    return (matrix + adjoint(matrix)) / 2


def norm_1(xp, matrix):
    return xp.linalg.norm(matrix, 1)


def polar(u, s, vh):
    return u @ vh


def loss_of(function, library):
    """The real part of a fixed sum of the elements of all outputs."""

    def loss(arrays):
        outputs = function(library, arrays)
        total = 0
        for output in outputs if isinstance(outputs, list) else [outputs]:
            weights = library.asarray(direction(output.shape))
            part = (output * weights).sum()
            total = total + part.real + part.imag if "complex" in str(part.dtype) else total + part
        return total

    return loss
