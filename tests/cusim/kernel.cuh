// Shared memory for the self-test kernels; on the simulator cuda.h has these.
#ifndef CUSIM
#define KET_SHARED(T, name, N) __shared__ T name[N]
#define KET_DYN_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
#endif
