// The library that ketcore/native/loader.py loads: kernels for every instruction set of the processor family,
// one of which is chosen at run time, behind functions of C.
//
// A function whose name ends in _python is called with the GIL held; all others are called without it.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "array.hpp"
#include "index_sums.hpp"
#include "lookup.hpp"
#include "product.hpp"

#define INLINE static inline __attribute__((always_inline))

// Code between these two may use the features, whatever the processor that compiles it.
#define PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BEGIN_SET(features) PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_SET PRAGMA(clang attribute pop)
#else
#define BEGIN_SET(features) PRAGMA(GCC push_options) PRAGMA(GCC target(features))
#define END_SET PRAGMA(GCC pop_options)
#endif

namespace ketcore {

// The kernels of one instruction set, each for float and for double.
struct Kernels {
    void (*prepare[2])(Lookup&);
    void (*expand[2])(const Lookup&, std::int64_t start, std::int64_t stop);
    void (*pull_records[2])(const Lookup&, std::int64_t start, std::int64_t stop);
    std::int64_t (*group_rows)(Lookup&);
    void (*pull_groups[2])(const Lookup&, std::int64_t start, std::int64_t stop);
    std::int64_t (*pull_begin[2])(Lookup&, std::int64_t most, std::int64_t numbers, std::int64_t share);
    void (*pull_part[2])(const Lookup&, std::int64_t part);
    void (*pull_end[2])(const Lookup&);
    void (*sum_by_index[2])(const IndexSums&, std::int64_t start, std::int64_t stop);
    void (*lay_out[2])(Product&);
    void (*multiply[2])(const Product&, std::int64_t start, std::int64_t stop);
    void (*multiply_back[2])(const Product&, std::int64_t size, std::int64_t chunk);
    void (*multiply_first[2])(const Product&, std::int64_t start, std::int64_t stop);
    void (*multiply_behind[2])(const Product&, std::int64_t start, std::int64_t stop);
    void (*multiply_behind_back[2])(const Product&, std::int64_t size, std::int64_t chunk);
    void (*multiply_first_back[2])(const Product&, std::int64_t size, std::int64_t chunk);
};

// A window of 32 bytes of ones and 32 of zeros, from which masks are cut.
alignas(64) [[maybe_unused]] static const std::uint8_t MASKS[64] = {
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};

}  // namespace ketcore

// `build.py` compiles this file several times side by side, and KETCORE_PART says for what: the kernels of one
// instruction set, or 0 for the functions of C.  Where it is not defined, all is compiled at once.
#if defined(KETCORE_PART)
#define HAS_PART(number) (KETCORE_PART == number)
#else
#define HAS_PART(number) 1
#endif

// Tests define KETCORE_PORTABLE as the bytes of a vector, and have kernels of no instruction set alone.
#if defined(__x86_64__) && !defined(KETCORE_PORTABLE)

#if HAS_PART(2)
BEGIN_SET("sse4.2,popcnt")
namespace ketcore::v2 {
#define VECTOR_BYTES 16
#define REGISTERS 16
#define KETCORE_MASKS 0
#include "kernels.hpp"
#undef VECTOR_BYTES
#undef REGISTERS
#undef KETCORE_MASKS
}  // namespace ketcore::v2
END_SET
#endif

#if HAS_PART(3)
BEGIN_SET("avx2,fma,bmi,bmi2,popcnt")
namespace ketcore::v3 {
#define VECTOR_BYTES 32
#define REGISTERS 16
#define KETCORE_MASKS 256
#include "kernels.hpp"
#undef VECTOR_BYTES
#undef REGISTERS
#undef KETCORE_MASKS
}  // namespace ketcore::v3
END_SET
#endif

#if HAS_PART(4)
BEGIN_SET("avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma,bmi,bmi2,popcnt")
namespace ketcore::v4 {
#define VECTOR_BYTES 64
#define REGISTERS 32
#define KETCORE_MASKS 512
#include "kernels.hpp"
#undef VECTOR_BYTES
#undef REGISTERS
#undef KETCORE_MASKS
}  // namespace ketcore::v4
END_SET
#endif

#elif HAS_PART(2)

namespace ketcore::portable {
#if defined(KETCORE_PORTABLE)
#define VECTOR_BYTES KETCORE_PORTABLE
#else
#define VECTOR_BYTES 16
#endif
#define REGISTERS 32
#define KETCORE_MASKS 0
#include "kernels.hpp"
#undef VECTOR_BYTES
#undef REGISTERS
#undef KETCORE_MASKS
}  // namespace ketcore::portable

#endif

#if HAS_PART(0)

#if defined(__x86_64__) && !defined(KETCORE_PORTABLE)
namespace ketcore::v2 {
extern const Kernels KERNELS;
}
namespace ketcore::v3 {
extern const Kernels KERNELS;
}
namespace ketcore::v4 {
extern const Kernels KERNELS;
}
#else
namespace ketcore::portable {
extern const Kernels KERNELS;
}
#endif

