"""ketcore.torch on a GPU: lookups by the kernels, on torch's stream and in its memory; the rest by torch."""

from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest

from ketcore.ops import OPS
from ketcore.testing import assert_dense_equal
from tests.problems import drawn
from tests.require import imported, require

torch = imported("torch")

from ketcore.torch import functional, memory  # noqa: E402

pytestmark = pytest.mark.gpu

BY_NAME = {op.name: op for op in OPS}
LOOKUPS = ("rows", "gather_kron", "ket_rows")


@pytest.fixture(autouse=True)
def _gpu():
    require("cupy", find_spec("cupy") is not None, "cupy is not installed")
    require("cupy", torch.cuda.is_available(), "torch has no GPU")


def call_of(op, device, dtype="float32"):
    """The flat outputs as a function of tensors on a device, and these tensors."""
    problem = drawn(op, "float64")
    arrays = [torch.tensor(np.asarray(array)).to(device, getattr(torch, dtype)) for array in problem.arrays]
    constants = () if problem.index is None else (torch.tensor(problem.index.astype("int64")).to(device),)

    def function(*given):
        primals = op.unflatten(given, problem.counts)
        outputs = op.call(getattr(functional, op.name), primals, constants, **problem.options)
        return op.flat_outputs(outputs)

    return function, [array.requires_grad_() for array in arrays]


def values_and_gradients(op, device, dtype):
    function, arrays = call_of(op, device, dtype)
    outputs = function(*arrays)
    gradients = torch.autograd.grad(outputs, arrays, [torch.ones_like(output) for output in outputs])
    return [one.detach().cpu().float().numpy() for one in (*outputs, *gradients)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", LOOKUPS)
def test_kernels_agree_with_the_engine_of_the_cpu(name, dtype):
    op = BY_NAME[name]
    assert memory.bridge(op, call_of(op, "cuda", dtype)[1]) is memory.DEVICE
    pairs = zip(values_and_gradients(op, "cuda", dtype), values_and_gradients(op, "cpu", dtype), strict=True)
    for found, expected in pairs:
        scale = np.abs(expected).max() + 1
        assert_dense_equal(found.astype("float64"), expected, terms=100, scale=scale, dtype=dtype)


@pytest.mark.parametrize("name", ["kron_matmul", "kron_inner", "kron_norm", "kron_trace", "row_kets"])
def test_all_else_is_computed_by_torch_on_its_device(name):
    op = BY_NAME[name]
    function, arrays = call_of(op, "cuda")
    assert memory.bridge(op, arrays) is None
    assert all(output.is_cuda for output in function(*arrays))
    pairs = zip(
        values_and_gradients(op, "cuda", "float32"), values_and_gradients(op, "cpu", "float32"), strict=True
    )
    for found, expected in pairs:
        assert_dense_equal(found.astype("float64"), expected, terms=100, scale=np.abs(expected).max() + 1)


@pytest.mark.parametrize("name", LOOKUPS)
def test_nothing_waits_and_all_memory_is_torchs(name):
    function, arrays = call_of(BY_NAME[name], "cuda")
    function(*arrays)  # compiles the kernels
    pool = import_module("cupy").get_default_memory_pool()
    before, own = pool.total_bytes(), torch.cuda.memory_allocated()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outputs = function(*arrays)
        gradients = torch.autograd.grad(outputs, arrays, [torch.ones_like(output) for output in outputs])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert pool.total_bytes() == before
    assert torch.cuda.memory_allocated() > own
    del outputs, gradients
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() == own


def test_kernels_run_on_the_current_stream():
    function, arrays = call_of(BY_NAME["rows"], "cuda")
    expected, stream = function(*arrays)[0].clone(), torch.cuda.Stream()
    factor = arrays[0].detach()
    with torch.cuda.stream(stream), torch.no_grad():
        torch.cuda._sleep(50_000_000)  # what comes before it on this stream only
        factor.mul_(2)
        found = function(*arrays)[0]
    stream.synchronize()
    torch.testing.assert_close(found, 2 * expected)


@pytest.mark.parametrize("name", LOOKUPS)
def test_compiled_lookups_on_a_gpu(name):
    function, arrays = call_of(BY_NAME[name], "cuda")
    compiled = torch.compile(lambda *given: function(*given)[0], fullgraph=True, backend="aot_eager")
    found, expected = compiled(*arrays), function(*arrays)[0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad((found**2).sum(), arrays), torch.autograd.grad((expected**2).sum(), arrays)
    )


def test_an_id_out_of_range_gives_nan_and_no_gradient():
    factor = torch.ones(1, 3, 2, device="cuda", requires_grad=True)
    rows = functional.rows((factor,), torch.tensor([1, 3, -1], device="cuda"))
    assert torch.isnan(rows).tolist() == [[False, False], [True, True], [True, True]]
    rows.sum().backward()
    assert factor.grad.tolist() == [[[0.0, 0.0], [1.0, 1.0], [0.0, 0.0]]]
