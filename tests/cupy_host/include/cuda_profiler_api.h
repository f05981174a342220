// Of the header of this name, which is in none of the wheels, what CuPy's binding of the runtime calls.
#pragma once
#include <cuda_runtime_api.h>

extern "C" cudaError_t cudaProfilerStart();
extern "C" cudaError_t cudaProfilerStop();
