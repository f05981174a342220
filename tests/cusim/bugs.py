"""Seeded bugs: edits of kernel sources that a check must notice, and what became of them."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from .build import sanitizer
from .launcher import MODE, ORDERS, SimLauncher

# Words in the error by which a bug is known to have been noticed for the right reason.
WRONG, RACE, DIVERGENT, OVERFLOW = "Arrays are not equal", "data race", "divergent", "heap-buffer-overflow"


@dataclass(frozen=True)
class Bug:
    """A bug in kernels.

    name    what is wrong
    run     run(launch) drives the kernels, and compares what they give
    file    the source that has the bug; empty if it is the launch that is wrong
    old, new   the edit; `old` stands in the source exactly once.  In a file .ptx, the PTX of one entry, it is
            a regular expression, whose first match is replaced
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
    edits, rewrite = [], str
    if bug.file.endswith(".ptx"):
        rewrite = partial(rewritten, bug)
    elif bug.file:
        edits = [(bug.file, bug.old, bug.new)]
    for order in ORDERS:
        launch = SimLauncher(
            directory, table, order=order, edits=edits, alone=True, mode=mode, rewrite=rewrite
        )
        try:
            bug.run(launch)
        except (AssertionError, RuntimeError, ValueError) as error:
            return str(error)
    return None


def rewritten(bug: Bug, text: str) -> str:
    """The PTX with a bug; as it is, if the bug is in another kernel."""
    kernel = bug.name.split(":")[0]
    if f".entry _Z{len(kernel)}{kernel}" not in text:
        return text
    text, count = re.subn(bug.old, bug.new, text, count=1, flags=re.MULTILINE)
    assert count, f"{bug.name}: {bug.old} is not in the PTX"
    return text


def print_report(bugs, directory, table) -> None:
    """Run every bug that the mode of this process must catch; print {name: text of the error or null}."""
    tried = (bug for bug in bugs if sanitizer(MODE) in bug.caught)
    print(json.dumps({bug.name: outcome(bug, directory, table) for bug in tried}))
