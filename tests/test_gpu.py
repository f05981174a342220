"""What only a GPU can show: kernels on its memory, streams, graphs, waiting, equal bits, 64-bit offsets.

The tests named `small` are those that compute-sanitizer watches (bench/gpu.sh).  They turn CuPy's memory pool
off, so that an array ends where its allocation ends and new memory holds nothing.
"""

from dataclasses import replace
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from time import perf_counter

import numpy as np
import pytest

import ketcore as kc
from ketcore.cuda import launcher, table
from ketcore.lookups import kernels
from ketcore.lookups.leaves import packed_views
from ketcore.lookups.lookup import remade
from ketcore.products import fused
from tests.kernel_problems import (
    FLOATS,
    KINDS,
    close,
    cotangent_of,
    dtype_of,
    flat,
    make,
    make_product,
    reference,
    scattered,
)
from tests.require import require

pytestmark = pytest.mark.gpu

STORAGE = {"float32": "float", "float64": "double", "float16": "float16", "bfloat16": "bfloat16"}
# Holds the stream for this long, many times what a call takes.
SPIN_SECONDS = 1.0
SPIN = """extern "C" __global__ void spin(long long nanoseconds) {
  long long start, now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
  do { asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)); } while (now - start < nanoseconds);
}"""


@pytest.fixture
def cupy():
    require("cupy", find_spec("cupy") is not None, "cupy is not installed")
    found = import_module("cupy")
    try:
        count = found.cuda.runtime.getDeviceCount()
    except found.cuda.runtime.CUDARuntimeError:
        count = 0
    require("cupy", count > 0, "there is no GPU")
    return found


@pytest.fixture
def spin(cupy):
    """A function that keeps the current stream busy."""
    kernel = cupy.RawKernel(SPIN, "spin")
    kernel((1,), (1,), (np.int64(1),))
    return lambda: kernel((1,), (1,), (np.int64(1e9 * SPIN_SECONDS),))


# ---- every kernel on small problems ----


class Watched:
    """The launcher of CuPy, which remembers what it launched; sorted is on the host."""

    def __init__(self, cupy):
        self._launch = launcher.launcher_for(cupy.empty(1))
        self.xp, self.shared_limit, self.launched = cupy, self._launch.shared_limit, set()
        self.most_shared = 0

    def __call__(self, source, kernel, types, grid, block, args, shared):
        self.launched.add((kernel, tuple(types), source))
        self.most_shared = max(shared, self.most_shared)
        self._launch(source, kernel, types, grid, block, args, shared)

    def workspace(self, count, dtype):
        return self.xp.empty(count, dtype)

    def sort(self, keys, count, dtype):
        order = np.argsort(keys.get(), kind="stable")
        keys[...] = self.xp.asarray(keys.get()[order])
        return self.xp.asarray(order)


@pytest.fixture
def exact_memory(cupy):
    with cupy.cuda.using_allocator(None):
        yield
        cupy.cuda.Device().synchronize()


def moved(cupy, lookup):
    """The lookup on the device; of kets, the tables are views of one packed array."""
    tables = tuple(map(cupy.asarray, lookup.tables))
    if lookup.kind == "same":
        packed = cupy.concatenate(tables, axis=2).transpose(1, 0, 2).copy()
        tables = packed_views(cupy, packed, lookup.widths)
    return remade(lookup, tables=tables, index=cupy.asarray(lookup.index))


def small_lookups(dtype, index_dtype):
    """Every kind of index, bad ones among them, with and without LayerNorm and 16-byte stores."""
    for kind in KINDS:
        for layernorm in (False, True):
            widths = (4, 2, 8) if layernorm else (3, 2, 3)
            counts = (5, 5, 5) if kind == "same" else (5, 4, 6)
            lookup = make(counts, widths, 37, kind=kind, dtype=dtype, layernorm=layernorm, split=1)
            index = lookup.index.astype(index_dtype)
            index[..., 3], index[..., 11] = -1, np.iinfo(index_dtype).max
            yield replace(lookup, index=index)


def new_gradients(cupy, lookup, dtype):
    if lookup.kind != "same":
        return tuple(cupy.zeros(table.shape, dtype) for table in lookup.tables)
    packed = cupy.zeros((lookup.tables[0].shape[1], lookup.rank, sum(lookup.widths)), dtype)
    return packed_views(cupy, packed, lookup.widths)


