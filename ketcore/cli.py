"""The command line: `ketcore compress`, `decompress`, `inspect`, `demo`, `info`, and `ketcore --version`."""

import argparse
import sys
from collections.abc import Sequence

from ketcore._version import __version__
from ketcore.compress import job_options
from ketcore.demo.output import drop


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    arguments : sequence of str, optional
        The words after `ketcore`; None takes those of the process.

    Raises
    ------
    SystemExit
        After --help and --version (0), and on a bad option (2).
    """
    _print_anything()
    try:
        try:
            return _obey(arguments)
        finally:
            # Here, and not when Python ends, where nobody catches what becomes of it.
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
        # The status that a shell gives to a command that a closed pipe ended.
        return 141
    except OSError as error:
        drop(sys.stdout)
        return _complain(f"ketcore: error: the standard output must be writable, got {error.strerror}")


def _obey(arguments: Sequence[str] | None) -> int:
    """Parse the arguments and run what they name; the exit status."""
    about = "Tensor-product vectors and Kronecker-factorised matrices."
    parser = argparse.ArgumentParser(prog="ketcore", description=about)
    parser.add_argument("--version", action="version", version=f"ketcore {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    job_options.add_compress(commands).set_defaults(run=_run_compress)
    job_options.add_decompress(commands).set_defaults(run=_run_decompress)
    job_options.add_inspect(commands).set_defaults(run=_run_inspect)
    _add_demo(commands)
    about = "print what a report of a bug needs: versions, BLAS, threads, engines, GPUs"
    commands.add_parser("info", help=about, description=about).set_defaults(run=_run_info)
    options = parser.parse_args(arguments)
    if "run" not in options:
        parser.print_help()
        return 2
    try:
        return options.run(options)
    except KeyboardInterrupt:
        print("\ninterrupted")
        # The status that a shell gives to a command that Ctrl-C ended.
        return 130


def _print_anything() -> None:
    """Let the streams write what their encoding lacks in escapes: a terminal may know ASCII alone."""
    for stream in (sys.stdout, sys.stderr):
        # A stream that something has put in their place may be of any kind, or None.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and getattr(stream, "errors", None) == "strict":
            reconfigure(errors="backslashreplace")


def _complain(message: str) -> int:
    print(message, file=sys.stderr)
    return 1


def _add_demo(commands) -> None:
    """Add `ketcore demo` to the subparsers."""
    about = "train text classifiers with dense and compressed embedding tables"
    detail = (
        "Train intent classifiers on CLINC150 (22,500 sentences, shipped with ketcore) that differ in their "
        "embedding table alone, and compare the size of the table with the accuracy on the test split."
    )
    demo = commands.add_parser("demo", help=about, description=detail)
    add = demo.add_argument
    add("--epochs", type=int, default=12, help="passes over the training split (default: 12)")
    add("--seed", type=int, default=0, help="of the start and of the order of the sentences (default: 0)")
    add(
        "--seeds",
        type=int,
        default=1,
        help="train with so many seeds and show means (default: 1)",
    )
    add("--only", nargs="+", metavar="NAME", help='only these tables, for example: dense "XS 2/10"')
    add("--ask", metavar="SENTENCE", help="print the intents predicted for this sentence")
    add("--plot", metavar="FILE", help="save a picture of accuracy against bytes (needs matplotlib)")
    add("--json", metavar="FILE", help="save the results as JSON")
    demo.set_defaults(run=_run_demo, fail=demo.error)


def _run_demo(options: argparse.Namespace) -> int:
    # Imported here, so that the other commands do not wait for SciPy.
    from ketcore.demo import job

    try:
        tables, corpus = job.prepare(options)
    except ValueError as error:
        options.fail(str(error))
    unsaved = job.run(tables, corpus, options)
    return _complain(f"ketcore demo: error: {unsaved}") if unsaved else 0


def _run_compress(options: argparse.Namespace) -> int:
    # Imported here, so that the other commands do not wait for SciPy.
    from ketcore.compress.command import compress

    try:
        compress(options)
    except (ValueError, ImportError) as error:
        return _complain(f"ketcore compress: error: {error}")
    return 0


def _run_decompress(options: argparse.Namespace) -> int:
    from ketcore.compress.dense_files import decompress

    try:
        print(decompress(options))
    except (ValueError, ImportError) as error:
        return _complain(f"ketcore decompress: error: {error}")
    return 0


def _run_inspect(options: argparse.Namespace) -> int:
    from ketcore.compress.dense_files import inspected

    try:
        print(inspected(options.file))
    except (ValueError, ImportError) as error:
        return _complain(f"ketcore inspect: error: {error}")
    return 0


def _run_info(_: argparse.Namespace) -> int:
    # Imported here, so that the other commands do not wait for SciPy.
    from ketcore.environment import environment

    print(environment())
    return 0
