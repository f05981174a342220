"""What the assertions on derivatives share: random probes, pairings, differences, a checked call of a vjp."""

import numpy as np

from ketcore.testing.dense import rounding_unit
from ketcore.testing.values import call_untouched, dtype_name, from_numpy, is_complex, many, to_numpy, to_wide

__tracebackhide__ = True

# A power of two adds no rounding of its own; `tolerance` gives the errors that follow from it.
STEP = 2.0**-16
# A difference rounds at the size of the function, 2**-52 / STEP, which is this fraction of the allowed 1e-8.
ROUNDING = 2.0**-9


def draw(rng, like, unit=False):
    """Random values, as large as those of `like` and exact in its dtype, in float64 or complex128."""
    values = rng.standard_normal(tuple(like.shape))
    if is_complex(like):
        values = values + 1j * rng.standard_normal(tuple(like.shape))
    size = 1.0 if unit else np.sqrt(np.mean(np.abs(to_wide(like)) ** 2)) if values.size else 1.0
    # A primal of zeros, infinities or NaN gives no size to go by.
    return to_wide(from_numpy(values * (size if np.isfinite(size) and size > 0 else 1.0), like))


def move_like(values, templates):
    """NumPy values as arrays of the library, device and dtype of their templates."""
    return [from_numpy(value, template) for value, template in zip(values, templates, strict=True)]


def nudged(primals, count=8):
    """The primals `count` times, every element moved by one rounding of its arithmetic, or by none."""
    rng = np.random.default_rng(0)
    for _ in range(count):
        found = []
        for primal in primals:
            unit = rounding_unit(primal.dtype)
            moves = unit * rng.integers(-1, 2, tuple(primal.shape))
            found.append(from_numpy(to_wide(primal) * (1 + moves), primal))
        yield found


def as_output(cotangents, output):
    """NumPy cotangents as a function gave its output: one array, or a tuple of them."""
    moved = move_like(cotangents, many(output))
    return tuple(moved) if isinstance(output, tuple | list) else moved[0]


def pairing(left, right):
    """Re(sum(left * right)) over all arrays."""
    return sum(float(np.sum(a * b).real) for a, b in zip(left, right, strict=True))


def magnitude(left, right):
    """The sum of |left| |right| over all arrays: what a pairing adds up."""
    return sum(float(np.sum(np.abs(a) * np.abs(to_wide(b)))) for a, b in zip(left, right, strict=True))


def difference(function, wide, tangents):
    """The derivative of `function` at `wide` along `tangents`, fourth order: one NumPy array per output."""

    def at(steps):
        moved = [to_numpy(primal) + steps * STEP * t for primal, t in zip(wide, tangents, strict=True)]
        return [to_numpy(array) for array in many(function(*move_like(moved, wide)))]

    # Differences of values in less than float64 would be noise, and the blame would fall on the derivative.
    for value in (ahead := at(1)):
        if value.dtype not in (np.float64, np.complex128):
            raise AssertionError(f"function must keep float64, got {value.dtype}")
    return [
        (8 * (b - a) - (d - c)) / (12 * STEP) for a, b, c, d in zip(at(-1), ahead, at(-2), at(2), strict=True)
    ]


def call_vjp(vjp, primals, cotangents, output):
    """The gradients of `vjp` in NumPy, checked for number, shape, dtype and arguments written to."""
    moved = move_like(cotangents, many(output))

    def flat(*arguments):
        given = arguments[len(primals) :]
        return vjp(*arguments[: len(primals)], given if isinstance(output, tuple | list) else given[0])

    gradients = many(call_untouched(flat, "vjp", ("primal", primals), ("cotangent", moved)))
    check_like("gradient", gradients, primals)
    return [to_wide(gradient) for gradient in gradients]


def check_like(name, found, expected):
    """Fail unless the arrays `found` have the number, shapes and dtypes of `expected`."""
    if len(found) != len(expected):
        raise AssertionError(f"{name} must be {len(expected)} arrays, got {len(found)}")
    for n, (array, like) in enumerate(zip(found, expected, strict=True)):
        if tuple(array.shape) != tuple(like.shape):
            raise AssertionError(f"{name} {n} must have shape {tuple(like.shape)}, got {tuple(array.shape)}")
        got, rule = dtype_name(array.dtype), dtype_name(like.dtype)
        if got != rule:
            raise AssertionError(f"{name} {n} must have dtype {rule}, got {got}")