def check_small(cupy, launch, lookup):
    given, sums = moved(cupy, lookup), np.dtype("float64" if lookup.dtype == "float64" else "float32")
    out = cupy.full((lookup.batch, lookup.columns), np.nan, lookup.dtype)
    kernels.expand(launch, given, out)
    close(out.get(), lookup, lambda lookup: reference(lookup)[0], lookup.dtype)
    cotangent = cotangent_of(lookup)

    def records(lookup):
        return reference(lookup)[1](cotangent.astype(np.float64))

    # A cotangent may have the dtype of the sums as well: these values are the same in both.
    for dtype in {lookup.dtype, sums}:
        pulled = cupy.asarray(cotangent.astype(dtype))
        close(kernels.leaf_cotangents(launch, given, pulled).get(), lookup, records, sums)
        for deterministic in (True, False):
            gradients = new_gradients(cupy, lookup, sums)
            kernels.contract(launch, given, pulled, deterministic, gradients)
            found = flat([gradient.get() for gradient in gradients])
            close(found, lookup, lambda lookup: flat(scattered(lookup, records(lookup))), sums)


@pytest.mark.parametrize("dtype", FLOATS)
def test_small_every_instantiation(cupy, exact_memory, dtype, monkeypatch):
    dtype_of(dtype)
    launch = Watched(cupy)
    for index_dtype in ("int32", "int64"):
        for lookup in small_lookups(dtype, index_dtype):
            for sort_above in (0, 1024) if lookup.kind == "same" else (1024,):
                monkeypatch.setattr(kernels, "_SORT_ABOVE", sort_above)
                check_small(cupy, launch, lookup)
    first = {"gather": STORAGE[dtype], "scatter": "double" if dtype == "float64" else "float"}
    assert launch.launched == {entry for entry in table.TABLE if entry[1][0] == first.get(entry[2])}


@pytest.mark.parametrize("dtype", FLOATS)
def test_small_products(cupy, exact_memory, dtype):
    """One pass and two, one term and three, merged modes, rows and parts of rows in a tile."""
    dtype_of(dtype)
    launch = Watched(cupy)
    for dims in ([(2, 3)] * 3, [(16, 13), (3, 5)], [(5, 5), (5, 4), (5, 5), (5, 3), (5, 2)]):
        for rank, batch, trail in ((1, 300, 1), (3, 2, 37)):
            product = make_product(dims, batch if len(dims) < 4 else 2, trail, rank, dtype)
            factors, x = [cupy.asarray(factor) for factor in product.factors], cupy.asarray(product.x)
            product.close(fused.matmul(launch, factors, x).get())
    assert launch.launched == {("multiply", (STORAGE[dtype],), "matmul")}


def test_small_staged_tables(cupy, exact_memory):
    """Tables in shared memory, beyond the 48 KiB that a kernel has without asking."""
    lookup = make((64, 64), (16, 16), 17_000, rank=10, split=1)
    launch = Watched(cupy)
    out = kernels.expand(launch, moved(cupy, lookup)).get()
    if launch.shared_limit > 160 << 10:
        assert launch.most_shared > 48 << 10
    some = replace(lookup, index=lookup.index[::100])
    close(out[::100], some, lambda lookup: reference(lookup)[0], lookup.dtype)


# ---- the same bits, every time ----


