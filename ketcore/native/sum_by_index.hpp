// Sums of rows by index.  Included once for each instruction set, inside its namespace.

// Writes those sums whose first row has a place in [start, stop) of the order.
template <class T>
void sum_by_index(const IndexSums& sums, std::int64_t start, std::int64_t stop) {
    const std::int64_t batch = sums.values.shape[0], width = sums.values.shape[1];
    const std::int64_t* order = sums.order.get();
    // A sum of its own, since whole vectors are written, and what is beside it is another thread's.
    const auto own = zeros<T>(padded<T>(width));
    const auto whole = zeros<double>(sizeof(T) < 8 ? width : 0);
    std::int64_t place = start;
    while (place > 0 && place < stop && index_of(sums, order[place]) == index_of(sums, order[place - 1])) place++;
    while (place < stop) {
        const std::int64_t index = index_of(sums, order[place]), first = place;
        bool moved = false;
        for (; place < batch && index_of(sums, order[place]) == index; place++) {
            if (sizeof(T) < 8 && place > first && (place - first) % SHORT_SUM == 0) {
                for (std::int64_t i = 0; i < width; i++) {
                    whole[i] = (moved ? whole[i] : 0) + double(own[i]);
                    own[i] = 0;
                }
                moved = true;
            }
            const char* row = sums.values.data + order[place] * sums.values.strides[0];
            add_first(own.get(), reinterpret_cast<const T*>(row), width, own.get() + padded<T>(width));
        }
        T* to = reinterpret_cast<T*>(sums.sums.data) + index * width;
        for (std::int64_t i = 0; i < width; i++) {
            to[i] = moved ? T(whole[i] + double(own[i])) : own[i];
            own[i] = 0;
        }
    }
}
