"""Streams that nobody reads any more, or whose disk is full."""

import os
import sys
from typing import Any, TextIO


def drop(stream: TextIO | None) -> None:
    """Send what is left in `stream` nowhere: writing it failed, and Python would try again when it ends."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class Company:
    """The standard error, for what may be lost: from the first failure on all of it goes nowhere."""

    def write(self, text: str) -> None:
        """Write and flush `text`, or drop the stream."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            drop(sys.stderr)

    def flush(self) -> None:
        """Nothing: `write` has done it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)
