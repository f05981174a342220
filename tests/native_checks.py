"""What the compiled engine gives against what array code gives, in a process of its own.

    python -m tests.native_checks FOLDER [COUNT]

FOLDER is that of the library.  It ends with an error where one number is wrong, or by a signal where one is
read or written beside an array.
"""

import sys

import numpy as np

import ketcore as kc
from ketcore.arrays.sums import sum_by_index
from ketcore.lookups import gather, on_arrays, on_native
from ketcore.lookups.lookup import make_lookup
from tests.guard_pages import guarded
from tests.kernel_problems import cotangent_of, make
from tests.native_calls import (
    FLOATS,
    INTEGERS,
    Problems,
    Rooms,
    index_sums,
    lookups,
    products,
    small_pieces,
    use,
)

# By how much of the largest number a result may be off, which LayerNorm enlarges, for the bytes of a number.
TOLERANCE = {2: 0.1, 4: 0.02, 8: 1e-8}

# Powers of ten by which two tables and a third are multiplied, and cotangents, for the bytes of a number: the
# product of two leaves overflows, or vanishes.  Nothing else does, and the rule for scale finds what is large
# in the one case, what is small in the other, and no more.
POWERS = {4: ((21, -30, -10), (-22, 26, 10)), 8: ((157, -290, -20), (-160, 260, 20))}


def compare(function, found, expected):
    """Arrays, or tuples of them, equal up to rounding; NaN where NaN is due."""
    if isinstance(found, tuple):
        for one, other in zip(found, expected, strict=True):
            compare(function, one, other)
        return
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    size, wide = TOLERANCE[found.dtype.itemsize], expected.astype(np.float64)
    largest = np.max(np.abs(wide), initial=0, where=np.isfinite(wide))
    np.testing.assert_allclose(
        found.astype(np.float64), wide, rtol=0, atol=size * largest, err_msg=function.__name__
    )


def by_engine(name, function, arguments, options):
    """A result of one engine."""
    with gather.only(name):
        return function(*arguments, **options)


def scaled(problems, arguments):
    """Arguments with tables whose scales are far apart, at times, and the scale of cotangents for them."""
    tables, *rest = arguments
    if not isinstance(tables, list) or len(tables) < 3 or tables[0].itemsize < 4 or problems.number(0, 1):
        return arguments, 1
    two, third, last = POWERS[tables[0].itemsize][problems.number(0, 1)]
    powers = [two, two, third] + [0] * (len(tables) - 3)
    if problems.number(0, 1):
        powers.reverse()
    scales = [table.dtype.type(10.0**power) for table, power in zip(tables, powers, strict=True)]
    return ([table * scale for table, scale in zip(tables, scales, strict=True)], *rest), 10.0**last


def one_round(problems, columns, batch):
    """Every operation by both engines, forward and backward."""
    calls = [(*call[:2], *scaled(problems, call[2]), call[3]) for call in lookups(problems, columns, batch)]
    calls = [(*call[:4], call[4] | {"check": False}) for call in calls]
    calls += [(*call[:3], 1, call[3]) for call in products(problems, columns)]
    for forward, backward, arguments, scale, options in calls:
        # The node over numbers alone is zero, and its gradient what rounding makes of that.
        if options.get("layernorm") and min(options["dims"]) == 1:
            continue
        found, expected = (by_engine(name, forward, arguments, options) for name in ("native", "arrays"))
        compare(forward, found, expected)
        cotangent = problems.floats(found.shape, found.dtype)
        cotangent *= found.dtype.type(scale)
        arguments = (*arguments, cotangent)
        for more in ({}, {"sparse": True}) if forward is kc.ket_rows else ({},):
            results = (by_engine(name, backward, arguments, options | more) for name in ("native", "arrays"))
            compare(backward, *results)
    values, index, count = index_sums(problems, columns)
    expected = np.zeros((count, columns), values.dtype)
    np.add.at(expected, index, values)
    compare(sum_by_index, sum_by_index(np, values, index, count), expected)


