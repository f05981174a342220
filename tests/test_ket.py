"""Kets against the vectors that they stand for."""

import copy
import pickle
from functools import reduce
from math import prod

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketcore.objects.ket import Ket, ket
from ketcore.testing import assert_dense_equal, dtypes, kets, mode_dims, to_numpy

# Laws are checked in one step of rounding per mode and term: a little more than the sums of one product.
TERMS = 400


def dense(v):
    """The definition: leaves multiplied out term by term, in float64."""
    factors = [to_numpy(f) for f in v.factors]
    factors = [f.astype(np.complex128 if f.dtype.kind == "c" else np.float64) for f in factors]
    return reduce(outer, factors).sum(axis=-2)


def outer(a, b):
    """(..., i), (..., j) -> (..., i j); the last size is spelled out for arrays without elements."""
    product = a[..., :, None] * b[..., None, :]
    return product.reshape(*product.shape[:-2], a.shape[-1] * b.shape[-1])


@st.composite
def pairs(
    draw, dims=None, asarray=np.asarray, dtype=None, batches=((), (1,), (3,), (2, 3)), ranks=(0, 1, 2, 3)
):
    """Two kets of the same dims whose batches broadcast, of any ranks, one of them perhaps zero."""
    dims = draw(mode_dims()) if dims is None else dims
    found = []
    for _ in range(2):
        batch = draw(st.sampled_from(batches))
        rank = draw(st.sampled_from(ranks))
        found.append(draw(kets(batch_shape=batch, dims=dims, rank=rank, dtype=dtype, asarray=asarray)))
    return found


def check_core(v, w):
    """A few methods that between them use every kind of array code."""
    a, b = dense(v), dense(w)
    assert_dense_equal(v.to_dense(), a, terms=TERMS, scale=_scale(v), dtype=v.dtype)
    assert_dense_equal((v + 2.0 * w).to_dense(), a + 2.0 * b, terms=TERMS, scale=_scale(v) + _scale(w, 2.0))
    assert_dense_equal(v.kron(w).to_dense(), outer(a, b), terms=TERMS, scale=_scale(v) * _scale(w))
    assert_dense_equal(v.norm(), np.linalg.norm(a, axis=-1), terms=TERMS, scale=a.shape[-1] * _scale(v))
    assert_dense_equal(v.balance()[[-1]].to_dense(), a[[-1]], terms=TERMS, scale=_scale(v))


def check_laws(v, w):
    """Every method of kets against the same on dense vectors."""
    a, b = dense(v), dense(w)
    assert_dense_equal(v.to_dense(), a, terms=TERMS, scale=_scale(v), dtype=v.dtype)
    assert_dense_equal((v + w).to_dense(), a + b, terms=TERMS, scale=_scale(v) + _scale(w))
    assert_dense_equal((v - w).to_dense(), a - b, terms=TERMS, scale=_scale(v) + _scale(w))
    assert_dense_equal((-v).to_dense(), -a, terms=TERMS, scale=_scale(v))
    assert_dense_equal((2.5 * v).to_dense(), 2.5 * a, terms=TERMS, scale=_scale(v, 2.5), dtype=v.dtype)
    assert_dense_equal((v / 2.5).to_dense(), a / 2.5, terms=TERMS, scale=_scale(v))
    assert_dense_equal((v * 2j).to_dense(), a * 2j, terms=TERMS, scale=_scale(v, 2))
    assert_dense_equal(v.conj().to_dense(), a.conj(), terms=TERMS, scale=_scale(v), dtype=v.dtype)
    assert_dense_equal(v.kron(w).to_dense(), outer(a, b), terms=TERMS, scale=_scale(v) * _scale(w))
    assert_dense_equal(v.balance().to_dense(), a, terms=TERMS, scale=_scale(v), dtype=v.dtype)
    size = a.shape[-1] * _scale(v) * _scale(w)
    assert_dense_equal(v.inner(w), np.sum(a.conj() * b, axis=-1), terms=TERMS, scale=size)
    gram = np.tensordot(a.conj(), b, axes=(-1, -1))
    assert_dense_equal(v.gram(w), gram, terms=TERMS, scale=size)
    norm = np.linalg.norm(a, axis=-1)
    length = a.shape[-1] ** 0.5 * _scale(v)
    # The root of a sum that cancels: its error is the root of the rounding of its terms.
    assert np.all(np.abs(to_numpy(v.norm()).astype(float) ** 2 - norm**2) <= 1e-5 * length**2)
    clear = norm > 0.3 * length
    unit = to_numpy(v.normalize().to_dense())[clear]
    np.testing.assert_allclose(unit, a[clear] / norm[clear][..., None], atol=1e-4)


