"""Compiled kernels at the ends of what sizes and sums may be."""

import mmap
import os

import numpy as np
import pytest

import ketcore as kc
from ketcore.arrays import threads
from ketcore.lookups import gather, on_native
from ketcore.native import loader

pytestmark = pytest.mark.skipif(loader.found()[0] is None, reason=loader.found()[1])


@pytest.mark.parametrize("length", [2, 3, 10, 16, 255, 1 << 16])
@pytest.mark.parametrize("order", [5, 8, 17, 32])
def test_lengths_whose_product_is_beyond_64_bits(length, order):
    """As a product of 64 bits it may be anything: 0, negative, or small enough for tables of halves."""
    random = np.random.default_rng(0)
    widths = [4 if mode in (0, order - 1) else 1 for mode in range(order)]
    factors = [1 + random.random((2, min(length, 16), width)) for width in widths]
    # Long tables repeat one row, and take no memory.
    factors = [np.broadcast_to(f[:, :1], (2, length, f.shape[2])) if length > 16 else f for f in factors]
    ids = random.integers(0, min(length**order, 1 << 63), 40)
    cotangent = random.random((40, 16))
    found = kc.rows(factors, ids), *(() if length > 16 else kc.rows_vjp(factors, ids, cotangent))
    with gather.only("arrays"):
        expected = kc.rows(factors, ids), *(() if length > 16 else kc.rows_vjp(factors, ids, cotangent))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("rank", [1 << 50, 1 << 55, 1 << 58, 1 << 59])
@pytest.mark.parametrize("columns", [1, 2])
def test_terms_that_no_memory_holds(rank, columns):
    table = np.broadcast_to(np.float32(1), (rank, 1, columns))
    with pytest.raises(MemoryError):
        kc.rows([table, table[:, :, :1]], [0])


@pytest.mark.parametrize(
    "sizes", [[(8, 8)], [(2, 2)] * 3, [(2, 3), (2, 17)], [(9, 2), (1, 300)], [(3, 5), (40, 2)]]
)
@pytest.mark.parametrize("batch", [300, 10000])
def test_gradients_of_factors_are_sums_that_keep_their_digits(sizes, batch):
    """Of terms of one sign, whose errors do not make up for each other."""
    factors = [np.full((1, *pair), 0.1, np.float32) for pair in sizes]
    rows, columns = np.prod(sizes, axis=0)
    x, cotangent = (np.full((batch, size), 0.1, np.float32) for size in (rows, columns))
    found, _ = kc.kron_matmul_vjp(factors, x, cotangent)
    wide = [[f.astype(np.float64) for f in factors], x.astype(np.float64), cotangent.astype(np.float64)]
    expected, _ = kc.kron_matmul_vjp(*wide)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("rank", [256, 257, 700, 5000])
@pytest.mark.parametrize("dims", [(1, 1), (3, 9), (5, 2, 4), (2, 33)])
def test_rows_of_many_terms_keep_their_digits(rank, dims):
    factors = [0.5 + np.random.default_rng(0).random((rank, 4, dim)).astype(np.float32) for dim in dims]
    shape = (4 ** len(dims), max(1, np.prod(dims) - 1))
    leaves = np.concatenate(factors, axis=2).transpose(1, 0, 2)
    found = kc.rows(factors, [0, 3, 1], shape), kc.ket_rows(leaves, [0, 3], dims=dims)
    with gather.only("arrays"):
        wide = [factor.astype(np.float64) for factor in factors]
        expected = kc.rows(wide, [0, 3, 1], shape), kc.ket_rows(leaves.astype(np.float64), [0, 3], dims=dims)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6)


@pytest.mark.parametrize("dims", [(2, 100_000), (100_000, 2)])
def test_moments_of_wide_leaves_keep_their_digits(dims):
    leaves = 1 + np.random.default_rng(0).random((3, 1, sum(dims))).astype(np.float32)
    options = {"dims": dims, "layernorm": True}
    found = kc.ket_rows(leaves, [0, 1, 2], **options)
    expected = kc.ket_rows(leaves.astype(np.float64), [0, 1, 2], **options)
    assert np.abs(found - expected).max() < 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("batch", [40, 5000])
@pytest.mark.parametrize("into", ["tables", "index"])
def test_rows_into_memory_that_they_are_read_from(batch, into):
    memory = np.random.default_rng(0).random(batch * 16)
    ids = np.arange(batch) % 9
    factors = [np.arange(24.0).reshape(2, 3, 4), np.ones((2, 3, 4))]
    expected = kc.rows(factors, ids)
    if into == "index":
        ids = memory.view(np.int64)[:batch]
        ids[:] = np.arange(batch) % 9
    else:
        own = memory[:24].reshape(2, 3, 4)
        own[:] = factors[0]
        factors[0] = own
    np.testing.assert_array_equal(kc.rows(factors, ids, out=memory.reshape(batch, 16)), expected)


