"""What makes calls on few rows of NumPy arrays short says the same as what it stands for."""

from itertools import pairwise

import numpy as np
import pytest

import ketcore as kc
from ketcore.arrays import checks, conversions, sums
from ketcore.arrays.elementary import mean_along, sum_along
from ketcore.lookups import gather, leaves, on_numpy, segments
from ketcore.lookups.digits import split_digits
from ketcore.lookups.lookup import make_lookup, matrix_form
from ketcore.products import direct
from ketcore.shapes import offsets

DTYPES = ("float16", "float32", "float64", "complex64", "complex128")


def normal(*shape, dtype="float64", seed=0):
    rng = np.random.default_rng([seed, *shape])
    found = rng.standard_normal(shape)
    return (found + 1j * rng.standard_normal(shape) if dtype.startswith("c") else found).astype(dtype)


@pytest.mark.parametrize("second", [*DTYPES, ">f4", "longdouble", "int64", "bool"])
@pytest.mark.parametrize("first", DTYPES)
def test_the_dtype_of_plain_arrays_is_that_of_all_checks(first, second):
    arrays = [np.ones(2, first), np.ones(2, second)]
    found = conversions.plain_type(arrays)
    if second not in DTYPES:
        assert found is None
        return
    assert found == (np, conversions.promoted("x", conversions.as_floating("x", arrays)))


@pytest.mark.parametrize(
    "other",
    [[1.0], 1.0, np.float32(1), np.ma.ones(2), np.ones(2).view(np.recarray), None],
)
def test_what_is_no_plain_array_is_left_to_the_checks(other):
    assert conversions.plain_type([np.ones(2), other]) is conversions.plain_type([other]) is None


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64", ">i8"])
@pytest.mark.parametrize("bound", [1, 7, 100, 2**40, 2**63, 2**70])
def test_an_index_is_within_where_all_checks_say_so(dtype, bound):
    values = [0, 1, 5, 6, 99, 100]
    for low, high in ((0, 1), (0, 4), (2, 5), (3, 6)):
        index = np.array(values[low:high], dtype)
        inside = all(0 <= value < bound for value in index.tolist())
        assert checks.is_within(index, bound, None) in (inside, False)
        if inside:
            found, known = checks.check_index("ids", index, bound, None)
            assert (known, found.tolist()) == (True, index.tolist())
        else:
            with pytest.raises(IndexError, match=r"ids must lie in \[0, "):
                checks.check_index("ids", index, bound, None)


def test_an_index_is_within_by_its_values_whatever_its_layout():
    index = np.arange(12).reshape(3, 4)
    for view in (index.T, index[::-1, ::2], index[1:2, 1:2], index[0, 0:1].reshape(())):
        assert checks.is_within(view, 12, True)
        assert not checks.is_within(view - 12, 12, True)
        assert not checks.is_within(view, int(view.max()), True)
    assert not checks.is_within(index, 12, False)
    assert not checks.is_within(index, 12, 1)
    assert not checks.is_within(index[:0], 12, None)
    assert not checks.is_within(index.tolist(), 12, None)


def test_what_is_kept_for_one_crop_is_not_found_for_what_equals_it():
    shapes = ((1, 2, 2), (1, 3, 2))
    dtype = np.dtype("float32")
    found, widths = matrix_form(np.ndarray, shapes, (dtype,) * 2, dtype, (1, 2))
    assert (found.bound, found.columns, widths) == (1, 2, (1, 2))
    assert matrix_form(np.ndarray, shapes, (dtype,) * 2, dtype, [np.int64(1), 2]) == (found, widths)
    for wrong in ((1.0, 2.0), (True, 2), (1, 2, 1), "12"):
        with pytest.raises(ValueError, match="shape must be two ints"):
            matrix_form(np.ndarray, shapes, (dtype,) * 2, dtype, wrong)
        with pytest.raises(ValueError, match="shape must be two ints"):
            kc.kron_matmul([np.ones(shape) for shape in shapes], np.ones(1), wrong)


@pytest.mark.parametrize(
    "radices", [(5,), (2, 3), (3, 1, 4), (2,) * 40, (2**31, 2**31), (2**40, 2**40), (1,) * 66]
)
def test_digits_are_the_same_by_either_way(radices):
    whole = int(np.prod(radices, dtype=object))
    index = np.random.default_rng(0).integers(0, min(whole, 2**31), 50)
    for narrow, wide in zip(
        split_digits(index.astype(np.uint64), radices), split_digits(index, radices), strict=True
    ):
        np.testing.assert_array_equal(narrow, wide)


