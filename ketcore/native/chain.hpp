// All steps of a product one after the other, and backward.  Included once for each instruction set, inside its
// namespace.
//
// Where steps run from the first mode to the last, each leaves blocks that those behind it treat alike: a level
// takes as many blocks at a time as stay in the first-level cache, all the way to the last step.

// One factor of a term, (rows, columns) in order; where it lies so already, that place.
template <class T>
const T* one_factor(const Factor& factor, std::int64_t term, T* room) {
    const char* own = factor.data + term * factor.term_stride;
    const std::int64_t width = factor.columns * std::int64_t(sizeof(T));
    if (factor.column_stride == std::int64_t(sizeof(T)) && factor.row_stride == width &&
        reinterpret_cast<std::uintptr_t>(own) % sizeof(T) == 0)
        return reinterpret_cast<const T*>(own);
    for (std::int64_t i = 0; i < factor.rows; i++)
        for (std::int64_t j = 0; j < factor.columns; j++)
            std::memcpy(room + i * factor.columns + j, own + i * factor.row_stride + j * factor.column_stride,
                        sizeof(T));
    return room;
}

// The Kronecker product (p, q) of the factors of a group for one term, in one of three rooms or where it lies.
template <class T>
const T* merged_factors(const Product& product, const Step& step, std::int64_t term, T* room, T* other, T* third) {
    const T* found = one_factor(product.factors[step.start], term, room);
    std::int64_t p = product.factors[step.start].rows, q = product.factors[step.start].columns;
    for (std::int64_t mode = step.start + 1; mode < step.stop; mode++) {
        const Factor& factor = product.factors[mode];
        const T* right = one_factor(factor, term, third);
        T* to = other;
        for (std::int64_t a = 0; a < p; a++)
            for (std::int64_t i = 0; i < factor.rows; i++)
                for (std::int64_t b = 0; b < q; b++)
                    for (std::int64_t j = 0; j < factor.columns; j++)
                        *to++ = found[a * q + b] * right[i * factor.columns + j];
        p *= factor.rows;
        q *= factor.columns;
        found = other;
        std::swap(room, other);
    }
    return found;
}

// Multiplies up the factors of each group and lays them out for the kernels.
template <class T>
void lay_out(Product& product) {
    std::int64_t size = 0, largest = 0;
    for (int s = 0; s < product.steps; s++) {
        Step& step = product.step[s];
        step.width = padded<T>(step.q);
        step.turned_width = padded<T>(step.p);
        step.weights = size;
        step.turned = size + step.p * step.width;
        size = step.turned + (step.inner == 1 && product.backward ? step.q * step.turned_width : 0);
        largest = std::max(largest, step.p * step.q);
    }
    product.weights_size = size;
    product.weights.reset(new char[std::size_t(product.terms * size + 3 * largest) * sizeof(T)]);
    T* weights = reinterpret_cast<T*>(product.weights.get());
    T* spare = weights + product.terms * size;
    std::memset(weights, 0, std::size_t(product.terms * size) * sizeof(T));
    const Step& first = product.step[0];
    if (product.apart)
        product.middle.reset(new char[std::size_t(product.terms * first.q * first.inner) * sizeof(T)]);
    for (int s = 0; s < product.steps; s++) {
        const Step& step = product.step[s];
        for (std::int64_t term = 0; term < product.rank; term++) {
            const T* merged =
                merged_factors<T>(product, step, term, spare, spare + largest, spare + 2 * largest);
            T* own = weights + (product.terms > 1 ? term * size : 0);
            for (std::int64_t i = 0; i < step.p; i++)
                for (std::int64_t j = 0; j < step.q; j++)
                    own[step.weights + i * step.width + j] += merged[i * step.q + j];
            if (step.inner > 1 || !product.backward) continue;
            for (std::int64_t i = 0; i < step.p; i++)
                for (std::int64_t j = 0; j < step.q; j++)
                    own[step.turned + j * step.turned_width + i] += merged[i * step.q + j];
        }
    }
}

template <class T>
Weight<T> weight_of(const Product& product, const Step& step, std::int64_t term) {
    const T* own = reinterpret_cast<const T*>(product.weights.get()) + term * product.weights_size;
    return {own + step.weights, own + step.turned};
}

// What a first step apart leaves of a term.
template <class T>
T* middle_of(const Product& product, std::int64_t term) {
    return reinterpret_cast<T*>(product.middle.get()) + term * product.step[0].q * product.step[0].inner;
}

