"""What CuPy says of itself and of the GPUs: a script for `devices`, which prints the lines as JSON.

It imports nothing of ketcore, so that it starts at once, and says something where ketcore is broken too.  The
last line is the answer: what is imported may print.
"""

import json
import sys
from contextlib import suppress


def answer() -> list[str]:
    """A line for each GPU, then one of versions; or one line that says why there is none."""
    try:
        import cupy
        from cupy.cuda import runtime
    except Exception as error:
        return [f"unknown: CuPy cannot be imported: {_shown(error)}"]
    try:
        found = [runtime.getDeviceProperties(number) for number in range(runtime.getDeviceCount())]
        names = [
            f"{_text(each['name'])}, compute capability {each['major']}.{each['minor']}" for each in found
        ]
        versions = (
            f"driver {_version(runtime.driverGetVersion())}, runtime {_version(runtime.runtimeGetVersion())}"
        )
    except Exception as error:
        return [f"none: {_shown(error)}"]
    nvrtc = "no NVRTC"
    with suppress(Exception):
        nvrtc = "NVRTC {}.{}".format(*cupy.cuda.nvrtc.getVersion())
    return [*names, f"CUDA: {versions}, {nvrtc}"]


def _text(name):
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name)


def _version(number):
    """12080 is 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _shown(error):
    """What an error is at its root, in one line; without its text where that speaks of paths."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    name = type(error).__name__
    return f"{name}: {lines[0][:100]}" if lines and not {*"/\\"} & {*lines[0]} else name


if __name__ == "__main__":
    # The same modules as in the process that asks, in the same order.
    sys.path[:] = json.loads(sys.argv[1])
    lines = answer()
    print()
    print(json.dumps(lines), flush=True)
