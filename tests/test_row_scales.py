"""Row scales, beyond what holds of every primal of every operation: ids, dtypes, memory and errors."""

import numpy as np
import pytest

import ketcore as kc
from ketcore import testing
from ketcore.lookups import gather

RNG = np.random.default_rng(17)
FACTORS = [RNG.standard_normal((2, 3, 4)), RNG.standard_normal((2, 5, 3))]
LEAVES = RNG.standard_normal((6, 2, 7))
DIMS, SCALE, IDS = (4, 3), RNG.standard_normal(6), np.array([[4, 0, 4], [5, 5, 1]])
ENGINES = [name for name in kc.engines() if name != "cuda"]


def test_without_a_scale_gradients_are_what_they_were():
    cotangent = np.ones((2, 3, 12))
    assert [g.shape for g in kc.rows_vjp(FACTORS, IDS, cotangent)] == [f.shape for f in FACTORS]
    assert kc.ket_rows_vjp(LEAVES, IDS, cotangent, DIMS).shape == LEAVES.shape
    assert len(kc.ket_rows_vjp(LEAVES, IDS, cotangent, DIMS, sparse=True)) == 2


@pytest.mark.parametrize("layernorm", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_sparse_gradients_are_those_of_the_words_picked(engine, layernorm):
    cotangent = RNG.standard_normal((2, 3, 12))
    with gather.only(engine):
        dense = kc.ket_rows_vjp(LEAVES, IDS, cotangent, DIMS, layernorm, row_scale=SCALE)
        ids, *sparse = kc.ket_rows_vjp(LEAVES, IDS, cotangent, DIMS, layernorm, row_scale=SCALE, sparse=True)
    assert ids.tolist() == [0, 1, 4, 5]
    for one, other in zip(sparse, dense, strict=True):
        testing.assert_dense_equal(one, other[ids], terms=20, scale=10.0)
        assert not np.delete(other, ids, axis=0).any()


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_bad_ids_are_nan_and_have_no_gradient(engine):
    ids, cotangent = np.array([2, 15, 2, -1]), RNG.standard_normal((4, 12))
    scale, more = RNG.standard_normal(15), {"check": False}
    with gather.only(engine):
        rows = kc.rows(FACTORS, ids, row_scale=scale, **more)
        pushed = kc.rows_jvp(FACTORS, ids, FACTORS, row_scale=scale, row_scale_tangent=scale, **more)
        gradients, to_scale = kc.rows_vjp(FACTORS, ids, cotangent, row_scale=scale, **more)
        expected = kc.rows_vjp(FACTORS, ids[::2], cotangent[::2], row_scale=scale)
    for found in (rows, pushed):
        assert np.isnan(found).all(axis=1).tolist() == [False, True, False, True]
    for one, other in zip((*gradients, to_scale), (*expected[0], expected[1]), strict=True):
        testing.assert_dense_equal(one, other, terms=20, scale=10.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_of_16_bits_are_rounded_once(engine):
    """Also where the rows themselves would overflow, or lose digits below the normal numbers."""
    for size, scale in ((200.0, 1e-4), (1e-3, 3e2)):
        factors = [(size * np.abs(f) + size).astype("float16") for f in FACTORS]
        scale = np.full(15, scale, "float16")
        for ids in (np.arange(15).repeat(20), np.array([3])):
            # A few rows are not worth a copy of the factors in float32, without which array code takes them.
            with gather.only(engine, "arrays"):
                found = kc.rows(factors, ids, row_scale=scale)
            wide = kc.rows_dense([f.astype(float) for f in factors], ids, row_scale=scale.astype(float))
            assert found.dtype == np.float16
            assert np.abs(found - wide).max() <= np.spacing(found).max() * 0.51


def test_a_scale_counts_for_the_dtype():
    for factors, scale, expected in (
        ("float16", "float32", "float32"),
        ("float32", "float64", "float64"),
        ("float32", "complex64", "complex64"),
        ("float32", "int64", "float32"),
    ):
        given = [factor.astype(factors) for factor in FACTORS]
        numbers = np.arange(15).astype(scale)
        rows = kc.rows(given, [3, 14], row_scale=numbers)
        assert rows.dtype == expected
        right = kc.rows_dense([f.astype(float) for f in given], [3, 14]) * numbers[[3, 14], None]
        testing.assert_dense_equal(rows, right, terms=4, scale=100, dtype=expected)
        gradients, to_scale = kc.rows_vjp(given, [3, 14], rows, row_scale=numbers)
        assert {g.dtype for g in gradients} == {np.dtype(factors)}
        assert to_scale.dtype == (scale if scale != "int64" else factors)
    layered = kc.ket_rows(LEAVES, IDS, DIMS, True, row_scale=SCALE * 1j)
    testing.assert_dense_equal(layered, kc.ket_rows(LEAVES, IDS, DIMS, True, row_scale=SCALE) * 1j, terms=20)


def test_out_may_share_memory_with_the_scale():
    index, memory = [[0, 2, 1], [4, 0, 3]], np.empty((3, 12))
    memory[:, 0] = 1.0, 2.0, -1.0
    expected = kc.gather_kron(FACTORS, index, row_scale=memory[:, 0].copy())
    assert kc.gather_kron(FACTORS, index, row_scale=memory[:, 0], out=memory) is memory
    assert np.array_equal(memory, expected)
    matrix, ids = kc.KroneckerMatrix(FACTORS), np.array([2, 7])
    scale, out = RNG.standard_normal(15), np.empty((2, 12))
    assert matrix.rows(ids, row_scale=scale, out=out) is out
    assert np.array_equal(out, matrix.rows(ids) * scale[ids, None])


def test_scales_that_do_not_fit():
    ids, tangent = [0, 1], np.ones(15)
    for scale in (np.ones(14), np.ones(()), np.ones((15, 1)), np.ones(0)):
        with pytest.raises(ValueError, match=r"row_scale must have shape \(15,\), one number for each row"):
            kc.rows(FACTORS, ids, row_scale=scale)
    with pytest.raises(ValueError, match=r"row_scale must have shape \(11,\), one number for each row"):
        kc.rows(FACTORS, ids, (11, 12), row_scale=np.ones(15))
    with pytest.raises(
        ValueError, match=r"row_scale must have shape \(2,\), one .* of the batch, got \(3,\)"
    ):
        kc.gather_kron(FACTORS, [ids, ids], row_scale=np.ones(3))
    with pytest.raises(TypeError, match="row_scale must have a numeric dtype, got <U1"):
        kc.ket_rows(LEAVES, ids, DIMS, row_scale=np.array(list("abcdef")))
    with pytest.raises(TypeError, match="row_scale_tangent must be real as the primals are"):
        kc.rows_jvp(FACTORS, ids, FACTORS, row_scale=tangent, row_scale_tangent=tangent * 1j)
    with pytest.raises(ValueError, match="row_scale_tangent must be None where row_scale is, got"):
        kc.rows_jvp(FACTORS, ids, FACTORS, row_scale_tangent=tangent)
    still = kc.rows_jvp(FACTORS, ids, FACTORS, row_scale=tangent)
    assert np.array_equal(still, kc.rows_jvp(FACTORS, ids, FACTORS))
    empty = kc.ket_rows(LEAVES[:0], np.zeros(0, int), DIMS, row_scale=np.ones(0))
    assert empty.shape == (0, 12)


@pytest.mark.parametrize("bits", [8, 4])
def test_scales_may_be_quantized(bits):
    factors = [factor.astype("float32") for factor in FACTORS]
    scale = kc.quantize(RNG.standard_normal(15), bits, block=7)
    decoded, cotangent = scale.dequantize(), np.ones((2, 3, 12), np.float32)
    found = kc.rows(factors, IDS, row_scale=scale)
    assert found.dtype == np.float32
    assert np.array_equal(found, kc.rows(factors, IDS, row_scale=decoded))
    assert np.array_equal(kc.KroneckerMatrix(factors).rows(IDS, row_scale=scale), found)
    both = [kc.rows_vjp(factors, IDS, cotangent, row_scale=each) for each in (scale, decoded)]
    assert np.array_equal(both[0][1], both[1][1])
    leaves, few = LEAVES.astype("float32"), kc.quantize(SCALE, bits)
    expected = kc.ket_rows(leaves, IDS, DIMS, row_scale=few.dequantize())
    assert np.array_equal(kc.ket_rows(leaves, IDS, DIMS, row_scale=few), expected)
