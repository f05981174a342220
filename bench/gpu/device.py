"""Where the contestants run: a GPU through CuPy, or the host, where the same steps can be tried without one.

Both have
    xp, torch_device          namespace of ketcore's arrays, and the name of torch's device
    copy_bytes                of a copy that shows the bandwidth
    active()                  context in which CuPy and torch work on one stream
    array(values, dtype)      a NumPy array moved there
    plain(result)             an array of `xp` in float64 from one of `xp` or torch
    captured(call, library)   a function that replays `call` without Python, or RuntimeError with the reason
    timed(call)               seconds of one call on the device, caches flushed before it
    called(call, repeats)     seconds of one call as Python sees it, one after the other
    clean()                   free what is no longer used
    copy_seconds(size)        seconds of many copies of `size` bytes
"""

import gc
import importlib.util
from contextlib import ExitStack, contextmanager
from time import perf_counter

import numpy as np

# Overwritten before each sample; several times the second-level cache of any GPU so far.
FLUSH_BYTES = 1 << 28
COPIES = 20


def has_torch(torch_device: str = "cpu") -> bool:
    """Whether torch is installed, and works on that device."""
    if importlib.util.find_spec("torch") is None:
        return False
    if torch_device == "cpu":
        return True
    import torch

    return torch.cuda.is_available()


def dtype_of(name: str) -> np.dtype:
    """The NumPy dtype of this name; ml_dtypes has bfloat16."""
    if name != "bfloat16":
        return np.dtype(name)
    from ml_dtypes import bfloat16

    return np.dtype(bfloat16)


class Host:
    """NumPy and torch on the processor: to try the steps, not to measure."""

    xp, torch_device, copy_bytes = np, "cpu", 1 << 24

    @contextmanager
    def active(self):
        yield

    def array(self, values, dtype):
        return np.asarray(values).astype(dtype_of(dtype))

    def plain(self, result):
        return np.asarray(result if isinstance(result, np.ndarray) else result.detach().double(), np.float64)

    def captured(self, call, library):
        raise RuntimeError("the host has no graphs")

    def timed(self, call):
        start = perf_counter()
        call()
        return perf_counter() - start

    def called(self, call, repeats):
        return self.timed(lambda: [call() for _ in range(repeats)]) / repeats

    def clean(self):
        gc.collect()

    def copy_seconds(self, size):
        source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
        return [self.timed(lambda: np.copyto(target, source)) for _ in range(COPIES)]


class Cuda:
    """The current GPU, on one stream that does not wait for the default one; `small` tries the steps."""

    torch_device = "cuda"

    def __init__(self, small: bool = False):
        import cupy

        self.xp = cupy
        self.copy_bytes = 1 << (20 if small else 31)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self._flush = cupy.zeros(1 << 16 if small else FLUSH_BYTES, cupy.uint8)

    @contextmanager
    def active(self):
        with ExitStack() as stack:
            stack.enter_context(self.stream)
            if has_torch(self.torch_device):
                import torch

                stack.enter_context(torch.cuda.stream(torch.cuda.ExternalStream(self.stream.ptr)))
            yield

    def array(self, values, dtype):
        return self.xp.asarray(np.asarray(values).astype(dtype_of(dtype)))

    def plain(self, result):
        if not isinstance(result, self.xp.ndarray):
            result = self.xp.from_dlpack(result.detach().contiguous())
        return result.astype("float64")

    def captured(self, call, library):
        # Nor would it fail: ketcore takes its kernel then, whose time that of cuBLAS is compared with.
        if library == "cublas":
            raise RuntimeError("CuPy does not capture cuBLAS")
        try:
            return self._captured_torch(call) if library == "torch" else self._captured_cupy(call)
        # Whatever the reason, the call can be timed without a graph; the report says why.
        except Exception as error:
            self.xp.cuda.runtime.deviceSynchronize()
            raise RuntimeError(f"{type(error).__name__}: {error}".splitlines()[0][:200]) from error

    def _captured_torch(self, call):
        import torch

        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        return graph.replay

    def _captured_cupy(self, call):
        # A pool of its own, so that no other array is ever put where the graph has its temporaries.
        pool = self.xp.cuda.MemoryPool()
        with self.xp.cuda.using_allocator(pool.malloc):
            call()
            self.stream.synchronize()
            self.stream.begin_capture()
            try:
                result = call()
            finally:
                graph = self.stream.end_capture()

        def replay(keep=(pool, result)):
            graph.launch(self.stream)

        return replay

    def timed(self, call):
        start, end = self.xp.cuda.Event(), self.xp.cuda.Event()
        # The host queues the call while the device flushes, so that the launch itself is not timed.
        self._flush.fill(0)
        start.record(self.stream)
        call()
        end.record(self.stream)
        end.synchronize()
        return self.xp.cuda.get_elapsed_time(start, end) / 1e3

    def called(self, call, repeats):
        self.stream.synchronize()
        start = perf_counter()
        for _ in range(repeats):
            call()
        self.stream.synchronize()
        return (perf_counter() - start) / repeats

    def clean(self):
        gc.collect()
        self.xp.get_default_memory_pool().free_all_blocks()
        if has_torch(self.torch_device):
            import torch

            torch.cuda.empty_cache()

    def copy_seconds(self, size):
        size = min(size, self.xp.cuda.runtime.memGetInfo()[0] // 4)
        source, target = self.xp.ones(size, self.xp.uint8), self.xp.zeros(size, self.xp.uint8)
        copy = target.data.copy_from_device_async
        copy(source.data, size, self.stream)
        return [self.timed(lambda: copy(source.data, size, self.stream)) for _ in range(COPIES)]
