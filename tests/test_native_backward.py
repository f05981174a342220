"""Gradients by the compiled engine: right, accurate at any length, and alike on any number of threads."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore.arrays import sums, threads
from ketcore.arrays.namespaces import quiet
from ketcore.lookups import gather, on_arrays, on_native
from tests.kernel_problems import close, cotangent_of, flat, lookups, make, reference, scattered, sum_dtype

pytestmark = pytest.mark.skipif(bool(on_native.missing()), reason=on_native.missing())

# How a pull is cut into parts: as usual, into some, and, with room for none, into records.
CUTS = ({}, {"_PART_NUMBERS": 1, "_PART_SHARE": 0}, {"_PART_NUMBERS": 1, "_PART_SHARE": 1 << 40})
cuts = st.sampled_from(CUTS)


def pulled(lookup, cotangent, cut):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in cut.items():
            patch.setattr(on_native, name, value)
        return on_native.pull(lookup, cotangent, True)


def by_arrays(function):
    """What array code gives."""
    with gather.only("arrays"):
        return function()


def same(found, expected, rtol):
    """Equal up to rounding of the largest number of each array, NaN where that is."""
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        one, other = one.astype(np.float64), other.astype(np.float64)
        size = np.nanmax(np.abs(other), initial=0.0, where=np.isfinite(other))
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * size)


@given(lookup=lookups())
def test_records_are_their_definition(lookup):
    """Bad indices, crops, strides, LayerNorm, every kind and dtype among them."""
    cotangent = cotangent_of(lookup)
    found = on_native.records(lookup, cotangent)
    assert found.dtype == sum_dtype(lookup)
    close(found, lookup, lambda own: reference(own)[1](cotangent.astype(np.float64)), found.dtype)


@given(lookup=lookups(), cut=cuts)
def test_gradients_are_their_definition(lookup, cut):
    cotangent = cotangent_of(lookup)
    found = pulled(lookup, cotangent, cut)
    assert [(g.shape, g.dtype) for g in found] == [(t.shape, sum_dtype(lookup)) for t in lookup.tables]
    wide = cotangent.astype(np.float64)
    close(flat(found), lookup, lambda own: flat(scattered(own, reference(own)[1](wide))), found[0].dtype)


@given(
    widths=st.lists(st.integers(1, 90), min_size=2, max_size=2),
    rank=st.integers(1, 12),
    batch=st.sampled_from((1, 7, 40)),
    dtype=st.sampled_from(("float32", "float64")),
    cropped=st.integers(0, 100),
)
def test_rows_of_any_width_and_rank(widths, rank, batch, dtype, cropped):
    """Several blocks of a cotangent, and tiles of every size."""
    columns = max(1, prod(widths) - cropped)
    lookup = make((5, 6), widths, batch, rank=rank, dtype=dtype, columns=columns)
    cotangent = cotangent_of(lookup)
    same(
        on_native.pull(lookup, cotangent, True),
        on_arrays.pull(lookup, cotangent, True),
        rtol=1e-13 if dtype == "float64" else 2e-5,
    )


def strided(array):
    """The same numbers, backwards in memory and read-only."""
    found = array[::-1, ::-1].copy()[::-1, ::-1]
    found.flags.writeable = False
    return found


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("batch", [0, 1, 32, 3000])
def test_public_functions_give_what_array_code_gives(batch, dtype):
    rng = np.random.default_rng(batch)

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    tables, leaves = tuple(np.asfortranarray(normal(3, 7, 5)) for _ in range(3)), normal(50, 2, 10)
    ids, words = rng.integers(-1, 343, batch), rng.integers(-1, 50, batch)
    index, terms = rng.integers(-1, 7, (3, batch)), rng.integers(-1, 7, (3, 3, batch))
    rtol = {"float32": 2e-5, "float64": 1e-12, "float16": 2e-3}[dtype]
    for cropped in (0, 7, 100):
        cotangent, options = strided(normal(batch, 125 - cropped)), {"columns": 125 - cropped, "check": False}
        short = strided(normal(batch, max(1, 36 - cropped)))
        ket_options = {"columns": short.shape[1], "check": False}
        for call in (
            lambda c=cotangent: kc.rows_vjp(tables, ids, c, (343, c.shape[1]), check=False),
            lambda c=cotangent, o=options: kc.gather_kron_vjp(tables, index, c, **o),
            lambda c=cotangent, o=options: kc.gather_kron_vjp(tables, terms, c, per_term=True, **o),
            lambda c=short, o=ket_options: [kc.ket_rows_vjp(leaves, words, c, (3, 3, 4), **o)],
            lambda c=short, o=ket_options: [kc.ket_rows_vjp(leaves, words, c, (3, 3, 4), True, **o)],
            lambda c=short, o=ket_options: kc.ket_rows_vjp(leaves, words, c, (3, 3, 4), sparse=True, **o),
        ):
            same(call(), by_arrays(call), rtol)


@quiet
@pytest.mark.parametrize("kind", ["digits", "same", "modes", "terms"])
def test_leaves_of_opposite_scales(kind):
    """No product of some of the leaves, nor its gradient, leaves the range of float32."""
    lookup = make((3, 3, 3), (2, 3, 2), 5, kind=kind)
    for table, scale in zip(lookup.tables, (1e-30, 1e30, 1e-15), strict=True):
        table *= scale
    cotangent = cotangent_of(lookup)
    for cut in CUTS:
        same(pulled(lookup, cotangent, cut), on_arrays.pull(lookup, cotangent, True), 1e-5)


@quiet
@pytest.mark.parametrize("rank", [1, 5])
@pytest.mark.parametrize("layernorm", [False, True])
def test_what_is_not_finite_stays_where_it_belongs(rank, layernorm):
    for columns in (20, 13):
        lookup = make((3, 3), (4, 5), 40, rank=rank, kind="digits", columns=columns, layernorm=layernorm)
        lookup.tables[0][0, 0, 3], lookup.tables[1][rank - 1, 2, 4] = np.inf, np.nan
        cotangent = cotangent_of(lookup)
        cotangent[3, 2], cotangent[5] = np.nan, -np.inf
        for found, expected in (
            (on_native.pull(lookup, cotangent, True), on_arrays.pull(lookup, cotangent, True)),
            ([on_native.records(lookup, cotangent)], [on_arrays.records(lookup, cotangent)]),
        ):
            same(found, expected, 1e-5)


@pytest.mark.parametrize("rows", [5, 400])
@pytest.mark.parametrize("hot", [1.0, 0.9, 0.0])
def test_long_sums_stay_accurate(rows, hot):
    """All rows of one id, most of them, and none: by half tables, and by the tables themselves."""
    rng, batch = np.random.default_rng(0), 1 << 14
    ids = np.where(rng.random(batch) < hot, 3, rng.integers(0, rows**2, batch))
    tables = [rng.random((2, rows, q), dtype=np.float32) + 0.5 for q in (2, 3)]
    cotangent = rng.random((batch, 6), dtype=np.float32) + 0.5
    expected = kc.rows_vjp([t.astype(np.float64) for t in tables], ids, cotangent)
    for found, exact in zip(kc.rows_vjp(tables, ids, cotangent), expected, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-6)


@pytest.mark.parametrize(("batch", "most"), [(100, 1 << 20), (1 << 13, 1 << 20), (1 << 13, 0)])
@pytest.mark.parametrize("hot", [1.0, 0.9, 0.0])
def test_sums_by_id_are_accurate_on_any_number_of_threads(batch, most, hot, monkeypatch):
    """At once, in pieces, and of records; of one id, of few and of ids that need two digits to be sorted."""
    monkeypatch.setattr(on_native, "_SORTED_BYTES", most)
    monkeypatch.setattr(on_native, "_CHUNK_BYTES", 1000)
    rng = np.random.default_rng(0)
    ids = np.where(rng.random(batch) < hot, 3, rng.integers(0, 1000, batch))
    leaves = rng.random((1000, 2, 7), dtype=np.float32) + 0.5
    cotangent = rng.random((batch, 12), dtype=np.float32) + 0.5
    ids[5] = -1
    dense = kc.ket_rows_vjp(leaves.astype(np.float64), ids, cotangent, (3, 4), check=False)
    found = []
    for count in (1, 3):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        found.append(kc.ket_rows_vjp(leaves, ids, cotangent, (3, 4), check=False, sparse=True))
        np.testing.assert_array_equal(found[-1][0], np.unique(ids)[1:])
        np.testing.assert_allclose(found[-1][1], dense[found[-1][0]], rtol=1e-6)
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("rows", "columns"), [(5, 42), (5, 29), (60, 42)])
def test_results_do_not_depend_on_the_number_of_threads(cut, rows, columns, monkeypatch):
    lookup = make((rows, rows), (6, 7), 500, rank=3, columns=columns)
    cotangent = np.random.default_rng(1).standard_normal((500, columns)).astype(np.float32)
    monkeypatch.setattr(on_native, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(sums, "_CHUNK_NUMBERS", 10)
    found = []
    for count in (1, 2, 3, 7):
        monkeypatch.setattr(threads, "thread_count", lambda count=count: count)
        found.append([*pulled(lookup, cotangent, cut), on_native.records(lookup, cotangent)])
        for size in (0, 1 << 60):
            monkeypatch.setattr(on_native, "_stacked_size", lambda _, size=size: size)
            found[-1].append(on_native.push(lookup, lookup.tables))
    for one, other in pairwise(found):
        for first, second in zip(one, other, strict=True):
            np.testing.assert_array_equal(first, second)


@given(
    batch=st.integers(0, 300),
    width=st.integers(0, 20),
    count=st.sampled_from((1, 2, 30, 257, 70_000)),
    dtype=st.sampled_from(("float32", "float64", "complex64")),
    hot=st.booleans(),
)
def test_sums_by_index(batch, width, count, dtype, hot):
    rng = np.random.default_rng(batch)
    values = rng.integers(-8, 9, (2 * batch, width + 1)).astype(dtype)[::2, 1:]
    index = np.zeros(batch, np.int64) if hot else rng.integers(0, count, batch)
    expected = np.zeros((count, width), dtype)
    np.add.at(expected, index, values)
    found = sums.sum_by_index(np, values, index, count)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("counts", [(300, 290), (290, 300)])
def test_half_tables_that_no_near_cache_holds(counts):
    """Their rows are added up record by record."""
    lookup = make(counts, (8, 8), 3000, rank=32, columns=61)
    lookup.index[::7] = -1
    cotangent = cotangent_of(lookup)
    same(on_native.pull(lookup, cotangent, True), on_arrays.pull(lookup, cotangent, True), 1e-5)
