"""Values against a dense definition, and the tolerance that all assertions share."""

from typing import Any

import numpy as np

from ketcore.array_types import AnyArray
from ketcore.testing.values import dtype_name, to_wide, written

__tracebackhide__ = True

# (unit of the stored result, unit of the arithmetic): half precision is expected to accumulate in float32.
_UNITS = {
    "float16": (2.0**-10, 2.0**-23),
    "bfloat16": (2.0**-7, 2.0**-23),
    "float32": (2.0**-23, 2.0**-23),
    "complex64": (2.0**-23, 2.0**-23),
    "float64": (2.0**-52, 2.0**-52),
    "complex128": (2.0**-52, 2.0**-52),
}
# A five-point difference with step 2**-16 rounds at 2**-52 / 2**-16 = 1e-11 and truncates at (step /
# length)**4: 1e-9 where the function bends over a length of 3e-3, the root of the usual eps of a LayerNorm.
_DIFFERENCES = 1e-8


def tolerance(dtype: Any, length: int = 1, *, differences: bool = False) -> float:
    """The error allowed in a result of a dtype, relative to the magnitude of what was added up.

    Parameters
    ----------
    dtype : dtype
        Of any library; an integer or bool result must be exact.
    length : int, default 1
        Number of terms in each sum; rounding grows with its root, as a random walk.
    differences : bool, default False
        True: the reference is a finite difference in float64.

    Returns
    -------
    float
        One rounding of the result, plus 4 sqrt(length) of the arithmetic, plus 1e-8 for differences.

    Examples
    --------
    >>> tolerance("float32") < 1e-6 < tolerance("float16"), tolerance(int)
    (True, 0.0)
    """
    stored, arithmetic = _UNITS.get(dtype_name(dtype), (0.0, 0.0))
    # The factor 4 leaves room for products of about eight factors inside each term.
    return stored + 4 * arithmetic * max(length, 1) ** 0.5 + (_DIFFERENCES if differences else 0.0)


def rounding_unit(dtype: Any) -> float:
    """The unit of the arithmetic in which results of `dtype` are computed: that of float32 for 16 bits."""
    return _UNITS.get(dtype_name(dtype), (0.0, 0.0))[1]


def assert_dense_equal(
    actual: AnyArray,
    expected: AnyArray,
    *,
    terms: int = 1,
    scale: AnyArray | float | None = None,
    dtype: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
) -> None:
    """Fail unless `actual` has the shape of `expected` and its values to within `tolerance`.

    Parameters
    ----------
    actual : array, (...)
        Of any library; its dtype sets the tolerance.
    expected : array, (...)
        Of any library: the dense definition, best computed in float64.
    terms : int, default 1
        Number of terms summed in each entry.
    scale : float or array, (...), optional
        Magnitude of the terms, broadcastable to `expected`: for instance the dense definition of the absolute
        values.  By default the largest magnitude in `expected`, which is too strict for sums that cancel
        everywhere.
    dtype : dtype, optional
        What `actual` must have; by default any.
    rtol : float, optional
        The error allowed relative to `scale`; by default `tolerance` of the dtype of `actual` and of `terms`.
    atol : float, optional
        What is allowed beside it; by default 0.

    Raises
    ------
    AssertionError
        It names the worst entry, and shows small arrays whole.  Where one array is NaN or infinite the other
        must be so too.

    Examples
    --------
    >>> a, b = np.eye(2), np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> assert_dense_equal(np.kron(a, b), np.block([[b, 0 * b], [0 * b, b]]))
    >>> assert_dense_equal(np.kron(b, a), np.block([[b, 0 * b], [0 * b, b]]))
    Traceback (most recent call last):
    AssertionError: actual must equal expected, got 0.0 for 3.0 at (1, 0): error 3, allowed ...
    """
    if dtype is not None and dtype_name(actual.dtype) != dtype_name(dtype):
        raise AssertionError(f"actual must have dtype {dtype_name(dtype)}, got {dtype_name(actual.dtype)}")
    allowed = tolerance(actual.dtype, terms) if rtol is None else rtol
    actual, expected = to_wide(actual), to_wide(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"actual must have shape {expected.shape}, got {actual.shape}")
    finite = np.isfinite(expected)
    if scale is None:
        scale = np.abs(expected[finite]).max(initial=0.0)
    bound = np.broadcast_to(allowed * np.abs(to_wide(scale)) + (atol or 0.0), expected.shape)
    # Infinity is right only where the expected value is that infinity, NaN only where it is NaN.
    same = (actual == expected) | (np.isnan(actual) & np.isnan(expected))
    error = np.where(same, 0.0, np.abs(np.where(finite, actual, np.nan) - np.where(finite, expected, 0.0)))
    wrong = ~(error <= bound)
    if wrong.any():
        raise AssertionError(_worst(actual, expected, error, bound, wrong))


def _worst(actual, expected, error, bound, wrong):
    """The message for the entry whose error exceeds its bound most."""
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(wrong, np.nan_to_num(error / bound, nan=np.inf), -1.0)
    at = tuple(int(i) for i in np.unravel_index(np.argmax(excess), excess.shape))
    return (
        f"actual must equal expected, got {actual[at]} for {expected[at]} at {at}: "
        f"error {error[at]:.3g}, allowed {bound[at]:.3g}, {int(wrong.sum())} of {wrong.size} entries wrong"
        + "".join(f"\n    {line}" for line in compared(actual, expected))
    )


def compared(actual: np.ndarray, expected: np.ndarray) -> list[str]:
    """Lines of a message: two arrays and their difference; none for numbers, which it has already.

    >>> compared(np.ones(2), np.zeros(2))
    ['actual     [1.0, 1.0]', 'expected   [0.0, 0.0]', 'difference [1.0, 1.0]']
    """
    with np.errstate(invalid="ignore"):
        difference = np.where(actual == expected, 0.0, actual - expected)
    values = {"actual": actual, "expected": expected, "difference": difference}
    return [f"{name:<10} {written(value)}" for name, value in values.items() if value.ndim]
