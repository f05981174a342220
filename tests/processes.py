"""Python in a process of its own, for what cannot be seen from within one."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_python(
    code, *arguments, options=(), stdout=subprocess.PIPE, encoding="utf-8", **environment
) -> subprocess.CompletedProcess:
    """Run `code` with `arguments` as its sys.argv[1:], and Python itself with `options`."""
    given = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = [sys.executable, *options, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command,
        env=given,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        encoding=encoding,
        timeout=300,
        check=False,
    )
