"""Tensors as arrays in the same memory: of NumPy, and, with a stand-in for CuPy, on a CUDA device.

The stand-in has what the host side calls: arrays that are NumPy's, a stream and an allocator that remember
who used them.  What a GPU makes of it, tests/test_gpu_torch.py asks one.
"""

import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ketcore.ops import OPS
from tests.require import imported

torch = imported("torch")

from ketcore.torch import memory  # noqa: E402

BY_NAME = {op.name: op for op in OPS}
DTYPES = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128", "int32", "uint8")


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_share_the_memory_of_tensors_whatever_their_strides(dtype):
    tensor = torch.arange(24).to(getattr(torch, dtype)).reshape(2, 3, 4)[:, ::2].mT
    found = memory.bridge(BY_NAME["rows"], (tensor,))
    array = found.to_array(tensor)
    assert array.shape == tuple(tensor.shape)
    assert array.dtype.name == dtype
    tensor[0, 0, 0] = 5
    assert array[0, 0, 0] == 5
    back = found.to_tensor(np.ascontiguousarray(array))
    assert back.dtype is tensor.dtype
    assert torch.equal(back, tensor)
    assert back.is_contiguous()


def test_conjugates_and_negatives_have_their_values():
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    for view in (tensor.conj(), tensor.conj().imag, tensor.requires_grad_()):
        assert np.array_equal(memory.HOST.to_array(view), view.detach().resolve_conj().resolve_neg().numpy())


def test_results_that_torch_cannot_hold_are_copied():
    row = np.arange(3.0)
    for array in (row[::-1], np.broadcast_to(row, (2, 3)), np.arange(6.0).reshape(2, 3).T, np.float32(2)):
        tensor = memory.HOST.to_tensor(array)
        assert tensor.is_contiguous()
        assert np.array_equal(tensor.numpy(), array)
        tensor += 1  # in memory of its own
    assert row.tolist() == [0.0, 1.0, 2.0]


def test_without_ml_dtypes_array_code_takes_bfloat16(monkeypatch):
    from ketcore.torch import functional

    factors = [torch.ones(1, 2, 2, dtype=torch.bfloat16, requires_grad=True)] * 2
    with monkeypatch.context() as patched:
        patched.setattr(memory, "BFLOAT16", None)
        assert memory.bridge(BY_NAME["rows"], factors) is None
        rows = functional.rows(factors, [0, 3])
    assert (rows.dtype, rows.tolist()) == (torch.bfloat16, [[1.0] * 4] * 2)
    rows.sum().backward()
    assert factors[0].grad.dtype is torch.bfloat16


def on_cuda(dtype=torch.float32):
    """What `bridge` asks of a tensor on a CUDA device."""
    return SimpleNamespace(is_cpu=False, is_cuda=True, dtype=dtype, is_complex=lambda: dtype.is_complex)


def test_lookups_of_real_tensors_on_a_cuda_device_have_kernels(monkeypatch):
    monkeypatch.setattr(memory, "_HAS_KERNELS", True)
    ids = on_cuda(torch.int64)
    taken = {op.name for op in OPS if memory.bridge(op, (ids, on_cuda())) is memory.DEVICE}
    assert taken == {"rows", "gather_kron", "ket_rows", "codebook_rows"}
    rows = BY_NAME["rows"]
    assert memory.bridge(rows, (ids, on_cuda(torch.complex64))) is None
    assert memory.bridge(rows, (torch.tensor(0), on_cuda())) is None
    monkeypatch.setattr(memory, "_HAS_KERNELS", False)
    assert memory.bridge(rows, (ids, on_cuda())) is None


@pytest.fixture
def stand_in(monkeypatch):
    """CuPy as far as the host side calls it, and a log of who works where."""
    log, current = [], []

    @contextmanager
    def entered(name):
        current.append(name)
        yield
        current.remove(name)

    class Allocator:
        def __init__(self, allocate, release):
            self.malloc, self.release = allocate, release

    cupy, torch_stream = ModuleType("cupy"), SimpleNamespace(cuda_stream=0x7070)
    cupy.cuda = SimpleNamespace(
        PythonFunctionAllocator=Allocator,
        Stream=SimpleNamespace(from_external=lambda stream: entered(stream.__cuda_stream__())),
        Device=lambda number: entered(f"device {number}"),
        using_allocator=lambda malloc: entered(malloc),
    )
    cupy.asarray = lambda tensor: tensor.numpy()
    cupy.ascontiguousarray = np.ascontiguousarray
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: torch_stream)
    monkeypatch.setattr(
        torch.cuda, "caching_allocator_alloc", lambda *given: log.append(("alloc", *given)) or 4096
    )
    monkeypatch.setattr(torch.cuda, "caching_allocator_delete", lambda pointer: log.append(("free", pointer)))
    return SimpleNamespace(log=log, current=current, stream=torch_stream)


def test_kernels_run_on_the_stream_and_in_the_memory_of_torch(stand_in):
    tensor = SimpleNamespace(device=torch.device("cuda", 1))
    with memory.DEVICE.current(tensor):
        device, stream, malloc = stand_in.current
        assert (device, stream) == ("device 1", (0, 0x7070))
        assert (malloc(64, 1), malloc(0, 1)) == (4096, 0)
    assert stand_in.current == []
    assert stand_in.log == [("alloc", 64, 1, 0x7070)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_device_arrays_share_the_memory_of_tensors(stand_in, dtype):
    tensor = torch.arange(6).to(dtype).reshape(2, 3).requires_grad_(dtype.is_floating_point)
    array = memory.DEVICE.to_array(tensor.mT)
    assert array.dtype.name == str(dtype).removeprefix("torch.")
    with torch.no_grad():
        tensor[0, 1] = 7
    assert array[1, 0] == 7
