"""Paths of files as people give them, and errors that name them."""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any


def checked_path(path: Any) -> str:
    """A path as text; TypeError and ValueError on what is none."""
    found = fspath(path) if isinstance(path, PathLike) else path
    if not isinstance(found, str):
        raise TypeError(f"path must be a str or an os.PathLike of one, got {type(path).__name__}")
    if not found or "\0" in found:
        raise ValueError(f"path must be the name of a file, got {found!r}")
    return found


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Whatever is wrong with a file is a ValueError that names it."""
    try:
        yield
    except (TypeError, ValueError, IndexError) as error:
        raise ValueError(f"path must be a file of ketcore.save, got {path!r}, in which {error}") from None
