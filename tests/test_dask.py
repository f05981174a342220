"""Objects under Dask: equal ones have equal tokens, and tables and products are made block by block."""

from importlib.util import find_spec
from itertools import combinations

import numpy as np
import pytest
import scipy.sparse

import ketcore as kc
from tests.page_code import defined
from tests.require import imported, require

dask = imported("dask")
da = imported("dask.array")

from dask.base import tokenize  # noqa: E402

RNG = np.random.default_rng(5)


def objects(dtype="float64"):
    """Objects of every kind, no two alike; the same ones each time."""
    rng = np.random.default_rng(0)
    square, other = (rng.standard_normal((2, 3, 3)).astype(dtype) for _ in range(2))
    codes = rng.integers(0, 4, (1, 2, 5)).astype("uint8")
    books = [rng.standard_normal((2, 4, 3)).astype(dtype)]
    matrix = kc.KroneckerMatrix([square, other])
    return {
        "ket": kc.Ket([square[0], other[0]]),
        "ket of other dims": kc.Ket.from_packed(np.concatenate([square[0], other[0]], axis=-1), (2, 4)),
        "matrix": matrix,
        "cropped": kc.KroneckerMatrix([square, other], (8, 9)),
        "transposed": matrix.T,
        "negative": -matrix,
        "embedded": kc.embed(square[0], (3, 3), 0),
        "embedded elsewhere": kc.embed(square[0], (3, 3), 1),
        "sum": kc.KroneckerSum([square[0], other[0]]),
        "sum transposed": kc.KroneckerSum([square[0].T, other[0]]),
        "product": kc.KroneckerProduct([square[0], other[0]]),
        "sparse": kc.KroneckerProduct([scipy.sparse.csr_array(np.eye(3)), other[0]]),
        "sparse and wider": kc.KroneckerProduct([scipy.sparse.csr_array(np.eye(3, 4)), other[0]]),
        "one part": kc.KroneckerProduct([square.reshape(2, 9)]),
        "one part of another shape": kc.KroneckerProduct([square.reshape(9, 2)]),
        "parts": kc.KroneckerProduct([kc.Identity(3), kc.Diagonal(other[0, 0])]),
        "permutation": kc.Permutation((3, 3), (1, 0)),
        "diagonal": kc.Diagonal(square[0, 0]),
        "diagonal of a class of one's own": type("Own", (kc.Diagonal,), {})(square[0, 0]),
        "identity": kc.Identity(3),
        "codes": kc.CodebookTable(books, codes),
        "signed codes": kc.CodebookTable(books, codes.astype("int8")),
        "codes with scale": kc.CodebookTable(books, codes, square[0, 0, [0, 1, 2, 0, 1]]),
        "packed": kc.CodebookTable(books, kc.PackedCodes.pack(codes)),
        "packed alone": kc.PackedCodes.pack(codes),
        "quantized": kc.quantize(matrix),
        "quantized array": kc.quantize(square),
        "quantized to 4 bits": kc.quantize(square, bits=4),
    }


def test_equal_objects_have_equal_tokens_and_no_others():
    tokens = {name: tokenize(each, ensure_deterministic=True) for name, each in objects().items()}
    again = {name: tokenize(each, ensure_deterministic=True) for name, each in objects().items()}
    assert tokens == again
    same = [pair for pair in combinations(tokens, 2) if tokens[pair[0]] == tokens[pair[1]]]
    assert not same
    for name, each in objects("float32").items():
        without = {"permutation", "identity", "packed alone"}
        without |= {"quantized", "quantized array", "quantized to 4 bits"}
        assert (tokenize(each) == tokens[name]) is (name in without), name


def test_a_token_is_of_values_and_not_of_strides():
    values = RNG.standard_normal((3, 4, 4))
    spread = np.empty((6, 4, 8), order="F")[::-2, :, ::2]
    spread[...] = values
    assert tokenize(kc.KroneckerMatrix([values])) == tokenize(kc.KroneckerMatrix([spread]))
    codes = RNG.integers(0, 4, (1, 2, 5)).astype("int16")
    books = [RNG.standard_normal((2, 4, 3))]
    tokens = {tokenize(kc.CodebookTable(books, each)) for each in (codes, codes.astype(">i2"))}
    assert len(tokens) == 1
    # Dask's own of these is one.
    assert tokenize(kc.KroneckerMatrix([values])) != tokenize(kc.KroneckerMatrix([values.mT]))


def test_blocks_of_large_arrays_are_all_seen(monkeypatch):
    values = RNG.standard_normal((40, 1, 2))
    monkeypatch.setattr("ketcore.arrays.tokens._BLOCK_NUMBERS", 6)
    tokens = set()
    for word in (None, 0, 2, 3, 39):
        changed = values.copy()
        if word is not None:
            changed[word, 0, 1] += 1
        tokens.add(tokenize(kc.Ket.from_packed(changed, (1, 1))))
    assert len(tokens) == 5
    assert tokenize(kc.Ket.from_packed(values[:0], (1, 1))) not in tokens


