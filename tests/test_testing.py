"""The kit must pass right code and fail wrong code, on code that is not this package's: np.kron, np.vdot."""

from typing import get_type_hints

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ketcore
from ketcore import testing
from ketcore.testing import assert_adjoint, assert_dense_equal, assert_jvp, assert_second_order, assert_vjp
from tests.processes import run_python

RNG = np.random.default_rng(7)


def normal(*shape, dtype="float64"):
    values = RNG.standard_normal(shape) + 1j * RNG.standard_normal(shape)
    return values.astype(dtype) if np.dtype(dtype).kind == "c" else values.real.astype(dtype)


def kron_vjp(a, b, cotangent):
    split = cotangent.reshape(a.shape[0], b.shape[0], a.shape[1], b.shape[1])
    to_a, to_b = np.einsum("ikjl,kl->ij", split, b), np.einsum("ikjl,ij->kl", split, a)
    return to_a.astype(a.dtype), to_b.astype(b.dtype)


def kron_jvp(a, b, a_tangent, b_tangent):
    return np.kron(a_tangent, b) + np.kron(a, b_tangent)


def normalised(a):
    """A map that is not linear: a vector over its norm."""
    return a / np.sqrt((a.conj() * a).real.sum())


def normalised_vjp(a, cotangent):
    norm = np.sqrt((a.conj() * a).real.sum())
    return cotangent / norm - a.conj() * (a * cotangent).sum().real / norm**3


def vdot_vjp(v, w, cotangent):
    """Conjugates where the forward map does: the plain transpose of the real-linear map."""
    return (cotangent * w).conj(), cotangent * v.conj()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "complex64", "complex128"])
def test_right_derivatives_pass(dtype):
    pair = (normal(2, 3, dtype=dtype), normal(4, 1, dtype=dtype))
    assert_vjp(np.kron, kron_vjp, pair, jvp=kron_jvp, multilinear=True)
    assert_jvp(np.kron, kron_jvp, pair, multilinear=True)
    assert_second_order(np.kron, kron_vjp, pair, jvp=kron_jvp, multilinear=True)


def test_a_nonlinear_complex_map_passes():
    a = normal(5, dtype="complex128")
    assert_vjp(normalised, normalised_vjp, [a])
    assert_second_order(normalised, normalised_vjp, [a])


def test_the_conjugated_argument_of_an_inner_product_passes():
    v, w = normal(4, dtype="complex128"), normal(4, dtype="complex128")
    assert_vjp(np.vdot, vdot_vjp, (v, w), multilinear=True)
    with pytest.raises(AssertionError, match="gradient 0 must be the transpose of linearity"):
        assert_vjp(np.vdot, lambda v, w, c: (c * w, c * v.conj()), (v, w), multilinear=True)


def test_a_real_factor_beside_a_complex_one_gets_the_real_part():
    a, b = normal(2, 2), normal(2, 3, dtype="complex128")
    kept = lambda a, b, c: (kron_vjp(a + 0j, b, c)[0].real.copy(), kron_vjp(a + 0j, b, c)[1])  # noqa: E731
    assert_vjp(np.kron, kept, (a, b), multilinear=True)


def test_several_outputs_get_a_tuple_of_cotangents():
    def both(a, b):
        return a * b, a + b

    def both_vjp(a, b, cotangents):
        product, total = cotangents
        return product * b + total, product * a + total

    pair = (normal(3), normal(3))
    assert_vjp(both, both_vjp, pair, jvp=lambda a, b, s, t: (a * t + s * b, s + t))
    with pytest.raises(AssertionError, match="gradient 1 must be the transpose"):
        assert_vjp(both, lambda a, b, c: (c[0] * b + c[1], c[0] * a), pair)


WRONG_VJPS = {
    "one entry wrong": lambda a, b, c: (kron_vjp(a, b, c)[0] + np.eye(2, 3) * 1e-5, kron_vjp(a, b, c)[1]),
    "conjugated": lambda a, b, c: tuple(g.conj() for g in kron_vjp(a, b, c)),
    "zero": lambda a, b, c: (kron_vjp(a, b, c)[0], 0 * b),
    "not a number": lambda a, b, c: (kron_vjp(a, b, c)[0] * np.nan, kron_vjp(a, b, c)[1]),
    "twice": lambda a, b, c: tuple(2 * g for g in kron_vjp(a, b, c)),
}


