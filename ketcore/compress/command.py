"""`ketcore compress` from its options to its output."""

import json
from argparse import Namespace
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from ketcore.compress.bars import progress
from ketcore.compress.count_files import read_weights
from ketcore.compress.frames import Frame, framed
from ketcore.compress.measures import Probe, Reader
from ketcore.compress.methods import METHODS, largest_ratio, pruned_rows, random_rows
from ketcore.compress.outputs import check_output, naming_output
from ketcore.compress.table_files import read_table
from ketcore.compress.verdicts import Result, best_result, low_rank_sentence, score, spectrum_points, verdict
from ketcore.demo.job import check_picture
from ketcore.io import save
from ketcore.io.tensor_bytes import replacing

_LEAST_WORDS = 4
_HEADER = ("method", "bytes", "ratio", "error", "cosines", "neighbours", "seconds")
_FORM = "{:<18}{:>12}{:>9}{:>8}{:>9}{:>12}{:>9}"


class Measured(NamedTuple):
    """What was measured: of methods and controls, and the tables of methods by their names."""

    results: list[Result]
    tables: dict[str, Any]
    left_out: list[str]


def compress(options: Namespace) -> None:
    """Fit, measure, print and write.  ValueError and ImportError on what is wrong."""
    _check_files(options)
    with progress("reading", None) as tick:
        table = read_table(options.table, options.tensor, tick)
    words, columns = table.array.shape
    if words < _LEAST_WORDS:
        raise ValueError(f"TABLE must have at least {_LEAST_WORDS} words, got {words} in {options.table!r}")
    weights = read_weights(options.weights, words)
    asked = _asked(words, options)
    fitted = weights.copy()
    if options.holdout:
        fitted[asked] = 0
    frame = framed(table, fitted, np.random.default_rng(options.seed))
    print(
        f"{words:,} words, {columns} columns: {frame.dense_bytes:,} bytes in float32 ({table.stored} there)"
    )
    print(spectrum_line(frame.energy))
    print(low_rank_sentence(frame.energy) + "\n", flush=True)
    found = measured(frame, weights, asked, options)
    chosen = best_result(found.results)
    sentence = verdict(chosen, options.ratio, options.method != "auto")
    text = f"{_measures_text(found, frame)}\n{sentence}"
    # Files come first, since the output may be a pipe that is closed; what was measured is said in any case.
    try:
        if options.output is not None:
            text += "\n" + _save_table(found, chosen.name, table, weights, options)
        _save_records(found, frame, sentence, options)
    finally:
        print(text)


def spectrum_line(energy: np.ndarray) -> str:
    """The share of energy in 1, 2, 4, ... components."""
    sums = np.cumsum(energy)
    points = spectrum_points(len(energy))
    return "energy in components: " + ", ".join(f"{sums[count - 1]:.0%} in {count}" for count in points)


def measured(frame: Frame, weights: np.ndarray, asked: np.ndarray, options: Namespace) -> Measured:
    """All methods that reach the ratio, or the one that is named, and the controls."""
    budget = frame.dense_bytes / options.ratio
    methods = tuple(each for each in METHODS if options.method in ("auto", each.name))
    sizes = {each.name: each.sizes(frame, budget) for each in methods}
    if all(found is None for found in sizes.values()):
        most = largest_ratio(frame, methods)
        # Rounded down, so that what is said can be asked for.
        shown = f"{int(10 * most) / 10:,.1f}" if most >= 1 else f"{most:.2g}"
        raise ValueError(f"--ratio must be at most {shown} for this table, got {options.ratio:g}")
    probe = Probe(frame.table.rows, frame.shape[0], weights, asked, np.random.default_rng([options.seed, 1]))
    found = Measured([], {}, [])
    for method in methods:
        if sizes[method.name] is None:
            found.left_out.append(f"{method.name}: does not reach {options.ratio:g}x")
            continue
        begun = perf_counter()
        try:
            with progress(method.name, frame.shape[0]) as tick:
                rng = np.random.default_rng([options.seed, 2])
                made = method.make(frame._replace(tick=tick), sizes[method.name], rng)
        except ImportError as error:
            if options.method != "auto":
                raise
            found.left_out.append(f"{method.name}: {error}")
            continue
        seconds = perf_counter() - begun
        found.tables[method.name] = made
        found.results.append(Result(method.name, made.nbytes, probe.measure(rows_of_table(made)), seconds))
    controls = {
        # Which words are kept is not fitted: those that are held out are among them.
        "pruned": pruned_rows(frame._replace(weights=weights), budget),
        "random": random_rows(frame, np.random.default_rng([options.seed, 3])),
    }
    for name, read in controls.items():
        size = int(budget) if name == "pruned" else 0
        found.results.append(Result(name, size, probe.measure(read), 0.0, control=True))
    return found


