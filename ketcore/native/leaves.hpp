// Leaves: what each row picks from the tables, copied to be contiguous, padded and of the type that is computed
// with.  Included once for each instruction set, inside its namespace.

// One number of storage as a number to compute with; addresses may be unaligned.
INLINE float from_half(std::uint16_t bits) {
    // Exponents of halves are moved to those of floats by a product, which is exact; so are subnormal ones.
    const std::uint32_t magnitude = std::uint32_t(bits & 0x7fff) << 13, sign = std::uint32_t(bits & 0x8000) << 16;
    float number;
    __builtin_memcpy(&number, &magnitude, 4);
    number *= 0x1p112f;
    std::uint32_t found;
    __builtin_memcpy(&found, &number, 4);
    if ((bits & 0x7c00) == 0x7c00) found = magnitude | 0x7f800000;
    found |= sign;
    __builtin_memcpy(&number, &found, 4);
    return number;
}

// The nearest half, ties to even.
INLINE std::uint16_t to_half(float number) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &number, 4);
    const std::uint32_t sign = bits >> 16 & 0x8000;
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return std::uint16_t(sign | 0x7e00);
    if (bits >= 0x47800000) return std::uint16_t(sign | 0x7c00);
    if (bits < 0x38800000) {
        // Subnormal: adding one half aligns the mantissa, and rounds.
        float aligned;
        __builtin_memcpy(&aligned, &bits, 4);
        aligned += 0.5f;
        __builtin_memcpy(&bits, &aligned, 4);
        return std::uint16_t(sign | (bits - 0x3f000000));
    }
    bits += 0xfff + (bits >> 13 & 1);
    const std::uint32_t found = (bits - 0x38000000) >> 13;
    return std::uint16_t(sign | (found > 0x7c00 ? 0x7c00 : found));
}

