// One step of a product, its transpose and its gradient.  Included once for each instruction set, inside its
// namespace.

// The numbers of a matrix that are multiplied, (length, results).
template <class T>
struct Coefficients {
    const T* data;
    std::int64_t row, step;
};

// Numbers that go in at a time, so that they stay in the first-level cache.
template <class T>
constexpr std::int64_t PANEL = (1 << 14) / sizeof(T);

// y (outer, results, inner) (+)= the coefficients, over all of x (outer, length, inner), where inner is at least
// one vector.  `x_stride` and `stride` are how far rows are apart, `width` how much of them is computed.
template <class T>
void wide_product(const Coefficients<T>& matrix, std::int64_t length, std::int64_t results, std::int64_t outer,
                  std::int64_t x_stride, std::int64_t stride, std::int64_t width, const T* x, T* y, bool add) {
    const std::int64_t whole = width / LANES<T>, tail = width % LANES<T>;
    Strip<T> strip{};
    strip.add = add;
    strip.length = length;
    strip.coefficient_row = matrix.row;
    strip.coefficient_step = matrix.step;
    strip.x_row = x_stride;
    strip.y_row = stride;
    strip.repeats = outer;
    strip.x_repeat = length * x_stride;
    strip.y_repeat = results * stride;
    const auto run = [&](std::int64_t at, std::int64_t vectors, std::int64_t count) {
        strip.count = count;
        strip.x_next = strip.y_next = vectors * LANES<T>;
        strip.x = x + at;
        in_pieces(results, MOST_ROWS[vectors], [&](std::int64_t start, std::int64_t rows) {
            strip.coefficients = matrix.data + start * matrix.step;
            strip.y = y + start * stride + at;
            run_strip(rows, vectors, strip);
        });
    };
    in_vectors(whole, [&](std::int64_t start, std::int64_t vectors, std::int64_t count) {
        run(start * LANES<T>, vectors, count);
    });
    if (!tail) return;
    // The last vector overlaps the one before it, where nothing is added twice.
    if (!add) return run(width - LANES<T>, 1, 1);
    strip.count = 1;
    strip.lanes = tail;
    strip.x = x + width - tail;
    in_pieces(results, MOST_ROWS[0], [&](std::int64_t start, std::int64_t rows) {
        strip.coefficients = matrix.data + start * matrix.step;
        strip.y = y + start * stride + width - tail;
        run_strip(rows, 0, strip);
    });
}

// The same where inner is less than a vector.
template <class T>
void narrow_product(const Coefficients<T>& matrix, std::int64_t length, std::int64_t results, std::int64_t outer,
                    std::int64_t inner, const T* x, T* y, bool add) {
    Strip<T> strip{};
    strip.add = add;
    strip.length = length;
    strip.coefficient_row = matrix.row;
    strip.coefficient_step = matrix.step;
    strip.x_row = strip.y_row = strip.lanes = inner;
    strip.count = 1;
    strip.end = y + outer * results * inner;
    // In the order in which rows lie, for what they write too much.
    const bool together = results <= MOST_ROWS[0];
    strip.repeats = together ? outer : 1;
    strip.x_repeat = length * inner;
    strip.y_repeat = results * inner;
    for (std::int64_t o = 0; o < outer; o += strip.repeats) {
        strip.x = x + o * length * inner;
        in_pieces(results, MOST_ROWS[0], [&](std::int64_t start, std::int64_t rows) {
            strip.coefficients = matrix.data + start * matrix.step;
            strip.y = y + (o * results + start) * inner;
            run_strip(rows, 0, strip);
        });
    }
}

// y (outer, results) (+)= x (outer, length) times a matrix (length, padded results).
template <class T>
void last_product(const T* matrix, std::int64_t matrix_width, std::int64_t length, std::int64_t results,
                  std::int64_t outer, const T* x, T* y, bool add) {
    const std::int64_t whole = results / LANES<T>, tail = results % LANES<T>;
    Strip<T> strip{};
    strip.add = add;
    strip.length = length;
    strip.coefficient_row = 1;
    strip.coefficient_step = length;
    strip.x_row = matrix_width;
    strip.y_row = results;
    strip.repeats = 1;
    strip.lanes = tail;
    strip.end = y + outer * results;
    const auto run = [&](std::int64_t at, std::int64_t vectors) {
        const std::int64_t most = MOST_ROWS[vectors], count = outer / most, left = outer % most;
        strip.x = matrix + at;
        strip.coefficients_next = most * length;
        strip.y_next = most * results;
        strip.coefficients = x;
        strip.y = y + at;
        strip.count = count;
        if (count) run_strip(most, vectors, strip);
        strip.coefficients = x + count * most * length;
        strip.y = y + count * most * results + at;
        strip.count = 1;
        if (left) run_strip(left, vectors, strip);
    };
    in_vectors(whole, [&](std::int64_t start, std::int64_t vectors, std::int64_t count) {
        for (std::int64_t i = 0; i < count; i++) run((start + i * vectors) * LANES<T>, vectors);
    });
    if (!tail) return;
    // The last vector overlaps the one before it, where nothing is added twice.
    if (whole && !add) return run(results - LANES<T>, 1);
    run(whole * LANES<T>, 0);
}

