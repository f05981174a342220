"""Kets and operators in files of the format of safetensors, which other programs read as well.

The metadata is text: `ketcore_format`, the version of this description; `kind`, the name of the class; its
sizes (`shape`, `dims`, ...) as lists of JSON, in which an integer of more than 63 bits is a hexadecimal text;
`parts` of a KroneckerProduct; `complex`, the names of the tensors whose last axis has a real and an imaginary
part; `quantized`, the arrays of 8, 4 or 2 bits a number, as `small_numbers` says.  What the tensors are is in
`contents`; one more, `words`, may have the words of a table, as `file_words` says.  A file has the oldest
version that describes it: 4 where there are words or codes are left out, 3 where numbers take 2 bits or
a row scale is quantized, 2 where something else is, else 1.

The format is read here, not by its own library: that copies what it reads, maps nothing, and says little of
what is wrong.  Writing is a header and the bytes behind it, for which nothing new has to be installed.
"""

import json
import os
import re
from collections.abc import Sequence
from os import PathLike
from reprlib import repr as shortened
from typing import Any, Literal, TypeAlias, overload

import numpy as np

from ketcore.array_types import ForeignT, Host
from ketcore.arrays.autodiff import is_traced
from ketcore.arrays.namespaces import is_array, is_numpy, library_of
from ketcore.io.contents import (
    OPTIONAL,
    SIZES,
    is_count,
    lacks_codes,
    named_arrays,
    part_kinds,
    rebuilt,
    tensor_names,
)
from ketcore.io.file_words import WORDS, check_words_tensor, words_array
from ketcore.io.paths import checked_path, naming
from ketcore.io.small_numbers import (
    check_described,
    parts_of,
    quantized_entries,
    quantized_version,
    split,
    with_quantized,
)
from ketcore.io.tensor_bytes import read_arrays, replacing
from ketcore.io.tensor_header import layout, parsed, read_header, written_header
from ketcore.io.tensor_values import are_pairs, as_numbers, bytes_of, stored_as
from ketcore.objects.codebook_table import CodebookTable
from ketcore.objects.construction import placed
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.objects.kronecker_product import KroneckerProduct
from ketcore.objects.kronecker_sum import KroneckerSum
from ketcore.objects.parts import Diagonal, Identity
from ketcore.objects.permutation import Permutation
from ketcore.shapes import shown

Saved: TypeAlias = (
    Ket[Any]
    | KroneckerMatrix[Any]
    | KroneckerSum[Any]
    | KroneckerProduct[Any]
    | Permutation
    | Diagonal[Any]
    | Identity
    | CodebookTable[Any]
)
_VERSION = 4
_KINDS = {kind.__name__: kind for kind in SIZES}
# What the format calls the dtypes of numbers, and of the parts of complex ones.
_NUMBERS = ("F64", "F32", "F16", "BF16")


def save(path: str | PathLike[str], obj: Saved, words: Sequence[str] | None = None) -> None:
    """Write a ket or an operator to a file, in the format of safetensors and without pickle.

    Parameters
    ----------
    path : str or os.PathLike
        Any name.  A file of this name is replaced once the new one is whole: a crash leaves the old one.
    obj : ket, operator or table
        A Ket, KroneckerMatrix, KroneckerSum, KroneckerProduct, Permutation, Diagonal, Identity or
        CodebookTable, with arrays of any library and device.  What is recorded for gradients is not kept.
    words : sequence of str, optional
        What the rows of a table stand for, one for each, without line feeds; `load_words` returns them.

    Raises
    ------
    TypeError
        On other kinds and dtypes, and on arrays without values (traced ones).
    ValueError
        On an empty path or one that is a device, on more than about a hundred thousand modes, and on words.
    OSError
        Where the system cannot write the file.

    See Also
    --------
    load : Reads what this wrote.
    load_words : Reads its words.

    Notes
    -----
    Cost: one pass; arrays in another order than C's, or on a device, are copied one at a time.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(f"{folder}/matrix.safetensors", KroneckerMatrix([[[1.0, 2.0]], [[3.0]]]))
    ...     load(f"{folder}/matrix.safetensors").to_dense().tolist()
    [[3.0, 6.0]]
    """
    target = checked_path(path)
    kind = next((kind for kind in SIZES if isinstance(obj, kind)), None)
    if kind is None:
        raise TypeError(f"obj must be one of {', '.join(_KINDS)}, got {type(obj).__name__}")
    given = named_arrays(obj)
    arrays, quantized = split(given), quantized_entries(given)
    if any(is_array(array) and is_traced(array) for array in arrays.values()):
        raise TypeError(f"obj must be known by its values for save, got a {kind.__name__} that is traced")
    version = 4 if words is not None or lacks_codes(obj) else quantized_version(quantized)
    metadata = {"ketcore_format": str(version), "kind": kind.__name__}
    metadata |= {name: _as_text(getattr(obj, name)) for name in SIZES[kind]}
    if isinstance(obj, KroneckerProduct):
        metadata["parts"] = json.dumps(part_kinds(obj))
    if quantized:
        metadata["quantized"] = json.dumps(quantized)
    if words is not None:
        arrays[WORDS] = words_array(words, obj)
    pairs = [name for name, array in arrays.items() if are_pairs(array)]
    if pairs:
        metadata["complex"] = json.dumps(pairs)
    header, order = written_header({name: stored_as(array) for name, array in arrays.items()}, metadata)
    with replacing(target) as file:
        file.write(header)
        for name in order:
            file.write(bytes_of(arrays[name]).data)


