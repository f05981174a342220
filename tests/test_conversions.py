"""Lists, numbers, integers and what has `__array__`: the one rule of constructors, functions and operands."""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore import Ket, KroneckerMatrix, KroneckerProduct, KroneckerSum, linalg
from ketcore.arrays.conversions import as_array, as_floating
from ketcore.ops import OPS
from ketcore.testing import assert_dense_equal, to_numpy
from tests.problems import drawn
from tests.require import has_long_doubles, require

X, FLOATS, TURN = [1, 2, 3, 4], [1.0, 2.0, 3.0, 4.0], [[0, 1], [1, 0]]
A, B = np.array([[2.0, 1.0], [1.0, 3.0]]), np.array([[1.0, 0.5], [0.5, 2.0]])
DENSE = np.kron(A, B)
PRODUCT = np.kron(A, np.eye(2))
SUM = PRODUCT + np.kron(np.eye(2), B)


def library(name):
    """A float32 array of a library from one of NumPy."""
    if name == "numpy":
        return lambda values: np.asarray(values, np.float32)
    require(name, find_spec(name.replace("-", "_")) is not None, f"{name} is not installed")
    xp = import_module(name.replace("-", "_"))
    return lambda values: xp.asarray(np.asarray(values, np.float32))


@pytest.fixture(params=["numpy", "array-api-strict", "torch"])
def own(request):
    return library(request.param)


OPERANDS = {
    "matrix @ list": (lambda k, s, p: k @ X, lambda x: DENSE @ x),
    "matrix @ columns": (lambda k, s, p: k @ [[1], [2], [3], [4]], lambda x: (DENSE @ x)[:, None]),
    "list @ matrix": (lambda k, s, p: X @ k, lambda x: x @ DENSE),
    "matmul": (lambda k, s, p: k.matmul(X), lambda x: DENSE @ x),
    "rmatmul": (lambda k, s, p: k.rmatmul(X), lambda x: x @ DENSE),
    "sum @ list": (lambda k, s, p: s @ X, lambda x: SUM @ x),
    "sum.matmul": (lambda k, s, p: s.matmul(FLOATS), lambda x: SUM @ x),
    "product.rmatmul": (lambda k, s, p: p.rmatmul(FLOATS), lambda x: x @ PRODUCT),
    "product @ list": (lambda k, s, p: p @ X, lambda x: PRODUCT @ x),
    "solve": (lambda k, s, p: linalg.solve(k, X), lambda x: np.linalg.solve(DENSE, x)),
    "lstsq": (lambda k, s, p: linalg.lstsq(k, X).x, lambda x: np.linalg.solve(DENSE, x)),
    "sandwich": (lambda k, s, p: k.sandwich(X, X), lambda x: x @ DENSE @ x),
    "contract": (lambda k, s, p: Ket([f[0, ...] for f in k.factors]).contract(X), None),
    "kron_matmul": (lambda k, s, p: kc.kron_matmul(k.factors, X), lambda x: x @ DENSE),
    "complex": (lambda k, s, p: k @ [1j, 2, 3, 4], lambda x: DENSE @ np.array([1j, 2, 3, 4])),
}


@pytest.mark.parametrize("name", OPERANDS)
def test_lists_take_library_and_dtype_of_the_object(name, own):
    call, reference = OPERANDS[name]
    factors = own(A), own(B)
    matrix, product = KroneckerMatrix(factors), KroneckerProduct([factors[0], kc.Identity(2)])
    found = call(matrix, KroneckerSum(factors), product)
    assert isinstance(found, type(factors[0]) | np.generic)
    assert str(found.dtype).rpartition(".")[2] == ("complex64" if name == "complex" else "float32")
    expected = Ket([A, B]).contract(np.array(X, float)) if reference is None else reference(np.array(X))
    np.testing.assert_allclose(to_numpy(found), expected, rtol=2e-5, atol=1e-6)


CONSTRUCTORS = {
    "KroneckerMatrix": lambda a: KroneckerMatrix([a, TURN]),
    "from_terms": lambda a: KroneckerMatrix.from_terms([[a, TURN]]),
    "KroneckerSum": lambda a: KroneckerSum([a, TURN]),
    "KroneckerProduct": lambda a: KroneckerProduct([a, TURN]),
    "kron": lambda a: kc.kron(TURN, a),
    "kron with an object": lambda a: kc.kron(TURN, KroneckerMatrix([a])),
    "ket": lambda a: kc.ket(a[0, :], [0, 1]),
    "khatri_rao": lambda a: kc.khatri_rao(a, TURN),
    "face_splitting": lambda a: kc.face_splitting(TURN, a),
}


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_factors_that_are_lists(name, own):
    call, a = CONSTRUCTORS[name], own(A)
    found = call(a)
    dense = found.to_dense()
    assert isinstance(dense, type(a))
    assert dense.dtype == found.dtype == a.dtype
    np.testing.assert_array_equal(to_numpy(dense), call(A).to_dense())


