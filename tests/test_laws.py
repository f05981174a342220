"""Laws of the pure functions: identities between calls, on random factors, in float64 and complex128."""

from functools import reduce
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore import ops, suggest_dims, testing
from ketcore.testing import assert_adjoint, assert_dense_equal
from tests import generic

wide = st.sampled_from(("float64", "complex128"))


@st.composite
def matrices(draw, count=1, *, rank=None, order=None, square=False):
    """`count` tuples of factors of one dtype."""
    dtype, found = draw(wide), []
    for _ in range(count):
        row_dims = draw(testing.mode_dims(order, max_order=3, max_dim=4, max_size=16))
        col_dims = row_dims if square else None
        found.append(draw(generic.factors(row_dims=row_dims, col_dims=col_dims, rank=rank, dtype=dtype)))
    return found


@st.composite
def alike(draw, count=2):
    """`count` tuples of factors of the same shapes and dtype."""
    first = draw(generic.factors(dtype=draw(wide)))
    return [first, *(tuple(draw(generic.arrays(f.shape, f.dtype)) for f in first) for _ in range(count - 1))]


def sizes(factors):
    return prod(f.shape[1] for f in factors), prod(f.shape[2] for f in factors)


def dense(factors):
    return ops.rows(factors, np.arange(sizes(factors)[0]))


def close(actual, expected, scale=None):
    """Equal to within the rounding of sums of a few hundred terms of size one, or `scale`."""
    scale = np.abs(expected).max(initial=1.0) if scale is None else scale
    assert_dense_equal(actual, expected, terms=200, scale=scale)


@given(matrices(2, rank=1))
def test_a_kronecker_product_concatenates_the_orders(pair):
    a, b = pair
    close(dense((*a, *b)), np.kron(dense(a), dense(b)))


@given(alike())
def test_a_sum_concatenates_the_ranks(pair):
    a, b = pair
    both = [np.concatenate(parts) for parts in zip(a, b, strict=True)]
    close(dense(both), dense(a) + dense(b))


@given(alike(), st.data())
def test_rows_are_linear_in_each_factor(pair, data):
    a, b = pair
    n = data.draw(st.integers(0, len(a) - 1))
    with_n = lambda factor: (*a[:n], factor, *a[n + 1 :])  # noqa: E731
    close(dense(with_n(3 * a[n] - 2 * b[n])), 3 * dense(a) - 2 * dense(with_n(b[n])))


@given(matrices())
def test_a_transpose_transposes_the_factors(found):
    (a,) = found
    close(dense([f.swapaxes(1, 2) for f in a]), dense(a).T)


@given(matrices(2, rank=1, order=2), st.data())
def test_a_mixed_product_multiplies_the_factors(pair, data):
    a, other = pair
    inner = [f.shape[2] for f in a]
    b = [data.draw(generic.arrays((1, q, f.shape[2]), f.dtype)) for q, f in zip(inner, other, strict=True)]
    product = [f @ g for f, g in zip(a, b, strict=True)]
    close(dense(product), dense(a) @ dense(b), np.abs(dense(a)) @ np.abs(dense(b)) + 1)


