"""The compiled engine beside pages that nothing may touch: one number too far ends the process."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ketcore.native import build, loader
from tests.processes import ROOT
from tests.require import require

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="pages are guarded as Linux does it")


# Of 1 to 40 columns once each.
ROUNDS = "40"


def calls(*arguments, folder=Path(loader.__file__).parent):
    """`tests.native_calls` with guarded arrays, whatever engine this process is set to."""
    require("native", loader.found()[0] is not None, loader.found()[1])
    given = {name: text for name, text in os.environ.items() if not name.startswith("KETCORE_")}
    command = [sys.executable, "-m", "tests.native_calls", folder, *arguments, "guarded"]
    return subprocess.run(
        command, cwd=ROOT, env=given, capture_output=True, encoding="utf-8", timeout=300, check=False
    )


def test_nothing_is_read_or_written_beside_an_array():
    assert ran(calls(ROUNDS)) == [*loader.found()[0].available]


def test_nor_is_it_by_vectors_of_64_bytes(tmp_path):
    """Few machines have an instruction set with vectors of 64 bytes; these are of none."""
    build.build(tmp_path, ("-O0", "-DKETCORE_PORTABLE=64", "-w"))
    assert ran(calls(ROUNDS, folder=tmp_path)) == ["portable"]


def ran(done):
    """The instruction sets that have come to the end."""
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_what_is_written_beside_an_array_ends_the_process():
    assert calls("overrun").returncode == -signal.SIGSEGV
