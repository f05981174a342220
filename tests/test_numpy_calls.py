"""NumPy's operators, ufuncs and functions beside kets and operators."""

import operator

import numpy as np
import pytest

import ketcore as kc
from ketcore import Ket, KroneckerMatrix, KroneckerProduct, KroneckerSum, Permutation

RNG = np.random.default_rng(0)
A, B = RNG.standard_normal((2, 2)), RNG.standard_normal((3, 3))
W = RNG.standard_normal((6, 6))
K, VECTOR = KroneckerMatrix([A, B]), Ket([A[0], B[0]])
OPERATORS = {
    "matrix": K,
    "sum": KroneckerSum([A, B]),
    "product": KroneckerProduct([A, B]),
    "permutation": Permutation((2, 3), (1, 0)),
}
OBJECTS = OPERATORS | {"ket": VECTOR}


@pytest.mark.parametrize("name", OPERATORS)
def test_arrays_multiply_from_both_sides(name):
    own = OPERATORS[name]
    dense = own.to_dense()
    for x in (W, W[0], W.astype(np.float32), W[:, ::-1], W * 1j, np.arange(6), W.T):
        for found, expected in ((x @ own, x @ dense), (np.matmul(x, own), x @ dense)):
            assert type(found) is np.ndarray
            assert found.dtype == own.__rmatmul__(x).dtype
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.matmul(own, W), dense @ W)


@pytest.mark.parametrize("name", ["matrix", "sum", "product", "ket"])
def test_scalars_of_numpy_multiply_and_divide(name):
    own = OBJECTS[name]
    for scalar in (np.float64(2), np.float32(2), np.int8(2), np.array(2.0), np.complex64(2), np.float16(2)):
        for found in (scalar * own, own * scalar, np.multiply(scalar, own), np.multiply(own, scalar)):
            assert type(found) is type(own)
            assert found.dtype == (own * complex(2)).dtype if scalar.dtype.kind == "c" else own.dtype
            np.testing.assert_allclose(found.to_dense(), 2 * own.to_dense())
        for found in (own / scalar, np.divide(own, scalar)):
            np.testing.assert_allclose(found.to_dense(), own.to_dense() / 2)


def test_ufuncs_of_two_objects_are_their_operators():
    assert np.matmul(K, K).to_dense() == pytest.approx(np.asarray(K.to_dense() @ K.to_dense()))
    for found in (np.add(K, OPERATORS["sum"]), np.add(OPERATORS["sum"], K)):
        np.testing.assert_allclose(found.to_dense(), K.to_dense() + OPERATORS["sum"].to_dense())
    np.testing.assert_allclose(np.subtract(K, K).to_dense(), 0, atol=1e-12)
    np.testing.assert_allclose(np.negative(K).to_dense(), -K.to_dense())
    np.testing.assert_allclose(np.matmul(K, VECTOR).to_dense(), K.to_dense() @ VECTOR.to_dense())


IN_PLACE = [operator.iadd, operator.isub, operator.imul, operator.imatmul, operator.itruediv, operator.ipow]


@pytest.mark.parametrize("function", IN_PLACE, ids=lambda function: function.__name__)
@pytest.mark.parametrize("name", OBJECTS)
def test_in_place_operators_raise_and_leave_the_array_as_it_is(name, function):
    values = W.copy()
    with pytest.raises(TypeError, match="to_dense"):
        function(values, OBJECTS[name])
    np.testing.assert_array_equal(values, W)


@pytest.mark.parametrize("name", OBJECTS)
def test_sums_with_arrays_name_to_dense(name):
    own, kind = OBJECTS[name], type(OBJECTS[name]).__name__
    for sign, call in (("\\+", operator.add), ("-", operator.sub)):
        for other in (W, W[0], np.ones((), int), np.float64(2), np.ones((2, 0))):
            with pytest.raises(TypeError, match=rf"other must be .*{kind} .*{sign}.*to_dense.*, got "):
                call(other, own)


