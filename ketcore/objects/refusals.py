"""What is refused beside kets and operators, with the way out in the words of the error.

A class says in `_SUMS` and `_PRODUCTS` what serves where its sums and products do not.
"""

from typing import Any

import numpy as np

from ketcore.objects.operands import is_dense
from ketcore.shapes import shown

_DENSE = "to_dense()"
# What serves where a kind has not what was asked for: of kets their columns are matrices.
_WAYS = {"Ket": " (see Ket.to_column)", "Permutation": " (see to_dense and embed)"}


def sum_refusal(own: Any, other: Any, sign: str = "+") -> TypeError:
    """The error of `own + other` for what is no sum of this kind: an array, a list, a number, another kind.

    >>> str(sum_refusal(3, [1.0]))
    'other must be 0 or of a kind that int adds to beside +, or an array beside to_dense(), got list'
    """
    way = _way("_SUMS", own, other)
    rule = f"0 or of a kind that {type(own).__name__} adds to beside {sign}, or an array beside {way}"
    return TypeError(f"other must be {rule}, got {_name(other)}")


def product_refusal(own: Any, other: Any) -> TypeError:
    """The error of `own @ other`, or of `other @ own`, which neither kind knows.

    >>> str(product_refusal(3, 2))
    'other must be of a kind that int multiplies by @, or go through to_dense(), got 2'
    """
    way = _way("_PRODUCTS", own, other)
    rule = f"of a kind that {type(own).__name__} multiplies by @, or go through {way}"
    return TypeError(f"other must be {rule}, got {_name(other)}")


def factor_refusal(own: Any, other: Any) -> TypeError:
    """The error of `own * other` and `own / other`, which are for numbers, and for what these multiply.

    >>> str(factor_refusal(3, [1.0]))
    'a int must go through to_dense() for its multiples, got list'
    """
    kind = type(own).__name__
    if hasattr(own, "_scaled"):
        rule = f"a number beside * and / of {kind}, or go through {own._FACTORS}"
        return TypeError(f"other must be {rule}, got {_name(other)}")
    return TypeError(f"a {kind} must go through {_way('_SUMS', own)} for its multiples, got {_name(other)}")


def divisor_refusal(own: Any, other: Any) -> TypeError:
    """The error of `other / own`.

    >>> str(divisor_refusal(3, 2))
    'other must be on the right of / beside int, or go through to_dense(), got 2'
    """
    way = "linalg.inv or to_dense()" if hasattr(type(own), "matmul") else "to_dense()"
    rule = f"on the right of / beside {type(own).__name__}, or go through {way}"
    return TypeError(f"other must be {rule}, got {_name(other)}")


def _way(name, *objects):
    """What serves: that of the kind which takes part in least, a part before a permutation or a ket."""
    kinds = sorted(map(type, objects), key=lambda kind: getattr(kind, "_SUMS", _DENSE) == _DENSE)
    ways = [getattr(kind, name, _DENSE) for kind in kinds]
    return next((way for way in ways if way != _DENSE), _DENSE)


def _name(other):
    """A number as it is, of all others the kind."""
    if isinstance(other, np.generic):
        return repr(other)
    return type(other).__name__ if is_dense(other) or hasattr(other, "_facts") else shown(other)


def kind_refusal(name: str, kinds: str, got: Any) -> TypeError:
    """The error of an argument that is of none of these kinds.

    >>> str(kind_refusal("left", "a KroneckerMatrix", [1.0]))
    'left must be a KroneckerMatrix, got list (see embed)'
    """
    kind = type(got).__name__
    way = " (see embed)" if is_dense(got) else _WAYS.get(kind, "")
    return TypeError(f"{name} must be {kinds}, got {kind}{way}")
