"""Sums whose terms leave different modes alone: their products by parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import ops, testing
from ketcore.arrays import threads
from ketcore.products import term_products
from ketcore.products.plans import MatmulPlan
from ketcore.products.term_plans import TermsPlan, terms_plan
from ketcore.testing import assert_dense_equal, to_numpy
from tests import generic
from tests.matmul_problems import X, Y, Z, chain, marks_of_terms, normal


@st.composite
def sums_of_few_modes(draw, dtype, max_order=6):
    """(factors, x, options) of `kron_matmul`; the values of identities are NaN."""
    order, rank = draw(st.integers(1, max_order)), draw(st.integers(1, 6))
    rows = draw(st.lists(st.sampled_from((1, 2, 2, 3)), min_size=order, max_size=order))
    columns = [draw(st.sampled_from((p, p, p, p, 2))) for p in rows]
    identities = draw(marks_of_terms(rows, columns, rank))
    factors = [draw(generic.arrays((rank, p, q), dtype)) for p, q in zip(rows, columns, strict=True)]
    for n, factor in enumerate(factors):
        factor[[n in known for known in identities]] = np.nan
    shape = draw(testing.crops(int(np.prod(rows)), int(np.prod(columns))))
    axis, kept = draw(st.sampled_from((-1, -2))), int(np.prod(rows)) if shape is None else shape[0]
    lead, behind = draw(st.sampled_from(((), (3,), (0,)))), (draw(st.sampled_from((1, 4))),) * (-1 - axis)
    x = draw(generic.arrays((*lead, kept, *behind), dtype))
    path = draw(st.sampled_from((None, "terms", "terms")))
    return factors, x, {"shape": shape, "axis": axis, "identities": identities, "path": path}


@pytest.mark.parametrize("dtype", ["float64", "complex64", "float16"])
def test_products_and_derivatives(xp, dtype):
    if dtype == "float16" and not xp.half:
        pytest.skip("no such dtype")

    def body(arguments):
        factors, x, options = arguments
        given_factors, given_x = [xp.asarray(f) for f in factors], xp.asarray(x)
        right = ops.kron_matmul_dense(factors, x, **options)
        y = ops.kron_matmul(given_factors, given_x, **options)
        true = [np.where(np.isnan(f), np.eye(*f.shape[1:], dtype=f.dtype), f) for f in factors]
        scale = ops.kron_matmul_dense([np.abs(f) for f in true], np.abs(x), **options)
        assert_dense_equal(to_numpy(y), right, terms=256, scale=np.abs(scale), dtype=dtype)
        if dtype == "float16":
            return
        c = normal(right.shape).astype(dtype)
        moving = [normal(f.shape, seed=n) for n, f in enumerate(factors)]
        tangents = [xp.asarray(m.astype(dtype)) for m in moving]
        to_factors, to_x = ops.kron_matmul_vjp(given_factors, given_x, xp.asarray(c), **options)
        expected, expected_x = ops.kron_matmul_vjp(true, x, c, options["shape"], axis=options["axis"])
        size = 1 + sum(float(np.abs(each).sum()) for each in (*expected, expected_x))
        rounding = 1e-5 if dtype == "complex64" else 1e-12
        for n, gradient in enumerate(to_factors):
            known = [n in marks for marks in options["identities"]]
            wanted = np.where(np.array(known)[:, None, None], 0, expected[n])
            assert np.abs(to_numpy(gradient) - wanted).max(initial=0) <= rounding * size
            assert not to_numpy(gradient)[known].any()
        assert np.abs(to_numpy(to_x) - expected_x).max(initial=0) <= rounding * size
        pushed = ops.kron_matmul_jvp(given_factors, given_x, tangents, given_x, **options)
        still = [np.where(np.isnan(f), 0, m) for f, m in zip(factors, moving, strict=True)]
        pulled = sum(np.sum(a * b) for a, b in zip(expected, still, strict=True)) + np.sum(expected_x * x)
        assert abs(np.sum(to_numpy(pushed) * c) - pulled) <= 8 * rounding * size

    xp.check(sums_of_few_modes(dtype), body)


def test_torch_differentiates_parts_twice():
    torch = pytest.importorskip("torch")
    factors = [normal((3, 2, 2), seed=n) for n in range(3)]
    inputs = [torch.tensor(a, requires_grad=True) for a in (*factors, normal((2, 8)))]
    marks = [(1, 2), (0, 2), (0,)]

    def product(*arrays):
        return ops.kron_matmul(arrays[:3], arrays[3], identities=marks, path="terms")

    assert torch.autograd.gradcheck(product, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(product, inputs, fast_mode=True)


def test_gradients_come_in_the_order_of_the_terms():
    """Which is not that of the parts, nor its own inverse."""
    marks = [frozenset(range(9)) - live for live in ({7, 8}, {0}, {4}, {8}, {0, 1})]
    factors, x = [normal((5, 2, 2), seed=n) for n in range(9)], normal((512,))
    plan = terms_plan((2,) * 9, (2,) * 9, tuple(marks), 1, path="terms")
    order = [term for part in plan.parts for term in part.terms]
    assert order != np.argsort(order).tolist()
    to_factors, _ = ops.kron_matmul_vjp(factors, x, x, identities=marks, path="terms")
    expected, _ = ops.kron_matmul_vjp(factors, x, x, identities=marks, path="modes")
    for found, right in zip(to_factors, expected, strict=True):
        np.testing.assert_allclose(found, right, atol=1e-9)


def test_jax_traces_parts():
    jax = pytest.importorskip("jax")
    factors, x = [normal((3, 2, 2), "float32", seed=n) for n in range(4)], normal((16,), "float32")
    marks = [(1, 2, 3), (0, 2, 3), (0, 1)]

    def product(factors, x):
        return ops.kron_matmul(factors, x, identities=marks, path="terms")

    given_factors, given_x = [jax.numpy.asarray(f) for f in factors], jax.numpy.asarray(x)
    right = ops.kron_matmul_dense(factors, x, identities=marks)
    np.testing.assert_allclose(jax.jit(product)(given_factors, given_x), right, rtol=1e-4, atol=1e-5)
    gradients = jax.grad(lambda *arrays: product(*arrays).sum(), (0, 1))(given_factors, given_x)
    to_factors, _ = ops.kron_matmul_vjp(factors, x, np.ones(16, "float32"), identities=marks)
    for found, expected in zip(gradients[0], to_factors, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("piece", [1, 100, 1 << 18])
@pytest.mark.parametrize("count", [1, 3])
def test_pieces_and_threads_change_nothing(monkeypatch, piece, count):
    monkeypatch.setattr(term_products, "_PIECE", piece)
    monkeypatch.setattr(threads, "thread_count", lambda: count)
    monkeypatch.setattr(term_products.forward, "WORTH_THREADS", 1)
    # The first factors are oblong.
    h, dims = chain(5, X, np.kron(Z, Z)), [(2, 3), *[(2, 2)] * 4]
    factors = [normal((9, *dims[0])), *h.factors[1:]]
    marks = [known - {0} for known in h.term_identities]
    for shape, axis in (((2, 32), -1), ((32,), -1), ((32, 7), -2), ((3, 32, 5), -2)):
        x = normal(shape)
        right = ops.kron_matmul_dense(factors, x, axis=axis)
        for laid_out in (factors, [np.asfortranarray(f) for f in factors]):
            y = ops.kron_matmul(laid_out, x, axis=axis, identities=marks, path="terms")
            np.testing.assert_allclose(y, right, atol=1e-12)
    x = normal((32, 3))
    np.testing.assert_allclose(h @ x, h.to_dense() @ x, atol=1e-12)


def test_results_are_written_into_out():
    h = chain(6, X, np.kron(Z, Z))
    x = normal((64, 3))
    right = h.to_dense() @ x
    out = np.full((64, 3), np.nan)
    assert h.matmul(x, out=out) is out
    np.testing.assert_allclose(out, right)
    # `out` may overlap what goes in.
    assert h.matmul(x, out=x) is x
    np.testing.assert_allclose(x, right)
    out = np.full((3, 64), np.nan)
    np.testing.assert_allclose(h.rmatmul(right.T.copy(), out=out), right.T @ h.to_dense())
    # A crop leaves some of what the parts make out of `out`.
    cut, out = kc.KroneckerMatrix(h.factors, (50, 60), h.term_identities), np.full((50, 3), np.nan)
    assert cut.cost().path == "terms"
    assert cut.matmul(x[:60], out=out) is out
    np.testing.assert_allclose(out, cut.to_dense() @ x[:60])


@given(st.data())
def test_parts_hold_each_term_once_and_leave_alone_what_it_leaves(data):
    order, rank = data.draw(st.integers(1, 7)), data.draw(st.integers(2, 7))
    rows = data.draw(st.lists(st.integers(1, 5), min_size=order, max_size=order))
    columns = [data.draw(st.sampled_from((p, p, 3))) for p in rows]
    marks = data.draw(marks_of_terms(rows, columns, rank))
    plan = terms_plan(rows, columns, marks, data.draw(st.integers(1, 70)), path="terms")
    if isinstance(plan, MatmulPlan):
        assert len(set(marks)) == 1
        return
    assert sorted(term for part in plan.parts for term in part.terms) == list(range(rank))
    for part in plan.parts:
        assert list(part.terms) == sorted(part.terms)
        assert part.identities == tuple(marks[term] for term in part.terms)
        touched = {n for step in part.plan.steps for n in range(step.start, step.stop)}
        for known in part.identities:
            assert set(range(order)) - known <= touched
        if part.window is not None:
            assert len(part.plan.steps) == 1
            assert touched == set(range(*part.window))


def test_windows_of_a_chain():
    def windows(count, sites, **options):
        marks = tuple(frozenset(range(count)) - set(range(n, n + sites)) for n in range(count - sites + 1))
        return [part.window for part in terms_plan((2,) * count, (2,) * count, marks, 1, **options).parts]

    for count in (8, 12, 16):
        for sites in (2, 3):
            found = windows(count, sites)
            assert len(found) <= count // 2
            assert all(stop - start <= 6 for start, stop in found)
    # A term that reaches from end to end makes no window of all modes between.
    marks = tuple(frozenset(range(12)) - live for live in ({0, 1}, {1, 2}, {0, 11}))
    plan = terms_plan((2,) * 12, (2,) * 12, marks, 1, path="terms")
    assert [(part.window, part.terms) for part in plan.parts] == [((0, 3), (0, 1)), (None, (2,))]
    # Large modes are not merged.
    marks = frozenset({1}), frozenset({0})
    assert [part.window for part in terms_plan((90, 80), (90, 80), marks, 1).parts] == [(0, 1), (1, 2)]
    # Identities alone go with others.
    marks = frozenset({0, 1}), frozenset({1}), frozenset({0, 1})
    (part,) = terms_plan((2, 300), (2, 300), marks, 1, path="terms").parts
    assert part.terms == (0, 1, 2)


def test_all_terms_together_where_that_is_cheaper():
    marks = frozenset({0}), frozenset({1})
    for path in ("modes", "halves", "dense"):
        assert terms_plan((4, 4), (4, 4), marks, 1, path=path).path == path
    assert isinstance(terms_plan((64, 64), (64, 64), marks, 1), TermsPlan)
    pairs = tuple(frozenset(range(3)) - live for live in ({0, 1}, {0, 2}, {1, 2}))
    for batch in (1, 64):
        assert isinstance(terms_plan((5, 5, 5), (5, 5, 5), pairs * 3, batch), MatmulPlan)


def test_matrices_of_windows_come_from_few_calls_or_from_merging(monkeypatch):
    h, x = chain(7, X, np.kron(Z, Z)) + 3 * kc.eye((2,) * 7), normal((128,))
    right = h.to_dense() @ x
    plan = terms_plan(h.row_dims, h.col_dims, h.term_identities, 1)
    assert set(term_products._window_matrices(h.factors, plan)) == set(range(len(plan.parts)))
    np.testing.assert_allclose(h @ x, right)
    # Places of what is multiplied, of up to two modes a term, and of the results.
    places = 3 * len(term_products._recipe(plan, False).sources[0])
    for limit in (1, 100, places - 1):
        monkeypatch.setattr(term_products, "_PLACES", limit)
        term_products._recipe.cache_clear()
        assert not term_products._window_matrices(h.factors, plan)
        np.testing.assert_allclose(h @ x, right)
    monkeypatch.setattr(term_products, "_PLACES", places)
    term_products._recipe.cache_clear()
    assert term_products._window_matrices(h.factors, plan)


HAMILTONIANS = {
    "Ising": lambda n: chain(n, X, np.kron(Z, Z)),
    "Heisenberg": lambda n: chain(n, *(np.kron(s, s) for s in (X, Y, Z))),
    "three sites": lambda n: chain(n, np.kron(np.kron(Z, X), Z)),
}


@pytest.mark.parametrize("name", HAMILTONIANS)
def test_costs_are_those_of_the_windows(name):
    """Not those of R terms on N modes each, 23 * 12 * 4 * 2^12 for the first."""
    small, large = HAMILTONIANS[name](6), HAMILTONIANS[name](12)
    cost = large.cost("matmul", 1)
    assert cost.path == "terms"
    assert cost.flops <= 12 * 32 * 2**12
    assert small.cost("matmul", 10).flops < cost.flops
    x = normal((64, 2))
    np.testing.assert_allclose(small @ x, small.to_dense() @ x, atol=1e-12)
