"""Toy libraries of Kronecker products, each with one bug: dense NumPy but for the operations named here.

BUGS maps the name of a law to fields of an adapter, wrong in a way that this law must catch.
"""

from functools import reduce

import numpy as np
import scipy.linalg

from tests.identity_adapters import commutation, embed, kron_all, kron_sum, partial_trace, permute


def real_part(operation):
    """The imaginary parts of the arguments are lost on the way."""
    return lambda *arguments: operation(*(np.real(a) for a in arguments))


def clamped(operation):
    """Eigenvalues below a threshold are taken for rounding errors."""

    def eigenvalues(a):
        values = operation(a)
        return np.where(np.abs(values) < 1e-7, 0.0, values)

    return eigenvalues


class Factors:
    """A product that multiplies factor by factor, and refuses factors that are not aligned."""

    def __init__(self, matrices):
        self.matrices = matrices

    def __matmul__(self, other):
        return Factors([a @ b for a, b in zip(self.matrices, other.matrices, strict=True)])

    def to_dense(self):
        return kron_all(self.matrices)


def symmetric_only(a):
    """Solves with the lower triangle alone."""
    return np.tril(a) + np.tril(a, -1).T


def absolute_slogdet(a):
    sign, log = np.linalg.slogdet(a)
    return np.abs(sign), log


def real_slogdet(a):
    """The sign of the real part, which is no phase."""
    sign, log = np.linalg.slogdet(a)
    return np.sign(np.real(sign)) + 0 * sign, log


def slogdet_by_det(a):
    with np.errstate(all="ignore"):
        determinant = np.linalg.det(a)
        return np.sign(determinant), np.log(np.abs(determinant))


def slogdet_of_nonzero(a):
    sign, log = np.linalg.slogdet(a)
    return sign, np.maximum(log, -1e30)


def logdet_by_eigenvalues(a):
    """Takes the matrix for a positive one."""
    return np.sum(np.log(np.maximum(np.linalg.eigvalsh(a), 1e-7)))


def wrapped_row(a, i):
    return a[i % len(a)]


def wrapped_element(a, i, j):
    return a[i % a.shape[0], j % a.shape[1]]


def scaled_in_place(a, number):
    a *= number
    return a


def trace_of_all(a, dims, where):
    """The subsystems that are left count from the wrong end."""
    return partial_trace(a, dims, tuple(len(dims) - 1 - n for n in where))


def inverse_permutation(a, row_dims, col_dims, order):
    return permute(a, row_dims, col_dims, np.argsort(order))


def last_columns(a, b):
    return np.einsum("ij,kj->kij", a, b).reshape(-1, a.shape[1])


def rows_swapped(a, b):
    return scipy.linalg.khatri_rao(b.T, a.T).T


def ridge(a):
    """A pseudo-inverse with a regularisation that was left in."""
    return np.linalg.solve(a.conj().T @ a + 1e-2 * np.eye(a.shape[1]), a.conj().T)


def square_roots(a):
    """A root, but not the one that is Hermitian."""
    return scipy.linalg.cholesky(a, lower=True)


