"""Lookups of ketcore.torch on a CUDA device, as far as a torch without CUDA allows.

Tensors in host memory say of themselves what those on a device do, and torch's stream and allocator are fakes
that remember who used them. Results do not become tensors again: torch makes no CUDA tensors here.
"""

import cupy
import numpy as np
import pytest
import torch

import ketcore as kc
from ketcore.ops import OPS
from ketcore.torch import memory
from tests.cupy_host import device

BY_NAME = {op.name: op for op in OPS}
STREAM = 0x7070
# Of the largest number. Both sum in float32 at least, in different orders, and round once.
TOLERANCES = {"float32": 1e-5, "bfloat16": 2**-7}


class OnDevice:
    """A tensor of the host under the name of one on a CUDA device, with the interface that CuPy reads."""

    is_cpu, is_cuda, device = False, True, torch.device("cuda", 0)

    def __init__(self, tensor):
        self._tensor, self.dtype, self.shape = tensor, tensor.dtype, tensor.shape

    def is_complex(self):
        return self._tensor.is_complex()

    def detach(self):
        return OnDevice(self._tensor.detach())

    def view(self, dtype):
        return OnDevice(self._tensor.view(dtype))

    @property
    def __cuda_array_interface__(self):
        # As in torch, whose second version has no stream.
        size = self._tensor.element_size()
        kind = np.dtype(str(self.dtype).removeprefix("torch.")).str
        return {
            "shape": tuple(self._tensor.shape),
            "strides": tuple(stride * size for stride in self._tensor.stride()),
            "typestr": kind,
            "data": (self._tensor.data_ptr(), False),
            "version": 2,
        }


@pytest.fixture
def allocated(monkeypatch):
    """What torch was asked for and has not got back: address -> tensor."""
    found = {}

    def allocate(size, number, stream):
        assert (number, stream) == (0, STREAM)
        new = torch.full((size,), 255, dtype=torch.uint8)
        return found.setdefault(new.data_ptr(), new).data_ptr()

    class Stream:
        cuda_stream = STREAM

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream)
    monkeypatch.setattr(torch.cuda, "caching_allocator_alloc", allocate)
    monkeypatch.setattr(torch.cuda, "caching_allocator_delete", found.pop)
    return found


def moved(tensors):
    return [memory.DEVICE.to_array(OnDevice(tensor)) for tensor in tensors]


def test_arrays_lie_where_tensors_do():
    """Of any strides and dtype, bfloat16 and what broadcasting repeats among them."""
    for name in ("float32", "float16", "bfloat16", "int64"):
        whole = torch.arange(24).to(getattr(torch, name)).reshape(2, 3, 4)
        for tensor in (whole, whole[:, ::2].mT, whole[1:, :, 2:], whole[:, :1].expand(2, 5, 4), whole[:0]):
            (array,) = moved([tensor])
            assert array.dtype.name == name
            assert array.shape == tuple(tensor.shape)
            assert not tensor.numel() or array.data.ptr == tensor.data_ptr()
            np.testing.assert_array_equal(array.get().astype(float), tensor.double().numpy())


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_lookups_are_on_torchs_stream_and_in_its_memory(dtype, allocated):
    rng, kind = np.random.default_rng(0), getattr(torch, dtype)
    factors = [torch.tensor(rng.standard_normal((2, 4, p))).to(kind).mT for p in (5, 6)]
    ids, cotangent = torch.arange(0, 28, 2)[::2], torch.ones(7, 16, dtype=kind)
    given = [*map(OnDevice, factors), OnDevice(ids)]
    assert memory.bridge(BY_NAME["rows"], given) is memory.DEVICE
    pool = cupy.get_default_memory_pool().total_bytes()
    with memory.DEVICE.current(given[0]), device.noted() as notes:
        *tables, index, pulled = moved([*factors, ids, cotangent])
        results = [kc.rows(tables, index), *kc.rows_vjp(tables, index, pulled)]
    work = [note for note in notes if note.is_work]
    assert len(work) >= 4
    assert {note.stream for note in work} == {STREAM}
    assert "cudaMalloc" not in [note.function for note in notes]
    assert cupy.get_default_memory_pool().total_bytes() == pool
    assert {array.data.ptr for array in results} <= set(allocated)
    plain = [memory.HOST.to_array(factor) for factor in factors]
    expected = [
        kc.rows(plain, ids.numpy()),
        *kc.rows_vjp(plain, ids.numpy(), memory.HOST.to_array(cotangent)),
    ]
    for array, right in zip(results, expected, strict=True):
        assert array.dtype == right.dtype
        one, other = array.get().astype(float), right.astype(float)
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCES[dtype] * np.abs(other).max())
    del results, array
    assert not allocated
