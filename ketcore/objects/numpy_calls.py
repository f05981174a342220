"""What NumPy's functions are answered beside kets and operators: NumPy asks the object, and converts nothing.

A ufunc that stands for an operator of Python (`x @ K`, `np.float64(2) * K`) is that operator; what asks for
sizes or dtypes is answered; all else is refused with the name of what serves.
"""

import operator
from math import prod
from typing import Any, NoReturn

import numpy as np

from ketcore.arrays.namespaces import opts_out
from ketcore.objects.refusals import sum_refusal

# The ufuncs of operators: the operator, its method, and that of the object on the right.
_OPERATORS = {
    np.matmul: (operator.matmul, "__matmul__", "__rmatmul__"),
    np.multiply: (operator.mul, "__mul__", "__rmul__"),
    np.divide: (operator.truediv, "__truediv__", "__rtruediv__"),
    np.add: (operator.add, "__add__", "__radd__"),
    np.subtract: (operator.sub, "__sub__", "__rsub__"),
}
_SIGNS = {np.add: "+", np.subtract: "-"}

# What serves instead of a function of NumPy: the first attribute that the object has, or words.
_ATTRIBUTES = {
    "astype": "astype",
    "conjugate": "conj",
    "diag": "diagonal",
    "diagonal": "diagonal",
    "linalg.diagonal": "diagonal",
    "linalg.matrix_norm": "norm",
    "linalg.matrix_transpose": "T",
    "linalg.norm": "norm",
    "linalg.trace": "trace",
    "linalg.vector_norm": "norm",
    "matmul": "rmatmul contract",
    "matrix_transpose": "T",
    "sum": "sum",
    "trace": "trace",
    "transpose": "T",
    "vdot": "inner",
}
_WORDS = {
    "allclose": "ketcore.allclose",
    "array_equal": "ketcore.allclose",
    "array_equiv": "ketcore.allclose",
    "dot": "@",
    "inner": "@",
    "isclose": "ketcore.allclose",
    "kron": "ketcore.kron",
    "linalg.multi_dot": "@",
    "linalg.outer": "ketcore.kron",
    "matvec": "@",
    "multiply": "ketcore.hadamard",
    "outer": "ketcore.kron",
    "square": "ketcore.hadamard",
    "vecmat": "@",
}
# Those of numpy.linalg that ketcore.linalg has under the same name.
_LINALG = {
    *("cholesky", "cond", "det", "eig", "eigh", "eigvals", "eigvalsh", "inv", "lstsq", "matrix_power"),
    *("matrix_rank", "pinv", "qr", "slogdet", "solve", "svd", "svdvals"),
}


def ufunc_answer(own: Any, ufunc: Any, method: str, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What `ufunc` gives on inputs of which `own` is the first that is an object of ours.

    raises   TypeError on all that is no operator of Python, naming what serves
    """
    if method == "__call__" and not options:
        found = _operated(own, ufunc, inputs)
        if found is not NotImplemented:
            return found
    if ufunc in _SIGNS:
        others = [one for one in inputs if one is not own]
        raise sum_refusal(own, others[0] if others else own, _SIGNS[ufunc])
    _refuse(own, ufunc.__name__)


def _operated(own, ufunc, inputs):
    """The result of the operator that the ufunc stands for; NotImplemented where there is none."""
    if ufunc in _OPERATORS:
        function, forward, backward = _OPERATORS[ufunc]
        left, right = inputs
        # Not by the operator, which an array beside would answer by asking the ufunc again.
        if left is not own:
            return getattr(type(own), backward, _unknown)(own, left)
        if not opts_out(right):
            return getattr(type(own), forward, _unknown)(own, right)
        return function(left, right)
    if ufunc is np.negative:
        return operator.neg(own)
    if ufunc in (np.equal, np.not_equal):
        # `==` is identity for all objects: an array is none of them.
        return (inputs[0] is inputs[1]) == (ufunc is np.equal)
    return NotImplemented


def _unknown(own, other):
    return NotImplemented


def function_answer(own: Any, function: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What a function of NumPy gives that asks for sizes and dtypes alone.

    raises   TypeError on all others, naming what serves
    """
    if function in _OF_SIZES and args and args[0] is own:
        return _OF_SIZES[function](own.shape, *args[1:], **options)
    if function in _OF_DTYPES and isinstance(own.dtype, np.dtype):
        return function(*(np.empty(0, one.dtype) if opts_out(one) else one for one in args), **options)
    module = function.__module__.partition(".")[2]
    _refuse(own, f"{module}.{function.__name__}" if module == "linalg" else function.__name__)


def _size(shape, axis=None):
    return prod(shape) if axis is None else shape[axis]


_OF_SIZES: dict[Any, Any] = {np.shape: tuple, np.ndim: len, np.size: _size}
_OF_DTYPES = frozenset((np.common_type, np.iscomplexobj, np.isrealobj, np.result_type))


def _refuse(own, name) -> NoReturn:
    """The error of np.<name>."""
    kind, ways = type(own), ["to_dense"]
    found = [each for each in _ATTRIBUTES.get(name, "").split() if hasattr(kind, each)]
    if found:
        ways.insert(0, f"{kind.__name__}.{found[0]}")
    elif name in _WORDS:
        ways.insert(0, _WORDS[name])
    elif name.removeprefix("linalg.") in _LINALG and name.startswith("linalg."):
        ways.insert(0, f"ketcore.{name}")
    raise TypeError(f"x must be an array for np.{name}, got {kind.__name__} (see {' and '.join(ways)})")
