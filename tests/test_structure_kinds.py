"""Subsystems of every kind of operator, and of kets; elementwise products; against dense definitions."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import Diagonal, Identity, Ket, KroneckerMatrix, KroneckerProduct, KroneckerSum
from ketcore.testing import arrays, assert_dense_equal, dtypes, kets, kronecker_matrices, mode_dims, to_numpy
from tests.algebra_problems import TERMS, dense, magnitude, partial_trace_dense

RNG = np.random.default_rng(5)


def draw(*shape):
    return RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)


def partial_transpose_dense(a, row_dims, col_dims, where):
    """The array of all digits, with the row and the column digit of some modes exchanged."""
    tensor, order = a.reshape(*row_dims, *col_dims), len(row_dims)
    for n in where:
        tensor = tensor.swapaxes(n, order + n)
    return tensor.reshape(int(np.prod(tensor.shape[:order])), -1)


def permuted_dense(a, row_dims, col_dims, order):
    tensor, count = a.reshape(*row_dims, *col_dims), len(order)
    tensor = tensor.transpose(*order, *(count + n for n in order))
    return tensor.reshape(int(np.prod(tensor.shape[:count])), -1)


def as_array(found):
    return to_numpy(found.to_dense() if hasattr(found, "to_dense") else found)


@st.composite
def parts_of(draw_, size, dtype):
    """A square part of any kind."""
    kind = draw_(st.sampled_from(["dense", "diagonal", "identity", "sparse", "empty"]))
    if kind == "identity":
        return Identity(size)
    if kind == "diagonal":
        return Diagonal(draw_(arrays((size,), dtype)))
    if kind == "empty":
        return scipy.sparse.csr_array((size, size), dtype=dtype)
    matrix = draw_(arrays((size, size), dtype))
    return matrix if kind == "dense" else scipy.sparse.csr_array(matrix * (matrix.real > 0))


FLOATS = st.sampled_from(["float32", "float64", "complex64", "complex128"])


@st.composite
def square_operators(draw_, dims):
    """A matrix, sum, or product of square modes, and the scale of its rounding."""
    kind = draw_(st.sampled_from(["matrix", "sum", "product"]))
    if kind == "matrix":
        return draw_(kronecker_matrices(row_dims=dims, col_dims=dims, cropped=False))
    if kind == "sum":
        dtype = draw_(dtypes())
        return KroneckerSum([draw_(arrays((n, n), dtype)) for n in dims])
    return KroneckerProduct([draw_(parts_of(n, draw_(FLOATS))) for n in dims])


@given(st.data())
def test_partial_traces_of_every_kind(data):
    dims = data.draw(mode_dims(3, max_dim=3))
    operator = data.draw(square_operators(dims))
    where = data.draw(st.sampled_from([(), (0,), (1,), (2,), (0, 2), (2, 1), (-3,), (0, 1, 2), (2, -3, 1)]))
    found = kc.partial_trace(operator, where)
    modes = [n % 3 for n in where]
    expected, scale = (partial_trace_dense(f(operator), dims, modes) for f in (dense, magnitude))
    assert_dense_equal(as_array(found), expected, terms=TERMS, scale=scale.max(), dtype=operator.dtype)
    assert found.dtype == operator.dtype
    assert len(modes) == 3 or type(found) is type(operator)


@given(st.data())
def test_partial_traces_of_kets(data):
    dims = data.draw(mode_dims(3, max_dim=3))
    ket = data.draw(kets(dims=dims, batch_shape=()))
    where = data.draw(st.sampled_from([(), (0,), (1,), (2,), (0, 2), (2, 1), (-3,), (0, 1, 2)]))
    found = kc.partial_trace(ket, where)
    vector, size = dense(ket), magnitude(ket)
    expected = partial_trace_dense(np.outer(vector, vector.conj()), dims, [n % 3 for n in where])
    scale = max(np.sum(size * size), 0.0)
    assert_dense_equal(as_array(found), expected, terms=TERMS, scale=scale, dtype=ket.dtype)
    assert found.dtype == ket.dtype
    assert len(where) == 3 or found.rank == ket.rank**2
    column = ket.to_column()
    np.testing.assert_array_equal(dense(column)[:, 0], vector)
    again = column.T.row_kets(0)
    np.testing.assert_array_equal(again.packed, ket.packed)
    assert again.dims == dims
    assert_dense_equal(ket.projector().to_dense(), np.outer(vector, vector.conj()), terms=TERMS, scale=scale)


def test_a_reduced_density_matrix_of_many_modes():
    """Of the W state of 40 qubits: one excitation, found among the first two or not."""
    up, down = np.eye(2)
    count = 40
    leaves = [np.array([up if n == at else down for at in range(count)]) for n in range(count)]
    w = Ket(leaves)
    found = kc.partial_trace(w / count**0.5, range(2, count))
    expected = np.zeros((4, 4))
    expected[1:3, 1:3], expected[3, 3] = 1 / count, 1 - 2 / count
    np.testing.assert_allclose(found.to_dense(), expected, atol=1e-12)
    np.testing.assert_allclose(kc.partial_trace(w, range(count)), count)
    np.testing.assert_allclose(w.projector().trace(), count)


@given(st.data())
def test_transposed_and_permuted_modes_of_every_kind(data):
    dims = data.draw(mode_dims(3, max_dim=3))
    operator = data.draw(square_operators(dims))
    where = data.draw(st.sampled_from([(), (0,), (1,), (0, 2), (-1, 1), (0, 1, 2)]))
    found = kc.partial_transpose(operator, where)
    expected = partial_transpose_dense(dense(operator), dims, dims, [n % 3 for n in where])
    np.testing.assert_array_equal(dense(found), expected)
    assert (type(found), found.dtype) == (type(operator), operator.dtype)
    order = data.draw(st.permutations(range(3)))
    found = kc.permute_subsystems(operator, order)
    np.testing.assert_allclose(dense(found), permuted_dense(dense(operator), dims, dims, order), rtol=1e-12)
    assert (type(found), found.dtype) == (type(operator), operator.dtype)


def test_rectangular_modes_are_transposed():
    m = KroneckerMatrix([draw(2, 2, 3), draw(2, 4, 1), draw(2, 2, 2)])
    p = KroneckerProduct(
        [draw(2, 3), scipy.sparse.csr_array(np.array([[1.0, 0.0, 2.0]])), Diagonal([1.0, 2.0])]
    )
    for operator in (m, p):
        found = kc.partial_transpose(operator, (0, 1))
        expected = partial_transpose_dense(dense(operator), operator.row_dims, operator.col_dims, (0, 1))
        np.testing.assert_array_equal(dense(found), expected)
        order = (2, 0, 1)
        expected = permuted_dense(dense(operator), operator.row_dims, operator.col_dims, order)
        np.testing.assert_allclose(dense(kc.permute_subsystems(operator, order)), expected)
    marked = KroneckerMatrix([np.eye(2), draw(1, 2, 3)], identities=[0])
    assert kc.partial_transpose(marked, (0, 1)).identities == {0}


def test_permuted_permutations():
    p = kc.Permutation((2, 1, 3), (2, 0, 1))
    for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0)):
        expected = permuted_dense(p.to_dense(), p.T.dims, p.dims, order)
        np.testing.assert_array_equal(kc.permute_subsystems(p, order).to_dense(), expected)


@given(st.data())
def test_elementwise_products_of_every_kind(data):
    dims = data.draw(mode_dims(2, max_dim=3))
    left, right = data.draw(square_operators(dims)), data.draw(square_operators(dims))
    found = kc.hadamard(left, right)
    scale = (magnitude(left) * magnitude(right)).max()
    dtype = np.result_type(left.dtype, right.dtype)
    assert_dense_equal(as_array(found), dense(left) * dense(right), terms=TERMS, scale=scale, dtype=dtype)
    assert found.dtype == dtype
    both = isinstance(left, KroneckerProduct) and isinstance(right, KroneckerProduct)
    assert type(found) is (KroneckerProduct if both else KroneckerMatrix)


def test_parts_keep_their_kinds():
    a, sparse = draw(3, 3), scipy.sparse.csr_array(np.diag([1.0, 0.0, 2.0], 0))
    kinds = {"dense": a, "diagonal": Diagonal([1.0, 2.0, 3.0]), "identity": Identity(3), "sparse": sparse}
    order = ["identity", "diagonal", "sparse", "dense"]
    for one, first in kinds.items():
        for two, second in kinds.items():
            (part,) = kc.hadamard(KroneckerProduct([first]), KroneckerProduct([second])).parts
            least = order[min(order.index(one), order.index(two))]
            wanted = {"identity": Diagonal, "diagonal": Diagonal, "dense": np.ndarray}.get(least)
            wanted = Identity if one == two == "identity" else wanted
            assert isinstance(part, wanted) if wanted else scipy.sparse.issparse(part)
    p = KroneckerProduct([Identity(10**9), sparse, Identity(2), a])
    found = kc.partial_trace(p, (0, 3))
    assert scipy.sparse.issparse(found.parts[0])
    assert isinstance(found.parts[1], Identity)
    expected = np.kron(sparse.toarray(), np.eye(2)) * 1e9 * np.trace(a)
    np.testing.assert_allclose(found.to_dense(), expected)
    found = kc.partial_trace(KroneckerProduct([Identity(5), Identity(3), Identity(10**9)]), 0)
    assert isinstance(found.parts[0], Diagonal)
    assert found.parts[0].values.tolist() == [5.0] * 3
    assert isinstance(found.parts[1], Identity)
    assert float(kc.partial_trace(Diagonal([1.0, 2.0]), 0)) == 3.0
    assert kc.hadamard(Identity(2), Diagonal([1.0, 2.0])).to_dense().tolist() == [[1.0, 0.0], [0.0, 2.0]]


def test_linear_operators_are_parts_as_others():
    a, b = RNG.standard_normal((3, 3)), draw(2, 2)
    linear = scipy.sparse.linalg.aslinearoperator(a)
    for part, matrix in ((linear, a), (kc.Permutation((3,), (0,)), np.eye(3)), (KroneckerMatrix([a]), a)):
        for other, own in ((Identity(2), np.eye(2)), (b, b), (Diagonal([1.0, 2.0]), np.diag([1.0, 2.0]))):
            p, whole = KroneckerProduct([part, other]), np.kron(matrix, own)
            np.testing.assert_allclose(kc.partial_trace(p, 0).to_dense(), np.trace(matrix) * own)
            np.testing.assert_allclose(kc.partial_trace(p, 1).to_dense(), np.trace(own) * matrix)
            np.testing.assert_allclose(kc.partial_trace(p, (0, 1)), np.trace(whole))
            np.testing.assert_allclose(kc.partial_transpose(p, 0).to_dense(), np.kron(matrix.T, own))
            np.testing.assert_allclose(kc.permute_subsystems(p, (1, 0)).to_dense(), np.kron(own, matrix))
            for second in (p, KroneckerProduct([a, b]), KroneckerProduct([Diagonal([1.0, 2.0, 3.0]), b])):
                found = kc.hadamard(p, second).to_dense()
                np.testing.assert_allclose(found, whole * second.to_dense())
                np.testing.assert_allclose(kc.hadamard(second, p).to_dense(), found)


def test_sums_stay_sums():
    a, b, c = draw(2, 2), draw(3, 3), draw(4, 4)
    found = kc.partial_trace(KroneckerSum([a, b, c]), 1)
    assert isinstance(found, KroneckerSum)
    assert found.dims == (2, 4)
    np.testing.assert_allclose(found.factors[0], 3 * a + np.trace(b) * np.eye(2))
    np.testing.assert_allclose(found.factors[1], 3 * c)
    many = KroneckerSum([np.eye(2)] * 70)
    assert float(kc.partial_trace(many, range(70))) == 70 * 2.0**70


@pytest.mark.parametrize(("big", "small"), [(1e200, 1e-200), (1e-200, 1e200)])
def test_nothing_leaves_the_range_before_the_result_does(big, small):
    v, plain = Ket([[big, 0.0], [small, small]]), Ket([[1.0, 0.0], [1.0, 1.0]])
    for where in ((), 0, 1, (0, 1)):
        expected = as_array(kc.partial_trace(plain, where))
        np.testing.assert_allclose(as_array(kc.partial_trace(v, where)), expected)
    a = np.array([[1.0, 2.0], [3.0, 4.0]])
    p, q = (KroneckerProduct([a * s, Diagonal([1.0, 2.0]), a / s]) for s in (big, 1.0))
    np.testing.assert_allclose(kc.partial_trace(p, 0).to_dense(), kc.partial_trace(q, 0).to_dense())
    np.testing.assert_allclose(kc.hadamard(p, p).to_dense(), kc.hadamard(q, q).to_dense())


def test_half_precision_is_storage():
    v = Ket([np.full((1, 4), 200.0, np.float16), np.full((1, 4), 1 / 128, np.float16)])
    found = kc.partial_trace(v, 0)
    assert found.dtype == np.float16
    assert found.to_dense().tolist() == np.full((4, 4), np.float16(160000 / 128**2)).tolist()
    a, b = np.full((4, 4), 200.0, np.float16), np.full((2, 2), 1 / 1024, np.float16)
    p = KroneckerProduct([a, a, b])
    found = kc.partial_trace(p, 0)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.to_dense().astype(float), 800 * 200 / 1024, rtol=1e-3)
    assert kc.hadamard(p, p).dtype == np.float16


def test_every_backend(xp):
    def array(*shape):
        return xp.asarray(RNG.standard_normal(shape).astype(np.float32))

    def compared(found, expected):
        found = as_array(found)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    v, where = Ket([array(2, 2), array(2, 3)]), (0, 1)
    vector, dims = to_numpy(v.to_dense()), (2, 3)
    compared(kc.partial_trace(v, 1), partial_trace_dense(np.outer(vector, vector), dims, (1,)))
    compared(kc.partial_trace(v, where), vector @ vector)
    compared(v.to_column(), vector[:, None])
    kinds = KroneckerSum([array(2, 2), array(3, 3)]), KroneckerProduct([array(2, 2), Diagonal(array(3))])
    for operator in kinds:
        whole = to_numpy(operator.to_dense())
        for n in where:
            compared(kc.partial_trace(operator, n), partial_trace_dense(whole, dims, (n,)))
            compared(kc.partial_transpose(operator, n), partial_transpose_dense(whole, dims, dims, (n,)))
        compared(kc.partial_trace(operator, where), np.trace(whole))
        compared(kc.hadamard(operator, operator), whole * whole)
        compared(kc.permute_subsystems(operator, (1, 0)), permuted_dense(whole, dims, dims, (1, 0)))


def test_gradients_of_a_purity():
    """tr(rho^2) of a part of a ket, by PyTorch and by differences."""
    torch = pytest.importorskip("torch")
    leaves = [RNG.standard_normal((2, n)) for n in (2, 3)]

    def purity(first, second):
        rho = kc.partial_trace(Ket([first, second]), 1)
        return rho.inner(rho)

    tensors = [torch.tensor(leaf, requires_grad=True) for leaf in leaves]
    assert torch.autograd.gradcheck(purity, tensors)


@pytest.mark.parametrize(
    ("operation", "error", "message"),
    [
        (
            lambda v, p: KroneckerMatrix(v),
            TypeError,
            r"factors must be a sequence of matrices \(p_n, q_n\) or .* got Ket \(see Ket.to_column\)",
        ),
        (
            lambda v, p: Ket([np.ones((5, 1, 2))]).projector(),
            ValueError,
            r"ket must be a single vector, got batch shape \(5,\) \(see ket\[i\].projector\(\)\)",
        ),
        (
            lambda v, p: Ket([np.ones((5, 1, 2))]).to_column(),
            ValueError,
            r"ket must be a single vector, got batch shape \(5,\) \(see ket\[i\].to_column\(\)\)",
        ),
        (
            lambda v, p: kc.partial_trace(Ket([np.ones((5, 1, 2))]), 0),
            ValueError,
            r"matrix must be a single ket, got batch shape \(5,\) \(see ket\[i\]\)",
        ),
        (lambda v, p: kc.partial_trace(v, 2), ValueError, r"where must hold modes in \[-2, 2\), got 2"),
        (
            lambda v, p: kc.partial_trace(p, 0),
            TypeError,
            r"matrix must be a KroneckerMatrix, .* or Ket, got Permutation \(see to_dense and embed\)",
        ),
        (
            lambda v, p: kc.partial_trace(KroneckerProduct([np.ones((2, 3)), Identity(2)]), 0),
            ValueError,
            r"where must choose square modes, got 0 of shapes \[\(2, 3\)\]",
        ),
        (
            lambda v, p: kc.partial_transpose(v, 0),
            TypeError,
            r"operator must be a KroneckerMatrix, .* got Ket \(see Ket.projector\)",
        ),
        (
            lambda v, p: kc.partial_transpose(p, 0),
            TypeError,
            r"operator must be a KroneckerMatrix, .* got Permutation \(see to_dense and embed\)",
        ),
        (
            lambda v, p: kc.partial_transpose([[1.0]], 0),
            TypeError,
            r"operator must be a KroneckerMatrix, .* got list \(see embed\)",
        ),
        (
            lambda v, p: kc.partial_transpose(KroneckerMatrix([np.eye(2)] * 2, (3, 4)), 0),
            ValueError,
            r"operator must not be cropped, got shape \(3, 4\) of \(4, 4\)",
        ),
        (
            lambda v, p: kc.partial_transpose(kc.eye((2, 2)), (0, 0)),
            ValueError,
            r"where must hold no mode twice, got \(0, 0\)",
        ),
        (
            lambda v, p: kc.hadamard(v, v),
            TypeError,
            r"left must be a KroneckerMatrix, .* got Ket \(see Ket.to_column\)",
        ),
        (
            lambda v, p: kc.hadamard(kc.eye((2, 2)), np.eye(4)),
            TypeError,
            r"right must be a KroneckerMatrix, .* got ndarray \(see embed\)",
        ),
        (
            lambda v, p: kc.hadamard(KroneckerProduct([Identity(4)]), KroneckerProduct([Identity(2)] * 2)),
            ValueError,
            r"matrices must have equal \(shape, row_dims, col_dims\), got \(\(4, 4\), \(4,\)",
        ),
        (
            lambda v, p: kc.embed(p, (2, 2), (0, 1)),
            TypeError,
            r"op must be a matrix, .* got Permutation \(see to_dense and embed\)",
        ),
        (
            lambda v, p: kc.embed(np.eye(4), (2, 2), (0, 1), linear=True, svd=True),
            ValueError,
            "linear and svd must not be True at once, got True and True",
        ),
    ],
)
def test_what_has_no_closed_form_names_the_way_out(operation, error, message):
    with pytest.raises(error, match=message):
        operation(kc.ket([1.0, 0.0], [0.0, 1.0]), kc.swap((2, 2), 0, 1))


def test_the_ways_out_lead_out():
    v = Ket([draw(2, 2), draw(2, 3)])
    square = kc.hadamard(v.to_column(), v.to_column())
    np.testing.assert_allclose(square.to_dense()[:, 0], dense(v) ** 2)
    p = kc.embed(kc.swap((2, 2), 0, 1).to_dense(), (2, 2), (0, 1))
    np.testing.assert_array_equal(kc.partial_trace(p, 0).to_dense(), np.eye(2))
    bell = (kc.ket([1.0, 0.0], [1.0, 0.0]) + kc.ket([0.0, 1.0], [0.0, 1.0])) / 2**0.5
    turned = kc.partial_transpose(bell.projector(), 0)
    np.testing.assert_allclose(np.linalg.eigvalsh(turned.to_dense()), [-0.5, 0.5, 0.5, 0.5])
