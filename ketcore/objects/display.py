"""How objects describe themselves: one line of text, a small HTML table, sizes in words.  No arrays."""

from collections.abc import Sequence
from html import escape
from typing import Any

from ketcore.arrays.quantized import QuantizedArray


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
    """Parameters, bytes, and how many times fewer bytes than the `dense` ones of all elements.

    >>> sizes(224, 896, 31158272)
    {'parameters': '224', 'bytes': '896', 'ratio': '34,775x'}
    """
    return {"parameters": f"{parameters:,}", "bytes": f"{nbytes:,}", "ratio": _ratio(dense, nbytes)}


def storage(stored: Sequence[Any]) -> dict[str, str]:
    """How many bits a number takes, where some arrays are quantized; else nothing."""
    known = sorted({(each.bits, each.block) for each in stored if isinstance(each, QuantizedArray)})
    return {"stored": " and ".join(f"{bits} bits by {block}" for bits, block in known)} if known else {}


def _ratio(dense, nbytes):
    """How many times fewer bytes there are, as text."""
    if not nbytes:
        return "inf"
    # Integers, because 2**1024 elements do not fit a float.
    if dense >= 100 * nbytes:
        return f"{(2 * dense + nbytes) // (2 * nbytes):,}x"
    return f"{dense / nbytes:.3g}x"
