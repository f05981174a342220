"""Stacks of matrices by cuBLAS, through CuPy's binding of it."""

import cupy
import numpy as np
import pytest

from ketcore.products import cublas
from tests.cupy_host import device


def layouts(values):
    """The same values by rows, by columns, with a gap behind each row, and with one between entries."""
    yield cupy.asarray(values)
    yield cupy.asarray(values.swapaxes(-1, -2).copy()).swapaxes(-1, -2)
    yield cupy.asarray(np.concatenate([values, values], axis=-1))[..., : values.shape[-1]]
    yield cupy.asarray(np.stack([values, values], axis=-1))[..., 0]


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_strided_batches(dtype):
    """One call of cuBLAS, and a copy only of what has gaps between its entries."""
    rng = np.random.default_rng(0)
    for m, k, n, count in ((2, 3, 4, 5), (1, 3, 1, 2), (4, 1, 3, 1), (1, 1, 1, 3)):
        a, b, stack = (
            (rng.standard_normal(shape) * (1 + 1j if "complex" in dtype else 1)).astype(dtype)
            for shape in ((m, k), (count, k, n), (count, m, k))
        )
        for values in (a, stack):
            for left in layouts(values):
                for right in layouts(b):
                    with device.noted() as notes:
                        found = cublas.matrix_products(cupy, left, right)
                    np.testing.assert_allclose(found.get(), values @ b, rtol=1e-5)
                    multiplied = [note.what for note in notes if note.function.startswith("cublas")]
                    assert multiplied == [f"cublas{cublas._LETTERS[dtype].upper()}gemmStridedBatched"]


def test_what_is_left_to_cupy():
    """Matrices of two dtypes and of no entries: CuPy has ways of its own, and kernels for them."""
    a, b = cupy.asarray(np.ones((2, 3), np.float32)), cupy.asarray(np.ones((4, 3, 5), np.float32))
    for left, right, shape in ((a.astype("float64"), b, (4, 2, 5)), (a, b[:0], (0, 2, 5))):
        with device.launches_that_do_nothing(), device.noted() as notes:
            found = cublas.matrix_products(cupy, left, right)
        assert found.shape == shape
        assert "cublasSgemmStridedBatched" not in [note.what for note in notes]


def test_work_is_on_the_current_stream():
    a, b = cupy.asarray(np.ones((2, 3), np.float32)), cupy.asarray(np.ones((4, 3, 5), np.float32))
    with cupy.cuda.Stream(non_blocking=True) as stream, device.noted() as notes:
        cublas.matrix_products(cupy, a, b)
    assert [note.stream for note in notes if note.function.startswith("cublas")] == [stream.ptr]


def test_what_is_not_provided_fails_by_its_name():
    a = cupy.asarray(np.ones((2, 3), np.float32))
    for call, text in (
        (lambda: cupy.sin(a.astype(float)), "cupy_sin__float64_float64: PtxError"),
        (lambda: cupy.sort(a), "cupy.cuda.thrust.sort is not provided"),
        (lambda: cupy.cuda.cub.device_scan(1, 2, 3, 4), "cupy.cuda.cub.device_scan is not provided"),
        (lambda: cupy.cuda.runtime.mallocManaged(8), "cudaMallocManaged is not provided"),
    ):
        with pytest.raises(Exception, match=text):
            call()


def test_new_memory_is_nan():
    assert np.isnan(cupy.empty(5).get()).all()
