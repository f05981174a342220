"""What is refused beside kets and operators, with the way out in the words of the error."""

from typing import Any

from ketcore.objects.operands import is_dense


def sum_refusal(own: Any, other: Any, sign: str = "+") -> TypeError:
    """The error of `own + other` where `other` is an array, a list or a number: a sum would be dense.

    >>> str(sum_refusal(3, [1.0]))
    'other must be 0 or of a kind that int adds to beside +, or an array beside to_dense(), got list'
    """
    rule = f"0 or of a kind that {type(own).__name__} adds to beside {sign}, or an array beside to_dense()"
    got = type(other).__name__ if is_dense(other) else repr(other)
    return TypeError(f"other must be {rule}, got {got}")
