// What translated PTX calls: memory that is checked at each access, collectives, the launch.  Fibers, barriers,
// shuffles and shared memory are the simulator's.  Included before a translated kernel.
#pragma once
#include <stdio.h>
#include <stdlib.h>

#include "core.h"
#include "ptx_numbers.h"

namespace ptx {

// ---- memory ----

// Addresses of shared, local and param memory begin here: what uses one as a generic address, without a cvta,
// is seen to do so.
constexpr u64 kWindow = 0x1000, kLowest = 0x10000;
enum Space { GENERIC, GLOBAL, SHARED, LOCAL, PARAM };

struct Range {
  u64 begin, end;
  bool holds(u64 address, u64 bytes) const { return address >= begin && address + bytes <= end; }
};

// What one thread sees.
struct Frame {
  char* spaces[5];  // by Space
  u64 sizes[5];
  mutable Range last;  // the array that it was in last
};

extern const char kFile[];
extern const Range kVariables[];
extern const int kVariableCount;
inline const Range* arrays;  // none: nothing is known about global memory
inline int array_count;

[[noreturn, gnu::noinline]] inline void fail(int line, Space space, u64 address, unsigned bytes,
                                             const char* why) {
  static const char* const names[] = {"generic", "global", "shared", "local", "param"};
  static char text[160];
  snprintf(text, sizeof text, "%s: %u bytes at 0x%llx of %s memory", why, bytes,
           static_cast<unsigned long long>(address), names[space]);
  cusim::fail(kFile, line, text);
  abort();
}

template <class B> B divisor(B b, int line) {
  if (!b) cusim::fail(kFile, line, "a division by zero");
  return b;
}

inline bool is_known(const Frame& frame, u64 address, unsigned bytes) {
  if (!arrays || frame.last.holds(address, bytes)) return true;
  for (int i = 0; i < array_count; ++i)
    if (arrays[i].holds(address, bytes)) {
      frame.last = arrays[i];
      return true;
    }
  return false;
}

// Where the `bytes` at an address are: a whole vector, aligned and within one array.
[[gnu::noinline]] inline char* at(const Frame& frame, Space space, u64 address, unsigned bytes, int line) {
  if (address % bytes) fail(line, space, address, bytes, "misaligned");
  if (space == SHARED || space == LOCAL || space == PARAM) {
    // Their addresses have 32 bits, and wrap.
    address = u32(address);
    if (!Range{kWindow, kWindow + frame.sizes[space]}.holds(address, bytes))
      fail(line, space, address, bytes, "out of bounds");
    return frame.spaces[space] + (address - kWindow);
  }
  if (address < kLowest) fail(line, space, address, bytes, "null, or not a generic address");
  char* const place = reinterpret_cast<char*>(address);
  if (space == GENERIC)
    for (int own = SHARED; own <= LOCAL; ++own) {
      const u64 begin = u64(frame.spaces[own]);
      if (Range{begin, begin + frame.sizes[own]}.holds(address, bytes)) return place;
    }
  for (int i = 0; i < kVariableCount; ++i)
    if (kVariables[i].holds(address, bytes)) return place;
  if (!is_known(frame, address, bytes)) fail(line, space, address, bytes, "outside every array");
  return place;
}

template <class T> Bits<T> load(const char* place) {
  return *reinterpret_cast<const Bits<T>*>(place);
}

template <class T> void store(char* place, Bits<T> bits) {
  *reinterpret_cast<Bits<T>*>(place) = bits;
}

template <class T, bool Z> Bits<T> atomic_add(char* place, Bits<T> more) {
  Bits<T>* const address = reinterpret_cast<Bits<T>*>(place);
  Bits<T> seen = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(address, &seen, add<T, Z>(seen, more), false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return seen;
}

// ---- collectives: each instruction is a place of its own ----

#define PTX_SITE(line)                                 \
  ([]() -> const cusim::Site* {                        \
    static const cusim::Site site{ptx::kFile, line};   \
    return &site;                                      \
  }())

inline int lane() { return int(cusim::current->flat % 32); }

enum Shuffle { UP, DOWN, BFLY, IDX };

inline u32 shuffle(const cusim::Site* site, Shuffle kind, u32 value, u32 by, u32 limits, u32 mask,
                   bool* inside) {
  const int segment = limits >> 8 & 31, step = by & 31, me = lane();
  const int first = me & segment, last = first | (limits & 31 & ~segment);
  const int from = kind == UP     ? me - step
                   : kind == DOWN ? me + step
                   : kind == BFLY ? me ^ step
                                  : first | (step & ~segment);
  *inside = kind == UP ? from >= last : from <= last;
  return u32(cusim::exchange(site, mask, {value, 0}, *inside ? from : cusim::kOwnValue).low);
}

// ---- a launch ----

struct Entry {
  void (*kernel)(const Frame&);
  const unsigned (*parameters)[2];  // offset and size
  unsigned count, parameter_bytes, static_shared, local_bytes, threads;
};

struct Started {
  const Entry* entry;
  Frame frame;
};

inline void run_thread(void* pointer) {
  const Started& started = *static_cast<Started*>(pointer);
  Frame frame = started.frame;
  const u64 bytes = frame.sizes[LOCAL];
  frame.spaces[LOCAL] = static_cast<char*>(__builtin_alloca_with_align(bytes + 1, 128));
  memset(frame.spaces[LOCAL], 0xff, bytes);
  frame.spaces[SHARED] = static_cast<char*>(cusim::shared_dynamic());
  started.entry->kernel(frame);
}

inline const char* launch(const Entry& entry, cusim::Launch shape, void** arguments, const Range* known,
                          int count) {
  if (u64(shape.block[0]) * shape.block[1] * shape.block[2] > entry.threads)
    return "more threads than .maxntid";
  arrays = known;
  array_count = count;
  shape.shared += entry.static_shared;
  void* parameters;
  if (posix_memalign(&parameters, 16, entry.parameter_bytes + 1)) return "no memory for parameters";
  for (unsigned i = 0; i < entry.count; ++i)
    memcpy(static_cast<char*>(parameters) + entry.parameters[i][0], arguments[i], entry.parameters[i][1]);
  Started started{&entry, {}};
  started.frame.spaces[PARAM] = static_cast<char*>(parameters);
  started.frame.sizes[PARAM] = entry.parameter_bytes;
  started.frame.sizes[LOCAL] = entry.local_bytes;
  started.frame.sizes[SHARED] = shape.shared;
  const char* error = cusim::run(shape, run_thread, &started);
  free(parameters);
  return error;
}

}  // namespace ptx

// ---- what ran: a mark for each stretch of instructions; fibers would be seen to race for it ----

#ifdef __SANITIZE_THREAD__
#define PTX_RAN(mark)
#else
#define PTX_RAN(mark) ptx_ran[mark] = 1
#endif
