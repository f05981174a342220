"""Integers only: how many digits, how wide, where to split.  Standard library, no arrays.

Letters: N order, mode n in 0..N-1, mode 0 the most significant digit (C order).
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import inf, prod
from numbers import Real
from operator import index as as_integer
from typing import Any


def check_int(name: str, value: Any, least: int) -> int:
    """`value` as an int of at least `least`, no bool; TypeError or ValueError that names it otherwise."""
    try:
        found = as_integer(value)
    except TypeError:
        found = None
    if found is None or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, got {value!r}")
    if found < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return found


def check_dims(name: str, dims: Any) -> tuple[int, ...]:
    """`dims` as at least one int >= 1; TypeError or ValueError that names it otherwise.

    >>> check_dims("dims", [2, 3])
    (2, 3)
    """
    try:
        found = tuple(as_integer(dim) for dim in dims)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of ints, got {dims!r}") from None
    if not found or min(found) < 1:
        raise ValueError(f"{name} must be at least one int >= 1, got {found}")
    return found


def check_size(name: str, value: Any) -> float:
    """`value` as a finite float of at least 0; TypeError or ValueError that names it otherwise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    if not 0 <= value < inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return float(value)


def integer_root(value: int, order: int) -> int:
    """The largest integer whose `order`-th power is at most `value`.

    value    int >= 0
    order    int >= 1
    returns  int; exact at any size, unlike `value ** (1 / order)`

    >>> integer_root(32768, 5), integer_root(32767, 5)
    (8, 7)
    """
    if value < 2 or order == 1:
        return value
    root = 1 << -(-value.bit_length() // order)
    while True:  # Newton from above decreases until it reaches the floor of the root.
        following = ((order - 1) * root + value // root ** (order - 1)) // order
        if following >= root:
            return root
        root = following


@lru_cache
def strides(dims: tuple[int, ...]) -> tuple[int, ...]:
    """How far one step of each digit moves a C-order index.

    >>> strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(reversed(list(accumulate(reversed(dims[1:]), initial=1, func=lambda a, b: a * b))))


def offsets(dims: Sequence[int]) -> tuple[int, ...]:
    """Where each of the consecutive pieces of lengths `dims` begins, and where the last one ends.

    >>> offsets((2, 3, 4))
    (0, 2, 5, 9)
    """
    return tuple(accumulate(dims, initial=0))


@lru_cache
def halves_split(dims: tuple[int, ...]) -> int:
    """The number of modes in the left half: the split with the least qa + qb, the wider half right.

    dims     N ints >= 1
    returns  int in [1, N); 0 if N is 1 (the left half is then the empty product)

    >>> halves_split((4, 4, 4, 4)), halves_split((7, 7, 7)), halves_split((5,))
    (2, 1, 0)
    """
    if len(dims) == 1:
        return 0
    return min(range(1, len(dims)), key=lambda h: (prod(dims[:h]) + prod(dims[h:]), h))


@lru_cache
def reached_dims(dims: tuple[int, ...], count: int) -> tuple[int, ...]:
    """How many values each digit takes among the numbers below `count`.

    dims     N ints >= 1
    count    int in [1, prod(dims)]

    >>> reached_dims((32, 32, 32), 40), reached_dims((32, 32, 32), 1025)
    ((1, 2, 32), (2, 32, 32))
    """
    return tuple(min(dim, -(-count // stride)) for dim, stride in zip(dims, strides(dims), strict=True))


def tree_split(order: int) -> int:
    """The number of modes under the left child of a balanced node over `order` modes.

    >>> [tree_split(n) for n in (1, 2, 3, 4, 5)]
    [0, 1, 1, 2, 2]
    """
    return order // 2
