// The cotangent G of a row, (left width, right width), contracted with the halves of the row:
// to_left[k, a] += sum_b G[a, b] right[k, b], to_right[k, b] += sum_a left[k, a] G[a, b].
// Included once for each instruction set, inside its namespace.
//
// G is taken in blocks that stay in the first cache.  Of few terms both sums are made in one pass over a block, and
// lanes are summed at its end.  Of many terms they are two matrix products, one with the block turned round.

constexpr std::int64_t BLOCK_ROWS = 32, BLOCK_COLUMNS = 64;

// Bytes of the next row that are asked for ahead.
constexpr std::int64_t PREFETCHED = 4096;

// Up to so many terms are few.
constexpr std::int64_t FEW_TERMS = 3;

// A part of G: `count` rows that are `step` apart, whole vectors wide and with zeros behind `width`.  Where there are
// many terms it has rows of zeros up to a multiple of the lanes.
template <class T>
struct Block {
    const T* data;
    std::int64_t step, count, width;
};

// One entry for each term and place: `data` is that of the block.
template <class T>
struct Target {
    T* data;
    std::int64_t stride;
};

template <class T>
INLINE void add(T* to, Vector<T> value) {
    store(to, load(to) + value);
}

template <class T>
INLINE void contract_few(const Block<T>& block, const Half<T> left, const Half<T> right, std::int64_t rank,
                         const Target<T> to_left, const Target<T> to_right) {
    constexpr int N = LANES<T>;
    const std::int64_t vectors = padded<T>(block.width) / N;
    for (std::int64_t k = 0; k < rank; k++) {
        Vector<T> columns[BLOCK_COLUMNS / N];
        for (std::int64_t v = 0; v < vectors; v++) columns[v] = Vector<T>{};
        const T *own = left.data + k * left.stride, *grid = block.data, *others = right.data + k * right.stride;
        T* to = to_left.data + k * to_left.stride;
        std::int64_t a = 0;
        for (; a + N <= block.count; a += N, own += N, grid += N * block.step) {
            Vector<T> products[N] = {};
            for (std::int64_t v = 0; v < vectors; v++) {
                const Vector<T> other = load(others + v * N);
                Vector<T> even{}, odd{};
#pragma GCC unroll 16
                for (int i = 0; i < N; i += 2) {
                    const Vector<T> first = load(grid + i * block.step + v * N);
                    const Vector<T> second = load(grid + (i + 1) * block.step + v * N);
                    products[i] += first * other;
                    products[i + 1] += second * other;
                    even += own[i] * first;
                    odd += own[i + 1] * second;
                }
                columns[v] += even + odd;
            }
            add(to + a, sums_of<T>(products));
        }
        for (; a < block.count; a++, own++, grid += block.step) {
            Vector<T> product{};
            for (std::int64_t v = 0; v < vectors; v++) {
                const Vector<T> row = load(grid + v * N);
                product += row * load(others + v * N);
                columns[v] += *own * row;
            }
            to[a] += sum<T>(product);
        }
        for (std::int64_t v = 0; v < vectors; v++) add(to_right.data + k * to_right.stride + v * N, columns[v]);
    }
}

// to[k, v] += sum over i < count of factors[k, i] rows[i, v] for ROWS terms and COLUMNS vectors.
template <class T, int ROWS, int COLUMNS>
INLINE void product_tile(const Half<T> factors, const T* rows, std::int64_t step, std::int64_t count,
                         const Target<T> to) {
    Vector<T> sums[ROWS][COLUMNS] = {};
    for (std::int64_t i = 0; i < count; i++) {
        Vector<T> own[COLUMNS];
        for (int v = 0; v < COLUMNS; v++) own[v] = load(rows + i * step + v * LANES<T>);
        for (int k = 0; k < ROWS; k++)
            for (int v = 0; v < COLUMNS; v++) sums[k][v] += factors.data[k * factors.stride + i] * own[v];
    }
    for (int k = 0; k < ROWS; k++)
        for (int v = 0; v < COLUMNS; v++) add(to.data + k * to.stride + v * LANES<T>, sums[k][v]);
}

template <class T, int COLUMNS>
INLINE void product_tiles(Half<T> factors, const T* rows, std::int64_t step, std::int64_t count, std::int64_t rank,
                          Target<T> to) {
    constexpr int FITTING = (REGISTERS - 1 - COLUMNS) / COLUMNS;
    constexpr int ROWS = FITTING > 8 ? 8 : FITTING;
    const auto move = [&](std::int64_t terms) {
        rank -= terms;
        factors.data += terms * factors.stride;
        to.data += terms * to.stride;
    };
    for (; rank >= ROWS; move(ROWS)) product_tile<T, ROWS, COLUMNS>(factors, rows, step, count, to);
    if constexpr (ROWS > 2)
        for (; rank >= 2; move(2)) product_tile<T, 2, COLUMNS>(factors, rows, step, count, to);
    for (; rank; move(1)) product_tile<T, 1, COLUMNS>(factors, rows, step, count, to);
}