def test_libraries_have_tokens_of_their_own():
    require("torch", find_spec("torch") is not None, "torch is not installed")
    import torch

    for dtype in (torch.float64, torch.bfloat16, torch.complex64):
        tensor = torch.arange(6).to(dtype).reshape(1, 2, 3)
        token = tokenize(kc.KroneckerMatrix([tensor.clone().requires_grad_()]))
        assert token == tokenize(kc.KroneckerMatrix([tensor]))
        assert token != tokenize(kc.KroneckerMatrix([tensor + 1]))
    assert tokenize(kc.KroneckerMatrix([np.ones((2, 3))])) != tokenize(
        kc.KroneckerMatrix([torch.ones(2, 3).double()])
    )


@pytest.fixture(scope="module")
def page():
    """The functions of the page on many machines; it also imports what it says of PyTorch."""
    require("torch", find_spec("torch") is not None, "torch is not installed")
    return defined("how-to/many_machines.md")


@pytest.fixture
def tables(tmp_path):
    """Files of tables of 50 words, with their rows."""
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 4, (1, 3, 50)).astype("uint8")
    books = [rng.standard_normal((3, 4, 6)).astype("float32")]
    ket = kc.Ket.from_packed(rng.standard_normal((50, 2, 5)), (2, 3))
    found = {"ket": (ket, ket.to_dense())}
    for name, each in {
        "codes": kc.CodebookTable(books, codes, rng.standard_normal(50).astype("float32")),
        "packed": kc.CodebookTable(books, kc.PackedCodes.pack(codes)),
        "matrix": kc.KroneckerMatrix.random((50, 6), 2, rng=0),
    }.items():
        found[name] = each, each.to_dense()
    for name, (each, _) in found.items():
        kc.save(tmp_path / name, each)
    return {tmp_path / name: dense for name, (_, dense) in found.items()}


def test_rows_of_mapped_tables(page, tables):
    ids = RNG.integers(0, 50, (7, 9))
    for chunks in ((7, 9), (3, 4), (7, 0 + 1)):
        for path, dense in tables.items():
            rows = page["dask_rows"](path, da.from_array(ids, chunks=chunks))
            assert rows.dtype == dense.dtype
            assert rows.chunks[-1] == (6,)
            np.testing.assert_allclose(rows.compute(scheduler="sync"), dense[ids], rtol=1e-5, atol=1e-6)
    with pytest.raises(TypeError, match="ids must have an integer dtype, got float64"):
        page["dask_rows"](path, da.ones(3))
    with pytest.raises(IndexError, match=r"ids must lie in \[0, 50\), got 50"):
        page["dask_rows"](path, da.arange(51, chunks=10)).compute(scheduler="threads")


def test_products_of_blocks_of_columns(page):
    for operator in (
        kc.KroneckerMatrix.random((12, 10), 2, rng=0),
        kc.KroneckerSum([RNG.standard_normal((2, 2)), RNG.standard_normal((5, 5))]),
        kc.KroneckerProduct([kc.Identity(2), RNG.standard_normal((3, 5))]),
    ):
        x = RNG.standard_normal((10, 9)).astype("float32")
        product = page["dask_product"](operator, da.from_array(x, chunks=(10, 4)))
        found = product.compute(scheduler="threads")
        np.testing.assert_allclose(found, operator @ x, rtol=1e-12)
        assert product.shape == found.shape
        assert product.dtype == found.dtype
        for dtype in ("int64", "complex64"):
            product = page["dask_product"](operator.astype("float32"), da.ones((10, 1), dtype=dtype))
            assert product.dtype == product.compute(scheduler="sync").dtype
    for wrong, text in {
        (9, 10): r"x must have shape \(10, columns\), got \(9, 10\)",
        (10,): r"x must have shape \(10, columns\), got \(10,\)",
    }.items():
        with pytest.raises(ValueError, match=text):
            page["dask_product"](operator, da.ones(wrong))
    with pytest.raises(ValueError, match=r"x must have one chunk of rows, .* got \(4, 4, 2\)"):
        page["dask_product"](operator, da.ones((10, 9), chunks=4))


def test_two_processes_have_the_objects_and_the_files(page, tables):
    path, dense = next(iter(tables.items()))
    operator = kc.KroneckerMatrix.random((12, 50), 2, rng=0)
    rows = page["dask_rows"](path, da.arange(50, chunks=25))
    product = page["dask_product"](operator, rows.rechunk((50, 3)))
    found = product.compute(scheduler="processes", num_workers=2)
    np.testing.assert_allclose(found, operator @ dense, rtol=1e-10)
