// What the sanitizers must be told about fibers, in one place; without a sanitizer every function here is
// empty.
//
// The core is not instrumented itself, so that the compiler's own macros are not set: the build defines
// CUSIM_ASAN or CUSIM_TSAN.
#pragma once
#include <stdlib.h>
#include <sys/mman.h>

#ifndef CUSIM_ASAN
#define CUSIM_ASAN 0
#endif
#ifndef CUSIM_TSAN
#define CUSIM_TSAN 0
#endif

#if CUSIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if CUSIM_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
#endif

namespace cusim {

struct SanitizerFiber {
  void *thread, *fake_stack;
  const void* stack;
  size_t stack_bytes;
};

// ---- synchronisation, for ThreadSanitizer ----

inline void release(char* clock) {
#if CUSIM_TSAN
  __tsan_release(clock);
#endif
}

inline void acquire(char* clock) {
#if CUSIM_TSAN
  __tsan_acquire(clock);
#endif
}

// ---- memory ----

// Zeroed pages.  ThreadSanitizer forgets the accesses it has recorded there: a finished thread's stack is
// a new one's.
inline void* fresh_pages(void* at, size_t bytes) {
#if CUSIM_TSAN
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0);
  void* pages = mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
#if CUSIM_TSAN
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
  if (pages == MAP_FAILED) abort();
  return pages;
}

#if CUSIM_TSAN
// Blocks must not share addresses, or one block's shared memory would race with another's.  When the
// arena is used up, between two blocks, it is made fresh.
constexpr size_t kArena = 64 << 20;
inline char* arena;
inline size_t arena_used = kArena;

inline void start_block(size_t bytes) {
  if (arena_used + bytes <= kArena) return;
  arena = static_cast<char*>(fresh_pages(arena, kArena));
  arena_used = 0;
}

inline void* allocate(size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  if (arena_used + bytes > kArena) abort();
  arena_used += bytes;
  return arena + arena_used - bytes;
}

inline void deallocate(void*) {}
#else
inline void start_block(size_t) {}

inline void* allocate(size_t bytes) {
  void* memory;
  if (posix_memalign(&memory, 16, bytes ? bytes : 1)) abort();
  return memory;
}

inline void deallocate(void* memory) { free(memory); }
#endif

// ---- the life of a fiber ----

inline SanitizerFiber this_fiber() {
  SanitizerFiber fiber{};
#if CUSIM_TSAN
  fiber.thread = __tsan_get_current_fiber();
#endif
  return fiber;
}

inline SanitizerFiber new_fiber() {
  SanitizerFiber fiber{};
#if CUSIM_TSAN
  fiber.thread = __tsan_create_fiber(0);
#endif
  return fiber;
}

// For a fiber that an error has cut short: it releases `clock` as if it had come to its end, and the red
// zones of its frames go, for the next fiber on this stack.
inline void abandon_fiber(SanitizerFiber* fiber, SanitizerFiber* scheduler, char* clock, char* stack,
                          size_t bytes) {
#if CUSIM_TSAN
  __tsan_switch_to_fiber(fiber->thread, __tsan_switch_to_fiber_no_sync);
  __tsan_release(clock);
  __tsan_switch_to_fiber(scheduler->thread, __tsan_switch_to_fiber_no_sync);
#endif
#if CUSIM_ASAN
  __asan_unpoison_memory_region(stack, bytes);
#endif
}

inline void leave_fiber(SanitizerFiber* fiber, SanitizerFiber* scheduler, bool for_ever) {
#if CUSIM_ASAN
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fiber->fake_stack, scheduler->stack,
                                 scheduler->stack_bytes);
#endif
#if CUSIM_TSAN
  __tsan_switch_to_fiber(scheduler->thread, __tsan_switch_to_fiber_no_sync);
#endif
}

inline void enter_fiber(SanitizerFiber* fiber, SanitizerFiber* scheduler) {
#if CUSIM_ASAN
  __sanitizer_finish_switch_fiber(fiber->fake_stack, &scheduler->stack, &scheduler->stack_bytes);
  fiber->fake_stack = nullptr;
#endif
}

inline void leave_scheduler(SanitizerFiber* scheduler, SanitizerFiber* fiber, char* stack, size_t bytes) {
#if CUSIM_ASAN
  __sanitizer_start_switch_fiber(&scheduler->fake_stack, stack, bytes);
#endif
#if CUSIM_TSAN
  __tsan_switch_to_fiber(fiber->thread, __tsan_switch_to_fiber_no_sync);
#endif
}

inline void enter_scheduler(SanitizerFiber* scheduler) {
#if CUSIM_ASAN
  __sanitizer_finish_switch_fiber(scheduler->fake_stack, nullptr, nullptr);
#endif
}

}  // namespace cusim
