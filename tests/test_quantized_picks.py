"""Calls that read few lines of what is quantized: these alone are decoded, to the same bits as of all."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore.arrays import quantized_lines
from ketcore.arrays.quantized import QuantizedArray
from ketcore.lookups import gather

RNG = np.random.default_rng(7)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Of arrays of any size."""
    monkeypatch.setattr(quantized_lines, "_NUMBERS", 1)


@pytest.fixture
def decoded(monkeypatch):
    """How many numbers each call of `dequantize` made."""
    sizes, whole = [], QuantizedArray.dequantize

    def counted(self):
        sizes.append(self.size)
        return whole(self)

    monkeypatch.setattr(QuantizedArray, "dequantize", counted)
    return sizes


@st.composite
def lines(draw):
    """A quantized array (R, t, q), in lines of one, two or all of its axes, and some rows of it."""
    rank, length, width = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 12))
    bits, block = draw(st.sampled_from((8, 4, 2))), draw(st.sampled_from((1, 2, 3, 4, 6, 8, 32)))
    lead = draw(st.integers(0, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = (rank, length, width)
    flat = kc.quantize(rng.standard_normal((*shape[:lead], prod(shape[lead:]))), bits, block)
    index = rng.integers(0, length, (rank, 5) if draw(st.booleans()) else (5,))
    return QuantizedArray(flat.values, flat.scales, shape, bits, block), index


@given(problem=lines())
def test_lines_are_those_of_the_decoded_array(problem):
    array, index = problem
    whole = array.dequantize()
    terms = np.arange(len(whole))[:, None]
    assert np.array_equal(quantized_lines.rows_of_terms(array, index), whole[terms, index])
    ids = index.reshape(-1) % len(whole)
    assert np.array_equal(quantized_lines.records_of(array, ids), whole[ids])


def on(xp, array):
    """A quantized array of another library."""
    return QuantizedArray(
        xp.asarray(array.values),
        xp.asarray(array.scales.astype("float32")),
        array.shape,
        array.bits,
        array.block,
    )


# Of a mode with many rows beside one with few, of which the last is decoded whole.
FACTORS = [kc.quantize(RNG.standard_normal((2, length, 6)), 4, 3) for length in (60, 2)]
KETS = kc.Ket.random((3, 4), rank=2, batch_shape=(70,), rng=0)
PACKED = kc.quantize(KETS, 2, 5).stored
LONG = kc.quantize(RNG.standard_normal((2, 60, 6)), 8, 4)
IDS = np.array([[7, 119, 7], [0, 64, 118]])
DIGITS = np.stack([IDS // 2, IDS % 2])
TERMS = np.stack([np.stack([IDS // 2, 59 - IDS // 2])])
CALLS = {
    "rows": lambda f, ids, **more: kc.rows(f, ids, **more),
    "cropped": lambda f, ids, **more: kc.rows(f, ids, (120, 13), **more),
    "row_kets": lambda f, ids, **more: kc.row_kets(f, ids, **more)[0],
}


@pytest.mark.parametrize("name", CALLS)
def test_rows_of_few_ids_decode_few_rows(name, xp, decoded):
    stored = [on(xp, factor) for factor in FACTORS]
    whole = [xp.asarray(factor.dequantize()) for factor in FACTORS]
    scale = {} if name == "row_kets" else {"row_scale": xp.asarray(np.linspace(-1, 2, 120, dtype="float32"))}
    for check, ids in ((None, IDS), (False, np.where(IDS == 64, 120, IDS)), (False, IDS)):
        for more in ({}, scale):
            expected = CALLS[name](whole, xp.asarray(ids), check=check, **more)
            decoded.clear()
            found = CALLS[name](stored, xp.asarray(ids), check=check, **more)
            assert np.array_equal(xp.to_numpy(found), xp.to_numpy(expected), equal_nan=True)
            assert sum(decoded) == 2 * IDS.size * 6 + FACTORS[1].size
    with pytest.raises(IndexError, match=r"ids must lie in \[0, 120\), got 120"):
        CALLS[name](stored, [120], check=True)


def test_an_index_a_mode_or_a_term_decodes_few_rows(xp, decoded):
    for stored, index, more in (
        (FACTORS, DIGITS, {}),
        (FACTORS, DIGITS, {"columns": 13}),
        ([LONG], TERMS, {"per_term": True}),
        ([LONG], TERMS, {"per_term": True, "row_scale": xp.asarray(np.arange(6.0).reshape(2, 3))}),
    ):
        whole = [xp.asarray(table.dequantize()) for table in stored]
        bad = np.where(index == 32, 60, index)
        for check, each in ((None, index), (False, bad)):
            expected = kc.gather_kron(whole, xp.asarray(each), check=check, **more)
            decoded.clear()
            found = kc.gather_kron([on(xp, table) for table in stored], xp.asarray(each), check=check, **more)
            assert np.array_equal(xp.to_numpy(found), xp.to_numpy(expected), equal_nan=True)
            assert sum(decoded) < 300
    coded = xp.asarray(TERMS), xp.asarray(np.ones((6, 3), "float32"))
    expected = kc.codebook_rows([xp.asarray(LONG.dequantize())], None, coded[1], coded[0])
    decoded.clear()
    found = kc.codebook_rows([on(xp, LONG)], None, coded[1], coded[0])
    assert np.array_equal(xp.to_numpy(found), xp.to_numpy(expected))
    assert sum(decoded) == 2 * 6 * 6


@pytest.mark.parametrize("layernorm", [False, True])
def test_kets_of_few_words_decode_few_records(layernorm, xp, decoded):
    stored, whole = on(xp, PACKED), xp.asarray(PACKED.dequantize())
    scale = xp.asarray(np.linspace(-1, 2, 70, dtype="float32"))
    for more in ({}, {"columns": 3}, {"row_scale": scale}):
        for ids in ([[3, 69], [3, 0]], [[3, 70], [-1, 0]]):
            arguments = (xp.asarray(np.array(ids)), (3, 4), layernorm)
            expected = kc.ket_rows(whole, *arguments, check=False, **more)
            decoded.clear()
            found = kc.ket_rows(stored, *arguments, check=False, **more)
            assert np.array_equal(xp.to_numpy(found), xp.to_numpy(expected), equal_nan=True)
            assert decoded == [4 * 2 * 7]
            many = xp.asarray(np.arange(70))
            expected = kc.ket_rows(whole, many, (3, 4), layernorm, **more)
            assert np.array_equal(
                xp.to_numpy(kc.ket_rows(stored, many, (3, 4), layernorm, **more)), xp.to_numpy(expected)
            )


@pytest.mark.parametrize("engine", [name for name in kc.engines() if name != "cuda"])
def test_every_engine_gives_the_same_bits(engine):
    """Also where the whole table would take another way: half tables, or blocks."""
    factors = [kc.quantize(RNG.standard_normal((3, length, 5)), 8, 8) for length in (90, 80, 4)]
    whole, ids = [factor.dequantize() for factor in factors], RNG.integers(0, 90 * 80 * 4, 17)
    with gather.only(engine):
        assert np.array_equal(kc.rows(factors, ids), kc.rows(whole, ids))


TABLES = {
    "matrix": kc.KroneckerMatrix([RNG.standard_normal((1, 200, 6))]),
    "cropped": kc.KroneckerMatrix([RNG.standard_normal((2, 200, 6))], (150, 5)),
    "codes": kc.CodebookTable([RNG.standard_normal((2, 180, 6))], RNG.integers(0, 180, (1, 2, 150))),
    "decoder": kc.CodebookTable(
        [RNG.standard_normal((2, 180, 6))],
        RNG.integers(0, 180, (1, 2, 150)),
        kc.quantize(np.arange(150.0), 8, 4),
        RNG.standard_normal((6, 4)),
    ),
}
READS = {
    "rows": lambda t: t.rows([[3, 149], [0, 3]]),
    "row": lambda t: t[-1],
    "some": lambda t: t[[3, -1]],
    "pairs": lambda t: t[[3, -1, 9], [0, 1, -1]],
    "block": lambda t: t[9:2:-3, 1:3],
    "element": lambda t: t[149, 2],
    "column": lambda t: t[[5, 6], 3],
    "blocks": lambda t: next(iter(t.iter_row_blocks(4))),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("bits", [8, 2])
def test_methods_decode_what_they_read(name, read, bits, decoded):
    small = kc.quantize(TABLES[name], bits, 4)
    whole = small.dequantize()
    decoded.clear()
    found = READS[read](small)
    assert sum(decoded) < 150
    assert np.array_equal(found, READS[read](whole))


def test_bags_and_kets_of_rows_decode_what_they_read(decoded):
    table, matrix = kc.quantize(TABLES["decoder"], 4, 4), kc.quantize(TABLES["matrix"], 4, 4)
    decoded.clear()
    bag, kets = table.bag([[3, 149], [0, 3]]), matrix.row_kets([5, 199])
    assert sum(decoded) < 150
    assert np.array_equal(bag, table.dequantize().bag([[3, 149], [0, 3]]))
    assert np.array_equal(kets.packed, matrix.dequantize().row_kets([5, 199]).packed)


def test_mapped_values_are_not_read_as_a_whole(tmp_path, decoded):
    matrix = kc.quantize(kc.KroneckerMatrix([RNG.standard_normal((1, 5000, 40))]), 4)
    kc.save(tmp_path / "table.safetensors", matrix)
    decoded.clear()
    mapped = kc.load(tmp_path / "table.safetensors", mmap_mode="r")
    found = mapped.rows([7, 4999])
    assert decoded == [80]
    assert type(found) is np.ndarray
    assert np.array_equal(found, matrix.dequantize().rows([7, 4999]))


@pytest.mark.parametrize("bits", [8, 4])
def test_a_table_of_codes_keeps_a_quantized_scale(bits, tmp_path, decoded):
    plain, scale = TABLES["codes"], kc.quantize(RNG.random(150) + 0.5, bits, 16)
    table = kc.CodebookTable([book.astype("float32") for book in plain.codebooks], plain.codes, scale)
    assert decoded == []
    assert (table.stored_row_scale, table.dtype) == (scale, np.dtype("float32"))
    assert np.array_equal(table.row_scale, scale.dequantize())
    assert table.nbytes == table.codebooks[0].nbytes + table.codes.nbytes + scale.nbytes
    assert f"stored={bits} bits by 16" in repr(table)
    whole = table.dequantize()
    assert not isinstance(whole.stored_row_scale, QuantizedArray)
    decoded.clear()
    for ids in ([3, 149], [[0], [7]]):
        assert np.array_equal(table.rows(ids), whole.rows(ids))
    assert np.array_equal(table[9:4:-2], whole[9:4:-2])
    assert decoded == [2, 2, 3]
    assert np.array_equal(table.to_dense(), whole.to_dense())
    assert np.array_equal(table.logits(np.ones(6)), whole.logits(np.ones(6)))
    assert np.array_equal(table.expand().to_dense(), whole.to_dense())
    small = kc.quantize(table, 4)
    assert small.stored_row_scale is scale
    kc.save(tmp_path / "table.safetensors", small)
    assert b'"ketcore_format":"3"' in (tmp_path / "table.safetensors").read_bytes()
    again = kc.load(tmp_path / "table.safetensors")
    assert repr(again) == repr(small)
    assert np.array_equal(again.to_dense(), small.to_dense())
    with pytest.raises(ValueError, match=r"row_scale must have shape \(150,\), one number for each word"):
        kc.CodebookTable(plain.codebooks, plain.codes, kc.quantize(np.ones(149)))


def test_gradients_are_those_of_the_decoded_array():
    whole = [factor.dequantize() for factor in FACTORS]
    cotangent = RNG.standard_normal((*IDS.shape, 36)).astype("float32")
    pairs = kc.rows_vjp(FACTORS, IDS, cotangent), kc.rows_vjp(whole, IDS, cotangent)
    for found, expected in zip(*pairs, strict=True):
        assert np.array_equal(found, expected)


def test_errors_are_those_of_the_decoded_arrays():
    """What is checked before anything is decoded reads as it does of arrays."""
    for call in (
        lambda f: kc.rows(f, [0], (500, 2)),
        lambda f: kc.rows([*f, np.ones((3, 2, 2), "float32")], [0]),
        lambda f: kc.gather_kron(f, [[60], [0]]),
        lambda f: kc.rows(f, [0.5]),
        lambda f: kc.rows([*f, "a"], [0]),
        lambda f: kc.rows(f, [0], row_scale=np.ones(3)),
        lambda f: kc.ket_rows(f[0], [0], (2, 3)),
    ):
        with pytest.raises((TypeError, ValueError, IndexError)) as of_arrays:
            call([factor.dequantize() for factor in FACTORS])
        with pytest.raises(of_arrays.type) as found:
            call(FACTORS)
        assert str(found.value) == str(of_arrays.value)
