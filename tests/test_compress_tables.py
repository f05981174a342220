"""Tables in files of other programs: what is read, and what is said of files that are broken."""

import gzip
import json
import lzma
import zipfile

import numpy as np
import pytest

from ketcore.compress.count_files import read_weights
from ketcore.compress.table_files import read_table

TABLE = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)
WORDS = ["the", "of", "naïve", "1999", "e-mail", "#", "zebra"]
LINES = [f"{word} {' '.join(map(str, row))}" for word, row in zip(WORDS, TABLE, strict=True)]
TEXT = "\n".join(LINES) + "\n"


def tensors(arrays, metadata=None):
    """The bytes of a file of safetensors."""
    kinds = {"float32": "F32", "float16": "F16", "float64": "F64", "uint16": "BF16", "int64": "I64"}
    entries, at, body = {} if metadata is None else {"__metadata__": metadata}, 0, b""
    for name, array in arrays.items():
        end = at + array.nbytes
        entries[name] = {
            "dtype": kinds[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, end],
        }
        at, body = end, body + array.tobytes()
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + body


def npy(path, array, **options):
    with open(path, "wb") as file:
        np.save(file, array, **options)


def npz(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


BFLOAT16 = (TABLE.view(np.uint32) >> 16).astype(np.uint16)
WRITERS = {
    "npy": lambda p: npy(p, TABLE),
    "npy in Fortran order": lambda p: npy(p, np.asfortranarray(TABLE.astype(np.float64))),
    "npy, big endian": lambda p: npy(p, TABLE.astype(">f4")),
    "npz": lambda p: npz(p, one=TABLE),
    "safetensors": lambda p: p.write_bytes(
        tensors({"bias": TABLE[0], "e": TABLE, "n": np.ones((2, 2), int)})
    ),
    "GloVe": lambda p: p.write_text(TEXT, encoding="utf-8"),
    "GloVe with ends of lines of Windows": lambda p: p.write_bytes(TEXT.encode().replace(b"\n", b" \r\n")),
    "word2vec": lambda p: p.write_text(f"7 3\n{TEXT}", encoding="utf-8"),
    "word2vec with a mark of UTF-8": lambda p: p.write_text(f"7 3\n{TEXT}", encoding="utf-8-sig"),
    "tabs": lambda p: p.write_text(TEXT.replace(" ", "\t").rstrip(), encoding="utf-8"),
    "gzip": lambda p: p.write_bytes(gzip.compress(TEXT.encode())),
    "xz": lambda p: p.write_bytes(lzma.compress(f"7 3\n{TEXT}".encode())),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_is_read_by_what_its_file_is(kind, tmp_path):
    path = tmp_path / "file"
    WRITERS[kind](path)
    table = read_table(str(path))
    np.testing.assert_array_equal(table.rows(slice(None)), TABLE)
    np.testing.assert_array_equal(table.rows(np.array([6, 0, 6])), TABLE[[6, 0, 6]])
    assert table.words == (None if kind.startswith(("np", "safe")) else WORDS)


def test_an_array_is_named_among_several(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(tensors({"a": TABLE, "b": BFLOAT16}))
    assert read_table(str(path), "a").stored == "float32"
    table = read_table(str(path), "b")
    assert table.stored == "bfloat16"
    np.testing.assert_allclose(table.rows(slice(None)), TABLE, rtol=2**-7)
    npz(path, a=TABLE, b=TABLE[:4])
    assert read_table(str(path), "b").array.shape == (4, 3)


def test_words_may_have_spaces(tmp_path):
    path = tmp_path / "file"
    path.write_text("the 1 2\n. . . 3 4\n", encoding="utf-8")
    assert read_table(str(path)).words == ["the", ". . ."]


WRONG = TABLE.copy()
WRONG[4, 1] = np.nan
# What is written, and what is said of it.
BROKEN = {
    "empty": (b"", r"something, got nothing"),
    "blank": (b"\n\n", r"a line, got none"),
    "header alone": (b"0 2\n", r"a line of a word, got none"),
    "a word alone": (b"the\n", r"line 1 must have a word and its numbers"),
    "ragged": (b"the 1 2\nof 3\n", r"line 2 must have a word and 2 numbers, got b'of 3'"),
    "too many": (b"the 1 2\nof 3 4 5\n", r"line 2 must have 2 numbers, got more: b'of 3 4 5'"),
    "no number": (b"the 1 2\nof 3 x\n", r"line 2 must have 2 numbers, got could not convert .*'x'"),
    "not UTF-8": (b"the 1 2\n\xff 3 4\n", r"line 2 must have a word in UTF-8, got b'\\xff'"),
    "blank within": (b"the 1 2\n\nof 3 4\n", r"line 2 must have a word and its numbers, got nothing"),
    "fewer than said": (b"3 2\nthe 1 2\nof 3 4\n", r"3 words, as the first line says, got 2"),
    "NaN in text": (b"the 1 2\nof 3 nan\n", r"finite in float32, got nan in row 1 \('of'\)"),
    "too large": (b"the 1 2\nof 3 1e39\n", r"finite in float32, got inf in row 1 \('of'\)"),
    "binary": (bytes(range(256)), r"line 1 must have"),
    "gzip cut short": (gzip.compress(TEXT.encode())[:40], "ended before"),
    "xz cut short": (lzma.compress(TEXT.encode())[:60], "ended before"),
    "npz cut short": (b"PK\x03\x04" + bytes(30), "not a zip"),
    "compressed": (
        tensors({"e": TABLE}, {"ketcore_format": "1"}),
        r"that is compressed: see ketcore decompress",
    ),
    "cut short": (tensors({"e": TABLE})[:-1], r"84 bytes of tensors behind the header, got 83"),
    "two tensors": (tensors({"a": TABLE, "b": TABLE}), r"its name by --tensor, got 2: \['a', 'b'\]"),
    "no table": (tensors({"a": TABLE[0]}), r"got none among \['a'\]"),
    "cut in the header": (tensors({"e": TABLE})[:40], r"the header must have at most"),
    "no words": (tensors({"a": TABLE[:0]}), r"must have numbers, got shape \(0, 3\)"),
}
ARRAYS = {
    "integers": (np.ones((3, 2), int), r"float16, float32, float64 or bfloat16, got int64"),
    "complex": (np.ones((3, 2), complex), r"got complex128"),
    "one axis": (TABLE[0], r"words and columns, got shape \(3,\)"),
    "no rows": (TABLE[:0], r"words and columns, got shape \(0, 3\)"),
    "NaN": (WRONG, r"finite in float32, got nan in row 4"),
    "beyond float32": (TABLE.astype(float) * 1e39, r"finite in float32, got -?inf in row 0"),
    "objects": (np.array([None, 3], object), "objects in dtype"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_named(kind, tmp_path):
    path = tmp_path / "broken"
    path.write_bytes(BROKEN[kind][0])
    with pytest.raises(
        ValueError, match=f"^TABLE must be a whole file, got '.*broken', in which.*{BROKEN[kind][1]}"
    ):
        read_table(str(path))


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_that_is_no_table_is_named(kind, tmp_path):
    array, text = ARRAYS[kind]
    npy(tmp_path / "array", array, allow_pickle=True)
    with pytest.raises(ValueError, match=f"^TABLE must be a whole file, got '.*array', in which.*{text}"):
        read_table(str(tmp_path / "array"))


def test_an_array_that_is_cut_short_is_named(tmp_path):
    path = tmp_path / "cut"
    npy(path, TABLE)
    for shape in ((10**20, 9), (-5, 9), (10**10, 10**6)):
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
        with pytest.raises(ValueError, match=r"^TABLE must be a whole file, got '.*cut', in which"):
            read_table(str(path))
        if min(shape) > 0:
            with zipfile.ZipFile(tmp_path / "cut.npz", "w") as packed:
                packed.writestr("a.npy", path.read_bytes())
            with pytest.raises(ValueError, match=r"^TABLE must (be a whole file|fit into memory), got"):
                read_table(str(tmp_path / "cut.npz"))
    npy(path, TABLE)
    for size in (8, 40, 150):
        path.write_bytes(path.read_bytes()[:size] if size < 150 else tensors({"e": TABLE})[:60])
        with pytest.raises(ValueError, match=r"^TABLE must be a whole file, got '.*cut', in which"):
            read_table(str(path))


@pytest.mark.parametrize("name", ["missing", ""])
def test_what_cannot_be_opened_is_named(name, tmp_path):
    with pytest.raises(ValueError, match=r"^TABLE must be a file that can be read, got '.*'"):
        read_table(str(tmp_path / name))


def test_a_name_that_is_not_there_is_named(tmp_path):
    npz(tmp_path / "a", x=TABLE)
    npy(tmp_path / "b", TABLE)
    with pytest.raises(ValueError, match=r"--tensor must be one of \['x'\], got 'y'"):
        read_table(str(tmp_path / "a"), "y")
    with pytest.raises(ValueError, match="got npy, which has none"):
        read_table(str(tmp_path / "b"), "y")


def test_counts_become_roots(tmp_path):
    path = tmp_path / "counts"
    path.write_text("4\n1\n16\n", encoding="ascii")
    assert read_weights(str(path), 3).tolist() == [0.5, 0.25, 1.0]
    path.write_bytes(b"\xef\xbb\xbf4\n1\n16")
    assert read_weights(str(path), 3).tolist() == [0.5, 0.25, 1.0]
    npy(path, np.array([4, 1, 16]))
    assert read_weights(str(path), 3).tolist() == [0.5, 0.25, 1.0]
    assert read_weights(None, 2).tolist() == [1.0, 1.0]
    for content, text in (
        (b"4\n1\n", r"each of 3 words, got 2"),
        (b"4\n1\nx\n", r"line 3 must be a number, got 'x'"),
        (b"4\n0\n1\n", r"above 0, got 0.0 in row 1"),
        (b"4\n1\nnan\n", r"above 0, got nan in row 2"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^--weights must be a whole file, got '.*', in which .*{text}"):
            read_weights(str(path), 3)
    npy(path, np.ones((3, 1)))
    with pytest.raises(ValueError, match=r"one number a word, got float64 \(3, 1\)"):
        read_weights(str(path), 3)
