"""While a graph is being captured: nothing waits, no call of cuBLAS, no copy between host and device."""

from contextlib import contextmanager
from functools import partial

import cupy
import numpy as np
import pytest

import ketcore as kc
from tests.cupy_host import device
from tests.cupy_host.problems import problems

PROBLEMS = problems()
# All of it is done on a stream.
CAPTURED = ("cuLaunchKernel", "cudaMemsetAsync", "cudaMemcpyAsync", "thrust::argsort")


def normal(*shape):
    return cupy.asarray(np.random.default_rng(0).standard_normal(shape).astype("float32"))


FACTORS, X = [normal(2, 8, 8) for _ in range(3)], normal(5, 512)


def product(path="fused"):
    return kc.kron_matmul(FACTORS, X, path=path)


def calls():
    for name, problem in PROBLEMS.items():
        yield pytest.param(problem.forward, id=name)
        yield pytest.param(problem.backward, id=f"{name}, backward")
        atomics = partial(problem.backward, deterministic=False)
        yield pytest.param(atomics, id=f"{name}, atomics")
    yield pytest.param(product, id="fused product")


@contextmanager
def after(call):
    """A stream in a capture, after a call that compiles and gives the pool what memory it takes."""
    pool = cupy.cuda.MemoryPool()
    with (
        cupy.cuda.Stream(non_blocking=True) as stream,
        cupy.cuda.using_allocator(pool.malloc),
        device.launches_that_do_nothing(),
    ):
        call()
        with device.capturing():
            yield stream


@pytest.mark.parametrize("call", list(calls()))
def test_what_is_captured(call):
    with after(call) as stream, device.noted() as notes:
        call()
    assert any(note.function == "cuLaunchKernel" for note in notes)
    for note in notes:
        assert note.function in CAPTURED
        assert note.detail not in ("to the host", "from the host")
        # CuPy tells thrust the stream on the way that the stand-in replaces.
        assert note.stream == stream.ptr or note.function == "thrust::argsort"


@pytest.mark.parametrize(
    "call",
    [lambda: product(None), lambda: kc.kron_matmul_vjp(FACTORS, X, X, path="fused")],
    ids=["product", "gradients of a fused product"],
)
def test_what_is_not_captured(call):
    """CuPy does not let a handle of cuBLAS change its stream then."""
    with after(call), pytest.raises(NotImplementedError):
        call()
