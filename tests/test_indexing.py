"""Keys by NumPy's rules: what a matrix gives for a key is what its dense array gives."""

import tracemalloc
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore.objects import blocks, indexing
from ketcore.objects.indexing import parse_key
from ketcore.objects.ket import Ket
from ketcore.objects.kronecker_matrix import KroneckerMatrix
from ketcore.shapes import prefix_boxes
from ketcore.testing import assert_dense_equal, indices, mode_dims
from tests.generic import kets, kronecker_matrices

SCALE = 1e3  # far above the elements of small normal factors: keys are under test here, not rounding


@st.composite
def slices(draw, size):
    ends = st.none() | st.integers(-size - 2, size + 2)
    return slice(draw(ends), draw(ends), draw(st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3])))


@st.composite
def arrays_of_indices(draw, size):
    """Indices of any integer dtype and shape, negative ones among them."""
    ids = draw(indices(size))
    if ids.dtype.kind == "i" and draw(st.booleans()):
        ids = np.where(ids % 2 == 0, ids, ids - np.asarray(size).astype(ids.dtype)) if size < 128 else ids
    return ids


@st.composite
def entries(draw, size):
    """One entry of a key for an axis of this size."""
    mask = st.lists(st.booleans(), min_size=size, max_size=size)
    return draw(
        st.one_of(
            st.integers(-size, size - 1),
            st.integers(-size, size - 1).map(np.int64),
            slices(size),
            arrays_of_indices(size),
            st.lists(st.integers(-size, size - 1), max_size=4),
            mask,
            mask.map(np.array),
        )
    )


def numpy_or_error(array, key):
    try:
        return array[key]
    except (IndexError, ValueError) as error:
        return error


def as_numpy_key(entry):
    """An empty list means no index, not an array of floats."""
    return np.zeros(0, int) if isinstance(entry, list) and not entry else entry


@given(kronecker_matrices(), st.data())
def test_keys_of_one_entry(m, data):
    key = data.draw(entries(m.shape[0]))
    assert_dense_equal(m[key], m.to_dense()[as_numpy_key(key)], scale=SCALE, dtype=m.dtype)


@given(kronecker_matrices(), st.data())
def test_keys_of_two_entries(m, data):
    key = (data.draw(entries(m.shape[0])), data.draw(entries(m.shape[1])))
    expected = numpy_or_error(m.to_dense(), tuple(map(as_numpy_key, key)))
    if isinstance(expected, Exception):  # index arrays that do not broadcast
        with pytest.raises((IndexError, ValueError)):
            m[key]
    else:
        assert_dense_equal(m[key], expected, scale=SCALE, dtype=m.dtype)


@given(kronecker_matrices())
def test_whole_keys(m):
    a = m.to_dense()
    mask = a.real > 0
    empty = slice(0, 2, -1)
    for key in (
        (),
        slice(None),
        (slice(None), slice(None)),
        mask,
        mask.tolist(),
        empty,
        (0, empty),
        (empty, empty),
    ):
        assert_dense_equal(m[key], a[key], scale=SCALE)
    assert_dense_equal(np.stack(list(m)), a, scale=SCALE)


def test_results_are_numpys():
    m = KroneckerMatrix.random((6, 4), 2, rng=0)
    assert isinstance(m[0, 0], np.float64)
    assert m[0].shape == (4,)
    assert m[[0]].shape == (1, 4)
    assert m[[], 1].shape == (0,)


