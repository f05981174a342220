"""The header of a file in the format of safetensors.

    8 bytes    the length n of the header, an integer in little endian
    n bytes    JSON: dtype, shape and offsets of each tensor by its name, and texts under `__metadata__`
    the rest   the tensors without gaps, each in C order and little endian

A file may come from anybody.  What its header says is held against the size of the file before anything of
that size is made, and errors say what is wrong as `<thing> must <rule>, got <value>`.
"""

import json
from collections.abc import Mapping, Sequence
from math import prod
from reprlib import repr as shortened
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# What the format calls dtypes, and what NumPy reads them as: it has no bfloat16 of its own, and any byte of a
# file can stand for a truth value.
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("u1"),
}
# About a hundred thousand modes.  Objects of Python can take twenty times the room of their JSON.
LONGEST = 2**23
# Where the numbers begin is a multiple of this: a line of the cache, and of every dtype.
_ALIGNMENT = 64
_METADATA = "__metadata__"
_ENTRY = {"dtype", "shape", "data_offsets"}
# Axes that NumPy can have, and elements that any machine can count.
_MOST_AXES, _MOST_ELEMENTS = 64, 2**59


class Tensor(NamedTuple):
    """A tensor by the header: the name of its dtype, its shape, where its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def written_header(
    tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]
) -> tuple[bytes, list[str]]:
    """The first bytes of a file, and the order in which the tensors come behind them.

    `tensors` holds the name of the dtype and the shape of each, by its own name.  ValueError where the header
    is too long to be read again.
    """
    # There must be no gaps, so wide numbers come first: each tensor is then aligned.
    order = sorted(tensors, key=lambda name: -DTYPES[tensors[name][0]].itemsize)
    entries: dict[str, Any] = {_METADATA: dict(metadata)}
    at = 0
    for name in order:
        dtype, shape = tensors[name]
        end = at + prod(shape) * DTYPES[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT)
    if len(text) > LONGEST:
        raise ValueError(f"obj must have a header of at most {LONGEST} bytes, got {len(text)}")
    return len(text).to_bytes(8, "little") + text, order


def read_header(file: BinaryIO, size: int) -> tuple[dict[str, str], dict[str, Any], int]:
    """The metadata, what is said of tensors (not checked), and where these begin, in `size` bytes."""
    prefix = file.read(8)
    if len(prefix) < 8:
        raise ValueError(f"the file must have at least 8 bytes, got {size}")
    length, most = int.from_bytes(prefix, "little"), min(size - 8, LONGEST)
    if length > most:
        raise ValueError(f"the header must have at most {most} bytes, got {length}")
    entries = parsed("the header", file.read(length))
    if not isinstance(entries, dict):
        raise ValueError(f"the header must be an object of JSON, got {shortened(entries)}")
    metadata = entries.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"the metadata must be texts by names, got {shortened(metadata)}")
    return metadata, entries, 8 + length


def parsed(what: str, text: bytes | str) -> Any:
    """JSON of objects, lists, texts and integers of at most 64 bits; ValueError on all else."""

    def refused(got):
        raise ValueError(f"{what} must have no numbers but integers below 2**63, got {shortened(got)}")

    def integer(digits):
        # Python itself takes no more than some thousand digits.
        return int(digits) if len(digits) < 20 and abs(int(digits)) < 2**63 else refused(digits)

    def unique(pairs):
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(f"{what} must have each name once, got {shortened([name for name, _ in pairs])}")
        return found

    hooks: Any = {"parse_int": integer, "parse_float": refused, "parse_constant": refused}
    try:
        given = text.decode() if isinstance(text, bytes) else text
        return json.loads(given, object_pairs_hook=unique, **hooks)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{what} must be JSON in UTF-8, got {shortened(text)}: {error}") from None
    except RecursionError:
        raise ValueError(f"{what} must be JSON of few levels, got {shortened(text)}") from None


def layout(entries: Mapping[str, Any], size: int) -> dict[str, Tensor]:
    """The tensors that lie in the `size` bytes behind the header, by name: all of these bytes, each once."""
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    at = 0
    for name, tensor in sorted(tensors.items(), key=lambda pair: (pair[1].begin, pair[1].end)):
        if tensor.begin != at:
            raise ValueError(f"tensor {shortened(name)} must begin at byte {at}, got {tensor.begin}")
        at = tensor.end
    if at > size:
        raise ValueError(f"the file must have {at} bytes of tensors behind the header, got {size}")
    if at < size:
        raise ValueError(f"the tensors must have all {size} bytes behind the header, got {at}")
    return tensors


def _tensor(name, entry):
    """An entry of the header, checked."""
    what = f"tensor {shortened(name)}"
    if not isinstance(entry, dict) or set(entry) != _ENTRY:
        raise ValueError(f"{what} must have dtype, shape and data_offsets, got {shortened(entry)}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"{what} must have a dtype among {', '.join(DTYPES)}, got {shortened(dtype)}")
    if not are_counts(shape) or len(shape) > _MOST_AXES:
        raise ValueError(
            f"{what} must have a shape of at most {_MOST_AXES} ints >= 0, got {shortened(shape)}"
        )
    if not are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"{what} must have two data_offsets, ints >= 0, got {shortened(offsets)}")
    if prod([max(size, 1) for size in shape]) > _MOST_ELEMENTS:
        raise ValueError(f"{what} must have at most {_MOST_ELEMENTS} elements, got shape {shortened(shape)}")
    needed, (begin, end) = prod(shape) * DTYPES[dtype].itemsize, offsets
    if end - begin != needed:
        rule = f"have {needed} bytes for shape {shape} of {dtype}"
        raise ValueError(f"{what} must {rule}, got data_offsets {offsets}")
    return Tensor(dtype, tuple(shape), begin, end)


def are_counts(values: Any) -> bool:
    """Whether what JSON gave is a list of integers of at least 0."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
