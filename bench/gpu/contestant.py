"""Who takes part in a race on a GPU."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Contestant:
    """Who, and how to call it.

    call      no arguments -> (rows, gradients), arrays of NumPy, CuPy or torch
    library   how its calls are captured: as those of torch or CuPy; not at all those of cuBLAS
    moved     the least bytes that a call reads and writes
    """

    name: str
    call: Callable
    library: str
    moved: int
