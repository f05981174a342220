"""`python -m ketcore`: what a report of a bug needs, or the command line of `ketcore` where words follow."""

import sys

from ketcore.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["info"]))