BUGS = {
    "definition": {"make": lambda matrices: kron_all(matrices[::-1])},
    "neutral factor": {"make": lambda matrices: kron_all([a if a.size > 1 else np.eye(2) for a in matrices])},
    "mixed product": {"matmul": real_part(np.matmul)},
    "misaligned product": {"make": Factors},
    "products associate": {"matmul": lambda a, b: a @ b + 1e-3},
    "Kronecker product": {"kron": lambda a, b: np.kron(b, a)},
    "Kronecker products associate": {"kron": lambda a, b: np.kron(a, b + 1)},
    "bilinearity": {"add": lambda a, b: a + b.conj()},
    "scalars": {"scale": lambda a, number: a * number**2},
    "distributivity": {"add": lambda a, b: a + 2 * b},
    "product with dense": {"apply": lambda a, x: a @ x if x.ndim == 1 else a @ x[:, ::-1]},
    "dense times": {"apply_left": lambda x, a: x.conj() @ a},
    "vec by rows": {"make": lambda matrices: reduce(lambda a, b: np.kron(b, a), matrices)},
    "vec by columns": {"apply": lambda a, x: a @ x[::-1]},
    "transpose": {"transpose": lambda a: a.conj().T},
    "transpose of a product": {"transpose": lambda a: a},
    "conjugate": {"conj": lambda a: a},
    "adjoint": {"adjoint": lambda a: a.T},
    "adjoint test": {"adjoint": lambda a: a.T},
    "powers": {"matrix_power": lambda a, n: np.linalg.matrix_power(a, max(n, 1))},
    "determinant, every sign": {"det": lambda a: np.abs(np.linalg.det(a))},
    "determinant, complex phase": {"det": lambda a: np.linalg.det(a).real},
    "determinant, singular": {"det": lambda a: np.linalg.det(a) + 1e-3},
    "determinant of a product": {"det": lambda a: np.linalg.det(a) + 1},
    "slogdet, every sign": {"slogdet": absolute_slogdet},
    "slogdet, complex phase": {"slogdet": real_slogdet},
    "slogdet beyond the range": {"slogdet": slogdet_by_det},
    "slogdet, singular": {"slogdet": slogdet_of_nonzero},
    "log-determinant, positive": {"logdet": lambda a: np.linalg.slogdet(a)[1] / np.log(2)},
    "log-determinant, small": {"logdet": logdet_by_eigenvalues},
    "log-determinant, general": {"logdet": logdet_by_eigenvalues},
    "log-determinant, negative": {"logdet": lambda a: np.linalg.slogdet(a)[1]},
    "trace": {"trace": real_part(np.trace)},
    "trace is cyclic": {"trace": lambda a: np.trace(a) + a[0, -1]},
    "norm": {"norm": lambda a: np.sqrt(np.abs(np.sum(a * a)))},
    "inner product": {"vdot": lambda a, b: np.sum(a * b)},
    "matrix rank": {"matrix_rank": lambda a: min(a.shape)},
    "inverse": {"inv": lambda a: np.linalg.inv(symmetric_only(a))},
    "solve": {"solve": lambda a, b: np.linalg.solve(symmetric_only(a), b)},
    "solve, positive": {"solve": lambda a, b: np.linalg.solve(a.T, b)},
    "pseudo-inverse": {"pinv": ridge},
    "Cholesky": {"cholesky": lambda a: np.linalg.cholesky(a).conj()},
    "square root": {"sqrtm": square_roots},
    "eigenvalues": {"eigvals": lambda a: np.linalg.eigvals(a).real},
    "eigenvalues, Hermitian": {"eigvalsh": lambda a: np.linalg.svdvals(a)},
    "eigenvalues, small": {"eigvalsh": clamped(np.linalg.eigvalsh)},
    "singular values": {"svdvals": lambda a: np.linalg.svdvals(a) ** 2},
    "Kronecker sum": {"kron_sum": lambda matrices: kron_sum(matrices[::-1])},
    "Kronecker sum, eigenvalues": {"eigvals": lambda a: np.abs(np.linalg.eigvals(a))},
    "Kronecker sum, exponential": {"expm": np.exp},
    "Kronecker sum, trace": {"trace": lambda a: np.trace(a) / len(a)},
    "Khatri-Rao": {"khatri_rao": last_columns},
    "Khatri-Rao, mixed": {"khatri_rao": last_columns},
    "Khatri-Rao, Gram": {"khatri_rao": real_part(scipy.linalg.khatri_rao)},
    "face-splitting": {"face_splitting": rows_swapped},
    "face-splitting, mixed": {"face_splitting": rows_swapped},
    "Hadamard": {"multiply": lambda a, b: a * b.conj()},
    "partial trace": {"partial_trace": trace_of_all},
    "permuted subsystems": {"permute": inverse_permutation},
    "embedded": {"embed": lambda gate, dims, where: embed(gate, dims, sorted(where))},
    "commutation of vectors": {"commutation": lambda m, n: commutation(n, m)},
    "commutation": {"commutation": lambda m, n: commutation(n, m)},
    "commutation is orthogonal": {"commutation": lambda m, n: np.roll(commutation(m, n), 1, axis=0)},
    "rows": {"row": lambda a, i: a[:, i % a.shape[1]]},
    "elements": {"element": lambda a, i, j: a[j % a.shape[0], i % a.shape[1]]},
    "rows outside": {"row": wrapped_row},
    "elements outside": {"element": wrapped_element},
    "dtype kept": {"matmul": lambda a, b: a @ b.astype(complex)},
    "arguments untouched": {"scale": scaled_in_place},
}
