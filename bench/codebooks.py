"""Codebooks of a table: how near, how fast, and by which k-means.

python -m bench.codebooks table FILE     relative errors at some sizes, of a table in a file of NumPy
python -m bench.codebooks speed          1,000,000 x 256 numbers in a file: seconds and memory
python -m bench.codebooks kmeans         k-means as called here, and those of SciPy and scikit-learn
python -m bench.codebooks scale          rows of 100,000,000 words, their codes mapped from a file, on Linux
"""

import argparse
import mmap
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from scipy.cluster.vq import kmeans2
from sklearn.cluster import KMeans, MiniBatchKMeans

import ketcore as kc
from bench.measure import peak_memory
from ketcore.fit.kmeans import cluster

# (n_codes, codebook_size, width, row_scale) of `table`; a width of None is that of the table.
SETTINGS = (
    (1, 256, 16, False),
    (1, 256, None, False),
    (1, 256, None, True),
    (2, 256, None, False),
    (2, 256, None, True),
    (3, 256, None, False),
    (4, 256, None, False),
    (4, 256, None, True),
    (6, 256, None, False),
    (8, 256, None, False),
)
POINTS, CENTRES, SWEEPS = (50_000, 64), 256, 10


def decaying(words: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Rows in float32 whose components have lengths that fall as 1 / sqrt(q)."""
    rows = rng.standard_normal((words, columns), np.float32)
    return rows / np.sqrt(np.arange(1, columns + 1, dtype=np.float32))


def stored_bytes(value) -> int:
    """Codebooks, decoder, codes and scales."""
    arrays = (*value.codebooks, value.codes, value.row_scale, value.decoder)
    return sum(each.nbytes for each in arrays if each is not None)


def table_lines(table: np.ndarray, settings=SETTINGS) -> Iterator[str]:
    """Codebooks at each size, and what a truncated SVD of the nearest rank to these bytes has.

    The table is float16, and so is what is stored; ratios are those to its bytes in float32.
    """
    form = "{:>7}{:>6}{:>6}  {:<6}{:>10}{:>8}{:>8}{:>8}"
    yield form.format("n_codes", "size", "width", "scale", "bytes", "ratio", "error", "SVD")
    words, columns = table.shape
    squares = np.linalg.svd(table.astype(np.float32), compute_uv=False).astype(np.float64) ** 2
    for n_codes, size, width, scaled in settings:
        width = width or columns
        value, error, *_ = kc.fit_codebooks(table, n_codes, size, width, row_scale=scaled, rng=0)
        taken = stored_bytes(value)
        rank = round(taken / table.itemsize / (words + columns))
        cells = f"{taken:,}", f"{4 * table.size / taken:.1f}", f"{error:.3f}"
        svd = f"{np.sqrt(squares[rank:].sum() / squares.sum()):.3f}"
        yield form.format(n_codes, size, width, "yes" if scaled else "no", *cells, svd)


def speed_lines(words: int, columns: int, n_codes: int, folder: Path) -> Iterator[str]:
    """Seconds and memory of a fit of a table in a file."""
    path, rng = folder / "table.npy", np.random.default_rng(0)
    table = np.lib.format.open_memmap(path, "w+", np.float32, (words, columns))
    for start in range(0, words, 1 << 14):
        table[start : start + (1 << 14)] = decaying(len(table[start : start + (1 << 14)]), columns, rng)
    del table
    table = np.load(path, mmap_mode="r")
    found, fitted = [], []

    def fit():
        found.append(
            kc.fit_codebooks(table, n_codes, rng=0, callback=lambda *_: fitted.append(perf_counter()))
        )

    before, used = perf_counter(), process_time()
    peak = peak_memory(fit)
    seconds, used, trained = perf_counter() - before, process_time() - used, fitted[-1] - before
    yield f"{words:,} x {columns} in float32, {n_codes} codes: error {found[0].error:.4f}"
    yield f"{seconds:.1f} s, {trained:.1f} s until the last of the codebooks; {used:.1f} s of CPU time"
    taken = stored_bytes(found[0].value)
    yield f"NumPy held {peak / 1e6:.0f} MB at most, {taken / 1e6:.0f} MB of it the result"


def kmeans_lines(shape=POINTS, centres=CENTRES) -> Iterator[str]:
    """Seconds of processor time, and errors, of as many sweeps of each k-means from the same start."""
    points = decaying(*shape, np.random.default_rng(0))
    for name, run in kmeans_contestants(points, centres):
        before = process_time()
        found = run()
        seconds = process_time() - before
        pieces = np.array_split(points, 1000)
        gaps = [((piece[:, None] - found) ** 2).sum(axis=2).min(axis=1).sum() for piece in pieces]
        yield f"{name:<40}{seconds:>7.2f} s   error {np.sqrt(sum(gaps) / (points**2).sum()):.4f}"


def kmeans_contestants(points: np.ndarray, centres: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """Names, and what gives the centres."""
    weights = np.ones(len(points), np.float32)
    # The start that `cluster` draws of this seed.
    times = np.random.default_rng(1).exponential(size=len(points))
    first = points[np.argsort(times, kind="stable")[:centres]]

    def ours():
        return cluster(points, weights, centres, np.random.default_rng(1), SWEEPS).centres

    yield "ketcore.fit.kmeans.cluster", ours
    yield "scipy.cluster.vq.kmeans2", lambda: kmeans2(points, first, iter=SWEEPS, minit="matrix")[0]
    options = {"n_clusters": centres, "init": first, "n_init": 1, "max_iter": SWEEPS, "tol": 0.0}
    yield "sklearn KMeans, all threads", lambda: KMeans(**options).fit(points).cluster_centers_
    batches = options | {"batch_size": 4096, "random_state": 0}
    yield "sklearn MiniBatchKMeans", lambda: MiniBatchKMeans(**batches).fit(points).cluster_centers_


def scale_lines(words: int, folder: Path, codes=8, width=64, columns=256, ids=16_384) -> Iterator[str]:
    """Seconds and memory of rows of a table whose codes are mapped: from the disk, and from memory."""
    path, rng = folder / "codes", np.random.default_rng(0)
    _write_codes(path, words, codes, rng)
    books = rng.standard_normal((codes, 256, width), np.float32)
    decoder = rng.standard_normal((width, columns), np.float32)
    picked, other = rng.integers(0, words, (2, ids))

    def table() -> kc.CodebookTable:
        stored = _mapped(path).reshape(words, 1, codes)
        return kc.CodebookTable([books], np.moveaxis(stored, 0, 2), None, decoder)

    yield f"{words:,} words x {columns}: a file of {path.stat().st_size / 1e6:,.0f} MB"
    table().rows(other[:100])  # what is imported
    lines = _of_one_thread(path, codes, picked)
    found, rows = table(), []
    before = _resident()
    lines["rows, codes from the disk"] = _time(lambda: rows.append(found.rows(picked)))
    grown = {name: size - before[name] for name, size in _resident().items()}
    lines["rows, again"] = min(_time(lambda: found.rows(picked)) for _ in range(9))
    sums = rows[0] @ decoder.T
    lines["their decoder alone"] = min(_time(lambda: sums @ decoder) for _ in range(9))
    yield f"{f'{ids:,} words':<40}{'wall':>10}{'processor':>13}"
    for name, (wall, used) in lines.items():
        yield f"{name:<40}{1e3 * wall:>7.0f} ms{1e3 * used:>10.0f} ms"
    anonymous, pages = grown["RssAnon"] / 1e6, grown["RssFile"] / 1e6
    yield f"resident memory grew by {anonymous:.0f} MB, and {pages:.0f} MB of pages of the file, which are"
    yield f"the system's to take back; the rows have {4e-6 * ids * columns:.0f} MB"


def _of_one_thread(path, codes, picked):
    """The times of reading codes; what is mapped here is let go, since the system drops no page that is."""
    stored = _mapped(path).reshape(-1, codes)
    first = _time(lambda: stored[picked])
    return {"codes by one thread, from the disk": first, "again": _time(lambda: stored[picked])}


def _write_codes(path, words, codes, rng):
    """A file of random codes of a byte, those of each word together; progress on the error stream."""
    # Where larger pieces were let go, the allocator would keep them, and what is resident say less.
    step = 1 << 19
    with open(path, "wb") as file:
        for start in range(0, words, step):
            file.write(rng.bytes(min(step, words - start) * codes))
            print(f"\rwords written: {start:,} of {words:,}", end="", file=sys.stderr, flush=True)
        file.flush()
        os.fsync(file.fileno())
    print(f"\rwords written: {words:,} of {words:,}", file=sys.stderr)


def _mapped(path):
    """The bytes of a file, mapped as `ketcore.load` does; the system has none of its pages in memory."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pages.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(pages, np.uint8)


def _resident() -> dict[str, int]:
    """Bytes of this process that are in memory: its own, and those of mapped files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: 1024 * int(found[name].split()[0]) for name in ("RssAnon", "RssFile")}


def _time(call) -> tuple[float, float]:
    """Seconds of a call, by the clock and of the processor."""
    before, used = perf_counter(), process_time()
    call()
    return perf_counter() - before, process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.codebooks", description=__doc__.partition("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("table").add_argument("file", help="a table (words, columns), as numpy.save writes it")
    speed = kinds.add_parser("speed")
    for name, default in (("words", 1_000_000), ("columns", 256), ("codes", 8)):
        speed.add_argument(f"--{name}", type=int, default=default)
    kinds.add_parser("kmeans")
    scale = kinds.add_parser("scale")
    scale.add_argument("--words", type=int, default=100_000_000)
    scale.add_argument("--folder", help="where there is room for 8 bytes a word, for the time of the run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=getattr(options, "folder", None)) as folder:
        lines = {
            "table": lambda: table_lines(np.load(options.file).astype(np.float16)),
            "speed": lambda: speed_lines(options.words, options.columns, options.codes, Path(folder)),
            "kmeans": kmeans_lines,
            "scale": lambda: scale_lines(options.words, Path(folder)),
        }[options.kind]()
        for line in lines:
            print(line, flush=True)


if __name__ == "__main__":
    main()
