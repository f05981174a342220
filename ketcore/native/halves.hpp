// Halves of rows, (rank, left width) and (rank, right width), of blocks of rows in memory that the cache holds.
// Included once for each instruction set, inside its namespace.

template <class T>
struct Half {
    const T* data;
    std::int64_t stride;  // from term to term
};

// What stands for one row: row[a, b] = sum_k left[k, a] right[k, b] + bias.
template <class T>
struct RowHalves {
    Half<T> left, right;
    T bias;
    bool good;  // whether its index is
};

template <class T>
constexpr T ONE[LANES<T>] = {1};

// Memory for the leaves and halves of a block of rows.
template <class T>
class Workspace {
public:
    static constexpr std::int64_t BYTES = 16384, MOST = 32;  // of a block: bytes, and rows

    const Lookup& lookup;
    const Shape<T> shape;
    const std::int64_t rows;  // of a block
    bool scales_root = true;  // whether LayerNorm at the root is a scale of the left half
    bool shifted = false;     // whether leaves of this block were multiplied by powers of two

    explicit Workspace(const Lookup& of)
        : lookup(of), shape(of), rows(rows_of(shape)), spare_size_(spare_of(of)),
          memory_(new T[std::size_t(rows * shape.record + spare_size_)]) {}

    T* leaves(std::int64_t row) { return memory_.get() + row * shape.record; }
    T* left(std::int64_t row) { return leaves(row) + lookup.rank * shape.leaves; }
    T* right(std::int64_t row) { return left(row) + lookup.rank * shape.left_stride; }
    // By which powers of two the leaves of a term were multiplied, by mode, where `shifted`.
    std::int32_t* shifts(std::int64_t row, std::int64_t term) {
        if (shifts_.empty()) shifts_.resize(std::size_t(rows * lookup.rank * lookup.order));
        return shifts_.data() + (row * lookup.rank + term) * lookup.order;
    }

    T* spare() { return memory_.get() + rows * shape.record; }

    // The halves of rows [start, start + count).
    void build(std::int64_t start, std::int64_t count, RowHalves<T>* found) {
        if (lookup.picked) {
            for (std::int64_t i = 0; i < count; i++) found[i] = picked(start + i);
            return;
        }
        if (lookup.kind != DIGITS) {
            prefetched_ = std::max(prefetched_, start);
            for (; prefetched_ < std::min(start + 2 * rows, lookup.batch); prefetched_++)
                prefetch_row(lookup, prefetched_);
        }
        Choice choices[MOST];
        for (std::int64_t i = 0; i < count; i++)
            found[i].good = copy_row(shape, start + i, leaves(i), choices[i]);
        shifted = !lookup.level && !is_level(0, count);
        for (std::int64_t i = 0; shifted && i < count; i++) level_row(i);
        for (std::int64_t i = 0; i < count; i++) multiply(i, choices[i], found[i]);
    }

    // The product of the leaves of modes [from, to) of a row for all terms, without LayerNorm.
    Half<T> half(std::int64_t row, int from, int to, T* room, std::int64_t stride) {
        if (from == to) return {ONE<T>, 0};
        if (to - from == 1) return {leaves(row) + shape.offsets[from], shape.leaves};
        for (std::int64_t term = 0; term < lookup.rank; term++) product(row, term, from, to, room + term * stride);
        return {room, stride};
    }

    // That of one term, from < to, with its moments under LayerNorm; it lies in `room`, or is the only leaf.
    Normal<T> product(std::int64_t row, std::int64_t term, int from, int to, T* room) {
        const T* own = leaves(row) + term * shape.leaves;
        if (lookup.layernorm) return normal_product(shape, from, to, own, room, spare());
        return {plain_product(shape, from, to, own, room, spare_size_ / 2, spare()), {}};
    }

    // The moments of both children of the root of a term, where it was not scaled.
    Moments<T>* root_moments(std::int64_t row, std::int64_t term) {
        if (root_moments_.empty()) root_moments_.resize(std::size_t(2 * rows * lookup.rank));
        return root_moments_.data() + 2 * (row * lookup.rank + term);
    }

private:
    std::int64_t spare_size_;
    std::unique_ptr<T[]> memory_;
    std::vector<std::int32_t> shifts_;
    std::vector<Moments<T>> root_moments_;
    std::int64_t prefetched_ = 0;  // rows before this one