def _scale(v, factor=1.0):
    """The largest magnitude that the terms of a ket could add up to."""
    leaves = [np.abs(to_numpy(f).astype(complex)).max(axis=-1) for f in v.factors]
    return factor * max(reduce(np.multiply, leaves).sum(axis=-1).max(initial=0.0), 1e-30)


@given(pairs())
def test_methods_equal_the_dense_computation(pair):
    check_laws(*pair)


def test_methods_on_every_backend(xp):
    # JAX compiles every operation anew for each shape and dtype, which takes its time.
    names = st.sampled_from(["float32"] if xp.name == "jax" else ["float32", "complex128"])
    check = check_core if xp.name == "jax" else check_laws
    xp.check(
        names.flatmap(lambda name: pairs((2, 3), xp.asarray, name, ((2,),), (2,))),
        lambda pair: check(*pair),
    )


@given(dtypes(), dtypes())
def test_mixed_dtypes_promote(one, other):
    v, w = (Ket([np.ones((2, 3), dtype)]) for dtype in (one, other))
    promoted = np.promote_types(one, other)
    assert (v + w).dtype == v.kron(w).dtype == v.inner(w).dtype == promoted
    assert Ket([np.ones((2, 3), one), np.ones((2, 2), other)]).dtype == promoted


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
def test_half_storage_sums_in_float32(dtype):
    v = Ket.random((3, 4, 2), rank=3, batch_shape=(5,), rng=0, dtype=dtype)
    a = dense(v)
    assert_dense_equal(v.to_dense(), a, terms=TERMS, dtype=dtype)
    assert_dense_equal(v.inner(v), np.sum(a * a, axis=-1), terms=TERMS, dtype=dtype)
    assert_dense_equal(v.norm(), np.linalg.norm(a, axis=-1), terms=TERMS, dtype=dtype)
    assert (v * 3.0).dtype == (v / np.float64(2)).dtype == v.balance().dtype == v.normalize().dtype == dtype
    assert (v * 1j).dtype == np.complex64
    # The square of this norm is beyond float16, the norm is not.
    assert float(Ket([np.full((1, 4), 1000.0, np.float16)]).norm()) == 2000.0


@given(kets(batch_shape=(4, 3)), st.data())
def test_keys_choose_from_the_batch_by_numpys_rules(v, data):
    a = dense(v)
    ids = np.array([0, -1, 2])
    mask = np.array([True, False, True, True])
    keys = [1, -4, slice(1, 3), slice(None, None, -2), ids, [0, -4], mask, mask.tolist(), (), np.int8(-2), []]
    keys += [
        (1, 2),
        (slice(None), -1),
        (ids, ids),
        (ids[:, None], [0, 1]),
        (0, slice(2, 0, -1)),
        (mask, [0, 1, 2]),
    ]
    keys += [
        np.zeros((4, 3), bool),
        a[..., 0].real > 0,
        (slice(None), slice(None, None, -1)),
        np.zeros((2, 0), int),
    ]
    key = data.draw(st.sampled_from(keys))
    # NumPy takes an empty list for floats where it is not written in the brackets.
    numpy_key = np.zeros(0, int) if isinstance(key, list) and not key else key
    assert_dense_equal(v[key].to_dense(), a[numpy_key], terms=TERMS, scale=_scale(v))


