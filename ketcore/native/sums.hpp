// Sums of what is added to records of numbers, accurate at any length.
// Included once for each instruction set, inside its namespace.
//
// A float32 sum of few numbers of one sign is off by less than 1e-6 of itself; after so many the sum of a record is
// moved into one in float64.

constexpr int SHORT_SUM = 8;

struct Free {
    void operator()(void* memory) const { std::free(memory); }
};
template <class T>
using Zeros = std::unique_ptr<T[], Free>;

// Pages that are never written take no memory.
template <class T>
INLINE Zeros<T> zeros(std::int64_t count) {
    void* found = std::calloc(std::size_t(count + 1), sizeof(T));
    if (!found) throw std::bad_alloc();
    return Zeros<T>(static_cast<T*>(found));
}

template <class T>
class Sums {
public:
    // `count` records of `width` numbers, in the caller's memory, which is zero, or in their own.  Every hit is the
    // sum of `pieces` additions.
    Sums(std::int64_t count, std::int64_t width, std::int64_t pieces, T* memory = nullptr)
        : count_(count), width_(width), short_(pieces < SHORT_SUM ? SHORT_SUM / int(pieces) : 1),
          own_(memory ? nullptr : zeros<T>(count * width).release()), data_(memory ? memory : own_.get()),
          end_(data_ + count * width), hits_(zeros<std::uint8_t>(count)) {}

    std::int64_t count() const { return count_; }
    std::int64_t width() const { return width_; }
    const T* end() const { return end_; }  // of the memory

    // Where to add to a record, once.
    T* hit(std::int64_t record) {
        T* found = data_ + record * width_;
        std::uint8_t& hits = hits_[record];
        if constexpr (sizeof(T) == 8) {
            hits = 1;
        } else {
            if ((hits & ~MOVED) == short_) {
                move(record);
                hits = MOVED;
            }
            hits++;
        }
        return found;
    }

    bool empty(std::int64_t record) const { return !hits_[record]; }

    // Whether a sum lies in one place, where `hit` put it.
    bool moved(std::int64_t record) const { return sizeof(T) < 8 && hits_[record] & MOVED; }

    bool any_moved() const { return bool(totals_); }

    double value(std::int64_t record, std::int64_t i) const {
        const std::int64_t at = record * width_ + i;
        return moved(record) ? totals_[at] + double(data_[at]) : double(data_[at]);
    }

private:
    static constexpr std::uint8_t MOVED = 128;

    std::int64_t count_, width_;
    int short_;
    Zeros<T> own_;
    T* data_;
    const T* end_;
    Zeros<std::uint8_t> hits_;
    Zeros<double> totals_;

    void move(std::int64_t record) {
        if (!totals_) totals_ = zeros<double>(count_ * width_);
        T* from = data_ + record * width_;
        double* to = totals_.get() + record * width_;
        for (std::int64_t i = 0; i < width_; i++) {
            to[i] += double(from[i]);
            from[i] = 0;
        }
    }
};