template <class T>
struct Chain {
    const Product& product;

    // Numbers of one block at the door of a level that stay in the first-level cache with what comes of them.
    static constexpr std::int64_t BLOCK = (1 << 14) / sizeof(T);

    Chain(const Product& of, std::int64_t rows) : product(of) {
        std::int64_t size = 0, blocks = rows;
        for (int s = 0; s < of.steps; s++) {
            const Step& step = of.step[s];
            if (s) blocks *= step.units / of.step[s - 1].units;
            const std::int64_t larger = std::max(step.p, step.q) * (step.outer / step.units) * step.inner;
            capacity_[s] = std::clamp<std::int64_t>(BLOCK / larger, 1, std::max<std::int64_t>(blocks, 1));
            split_[s] = capacity_[s] < blocks;
            blocks = capacity_[s];
            sizes_[s] = s || !of.apart ? blocks * (step.outer / step.units) * step.q * step.inner : 0;
        }
        // What a step leaves lies in one of two rooms by turns, or in one of its own while levels behind it take
        // it piece by piece.
        std::int64_t turns[2] = {0, 0}, own = 0;
        for (int s = 0; s + 1 < of.steps; s++) {
            const bool alone = of.backward || split_[s + 1];
            if (!alone) turns[s & 1] = std::max(turns[s & 1], sizes_[s]);
            own += alone ? padded<T>(sizes_[s]) : 0;
        }
        const std::int64_t first = padded<T>(turns[0]), second = padded<T>(turns[1]);
        size = first + second + own;
        const Step &head = of.step[0], &tail = of.step[of.steps - 1];
        in_size = head.outer * head.p * head.inner;
        out_size = tail.outer * tail.q * tail.inner;
        cropped_in_ = of.rows < in_size;
        // A large row goes where it belongs as it is made, but for the block that the crop cuts.
        cut_ = of.columns < out_size && capacity_[0] == 1 && !of.backward;
        cropped_out_ = of.columns < out_size && !cut_;
        const std::int64_t in_room = cropped_in_ ? capacity_[0] * in_size : 0;
        const std::int64_t out_room = cut_ ? padded<T>(tail.q * tail.inner) : cropped_out_ ? capacity_[0] * out_size : 0;
        std::int64_t spare = 0;
        for (int s = 0; s < of.steps && of.backward; s++) spare = std::max(spare, of.step[s].p * of.step[s].width);
        memory_.reset(new T[size + (of.backward ? 2 : 1) * in_room + out_room + spare]);
        T* at = memory_.get();
        T* by_turns[2] = {at, at + first};
        T* next = at + first + second;
        for (int s = 0; s + 1 < of.steps; s++) {
            const bool alone = of.backward || split_[s + 1];
            rooms_[s] = alone ? next : by_turns[s & 1];
            next += alone ? padded<T>(sizes_[s]) : 0;
        }
        in_ = next;
        to_in_ = in_ + in_room;
        out_ = to_in_ + (of.backward ? in_room : 0);
        spare_ = out_ + out_room;
        if (cut_) std::memset(out_, 0, std::size_t(out_room) * sizeof(T));
    }

    std::int64_t in_size, out_size;

    // Rows [start, stop) of the result.
    void forward(std::int64_t start, std::int64_t stop) {
        for (std::int64_t row = start; row < stop; row += capacity_[0]) {
            const std::int64_t count = std::min(capacity_[0], stop - row);
            const T* z = entered(product.x, row, count, product.rows, in_size, in_);
            T* to = cropped_out_ ? out_ : rows_of(product.y, row, product.columns);
            end_ = to + product.columns;
            for (std::int64_t term = 0; term < product.terms; term++) onward(0, term, z, count, to, term > 0);
            if (cropped_out_) leave(out_, count, out_size, rows_of(product.y, row, product.columns), product.columns);
        }
    }

    // The gradients for rows [start, stop): of x, and of all weights, which are added to `to_weights`.
    void backward(std::int64_t start, std::int64_t stop, double* to_weights) {
        for (std::int64_t row = start; row < stop; row += capacity_[0]) {
            const std::int64_t count = std::min(capacity_[0], stop - row);
            const T* z = entered(product.x, row, count, product.rows, in_size, in_);
            const T* c = entered(product.y, row, count, product.columns, out_size, out_);
            T* to = cropped_in_ ? to_in_ : rows_of(product.to_x, row, product.rows);
            for (std::int64_t term = 0; term < product.terms; term++)
                back(0, term, z, count, c, to, term > 0, to_weights + term * product.gradient_size);
            if (cropped_in_) leave(to_in_, count, in_size, rows_of(product.to_x, row, product.rows), product.rows);
        }
    }

