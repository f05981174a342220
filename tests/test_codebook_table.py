"""Tables that are stored as codes: everything against the dense table, what stays narrow, what is refused."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from ketcore.arrays import threads
from ketcore.objects import codebook_lookups
from ketcore.testing import assert_dense_equal, to_numpy
from ketcore.testing.values import dtype_name
from tests import generic
from tests.test_errors import refused

RNG = np.random.default_rng(17)


@st.composite
def tables(draw, half=False):
    """Arguments of a CodebookTable on NumPy, and its dense definition in float64 or complex128."""
    dtype = draw(testing.dtypes(half=half))
    codebooks = draw(generic.factors(dtype=dtype))
    rank, width = codebooks[0].shape[0], int(np.prod([book.shape[2] for book in codebooks]))
    words = draw(st.sampled_from((1, 2, 7)))
    integer = draw(st.sampled_from(("uint8", "int8", "int16", "int64")))
    codes = [draw(testing.indices(book.shape[1], shape=(rank, words), dtype=integer)) for book in codebooks]
    codes = np.array(codes, integer).reshape(len(codebooks), rank, words)
    row_scale = draw(st.none() | generic.arrays((words,), dtype))
    decoder = draw(st.none() | generic.arrays((width, draw(st.integers(1, 4))), dtype))
    return codebooks, codes, row_scale, decoder


def made(xp, arguments):
    codebooks, codes, row_scale, decoder = arguments
    floats = [None if each is None else xp.asarray(each) for each in (row_scale, decoder)]
    return kc.CodebookTable([xp.asarray(book) for book in codebooks], xp.asarray(codes), *floats)


def defined(arguments, change=lambda array: array):
    """The dense table in the wide dtype; `change` goes to all floating arrays."""
    codebooks, codes, row_scale, decoder = arguments
    wide = np.complex128 if np.dtype(codebooks[0].dtype).kind == "c" else np.float64
    books, scale, matrix = (
        [change(book.astype(wide)) for book in codebooks],
        *(None if each is None else change(each.astype(wide)) for each in (row_scale, decoder)),
    )
    return kc.codebook_rows_dense(books, scale, matrix, codes)


class Against:
    """The dense table and what its elements add up, to compare results with."""

    def __init__(self, xp, arguments):
        self.table, self.dense = made(xp, arguments), defined(arguments)
        self.scale = defined(arguments, np.abs)
        self.dtype = dtype_name(arguments[0][0].dtype)
        self.terms = 4 * max(int(np.prod(book.shape)) for book in arguments[0])

    def assert_equal(self, found, of):
        """`found` is what the function `of` makes of the dense table."""
        expected, scale = of(self.dense), np.abs(of(self.scale))
        assert_dense_equal(found, expected, terms=self.terms, scale=scale, dtype=self.dtype)


def test_rows_and_blocks_are_those_of_the_dense_table(xp):
    def body(arguments):
        case = Against(xp, arguments)
        table, (words, columns) = case.table, case.dense.shape
        assert (table.shape, len(table)) == (case.dense.shape, words)
        case.assert_equal(table.to_dense(), lambda dense: dense)
        ids = RNG.integers(0, words, (2, 3))
        case.assert_equal(table.rows(xp.asarray(ids)), lambda dense: dense[ids])
        assert to_numpy(table.rows([])).shape == (0, columns)
        row, column = RNG.integers(-words, words, (2, 1)), RNG.integers(-columns, columns, 3)
        some = xp.asarray(row), xp.asarray(column)
        case.assert_equal(table[some], lambda dense: dense[row, column])
        case.assert_equal(table[some[0], -1], lambda dense: dense[row, -1])
        case.assert_equal(table[::-2, some[1]], lambda dense: dense[::-2, column])
        for key in (-1, slice(1, None), (0, 0), (slice(None), slice(0, columns, 2)), (slice(2, 1), 0)):
            case.assert_equal(table[key], lambda dense, key=key: dense[key])
        for n, block in enumerate(table.iter_row_blocks(3)):
            case.assert_equal(block, lambda dense, n=n: dense[3 * n : 3 * n + 3])
        assert n == (words - 1) // 3
        expanded = table.expand()
        assert (expanded.dtype, expanded.order, expanded.rank) == (table.dtype, 1, 1)
        case.assert_equal(expanded.rows(xp.asarray(ids)), lambda dense: dense[ids])

    xp.check(tables(half=xp.half), body)


def test_bags_are_sums_of_rows(xp):
    def body(arguments):
        case = Against(xp, arguments)
        words, columns = case.dense.shape
        ids, offsets, weights = RNG.integers(0, words, 9), np.array([0, 0, 4, 9]), RNG.integers(-3, 4, 9)
        given = xp.asarray(ids), xp.asarray(offsets)

        def of(dense, weights=None, mean=False):
            rows = dense[ids] if weights is None else dense[ids] * weights[:, None]
            parts = [rows[a:b] for a, b in zip(offsets, [*offsets[1:], 9], strict=True)]
            return np.array([p.sum(axis=0) / (max(1, len(p)) if mean else 1) for p in parts])

        case.assert_equal(case.table.bag(*given), of)
        case.assert_equal(case.table.bag(*given, mode="mean"), lambda dense: of(dense, mean=True))
        weighted = case.table.bag(*given, weights=weights.tolist())
        case.assert_equal(weighted, lambda d: of(d, np.abs(weights) if d is case.scale else weights))
        square = ids.reshape(3, 3)
        case.assert_equal(case.table.bag(xp.asarray(square)), lambda dense: dense[square].sum(axis=1))
        assert to_numpy(case.table.bag(xp.asarray(square[:0]))).shape == (0, columns)

    xp.check(tables(half=xp.half), body)


def test_logits_and_the_largest_of_them(xp):
    def body(arguments):
        case = Against(xp, arguments)
        words, columns = case.dense.shape
        x = RNG.integers(-3, 4, (2, 3, columns))
        listed, real = x.tolist(), case.dense.dtype.kind == "f"
        case.assert_equal(case.table.logits(listed), lambda d: (np.abs(x) if d is case.scale else x) @ d.T)
        case.assert_equal(
            case.table.logits(listed[0][0]), lambda d: (np.abs(x[0, 0]) if d is case.scale else x[0, 0]) @ d.T
        )
        assert to_numpy(case.table.logits(xp.asarray(np.zeros((0, columns), np.float32)))).shape == (0, words)
        if not real:
            return
        logits = to_numpy(case.table.logits(listed))
        values, found = map(to_numpy, case.table.topk(listed, words))
        assert (np.sort(found, axis=-1) == np.arange(words)).all()
        assert (np.diff(values, axis=-1) <= 0).all()
        assert np.array_equal(np.take_along_axis(logits, found.astype(int), -1), values)

    xp.check(tables(half=xp.half), body)


@pytest.mark.parametrize("count", [1, 12])
def test_the_largest_of_many_blocks(monkeypatch, count):
    monkeypatch.setattr(codebook_lookups, "_LEAST_WORDS", 16)
    monkeypatch.setattr(codebook_lookups, "_BLOCK_NUMBERS", 16)
    books, codes = RNG.standard_normal((3, 5, 4)), RNG.integers(0, 5, (1, 3, 203)).astype(np.uint8)
    table, x = kc.CodebookTable([books], codes, RNG.standard_normal(203)), RNG.standard_normal((count, 4))
    dense = table.to_dense()
    values, _ = table.topk(x, 3)
    np.testing.assert_allclose(values, -np.sort(-(x @ dense.T), axis=1)[:, :3])
    np.testing.assert_allclose(table.logits(x), x @ dense.T)
    bag, offsets = RNG.integers(0, 203, 100), [0, 3, 3, 71]
    np.testing.assert_allclose(
        table.bag(bag, offsets), np.add.reduceat(dense[bag], [0, 3, 3, 71]) * [[1], [0], [1], [1]]
    )


BOOKS, CODES = np.ones((2, 3, 4), np.float32), np.array([[[0, 1], [2, 0]]], np.uint8)
DECODER = np.ones((4, 5), np.float32)


def test_what_it_is_and_what_it_keeps():
    table = kc.CodebookTable([BOOKS], CODES, np.ones(2, np.float16), DECODER)
    assert (table.order, table.rank, table.dims, table.code_width) == (1, 2, (4,), 8)
    assert (table.shape, table.ndim, table.size, table.dtype) == ((2, 5), 2, 10, np.float32)
    assert table.nbytes == BOOKS.nbytes + CODES.nbytes + 4 + DECODER.nbytes
    assert table.codebooks[0] is BOOKS
    assert np.shares_memory(table.codes, CODES)
    assert table.codes.dtype == np.uint8
    assert repr(table).startswith(
        "CodebookTable(shape=(2, 5), order=1, rank=2, dims=(4,), codebook_rows=(3,)"
    )
    assert "ratio=0.217x" in repr(table)
    for other in (copy.copy(table), copy.deepcopy(table), pickle.loads(pickle.dumps(table))):
        assert np.array_equal(other.to_dense(), table.to_dense())
    one = kc.CodebookTable([[[1.0], [2.0]], [[3, 4]]], [[[1]], [[0]]])
    assert (one.shape, one[0].tolist(), one.topk([1, 1], 1)[1].tolist()) == ((1, 2), [6.0, 8.0], [0])
    for name in ("T", "matmul"):
        with pytest.raises(AttributeError, match=f"a CodebookTable has no {name}: .* serves instead"):
            getattr(table, name)
    with pytest.raises(TypeError, match="must be made dense by to_dense"):
        np.asarray(table)
    with pytest.raises(
        TypeError, match=r"value must be looked for in to_dense\(\), not in a Codeb.*, got 3$"
    ):
        _ = 3 in table
    with pytest.raises(
        TypeError, match=r"value must be looked for in to_dense\(\), not in a KroneckerMatrix"
    ):
        _ = 3 in kc.eye((2, 3))
    with pytest.raises(
        MemoryError, match=r"max_bytes must be at least 40 .* to hold the dense \(2, 5\) array"
    ):
        table.to_dense(max_bytes=39)


def test_a_row_of_nan_for_what_is_not_looked_at():
    table = kc.CodebookTable([BOOKS], np.array([[[0, 9], [2, 0]]], np.uint8), None, DECODER)
    rows = table.rows([0, 1, 0, 7], check=False)
    assert np.isnan(rows).all(axis=1).tolist() == [False, True, False, True]
    assert np.isnan(table.bag([[0, 0], [0, 1]], check=False)).all(axis=1).tolist() == [False, True]
    scaled = kc.CodebookTable([BOOKS], CODES, [np.nan, -1.0])
    assert np.isnan(scaled.rows([0, 1])).any(axis=1).tolist() == [True, False]


def test_other_byte_orders_and_masks():
    codes = CODES.astype(">u2")
    table = kc.CodebookTable([BOOKS.astype(">f4")], codes)
    assert np.shares_memory(table.codes, codes)
    assert np.array_equal(table.rows([1, 0]), kc.CodebookTable([BOOKS], CODES).rows([1, 0]))
    with pytest.raises(TypeError, match="codes must have no mask, got MaskedArray"):
        kc.CodebookTable([BOOKS], np.ma.masked_array(CODES))


GOOD = {"codebooks": [BOOKS], "codes": CODES, "row_scale": np.ones(2, np.float32), "decoder": DECODER}
BAD_ARGUMENTS = [
    ({"codebooks": []}, ValueError, "codebooks must hold at least one array, got none"),
    (
        {"codebooks": [BOOKS[0, 0]]},
        ValueError,
        r"codebooks must be arrays \(rank, rows, columns\) of one rank",
    ),
    ({"codebooks": [BOOKS[:, :0]]}, ValueError, "codebooks must have at least one row and one column each"),
    ({"codebooks": [BOOKS.astype("U3")]}, TypeError, "codebooks must have a numeric dtype, got <U3"),
    (
        {"codes": CODES[0]},
        ValueError,
        r"codes must have shape \(N, R, words\), for \(1, 2\) and at least one",
    ),
    ({"codes": CODES[:, :1]}, ValueError, r"codes must have shape .*, got \(1, 1, 2\)"),
    ({"codes": CODES[:, :, :0]}, ValueError, r"codes must have shape .* one word, got \(1, 2, 0\)"),
    ({"codes": CODES.astype(float)}, TypeError, "codes must have an integer dtype, got float64"),
    ({"codes": [[[0.5, 1], [2, 0]]]}, TypeError, "codes must have an integer dtype, got float64"),
    ({"codes": CODES.astype(bool)}, TypeError, "codes must have an integer dtype, got bool"),
    (
        {"row_scale": np.ones(3)},
        ValueError,
        r"row_scale must have shape \(2,\), one number for each word, got \(3,\)",
    ),
    ({"row_scale": ["a", "b"]}, TypeError, "row_scale must have a numeric dtype, got <U1"),
    ({"decoder": DECODER.T}, ValueError, r"decoder must have shape \(w, Q\), with w = 4 .*, got \(5, 4\)"),
    ({"decoder": DECODER[:, :0]}, ValueError, r"decoder must have shape .* Q >= 1, got \(4, 0\)"),
    ({"decoder": DECODER[0]}, ValueError, r"decoder must have shape .*, got \(5,\)"),
]


@pytest.mark.parametrize(("spoiled", "error", "message"), BAD_ARGUMENTS)
def test_wrong_arguments(spoiled, error, message):
    refused(kc.CodebookTable, error, message, **GOOD | spoiled)


BAD_CALLS = [
    (lambda t: t.rows([0, 2]), IndexError, r"ids must lie in \[0, 2\), got 2"),
    (lambda t: t.rows([-1]), IndexError, r"ids must lie in \[0, 2\), got -1"),
    (lambda t: t.rows(2**63), IndexError, r"ids must lie in \[0, 2\), got 9223372036854775808"),
    (lambda t: t.rows([0.5]), TypeError, "ids must have an integer dtype, got float64"),
    (
        lambda t: t.rows([0], out=np.empty((1, 5))),
        ValueError,
        r"out must have shape \(1, 5\) and dtype float32",
    ),
    (lambda t: t[2], IndexError, r"key must lie in \[-2, 2\) on axis 0, got 2"),
    (lambda t: t[[0, 1], [0, 1, 2]], IndexError, "key must hold index arrays that broadcast"),
    (lambda t: t.bag([0, 1]), ValueError, r"ids must have shape \(bags, n\) without offsets, got \(2,\)"),
    (lambda t: t.bag([[0]], [0]), ValueError, "ids must have one axis beside offsets"),
    (
        lambda t: t.bag([0, 1], [0, 3]),
        ValueError,
        "offsets must ascend from 0 to at most the number of ids, 2",
    ),
    (lambda t: t.bag([0, 1], [1]), ValueError, r"offsets must ascend from 0 .*, got \[1\]"),
    (lambda t: t.bag([0, 1], [0, -1]), ValueError, r"offsets must ascend from 0 .*, got \[0, -1\]"),
    (
        lambda t: t.bag([0, 1], [2**63]),
        ValueError,
        r"offsets must ascend .*, got \[9223372036854775808\]",
    ),
    (lambda t: t.bag([0, 1], []), ValueError, r"offsets must ascend from 0 .*, got \[\]"),
    (lambda t: t.bag([[0]], mode="max"), ValueError, "mode must be"),
    (lambda t: t.bag([[0]], weights=[1.0]), ValueError, r"weights must have shape \(1, 1\), got \(1,\)"),
    (
        lambda t: t.bag([[0]], weights=[[1.0]], mode="mean"),
        ValueError,
        "weights must be None for mode 'mean'",
    ),
    (lambda t: t.logits(np.ones(4)), ValueError, r"x must have shape \(..., Q\) with Q = 5, got \(4,\)"),
    (lambda t: t.logits(1.0), ValueError, r"x must have shape .*, got \(\)"),
    (lambda t: t.topk(np.ones(5), 3), ValueError, r"k must be"),
    (
        lambda t: t.topk(1j * np.ones(5), 1),
        TypeError,
        "x must be real, as the table, for topk, got complex128",
    ),
    (lambda t: t.iter_row_blocks(0), ValueError, "size must be"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS)
def test_wrong_calls(call, error, message):
    refused(call, error, message, t=kc.CodebookTable(**GOOD))


def test_a_code_out_of_range_is_named_by_its_place():
    codes = np.array([[[0, 1, 0], [2, 2, 0]], [[0, 0, 1], [0, 1, 2]]], np.int8)
    table = kc.CodebookTable([BOOKS, BOOKS[:, :2]], codes)
    message = r"codes\[1\]\[1\]\[2\] must lie in \[0, 2\), got 2"
    assert np.isfinite(table.rows([0, 1])).all()
    bags = ([[0, 1], [1, 2]],)
    for call in (
        lambda: table.rows([0, 2]),
        lambda: table[2],
        lambda: table[1:],
        lambda: table.bag(*bags),
        lambda: table.to_dense(),
        lambda: table.logits(np.ones(16)),
        lambda: table.expand(),
    ):
        refused(call, IndexError, message)
    codes[1, 1, 2] = -1
    refused(lambda: table.rows([2]), IndexError, r"codes\[1\]\[1\]\[2\] must lie in \[0, 2\), got -1")
    one = kc.CodebookTable([BOOKS], np.array([[[0, 3], [2, 0]]], np.uint64))
    refused(lambda: one.logits(np.ones(4)), IndexError, r"codes\[0\]\[0\]\[1\] must lie in \[0, 3\), got 3")


def test_codes_are_never_widened_as_a_whole():
    words, rank = 2_000_000, 8
    stored = np.zeros((words, 1, rank), np.uint8)
    table = kc.CodebookTable([RNG.standard_normal((rank, 4, 4))], np.moveaxis(stored, 0, 2))
    ids, x = np.arange(64), np.ones((1, 4))
    for call, most in ((lambda: table.rows(ids), 1 << 18), (lambda: table.topk(x, 2), stored.nbytes)):
        call()
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most


def test_files_map_codes_word_by_word(tmp_path):
    path = tmp_path / "codes"
    codes = RNG.integers(0, 3, (1, 2, 50)).astype(np.uint8)
    table = kc.CodebookTable([BOOKS], codes, np.ones(50, np.float16), DECODER)
    kc.save(path, table)
    assert path.stat().st_size - table.nbytes < 1000
    found = kc.load(path, mmap_mode="r")
    assert (found.codes.dtype, found.codes.strides[2], found.codes.flags.writeable) == (np.uint8, 2, False)
    assert np.array_equal(found.rows([3, 49]), table.rows([3, 49]))
    torch = pytest.importorskip("torch")
    beside = kc.load(path, like=torch.zeros(1))
    assert isinstance(beside.codes, np.ndarray)
    for ids in (np.array([3, 49]), torch.tensor([3, 49])):
        assert np.array_equal(beside.rows(ids).numpy(), table.rows([3, 49]))


@pytest.mark.parametrize("packed", [False, True])
def test_many_words_of_a_file_are_read_by_threads(tmp_path, monkeypatch, packed):
    codes = RNG.integers(0, 3, (1, 2, 500)).astype(np.uint8)
    table = kc.CodebookTable([BOOKS], kc.PackedCodes.pack(codes) if packed else codes)
    kc.save(tmp_path / "table", table)
    found, started = kc.load(tmp_path / "table", mmap_mode="r"), []
    monkeypatch.setattr(codebook_lookups, "_LEAST_READ", 3)

    def watched():
        started.append(True)
        return threads.readers()

    monkeypatch.setattr(codebook_lookups, "readers", watched)
    ids = RNG.integers(0, 500, (2, 50))
    # Of what is in memory one thread reads all; of a disk threads read all but the first piece.
    for wait, count in ((60.0, 0), (-1.0, 1)):
        monkeypatch.setattr(codebook_lookups, "_WAIT", wait)
        assert np.array_equal(found.rows(ids), table.rows(ids))
        assert len(started) == count

    def ended():
        raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(codebook_lookups, "readers", ended)
    assert np.array_equal(found.rows(ids), table.rows(ids))


def test_a_hundred_million_words_that_are_mapped(tmp_path):
    """A sparse file of 1.6 GB: rows take the pages of their words alone."""
    path, words, rank = tmp_path / "codes", 10**8, 16
    with open(path, "wb") as file:
        file.truncate(words * rank)
    stored = np.memmap(path, np.uint8, "r", shape=(words, 1, rank))
    table = kc.CodebookTable([np.ones((rank, 256, 8), np.float32)], np.moveaxis(stored, 0, 2))
    assert (table.shape, table.nbytes) == ((words, 8), words * rank + rank * 256 * 32)
    ids = RNG.integers(0, words, 1000)
    tracemalloc.start()
    assert (table.rows(ids) == rank).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 18
    with pytest.raises(MemoryError, match="key must give at most"):
        table[:]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", [1, 2])
def test_no_terms_are_rows_of_zeros(order, packed, tmp_path):
    """As of a Kronecker matrix and of a ket of rank 0, in all methods, quantized, packed and in files."""
    books, codes = [np.ones((0, 3, 2))] * order, np.ones((order, 0, 5), np.uint8)
    codes = kc.PackedCodes.pack(codes) if packed else codes
    table = kc.CodebookTable(books, codes, np.ones(5), np.ones((2**order, 4)))
    kc.save(tmp_path / "table.safetensors", table)
    for each in (table, kc.quantize(table, 2), kc.load(tmp_path / "table.safetensors"), table.expand()):
        assert (each.shape, each.nbytes >= 0) == ((5, 4), True)
        for found, shape in (
            (each.rows([4, 1]), (2, 4)),
            (each[1:, 2], (4,)),
            (each[[1, 2], [0, 3]], (2,)),
            (each.to_dense(), (5, 4)),
            (each.bag([[0, 1]]), (1, 4)),
            (each.logits(np.ones(4)), (5,)),
            (each.topk(np.ones(4), 3)[0], (3,)),
        ):
            assert found.shape == shape
            assert not found.any()
