"""Whether two objects are equal to rounding, by norms, without going dense.

Norms, and what they are compared with, are numbers near 1 times a power of two of their own: what is out of
the range of the dtype is compared as all else.
"""

from math import frexp, inf, prod, sqrt
from typing import Any

import numpy as np

from ketcore.arrays import scale
from ketcore.arrays.autodiff import is_traced
from ketcore.arrays.elementary import beside
from ketcore.arrays.namespaces import accumulation_dtype, is_half, namespace_of, quiet, to_host
from ketcore.objects.alignment import aligned_inner
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.operands import is_dense
from ketcore.objects.operator import Operator
from ketcore.objects.part_products import part_inner, split_alike
from ketcore.objects.parts import Diagonal, Identity, changed, kind_of, numbers_of
from ketcore.objects.permutation import Permutation
from ketcore.shapes import check_size

# A permutation among sums of Kronecker products takes a GiB of float64 at most.
_LARGEST = 2**27


@quiet
def allclose(
    a: Ket[Any] | Operator[Any], b: Ket[Any] | Operator[Any], rtol: float | None = None, atol: float = 0.0
) -> bool:
    """Whether `|a - b| <= atol + rtol max(|a|, |b|)`, in Euclidean (Frobenius) norms: for kets, of each ket.

    Parameters
    ----------
    a, b : Ket or operator
        Two kets, or two operators of any kinds, of equal shapes; dims must split at common places.
    rtol : float, optional
        Relative to the larger norm, not to elements.  None is 4 sqrt(eps) of the less precise dtype, since
        norms come of inner products: equal float32 objects may differ by 3e-4.  Halves are compared in
        float32, to 4 eps of their own.
    atol : float, default 0.0
        A number that `|a - b|` may have whatever the norms are.

    Returns
    -------
    bool
        One of Python.  False where a norm is not finite; norms beyond the range of the dtype are, of
        finite objects.  Two permutations are close where they are equal.

    Raises
    ------
    TypeError
        On kinds, on mixed libraries, and where values are traced, as under jax.jit.
    ValueError
        On shapes, on dims without common places (see `to_dense`), rtol and atol.
    MemoryError
        Where parts of a KroneckerProduct beside another kind, or a Permutation beside one, are too large as
        terms.

    Notes
    -----
    Cost: that of three norms, O((R + R')^2 sum p_n q_n); of two products that of their parts.

    Examples
    --------
    >>> from ketcore import eye
    >>> allclose(eye((2, 3)), eye(6)), allclose(eye((2,) * 70), eye((2,) * 70) * 1.001)
    (True, False)
    """
    a, b = (KroneckerProduct([one]) if isinstance(one, Diagonal | Identity) else one for one in (a, b))
    _check_pair(a, b)
    atol = check_size("atol", atol)
    if isinstance(a, Permutation) and isinstance(b, Permutation):
        return _merged(a) == _merged(b)
    if not (isinstance(a, KroneckerProduct) and isinstance(b, KroneckerProduct)):
        a, b = _comparable(a, b), _comparable(b, a)
    rtol = max(_default_rtol(one) for one in (a, b)) if rtol is None else check_size("rtol", rtol)
    a, b = map(_widened, (a, b))
    if any(map(is_traced, (*_arrays(a), *_arrays(b)))):
        raise TypeError("a and b must be known by their values for allclose, got one that is traced")
    sizes, gap, exponent = _of_products(a, b) if isinstance(a, KroneckerProduct) else _of_terms(a, b)
    larger = np.maximum(*sizes)
    # What is not finite compares with nothing, infinity with itself included.
    close = np.isfinite(gap + larger) & (gap <= np.ldexp(atol, -exponent) + rtol * larger)
    return bool(np.all(close))


def _arrays(one):
    return one._arrays() if isinstance(one, Operator) else (one.packed,)


def _check_pair(a, b):
    for name, one in (("a", a), ("b", b)):
        if not isinstance(one, Ket | KroneckerMatrix | KroneckerSum | KroneckerProduct | Permutation):
            way = " (see to_dense)" if is_dense(one) else ""
            raise TypeError(f"{name} must be a ket or an operator, got {type(one).__name__}{way}")
    if isinstance(a, Ket) != isinstance(b, Ket):
        kinds = f"{type(a).__name__} and {type(b).__name__}"
        raise TypeError(f"a and b must be both kets or both operators, got {kinds}")
    if a.shape != b.shape:
        raise ValueError(f"a and b must have equal shapes, got {a.shape} and {b.shape}")