// to[k, j] += sum over i < count of factors[k, i] rows[i * step + j], for whole vectors that cover `width`.
template <class T>
INLINE void add_product(const Half<T> factors, const T* rows, std::int64_t step, std::int64_t count,
                        std::int64_t width, std::int64_t rank, Target<T> to) {
    constexpr std::int64_t MOST = 4 * LANES<T>;
    for (; width > 0; width -= MOST, rows += MOST, to.data += MOST) {
        switch ((width + LANES<T> - 1) / LANES<T>) {
            case 1: product_tiles<T, 1>(factors, rows, step, count, rank, to); break;
            case 2: product_tiles<T, 2>(factors, rows, step, count, rank, to); break;
            case 3: product_tiles<T, 3>(factors, rows, step, count, rank, to); break;
            default: product_tiles<T, 4>(factors, rows, step, count, rank, to);
        }
    }
}

// What contracts rows, one at a time.
template <class T>
class Contraction {
public:
    explicit Contraction(const Lookup& of)
        : lookup_(of), same_type_(sizeof(T) == 8 || of.cotangent_storage == FLOAT32),
          memory_(new T[std::size_t(2 * BLOCK_ROWS * BLOCK_COLUMNS)]) {}

    // How many sums of a block each gradient of a row is the sum of.
    static std::int64_t blocks(const Lookup& of) {
        const auto parts = [](std::int64_t count, std::int64_t most) { return (count + most - 1) / most; };
        const std::int64_t down = parts(of.kept, BLOCK_ROWS), along = parts(of.right_width, BLOCK_COLUMNS);
        return down > along ? down : along;
    }

    void operator()(std::int64_t b, const Half<T> left, const Half<T> right, const Target<T> to_left,
                    const Target<T> to_right) {
        const std::int64_t rank = lookup_.rank;
        for (std::int64_t a = 0; a < lookup_.kept; a += BLOCK_ROWS)
            for (std::int64_t j = 0; j < lookup_.right_width; j += BLOCK_COLUMNS) {
                const Block<T> block = read(b, a, j);
                const Half<T> own{left.data + a, left.stride}, other{right.data + j, right.stride};
                const Target<T> to_own{to_left.data + a, to_left.stride}, to_other{to_right.data + j, to_right.stride};
                if (rank <= FEW_TERMS) {
                    contract_few(block, own, other, rank, to_own, to_other);
                    continue;
                }
                T* turned = memory_.get() + BLOCK_ROWS * BLOCK_COLUMNS;
                const std::int64_t step = padded<T>(block.count);
                transpose(block.data, block.step, block.count, block.width, turned, step);
                add_product(other, turned, step, block.width, block.count, rank, to_own);
                add_product(own, block.data, block.step, block.count, block.width, rank, to_other);
            }
    }

    // Asks for the cotangent of row b ahead of its time.
    void prefetch(std::int64_t b) const {
        if (b >= lookup_.batch) return;
        const char* from = lookup_.row(b);
        const std::int64_t bytes = lookup_.columns * lookup_.rows.strides[1];
        for (std::int64_t i = 0; i < std::min(bytes, PREFETCHED); i += 64) __builtin_prefetch(from + i);
    }

    // The sum of the cotangent of row b.
    T total(std::int64_t b) {
        double found = 0;
        for (std::int64_t a = 0; a < lookup_.kept; a += BLOCK_ROWS)
            for (std::int64_t j = 0; j < lookup_.right_width; j += BLOCK_COLUMNS) {
                const Block<T> block = read(b, a, j);
                for (std::int64_t i = 0; i < block.count; i++)
                    found += double(sum_of(block.data + i * block.step, block.width));
            }
        return T(found);
    }

private:
    const Lookup& lookup_;
    const bool same_type_;
    std::unique_ptr<T[]> memory_;

    // Rows [a, a + count) and columns [j, j + width) of the cotangent of row b; a copy unless it lies as a block.
    Block<T> read(std::int64_t b, std::int64_t a, std::int64_t j) {
        const std::int64_t whole = lookup_.right_width, storage_step = lookup_.rows.strides[1];
        const std::int64_t count = std::min(BLOCK_ROWS, lookup_.kept - a), width = std::min(BLOCK_COLUMNS, whole - j);
        const char* from = lookup_.row(b) + (a * whole + j) * storage_step;
        const bool complete = (a + count) * whole <= lookup_.columns;
        const std::int64_t rows = lookup_.rank > FEW_TERMS ? padded<T>(count) : count;
        if (complete && same_type_ && storage_step == sizeof(T) && rows == count && width % LANES<T> == 0)
            return {reinterpret_cast<const T*>(from), whole, count, width};
        T* copy = memory_.get();
        const std::int64_t step = padded<T>(width);
        for (std::int64_t i = 0; i < rows; i++, copy += step, from += whole * storage_step) {
            std::int64_t there = i < count ? std::min(width, lookup_.columns - (a + i) * whole - j) : 0;
            if (there < 0) there = 0;
            if (there) copy_leaf(from, storage_step, Storage(lookup_.cotangent_storage), there, copy);
            for (std::int64_t rest = padded<T>(there); rest < step; rest++) copy[rest] = 0;
        }
        return {memory_.get(), step, count, width};
    }
};
