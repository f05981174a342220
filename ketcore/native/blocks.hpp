// Small matrix products in registers, over and over.  Included once for each instruction set, inside its
// namespace.
//
//     y[a][i] (+)= sum over k of  coefficient[k][a] x[k][i],    i along whole vectors
//
// Each number of y is summed in the order of k, whatever the blocks are.

// Many products of one kind: `count` of them side by side, and that `repeats` times.  Steps are in numbers.
template <class T>
struct Strip {
    const T* coefficients;
    const T* x;
    T* y;
    std::int64_t length;                             // of the sums
    std::int64_t coefficient_row, coefficient_step;  // along k, and along a
    std::int64_t x_row, y_row;                       // along k, and along a
    std::int64_t count, coefficients_next, x_next, y_next;
    std::int64_t repeats, x_repeat, y_repeat;
    std::int64_t lanes;  // of a vector that is not whole
    const T* end;        // of y: nothing behind it may be written
    bool add;            // to what is in y
};

// `rows` rows of y by `vectors` vectors.
template <class T, int rows, int vectors, bool partial>
void strip(const Strip<T>& of) {
    const bool add = of.add;
    const std::int64_t coefficient_row = of.coefficient_row, coefficient_step = of.coefficient_step;
    const std::int64_t x_row = of.x_row, y_row = of.y_row;
    for (std::int64_t repeat = 0; repeat < of.repeats; repeat++) {
        const T* coefficients = of.coefficients;
        const T* x = of.x + repeat * of.x_repeat;
        T* y = of.y + repeat * of.y_repeat;
        for (std::int64_t i = 0; i < of.count; i++) {
            Vector<T> sums[rows][vectors], loaded[vectors];
            const T* coefficient = coefficients;
            const T* from = x;
            const auto read = [&] {
                for (int v = 0; v < vectors; v++)
                    loaded[v] = partial ? load_first(from, of.lanes) : load(from + v * LANES<T>);
            };
            read();
            for (int a = 0; a < rows; a++)
                for (int v = 0; v < vectors; v++) sums[a][v] = coefficient[a * coefficient_step] * loaded[v];
            for (std::int64_t k = 1; k < of.length; k++) {
                coefficient += coefficient_row;
                from += x_row;
                read();
                for (int a = 0; a < rows; a++)
                    for (int v = 0; v < vectors; v++) sums[a][v] += coefficient[a * coefficient_step] * loaded[v];
            }
            for (int a = 0; a < rows; a++)
                for (int v = 0; v < vectors; v++) {
                    T* to = y + a * y_row + v * LANES<T>;
                    Vector<T> found = sums[a][v];
                    if (add) found += partial ? load_first(to, of.lanes) : load(to);
                    // Without others to add to, what is written too much is written again: rows follow one another.
                    if (!partial || (!add && to + LANES<T> <= of.end))
                        store(to, found);
                    else
                        store_first(to, found, of.lanes);
                }
            coefficients += of.coefficients_next;
            x += of.x_next;
            y += of.y_next;
        }
    }
}

// Rows of y that fit the registers beside the vectors of x and one coefficient, by the number of vectors: 0 stands
// for one that is not whole.
constexpr int MOST_ROWS[] = {4, 12, 6, 4};

template <class T, int vectors, bool partial, int rows>
INLINE void strip_of(std::int64_t wanted, const Strip<T>& of) {
    if constexpr (rows > 0) {
        if (wanted == rows)
            strip<T, rows, vectors, partial>(of);
        else
            strip_of<T, vectors, partial, rows - 1>(wanted, of);
    }
}

template <class T>
void run_strip(std::int64_t rows, std::int64_t vectors, const Strip<T>& of) {
    switch (vectors) {
        case 0: return strip_of<T, 1, true, MOST_ROWS[0]>(rows, of);
        case 1: return strip_of<T, 1, false, MOST_ROWS[1]>(rows, of);
        case 2: return strip_of<T, 2, false, MOST_ROWS[2]>(rows, of);
        default: return strip_of<T, 3, false, MOST_ROWS[3]>(rows, of);
    }
}

// Calls `found(start, size)` for [0, total) in pieces of nearly one size, of at most `most`.
template <class F>
INLINE void in_pieces(std::int64_t total, std::int64_t most, F found) {
    const std::int64_t count = (total + most - 1) / most;
    for (std::int64_t i = 0, start = 0; i < count; i++) {
        const std::int64_t size = total / count + (i < total % count);
        found(start, size);
        start += size;
    }
}

// Calls `found(start, vectors, count)` for `whole` vectors in a row: `count` times so many vectors, and the rest.
template <class F>
INLINE void in_vectors(std::int64_t whole, F found) {
    // Four vectors are two pairs; a pair is enough for the additions to wait for nothing.
    const std::int64_t threes = whole % 3 == 1 && whole > 3 ? whole / 3 - 1 : whole / 3;
    if (threes) found(0, 3, threes);
    const std::int64_t left = whole - 3 * threes;
    if (left >= 2) found(3 * threes, 2, left / 2);
    if (left & 1) found(whole - 1, 1, 1);
}
