"""What the functions of linalg share: the factors of a single Kronecker product, and errors that name them.

A sum of R > 1 products has none of the closed forms here, and a cropped product has none either; a matrix of
order 1 is one matrix, whatever its rank and crop.  Values are read on every device, which waits for it; what
is read is a copy that PyTorch and JAX do not differentiate, and what is returned is computed of the original.
"""

from collections.abc import Callable, Sequence
from math import prod
from numbers import Number, Real
from types import ModuleType
from typing import Any, NoReturn, TypeAlias

import array_api_compat
import numpy as np

from ketcore.array_types import AnyArray, ArrayT
from ketcore.arrays import scale
from ketcore.arrays.autodiff import detached
from ketcore.arrays.elementary import adjoint, complex_dtype, widened
from ketcore.arrays.namespaces import is_array, is_complex, is_half, namespace, namespace_of, value_of
from ketcore.objects import arithmetic
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.part_operators import is_operator
from ketcore.shapes import as_float, shown
from ketcore.spectra import decompositions, symmetry

# What does the work of a function where it has no closed form.
_WAYS = {
    "solve": "ketcore.linalg.cg",
    "inv": "ketcore.linalg.cg",
    "lstsq": "scipy.sparse.linalg.lsqr(A.as_linear_operator(), b)",
    "pinv": "scipy.sparse.linalg.lsqr(A.as_linear_operator(), b)",
    "slogdet": "the eigenvalues of A.to_dense()",
    "det": "the eigenvalues of A.to_dense()",
    "eigh": "scipy.sparse.linalg.eigsh(A.as_linear_operator())",
    "eigvalsh": "scipy.sparse.linalg.eigsh(A.as_linear_operator())",
    "eig": "scipy.sparse.linalg.eigs(A.as_linear_operator())",
    "eigvals": "scipy.sparse.linalg.eigs(A.as_linear_operator())",
    "svd": "scipy.sparse.linalg.svds(A.as_linear_operator())",
    "svdvals": "scipy.sparse.linalg.svds(A.as_linear_operator())",
    "norm": "scipy.sparse.linalg.svds(A.as_linear_operator())",
    "cond": "scipy.sparse.linalg.svds(A.as_linear_operator())",
    "matrix_rank": "scipy.sparse.linalg.svds(A.as_linear_operator())",
    "qr": "ketcore.recompress(A, rank=1)",
    "cholesky": "ketcore.recompress(A, rank=1)",
    "sqrtm": "ketcore.recompress(A, rank=1)",
    "gaussian_log_likelihood": "ketcore.linalg.cg",
    "matrix_power": "products A @ A",
    "expm": "scipy.sparse.linalg.expm_multiply(A.as_linear_operator(), b)",
}
# What does so for a Kronecker sum, where that is another thing.
_WAYS_OF_SUMS = {
    "inv": "ketcore.linalg.solve",
    "pinv": "ketcore.linalg.eigh",
    "sqrtm": "ketcore.linalg.eigh",
    "matrix_power": "products of A.to_kronecker()",
    "qr": "ketcore.linalg.eigh",
    "cholesky": "ketcore.linalg.eigh",
    "gaussian_log_likelihood": "ketcore.linalg.solve and slogdet",
}

# The functions that `assume_a` spares every look at values.
_ASSUMING = {"solve", "inv", "slogdet", "gaussian_log_likelihood", "eigh", "eigvalsh", "cholesky"}

# The functions that `of_two_terms` has for a sum of two products.
_OF_TWO_TERMS = {"solve", "slogdet", "det", "gaussian_log_likelihood"}


# What linear algebra takes: one product of factors; or a Kronecker sum as well.
Matrix: TypeAlias = KroneckerMatrix[ArrayT] | KroneckerProduct[ArrayT]
System: TypeAlias = Matrix[ArrayT] | KroneckerSum[ArrayT]


def kronecker_matrix(A: Any, function: str) -> KroneckerMatrix:
    """`A` as a KroneckerMatrix; TypeError, naming `function` and a way out, where it is none."""
    if isinstance(A, KroneckerMatrix):
        return A
    if isinstance(A, KroneckerProduct):
        check_no_operators(A, function)
        return A.to_kronecker()
    if isinstance(A, KroneckerSum):
        way = _WAYS_OF_SUMS.get(function, _WAYS[function])
        raise TypeError(
            f"A must be a KroneckerMatrix for {function}, or go through {way}, got a KroneckerSum"
        )
    raise TypeError(f"A must be a KroneckerMatrix or a KroneckerSum for {function}, got {type(A).__name__}")