WAYS = {
    "KroneckerMatrix.conj": lambda: np.conj(K),
    "KroneckerMatrix.rmatmul": lambda: np.matmul(W, K, out=W.copy()),
    "KroneckerMatrix.sum": lambda: np.sum(K, axis=0),
    "KroneckerMatrix.norm": lambda: np.linalg.norm(K),
    "KroneckerMatrix.trace": lambda: np.trace(K),
    "KroneckerMatrix.diagonal": lambda: np.diagonal(K),
    "KroneckerMatrix.T": lambda: np.transpose(K),
    "KroneckerMatrix.inner": lambda: np.vdot(K, K),
    "KroneckerMatrix.astype": lambda: np.astype(K, "float32"),
    "Ket.norm": lambda: np.linalg.norm(VECTOR),
    "ketcore.hadamard ": lambda: np.square(K),
    "ketcore.kron": lambda: np.kron(W, K),
    "ketcore.kron ": lambda: np.outer(K, W),
    "ketcore.allclose": lambda: np.allclose(K, K),
    "ketcore.allclose ": lambda: np.array_equal(W, K),
    "ketcore.allclose  ": lambda: np.isclose(K, W),
    "ketcore.linalg.solve": lambda: np.linalg.solve(K, W),
    "ketcore.linalg.det": lambda: np.linalg.det(K),
    "ketcore.linalg.svd": lambda: np.linalg.svd(K),
    "@": lambda: np.dot(K, W),
    "@ ": lambda: np.linalg.multi_dot([W, K, W]),
}


@pytest.mark.parametrize("way", WAYS)
def test_functions_name_what_serves(way):
    pattern = rf"^x must be an array for np\.[\w.]+, got \w+ \(see {way.strip()} and to_dense\)$"
    with pytest.raises(TypeError, match=pattern):
        WAYS[way]()


def test_products_name_what_serves():
    with pytest.raises(TypeError, match=r"^other must be .*contract\(x\), .*, got ndarray$"):
        W @ VECTOR
    with pytest.raises(TypeError, match=r"^other must be .*hadamard or to_dense\(\), got ndarray$"):
        W * K


def test_ways_exist():
    """What the texts name is there."""
    names = (way.strip() for way in WAYS)
    for way in (name for name in names if name != "@"):
        assert operator.attrgetter(way.removeprefix("ketcore."))(kc) is not None


OTHERS = [
    lambda own: np.exp(own),
    lambda own: np.power(own, 2),
    lambda own: own < W,
    lambda own: np.add.reduce(own),
    lambda own: np.multiply.outer(own, W),
    lambda own: np.float64(2) / own,
    lambda own: np.einsum("i...->...", own),
    lambda own: np.concatenate([W, own]),
    lambda own: np.mean(own),
    lambda own: np.real(own),
    lambda own: np.where(own, 1, 2),
    lambda own: np.ones_like(own),
    lambda own: np.copy(own),
    lambda own: np.asarray(own),
    lambda own: np.linalg.matrix_power(own, 2.5),
]


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("call", OTHERS)
def test_all_other_functions_name_to_dense(name, call):
    with pytest.raises(TypeError, match=rf"{type(OBJECTS[name]).__name__}.*to_dense|to_dense.*got"):
        call(OBJECTS[name])


@pytest.mark.parametrize("name", OBJECTS)
def test_sizes_and_dtypes_are_answered(name):
    own = OBJECTS[name]
    assert (np.shape(own), np.ndim(own), np.size(own)) == (own.shape, len(own.shape), 6 ** len(own.shape))
    assert np.size(own, 0) == np.size(own, axis=-1) == 6
    assert (np.iscomplexobj(own), np.isrealobj(own)) == (False, True)
    assert np.result_type(own, np.complex64) == np.complex128
    assert np.common_type(own, W.astype(np.float32)) is np.float64
    assert np.size(kc.eye((2,) * 70)) == 2**140


