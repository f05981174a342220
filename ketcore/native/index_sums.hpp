// Sums of the rows of an array that share an index, as `ketcore.arrays.sums` describes them.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>

#include "array.hpp"

namespace ketcore {

struct IndexSums {
    Array values;  // (B, width), each row contiguous
    Array index;   // (B,) of int64, in [0, count)
    Array sums;    // (count, width), contiguous, zero
    std::int64_t count;
    std::unique_ptr<std::int64_t[]> order;  // the rows by index, and those of one as they come
};

inline bool read_index_sums(void* capsules, IndexSums& found) {
    if (!read_array(capsules, 0, found.values) || !read_array(capsules, 1, found.index) ||
        !read_array(capsules, 2, found.sums))
        return false;
    found.count = found.sums.shape[0];
    return true;
}

inline std::int64_t index_of(const IndexSums& sums, std::int64_t row) {
    std::int64_t found;
    std::memcpy(&found, sums.index.data + row * sums.index.strides[0], sizeof found);
    return found;
}

// Finds the order: from the least digit of the index on, by counts.
inline void sort_rows(IndexSums& sums) {
    constexpr int BITS = 8, DIGITS = 1 << BITS;
    const std::int64_t batch = sums.values.shape[0];
    std::unique_ptr<std::int64_t[]> order(new std::int64_t[std::size_t(batch)]);
    std::unique_ptr<std::int64_t[]> other(new std::int64_t[std::size_t(batch)]);
    for (std::int64_t row = 0; row < batch; row++) order[std::size_t(row)] = row;
    for (int shift = 0; shift < 64 && (sums.count - 1) >> shift; shift += BITS) {
        const auto digit = [&](std::int64_t row) { return index_of(sums, row) >> shift & (DIGITS - 1); };
        std::int64_t starts[DIGITS + 1] = {};
        for (std::int64_t row = 0; row < batch; row++) starts[digit(row) + 1]++;
        for (int i = 0; i < DIGITS; i++) starts[i + 1] += starts[i];
        for (std::int64_t i = 0; i < batch; i++) {
            const std::int64_t row = order[std::size_t(i)];
            other[std::size_t(starts[digit(row)]++)] = row;
        }
        order.swap(other);
    }
    sums.order = std::move(order);
}

}  // namespace ketcore
