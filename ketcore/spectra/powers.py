"""Signs and logarithms to integer powers that may be beyond the floats, as of determinants of many modes."""

from types import ModuleType

from ketcore.array_types import AnyArray
from ketcore.arrays.namespaces import is_complex

# Integers of so many bits are floats of any width.
_BITS = 120


def sign_power(xp: ModuleType, sign: AnyArray, power: int) -> AnyArray:
    """A sign (0 or of modulus 1) to a positive power, exact for 1, -1, i and -i whatever the power.

    A float does not tell whether an integer beyond 2^53 is even, and a modulus that is rounded would vanish.

    >>> import numpy as np
    >>> float(sign_power(np, np.float64(-1.0), 3**40)), float(sign_power(np, np.complex128(1j), 3**41).imag)
    (-1.0, -1.0)
    """
    if not is_complex(xp, sign.dtype):
        return sign ** (2 - power % 2)
    found = None
    while power:
        if power % 2:
            found = sign if found is None else _unit(xp, found * sign)
        sign, power = _unit(xp, sign * sign), power // 2
    return found


def _unit(xp, number):
    size = xp.abs(number)
    return number / xp.where(size > 0, size, xp.ones_like(size))


def multiple(number: AnyArray, times: int) -> AnyArray:
    """`number` times an integer that may be beyond the floats: 0 stays 0, the rest overflows to infinity.

    >>> import numpy as np
    >>> float(multiple(np.float64(0.0), 2**2000)), float(multiple(np.float64(2.0**-1000), 2**1001))
    (0.0, 2.0)
    """
    # What is cut off is beyond the digits that a float has.
    while times.bit_length() > _BITS:
        number, times = number * 2.0 ** (_BITS // 2), times >> _BITS // 2
    return number * float(times)
