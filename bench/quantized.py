"""What numbers of 16, 8, 4 and 2 bits cost in error, of two small forms of a table of words.

`python -m bench.quantized TABLE.npy` reads an array (words, columns); without a file it trains the dense
table of the demo.  The forms are a Kronecker matrix of order 2, in the order of `vocabulary_permutation`, and
a table of codes.  Errors are relative: of the form to the table, and what is lost of the form in
float32.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

import ketcore as kc
from bench.compressed import train_dense

BITS = (16, 8, 4, 2)


class Case(NamedTuple):
    """One form of the table, with so many bits a number; what is told of it is in bytes."""

    form: str
    bits: int
    nbytes: int
    ratio: float
    error: float
    lost: float


def cases(table: np.ndarray, rank: int, codes: int, size: int, width: int, block: int) -> Iterator[Case]:
    """Every form, in float32 and with fewer bits."""
    dims = [kc.suggest_dims(length, 2) for length in table.shape]
    order = kc.vocabulary_permutation(table, dims[0], col_dims=dims[1])
    matrix = kc.nearest_kronecker(table, *dims, rank, permutation=order, restarts=0, rng=0).value
    coded = kc.fit_codebooks(table, n_codes=codes, codebook_size=size, width=width, rng=0).value
    moved = np.empty_like(table)
    moved[order] = table
    for form, made, truth in (("Kronecker matrix", matrix, moved), ("codes", coded, table)):
        single = _cast(made, np.float32)
        rows = single.to_dense()
        for bits in (32, *BITS):
            stored = single if bits == 32 else _cast(made, np.float16) if bits == 16 else None
            found = kc.quantize(single, bits, block) if stored is None else stored
            dense = found.to_dense().astype(np.float32)
            # Of the table a number takes as much as in float32.
            ratio = truth.size * 4 / found.nbytes
            yield Case(form, bits, found.nbytes, ratio, _relative(dense, truth), _relative(dense, rows))


def _cast(made: Any, dtype: Any) -> Any:
    if not isinstance(made, kc.CodebookTable):
        return made.astype(dtype)
    books = [book.astype(dtype) for book in made.codebooks]
    others = [None if each is None else each.astype(dtype) for each in (made.row_scale, made.decoder)]
    return kc.CodebookTable(books, made.codes, *others)


def _relative(found: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def report(found: Sequence[Case]) -> str:
    """A line for each case."""
    form = "{:<18}{:>5}{:>12}{:>8}{:>8}{:>10}"
    lines = [form.format("form", "bits", "bytes", "ratio", "error", "lost")]
    for case in found:
        numbers = f"{case.nbytes:,}", f"{case.ratio:.0f}", f"{case.error:.4f}", f"{case.lost:.5f}"
        lines.append(form.format(case.form, case.bits, *numbers))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.quantized", description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", metavar="TABLE.npy", help="else that of the demo is trained")
    for name, default in (("rank", 23), ("codes", 8), ("size", 256), ("width", 32), ("block", 32)):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"({default})")
    options = parser.parse_args(arguments)
    table = train_dense(0)[0] if options.table is None else np.load(options.table)
    table = table.astype(np.float32)
    print(f"{table.shape[0]:,} words, {table.shape[1]} columns")
    sizes = options.rank, options.codes, options.size, options.width, options.block
    print(report(list(cases(table, *sizes))))


if __name__ == "__main__":
    main()
