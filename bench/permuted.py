"""How near a Kronecker matrix is to a table of words, in the order given and by `vocabulary_permutation`.

`python -m bench.permuted TABLE.npy` reads an array (words, columns); without a file it trains the dense table
of the demo.  Dims are those of `suggest_dims`, and the rank is the largest for which the factors have at most
1/RATIO of the table's numbers.  Seconds are CPU time, of the permutation alone.
"""

import argparse
from collections.abc import Iterator, Sequence
from math import prod
from time import process_time
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

import ketcore as kc
from bench.compressed import GAIN, train_dense

RATIOS = (30, 100, 300)


Dims = tuple[tuple[int, ...], tuple[int, ...]]


class Case(NamedTuple):
    """The errors of one table for some dims, of rows and of columns, and one ratio."""

    dims: Dims
    rank: int
    ratio: float
    given: float
    permuted: float
    seconds: float


def cases(table: np.ndarray, dims: Dims, ratios: Sequence[float]) -> Iterator[Case]:
    """Every ratio that has a rank of at least 1."""
    row_dims, col_dims = dims
    begun = process_time()
    permutation = kc.vocabulary_permutation(table, row_dims, col_dims=col_dims)
    taken = process_time() - begun
    one = sum(p * q for p, q in zip(row_dims, col_dims, strict=True))
    # Where there is a closed form nothing is gained by less.
    closed = len(row_dims) == 2 and (prod(row_dims), prod(col_dims)) == table.shape
    options = {"restarts": 0, "rng": 0, "gain": None if closed else GAIN}
    for rank in sorted({int(table.size / ratio) // one for ratio in ratios} - {0}, reverse=True):
        errors = [
            float(kc.nearest_kronecker(table, row_dims, col_dims, rank, permutation=each, **options).error)
            for each in (None, permutation)
        ]
        yield Case(dims, rank, table.size / (rank * one), *errors, taken)


def report(found: Sequence[Case]) -> str:
    """A line for each case."""
    form = "{:<28}{:>6}{:>8}{:>12}{:>12}{:>10}"
    lines = [form.format("dims", "rank", "ratio", "as given", "permuted", "seconds")]
    for case in found:
        numbers = f"{case.ratio:.0f}", f"{case.given:.3f}", f"{case.permuted:.3f}", f"{case.seconds:.2f}"
        lines.append(form.format(" ".join(map(_written, case.dims)), case.rank, *numbers))
    return "\n".join(lines)


def _written(dims):
    return "x".join(map(str, dims))


def _read(text):
    return tuple(map(int, text.split("x")))


@threadpool_limits.wrap(limits=1, user_api="blas")
def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.permuted", description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", metavar="TABLE.npy", help="else that of the demo is trained")
    parser.add_argument("--order", type=int, default=2, help="number of factors (2)")
    parser.add_argument(
        "--dims", nargs=2, type=_read, help="instead: of rows and of columns, as 200x250 5x10"
    )
    parser.add_argument("--ratio", type=float, action="append", help=f"these alone {RATIOS}")
    options = parser.parse_args(arguments)
    table = train_dense(0)[0] if options.table is None else np.load(options.table)
    table = table.astype(np.float32)
    print(f"{table.shape[0]:,} words, {table.shape[1]} columns")
    dims = options.dims or [kc.suggest_dims(size, options.order) for size in table.shape]
    print(report(list(cases(table, tuple(dims), options.ratio or RATIOS))))


if __name__ == "__main__":
    main()