    // The steps behind a first one apart, for blocks [start, stop) of what that leaves.
    void forward_behind(std::int64_t start, std::int64_t stop) {
        const Step& step = product.step[1];
        T* to = rows_of(product.y, 0, product.columns);
        end_ = to + product.columns;
        for (std::int64_t term = 0; term < product.terms; term++)
            onward(1, term, middle_of<T>(product, term) + start * in_of(step), stop - start,
                   to + start * result_of(step), term > 0);
    }

    // And back, into what went in.
    void backward_behind(std::int64_t start, std::int64_t stop, double* to_weights) {
        const Step& step = product.step[1];
        const T* c = rows_of(product.y, 0, product.columns) + start * result_of(step);
        for (std::int64_t term = 0; term < product.terms; term++) {
            T* z = middle_of<T>(product, term) + start * in_of(step);
            back(1, term, z, stop - start, c, z, false, to_weights + term * product.gradient_size);
        }
    }

private:
    std::int64_t capacity_[MAX_STEPS], sizes_[MAX_STEPS];
    bool split_[MAX_STEPS], cropped_in_, cropped_out_, cut_;
    T* end_;  // of the row that is made, where it may be cut
    std::unique_ptr<T[]> memory_;
    T *rooms_[MAX_STEPS], *in_, *to_in_, *out_, *spare_;

    static T* rows_of(const Array& array, std::int64_t row, std::int64_t width) {
        return reinterpret_cast<T*>(array.data) + row * width;
    }

    // Rows of an array, with zeros behind each where it is shorter than what is multiplied.
    static const T* entered(const Array& array, std::int64_t row, std::int64_t count, std::int64_t width,
                            std::int64_t size, T* room) {
        const T* from = rows_of(array, row, width);
        if (width == size) return from;
        for (std::int64_t i = 0; i < count; i++) {
            std::memcpy(room + i * size, from + i * width, std::size_t(width) * sizeof(T));
            std::memset(room + i * size + width, 0, std::size_t(size - width) * sizeof(T));
        }
        return room;
    }

    static void leave(const T* room, std::int64_t count, std::int64_t size, T* to, std::int64_t width) {
        for (std::int64_t i = 0; i < count; i++)
            std::memcpy(to + i * width, room + i * size, std::size_t(width) * sizeof(T));
    }

    // Numbers of a block at the door of a level, of one that its step leaves, and of one of the result.
    std::int64_t in_of(const Step& step) const { return step.outer / step.units * step.p * step.inner; }
    std::int64_t left_of(const Step& step) const { return step.outer / step.units * step.q * step.inner; }
    std::int64_t result_of(const Step& step) const { return out_size / step.units; }

    // `count` blocks through a level and all behind it.
    void onward(int level, std::int64_t term, const T* z, std::int64_t count, T* to, bool add) {
        const Step& step = product.step[level];
        const bool last = level + 1 == product.steps;
        for (std::int64_t done = 0; done < count; done += capacity_[level]) {
            const std::int64_t blocks = std::min(capacity_[level], count - done);
            const std::int64_t outer = blocks * (step.outer / step.units);
            const T* from = z + done * in_of(step);
            T* left = last ? to + done * result_of(step) : rooms_[level];
            if (last && cut_)
                cut_step(step, term, outer, from, left, add);
            else
                step_forward<T>(step, weight_of<T>(product, step, term), outer, from, left, last && add);
            if (last) continue;
            const std::int64_t ratio = product.step[level + 1].units / step.units;
            onward(level + 1, term, left, blocks * ratio, to + done * result_of(step), add);
        }
    }

    // The last step, as far as a cropped row goes.
    void cut_step(const Step& step, std::int64_t term, std::int64_t outer, const T* z, T* to, bool add) {
        const std::int64_t size = step.q * step.inner, left = std::max<std::int64_t>(0, end_ - to);
        const std::int64_t whole = std::min(outer, left / size), rest = left - whole * size;
        const Weight<T> by = weight_of<T>(product, step, term);
        if (whole) step_forward<T>(step, by, whole, z, to, add);
        if (whole == outer || rest == 0) return;
        T* own = to + whole * size;
        if (add) std::memcpy(out_, own, std::size_t(rest) * sizeof(T));
        step_forward<T>(step, by, 1, z + whole * step.p * step.inner, out_, add);
        std::memcpy(own, out_, std::size_t(rest) * sizeof(T));
    }

