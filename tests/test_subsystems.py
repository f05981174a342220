"""Modes as subsystems: traced out, permuted, embedded; against dense definitions."""

import copy
import pickle
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import Ket, KroneckerMatrix, Permutation
from ketcore.testing import assert_dense_equal, mode_dims, to_numpy
from tests.algebra_problems import TERMS, dense, kron, magnitude, partial_trace_dense, wide
from tests.generic import arrays, kronecker_matrices

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


@given(st.data())
def test_partial_trace(data):
    dims = data.draw(mode_dims(3, max_dim=3))
    m = data.draw(kronecker_matrices(row_dims=dims, col_dims=dims, cropped=False))
    where = data.draw(st.sampled_from([(0,), (1,), (2,), (0, 2), (2, 1), (-3,), ()]))
    found = kc.partial_trace(m, where)
    expected = partial_trace_dense(dense(m), dims, [n % 3 for n in where])
    scale = partial_trace_dense(magnitude(m), dims, [n % 3 for n in where])
    assert_dense_equal(found.to_dense(), expected, terms=TERMS, scale=scale, dtype=m.dtype)
    assert found.rank == m.rank


def test_partial_traces_keep_marks_where_they_are_true():
    m = KroneckerMatrix([np.eye(2), np.eye(3), np.ones((2, 2))], identities=[0, 1])
    assert kc.partial_trace(m, 0).identities == {0}
    found = kc.partial_trace(m, 2)
    assert found.identities == {1}
    np.testing.assert_allclose(found @ np.ones(6), 2 * np.ones(6))
    rectangular = KroneckerMatrix([np.eye(2), np.ones((3, 4))])
    np.testing.assert_allclose(kc.partial_trace(rectangular, 0).to_dense(), 2 * np.ones((3, 4)))


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_permuted_subsystems(order):
    m = KroneckerMatrix([draw(2, 2, 3), draw(2, 3, 1), draw(2, 4, 2)])
    v = Ket([draw(5, 2, 3), draw(5, 2, 1), draw(5, 2, 2)])
    rows, columns = Permutation(m.row_dims, order), Permutation(m.col_dims, order)
    expected = rows.to_dense() @ dense(m) @ columns.to_dense().T
    np.testing.assert_allclose(kc.permute_subsystems(m, order).to_dense(), expected)
    np.testing.assert_allclose(kc.permute_subsystems(v, order).to_dense(), dense(v) @ columns.to_dense().T)
    tensor = dense(v).reshape(5, *v.dims).transpose(0, *(n + 1 for n in order)).reshape(5, -1)
    np.testing.assert_allclose((columns @ v).to_dense(), tensor)


@given(st.data())
def test_permutations_are_matrices(data):
    dims = data.draw(mode_dims(3, max_size=24))
    p = Permutation(dims, data.draw(st.permutations(range(3))))
    a, size = p.to_dense(), int(np.prod(dims))
    assert sorted(map(tuple, a)) == sorted(map(tuple, np.eye(size)))
    x = RNG.standard_normal((2, size, 3))
    np.testing.assert_array_equal(p @ x, a @ x)
    np.testing.assert_array_equal(p @ x[0, :, 0], a @ x[0, :, 0])
    np.testing.assert_array_equal(x.swapaxes(1, 2) @ p, x.swapaxes(1, 2) @ a)
    np.testing.assert_array_equal(p.T.to_dense(), a.T)
    np.testing.assert_array_equal(p.H @ (p @ x), x)
    q = Permutation(p.T.dims, data.draw(st.permutations(range(3))))
    np.testing.assert_array_equal((q @ p).to_dense(), q.to_dense() @ a)
    assert (p @ np.arange(size)).dtype == np.int64
    for same in (copy.copy(p), pickle.loads(pickle.dumps(p))):
        assert (same.dims, same.order) == (p.dims, p.order)


