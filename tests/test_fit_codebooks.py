"""fit_codebooks: what its codes say about a table, and how near that is."""

import re
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

import ketcore as kc
from ketcore import testing
from ketcore.fit import kmeans, samples
from tests.fit_problems import relative_error


def draw(words, columns, seed=0, dtype="float64"):
    """Rows in a few groups, far from zero, with components of unequal lengths."""
    rng = np.random.default_rng(seed)
    groups = rng.standard_normal((6, columns)) * 2
    table = groups[rng.integers(6, size=words)] + rng.standard_normal((words, columns)) + 3
    return (table / np.sqrt(1 + np.arange(columns))).astype(dtype)


def dense(value):
    """The definition: sums of the vectors that the codes pick, decoded and scaled."""
    (books,), (codes,) = map(testing.to_numpy, value.codebooks), map(testing.to_numpy, value.codes)
    rows = sum(book.astype(np.float64)[code] for book, code in zip(books, codes, strict=True))
    if value.decoder is not None:
        rows = rows @ testing.to_numpy(value.decoder).astype(np.float64)
    if value.row_scale is not None:
        rows = rows * testing.to_numpy(value.row_scale).astype(np.float64)[:, None]
    return rows


def weighted_error(value, table, weights=None):
    roots = np.ones((len(table), 1)) if weights is None else np.sqrt(np.asarray(weights, float))[:, None]
    return relative_error(roots * dense(value), roots * table.astype(np.float64))


@settings(max_examples=40)
@given(st.data())
def test_the_error_is_that_of_the_arrays_that_are_returned(data):
    words, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 12))
    n_codes, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, words))
    width = data.draw(st.integers(1, min(words, columns)))
    dtype = data.draw(st.sampled_from(("float16", "float32", "float64")))
    weighted, scaled = data.draw(st.booleans()), data.draw(st.booleans())
    table = draw(words, columns, data.draw(st.integers(0, 9)), dtype)
    weights = np.random.default_rng(1).gamma(0.3, size=words) + 1e-3 if weighted else None
    value, error, *_ = kc.fit_codebooks(table, n_codes, size, width, weights=weights, row_scale=scaled, rng=0)
    assert value.codebooks[0].shape == (n_codes, size, width)
    assert value.codes.shape == (1, n_codes, words)
    assert value.codes.dtype == np.uint8
    assert value.codes.max() < size
    assert (value.decoder is None) == (width == columns)
    assert {a.dtype.name for a in (value.codebooks[0], value.decoder) if a is not None} == {dtype}
    assert (value.row_scale is None) != scaled
    wide = np.promote_types(dtype, "float32")
    assert abs(error - weighted_error(value, table, weights)) <= 100 * np.finfo(wide).eps
    # The mean of all rows is no worse than none, and each row takes the nearest vector.
    assert error <= 1 + 1e-3


def test_more_codes_more_entries_and_more_width_leave_less():
    table = draw(500, 24)
    by_codes = [kc.fit_codebooks(table, n, 16, rng=0).error for n in (1, 2, 4, 8)]
    by_size = [kc.fit_codebooks(table, 2, size, rng=0).error for size in (2, 8, 32)]
    by_width = [kc.fit_codebooks(table, 4, 32, width, rng=0).error for width in (2, 6, 24)]
    for errors in (by_codes, by_size, by_width):
        assert all(after < 0.95 * before for before, after in pairwise(errors))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 5), (9, 4), (4, 9), (20, 3)])
@pytest.mark.parametrize("scaled", [False, True])
def test_it_is_exact_where_each_row_can_have_its_own_vector(dtype, shape, scaled):
    table = draw(*shape, dtype=dtype)
    found = kc.fit_codebooks(table, 1, shape[0], row_scale=scaled, rng=0)
    assert found.converged
    # Scales are float16.
    assert found.error <= (2**-11 if scaled else 100 * np.finfo(dtype).eps)


def test_it_is_exact_where_rows_repeat():
    table = np.repeat(draw(7, 5), 30, axis=0)
    assert kc.fit_codebooks(table, 2, 7, rng=0).error < 1e-12


