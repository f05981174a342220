"""`python -m bench`: measure, print the table, save JSON and a picture."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.machine import THREAD_VARIABLES
from bench.workloads import DTYPES

_FAMILY_HELP = "rows and kets (default), products, or training steps of layers"


def main() -> None:
    options = _parse(sys.argv[1:])
    if options.worker:
        from bench.worker import run

        return run(options)
    from bench import report
    from bench.families import FAMILIES

    results = report.merge([_spawn(options, threads) for threads in options.threads])
    print(FAMILIES[options.family].table(results))
    if options.json:
        Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    if options.plot:
        report.plot(results, options.plot)


def _parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    add = parser.add_argument
    add("--family", choices=("rows", "algebra", "layers"), default="rows", help=_FAMILY_HELP)
    add("--quick", action="store_true", help="float32, one thread, few batches, short samples")
    add("--only", default="", metavar="REGEX", help="workloads whose name, as in the table, matches")
    add("--threads", type=_numbers, metavar="N,...", help="1: CPU time; more: wall time (default 1,2)")
    add("--batch", type=_numbers, metavar="N,...", help="these alone; algebra: where a workload has them")
    add("--dtype", type=_words, metavar="NAME,...", help=f"default {','.join(DTYPES)}")
    add("--seconds", type=float, help="timing of one case, all contestants together")
    add(
        "--who", default="", metavar="REGEX", help="contestants whose module here matches, as 'ketcore|floor'"
    )
    add("--before", default="", metavar="FOLDER", help="a checkout of another ketcore, which takes part")
    add("--extra", action="append", default=[], metavar="PATH.py", help="a contestant (peers/extra_peer.py)")
    add("--json", metavar="FILE", help="save every number")
    add("--plot", metavar="FILE", help="save a picture of the ratios")
    add("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.threads = options.threads or ([1] if options.quick else [1, 2])
    options.dtype = options.dtype or list(DTYPES[:1] if options.quick else DTYPES)
    return options


def _words(text):
    return text.split(",")


def _numbers(text):
    return [int(number) for number in _words(text)]


def _spawn(options, threads):
    """Results of a process of its own: libraries read the number of threads when they load, and may crash."""
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(threads)) | {"JAX_PLATFORMS": "cpu"}
    # Else torch's profiler writes a line for every start and stop.
    environment |= {"KINETO_LOG_LEVEL": "99"}
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "results.json")
        command = [sys.executable, "-m", "bench", f"--worker={target}", f"--only={options.only}"]
        command += [
            f"--family={options.family}",
            f"--threads={threads}",
            f"--dtype={','.join(options.dtype)}",
        ]
        command += [f"--who={options.who}", f"--before={options.before}"]
        command += [f"--batch={','.join(map(str, options.batch))}"] if options.batch else []
        command += [f"--seconds={options.seconds}"] if options.seconds else []
        command += [f"--extra={path}" for path in options.extra] + ["--quick"] * options.quick
        ended = subprocess.run(command, env=environment, check=False)
        if not target.exists():
            sys.exit(f"the measuring process ended with status {ended.returncode} and no results")
        return json.loads(target.read_text(encoding="utf-8")) | {"status": ended.returncode}


if __name__ == "__main__":
    main()
