"""The options and the edges that ops share: out=, bad ids, sparse gradients, mixed dtypes, rank 0."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import strategies as st

from ketcore import ops, testing
from ketcore.testing import assert_dense_equal, to_numpy
from tests.problems import problems

BY_NAME = {op.name: op for op in ops.OPS}
WITH_OUT = [op for op in ops.OPS if "out" in op.forward_options]
IN_ANY_ORDER = [op for op in ops.OPS if "deterministic" in op.vjp_options]
RNG = np.random.default_rng(11)


def normal(*shape, dtype="float64"):
    values = RNG.standard_normal(shape) + (
        1j * RNG.standard_normal(shape) if np.dtype(dtype).kind == "c" else 0
    )
    return values.astype(dtype)


@pytest.mark.parametrize("op", WITH_OUT, ids=[op.name for op in WITH_OUT])
def test_out_is_filled_and_returned(op, xp):
    if not xp.writes:
        pytest.skip("its arrays are not written into")

    def body(problem):
        problem = problem.on(xp)
        (expected,) = problem.forward(*problem.arrays)
        out = testing.from_numpy(np.full(expected.shape, np.nan, to_numpy(expected).dtype), like=expected)
        assert problem.forward(*problem.arrays, out=out)[0] is out
        assert to_numpy(out).tobytes() == to_numpy(expected).tobytes()

    xp.check(problems(op, half=xp.half), body)


def lookups(dtype):
    """(forward, vjp, bound) of one random problem per op with ids, all of two arrays or one."""
    tables = (normal(2, 3, 2, dtype=dtype), normal(2, 4, 3, dtype=dtype))
    leaves = normal(5, 2, 6, dtype=dtype)
    return {
        "rows": (ops.rows, ops.rows_vjp, tables, 12, {}),
        "rows cropped": (ops.rows, ops.rows_vjp, tables, 7, {"shape": (7, 5)}),
        "row_kets": (ops.row_kets, ops.row_kets_vjp, tables, 12, {}),
        "ket_rows": (ops.ket_rows, ops.ket_rows_vjp, leaves, 5, {"dims": (2, 4)}),
        "ket_rows with LayerNorm": (
            ops.ket_rows,
            ops.ket_rows_vjp,
            leaves,
            5,
            {"dims": (2, 1, 3), "layernorm": True, "columns": 5},
        ),
    }


def arrays_of(xp, arrays):
    return xp.asarray(arrays) if isinstance(arrays, np.ndarray) else tuple(xp.asarray(a) for a in arrays)


def several(outputs):
    return [to_numpy(y) for y in (outputs if isinstance(outputs, tuple | list) else (outputs,))]


@pytest.mark.parametrize("name", lookups("float64"))
@pytest.mark.parametrize(
    ("integer", "bad"), [("int64", -1), ("int32", 99), ("int8", -128), ("uint64", 2**63 + 1)]
)
def test_an_unchecked_bad_id_gives_nan_and_no_gradient(name, integer, bad, xp):
    forward, vjp, arrays, bound, options = lookups("float64")[name]
    ids = np.array([1, bad, bound - 1, bad, bound, 1], dtype=integer)
    good = np.array([0, 2, 5])
    arrays = arrays_of(xp, arrays)
    outputs = forward(arrays, xp.asarray(ids), check=False, **options)
    expected = several(forward(arrays, xp.asarray(ids[good].astype("int64")), **options))
    rng = np.random.default_rng(0)
    cotangents = []
    for output, right in zip(several(outputs), expected, strict=True):
        bad_rows = np.setdiff1d(np.arange(6), good)
        assert np.isnan(output[bad_rows]).all()
        assert_dense_equal(output[good], right)
        cotangents.append(rng.standard_normal(output.shape))
    some = [xp.asarray(c) for c in cotangents]
    few = [xp.asarray(c[good]) for c in cotangents]
    given = (some, few) if isinstance(outputs, tuple) else (some[0], few[0])
    actual = several(vjp(arrays, xp.asarray(ids), given[0], check=False, **options))
    right = several(vjp(arrays, xp.asarray(ids[good].astype("int64")), given[1], **options))
    for gradient, expected in zip(actual, right, strict=True):
        assert_dense_equal(gradient, expected)


@pytest.mark.parametrize("per_term", [False, True])
def test_an_unchecked_bad_index_of_one_mode_spoils_its_row_alone(per_term, xp):
    tables = (normal(2, 3, 2), normal(2, 4, 3))
    index = np.array([[0, 2, -1, 1, 2], [3, 4, 0, 1, 0]])
    if per_term:
        index = np.stack([index, np.array([[1, 1, 1, 1, 3], [1, 1, 1, 1, 1]])], axis=1)
    good = [0, 3] if per_term else [0, 3, 4]
    tables = arrays_of(xp, tables)
    call = {"per_term": per_term}
    rows = to_numpy(ops.gather_kron(tables, xp.asarray(index), check=False, **call))
    expected = ops.gather_kron_dense([to_numpy(t) for t in tables], index[..., good], **call)
    assert_dense_equal(rows[good], expected)
    assert np.isnan(np.delete(rows, good, axis=0)).all()
    cotangent = normal(5, 6)
    actual = ops.gather_kron_vjp(tables, xp.asarray(index), xp.asarray(cotangent), check=False, **call)
    few = xp.asarray(index[..., good].copy()), xp.asarray(cotangent[good])
    right = ops.gather_kron_vjp(tables, *few, **call)
    for gradient, expected in zip(actual, right, strict=True):
        assert_dense_equal(gradient, to_numpy(expected))


@pytest.mark.parametrize("name", lookups("float64"))
def test_check_true_raises_everywhere(name, xp):
    forward, _, arrays, bound, options = lookups("float64")[name]
    with pytest.raises(IndexError, match=rf"ids must lie in \[0, {bound}\), got {bound}"):
        forward(arrays_of(xp, arrays), xp.asarray(np.array([0, bound])), check=True, **options)


def sparse_cases():
    return st.tuples(
        st.integers(1, 40),
        st.sampled_from(((), (0,), (6,), (2, 3), (200,))),
        st.booleans(),
        st.integers(0, 99),
    )


def test_sparse_gradients_are_the_rows_of_the_dense_one(xp):
    def body(case):
        words, shape, layernorm, seed = case
        rng = np.random.default_rng(seed)
        leaves = xp.asarray(rng.standard_normal((words, 2, 5)))
        ids = rng.integers(0, words, shape)
        cotangent = xp.asarray(rng.standard_normal((*shape, 5)))
        call = (leaves, xp.asarray(ids), cotangent, (2, 3), layernorm)
        dense = to_numpy(ops.ket_rows_vjp(*call, columns=5))
        found, values = (to_numpy(part) for part in ops.ket_rows_vjp(*call, columns=5, sparse=True))
        assert np.array_equal(found, np.unique(ids))
        assert found.dtype == np.int64
        assert_dense_equal(values, dense[found], terms=max(ids.size, 1), dtype="float64")
        assert not np.delete(dense, found, axis=0).any()

    xp.check(sparse_cases(), body)


def test_sparse_gradients_leave_bad_ids_out(xp):
    leaves, ids = xp.asarray(normal(4, 1, 5)), xp.asarray(np.array([3, -1, 0, 4, 3]))
    found, values = ops.ket_rows_vjp(leaves, ids, xp.asarray(normal(5, 6)), (2, 3), check=False, sparse=True)
    assert to_numpy(found).tolist() == [0, 3]
    assert tuple(values.shape) == (2, 1, 5)
    assert np.isfinite(to_numpy(values)).all()


@pytest.mark.parametrize("op", IN_ANY_ORDER, ids=[op.name for op in IN_ANY_ORDER])
def test_sums_in_any_order_agree(op, xp):
    def body(problem):
        problem = problem.on(xp)
        (output,) = problem.forward(*problem.arrays)
        cotangents = (testing.from_numpy(np.ones(output.shape), like=output),)
        fixed = problem.vjp(*problem.arrays, cotangents)
        free = problem.vjp(*problem.arrays, cotangents, deterministic=False)
        for one, other in zip(free, fixed, strict=True):
            assert_dense_equal(
                one, other, terms=1 + output.shape[0] if output.ndim > 1 else 1, dtype=other.dtype
            )

    xp.check(problems(op), body)


MIXED = [
    ("float32", "float64", "float64"),
    ("float32", "complex64", "complex64"),
    ("float64", "complex64", "complex128"),
]


@pytest.mark.parametrize(("first", "second", "promoted"), MIXED)
def test_mixed_dtypes_promote_and_gradients_keep_their_own(first, second, promoted, xp):
    tables = tuple(xp.asarray(a) for a in (normal(2, 3, 2, dtype=first), normal(2, 2, 3, dtype=second)))
    ids = xp.asarray(np.array([0, 5, 5]))
    checks = {
        "rows": (
            lambda *t: ops.rows(t, ids),
            lambda *t: ops.rows_vjp(t[:2], ids, t[2]),
            lambda *t: ops.rows_jvp(t[:2], ids, t[2:]),
        ),
        "gather_kron": (
            lambda *t: ops.gather_kron(t, xp.asarray(np.array([[0, 2], [1, 0]]))),
            lambda *t: ops.gather_kron_vjp(t[:2], xp.asarray(np.array([[0, 2], [1, 0]])), t[2]),
            lambda *t: ops.gather_kron_jvp(t[:2], xp.asarray(np.array([[0, 2], [1, 0]])), t[2:]),
        ),
    }
    for forward, vjp, jvp in checks.values():
        output = forward(*tables)
        assert str(output.dtype).endswith(promoted)
        testing.assert_vjp(forward, vjp, tables, multilinear=True)
        testing.assert_jvp(forward, jvp, tables, multilinear=True)


@pytest.mark.parametrize(("first", "second", "promoted"), MIXED)
def test_mixed_kets_promote_and_gradients_keep_their_own(first, second, promoted, xp):
    v, w = xp.asarray(normal(3, 2, 4, dtype=first)), xp.asarray(normal(3, 1, 4, dtype=second))
    for forward, vjp, jvp in (
        (ops.ket_inner, ops.ket_inner_vjp, ops.ket_inner_jvp),
        (ops.ket_gram, ops.ket_gram_vjp, ops.ket_gram_jvp),
    ):
        flat = lambda v, w, forward=forward: forward((v,), (w,))  # noqa: E731
        assert str(flat(v, w).dtype).endswith(promoted)
        back = lambda v, w, c, vjp=vjp: [g[0] for g in vjp((v,), (w,), c)]  # noqa: E731
        testing.assert_vjp(flat, back, (v, w), multilinear=True)
        testing.assert_jvp(flat, lambda v, w, s, t, jvp=jvp: jvp((v,), (w,), (s,), (t,)), (v, w))


@pytest.mark.parametrize("half", testing.half_dtypes(), ids=str)
def test_half_storage_beside_float32_gives_float32(half, xp):
    if not xp.half:
        pytest.skip("it has no half precision")
    tables = (normal(2, 3, 2).astype(half), normal(2, 2, 3, dtype="float32"))
    rows = ops.rows(arrays_of(xp, tables), xp.asarray(np.array([0, 5])))
    wide = [table.astype("float64") for table in tables]
    assert_dense_equal(rows, ops.rows_dense(wide, [0, 5]), terms=4, dtype="float32")


def test_rank_zero_is_zero(xp):
    tables = tuple(xp.asarray(np.zeros((0, p, q))) for p, q in ((2, 3), (3, 2)))
    leaves, ids = xp.asarray(np.zeros((4, 0, 5))), xp.asarray(np.array([0, 3, 3]))
    kets = tuple(xp.asarray(np.zeros((3, 0, q))) for q in (3, 2))
    other = tuple(xp.asarray(normal(3, 2, q)) for q in (3, 2))
    cotangent = xp.asarray(normal(3, 6))
    results = {
        (3, 6): [
            ops.rows(tables, ids),
            ops.rows_jvp(tables, ids, tables),
            ops.gather_kron(tables, xp.asarray(np.array([[0, 1, 1], [2, 0, 0]]))),
            ops.ket_rows(leaves, ids, (2, 3)),
            ops.ket_rows(leaves, ids, (2, 3), True),
            ops.ket_rows_jvp(leaves, ids, leaves, (2, 3), True),
        ],
        (3,): [ops.ket_inner(kets, other), ops.ket_inner(other, kets)],
        (3, 3): [ops.ket_gram(kets, other)],
    }
    for shape, arrays in results.items():
        for array in arrays:
            assert tuple(array.shape) == shape
            assert not to_numpy(array).any()
    for gradients in (
        ops.rows_vjp(tables, ids, cotangent),
        (ops.ket_rows_vjp(leaves, ids, cotangent, (2, 3)),),
    ):
        assert all(0 in gradient.shape for gradient in gradients)
    assert [tuple(leaf.shape) for leaf in ops.row_kets(tables, ids)] == [(3, 0, 3), (3, 0, 2)]


def test_ids_may_be_ints_lists_and_ranges():
    factors = [normal(1, 2, 3), normal(1, 3, 2)]
    every = ops.rows(factors, np.arange(6))
    for ids, expected in (
        (4, every[4]),
        ([4, 0], every[[4, 0]]),
        (range(6), every),
        ([], every[:0]),
        ([[]], every[None, :0]),
    ):
        assert np.array_equal(ops.rows(factors, ids), expected)
        assert ops.rows(factors, ids).shape == expected.shape
    assert np.array_equal(ops.rows(factors, np.int8(4)), every[4])


def test_ids_of_numpy_serve_arrays_of_every_library(xp):
    factors = tuple(xp.asarray(a) for a in (normal(1, 2, 3), normal(1, 3, 2)))
    expected = ops.rows_dense([to_numpy(a) for a in factors], [1, 5])
    for ids in ([1, 5], np.array([1, 5], "int16")):
        rows = ops.rows(factors, ids)
        assert isinstance(rows, type(factors[0]))
        assert_dense_equal(rows, expected)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_spreads_to_the_rows_that_use_it(value, xp):
    first, second = normal(2, 2, 2), normal(2, 3, 2)
    first[1, 0, 1] = value
    ids = xp.asarray(np.arange(6))
    factors = (xp.asarray(first), xp.asarray(second))
    rows = to_numpy(ops.rows(factors, ids))
    assert not np.isfinite(rows[:3, 2:]).any()
    assert_dense_equal(rows[3:], ops.rows_dense([to_numpy(f) for f in factors], np.arange(6))[3:])
    gradients = ops.rows_vjp(factors, ids, xp.asarray(normal(6, 4)))
    assert not np.isfinite(to_numpy(gradients[1])).all()
    leaves = normal(2, 1, 4)
    leaves[0, 0, 1] = value
    for layernorm in (False, True):
        rows = to_numpy(ops.ket_rows(xp.asarray(leaves), xp.asarray(np.array([0, 1])), (2, 2), layernorm))
        assert not np.isfinite(rows[0, 2:]).any()
        assert np.isfinite(rows[1]).all()


def test_a_node_without_variance_is_zero_with_finite_derivatives(xp):
    leaves = xp.asarray(np.array([[[1.5, 1.5, -2.0, -2.0]], [[0.0, 0.0, 1.0, 2.0]]]))
    ids = xp.asarray(np.array([0, 1]))
    rows = to_numpy(ops.ket_rows(leaves, ids, (2, 2), True))
    assert np.abs(rows).max() < 1e-12
    gradient = to_numpy(ops.ket_rows_vjp(leaves, ids, xp.asarray(normal(2, 4)), (2, 2), True))
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("layernorm", [False, True])
def test_a_large_vocabulary_of_which_few_words_occur(layernorm, xp):
    """More words than ids: sums by sorted ids, in kernels and on NumPy."""
    rng = np.random.default_rng(8)
    leaves, ids = rng.standard_normal((1500, 2, 5)), rng.choice([0, 7, 700, 1499], 60)
    cotangent = rng.standard_normal((60, 6))
    call = ((2, 3), layernorm)
    gradient = to_numpy(ops.ket_rows_vjp(xp.asarray(leaves), xp.asarray(ids), xp.asarray(cotangent), *call))
    found, inverse = np.unique(ids, return_inverse=True)
    # The rows of one word are equal, so that its cotangents may be added up first.
    total = np.zeros((len(found), 6))
    np.add.at(total, inverse, cotangent)
    expected = ops.ket_rows_vjp(leaves[found], np.arange(len(found)), total, *call)
    assert_dense_equal(gradient[found], expected, terms=60)
    assert not np.delete(gradient, found, axis=0).any()


@pytest.mark.parametrize("batch", [3, 60])
def test_a_cotangent_that_is_not_finite_spoils_the_leaves_of_its_row_alone(batch, xp):
    factors = (xp.asarray(normal(2, 3, 2)), xp.asarray(normal(2, 4, 2)))
    ids, cotangent = np.arange(batch) % 11, normal(batch, 4)
    cotangent[0, 1] = np.nan
    first, second = ops.rows_vjp(factors, xp.asarray(ids), xp.asarray(cotangent))
    # Row 0 is leaf 0 of either factor.
    assert np.isfinite(to_numpy(first)[:, 1:]).all()
    assert np.isfinite(to_numpy(second)[:, 1:]).all()
    assert np.isnan(to_numpy(first)[:, 0]).any()
    leaves = xp.asarray(normal(11, 2, 4))
    gradient = to_numpy(ops.ket_rows_vjp(leaves, xp.asarray(ids), xp.asarray(cotangent), (2, 2)))
    assert np.isfinite(gradient[1:]).all()
    assert np.isnan(gradient[0]).any()


def test_rows_cropped_to_few_columns_cost_those_columns():
    factors = [np.random.default_rng(n).standard_normal((2, 32, 32)) for n in range(12)]
    shape, ids = (2**60, 40), [0, 2**59 + 7]
    tracemalloc.start()
    found = ops.rows(factors, ids, shape)
    gradients = ops.rows_vjp(factors, ids, np.ones((2, 40)), shape)
    moved = ops.rows_jvp(factors, ids, factors, shape)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
    few = [factor[:, :, :1] for factor in factors[:10]] + [factors[10][:, :, :2], factors[11]]
    np.testing.assert_allclose(found, ops.rows(few, ids, shape))
    np.testing.assert_allclose(moved, 12 * found)
    for gradient, part in zip(gradients, ops.rows_vjp(few, ids, np.ones((2, 40)), shape), strict=True):
        np.testing.assert_allclose(gradient[:, :, : part.shape[2]], part)
        assert not gradient[:, :, part.shape[2] :].any()
