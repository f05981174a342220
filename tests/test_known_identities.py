"""What matrices know of the identities of each term, after every operation that makes one of others."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import testing
from tests import generic
from tests.matmul_problems import X, Z, chain, marks_of_terms, normal


def assert_true(matrix):
    """Every factor that counts as an identity is one."""
    assert len(matrix.term_identities) == matrix.rank
    for n, factor in enumerate(matrix.factors):
        for known, values in zip(matrix.term_identities, factor, strict=True):
            if n in known:
                np.testing.assert_array_equal(values, np.eye(len(values)))
    assert matrix.identities == set(range(matrix.order)).intersection(*matrix.term_identities)


@st.composite
def marked_matrices(draw, dims=(2, 3, 2), uncropped=False):
    """Sums of terms on few modes, which know it; some are cropped."""
    rank = draw(st.integers(1, 3))
    marks = draw(marks_of_terms(dims, dims, rank))
    factors = [draw(generic.arrays((rank, p, p), "float64")) for p in dims]
    for n, factor in enumerate(factors):
        factor[[n in known for known in marks]] = np.eye(dims[n])
    shape = None if uncropped else draw(testing.crops(int(np.prod(dims)), int(np.prod(dims))))
    return kc.KroneckerMatrix(factors, shape, marks)


@given(marked_matrices(), st.integers(0, 99))
def test_one_matrix(m, seed):
    dense = m.to_dense()
    x = np.random.default_rng(seed).standard_normal((m.shape[1], 2))
    for found, right in (
        (m, dense),
        (m.T, dense.T),
        (m.H, dense.T),
        (m.conj(), dense),
        (m.astype("float64"), dense),
        (2.0 * m, 2 * dense),
        (m / 4, dense / 4),
        (-m, -dense),
        (1j * m, 1j * dense),
        (m.balance(), dense),
        (m + m, 2 * dense),
        (m - 3 * m, -2 * dense),
        (copy.deepcopy(m), dense),
        (pickle.loads(pickle.dumps(m)), dense),
    ):
        assert_true(found)
        np.testing.assert_allclose(found.to_dense(), right, atol=1e-12)
        if found.shape == m.shape:
            np.testing.assert_allclose(found @ x, right @ x, atol=1e-10)
    for same in (m.T, m.conj(), m.astype("complex64"), copy.copy(m), pickle.loads(pickle.dumps(m))):
        assert same.term_identities == m.term_identities
    assert (m + m).term_identities == m.term_identities * 2
    assert np.isclose(m.trace(), np.trace(dense))
    assert np.isclose(m.norm(), np.linalg.norm(dense))


@given(marked_matrices(uncropped=True), marked_matrices(uncropped=True))
def test_two_matrices(a, b):
    left, right = a.to_dense(), b.to_dense()
    for found, expected in (
        (a + b, left + right),
        (a - b, left - right),
        (a @ b, left @ right),
        (kc.hadamard(a, b), left * right),
        (a.kron(b), np.kron(left, right)),
        (kc.permute_subsystems(a, (2, 0, 1)) @ kc.permute_subsystems(b, (2, 0, 1)), None),
        (kc.partial_trace(a, 1), np.einsum("iajkal->ijkl", left.reshape((2, 3, 2) * 2)).reshape(4, 4)),
        (kc.partial_trace(a @ b, (0, 2)), None),
        (kc.embed(a, (2, 2, 3, 2), (3, 2, 1)), None),
    ):
        assert_true(found)
        if expected is not None:
            np.testing.assert_allclose(found.to_dense(), expected, atol=1e-12)
        x = normal((found.shape[1],))
        np.testing.assert_allclose(found @ x, found.to_dense() @ x, atol=1e-9)
    assert np.isclose(a.inner(b), np.vdot(left, right))


@given(marked_matrices(uncropped=True), st.sampled_from([(6, 2), (2, 6), (12,)]), st.booleans())
def test_matrices_that_are_split_otherwise(a, dims, marked):
    rank = 2
    factors = [np.stack([np.eye(p)] * rank) for p in dims]
    if not marked:
        factors[0] = normal(factors[0].shape)
    known = [frozenset(range(not marked, len(dims)))] * rank
    b = kc.KroneckerMatrix(factors, identities=known)
    for found, expected in (
        (a + b, a.to_dense() + b.to_dense()),
        (b @ a, b.to_dense() @ a.to_dense()),
        (a @ b, a.to_dense() @ b.to_dense()),
    ):
        assert_true(found)
        np.testing.assert_allclose(found.to_dense(), expected, atol=1e-12)


def test_what_is_known_stays_known():
    h = chain(5, X, np.kron(Z, Z))
    lives = [set(range(5)) - known for known in h.term_identities]
    assert lives == [{0}, {1}, {2}, {3}, {4}, {0, 1}, {1, 2}, {2, 3}, {3, 4}]
    for same in (h.T, 3 * h, -h, h / 2, h.H, h.astype("complex64"), 1j * h):
        assert same.term_identities == h.term_identities
    # Of the product of two terms what both leave alone; the right term counts first.
    squared = h @ h
    assert squared.term_identities == tuple(a & b for b in h.term_identities for a in h.term_identities)
    squared = kc.hadamard(h, h)
    assert squared.term_identities == tuple(a & b for a in h.term_identities for b in h.term_identities)
    pair = h.kron(kc.eye((2,)))
    assert pair.term_identities == tuple(known | {5} for known in h.term_identities)
    turned = kc.permute_subsystems(h, (4, 3, 2, 1, 0))
    assert turned.term_identities == tuple(frozenset(4 - n for n in known) for known in h.term_identities)
    # A term that is traced out becomes a number, which a mode has to carry.
    traced = kc.partial_trace(h, 4)
    assert [set(range(4)) - known for known in traced.term_identities] == [
        *({0}, {1}, {2}, {3}, {0}),
        *({0, 1}, {1, 2}, {2, 3}, {3}),
    ]
    embedded = kc.embed(h, (2,) * 7, (6, 0, 1, 2, 3))
    assert embedded.term_identities[0] == set(range(6))
    assert kc.KroneckerSum([X, Z, X]).to_kronecker().term_identities == ({1, 2}, {0, 2}, {0, 1})
    assert (h + 2 * kc.eye((2,) * 5)).term_identities[-1] == {1, 2, 3, 4}
    with pytest.raises(AttributeError):
        h.term_identities = ()


def test_a_sum_of_identities_is_none():
    two = kc.eye((3,)) + kc.eye((3,))
    for found, number in (
        (kc.linalg.inv(two), 0.5),
        (kc.linalg.expm(two), np.exp(2.0)),
        (two, 2.0),
        (3 * two, 6.0),
        (two - kc.eye((3,)), 1.0),
    ):
        np.testing.assert_allclose(found @ np.ones(3), np.full(3, number))


def test_no_terms():
    zero = kc.KroneckerMatrix([np.zeros((0, 2, 2))] * 2, identities=[0])
    assert zero.term_identities == ()
    assert zero.identities == set()
    for same in (zero, 2 * zero, zero.T, zero + zero, zero @ zero, kc.partial_trace(zero, 0)):
        assert not (same @ np.ones(same.shape[1])).any()
    assert (1j * zero).dtype == np.complex128


@given(marked_matrices(), st.integers(0, 99))
def test_sandwiches_do_not_read_what_is_known(m, seed):
    rng, dense = np.random.default_rng(seed), m.to_dense()
    x, y = (rng.standard_normal((3, size)) + 1j * rng.standard_normal((3, size)) for size in m.shape)
    expected = np.sum(x.conj() * (y @ dense.T), axis=-1)
    factors = [np.array(f) for f in m.factors]
    for k, known in enumerate(m.term_identities):
        for n in known:
            factors[n][k] = np.nan
    spoiled = kc.KroneckerMatrix(factors, m.shape, m.term_identities) if m.identities else m
    for matrix in (m, spoiled if m.shape == dense.shape == (12, 12) else m):
        testing.assert_dense_equal(matrix.sandwich(x, y), expected, terms=200, scale=20 + np.abs(expected))


def test_sandwiches_of_16_bits_are_summed_in_32():
    """The sum of so many ones, one by one in float16, would end at 2048."""
    m = kc.kron(kc.eye(2**14, dtype="float16"), np.ones((1, 1), "float16"))
    x = np.full(2**14, 0.5, "float16")
    assert any(m.term_identities)
    found = m.sandwich(x, x)
    assert (float(found), found.dtype) == (2.0**12, "float16")
    tiny = np.full(2**14, 2.0**-13, "float16")
    # Each product is below the least number of float16.
    assert float(m.sandwich(tiny, tiny)) == 2.0**-12