def test_iteration_goes_over_the_batch():
    v = Ket.random((2, 3), batch_shape=(4,), rng=0)
    assert len(v) == 4
    assert [w.shape for w in v] == [(6,)] * 4
    single = ket([1.0, 2.0])
    with pytest.raises(TypeError, match=r"a ket must have a batch for len\(\), got shape \(2,\)"):
        len(single)
    with pytest.raises(TypeError, match="must have a batch for len"):
        list(single)


def test_facts():
    v = Ket([np.ones((5, 2, 3), np.float32), np.ones((5, 2, 4), np.float32)])
    assert (v.shape, v.batch_shape, v.dims, v.order, v.rank) == ((5, 12), (5,), (3, 4), 2, 2)
    assert (v.dtype, v.nbytes, v.packed.shape) == (np.float32, 5 * 2 * 7 * 4, (5, 2, 7))
    assert [f.shape for f in v.factors] == [(5, 2, 3), (5, 2, 4)]
    assert all(np.shares_memory(f, v.packed) for f in v.factors)
    assert ket([1.0, 2.0], [3.0, 4.0]).rank == 1
    assert Ket.from_packed(v.packed, v.dims).packed is v.packed


def test_rank_0_is_the_zero_vector():
    zero = Ket([np.zeros((3, 0, 2)), np.zeros((3, 0, 4))])
    assert zero.rank == 0
    for same in (zero, zero.normalize(), zero.balance(), zero * 3.0, zero.conj(), -zero, zero[:]):
        assert same.to_dense().tolist() == np.zeros((3, 8)).tolist()
    assert zero.norm().tolist() == zero.inner(zero).tolist() == [0.0] * 3
    assert float(zero[0].norm()) == 0.0


def test_empty_batches():
    empty = Ket.random((2, 3), rank=2, batch_shape=(0, 4), rng=0)
    for same in (
        empty,
        -empty,
        empty.normalize(),
        empty.balance(),
        empty.kron(empty),
        empty + empty,
        empty[:, 1:],
    ):
        assert same.to_dense().size == 0
    assert empty.norm().shape == empty.inner(empty).shape == (0, 4)
    assert empty.gram(empty).shape == (0, 4, 0, 4)


def test_norms_beyond_the_range_of_their_squares():
    v = Ket([np.full((1, 4), 1e-150), np.full((1, 4), 1e-150), np.full((1, 4), 1e300)])
    np.testing.assert_allclose(v.norm(), 8.0, rtol=1e-13)
    np.testing.assert_allclose(v.normalize().norm(), 1.0, rtol=1e-13)
    huge = Ket([np.full((1, 4), 1e300)] * 3).normalize()
    np.testing.assert_allclose(huge.to_dense(), np.full(64, 0.125), rtol=1e-13)


def test_cancelling_terms_have_no_nan_norm():
    v = Ket.random((3, 5, 2), rank=4, batch_shape=(50,), rng=1)
    norms = (v - v).norm()
    assert np.all((norms >= 0) & (norms <= 1e-6 * v.norm()))
    assert (ket([0.0, 0.0], [1.0, 1.0])).normalize().to_dense().tolist() == [0.0] * 4


@given(kets(rank=3))
def test_balance_equalises_the_norms_of_each_term(v):
    norms = np.stack([np.linalg.norm(f, axis=-1) for f in v.balance().factors])
    np.testing.assert_allclose(norms, np.broadcast_to(norms[:1], norms.shape), rtol=1e-4)


def test_values_that_are_not_finite_propagate():
    for value in (np.nan, np.inf):
        v = ket([1.0, value], [1.0, 2.0])
        assert not np.isfinite(v.to_dense()).all()
        assert not np.isfinite(v.norm())
        assert not np.isfinite(v.balance().to_dense()).all()
        assert not np.isfinite((v + v).inner(v))


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_random_entries_have_the_standard_deviation_asked_for(dtype):
    entries = Ket.random((4, 4, 4), rank=5, batch_shape=(4000,), std=0.3, rng=0, dtype=dtype).to_dense()
    assert entries.dtype == dtype
    assert abs(np.sqrt(np.mean(np.abs(entries) ** 2)) / 0.3 - 1) < 0.05
    assert abs(np.mean(entries)) < 0.01


