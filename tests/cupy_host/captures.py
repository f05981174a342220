"""Graphs: in a capture nothing waits, calls cuBLAS or copies between host and device; and what they give."""

from contextlib import contextmanager
from functools import partial

import cupy
import numpy as np
import pytest

import ketcore as kc
from tests.cupy_host import device
from tests.cupy_host.problems import BATCH, problems

PROBLEMS = problems()
# All of it is done on a stream.
CAPTURED = ("cuLaunchKernel", "cudaMemsetAsync", "cudaMemcpyAsync", "thrust::argsort")


def normal(*shape):
    return cupy.asarray(np.random.default_rng(0).standard_normal(shape).astype("float32"))


FACTORS, X = [normal(2, 8, 8) for _ in range(3)], normal(5, 512)


def product(path="fused", **options):
    return kc.kron_matmul(FACTORS, X, path=path, **options)


def calls():
    for name, problem in PROBLEMS.items():
        yield pytest.param(problem.forward, id=name)
        yield pytest.param(problem.backward, id=f"{name}, backward")
        atomics = partial(problem.backward, deterministic=False)
        yield pytest.param(atomics, id=f"{name}, atomics")
    yield pytest.param(partial(product), id="fused product")


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


def arrays_of(call):
    """The arrays that a call reads; ids are integers."""
    tables, *others = call.args or (FACTORS, X)
    return [*(tables if isinstance(tables, list) else [tables]), *others]


@pytest.mark.parametrize("call", list(calls()))
def test_a_graph_takes_the_values_of_its_launch(call):
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.Stream(non_blocking=True) as stream, cupy.cuda.using_allocator(pool.malloc):
        before = values_of(call())
        stream.begin_capture()
        captured = call()
        graph = stream.end_capture()
        for array in arrays_of(call):
            values = array.get()
            array.set(values[..., ::-1].copy() if values.dtype.kind == "i" else values * np.float32(-1.5))
        graph.launch(stream)
        expected = values_of(call())
        # Atomics add in the order in which threads happen to run, here always the same.
        for found, right, old in zip(values_of(captured), expected, before, strict=True):
            np.testing.assert_array_equal(found, right)
            assert not np.array_equal(right, old)


def test_a_graph_of_its_own_pool_writes_over_no_other_array():
    """Its intermediate results lie in memory that the pool would give to the next array."""
    call, written = PROBLEMS["kets, many"].backward, []
    for own in (True, False):
        pool, graph_pool = cupy.cuda.MemoryPool(), cupy.cuda.MemoryPool()
        with cupy.cuda.Stream(non_blocking=True) as stream, cupy.cuda.using_allocator(pool.malloc):
            with cupy.cuda.using_allocator(graph_pool.malloc if own else pool.malloc):
                kept = call()
                stream.begin_capture()
                kept = call()
                graph = stream.end_capture()
            # As many numbers as there are in what is handed from one kernel to the next.
            others = [cupy.zeros(BATCH * 2 * 16, "float32") for _ in range(3)]
            graph.launch(stream)
            written.append(any(other.get().any() for other in others))
            del kept
    assert written == [False, True]


def values_of(results):
    """What a call gave, as arrays of NumPy."""
    return [array.get() for array in (results if isinstance(results, tuple) else (results,))]


def test_products_take_the_kernel():
    """The default path, which is another one outside of a capture."""
    with after(lambda: [normal(1 << 16) for _ in range(4)]), device.noted() as notes:
        found = [product(None), product(None, out=cupy.empty((5, 512), "float32"))]
        matrix = kc.KroneckerMatrix(FACTORS)
        found += [X @ matrix, matrix @ X.T]
    assert {note.what for note in notes if note.is_work} <= {"multiply", "cupy_copy", "cudaMemcpyAsync"}
    assert sum(note.what == "multiply" for note in notes) == len(found)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: product("modes"), "path must be None or 'fused' while CAPTURED, got 'modes'"),
        (
            partial(kc.kron_matmul, [normal(1, 9, 20)], normal(3, 9)),
            "while CAPTURED, factors and x must have at most 16 rows and columns in each mode, got [(9, 20)]",
        ),
        (
            partial(kc.kron_matmul, [normal(4, 2, 3, 3)], normal(4, 3)),
            "while CAPTURED, factors and x must be arrays (rank, rows, columns) without a batch",
        ),
        (
            lambda: kc.kron_matmul_vjp(FACTORS, X, X, path="fused"),
            "kron_matmul_vjp must not be called while CAPTURED: it calls cuBLAS by every path",
        ),
        (
            lambda: kc.kron_matmul_jvp(FACTORS, X, FACTORS, X),
            "kron_matmul_jvp must not be called while CAPTURED: it calls cuBLAS by every path",
        ),
    ],
    ids=["modes", "a large mode", "a batch", "gradients", "tangents"],
)
def test_what_is_not_captured_says_so(call, text):
    """CuPy itself refuses to call cuBLAS then, with a NotImplementedError that names none of this."""
    with device.launches_that_do_nothing():
        call()
        with device.capturing(), pytest.raises(RuntimeError) as caught:
            call()
    assert str(caught.value) == text.replace("CAPTURED", "a CUDA graph is being captured")
