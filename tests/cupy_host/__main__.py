"""Make the environment, which takes a minute once, and run pytest in it."""

import subprocess
import sys

from tests.cupy_host import process, wheels

reason = wheels.fetched(True)
if reason:
    sys.exit(f"cupy-host is missing: {reason}")
sys.exit(subprocess.run(process.command(sys.argv[1:]), check=False).returncode)
