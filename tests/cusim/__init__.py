"""cusim: ketcore's CUDA kernels on the CPU, one fiber per CUDA thread, with the sanitizers of g++ watching.

    cuda.h                      the part of CUDA C++ that kernels use
    core.cpp                    barriers, warps and the scheduler
    fiber.h, stack.h            threads of a block, and switching between them
    shared_memory.h             exact in size, full of NaN
    sanitizers.h                what the sanitizers must be told
    launch.h, exports.h         arguments; what Python calls
    build.py, launcher.py       g++; the launch protocol
    ptx.py, ptx_opcodes.py      what NVRTC makes of a kernel as C++, to run in place of the source
    ptx.h, ptx_numbers.h        what that C++ calls
    selftest.*, bugs.py         kernels with bugs that must be noticed

It cannot see: speed, coalescing, bank conflicts; the contraction of a * b + c and flushing to zero, but where
PTX runs; weak memory order between blocks; launch bounds and registers (NVRTC tells those); tensor cores,
asynchronous copies, streams.
"""

from .build import available
from .launcher import ORDERS, SimLauncher, source_text

__all__ = ["ORDERS", "SimLauncher", "available", "source_text"]
