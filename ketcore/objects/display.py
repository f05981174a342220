"""How objects describe themselves: one line of text, a small HTML table, sizes in words.  No arrays."""

from html import escape
from typing import Any


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
    """How many times fewer parameters there are, as text."""
    if not parameters:
        return "inf"
    # Integers, because 2**1024 elements do not fit a float.
    if dense >= 100 * parameters:
        return f"{(2 * dense + parameters) // (2 * parameters):,}x"
    return f"{dense / parameters:.3g}x"
