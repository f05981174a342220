"""cusim: run ketcore's CUDA kernels on the CPU, one fiber per CUDA thread, with the sanitizers of g++ watching.

What a file holds: cuda.h the part of CUDA C++ that kernels use; core.cpp fibers, barriers, warps and shared memory;
sanitizers.h what the sanitizers must be told; launch.h arguments; build.py g++; launcher.py the launch protocol.

It cannot see: speed, coalescing, bank conflicts; the contraction of a * b + c, flushing to zero; weak memory order
between blocks; launch bounds and registers (NVRTC tells those); tensor cores, asynchronous copies, streams.
"""

from .build import available
from .launcher import ORDERS, SimLauncher, source_text

__all__ = ["ORDERS", "SimLauncher", "available", "source_text"]
