"""Files that are broken or of somebody else: each is told of by its path and by what is wrong with it."""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from ketcore import load
from tests.file_problems import FILE, header_of, raw, written
from tests.fuzz_files import fuzz
from tests.processes import run_python
from tests.profiles import scaled
from tests.require import require


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "object.safetensors")


ONE = {"factors.0": ("F64", [1, 1, 2])}


def changed(entry=(), **metadata):
    """A header of one factor (1, 1, 2) in which something is otherwise."""
    header = json.loads(header_of(ONE, 16)[8:])
    header["factors.0"] |= dict(entry)
    header["__metadata__"] |= metadata
    text = json.dumps({name: found for name, found in header.items() if found is not None}).encode()
    return len(text).to_bytes(8, "little") + text


BROKEN = {
    "empty": (b"", "the file must have at least 8 bytes, got 0"),
    "long": ((2**63).to_bytes(8, "little"), "the header must have at most 16 bytes, got 9223372036854775808"),
    "longer": ((17).to_bytes(8, "little"), "the header must have at most 16 bytes, got 17"),
    "no json": (raw(b"{x"), r"the header must be JSON in UTF-8, got b'\{x': Expecting property name"),
    "no utf-8": (raw(b'{"\xff":1}'), "the header must be JSON in UTF-8, got .*can't decode byte 0xff"),
    "deep": (raw(b"[" * 100_000), "the header must be JSON of few levels, got "),
    "list": (raw(b"[]"), r"the header must be an object of JSON, got \[\]"),
    "twice": (raw(b'{"a":1,"a":1}'), r"the header must have each name once, got \['a', 'a'\]"),
    "nan": (raw(b'{"a":NaN}'), r"the header must have no numbers but integers below 2\*\*63, got 'NaN'"),
    "float": (raw(b'{"a":1e999}'), "the header must have no numbers but integers .* got '1e999'"),
    "digits": (raw(b'{"a":' + b"9" * 5000 + b"}"), "the header must have no numbers but integers .* got '9"),
    "2**63": (raw(b'{"a":9223372036854775808}'), "no numbers but integers .* got '9223372036854775808'"),
    "metadata": (raw(b'{"__metadata__":{"a":1}}'), r"the metadata must be texts by names, got \{'a': 1\}"),
    "others": (raw(b'{"__metadata__":{"format":"pt"}}'), r"must have a ketcore_format, .* got \['format'\]"),
    "none": (raw(b"{}"), r"the metadata must have a ketcore_format, as those of ketcore alone, got \[\]"),
    "newer": (changed(ketcore_format="5"), r"ketcore_format must be at most 4, got 5 \(update ketcore\)"),
    "version": (changed(ketcore_format="1.0"), "ketcore_format must be an int >= 1, got '1.0'"),
    "kind": (changed(kind="Matrix"), "kind must be one of Ket, .* Identity, CodebookTable, got 'Matrix'"),
    "no shape": (changed(shape=None), r"the metadata must be texts by names"),
    "shape": (changed(shape="3"), "shape must be a list, got 3"),
    "floats": (changed(shape="[1.0, 2]"), "shape must have no numbers but integers .* got '1.0'"),
    "texts": (changed(shape='["1", 2]'), "shape must be ints >= 0 or hexadecimal texts, got '1'"),
    "negative": (changed(row_dims="[-1]"), "row_dims must be ints >= 0 or hexadecimal texts, got -1"),
    "other": (changed(row_dims="[2]"), r"row_dims must be \(1,\), as of the tensors, got \(2,\)"),
    "large": (changed(shape="[1, 3]"), r"shape must be two ints from \(1, 1\) to \(1, 2\), got \(1, 3\)"),
    "more": (changed(row_dims="[1, 1]"), r"the tensors must be those of a KroneckerMatrix, \['f.*, got \['f"),
    "pairs": (changed(complex='["x"]'), r"complex must be names of tensors \(..., 2\) of F32 or .* 'x'"),
    "dtype": (changed({"dtype": "F8"}), "tensor 'factors.0' must have a dtype among F64, .* got 'F8'"),
    "list dtype": (changed({"dtype": []}), r"tensor 'factors.0' must have a dtype among F64, .* got \[\]"),
    "integers": (changed({"dtype": "I64"}), "tensor 'factors.0' must have a dtype among F64, .* got I64"),
    "truth": (changed({"dtype": "BOOL", "shape": [1, 1, 16]}), "must have a dtype among F64, .* got BOOL"),
    "entry": (changed({"more": 1}), "tensor 'factors.0' must have dtype, shape and data_offsets, got "),
    "bool": (changed({"shape": [True, 1, 2]}), "must have a shape of at most 64 ints >= 0, got"),
    "negative shape": (changed({"shape": [-1, -1, 2]}), "must have a shape of at most 64 ints >= 0, got"),
    "axes": (changed({"shape": [1] * 64 + [2]}), "must have a shape of at most 64 ints >= 0, got"),
    "elements": (changed({"shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}), "at most .* elements"),
    "bytes": (changed({"shape": [1, 1, 3]}), r"must have 24 bytes for shape \[1, 1, 3\] of F64, got"),
    "offsets": (changed({"data_offsets": [0]}), r"must have two data_offsets, ints >= 0, got \[0\]"),
    "hole": (changed({"data_offsets": [8, 24]}), "tensor 'factors.0' must begin at byte 0, got 8"),
    "rest": (
        changed({"shape": [1, 1, 1], "data_offsets": [0, 8]}),
        "the tensors must have all 16 bytes behind the header, got 8",
    ),
    "outside": (
        changed({"shape": [1, 1, 4], "data_offsets": [0, 32]}),
        "the file must have 32 bytes of tensors behind the header, got 16",
    ),
    "two axes": (changed({"shape": [1, 2]}), r"factors must be arrays \(rank, rows, columns\), got shapes"),
}  # fmt: skip


@pytest.mark.parametrize("mode", [None, "r"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_told_of(path, name, mode):
    header, text = BROKEN[name]
    with pytest.raises(ValueError, match=FILE + ".*" + text):
        load(written(path, header, b"" if name == "empty" else bytes(16)), mode)


@pytest.mark.parametrize(
    ("mode", "text"),
    [(None, "the file must keep its size while it is read, got 8 of 16 bytes"), ("r", "buffer is too small")],
)
def test_a_file_that_is_cut_meanwhile_is_told_of(path, monkeypatch, mode, text):
    written(path, header_of(ONE, 16), bytes(8))
    size = os.path.getsize(path) + 8
    monkeypatch.setattr(os, "fstat", lambda descriptor: SimpleNamespace(st_size=size))
    with pytest.raises(ValueError, match=FILE + text):
        load(path, mode)


@pytest.mark.parametrize(
    ("field", "values", "text"),
    [
        ("indices", [0, 4], r"parts\[0\] must have indices in \[0, 3\), got 0 to 4"),
        ("indices", [-1, 1], r"parts\[0\] must have indices in \[0, 3\), got -1 to 1"),
        (
            "indptr",
            [0, 1, 3],
            r"parts\[0\] must have indptr that ascends from 0 to 2, got array\(\[0, 1, 3\]",
        ),
        ("indptr", [1, 1, 2], r"parts\[0\] must have indptr that ascends from 0 to 2"),
        ("indptr", [0, 3, 2], r"parts\[0\] must have indptr that ascends from 0 to 2"),
        ("indptr", [0, 2], r"parts\[0\] must have data and indices of one length and indptr \(3,\), got"),
        ("indices", [0], r"parts\[0\] must have data and indices of one length and indptr \(3,\), got"),
        ("indices", [0.0, 1.0], r"parts\[0\] must have indices and indptr of int32 or int64, got float64"),
    ],
)
@pytest.mark.parametrize("kind", ["csr_array", "csc_matrix"])
def test_broken_sparse_parts_are_told_of(path, kind, field, values, text):
    """SciPy would read outside of its arrays."""
    sparse = scipy.sparse.csr_array((np.ones(2), np.array([0, 1]), np.array([0, 1, 2])), shape=(2, 3))
    sparse = getattr(scipy.sparse, kind)(sparse if kind == "csr_array" else sparse.T)
    values = np.array(values) if isinstance(values[0], float) else np.array(values, sparse.indices.dtype)
    setattr(sparse, field, values)
    fields = {f"parts.0.{name}": getattr(sparse, name) for name in ("data", "indices", "indptr")}
    about = {"ketcore_format": "1", "kind": "KroneckerProduct", "parts": json.dumps([kind])}
    about |= {"shape": json.dumps(sparse.shape), "row_dims": json.dumps(sparse.shape[:1])}
    about |= {"col_dims": json.dumps(sparse.shape[1:])}
    header, at = {"__metadata__": about}, 0
    codes = {"float64": "F64", "int64": "I64", "int32": "I32"}
    for name, array in fields.items():
        entry = {
            "dtype": codes[array.dtype.name],
            "shape": array.shape,
            "data_offsets": [at, at + array.nbytes],
        }
        header[name], at = entry, at + array.nbytes
    data = b"".join(array.tobytes() for array in fields.values())
    with pytest.raises(ValueError, match=FILE + text):
        load(written(path, raw(json.dumps(header).encode()), data))


@pytest.mark.parametrize(
    ("shape", "known", "text"),
    [
        ([1, 1], b"\2", r"identities must be truth values \(1, 1\), got uint8 \(1, 1\) up to 2"),
        ([1, 2], b"\0\0", r"identities must be truth values \(1, 1\), got uint8 \(1, 2\) up to 0"),
        ([1, 1], b"\1", r"identities must be modes of square factors, got 0 of shape \(1, 2\)"),
    ],
)
def test_broken_identities_are_told_of(path, shape, known, text):
    header = json.loads(header_of(ONE, 16)[8:])
    end = 16 + len(known)
    header["identities"] = {"dtype": "BOOL", "shape": shape, "data_offsets": [16, end]}
    with pytest.raises(ValueError, match=FILE + text):
        load(written(path, raw(json.dumps(header).encode()), bytes(16) + known))


def test_a_length_that_lies_takes_no_memory(path):
    """A header that claims much, in a file of which the system says that it is long."""
    code = """
import resource, sys, ketcore as kc
resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
try:
    kc.load(sys.argv[1])
except ValueError as error:
    print(error)
"""
    written(path, (2**40).to_bytes(8, "little"))
    os.truncate(path, 2**41)
    require("resource", sys.platform == "linux", "memory has no limit elsewhere")
    assert "the header must have at most 8388608 bytes, got 1099511627776" in run_python(code, path).stdout


def test_thousands_of_broken_files(tmp_path):
    found = fuzz(scaled(2000), 1, tmp_path)
    assert found["refused"] > found["loaded"] > 0