def check_no_operators(A: KroneckerProduct, function: str) -> None:
    """TypeError where a part is a linear operator, whose entries nobody has."""
    for n, part in enumerate(A.parts):
        if is_operator(part):
            rule = f"no linear operators among its parts for {function} (to_kronecker() makes them dense)"
            raise TypeError(f"A must have {rule}, got {type(part).__name__} as part {n}")


def operator(A: Any, function: str) -> Any:
    """`A` as it is, if it is a KroneckerSum or something that `kronecker_matrix` takes."""
    return A if isinstance(A, KroneckerSum) else kronecker_matrix(A, function)


def single(
    A: Any, function: str, look: bool = True, decides: bool = True
) -> tuple[ModuleType, list[AnyArray]]:
    """The namespace and the N factors (p_n, q_n) of one Kronecker product, in their accumulation dtype.

    Factors of opposite scales are brought to one level (`ketcore.arrays.scale`).

    Parameters
    ----------
    look : bool, default True
        Whether values may be read.
    decides : bool, default True
        As of `check_finite`.

    Raises
    ------
    TypeError
        Naming a way out, on other types and where A has several terms; and as `check_finite`.
    ValueError
        Where it is cropped.
    LinAlgError
        Where it is not finite.
    """
    A = kronecker_matrix(A, function)
    xp = array_api_compat.array_namespace(*A.factors)
    way, of_two = _WAYS[function], function in _OF_TWO_TERMS
    if A.order > 1 and A.rank > (2 if of_two else 1):
        ranks = "rank 1 or 2" if of_two else "rank 1"
        raise TypeError(f"A must have {ranks} for {function}, or go through {way}, got rank {A.rank}")
    full = (prod(A.row_dims), prod(A.col_dims))
    if A.order > 1 and A.shape != full:
        raise ValueError(
            f"A must not be cropped for {function}, or go through {way}, got shape {A.shape} of {full}"
        )
    matrices = [widened(f) for f in A.factors]
    matrices = [xp.sum(f, axis=0) if f.shape[0] != 1 else f[0, ...] for f in matrices]
    if A.order == 1:
        matrices = [matrices[0][: A.shape[0], : A.shape[1]]]
    if look:
        check_finite(xp, matrices, function, decides=decides)
        matrices = list(scale.level_matrices(matrices, (A.identities,)))
    return xp, matrices


def check_finite(
    xp: ModuleType, matrices: Sequence[AnyArray], function: str, first: int = 0, decides: bool = True
) -> None:
    """LinAlgError where a factor holds NaN or infinity.

    Where it is traced, and has no values, a TypeError if these decide what `function` does; if they do not,
    it is not looked at, and what is not finite comes out as NaN.  `first` is the number of the first factor.
    """
    for n, matrix in enumerate(matrices, first):
        finite = value_of(xp.all(xp.isfinite(matrix)))
        if finite is None and not decides:
            continue
        if finite is None:
            known = "its values or by assume_a" if function in _ASSUMING else "its values"
            raise TypeError(f"A must be known by {known} for {function}, got factor {n} that is traced")
        if not finite:
            raise np.linalg.LinAlgError(f"A must be finite for {function}, got NaN or infinity in factor {n}")


def assumption(A: Any, assume_a: str | None) -> bool | None:
    """Whether `assume_a` says that the factors of A are Hermitian; None where they must be looked at."""
    like = arrays_of(A)[:1]
    is_real = not (like and is_complex(namespace_of(like[0]), A.dtype))
    return symmetry.assumed_hermitian(assume_a, is_real)


def arrays_of(A: Any) -> tuple[AnyArray, ...]:
    """Arrays that tell the library, device and dtype of an operator."""
    if not isinstance(A, KroneckerProduct):
        return A.factors
    # Arrays have a `data` too, and those of torch a method `values`.
    values = [p if is_array(p) else getattr(p, "values", getattr(p, "data", None)) for p in A.parts]
    return tuple(v for v in values if is_array(v))


