"""The demo from its options to its output.  A bad option is found before the training, not after it.

`options` has the fields of the command line: epochs, seed, seeds, only, ask, plot, json.
"""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ketcore.demo import report
from ketcore.demo.choice import all_tables, choose
from ketcore.demo.data import Corpus, average_words, load, tokenize
from ketcore.demo.output import Company
from ketcore.demo.tables import COLUMNS, Table, dense_table
from ketcore.demo.train import Result, epochs_of, fit
from ketcore.fit.kmeans import k_means


def prepare(options: Namespace) -> tuple[list[Table], Corpus]:
    """Check the options, read the data, choose the tables.

    Raises
    ------
    ValueError
        On a bad option.
    """
    for name, least in (("epochs", 1), ("seed", 0), ("seeds", 1)):
        if getattr(options, name) < least:
            raise ValueError(f"--{name} must be at least {least}, got {getattr(options, name)}")
    check_picture(options.plot)
    _check_writable("--plot", options.plot)
    _check_writable("--json", options.json)
    files = [Path(path).resolve() for path in (options.json, options.plot) if path is not None]
    if len(files) > len(set(files)):
        raise ValueError(f"--plot must be another file than --json, got {options.plot!r}")
    corpus = load()
    if options.ask is not None and not any(word in corpus.vocabulary for word in tokenize(options.ask)):
        raise ValueError(f"--ask must have a word of the training split, got {options.ask!r}")
    return _possible(choose(all_tables(corpus.words), options.only), options.only), corpus


def _possible(tables, only):
    """The tables that can be made: codes need an extra, and are left out unless somebody names them."""
    try:
        k_means()
    except ImportError as error:
        possible = [table for table in tables if table.lessons is None]
        if only is not None and len(possible) < len(tables):
            raise ValueError(f"--only must name tables without codes: {error}") from None
        if len(possible) < len(tables):
            print(f"The tables of codes are left out: {error}", file=sys.stderr)
        return possible
    return tables


def run(tables: Sequence[Table], corpus: Corpus, options: Namespace) -> str:
    """Train a classifier with each table, save the results where the options say, and print them.

    Returns
    -------
    str
        What could not be saved, and why; an empty string otherwise.
    """
    unread = _announce(corpus)
    results = train_all(tables, corpus, options)
    dense_bytes = 4 * COLUMNS * corpus.words
    records = [report.make_record(group, dense_bytes) for group in results]
    # First, since the output may be a pipe that is closed.
    unsaved = save(records, options)
    if unread is not None:
        raise unread
    print(report.format_table(records))
    if options.ask is not None:
        answer(options.ask, [group[0] for group in results], corpus)
    return unsaved


def _announce(corpus):
    """Say what is trained; the error of an output that nobody reads, which must not cost the results."""
    sentences, intents = len(corpus.train.intents), len(corpus.intents)
    try:
        print(f"CLINC150: {sentences:,} training sentences, {corpus.words:,} words, {intents} intents")
        # Said beside the ratios, because it is what remains when the table is small.
        print(f"Every classifier has {(COLUMNS + 1) * intents:,} parameters beside its table.\n")
    except OSError as error:
        return error
    return None


def save(records: Sequence[report.Record], options: Namespace) -> str:
    """Write the results where the options say; what could not be saved, and why."""
    unsaved = []
    files = ("--json", options.json, _write_json), ("--plot", options.plot, _write_picture)
    for name, path, write in files:
        try:
            if path is not None:
                write(records, path)
        except OSError as error:
            unsaved.append(_unwritable(name, path, error))
    return "; ".join(unsaved)


def _write_json(records, path):
    text = json.dumps(records, indent=2) + "\n"
    Path(path).write_text(text, encoding="utf-8", newline="\n")


def _write_picture(records, path):
    report.draw_picture(records).savefig(path, dpi=150)


def train_all(tables: Sequence[Table], corpus: Corpus, options: Namespace) -> list[list[Result]]:
    """For each table a list of results, one per seed; others may start from a dense table, not shown then."""
    dense = dense_table(corpus.words)
    chosen = list(tables)
    if any(table.lessons is not None for table in tables):
        chosen = [dense, *(table for table in tables if table.name != dense.name)]
    total = options.seeds * sum(epochs_of(table, options.epochs) for table in chosen)
    found: dict[str, list[Result]] = {table.name: [] for table in chosen}
    with progress_bar(total) as progress:
        for table in chosen:
            for number in range(options.seeds):
                teacher = None if table.lessons is None else found[dense.name][number]
                seed = options.seed + number
                found[table.name].append(fit(table, corpus, options.epochs, seed, progress, teacher))
    return [found[table.name] for table in tables]


@contextmanager
def progress_bar(total: int) -> Iterator[Callable[[str], None]]:
    """A function to call with a line of text at each of `total` steps: tqdm's bar, or else plain lines."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield print
        return
    form = "{percentage:3.0f}% |{bar:20}| {elapsed} < {remaining}  {desc}"
    shown = {"bar_format": form, "leave": False, "file": Company(), "disable": sys.stderr is None}
    with tqdm(total=total, **shown) as bar:

        def progress(line: str) -> None:
            bar.set_description_str(line, refresh=False)
            bar.update()

        yield progress


def answer(sentence: str, results: Sequence[Result], corpus: Corpus) -> None:
    """Print the intents predicted for `sentence`, and which of its words the training split does not have."""
    unknown = [word for word in tokenize(sentence) if word not in corpus.vocabulary]
    note = f" (unknown: {', '.join(unknown)})" if unknown else ""
    print(f"\n{sentence}{note}")
    print(report.format_answers(results, average_words([sentence], corpus.vocabulary), corpus.intents))


def check_picture(path: str | None) -> None:
    """Raise ValueError where matplotlib is missing or does not know this kind of file."""
    if path is None:
        return
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise ValueError("--plot must have matplotlib, got none installed: pip install matplotlib") from None
    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if Path(path).suffix[1:].lower() not in kinds:
        raise ValueError(f"--plot must end in one of .{', .'.join(kinds)}, got {path!r}")


def _check_writable(name: str, path: str | None) -> None:
    """Raise ValueError where no file can be written at `path`; leave what is there as it is."""
    # A reader of a pipe would take its being closed for the end.
    if path is None or Path(path).is_fifo():
        return
    existed = Path(path).exists()
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        raise ValueError(_unwritable(name, path, error)) from None
    if not existed:
        Path(path).unlink()


def _unwritable(name, path, error):
    return f"{name} must be a writable file, got {path!r}: {error.strerror}"
