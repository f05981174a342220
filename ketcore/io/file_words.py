"""The words of a table in its file: the tensor `words`, their text in UTF-8 with a line for each.

A line ends with a line feed, which no word has; there is none behind the last word.
"""

import os
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np

from ketcore.array_types import Host
from ketcore.io.paths import checked_path, naming
from ketcore.io.tensor_bytes import read_arrays
from ketcore.io.tensor_header import Tensor, layout, read_header
from ketcore.shapes import shown

WORDS = "words"


def load_words(path: str | PathLike[str]) -> list[str] | None:
    """The words that `save` was given with a table; None where it was given none.

    Parameters
    ----------
    path : str or os.PathLike
        Of the file.  Nothing in it is trusted.

    Returns
    -------
    list of str, or None
        One for each row.

    Raises
    ------
    ValueError
        On what is wrong with the file, with the path.
    TypeError
        On another kind of path.
    OSError
        Where the system cannot read the file.

    See Also
    --------
    save : Takes `words`.
    load : Reads the table.

    Notes
    -----
    Cost: that of the words; the numbers of the table are not read.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from ketcore import KroneckerMatrix, save
    >>> with TemporaryDirectory() as folder:
    ...     save(f"{folder}/table.safetensors", KroneckerMatrix([[[1.0, 2.0], [3.0, 4.0]]]), ["cat", "dog"])
    ...     load_words(f"{folder}/table.safetensors")
    ['cat', 'dog']
    """
    source = checked_path(path)
    with open(source, "rb") as file, naming(source):
        size = os.fstat(file.fileno()).st_size
        metadata, entries, start = read_header(file, size)
        if "ketcore_format" not in metadata:
            raise ValueError("the metadata must have a ketcore_format, as those of ketcore alone, got none")
        tensors = layout(entries, size - start)
        if WORDS not in tensors:
            return None
        check_words_tensor(tensors[WORDS])
        text = read_arrays(file, {WORDS: tensors[WORDS]}, start, None)[WORDS].tobytes()
        try:
            return text.decode().split("\n")
        except UnicodeDecodeError as error:
            raise ValueError(f"tensor {WORDS} must be text in UTF-8, got {error}") from None


def check_words_tensor(tensor: Tensor) -> None:
    """ValueError unless it can be a text."""
    if tensor.dtype != "U8" or len(tensor.shape) != 1:
        raise ValueError(f"tensor {WORDS} must be a line of U8, got {tensor.dtype} {tensor.shape}")


def words_array(words: Sequence[str], obj: Any) -> Host:
    """The text of words as bytes, uint8, for the rows of a table; TypeError and ValueError on others."""
    if isinstance(words, str) or not isinstance(words, Sequence):
        raise TypeError(f"words must be a list of str, got {type(words).__name__}")
    shape = tuple(getattr(obj, "shape", ()))
    if len(shape) != 2 or len(words) != shape[0]:
        raise ValueError(f"words must be one for each row of obj, of shape {shape}, got {len(words)}")
    for row, word in enumerate(words):
        if not isinstance(word, str):
            raise TypeError(f"words must be a list of str, got {type(word).__name__} for row {row}")
        if "\n" in word:
            raise ValueError(f"words must have no line feeds, got {shown(word)} for row {row}")
    try:
        return np.frombuffer("\n".join(words).encode(), np.uint8)
    except UnicodeEncodeError as error:
        raise ValueError(f"words must be text that UTF-8 has, got {error}") from None