def check_long_sums():
    """Float32 sums of many numbers of one sign, which stay accurate however they are added up."""
    random, batch = np.random.default_rng(3), 1 << 13
    cotangent = random.random((batch, 6), np.float32) + 0.5
    index = random.integers(0, 2, batch)
    expected = np.stack([cotangent[index == i].astype(np.float64).sum(axis=0) for i in range(2)])
    np.testing.assert_allclose(sum_by_index(np, cotangent, index, 2), expected, rtol=1e-6)
    for rows in (5, 400):
        tables = [random.random((2, rows, width), np.float32) + 0.5 for width in (2, 3)]
        arguments = np.full(batch, 3), cotangent
        right = kc.rows_vjp([table.astype(np.float64) for table in tables], *arguments)
        for found, exact in zip(kc.rows_vjp(tables, *arguments), right, strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-6)
    tables = [random.random((700, 3, width), np.float32) + 0.5 for width in (2, 3)]
    compare(kc.rows, *(by_engine(name, kc.rows, (tables, [4, 8]), {}) for name in ("native", "arrays")))
    leaves, ids = random.random((4, 2, 5), np.float32) + 0.5, np.repeat([3, 1], (500, 30))
    right = kc.ket_rows_vjp(leaves.astype(np.float64), ids, cotangent[:530], (2, 3), sparse=True)
    found = kc.ket_rows_vjp(leaves, ids, cotangent[:530], (2, 3), sparse=True)
    np.testing.assert_array_equal(found[0], right[0])
    np.testing.assert_allclose(found[1], right[1], rtol=1e-6)


def check_far_sums():
    """Half tables whose sums no near cache holds, so that rows are added up record by record."""
    for lengths in ((150, 140), (140, 150)):
        lookup = make(lengths, (8, 8), 1500, rank=32, columns=61, dtype="float64")
        lookup.index[::7] = -1
        cotangent = cotangent_of(lookup)
        found, expected = (engine.pull(lookup, cotangent, True) for engine in (on_native, on_arrays))
        compare(check_far_sums, found, tuple(expected))


def check_cut_rows():
    """Products of several terms whose rows are so large that the crop cuts a block of them."""
    random = np.random.default_rng(4)
    factors = [random.standard_normal((2, size, size)) for size in (16, 16, 32)]
    arguments = factors, random.standard_normal((2, 8192))
    for columns in (511, 8001):
        options = {"shape": (8192, columns)}
        found = [by_engine(name, kc.kron_matmul, arguments, options) for name in ("native", "arrays")]
        compare(kc.kron_matmul, *found)


def check_exact():
    """Results that every engine rounds alike, and indices that only their own width can hold."""
    random = np.random.default_rng(2)
    for dtype in map(np.dtype, FLOATS):
        tables = [random.standard_normal((1, 300, width)).astype(dtype) for width in (3, 16)]
        leaves, ids = random.standard_normal((300, 1, 24)).astype(dtype), random.integers(0, 300, 50)
        for function, arguments in (
            (kc.rows, (tables, random.integers(0, 300**2, 200))),
            (kc.ket_rows, (leaves, ids, (8, 16))),
            (kc.gather_kron, (tables, random.integers(0, 300, (2, 50)))),
        ):
            results = [by_engine(name, function, arguments, {}) for name in ("native", "arrays")]
            np.testing.assert_array_equal(*(result.astype(np.float64) for result in results))
        for name in INTEGERS:
            index = np.minimum(ids, min(299, np.iinfo(name).max)).astype(name)
            one = make_lookup((tables[1],), index, "same", 300, False, 16, False, 0.0, 0, dtype)
            assert not on_native.obstacle(one)
            np.testing.assert_array_equal(on_native.expand(one, None), tables[1][0, index.astype(int)])


def check_scales():
    """A row whose leaves stay as they are keeps numbers that the scale of those beside it would make zero."""
    leaves = np.ones((30, 1, 6), np.float32)
    leaves[:, 0, :2] = 2.0**80, 2.0**-110
    leaves[::7, 0] = 2.0**100, 1, 2.0**60, 1, 2.0**-60, 1
    assert kc.ket_rows(leaves, range(30), (2, 2, 2))[1, 4] == 2.0**-110


def main(folder, count="60"):
    """So many rounds by each instruction set."""
    problems = Problems(1, np.empty)
    problems.room = lambda shape, dtype: guarded(shape, dtype, problems.number(0, 2) > 0)
    Rooms(problems.room).furnish()
    for instructions in use(folder).available:
        use(folder, instructions)
        small_pieces()
        check_exact()
        check_scales()
        check_long_sums()
        check_far_sums()
        check_cut_rows()
        for number in range(int(count)):
            large = number % 8 == 7
            one_round(
                problems, (1 + number % 40) * (3 if large else 1), problems.number(0, 300 if large else 40)
            )
    print("all is well")


if __name__ == "__main__":
    main(*sys.argv[1:])
