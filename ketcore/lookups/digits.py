"""Mixed-radix digits of row numbers, most significant first (C order)."""

from collections.abc import Sequence
from math import prod
from typing import Any, overload

import numpy as np

from ketcore.array_types import AnyArray, ForeignT, Host, Lists
from ketcore.arrays.checks import check_index
from ketcore.arrays.namespaces import index_dtype, namespace_of
from ketcore.shapes import check_dims, strides


@overload
def digits(index: int | np.integer[Any] | Host | Lists, radices: Sequence[int]) -> tuple[Host, ...]: ...
@overload
def digits(index: ForeignT, radices: Sequence[int]) -> tuple[ForeignT, ...]: ...
def digits(index: Any, radices: Sequence[int]) -> tuple[AnyArray, ...]:
    """Split integers into mixed-radix digits, most significant first.

    index    (...) any integer dtype, each value in [0, prod(radices))
    radices  N ints, each >= 1; their product may exceed 2**63, an index may not
    returns  N arrays (...) int64; digit n lies in [0, radices[n])
    raises   TypeError if `index` or a radix is not integer, IndexError if a host value is out of range,
             ValueError if a radix is below 1

    >>> [d.tolist() for d in digits([0, 5, 23], (2, 3, 4))]
    [[0, 0, 1], [0, 1, 2], [0, 1, 3]]
    """
    radices = check_dims("radices", radices)
    index, _ = check_index("index", index, prod(radices), None)
    xp = namespace_of(index)
    return split_digits(xp.astype(index, index_dtype(xp), copy=False), radices)


def split_digits(index: AnyArray, radices: Sequence[int]) -> tuple[AnyArray, ...]:
    """`digits` of an index that is known to be valid."""
    found = []
    for position, (stride, radix) in enumerate(zip(strides(tuple(radices)), radices, strict=True)):
        # A stride of 2**63 does not fit the dtype, and no index reaches it.
        digit = index // stride if stride < 1 << 63 else index * 0
        found.append(digit % radix if position else digit)
    return tuple(found)
