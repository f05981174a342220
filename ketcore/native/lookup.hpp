// A lookup as Python describes it: which leaf each row takes from each table.  See ketcore/lookups/lookup.py.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "array.hpp"

namespace ketcore {

constexpr int MAX_ORDER = 32;

enum Kind : std::int64_t { DIGITS, SAME, MODES, TERMS };
enum Storage : std::int64_t { FLOAT32, FLOAT64, FLOAT16, BFLOAT16 };
enum IndexType : std::int64_t { INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64 };

// What a lookup is for: its rows, or their cotangents back to tables, to the leaves of each row,
// or to those of each id.
enum Purpose : std::int64_t { ROWS, GRADIENTS, RECORDS, GROUPS };

// What `ketcore.lookups.on_native` packs, in this order.
struct LookupNumbers {
    std::int64_t order, kind, storage, index_type, rank, batch, columns, split, bound, layernorm;
    std::int64_t purpose, cotangent_storage;
    double eps;
};

struct Table {
    const char* data;
    std::int64_t length, width;
    std::int64_t term_stride, row_stride, entry_stride;  // bytes
};

// What a pull adds up in; each instruction set has its own.
struct PullState {
    virtual ~PullState() = default;
};

struct Lookup : LookupNumbers {
    Table tables[MAX_ORDER];
    Array index;  // (B,), (N, B) or (N, R, B)
    Array rows;   // (B, columns): the rows to write, or their cotangent; C-contiguous
    // Entries of the left half that reach into the columns; how many of them do so with the whole right half, and
    // how many columns are behind those.
    std::int64_t kept, whole, rest;
    std::int64_t left_width, right_width, left_length, right_length;

    bool level;  // whether no product of leaves leaves the range of its type before the result does

    // Halves of one mode are read where they lie, if they lie as they are computed with.
    bool left_direct, right_direct;
    // Halves multiplied out for all digits; null where each row has halves of its own, or they are direct.
    std::unique_ptr<char[]> left_table, right_table;
    bool picked;  // whether digits alone say where both halves of a row lie

    // Of cotangents alone: where gradients (t_n, R, q_n) or the only records (B, R, sum q_n) go, and in how many
    // parts the batch is added up.
    char* gradients[MAX_ORDER];
    std::int64_t parts;
    std::unique_ptr<PullState> state;

    // Of rows that were put in the order of their ids: the ids, which rows they are, and where among them those of
    // one id begin, behind the last as well.
    std::unique_ptr<std::int64_t[]> ids, places;
    std::vector<std::int64_t> firsts;
    char* found_ids;  // where each id is written once, an int64

    // The row b, or its cotangent.
    const char* row(std::int64_t b) const {
        return rows.data + (places ? places[std::size_t(b)] : b) * rows.strides[0];
    }

    // Of the product of modes [from, to).
    std::int64_t width(int from, int to) const {
        std::int64_t found = 1;
        for (int mode = from; mode < to; mode++) found *= tables[mode].width;
        return found;
    }
};

// A product of sizes, neither of them negative; one beyond every number of 64 bits is as long as there are.
inline std::int64_t product_of(std::int64_t first, std::int64_t second) {
    std::int64_t found;
    return __builtin_mul_overflow(first, second, &found) ? INT64_MAX : found;
}

// Takes gradients, which lie end to end, or records; false where they are not as described.
inline bool read_gradients(void* capsules, Lookup& found) {
    Array given;
    if (found.purpose == GROUPS) {
        if (!read_array(capsules, found.order + 3, given)) return false;
        found.found_ids = given.data;
    }
    if (!read_array(capsules, found.order + 2, given)) return false;
    found.gradients[0] = given.data;
    for (int mode = 1; found.purpose == GRADIENTS && mode < found.order; mode++) {
        const Table& before = found.tables[mode - 1];
        const std::int64_t numbers = before.length * found.rank * before.width;
        found.gradients[mode] = found.gradients[mode - 1] + numbers * (found.storage == FLOAT64 ? 8 : 4);
    }
    return true;
}

// Takes the tables, the index, the rows and what is behind them from capsules; false where they are not as
// described.
inline bool read_lookup(const LookupNumbers& numbers, void* capsules, Lookup& found) {
    static_cast<LookupNumbers&>(found) = numbers;
    if (numbers.order < 1 || numbers.order > MAX_ORDER) return false;
    found.left_width = found.right_width = found.left_length = found.right_length = 1;
    for (int mode = 0; mode < numbers.order; mode++) {
        Array given;
        if (!read_array(capsules, mode, given) || given.shape[0] != numbers.rank) return false;
        found.tables[mode] = Table{given.data,       given.shape[1],   given.shape[2],
                                   given.strides[0], given.strides[1], given.strides[2]};
        std::int64_t& width = mode < numbers.split ? found.left_width : found.right_width;
        std::int64_t& length = mode < numbers.split ? found.left_length : found.right_length;
        width = product_of(width, given.shape[2]);
        length = product_of(length, given.shape[1]);
    }
    // What no memory holds is not described, and sizes of what is multiplied out for a row do not overflow.
    double entries = double(found.left_width) + double(found.right_width);
    for (int mode = 0; mode < numbers.order; mode++) entries += double(found.tables[mode].width) + 64;
    if (entries * double(numbers.rank) > 0x1p56) return false;
    // Two leaves have no product but the result, and with LayerNorm a node has a scale of its own.
    found.level = numbers.order < 3 || numbers.layernorm;
    found.whole = numbers.columns / found.right_width;
    found.rest = numbers.columns % found.right_width;
    found.kept = found.whole + (found.rest > 0);
    return read_array(capsules, numbers.order, found.index) &&
           read_array(capsules, numbers.order + 1, found.rows) &&
           (numbers.purpose == ROWS || read_gradients(capsules, found));
}

}  // namespace ketcore