    // And back: z is what went in, c the cotangent of what comes of it, `to` its own gradient.  `to` may be z.
    void back(int level, std::int64_t term, const T* z, std::int64_t count, const T* c, T* to, bool add,
              double* to_weights) {
        const Step& step = product.step[level];
        const Weight<T> by = weight_of<T>(product, step, term);
        for (std::int64_t done = 0; done < count; done += capacity_[level]) {
            const std::int64_t blocks = std::min(capacity_[level], count - done);
            const std::int64_t outer = blocks * (step.outer / step.units);
            const T *own = z + done * in_of(step), *cotangent = c + done * result_of(step);
            if (level + 1 < product.steps) {
                T* left = rooms_[level];
                step_forward<T>(step, by, outer, own, left, false);
                const std::int64_t ratio = product.step[level + 1].units / step.units;
                back(level + 1, term, left, blocks * ratio, cotangent, left, false, to_weights);
                cotangent = left;
            }
            weight_gradient<T>(step, outer, own, cotangent, to_weights + step.gradient, spare_);
            step_back<T>(step, by, outer, cotangent, to + done * in_of(step), add);
        }
    }
};

template <class T>
void multiply(const Product& product, std::int64_t start, std::int64_t stop) {
    Chain<T>(product, stop - start).forward(start, stop);
}

// The gradients that a chunk has of all weights.
inline double* chunk_gradients(const Product& product, std::int64_t chunk) {
    return reinterpret_cast<double*>(product.to_weights.data) + chunk * product.terms * product.gradient_size;
}

// Chunk `chunk` of `size` rows, and its own gradients of the weights.
template <class T>
void multiply_back(const Product& product, std::int64_t size, std::int64_t chunk) {
    const std::int64_t start = chunk * size, stop = std::min(start + size, product.batch);
    Chain<T>(product, stop - start).backward(start, stop, chunk_gradients(product, chunk));
}

// Units [start, stop) of the first step.
inline Columns columns_of(const Product& product, std::int64_t start, std::int64_t stop) {
    const std::int64_t inner = product.step[0].inner;
    return {start * UNIT, stop < inner / UNIT ? stop * UNIT : inner};
}

template <class T>
void multiply_first(const Product& product, std::int64_t start, std::int64_t stop) {
    const Step& step = product.step[0];
    for (std::int64_t term = 0; term < product.terms; term++)
        far_product<T>({weight_of<T>(product, step, term).plain, step.width, 1}, step.p, step.q, step.inner,
                       columns_of(product, start, stop), reinterpret_cast<const T*>(product.x.data),
                       middle_of<T>(product, term), false);
}

template <class T>
void multiply_behind(const Product& product, std::int64_t start, std::int64_t stop) {
    Chain<T>(product, 1).forward_behind(start, stop);
}

// Chunk `chunk` of `size` blocks, and its own gradients of the weights.
template <class T>
void multiply_behind_back(const Product& product, std::int64_t size, std::int64_t chunk) {
    const std::int64_t start = chunk * size, stop = std::min(start + size, product.step[1].units);
    Chain<T>(product, 1).backward_behind(start, stop, chunk_gradients(product, chunk));
}

// Chunk `chunk` of `size` units, from the cotangents that are where their columns were.
template <class T>
void multiply_first_back(const Product& product, std::int64_t size, std::int64_t chunk) {
    const Step& step = product.step[0];
    const std::int64_t start = chunk * size, stop = std::min(start + size, step.inner / UNIT);
    const Columns columns = columns_of(product, start, stop);
    double* to_weights = chunk_gradients(product, chunk);
    for (std::int64_t term = 0; term < product.terms; term++) {
        const T *z = reinterpret_cast<const T*>(product.x.data), *c = middle_of<T>(product, term);
        columns_gradient<T>(step, 1, columns, z, c, to_weights + term * product.gradient_size);
        far_product<T>({weight_of<T>(product, step, term).plain, 1, step.width}, step.q, step.p, step.inner, columns, c,
                       reinterpret_cast<T*>(product.to_x.data), term > 0);
    }
}
