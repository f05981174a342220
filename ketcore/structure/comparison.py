"""Whether two objects are equal to rounding, by norms, without going dense."""

from math import prod
from typing import Any

import numpy as np

from ketcore.arrays.autodiff import is_traced
from ketcore.arrays.elementary import beside
from ketcore.arrays.namespaces import accumulation_dtype, is_half, namespace_of, quiet, to_host
from ketcore.objects.alignment import aligned_inner
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.operator import Operator
from ketcore.objects.permutation import Permutation
from ketcore.shapes import check_size

# A permutation among sums of Kronecker products takes a GiB of float64 at most.
_LARGEST = 2**27


@quiet
def allclose(
    a: Ket[Any] | Operator[Any], b: Ket[Any] | Operator[Any], rtol: float | None = None, atol: float = 0.0
) -> bool:
    """Whether |a - b| <= atol + rtol max(|a|, |b|), in Euclidean (Frobenius) norms: for kets, of each ket.

    a, b     two kets, or two operators of any kinds, of equal shapes; dims must split at common places
    rtol     relative to the larger norm, not to elements.  None is 4 sqrt(eps) of the less precise dtype,
             since norms come of inner products: equal float32 objects may differ by 3e-4.  Halves are
             compared in float32, to 4 eps of their own
    atol     a number that |a - b| may have whatever the norms are
    returns  a bool of Python.  False where a norm is not finite, beyond the range of the dtype included.  Two
             permutations are close where they are equal
    raises   TypeError on kinds, on mixed libraries, and where values are traced, as under jax.jit;
             ValueError on shapes, on dims without common places (see to_dense), rtol and atol; MemoryError
             where parts of a KroneckerProduct, or a Permutation beside another kind, are too large as terms
    cost     that of three norms, O((R + R')^2 sum p_n q_n)

    >>> from ketcore import eye
    >>> allclose(eye((2, 3)), eye(6)), allclose(eye((2,) * 70), eye((2,) * 70) * 1.001)
    (True, False)
    """
    _check_pair(a, b)
    atol = check_size("atol", atol)
    if isinstance(a, Permutation) and isinstance(b, Permutation):
        return _merged(a) == _merged(b)
    like = (b if isinstance(a, Permutation) else a)._like()
    a, b = (_comparable(one, like) for one in (a, b))
    rtol = max(_default_rtol(one) for one in (a, b)) if rtol is None else check_size("rtol", rtol)
    a, b = map(_widened, (a, b))
    if is_traced(a._like()) or is_traced(b._like()):
        raise TypeError("a and b must be known by their values for allclose, got one that is traced")
    sizes = [_size(one) for one in (a, b)]
    gap = _gap(a, b, *sizes)
    # What is not finite compares with nothing, infinity with itself included.
    finite = np.isfinite(gap) & np.isfinite(sizes[0]) & np.isfinite(sizes[1])
    return bool(np.all(finite & (gap <= atol + rtol * np.maximum(*sizes))))


def _check_pair(a, b):
    for name, one in (("a", a), ("b", b)):
        if not isinstance(one, Ket | KroneckerMatrix | KroneckerSum | KroneckerProduct | Permutation):
            raise TypeError(f"{name} must be a ket or an operator, got {type(one).__name__}")
    if isinstance(a, Ket) != isinstance(b, Ket):
        kinds = f"{type(a).__name__} and {type(b).__name__}"
        raise TypeError(f"a and b must be both kets or both operators, got {kinds}")
    if a.shape != b.shape:
        raise ValueError(f"a and b must have equal shapes, got {a.shape} and {b.shape}")


def _comparable(one, like):
    """Of what has no sums of its own the same matrix as a sum of Kronecker products."""
    if isinstance(one, Permutation):
        return _terms(one, like)
    return one.to_kronecker() if isinstance(one, KroneckerProduct) else one


def _default_rtol(one):
    """Of halves the sums are exact to float32, and the numbers to no more than their own eps."""
    like = one._like()
    xp = namespace_of(like)
    sums = 4 * xp.finfo(accumulation_dtype(xp, like.dtype)).eps ** 0.5
    return max(sums, 4 * _eps_of_half(like.dtype)) if is_half(like.dtype) else sums


def _eps_of_half(dtype):
    # NumPy has no finfo of bfloat16.
    return 2.0**-7 if "bfloat16" in str(dtype) else 2.0**-10


def _widened(one):
    """Halves in float32, whose norms are in the range of more of them."""
    like = one._like()
    return one.astype(namespace_of(like).float32) if is_half(like.dtype) else one


def _size(one):
    return np.asarray(to_host(one.norm()), np.float64)


def _gap(a: Any, b: Any, size: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|a - b|, of kets split in different ways by their inner product."""
    if isinstance(a, KroneckerSum) and isinstance(b, KroneckerSum) and a.dims != b.dims:
        a, b = a.to_kronecker(), b.to_kronecker()
    if not isinstance(a, Ket) or a.dims == b.dims:
        return _size(a - b)
    try:
        inner = np.real(to_host(aligned_inner(a, b))).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{error} (see to_dense)") from None
    return np.sqrt(np.maximum(size**2 + other**2 - 2 * inner, 0))


def _merged(permutation):
    """The runs of modes that stay together, in their new order, as what lies before them and their sizes:
    the same for all permutations that are equal."""
    dims, runs = permutation.dims, []
    for n in permutation.order:
        before, size = prod(dims[:n]), dims[n]
        if runs and runs[-1][0] * runs[-1][1] == before:
            runs[-1] = runs[-1][0], runs[-1][1] * size
        elif size > 1:
            runs.append((before, size))
    return runs


def _terms(permutation, like):
    """A permutation as one term for each choice of the digits that it moves, beside `like`."""
    dims, order = permutation.dims, permutation.order
    moved = [n for n in range(len(dims)) if order[n] != n]
    count = prod(dims[n] for n in moved)
    size = count * sum(dims[order[n]] * dims[n] for n in range(len(dims)))
    if size > _LARGEST:
        rule = f"have terms of at most {_LARGEST} numbers beside another kind than Permutation"
        raise MemoryError(f"a Permutation must {rule}, got {size} (see to_dense)")
    places = np.indices([dims[n] for n in moved]).reshape(len(moved), count)
    digits = dict(zip(moved, places, strict=True))
    factors = []
    for n, dim in enumerate(dims):
        factor = np.zeros((count, dims[order[n]], dim))
        if n in digits:
            factor[np.arange(count), digits[order[n]], digits[n]] = 1
        else:
            factor[:] = np.eye(dim)
        factors.append(beside(factor, like))
    return KroneckerMatrix(factors).astype(like.dtype)
