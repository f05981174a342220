"""Bugs seeded into the compiled kernels, each of which `tests.native_checks` must notice.

    python -m tests.native_mutations [NAME ...]     all of them, or those whose names hold one of these words

It prints a line for each: a minute for ten of them on two cores.  `tests.test_native_mutations` says when the
suite runs it.
"""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from ketcore.native import build
from tests.native_bugs import BUGS, Bug
from tests.processes import ROOT


def outcome(bug: Bug) -> str:
    """How the checks ended with the bug; empty where they did not notice it."""
    with TemporaryDirectory() as folder:
        sources = Path(folder) / "sources"
        shutil.copytree(build.SOURCES, sources, ignore=shutil.ignore_patterns("_kernels.*"))
        text = (sources / bug.file).read_text(encoding="utf-8")
        if text.count(bug.old) != 1:
            raise ValueError(f"{bug.name}: its text is there {text.count(bug.old)} times")
        (sources / bug.file).write_text(text.replace(bug.old, bug.new), encoding="utf-8")
        flags = ("-O0", "-DKETCORE_PORTABLE=32", "-w")
        build.build(folder, flags, sources)
        command = [sys.executable, "-m", "tests.native_checks", folder]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=300, check=False
        )
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return f"status {done.returncode}: {last}" if done.returncode else ""


def outcomes(bugs) -> dict[Bug, str]:
    """The outcome of each of them, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(bugs, pool.map(outcome, bugs), strict=True))


def main(*words):
    """The outcome of every bug, and how many went unseen."""
    found = outcomes([bug for bug in BUGS if not words or any(word in bug.name for word in words)])
    for bug, said in found.items():
        print(f"{bug.name}: {said or 'NOT SEEN'}")
    unseen = [*found.values()].count("")
    print(f"{len(found) - unseen} of {len(found)} bugs are caught")
    return min(unseen, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
