"""Adapters for the laws of Kronecker products: dense NumPy and SciPy, and ketcore."""

from functools import reduce

import numpy as np
import scipy.linalg

import ketcore as kc
from ketcore.testing import Adapter, named_operations


def kron_all(matrices):
    return reduce(np.kron, matrices)


def kron_sum(matrices):
    eyes = [np.eye(len(a), dtype=a.dtype) for a in matrices]
    return sum(kron_all([*eyes[:n], a, *eyes[n + 1 :]]) for n, a in enumerate(matrices))


def partial_trace(a, dims, where):
    a = a.reshape(*dims, *dims)
    for n in sorted(where, reverse=True):
        a = np.trace(a, axis1=n, axis2=n + a.ndim // 2)
    size = int(np.prod(a.shape[: a.ndim // 2]))
    return a.reshape(size, size)


def permute(a, row_dims, col_dims, order):
    axes = [*order, *(len(row_dims) + n for n in order)]
    return a.reshape(*row_dims, *col_dims).transpose(axes).reshape(a.shape)


def embed(gate, dims, where):
    places = [*where, *(n for n in range(len(dims)) if n not in where)]
    beside = int(np.prod(dims)) // len(gate)
    shape = [dims[n] for n in places]
    return permute(np.kron(gate, np.eye(beside)), shape, shape, np.argsort(places))


def logdet(a):
    sign, log = np.linalg.slogdet(a)
    return log if np.abs(sign - 1) < 1e-3 else np.nan


def commutation(m, n):
    return np.eye(m * n).reshape(m, n, m * n).swapaxes(0, 1).reshape(m * n, m * n)


NAMED = Adapter(
    make=lambda matrices: reduce(np.kron, matrices),
    # NumPy's cut-off for small singular values is none for float32.
    **named_operations(np.linalg, np, scipy.linalg) | {"pinv": scipy.linalg.pinv},
)

DENSE = Adapter(
    make=kron_all,
    adjoint=lambda a: a.conj().T,
    logdet=logdet,
    kron_sum=kron_sum,
    face_splitting=lambda a, b: scipy.linalg.khatri_rao(a.T, b.T).T,
    partial_trace=partial_trace,
    permute=permute,
    embed=embed,
    commutation=commutation,
    row=lambda a, i: a[i],
    element=lambda a, i, j: a[i, j],
    **named_operations(np.linalg, np, scipy.linalg) | {"pinv": scipy.linalg.pinv},
)

FACTORED = Adapter(
    kc.KroneckerMatrix,
    **named_operations(kc.linalg, kc, make=kc.KroneckerMatrix)
    | {
        "conj": lambda a: a.conj(),
        "adjoint": lambda a: a.H,
        "vdot": lambda a, b: a.inner(b),
        "trace": lambda a: a.trace(),
        # NumPy's principal logarithm of the sign.
        "logdet": lambda a: np.log(kc.linalg.slogdet(a)[0] + 0j) + kc.linalg.slogdet(a)[1],
        "kron_sum": kc.KroneckerSum,
        "multiply": kc.hadamard,
        "partial_trace": lambda a, dims, where: kc.partial_trace(a, where),
        "permute": lambda a, row_dims, col_dims, order: kc.permute_subsystems(a, order),
        # A batch of kets, one for each column; and the convention of vec by columns.
        "khatri_rao": lambda a, b: kc.khatri_rao(a, b).to_dense().T,
        "commutation": lambda m, n: kc.commutation(n, m),
        "row": lambda a, i: a[i],
        "element": lambda a, i, j: a[i, j],
    },
)
