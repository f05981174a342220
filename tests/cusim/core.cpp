// The simulator: every CUDA thread of a block is a fiber, with a stack of its own, and all take turns on one
// CPU thread.
//
// Blocks run one after the other.  Within a block the scheduler runs every fiber that is ready until it
// waits or ends, then completes the warp collectives and the block barrier whose threads have all
// arrived, and so on.
//
// Under ThreadSanitizer each fiber is a thread of its own, and only CUDA's synchronisation makes one
// access happen before another.  So a race is found whatever order the fibers happened to run in, between
// threads and between blocks.
#include <algorithm>

#include "fiber.h"
#include "shared_memory.h"

namespace cusim {
namespace {

uint64_t random_state;

// Addresses that stand for barriers in ThreadSanitizer's eyes.
constexpr unsigned kWarpClocks = 1024;
char *block_clocks, *warp_clocks;
unsigned next_warp_clock;
int arrived_with_predicate;

// ---- warp collectives ----

unsigned first_lane(const Fiber* fiber) { return fiber->flat / kWarp * kWarp; }

// The mask without the lanes that the last warp of the block never had.  Only a full mask may name those.
unsigned existing_lanes(const Fiber* fiber) {
  const unsigned lanes = std::min(kWarp, threads - first_lane(fiber));
  if (lanes == kWarp || fiber->mask != ~0u) return fiber->mask;
  return (1u << lanes) - 1;
}

// Whether every lane that `fiber` waits for has arrived; an error if one of them never can.
bool warp_complete(const Fiber* fiber) {
  const unsigned first = first_lane(fiber), mask = existing_lanes(fiber);
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    if (!(mask >> lane & 1)) continue;
    if (first + lane >= threads || fibers[first + lane].state == kDone) {
      fail_at(fiber, "a warp collective names a lane that has exited or never was");
      return false;
    }
    const Fiber& other = fibers[first + lane];
    if (other.state != kAtWarp || other.mask != fiber->mask) return false;
    if (other.site != fiber->site) {
      fail_at(fiber, "a warp collective is met by lanes at different places in the source");
      return false;
    }
  }
  return true;
}

void give(Fiber* fiber, unsigned ballot) {
  fiber->ballot = ballot;
  fiber->got = fiber->given;
  if (fiber->collective != kShuffle || fiber->source == kOwnValue) return;
  if (!(existing_lanes(fiber) >> fiber->source & 1))
    fail_at(fiber, "a shuffle reads a lane outside its mask");
  fiber->got = fibers[first_lane(fiber) + fiber->source].given;
}

// Completes the collective that `fiber` waits in, for all lanes at once.
void complete_warp(Fiber* fiber) {
  Fiber* lanes = fibers + first_lane(fiber);
  const unsigned mask = existing_lanes(fiber);
  unsigned ballot = 0;
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1) ballot |= unsigned(lanes[lane].predicate) << lane;
  for (unsigned lane = 0; lane < kWarp && !failed; ++lane)
    if (mask >> lane & 1) give(&lanes[lane], ballot);
  for (unsigned lane = 0; lane < kWarp; ++lane)
    if (mask >> lane & 1) lanes[lane].state = kReady;
}

bool complete_warps() {
  bool any = false;
  for (Fiber* fiber = fibers; fiber < end() && !failed; ++fiber)
    if (fiber->state == kAtWarp && warp_complete(fiber)) {
      complete_warp(fiber);
      any = true;
    }
  return any;
}

// Lanes that meet in one __syncwarp share a clock, and no other lanes do: sub-warps stay unordered among
// themselves.
char* meeting_clock(const Fiber* me) {
  for (const Fiber* other = fibers + first_lane(me); other < end() && first_lane(other) == first_lane(me);
       ++other)
    if (other != me && other->state == kAtWarp && other->mask == me->mask && other->site == me->site)
      return other->clock;
  return warp_clocks + next_warp_clock++ % kWarpClocks;
}

void wait_in_warp(const Site* site, unsigned mask, Collective collective) {
  Fiber* me = self();
  me->site = site;
  me->mask = mask;
  me->collective = collective;
  if (!(mask >> me->flat % kWarp & 1))
    fail(site->file, site->line, "a warp collective is called by a lane outside its mask");
  if (collective == kSync) me->clock = meeting_clock(me);
  char* clock = me->clock;
  if (collective == kSync) release(clock);
  me->state = kAtWarp;
  to_scheduler();
  if (collective == kSync) acquire(clock);
}

// ---- the scheduler ----

uint64_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

void arrange(unsigned* order, unsigned count) {
  for (unsigned i = 0; i < count; ++i) order[i] = launched.order == 1 ? count - 1 - i : i;
  if (launched.order == 2)
    for (unsigned i = count; i > 1; --i) std::swap(order[i - 1], order[next_random() % i]);
}

bool run_ready() {
  static unsigned order[kMaxThreads];
  arrange(order, threads);
  bool any = false;
  for (unsigned i = 0; i < threads && !failed; ++i)
    if (fibers[order[i]].state == kReady) {
      to_fiber(&fibers[order[i]]);
      any = true;
    }
  return any;
}

unsigned count(State state) {
  return std::count_if(fibers, end(), [state](const Fiber& fiber) { return fiber.state == state; });
}