def test_random_is_reproducible():
    draws = [Ket.random((2, 3), rng=seed).packed.tolist() for seed in (1, 1, 2, np.random.default_rng(1))]
    assert draws[0] == draws[1] == draws[3] != draws[2]


def test_scalars_of_all_kinds():
    v = ket(np.float32([1.0, 2.0]), np.float32([3.0, 1.0]))
    for scalar in (2, 2.0, np.float64(2.0), np.int8(2), np.array(2.0), np.float16(2)):
        for scaled in (v * scalar, scalar * v, v / (1 / scalar)):
            assert scaled.dtype == np.float32
            assert scaled.to_dense().tolist() == [6.0, 2.0, 12.0, 4.0]
    assert (v * np.complex128(2j)).dtype == np.complex64
    assert float((v / v.norm()).norm()) == pytest.approx(1.0)


def test_operators_take_nothing_else():
    v = ket([1.0, 2.0])
    for operation in (
        lambda: v * np.ones(2),
        lambda: np.ones(2) * v,
        lambda: v * v,
        lambda: v + 1.0,
        lambda: np.ones(2) - v,
        lambda: v / np.ones(2),
        lambda: v**2,
        lambda: 1.0 / v,
    ):
        # The second is what NumPy says where it is on the left.
        ways = r"unsupported operand|must be an array for np\.|to_dense|^other must be "
        with pytest.raises(TypeError, match=ways):
            operation()


def test_a_dense_conversion_is_asked_for_and_bounded(tmp_path):
    v = Ket.random((1000, 1000, 1000), rng=0)
    with pytest.raises(
        MemoryError, match=r"max_bytes must be at least 8000000000 \(7.4 GiB\) to hold the dense "
    ):
        v.to_dense()
    small = ket([1.0, 2.0], [3.0, 4.0])
    with pytest.raises(MemoryError, match=r"dense \(4,\) array of float64, got 31"):
        small.to_dense(max_bytes=31)
    out = np.full(4, np.nan)
    assert small.to_dense(max_bytes=32, out=out) is out
    assert out.tolist() == [3.0, 4.0, 6.0, 8.0]
    with pytest.raises(ValueError, match=r"out must have shape \(4,\)"):
        small.to_dense(out=np.empty(5))
    with pytest.raises(TypeError, match=r"a Ket must be made dense by to_dense\(max_bytes=\)"):
        np.asarray(small)


