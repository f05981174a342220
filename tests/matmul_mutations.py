"""Bugs seeded into the kernel that multiplies by Kronecker matrices, each of which some check must notice."""

import numpy as np

from ketcore.products import fused
from ketcore.products.fused_plan import Limits, fused_steps
from tests.cusim.bugs import OVERFLOW, RACE, WRONG, Bug


class Limited:
    """A launcher with at most three blocks, so that each takes several tiles; new arrays hold NaN."""

    def __init__(self, launch):
        self._launch, self.xp = launch, self

    def __call__(self, source, kernel, types, grid, *rest):
        self._launch(source, kernel, types, min(grid, 3), *rest)

    ascontiguousarray = staticmethod(np.ascontiguousarray)

    def empty(self, shape, dtype):
        return np.full(shape, np.nan, dtype)


def dense(factors, x):
    """The definition, a mode at a time, in float64."""
    total = 0
    for terms in zip(*factors, strict=True):
        matrix = np.ones((1, 1))
        for factor in terms:
            matrix = np.kron(matrix, factor)
        total = total + np.einsum("pq,bpt->bqt", matrix, x.astype(np.float64))
    return total


def multiplies(dims, batch, trail=1, rank=1, **limits):
    """A driver of `multiply`."""
    rng = np.random.default_rng(7)
    factors = [rng.standard_normal((rank, p, q)).astype(np.float32) for p, q in dims]
    x = rng.standard_normal((batch, int(np.prod([p for p, _ in dims])), trail)).astype(np.float32)
    limits = Limits(**{"blocks": 1, **limits})

    def run(launch):
        before = fused.fused_steps
        fused.fused_steps = lambda *sizes: fused_steps(*sizes, limits=limits)
        try:
            found = fused.matmul(Limited(launch), factors, x)
        finally:
            fused.fused_steps = before
        expected = dense(factors, x)
        wrong = ~(np.abs(found - expected) <= 1e-4 * np.abs(expected).max())
        np.testing.assert_array_equal(np.where(wrong, found, expected), expected)

    return run


# Tiles of many rows, the last one not full; merged modes; links of two strips of columns, and odd fibres.
ROWS = multiplies([(3, 2), (2, 5), (7, 8)], batch=47, shared=5000)
# Tiles of part of a row, the last one not full; four links.
WIDE = multiplies([(5, 5), (5, 4), (5, 6)], batch=2, trail=37, shared=9000)
# One pass that sums terms, their matrices held, and not held.
TERMS = multiplies([(5, 4), (5, 6)], batch=9, rank=3)
UNHELD = multiplies([(5, 4), (5, 6)], batch=9, rank=3, held=0)
# Several passes of all terms.
PASSES = multiplies([(5, 4), (5, 6), (4, 5)], batch=3, rank=2, shared=2000)
DRIVERS = (ROWS, WIDE, TERMS, UNHELD, PASSES)

BUGS = (
    Bug(
        "multiply: links begin before the tile is loaded",
        ROWS,
        "matmul.cu",
        "k, x, wide_x, values);\n      __syncthreads();",
        "k, x, wide_x, values);",
        {"plain": WRONG, "tsan": RACE},
    ),
    Bug(
        "multiply: a link does not wait for the one before",
        ROWS,
        "matmul.cu",
        "s == pass.links - 1);\n        __syncthreads();",
        "s == pass.links - 1);",
        {"plain": WRONG, "tsan": RACE},
    ),
    Bug(
        "multiply: the next tile is loaded where this one is still read",
        ROWS,
        "matmul.cu",
        "    // The next tile goes where this one may still be read.\n    __syncthreads();",
        "",
        {"tsan": RACE},
    ),
    Bug(
        "multiply: threads without a fibre leave before the barrier",
        ROWS,
        "matmul.cu",
        "        __syncthreads();\n      }",
        "        if (threadIdx.x >= link.fibres) return;\n        __syncthreads();\n      }",
        {"plain": "have exited"},
    ),
    Bug(
        "multiply: an odd fibre has itself as partner",
        TERMS,
        "matmul.cu",
        "      if (first + w * half >= link.fibres) continue;\n",
        "",
        {"tsan": RACE},
    ),
    Bug(
        "multiply: a strip has one column too many",
        WIDE,
        "matmul.cu",
        "if (j >= columns) continue;",
        "if (j > columns) continue;",
        {"plain": "beyond the end of shared memory"},
    ),
    Bug(
        "multiply: rows beyond the last are read and written",
        ROWS,
        "matmul.cu",
        "if (o >= tile.outer || i >= tile.inner)",
        "if (i >= tile.inner)",
        {"asan": OVERFLOW},
    ),
    Bug(
        "multiply: a tile is one column too wide at the end of a row",
        WIDE,
        "matmul.cu",
        "if (o >= tile.outer || i >= tile.inner)",
        "if (o >= tile.outer || i > tile.inner)",
        {"asan": OVERFLOW},
    ),
    Bug(
        "multiply: the wrong stride between the rows of a buffer",
        ROWS,
        "matmul.cu",
        "values[from[w] + i * link.inner]",
        "values[from[w] + i * link.source_left]",
        {"plain": WRONG},
    ),
    Bug(
        "multiply: the sum over terms starts from what is in shared memory",
        TERMS,
        "matmul.cu",
        "values, k > term && s ==",
        "values, s ==",
        {"plain": WRONG},
    ),
    Bug(
        "multiply: every link adds to what the term before left",
        TERMS,
        "matmul.cu",
        "values, k > term && s == pass.links - 1)",
        "values, k > term)",
        {"plain": WRONG},
    ),
    Bug(
        "multiply: all terms by the matrices of the first",
        TERMS,
        "matmul.cu",
        "(held ? k * pass.matrices : 0)",
        "0",
        {"plain": WRONG},
    ),
    Bug(
        "multiply: matrices are loaded for the first term alone",
        UNHELD,
        "matmul.cu",
        "if (!held) load_matrices",
        "if (!held && k == 0) load_matrices",
        {"plain": WRONG},
    ),
    Bug(
        "multiply: a pass sums the first term again and again",
        PASSES,
        "matmul.cu",
        "if (k == term || pass.source.term) load_tile",
        "if (k == term) load_tile",
        {"plain": WRONG},
    ),
    Bug(
        "multiply: terms write over one another",
        PASSES,
        "matmul.cu",
        "to = k * pass.target.term + at;",
        "to = at;",
        {"plain": WRONG, "tsan": RACE},
    ),
    Bug(
        "multiply: modes are merged in reverse order",
        ROWS,
        "matmul.cu",
        "for (int n = link.first_factor + link.factors - 1; n >= link.first_factor; --n) {",
        "for (int n = link.first_factor; n < link.first_factor + link.factors; ++n) {",
        {"plain": WRONG},
    ),
    Bug(
        "multiply: the padding of buffers is forgotten",
        ROWS,
        "matmul.cu",
        "row * side.pitch + e",
        "row * side.row + e",
        {"plain": WRONG},
    ),
)