INLINE std::uint16_t to_bfloat(float number) {
    std::uint32_t bits;
    __builtin_memcpy(&bits, &number, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return std::uint16_t(bits >> 16 | 0x40);
    return std::uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Numbers of 32 bits into storage of 16.
template <class T>
INLINE void store_narrow(const T* from, std::int64_t count, Storage storage, char* to) {
    for (std::int64_t i = 0; i < count; i++) {
        const std::uint16_t bits = storage == FLOAT16 ? to_half(float(from[i])) : to_bfloat(float(from[i]));
        __builtin_memcpy(to + 2 * i, &bits, 2);
    }
}

template <class T>
INLINE T number_at(const char* address, Storage storage) {
    if constexpr (sizeof(T) == 8) {
        T number;
        __builtin_memcpy(&number, address, 8);
        return number;
    } else {
        if (storage == FLOAT32) {
            T number;
            __builtin_memcpy(&number, address, 4);
            return number;
        }
        std::uint16_t bits;
        __builtin_memcpy(&bits, address, 2);
        if (storage == FLOAT16) return from_half(bits);
        const std::uint32_t wide = std::uint32_t(bits) << 16;
        T number;
        __builtin_memcpy(&number, &wide, 4);
        return number;
    }
}

// Entries of any stride into contiguous memory with room for whole vectors; what is behind them becomes zero.
template <class T>
INLINE void copy_leaf(const char* from, std::int64_t stride, Storage storage, std::int64_t width, T* to) {
    if (stride == sizeof(T) && (sizeof(T) == 8 || storage == FLOAT32)) {
        const T* source = reinterpret_cast<const T*>(from);
        std::int64_t i = 0;
        for (; i + LANES<T> <= width; i += LANES<T>) store(to + i, load(source + i));
        if (i < width) store(to + i, load_first(source + i, width - i));
        return;
    }
    std::int64_t i = 0;
    for (; i < width; i++) to[i] = number_at<T>(from + i * stride, storage);
    for (; i < padded<T>(width); i++) to[i] = 0;
}

template <class I>
INLINE std::int64_t integer_at(const char* address) {
    I number;
    __builtin_memcpy(&number, address, sizeof number);
    return std::int64_t(number);
}

// Of a uint64 what is beyond int64 turns negative, which is out of range as well.
INLINE std::int64_t index_at(const char* address, IndexType type) {
    switch (type) {
        case INT8: return integer_at<std::int8_t>(address);
        case INT16: return integer_at<std::int16_t>(address);
        case INT32: return integer_at<std::int32_t>(address);
        case UINT8: return integer_at<std::uint8_t>(address);
        case UINT16: return integer_at<std::uint16_t>(address);
        case UINT32: return integer_at<std::uint32_t>(address);
        default: return integer_at<std::int64_t>(address);
    }
}

// Quotient and remainder of numbers that are not negative; short ones divide several times faster.
INLINE void divide(std::int64_t number, std::int64_t by, std::int64_t& quotient, std::int64_t& remainder) {
    if ((std::uint64_t(number) | std::uint64_t(by)) >> 32) {
        quotient = number / by, remainder = number % by;
    } else {
        quotient = std::uint32_t(number) / std::uint32_t(by), remainder = std::uint32_t(number) % std::uint32_t(by);
    }
}

// Where leaves, and the halves that they multiply up to, lie for one row.
template <class T>
struct Shape {
    const Lookup& lookup;
    std::int64_t offsets[MAX_ORDER];                    // of the leaf of each mode behind those of its term
    std::int64_t leaves;                                // room for the leaves of a term
    std::int64_t left_stride, right_stride;             // from term to term of halves that are multiplied out
    std::int64_t record;                                // room for all of a row

    explicit Shape(const Lookup& of) : lookup(of) {
        leaves = 0;
        for (int mode = 0; mode < of.order; mode++) {
            offsets[mode] = leaves;
            leaves += padded<T>(of.tables[mode].width);
        }
        // A product writes whole vectors, and at its end up to one more.
        left_stride = padded<T>(of.left_width) + LANES<T>;
        right_stride = padded<T>(of.right_width) + LANES<T>;
        record = of.rank * (leaves + left_stride + right_stride);
    }
};

// Which rows of the tables a row of the result takes: by mode, of kind TERMS those of its first term.
struct Choice {
    std::int64_t position[MAX_ORDER];
};

// The digits of a number over the lengths of modes [from, to).
INLINE void choose_digits(const Lookup& lookup, int from, int to, std::int64_t id, Choice& choice) {
    for (int mode = to - 1; mode > from; mode--)
        divide(id, lookup.tables[mode].length, id, choice.position[mode]);
    if (from < to) choice.position[from] = id;
}

// What row b takes; false where an index of it is bad, and then 0 stands in its place.
INLINE bool choose(const Lookup& lookup, std::int64_t b, std::int64_t term, Choice& choice) {
    const auto type = IndexType(lookup.index_type);
    const char* at = lookup.index.data;
    const std::int64_t* strides = lookup.index.strides;
    if (lookup.kind == DIGITS || lookup.kind == SAME) {
        std::int64_t id = index_at(at + b * strides[0], type);
        const bool good = std::uint64_t(id) < std::uint64_t(lookup.bound);
        if (!good) id = 0;
        if (lookup.kind == DIGITS)
            choose_digits(lookup, 0, int(lookup.order), id, choice);
        else
            for (int mode = 0; mode < lookup.order; mode++) choice.position[mode] = id;
        return good;
    }
    at += lookup.kind == TERMS ? term * strides[1] + b * strides[2] : b * strides[1];
    bool good = true;
    for (int mode = 0; mode < lookup.order; mode++) {
        std::int64_t position = index_at(at + mode * strides[0], type);
        if (std::uint64_t(position) >= std::uint64_t(lookup.tables[mode].length)) {
            good = false;
            position = 0;
        }
        choice.position[mode] = position;
    }
    return good;
}

INLINE const char* leaf_address(const Lookup& lookup, int mode, std::int64_t term, std::int64_t position) {
    const Table& table = lookup.tables[mode];
    return table.data + term * table.term_stride + position * table.row_stride;
}

// Copies the leaves of modes [from, to) of one term.
template <class T>
INLINE void copy_leaves(const Shape<T>& shape, int from, int to, std::int64_t term, const Choice& choice, T* leaves) {
    const Lookup& lookup = shape.lookup;
    for (int mode = from; mode < to; mode++)
        copy_leaf(leaf_address(lookup, mode, term, choice.position[mode]), lookup.tables[mode].entry_stride,
                  Storage(lookup.storage), lookup.tables[mode].width, leaves + shape.offsets[mode]);
}

// Copies the leaves of row b, but for halves that are direct, term after term; false where an index is bad.
template <class T>
INLINE bool copy_row(const Shape<T>& shape, std::int64_t b, T* leaves, Choice& choice) {
    const Lookup& lookup = shape.lookup;
    const int from = lookup.left_direct ? int(lookup.split) : 0;
    const int to = lookup.right_direct ? int(lookup.split) : int(lookup.order);
    bool good = choose(lookup, b, 0, choice);
    for (std::int64_t term = 0; from < to && term < lookup.rank; term++) {
        if (term && lookup.kind == TERMS) good &= choose(lookup, b, term, choice);
        copy_leaves(shape, from, to, term, choice, leaves + term * shape.leaves);
    }
    return good;
}

// Asks for the memory of the leaves of row b, so that rows behind it do not wait for each other.
INLINE void prefetch_row(const Lookup& lookup, std::int64_t b) {
    constexpr std::uintptr_t LINE = 64;
    Choice choice;
    std::uintptr_t last = 0;
    for (std::int64_t term = 0; term < lookup.rank; term++) {
        if (term == 0 || lookup.kind == TERMS) choose(lookup, b, term, choice);
        for (int mode = 0; mode < lookup.order; mode++) {
            const char* from = leaf_address(lookup, mode, term, choice.position[mode]);
            const std::int64_t stride = lookup.tables[mode].entry_stride;
            const char* to = from + (lookup.tables[mode].width - 1) * stride;
            // Leaves with their entries apart are left to the processor.
            for (const char* at = from; at == from || (stride <= 8 && at <= to); at += LINE) {
                const std::uintptr_t line = reinterpret_cast<std::uintptr_t>(at) / LINE;
                if (line != last) __builtin_prefetch(at);
                last = line;
            }
        }
    }
}