def test_a_row_does_not_depend_on_those_beside_it(monkeypatch):
    """Threads cut rows into other blocks, of which some need another scale; this row would lose by it."""
    monkeypatch.setattr(on_native, "_CHUNK_BYTES", 1 << 14)
    leaves = np.ones((4000, 1, 6), np.float32)
    leaves[:, 0, :2] = 2.0**80, 2.0**-110
    leaves[::37, 0] = 2.0**100, 1, 2.0**60, 1, 2.0**-60, 1
    cotangent = np.zeros((4000, 8), np.float32)
    cotangent[:, 4:] = 1

    def results(start, stop, sparse):
        ids = np.arange(start, stop)
        gradients = kc.ket_rows_vjp(leaves, ids, cotangent[start:stop], (2, 2, 2), sparse=sparse)
        return kc.ket_rows(leaves, ids, (2, 2, 2)), gradients[1] if sparse else gradients

    with gather.only("native"):
        rows, gradients = results(0, 4000, False)
        assert rows[1, 4] == 2.0**-110
        assert gradients[1, 0, 2] == 2.0**-109
        for count in (1, 2, 3, 5):
            monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
            for start, stop in ((0, 4000), (20, 100), (999, 1061)):
                for found, whole in zip(results(start, stop, True), (rows, gradients), strict=True):
                    np.testing.assert_array_equal(found, whole[start:stop])
            np.testing.assert_array_equal(results(0, 4000, False)[1], gradients)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("check", [True, False])
def test_ids_are_read_in_the_dtype_that_they_have(dtype, check, monkeypatch):
    given, capsules = [], loader.capsules
    monkeypatch.setattr(loader, "capsules", lambda arrays: given.extend(arrays) or capsules(arrays))
    tables, leaves = [np.arange(24.0).reshape(2, 3, 4)] * 2, np.arange(96.0).reshape(8, 2, 6)
    ids, cotangent = np.array([7, 0, 2, 7, 1], dtype), np.ones((5, 16))
    index = np.array([[2, 0, 1, 1, 2], [0, 0, 2, 1, 2]], dtype)
    calls = [
        (kc.rows, kc.rows_vjp, tables, ids, {}, cotangent),
        (kc.ket_rows, kc.ket_rows_vjp, leaves, ids, {"dims": (4, 2)}, cotangent[:, :8]),
        (kc.gather_kron, kc.gather_kron_vjp, tables, index, {}, cotangent),
    ]
    for forward, backward, own, places, options, cotangents in calls:
        for function, more in ((forward, ()), (backward, (cotangents,))):
            given.clear()
            with gather.only("native"):
                found = function(own, places, *more, **options, check=check)
                expected = function(own, places.astype(np.int64), *more, **options, check=check)
            np.testing.assert_array_equal(found, expected)
            # Of 64 bits without a sign some are no int64.
            as_is = any(np.shares_memory(places, each) for each in given)
            assert as_is == (dtype != "uint64"), function.__name__


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint8", "uint16", "uint32", "uint64"])
@pytest.mark.parametrize("engine", ["native", "numpy", "arrays"])
def test_ids_out_of_range_are_the_same_in_every_dtype(dtype, engine):
    tables, last = [np.arange(12.0).reshape(1, 3, 4)] * 2, np.iinfo(dtype).max
    ids = np.array([8, last, last - 1, last // 2 + 1, 9, 0], dtype)
    with gather.only(engine):
        with pytest.raises(IndexError, match=rf"ids must lie in \[0, 9\), got {last}"):
            kc.rows(tables, ids)
        with pytest.raises(IndexError, match=r"index\[1\] must lie in \[0, 3\), got 8"):
            kc.gather_kron(tables, np.stack([ids % 3, ids]))
        rows = kc.rows(tables, ids, check=False)
        (gradient, _) = kc.rows_vjp(tables, ids, np.ones((6, 16)), check=False)
        (right, _) = kc.rows_vjp(tables, [8, 0], np.ones((2, 16)))
    np.testing.assert_array_equal(np.isnan(rows).any(axis=1), [False, True, True, True, True, False])
    np.testing.assert_array_equal(gradient, right)


def test_more_bytes_than_32_bits_count():
    """Forward, and back: no position in rows or cotangents is cut to 32 bits."""
    pages = os.sysconf("SC_AVPHYS_PAGES") if hasattr(os, "sysconf") else 0
    if pages * mmap.PAGESIZE < 1 << 32:
        pytest.skip("there are less than 4 GiB of free memory")
    tables = [
        1 + np.arange(2.0 * width, dtype=np.float32).reshape(1, 2, width) / width for width in (256, 128)
    ]
    ids = np.zeros((1 << 14) + 3, np.int16)
    ids[-3:] = 1, -1, 3
    with gather.only("native"):
        found = kc.rows(tables, ids, check=False)
        assert found.nbytes > 1 << 31
        few = kc.rows(tables, ids[-4:], check=False)
        np.testing.assert_array_equal(found[-4:], few)
        np.testing.assert_array_equal(found[: -3 : 1 << 12], few[:1].repeat(4, axis=0))
        # Cotangents of all rows but the last are zero.
        found[:-1] = 0
        gradients = kc.rows_vjp(tables, ids, found, check=False)
        for one, other in zip(gradients, kc.rows_vjp(tables, [3], found[-1:]), strict=True):
            np.testing.assert_array_equal(one, other)
