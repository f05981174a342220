"""How objects describe themselves: one line of text, a small HTML table, sizes in words.  No arrays."""

from collections.abc import Sequence
from html import escape
from math import prod
from numbers import Real
from sys import maxsize
from typing import Any

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# Bytes of a complex number.
_WIDEST = 16

# Bytes of a result that nobody asked for in so many words.
LARGEST = 2**30


def as_text(name: str, facts: dict[str, Any]) -> str:
    """A `repr`: the facts as keyword arguments.

    >>> as_text("Ket", {"order": 2, "rank": 1})
    'Ket(order=2, rank=1)'
    """
    return f"{name}({', '.join(f'{key}={value}' for key, value in facts.items())})"


def as_html(name: str, facts: dict[str, Any]) -> str:
    """The same as a table for notebooks.

    >>> as_html("Ket", {"order": 2})
    '<table><caption>Ket</caption><tr><th>order</th><td>2</td></tr></table>'
    """
    lines = (f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>" for key, value in facts.items())
    return f"<table><caption>{escape(name)}</caption>{''.join(lines)}</table>"


def sizes(parameters: int, nbytes: int, dense: int) -> dict[str, str]:
    """Parameters, bytes, and how many times fewer parameters than the `dense` elements.

    >>> sizes(224, 896, 7789568)
    {'parameters': '224', 'bytes': '896', 'ratio': '34,775x'}
    """
    return {"parameters": f"{parameters:,}", "bytes": f"{nbytes:,}", "ratio": _ratio(dense, parameters)}


def _ratio(dense, parameters):
    if not parameters:
        return "inf"
    # Integers, because 2**1024 elements do not fit a float.
    if dense >= 100 * parameters:
        return f"{(2 * dense + parameters) // (2 * parameters):,}x"
    return f"{dense / parameters:.3g}x"


def in_words(nbytes: int) -> str:
    """A number of bytes in its unit.

    >>> in_words(896), in_words(3 * 2**29), in_words(2**80)
    ('896 bytes', '1.5 GiB', '1048576 EiB')
    """
    power = min(max(nbytes.bit_length() - 1, 0) // 10, len(_UNITS) - 1)
    whole, rest = divmod(nbytes * 10 >> 10 * power, 10)
    return f"{whole}.{rest} {_UNITS[power]}" if rest else f"{whole} {_UNITS[power]}"


def check_dense_size(
    elements: int, itemsize: int, what: str, max_bytes: int, instead: str | None = None
) -> None:
    """The guard of every dense conversion; `instead` is what serves in its place.

    raises   MemoryError, naming the size, where `elements * itemsize` is above `max_bytes`
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, Real):
        raise TypeError(f"max_bytes must be a number of bytes, got {max_bytes!r}")
    needed = elements * itemsize
    if needed > max_bytes:
        size, way = f"{needed} ({in_words(needed)})", f" (see {instead})" if instead else ""
        raise MemoryError(f"max_bytes must be at least {size} to hold the dense {what}, got {max_bytes}{way}")


def check_result_size(
    name: str, shape: Sequence[int], itemsize: int, dtype: Any, instead: str | None = None
) -> None:
    """The guard of results whose size no argument says: those of slices, of sums along an axis.

    raises   MemoryError, naming the size, above 2**30 bytes
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
    """MemoryError where no machine could hold an array: NumPy would speak of its dimensions, also of an empty
    one.
    """
    most = maxsize // _WIDEST
    if prod(max(size, 1) for size in shape) > most:
        raise MemoryError(f"the result must have at most {most} elements, got shape {tuple(shape)}")
