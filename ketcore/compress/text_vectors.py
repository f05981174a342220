"""Word vectors as text: a word and its numbers in each line, as GloVe and word2vec write them.

A first line of two integers says how many words and columns there are, as word2vec has it.  Words may have
spaces, as some of GloVe 840B do.  Files may be packed by gzip or xz.
"""

import gzip
import lzma
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator
from reprlib import repr as shortened
from typing import Any

import numpy as np

# Lines that become one array: the texts of their numbers take twenty times its room.
_LINES = 1 << 12
# What files begin with, and what opens them.
_PACKED: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"\xfd7zXZ\x00": lzma.open}


def open_text(path: str) -> Any:
    """A file of bytes, unpacked where gzip or xz has packed it."""
    with open(path, "rb") as file:
        start = file.read(6)
    opened = next((opened for magic, opened in _PACKED.items() if start.startswith(magic)), open)
    return opened(path, "rb")


def numbered_lines(file: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines by their numbers, from 1 on, without the mark of UTF-8 that some editors put first."""
    for number, line in enumerate(file, 1):
        yield number, line.removeprefix(BOM_UTF8) if number == 1 else line


def vectors_of_text(path: str, progress: Callable[[int], None]) -> tuple[np.ndarray, list[str]]:
    """The table (words, columns) in float32 and its words; `progress` is told how many lines were read.

    ValueError on what is wrong, with the number of the line.
    """
    with open_text(path) as file:
        lines = _numbered(file)
        number, first = next(lines, (0, b""))
        if not number:
            raise ValueError("there must be a line, got none")
        header = _header(first)
        if header is None:
            columns = len(first.split()) - 1
            lines = _again((number, first), lines)
        else:
            columns = header[1]
        if columns < 1:
            raise ValueError(f"line {number} must have a word and its numbers, got {shortened(first)}")
        words: list[str] = []
        blocks = []
        for block in _blocks(lines, columns, words):
            blocks.append(block)
            progress(len(block))
    if header is not None and header[0] != len(words):
        raise ValueError(f"there must be {header[0]} words, as the first line says, got {len(words)}")
    if not blocks:
        raise ValueError("there must be a line of a word, got none")
    return np.concatenate(blocks), words


def _numbered(file) -> Iterator[tuple[int, bytes]]:
    """The lines by their numbers, without what is blank at their ends."""
    blank = 0
    for number, line in numbered_lines(file):
        found = line.strip(b" \t\r\n")
        if not found:
            blank = blank or number
            continue
        if blank:
            raise ValueError(f"line {blank} must have a word and its numbers, got nothing")
        yield number, found


def _again(first, rest: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield first
    yield from rest


def _header(line):
    """The two integers of a first line that has no more; None of any other line."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() and len(part) < 19 for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _blocks(lines, columns, words):
    """Arrays (n, columns) of some lines each; the words are appended to `words`."""
    numbers, first = [], 0
    for number, line in lines:
        parts = line.replace(b"\t", b" ").rsplit(b" ", columns)
        found = len(parts) - 1 if parts[0] else 0
        if found < columns:
            raise ValueError(f"line {number} must have a word and {columns} numbers, got {shortened(line)}")
        try:
            word = parts[0].rstrip(b" ").decode()
        except UnicodeDecodeError:
            raise ValueError(f"line {number} must have a word in UTF-8, got {shortened(parts[0])}") from None
        if " " in word and _is_number(word.rpartition(" ")[2]):
            raise ValueError(f"line {number} must have {columns} numbers, got more: {shortened(line)}")
        try:
            numbers += map(float, parts[1:])
        except ValueError as error:
            raise ValueError(f"line {number} must have {columns} numbers, got {error}") from None
        words.append(word)
        first += 1
        if first == _LINES:
            yield _as_block(numbers, columns)
            numbers, first = [], 0
    if first:
        yield _as_block(numbers, columns)


def _as_block(numbers, columns):
    """Numbers as an array (n, columns); those beyond float32 are infinite, and told of with the others."""
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float32).reshape(-1, columns)


def _is_number(text):
    try:
        float(text)
    except ValueError:
        return False
    return True
