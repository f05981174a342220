"""Seeded bugs: edits of kernel sources that a check must notice, and what became of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass

from .launcher import MODE, ORDERS, SimLauncher

# Words in the error by which a bug is known to have been noticed for the right reason.
WRONG, RACE, DIVERGENT, OVERFLOW = "Arrays are not equal", "data race", "divergent", "heap-buffer-overflow"


@dataclass(frozen=True)
class Bug:
    """A bug in kernels.

    name    what is wrong
    run     run(launch) drives the kernels, and compares what they give
    file    the source that has the bug; empty if it is the launch that is wrong
    old, new   the edit; `old` stands in the source exactly once
    caught  the modes that must notice the bug, each with words that are then in the error
    """

    name: str
    run: Callable[[SimLauncher], None]
    file: str
    old: str
    new: str
    caught: dict[str, str]


def outcome(bug: Bug, directory, table, mode: str = MODE) -> str | None:
    """The text of the error that the bug made in some order of threads, or None if it went unseen."""
    edits = [(bug.file, bug.old, bug.new)] if bug.file else []
    for order in ORDERS:
        try:
            bug.run(SimLauncher(directory, table, order=order, edits=edits, alone=True, mode=mode))
        except (AssertionError, RuntimeError, ValueError) as error:
            return str(error)
    return None


def print_report(bugs, directory, table) -> None:
    """Run every bug that the mode of this process must catch; print {name: text of the error or null}."""
    print(json.dumps({bug.name: outcome(bug, directory, table) for bug in bugs if MODE in bug.caught}))