def square(matrices: Sequence[AnyArray], function: str) -> bool:
    """Whether all factors are square; LinAlgError where their product is not."""
    rows, columns = (prod(m.shape[axis] for m in matrices) for axis in (0, 1))
    if rows != columns:
        raise np.linalg.LinAlgError(f"A must be square for {function}, got shape {(rows, columns)}")
    return all(m.shape[0] == m.shape[1] for m in matrices)


def square_factors(matrices: Sequence[AnyArray], function: str) -> None:
    """LinAlgError where the product is not square, TypeError where its factors are not."""
    if not square(matrices, function):
        shapes = [tuple(m.shape) for m in matrices]
        raise TypeError(f"A must have square factors for {function}, got shapes {shown(shapes)}")


def named(error: Exception, first: int = 0) -> np.linalg.LinAlgError | None:
    """The error of an operation in words of linalg, `factors` being those of A; None for any other error.

    `first` is the number of its factor 0.
    """
    fault = error.args[0] if error.args else None
    if not isinstance(fault, decompositions.Fault):
        return None
    if fault.factor is not None:
        fault = fault._replace(name="A", factor=first + fault.factor)
    return np.linalg.LinAlgError(str(fault))


def factor_wise(
    xp: ModuleType,
    function: Callable[[AnyArray], Any],
    matrices: Sequence[AnyArray],
    rule: str,
    look: bool = True,
) -> list[Any]:
    """The values of `function` for each factor; LinAlgError with the text of `rule` where it has none.

    That is where the library raises one or, if values may be read, where it answers with NaN, as CuPy does.
    In the text {n} is the number of the factor.
    """
    found = []
    for n, matrix in enumerate(matrices):
        try:
            result = function(matrix)
        except (np.linalg.LinAlgError, RuntimeError) as error:
            # The class of torch is a RuntimeError.
            if "LinAlgError" not in type(error).__name__:
                raise
            raise np.linalg.LinAlgError(rule.format(n=n)) from None
        parts = result if isinstance(result, tuple) else (result,)
        if look and any(value_of(xp.all(xp.isfinite(part))) is False for part in parts):
            raise np.linalg.LinAlgError(rule.format(n=n))
        found.append(result)
    return found


def factor_inverse(matrix: AnyArray, look: bool = True) -> AnyArray:
    """The inverse, computed in 64 bits; NaN where a look shows the matrix singular to their precision."""
    xp = namespace_of(matrix)
    wide = xp.astype(matrix, decompositions.factor_dtype(xp, matrix.dtype), copy=False)
    found = xp.linalg.inv(wide)
    if look and _is_singular(xp, *map(detached, (wide, found))):
        found = xp.full_like(found, np.nan)
    return xp.astype(found, matrix.dtype, copy=False)


def _is_singular(xp, matrix, inverse):
    sizes = [value_of(xp.max(xp.sum(xp.abs(m), axis=0))) for m in (matrix, inverse)]
    return sizes[0] * sizes[1] * float(xp.finfo(matrix.dtype).eps) > 1


def hermitian(
    xp: ModuleType, matrices: Sequence[AnyArray], function: str, stored: Any, assumed: bool | None = None
) -> list[AnyArray]:
    """Hermitian factors of the same product.

    Parameters
    ----------
    stored : dtype
        The dtype that the factors were rounded to.
    assumed : bool, optional
        Whether they are known to be Hermitian, and are not looked at.

    Raises
    ------
    LinAlgError
        Where a factor is not Hermitian, whatever its phase, or the phases do not cancel.

    Notes
    -----
    A product is Hermitian where its factors are, each but for a phase: those phases multiply to 1 or -1,
    which the first factor takes.  A phase that is not real makes its factor complex, as that of two skew
    ones.
    """
    square_factors(matrices, function)
    if assumed is not None:
        return [(matrix + adjoint(matrix)) / 2 for matrix in matrices]
    if not all(value_of(xp.any(matrix != 0)) for matrix in matrices):
        # A factor of zeros makes the product zero, whatever the others are.
        return [xp.zeros_like(matrix) for matrix in matrices]
    found, phase = [], 1.0
    for n, matrix in enumerate(matrices):
        turned, turn = _without_phase(xp, matrix, stored)
        if turned is None:
            raise np.linalg.LinAlgError(f"A must be Hermitian for {function}, got factor {n} that is not")
        found.append(turned)
        phase *= turn
    # The phases come from sums of p_n^2 terms and are as exact as the factors are Hermitian.
    if abs(phase.imag) > max(symmetry.slack(xp, stored, m.shape[0]) for m in matrices):
        raise np.linalg.LinAlgError(
            f"A must be Hermitian for {function}, got factors whose phases multiply to {phase:.3g}"
        )
    found[0] = found[0] if phase.real > 0 else -found[0]
    return found


