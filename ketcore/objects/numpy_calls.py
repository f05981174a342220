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

# What serves instead of a function of NumPy: an attribute, or what the object has instead of it; or words.
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
    "matmul": "matmul",
    "matrix_transpose": "T",
    "rmatmul": "rmatmul",
    "sum": "sum",
    "trace": "trace",
    "transpose": "T",
    "vdot": "inner",
    "vecdot": "inner",
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
    "save": "ketcore.save",
    "savez": "ketcore.save",
    "savez_compressed": "ketcore.save",
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

    TypeError on all that is no operator of Python, naming what serves.
    """
    if method == "__call__" and not options:
        found = _operated(own, ufunc, inputs)
        if found is not NotImplemented:
            return found
    if ufunc in _SIGNS:
        others = [one for one in inputs if one is not own]
        raise sum_refusal(own, others[0] if others else own, _SIGNS[ufunc])
    is_right = ufunc is np.matmul and inputs[0] is not own
    _refuse(own, ufunc.__name__, "rmatmul" if is_right else None)


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

    TypeError on all others, naming what serves.
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


def _refuse(own, name, served=None) -> NoReturn:
    """The error of np.<name>; `served` is that of which the table says what serves, if it is another."""
    ways = [*_serving(own, served or name), own._SUMS.removesuffix("()")]
    kind = type(own).__name__
    raise TypeError(f"x must be an array for np.{name}, got {kind} (see {' and '.join(ways)})")


def _serving(own, name):
    """What serves instead of np.<name>, none or one."""
    kind, attribute, word = type(own), _ATTRIBUTES.get(name), _WORDS.get(name)
    if attribute is not None and hasattr(kind, attribute):
        return [f"{kind.__name__}.{attribute}"]
    if attribute is not None:
        way = own._INSTEAD.get(attribute, "to_dense()")
        return [] if way == "to_dense()" else [way]
    # Kets and parts are no operators: their products are others.
    is_operator = hasattr(kind, "matmul")
    if word == "@" and not is_operator:
        return [] if own._PRODUCTS == own._SUMS else [own._PRODUCTS]
    # A permutation has products alone.
    has_terms = is_operator and hasattr(kind, "_scaled")
    if word is not None:
        return [word] if has_terms or word != "ketcore.hadamard" else []
    is_linalg = name.startswith("linalg.") and name.removeprefix("linalg.") in _LINALG
    return [f"ketcore.{name}"] if is_linalg and has_terms else []
