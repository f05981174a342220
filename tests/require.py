"""What a test needs and may be missing: it skips with the reason, or fails where KETCORE_REQUIRE says so."""

import os

import pytest


def required() -> set[str]:
    """The names in KETCORE_REQUIRE, a list such as cusim,nvrtc that continuous integration sets."""
    return set(filter(None, os.environ.get("KETCORE_REQUIRE", "").split(",")))


def require(name: str, available: bool, reason: str) -> None:
    """Skip the running test for `reason` unless `available`; fail if `name` is required."""
    if available:
        return
    if name in required():
        pytest.fail(f"{name} is required and missing: {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")