@overload
def load(
    path: str | PathLike[str], mmap_mode: Literal["r", "c"] | None = None, like: Host | None = None
) -> (
    Ket[Host]
    | KroneckerMatrix[Host]
    | KroneckerSum[Host]
    | KroneckerProduct[Host]
    | Permutation
    | Diagonal[Host]
    | Identity
    | CodebookTable[Host]
): ...
@overload
def load(
    path: str | PathLike[str], mmap_mode: Literal["r", "c"] | None = None, *, like: ForeignT
) -> (
    Ket[ForeignT]
    | KroneckerMatrix[ForeignT]
    | KroneckerSum[ForeignT]
    | KroneckerProduct[ForeignT]
    | Permutation
    | Diagonal[ForeignT]
    | Identity
    | CodebookTable[ForeignT]
): ...
def load(path: str | PathLike[str], mmap_mode: str | None = None, like: Any = None) -> Saved:
    """The ket or the operator in a file that `save` wrote, with the same kind, sizes and dtypes.

    Parameters
    ----------
    path : str or os.PathLike
        Of the file.  Nothing in it is trusted, and none of it is run.
    mmap_mode : {"r", "c"}, optional
        By default the numbers are read.  "r" leaves them in the file, of which memory holds what is in use;
        the arrays are read-only, as operations need no more.  "c" does the same, and what is written into the
        arrays stays in memory.  "r+" is refused, since objects do not change.
    like : array of any shape, optional
        An array whose library and device the numbers take, by default those of NumPy.  Sparse parts are
        SciPy's, and codes NumPy's.

    Returns
    -------
    Ket, KroneckerMatrix, KroneckerSum, KroneckerProduct, Permutation, Diagonal, Identity or CodebookTable
        What was saved, quantized where it was.  In NumPy bfloat16 is that of ml_dtypes.

    Raises
    ------
    ValueError
        On all that is wrong with a file, and where a newer ketcore wrote it, with the path; on an empty path
        and on another `mmap_mode`.
    TypeError
        On wrong kinds of arguments, where the library of `like` lacks the dtype, and on sparse parts with a
        `like` that is not of NumPy.
    OSError
        Where the system cannot read the file.
    ImportError
        On bfloat16 in NumPy without ml_dtypes.

    See Also
    --------
    save : Writes such a file.
    load_words : Reads the words of a table.
    load_word2ket : Reads tables of the word2ket package.

    Notes
    -----
    Cost: one pass; with `mmap_mode` that of the header.

    Of a file that is mapped, `rows` and indexing read the pages of their leaves, a product all numbers.  It
    must not be cut meanwhile; one that `save` replaces stays until it is let go.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(f"{folder}/ket.safetensors", Ket([[[1.0, 2.0]], [[3.0, 4.0]]]))
    ...     load(f"{folder}/ket.safetensors", mmap_mode="c").to_dense().tolist()
    [3.0, 4.0, 6.0, 8.0]
    """
    source = checked_path(path)
    if mmap_mode is not None and not (isinstance(mmap_mode, str) and mmap_mode in ("r", "c")):
        raise ValueError(f"mmap_mode must be None, 'r' or 'c', got {shown(mmap_mode)}")
    placed(np.zeros(0, np.float32), like)
    with open(source, "rb") as file, naming(source):
        size = os.fstat(file.fileno()).st_size
        metadata, entries, start = read_header(file, size)
        kind, sizes, parts, pairs = _described(metadata)
        tensors = layout(entries, size - start)
        if (words := tensors.pop(WORDS, None)) is not None:
            check_words_tensor(words)
        quantized = check_described(_optional("quantized", metadata), tensors)
        small = parts_of(quantized)
        _check_names(kind, tensor_names(kind, sizes, parts), {*tensors} - small | {*quantized})
        _check_numbers({name: tensor for name, tensor in tensors.items() if name not in small})
        _check_pairs(pairs, tensors)
        found = read_arrays(file, tensors, start, mmap_mode, scattered="codes")
    beside = None if like is None or is_numpy(like) else like
    if beside is not None and any(is_count(name) and name.startswith("parts.") for name in found):
        rule = "None or an array of NumPy for a file with sparse parts"
        raise TypeError(f"like must be {rule}, got one of {library_of(like)}")
    arrays = {
        name: array if is_count(name) else as_numbers(array, tensors[name].dtype, name in pairs, beside)
        for name, array in found.items()
    }
    with naming(source):
        return rebuilt(kind, sizes, parts, with_quantized(arrays, quantized))


