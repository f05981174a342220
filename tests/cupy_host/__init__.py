"""CuPy itself on a machine without a GPU: stand-ins for the driver and the runtime of CUDA, on host memory.

    python -m tests.cupy_host [arguments of pytest]

makes the environment, which takes a minute once, and runs tests in it. CuPy's arrays, memory pool, streams,
modules and compiler are its own, from its wheel; of it one module is built anew, the binding of the runtime.
Kernels, of ketcore and of CuPy, are run by the simulator, from the PTX that NVRTC makes of them.

    wheels.py                  what pip fetches, and where it is kept
    libraries.py               what g++ makes of the stand-ins
    driver.cpp                 libcuda.so.1: modules, launches, and what is noted of calls
    runtime.cpp                the runtime, linked into CuPy's binding
    cublas.cpp                 libcublas.so.12: products of matrices
    notes.h                    what these three share
    device.py                  makes a process one with such a device; launches; notes
    plugin.py, process.py      pytest in such a process
    shim/                      on PYTHONPATH, makes every process one that imports CuPy
    problems.py                a call of every kind of lookup, for
    values.py, counts.py, captures.py, objects.py, binding.py, dtypes.py
                               tests that run here alone, named as arguments; and, with torch,
    tensors.py

A function of CUDA that no stand-in has fails by its name, and so do CUB and thrust, which are machine code.
It cannot see: the bounds of arrays in device memory; the order of work on several streams; speed.
"""
