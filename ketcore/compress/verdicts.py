"""What measures mean, in a sentence: what to take, or that nothing is worth having.

Thresholds are shares of the 10 nearest words that stay, and rank correlations of cosines.  The page of the
command says what they were set by.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ketcore.compress.measures import Measures

# Nearest words and cosines that a table keeps at least, from the best to the worst, and what that is called.
LEVELS = (
    (0.80, 0.97, "it loses next to nothing"),
    (0.50, 0.88, "it loses little: test what you use it for"),
    (0.30, 0.75, "it loses much: take it only if a test of what you use it for says so"),
)
# Components that hold so much of the energy make a table low-rank, if they are few of its columns.
_MOST_ENERGY, _FEW = 0.9, 0.25


class Result(NamedTuple):
    """What a method or a control came to; sizes of nothing that is stored are 0."""

    name: str
    nbytes: int
    measures: Measures
    seconds: float
    control: bool = False


def score(result: Result) -> float:
    """What the best method has most of: the mean of both shares of what stays between words."""
    return (result.measures.cosines + result.measures.neighbours) / 2


def best_result(results: Sequence[Result]) -> Result:
    """The method with the best score; controls are none."""
    return max((result for result in results if not result.control), key=score)


def verdict(result: Result, ratio: float, alone: bool = False) -> str:
    """One sentence on the best method, or on one that was asked for alone."""
    measures = result.measures
    for neighbours, cosines, text in LEVELS:
        if measures.neighbours >= neighbours and measures.cosines >= cosines:
            return f"Take {result.name}: {text}."
    kept = f"{measures.neighbours:.0%} of the nearest words, cosines correlate by {measures.cosines:.2f}"
    if alone:
        return f"At {ratio:g}x {result.name} is not worth having: it keeps {kept}."
    return f"Nothing at {ratio:g}x is worth having: the best, {result.name}, keeps {kept}."


def spectrum_points(columns: int) -> list[int]:
    """The numbers of components whose share is said: powers of two, and all columns."""
    return [*(2**n for n in range(columns.bit_length()) if 2**n < columns), columns]


def low_rank_sentence(energy: np.ndarray) -> str:
    """Whether few components hold most of the energy."""
    columns, wanted = len(energy), f"{_MOST_ENERGY:.0%}"
    needed = int(np.searchsorted(np.cumsum(energy), _MOST_ENERGY)) + 1
    needed = min(needed, columns)
    if needed <= _FEW * columns:
        return f"The table is low-rank: {needed} of {columns} components hold {wanted} of its energy."
    return f"The table is not low-rank: {wanted} of its energy takes {needed} of {columns} components."