ALONE = {
    "KroneckerMatrix": lambda x: KroneckerMatrix([x, x]),
    "from_terms": lambda x: KroneckerMatrix.from_terms([[x, x]]),
    "KroneckerSum": lambda x: KroneckerSum([x, x]),
    "KroneckerProduct": lambda x: KroneckerProduct([x, kc.Identity(2)]),
    "kron": lambda x: kc.kron(x, x),
    "ket": lambda x: kc.ket(x[0], x[1]),
    "from_packed": lambda x: Ket.from_packed(x, (1, 1)),
    "khatri_rao": lambda x: kc.khatri_rao(x, x),
    "embed": lambda x: kc.embed(x, (2, 2), 0),
    "Diagonal": lambda x: KroneckerProduct([kc.Diagonal(x[0])]),
    "nearest_kronecker": lambda x: kc.nearest_kronecker(np.kron(x, x), (2, 2), (2, 2), rank=1).value,
}


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("dtype", ["int8", "uint64", "bool", None])
def test_integers_alone_become_float64(name, dtype):
    values = TURN if dtype is None else np.array(TURN, dtype)
    found = ALONE[name](values)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.to_dense(), ALONE[name](np.array(TURN, float)).to_dense(), atol=1e-12)


def test_integers_take_the_dtype_that_the_others_promote_to():
    whole, narrow = np.array(TURN), A.astype(np.float32)
    assert KroneckerMatrix([whole, narrow]).dtype == np.float32
    assert KroneckerMatrix([whole, narrow, B]).dtype == np.float64
    assert KroneckerMatrix([whole, narrow.astype(np.float16)]).dtype == np.float16
    assert kc.kron_matmul([whole[None]], np.ones(2, np.float32)).dtype == np.float32
    assert kc.kron_sandwich([1, 2], [whole[None]], np.ones(2, np.complex64)).dtype == np.complex64
    assert kc.kron_inner([whole[None]], [narrow[None]]).dtype == np.float32
    assert kc.ket_sandwich([[[1, 2]]], [whole[None]], [narrow[:1]]).dtype == np.float32
    assert kc.Ket.random((2,), dtype="float32").combine(2).dtype == np.float32


def test_jax():
    """Few shapes, since it compiles each; without its 64-bit types its own floating dtype is the widest."""
    jnp = pytest.importorskip("jax.numpy")
    assert kc.ket(jnp.arange(2), jnp.arange(2)).dtype == jnp.asarray(1.0).dtype
    found = kc.kron_matmul([jnp.ones((1, 2, 2)), [[[1, 0], [0, 1]]]], X)
    assert isinstance(found, jnp.ndarray)
    assert found.tolist() == [4.0, 6.0, 4.0, 6.0]


def test_torch_integers_are_floats_in_half_precision_and_double():
    torch = pytest.importorskip("torch")
    whole = torch.eye(2, dtype=torch.int64)
    assert KroneckerMatrix([whole]).dtype == torch.float64
    half = KroneckerMatrix([whole, torch.ones(2, 2, dtype=torch.bfloat16)])
    assert half.dtype == (half @ X).dtype == torch.bfloat16
    assert (KroneckerProduct([kc.Identity(2)]) @ whole).dtype == torch.float64
    functional = pytest.importorskip("ketcore.torch.functional")
    factor = torch.ones(1, 2, 2, requires_grad=True)
    functional.kron_matmul([factor, whole[None]], torch.arange(4)).sum().backward()
    assert factor.grad.tolist() == [[[1.0, 1.0], [5.0, 5.0]]]


@pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
def test_every_operation_takes_lists(op):
    """Of the values of arrays, also as cotangents and tangents."""
    problem = drawn(op, "float64")
    primals = op.unflatten(problem.arrays, problem.counts)
    cotangent = op.cotangent(problem.forward(*problem.arrays))
    index = () if problem.index is None else (problem.index,)

    def everything(primals, cotangent):
        gradients = op.call(op.vjp, primals, (*index, cotangent), **problem.options)
        return (
            *op.flat_outputs(op.call(op.forward, primals, index, **problem.options)),
            *op.flat_gradients(gradients, problem.counts),
            *op.flat_outputs(op.call(op.jvp, primals, index, primals, **problem.options)),
        )

    expected = everything(primals, cotangent)
    found = everything([_listed(primal) for primal in primals], _listed(cotangent))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def _listed(value):
    if isinstance(value, tuple | list):
        return [_listed(each) for each in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


class Only:
    """What has `__array__` alone."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


@pytest.mark.parametrize("values", [X, np.array(X, np.float32), np.array(X) * 1j])
def test_what_has_array_is_an_operand(values):
    k, s, x = KroneckerMatrix([A, B]), KroneckerSum([A, B]), np.array(values)
    for operator in (k, s, KroneckerProduct([A, B]), kc.swap((2, 2), 0, 1)):
        for found, expected in (
            (operator @ Only(values), operator @ x),
            (Only(values) @ operator, x @ operator),
        ):
            assert type(found) is np.ndarray
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(linalg.solve(k, Only(values)), linalg.solve(k, x))
    np.testing.assert_array_equal(kc.kron_matmul(k.factors, Only(values)), x @ k)
    assert linalg.cg(k, Only(values))[1] == 0


def test_what_has_array_is_a_factor():
    found = KroneckerMatrix([Only(TURN), A.astype(np.float32)])
    assert found.dtype == np.float32
    fit = kc.nearest_kronecker(Only(np.kron(TURN, TURN)), (2, 2), (2, 2), rank=1)
    np.testing.assert_allclose(fit.value.to_dense(), np.kron(TURN, TURN), atol=1e-12)


class Refusing:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("no")


@pytest.mark.parametrize("kind", ["int64", "float64"])
def test_arrays_of_numpy_beside_other_libraries_are_refused(kind):
    strict = pytest.importorskip("array_api_strict")
    a, x = strict.asarray(A), np.ones(2, kind)
    matrix = KroneckerMatrix([a])
    rule = "must be arrays of one library, got"
    for name, call in {
        "factors and x": lambda: matrix @ x,
        "A and b": lambda: linalg.solve(matrix, x),
        "factors": lambda: KroneckerMatrix([a, np.ones((2, 2), kind)]),
        "kets and x": lambda: kc.ket(a[0, :]).contract(x),
        "x, factors and y": lambda: matrix.sandwich(x, x),
        "cotangent and primals": lambda: kc.kron_matmul_vjp([a[None, ...]], a[0, :], x),
        "parts and x": lambda: KroneckerProduct([a]) @ x,
        "A and y": lambda: linalg.gaussian_log_likelihood(matrix, x),
    }.items():
        with pytest.raises(TypeError, match=f"^{name} {rule} array_api_strict, numpy"):
            call()


LONG = "x must have a numeric dtype of at most double precision, got float"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("abcd", "x must have a numeric dtype, got <U4"),
        (np.array(["a"] * 4), "x must have a numeric dtype, got <U1"),
        (np.zeros(4, "M8[s]"), r"x must have a numeric dtype, got datetime64\[s\]"),
        ([None] * 4, "x must have a numeric dtype, got object"),
        ([2**70, 0, 0, 0], "x must have a numeric dtype, got object"),
        pytest.param(np.zeros(4, np.longdouble), LONG, marks=has_long_doubles),
        pytest.param([np.longdouble(1)] * 4, LONG, marks=has_long_doubles),
        (Refusing(), "x must be an array or a nested list of numbers, got Refusing"),
        (kc.eye(4), r"x must be dense, got KroneckerMatrix \(see to_dense\)"),
    ],
)
def test_what_is_no_array_of_numbers(value, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        kc.kron_matmul([A[None], B[None]], value)


def test_lists_of_arrays_that_numpy_may_not_have():
    torch = pytest.importorskip("torch")
    leaf = torch.ones((), requires_grad=True)
    with pytest.raises(TypeError, match="x must be an array or a nested list of numbers, got a list"):
        KroneckerMatrix([torch.eye(2)]) @ [leaf, leaf]
    with pytest.raises(ValueError, match="x must be arrays or regular nested lists, got ragged lists"):
        KroneckerMatrix([torch.eye(2)]) @ [[1.0], [1.0, 2.0]]


@given(st.lists(st.sampled_from(["int32", "bool", "float16", "float32", "complex64", "list"]), min_size=1))
def test_the_dtype_of_mixtures(kinds):
    """That of the floating arrays, whatever else there is."""
    values = [[1, 0] if kind == "list" else np.ones(2, kind) for kind in kinds]
    floats = [value for value in values if isinstance(value, np.ndarray) and value.dtype.kind in "fc"]
    expected = np.result_type(*floats) if floats else np.float64
    found = as_floating("x", values)
    assert np.result_type(*found) == expected
    for one, value in zip(found, values, strict=True):
        assert_dense_equal(one, np.asarray(value))
        assert any(one is value for value in floats) == (one.dtype.kind in "fc" and one is value)


def test_an_array_stays_the_same_object():
    x = np.ones(2, np.float32)
    assert as_array("x", x) is as_floating("x", (x,), ([1.0], A))[0] is x


class HalfArray:
    """What has a namespace, and of an array no more than its sizes."""

    dtype, shape, ndim = np.dtype(np.float64), (2, 2), 2

    def __array_namespace__(self, api_version=None):
        return np


def test_half_an_array_is_refused_by_name():
    text = "^factors must be arrays that follow the array API as a whole, got those of test"
    for call in (lambda each: kc.rows([each], [0]), lambda each: kc.KroneckerMatrix([each])):
        with pytest.raises(TypeError, match=text):
            call(HalfArray())
