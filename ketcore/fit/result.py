"""What a fit returns, and the checks of the arguments that all fits share."""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from ketcore.array_types import Host
from ketcore.objects.construction import generator
from ketcore.shapes import check_int, check_size

# Called after every sweep with the number of sweeps so far and the relative error of the fit at hand.
Callback = Callable[[int, float], object]


ValueT = TypeVar("ValueT")


class Fit(NamedTuple, Generic[ValueT]):
    """An approximation and how good it is.

    Attributes
    ----------
    value : KroneckerMatrix, Ket or CodebookTable
        What was fitted.
    error : float or array
        `|value - given| / |given|`, Frobenius norm, measured on the value that is returned; 0.0 where both
        are zero.  A float, or a NumPy array of the batch shape for a batch of kets.
    converged : bool
        Whether the iteration settled before its limit; always True of a closed form.  It says nothing of
        `tol`: compare `error` with it.
    iterations : int
        The number of sweeps in all, 0 for a closed form.
    """

    value: ValueT
    error: float | Host
    converged: bool
    iterations: int


class Options(NamedTuple):
    """Checked options of a fit: `rank` is the number of terms or, with a `tol`, the most of them."""

    rank: int | None
    tol: float | None
    restarts: int
    iterations: int
    rng: "np.random.Generator"
    callback: Callback | None
    gain: float | None


def check_options(rank, tol, restarts, iterations, rng, callback, gain=None) -> Options:
    """The options in their types; TypeError or ValueError that names the wrong one."""
    if rank is None and tol is None:
        raise ValueError("rank or tol must be given, got None for both")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be callable, got {type(callback).__name__}")
    return Options(
        None if rank is None else check_int("rank", rank, 1),
        None if tol is None else check_size("tol", tol),
        check_int("restarts", restarts, 0),
        check_int("iterations", iterations, 1),
        _generator(rng),
        callback,
        None if gain is None else check_size("gain", gain),
    )


def _generator(rng):
    """`rng`, or NumPy's generator of that seed."""
    found = generator(rng)
    try:
        return np.random.default_rng(found)
    except TypeError:  # of CuPy's, which draws on a device
        raise TypeError(f"rng must be a Generator of NumPy for a fit, got {type(rng).__name__}") from None
