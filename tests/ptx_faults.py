"""Bugs seeded into PTX: what a compiler could get wrong and no test of the source would see.

As a program it drives the kernels as they are, in the mode ptx, then every bug, and prints what became of it.
"""

import numpy as np

from ketcore.cuda import table
from ketcore.lookups import kernels
from ketcore.lookups.lookup import remade
from tests import matmul_mutations
from tests.cusim import ORDERS, SimLauncher
from tests.cusim.bugs import WRONG, Bug, print_report
from tests.kernel_problems import make
from tests.mutations import ALIGNED, CUDA, ROWS, STAGED, few_blocks, lookup


def rounds(launch):
    """Products of two numbers, which are rounded once: the same bits as NumPy's."""
    problem = lookup(counts=(5, 4), widths=(8, 8), rank=1, batch=9)
    out = np.full((9, 64), np.nan, np.float32)
    # One column off, so that stores are single.
    problem = remade(problem, columns=63)
    out = kernels.expand(few_blocks(launch), problem, out[:, :63].copy())
    first, second = problem.tables
    rows = np.einsum("bi,bj->bij", first[0, problem.index // 4], second[0, problem.index % 4]).reshape(9, 64)
    np.testing.assert_array_equal(out, rows[:, :63])


def large_ids(launch):
    """Ids that are valid where only their 32 low bits are read give NaN."""
    problem = make((70_000, 70_001), (2, 3), 0, index=np.array([5, 2**33 + 5, 7 - 2**32]))
    out = kernels.expand(few_blocks(launch), problem, np.zeros((3, 6), np.float32))
    np.testing.assert_array_equal(np.isnan(out).all(1), [False, True, True])


def one_block(run):
    """The driver with one block, which does all the work in turn."""
    return lambda launch: run(few_blocks(launch, 1))


DRIVERS = (ROWS, ALIGNED, STAGED, rounds, large_ids, matmul_mutations.ROWS, one_block(STAGED))
# (?s).* before it makes the first match the last one.
BUGS = tuple(
    Bug(f"{kernel}: {what}", run, f"{source}.ptx", old, new, {"plain": caught})
    for kernel, what, run, source, old, new, caught in (
        (
            "expand",
            "a store of 16 bytes is 8 bytes off",
            ALIGNED,
            "gather",
            r"(st\.global\.cs\.v4\.u32 \[%rd\d+)\]",
            r"\1+8]",
            "misaligned: 16 bytes",
        ),
        ("expand", "a dropped predicate", ROWS, "gather", r"@%p\d+ bra[^;]*;", "", "out of bounds: 8 bytes"),
        (
            "expand",
            "an id of 64 bits is read as one of 32",
            large_ids,
            "gather",
            r"(?s)(.*ld\.global\.nc\.)u64(\s+%rd\d+, \[%rd\d+\])",
            r"\1u32\2",
            WRONG,
        ),
        (
            "expand",
            "a product is rounded towards zero",
            rounds,
            "gather",
            r"(?s)(.*)fma\.rn",
            r"\1fma.rz",
            WRONG,
        ),
        (
            "expand",
            "the address of a table in shared memory is not made generic",
            STAGED,
            "gather",
            r"cvta\.shared\.u64",
            "mov.u64",
            "not a generic address",
        ),
        (
            "expand",
            "the warp does not wait for its leaves",
            ROWS,
            "gather",
            r"(?s)(bar\.warp\.sync.*?)bar\.warp\.sync[^;]*;",
            r"\1",
            WRONG,
        ),
        (
            "multiply",
            "the block does not wait for the tile",
            matmul_mutations.ROWS,
            "matmul",
            r"bar\.sync[^;]*;",
            "",
            WRONG,
        ),
    )
)


def run_clean():
    """Every driver on the PTX as it is."""
    for order in ORDERS:
        for run in DRIVERS:
            run(SimLauncher(CUDA, table.TABLE, order=order, alone=True))


if __name__ == "__main__":
    run_clean()
    print_report(BUGS, CUDA, table.TABLE)
