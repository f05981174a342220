"""Linear operators as parts of a KroneckerProduct: what has shape, dtype, matmat and rmatmat.

They are those of SciPy and CuPy, our own, and anybody's.  What is made of one, such as its transpose, is a
`LinearPart`, which has the same four.

Letters: p and q rows and columns of the operator.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.arrays.checks import check_dtype, plain
from ketcore.arrays.elementary import conjugated
from ketcore.arrays.namespaces import device_of, is_array, is_complex, namespace_of
from ketcore.cuda import library
from ketcore.objects.operator import Operator
from ketcore.shapes import check_int

Product = Callable[[AnyArray], AnyArray]


@dataclass(frozen=True, eq=False)
class LinearPart:
    """A linear operator that is made of others.

    Attributes
    ----------
    shape : (int, int)
        (p, q).
    arrays : tuple of arrays
        What tells its library, device and dtype.
    matmat : callable
        A x for x (q, n).
    rmatmat : callable
        A^H x for x (p, n).
    """

    shape: tuple[int, int]
    arrays: tuple[AnyArray, ...]
    matmat: Product
    rmatmat: Product


def is_operator(part: Any) -> bool:
    """Whether `part` is a linear operator, by what those of all libraries have."""
    return hasattr(part, "matmat") and hasattr(part, "rmatmat")


def check_products(name: str, part: Any) -> None:
    """TypeError, naming `name`, where `part` has one of the products of linear operators alone."""
    given = [product for product in ("matvec", "matmat", "rmatmat") if hasattr(part, product)]
    if given:
        got = f"{type(part).__name__} with {' and '.join(given)}"
        raise TypeError(f"{name} must have matmat and rmatmat, as linear operators have, got {got}")


def check_operator(name: str, operator: Any) -> None:
    """TypeError, ValueError, naming `name`, unless shape and dtype are those of a matrix of numbers."""
    try:
        rows, columns = operator.shape
    except (TypeError, ValueError, AttributeError):
        got = f"{type(operator).__name__} of shape {getattr(operator, 'shape', None)}"
        raise ValueError(f"{name} must be a matrix of at least (1, 1), got {got}") from None
    check_int(f"{name}.shape", rows, 1)
    check_int(f"{name}.shape", columns, 1)
    if isinstance(operator, Operator | LinearPart):
        return
    dtype = getattr(operator, "dtype", None)
    try:
        found = None if dtype is None else np.dtype(dtype)
    except TypeError:
        found = None
    if found is None:
        raise TypeError(f"{name} must have a dtype of NumPy, got {type(operator).__name__} of dtype {dtype}")
    if found.kind not in "biu":
        check_dtype(name, np, found)


def operator_arrays(operator: Any) -> tuple[AnyArray, ...]:
    """What tells library, device and dtype of an operator; nothing where it has those of its operand."""
    if isinstance(operator, Operator):
        return operator._arrays()
    if isinstance(operator, LinearPart):
        return operator.arrays
    # Integers multiply as float64, as they do where they are entries.
    dtype = np.dtype(np.float64) if np.dtype(operator.dtype).kind in "biu" else np.dtype(operator.dtype)
    return (library.zero_of_operator(operator, dtype),)


def operator_times(operator: Any, x: AnyArray) -> AnyArray:
    """The product A x for x (q, n), in the dtype of x.

    TypeError, ValueError where the operator does not do what its shape and dtype say.
    """
    xp, shape, name = namespace_of(x), (operator.shape[0], x.shape[1]), type(operator).__name__
    if not shape[1]:
        return xp.zeros(shape, dtype=x.dtype, device=device_of(x))
    try:
        found = operator.matmat(x)
    except (NotImplementedError, TypeError) as error:
        # SciPy raises either for what was not given; of others the cause says what is wrong.
        rule = "matmat and rmatmat for this product"
        raise TypeError(f"parts must have {rule}, got {name}, which raises {error!r}") from error
    found = plain("parts", found)
    if not is_array(found) or tuple(found.shape) != shape:
        got = getattr(found, "shape", type(found).__name__)
        raise ValueError(f"parts must give {shape} by matmat or rmatmat, got {got} of {name}")
    if is_complex(namespace_of(found), found.dtype) and not is_complex(xp, x.dtype):
        raise TypeError(f"parts must have a dtype that their results have, got {found.dtype} of {name}")
    return xp.astype(found, x.dtype, copy=False)


def transposed_operator(operator: Any) -> Any:
    """The transpose."""
    if isinstance(operator, Operator):
        return operator.T  # type: ignore[attr-defined]
    sides = (partial(_conjugate_product, product) for product in (operator.rmatmat, operator.matmat))
    return LinearPart(tuple(operator.shape)[::-1], operator_arrays(operator), *sides)


def conjugated_operator(operator: Any) -> Any:
    """The complex conjugate."""
    if isinstance(operator, Operator):
        return operator.conj()  # type: ignore[attr-defined]
    sides = (partial(_conjugate_product, product) for product in (operator.matmat, operator.rmatmat))
    return LinearPart(tuple(operator.shape), operator_arrays(operator), *sides)


def changed_operator(operator: Any, change: Product) -> LinearPart:
    """The operator with its entries, and so its products, changed linearly: by a number or a cast."""
    # What has the dtype of its operand counts as float64 where it is changed.
    arrays = operator_arrays(operator) or (np.zeros(()),)
    # NumPy makes scalars of arrays without dimensions, which have no dtype of their own beside arrays.
    arrays = tuple(namespace_of(array).asarray(change(array)) for array in arrays)
    forward = partial(_one_after_another, operator.matmat, change)
    adjoint = partial(_one_after_another, operator.rmatmat, partial(_conjugate_product, change))
    return LinearPart(tuple(operator.shape), arrays, forward, adjoint)


def composed(left: Any, right: Any, arrays: tuple[AnyArray, ...]) -> LinearPart:
    """The operator `left @ right`, which is not formed; `arrays` tell library, device and dtype."""
    forward = partial(_one_after_another, right.matmat, left.matmat)
    adjoint = partial(_one_after_another, left.rmatmat, right.rmatmat)
    return LinearPart((left.shape[0], right.shape[1]), arrays, forward, adjoint)


def _one_after_another(first, second, x):
    return second(first(x))


def _conjugate_product(product, x):
    """conj(A conj(x)): the product with the conjugate of A."""
    return conjugated(product(conjugated(x)))
