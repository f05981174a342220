"""The compiled engine under AddressSanitizer with UndefinedBehaviorSanitizer, and under ThreadSanitizer.

The library is compiled with them once more; Python is not.  ThreadSanitizer runs where CI is set or
KETCORE_REQUIRE names tsan.
"""

import os

import pytest

from ketcore.native import build
from tests.require import required
from tests.run_sanitized import require_mode, run_reporting

# What stands in a report of theirs.
SIGNS = ("Sanitizer", "runtime error")
FLAGS = {
    "asan": ("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    "tsan": ("-fsanitize=thread",),
}
# Of 1 to so many columns once each: a round under a sanitizer is slow.
ROUNDS = {"asan": "10", "tsan": "4"}
# What each of them must notice, and what it then says.
WRONG = {"asan": ("overrun", "heap-buffer-overflow"), "tsan": ("race", "data race")}


@pytest.mark.parametrize("mode", FLAGS)
def test_the_compiled_engine_under_a_sanitizer(mode, tmp_path):
    if mode == "tsan" and not (os.environ.get("CI") or "tsan" in required()):
        pytest.skip("ThreadSanitizer runs where CI is set or KETCORE_REQUIRE names tsan")
    require_mode(mode)
    # All instruction sets have one source: one of them is enough, and sooner compiled.
    build.build(tmp_path, ("-O0", "-g1", "-DKETCORE_PORTABLE=32", *FLAGS[mode]))
    done = run_reporting(mode, ["-m", "tests.native_calls", tmp_path, ROUNDS[mode]])
    assert (done.returncode, reports(done)) == (0, []), done.stderr[-4000:]
    assert "is well" in done.stdout
    name, said = WRONG[mode]
    assert said in " ".join(reports(run_reporting(mode, ["-m", "tests.native_calls", tmp_path, name])))


def reports(done):
    return [line for line in done.stderr.splitlines() if any(sign in line for sign in SIGNS)]