def problem(cupy, kind, dtype="float32", batch=30_000):
    """A function of (result, gradients) on the device, and its arguments."""
    rng = np.random.default_rng(0)
    if "product" in kind or kind == "fused":
        return product_problem(cupy, rng, kind, dtype, batch // 100)
    if kind == "rows":
        shape, sizes = (32011, 256), ((10, 179, 16), (10, 179, 16))
        options, forward, backward = {"shape": shape}, kc.rows, kc.rows_vjp
    else:
        shape, sizes = (5000, 256), ((5000, 2, 16),)
        options = {"dims": (4, 4, 4, 4), "layernorm": kind == "layernorm"}
        forward, backward = kc.ket_rows, kc.ket_rows_vjp
    tables = tuple(cupy.asarray(rng.standard_normal(size).astype(dtype_of(dtype))) for size in sizes)
    # Half of the ids are one word: long and short sums.
    ids = np.where(rng.random(batch) < 0.5, 7, rng.integers(0, shape[0], batch))
    cotangent = cupy.asarray(rng.standard_normal((batch, shape[1])).astype(dtype_of(dtype)))
    arguments = tables, cupy.asarray(ids), cotangent

    def call(tables, ids, cotangent):
        given = tables if kind == "rows" else tables[0]
        gradients = backward(given, ids, cotangent, **options)
        return (forward(given, ids, **options), *(gradients if kind == "rows" else (gradients,)))

    # Other streams do not wait for the one that writes these.
    cupy.cuda.Device().synchronize()
    return call, arguments


def product_problem(cupy, rng, kind, dtype, batch):
    """Rows times a matrix of two terms and four modes, by cuBLAS or by the kernel."""
    path = "fused" if kind == "fused" else None
    sizes = (*[(2, 8, 8)] * 4, (batch, 4096), (batch, 4096))
    *factors, x, c = (cupy.asarray(rng.standard_normal(size).astype(dtype_of(dtype))) for size in sizes)

    def call(factors, x, cotangent):
        gradients, to_x = kc.ops.kron_matmul_vjp(factors, x, cotangent, path=path)
        return (kc.ops.kron_matmul(factors, x, path=path), *gradients, to_x)

    cupy.cuda.Device().synchronize()
    return call, (tuple(factors), x, c)


def product_alone(path):
    """The forward call of a product, without gradients."""
    return lambda factors, x, cotangent: (kc.kron_matmul(factors, x, path=path),)


LOOKUPS = ["rows", "kets", "layernorm"]


def every_problem(test):
    return pytest.mark.parametrize("kind", [*LOOKUPS, "products", "fused"])(test)


@every_problem
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_twenty_runs_are_equal_bit_for_bit(cupy, kind, dtype):
    call, arguments = problem(cupy, kind, dtype)
    found = {tuple(array.tobytes() for array in call(*arguments)) for _ in range(20)}
    assert len(found) == 1


# ---- streams, graphs, waiting ----


@every_problem
def test_work_is_on_the_current_stream(cupy, spin, kind):
    """The arguments are written on that stream, late: on any other they would be read before."""
    call, (tables, ids, cotangent) = problem(cupy, kind)
    expected = call(tables, ids, cotangent)
    late = tuple(map(cupy.zeros_like, tables)), cupy.zeros_like(ids), cupy.zeros_like(cotangent)
    cupy.cuda.Device().synchronize()
    with cupy.cuda.Stream(non_blocking=True) as stream:
        call(*late)  # compilation and memory
        spin()
        for target, source in zip((*late[0], *late[1:]), (*tables, ids, cotangent), strict=True):
            cupy.copyto(target, source)
        found = call(*late)
        stream.synchronize()
    for array, right in zip(found, expected, strict=True):
        assert (array == right).all()


@every_problem
def test_no_call_waits_for_the_device(cupy, spin, kind):
    call, arguments = problem(cupy, kind)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        call(*arguments)
        stream.synchronize()
        spin()
        start = perf_counter()
        kept = call(*arguments)
        seconds = perf_counter() - start
        assert not stream.done, "the call returned when the device was done"
        stream.synchronize()
    assert seconds < SPIN_SECONDS / 2
    assert len(kept) > 1


@pytest.mark.parametrize("kind", [*LOOKUPS, "product", "fused product"])
def test_graphs(cupy, kind):
    """What can be captured after one call; replayed on other values it gives what a call gives.

    A product is captured as by the kernel, forward alone.
    """
    call, (tables, ids, cotangent) = problem(cupy, kind)
    replayed = call
    if "product" in kind:
        call, replayed = product_alone("fused"), product_alone("fused" if "fused" in kind else None)
    # The memory of the graph's temporaries must go to no other array.
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.Stream(non_blocking=True) as stream, cupy.cuda.using_allocator(pool.malloc):
        call(tables, ids, cotangent)
        stream.synchronize()
        stream.begin_capture()
        captured = replayed(tables, ids, cotangent)
        graph = stream.end_capture()
        for table in tables:
            table *= -0.5
        ids[...] = ids[::-1].copy()
        cotangent *= 2
        graph.launch(stream)
        expected = call(tables, ids, cotangent)
        stream.synchronize()
        for array, right in zip(captured, expected, strict=True):
            assert (array == right).all()


@pytest.mark.parametrize("path", [None, "fused"])
def test_gradients_of_products_are_not_captured(cupy, path):
    _, (factors, x, cotangent) = problem(cupy, "products")
    with cupy.cuda.Stream(non_blocking=True) as stream:
        stream.begin_capture()
        try:
            with pytest.raises(RuntimeError, match=r"^kron_matmul_vjp must not be called while a CUDA graph"):
                kc.kron_matmul_vjp(factors, x, cotangent, path=path)
        finally:
            stream.end_capture()


@pytest.mark.parametrize("kind", LOOKUPS)
def test_arrays_of_another_device(cupy, kind):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    call, arguments = problem(cupy, kind, batch=1000)
    expected = call(*arguments)
    with cupy.cuda.Device(1):
        there = problem(cupy, kind, batch=1000)[1]
    with cupy.cuda.Device(0):
        found = call(*there)
    for array, right in zip(found, expected, strict=True):
        assert array.device.id == 1
        np.testing.assert_array_equal(array.get(), right.get())


# ---- ids and sizes ----


@pytest.mark.parametrize("kind", LOOKUPS)
def test_bad_ids(cupy, kind):
    call, (tables, ids, cotangent) = problem(cupy, kind, batch=100)
    good = call(tables, ids, cupy.where(cupy.arange(100)[:, None] % 50 == 0, 0, cotangent))
    ids[::50] = cupy.asarray([-1, 1 << 40])
    found = call(tables, ids, cotangent)
    bad = np.arange(100) % 50 == 0
    np.testing.assert_array_equal(np.isnan(found[0].get()).all(axis=1), bad)
    for gradient, right in zip(found[1:], good[1:], strict=True):
        np.testing.assert_allclose(gradient.get(), right.get(), rtol=1e-5, atol=1e-4)
    checked = partial(kc.rows, tables) if kind == "rows" else partial(kc.ket_rows, tables[0], dims=(4,) * 4)
    with pytest.raises(IndexError, match=r"^ids must lie in \[0, \d+\), got -1$"):
        checked(ids=ids, check=True)


@pytest.mark.parametrize("deterministic", [True, False])
def test_two_million_hits_on_one_row(cupy, deterministic):
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((2, p, 2)).astype("float32") for p in (3, 5)]
    cotangent = rng.random((2_000_000, 4)).astype("float32")
    given = list(map(cupy.asarray, factors)), cupy.full(len(cotangent), 7), cupy.asarray(cotangent)
    gradients = kc.rows_vjp(*given, deterministic=deterministic)
    total = cotangent.sum(axis=0, dtype="float64")[None]
    expected = kc.rows_vjp([factor.astype("float64") for factor in factors], [7], total)
    for gradient, right in zip(gradients, expected, strict=True):
        error = np.linalg.norm(gradient.get() - right) / np.linalg.norm(right)
        # Atomics add in float32, in any order: no more is promised of them.
        assert error < (1e-6 if deterministic else 1e-2)


