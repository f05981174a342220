// Square blocks of as many vectors as a vector has lanes: turned round, and summed lane by lane.
// Included once for each instruction set, inside its namespace.

// Of a block of 2 SIDE by 2 SIDE numbers in two vectors, SIDE rows apart, exchanges the corners off the diagonal.
template <class T, int SIDE, int... LANE>
INLINE void exchange(Vector<T>& first, Vector<T>& second, std::integer_sequence<int, LANE...>) {
    const Vector<T> upper = pick<T, (LANE & SIDE ? LANES<T> + LANE - SIDE : LANE)...>(first, second);
    second = pick<T, (LANE & SIDE ? LANES<T> + LANE : LANE + SIDE)...>(first, second);
    first = upper;
}

template <class T, int SIDE>
INLINE void exchange(Vector<T>& first, Vector<T>& second) {
    exchange<T, SIDE>(first, second, std::make_integer_sequence<int, LANES<T>>());
}

template <class T, int SIDE = LANES<T> / 2>
INLINE void transpose(Vector<T>* rows) {
#pragma GCC unroll 16
    for (int i = 0; i < LANES<T>; i++)
        if (!(i & SIDE)) exchange<T, SIDE>(rows[i], rows[i + SIDE]);
    if constexpr (SIDE > 1) transpose<T, SIDE / 2>(rows);
}

// Lane i is the sum of the lanes of rows[i]; the rows do not stay.
template <class T, int SIDE = LANES<T> / 2>
INLINE Vector<T> sums_of(Vector<T>* rows) {
#pragma GCC unroll 8
    for (int i = 0; i < SIDE; i++) {
        exchange<T, SIDE>(rows[i], rows[i + SIDE]);
        rows[i] += rows[i + SIDE];
    }
    if constexpr (SIDE > 1) return sums_of<T, SIDE / 2>(rows);
    return rows[0];
}

// to[j * to_step + i] = from[i * step + j] for i < count, j < width: reads and writes whole blocks.
template <class T>
INLINE void transpose(const T* from, std::int64_t step, std::int64_t count, std::int64_t width, T* to,
                      std::int64_t to_step) {
    for (std::int64_t i = 0; i < count; i += LANES<T>)
        for (std::int64_t j = 0; j < width; j += LANES<T>) {
            Vector<T> block[LANES<T>];
#pragma GCC unroll 16
            for (int k = 0; k < LANES<T>; k++) block[k] = load(from + (i + k) * step + j);
            transpose<T>(block);
#pragma GCC unroll 16
            for (int k = 0; k < LANES<T>; k++) store(to + (j + k) * to_step + i, block[k]);
        }
}