// Some of what lies behind the modes of a step.
struct Columns {
    std::int64_t begin, end;
};

// At least one vector of columns of (length, inner) -> (results, inner).  Rows that lie far apart share few places of
// a cache: as much as fits is copied to lie together.
template <class T>
void far_product(const Coefficients<T>& matrix, std::int64_t length, std::int64_t results, std::int64_t inner,
                 Columns columns, const T* x, T* y, bool add) {
    const std::int64_t most = std::max<std::int64_t>(1, PANEL<T> / length / LANES<T> / 6) * 6 * LANES<T>;
    const std::unique_ptr<T[]> together(new T[length * most]);
    for (std::int64_t i = columns.begin; i < columns.end; i += most) {
        const std::int64_t width = std::min(most, columns.end - i);
        // A piece behind whole ones is at least one vector: it takes from the one before it.
        const std::int64_t back = !add && width < LANES<T> ? LANES<T> - width : 0;
        for (std::int64_t k = 0; k < length; k++)
            std::memcpy(together.get() + k * most, x + k * inner + i - back, std::size_t(width + back) * sizeof(T));
        wide_product(matrix, length, results, 1, most, inner, width + back, together.get(), y + i - back, add);
    }
}

// (outer, length, inner) -> (outer, results, inner), inner above 1.
template <class T>
void inner_product(const Coefficients<T>& matrix, std::int64_t length, std::int64_t results, std::int64_t outer,
                   std::int64_t inner, const T* x, T* y, bool add) {
    if (inner < LANES<T>) return narrow_product(matrix, length, results, outer, inner, x, y, add);
    if (length * inner <= 2 * PANEL<T>) {
        const std::int64_t most = std::max<std::int64_t>(1, PANEL<T> / (length * inner));
        for (std::int64_t o = 0; o < outer; o += most)
            wide_product(matrix, length, results, std::min(most, outer - o), inner, inner, inner, x + o * length * inner,
                         y + o * results * inner, add);
        return;
    }
    for (std::int64_t o = 0; o < outer; o++)
        far_product(matrix, length, results, inner, {0, inner}, x + o * length * inner, y + o * results * inner, add);
}

// What a step multiplies by, for one term.
template <class T>
struct Weight {
    const T* plain;   // (p, padded q)
    const T* turned;  // (q, padded p)
};

// y = W z for `outer` blocks.
template <class T>
void step_forward(const Step& step, const Weight<T>& weight, std::int64_t outer, const T* z, T* y, bool add) {
    if (step.inner == 1) return last_product(weight.plain, step.width, step.p, step.q, outer, z, y, add);
    inner_product<T>({weight.plain, step.width, 1}, step.p, step.q, outer, step.inner, z, y, add);
}

// z = W^T c.
template <class T>
void step_back(const Step& step, const Weight<T>& weight, std::int64_t outer, const T* c, T* z, bool add) {
    if (step.inner == 1) return last_product(weight.turned, step.turned_width, step.q, step.p, outer, c, z, add);
    inner_product<T>({weight.plain, 1, step.width}, step.q, step.p, outer, step.inner, c, z, add);
}

// Rows of z, and of c, whose inner products are summed in registers.
constexpr int DOT_ROWS = 3, DOT_COLUMNS = 4;

