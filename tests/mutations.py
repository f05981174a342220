"""Bugs seeded into the kernels, each of which some check must notice: what makes the checks trustworthy.

As a program it drives the kernels as they are, then every bug that the mode of this process must notice, and
prints what became of it.
"""

from pathlib import Path

import numpy as np

from ketcore.cuda import launcher, table
from ketcore.lookups import kernels
from ketcore.lookups.gather import engine, gather, gather_vjp
from ketcore.lookups.lookup import make_lookup, remade
from ketcore.shapes import halves_split
from tests import matmul_mutations
from tests.cusim import ORDERS, SimLauncher, build
from tests.cusim.bugs import OVERFLOW, RACE, WRONG, Bug, print_report
from tests.cusim.launcher import MODE

CUDA = Path(launcher.__file__).parent


def lookup(counts, widths, rank, batch, kind="digits", columns=None, layernorm=False, bad=()):
    """A float32 problem: random tables and indices, the rows `bad` with an index just out of range."""
    rng = np.random.default_rng(7)
    tables = tuple(
        rng.standard_normal((rank, t, q)).astype(np.float32) for t, q in zip(counts, widths, strict=True)
    )
    order, bound = len(counts), int(np.prod(counts)) if kind == "digits" else min(counts)
    shape = {"modes": (order, batch), "terms": (order, rank, batch)}.get(kind, (batch,))
    index = rng.integers(0, min(counts) if kind in ("modes", "terms") else bound, shape).astype(np.int32)
    index[..., list(bad)] = bound
    columns, split = columns or int(np.prod(widths)), order // 2 if layernorm else halves_split(tuple(widths))
    dtype = np.dtype(np.float32)
    return make_lookup(tables, index, kind, bound, False, columns, layernorm, 1e-5, split, dtype)


def exact(problem):
    """The same problem in float64, for the reference that NumPy computes."""
    tables = tuple(table.astype(np.float64) for table in problem.tables)
    return remade(problem, tables=tables, dtype=np.dtype(np.float64))


def cotangent_of(problem):
    return np.random.default_rng(8).standard_normal((problem.batch, problem.columns)).astype(np.float32)


def assert_close(found, expected):
    """Equal up to rounding, which LayerNorm enlarges; bugs are far above it.  NaN only where NaN is due."""
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    size = 2e-3 * np.nanmax(np.abs(expected), initial=1.0)
    wrong = np.abs(found - expected) > size
    np.testing.assert_array_equal(np.where(wrong, found, expected), expected)


def few_blocks(launch, most=3):
    """The launcher with at most so many blocks: warps take several rows, and the sanitizers less time."""

    def limited(source, kernel, types, grid, *rest):
        launch(source, kernel, types, min(grid, most), *rest)

    limited.xp, limited.workspace, limited.sort = launch.xp, launch.workspace, launch.sort
    return limited


def expands(**problem):
    """A driver of `expand`."""
    problem = lookup(**problem)

    def run(launch):
        out = np.full((problem.batch, problem.columns), np.nan, np.float32)
        assert_close(kernels.expand(few_blocks(launch), problem, out), gather(exact(problem)))

    return run


def contracts(atomic=False, sort=False, **problem):
    """A driver of `contract` and of what sums its records: by chunks, by sorting, or by atomics."""
    problem = lookup(**problem)

    def run(launch):
        cotangent, gradients = cotangent_of(problem), [np.zeros_like(table) for table in problem.tables]
        before, kernels._SORT_ABOVE = kernels._SORT_ABOVE, 0 if sort else 1 << 30
        try:
            kernels.contract(few_blocks(launch), problem, cotangent, not atomic, gradients)
        finally:
            kernels._SORT_ABOVE = before
        for found, expected in zip(gradients, gather_vjp(exact(problem), cotangent, True), strict=True):
            assert_close(found, expected)

    return run


def records(**problem):
    """A driver of `contract` alone, with one record for each row."""
    problem = lookup(**problem)

    def run(launch):
        cotangent = cotangent_of(problem)
        found = kernels.leaf_cotangents(few_blocks(launch), problem, cotangent)
        assert_close(found, engine(exact(problem)).records(exact(problem), cotangent))

    return run


