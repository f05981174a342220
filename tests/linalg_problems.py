"""Kronecker products whose condition is known, and what the tests of linalg share."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import strategies as st

import ketcore as kc
from ketcore.testing import assert_dense_equal, dtypes, mode_dims, to_numpy, tolerance

# The libraries besides NumPy; the simulated CUDA of the other tests runs no kernel here.
LIBRARIES = ("numpy-awkward", "array-api-strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu))
each_library = pytest.mark.parametrize("xp", LIBRARIES, indirect=True)

# Singular values of a factor lie in [1 / 2, 2], so that a product of three has a condition of at most this.
CONDITION = 64.0
# Results add up about so many roundings of their largest element, times the condition.
TERMS = 100


def unitary(rng, size, dtype):
    """A random orthogonal or unitary matrix, in the wide dtype."""
    values = rng.standard_normal((size, size))
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal((size, size))
    return np.linalg.qr(values)[0]


def matrix_of(rng, rows, columns, dtype, kind):
    """A factor with singular values in [1 / 2, 2], or one of zero where it is singular."""
    least = min(rows, columns)
    values = rng.uniform(0.5, 2.0, least)
    if kind == "singular":
        values[-1] = 0.0
    left = unitary(rng, rows, dtype)[:, :least]
    if kind in ("hermitian", "positive", "singular hermitian"):
        signs = rng.choice([-1.0, 1.0], least) if kind == "hermitian" else np.ones(least)
        if kind == "singular hermitian":
            values[-1] = 0.0
        found = (left * (values * signs)) @ left.conj().T
        found = (found + found.conj().T) / 2
    else:
        found = (left * values) @ unitary(rng, columns, dtype)[:least]
    return found.astype(dtype)


@st.composite
def product_factors(draw, kind="general", square=True, dtype=None, max_size=24, orders=(1, 2, 3)):
    """The factors (p_n, q_n) of one product."""
    order = draw(st.sampled_from(orders))
    rows = draw(mode_dims(order, max_dim=4, max_size=max_size))
    columns = rows if square else draw(mode_dims(order, max_dim=4, max_size=max_size))
    dtype = draw(dtypes()) if dtype is None else dtype
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [matrix_of(rng, p, q, dtype, kind) for p, q in zip(rows, columns, strict=True)]


def made(xp, factors):
    """The product in the library under test."""
    return kc.KroneckerMatrix([xp.asarray(f) for f in factors])


def dense(factors):
    """The product of NumPy factors in 64 bits."""
    wide = [f.astype(np.complex128 if f.dtype.kind == "c" else np.float64) for f in factors]
    return reduce(np.kron, wide)


def dense_sum(factors):
    """The Kronecker sum of NumPy factors in 64 bits."""
    wide = [f.astype(np.complex128 if f.dtype.kind == "c" else np.float64) for f in factors]
    sizes = [len(f) for f in wide]
    total = 0
    for n, factor in enumerate(wide):
        parts = [factor if m == n else np.eye(size) for m, size in enumerate(sizes)]
        total = total + reduce(np.kron, parts)
    return total


def values_of(x):
    """A ket or matrix of any library as a NumPy array."""
    return to_numpy(x.to_dense())


def near(actual, expected, scale=None, dtype=None, like=None):
    """Assert equality to some roundings of `scale`, by default CONDITION times the largest element.

    dtype   that `actual` must have
    like    whose precision counts, by default the dtype of `actual`
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    scale = CONDITION * np.abs(expected).max(initial=0.0) if scale is None else scale
    if like is not None:
        scale = scale * tolerance(like, TERMS) / tolerance(actual.dtype, TERMS)
    assert_dense_equal(actual, expected, terms=TERMS, scale=scale, dtype=dtype)


def same_multiset(actual, expected, allowed):
    """Assert that two lists of complex numbers hold the same values, each once."""
    actual, rest = list(np.ravel(actual)), list(np.ravel(expected))
    assert len(actual) == len(rest)
    for value in actual:
        gaps = [abs(value - other) for other in rest]
        best = int(np.argmin(gaps))
        assert gaps[best] <= allowed, (value, rest[best], allowed)
        rest.pop(best)
