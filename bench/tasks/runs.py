"""Training of contestants: the rates that validation prefers, then some seeds; nothing is done twice."""

import json
import re
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from bench.tasks.contestants import contestants
from ketcore.demo.data import Corpus
from ketcore.demo.tables import COLUMNS, Table, dense_table, stored_bytes
from ketcore.demo.train import Result, fit

# The rates of a table are multiplied by one of these, by validation with a seed that is not reported; beyond
# the last one the next is tried while it is the best, so many times.
FACTORS, FURTHER = (1 / 3, 1.0, 3.0), 2
TUNING_SEED = 1000


@dataclass
class Runs:
    """The runs of one task, kept in a file.

    Parameters
    ----------
    task : str
        One of TASKS.
    corpus : Corpus
        Its texts.
    path : Path
        The records, one for each run, in JSON; the dense tables lie beside it.
    epochs : int
        Passes over the training split.
    """

    task: str
    corpus: Corpus
    path: Path
    epochs: int

    def __post_init__(self) -> None:
        # That of the rates of the dense table, once it is chosen.
        self.dense_factor = 1.0
        self.records = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else []

    def all(self, ratio: float, seeds: int, only: str) -> Iterator[str]:
        """Do what is not done yet; a line for each run."""
        nbytes = int(self.corpus.words * COLUMNS * 4 / ratio)
        counts = np.bincount(self.corpus.train.averages.indices, minlength=self.corpus.words)
        best: dict[str, float] = {}
        for seed in (TUNING_SEED, *range(seeds)):
            yield from self._dense(seed)
            teacher = self._teacher(seed)
            for table in contestants(self.corpus.words, nbytes, counts, teacher.parameters[0]):
                if not re.search(only, table.name):
                    continue
                if seed == TUNING_SEED:
                    best[table.name] = yield from self._tuned(table, ratio, teacher)
                else:
                    yield from self._run(table, ratio, best[table.name], seed, teacher)

    def _tuned(self, table, ratio, teacher):
        """The factor of the rates with the best validation accuracy, after a line for each that is tried."""
        factors = FACTORS if table.lessons != 0 else (1.0,)
        found = {}
        for factor in factors:
            found[factor] = yield from self._run(table, ratio, factor, TUNING_SEED, teacher)
        for _ in range(FURTHER if len(factors) > 1 else 0):
            best = max(found, key=lambda factor: found[factor])
            following = {min(found): best / 3, max(found): best * 3}.get(best)
            if following is None:
                break
            found[following] = yield from self._run(table, ratio, following, TUNING_SEED, teacher)
        return max(found, key=lambda factor: found[factor])

    def _dense(self, seed):
        """The dense table of a seed, in a file beside the records."""
        table, path = dense_table(self.corpus.words), self._dense_path(seed)
        if seed == TUNING_SEED:
            self.dense_factor = yield from self._tuned(table, 1.0, None)
        key = _key(table, 1.0, self.dense_factor, seed)
        # A run may have been stopped between the table and its record.
        if not path.exists() or self._record(key) is None:
            rated = _rated(table, self.dense_factor)
            result, memory = in_a_process(lambda: fit(rated, self.corpus, self.epochs, seed, _silent))
            temporary = path.with_suffix(".part.npz")
            np.savez(temporary, *result.parameters)
            temporary.replace(path)
            # That of the tuning has its record already.
            if self._record(key) is None:
                yield self._added(key, result, memory)

    def _dense_path(self, seed):
        return self.path.with_suffix(f".{self.task}.{seed}.npz")

    def _teacher(self, seed):
        with np.load(self._dense_path(seed)) as file:
            parameters = tuple(file[name] for name in file.files)
        return Result(dense_table(self.corpus.words), parameters, (), 0.0, 0.0, 0.0)

    def _run(self, table, ratio, factor, seed, teacher):
        """A line for a run that has no record yet; its validation accuracy."""
        key = _key(table, ratio, factor, seed)
        record = self._record(key)
        if record is not None:
            return record["validation"]
        rated = _rated(table, factor)
        options = {"teacher": teacher if table.lessons is not None else None}
        result, memory = in_a_process(lambda: fit(rated, self.corpus, self.epochs, seed, _silent, **options))
        yield self._added(key, result, memory)
        return result.validation_accuracy

    def _record(self, key):
        """What the file has of a run; None where it has nothing."""
        wanted = ({"task": self.task} | key).items()
        return next((record for record in self.records if record.items() >= wanted), None)

    def _added(self, key, result, memory):
        """A line of a run, whose record is in the file."""
        record = {"task": self.task} | key
        record |= {"bytes": stored_bytes(result.parameters[:-2]), "memory": memory, "seconds": result.seconds}
        record |= {"validation": result.validation_accuracy, "test": result.test_accuracy}
        self.records.append(record)
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.records, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.path)
        name, factor, seed = (key[each] for each in ("name", "factor", "seed"))
        return f"{name}, rates x {factor:.2g}, seed {seed}: {result.validation_accuracy:.4f}"


def _key(table: Table, ratio: float, factor: float, seed: int) -> dict[str, Any]:
    """What tells runs of one task apart."""
    return {"name": table.name, "ratio": ratio, "factor": factor, "seed": seed}


def _rated(table: Table, factor: float) -> Table:
    """The table with its rates times a factor."""
    return replace(table, rates=tuple(factor * rate for rate in table.rates))


def _silent(line):
    """A progress that says nothing."""


def in_a_process(work: Callable[[], Result]) -> tuple[Result, int]:
    """The result of `work` without its table, and the bytes by which the memory of its own process grew."""
    context = get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def child():
        before = _resident()
        result = replace(work(), table=None)
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        sender.send((result, max(0, most - before)))

    process = context.Process(target=child)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"a run must end, got exit status {process.exitcode}") from None
    finally:
        process.join()


def _resident():
    """The bytes of memory that this process has now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def table_lines(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table of a file in Markdown: of each contestant its runs with seeds that were not tuned on."""
    yield "| task | ratio | table | bytes | rates | test accuracy | seconds | memory |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    groups: dict[tuple, list[dict]] = {}
    for record in records:
        if record["seed"] != TUNING_SEED:
            groups.setdefault(tuple(record[name] for name in ("task", "ratio", "name")), []).append(record)
    for (task, ratio, name), runs in sorted(groups.items(), key=_standing):
        tests = [run["test"] for run in runs]
        spread = f" ± {stdev(tests):.4f}" if len(tests) > 1 else ""
        first = runs[0]
        cells = [
            task,
            f"{ratio:g}x",
            name,
            f"{max(run['bytes'] for run in runs):,}",
            f"x {first['factor']:.2g}",
        ]
        cells += [f"{mean(tests):.4f}{spread}", f"{mean(run['seconds'] for run in runs):.0f}"]
        yield f"| {' | '.join(cells)} | {max(run['memory'] for run in runs) / 2**20:.0f} MiB |"


def _standing(group):
    """Tasks and ratios in their order, the best table first."""
    (task, ratio, _), runs = group
    return task, ratio, -mean(run["test"] for run in runs)
