// Rows from their halves: row[a, b] = sum_k left[k, a] right[k, b] + bias.
// Included once for each instruction set, inside its namespace.
//
// A tile of ROWS entries of the left half times COLUMNS vectors of the right one is added up over all terms in
// registers, and stored once.  Where a tail is no whole vector, what a store has too much is written over by the
// next row of the left half; the last one stores what it has.

struct Tail {
    std::int64_t lanes;  // of the last vector
    bool last_spills;    // whether whole vectors may be stored: of the last row
    bool others_spill;   // of those before it
};

template <class T, int ROWS, int COLUMNS>
INLINE void tile(const Half<T> left, const Half<T> right, std::int64_t rank, T bias, T* out, std::int64_t width,
                 Tail tail) {
    Vector<T> sums[ROWS][COLUMNS];
    for (int a = 0; a < ROWS; a++)
        for (int v = 0; v < COLUMNS; v++) sums[a][v] = spread(bias);
    for (std::int64_t k = 0; k < rank; k++) {
        Vector<T> own[COLUMNS];
        for (int v = 0; v < COLUMNS; v++) own[v] = load(right.data + k * right.stride + v * LANES<T>);
        for (int a = 0; a < ROWS; a++)
            for (int v = 0; v < COLUMNS; v++) sums[a][v] += left.data[k * left.stride + a] * own[v];
    }
    for (int a = 0; a < ROWS; a++) {
        for (int v = 0; v < COLUMNS - 1; v++) store(out + a * width + v * LANES<T>, sums[a][v]);
        T* last = out + a * width + (COLUMNS - 1) * LANES<T>;
        if (tail.lanes == LANES<T> || (a < ROWS - 1 ? tail.others_spill : tail.last_spills))
            store(last, sums[a][COLUMNS - 1]);
        else
            store_first(last, sums[a][COLUMNS - 1], tail.lanes);
    }
}

// `count` entries of the left half against one group of vectors; `only` says that the row has no other.
template <class T, int COLUMNS>
INLINE void tiles(Half<T> left, const Half<T> right, std::int64_t count, std::int64_t rank, T bias, T* out,
                  std::int64_t width, std::int64_t lanes, bool only) {
    constexpr int FITTING = (REGISTERS - 1 - COLUMNS) / COLUMNS;
    constexpr int ROWS = FITTING > 8 ? 8 : FITTING;
    // Rows of at least a vector each: what is too much of one is within the next.
    const bool spills = only && width >= LANES<T>;
    const auto run = [&](auto size) {
        constexpr int SIZE = decltype(size)::value;
        if constexpr (SIZE > ROWS) return;
        for (; count >= SIZE; count -= SIZE, left.data += SIZE, out += SIZE * width)
            tile<T, SIZE, COLUMNS>(left, right, rank, bias, out, width, Tail{lanes, spills && count > SIZE, spills});
    };
    run(std::integral_constant<int, ROWS>());
    run(std::integral_constant<int, 4>());
    run(std::integral_constant<int, 2>());
    run(std::integral_constant<int, 1>());
}

// `count` entries of the left half times the first `width` of the right one; rows of `out` are `step` apart.
template <class T>
INLINE void multiply_halves(const Half<T> left, Half<T> right, std::int64_t count, std::int64_t width,
                            std::int64_t rank, T bias, T* out, std::int64_t step) {
    constexpr std::int64_t MOST = 4 * LANES<T>;
    const bool only = width <= MOST && width == step;
    while (width > 0) {
        const std::int64_t part = width < MOST ? width : MOST, lanes = (part - 1) % LANES<T> + 1;
        switch ((part + LANES<T> - 1) / LANES<T>) {
            case 1: tiles<T, 1>(left, right, count, rank, bias, out, step, lanes, only); break;
            case 2: tiles<T, 2>(left, right, count, rank, bias, out, step, lanes, only); break;
            case 3: tiles<T, 3>(left, right, count, rank, bias, out, step, lanes, only); break;
            default: tiles<T, 4>(left, right, count, rank, bias, out, step, lanes, only);
        }
        width -= part, right.data += part, out += part;
    }
}

// So many terms are added up in one register: of a float32 sum with more of one sign too little would be left.
constexpr std::int64_t SUMMED_TERMS = 256;

// The first `rank` terms of a row, cropped to the columns.
template <class T>
INLINE void expand_terms(const Lookup& lookup, const RowHalves<T>& halves, std::int64_t rank, T* out) {
    const std::int64_t width = lookup.right_width, whole = lookup.whole, rest = lookup.rest;
    multiply_halves(halves.left, halves.right, whole, width, rank, halves.bias, out, width);
    if (!rest) return;
    const Half<T> last{halves.left.data + whole, halves.left.stride};
    multiply_halves(last, halves.right, 1, rest, rank, halves.bias, out + whole * width, width);
}

// A row, cropped to the columns; `piece` has room for one more where there are many terms.
template <class T>
INLINE void expand_row(const Lookup& lookup, RowHalves<T> halves, T* out, T* piece) {
    if (!halves.good) {
        for (std::int64_t i = 0; i < lookup.columns; i++) out[i] = std::numeric_limits<T>::quiet_NaN();
        return;
    }
    for (std::int64_t left = lookup.rank; left > 0; left -= SUMMED_TERMS) {
        const bool first = left == lookup.rank;
        expand_terms(lookup, halves, std::min(left, SUMMED_TERMS), first ? out : piece);
        for (std::int64_t i = 0; !first && i < lookup.columns; i++) out[i] += piece[i];
        halves.left.data += SUMMED_TERMS * halves.left.stride;
        halves.right.data += SUMMED_TERMS * halves.right.stride;
        halves.bias = 0;
    }
}

// Rows [start, stop) into the rows.
template <class T>
void expand(const Lookup& lookup, std::int64_t start, std::int64_t stop) {
    Workspace<T> space(lookup);
    RowHalves<T> found[Workspace<T>::MOST];
    const auto row_of = [&](bool wanted) { return wanted ? new T[std::size_t(lookup.columns)] : nullptr; };
    const bool direct = sizeof(T) == 8 || lookup.storage == FLOAT32;
    const std::unique_ptr<T[]> whole(row_of(!direct)), piece(row_of(lookup.rank > SUMMED_TERMS));
    for (std::int64_t first = start; first < stop; first += space.rows) {
        const std::int64_t count = stop - first < space.rows ? stop - first : space.rows;
        space.build(first, count, found);
        for (std::int64_t i = 0; i < count; i++) {
            char* row = lookup.rows.data + (first + i) * lookup.rows.strides[0];
            if (direct) {
                expand_row(lookup, found[i], reinterpret_cast<T*>(row), piece.get());
            } else {
                expand_row(lookup, found[i], whole.get(), piece.get());
                store_narrow(whole.get(), lookup.columns, Storage(lookup.storage), row);
            }
        }
    }
}
