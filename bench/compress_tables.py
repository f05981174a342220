"""What `ketcore compress` loses beside compress-fasttext at equal bytes, also in similarities of words.

`python -m bench.compress_tables TABLE --ratio 8 --ratio 15` reads what `ketcore compress` does.  With the
words of the table, which are in TABLE or in a file with one a line, `--similar PAIRS` takes files of pairs of
words with a number each, by tabs, as WordSim-353 and SimLex-999 are: what is shown is the rank correlation of
cosines with these numbers.  compress-fasttext is left out where it is missing; its product quantisation and
its low rank are taken, at their own settings, of the sizes that fit.  Its pruning is of n-grams of fastText,
which other tables have none of.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from ketcore.compress.command import rows_of_table
from ketcore.compress.frames import Frame, framed
from ketcore.compress.measures import Measures, Probe, Reader
from ketcore.compress.methods import METHODS, pruned_rows
from ketcore.compress.table_files import read_table

CENTROIDS = 255
# What makes a table: a reader of its rows, and its bytes.
Maker = Callable[[], tuple[Reader, float]]


class Line(NamedTuple):
    """One table: what made it, its bytes, what was measured, seconds."""

    name: str
    nbytes: float
    measures: Measures
    similar: list[float]
    seconds: float


class Pairs(NamedTuple):
    """Pairs of words that a table has, (2, n), and a number for each."""

    ids: np.ndarray
    scores: np.ndarray


def read_pairs(path: str, words: Sequence[str]) -> Pairs:
    """The pairs of a file both of whose words are there, in lower case where they are so alone."""
    known = {word: row for row, word in reversed(list(enumerate(words)))}
    ids, scores = [], []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        parts = line.split("\t")
        if line.startswith("#") or len(parts) != 3:
            continue
        found = [known.get(word, known.get(word.lower())) for word in parts[:2]]
        if None not in found:
            ids.append(found)
            scores.append(float(parts[2]))
    return Pairs(np.array(ids).T, np.array(scores))


def similar(read: Reader, pairs: Pairs) -> float:
    """The rank correlation of cosines with what people said."""
    left, right = [read(ids) for ids in pairs.ids]
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines = np.einsum("iq,iq->i", left, right) / np.where(lengths > 0, lengths, 1)
    return float(spearmanr(cosines, pairs.scores).statistic)


def ours(frame: Frame, budget: float, left_out: Sequence[str]) -> Iterator[tuple[str, Maker]]:
    """Every method of the command that reaches the bytes, and the control of its weights."""
    for method in METHODS:
        sizes = method.sizes(frame, budget)
        if sizes is not None and method.name not in left_out:

            def make(method=method, sizes=sizes):
                made = method.make(frame, sizes, np.random.default_rng(0))
                return rows_of_table(made), made.nbytes

            yield method.name, make
    yield "pruned", lambda: (pruned_rows(frame, budget), budget)


def theirs(dense: np.ndarray, budget: float) -> Iterator[tuple[str, Maker]]:
    """compress-fasttext: codes of a byte and centroids of float32; float16 and components of float64."""
    try:
        from compress_fasttext.decomposition import DecomposedMatrix
        from compress_fasttext.quantization import quantize
    except ImportError:
        return
    words, columns = dense.shape
    fixed = 4 * CENTROIDS * columns
    pieces = [m for m in range(1, columns + 1) if columns % m == 0 and fixed + m * words <= budget]
    if pieces and words > CENTROIDS:
        np.random.seed(0)  # noqa: NPY002 - of SciPy's kmeans2 there
        name = f"compress-fasttext quantize, {pieces[-1]} pieces"

        def product():
            found = quantize(dense, pieces[-1], CENTROIDS)
            return lambda ids: np.asarray(found[ids], np.float32), fixed + pieces[-1] * words

        yield name, product
    rank = int(min(budget / (2 * words + 8 * columns), columns - 1))
    if rank:

        def low():
            found = DecomposedMatrix.compress(dense, rank)
            return lambda ids: np.asarray(found[ids], np.float32), rank * (2 * words + 8 * columns)

        yield f"compress-fasttext svd, {rank} components", low


def lines(table: Any, pairs: Sequence[Pairs], ratio: float, left_out: Sequence[str]) -> Iterator[Line]:
    """All that can be made of a table at a ratio."""
    words, _ = table.array.shape
    weights = np.ones(words)
    frame = framed(table, weights, np.random.default_rng(0))
    probe = Probe(table.rows, words, weights, np.arange(words), np.random.default_rng(1))
    budget = frame.dense_bytes / ratio
    dense = table.rows(slice(None))
    for name, make in (*ours(frame, budget, left_out), *theirs(dense, budget)):
        begun = perf_counter()
        read, size = make()
        taken = perf_counter() - begun
        yield Line(name, size, probe.measure(read), [similar(read, each) for each in pairs], taken)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compress_tables", description=__doc__.splitlines()[0]
    )
    parser.add_argument("table", metavar="TABLE")
    parser.add_argument("--words", metavar="FILE", help="the words, one a line, where TABLE has none")
    parser.add_argument("--similar", metavar="PAIRS", action="append", default=[])
    parser.add_argument("--ratio", type=float, action="append", required=True)
    parser.add_argument("--without", metavar="METHOD", action="append", default=[], help="leave it out")
    options = parser.parse_args(arguments)
    table = read_table(options.table)
    words = table.words
    if options.words is not None:
        words = Path(options.words).read_text(encoding="utf-8").split("\n")
    pairs = [read_pairs(path, words or []) for path in options.similar]
    count, columns = table.array.shape
    known = "".join(f"  {similar(table.rows, each):.3f} ({each.scores.size})" for each in pairs)
    print(f"{count:,} words, {columns} columns, as they are:{known}")
    form = "{:<42}{:>8}{:>8}{:>9}{:>12}{:>9}" + "{:>10}" * len(pairs)
    for ratio in options.ratio:
        names = [Path(path).stem[:9] for path in options.similar]
        print(form.format(f"at {ratio:g}x", "ratio", "error", "cosines", "neighbours", "seconds", *names))
        for name, size, (error, cosines, neighbours), found, seconds in lines(
            table, pairs, ratio, options.without
        ):
            numbers = (
                f"{4 * count * columns / size:.1f}",
                f"{error:.3f}",
                f"{cosines:.3f}",
                f"{neighbours:.3f}",
            )
            print(
                form.format(name, *numbers, f"{seconds:.1f}", *(f"{each:.3f}" for each in found)), flush=True
            )


if __name__ == "__main__":
    main()