    // Whether all leaves of rows [start, stop) of the block are known to be level.
    bool is_level(std::int64_t start, std::int64_t stop) {
        Range range;
        for (int mode = 0; mode < lookup.order; mode++) {
            Extremes<T> extremes;
            for (std::int64_t i = start; i < stop; i++) {
                const T* leaf = leaves(i) + shape.offsets[mode];
                for (std::int64_t term = 0; term < lookup.rank; term++, leaf += shape.leaves)
                    for (std::int64_t j = 0; j < lookup.tables[mode].width; j += LANES<T>) extremes.add(load(leaf + j));
            }
            range.add(extremes);
        }
        return range.is_level<T>();
    }

    // By its own leaves alone: which rows share a block is a matter of threads.
    void level_row(std::int64_t row) {
        const bool stays = is_level(row, row + 1);
        for (std::int64_t term = 0; term < lookup.rank; term++) {
            if (stays)
                std::fill_n(shifts(row, term), lookup.order, 0);
            else
                level_term(shape, leaves(row) + term * shape.leaves, shifts(row, term));
        }
    }

    static std::int64_t rows_of(const Shape<T>& shape) {
        const std::int64_t fitting = BYTES / (shape.record * std::int64_t(sizeof(T)));
        return fitting < 1 ? 1 : fitting > MOST ? MOST : fitting;
    }

    static std::int64_t spare_of(const Lookup& of) {
        const std::int64_t width = of.left_width > of.right_width ? of.left_width : of.right_width;
        return 6 * (width + 1 + 4 * LANES<T>);
    }

    RowHalves<T> picked(std::int64_t b) {
        const std::int64_t id = index_at(lookup.index.data + b * lookup.index.strides[0], IndexType(lookup.index_type));
        const bool good = std::uint64_t(id) < std::uint64_t(lookup.bound);
        std::int64_t high, low;
        divide(good ? id : 0, lookup.right_length, high, low);
        return {lookup.left_direct ? direct(0, high) : record(lookup.left_table, high, shape.left_stride),
                lookup.right_direct ? direct(int(lookup.split), low)
                                    : record(lookup.right_table, low, shape.right_stride),
                0, good};
    }

    // The leaves of one mode where they lie.
    Half<T> direct(int mode, std::int64_t position) {
        return {reinterpret_cast<const T*>(leaf_address(lookup, mode, 0, position)),
                lookup.tables[mode].term_stride / std::int64_t(sizeof(T))};
    }

    // A record of a half table.
    Half<T> record(const std::unique_ptr<char[]>& table, std::int64_t position, std::int64_t stride) {
        return {reinterpret_cast<const T*>(table.get()) + position * lookup.rank * stride, stride};
    }

    void multiply(std::int64_t row, const Choice& choice, RowHalves<T>& found) {
        const int split = int(lookup.split), order = int(lookup.order);
        found.bias = 0;
        if (lookup.layernorm && split) {
            normalise(row, found);
            return;
        }
        found.left = lookup.left_direct ? direct(0, choice.position[0])
                                        : half(row, 0, split, left(row), shape.left_stride);
        found.right = lookup.right_direct ? direct(split, choice.position[split])
                                          : half(row, split, order, right(row), shape.right_stride);
    }

    // At the root LayerNorm is a scale of the left half and a bias.
    void normalise(std::int64_t row, RowHalves<T>& found) {
        const int split = int(lookup.split), order = int(lookup.order);
        found.left = {left(row), shape.left_stride};
        found.right = {order - split > 1 ? right(row) : leaves(row) + shape.offsets[split],
                       order - split > 1 ? shape.right_stride : shape.leaves};
        for (std::int64_t term = 0; term < lookup.rank; term++) {
            const T* own = leaves(row) + term * shape.leaves;
            T* scaled = left(row) + term * shape.left_stride;
            const Normal<T> first = normal_product(shape, 0, split, own, scaled, spare());
            const Normal<T> second =
                normal_product(shape, split, order, own, right(row) + term * shape.right_stride, spare());
            const Node<T> root = node_over(first.moments, second.moments, T(lookup.eps));
            if (!scales_root) root_moments(row, term)[0] = first.moments, root_moments(row, term)[1] = second.moments;
            const T scale = scales_root ? root.scale : 1;
            found.bias -= root.mean * scale;
            for (std::int64_t i = 0; i < lookup.left_width; i += LANES<T>)
                store(scaled + i, load(first.data + i) * scale);
        }
    }
};