@pytest.mark.parametrize("values", [[], [3], [3, 3], [5, 1, 5, 2, 1, 9]])
def test_distinct_integers_are_those_of_numpy(values):
    index = np.array(values, np.int64)
    for found, wanted in zip(
        sums.unique_inverse(np, index), np.unique(index, return_inverse=True), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
@pytest.mark.parametrize("kind", ["digits", "modes", "terms"])
def test_one_sum_for_all_tables_is_one_for_each(kind, dtype):
    rank, lengths, widths, batch = 3, (2, 5, 3), (4, 1, 2), 9
    tables = tuple(normal(rank, t, q, dtype=dtype) for t, q in zip(lengths, widths, strict=True))
    rng = np.random.default_rng(1)
    index = rng.integers(0, 30, batch)
    if kind != "digits":
        lead = (rank, batch) if kind == "terms" else (batch,)
        index = np.stack([rng.integers(0, length, lead) for length in lengths])
    lookup = make_lookup(tables, index, kind, 30, True, 8, False, 0.0, 1, np.dtype(dtype))
    records = normal(batch, rank, sum(widths), dtype=dtype, seed=2)
    ends = offsets(widths)
    parts = [records[:, :, start:stop] for start, stop in pairwise(ends)]
    # The library sums float32 in another order.
    with gather.only("numpy"):
        found, wanted = segments.scatter_records(lookup, records), segments.scatter(np, lookup, parts)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_leaves_are_the_same_of_short_and_of_long_tables():
    for length, batch in ((3, 100), (100, 3)):
        table = normal(2, length, 5)
        for each in (table, table[:, :, ::2], np.asfortranarray(table)):
            index = np.random.default_rng(0).integers(0, length, batch)
            found = leaves._of_rows(np, each, index)
            np.testing.assert_array_equal(found, each[:, index].transpose(2, 1, 0))
            assert found.flags.c_contiguous


@pytest.mark.parametrize("batch", [1, 16, 400])
def test_an_outer_product_is_the_same_for_few_and_many_lines(batch):
    left, right = normal(batch, 6, 1, dtype="float32"), normal(batch, 1, 7, dtype="float32")
    out = np.full((batch, 6, 7), np.nan, "float32")
    on_numpy._multiply(left, right, out)
    np.testing.assert_array_equal(out, left * right)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_and_means_are_those_of_numpy(dtype):
    array = normal(7, 5, 3, dtype=dtype)
    for axis in (0, 1, -1):
        np.testing.assert_array_equal(sum_along(np, array, axis), np.sum(array, axis=axis))
        np.testing.assert_array_equal(mean_along(np, array, axis), np.mean(array, axis=axis))


SHAPES = (
    [(3, 2)],
    [(2, 2)] * 6,
    [(4, 4)] * 4,
    [(16, 16)] * 2,
    [(2, 7), (5, 3), (1, 4)],
    [(64, 1), (2, 64)],
)


@pytest.mark.parametrize("axis", [-1, -2])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_a_direct_product_is_the_planned_one(shapes, dtype, axis, monkeypatch):
    factors = [normal(1, *shape, dtype=dtype, seed=n) for n, shape in enumerate(shapes)]
    rows = int(np.prod([p for p, _ in shapes]))
    for lead, trail in (((), 1), ((1,), 1), ((2, 3), 5), ((40,), 2)):
        x = normal(*lead, rows, trail, dtype=dtype)
        x = x[..., 0] if axis == -1 else x
        found = direct.small_product(factors, x, None, axis)
        assert found is not None
        with monkeypatch.context() as patch:
            patch.setattr(direct, "small_product", lambda *_: None)
            wanted = kc.kron_matmul(factors, x, axis=axis)
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        np.testing.assert_array_equal(found, wanted)
        assert not any(np.shares_memory(found, array) for array in (x, *factors))


def test_a_direct_product_is_only_of_what_needs_no_other_check():
    a, x = normal(1, 2, 2), normal(4)
    assert direct.small_product((a, a), x, None, -1) is not None
    assert direct.small_product((a, a), x, (4, 4), -1) is not None
    wide, huge = a.astype("float32"), a * 1e100
    for factors, other, shape, axis in (
        ((a, wide), x, None, -1),
        ((a, a), x.astype("float32"), None, -1),
        ((a, huge), x, None, -1),
        ((a, a), x, (4, 3), -1),
        ((a, a), x[:0], (0, 4), -1),
        ((a, a), x, [4, 4], -1),
        ((a, a), x, None, 0),
        ((a, a), x, None, -1.0),
        ((a, a), x[:3], None, -1),
        ((a, a[0]), x, None, -1),
        ((np.concatenate([a, a]),) * 2, x, None, -1),
        ((), x, None, -1),
        ((a.tolist(), a), x, None, -1),
        ((a, a), x.tolist(), None, -1),
    ):
        assert direct.small_product(factors, other, shape, axis) is None
