"""`python -m bench.small`: what calls on few rows of NumPy arrays take, where Python is most of it.

`--against DIR` has the same calls of another checkout beside it, in a process of its own, by turns: one
sample of each a round.  One thread, CPU time, medians; a sample repeats short calls for 2 ms.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np

from bench.machine import THREAD_VARIABLES
from bench.measure import SAMPLE_SECONDS, clock

BATCHES = (1, 32, 1024, 16384)
VOCAB, DIM, ORDER, RANK = 30428, 256, 4, 2
LEAVES = (4,) * ORDER


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.small", description=__doc__.splitlines()[0])
    parser.add_argument("--against", metavar="DIR", help="another checkout of ketcore, timed by turns")
    parser.add_argument("--batch", type=int, action="append", help="these numbers of rows alone")
    parser.add_argument("--only", default="", help="the calls alone whose names hold this text")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.answer:
        return _answer()
    here = Path(__file__).parents[1]
    trees = [here, Path(options.against).resolve()] if options.against else [here]
    workers = [_worker(tree) for tree in trees]
    titles = ("us", "other us", "ratio") if options.against else ("us",)
    print(f"{'call':<32}{'rows':>7}" + "".join(f"{title:>12}" for title in titles))
    for name in filter(lambda name: options.only in name, _calls(_arrays(1))):
        for batch in options.batch or BATCHES:
            print(_line(name, batch, workers, options.rounds), flush=True)
    for worker in workers:
        worker.stdin.close()
        worker.wait()
    return 0


def _line(name, batch, workers, rounds):
    samples = [[_ask(worker, name, batch) for worker in workers] for _ in range(rounds + 1)][1:]
    times = [median(found) for found in zip(*samples, strict=True)]
    numbers = "".join(f"{1e6 * time:>12.1f}" for time in times)
    ratio = f"{times[0] / times[1]:>12.2f}" if len(times) > 1 else ""
    return f"{name:<32}{batch:>7}{numbers}{ratio}"


def _worker(tree):
    """A process with the ketcore of a checkout, which answers what a call takes."""
    alone = dict.fromkeys(THREAD_VARIABLES, "1")
    return subprocess.Popen(
        [sys.executable, __file__, "--answer"],
        env=os.environ | alone | {"PYTHONPATH": str(tree)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def _ask(worker, name, batch):
    print(batch, name, file=worker.stdin, flush=True)
    return float(worker.stdout.readline())


def _answer():
    """Read "rows call" line by line, and write the seconds of a call, the mean of one sample."""
    known = {}
    for line in sys.stdin:
        batch, _, name = line.strip().partition(" ")
        if batch not in known:
            known = {batch: _calls(_arrays(int(batch)))}
        print(_sample(known[batch][name]), flush=True)
    return 0


def _sample(call):
    now = clock(1)
    start, count = now(), 0
    while (passed := now() - start) < SAMPLE_SECONDS:
        for _ in range(1 + 2 * count):
            call()
        count += 1 + 2 * count
    return passed / count


def _arrays(batch):
    """The same numbers in every process."""
    rng = np.random.default_rng(batch)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    return {
        "factors": [normal(RANK, rows, 4) for rows in (13, 13, 13, 14)],
        "ids": rng.integers(0, VOCAB, batch),
        "index": rng.integers(0, 13, (ORDER, batch)),
        "records": normal(VOCAB, RANK, sum(LEAVES)),
        "cotangent": normal(batch, DIM),
        "wide": [normal(10, 175, 16) for _ in range(2)],
        "pair": [normal(1, 16, 16) for _ in range(2)],
        "sum": [normal(10, 16, 16) for _ in range(2)],
        "many": [normal(1, 4, 4) for _ in range(4)],
    }


def _calls(arrays):
    """The calls by name; `ketcore` is that of the checkout."""
    import ketcore as kc

    factors, ids, records, cotangent = (arrays[n] for n in ("factors", "ids", "records", "cotangent"))
    shape = VOCAB, DIM
    calls = {
        "rows": lambda: kc.rows(factors, ids, shape),
        "rows_vjp": lambda: kc.rows_vjp(factors, ids, cotangent, shape),
        "rows_jvp": lambda: kc.rows_jvp(factors, ids, factors, shape),
        "rows_jvp 2/10": lambda: kc.rows_jvp(arrays["wide"], ids, arrays["wide"], shape),
        "gather_kron": lambda: kc.gather_kron(factors, arrays["index"]),
        "gather_kron_vjp": lambda: kc.gather_kron_vjp(factors, arrays["index"], cotangent),
        "gather_kron_jvp": lambda: kc.gather_kron_jvp(factors, arrays["index"], factors),
        "ket_rows_jvp": lambda: kc.ket_rows_jvp(records, ids, records, LEAVES),
        "ket_rows_jvp 2": lambda: kc.ket_rows_jvp(records, ids, records, (8, 8)),
    }
    for words, normed in (("", False), (" LayerNorm", True)):
        calls |= {
            f"ket_rows{words}": lambda on=normed: kc.ket_rows(records, ids, LEAVES, on),
            f"ket_rows_vjp{words}": lambda on=normed: kc.ket_rows_vjp(records, ids, cotangent, LEAVES, on),
            f"ket_rows_vjp{words} sparse": lambda on=normed: kc.ket_rows_vjp(
                records, ids, cotangent, LEAVES, on, sparse=True
            ),
        }
    for words, name in (("(16.16)^2", "pair"), ("(16.16)^2 r=10", "sum"), ("4^4", "many")):
        calls[f"kron_matmul {words}"] = lambda name=name: kc.kron_matmul(arrays[name], cotangent)
    return calls


if __name__ == "__main__":
    sys.exit(main())
