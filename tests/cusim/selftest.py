"""The simulator's own test: kernels that are right, and the same kernels with one bug each.

As a program it runs the former, then every bug that the mode of this process must catch, and prints what
became of it.
"""

from pathlib import Path

import numpy as np

from .bugs import DIVERGENT, OVERFLOW, RACE, WRONG, Bug, print_report
from .launcher import ORDERS, SimLauncher

HERE = Path(__file__).parent
KERNELS = ("block_sum", "warp_pairs", "scale", "sub_warps")
TABLE = (
    *((kernel, (real,), "selftest") for real in ("float", "double") for kernel in KERNELS),
    ("histogram", ("float", "int"), "selftest"),
    ("histogram", ("int", "long long"), "selftest"),
)
SCALE = np.dtype([("factor", np.float64), ("offset", np.int32)], align=True)
C_NAMES = {"float32": "float", "float64": "double", "int32": "int", "int64": "long long"}


def block_sum(launch, real=np.float32, length=200):
    x, total = np.arange(length, dtype=real), np.full(-(-length // 64), np.nan, real)
    launch("selftest", "block_sum", (C_NAMES[total.dtype.name],), 2, 64, (x, total, np.int64(length)), 0)
    np.testing.assert_array_equal(total, [x[i : i + 64].sum() for i in range(0, length, 64)])


def warp_pairs(launch, real=np.float32, missing=0):
    x = np.arange(64, dtype=real)
    y = np.full(64, np.nan, real)
    launch("selftest", "warp_pairs", (C_NAMES[x.dtype.name],), 1, 64, (x, y), x.nbytes - missing)
    lanes, warps = np.arange(32), x.reshape(2, 32)
    expected = warps[:, (lanes + 1) % 32] + warps[:, (lanes + 2) % 32]
    np.testing.assert_array_equal(y.reshape(2, 32), expected)


def scale(launch, real=np.float32, skip=0):
    x = np.arange(64 + skip, dtype=real)[skip:]
    y, by = np.full(64, np.nan, real), np.array((2.0, 1), SCALE)[()]
    launch("selftest", "scale", (C_NAMES[x.dtype.name],), 2, 32, (x, y, np.int64(64), by), 0)
    np.testing.assert_array_equal(y, 2 * x + 1)


def histogram(launch, count=np.float32, integer=np.int32):
    which, bins = np.arange(100).astype(integer) % 5, np.zeros(5, count)
    types = (C_NAMES[bins.dtype.name], C_NAMES[which.dtype.name])
    launch("selftest", "histogram", types, 2, 32, (which, bins, which.dtype.type(100)), 0)
    np.testing.assert_array_equal(bins, np.full(5, 20))


def sub_warps(launch, real=np.float32):
    x, y, positive = np.arange(64, dtype=real), np.full(64, np.nan, real), np.zeros(1, np.int32)
    launch("selftest", "sub_warps", (C_NAMES[x.dtype.name],), 1, 64, (x, y, positive), 0)
    sums = x.reshape(2, 4, 8).sum(-1)
    before, after = sums[:, [0, 0, 1, 2]], sums[:, [1, 2, 3, 3]]
    np.testing.assert_array_equal(y.reshape(2, 4, 8)[..., 0], sums + 100 * before + 10000 * after)
    assert positive[0] == 63


BUGS = tuple(
    Bug(name, run, "selftest.cu" if old else "", old, new, caught)
    for name, run, old, new, caught in (
        (
            "no barrier after a load",
            block_sum,
            "__syncthreads();\n    for",
            "for",
            {"plain": WRONG, "tsan": RACE},
        ),
        (
            "no barrier before the next write",
            block_sum,
            "partial[0];\n    __syncthreads();",
            "partial[0];",
            {"plain": WRONG, "tsan": RACE},
        ),
        (
            "a barrier for some threads only",
            block_sum,
            "__syncthreads();\n    for",
            "if (t < 40) __syncthreads();\n    for",
            {"plain": DIVERGENT, "asan": DIVERGENT, "tsan": DIVERGENT},
        ),
        (
            "an early return before a barrier",
            block_sum,
            "    partial[t] = start",
            "    if (start + t >= n) return;\n    partial[t] = start",
            {"plain": "have exited", "tsan": "have exited"},
        ),
        (
            "an index beyond shared memory of fixed size",
            block_sum,
            "half = 32",
            "half = 64",
            {"plain": "out of bounds", "asan": "out of bounds"},
        ),
        ("a read beyond an array", block_sum, "start + t < n ?", "start + t <= n ?", {"asan": OVERFLOW}),
        ("no __syncwarp", warp_pairs, "  __syncwarp();\n", "", {"plain": WRONG, "tsan": RACE}),
        (
            "a shuffle among exited lanes",
            warp_pairs,
            "  __syncwarp();\n",
            "  __syncwarp();\n  if (lane > 20) return;\n",
            {"plain": "has exited", "asan": "has exited"},
        ),
        (
            "a shuffle from outside its mask",
            warp_pairs,
            "__shfl_sync(0xffffffffu,",
            "__shfl_sync(lane < 16 ? 0x0000ffffu : 0xffff0000u,",
            {"plain": "outside its mask"},
        ),
        (
            "too little dynamic shared memory",
            lambda launch: warp_pairs(launch, missing=8),
            "",
            "",
            {"plain": "beyond the end of shared memory", "asan": OVERFLOW},
        ),
        (
            "a misaligned 16-byte store",
            scale,
            "(y + start)",
            "(y + start + 1)",
            {"plain": "misaligned", "asan": "misaligned"},
        ),
        ("a misaligned array", lambda launch: scale(launch, skip=1), "", "", {"plain": "misaligned"}),
        ("a loop one too long", scale, "if (start < n)", "if (start <= n)", {"asan": OVERFLOW}),
        (
            "a sum that is not atomic",
            histogram,
            "atomicAdd(&bins[which[i]], T(1))",
            "bins[which[i]] += T(1)",
            {"tsan": RACE},
        ),
        (
            "a division by zero",
            histogram,
            "which[i]], T(1)",
            "which[i] % (n - 100)], T(1)",
            {"plain": "division by zero"},
        ),
        (
            "a barrier in a part of a warp",
            sub_warps,
            "const int all =",
            "if (threadIdx.x % 2) __syncwarp();\n  const int all =",
            {"plain": DIVERGENT},
        ),
    )
)


def run_clean():
    """Every kernel and type as it stands, in every order of threads."""
    for order in ORDERS:
        launch = SimLauncher(HERE, TABLE, order=order, seed=3)
        for real in (np.float32, np.float64):
            for run in (block_sum, warp_pairs, scale, sub_warps):
                run(launch, real)
        histogram(launch)
        histogram(launch, np.int32, np.int64)


if __name__ == "__main__":
    run_clean()
    print_report(BUGS, HERE, TABLE)
