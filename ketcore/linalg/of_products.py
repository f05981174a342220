"""Products with structured parts: what is diagonal stays so, and an identity costs nothing.

Letters: N order, p_n size of part n, P = prod p_n.
"""

from functools import partial, reduce
from math import isfinite, prod
from numbers import Number
from operator import mul
from typing import Any, TypeGuard

import array_api_compat
import numpy as np

from ketcore import ops
from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import detached
from ketcore.arrays.namespaces import accumulation_dtype, is_array, is_numpy, to_host, value_of
from ketcore.linalg import closed_forms
from ketcore.objects.kronecker_product import Diagonal, Identity, KroneckerProduct
from ketcore.objects.parts import level_parts
from ketcore.spectra import decompositions, powers


def is_structured(A: Any, shift: Any = 0.0) -> TypeGuard[KroneckerProduct]:
    """Whether `A` is a product of square parts, and nothing is added that would mix them."""
    return isinstance(A, KroneckerProduct) and A.row_dims == A.col_dims and closed_forms.is_zero(shift)


def inv(A: KroneckerProduct, look: bool) -> KroneckerProduct:
    """The inverse: of a diagonal part a diagonal one; a sparse part becomes dense."""
    found = []
    for n, part in enumerate(_wide(A, "inv", look)):
        if isinstance(part, Diagonal):
            xp = array_api_compat.array_namespace(part.values)
            part = Diagonal(closed_forms.in_storage(xp, 1 / _nonzero(xp, n, part.values, look), A.dtype))
        elif not isinstance(part, Identity):
            xp = array_api_compat.array_namespace(part)
            rule = f"A must be invertible, got a singular factor {n}"
            inverse = partial(closed_forms.factor_inverse, look=look)
            (inverted,) = closed_forms.factor_wise(xp, inverse, [part], rule, look)
            part = closed_forms.in_storage(xp, inverted, A.dtype)
        found.append(part)
    return KroneckerProduct(found)


def solve(A: KroneckerProduct, b: AnyArray, axis: int, assume_a: str | None) -> AnyArray:
    """The x with A x = b along `axis` (-1, or -2 before columns), part by part."""
    xp = array_api_compat.array_namespace(*closed_forms.arrays_of(A), b)
    dtype, shape = xp.result_type(*closed_forms.arrays_of(A), b), tuple(b.shape)
    x = xp.astype(b, accumulation_dtype(xp, dtype), copy=False)
    before, after, look = prod(shape[:axis]), prod(shape[axis:]), assume_a is None
    for n, part in enumerate(level_parts(_wide(A, "solve", look))):
        after //= part.shape[0]
        x = xp.reshape(x, (before, part.shape[0], after))
        if isinstance(part, Diagonal):
            x = x / _nonzero(xp, n, part.values, look)[:, None]
        elif not isinstance(part, Identity):
            x = solve_factors([part[None, ...]], x, None, -2, n, assume_a)
        before *= part.shape[0]
    return xp.astype(xp.reshape(x, shape), dtype, copy=False)


def solve_factors(
    factors: list[AnyArray], b: AnyArray, shift: Any, axis: int, first: int = 0, assume_a: str | None = None
) -> AnyArray:
    """`ops.kron_solve` with LinAlgError on every library, in words of linalg; factor 0 is called `first`."""
    look = assume_a is None and not is_numpy(b)
    try:
        if look and shift is None:
            _check_factors(factors)
        x = ops.kron_solve(factors, b, shift, axis=axis, assume_a=assume_a)
        if look and shift is not None:
            _check_solution(factors, shift, b, x)
        return x
    except (np.linalg.LinAlgError, RuntimeError) as error:
        if "LinAlgError" not in type(error).__name__:
            raise
        known = closed_forms.named(error, first)
        # What the library raises says no more.
        singular = np.linalg.LinAlgError("A must be invertible with its shift, got a singular matrix")
        raise known or singular from None


def _check_factors(factors):
    """For other libraries than NumPy: they may answer for a matrix that is singular but for rounding."""
    decompositions.inverses([to_host(matrix) for matrix in _exact(factors)])


def _check_solution(factors, shift, b, x):
    """As with NumPy: an eigenvalue and the shift leave a few roundings of the largest of them."""
    matrices, largest = _exact(factors), [_largest(part) for part in (b, x)]
    number: Any = shift if isinstance(shift, Number) else value_of(shift)
    # What is traced cannot be looked at.
    if None in (number, *largest) or not isfinite(largest[0]):
        return
    xp = array_api_compat.array_namespace(b)
    norms = [value_of(xp.linalg.matrix_norm(m, ord=2)) for m in matrices]
    size, eps = max(prod(norms), abs(number)), float(xp.finfo(matrices[0].dtype).eps)
    if not 8 * eps * size * largest[1] <= largest[0]:
        raise decompositions.singular_shift(f"{complex(number):.6g}")


def _exact(factors):
    """The matrices of factors (1, p_n, p_n) in 64 bits, without derivatives."""
    xp = array_api_compat.array_namespace(*factors)
    return [detached(xp.astype(f[0, ...], decompositions.factor_dtype(xp, f.dtype))) for f in factors]


def _largest(array):
    """The largest absolute value, zero of nothing; None where JAX traces it."""
    xp = array_api_compat.array_namespace(array)
    return 0.0 if 0 in array.shape else value_of(xp.max(xp.abs(detached(array))))


def slogdet(A: KroneckerProduct, look: bool = True) -> tuple[AnyArray, AnyArray]:
    """The sign or phase of the determinant and the logarithm of its absolute value."""
    size, signs, total = prod(A.row_dims), [], 0.0
    for part in _wide(A, "slogdet", look):
        if not isinstance(part, Identity):
            sign, logarithm = _slogdet(part, look)
            xp, power = array_api_compat.array_namespace(sign), size // part.shape[0]
            signs.append(powers.sign_power(xp, sign, power))
            total = total + powers.multiple(logarithm, power)
    return (reduce(mul, signs), total) if signs else (np.ones(()), np.zeros(()))


def _slogdet(part, look):
    """Sign and logarithm of a part; those of a diagonal without forming it."""
    if not isinstance(part, Diagonal):
        return array_api_compat.array_namespace(part).linalg.slogdet(part)
    xp, values = array_api_compat.array_namespace(part.values), part.values
    size = xp.abs(values)
    if look and value_of(xp.any(size == 0)):
        return 0 * xp.ones_like(values[0]), xp.full_like(size[0], -np.inf)
    return xp.prod(values / size), xp.sum(xp.log(size))


def _wide(A, function, look):
    """The parts, sparse ones dense, in the accumulation dtype of A; LinAlgError where one is not finite."""
    closed_forms.check_no_operators(A, function)
    found = []
    for n, part in enumerate(A.parts):
        if not isinstance(part, Identity):
            values = part.values if isinstance(part, Diagonal) else part
            values = values if is_array(values) else values.toarray()
            xp = array_api_compat.array_namespace(values)
            values = xp.astype(values, accumulation_dtype(xp, A.dtype), copy=False)
            if look:
                closed_forms.check_finite(xp, [values], function, n)
            part = Diagonal(values) if isinstance(part, Diagonal) else values
        found.append(part)
    return found


def _nonzero(xp, n, values, look):
    if look and value_of(xp.any(values == 0)):
        raise np.linalg.LinAlgError(f"A must be invertible, got a singular factor {n}")
    return values