@pytest.mark.parametrize("multilinear", [True, False])
@pytest.mark.parametrize("name", WRONG_VJPS)
def test_a_wrong_vjp_fails(name, multilinear):
    pair = (normal(2, 3, dtype="complex128"), normal(3, 2, dtype="complex128"))
    source = "linearity" if multilinear else "finite differences"
    message = f"gradient [01] must be the transpose of {source}, got .* error"
    with pytest.raises(AssertionError, match=message):
        assert_vjp(np.kron, WRONG_VJPS[name], pair, multilinear=multilinear)


def test_a_float32_gradient_with_an_error_of_a_few_digits_fails():
    pair = (normal(2, 3, dtype="float32"), normal(3, 2, dtype="float32"))
    scaled = lambda a, b, c: tuple(g * np.float32(1 + 1e-4) for g in kron_vjp(a, b, c))  # noqa: E731
    with pytest.raises(AssertionError, match="must be the transpose"):
        assert_vjp(np.kron, scaled, pair)


def test_a_vjp_that_is_not_the_transpose_of_the_jvp_fails():
    pair = (normal(2, 2), normal(2, 2))
    with pytest.raises(AssertionError, match="gradient 1 must be the transpose of the jvp"):
        assert_vjp(np.kron, kron_vjp, pair, jvp=lambda a, b, s, t: np.kron(s, b) + 2 * np.kron(a, t))


@pytest.mark.parametrize(
    ("vjp", "message"),
    [
        (lambda a, b, c: kron_vjp(a, b, c)[:1], r"gradient must be 2 arrays, got 1"),
        (lambda a, b, c: (b, b), r"gradient 0 must have shape \(2, 3\), got \(3, 2\)"),
        (lambda a, b, c: (a, b.astype("float32")), r"gradient 1 must have dtype float64, got float32"),
    ],
)
def test_gradients_of_another_number_shape_or_dtype_fail(vjp, message):
    with pytest.raises(AssertionError, match=message):
        assert_vjp(np.kron, vjp, (normal(2, 3), normal(3, 2)))


def add_in_place(array):
    array += 1
    return array


@pytest.mark.parametrize(
    ("function", "vjp", "message"),
    [
        (lambda a, b: np.kron(add_in_place(a), b), kron_vjp, "function must leave .* got primal 0 changed"),
        (np.kron, lambda a, b, c: kron_vjp(a, add_in_place(b), c), "vjp must leave .* got primal 1 changed"),
        (
            np.kron,
            lambda a, b, c: kron_vjp(a, b, add_in_place(c)),
            "vjp must leave .* got cotangent 0 changed",
        ),
    ],
)
def test_an_input_written_to_fails(function, vjp, message):
    with pytest.raises(AssertionError, match=message):
        assert_vjp(function, vjp, (normal(2, 3), normal(3, 2)))


@pytest.mark.parametrize(
    ("jvp", "message"),
    [
        (lambda a, b, s, t: np.kron(s, b), "jvp must equal finite differences, got .* in output 0 at"),
        (lambda a, b, s, t: kron_jvp(a, b, s, t) + np.nan, "jvp must equal finite differences, got nan"),
        (lambda a, b, s, t: kron_jvp(a, b, s, t)[:-1], r"jvp 0 must have shape \(6, 6\), got \(5, 6\)"),
        (
            lambda a, b, s, t: kron_jvp(a, b, s, t).astype("float32"),
            "jvp 0 must have dtype float64, got float32",
        ),
        (lambda a, b, s, t: kron_jvp(a, b, s, add_in_place(t)), "jvp must leave .* got tangent 1 changed"),
    ],
)
def test_a_wrong_jvp_fails(jvp, message):
    with pytest.raises(AssertionError, match=message):
        assert_jvp(np.kron, jvp, (normal(2, 3), normal(3, 2)))


def test_a_vjp_with_values_of_an_earlier_call_passes_once_and_fails_at_second_order():
    kept = {}

    def forward(a, b):
        kept.setdefault("b", b)
        return np.kron(a, b)

    def stale(a, b, cotangent):
        return kron_vjp(a, kept["b"], cotangent)

    pair = (normal(2, 2), normal(2, 2))
    assert_vjp(forward, stale, pair)
    with pytest.raises(AssertionError, match="the derivative of vjp must be symmetric"):
        assert_second_order(forward, stale, pair)
    with pytest.raises(AssertionError, match="the derivative of vjp must be"):
        assert_second_order(np.kron, stale, pair, multilinear=True)


