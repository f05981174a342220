// Fibers: the CUDA threads of the running block, each on a stack of its own, and the way from one to
// another.
#pragma once
#include <stdio.h>
#include <sys/mman.h>

#include "core.h"
#include "sanitizers.h"
#include "stack.h"

namespace cusim {

Thread* current;
uint3 block_index;
dim3 block_size, grid_size;

namespace {

constexpr unsigned kMaxThreads = 1024, kWarp = 32;
constexpr size_t kStack = 64 << 10, kPage = 4 << 10;

enum State { kReady, kAtBlockBarrier, kAtWarp, kDone };
enum Collective { kSync, kVote, kShuffle };

struct Fiber : Thread {
  State state;
  const Site* site;
  // The warp collective that it waits in: what it gives, and what it gets.
  Collective collective;
  unsigned mask, ballot;
  bool predicate;
  int source;
  Word given, got;
  char* clock;
  unsigned barriers;
  // The machinery of switching.
  Context context;
  char* stack;
  SanitizerFiber sanitizer;
};

Fiber fibers[kMaxThreads];
unsigned threads;
Launch launched;
void (*body)(void*);
void* body_argument;

bool failed;
char message[640];

Context scheduler_context;
SanitizerFiber scheduler;

// Memory addresses that stand for synchronisation in ThreadSanitizer's eyes.
char launch_start, launch_end;

Fiber* self() { return static_cast<Fiber*>(current); }
Fiber* end() { return fibers + threads; }

// ---- errors ----

void record_failure(const Fiber* at, const char* file, int line, const char* text) {
  if (failed) return;
  failed = true;
  int used = snprintf(message, sizeof message, "%s", text);
  if (file) used += snprintf(message + used, sizeof message - used, " at %s:%d", file, line);
  if (at)
    snprintf(message + used, sizeof message - used, " [block %u, thread %u]", block_index.x, at->flat);
}

void fail_at(const Fiber* fiber, const char* text) {
  record_failure(fiber, fiber->site ? fiber->site->file : nullptr, fiber->site ? fiber->site->line : 0,
                 text);
}

// ---- switching ----

void to_scheduler() {
  Fiber* me = self();
  leave_fiber(&me->sanitizer, &scheduler, me->state == kDone || failed);
  switch_context(&me->context, &scheduler_context);
  enter_fiber(&me->sanitizer, &scheduler);
}

void to_fiber(Fiber* fiber) {
  current = fiber;
  leave_scheduler(&scheduler, &fiber->sanitizer, fiber->stack, kStack);
  switch_context(&scheduler_context, &fiber->context);
  enter_scheduler(&scheduler);
  current = nullptr;
}

void fiber_main() {
  enter_fiber(&self()->sanitizer, &scheduler);
  acquire(&launch_start);
  body(body_argument);
  release(&launch_end);
  self()->state = kDone;
  to_scheduler();
}

// A stack, and for ThreadSanitizer a thread.  Making one takes it a millisecond, so they are kept: the
// launches come one after the other anyway, and within a launch every thread of every block gets its own.
// A launch of more than kWorkers threads uses them again, and some races between blocks far apart go
// unseen.
struct Worker {
  char* stack;
  SanitizerFiber sanitizer;
};
constexpr unsigned kWorkers = kMaxThreads;
Worker workers[kWorkers];
unsigned next_worker;

Worker* take_worker() {
  Worker* worker = &workers[next_worker++ % kWorkers];
  if (worker->stack) return worker;
  char* pages = static_cast<char*>(fresh_pages(nullptr, kStack + kPage));
  // The lowest page is a guard: a fiber that overflows its stack must not write into another one's.
  mprotect(pages, kPage, PROT_NONE);
  worker->stack = pages + kPage;
  worker->sanitizer = new_fiber();
  return worker;
}

void prepare(Fiber* fiber, unsigned flat) {
  const Worker* worker = take_worker();
  fiber->stack = worker->stack;
  fiber->sanitizer = worker->sanitizer;
  fiber->index = {flat % block_size.x, flat / block_size.x % block_size.y,
                  flat / (block_size.x * block_size.y)};
  fiber->flat = flat;
  fiber->state = kReady;
  fiber->barriers = 0;
  make_context(&fiber->context, fiber->stack, kStack, fiber_main);
}

void finish(Fiber* fiber) {
  // A fiber abandoned by an error never came to the end of the launch, yet nothing of it runs after.
  if (fiber->state != kDone)
    abandon_fiber(&fiber->sanitizer, &scheduler, &launch_end, fiber->stack, kStack);
}

}  // namespace
}  // namespace cusim
