// Shared memory of the running block: every array exact in size, and full of NaN.
#pragma once
#include "fiber.h"

namespace cusim {
namespace {

// The most shared memory that any supported architecture gives to one block.
constexpr size_t kMaxShared = 227 << 10;
constexpr unsigned char kPoison = 0xff;

struct Region {
  const void* declaration;
  char *base, *data;
  size_t bytes;
};
constexpr unsigned kMaxRegions = 64;
Region regions[kMaxRegions];
unsigned region_count;
Region dynamic;

// Writes just beyond a region land here and are found when the block ends; AddressSanitizer wants none of
// it, because it knows the exact end itself.
constexpr size_t kCanary = CUSIM_ASAN ? 0 : 1024;

Region new_region(const void* declaration, size_t bytes, size_t alignment) {
  // No better aligned than it must be: a 16-byte access to an array of floats is misaligned on a GPU too.
  const size_t shift = alignment < 16 ? alignment : 0;
  char* base = static_cast<char*>(allocate(shift + bytes + kCanary));
  for (size_t i = 0; i < shift + bytes + kCanary; ++i) base[i] = static_cast<char>(kPoison);
  return {declaration, base, base + shift, bytes};
}

void end_region(const Region& region) {
  for (size_t i = 0; i < kCanary; ++i)
    if (static_cast<unsigned char>(region.data[region.bytes + i]) != kPoison) {
      record_failure(nullptr, nullptr, 0, "a write beyond the end of shared memory");
      break;
    }
  deallocate(region.base);
}

size_t shared_in_use() {
  size_t total = dynamic.bytes;
  for (unsigned i = 0; i < region_count; ++i) total += regions[i].bytes;
  return total;
}

}  // namespace
}  // namespace cusim