def test_scales_leave_rows_of_few_directions():
    rng = np.random.default_rng(0)
    # Powers of two, so that rows of one length repeat to the last bit.
    table = 2.0 ** rng.integers(-2, 7, (60, 1)) * draw(4, 5)[rng.integers(4, size=60)]
    assert kc.fit_codebooks(table, 1, 4, row_scale=True, rng=0).error < 2**-11
    assert kc.fit_codebooks(table, 1, 4, rng=0).error > 0.05


def test_zeros_are_exact():
    for scaled in (False, True):
        assert kc.fit_codebooks(np.zeros((5, 3)), 2, 2, 2, row_scale=scaled, rng=0)[1:3] == (0.0, True)
    table = draw(6, 3)
    table[2] = 0
    assert np.isfinite(kc.fit_codebooks(table, 2, 2, row_scale=True, rng=0).error)


def test_rows_of_more_weight_have_less_error():
    table = draw(600, 8)
    weights = np.where(np.arange(600) % 2, 100.0, 1.0)
    heavy = weights > 1
    plain, found = (kc.fit_codebooks(table, 1, 32, weights=w, rng=0).value for w in (None, weights))
    before, after = (relative_error(dense(v)[heavy], table[heavy]) for v in (plain, found))
    assert after < 0.97 * before
    assert weighted_error(found, table, weights) < weighted_error(plain, table, weights)
    # One factor of all weights changes nothing.
    again = kc.fit_codebooks(table, 1, 32, weights=weights * 1e300, rng=0)
    assert np.array_equal(again.value.codes, found.codes)


def test_a_seed_gives_the_same_codes_on_any_number_of_threads():
    table = draw(3000, 16)
    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads):
            found.append(kc.fit_codebooks(table, 3, 32, 8, rng=5).value.codes)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[1], found[2])
    generator = np.random.default_rng(5)
    assert np.array_equal(kc.fit_codebooks(table, 3, 32, 8, rng=generator).value.codes, found[0])
    assert not np.array_equal(kc.fit_codebooks(table, 3, 32, 8, rng=6).value.codes, found[0])


def test_k_means_is_the_same_to_the_last_bit_on_any_number_of_threads():
    points, weights, found = draw(6000, 16, dtype="float32"), np.ones(6000, np.float32), []
    for threads in (1, 2, 5):
        with threadpool_limits(threads):
            found.append(kmeans.cluster(points, weights, 64, np.random.default_rng(5), 9))
    for other in found[1:]:
        assert np.array_equal(found[0].centres, other.centres)
        assert np.array_equal(found[0].codes, other.codes)


