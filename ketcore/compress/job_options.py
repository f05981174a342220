"""The options of `ketcore compress`, `decompress` and `inspect`, for the parser of the command line."""

import argparse
from math import isfinite
from typing import Any

NAMES = ("auto", "int8", "int4", "int2", "pq", "codebooks", "lowrank")
DTYPES = ("float32", "float16")


def add_compress(commands: Any) -> argparse.ArgumentParser:
    """Add `ketcore compress` to the subparsers."""
    about = "make a table of word vectors small, and say what that loses"
    detail = (
        "Read a table of word vectors, fit it by several methods at equal bytes, print what each of them "
        "loses, and write the best one to a file that ketcore.load reads; without --output write none."
    )
    parser = commands.add_parser("compress", help=about, description=detail)
    add = parser.add_argument
    add(
        "table",
        metavar="TABLE",
        help="npy, npz, safetensors, or text of GloVe or word2vec (also .gz and .xz)",
    )
    add("--ratio", type=_ratio, required=True, help="bytes of the table in float32 over bytes of the result")
    add("--output", metavar="FILE", help="the file to be written, of safetensors")
    add("--method", choices=NAMES, default="auto", help="default: auto, the best of all by what is measured")
    add("--weights", metavar="COUNTS", help="how often each word occurs: npy, or text with a number a line")
    add(
        "--holdout",
        type=_fraction,
        default=0.0,
        metavar="FRACTION",
        help="measure on words that are not fitted",
    )
    add("--tensor", "--array", metavar="NAME", help="which array of the file the table is")
    add("--seed", type=_seed, default=0, help="of what is drawn (default: 0)")
    add("--json", metavar="FILE", help="save what was measured as JSON")
    add("--plot", metavar="FILE", help="save a picture of it (needs matplotlib)")
    add("--force", action="store_true", help="replace files that are there")
    return parser


def add_decompress(commands: Any) -> argparse.ArgumentParser:
    """Add `ketcore decompress` to the subparsers."""
    about = "write a compressed table as a dense one"
    detail = "Write all rows of a table that ketcore compress or ketcore.save wrote, block by block."
    parser = commands.add_parser("decompress", help=about, description=detail)
    add = parser.add_argument
    add("file", metavar="FILE", help="a file of ketcore.save")
    add(
        "--output",
        metavar="FILE",
        required=True,
        help="by its ending: .npy, .safetensors, .txt or .vec (word2vec)",
    )
    add("--dtype", choices=DTYPES, default="float32", help="of the numbers in .npy and .safetensors")
    add("--words", metavar="FILE", help="write the words too, one a line")
    add("--force", action="store_true", help="replace files that are there")
    return parser


def add_inspect(commands: Any) -> argparse.ArgumentParser:
    """Add `ketcore inspect` to the subparsers."""
    about = "print what a file of ketcore holds"
    parser = commands.add_parser("inspect", help=about, description=about)
    parser.add_argument("file", metavar="FILE", help="a file of ketcore.save")
    return parser


def _ratio(text):
    number = _number(text)
    if not (isfinite(number) and number >= 1):
        raise argparse.ArgumentTypeError(f"must be a number of at least 1, got {text!r}")
    return number


def _fraction(text):
    number = _number(text)
    if not 0 <= number <= 0.5:
        raise argparse.ArgumentTypeError(f"must lie in [0, 0.5], got {text!r}")
    return number


def _seed(text):
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an int of at least 0, got {text!r}")
    return int(text)


def _number(text):
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