ROWS = expands(counts=(5, 4, 3), widths=(4, 3, 5), rank=3, batch=30, bad=(3,))
CROPPED = expands(counts=(5, 4), widths=(3, 5), rank=2, batch=9, columns=13)
ALIGNED = expands(counts=(5, 4), widths=(4, 8), rank=2, batch=9)
TREE = expands(counts=(6, 6, 6, 6), widths=(3, 2, 2, 3), rank=2, batch=9, kind="same", layernorm=True)
STAGED = expands(counts=(3, 3), widths=(4, 4), rank=1, batch=600)
BIG_ROW = records(counts=(3, 3), widths=(48, 32), rank=5, batch=3)
TREE_BACK = records(counts=(6, 6, 6), widths=(3, 4, 5), rank=2, batch=5, kind="same", layernorm=True)
ATOMIC = contracts(atomic=True, counts=(2, 3), widths=(3, 4), rank=2, batch=40, bad=(5,))
CHUNKS = contracts(counts=(5, 4, 3), widths=(4, 3, 5), rank=3, batch=150, bad=(3, 149))
TERMS = contracts(counts=(4, 4), widths=(3, 5), rank=2, batch=70, kind="terms", bad=(2,))
SORTED = contracts(sort=True, counts=(3, 3), widths=(2, 3), rank=2, batch=900, kind="same", bad=(4,))
DRIVERS = (
    ROWS, CROPPED, ALIGNED, TREE, STAGED, BIG_ROW, TREE_BACK, ATOMIC, CHUNKS, TERMS, SORTED,
    *matmul_mutations.DRIVERS,
)  # fmt: skip

