"""Integers: how many digits, how wide, where to split, how many bytes.  Standard library, no arrays.

Letters: N order, mode n in 0..N-1, mode 0 the most significant digit (C order).

The numbers [0, count) are the leading rows of a cropped matrix.  They split into at most N boxes, in each of
which every digit runs over a range of its own; over a box a sum of Kronecker products is the sum of the
products of the restricted factors, so that sums over cropped matrices stay factored.
"""

from collections.abc import Sequence
from itertools import accumulate, islice
from math import inf, prod
from numbers import Real
from operator import index as as_integer
from sys import float_info, maxsize
from typing import Any

from ketcore.tracing import decided, is_symbol

Box = tuple[tuple[int, int], ...]
# The modes that are identity matrices in each of R terms.
Marks = tuple[frozenset[int], ...]

# Bytes of a result that nobody asked for in so many words.
LARGEST = 2**30
# Bytes of a complex number.
_WIDEST = 16
# Axes of an array, of NumPy and of PyTorch.
_MOST_AXES = 64
# What is iterated over and is no sequence of numbers or of arrays; those of sets come in no order.
NO_SEQUENCES = (str, bytes, bytearray, dict, set, frozenset)
# Beyond so many bits messages give the length of an int: Python refuses to write thousands of digits out.
_LONGEST_INT = 256
# Characters of a text, and elements of a list, that messages show.
_LONGEST_TEXT, _LONGEST_LIST = 100, 8
_SUM_AXES = "None, 0 or 1 (or -2 or -1)"
# Modes that a number asks for: far more than anyone has, and no more than memory holds.
MOST_MODES = 2**20
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def shown(value: Any, most: int = _LONGEST_LIST) -> str:
    """A value as messages show it: of arrays the shape and dtype, of what is long its beginning.

    Of a list so many elements as `most` says, of lists in it half as many.

    >>> shown((1, "a")), shown([1] * 10), shown(10**400)
    ("(1, 'a')", '[1, 1, 1, 1, 1, 1, 1, 1, ...]', 'an int of 1329 bits')
    """
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT:
        return f"an int of {value.bit_length()} bits"
    if type(value) in (list, tuple):
        left, right = "[]" if type(value) is list else "()"
        parts = [shown(each, most // 2) for each in islice(value, most)]
        parts += ["..."] if len(value) > most else []
        comma = "," if len(value) == 1 and type(value) is tuple else ""
        return f"{left}{', '.join(parts)}{comma}{right}"
    if getattr(value, "shape", ()) != () and not isinstance(value, type):
        dtype = f" and dtype {value.dtype}" if hasattr(value, "dtype") else ""
        return f"a {type(value).__name__} of shape {tuple(value.shape)}{dtype}"
    try:
        text = repr(value)
    except ValueError:  # of long ints in it
        return f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."


def check_int(name: str, value: Any, least: float, most: int | None = None) -> int:
    """`value` as an int from `least` to `most`, no bool; TypeError or ValueError that names it otherwise."""
    found = as_int(value)
    if found is None:
        raise TypeError(f"{name} must be an int, got {shown(value)}")
    if found < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(value)}")
    if most is not None and found > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(value)}")
    return found


def as_int(value: Any) -> int | None:
    """An int as Python's, None for all else; bools are none."""
    if isinstance(value, bool):
        return None
    try:
        return as_integer(value)
    except TypeError:
        return None


def check_axis(name: str, axis: Any, known: Sequence[int], rule: str) -> int:
    """`axis` as one of the known ints; ValueError that names it, with the rule, otherwise."""
    found = axis if type(axis) is int else as_int(axis)
    if found is None or found not in known:
        raise ValueError(f"{name} must be {rule}, got {shown(axis)}")
    return found


def check_sum_axis(axis: Any) -> int | None:
    """The axis that a sum is over, 0 for the rows or 1 for the columns; None for both."""
    return None if axis is None else check_axis("axis", axis, (0, 1, -1, -2), _SUM_AXES) % 2


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """`value` as one of the choices, texts and None; ValueError that names it otherwise."""
    # Arrays would be compared element by element.
    if not isinstance(value, str | None) or value not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, got {shown(value)}")
    return value