@pytest.mark.parametrize(
    ("key", "error", "text"),
    [
        (None, TypeError, "key must be integers, slices, integer arrays or a boolean mask, got None"),
        (..., TypeError, "got Ellipsis"),
        ((0, None), TypeError, "got None"),
        ((0, ...), TypeError, "got Ellipsis"),
        (1.0, TypeError, "got an array of float64"),
        ([0.5], TypeError, "got an array of float64"),
        ("row", TypeError, "got 'row'"),
        (True, TypeError, "got True"),
        (np.array(True), IndexError, r"masks of the shape of their axes \(5,\), got \(\)"),
        (np.ones((4,), bool), IndexError, r"masks of the shape of their axes \(5,\), got \(4,\)"),
        (np.ones((5, 4), bool), IndexError, r"axes \(5, 3\), got \(5, 4\)"),
        ((0, np.ones(5, bool)), IndexError, r"axes \(3,\), got \(5,\)"),
        ((0, 0, 0), IndexError, "key must have at most 2 entries, got 3"),
        ((np.ones((5, 3), bool), 0), IndexError, "key must have at most 2 entries, got 3"),
        (5, IndexError, r"key must lie in \[-5, 5\) on axis 0, got 5"),
        (-6, IndexError, r"key must lie in \[-5, 5\) on axis 0, got -6"),
        ((0, 3), IndexError, r"key must lie in \[-3, 3\) on axis 1, got 3"),
        ([0, -6], IndexError, r"key must lie in \[-5, 5\) on axis 0, got -6"),
        (np.array([7], np.uint8), IndexError, r"key must lie in \[0, 5\) on axis 0, got 7"),
        (np.array([2**64 - 1], np.uint64), IndexError, "on axis 0, got 18446744073709551615"),
        (10**30, IndexError, "on axis 0, got 1000000000000000000000000000000"),
        ([10**30], TypeError, "got an array of object"),
        (([0, 1], [0, 1, 2]), IndexError, "key must hold index arrays that broadcast, got shapes"),
    ],
)
def test_keys_are_refused(key, error, text):
    m = KroneckerMatrix.random((5, 3), 2, rng=0)
    with pytest.raises(error, match=text):
        m[key]


def test_indices_on_a_device_are_not_read(monkeypatch):
    """An index outside, on a device: a row or an element of NaN, and nothing raised."""
    for module in (indexing, blocks):
        monkeypatch.setattr(module, "on_host", lambda array: False)
    m = KroneckerMatrix.random((5, 3), 2, rng=0)
    a = m.to_dense()
    ids = np.array([0, -5, 5, -6, 4])
    bad = np.array([False, False, True, True, False])
    for found, expected in ((m[ids], a[np.where(bad, 0, ids)]), (m[ids, 1], a[np.where(bad, 0, ids), 1])):
        assert np.isnan(found[bad]).all()
        assert_dense_equal(found[~bad], expected[~bad], scale=SCALE)
    columns = np.array([0, 3, -4, -3])
    assert np.isnan(m[4, columns]).tolist() == [False, True, True, False]


def test_kets_of_indices_on_a_device(monkeypatch):
    for module in (indexing, blocks):
        monkeypatch.setattr(module, "on_host", lambda array: False)
    v = Ket.random((2, 3), batch_shape=(4, 3, 2, 2), rng=0)
    ids, good = np.array([[0], [-5], [4]]), np.array([[0], [0], [0]])
    bad = np.array([[False], [True], [True]])
    a = v.to_dense()
    for at in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (1, 3)):
        key, safe = ([slice(None)] * 4 for _ in range(2))
        for axis in at:
            key[axis], safe[axis] = ids, good
        expected = a[tuple(safe)]
        first = at[0] if at[-1] - at[0] == len(at) - 1 else 0
        expected[(slice(None),) * first + (bad,)] = np.nan
        np.testing.assert_allclose(v[tuple(key)].to_dense(), expected, rtol=1e-12)
    assert np.isnan(v[0, :, np.array([7])].to_dense()).all()


def test_the_cost_is_that_of_the_output():
    m = KroneckerMatrix.random((2**40, 2**40), 10, rng=0, dtype="float32")
    ids, columns = np.array([2**39, 5]), slice(2**20, 2**20 + 6)
    keys = [(ids, columns), (columns, ids), (columns, columns), (3, slice(None, None, 2**30)), (ids, ids)]
    tracemalloc.start()
    try:
        for key in keys:
            assert m[key].size <= 2**10
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
    tall = KroneckerMatrix.random((2**16, 2**16), 4, rng=0)
    assert tall[:, [3, 1]].shape == (2**16, 2)
    assert tall[7, 2:].shape == (2**16 - 2,)


@given(mode_dims(), st.data())
def test_prefix_boxes_tile_the_prefix(radices, data):
    count = data.draw(st.integers(0, prod(radices)))
    boxes = prefix_boxes(count, radices)
    assert len(boxes) <= len(radices)
    found = []
    for box in boxes:
        digits = product(*(range(start, stop) for start, stop in box))
        found += [int(np.ravel_multi_index(d, radices)) for d in digits]
    assert found == list(range(count))


def test_parsed_selectors():
    row, column = parse_key((np.int8(-1), slice(None, None, -2)), (300, 5))
    assert (row, column) == (299, range(4, -1, -2))
    (ids,) = parse_key(np.array([-1, 127], np.int8), (300,))
    assert ids.tolist() == [299, 127]
    assert ids.dtype == np.int64


