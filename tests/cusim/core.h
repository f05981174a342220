// What the simulator's core offers to the headers that a kernel is compiled with.
//
// The core (core.cpp) is compiled without sanitizers, once, and linked to every kernel library; the
// kernels are compiled with them.  So a sanitizer sees what the kernel does and nothing of what the
// simulator does.
#pragma once
#include <cstddef>
#include <cstdint>

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
};

// Visible to the kernels' libraries, which keep all that is their own to themselves.
namespace cusim __attribute__((visibility("default"))) {

  // Where a collective stands in the source: all threads that meet in it must have come to the same one.
  struct Site {
    const char* file;
    int line;
  };

  // What one lane gives to a shuffle: large enough for any type that CUDA can shuffle, and for a struct
  // of 16 bytes.
  struct Word {
    uint64_t low, high;
  };

  // The part of a fiber that kernels read.
  struct Thread {
    uint3 index;
    unsigned flat;
  };

  constexpr int kOwnValue = -1;

  extern Thread* current;
  extern uint3 block_index;
  extern dim3 block_size, grid_size;

  // __syncthreads: returns for how many threads of the block `predicate` holds.
  int sync_block(const Site* site, bool predicate);

  // Warp collectives.  `source` is a lane of the warp, or kOwnValue.
  void sync_warp(const Site* site, unsigned mask);
  unsigned vote(const Site* site, unsigned mask, bool predicate);
  Word exchange(const Site* site, unsigned mask, Word mine, int source);

  // Shared memory of the running block: exact in size, filled with bytes 0xff (a NaN in every floating
  // type).
  void* shared_static(const void* declaration, size_t bytes, size_t alignment);
  void* shared_dynamic();

  // Ends the launch with an error; called from a kernel it does not return.
  void fail(const char* file, int line, const char* message);

  // Runs body(argument) as every thread of every block.  Returns nullptr, or the text of the first error.
  struct Launch {
    unsigned grid[3], block[3];
    size_t shared;
    int order;  // 0 forward, 1 reverse, 2 random
    uint64_t seed;
  };
  const char* run(const Launch& launch, void (*body)(void*), void* argument);

}  // namespace cusim
