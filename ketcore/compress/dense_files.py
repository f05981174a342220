"""`ketcore decompress`: all rows of a table, block by block; `ketcore inspect`: what a file holds."""

import os
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ketcore.compress.bars import progress
from ketcore.compress.outputs import check_output, naming_output
from ketcore.io import load, load_words
from ketcore.io.tensor_bytes import replacing
from ketcore.io.tensor_header import layout, read_header, written_header
from ketcore.objects.codebook_table import CodebookTable
from ketcore.objects.kronecker_matrix import KroneckerMatrix

# Numbers of a block of rows: 4 MB of float32.
_BLOCK = 1 << 20
_ENDINGS = (".npy", ".safetensors", ".txt", ".vec")
# What the format of safetensors calls the dtypes.
_STORED = {"float32": "F32", "float16": "F16"}
_SHOWN = 5


def decompress(options: Namespace) -> str:
    """Write the dense table; what was done.  ValueError on what is wrong."""
    ending = Path(options.output).suffix.lower()
    if ending not in _ENDINGS:
        raise ValueError(f"--output must end in one of {', '.join(_ENDINGS)}, got {options.output!r}")
    check_output("--output", options.output, options.force, options.file)
    if options.words is not None:
        check_output("--words", options.words, options.force, options.file, options.output)
    table, words = _loaded(options.file)
    if words is None and (options.words is not None or ending in (".txt", ".vec")):
        what = "--words" if options.words is not None else f"--output {options.output!r}"
        raise ValueError(f"FILE must have words for {what}, got {options.file!r}, which has none")
    with (
        naming_output("--output", options.output),
        replacing(options.output) as file,
        progress("rows", table.shape[0]) as tick,
    ):
        _write(file, ending, options.dtype, table, words, tick)
    if options.words is not None and words is not None:
        with naming_output("--words", options.words), replacing(options.words) as file:
            file.write("".join(f"{word}\n" for word in words).encode())
    return f"{options.output}: {table.shape[0]:,} words, {table.shape[1]} columns"


def _loaded(path) -> tuple[Any, list[str] | None]:
    """The table of a file, mapped, and its words."""
    try:
        table, words = load(path, "r"), load_words(path)
    except OSError as error:
        raise ValueError(f"FILE must be a file that can be read, got {path!r}: {error.strerror}") from None
    if not isinstance(table, CodebookTable | KroneckerMatrix):
        raise ValueError(f"FILE must hold a table of words, got {path!r}, a {type(table).__name__}")
    return table, words


def _blocks(table, tick) -> Iterator[np.ndarray]:
    for block in table.iter_row_blocks(max(1, _BLOCK // table.shape[1])):
        yield np.asarray(block)
        tick(len(block))


def _write(file: BinaryIO, ending, dtype, table, words, tick):
    if ending in (".txt", ".vec"):
        file.write(f"{table.shape[0]} {table.shape[1]}\n".encode())
        named = iter(words)
        for block in _blocks(table, tick):
            # As short as float32 can be told by.
            for row in block.astype(np.float32):
                file.write(f"{next(named)} {' '.join(map(str, row))}\n".encode())
        return
    stored = np.dtype(dtype).newbyteorder("<")
    if ending == ".npy":
        described = {"descr": stored.str, "fortran_order": False, "shape": table.shape}
        np.lib.format.write_array_header_1_0(file, described)
    else:
        file.write(written_header({"table": (_STORED[dtype], table.shape)}, {})[0])
    for block in _blocks(table, tick):
        file.write(np.ascontiguousarray(block, stored).data)


def inspected(path: str) -> str:
    """What a file of ketcore holds, in some lines."""
    try:
        found, words = load(path, "r"), load_words(path)
        with open(path, "rb") as file:
            _, entries, start = read_header(file, os.fstat(file.fileno()).st_size)
            tensors = layout(entries, os.fstat(file.fileno()).st_size - start)
    except OSError as error:
        raise ValueError(f"FILE must be a file that can be read, got {path!r}: {error.strerror}") from None
    lines = [repr(found)]
    if words is not None:
        more = ", ..." if len(words) > _SHOWN else ""
        lines.append(f"words: {', '.join(map(repr, words[:_SHOWN]))}{more}")
    for name, tensor in tensors.items():
        lines.append(f"{name}: {tensor.dtype} {list(tensor.shape)}, {tensor.end - tensor.begin:,} bytes")
    if len(found.shape) == 2:
        numbers = sum(t.end - t.begin for name, t in tensors.items() if name != "words")
        dense = 4 * found.shape[0] * found.shape[1]
        lines.append(
            f"{numbers:,} bytes without words; in float32 {dense:,}: a ratio of {dense / max(numbers, 1):.1f}"
        )
    return "\n".join(lines)