// found[a * found_row + b] += the sum over outer and `width` of inner of z[a] c[b]; blocks are `z_next` and `c_next`
// apart.
template <class T, int rows, int columns>
void dots(const T* z, const T* c, std::int64_t outer, std::int64_t inner, std::int64_t width, std::int64_t z_next,
          std::int64_t c_next, double* found, std::int64_t found_row) {
    Vector<T> sums[rows][columns];
    const auto clear = [&] {
        for (int a = 0; a < rows; a++)
            for (int b = 0; b < columns; b++) sums[a][b] = Vector<T>{};
    };
    const auto move = [&] {
        for (int a = 0; a < rows; a++)
            for (int b = 0; b < columns; b++) found[a * found_row + b] += double(sum<T>(sums[a][b]));
    };
    std::int64_t added = 0;
    clear();
    const auto add = [&](auto read) {
        if (added++ == SUMMED_VECTORS) {
            move();
            clear();
            added = 1;
        }
        Vector<T> left[rows];
        for (int a = 0; a < rows; a++) left[a] = read(z + a * inner);
        for (int b = 0; b < columns; b++) {
            const Vector<T> right = read(c + b * inner);
            for (int a = 0; a < rows; a++) sums[a][b] += left[a] * right;
        }
    };
    const std::int64_t whole = width / LANES<T> * LANES<T>;
    for (std::int64_t o = 0; o < outer; o++, z += z_next, c += c_next) {
        for (std::int64_t i = 0; i < whole; i += LANES<T>) add([&](const T* from) { return load(from + i); });
        if (whole < width) add([&](const T* from) { return load_first(from + whole, width - whole); });
    }
    move();
}

template <class T, int rows = DOT_ROWS, int columns = DOT_COLUMNS, class... Arguments>
INLINE void run_dots(std::int64_t wanted_rows, std::int64_t wanted_columns, Arguments... arguments) {
    if (wanted_rows < rows) {
        if constexpr (rows > 1) run_dots<T, rows - 1, columns>(wanted_rows, wanted_columns, arguments...);
    } else if (wanted_columns < columns) {
        if constexpr (columns > 1) run_dots<T, rows, columns - 1>(wanted_rows, wanted_columns, arguments...);
    } else
        dots<T, rows, columns>(arguments...);
}

// `weight_gradient` of some columns alone, inner above 1.
template <class T>
void columns_gradient(const Step& step, std::int64_t outer, Columns columns, const T* z, const T* c, double* found) {
    const std::int64_t p = step.p, q = step.q, inner = step.inner, width = columns.end - columns.begin;
    in_pieces(p, DOT_ROWS, [&](std::int64_t a, std::int64_t rows) {
        in_pieces(q, DOT_COLUMNS, [&](std::int64_t b, std::int64_t count) {
            run_dots<T>(rows, count, z + a * inner + columns.begin, c + b * inner + columns.begin, outer, inner, width,
                        p * inner, q * inner, found + a * q + b, q);
        });
    });
}

// The gradient (p, q) of a weight is added to `found`: the sum over outer and inner of z (outer, p, inner) and
// c (outer, q, inner).  `spare` has room for a weight.
template <class T>
void weight_gradient(const Step& step, std::int64_t outer, const T* z, const T* c, double* found, T* spare) {
    const std::int64_t p = step.p, q = step.q;
    if (step.inner > 1) return columns_gradient<T>(step, outer, {0, step.inner}, z, c, found);
    const std::int64_t whole = q / LANES<T>, tail = q % LANES<T>;
    Strip<T> strip{};
    strip.coefficient_row = p;
    strip.coefficient_step = 1;
    strip.x_row = q;
    strip.y_row = step.width;
    strip.count = strip.repeats = 1;
    strip.lanes = tail;
    strip.end = spare + p * step.width;
    std::int64_t first = 0;
    const auto run = [&](std::int64_t at, std::int64_t vectors) {
        strip.x = c + first * q + at;
        in_pieces(p, MOST_ROWS[vectors], [&](std::int64_t start, std::int64_t rows) {
            strip.coefficients = z + first * p + start;
            strip.y = spare + start * step.width + at;
            run_strip(rows, vectors, strip);
        });
    };
    for (; first < outer; first += strip.length) {
        strip.length = std::min(SUMMED_VECTORS, outer - first);
        in_vectors(whole, [&](std::int64_t start, std::int64_t vectors, std::int64_t count) {
            for (std::int64_t i = 0; i < count; i++) run((start + i * vectors) * LANES<T>, vectors);
        });
        if (tail) run(whole ? q - LANES<T> : 0, whole ? 1 : 0);
        for (std::int64_t i = 0; i < p; i++)
            for (std::int64_t j = 0; j < q; j++) found[i * q + j] += double(spare[i * step.width + j]);
    }
}
