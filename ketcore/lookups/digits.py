"""Mixed-radix digits of row numbers, most significant first (C order)."""

from collections.abc import Sequence
from contextlib import suppress
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, Lists
from ketcore.arrays.checks import check_index
from ketcore.arrays.namespaces import index_dtype, is_numpy, namespace_of
from ketcore.shapes import check_dims, strides
from ketcore.tracing import is_compiling

# What NumPy takes apart in one call, in all its versions: as many as an array may have axes.
_MOST_RADICES = 32


@overload
def digits(index: int | np.integer[Any] | Host | Lists, radices: Sequence[int]) -> tuple[Host, ...]: ...
@overload
def digits(index: ForeignT, radices: Sequence[int]) -> tuple[ForeignT, ...]: ...
def digits(index: Any, radices: Sequence[int]) -> tuple[AnyArray, ...]:
    """Split integers into mixed-radix digits, most significant first.

    The digits of a row number say which row of each factor a row of a Kronecker product is made of.

    Parameters
    ----------
    index : int or array of ints, (...)
        Of any integer dtype, each value in ``[0, prod(radices))``.
    radices : sequence of N ints
        Each at least 1.  Their product may exceed 2**63, an index may not.

    Returns
    -------
    tuple of N arrays, (...)
        Digit n lies in ``[0, radices[n])``; int64, or the widest integer that the library is set to.

    Raises
    ------
    TypeError
        If `index` or a radix is not integer.
    ValueError
        If a radix is below 1, or there is none.
    IndexError
        If a value is out of range and lies in host memory; those on a device are not looked at.

    See Also
    --------
    rows : Rows of a Kronecker-factorised matrix.
    gather_kron : Sums of products by such an index, or by any other.

    Examples
    --------
    23 is 1 * 12 + 2 * 4 + 3:

    >>> [d.tolist() for d in digits([0, 5, 23], (2, 3, 4))]
    [[0, 0, 1], [0, 1, 2], [0, 1, 3]]
    """
    radices = check_dims("radices", radices)
    index, _ = check_index("index", index, prod(radices), None)
    xp = namespace_of(index)
    return split_digits(xp.astype(index, index_dtype(xp), copy=False), radices)


def split_digits(index: AnyArray, radices: Sequence[int]) -> tuple[AnyArray, ...]:
    """`digits` of an index that is known to be valid."""
    radices = tuple(radices)
    short = len(radices) <= _MOST_RADICES and prod(radices) < 1 << 63
    if short and not is_compiling() and is_numpy(index) and index.dtype == np.int64:
        with suppress(ValueError):  # of an index that was not looked at, which array code takes
            return np.unravel_index(index, radices)
    found = []
    for position, (stride, radix) in enumerate(zip(strides(radices), radices, strict=True)):
        # A stride of 2**63 does not fit the dtype, and no index reaches it.
        digit = index // stride if stride < 1 << 63 else index * 0
        found.append(digit % radix if position else digit)
    return tuple(found)
