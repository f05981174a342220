"""Bugs seeded into the compiled kernels: each is where it is said to be, and the checks notice it.

That they do takes minutes: it is looked at where KETCORE_REQUIRE names mutations.
"""

import pytest

from ketcore.native import build
from tests.native_bugs import BUGS
from tests.native_mutations import outcomes
from tests.require import required

# What holds no code of its own.
LEFT_OUT = {"kernels.hpp"}


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_bug_stands_in_one_place(bug):
    assert (build.SOURCES / bug.file).read_text(encoding="utf-8").count(bug.old) == 1
    assert bug.new != bug.old


def test_every_file_of_kernels_has_a_bug():
    assert {path.name for path in build.SOURCES.glob("*.hpp")} - LEFT_OUT == {bug.file for bug in BUGS}
    assert len({bug.name for bug in BUGS}) == len(BUGS)


@pytest.mark.skipif("mutations" not in required(), reason="runs where KETCORE_REQUIRE names mutations")
def test_every_bug_is_noticed():
    found = outcomes(BUGS)
    assert not [bug.name for bug, said in found.items() if not said]