def test_the_package_that_is_missing_is_named_before_anything_is_read(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    message = r"^fit_codebooks needs scikit-learn: pip install 'ketcore\[codebooks\]'$"
    with pytest.raises(ImportError, match=message):
        kc.fit_codebooks(np.full((4, 3), np.nan))


def test_what_is_read_by_blocks_gives_the_same(tmp_path):
    table = draw(200, 10, dtype="float32")
    np.save(tmp_path / "table.npy", table)
    other = np.memmap(tmp_path / "other", ">f4", "w+", shape=table.shape)
    other[:] = table
    whole = kc.fit_codebooks(table, 3, 20, 6, rng=0)
    for same in (
        np.load(tmp_path / "table.npy", mmap_mode="r"),
        other,
        np.asfortranarray(table),
        table[::-1][::-1],
        table.astype(">f4"),
    ):
        found = kc.fit_codebooks(same, 3, 20, 6, rng=0)
        assert np.array_equal(found.value.codes, whole.value.codes)
        assert np.array_equal(found.value.codebooks[0], whole.value.codebooks[0])
        assert found.error == whole.error
        assert found.value.codebooks[0].dtype == np.float32


def test_blocks_and_pieces_change_nothing(monkeypatch):
    table, weights = draw(300, 10), np.random.default_rng(0).random(300) + 0.1
    whole = kc.fit_codebooks(table, 3, 20, 6, weights=weights, row_scale=True, rng=0)
    monkeypatch.setattr(samples, "_BLOCK", 70)
    monkeypatch.setattr(kmeans, "_SCORES", 1)
    monkeypatch.setattr(kmeans, "_LEAST_ROWS", 3)
    found = kc.fit_codebooks(table, 3, 20, 6, weights=weights, row_scale=True, rng=0)
    assert np.array_equal(found.value.codes, whole.value.codes)
    assert np.array_equal(found.value.row_scale, whole.value.row_scale)
    assert abs(found.error - whole.error) < 1e-12


def test_a_sample_serves_for_all_rows(monkeypatch):
    table, weights = draw(3000, 10), 1 / np.arange(1, 3001)
    whole = kc.fit_codebooks(table, 2, 16, 6, weights=weights, rng=0).error
    monkeypatch.setattr(samples, "_LEAST_SAMPLE", 100)
    monkeypatch.setattr(samples, "_ROWS_PER_CENTRE", 40)
    found = kc.fit_codebooks(table, 2, 16, 6, weights=weights, rng=0)
    assert found.error == pytest.approx(weighted_error(found.value, table, weights))
    assert abs(found.error - whole) < 0.2 * whole


@given(st.lists(st.floats(1e-9, 1.0), min_size=2, max_size=30), st.integers(1, 29))
def test_the_chances_of_rows_follow_their_weights(weights, count):
    weights = np.sort(np.array(weights) / max(weights))
    chances = samples._chances(weights, count)
    assert np.all((chances > 0) & (chances <= 1))
    assert np.isclose(chances.sum(), min(count, len(weights)))
    part = chances < 1
    assert np.allclose(
        chances[part] * weights[part].max(initial=0), chances[part].max(initial=0) * weights[part]
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("width", [1, 3])
def test_the_largest_numbers_of_a_dtype(dtype, width):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    largest = 65504.0 if dtype == "float16" else 3e38
    table = (np.sign(draw(20, 3) - 3) * largest).astype(dtype)
    found = kc.fit_codebooks(table, 2, 4, width, rng=0)
    assert found.value.codebooks[0].dtype == table.dtype
    assert np.isfinite(dense(found.value)).all()
    assert found.error < 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_scales_of_rows_leave_the_dtype_of_the_table(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    table = draw(40, 5).astype(dtype)
    value, error, *_ = kc.fit_codebooks(table, 2, 8, 3, row_scale=True, rng=0)
    assert value.dtype == table.dtype
    assert value.row_scale.dtype.itemsize == 2
    assert error == pytest.approx(weighted_error(value, table), rel=1e-3)


def test_tensors_of_bfloat16_have_scales_of_it():
    torch = pytest.importorskip("torch")
    table = torch.from_numpy(draw(40, 5)).bfloat16()
    value = kc.fit_codebooks(table, 2, 8, 3, row_scale=True, rng=0).value
    assert value.dtype == value.row_scale.dtype == torch.bfloat16


@pytest.mark.parametrize(("dtype", "power"), [("float32", 110), ("float32", -110), ("float64", 900)])
@pytest.mark.parametrize("width", [4, 6])
def test_scale_changes_nothing(dtype, power, width):
    table = draw(60, 6, dtype=dtype)
    plain = kc.fit_codebooks(table, 3, 8, width, rng=0)
    found = kc.fit_codebooks(np.ldexp(table, power), 3, 8, width, rng=0)
    assert np.array_equal(found.value.codes, plain.value.codes)
    assert found.error == pytest.approx(plain.error, rel=1e-6)


def test_a_mean_far_from_zero_costs_no_accuracy():
    table = draw(400, 6, dtype="float32")
    near = kc.fit_codebooks(table, 2, 16, rng=0)
    far = kc.fit_codebooks(table + 1000, 2, 16, rng=0)
    gap, far_gap = (np.linalg.norm(dense(f.value) - t) for f, t in ((near, table), (far, table + 1000)))
    assert far_gap == pytest.approx(gap, rel=0.02)


def test_more_than_256_vectors_have_codes_of_two_bytes():
    table = draw(400, 3)
    value = kc.fit_codebooks(table, 1, 300, rng=0).value
    assert value.codes.dtype == np.uint16
    assert value.codes.max() > 255
    assert kc.fit_codebooks(table, 1, rng=0).value.codebooks[0].shape == (1, 256, 3)


@pytest.mark.parametrize(("size", "bits"), [(None, 4), (16, 4), (5, 4), (4, 2), (3, 2), (2, 1), (1, 1)])
def test_packed_codes_are_the_same_in_fewer_bits(size, bits):
    table = draw(60, 5)
    options = {"n_codes": 3, "codebook_size": size or 16, "row_scale": True, "rng": 0}
    plain = kc.fit_codebooks(table, **options)
    found = kc.fit_codebooks(table, **options | {"codebook_size": size}, packed=True)
    assert (found.value.code_width, found.value.codes.shape) == (bits, (1, 3, 60))
    assert np.array_equal(found.value.codes.unpack(), plain.value.codes)
    assert found.error == plain.error
    assert plain.value.nbytes - found.value.nbytes == 60 * (3 - -(-3 * bits // 8))
    # The codes of a word lie together.
    assert plain.value.codes.strides[1:] == (1, 3)


def test_the_callback_sees_errors_that_fall():
    seen = []
    found = kc.fit_codebooks(
        draw(300, 10), 3, 8, 4, rng=0, iterations=5, callback=lambda *at: seen.append(at)
    )
    assert [sweeps for sweeps, _ in seen] == [5, 10, found.iterations] == [5, 10, 15]
    assert not found.converged
    assert all(type(error) is float for _, error in seen)
    assert all(after <= before * (1 + 1e-9) for (_, before), (_, after) in pairwise(seen))
    assert seen[-1][1] == pytest.approx(found.error, rel=1e-9)


def arrays(table):
    """What a table of one codebook stores."""
    return *table.codebooks, table.codes, table.row_scale, table.decoder


def test_results_are_arrays_of_the_library_of_the_table(xp):
    table = draw(50, 6)
    plain = kc.fit_codebooks(table, 2, 8, 4, row_scale=True, rng=0)
    given_table = xp.asarray(table)
    found = kc.fit_codebooks(given_table, 2, 8, 4, row_scale=True, rng=0)
    for array, same in zip(arrays(found.value), arrays(plain.value), strict=True):
        assert isinstance(array, type(given_table)) or isinstance(given_table, np.ndarray)
        assert np.array_equal(testing.to_numpy(array), same)
    assert found.error == plain.error


def test_integers_lists_and_operators_are_tables():
    ints = np.arange(12).reshape(6, 2)
    for table in (ints, ints.tolist(), kc.KroneckerMatrix([ints[None]])):
        found = kc.fit_codebooks(table, 1, 6, rng=0)
        assert found.error < 1e-12
        assert found.value.codebooks[0].dtype == np.float64


T = np.arange(12.0).reshape(4, 3)
ABOVE_0 = "weights must be finite and above 0, got"
MISTAKES = [
    ({"n_codes": 0}, ValueError, "n_codes must be at least 1, got 0"),
    ({"n_codes": 193}, ValueError, "n_codes must be at most 64 for each of 3 columns, got 193"),
    ({"n_codes": 10**6}, ValueError, "n_codes must be at most 64 for each of 3 columns, got 1000000"),
    ({"packed": 1}, TypeError, "packed must be True or False, got 1"),
    (
        {"table": np.ones((20, 3)), "codebook_size": 17, "packed": True},
        ValueError,
        "codebook_size must be at most 16 for packed codes, got 17",
    ),
    ({"n_codes": 1.5}, TypeError, "n_codes must be an int, got 1.5"),
    ({"codebook_size": 0}, ValueError, "codebook_size must be at least 1, got 0"),
    ({"codebook_size": 5}, ValueError, "codebook_size must be at most the number of words, 4, got 5"),
    ({"codebook_size": "a"}, TypeError, "codebook_size must be an int, got 'a'"),
    ({"width": 0}, ValueError, "width must be at least 1, got 0"),
    ({"width": 4}, ValueError, "width must be at most the number of columns, 3, got 4"),
    ({"weights": [1, 1, 0, 1]}, ValueError, f"{ABOVE_0} 0.0 for row 2"),
    ({"weights": [1, 1, -1, 1]}, ValueError, f"{ABOVE_0} -1.0 for row 2"),
    ({"weights": [1, 1, np.nan, 1]}, ValueError, f"{ABOVE_0} nan for row 2"),
    ({"weights": np.ones(3)}, ValueError, "weights must have shape (4,), got (3,)"),
    ({"weights": [1j] * 4}, TypeError, "weights must be real numbers, got complex128"),
    ({"row_scale": 1}, TypeError, "row_scale must be True or False, got 1"),
    ({"iterations": 0}, ValueError, "iterations must be at least 1, got 0"),
    ({"rng": "a"}, TypeError, "rng must be None, a seed >= 0 or a Generator, got 'a'"),
    ({"callback": 3}, TypeError, "callback must be callable, got int"),
    ({"table": T[:2], "width": 3}, ValueError, "width must be at most the number of words, 2, got 3"),
    ({"table": T * 1j}, TypeError, "table must be real, got complex128"),
    ({"table": T.astype("<U3")}, TypeError, "table must have a numeric dtype, got <U3"),
    (
        {"table": T[0]},
        ValueError,
        "table must be a matrix of at least one row and one column, got shape (3,)",
    ),
    (
        {"table": T[:0]},
        ValueError,
        "table must be a matrix of at least one row and one column, got shape (0, 3)",
    ),
    (
        {"table": iter(T)},
        TypeError,
        "table must be an array, a linear operator or sliceable by rows, got generator",
    ),
    ({"table": np.where(T == 7, np.nan, T)}, ValueError, "table must hold finite values, got nan in row 2"),
    ({"table": np.where(T == 9, -np.inf, T)}, ValueError, "table must hold finite values, got -inf in row 3"),
]


@pytest.mark.parametrize(("arguments", "error", "text"), MISTAKES)
def test_mistakes(arguments, error, text):
    if "iter" in repr(arguments.get("table")):
        arguments = {"table": (row for row in T)}
    with pytest.raises(error, match=f"^{re.escape(text)}$"):
        kc.fit_codebooks(**{"table": T} | arguments)


def test_more_vectors_than_codes_of_two_bytes_can_tell():
    with pytest.raises(ValueError, match=r"^codebook_size must be at most 65536, got 65537$"):
        kc.fit_codebooks(np.zeros((70000, 1), "float16"), 1, 65537)


def test_clusters_against_their_definition():
    rng = np.random.default_rng(0)
    points, weights = rng.standard_normal((80, 3)), rng.random(80)
    found = kmeans.cluster(points, weights, 7, np.random.default_rng(1), 300)
    distances = ((points[:, None] - found.centres) ** 2).sum(axis=2)
    assert np.array_equal(found.codes, distances.argmin(axis=1))
    assert found.converged
    assert found.sweeps < 300
    for k, centre in enumerate(found.centres):
        mine = found.codes == k
        assert np.allclose(centre, weights[mine] @ points[mine] / weights[mine].sum())


@pytest.mark.parametrize("copies", [1, 5])
def test_centres_without_points_move_to_those_far_away(copies):
    points = np.repeat(np.array([[0.0], [0.1], [100.0], [1000.0]]), [50, 50, copies, copies], axis=0)
    # Started at zeros alone, nearly surely.
    weights = np.where(points[:, 0] == 0, 1.0, 1e-3)
    found = kmeans.cluster(points, weights, 4, np.random.default_rng(0), 20)
    assert sorted(found.centres[:, 0].round(9)) == [0, 0.1, 100, 1000]


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_fewer_different_points_than_centres(weight):
    points = np.repeat(np.array([[3.0, 4.0], [5.0, 6.0]], np.float32), 20, axis=0)
    with np.errstate(divide="ignore"):
        found = kmeans.cluster(points, np.full(40, weight, np.float32), 5, np.random.default_rng(0), 20)
    assert np.isfinite(found.centres).all()
    assert np.array_equal(found.centres[found.codes], points)
