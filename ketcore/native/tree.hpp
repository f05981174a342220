// Products of leaves, plain or normalised at each node of a balanced tree: see ketcore/lookups/tree.py.
// Included once for each instruction set, inside its namespace.

// to[i * width + j] = first[i] * second[j].  Reads `second` to whole vectors, and writes up to one vector more
// than the product has.
template <class T>
INLINE void outer(const T* first, std::int64_t count, const T* second, std::int64_t width, T* to) {
    if (width <= LANES<T>) {
        const Vector<T> right = load(second);
        for (std::int64_t i = 0; i < count; i++) store(to + i * width, first[i] * right);
        return;
    }
    for (std::int64_t i = 0; i < count; i++) {
        const Vector<T> left = spread(first[i]);
        for (std::int64_t j = 0; j < width; j += LANES<T>) store(to + i * width + j, left * load(second + j));
    }
}

template <class T>
INLINE void clear_behind(T* vector, std::int64_t width) {
    for (std::int64_t i = width; i < padded<T>(width); i++) vector[i] = 0;
}

// Mean and population variance of a vector.
template <class T>
struct Moments {
    T mean, variance;
};

template <class T>
INLINE Moments<T> moments(const T* vector, std::int64_t width) {
    double total = 0, squares = 0;
    for (std::int64_t i = 0; i < width; i++) total += double(vector[i]);
    const T mean = T(total / double(width));
    for (std::int64_t i = 0; i < width; i++) squares += double((vector[i] - mean) * (vector[i] - mean));
    return {mean, T(squares / double(width))};
}

// What normalises the node over two vectors: z = (product - mean) scale; and the moments of z.
template <class T>
struct Node {
    T mean, scale;
    Moments<T> own;
};

template <class T>
INLINE Node<T> node_over(Moments<T> left, Moments<T> right, T eps) {
    const T variance = left.variance * right.variance + left.variance * right.mean * right.mean +
                       right.variance * left.mean * left.mean;
    const T scale = 1 / std::sqrt(variance + eps);
    return {left.mean * right.mean, scale, {0, variance * scale * scale}};
}

// The plain product of the leaves of modes [from, to) of a term, from < to, from the last mode on.  `spare` has
// room for two such products.  Returns where it lies: `to_product`, or the only leaf.
template <class T>
INLINE const T* plain_product(const Shape<T>& shape, int from, int to, const T* leaves, T* to_product,
                              std::int64_t room, T* spare) {
    const T* found = leaves + shape.offsets[to - 1];
    std::int64_t width = shape.lookup.tables[to - 1].width;
    for (int mode = to - 2; mode >= from; mode--) {
        T* next = mode == from ? to_product : spare + (mode & 1) * room;
        const std::int64_t count = shape.lookup.tables[mode].width;
        outer(leaves + shape.offsets[mode], count, found, width, next);
        width *= count;
        clear_behind(next, width);
        found = next;
    }
    return found;
}

// A product, and its moments.
template <class T>
struct Normal {
    const T* data;
    Moments<T> moments;
};

// The product of the leaves of modes [from, to) with every node normalised.  `spare` has room for both children
// of every node on a path from here to a leaf.
template <class T>
Normal<T> normal_product(const Shape<T>& shape, int from, int to, const T* leaves, T* to_product, T* spare) {
    if (to - from == 1) {
        const T* leaf = leaves + shape.offsets[from];
        return {leaf, moments(leaf, shape.lookup.tables[from].width)};
    }
    const int middle = from + (to - from) / 2;
    std::int64_t left_width = 1, right_width = 1;
    for (int mode = from; mode < middle; mode++) left_width *= shape.lookup.tables[mode].width;
    for (int mode = middle; mode < to; mode++) right_width *= shape.lookup.tables[mode].width;
    T* right_room = spare + padded<T>(left_width) + LANES<T>;
    T* rest = right_room + padded<T>(right_width) + LANES<T>;
    const Normal<T> left = normal_product(shape, from, middle, leaves, spare, rest);
    const Normal<T> right = normal_product(shape, middle, to, leaves, right_room, rest);
    const Node<T> node = node_over(left.moments, right.moments, T(shape.lookup.eps));
    const std::int64_t width = left_width * right_width;
    outer(left.data, left_width, right.data, right_width, to_product);
    for (std::int64_t i = 0; i < width; i += LANES<T>)
        store(to_product + i, (load(to_product + i) - node.mean) * node.scale);
    clear_behind(to_product, width);
    return {to_product, node.own};
}