def test_outputs_beyond_31_bits(cupy):
    count = (1 << 31) // 256 + 1000
    if cupy.cuda.Device().mem_info[0] < 6 * count * 256:
        pytest.skip("there is not enough memory")
    (tables, *_) = problem(cupy, "rows", "float16", batch=1)[1]
    ids = cupy.arange(count) % 32011
    out = kc.rows(tables, ids, (32011, 256))
    assert out.size > 1 << 31
    for part in (slice(0, 100), slice(count - 100, count)):
        assert (out[part] == kc.rows(tables, ids[part], (32011, 256))).all()


def test_products_beyond_31_bits(cupy):
    count = (1 << 31) // 4096 + 100
    if cupy.cuda.Device().mem_info[0] < 16 * count * 4096:
        pytest.skip("there is not enough memory")
    factors, x, _ = problem(cupy, "fused", "float16")[1]
    x = cupy.resize(x, (count, 4096))
    out = kc.ops.kron_matmul([factor[:1] for factor in factors[:1]] * 4, x, path="fused")
    assert out.size > 1 << 31
    for part in (slice(0, 10), slice(count - 10, count)):
        again = kc.ops.kron_matmul([factor[:1] for factor in factors[:1]] * 4, x[part], path="fused")
        assert (out[part] == again).all()
