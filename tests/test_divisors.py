"""Dims for a number: exact and balanced where the definition finds such dims, and in no time at any size."""

from math import prod
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore import divisors, suggest_dims
from ketcore.shapes import integer_root


def factorisations(n, order, least=1):
    """All ascending dims of product n."""
    if order == 1:
        return [(n,)] if n >= least else []
    found = []
    for dim in range(least, n + 1):
        if dim**order > n:
            break
        if n % dim == 0:
            found += [(dim, *others) for others in factorisations(n // dim, order - 1, dim)]
    return found


def defined(n, order):
    """The least last dim of balanced ones, then the largest first, second, ...; else the least padding."""
    exact = [dims for dims in factorisations(n, order) if dims[-1] <= 2 * dims[0]]
    if exact:
        return min(exact, key=lambda dims: (dims[-1], [-dim for dim in dims]))
    root = integer_root(n, order)
    padded = [(root,) * (order - j) + (root + 1,) * j for j in range(order + 1)]
    return next(dims for dims in padded if prod(dims) >= n)


@pytest.mark.parametrize("order", range(1, 9))
def test_small_numbers(order):
    for n in range(1, 1500):
        assert suggest_dims(n, order) == defined(n, order), n


@given(st.integers(1, 10**5), st.integers(1, 8))
def test_ordinary_numbers(n, order):
    assert suggest_dims(n, order) == defined(n, order)


@given(st.lists(st.integers(2, 40), min_size=1, max_size=6), st.integers(1, 5))
def test_products_of_balanced_dims_are_found(dims, order):
    """What has balanced dims gets such, whatever else divides it."""
    low = max(dims)
    dims = sorted(low + dim % (low + 1) for dim in (dims * order)[:order])
    found = suggest_dims(prod(dims), order)
    assert prod(found) == prod(dims)
    assert list(found) == sorted(found)
    assert (found[-1] <= dims[-1] and found[-1] <= 2 * found[0]) or order == 1


POWERS = st.tuples(*(st.integers(0, most) for most in (60, 40, 20, 12, 8, 6)))


@given(POWERS, st.integers(1, 40))
def test_highly_composite_numbers_end(powers, order):
    n = prod(p**power for p, power in zip((2, 3, 5, 7, 11, 13), powers, strict=True))
    start = perf_counter()
    dims = suggest_dims(n, order)
    assert perf_counter() - start < 2
    assert len(dims) == order
    assert prod(dims) >= n
    if prod(dims) == n and order > 1:
        assert dims[-1] <= 2 * dims[0]
    else:
        assert dims[-1] - dims[0] <= 1


def test_numbers_with_exact_dims_that_took_hours():
    n = 2**30 * 3**20 * 5**10 * 7**5
    for order in (8, 12, 16, 20):
        dims = suggest_dims(n, order)
        assert prod(dims) == n
        assert dims[-1] <= 2 * dims[0]


@pytest.mark.parametrize("order", [2, 3, 5])
def test_large_primes_end(order):
    for n in (2**61 - 1, 2**127 - 1, (2**61 - 1) * (2**31 - 1), (2**31 - 1) ** order):
        start = perf_counter()
        dims = suggest_dims(n, order)
        assert perf_counter() - start < 2
        assert prod(dims) >= n
    assert dims == (2**31 - 1,) * order


def test_a_search_that_ends_early_gives_what_it_found(monkeypatch):
    monkeypatch.setattr(divisors, "_STEPS", 40)
    n = 720720**3
    assert prod(suggest_dims(n, 9)) == n
    monkeypatch.setattr(divisors, "_ALL_STEPS", 0)
    dims = suggest_dims(n, 9)
    assert dims[-1] - dims[0] <= 1
    monkeypatch.setattr(divisors, "_MOST_DIVISORS", 1)
    assert suggest_dims(n, 9) == dims