def _as_text(sizes):
    return json.dumps([size if size < 2**63 else hex(size) for size in sizes])


def _described(metadata):
    """The kind, its sizes, the kinds of its parts and the names of complex tensors, by the metadata."""
    version, kind = metadata.get("ketcore_format"), metadata.get("kind")
    if version is None:
        got = shortened(sorted(metadata))
        raise ValueError(f"the metadata must have a ketcore_format, as those of ketcore alone, got {got}")
    if not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise ValueError(f"ketcore_format must be an int >= 1, got {shortened(version)}")
    if int(version) > _VERSION:
        raise ValueError(f"ketcore_format must be at most {_VERSION}, got {version} (update ketcore)")
    if kind not in _KINDS:
        raise ValueError(f"kind must be one of {', '.join(_KINDS)}, got {shortened(kind)}")
    sizes = {name: _sizes(name, _listed(name, metadata)) for name in SIZES[_KINDS[kind]]}
    parts = _listed("parts", metadata) if kind == "KroneckerProduct" else []
    return _KINDS[kind], sizes, parts, _optional("complex", metadata)


def _optional(name, metadata):
    return _listed(name, metadata) if name in metadata else []


def _listed(name, metadata):
    if name not in metadata:
        raise ValueError(f"the metadata must have {name}, got {shortened(sorted(metadata))}")
    found = parsed(name, metadata[name])
    if not isinstance(found, list):
        raise ValueError(f"{name} must be a list, got {shortened(found)}")
    return found


def _sizes(name, values):
    """Ints of the metadata, those beyond 64 bits as hexadecimal texts."""
    found = []
    for value in values:
        if isinstance(value, str) and re.fullmatch("0x[0-9a-f]+", value):
            value = int(value, 16)
        if type(value) is not int or value < 0:
            raise ValueError(f"{name} must be ints >= 0 or hexadecimal texts, got {shortened(value)}")
        found.append(value)
    return tuple(found)


def _check_names(kind, names, tensors):
    if tensors - set(OPTIONAL.get(kind, ())) != set(names):
        rule = f"those of a {kind.__name__}, {shortened(sorted(names))}"
        raise ValueError(f"the tensors must be {rule}, got {shortened(sorted(tensors))}")


def _check_numbers(tensors):
    """Constructors would take integers for floating numbers, which no object that was saved had."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _NUMBERS and not is_count(name):
            rule = f"have a dtype among {', '.join(_NUMBERS)}"
            raise ValueError(f"tensor {shortened(name)} must {rule}, got {tensor.dtype}")


def _check_pairs(pairs, tensors):
    for name in pairs:
        known = isinstance(name, str) and name in tensors
        if not known or tensors[name].dtype not in ("F32", "F64") or tensors[name].shape[-1:] != (2,):
            raise ValueError(
                f"complex must be names of tensors (..., 2) of F32 or F64, got {shortened(name)}"
            )
