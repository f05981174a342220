"""What is left of a trained table that is compressed: `python -m bench.compressed --seeds 3`.

The classifier of the demo is trained with a dense table, which is compressed to the bytes of each XS table
of the demo, and the classifier is tested as it is, and after a few more epochs in which all parameters move.
At the same bytes stand XS tables that are trained from scratch for these few epochs; `ketcore demo` has those
that are trained for all of its epochs.

The learning rate of each kind of table is the one with the best validation accuracy at order 2 and rank 10,
for a seed that is not among those reported.  Test accuracy is that of the epoch with the best validation
accuracy.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from scipy.cluster.vq import kmeans2
from threadpoolctl import threadpool_limits

import ketcore as kc
from ketcore.demo.data import Corpus, load
from ketcore.demo.tables import COLUMNS, Table, dense_table, stored_bytes, xs_table
from ketcore.demo.train import fit, measure, train_epochs

Array = np.ndarray

SIZES = ((2, 30), (2, 10), (3, 10), (4, 1))
RATES = (0.003, 0.01, 0.03, 0.1)
# Where one of them is chosen.
TUNING_SIZE, TUNING_SEED = (2, 10), 1000
# What iterates ends with the first sweep that lessens its error by less than this part.
GAIN = 1e-3
# As `ketcore demo` trains.
DEMO_EPOCHS = 12


@dataclass(frozen=True)
class Start:
    """A table of word vectors before the few epochs.

    bytes  what the table takes, codes included
    fresh  whether the linear layer starts at zeros too, and there is nothing to test before
    """

    name: str
    table: Table
    parameters: tuple[Array, ...]
    bytes: int
    fresh: bool = False


@cache
def corpus() -> Corpus:
    return load()


def word_counts(averages) -> Array:
    """In how many training sentences a word is, at least 1, so that no row is free."""
    return np.maximum(np.bincount(averages.indices, minlength=averages.shape[1]), 1)


def starts(dense: Array, counts: Array, size: tuple[int, int], seed: int) -> Iterator[Start]:
    """Everyone at the bytes of the XS table of this order and rank."""
    words = len(dense)
    table = xs_table(words, *size)
    drawn = table.start(np.random.default_rng(seed), None)
    budget = stored_bytes(drawn)
    for name, weights in (("from_dense", None), ("from_dense, weights", counts)):
        if weights is not None and size[0] > 2:
            # Their fit takes as long again, and leaves next to nothing either.
            continue
        # Of order 2 and without weights it is the optimum, and does not iterate.
        gain = None if weights is None and size[0] == 2 else GAIN
        near = kc.from_dense(dense, *size, weights=weights, restarts=0, gain=gain, rng=seed).value
        yield Start(name, table, near.factors, budget)
    yield Start("XS from scratch", table, drawn, budget, fresh=True)
    # To the nearest rank, which may be a little over the budget; below a half there is none.
    rank = round(budget / 4 / (words + COLUMNS))
    for name, weights in (("SVD", np.ones(words)), ("SVD, weights", counts)):
        if rank > 0:
            pair = truncated_svd(dense, weights, rank)
            yield Start(name, low_rank_table(words, rank), pair, sum(each.nbytes for each in pair))
    found = [
        product_quantised(dense, budget, seed),
        with_codebooks("codebooks", dense, None, budget, seed),
        with_codebooks("codebooks, weights", dense, np.sqrt(counts), budget, seed),
    ]
    yield from (start for start in found if start is not None)


def truncated_svd(dense: Array, weights: Array, rank: int) -> tuple[Array, Array]:
    """(words, rank) and (rank, COLUMNS): the nearest product, rows counting by their weights."""
    roots = np.sqrt(weights)[:, None].astype(dense.dtype)
    left, values, right = np.linalg.svd(dense * roots, full_matrices=False)
    share = np.sqrt(values[:rank])
    return left[:, :rank] * share / roots, share[:, None] * right[:rank]


def low_rank_table(words: int, rank: int) -> Table:
    """Rows of a product of two thin matrices."""

    def rows(parameters, ids):
        return parameters[0][ids] @ parameters[1]

    def vjp(parameters, ids, cotangent):
        left = np.zeros_like(parameters[0])
        np.add.at(left, ids, cotangent @ parameters[1].T)
        return left, parameters[0][ids].T @ cotangent

    return Table(f"rank {rank}", None, rank, (RATES[0],), _no_start, rows, vjp)


def product_quantised(dense: Array, budget: int, seed: int) -> Start | None:
    """The nearest table whose rows are cut into equal parts, each one of 2^bits centroids of k-means.

    Of 1 to 4 bits, each with the most parts for which codes and centroids fit the budget.
    """
    found = []
    for bits in range(1, 5):
        room = (budget - 4 * COLUMNS * 2**bits) * 8 // (len(dense) * bits)
        if room < 1:
            continue
        parts = min(1 << (room.bit_length() - 1), COLUMNS)
        centroids, codes = _clusters(dense, parts, 2**bits, seed)
        table = codes_table(codes)
        error = np.linalg.norm(table.rows([centroids], np.arange(len(dense))) - dense)
        size = centroids.nbytes + -(-codes.size * bits // 8)
        found.append((error, Start("product quantisation", table, (centroids,), size)))
    return min(found, key=lambda each: each[0], default=(0.0, None))[1]


def _clusters(dense, parts, clusters, seed):
    """Centroids (parts, clusters, COLUMNS / parts) and codes (words, parts)."""
    pieces = dense.reshape(len(dense), parts, -1).swapaxes(0, 1)
    rng = np.random.default_rng(seed)
    centroids = np.zeros((parts, clusters, pieces.shape[-1]), dense.dtype)
    codes = np.zeros((len(dense), parts), np.int64)
    for n, piece in enumerate(pieces):
        # Started at rows of the table, so that hardly any cluster is empty.
        first = piece[rng.choice(len(piece), clusters, replace=False)]
        centroids[n], codes[:, n] = kmeans2(piece, first, iter=10, minit="matrix")
    return centroids, codes


def codes_table(codes: Array) -> Table:
    """Rows that are put together from centroids; the codes (words, parts) stay as they are."""
    part = np.arange(codes.shape[1])

    def rows(parameters, ids):
        return parameters[0][part, codes[ids]].reshape(len(ids), -1)

    def vjp(parameters, ids, cotangent):
        (centroids,) = parameters
        places = np.arange(centroids.size).reshape(centroids.shape)[part, codes[ids]]
        sums = np.bincount(places.ravel(), cotangent.ravel(), minlength=centroids.size)
        return (sums.reshape(centroids.shape).astype(cotangent.dtype),)

    return Table("codes", None, None, (RATES[0],), _no_start, rows, vjp)


def with_codebooks(name: str, dense: Array, weights: Array | None, budget: int, seed: int) -> Start | None:
    """The nearest table of `fit_codebooks`: a byte a code, and of each size the most codes for the budget."""
    found = []
    for size, width in product((16, 64, 256), (16, 32, 64)):
        n_codes = (budget - 4 * COLUMNS * width) // (len(dense) + 4 * size * width)
        if n_codes < 1 or len(dense) < max(size, width):
            continue
        value, error, *_ = kc.fit_codebooks(dense, n_codes, size, width, weights=weights, rng=seed)
        parameters = value.codebooks[0], value.decoder
        taken = value.codes.nbytes + sum(each.nbytes for each in parameters)
        found.append((error, Start(name, codebooks_table(value.codes[0]), parameters, taken)))
    return min(found, key=lambda each: each[0], default=(0.0, None))[1]


def codebooks_table(codes: Array) -> Table:
    """Rows that are decoded sums of vectors of codebooks; the codes (n_codes, words) stay as they are."""

    def sums(books, picked):
        return sum(book[code] for book, code in zip(books, picked, strict=True))

    def rows(parameters, ids):
        return sums(parameters[0], codes[:, ids]) @ parameters[1]

    def vjp(parameters, ids, cotangent):
        books, decoder = parameters
        d_books, picked, d_sums = np.zeros_like(books), codes[:, ids], cotangent @ decoder.T
        for d_book, code in zip(d_books, picked, strict=True):
            np.add.at(d_book, code, d_sums)
        return d_books, sums(books, picked).T @ cotangent

    return Table("codebooks", None, None, (RATES[0],), _no_start, rows, vjp)


def _no_start(rng, teacher):
    raise AssertionError("these tables start from another")


def few_epochs(
    start: Start, rate: float, head: Sequence[Array], epochs: int, seed: int
) -> tuple[float, float]:
    """Validation and test accuracy of the best of some epochs of training, on from `start` and `head`."""
    head = [np.zeros_like(each) if start.fresh else each for each in head]
    parameters = [each.copy() for each in (*start.parameters, *head)]
    table, data, best = replace(start.table, rates=(rate,) * len(start.parameters)), corpus(), (-1.0, -1.0)
    for _ in train_epochs(table, parameters, data.train, epochs, np.random.default_rng(seed)):
        validation = measure(table, parameters, data.validation)
        if validation > best[0]:
            best = validation, measure(table, parameters, data.test)
    return best


@threadpool_limits.wrap(limits=1, user_api="blas")
def race(job) -> list[dict]:
    """A record of everyone at one size for one seed.

    job  size, seed, epochs, (table, weight, bias) of the dense classifier, a rate for each name or for all
    """
    size, seed, epochs, (dense, *head), rates = job
    counts, data, records = word_counts(corpus().train.averages), corpus(), []
    for start in starts(dense, counts, size, seed):
        record = {"size": size, "seed": seed, "name": start.name, "bytes": start.bytes}
        if not start.fresh:
            gap = start.table.rows(start.parameters, np.arange(len(dense))) - dense
            roots = np.sqrt(counts)[:, None]
            record["error"] = float(np.linalg.norm(gap) / np.linalg.norm(dense))
            record["weighted_error"] = float(np.linalg.norm(roots * gap) / np.linalg.norm(roots * dense))
            record["test_before"] = measure(start.table, (*start.parameters, *head), data.test)
        record["rate"] = rates[start.name] if isinstance(rates, dict) else rates
        after = few_epochs(start, record["rate"], head, epochs, seed)
        record["validation_after"], record["test_after"] = after
        records.append(record)
    return records


def train_dense(seed: int) -> tuple[Array, ...]:
    return fit(
        dense_table(corpus().words), corpus(), DEMO_EPOCHS, seed, progress=lambda line: None
    ).parameters


def run(seeds: int, epochs: int, sizes: Sequence, jobs: int) -> Iterator[list[dict]]:
    """The records of one size and seed after the other; the rates are chosen first."""
    with get_context("spawn").Pool(jobs) as pool:
        numbers = (TUNING_SEED, *range(seeds))
        trained = dict(zip(numbers, pool.map(train_dense, numbers, chunksize=1), strict=True))
        rates = best_rates(
            pool.map(
                race, [(TUNING_SIZE, TUNING_SEED, epochs, trained[TUNING_SEED], rate) for rate in RATES], 1
            )
        )
        work = [(size, seed, epochs, trained[seed], rates) for size, seed in product(sizes, range(seeds))]
        yield from pool.imap(race, work)


def best_rates(tried: Sequence[Sequence[dict]]) -> dict[str, float]:
    """For each name the rate of its record with the best validation accuracy."""
    best: dict = {}
    for record in (record for records in tried for record in records):
        before = best.setdefault(record["name"], record)
        if record["validation_after"] > before["validation_after"]:
            best[record["name"]] = record
    return {name: record["rate"] for name, record in best.items()}


def summary(records: Sequence[dict], epochs: int) -> str:
    """Mean and sample standard deviation over the seeds, one line for everyone at every size."""
    form = "{:<6}{:<22}{:>10}{:>9}{:>10}   {:<18}{:<18}{:>6}"
    lines = [
        form.format(
            "size", "table", "bytes", "error", "weighted", "as it is", f"{epochs} epochs more", "rate"
        )
    ]
    groups: dict = {}
    for record in records:
        groups.setdefault((tuple(record["size"]), record["name"]), []).append(record)
    for (size, name), group in groups.items():
        accuracies = [_spread(group, key) for key in ("test_before", "test_after")]
        errors = [f"{mean(r[key] for r in group):.3f}" if key in group[0] else "-" for key in ERRORS]
        taken = f"{round(mean(record['bytes'] for record in group)):,}"
        order_and_rank = "/".join(map(str, size))
        lines.append(form.format(order_and_rank, name, taken, *errors, *accuracies, group[0]["rate"]))
    return "\n".join(lines)


ERRORS = ("error", "weighted_error")


def _spread(group, key):
    values = [record[key] for record in group if key in record]
    if not values:
        return "-"
    return f"{mean(values):.4f}" + (f" +- {stdev(values):.4f}" if len(values) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.compressed", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="of training after the compression (4)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--quick", action="store_true", help="the two tables of order 2 alone")
    parser.add_argument("--json", help="where to write the records")
    options = parser.parse_args()
    sizes = SIZES[:2] if options.quick else SIZES
    records = []
    for found in run(options.seeds, options.epochs, sizes, options.jobs):
        records += found
        print(f"seed {found[0]['seed']}, size {found[0]['size']}", file=sys.stderr, flush=True)
        if options.json:
            Path(options.json).write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    print(summary(records, options.epochs))


if __name__ == "__main__":
    main()
