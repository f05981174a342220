"""Run tests without the compiled engine, and by each lesser instruction set that this machine has.

    python -m tests.run_engines [--short] [pytest arguments]

The suite itself runs by all engines and the best instruction set.  --short takes the tests of what engines
compute, with arrays of NumPy and few examples.
"""

import os
import sys

from ketcore.native import loader
from tests.run_kernels import CORES, run_tests

SHORT = ("test_ops", "test_matmul", "test_scale", "test_threads", "test_engines", "test_small_calls")
# These call the compiled engine, whatever engines are allowed.
COMPILED = ("test_native_backward", "test_native_products")
ONLY = "not cusim and not torch and not jax and not awkward and not strict"


def plan() -> dict[str, dict[str, str]]:
    """Names of runs, and the environment of each."""
    found = {"without the compiled engine": {"KETCORE_ENGINE": "numpy,arrays"}}
    library, _ = loader.found()
    for name in library.available if library else ():
        if name != library.instructions:
            found[f"by {name}"] = {"KETCORE_INSTRUCTIONS": name}
    return found


def run(name, given, short, arguments) -> bool:
    """Run the tests in one way."""
    files = SHORT + COMPILED * ("KETCORE_INSTRUCTIONS" in given) if short else ()
    chosen = ["-k", ONLY] if short else []
    given = given | ({"HYPOTHESIS_PROFILE": "short"} if short else {})
    paths = [f"tests/{file}.py" for file in files]
    return run_tests(name, os.environ | given, CORES, [*chosen, *paths, *arguments])


def main(arguments) -> int:
    """Run all, and say at the end how many were green."""
    short = "--short" in arguments
    arguments = [argument for argument in arguments if argument not in ("--short", "--all")]
    results = [run(name, given, short, arguments) for name, given in plan().items()]
    print(f"{sum(results)} of {len(results)} choices of engines are green")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
