// Small kernels with which the tests check the simulator and NVRTC: right as they stand, and each line that
// matters is there to be broken.
#include "kernel.cuh"

template <class T>
struct alignas(16) Vector {
  T v[16 / sizeof(T)];
};

struct Scale {
  double factor;
  int offset;
};

// total[block] = the sum of the block's slice of x, by halving in shared memory.
template <class T>
__global__ void block_sum(const T* x, T* total, long long n) {
  KET_SHARED(T, partial, 64);
  const int t = threadIdx.x;
  for (long long start = blockIdx.x * 64LL; start < n; start += gridDim.x * 64LL) {
    partial[t] = start + t < n ? x[start + t] : T(0);
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
      if (t < half) partial[t] += partial[t + half];
      __syncthreads();
    }
    if (t == 63) total[start / 64] = partial[0];
    __syncthreads();
  }
}

// y[t] = x[t + 1] + x[t + 2] within a warp, the first through shared memory and the second through a shuffle.
template <class T>
__global__ void warp_pairs(const T* x, T* y) {
  KET_DYN_SHARED(raw);
  T* mine = reinterpret_cast<T*>(raw) + threadIdx.x / 32 * 32;
  const int lane = threadIdx.x % 32;
  mine[lane] = x[threadIdx.x];
  __syncwarp();
  const T next = mine[(lane + 1) % 32];
  y[threadIdx.x] = next + __shfl_sync(0xffffffffu, next, lane + 1);
}

// y = x * factor + offset, 16 bytes at a time.
template <class T>
__global__ void scale(const T* __restrict__ x, T* __restrict__ y, long long n, const Scale by) {
  constexpr int width = 16 / sizeof(T);
  const long long start = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * width;
  if (start < n) {
    Vector<T> four = *reinterpret_cast<const Vector<T>*>(x + start);
#pragma unroll
    for (int i = 0; i < width; ++i) four.v[i] = four.v[i] * T(by.factor) + T(by.offset);
    *reinterpret_cast<Vector<T>*>(y + start) = four;
  }
}

// bins[which[i]] += 1, over any grid.
template <class T, class I>
__global__ void histogram(const I* which, T* bins, I n) {
  for (I i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    atomicAdd(&bins[which[i]], T(1));
}

// Sums of 8 neighbours by each width of shuffle, and a vote of the whole block.
template <class T>
__global__ void sub_warps(const T* x, T* y, int* positive) {
  T value = x[threadIdx.x];
  for (int bit = 4; bit > 0; bit /= 2) value += __shfl_xor_sync(0xffffffffu, value, bit, 8);
  T before = __shfl_up_sync(0xffffffffu, value, 8u), after = __shfl_down_sync(0xffffffffu, value, 8u);
  y[threadIdx.x] = value + before * T(100) + after * T(10000);
  const unsigned votes = __ballot_sync(0xffffffffu, x[threadIdx.x] > T(0));
  const int all = __syncthreads_count(x[threadIdx.x] > T(0));
  if (__any_sync(0xffffffffu, votes >> 31 & 1) && threadIdx.x == 0) *positive = all;
}
