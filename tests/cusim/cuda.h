// The part of CUDA C++ that kernels use, on the simulator.  Included before kernel.cuh; what is missing
// here does not compile.
#pragma once
#define CUSIM 1

#include <math.h>
#include <string.h>

#include <type_traits>

#include "core.h"

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

#define threadIdx (cusim::current->index)
#define blockIdx (cusim::block_index)
#define blockDim (cusim::block_size)
#define gridDim (cusim::grid_size)
#define warpSize 32

template <class A, class B>
std::common_type_t<A, B> min(A a, B b) {
  return b < a ? b : a;
}

template <class A, class B>
std::common_type_t<A, B> max(A a, B b) {
  return a < b ? b : a;
}

template <class T>
T __ldg(const T* address) {
  return *address;
}

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrt(float x) { return rsqrtf(x); }

#define __trap() cusim::fail(__FILE__, __LINE__, "__trap")

// ---- collectives: each place in the source is an object of its own ----

#define CUSIM_SITE                                     \
  ([]() -> const cusim::Site* {                        \
    static const cusim::Site site{__FILE__, __LINE__}; \
    return &site;                                      \
  }())

#define __syncthreads() cusim::sync_block(CUSIM_SITE, false)
#define __syncthreads_count(predicate) cusim::sync_block(CUSIM_SITE, predicate)
#define __syncthreads_or(predicate) (cusim::sync_block(CUSIM_SITE, predicate) > 0)
#define __syncwarp(...) cusim::warp(CUSIM_SITE __VA_OPT__(, ) __VA_ARGS__)

#define __ballot_sync(mask, predicate) cusim::vote(CUSIM_SITE, mask, predicate)
#define __any_sync(mask, predicate) (cusim::vote(CUSIM_SITE, mask, predicate) != 0)
#define __all_sync(mask, predicate) cusim::all(CUSIM_SITE, mask, predicate)

#define __shfl_sync(...) cusim::shuffle_index(CUSIM_SITE, __VA_ARGS__)
#define __shfl_up_sync(...) cusim::shuffle_up(CUSIM_SITE, __VA_ARGS__)
#define __shfl_down_sync(...) cusim::shuffle_down(CUSIM_SITE, __VA_ARGS__)
#define __shfl_xor_sync(...) cusim::shuffle_xor(CUSIM_SITE, __VA_ARGS__)

namespace cusim {

inline void warp(const Site* site, unsigned mask = ~0u) { sync_warp(site, mask); }

inline int all(const Site* site, unsigned mask, bool predicate) {
  return vote(site, mask, !predicate) == 0;
}

inline int lane() { return int(current->flat % 32); }

template <class T>
T shuffle(const Site* site, unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= sizeof(Word) && std::is_trivially_copyable_v<T>,
                "a shuffle moves at most 16 plain bytes");
  Word word{};
  memcpy(&word, &value, sizeof value);
  word = exchange(site, mask, word, source);
  memcpy(&value, &word, sizeof value);
  return value;
}

template <class T>
T shuffle_index(const Site* site, unsigned mask, T value, int index, int width = 32) {
  return shuffle(site, mask, value, lane() / width * width + (index & (width - 1)));
}

template <class T>
T shuffle_up(const Site* site, unsigned mask, T value, unsigned delta, int width = 32) {
  return shuffle(site, mask, value, lane() % width >= int(delta) ? lane() - int(delta) : kOwnValue);
}

template <class T>
T shuffle_down(const Site* site, unsigned mask, T value, unsigned delta, int width = 32) {
  return shuffle(site, mask, value,
                 lane() % width + int(delta) < width ? lane() + int(delta) : kOwnValue);
}

// Lanes may read from earlier groups of `width` lanes, not from later ones.
template <class T>
T shuffle_xor(const Site* site, unsigned mask, T value, int bits, int width = 32) {
  const int source = lane() ^ bits;
  return shuffle(site, mask, value, source / width <= lane() / width ? source : kOwnValue);
}

}  // namespace cusim

// ---- atomics: real ones, so that ThreadSanitizer knows them ----

template <class T>
T atomicAdd(T* address, std::common_type_t<T> value) {
  if constexpr (std::is_integral_v<T>) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
  } else {
    T seen, sum;
    __atomic_load(address, &seen, __ATOMIC_RELAXED);
    do sum = seen + value;
    while (!__atomic_compare_exchange(address, &seen, &sum, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return seen;
  }
}

// ---- shared memory ----

// An array as on a GPU, so that sizeof and the bounds check see its length.
#define KET_SHARED(T, name, N)                                              \
  T(&name)                                                                  \
  [N] = *static_cast<T(*)[N]>([]() {                                        \
    static char declaration;                                                \
    return cusim::shared_static(&declaration, sizeof(T) * (N), alignof(T)); \
  }())

#define KET_DYN_SHARED(name) unsigned char* name = static_cast<unsigned char*>(cusim::shared_dynamic())
