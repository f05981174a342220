"""Files that commands write: nothing is overwritten unasked, and no half file stays."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_output(name: str, path: str, force: bool, *inputs: str) -> None:
    """ValueError where no file may or can be written at `path`, found before the work and not after it."""
    target = Path(path)
    if target.is_dir() or not target.name or "\0" in path:
        raise ValueError(f"{name} must be the name of a file, and not of a folder, got {path!r}")
    if any(_same(target, Path(given)) for given in inputs):
        raise ValueError(
            f"{name} must be another file than those of other options and of what is read, got {path!r}"
        )
    if target.exists() and not target.is_file():
        raise ValueError(f"{name} must be a file or new, got {path!r}, which is a device or a pipe")
    if target.exists() and not force:
        raise ValueError(f"{name} must be new, got {path!r}, which is there (--force replaces it)")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ValueError(f"{name} must lie in a folder that is there, got {path!r}")
    if not os.access(folder, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise ValueError(f"{name} must be a file that can be written, got {path!r}: Permission denied")


def _same(left, right):
    try:
        return left.resolve() == right.resolve() or left.samefile(right)
    except OSError:
        return False


@contextmanager
def naming_output(name: str, path: str) -> Iterator[None]:
    """What the system cannot write is a ValueError that names the file."""
    try:
        yield
    except OSError as error:
        raise ValueError(
            f"{name} must be a file that can be written, got {path!r}: {error.strerror}"
        ) from None