def is_hermitian_factor(xp: ModuleType, matrix: AnyArray, stored: Any) -> bool:
    """Whether a square matrix, rounded to the dtype `stored`, is its conjugate transpose but for rounding."""
    return symmetry.is_hermitian(xp, [detached(matrix)], [stored]) is True


def _without_phase(xp, matrix, stored):
    """A Hermitian matrix and the phase that makes it `matrix`; (None, 1) where there is none."""
    if is_hermitian_factor(xp, matrix, stored):
        return (matrix + adjoint(matrix)) / 2, 1.0
    # Of exp(i t) H the trace of the square is exp(2 i t) |H|^2.
    scaled = detached(matrix) / xp.max(xp.abs(detached(matrix)))
    squared = complex(value_of(xp.sum(scaled * scaled.T)))
    if squared == 0:
        return None, 1.0
    turn = (squared / abs(squared)) ** 0.5
    turned = xp.astype(matrix, complex_dtype(xp, matrix.dtype)) * turn.conjugate()
    if not is_hermitian_factor(xp, turned, stored):
        return None, 1.0
    return (turned + adjoint(turned)) / 2, turn


def in_storage(xp: ModuleType, array: AnyArray, dtype: Any) -> AnyArray:
    """A real result in the 16-bit dtype of the factors where that is theirs, else as it is."""
    if is_half(dtype) and not is_complex(xp, array.dtype):
        return xp.astype(array, dtype)
    return array


def stored_factors(
    xp: ModuleType, matrices: Sequence[AnyArray], dtype: Any, identities: frozenset[int] = frozenset()
) -> list[AnyArray]:
    """`in_storage` of the factors of one product, at one level where one of them would leave the range."""
    if not is_half(dtype) or any(is_complex(xp, matrix.dtype) for matrix in matrices):
        return list(matrices)
    return scale.stored(matrices, dtype, (-2, -1), (identities,))


def not_invertible(matrices: Sequence[AnyArray]) -> NoReturn:
    """LinAlgError that names a factor which is not square: the product of such factors is singular."""
    n = next(n for n, m in enumerate(matrices) if m.shape[0] != m.shape[1])
    raise np.linalg.LinAlgError(f"A must be invertible, got factor {n} of shape {tuple(matrices[n].shape)}")


def identities_of(A: Any) -> frozenset[int]:
    """The modes that `A`, of one term, knows to be identities: a sum of them is none."""
    return A.identities if isinstance(A, KroneckerMatrix) and A.rank == 1 else frozenset()


def check_level(name: str, value: Any) -> float:
    """`value` as a float of at least 0, perhaps infinite; TypeError or ValueError that names it otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {shown(value)}")
    number = as_float(name, arithmetic.as_number(name, value))
    if not number >= 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return number


def is_zero(shift: Any) -> bool:
    """Whether `shift` is a zero on the host."""
    return isinstance(shift, Number | np.ndarray) and getattr(shift, "ndim", 0) == 0 and bool(shift == 0)


def as_shift(shift: Any, like: AnyArray) -> AnyArray | float | complex | None:
    """A number as one of Python, or an array without dimensions beside `like` as it is; None for zero.

    It is not rounded here: it takes the precision of the result, of which A alone does not tell.
    """
    if not arithmetic.is_scalar(shift):
        raise TypeError(f"shift must be a number, got {type(shift).__name__}")
    if is_zero(shift):
        return None
    number = arithmetic.as_number("shift", shift)
    if is_array(number):
        namespace("A and shift", (like, number))
        return number
    if not np.isfinite(complex(number)):
        raise ValueError(f"shift must be finite, got {number}")
    return complex(number) if isinstance(number, complex) else float(number)
