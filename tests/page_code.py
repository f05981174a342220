"""Functions that a page of the documentation defines, so that tests run what readers copy."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# A statement: its first line, and those that go on.
STATEMENT = re.compile(r"^>>> .*\n(?:\.\.\..*\n)*", re.MULTILINE)


def defined(page: str) -> dict[str, Any]:
    """The functions of a page, by name, and what it imports: nothing else of it is run."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    statements = [each for block in BLOCK.findall(text) for each in STATEMENT.findall(block)]
    wanted = [each for each in statements if re.match(r">>> (def|import|from) ", each)]
    lines = [line[4:] for each in wanted for line in each.splitlines()]
    scope: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("\n".join(lines), page, "exec"), scope)
    return scope
