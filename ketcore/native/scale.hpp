// The rule for scale of ketcore/arrays/scale.py: powers of two are moved between the leaves of a term such that
// no product of some of them leaves the range of its type before the result does.
// Included once for each instruction set, inside its namespace.

// The largest magnitude of some numbers, and the smallest that is not zero.
template <class T>
struct Extremes {
    Vector<T> largest, smallest;

    // Written out: what a compiler makes by itself is not for the instruction set.
    Extremes() {
        largest = spread(T(0));
        smallest = spread(T(1));
    }

    __attribute__((always_inline)) void add(Vector<T> numbers) {
        const Vector<T> zero{}, size = numbers < zero ? -numbers : numbers;
        largest = size > largest ? size : largest;
        smallest = (size < smallest) & (size > zero) ? size : smallest;
    }

    T high() const {
        T found = 1;
        for (int i = 0; i < LANES<T>; i++) found = largest[i] > found ? largest[i] : found;
        return found;
    }

    T low() const {
        T found = 1;
        for (int i = 0; i < LANES<T>; i++) found = smallest[i] < found ? smallest[i] : found;
        return found;
    }
};

// Products between these, of magnitudes above and below 1 each, are level.
template <class T>
constexpr double HIGH = sizeof(T) == 4 ? 0x1p90 : 0x1p900;
template <class T>
constexpr double LOW = sizeof(T) == 4 ? 0x1p-120 : 0x1p-1000;

// Products of the extremes of all modes.
struct Range {
    double high = 1, low = 1;

    template <class T>
    void add(const Extremes<T>& extremes) {
        high *= extremes.high(), low *= extremes.low();
    }

    template <class T>
    bool is_level() const {
        return high <= HIGH<T> && low >= LOW<T>;
    }
};

// The extremes of a whole table.
template <class T>
Extremes<T> extremes_of(const Lookup& lookup, const Table& table) {
    Extremes<T> found;
    const std::unique_ptr<T[]> row(new T[std::size_t(padded<T>(table.width))]);
    for (std::int64_t term = 0; term < lookup.rank; term++)
        for (std::int64_t position = 0; position < table.length; position++) {
            copy_leaf(table.data + term * table.term_stride + position * table.row_stride, table.entry_stride,
                      Storage(lookup.storage), table.width, row.get());
            for (std::int64_t i = 0; i < table.width; i += LANES<T>) found.add(load(row.get() + i));
        }
    return found;
}

template <class T>
bool tables_are_level(const Lookup& lookup) {
    Range range;
    for (int mode = 0; mode < lookup.order; mode++) range.add(extremes_of<T>(lookup, lookup.tables[mode]));
    return range.is_level<T>();
}

// The binary logarithm of the largest magnitude of a leaf: of zeros minus infinity, 0 of what is not finite.
template <class T>
double log_size(const T* leaf, std::int64_t width) {
    T largest = 0;
    for (std::int64_t i = 0; i < width; i++) {
        if (!(std::abs(leaf[i]) <= std::numeric_limits<T>::max())) return 0;
        largest = std::max(largest, std::abs(leaf[i]));
    }
    return largest == 0 ? -std::numeric_limits<double>::infinity() : std::log2(double(largest));
}

// Multiplies the leaves of one term by powers of two, whose exponents add up to 0, that bring them to one size.
template <class T>
void level_term(const Shape<T>& shape, T* leaves, std::int32_t* shifts) {
    const Lookup& lookup = shape.lookup;
    const int order = int(lookup.order);
    double logs[MAX_ORDER], total = 0;
    int zeros = 0;
    for (int mode = 0; mode < order; mode++) {
        logs[mode] = log_size(leaves + shape.offsets[mode], lookup.tables[mode].width);
        if (std::isinf(logs[mode]))
            zeros++;
        else
            total += logs[mode];
    }
    // A leaf of zeros has any size: the one that makes the others come to 1.
    const double mean = zeros ? 0 : total / order;
    double left = 0;
    std::int32_t moved = 0;
    for (int mode = 0; mode < order; mode++) {
        left += mean - (std::isinf(logs[mode]) ? -total / zeros : logs[mode]);
        const auto shift = mode < order - 1 ? std::int32_t(std::lrint(left)) : -moved;
        left -= shift, moved += shift, shifts[mode] = shift;
        T* leaf = leaves + shape.offsets[mode];
        for (std::int64_t i = 0; i < lookup.tables[mode].width; i++) leaf[i] = std::ldexp(leaf[i], shift);
    }
}
