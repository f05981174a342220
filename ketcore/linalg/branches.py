"""Branches of the square root: where the root of a product is the product of roots.

The principal root of a number halves its argument, taken from (-pi, pi].  The root of a product of
eigenvalues is the product of their roots only while the arguments add up within (-pi, pi]: those of -1 and -1
add up to 2 pi, and so i * i is the other root of 1.  Here each mode takes its arguments from a window of its
own, turned so that all sums of one argument per mode lie in one turn (2 pi k - pi, 2 pi k + pi].
"""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, pi

import numpy as np

# An interval of arguments (lowest, highest).
Window = tuple[float, float]


def windows(arguments: Sequence[np.ndarray], slack: float) -> tuple[list[Window], int] | None:
    """Windows of arguments, one per mode, and the k of the turn that holds their sums; None without such.

    Parameters
    ----------
    arguments : sequence of N arrays
        Per mode those of its nonzero eigenvalues, in (-pi, pi]; perhaps none.
    slack : float
        Sums so near to the negative axis count as on it, to whichever side they round.

    Examples
    --------
    >>> windows([np.array([pi]), np.array([pi])], 1e-9)[1]
    1
    >>> windows([np.array([0.0, pi]), np.array([0.0, pi])], 1e-9) is None
    True
    """
    cuts = [_windows(found) for found in arguments]
    narrow = [min(found, key=lambda window: window[1] - window[0]) for found in cuts]
    # Windows narrower than pi are the narrowest of their mode, and at most one of them can be wider.
    for mode, found in enumerate(cuts):
        for window in found:
            chosen = [*narrow[:mode], window, *narrow[mode + 1 :]]
            turn = _turn(chosen, slack)
            if turn is not None:
                return chosen, turn
    return None


def _windows(arguments) -> list[Window]:
    """The windows that hold all arguments, one for each place to cut the circle; the principal one first."""
    if not len(arguments):
        return [(0.0, 0.0)]
    ordered = np.sort(arguments)
    found = [(float(ordered[0]), float(ordered[-1]))]
    return found + [(b, a + 2 * pi) for a, b in pairwise(ordered.tolist())]


def _turn(chosen, slack):
    """The k for which all sums lie in (2 pi k - pi, 2 pi k + pi], or None."""
    lowest, highest = (sum(window[side] for window in chosen) for side in (0, 1))
    k = ceil((highest - pi - slack) / (2 * pi))
    return k if lowest > 2 * pi * k - pi + slack else None