def test_permutations_on_every_backend(xp):
    p, x = Permutation((2, 1, 3), (2, 0, 1)), np.arange(12.0, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(to_numpy(p @ xp.asarray(x)), p.to_dense() @ x)
    np.testing.assert_array_equal(to_numpy(p.to_dense(dtype="float32", like=xp.asarray(x))), p.to_dense())


def test_commutation_matrices():
    a, b = draw(2, 3), draw(4, 5)
    x = draw(2, 3)
    vec = lambda matrix: matrix.reshape(-1, order="F")  # noqa: E731
    np.testing.assert_array_equal(kc.commutation(2, 3) @ vec(x), vec(x.T))
    np.testing.assert_array_equal(kc.commutation(3, 2) @ x.reshape(-1), x.T.reshape(-1))
    turned = (kc.commutation(4, 2) @ np.kron(a, b)) @ kc.commutation(3, 5)
    np.testing.assert_allclose(turned, np.kron(b, a))
    s = kc.swap((2, 3, 2), 0, -1)
    v, w, u = draw(2), draw(3), draw(2)
    np.testing.assert_allclose(s @ kron(v, w, u), kron(u, w, v))
    np.testing.assert_array_equal((s @ s).to_dense(), np.eye(12))


def test_permuted_marks():
    m = KroneckerMatrix([np.eye(2), np.ones((2, 2)), np.ones((3, 3))], identities=[0])
    assert kc.permute_subsystems(m, (1, 2, 0)).identities == {2}
    np.testing.assert_allclose(kc.permute_subsystems(m, (2, 0, 1)) @ np.ones(12), 6 * np.ones(12))


def embedded(op, dims, where):
    """The definition: an identity on the rest beside `op`, and its axes moved to their places."""
    rest = [n for n in range(len(dims)) if n not in where]
    order = [*where, *rest]
    size = int(np.prod([dims[n] for n in rest]))
    tensor = np.kron(op, np.eye(size)).reshape([dims[n] for n in order] * 2)
    axes = np.argsort(order)
    total = int(np.prod(dims))
    return tensor.transpose(*axes, *(axes + len(dims))).reshape(total, total)


def rounding(dtype):
    """What products of one number per mode may be rounded by."""
    return 0.0 if np.dtype(dtype).itemsize == 2 else np.finfo(dtype).eps


@given(st.data())
def test_embed(data):
    dims = data.draw(mode_dims(3, max_dim=3))
    count = data.draw(st.integers(1, 3))
    where = data.draw(st.permutations(range(3)))[:count]
    size = int(np.prod([dims[n] for n in where]))
    op = data.draw(arrays((size, size)))
    found = kc.embed(op, dims, where)
    assert (found.row_dims, found.dtype) == (dims, op.dtype)
    assert found.identities == set(range(3)) - set(where)
    assert count > 1 or found.rank == 1
    expected = embedded(wide(op), dims, where)
    np.testing.assert_allclose(found.to_dense(), expected, rtol=16 * count * rounding(op.dtype))
    by_svd = kc.embed(op, dims, where, svd=True)
    scale = np.abs(expected).max() * size
    assert_dense_equal(by_svd.to_dense(), expected, terms=TERMS, scale=scale)
    assert count != 2 or by_svd.rank <= found.rank
    found = kc.embed(op, dims, where, linear=True)
    assert found.rank == (size // dims[where[-1]]) ** 2
    assert found.dtype == op.dtype
    np.testing.assert_array_equal(found.to_dense(), expected)


@given(st.data())
def test_embed_a_kronecker_matrix(data):
    where = data.draw(st.permutations(range(3)))[:2]
    dims = (2, 3, 2)
    inside = tuple(dims[n] for n in where)
    op = data.draw(kronecker_matrices(row_dims=inside, col_dims=inside, cropped=False))
    found = kc.embed(op, dims, where)
    assert found.rank == op.rank
    assert_dense_equal(found.to_dense(), embedded(dense(op), dims, where), terms=TERMS, scale=100.0)
    again = kc.embed(kc.eye(inside), dims, where)
    assert again.identities == {0, 1, 2}


def test_embed_on_every_backend(xp):
    op = RNG.standard_normal((4, 4)).astype(np.float32)
    expected = embedded(op, (2, 2, 2), (2, 0))
    for options in ({}, {"linear": True}):
        found = kc.embed(xp.asarray(op), (2, 2, 2), (2, 0), **options)
        np.testing.assert_array_equal(to_numpy(found.to_dense()), expected)
    found = kc.embed(xp.asarray(op), (2, 2, 2), (2, 0), svd=True)
    assert_dense_equal(found.to_dense(), expected, terms=TERMS, scale=10.0)


@pytest.mark.parametrize("options", [{}, {"linear": True}])
def test_gradients_of_an_embedded_gate(options):
    """Of one whose singular values coincide, which have no derivative, and which is mostly zero."""
    torch = pytest.importorskip("torch")
    gate = torch.eye(4, dtype=torch.float64)[[0, 1, 3, 2]].requires_grad_()
    x, y = RNG.standard_normal((2, 8))
    value = kc.embed(gate, (2, 2, 2), (2, 0), **options).sandwich(torch.tensor(y), torch.tensor(x))
    (found,) = torch.autograd.grad(value, gate)
    units = np.eye(16).reshape(4, 4, 4, 4)
    expected = [[y @ embedded(units[i, j], (2, 2, 2), (2, 0)) @ x for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(found, expected)


def test_traced_gates_are_split_without_a_look():
    jax = pytest.importorskip("jax")
    gate = np.eye(4, dtype=np.float32)[[0, 1, 3, 2]]
    found = jax.jit(lambda op: kc.embed(op, (2, 2), (0, 1)).to_dense())(gate)
    np.testing.assert_array_equal(found, gate)


def test_embedded_gates_have_their_operator_schmidt_rank():
    cnot, swap = np.eye(4)[[0, 1, 3, 2]], np.eye(4)[[0, 2, 1, 3]]
    toffoli = np.eye(8)[[0, 1, 2, 3, 4, 5, 7, 6]]
    pair = np.kron(cnot[:2, :2], cnot[2:, 2:])
    for op, count, rank in ((cnot, 2, 2), (swap, 2, 4), (pair, 2, 1), (toffoli, 3, 3)):
        for options in ({}, {"svd": True}):
            assert kc.embed(op, (2,) * 20, range(3, 3 + count), **options).rank == rank
    product = np.kron(draw(2, 2), draw(3, 3))
    assert kc.embed(product, (3, 2), (1, 0)).rank == 1
    assert kc.embed(np.zeros((4, 4)), (2, 2), (0, 1)).to_dense().tolist() == np.zeros((4, 4)).tolist()
    assert kc.embed(cnot.astype(np.float16), (2, 2), (0, 1)).dtype == np.float16
    # Far apart in size, all terms stay: only rounding is dropped.
    op = np.kron(np.diag([1.0, 0]), np.diag([1.0, 0])) + 1e-12 * np.kron(np.diag([0, 1.0]), np.diag([0, 1.0]))
    for options in ({}, {"svd": True}):
        found = kc.embed(op, (2, 2), (0, 1), **options)
        assert found.rank == 2
        np.testing.assert_allclose(found.to_dense(), op, rtol=1e-10)


def controlled(gate, last=False):
    """A gate that the first qubit controls, or the last one."""
    on, off = np.diag([0.0, 1.0]), np.eye(len(gate))
    pair = ((np.diag([1.0, 0.0]), off), (on, gate))
    return sum(np.kron(*(two[::-1] if last else two)) for two in pair)


# Gates of exact elements, and how many terms they have: no more than by their singular vectors.
X, Z, PHASE = np.eye(2)[::-1], np.diag([1.0, -1.0]), np.diag([1, np.exp(0.25j * np.pi)])
GATES = {
    "controlled Z": (controlled(Z), 2),
    "controlled Hadamard": (controlled((X + Z) / np.sqrt(2)), 2),
    "Hadamard, the last one controls": (controlled((X + Z) / np.sqrt(2), last=True), 2),
    "controlled phase": (controlled(PHASE, last=True), 2),
    "Toffoli, target first": (controlled(controlled(X, last=True), last=True), 3),
    "Fredkin": (controlled(np.eye(4)[[0, 2, 1, 3]]), 5),
    "iSWAP": (np.eye(4)[[0, 2, 1, 3]] * np.array([1, 1j, 1j, 1]), 4),
    "halves": (kron(np.full((2, 2), 0.5), Z, X), 1),
    "counted": (np.kron(np.diag([0.0, 1, 2, 3]), np.diag([0.0, 1, 2, 3])), 1),
    "diffusion": (np.full((8, 8), 0.25) - np.eye(8), 3),
}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128", "float16"])
def test_gates_of_exact_elements_are_split_exactly(name, dtype):
    gate, rank = GATES[name]
    gate = gate.astype(np.result_type(dtype, np.complex64) if np.iscomplexobj(gate) else dtype)
    dims = (4, 4) if name == "counted" else (2,) * (len(gate).bit_length() - 1)
    where = tuple(range(len(dims)))[::-1]
    found = kc.embed(gate, (*dims, 3), where)
    np.testing.assert_array_equal(found.to_dense(), embedded(gate, (*dims, 3), where))
    assert (found.rank, found.dtype) == (rank, gate.dtype)
    assert dtype == "float16" or kc.embed(gate, (*dims, 3), where, svd=True).rank >= min(rank, 2)


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_unlike_blocks_are_split_exactly(scale):
    """Of any elements: each is one product; blocks that are alike but for rounding share a term."""
    for dims in ((2, 2), (3, 2), (2, 2, 2), (1, 3)):
        op = draw(int(np.prod(dims)), int(np.prod(dims))) * scale
        np.testing.assert_array_equal(kc.embed(op, dims, range(len(dims))).to_dense(), op)
    for factors in ([draw(2, 2), draw(3, 3)], [draw(2, 2), draw(2, 2), draw(2, 2)]):
        op, dims = kron(*factors) * scale, tuple(map(len, factors))
        found = kc.embed(op, dims, range(len(dims)))
        assert found.rank == 1
        np.testing.assert_allclose(found.to_dense(), op, rtol=1e-14)
    # Where blocks are sums of multiples of others, singular vectors are fewer.
    phases = np.diag(np.exp(0.3j * np.diag(kron(Z, Z, Z))))
    pair = np.kron(draw(3, 3), draw(3, 3)) + np.kron(draw(3, 3), draw(3, 3))
    for op, dims, exact in ((phases, (2, 2, 2), 4), (pair, (3, 3), 9)):
        found = kc.embed(op * scale, dims, range(len(dims)))
        np.testing.assert_array_equal(found.to_dense(), op * scale)
        assert found.rank == exact
        assert kc.embed(op * scale, dims, range(len(dims)), svd=True).rank == 2
    # Blocks of the same elements in size, but no multiples.
    assert kc.embed(np.diag([1.0, 2.0, 1.0, -2.0]), (2, 2), (0, 1)).rank == 2


def test_numbers_of_sixteen_bits_are_rounded_once():
    """Rows are multiples of one another only by numbers that the storage holds."""
    for a, b in RNG.integers(3, 2000, (40, 2)):
        op = np.diag([a, 0, b, 0]).astype(np.float16)
        np.testing.assert_array_equal(kc.embed(op, (2, 2), (0, 1)).to_dense(), op)


def test_embed_in_bfloat16():
    torch = pytest.importorskip("torch")
    for op in (controlled(X), RNG.standard_normal((4, 4)), np.kron(Z, 3 * X)):
        gate = torch.tensor(op).to(torch.bfloat16)
        found = kc.embed(gate, (2, 2), (0, 1))
        assert found.dtype == torch.bfloat16
        assert bool((found.to_dense() == gate).all())


def test_embed_operators_of_other_kinds():
    a, b = draw(2, 2), draw(3, 3)
    s, p = kc.KroneckerSum([a, b]), kc.KroneckerProduct([a, kc.Diagonal(np.arange(1.0, 4.0))])
    for op in (s, p):
        found = kc.embed(op, (3, 2, 2), (2, 0))
        np.testing.assert_allclose(found.to_dense(), embedded(dense(op), (3, 2, 2), (2, 0)))


def test_a_circuit_of_embedded_gates():
    """Three gates on four qubits: a product of operators, and of an operator with states, dense or not."""
    hadamard, cnot = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2), np.eye(4)[[0, 1, 3, 2]]
    dims = (2,) * 4
    gates = [kc.embed(hadamard, dims, 3), kc.embed(cnot, dims, (3, 0)), kc.embed(cnot, dims, (0, 2))]
    state = kc.ket(*[[1.0, 0.0]] * 4)
    dense_state, whole = state.to_dense(), kc.eye(dims)
    for gate in gates:
        state, dense_state, whole = gate @ state, gate @ dense_state, gate @ whole
    assert whole.identities == {1}
    expected = np.zeros(16)
    expected[[0b0000, 0b1011]] = np.sqrt(0.5)
    np.testing.assert_allclose(dense_state, expected, atol=1e-12)
    np.testing.assert_allclose(state.to_dense(), expected, atol=1e-12)
    np.testing.assert_allclose(whole[:, 0], expected, atol=1e-12)
