"""The adjoint test of a linear map."""

from collections.abc import Callable
from math import prod

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.testing.dense import tolerance
from ketcore.testing.values import call_untouched, to_numpy

__tracebackhide__ = True


def assert_adjoint(
    A: Callable[[AnyArray], AnyArray],
    AH: Callable[[AnyArray], AnyArray],
    x: AnyArray,
    y: AnyArray,
    *,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Fail unless <A x, y> = <x, A^H y>, the first argument of <,> conjugated as in np.vdot.

    Parameters
    ----------
    A, AH : callable
        (array) -> array: a linear map and what should be its adjoint.
    x, y : array of any shape
        Arguments of A and AH, of any library; y has the shape of A(x).  Draw several: one pair can miss an
        error.
    rtol : float, optional
        The error allowed relative to `|A x| |y| + |x| |A^H y|`; by default `tolerance` of dtype and length.
    atol : float, optional
        What is allowed beside it; by default 0.

    Raises
    ------
    AssertionError
        On shapes, on inputs written to, and on products that differ by more than is allowed.

    Examples
    --------
    >>> from scipy.sparse.linalg import aslinearoperator
    >>> matrix = np.array([[1.0, 2j, 0.0], [3.0, 0.0, 4j]])
    >>> x, y = np.array([1.0, 2.0, 3j]), np.array([1j, 5.0])
    >>> operator = aslinearoperator(matrix)
    >>> assert_adjoint(operator.matvec, operator.rmatvec, x, y)
    >>> assert_adjoint(operator.matvec, lambda y: matrix.T @ y, x, y)
    Traceback (most recent call last):
    AssertionError: AH must be the adjoint of A, got <A x, y> = ... and <x, AH y> = ...
    """
    forward, backward = call_untouched(A, "A", ("x", (x,))), call_untouched(AH, "AH", ("y", (y,)))
    for name, result, template in (("A(x)", forward, y), ("AH(y)", backward, x)):
        if tuple(result.shape) != tuple(template.shape):
            raise AssertionError(f"{name} must have shape {tuple(template.shape)}, got {tuple(result.shape)}")
    allowed = max(tolerance(result.dtype, prod(result.shape)) for result in (forward, backward))
    allowed = allowed if rtol is None else rtol
    (Ax, AHy), (x, y) = _wide(forward, backward), _wide(x, y)
    left, right = np.vdot(Ax, y), np.vdot(x, AHy)
    bound = allowed * (np.linalg.norm(Ax) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(AHy))
    bound += atol or 0.0
    if not abs(left - right) <= bound:
        raise AssertionError(
            f"AH must be the adjoint of A, got <A x, y> = {left:.6g} and <x, AH y> = {right:.6g}: "
            f"error {abs(left - right):.3g}, allowed {bound:.3g}"
        )


def _wide(*arrays):
    """Vectors of complex128: a real product is a complex one without imaginary part."""
    return [to_numpy(array).astype(np.complex128).reshape(-1) for array in arrays]
