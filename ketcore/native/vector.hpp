// Vectors of one instruction set: included once for each, inside its namespace.
//
// A vector holds LANES<T> numbers.  What is not arithmetic is here: loads, stores and sums, also of the first
// few lanes alone, which touch no memory beyond them.

template <class T>
struct VectorOf {
    typedef T type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T>
using Vector = typename VectorOf<T>::type;
template <class T>
constexpr int LANES = VECTOR_BYTES / int(sizeof(T));

// The next multiple of the lanes.
template <class T>
constexpr std::int64_t padded(std::int64_t count) {
    return (count + LANES<T> - 1) / LANES<T> * LANES<T>;
}

template <class T>
INLINE Vector<T> load(const T* from) {
    Vector<T> found;
    __builtin_memcpy(&found, from, sizeof found);
    return found;
}

template <class T>
INLINE void store(T* to, Vector<T> value) {
    __builtin_memcpy(to, &value, sizeof value);
}

template <class T>
INLINE Vector<T> spread(T number) {
    // Of zero and a number the difference is the number itself, where a sum would be computed for the sake of -0.
    return number - Vector<T>{};
}

// The first `count` numbers, zeros behind them.
template <class T>
INLINE Vector<T> load_first(const T* from, std::int64_t count) {
#if KETCORE_MASKS == 512
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), from);
    else
        return (Vector<T>)_mm512_maskz_loadu_pd(__mmask8((1u << count) - 1), from);
#elif KETCORE_MASKS == 256
    const __m256i mask = _mm256_loadu_si256((const __m256i*)(MASKS + 32 - count * std::int64_t(sizeof(T))));
    if constexpr (sizeof(T) == 4)
        return (Vector<T>)_mm256_maskload_ps(from, mask);
    else
        return (Vector<T>)_mm256_maskload_pd(from, mask);
#else
    Vector<T> found{};
    for (std::int64_t i = 0; i < count; i++) found[i] = from[i];
    return found;
#endif
}

// Writes the first `count` lanes.
template <class T>
INLINE void store_first(T* to, Vector<T> value, std::int64_t count) {
#if KETCORE_MASKS == 512
    if constexpr (sizeof(T) == 4)
        _mm512_mask_storeu_ps(to, __mmask16((1u << count) - 1), (__m512)value);
    else
        _mm512_mask_storeu_pd(to, __mmask8((1u << count) - 1), (__m512d)value);
#elif KETCORE_MASKS == 256
    const __m256i mask = _mm256_loadu_si256((const __m256i*)(MASKS + 32 - count * std::int64_t(sizeof(T))));
    if constexpr (sizeof(T) == 4)
        _mm256_maskstore_ps(to, mask, (__m256)value);
    else
        _mm256_maskstore_pd(to, mask, (__m256d)value);
#else
    for (std::int64_t i = 0; i < count; i++) to[i] = value[i];
#endif
}

// The lanes of two vectors that LANE names: those of `first` count from zero, those of `second` follow.
template <class T, int... LANE>
INLINE Vector<T> pick(Vector<T> first, Vector<T> second) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(first, second, LANE...);
#else
    typedef std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t> Places
        __attribute__((vector_size(VECTOR_BYTES)));
    return __builtin_shuffle(first, second, Places{LANE...});
#endif
}

template <class T, int SIDE, int... LANE>
INLINE Vector<T> fold(Vector<T> value, std::integer_sequence<int, LANE...>) {
    return value + pick<T, (LANE ^ SIDE)...>(value, value);
}

// The sum of the lanes, by halves.
template <class T, int SIDE = LANES<T> / 2>
INLINE T sum(Vector<T> value) {
    value = fold<T, SIDE>(value, std::make_integer_sequence<int, LANES<T>>());
    if constexpr (SIDE > 1) return sum<T, SIDE / 2>(value);
    return value[0];
}

// Vectors that are added up in one register before their sum goes on in double: of so few numbers of one sign a
// float32 sum is off by less than 1e-6 of itself.
constexpr std::int64_t SUMMED_VECTORS = 64;

// The sum of `read(i)`, a vector from number i on, and `read_first(i, lanes)` where less than that is left.
template <class T, class Read, class ReadFirst>
INLINE T sum_in_pieces(std::int64_t count, Read read, ReadFirst read_first) {
    constexpr std::int64_t PIECE = SUMMED_VECTORS * LANES<T>;
    double moved = 0;
    Vector<T> sums{};
    std::int64_t i = 0;
    for (; count - i > PIECE; sums = Vector<T>{}) {
        for (const std::int64_t stop = i + PIECE; i < stop; i += LANES<T>) sums += read(i);
        moved += double(sum<T>(sums));
    }
    for (; i + LANES<T> <= count; i += LANES<T>) sums += read(i);
    if (i < count) sums += read_first(i, count - i);
    return count > PIECE ? T(moved + double(sum<T>(sums))) : sum<T>(sums);
}

template <class T>
INLINE T dot(const T* first, const T* second, std::int64_t count) {
    return sum_in_pieces<T>(
        count, [&](std::int64_t i) __attribute__((always_inline)) { return load(first + i) * load(second + i); },
        [&](std::int64_t i, std::int64_t lanes) __attribute__((always_inline)) {
            return load_first(first + i, lanes) * load_first(second + i, lanes);
        });
}

template <class T>
INLINE T sum_of(const T* numbers, std::int64_t count) {
    return sum_in_pieces<T>(
        count, [&](std::int64_t i) __attribute__((always_inline)) { return load(numbers + i); },
        [&](std::int64_t i, std::int64_t lanes) __attribute__((always_inline)) {
            return load_first(numbers + i, lanes);
        });
}

// to[i] += from[i] for the first `count`; behind them zeros are added as far as `end`.
template <class T>
INLINE void add_first(T* to, const T* from, std::int64_t count, const T* end) {
    std::int64_t i = 0;
    for (; i + LANES<T> <= count; i += LANES<T>) store(to + i, load(to + i) + load(from + i));
    if (i == count) return;
    if (end - (to + i) >= LANES<T>)
        store(to + i, load(to + i) + load_first(from + i, count - i));
    else
        for (; i < count; i++) to[i] += from[i];
}

// Copies the first `count`; what is behind them is lost as far as `end`.
template <class T>
INLINE void copy_first(T* to, const T* from, std::int64_t count, const T* end) {
    std::int64_t i = 0;
    for (; i + LANES<T> <= count; i += LANES<T>) store(to + i, load(from + i));
    if (i == count) return;
    if (end - (to + i) >= LANES<T>)
        store(to + i, load_first(from + i, count - i));
    else
        for (; i < count; i++) to[i] = from[i];
}
