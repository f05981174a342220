"""Tables of codes that leave codes out: of a codebook of one vector; or all, with a vector for each word."""

import numpy as np
import pytest

import ketcore as kc
from ketcore.arrays.quantized import QuantizedArray

RNG = np.random.default_rng(3)
WORDS, IDS = 37, np.array([[5, 0, 36], [5, 7, 1]])
ONE, MANY = RNG.standard_normal((3, 1, 2)), RNG.standard_normal((3, 4, 5))
CODES = RNG.integers(0, 4, (1, 3, WORDS), dtype=np.uint8)
SCALE, DECODER = RNG.standard_normal(WORDS), RNG.standard_normal((10, 6))
VALUES = RNG.standard_normal((1, WORDS, 8)).astype(np.float32)
ZEROS = np.concatenate([np.zeros_like(CODES), CODES])
OWN = np.broadcast_to(np.arange(WORDS), (2, 3, WORDS)) * np.array([1, 0])[:, None, None]
OWN_BOOKS = [RNG.standard_normal((3, WORDS, 2)), RNG.standard_normal((3, 1, 4))]
# Tables without some codes, each with one that has them all.
PAIRS = {
    "one vector": (([ONE, MANY], CODES), ([ONE, MANY], ZEROS)),
    "one vector behind": (([MANY, ONE], CODES, SCALE), ([MANY, ONE], ZEROS[::-1], SCALE)),
    "one vector, packed": (
        ([ONE, MANY], kc.PackedCodes.pack(CODES, 2), SCALE, DECODER),
        ([ONE, MANY], kc.PackedCodes.pack(ZEROS, 2), SCALE, DECODER),
    ),
    "a vector a word": ((OWN_BOOKS, None, SCALE), (OWN_BOOKS, OWN, SCALE)),
    "quantized": (
        ([kc.quantize(VALUES, 2, 8)], None, SCALE.astype(np.float32), DECODER[:8].astype(np.float32)),
        (
            [kc.quantize(VALUES, 2, 8)],
            np.arange(WORDS)[None, None],
            SCALE.astype(np.float32),
            DECODER[:8].astype(np.float32),
        ),
    ),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    return [kc.CodebookTable(*arguments) for arguments in PAIRS[request.param]]


def test_a_table_is_that_of_all_codes(pair):
    few, full = pair
    x = RNG.standard_normal((3, full.shape[1])).astype(np.float32)
    calls = (
        lambda t: t.rows(IDS),
        lambda t: t.rows(4),
        lambda t: t.rows(IDS[:0]),
        lambda t: t[3],
        lambda t: t[-5:2:-2, 1:3],
        lambda t: t[[4, 4, 1], [0, 1, 2]],
        lambda t: t.to_dense(),
        lambda t: np.concatenate(list(t.iter_row_blocks(10))),
        lambda t: t.bag(IDS, mode="mean"),
        lambda t: t.logits(x),
        lambda t: t.topk(x, 3)[0],
        lambda t: t.expand().rows(IDS),
        lambda t: t.dequantize().rows(IDS),
    )
    for call in calls:
        np.testing.assert_allclose(call(few), call(full), rtol=1e-5, atol=1e-5)
    assert few.shape == full.shape
    assert few.nbytes < full.nbytes
    assert "CodebookTable" in repr(few)
    with pytest.raises(IndexError):
        few.rows([WORDS])


def test_files_leave_them_out_too(pair, tmp_path):
    few, full = pair
    kc.save(tmp_path / "few", few)
    kc.save(tmp_path / "full", full)
    assert b'"ketcore_format":"4"' in (tmp_path / "few").read_bytes()
    for mode in (None, "r"):
        found = kc.load(tmp_path / "few", mmap_mode=mode)
        assert found.nbytes == few.nbytes
        np.testing.assert_array_equal(found.rows(IDS), few.rows(IDS))
    np.testing.assert_array_equal(kc.load(tmp_path / "full").rows(IDS), full.rows(IDS))


def test_packed_codes_say_how_many_codebooks_have_them(tmp_path):
    """A code of one bit, or two of them: both take a byte a word."""
    books = [ONE[:1], MANY[:1, :2]]
    for lines in (1, 2):
        table = kc.CodebookTable(books, kc.PackedCodes.pack(np.minimum(ZEROS[-lines:, :1], 1), 1))
        kc.save(tmp_path / "table", table)
        found = kc.load(tmp_path / "table")
        assert found.codes.shape == (lines, 1, WORDS)
        np.testing.assert_array_equal(found.to_dense(), table.to_dense())


def test_vectors_of_the_words_of_a_call_are_decoded_alone(monkeypatch):
    sizes, decode = [], QuantizedArray.dequantize

    def counted(array):
        sizes.append(array.size)
        return decode(array)

    monkeypatch.setattr(QuantizedArray, "dequantize", counted)
    small = kc.quantize(kc.CodebookTable([VALUES], None), 4)
    sizes.clear()
    small.rows([3, 5])
    assert sizes == [16]
    assert small.stored[0].values.ndim == 3


def test_left_out_codes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"^codes must be there, or all codebooks .* got None for \[4, 5\]$"):
        kc.CodebookTable([np.ones((1, 4, 2)), np.ones((1, 5, 2))], None)
    with pytest.raises(ValueError, match=r"^codes must have shape \(N, R, words\)"):
        kc.CodebookTable([np.ones((1, 4, 2)), np.ones((1, 5, 2))], [[[0, 1]]])
    table = kc.CodebookTable([ONE, MANY], CODES % 4 + np.uint8(1))
    with pytest.raises(IndexError, match=r"^codes\[1\]\[\d\]\[\d+\] must lie in \[0, 4\), got 4$"):
        table.to_dense()


def test_layers_of_torch_take_them(pair):
    torch = pytest.importorskip("torch")
    import ketcore.torch as kt

    few, _ = pair
    books = [torch.from_numpy(np.asarray(book, np.float32)) for book in few.codebooks]
    table = kc.CodebookTable(books, few.codes)
    layer = kt.EmbeddingCodebook.from_table(table)
    np.testing.assert_allclose(layer(torch.tensor(IDS)).detach(), table.rows(torch.tensor(IDS)), rtol=1e-5)


def test_words_go_into_a_file_and_come_back(tmp_path):
    table, words = kc.CodebookTable([VALUES], None), [f"wörd {n}" for n in range(WORDS)]
    kc.save(tmp_path / "table", table, words)
    assert kc.load_words(tmp_path / "table") == words
    np.testing.assert_array_equal(kc.load(tmp_path / "table", "r").to_dense(), table.to_dense())
    kc.save(tmp_path / "table", table)
    assert kc.load_words(tmp_path / "table") is None
    for wrong, error, match in (
        (words[1:], ValueError, r"^words must be one for each row of obj, of shape \(37, 8\), got 36$"),
        ([*words[1:], "a\nb"], ValueError, r"^words must have no line feeds, got 'a\\nb' for row 36$"),
        ([*words[1:], chr(0xD800)], ValueError, r"^words must be text that UTF-8 has"),
        ([*words[1:], 5], TypeError, r"^words must be a list of str, got int for row 36$"),
        ("abc", TypeError, r"^words must be a list of str, got str$"),
    ):
        with pytest.raises(error, match=match):
            kc.save(tmp_path / "other", table, wrong)
    assert not (tmp_path / "other").exists()
