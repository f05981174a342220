// From the cotangents of halves to those of their leaves: see ketcore/lookups/tree.py.
// Included once for each instruction set, inside its namespace.

// Of a right child so narrow that vectors would be empty for the most part.
template <class T, int WIDTH>
INLINE void contract_narrow_node(const T* cotangent, const T* left, std::int64_t left_width, const T* right,
                                 T* to_left, T* to_right) {
    T columns[WIDTH] = {};
    for (std::int64_t i = 0; i < left_width; i++, cotangent += WIDTH) {
        T found = 0;
        for (int j = 0; j < WIDTH; j++) {
            found += cotangent[j] * right[j];
            columns[j] += left[i] * cotangent[j];
        }
        to_left[i] = found;
    }
    for (int j = 0; j < WIDTH; j++) to_right[j] = columns[j];
}

// The cotangent G (left width, right width) of a node against both of its children.  What lies behind the
// right child is zero.
template <class T>
INLINE void contract_node(const T* cotangent, const T* left, std::int64_t left_width, const T* right,
                          std::int64_t right_width, T* to_left, T* to_right) {
    constexpr int N = LANES<T>;
    switch (right_width) {
        case 1: return contract_narrow_node<T, 1>(cotangent, left, left_width, right, to_left, to_right);
        case 2: return contract_narrow_node<T, 2>(cotangent, left, left_width, right, to_left, to_right);
        case 3: return contract_narrow_node<T, 3>(cotangent, left, left_width, right, to_left, to_right);
        case 4: return contract_narrow_node<T, 4>(cotangent, left, left_width, right, to_left, to_right);
        default: break;
    }
    if (right_width > N) {
        for (std::int64_t j = 0; j < right_width; j += N) store(to_right + j, Vector<T>{});
        for (std::int64_t i = 0; i < left_width; i++, cotangent += right_width) {
            to_left[i] = dot(cotangent, right, right_width);
            std::int64_t j = 0;
            for (; j + N <= right_width; j += N)
                store(to_right + j, load(to_right + j) + left[i] * load(cotangent + j));
            if (j < right_width)
                store(to_right + j, load(to_right + j) + left[i] * load_first(cotangent + j, right_width - j));
        }
        return;
    }
    const Vector<T> other = load(right);
    Vector<T> columns{};
    std::int64_t i = 0;
    for (; i + N <= left_width; i += N, cotangent += N * right_width) {
        Vector<T> products[N];
#pragma GCC unroll 16
        for (int k = 0; k < N; k++) {
            const Vector<T> row = load_first(cotangent + k * right_width, right_width);
            products[k] = row * other;
            columns += left[i + k] * row;
        }
        store(to_left + i, sums_of<T>(products));
    }
    for (; i < left_width; i++, cotangent += right_width) {
        const Vector<T> row = load_first(cotangent, right_width);
        to_left[i] = sum<T>(row * other);
        columns += left[i] * row;
    }
    store(to_right, columns);
}

// Cotangents of the children of a normalised node from those of the plain one; `whole` is the sum of its own.
template <class T>
INLINE void node_cotangents(const Normal<T>& left, std::int64_t left_width, const Normal<T>& right,
                            std::int64_t right_width, T whole, T eps, T* to_left, T* to_right) {
    const Node<T> node = node_over(left.moments, right.moments, eps);
    const T width = T(left_width * right_width);
    const T slope = node.scale * node.scale * (dot(left.data, to_left, left_width) - node.mean * whole) / width;
    const T shift = whole / width - slope * node.mean;
    const auto finish = [&](const T* own, std::int64_t own_width, Moments<T> other, std::int64_t other_width, T* to) {
        const T constant = shift * other.mean * T(other_width);
        const T factor = slope * (other.variance + other.mean * other.mean) * T(other_width);
        for (std::int64_t i = 0; i < own_width; i++) to[i] = node.scale * (to[i] - constant - factor * own[i]);
    };
    finish(left.data, left_width, right.moments, right_width, to_left);
    finish(right.data, right_width, left.moments, left_width, to_right);
}

// The cotangents of the leaves of a row; they lie as its leaves do.
template <class T>
class LeafCotangents {
public:
    explicit LeafCotangents(Workspace<T>& space)
        : space_(space), shape_(space.shape), room_(room_of(space.lookup)),
          memory_(new T[std::size_t(space.lookup.rank * shape_.leaves + room_)]) {}

    T* leaf(std::int64_t term, int mode) { return memory_.get() + term * shape_.leaves + shape_.offsets[mode]; }

    // From those of the product of the leaves of modes [from, to) of a term of a row of the workspace.
    void pull(std::int64_t row, std::int64_t term, int from, int to, const T* cotangent) {
        if (from < to) pull(row, term, from, to, cotangent, memory_.get() + space_.lookup.rank * shape_.leaves);
    }

private:
    Workspace<T>& space_;
    const Shape<T>& shape_;
    std::int64_t room_;
    std::unique_ptr<T[]> memory_;

    // For both children and their cotangents along a path to a leaf, of which there are at most five nodes.
    static std::int64_t room_of(const Lookup& of) {
        const std::int64_t width = of.left_width > of.right_width ? of.left_width : of.right_width;
        return 12 * (width + 1 + 4 * LANES<T>);
    }

    // The cotangent of a leaf that was multiplied by a power of two is so as well.
    void write(std::int64_t row, std::int64_t term, int mode, const T* cotangent) {
        T* to = leaf(term, mode);
        const std::int64_t width = space_.lookup.tables[mode].width;
        for (std::int64_t i = 0; i < width; i += LANES<T>) store(to + i, load(cotangent + i));
        if (!space_.shifted) return;
        const int shift = space_.shifts(row, term)[mode];
        for (std::int64_t i = 0; i < width; i++) to[i] = std::ldexp(to[i], shift);
    }

    void pull(std::int64_t row, std::int64_t term, int from, int to, const T* cotangent, T* spare) {
        if (to - from == 1) return write(row, term, from, cotangent);
        const Lookup& lookup = space_.lookup;
        const int middle = from + (to - from) / 2;
        const std::int64_t left_width = lookup.width(from, middle), right_width = lookup.width(middle, to);
        const auto take = [&](std::int64_t width) {
            T* found = spare;
            spare += padded<T>(width) + LANES<T>;
            return found;
        };
        T *left_room = take(left_width), *to_left = take(left_width);
        T *right_room = take(right_width), *to_right = take(right_width);
        const Normal<T> left = space_.product(row, term, from, middle, left_room);
        const Normal<T> right = space_.product(row, term, middle, to, right_room);
        contract_node(cotangent, left.data, left_width, right.data, right_width, to_left, to_right);
        if (lookup.layernorm)
            node_cotangents(left, left_width, right, right_width, sum_of(cotangent, left_width * right_width),
                            T(lookup.eps), to_left, to_right);
        pull(row, term, from, middle, to_left, spare);
        pull(row, term, middle, to, to_right, spare);
    }
};