def test_a_wrong_derivative_of_a_vjp_fails():
    wrong = lambda a, cotangent, tangent: tangent * cotangent  # noqa: E731
    with pytest.raises(AssertionError, match="the derivative of vjp must be vjp_jvp"):
        assert_second_order(np.square, lambda a, c: 2 * a * c, [normal(3)], vjp_jvp=wrong)


def test_a_function_that_drops_to_float32_is_named():
    with pytest.raises(AssertionError, match="function must keep float64, got float32"):
        assert_vjp(lambda a: a.astype("float32"), lambda a, c: c.astype("float64"), [normal(3)])


def test_integer_primals_are_refused():
    with pytest.raises(TypeError, match="primals must be real or complex floating, got int64"):
        assert_vjp(np.square, lambda a, c: 2 * a * c, [np.arange(3)])


def test_empty_and_zero_primals_pass():
    assert_vjp(np.kron, kron_vjp, (np.zeros((0, 2)), normal(2, 2)), jvp=kron_jvp, multilinear=True)
    assert_vjp(np.kron, kron_vjp, (np.zeros((2, 2)), normal(2, 2)), jvp=kron_jvp, multilinear=True)


def test_adjoint_passes_the_conjugate_transpose_alone():
    matrix = normal(3, 4, dtype="complex128")
    x, y = normal(4, dtype="complex128"), normal(3, dtype="complex128")
    assert_adjoint(lambda x: matrix @ x, lambda y: matrix.conj().T @ y, x, y)
    with pytest.raises(AssertionError, match="AH must be the adjoint of A"):
        assert_adjoint(lambda x: matrix @ x, lambda y: matrix.T @ y, x, y)
    with pytest.raises(AssertionError, match=r"AH\(y\) must have shape \(4,\), got \(3,\)"):
        assert_adjoint(lambda x: matrix @ x, lambda y: y, x, y)
    with pytest.raises(AssertionError, match="A must leave its arguments untouched, got x 0 changed"):
        assert_adjoint(lambda x: matrix @ add_in_place(x), lambda y: matrix.conj().T @ y, x, y)


def test_dense_equality_tells_values_shapes_dtypes_and_infinities_apart():
    a = normal(3, 4)
    assert_dense_equal(a.astype("float32"), a)
    assert_dense_equal(np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 1.0]))
    for wrong, message in (
        (a + 1e-12, "actual must equal expected"),
        (a[:, :3], r"actual must have shape \(3, 4\), got \(3, 3\)"),
        (np.where(a == a.max(), np.nan, a), "got nan for"),
        (np.where(a == a.max(), np.inf, a), "got inf for"),
    ):
        with pytest.raises(AssertionError, match=message):
            assert_dense_equal(wrong, a)
    with pytest.raises(AssertionError, match="actual must have dtype float32, got float64"):
        assert_dense_equal(a, a, dtype="float32")
    with pytest.raises(AssertionError, match=r"got 1\.0 for inf"):
        assert_dense_equal(np.ones(2), np.array([np.inf, 1.0]))


def test_dense_equality_is_exact_for_integers_and_relative_to_the_scale_given():
    assert_dense_equal(np.arange(3), np.arange(3))
    with pytest.raises(AssertionError, match="actual must equal expected, got 2"):
        assert_dense_equal(np.arange(3), np.array([0, 1, 3]))
    # A sum that cancels is right to the size of its terms.
    assert_dense_equal(np.array([1e-13]), np.array([0.0]), scale=np.array([1e3]))


def test_tolerance_grows_with_length_and_shrinks_with_precision():
    tolerances = [testing.tolerance(name) for name in ("bfloat16", "float16", "float32", "float64", "int64")]
    assert tolerances == sorted(tolerances, reverse=True)
    assert tolerances[-1] == 0
    single = testing.tolerance(np.float32)
    assert testing.tolerance("complex64") == single < testing.tolerance(np.float32, 100)