@given(matrices(rank=1, square=True))
def test_trace_and_determinant_of_a_product_multiply(found):
    (a,) = found
    size = sizes(a)[0]
    close(np.trace(dense(a)), prod(np.trace(f[0]) for f in a), np.abs(dense(a)).max() * size)
    determinant = prod(np.linalg.det(f[0]) ** (size // f.shape[1]) for f in a)
    sign, log = np.linalg.slogdet(dense(a))
    assert abs(sign * np.exp(log) - determinant) <= 1e-9 * np.linalg.cond(dense(a)) * (
        abs(determinant) + 1e-300
    )


@given(matrices(), st.floats(0.01, 100))
def test_the_gauge_changes_nothing(found, c):
    (a,) = found
    moved = (a[0] * c, *a[1:-1], a[-1] / c) if len(a) > 1 else a
    close(dense(moved), dense(a))


@given(matrices(), st.data())
def test_rows_are_rows_of_the_dense_matrix(found, data):
    (a,) = found
    ids = data.draw(testing.indices(sizes(a)[0]))
    assert np.array_equal(ops.rows(a, ids).shape, (*ids.shape, sizes(a)[1]))
    close(ops.rows(a, ids), dense(a)[ids])


@given(matrices(), st.data())
def test_a_shape_crops_the_leading_block(found, data):
    (a,) = found
    rows, columns = (data.draw(st.integers(1, size)) for size in sizes(a))
    close(ops.rows(a, np.arange(rows), (rows, columns)), dense(a)[:rows, :columns])


@given(matrices(), st.data())
def test_the_vjp_is_the_adjoint_of_the_jvp(found, data):
    """With the conjugates that the adjoint asks for and the transpose does not."""
    (a,) = found
    ids = data.draw(testing.indices(sizes(a)[0], shape=(5,)))
    x = data.draw(generic.arrays((sum(f.size for f in a),), a[0].dtype))
    y = data.draw(generic.arrays((5, sizes(a)[1]), a[0].dtype))
    ends = np.cumsum([f.size for f in a])[:-1]

    def push(x):
        return ops.rows_jvp(a, ids, [t.reshape(f.shape) for t, f in zip(np.split(x, ends), a, strict=True)])

    def pull(y):
        return np.concatenate([g.conj().ravel() for g in ops.rows_vjp(a, ids, y.conj())])

    assert_adjoint(push, pull, x, y)


@given(matrices(), st.data())
def test_gradients_of_a_batch_are_sums_over_its_parts(found, data):
    (a,) = found
    ids = data.draw(testing.indices(sizes(a)[0], shape=(7,)))
    cotangent = data.draw(generic.arrays((7, sizes(a)[1]), a[0].dtype))
    whole = ops.rows_vjp(a, ids, cotangent)
    parts = zip(ops.rows_vjp(a, ids[:3], cotangent[:3]), ops.rows_vjp(a, ids[3:], cotangent[3:]), strict=True)
    for gradient, (first, second) in zip(whole, parts, strict=True):
        close(gradient, first + second)


@given(matrices(), st.data())
def test_gather_kron_by_digits_is_rows(found, data):
    (a,) = found
    ids = data.draw(testing.indices(sizes(a)[0]))
    index = np.array(ops.digits(ids, [f.shape[1] for f in a]))
    close(ops.gather_kron(a, index), ops.rows(a, ids))
    per_term = np.repeat(index[:, None], a[0].shape[0], axis=1)
    close(ops.gather_kron(a, per_term, per_term=True), ops.rows(a, ids))


@given(generic.leaves(dtype="float64"), st.data())
def test_gather_kron_by_the_id_itself_is_ket_rows(packed, data):
    leaves, dims = packed
    ids = data.draw(testing.indices(leaves.shape[0]))
    tables = np.split(leaves.swapaxes(0, 1), np.cumsum(dims)[:-1], axis=2)
    close(ops.gather_kron(tables, np.stack([ids] * len(dims))), ops.ket_rows(leaves, ids, dims))


@given(matrices(), st.data())
def test_a_term_with_its_own_permutation_is_a_permuted_matrix(found, data):
    (a,) = found
    rows, rank = sizes(a)[0], a[0].shape[0]
    orders = [np.array(data.draw(st.permutations(range(rows)))) for _ in range(rank)]
    index = np.stack([np.array(ops.digits(order, [f.shape[1] for f in a])) for order in orders], axis=1)
    expected = sum(dense([f[k : k + 1] for f in a])[order] for k, order in enumerate(orders))
    close(ops.gather_kron(a, index, per_term=True), expected)


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=6), st.data())
def test_digits_and_radices_give_the_number_back(radices, data):
    ids = data.draw(testing.indices(prod(radices), shape=(5,)))
    found = ops.digits(ids, radices)
    pairs = list(zip(found, radices, strict=True))
    assert all(d.dtype == np.int64 and (d >= 0).all() and (d < r).all() for d, r in pairs)
    value = reduce(lambda high, pair: high * pair[1] + pair[0], pairs, 0)
    assert [int(v) for v in value] == [int(i) for i in ids]


@given(matrices(), st.data())
def test_inner_products_of_row_kets_are_those_of_rows(found, data):
    (a,) = found
    first, second = (data.draw(testing.indices(sizes(a)[0], shape=(4,))) for _ in range(2))
    v, w = ops.row_kets(a, first), ops.row_kets(a, second)
    left, right = ops.rows(a, first), ops.rows(a, second)
    scale = np.sum(np.abs(left) * np.abs(right), axis=-1).max() + 1
    close(ops.ket_inner(v, w), np.sum(left.conj() * right, axis=-1), scale)
    close(ops.ket_gram(v, w), left.conj() @ right.T, scale * 10)


@given(matrices(), st.data())
def test_a_gram_matrix_is_hermitian_and_positive(found, data):
    (a,) = found
    v = ops.row_kets(a, data.draw(testing.indices(sizes(a)[0], shape=(5,))))
    gram = ops.ket_gram(v, v)
    size = np.abs(gram).max() + 1
    close(gram, gram.conj().T, size)
    assert np.linalg.eigvalsh((gram + gram.conj().T) / 2).min() >= -1e-10 * size
    close(np.diagonal(gram), ops.ket_inner(v, v), size)


@pytest.mark.parametrize("order", [2, 3, 4, 5, 7])
def test_the_rows_of_one_normalised_term_have_mean_zero_and_variance_one(order):
    """Times v / (v + eps), which is near one: the root of the tree is itself a LayerNorm."""
    dims = (3, 2, 4, 2, 3, 2, 2)[:order]
    leaves = np.random.default_rng(order).standard_normal((6, 1, sum(dims)))
    rows = ops.ket_rows(leaves, np.arange(6), dims, True, eps=1e-12)
    assert np.abs(rows.mean(axis=1)).max() < 1e-12
    assert np.abs(rows.var(axis=1) - 1).max() < 1e-8


@given(generic.leaves(dtype="float64", rank=1), st.floats(0.5, 50))
def test_a_normalised_row_does_not_change_with_the_size_of_a_leaf(packed, c):
    leaves, dims = packed
    dims = tuple(max(2, dim) for dim in dims)
    leaves = np.random.default_rng(0).standard_normal((leaves.shape[0], 1, sum(dims)))
    scaled = leaves.copy()
    scaled[..., : dims[0]] *= c
    ids = np.arange(leaves.shape[0])
    if len(dims) == 1:
        close(ops.ket_rows(scaled, ids, dims, True), c * ops.ket_rows(leaves, ids, dims, True))
    else:
        one, other = (ops.ket_rows(x, ids, dims, True, eps=1e-14) for x in (scaled, leaves))
        assert np.abs(one - other).max() < 1e-6


@given(st.integers(1, 10**6), st.integers(1, 8))
def test_suggested_dims_hold_the_size(n, order):
    dims = suggest_dims(n, order)
    assert len(dims) == order
    assert prod(dims) >= n
    assert max(dims) <= 2 * min(dims) or prod(dims) == n
