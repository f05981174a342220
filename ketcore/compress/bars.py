"""Progress on a terminal: a bar of tqdm where that is installed, else a line for each step."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ketcore.demo.output import Company


@contextmanager
def progress(text: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function to call with how many of `total` are done; None: nobody knows how many there are."""
    company = Company()
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        company.write(f"{text} ...\n")
        yield lambda _: None
        return
    with tqdm(total=total, desc=text, leave=False, unit=" words", unit_scale=True, file=company) as bar:
        yield bar.update