// Opens the block barrier if all threads wait in it.  An error if some wait and the others have exited.
bool complete_block_barrier() {
  const unsigned waiting = count(kAtBlockBarrier), done = count(kDone);
  if (!waiting || waiting + done < threads) return false;
  Fiber* first =
      std::find_if(fibers, end(), [](const Fiber& fiber) { return fiber.state == kAtBlockBarrier; });
  if (done) fail_at(first, "__syncthreads is reached when some threads of the block have exited");
  arrived_with_predicate = 0;
  for (Fiber* fiber = fibers; fiber < end() && !failed; ++fiber) {
    if (fiber->site != first->site)
      fail_at(fiber, "__syncthreads is reached at different places in the source (divergent)");
    arrived_with_predicate += fiber->predicate;
    fiber->state = kReady;
  }
  return true;
}

void schedule_block() {
  while (!failed && count(kDone) < threads) {
    bool any = run_ready();
    any |= complete_warps();
    if (!failed) any |= complete_block_barrier();
    if (any || failed) continue;
    const Fiber* stuck =
        std::find_if(fibers, end(), [](const Fiber& fiber) { return fiber.state != kDone; });
    fail_at(stuck, "deadlock: threads of a block wait in different collectives (divergent)");
  }
}

void run_block() {
  start_block(2 * kMaxShared);
  if (!CUSIM_TSAN) next_worker = 0;
  dynamic = new_region(nullptr, launched.shared, 16);
  region_count = 0;
  block_clocks = static_cast<char*>(allocate(2 + kWarpClocks));
  warp_clocks = block_clocks + 2;
  for (unsigned i = 0; i < threads; ++i) prepare(&fibers[i], i);
  schedule_block();
  for (Fiber* fiber = fibers; fiber < end(); ++fiber) finish(fiber);
  end_region(dynamic);
  for (unsigned i = 0; i < region_count; ++i) end_region(regions[i]);
  deallocate(block_clocks);
}

const char* configuration_error() {
  const unsigned *grid = launched.grid, *block = launched.block;
  const uint64_t size = uint64_t(block[0]) * block[1] * block[2];
  if (!size || size > kMaxThreads || block[2] > 64) return "the block must have 1 to 1024 threads";
  if (!grid[0] || !grid[1] || !grid[2]) return "the grid must have at least one block";
  if (grid[0] > 0x7fffffff || grid[1] > 65535 || grid[2] > 65535) return "the grid is too large";
  if (launched.shared > kMaxShared) return "more than 227 KiB of shared memory";
  return nullptr;
}

void run_grid() {
  const unsigned* grid = launched.grid;
  const uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
  const uint64_t start = launched.order == 2 ? next_random() % blocks : 0;
  for (uint64_t i = 0; i < blocks && !failed; ++i) {
    const uint64_t flat = launched.order == 1 ? blocks - 1 - i : (start + i) % blocks;
    block_index = {unsigned(flat % grid[0]), unsigned(flat / grid[0] % grid[1]),
                   unsigned(flat / grid[0] / grid[1])};
    run_block();
  }
}

}  // namespace

int sync_block(const Site* site, bool predicate) {
  Fiber* me = self();
  // Two clocks taken in turn: a thread that has come through must not be seen by one that is still to
  // wake up.
  char* clock = block_clocks + (me->barriers++ & 1);
  me->site = site;
  me->predicate = predicate;
  release(clock);
  me->state = kAtBlockBarrier;
  to_scheduler();
  acquire(clock);
  return arrived_with_predicate;
}

void sync_warp(const Site* site, unsigned mask) { wait_in_warp(site, mask, kSync); }

unsigned vote(const Site* site, unsigned mask, bool predicate) {
  self()->predicate = predicate;
  wait_in_warp(site, mask, kVote);
  return self()->ballot;
}

// A shuffle orders no memory accesses: it passes its value and nothing else, as on a GPU.
Word exchange(const Site* site, unsigned mask, Word mine, int source) {
  self()->given = mine;
  self()->source = source;
  wait_in_warp(site, mask, kShuffle);
  return self()->got;
}

void* shared_static(const void* declaration, size_t bytes, size_t alignment) {
  for (unsigned i = 0; i < region_count; ++i)
    if (regions[i].declaration == declaration) return regions[i].data;
  if (region_count == kMaxRegions || shared_in_use() + bytes > kMaxShared)
    fail(nullptr, 0, "more than 227 KiB of shared memory");
  regions[region_count] = new_region(declaration, bytes, alignment);
  return regions[region_count++].data;
}

void* shared_dynamic() { return dynamic.data; }

void fail(const char* file, int line, const char* text) {
  record_failure(self(), file, line, text);
  if (current) to_scheduler();
}

const char* run(const Launch& launch, void (*kernel)(void*), void* argument) {
  failed = false;
  current = nullptr;
  launched = launch;
  body = kernel;
  body_argument = argument;
  random_state = launch.seed * 2654435761u + 88172645463325252ull;
  if (const char* error = configuration_error()) return error;
  block_size = {launch.block[0], launch.block[1], launch.block[2]};
  grid_size = {launch.grid[0], launch.grid[1], launch.grid[2]};
  threads = block_size.x * block_size.y * block_size.z;
  scheduler = this_fiber();
  next_worker = 0;
  release(&launch_start);
  run_grid();
  acquire(&launch_end);
  return failed ? message : nullptr;
}

}  // namespace cusim
