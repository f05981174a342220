"""Codes of fewer than 8 bits: the same table as with plain ones, in fewer bytes, and what is refused."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import strategies as st

import ketcore as kc
from ketcore.testing import to_numpy
from tests.test_errors import refused

RNG = np.random.default_rng(23)
BOOKS = np.arange(2 * 16 * 3, dtype=np.float32).reshape(2, 16, 3)


@st.composite
def problems(draw):
    """Codebooks, codes (N, R, words) and the bits of a code."""
    bits, order, rank = draw(st.sampled_from((1, 2, 4))), draw(st.integers(1, 2)), draw(st.integers(1, 5))
    words, rng = draw(st.integers(1, 6)), np.random.default_rng(draw(st.integers(0, 99)))
    sizes = [draw(st.integers(1, 2**bits)) for _ in range(order)]
    books = [rng.integers(-4, 5, (rank, size, draw(st.integers(1, 3)))).astype(np.float32) for size in sizes]
    codes = np.stack([rng.integers(0, size, (rank, words)) for size in sizes])
    return books, codes.astype(draw(st.sampled_from(("uint8", "uint16", "int64")))), bits


def test_a_table_of_packed_codes_is_the_same_table(xp):
    def body(problem):
        books, codes, bits = problem
        packed = kc.PackedCodes.pack(xp.asarray(codes), bits)
        books = [xp.asarray(book) for book in books]
        plain, table = kc.CodebookTable(books, xp.asarray(codes)), kc.CodebookTable(books, packed)
        (words, columns), number = table.shape, codes[:, :, 0].size
        assert np.array_equal(to_numpy(packed.unpack()), codes)
        assert (packed.shape, packed.ndim, table.code_width) == (codes.shape, 3, bits)
        assert packed.nbytes == words * -(-number * bits // 8)
        assert table.nbytes - packed.nbytes == plain.nbytes - codes.nbytes
        ids = RNG.integers(0, words, (2, 3))
        given, x = xp.asarray(ids), xp.asarray(RNG.integers(-3, 4, (2, columns)).astype(np.float32))
        for call in (
            lambda t: t.rows(given),
            lambda t: t.rows([]),
            lambda t: t.rows(0),
            lambda t: t[-1],
            lambda t: t[::-1],
            lambda t: t[1:, :2],
            lambda t: t[given, 0],
            lambda t: t.bag(given),
            lambda t: t.logits(x),
            lambda t: t.topk(x, 1)[0],
            lambda t: t.to_dense(),
            lambda t: t.expand().to_dense(),
        ):
            assert np.array_equal(to_numpy(call(table)), to_numpy(call(plain)))

    xp.check(problems(), body)


def test_files_keep_the_bits_and_are_mapped(tmp_path):
    codes = kc.PackedCodes.pack(RNG.integers(0, 16, (1, 2, 500)))
    table, path = kc.CodebookTable([BOOKS], codes), tmp_path / "table"
    kc.save(path, table)
    assert path.stat().st_size - table.nbytes < 700
    found = kc.load(path, mmap_mode="r")
    assert (found.codes.bits, found.codes.shape) == (4, (1, 2, 500))
    assert not found.codes.packed.flags.writeable
    assert np.array_equal(found.rows([3, 499]), table.rows([3, 499]))
    found = kc.load(path)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        assert np.array_equal(other.to_dense(), table.to_dense())


def test_only_the_rows_of_a_call_are_unpacked(tmp_path):
    """A sparse file of 800 MB."""
    words, rank = 10**8, 16
    with open(tmp_path / "codes", "wb") as file:
        file.truncate(words * rank // 2)
    stored = np.memmap(tmp_path / "codes", np.uint8, "r", shape=(words, rank // 2))
    codes = kc.PackedCodes(stored, 1, rank)
    assert np.shares_memory(codes.packed, stored)
    table = kc.CodebookTable([np.ones((rank, 16, 8), np.float32)], codes)
    assert table.nbytes == words * rank // 2 + rank * 16 * 32
    tracemalloc.start()
    assert (table.rows(RNG.integers(0, words, 1000)) == rank).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18


def test_a_code_that_its_codebook_has_not_is_named_by_its_place():
    table = kc.CodebookTable([BOOKS[:, :9]], kc.PackedCodes.pack([[[0, 8, 1], [2, 9, 0]]]))
    assert np.isfinite(table.rows([0, 2])).all()
    refused(lambda: table.rows([0, 1]), IndexError, r"codes\[0\]\[1\]\[1\] must lie in \[0, 9\), got 9")
    assert np.isnan(table.rows([0, 1], check=False)).any(axis=1).tolist() == [False, True]


def test_what_they_are():
    codes = kc.PackedCodes.pack([[[1, 15, 3], [2, 0, 4]]])
    assert repr(codes) == "PackedCodes(shape=(1, 2, 3), bits=4)"
    assert "codes=4 bits, dtype=float32" in repr(kc.CodebookTable([BOOKS], codes))
    refused(lambda: np.asarray(codes), TypeError, r"PackedCodes must be unpacked by unpack\(\)")
    # The high half of the last byte belongs to no code.
    odd = kc.PackedCodes(np.array([[0x21, 0xF3]], np.uint8), 1, 3)
    assert odd.unpack().tolist() == [[[1], [2], [3]]]


PACKED = np.zeros((3, 2), np.uint8)
MISTAKES = [
    (
        lambda: kc.PackedCodes(PACKED.astype(np.int8), 1, 4),
        TypeError,
        "packed must have dtype uint8, got int8",
    ),
    (lambda: kc.PackedCodes(PACKED + 0.5, 1, 4), TypeError, "packed must have dtype uint8, got float64"),
    (lambda: kc.PackedCodes("a", 1, 4), TypeError, "packed must have an integer dtype, got <U1"),
    (
        lambda: kc.PackedCodes(PACKED, 1, 5),
        ValueError,
        r"packed must have shape \(words, 3\), for 5 codes of 4 bits, and a word, got \(3, 2\)",
    ),
    (
        lambda: kc.PackedCodes(PACKED, 1, 4, 2),
        ValueError,
        r"packed must have shape \(words, 1\), for 4 codes",
    ),
    (lambda: kc.PackedCodes(PACKED[0], 1, 4), ValueError, r"packed must have shape .*, got \(2,\)"),
    (lambda: kc.PackedCodes(PACKED[:0], 1, 4), ValueError, r"packed must have shape .*, got \(0, 2\)"),
    (lambda: kc.PackedCodes(PACKED, 0, 4), ValueError, "order must be at least 1, got 0"),
    (lambda: kc.PackedCodes(PACKED, 1, 1.5), TypeError, r"rank must be an int, got 1\.5"),
    (lambda: kc.PackedCodes(PACKED, 2**63, 4), ValueError, "packed must have shape"),
    (lambda: kc.PackedCodes(PACKED, 1, 4, 3), ValueError, "bits must be 1, 2 or 4, got 3"),
    (lambda: kc.PackedCodes(PACKED, 1, 4, True), TypeError, "bits must be an int, got True"),
    (lambda: kc.PackedCodes.pack([[[16]]]), IndexError, r"codes must lie in \[0, 16\), got 16"),
    (lambda: kc.PackedCodes.pack([[[-1, 2]]]), IndexError, r"codes must lie in \[0, 16\), got -1"),
    (lambda: kc.PackedCodes.pack([[[2**63]]], 2), IndexError, r"codes must lie in \[0, 4\), got 92233720"),
    (lambda: kc.PackedCodes.pack([[[0.5]]]), TypeError, "codes must have an integer dtype, got float64"),
    (
        lambda: kc.PackedCodes.pack([[1, 2]]),
        ValueError,
        r"codes must have shape \(N, R, words\).*, got \(1, 2\)",
    ),
    (lambda: kc.PackedCodes.pack([[[]]]), ValueError, r"codes must have shape .*, got \(1, 1, 0\)"),
    (
        lambda: kc.CodebookTable([BOOKS], kc.PackedCodes(PACKED, 1, 4)),
        ValueError,
        r"codes must have shape \(N, R, words\), for \(1, 2\) and .*, got \(1, 4, 3\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes(call, error, message):
    refused(call, error, message)