# Two barriers of the code that are the same text are told apart by what stands next to them.
BUGS = (
    Bug(
        "contract: the next row begins before the last lane is done with this one",
        ATOMIC,
        "gather.cu",
        "records[row * length + e] = 0;\n    }\n    __syncwarp();",
        "records[row * length + e] = 0;\n    }",
        {"tsan": RACE},
    ),
    Bug(
        "expand: lanes do not wait for the leaves of the others",
        ROWS,
        "kernel.cuh",
        "(mode.table)[at]);\n  }\n  __syncwarp();",
        "(mode.table)[at]);\n  }",
        {"plain": WRONG, "tsan": RACE},
    ),
    Bug(
        "expand: warps do not wait for the tables in shared memory",
        STAGED,
        "kernel.cuh",
        "  __syncthreads();\n  unsigned char* own",
        "  unsigned char* own",
        {"tsan": RACE},
    ),
    Bug(
        "expand: only the lanes that have seen a bad index know of it",
        ROWS,
        "kernel.cuh",
        "  bad = __any_sync(ALL_LANES, bad);\n",
        "",
        {"plain": "different places in the source"},
    ),
    Bug(
        "expand: the index that is first out of range passes",
        ROWS,
        "kernel.cuh",
        "index < bound ?",
        "index <= bound ?",
        {"plain": WRONG},
    ),
    Bug(
        "expand: a row is one column too long",
        CROPPED,
        "gather.cu",
        "column < plan.columns) store",
        "column <= plan.columns) store",
        {"asan": OVERFLOW},
    ),
    Bug(
        "expand: 16-byte stores to rows that are not aligned for them",
        CROPPED,
        "gather.cu",
        "if (plan.vector)",
        "if (plan.columns)",
        {"plain": "misaligned"},
    ),
    Bug(
        "expand: the mean of the wrong child in a variance",
        TREE,
        "kernel.cuh",
        "a.variance * b.mean * b.mean",
        "a.variance * a.mean * a.mean",
        {"plain": WRONG},
    ),
    Bug(
        "contract: a lane reads the panel before it is filled",
        BIG_ROW,
        "gather.cu",
        "      total += g;\n    }\n    __syncwarp();",
        "      total += g;\n    }",
        {"plain": WRONG, "tsan": RACE},
    ),
    Bug(
        "contract: a panel forgets the panels before it",
        BIG_ROW,
        "gather.cu",
        "first > 0);",
        "false);",
        {"plain": WRONG},
    ),
    Bug(
        "contract: LayerNorm's backward takes the bias of the other child",
        TREE_BACK,
        "gather.cu",
        "(is_left ? by.left_bias : by.right_bias)",
        "(is_left ? by.right_bias : by.left_bias)",
        {"plain": WRONG},
    ),
    Bug(
        "contract: gradients added to without atomics",
        ATOMIC,
        "gather.cu",
        "atomicAdd(gradient_at<A>(mode, k, leaf_index(plan, own, n, k), column - mode.first_column), slope);",
        "*gradient_at<A>(mode, k, leaf_index(plan, own, n, k), column - mode.first_column) += slope;",
        {"tsan": RACE},
    ),
    Bug(
        "contract: the index that is sorted is that of the first row",
        SORTED,
        "gather.cu",
        "[row] = index[row];",
        "[row] = index[0];",
        {"plain": WRONG},
    ),
    Bug(
        "accumulate: sums start from what is in shared memory",
        CHUNKS,
        "scatter.cu",
        "for (int d = 0; d < slot.leaves; ++d) sums[d * 32 + lane] = 0;",
        "",
        {"plain": WRONG},
    ),
    Bug(
        "accumulate: lanes without a column leave before the shuffle",
        CHUNKS,
        "scatter.cu",
        "  const A* entries = records",
        "  if (!live) return;\n  const A* entries = records",
        {"plain": "has exited"},
    ),
    Bug(
        "accumulate: sums of leaves too far apart",
        CHUNKS,
        "scatter.cu",
        "sums[leaf[u] * 32 + lane] +=",
        "sums[leaf[u] * 40 + lane] +=",
        {"plain": WRONG, "asan": OVERFLOW},
    ),
    Bug(
        "accumulate: indices are read beyond the last row",
        TERMS,
        "scatter.cu",
        "if (terms && live && row < end)",
        "if (terms && live)",
        {"asan": OVERFLOW},
    ),
    Bug(
        "reduce: one chunk too many",
        CHUNKS,
        "scatter.cu",
        "chunk < plan.chunks; ++chunk",
        "chunk <= plan.chunks; ++chunk",
        {"asan": OVERFLOW},
    ),
    Bug(
        "pieces: every position begins a piece, and pieces overlap",
        SORTED,
        "scatter.cu",
        "if (p % PIECE != 0 && !is_head(ids, p)) continue;",
        "",
        {"tsan": RACE},
    ),
    Bug(
        "pieces: the search for the end leaves the array",
        SORTED,
        "scatter.cu",
        "while (end < plan.rows && end % PIECE != 0",
        "while (end % PIECE != 0",
        {"asan": OVERFLOW},
    ),
    Bug(
        "segments: every position writes the sum of its segment",
        SORTED,
        "scatter.cu",
        "if (id < 0 || !is_head(ids, p)) continue;",
        "if (id < 0) continue;",
        {"tsan": RACE},
    ),
    Bug(
        "segments: a piece is passed over",
        SORTED,
        "scatter.cu",
        "for (i64 q = p - p % PIECE + PIECE;",
        "for (i64 q = p - p % PIECE + 2 * PIECE;",
        {"plain": WRONG},
    ),
    *matmul_mutations.BUGS,
)

# Edits after which a kernel no longer fits in registers: kernel, source, and the edit.
SPILLS = {
    "more tiles than registers": ("expand<float,int>", "gather", ("gather.cu", "TILE = 8,", "TILE = 128,")),
    "too many blocks asked for": (
        "expand<float,int>",
        "gather",
        ("kernel.cuh", "MIN_BLOCKS = 3;", "MIN_BLOCKS = 8;"),
    ),
    "as many blocks in double": (
        "multiply<double>",
        "matmul",
        ("matmul.cu", "sizeof(T) == 8 ? 2 : MIN_BLOCKS", "MIN_BLOCKS"),
    ),
}


def run_clean():
    """Every driver on the kernels as they are."""
    # What the sanitizers find does not depend on the order.
    for order in ORDERS if build.sanitizer(MODE) == "plain" else ORDERS[:1]:
        for run in DRIVERS:
            run(SimLauncher(CUDA, table.TABLE, order=order, alone=True))


if __name__ == "__main__":
    run_clean()
    print_report(BUGS, CUDA, table.TABLE)