def test_dtypes_of_other_libraries_are_none_of_numpy():
    strict = pytest.importorskip("array_api_strict")
    own = KroneckerMatrix([strict.eye(2)])
    assert np.shape(own) == (2, 2)
    with pytest.raises(TypeError, match=r"x must be an array for np\.iscomplexobj, got KroneckerMatrix"):
        np.iscomplexobj(own)


@pytest.mark.parametrize("name", OBJECTS)
def test_equality_is_identity(name):
    own = OBJECTS[name]
    for other in (W, np.float64(2), K.T):
        assert [own == other, other == own, own != other, other != own] == [False, False, True, True]
    assert np.equal(own, own) is True
    assert own in [W, own]
    assert [own, W].index(own) == 0


def test_tensors_beside_operators():
    torch = pytest.importorskip("torch")
    own, x = KroneckerMatrix([torch.eye(2), torch.ones(2, 2)]), torch.arange(4.0)
    assert torch.equal(x @ own, x @ own.to_dense())
    assert torch.equal((torch.tensor(2.0) * own).to_dense(), 2 * own.to_dense())
    with pytest.raises(TypeError, match="KroneckerMatrix"):
        torch.add(x, own)


TURN = OPERATORS["permutation"]
SERVED = [
    (lambda: np.matmul(K, W, out=W.copy()), "(see KroneckerMatrix.matmul and to_dense)"),
    (lambda: np.matmul(W, K, out=W.copy()), "(see KroneckerMatrix.rmatmul and to_dense)"),
    (lambda: np.save("unwritten", K), "np.save, got KroneckerMatrix (see ketcore.save and to_dense)"),
    (lambda: np.add(W, K, out=W.copy()), "beside +, or an array beside to_dense(), got ndarray"),
    (lambda: np.dot(VECTOR, W), "got Ket (see contract(x), inner(ket) or K.T @ ket and to_dense)"),
    (lambda: np.vecdot(VECTOR, VECTOR), "np.vecdot, got Ket (see Ket.inner and to_dense)"),
    (lambda: np.sum(VECTOR), "got Ket (see contract(ones) and to_dense)"),
    (lambda: np.transpose(VECTOR), "got Ket (see to_dense)"),
    (lambda: np.square(VECTOR), "got Ket (see to_dense)"),
    (lambda: np.linalg.inv(VECTOR), "got Ket (see to_dense)"),
    (lambda: np.linalg.solve(TURN, W), "got Permutation (see to_dense)"),
    (lambda: np.dot(TURN, W), "got Permutation (see @ and to_dense)"),
    (lambda: np.square(TURN), "got Permutation (see to_dense)"),
    (lambda: np.sum(kc.Diagonal([1.0])), "np.sum, got Diagonal (see KroneckerProduct([part]))"),
    (lambda: np.dot(kc.Identity(2), A), "np.dot, got Identity (see KroneckerProduct([part]))"),
    (
        lambda: 2 / K,
        "on the right of / beside KroneckerMatrix, or go through linalg.inv or to_dense(), got 2",
    ),
    (lambda: W / VECTOR, "on the right of / beside Ket, or go through to_dense(), got ndarray"),
    (lambda: np.float64(2) / K, "to_dense(), got np.float64(2.0)"),
    (lambda: VECTOR * VECTOR, "beside * and / of Ket, or go through kron, inner or to_dense(), got Ket"),
]


@pytest.mark.parametrize(("call", "text"), SERVED, ids=[text for _, text in SERVED])
def test_what_serves_is_there_for_the_kind(call, text):
    with pytest.raises(TypeError) as caught:
        call()
    assert text in str(caught.value)


@pytest.mark.parametrize("name", OPERATORS)
def test_rows_are_counted(name):
    own = OPERATORS[name]
    assert len(own) == 6
    np.testing.assert_array_equal(np.stack(list(own)), own.to_dense())


def test_operators_are_true():
    for own in (*OPERATORS.values(), kc.Identity(2), kc.eye((2,) * 70)):
        assert own


def test_scalars_of_other_libraries_are_refused_by_name():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="factors and scalar must be arrays of one library, got arr"):
        K * strict.asarray(2.0)