def test_a_corner_of_a_wide_matrix_costs_no_wide_rows():
    """The first columns do not need the whole right half, here of 2**16 elements a row."""
    m = KroneckerMatrix.random((2**32, 2**32), 4, rng=0)
    tracemalloc.start()
    corner = m[:1000, 5::-2]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 19
    assert_dense_equal(corner, m[np.arange(1000)[:, None], [5, 3, 1]], scale=SCALE)
    # Over Q = 2**60 columns a half row alone would fill 8 GiB.
    identity = KroneckerMatrix([np.eye(32)] * 12)
    assert np.array_equal(identity[:9, :9], np.eye(9))


def test_descending_slices_of_kets():
    v = Ket.random((2, 3), batch_shape=(5,), rng=0)
    for key in (slice(None, None, -1), slice(3, None, -2), slice(1, 4), slice(3, 0, -1)):
        assert np.array_equal(v[key].to_dense(), v.to_dense()[key])


@st.composite
def wild_slices(draw):
    """Starts and stops on both sides of both ends of an axis, and any step."""
    ends = st.none() | st.integers(-12, 12)
    return slice(draw(ends), draw(ends), draw(st.none() | st.integers(-5, 5).filter(bool)))


@given(kets(), wild_slices(), wild_slices())
def test_slices_of_kets_of_every_sign(v, first, second):
    for key in ((first,), (first, second))[: len(v.batch_shape)]:
        found = v[key]
        assert np.array_equal(found.packed, v.packed[key])
        assert found.dims == v.dims


@given(kronecker_matrices(), wild_slices(), wild_slices())
def test_slices_of_matrices_of_every_sign(m, first, second):
    a = m.to_dense()
    for key in (first, (slice(None), second), (first, second), (0, second), (first, -1)):
        assert_dense_equal(m[key], a[key], scale=SCALE, dtype=m.dtype)


def test_slices_of_kets_in_libraries_without_negative_steps(xp):
    v = Ket.random((2, 3), 2, (5, 4), rng=0)
    other = Ket.from_packed(xp.asarray(v.packed), v.dims)
    whole = slice(None)
    for key in (
        np.s_[::-1],
        np.s_[3:0:-2],
        np.s_[-9:1:-1],
        (whole, np.s_[2::-1]),
        np.s_[::-2, ::-1],
        (1, np.s_[::-1]),
    ):
        assert np.array_equal(xp.to_numpy(other[key].packed), v.packed[key])


@given(kronecker_matrices(), st.data())
def test_blocks_in_pieces(m, data):
    """What is computed piece by piece is what is computed at once."""
    key = (data.draw(entries(m.shape[0])), data.draw(entries(m.shape[1])))
    try:
        expected = m[key]
    except (IndexError, ValueError):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_PIECE", data.draw(st.sampled_from((1, 5, 16))))
        patch.setattr(blocks, "_IDS", data.draw(st.sampled_from((1, 3))))
        for advantage in (0, 4):
            patch.setattr(blocks, "_ROW_ADVANTAGE", advantage)
            assert_dense_equal(m[key], expected, scale=SCALE, dtype=m.dtype)


@given(kronecker_matrices(), st.data())
def test_numbers_that_int64_does_not_count(m, data):
    """Behind 70 modes of size 2 each row, column and element is where it was, counted from the end."""
    corner = np.zeros((m.rank, 2, 2), m.dtype)
    corner[:, 1, 1] = 1
    huge = KroneckerMatrix([corner] * 70 + list(m.factors))
    a = KroneckerMatrix(m.factors).to_dense()
    p, q = a.shape
    i, j = data.draw(st.integers(-p, -1)), data.draw(st.integers(-q, -1))
    step = data.draw(st.sampled_from((-2, -1, 1, 2)))
    ends = (None, -p - 1)
    row_slice = (
        slice(i, None, step) if step > 0 else slice(None, data.draw(st.sampled_from((i, *ends[1:]))), step)
    )
    ids, far = np.array([[i], [-1]]), [i + 2**70 * p, -1]
    for row in (i, i + 2**70 * p, ids, far, row_slice):
        near = np.asarray(row) % p if row is far or row is i + 2**70 * p else row
        near = i if isinstance(row, int) else near
        for column in (j, slice(j, None), slice(-1, j - 1, -1), [j, -1]):
            try:
                expected = a[near, column]
            except IndexError:  # index arrays that do not broadcast
                continue
            assert_dense_equal(huge[row, column], expected, scale=SCALE, dtype=m.dtype)
    crossing = np.concatenate([np.zeros((1, 1)), a[:1, -1:]])
    assert_dense_equal(huge[-p - 1 : -p + 1 or None, -1:], crossing, scale=SCALE, dtype=m.dtype)
    assert not huge[[5, 2], -q:].any()