// Whether a half, modes [from, to), can be read where it lies.
template <class T>
INLINE bool is_direct(const Lookup& lookup, int from, int to, bool vectors) {
    const Table& table = lookup.tables[from];
    const std::int64_t size = sizeof(T);
    if (to - from != 1 || !lookup.level || lookup.layernorm || lookup.kind == TERMS) return false;
    if (lookup.storage != (size == 8 ? FLOAT64 : FLOAT32) || table.entry_stride != size) return false;
    // Whole vectors are read of the right half, and nothing may be read beyond a table.
    if (vectors && table.width % LANES<T>) return false;
    // Of many rows a table whose terms lie side by side is read so much faster that a copy pays.
    if (lookup.kind == DIGITS && lookup.rank > 1 && lookup.batch >= 16 * table.length) return false;
    return (std::int64_t(reinterpret_cast<std::uintptr_t>(table.data)) | table.term_stride | table.row_stride) % size == 0;
}

// Whether half tables cost less than the halves of each row, in at most the room of the result.
INLINE bool half_tables_pay(const Lookup& lookup) {
    if (lookup.kind != DIGITS || lookup.layernorm || !lookup.level || lookup.purpose >= RECORDS) return false;
    // What is read where it lies takes no room, but its gradient does.
    const bool no_left = lookup.left_direct && lookup.purpose == ROWS;
    const bool no_right = lookup.right_direct && lookup.purpose == ROWS;
    const std::int64_t longest = std::max(no_left ? 1 : lookup.left_length, no_right ? 1 : lookup.right_length);
    // In floating point, where lengths of no limit do not overflow.
    const double left = no_left ? 0 : double(lookup.left_length) * double(lookup.kept);
    const double right = no_right ? 0 : double(lookup.right_length) * double(lookup.right_width);
    return longest <= 2 * lookup.batch &&
           double(lookup.rank) * (left + right) <= double(lookup.batch) * double(lookup.columns);
}

// Multiplies out the halves that are not direct for all digits: they lie as records of `left_stride` and
// `right_stride` numbers for each term.
template <class T>
void build_tables(Lookup& lookup) {
    Workspace<T> space(lookup);
    const Shape<T>& shape = space.shape;
    const auto table = [&](int from, int to, std::int64_t length, std::int64_t stride, std::int64_t width) {
        std::unique_ptr<char[]> memory(new char[std::size_t(length * lookup.rank * stride) * sizeof(T)]);
        T* own = reinterpret_cast<T*>(memory.get());
        for (std::int64_t position = 0; position < length; position++, own += lookup.rank * stride) {
            Choice choice;
            choose_digits(lookup, from, to, position, choice);
            for (std::int64_t term = 0; term < lookup.rank; term++)
                copy_leaves(shape, from, to, term, choice, space.leaves(0) + term * shape.leaves);
            const Half<T> found = space.half(0, from, to, own, stride);
            for (std::int64_t term = 0; found.data != own && term < lookup.rank; term++)
                for (std::int64_t i = 0; i < padded<T>(width); i++)
                    own[term * stride + i] = found.data[term * found.stride + i];
        }
        return memory;
    };
    const int split = int(lookup.split), order = int(lookup.order);
    if (!lookup.left_direct)
        lookup.left_table = table(0, split, lookup.left_length, shape.left_stride, lookup.left_width);
    if (!lookup.right_direct)
        lookup.right_table = table(split, order, lookup.right_length, shape.right_stride, lookup.right_width);
}

// What is done once, before rows: a look at the scale of tables that are no larger than what is picked from
// them, and half tables.
template <class T>
void prepare(Lookup& lookup) {
    double entries = 0, picked = 0;
    for (int mode = 0; mode < lookup.order; mode++) {
        entries += double(lookup.tables[mode].length) * double(lookup.tables[mode].width);
        picked += double(lookup.batch) * double(lookup.tables[mode].width);
    }
    const int split = int(lookup.split), order = int(lookup.order);
    if (!lookup.level && entries <= picked) lookup.level = tables_are_level<T>(lookup);
    lookup.left_direct = split && is_direct<T>(lookup, 0, split, false);
    lookup.right_direct = is_direct<T>(lookup, split, order, true);
    lookup.picked = half_tables_pay(lookup);
    if (lookup.picked) build_tables<T>(lookup);
}