namespace ketcore {

struct InstructionSet {
    const char* name;
    const Kernels* kernels;
    bool (*works)();
};

#if defined(__x86_64__) && !defined(KETCORE_PORTABLE)
// Whether the processor has every feature that BEGIN_SET names: a virtual machine may hide some of a set.
static bool has_v2() { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"); }

static bool has_v3() {
    return has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

static bool has_v4() {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

// From the best to the least.
static const InstructionSet SETS[] = {
#if defined(KETCORE_PORTABLE)
    {"portable", &portable::KERNELS, [] { return true; }},
#elif defined(__x86_64__)
    {"x86-64-v4", &v4::KERNELS, has_v4},
    {"x86-64-v3", &v3::KERNELS, has_v3},
    {"x86-64-v2", &v2::KERNELS, has_v2},
#elif defined(__aarch64__)
    {"neon", &portable::KERNELS, [] { return true; }},
#else
    {"portable", &portable::KERNELS, [] { return true; }},
#endif
};

static const Kernels* kernels = nullptr;

// 0, or 1 where there is no memory.
template <class Work>
static int done(Work work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // namespace ketcore

using namespace ketcore;

#pragma GCC visibility push(default)
extern "C" {

// What Python's side and this one must agree on.
int ketcore_version() { return 2; }

// Which sources it was compiled from, as build.py names them.
const char* ketcore_sources() { return KETCORE_SOURCES; }

// Takes two functions of Python's ABI.
void ketcore_start(CapsulePointer capsule_pointer, TupleItem tuple_item) { python = {capsule_pointer, tuple_item}; }

// The name of an instruction set that was compiled, best first, and whether the processor has it; null behind
// the last.
const char* ketcore_instruction_set(int position, int* works) {
    if (position < 0 || position >= int(sizeof SETS / sizeof *SETS)) return nullptr;
    *works = SETS[position].works();
    return SETS[position].name;
}

// Computes by this set from now on.
void ketcore_use(int position) { kernels = SETS[position].kernels; }

// A lookup from its numbers and a tuple of capsules: tables, index, rows; for a pull the cotangent of these, then
// gradients, which are zero, or records, and for one by ids where the ids go.  Null where they do not fit together,
// or there is no memory.  It keeps no array alive.
Lookup* ketcore_lookup_python(const LookupNumbers* numbers, void* capsules) {
    std::unique_ptr<Lookup> found(new (std::nothrow) Lookup());
    return found && read_lookup(*numbers, capsules, *found) ? found.release() : nullptr;
}

void ketcore_forget(Lookup* lookup) { delete lookup; }

// What follows returns 0, or something else where there is no memory.

// What is done once for all rows.
int ketcore_prepare(Lookup* lookup) {
    return done([&] { kernels->prepare[lookup->storage == FLOAT64](*lookup); });
}

// Writes rows [start, stop).
int ketcore_expand(const Lookup* lookup, std::int64_t start, std::int64_t stop) {
    return done([&] { kernels->expand[lookup->storage == FLOAT64](*lookup, start, stop); });
}

// Writes the records of rows [start, stop).
int ketcore_pull_records(const Lookup* lookup, std::int64_t start, std::int64_t stop) {
    return done([&] { kernels->pull_records[lookup->storage == FLOAT64](*lookup, start, stop); });
}

// Puts rows whose index is good in the order of their ids, and writes each id once; returns how many there are,
// or -1 where there is no memory.
std::int64_t ketcore_group_rows(Lookup* lookup) {
    std::int64_t count = 0;
    const int status = done([&] { count = kernels->group_rows(*lookup); });
    return status ? -1 : count;
}

// Writes the sums of the records of ids [start, stop) in that order.
int ketcore_pull_groups(const Lookup* lookup, std::int64_t start, std::int64_t stop) {
    return done([&] { kernels->pull_groups[lookup->storage == FLOAT64](*lookup, start, stop); });
}

// Pulls back to gradients: begin, every part, end.  The first prepares the lookup, and returns in how many parts the
// batch is added up, at most `most`, each of so many `numbers` of the cotangent, which has `share` times the room of
// all their sums; 0 where records summed by index serve better, and -1 where there is no memory.
std::int64_t ketcore_pull_begin(Lookup* lookup, std::int64_t most, std::int64_t numbers, std::int64_t share) {
    const bool is_double = lookup->storage == FLOAT64;
    const int status = done([&] { lookup->parts = kernels->pull_begin[is_double](*lookup, most, numbers, share); });
    return status ? -1 : lookup->parts;
}

int ketcore_pull_part(const Lookup* lookup, std::int64_t part) {
    return done([&] { kernels->pull_part[lookup->storage == FLOAT64](*lookup, part); });
}

int ketcore_pull_end(const Lookup* lookup) {
    return done([&] { kernels->pull_end[lookup->storage == FLOAT64](*lookup); });
}

// Sums by index from capsules: values, index, sums.  Null where there is no memory.
IndexSums* ketcore_index_sums_python(void* capsules) {
    std::unique_ptr<IndexSums> found(new (std::nothrow) IndexSums());
    return found && read_index_sums(capsules, *found) ? found.release() : nullptr;
}

void ketcore_forget_index_sums(IndexSums* sums) { delete sums; }

// Finds the order of the rows.
int ketcore_sort_rows(IndexSums* sums) {
    return done([&] { sort_rows(*sums); });
}

// Writes the sums that begin in [start, stop) of the order, of numbers of 32 or 64 bits.
int ketcore_sum_by_index(const IndexSums* sums, int is_double, std::int64_t start, std::int64_t stop) {
    return done([&] { kernels->sum_by_index[is_double](*sums, start, stop); });
}

// All of the above for a few rows; 1 where they do not fit together as well.
int ketcore_expand_python(const LookupNumbers* numbers, void* capsules) {
    Lookup lookup{};
    if (!read_lookup(*numbers, capsules, lookup)) return 1;
    const int status = ketcore_prepare(&lookup);
    return status ? status : ketcore_expand(&lookup, 0, lookup.batch);
}

int ketcore_pull_python(const LookupNumbers* numbers, void* capsules) {
    Lookup lookup{};
    if (!read_lookup(*numbers, capsules, lookup)) return 1;
    // In one part, which always serves.
    const bool begun = ketcore_pull_begin(&lookup, 1, 1, 1) > 0;
    return !begun || ketcore_pull_part(&lookup, 0) || ketcore_pull_end(&lookup);
}

// The number of ids, or -1.
std::int64_t ketcore_pull_groups_python(const LookupNumbers* numbers, void* capsules) {
    Lookup lookup{};
    if (!read_lookup(*numbers, capsules, lookup) || ketcore_prepare(&lookup)) return -1;
    const std::int64_t count = ketcore_group_rows(&lookup);
    return count < 0 || ketcore_pull_groups(&lookup, 0, count) ? -1 : count;
}

// A product from its numbers and a tuple of capsules: factors, x, the result, or its cotangent and the gradients,
// those of the weights zero.  Null where they do not fit together, or there is no memory.  It keeps no array alive,
// and factors are read here.
Product* ketcore_product_python(const std::int64_t* numbers, void* capsules) {
    std::unique_ptr<Product> found(new (std::nothrow) Product());
    if (!found || !read_product(numbers, capsules, *found)) return nullptr;
    return done([&] { kernels->lay_out[found->is_double](*found); }) ? nullptr : found.release();
}

void ketcore_forget_product(Product* product) { delete product; }

// Computes rows [start, stop).
int ketcore_multiply(const Product* product, std::int64_t start, std::int64_t stop) {
    return done([&] { kernels->multiply[product->is_double](*product, start, stop); });
}

// The gradients of a chunk of `size` rows.
int ketcore_multiply_back(const Product* product, std::int64_t size, std::int64_t chunk) {
    return done([&] { kernels->multiply_back[product->is_double](*product, size, chunk); });
}

// Where the first step is apart: units [start, stop) of it, then blocks [start, stop) of what it leaves; and the
// gradients of a chunk of `size` blocks, then of a chunk of `size` units.
int ketcore_multiply_first(const Product* product, std::int64_t start, std::int64_t stop) {
    return done([&] { kernels->multiply_first[product->is_double](*product, start, stop); });
}

int ketcore_multiply_behind(const Product* product, std::int64_t start, std::int64_t stop) {
    return done([&] { kernels->multiply_behind[product->is_double](*product, start, stop); });
}

int ketcore_multiply_behind_back(const Product* product, std::int64_t size, std::int64_t chunk) {
    return done([&] { kernels->multiply_behind_back[product->is_double](*product, size, chunk); });
}

int ketcore_multiply_first_back(const Product* product, std::int64_t size, std::int64_t chunk) {
    return done([&] { kernels->multiply_first_back[product->is_double](*product, size, chunk); });
}

// A small product at once, or its gradients.
int ketcore_multiply_python(const std::int64_t* numbers, void* capsules) {
    Product product{};
    if (!read_product(numbers, capsules, product)) return 1;
    const int status = done([&] { kernels->lay_out[product.is_double](product); });
    if (status) return status;
    return product.backward ? ketcore_multiply_back(&product, product.batch, 0)
                            : ketcore_multiply(&product, 0, product.batch);
}

}  // extern "C"
#pragma GCC visibility pop

#endif