def test_arrays_of_every_library_go_to_numpy_and_back(xp):
    values = np.arange(6.0, dtype="float32").reshape(2, 3) - 1
    array = xp.asarray(values)
    back = testing.from_numpy(2 * values.astype("float64"), like=array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert np.array_equal(testing.to_numpy(back), 2 * values)


def test_derivatives_of_a_function_of_any_library(xp):
    a, b = xp.asarray(normal(3)), xp.asarray(normal(3))
    assert_vjp(lambda a, b: a * b, lambda a, b, c: (c * b, c * a), (a, b), multilinear=True)
    assert_jvp(lambda a, b: a * b, lambda a, b, s, t: s * b + a * t, (a, b))
    with pytest.raises(AssertionError, match="gradient 0 must be the transpose"):
        assert_vjp(lambda a, b: a * b, lambda a, b, c: (c * a, c * a), (a, b))


@settings(max_examples=60)
@given(st.data())
def test_strategies_keep_what_they_promise(data):
    dims = data.draw(testing.mode_dims(max_order=5, max_dim=4, max_size=20))
    assert 1 <= len(dims) <= 5
    assert all(1 <= dim <= 4 for dim in dims)
    assert np.prod(dims) <= 20
    factors = data.draw(testing.factors(row_dims=dims))
    assert [factor.shape[1] for factor in factors] == list(dims)
    assert len({factor.shape[0] for factor in factors}) == len({factor.dtype for factor in factors}) == 1
    bound = data.draw(st.sampled_from((1, 128, 129, 300, 2**40)))
    ids = data.draw(testing.indices(bound))
    assert ids.dtype.kind in "iu"
    assert all(0 <= int(i) < bound for i in ids.flat)
    leaves, dims = data.draw(testing.leaves())
    assert leaves.shape[2] == sum(dims)
    crop = data.draw(testing.crops(5, 7))
    assert crop is None or (1 <= crop[0] <= 5 and 1 <= crop[1] <= 7)
    assert data.draw(testing.indices(0)).size == 0


def test_strategies_draw_every_edge():
    drawn = {"order": set(), "rank": set(), "dtype": set(), "shape": set(), "integer": set()}

    @settings(max_examples=300, derandomize=True, database=None)
    @given(testing.factors(), testing.indices(100))
    def collect(factors, ids):
        drawn["order"].add(len(factors))
        drawn["rank"].add(factors[0].shape[0])
        drawn["dtype"].add(factors[0].dtype.name)
        drawn["shape"].add(ids.shape)
        drawn["integer"].add(ids.dtype.name)

    collect()
    assert drawn["order"] == {1, 2, 3, 4}
    assert drawn["rank"] == {1, 2, 3}
    assert len(drawn["dtype"]) == 4
    assert {(), (0,)} <= drawn["shape"]
    assert len(drawn["integer"]) == 8


def test_objects_are_drawn_in_the_arrays_of_any_library(xp):
    def body(drawn):
        ket, matrix = drawn
        assert isinstance(ket, ketcore.Ket)
        assert isinstance(matrix, ketcore.KroneckerMatrix)
        kind = type(xp.asarray(np.ones(1)))
        assert all(isinstance(factor, kind) for factor in (*ket.factors, *matrix.factors))
        assert ket.dims == (2, 3)
        assert matrix.rank == 2

    kets = testing.kets(dims=(2, 3), asarray=xp.asarray)
    xp.check(st.tuples(kets, testing.kronecker_matrices(rank=2, asarray=xp.asarray)), body)


def test_without_hypothesis_the_import_names_the_extra():
    code = "import sys; sys.modules['hypothesis'] = None; import ketcore.testing"
    done = run_python(code)
    assert done.returncode != 0
    assert 'ImportError: ketcore.testing must find hypothesis: pip install "ketcore[testing]"' in done.stderr


def test_wrong_gradient_of_a_small_primal_beside_a_large_one():
    primals = np.full(2, 1e10), np.full(2, 1e-10)
    testing.assert_vjp(lambda a, b: 2 * a + b, lambda a, b, c: (2 * c, c), primals, multilinear=False)
    with pytest.raises(AssertionError, match="gradient 1 must be the transpose"):
        testing.assert_vjp(lambda a, b: a * b, lambda a, b, c: (c * b, 3 * c * a), primals)


@pytest.mark.parametrize("name", testing.__all__)
def test_annotations_can_be_read_at_run_time(name):
    get_type_hints(getattr(testing, name))
