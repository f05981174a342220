"""Good arguments of the operations on operators, for tests that spoil one of them."""

import numpy as np

# Two positive definite factors, so that every operation takes them.
SQUARE = (np.array([[[2.0, 1.0], [1.0, 3.0]]]), 4.0 * np.eye(3)[None])
ROWS = np.ones((4, 6))
KETS = (np.ones((1, 2)), np.ones((1, 3)))

_OF_SOLVE = {"factors": SQUARE, "b": ROWS, "shift": np.array(0.5)}
_OF_DENSITY = {"factors": SQUARE, "y": ROWS, "shift": np.array(0.5)}
_OF_PAIR = {"a": SQUARE, "b": SQUARE}
_OF_KETS = {"v": KETS, "factors": SQUARE, "w": KETS}
_OF_ROWS = {"x": ROWS, "factors": SQUARE, "y": ROWS}
_OF_FACTORS = {"factors": SQUARE}
_ONE, _FOUR = np.array(1.0), np.ones(4)

# Per operation: its arguments, its cotangent, and the names of the tangents of its arguments.
_CALLS = {
    "kron_matmul": ({"factors": SQUARE, "x": ROWS}, ROWS, ("factor_tangents", "x_tangent")),
    "kron_solve": (_OF_SOLVE, ROWS, ("factor_tangents", "b_tangent", "shift_tangent")),
    "kron_slogdet": (
        {"factors": SQUARE, "shift": np.array(0.5)},
        (_ONE, _ONE),
        ("factor_tangents", "shift_tangent"),
    ),
    "kron_log_likelihood": (_OF_DENSITY, _FOUR, ("factor_tangents", "y_tangent", "shift_tangent")),
    "kron_trace": (_OF_FACTORS, _ONE, ("tangents",)),
    "kron_norm": (_OF_FACTORS, _ONE, ("tangents",)),
    "kron_inner": (_OF_PAIR, _ONE, ("a_tangents", "b_tangents")),
    "ket_sandwich": (_OF_KETS, _ONE, ("v_tangents", "factor_tangents", "w_tangents")),
    "kron_sandwich": (_OF_ROWS, _FOUR, ("x_tangent", "factor_tangents", "y_tangent")),
}

ARGUMENTS = {}
for _name, (_given, _cotangent, _tangents) in _CALLS.items():
    _cotangents = {"cotangents" if isinstance(_cotangent, tuple) else "cotangent": _cotangent}
    ARGUMENTS[_name] = _given
    ARGUMENTS[f"{_name}_vjp"] = _given | _cotangents
    ARGUMENTS[f"{_name}_jvp"] = _given | dict(zip(_tangents, _given.values(), strict=True))