def check_dims(name: str, dims: Any) -> tuple[int, ...]:
    """`dims` as at least one int >= 1; TypeError or ValueError that names it otherwise.

    >>> check_dims("dims", [2, 3])
    (2, 3)
    """
    # Most dims are this already.
    plain = type(dims) is tuple and set(map(type, dims)) == {int}
    found = dims if plain else _as_ints(name, dims)
    if not found or min(found) < 1:
        raise ValueError(f"{name} must be at least one int >= 1, got {shown(found)}")
    return found


def _as_ints(name, values):
    """A sequence of ints as a tuple, read no further than the first that is none."""
    found = []
    try:
        if isinstance(values, NO_SEQUENCES):
            raise TypeError
        for value in values:
            if isinstance(value, bool):
                raise TypeError
            found.append(as_integer(value))
    except TypeError:
        raise TypeError(f"{name} must be a sequence of ints, got {shown(values)}") from None
    return tuple(found)


def check_size(name: str, value: Any) -> float:
    """`value` as a finite float of at least 0; TypeError or ValueError that names it otherwise."""
    if type(value) is float and 0 <= value < inf:
        return value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, got {shown(value)}")
    number = as_float(name, value)
    if not 0 <= number < inf:
        raise ValueError(f"{name} must be at least 0 and finite, got {value}")
    return number


def as_float(name: str, value: Real) -> float:
    """A real number as a float; ValueError that names it where it is beyond the floats."""
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} must be at most {float_info.max}, got a number beyond it") from None


