"""Everything that the compiled engine computes, on random sizes: for what watches memory and threads.

    python -m tests.native_calls FOLDER COUNT [guarded]             COUNT rounds by each instruction set
    python -m tests.native_calls FOLDER {overrun,race} [guarded]    a wrong call, which must be noticed

FOLDER is that of the library; `guarded` puts arrays between pages that nothing may touch.  Numbers are
compared elsewhere: here a result has to be written, no more.
"""

import sys
from contextlib import suppress
from math import prod
from pathlib import Path
from threading import Barrier, Thread

import numpy as np

import ketcore as kc
from ketcore.arrays import sums, threads
from ketcore.lookups import gather, on_native
from ketcore.lookups.lookup import make_lookup
from ketcore.native import loader
from ketcore.products import chains, plans
from tests.guard_pages import guarded

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
FLOATS = ["float32", "float64", "float16"]
with suppress(ImportError):
    import ml_dtypes

    FLOATS.append(ml_dtypes.bfloat16)


class Problems:
    """Random arrays, in memory of `room(shape, dtype)`."""

    def __init__(self, seed, room):
        self.random, self.room = np.random.default_rng(seed), room

    def number(self, low, high):
        return int(self.random.integers(low, high + 1))

    def laid_out(self, array):
        """The array in some order of its axes, or in steps."""
        shape = array.shape
        way = self.number(0, 3)
        if way == 0:
            found = self.room(shape, array.dtype)
        elif way == 1:
            found = self.room(shape[::-1], array.dtype).T
        elif way == 2:
            found = self.room(shape, array.dtype)[::-1]
        else:
            found = self.room((*shape[:-1], 2 * shape[-1]), array.dtype)[..., 1::2]
        found[...] = array
        return found

    def floats(self, shape, dtype):
        return self.laid_out(self.random.standard_normal(shape).astype(dtype))

    def indices(self, shape, bound):
        """Some of them out of range, in half of all cases, and not all of one sign."""
        found = self.random.integers(0, bound, shape)
        if self.number(0, 1) and found.size:
            found[..., :: self.number(2, 5)] = (-3, -1, bound, bound + 3)[self.number(0, 3)]
        dtype = np.dtype(INTEGERS[self.number(0, 7)])
        fits = np.iinfo(dtype).min <= found.min(initial=0) and found.max(initial=0) <= np.iinfo(dtype).max
        return self.laid_out(found.astype(dtype if fits else np.int64))

    def widths(self, order, columns):
        """As many as the order, whose product is the columns or a little more."""
        found = []
        for _ in range(order - 1):
            found.append(self.number(1, columns))
            columns = -(-columns // found[-1])
        return [int(width) for width in self.random.permutation([*found, columns])]


def lookups(problems, columns, batch):
    """Lookups of every kind, forward and backward."""
    order, rank = problems.number(1, 5), problems.number(1, 12)
    dtype, widths = np.dtype(FLOATS[problems.number(0, len(FLOATS) - 1)]), problems.widths(order, columns)
    # Short tables have half tables, whatever the batch.
    longest = 6 if problems.number(0, 1) else 2
    lengths = [problems.number(1, longest) for _ in widths]
    tables = [problems.floats((rank, *pair), dtype) for pair in zip(lengths, widths, strict=True)]
    count = int(np.prod(lengths))
    ids = problems.indices((batch,), count)
    yield kc.rows, kc.rows_vjp, (tables, ids), {"shape": (count, columns)}
    leaves = problems.floats((count, rank, sum(widths)), dtype)
    options = {"dims": widths, "layernorm": bool(problems.number(0, 1)), "columns": columns}
    yield kc.ket_rows, kc.ket_rows_vjp, (leaves, ids), options
    for shape in ((order, batch), (order, rank, batch)):
        index, options = problems.indices(shape, min(lengths)), {"per_term": len(shape) == 3}
        yield kc.gather_kron, kc.gather_kron_vjp, (tables, index), options | {"columns": columns}


def products(problems, columns):
    """Products of dense rows, or of arrays with an axis behind, with Kronecker matrices, cropped."""
    order, rank, batch = problems.number(1, 4), problems.number(1, 3), problems.number(0, 20)
    dtype, widths = np.dtype(FLOATS[problems.number(0, 1)]), problems.widths(order, columns)
    longest = 33 if order < 3 else 9
    rows = [problems.number(1, longest) for _ in widths]
    factors = [problems.floats((rank, *pair), dtype) for pair in zip(rows, widths, strict=True)]
    shape = problems.number(max(1, prod(rows) // 2), prod(rows)), columns
    trail = (problems.number(2, 20),) if problems.number(0, 2) == 0 else ()
    x = problems.floats((batch, shape[0], *trail), dtype)
    yield (
        kc.kron_matmul,
        kc.kron_matmul_vjp,
        (factors, x),
        {"shape": shape, "axis": -2 if trail else -1},
    )


def index_sums(problems, width):
    """Values, an index and a count, as sums by index take them."""
    batch, count = problems.number(1, 100), (1, 3, 30, 257, 70_000)[problems.number(0, 4)]
    values = problems.floats((batch, width), np.dtype(FLOATS[problems.number(0, 1)]))
    return values, problems.random.integers(0, count, batch), count


def one_round(problems, columns, batch):
    """All operations once."""
    for forward, backward, arguments, options in lookups(problems, columns, batch):
        good = True
        with suppress(IndexError):
            good = False
            forward(*arguments, **options)
            good = True
        found = forward(*arguments, **options, check=False)
        out = problems.room(found.shape, found.dtype)
        out[...] = np.nan
        forward(*arguments, **options, check=False, out=out)
        assert np.array_equal(found, out, equal_nan=True), forward.__name__
        assert not good or np.isfinite(out).all(), forward.__name__
        cotangent = problems.floats(found.shape, found.dtype)
        backward(*arguments, cotangent, **options, check=False)
        if forward is kc.ket_rows:
            backward(*arguments, cotangent, **options, check=False, sparse=True)
    for forward, backward, arguments, options in products(problems, columns):
        found = forward(*arguments, **options)
        assert np.isfinite(found).all(), forward.__name__
        backward(*arguments, problems.floats(found.shape, found.dtype), **options)
    assert np.isfinite(sums.sum_by_index(np, *index_sums(problems, columns))).all()


class Rooms:
    """NumPy for the modules that call the library, with arrays of our memory."""

    def __init__(self, room):
        self.room = room

    def __getattr__(self, name):
        return getattr(np, name)

    def empty(self, shape, dtype=float):
        return self.room(shape if isinstance(shape, tuple) else (shape,), np.dtype(dtype))

    zeros = empty

    def furnish(self):
        """Let them have these arrays."""
        for module in (on_native, chains, sums):
            module.np = self


def small_pieces():
    """Let two threads work in small pieces, and the library multiply whatever it can."""
    threads.thread_count = lambda: 2
    on_native._CHUNK_BYTES = on_native._PART_NUMBERS = 512
    chains._WORTH_THREADS, sums._CHUNK_NUMBERS, plans._NATIVE_CALL = 1, 64, -1e18


def run(count, problems):
    """So many rounds, of 1 to 40 columns in turn and at times of more."""
    small_pieces()
    for number in range(count):
        columns = 1 + 11 * number % 40
        if number % 8 == 7:
            one_round(problems, columns * problems.number(2, 8), problems.number(100, 300))
        else:
            one_round(problems, columns, problems.number(0, 70))


def use(folder, instructions=None):
    """The library of a folder, with some instruction set."""
    found = loader.Library(next(Path(folder).glob("_kernels.*")), instructions)
    loader.found = lambda: (found, "")
    assert gather.engines()[0] == "native"
    return found


def wrong(found, name, room):
    """Rows behind the end of their array, or the same rows by two threads."""
    # So many that both threads are at it at the same time.
    table, ids = np.ones((1, 4, 50), np.float32), np.zeros(8000, int)
    rows = room((ids.size - (name == "overrun"), 50), table.dtype)
    lookup = make_lookup((table,), ids, "digits", 4, True, 50, False, 0.0, 0, table.dtype)
    with on_native._handle(lookup, rows) as handle:
        found.prepare(handle)
        barrier = Barrier(2)

        def work():
            barrier.wait()
            found.expand(handle, 0, ids.size)

        workers = [Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def main(folder, what, *options):
    """What the command line asks for."""
    found, problems = use(folder), Problems(0, np.empty)
    if "guarded" in options:
        problems.room = lambda shape, dtype: guarded(shape, dtype, problems.number(0, 2) > 0)
        Rooms(problems.room).furnish()
    if not what.isdigit():
        wrong(
            found,
            what,
            lambda shape, dtype: guarded(shape, dtype, True) if options else np.empty(shape, dtype),
        )
        return
    for instructions in found.available:
        use(folder, instructions)
        run(int(what), problems)
        print(instructions, "is well")


if __name__ == "__main__":
    main(*sys.argv[1:])