def test_kets_are_values():
    v = Ket.random((2, 3), batch_shape=(2,), rng=0)
    for name in ("packed", "dims", "rank", "other"):
        with pytest.raises(AttributeError):
            setattr(v, name, None)
    for same in (copy.copy(v), copy.deepcopy(v), pickle.loads(pickle.dumps(v))):
        assert same.dims == v.dims
        assert same.packed.tolist() == v.packed.tolist()
    assert v != copy.copy(v)
    assert len({v, v}) == 1


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Ket([]), ValueError, "factors must hold at least one array, got none"),
        (lambda: ket(), ValueError, "factors must hold at least one array, got none"),
        (
            lambda: Ket([np.ones((2, 3)), np.ones((1, 3))]),
            ValueError,
            r"one rank .* got shapes \[\(2, 3\), \(1, 3\)\]",
        ),
        (
            lambda: Ket([np.ones((4, 2, 3)), np.ones((2, 3))]),
            ValueError,
            "factors must be arrays .* of one batch shape",
        ),
        (lambda: Ket([np.ones((2, 0))]), ValueError, r"q_n >= 1, got shapes \[\(2, 0\)\]"),
        (lambda: Ket([np.float64(1.0)]), ValueError, r"got shapes \[\(\)\]"),
        (lambda: Ket([["a"]]), TypeError, "factors must have a numeric dtype, got <U1"),
        (lambda: ket(np.ones((1, 2))), ValueError, r"vectors must be 1-D, got shapes \[\(1, 2\)\]"),
        (
            lambda: Ket.from_packed(np.ones((2, 4)), (2, 3)),
            ValueError,
            r"packed must have shape \(..., rank, 5\) for",
        ),
        (lambda: Ket.from_packed(np.ones(5), (2, 3)), ValueError, r"packed must have shape .* got \(5,\)"),
        (
            lambda: Ket.from_packed(np.ones((1, 2)), ()),
            ValueError,
            r"dims must be at least one int >= 1, got \(\)",
        ),
        (lambda: Ket.from_packed(np.ones((1, 2)), (2, 0)), ValueError, r"dims must be .* got \(2, 0\)"),
        (
            lambda: Ket.from_packed(np.ones((1, 2), "U1"), (2,)),
            TypeError,
            "packed must have a numeric dtype",
        ),
        (lambda: Ket.random((2,), dtype="int8"), TypeError, "dtype must be floating or complex, got int8"),
        (lambda: Ket.random((2,), std=-1.0), ValueError, "std must be at least 0 and finite, got -1.0"),
        (lambda: Ket.random(()), ValueError, r"dims must be at least one int >= 1, got \(\)"),
    ],
)
def test_constructors_refuse(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_methods_refuse():
    v, w = Ket.random((2, 3), batch_shape=(4,), rng=0), Ket.random((3, 2), batch_shape=(3,), rng=0)
    with pytest.raises(ValueError, match=r"kets must have equal dims to be added, got \(2, 3\) and \(3, 2\)"):
        v + w
    with pytest.raises(ValueError, match=r"kets must have batches that broadcast, got \(4,\) and \(3,\)"):
        v.kron(w)
    with pytest.raises(ValueError, match="must"):
        v.inner(w)
    for method in (v.inner, v.gram, v.kron):
        with pytest.raises(TypeError, match="other must be a Ket, got ndarray"):
            method(np.ones(6))
    with pytest.raises(IndexError, match=r"key must lie in \[-4, 4\) on axis 0, got 4"):
        v[4]
    with pytest.raises(IndexError, match="key must have at most 1 entries, got 2"):
        v[0, 0]
    with pytest.raises(
        TypeError, match="key must be integers, slices, integer arrays or a boolean mask, got None"
    ):
        v[None]


def test_libraries_do_not_mix():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="factors must be arrays of one library, got numpy, torch"):
        Ket([np.ones((1, 2)), torch.ones((1, 2))])
    with pytest.raises(TypeError, match="kets must be arrays of one library"):
        ket(np.ones(2)) + ket(torch.ones(2))


@pytest.mark.parametrize(("scale", "dtype"), [(1e90, "float64"), (1e12, "float32"), (1e-30, "float32")])
def test_norm_of_terms_in_very_different_gauges(scale, dtype):
    scale = np.dtype(dtype).type(scale)
    v = Ket([np.stack([[scale], [1 / scale]]), np.stack([[1 / scale], [scale]])])
    assert v.norm() == pytest.approx(2, rel=1e-6)
    assert v.normalize().to_dense() == pytest.approx([1], rel=1e-6)


@pytest.mark.parametrize("dims", [(16, 16), (8, 8, 8)])
@pytest.mark.parametrize("ranks", [(1, 1), (3, 2)])
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_gram_of_many_kets_equals_that_of_their_entries(dims, ranks, dtype):
    """Enough of them that multiplying them out is cheaper, and scales at which that would leave the range."""
    count = 800 if ranks == (1, 1) else 300
    v, w = (Ket.random(dims, rank, (count,), rng=rank, dtype=dtype) for rank in ranks)
    dense = [ket.to_dense() for ket in (v, w)]
    right, scale = dense[0].conj() @ dense[1].T, abs(dense[0]) @ abs(dense[1]).T
    assert_dense_equal(v.gram(w), right, terms=prod(dims), scale=scale)
    large = float(np.finfo(dtype).max) ** 0.7
    huge, tiny = (Ket([f * s for f in ket.factors]) for ket, s in ((v, large), (w, 1 / large)))
    assert_dense_equal(huge.gram(tiny), right, terms=prod(dims), scale=scale)
