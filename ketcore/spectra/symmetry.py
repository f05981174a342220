"""Which matrices count as Hermitian: those that are but for rounding, or that the caller says are.

What is Hermitian on paper, such as C C^T / n, is rounded in the dtype that it is stored in, so that mirrored
elements differ by a few roundings.  It is Hermitian to every function alike.
"""

from collections.abc import Sequence
from functools import reduce
from types import ModuleType
from typing import Any

from ketcore.array_types import AnyArray
from ketcore.arrays.autodiff import is_traced
from ketcore.arrays.elementary import adjoint
from ketcore.arrays.namespaces import is_half, value_of
from ketcore.shapes import shown

# What SciPy's names of `assume_a` say of a matrix: whether it is Hermitian; None where real ones are.
_ASSUMED = {
    "gen": False,
    "general": False,
    "sym": None,
    "symmetric": None,
    "her": True,
    "hermitian": True,
    "pos": True,
    "positive definite": True,
}


def assumed_hermitian(assume_a: Any, is_real: bool) -> bool | None:
    """Whether `assume_a` says that the factors are Hermitian; None where it leaves that to a look at them."""
    if assume_a is None:
        return None
    if not isinstance(assume_a, str) or assume_a not in _ASSUMED:
        names = ", ".join(map(repr, _ASSUMED))
        raise ValueError(f"assume_a must be None or one of {names}, got {shown(assume_a)}")
    found = _ASSUMED[assume_a]
    return is_real if found is None else found


def is_hermitian(xp: ModuleType, matrices: Sequence[AnyArray], stored: Sequence[Any] = ()) -> bool | AnyArray:
    """Whether all matrices are Hermitian but for rounding; an array where they are traced.

    `stored` are the dtypes that they were rounded to, if these are coarser than their own.
    """
    slacks = [max(slack(xp, d, m.shape[0]) for d in (m.dtype, *stored)) for m in matrices]
    return _are_hermitian(xp, matrices, slacks)


def symmetry(
    xp: ModuleType, matrices: Sequence[AnyArray], stored: Sequence[Any], assumed: bool | None
) -> tuple[bool | AnyArray, bool]:
    """`is_hermitian`, or what is assumed; and whether that holds in the precision of the matrices as well."""
    if assumed is not None:
        return assumed, True
    own = [matrix.shape[0] * float(xp.finfo(matrix.dtype).eps) for matrix in matrices]
    if _are_hermitian(xp, matrices, own) is True:
        return True, True
    return is_hermitian(xp, matrices, stored), False


def _are_hermitian(xp, matrices, slacks):
    answers = []
    for matrix, slack in zip(matrices, slacks, strict=True):
        gap = xp.max(xp.abs(matrix - adjoint(matrix)))
        answers.append(gap <= slack * xp.max(xp.abs(matrix)))
    together = reduce(xp.logical_and, answers)
    found = value_of(together)
    return together if found is None else found


def slack(xp: ModuleType, dtype: Any, size: int) -> float:
    """How far rounding takes a matrix from its conjugate transpose, over its largest element."""
    if is_half(dtype):
        # Sums run in float32, so that two mirrored elements differ by one rounding.
        return 2.0**-6 if "bfloat16" in str(dtype) else 2.0**-9
    # Sums of p terms, and a little more.
    return 64 * float(xp.finfo(dtype).eps) * size**0.5


def check_known(matrix: AnyArray, assume_a: str | None) -> None:
    """TypeError where a factor is traced that would have to be looked at because it may not be Hermitian."""
    if is_traced(matrix):
        raise TypeError(
            "assume_a must say that factors are Hermitian where they are traced and there is a shift, "
            f"got {assume_a!r}"
        )
