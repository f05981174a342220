"""What a test needs and may be missing: it skips with the reason, or fails where KETCORE_REQUIRE says so."""

import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

# Where long doubles are doubles under another name, as on Windows, there is nothing to refuse.
has_long_doubles = pytest.mark.skipif(
    np.dtype(np.longdouble).itemsize == 8, reason="long doubles are doubles here"
)


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


def imported(name: str) -> Any:
    """A module that a whole file of tests needs; where it is missing the file skips, or fails if required."""
    if find_spec(name) is not None:
        return import_module(name)
    reason = f"{name} is not installed"
    if name in required():
        pytest.fail(f"{name} is required and missing: {reason}", pytrace=False)
    pytest.skip(reason, allow_module_level=True)