def rows_of_table(table: Any) -> Reader:
    """A reader of rows in float32."""
    return lambda ids: np.asarray(table.rows(ids), np.float32)


def _check_files(options):
    """What can be wrong with paths, before the work."""
    read = [path for path in (options.table, options.weights) if path is not None]
    check_picture(options.plot)
    for name in ("output", "json", "plot"):
        path = getattr(options, name)
        if path is not None:
            check_output(f"--{name}", path, options.force, *read)
            read.append(path)


def _asked(words, options):
    """The words that measures are of: all, or those that are held out."""
    if not options.holdout:
        return np.arange(words)
    count = min(max(2, round(options.holdout * words)), words - 2)
    rng = np.random.default_rng([options.seed, 4])
    return np.sort(rng.choice(words, count, replace=False))


def _fitted_to_all(table, weights, name, options):
    """The table of a method that all words are fitted to."""
    frame = framed(table, weights, np.random.default_rng(options.seed))
    method = next(each for each in METHODS if each.name == name)
    sizes = method.sizes(frame, frame.dense_bytes / options.ratio)
    with progress(f"{name}, all words", frame.shape[0]) as tick:
        return method.make(frame._replace(tick=tick), sizes, np.random.default_rng([options.seed, 2]))


def _measures_text(found: Measured, frame: Frame) -> str:
    lines = [_FORM.format(*_HEADER)]
    ordered = sorted(found.results, key=lambda result: (result.control, -score(result)))
    for name, size, (error, cosines, neighbours), seconds, control in ordered:
        shown = [f"{size:,}", f"{frame.dense_bytes / size:.1f}x"] if size else ["", ""]
        cells = [f"{error:.3f}", f"{cosines:.3f}", f"{neighbours:.3f}", "" if control else f"{seconds:.1f}"]
        lines.append(_FORM.format(f"{name} (control)" if control else name, *shown, *cells).rstrip())
    return "\n".join([*lines, *(f"left out: {text}" for text in found.left_out), ""])


def _save_table(found, name, table, weights, options):
    """Write the table of a method; what was written."""
    made = found.tables[name]
    if options.holdout:
        made = _fitted_to_all(table, weights, name, options)
    with naming_output("--output", options.output):
        save(options.output, made, table.words)
    size = Path(options.output).stat().st_size
    return f"{options.output}: {name}, {made.nbytes:,} bytes of numbers, a file of {size:,} bytes"


def _save_records(found: Measured, frame: Frame, sentence: str, options: Namespace) -> None:
    if options.json is not None:
        record = {
            "words": frame.shape[0],
            "columns": frame.shape[1],
            "stored": frame.table.stored,
            "ratio": options.ratio,
            "holdout": options.holdout,
            "seed": options.seed,
            "energy": [float(share) for share in np.cumsum(frame.energy)],
            "results": [_record(result) for result in found.results],
            "left_out": found.left_out,
            "verdict": sentence,
        }
        with naming_output("--json", options.json), replacing(options.json) as file:
            file.write((json.dumps(record, indent=2) + "\n").encode())
    if options.plot is not None:
        from ketcore.compress.pictures import draw_measures

        picture = draw_measures(
            found.results, frame.energy, f"{Path(options.table).name} at {options.ratio:g}x"
        )
        with naming_output("--plot", options.plot), replacing(options.plot) as file:
            picture.savefig(file, dpi=150, format=Path(options.plot).suffix[1:])


def _record(result: Result) -> dict[str, Any]:
    values = result._asdict() | result.measures._asdict()
    return {name: value for name, value in values.items() if name != "measures"}
