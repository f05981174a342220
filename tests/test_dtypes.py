"""The door of dtypes: the other byte order becomes the machine's own, long doubles are refused by name."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ketcore as kc
from ketcore.ops import OPS
from ketcore.testing import kets, kronecker_matrices
from tests.problems import problems
from tests.require import has_long_doubles

LONG = (np.longdouble, np.clongdouble)


def swapped(array):
    """The same values in the other byte order."""
    return None if array is None else array.astype(array.dtype.newbyteorder())


def several(outputs):
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def assert_same(found, expected):
    """Equal to the last bit, and native."""
    for one, other in zip(several(found), several(expected), strict=True):
        assert one.dtype == other.dtype
        assert one.dtype.isnative
        assert np.array_equal(one, other, equal_nan=True)


@pytest.mark.parametrize("op", OPS, ids=[op.name for op in OPS])
def test_every_op_takes_the_other_byte_order(op):
    @given(problems(op))
    def body(problem):
        other = replace(problem, arrays=tuple(map(swapped, problem.arrays)), index=swapped_index(problem))
        outputs = problem.forward(*problem.arrays)
        assert_same(other.forward(*other.arrays), outputs)
        cotangents = tuple(np.ones_like(np.asarray(output)) for output in outputs)
        turned = tuple(map(swapped, cotangents))
        gradients = problem.vjp(*problem.arrays, cotangents)
        assert_same(other.vjp(*other.arrays, turned), gradients)
        assert_same(problem.vjp(*problem.arrays, turned), gradients)
        moved = problem.jvp(*problem.arrays, *problem.arrays)
        assert_same(other.jvp(*other.arrays, *other.arrays), moved)
        assert_same(problem.jvp(*problem.arrays, *other.arrays), moved)

    body()


def swapped_index(problem):
    return None if problem.index is None else swapped(np.asarray(problem.index))


A = np.array([[2.0, 1 / 3], [1 / 3, 4.0]])
B = np.array([[3.0, 0.5, 0.0], [0.5, 1.0, 0.1], [0.0, 0.1, 2.0]])
X = np.linspace(0.1, 2.0, 6)

CALLS = {
    "sqrtm": lambda a, b, x: kc.linalg.sqrtm(kc.KroneckerMatrix([a, b])).factors,
    "expm": lambda a, b, x: kc.linalg.expm(kc.KroneckerSum([a, b])).factors,
    "eigh": lambda a, b, x: kc.linalg.eigvalsh(kc.KroneckerMatrix([a, b])).packed,
    "solve": lambda a, b, x: kc.linalg.solve(kc.KroneckerMatrix([a, b]), x, shift=x[0]),
    "lstsq": lambda a, b, x: kc.linalg.lstsq(kc.KroneckerMatrix([a, b]), x).x,
    "cg": lambda a, b, x: kc.linalg.cg(kc.KroneckerMatrix([a, b]), x, x0=x)[0],
    "slogdet": lambda a, b, x: kc.linalg.slogdet(kc.KroneckerMatrix([a, b]), shift=x[0])[1],
    "likelihood": lambda a, b, x: kc.linalg.gaussian_log_likelihood(kc.KroneckerMatrix([a, b]), x),
    "matmul": lambda a, b, x: kc.KroneckerMatrix([a, b]) @ x,
    "rmatmul": lambda a, b, x: x @ kc.KroneckerMatrix([a, b]),
    "operand alone": lambda a, b, x: kc.KroneckerMatrix([A, B]) @ x,
    "sandwich": lambda a, b, x: kc.KroneckerMatrix([a, b]).sandwich(x, x),
    "sum": lambda a, b, x: kc.KroneckerSum([a, b]) @ x,
    "product": lambda a, b, x: kc.KroneckerProduct([a, kc.Diagonal(b[0])]) @ x,
    "permutation": lambda a, b, x: kc.swap((2, 3), 0, 1) @ x,
    "contract": lambda a, b, x: kc.ket(a[0], b[0]).contract(x),
    "combine": lambda a, b, x: kc.Ket([a[:, None], a[:, None]]).combine(x[:2]).packed,
    "from_packed": lambda a, b, x: kc.Ket.from_packed(a, (1, 1)).packed,
    "from_terms": lambda a, b, x: kc.KroneckerMatrix.from_terms([[a, b], [a, b]]).factors,
    "scalar": lambda a, b, x: (kc.KroneckerMatrix([a, b]) * x[1].reshape(())).factors,
    "astype": lambda a, b, x: kc.KroneckerMatrix([A]).astype(a.dtype).factors,
    "dtype": lambda a, b, x: kc.eye(2, dtype=a.dtype).factors,
    "key": lambda a, b, x: kc.KroneckerMatrix([A, B])[x.astype(x.dtype.str.replace("f", "i"))],
    "fit": lambda a, b, x: (
        kc.nearest_kronecker(np.kron(a, b).astype(a.dtype), (2, 3), (2, 3), 1).value.factors
    ),
    "weights": lambda a, b, x: (
        kc.nearest_kronecker(np.kron(A, B), (2, 3), (2, 3), 1, weights=x).value.factors
    ),
    "trace": lambda a, b, x: kc.KroneckerMatrix([a, b]).trace(),
    "norm": lambda a, b, x: kc.KroneckerMatrix([a, b]).norm(),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_other_door_takes_the_other_byte_order(name):
    expected = CALLS[name](A, B, X)
    assert_same(CALLS[name](*map(swapped, (A, B, X))), expected)


@given(kronecker_matrices(), st.integers(0, 1))
def test_out_in_the_other_byte_order_is_refused(m, which):
    out = np.empty(m.shape, m.dtype.newbyteorder())
    call = (lambda: m.to_dense(out=out), lambda: m.matmul(np.eye(m.shape[1], dtype=m.dtype), out=out))[which]
    with pytest.raises(ValueError, match=r"out must have shape .* and dtype .*, got .* and >"):
        call()


def test_memory_maps_in_the_other_byte_order(tmp_path):
    mapped = np.memmap(tmp_path / "factor", ">f8", "w+", shape=A.shape)
    mapped[...] = A
    m = kc.KroneckerMatrix([mapped, B])
    assert type(m.factors[0]) is np.ndarray
    assert_same(m.to_dense(), kc.KroneckerMatrix([A, B]).to_dense())
    fitted = kc.nearest_kronecker(mapped, (2,), (2,), 1).value
    assert_same(fitted.to_dense(), kc.nearest_kronecker(A, (2,), (2,), 1).value.to_dense())


@given(kets(), kronecker_matrices())
def test_native_arrays_are_not_copied(v, m):
    assert kc.Ket.from_packed(v.packed, v.dims).packed is v.packed
    assert all(a is b for a, b in zip(kc.KroneckerMatrix(m.factors).factors, m.factors, strict=True))


IDENTITY = kc.eye((2, 3))
REFUSED = {
    "factors": (lambda t: kc.ket(np.ones(2, t)), "factors"),
    "packed": (lambda t: kc.Ket.from_packed(np.ones((1, 2), t), (2,)), "packed"),
    "matrix": (lambda t: kc.KroneckerMatrix([np.eye(2, dtype=t)]), "factors"),
    "sum": (lambda t: kc.KroneckerSum([np.eye(2, dtype=t)]), "factors"),
    "one of two": (lambda t: kc.KroneckerMatrix([np.eye(2), np.eye(2, dtype=t)]), "factors"),
    "part": (lambda t: kc.KroneckerProduct([np.eye(2, dtype=t)]), r"parts\[0\]"),
    "diagonal": (lambda t: kc.Diagonal(np.ones(2, t)), "values"),
    "rows": (lambda t: kc.rows([np.ones((1, 2, 2), t)], [0]), "factors"),
    "kron_matmul": (lambda t: kc.kron_matmul([np.ones((1, 2, 2), t)], np.ones(2, t)), "factors"),
    "x": (lambda t: IDENTITY @ np.ones(6, t), "x"),
    "x on the left": (lambda t: np.ones(6, t) @ IDENTITY, "x"),
    "b": (lambda t: kc.linalg.solve(IDENTITY, np.ones(6, t)), "b"),
    "x0": (lambda t: kc.linalg.cg(IDENTITY, np.ones(6), x0=np.ones(6, t)), "x0"),
    "cotangent": (lambda t: kc.rows_vjp([np.ones((1, 2, 2))], [0], np.ones((1, 2), t)), "cotangent"),
    "tangents": (lambda t: kc.rows_jvp([np.ones((1, 2, 2))], [0], [np.ones((1, 2, 2), t)]), "tangents"),
    "fit": (lambda t: kc.nearest_kronecker(np.ones((4, 4), t), (2, 2), (2, 2), 1), "A"),
    "dtype of eye": (lambda t: kc.eye(3, dtype=t), "dtype"),
    "dtype of random": (lambda t: kc.Ket.random((2,), dtype=t), "dtype"),
    "ket.astype": (lambda t: kc.ket([1.0]).astype(t), "dtype"),
    "matrix.astype": (lambda t: IDENTITY.astype(t), "dtype"),
    "sum.astype": (lambda t: kc.KroneckerSum([A]).astype(t), "dtype"),
    "ket * scalar": (lambda t: kc.ket([1.0]) * t(2), "scalar"),
    "scalar * matrix": (lambda t: t(2) * IDENTITY, "scalar"),
    "matrix / scalar": (lambda t: IDENTITY / np.asarray(t(2)), "scalar"),
    "shift": (lambda t: kc.linalg.solve(IDENTITY, np.ones(6), shift=t(1)), "shift"),
    "shift of slogdet": (lambda t: kc.linalg.slogdet(IDENTITY, shift=t(1)), "shift"),
}


@has_long_doubles
@pytest.mark.parametrize("long", LONG, ids=["real", "complex"])
@pytest.mark.parametrize("name", REFUSED)
def test_long_doubles_are_refused_by_name(name, long):
    call, argument = REFUSED[name]
    with pytest.raises(
        TypeError, match=rf"{argument} must .* of at most double precision, got (float|compl)"
    ):
        call(long)


@pytest.mark.parametrize("wrong", ["foo", "int64", "U3"])
def test_dtypes_that_are_not_floating_are_refused_by_name(wrong):
    for call in (kc.ket([1.0]).astype, kc.eye(2).astype, kc.KroneckerSum([A]).astype):
        with pytest.raises(TypeError, match=r"dtype must be floating or complex, got "):
            call(wrong)