@pytest.mark.parametrize(
    ("key", "error", "text"),
    [
        (2**80, IndexError, rf"key must lie in \[-{2**80}, {2**80}\) on axis 0, got {2**80}"),
        ((0, -(2**80) - 1), IndexError, rf"on axis 1, got {-(2**80) - 1}"),
        (([2**80], 0), IndexError, rf"on axis 0, got {2**80}"),
        (([0.5], 0), TypeError, "key must be integers, slices, .*, got 0.5 in an array"),
        (([True], 0), TypeError, "got True in an array"),
        ((np.array([1.0]), 0), TypeError, "got an array of float64"),
        (0, MemoryError, rf"key must give at most 1073741824 bytes \(1 GiB\), got a \({2**80},\) array"),
        ([0], MemoryError, rf"result must have at most \d+ elements, got shape \(1, {2**80}\)"),
    ],
)
def test_keys_of_huge_matrices_are_refused(key, error, text):
    with pytest.raises(error, match=text):
        KroneckerMatrix([np.eye(2)] * 80)[key]


def test_unsigned_indices_beyond_int64():
    huge = KroneckerMatrix([np.eye(2)] * 80)
    at = np.array([2**63 + 5, 2**64 - 1], np.uint64)
    assert huge[at, at].tolist() == [1.0, 1.0]
    assert huge[at, 5].tolist() == [0.0, 0.0]


def test_elements_far_apart_are_not_cut_out_of_rows():
    """Rows are multiplied out up to four times as wide as what is kept of them."""
    m = KroneckerMatrix.random((100, 1000), 3, rng=0)
    for step, cut in ((4, True), (5, False), (100, False)):
        lines, _ = blocks._cheapest(m.factors, np.arange(3), range(0, 1000, step))
        assert (lines is not None) is cut


def test_a_column_is_a_row_of_the_transpose():
    """Few columns of many rows come as rows; rows that are long come in their own order."""
    m = KroneckerMatrix.random((10**4, 100), 2, rng=0)
    for columns, turned in ((range(1), True), (range(5, 7), True), (range(100), False)):
        assert blocks._cheapest(m.factors, range(10**4), columns)[1] is turned


@pytest.mark.parametrize("key", [np.s_[5:5], np.s_[[]], np.s_[:, 3:3], np.s_[2**39 : 1, 1:2], np.s_[7, 4:2]])
def test_an_empty_block_takes_no_room(key):
    """Of 2**40 columns too, which are not counted for it."""
    huge = KroneckerMatrix([np.ones((2, 2))] * 40)
    found = huge[key]
    assert found.size == 0
    rows, columns = key if isinstance(key, tuple) else (key, slice(None))
    of_rows = np.empty((2**40, 0), np.int8)[rows].shape[:-1]
    assert found.shape == (*of_rows, *np.empty((0, 2**40), np.int8)[..., columns].shape[1:])


def test_an_empty_block_of_more_columns_than_numpy_counts_is_refused():
    huge = KroneckerMatrix([np.ones((2, 2))] * 80)
    rule = r"the result must have at most \d+ elements, got shape \(0, 12089"
    for key in (np.s_[5:5], np.s_[[]]):
        with pytest.raises(MemoryError, match=rule):
            huge[key]


@pytest.mark.parametrize("ids", [[2**69], [[0, 2**63 + 5, -1]], 2**70, [1, -(2**64)]])
def test_ids_beyond_64_bits_are_out_of_range(ids):
    table = KroneckerMatrix([np.ones((2, 1))] * 70)
    largest = max(np.array(ids, dtype=object).ravel().tolist(), key=abs)
    rule = rf"ids must lie in \[-{2**63}, {2**63}\), got {largest}"
    for call in (table.rows, table.row_kets):
        with pytest.raises(IndexError, match=rule):
            call(ids)