def _comparable(one, other):
    """Of what has no sums of its own the same matrix as a sum of Kronecker products, beside another."""
    if isinstance(one, Permutation):
        return _terms(one, other._like())
    return one._terms_beside(other) if isinstance(one, KroneckerProduct) else one


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


def _of_terms(a, b):
    """|a| and |b|, |a - b|, over a power of two that all have, and its exponent, each (...)."""
    # Of sums the difference of the factors, which rounds far less than that of their terms.
    gap = _sized(_as_terms(a - b))[1:] if isinstance(a, KroneckerSum) and a.dims == _dims(b) else None
    a, *mine = _sized(_as_terms(a))
    b, *others = _sized(_as_terms(b))
    exponent = np.maximum(mine[1], others[1])
    sizes = [np.ldexp(size, own - exponent) for size, own in (mine, others)]
    if gap is not None:
        return sizes, np.ldexp(gap[0], gap[1] - exponent), exponent
    a, b = (_lowered(one, exponent - own) for one, (_, own) in ((a, mine), (b, others)))
    return sizes, _gap(a, b, *sizes), exponent


def _dims(one):
    return one.dims if isinstance(one, KroneckerSum) else None


def _as_terms(one):
    return one.to_kronecker() if isinstance(one, KroneckerSum) else one


def _sized(one):
    """The same over 2^exponent, its norm in host memory, and the exponent, (...)."""
    factors, tops = scale.unit_terms(one.factors, -1 if isinstance(one, Ket) else None)
    one = Ket(factors) if isinstance(one, Ket) else KroneckerMatrix(factors, one.shape)
    return one, np.asarray(to_host(one.norm()), np.float64), to_host(tops).astype(np.int64)


def _lowered(one, steps):
    """Over 2^steps."""
    if not steps.any():
        return one
    first, *rest = one.factors
    shift = beside(-steps.astype(np.float64), first)
    first = scale.times_power(first, shift[..., None, None])
    return Ket([first, *rest]) if isinstance(one, Ket) else KroneckerMatrix([first, *rest], one.shape)


def _gap(a: Any, b: Any, size: np.ndarray, other: np.ndarray) -> np.ndarray:
    """|a - b|, of kets split in different ways by their inner product."""
    if not isinstance(a, Ket) or a.dims == b.dims:
        return np.asarray(to_host((a - b).norm()), np.float64)
    try:
        inner = np.real(to_host(aligned_inner(a, b))).astype(np.float64)
    except ValueError as error:
        raise ValueError(f"{error} (see to_dense)") from None
    return np.sqrt(np.maximum(size**2 + other**2 - 2 * inner, 0))


def _of_products(a, b):
    """As `_of_terms` for two products: by the inner products of their parts, which are not made dense."""
    _, like, _ = kind_of((*a.parts, *b.parts))
    sizes, exponents, cosine = [1.0, 1.0], [0, 0], complex(1.0)
    for pair in split_alike(a.parts, b.parts, like):
        units, shifts = zip(*(_unit_part(part, like) for part in pair), strict=True)
        squares = [complex(to_host(like + part_inner(unit, unit, like))).real for unit in units]
        inner = complex(to_host(like + part_inner(*units, like)))
        # Exactly 1 of equal parts; of zeros any number serves.
        cosine *= inner / (sqrt(squares[0] * squares[1]) or 1.0)
        for n in range(2):
            sizes[n], more = frexp(sizes[n] * sqrt(squares[n]))
            exponents[n] += shifts[n] + more
    exponent = max(exponents)
    sizes = [np.ldexp(size, own - exponent) for size, own in zip(sizes, exponents, strict=True)]
    squared = sizes[0] ** 2 + sizes[1] ** 2 - 2 * sizes[0] * sizes[1] * cosine.real
    return sizes, np.sqrt(np.maximum(squared, 0)), np.int64(exponent)


def _unit_part(part, like):
    """A part over 2^shift, with numbers of at most 1, and the shift."""
    if isinstance(part, Identity):
        return part, 0
    xp = namespace_of(like)
    peak = float(to_host(xp.max(xp.abs(numbers_of(part, like)))))
    shift = frexp(peak)[1] if 0 < peak < inf else 0
    return changed(part, lambda numbers: scale.times_power(numbers, float(-shift))), shift


def _merged(permutation):
    """The runs of modes that stay together, in their new order, as what lies before them and their sizes.

    They are the same for all permutations that are equal.
    """
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
