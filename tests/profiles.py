"""How much the suite tries: the normal profile in minutes, the thorough one where nobody waits.

The short one is for tests that run a second time: in another mode of the simulator, on another kernel of
BLAS, by another engine.

HYPOTHESIS_PROFILE=thorough, or --hypothesis-profile=thorough, draws more examples and runs
what is long and seldom finds what the rest does not.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = {"short": 5, "normal": 25, "thorough": 40}


def register() -> None:
    """Make the profiles known to hypothesis, and load the one that the environment names."""
    for name, examples in EXAMPLES.items():
        # Examples are the same in every run; the fixture that the examples of a test share keeps no state
        # between them.
        settings.register_profile(
            name,
            deadline=None,
            derandomize=True,
            max_examples=examples,
            suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
        )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or "normal")


def is_thorough() -> bool:
    """Whether the thorough profile is in force."""
    return settings.default.max_examples >= EXAMPLES["thorough"]


def scaled(examples: int) -> int:
    """So many examples in the normal profile, more in a thorough one, fewer in the short one."""
    return max(1, examples * settings.default.max_examples // EXAMPLES["normal"])


def only_thorough(what: str) -> None:
    """Skip the running test unless the profile is thorough."""
    if not is_thorough():
        pytest.skip(f"{what}: HYPOTHESIS_PROFILE=thorough")