def integer_root(value: int, order: int) -> int:
    """The largest integer whose `order`-th power is at most `value`, for `value` >= 0 and `order` >= 1.

    Exact at any size, unlike `value ** (1 / order)`.

    >>> integer_root(32768, 5), integer_root(32767, 5)
    (8, 7)
    """
    if value < 2 or order == 1:
        return value
    if order >= value.bit_length():  # whose powers of 2 are above the value, and may be beyond all memory
        return 1
    root = 1 << -(-value.bit_length() // order)
    while True:  # Newton from above decreases until it reaches the floor of the root.
        following = ((order - 1) * root + value // root ** (order - 1)) // order
        if following >= root:
            return root
        root = following


@decided(128)
def strides(dims: Sequence[int]) -> tuple[int, ...]:
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


@decided(128)
def halves_split(dims: tuple[int, ...]) -> int:
    """The number of modes in the left half: the split with the least qa + qb, the wider half right.

    Of N dims >= 1 it is in [1, N), but 0 if N is 1 (the left half is then the empty product).

    >>> halves_split((4, 4, 4, 4)), halves_split((7, 7, 7)), halves_split((5,))
    (2, 1, 0)
    """
    if len(dims) == 1:
        return 0
    return min(range(1, len(dims)), key=lambda h: (prod(dims[:h]) + prod(dims[h:]), h))


@decided(128)
def reached_dims(dims: tuple[int, ...], count: int) -> tuple[int, ...]:
    """How many values each digit takes among the numbers below `count`, which lies in [1, prod(dims)].

    >>> reached_dims((32, 32, 32), 40), reached_dims((32, 32, 32), 1025)
    ((1, 2, 32), (2, 32, 32))
    """
    return tuple(min(dim, -(-count // stride)) for dim, stride in zip(dims, strides(dims), strict=True))


def broadcast(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """The shape of two that were checked to broadcast, of ints or of what a compiler has in their place."""
    longer = max(len(one), len(other))
    pairs = zip(*((*[1] * (longer - len(each)), *each) for each in (one, other)), strict=True)
    return tuple(q if p == 1 else p for p, q in pairs)


def tree_split(order: int) -> int:
    """The number of modes under the left child of a balanced node over `order` modes.

    >>> [tree_split(n) for n in (1, 2, 3, 4, 5)]
    [0, 1, 1, 2, 2]
    """
    return order // 2


def in_words(nbytes: int) -> str:
    """A number of bytes in its unit.

    >>> in_words(896), in_words(3 * 2**29), in_words(2**80)
    ('896 bytes', '1.5 GiB', '1048576 EiB')
    """
    power = min(max(nbytes.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    whole, rest = divmod(nbytes * 10 >> 10 * power, 10)
    return f"{whole}.{rest} {_UNITS[power]}" if rest else f"{whole} {_UNITS[power]}"


def check_dense_size(
    elements: int, itemsize: int, what: str, max_bytes: float, instead: str | None = None
) -> None:
    """The guard of every dense conversion; `instead` is what serves in its place.

    MemoryError, naming the size, where `elements * itemsize` is above `max_bytes`.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, Real) or max_bytes != max_bytes:
        raise TypeError(f"max_bytes must be a number of bytes, got {shown(max_bytes)}")
    needed = elements * itemsize
    if needed > max_bytes:
        size, way = f"{needed} ({in_words(needed)})", f" (see {instead})" if instead else ""
        raise MemoryError(f"max_bytes must be at least {size} to hold the dense {what}, got {max_bytes}{way}")


def check_result_size(
    name: str, shape: Sequence[int], itemsize: int, dtype: Any, instead: str | None = None
) -> None:
    """The guard of results whose size no argument says: those of slices, of sums along an axis.

    MemoryError, naming the size, above 2**30 bytes.
    """
    needed = prod(shape) * itemsize
    if needed > LARGEST:
        limit, way = f"{LARGEST} bytes ({in_words(LARGEST)})", f" (see {instead})" if instead else ""
        got = f"a {tuple(shape)} array of {dtype} of {needed} bytes ({in_words(needed)})"
        raise MemoryError(f"{name} must give at most {limit}, got {got}{way}")


def checked_length(rows: int) -> int:
    """`rows` as a `len()`; OverflowError beyond what Python counts."""
    if rows > maxsize:
        raise OverflowError(f"the number of rows must be at most {maxsize} for len(), got {rows}")
    return rows


def check_addressable(shape: Sequence[int]) -> None:
    """MemoryError where no machine could hold an array.

    NumPy would speak of its dimensions, also of an empty one.
    """
    most = maxsize // _WIDEST
    # Where no size is zero their product says all.
    elements = prod(shape)
    if is_symbol(elements):
        # Symbols, of a shape that is traced, have no order.
        return
    if (elements or prod([max(size, 1) for size in shape])) > most:
        raise MemoryError(f"the result must have at most {most} elements, got shape {shown(tuple(shape))}")
    if len(shape) > _MOST_AXES:
        raise ValueError(f"the result must have at most {_MOST_AXES} axes, got {len(shape)}")


def prefix_boxes(count: int, radices: Sequence[int]) -> list[Box]:
    """Disjoint boxes of digits whose union is [0, count), for `count` in [0, prod(radices)].

    At most N boxes, in ascending order; a box is N pairs (start, stop), one per digit.

    >>> prefix_boxes(6, (2, 3))
    [((0, 2), (0, 3))]
    >>> prefix_boxes(5, (2, 3))
    [((0, 1), (0, 3)), ((1, 2), (0, 2))]
    """
    whole = [(0, radix) for radix in radices]
    if count == prod(radices):
        return [tuple(whole)]
    boxes: list[tuple[tuple[int, int], ...]] = []
    fixed: list[tuple[int, int]] = []
    rest = count
    for mode, stride in enumerate(strides(radices)):
        digit, rest = divmod(rest, stride)
        if digit:
            boxes.append((*fixed, (0, digit), *whole[mode + 1 :]))
        fixed.append((digit, digit + 1))
    return boxes


def check_order(order: Any, count: int) -> tuple[int, ...]:
    """`order` as each of [0, count) once."""
    modes = check_modes("order", order, count)
    if len(modes) != count:
        raise ValueError(f"order must hold each mode of {count} once, got {shown(order)}")
    return modes


def check_mode(name: str, mode: Any, count: int) -> int:
    """`mode` as an int in [0, count); a negative one counts from the end."""
    found = check_int(name, mode, -count)
    if found >= count:
        raise ValueError(f"{name} must hold modes in [-{count}, {count}), got {shown(mode)}")
    return found % count


def check_modes(name: str, modes: Any, count: int) -> tuple[int, ...]:
    """`modes`, an int or ints, as distinct ones in [0, count); negative ones count from the end."""
    several = modes if hasattr(modes, "__iter__") and not isinstance(modes, NO_SEQUENCES) else (modes,)
    # An array without axes is one mode.
    several = several if getattr(several, "ndim", 1) else (several,)
    found = tuple(check_mode(name, mode, count) for mode in several)
    if len(set(found)) != len(found):
        raise ValueError(f"{name} must hold no mode twice, got {shown(modes)}")
    return found
