"""The tests of the kernels once more, with the sanitizers watching the kernels on the simulator.

AddressSanitizer and UndefinedBehaviorSanitizer run always; ThreadSanitizer, which takes a minute, where
CI is set or KETCORE_REQUIRE names tsan.  Left out is what checks many numbers and no other accesses.
"""

import os

import pytest

from tests.require import required
from tests.run_sanitized import require_mode, run_sanitized

LEFT_OUT = "not hot_row and not bit_for_bit and not sixteen_bit"
TESTS = ("tests/test_kernels.py", "tests/test_matmul_kernels.py", "-k", LEFT_OUT)


def test_kernels_stay_in_bounds():
    _run("asan")


def test_kernels_have_no_races():
    if not (os.environ.get("CI") or "tsan" in required()):
        pytest.skip("ThreadSanitizer runs where CI is set or KETCORE_REQUIRE names tsan")
    _run("tsan")


def _run(mode):
    require_mode(mode)
    result = run_sanitized(mode, ["-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS])
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    assert " passed" in result.stdout
