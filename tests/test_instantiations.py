"""Every instantiation of the kernels of lookups, on cases that together run all of its code."""

from dataclasses import replace

import numpy as np
import pytest

from ketcore.lookups import kernels
from tests.cusim import available
from tests.kernel_problems import FLOATS, INTEGERS, Launcher, check, make
from tests.require import require

# Segments of every length that a loop unrolled eight times tells apart, and longer than a piece.
HOT = np.random.default_rng(0).permutation(
    np.repeat(np.arange(-1, 10), (3, 7, 6, 15, 5, 600, 301, 4, 11, 2, 1))
)
# Lookups, and what launches them: with a grid of 1 a warp takes many rows.
CASES = {
    "digits": ({"counts": (5, 4, 3), "widths": (4, 3, 8), "batch": 150, "rank": 3}, {}),
    "one block": ({"counts": (5, 4, 3), "widths": (4, 5, 4), "batch": 70, "rank": 5}, {"grid": 1}),
    "terms": ({"counts": (4, 6), "widths": (3, 5), "batch": 70, "rank": 3, "kind": "terms"}, {"grid": 1}),
    "modes": ({"counts": (4, 6), "widths": (3, 16), "batch": 70, "rank": 4, "kind": "modes"}, {}),
    "kets": ({"counts": (9,) * 4, "widths": (2, 3, 2, 5), "batch": 40, "rank": 5, "kind": "same"}, {}),
    "normalised": (
        {
            "counts": (9,) * 4,
            "widths": (3, 2, 4, 8),
            "batch": 20,
            "rank": 35,
            "kind": "same",
            "layernorm": True,
        },
        {"grid": 1},
    ),
    "normalised and cropped": (
        {"counts": (7, 8, 9), "widths": (3, 4, 5), "batch": 20, "rank": 2, "layernorm": True, "columns": 53},
        {"grid": 3},
    ),
    "one mode": ({"counts": (6,), "widths": (7,), "batch": 9, "rank": 2, "split": 0}, {}),
    "all on the left": ({"counts": (6, 2), "widths": (40, 3), "batch": 9, "rank": 2, "split": 2}, {}),
    "no digit of the first half": (
        {"counts": (6, 2), "widths": (3, 40), "batch": 9, "split": 0},
        {"grid": 1},
    ),
    "panels": (
        {"counts": (3, 2), "widths": (40, 44), "batch": 5, "columns": 1700, "rank": 9, "split": 1},
        {},
    ),
    "panels of one term": (
        {"counts": (3, 2), "widths": (40, 45), "batch": 5, "columns": 1750, "rank": 1, "split": 1},
        {"grid": 1},
    ),
    "one term": ({"counts": (3, 2), "widths": (4, 5), "batch": 5, "rank": 1, "layernorm": True}, {}),
    "normalised panels": (
        {"counts": (3, 2), "widths": (40, 44), "batch": 5, "columns": 1700, "layernorm": True, "split": 1},
        {},
    ),
    "odd and normalised": (
        {"counts": (3, 4, 2), "widths": (3, 5, 7), "batch": 9, "rank": 3, "kind": "same", "layernorm": True},
        {"grid": 1},
    ),
    "many columns": ({"counts": (3, 2, 2), "widths": (9, 80, 2), "batch": 5, "rank": 3}, {"grid": 1}),
    "staged": ({"counts": (3, 3), "widths": (4, 8), "batch": 600, "rank": 1}, {"shared_limit": 1 << 17}),
    "chunks": ({"counts": (30, 20), "widths": (12, 5), "batch": 900, "rank": 2}, {}),
    "sorted": (
        {"counts": (10, 10), "widths": (3, 30), "batch": 0, "kind": "same", "index": HOT},
        {"grid": 3},
    ),
    "long tables": ({"counts": (400, 390), "widths": (3, 12), "batch": 40, "rank": 3}, {}),
}


@pytest.fixture(autouse=True)
def _simulator():
    require("cusim", not available(), available())


@pytest.mark.parametrize("integer", INTEGERS)
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_instantiation(name, dtype, integer, monkeypatch):
    monkeypatch.setattr(kernels, "_SORT_ABOVE", 0 if name == "sorted" else 1 << 30)
    problem, launching = CASES[name]
    lookup = make(**problem, dtype=dtype)
    index = lookup.index.astype(integer)
    # An index that is bad, and beside it one of the first row.
    index[..., 3], index[..., 4] = -1, 0
    for cotangent in {dtype, "float64" if dtype == "float64" else "float32"}:
        check(
            replace(lookup, index=index),
            Launcher(**launching),
            np.dtype(cotangent) if cotangent != "bfloat16" else None,
        )
