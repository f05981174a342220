"""Run tests of the kernels as PTX, and say which lines of it ran.

    python -m tests.ptx_coverage [pytest arguments]

A line that never ran was not tested, whatever the tests say.  Prints for each kernel how many of its lines
ran and how many there are; with --lines, first of all, those that did not as well, and what stands there.
"""

import os
import sys

import pytest

# Of the lines: left are quotients of numbers beyond 32 bits, and loops of sizes that are never launched.
LEAST = 0.97
TESTS = tuple(
    f"tests/test_{name}.py" for name in ("kernels", "matmul_kernels", "kernel_limits", "instantiations")
)


def main(arguments):
    # Before the simulator's launcher is imported, which reads it.
    os.environ["KETCORE_CUSIM"] = "ptx"
    from tests.cusim.launcher import ptx_entries

    show = arguments[:1] == ["--lines"]
    chosen = arguments[show:] or [*TESTS, "-k", "not rows_with_ids"]
    status = pytest.main(["-q", "-p", "no:cacheprovider", *chosen])
    total = missed = 0
    for (source, name), entry in sorted(ptx_entries.items()):
        left = sorted(entry.lines - entry.ran())
        total, missed = total + len(entry.lines), missed + len(left)
        print(f"{source:8} {name:36} {len(entry.lines) - len(left):5} of {len(entry.lines):5}")
        for line in left if show else ():
            print(f"    {line:6}  {entry.text(line)}")
    print(f"{total - missed} of {total} lines of PTX ran, {100 * (total - missed) / max(total, 1):.1f} %")
    return int(status) or (total - missed < LEAST * total)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
