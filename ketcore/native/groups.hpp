// Sums of the records of those rows that have one id, for lookups by ids alone.
// Included once for each instruction set, inside its namespace.

// Puts rows whose id is good in its order, and those of one id as they come: from the least digit on, by counts.
// Writes every id once, and returns how many there are.
inline std::int64_t group_rows(Lookup& lookup) {
    struct Row {
        std::int64_t id, place;
    };
    constexpr int BITS = 8, DIGITS = 1 << BITS;
    std::unique_ptr<Row[]> rows(new Row[std::size_t(lookup.batch)]), other(new Row[std::size_t(lookup.batch)]);
    std::int64_t count = 0, most = 0;
    for (std::int64_t b = 0; b < lookup.batch; b++) {
        const char* at = lookup.index.data + b * lookup.index.strides[0];
        const std::int64_t id = index_at(at, IndexType(lookup.index_type));
        if (std::uint64_t(id) >= std::uint64_t(lookup.bound)) continue;
        rows[std::size_t(count++)] = {id, b};
        most = std::max(most, id);
    }
    for (int shift = 0; shift < 64 && most >> shift; shift += BITS) {
        std::int64_t starts[DIGITS + 1] = {};
        for (std::int64_t i = 0; i < count; i++) starts[(rows[std::size_t(i)].id >> shift & (DIGITS - 1)) + 1]++;
        for (int i = 0; i < DIGITS; i++) starts[i + 1] += starts[i];
        for (std::int64_t i = 0; i < count; i++) {
            const Row row = rows[std::size_t(i)];
            other[std::size_t(starts[row.id >> shift & (DIGITS - 1)]++)] = row;
        }
        rows.swap(other);
    }
    lookup.ids.reset(new std::int64_t[std::size_t(count)]);
    lookup.places.reset(new std::int64_t[std::size_t(count)]);
    lookup.firsts.clear();
    lookup.firsts.reserve(std::size_t(count + 1));
    for (std::int64_t i = 0; i < count; i++) {
        const Row row = rows[std::size_t(i)];
        if (i == 0 || row.id != lookup.ids[std::size_t(i - 1)]) {
            std::memcpy(lookup.found_ids + 8 * lookup.firsts.size(), &row.id, 8);
            lookup.firsts.push_back(i);
        }
        lookup.ids[std::size_t(i)] = row.id;
        lookup.places[std::size_t(i)] = row.place;
    }
    const std::int64_t groups = std::int64_t(lookup.firsts.size());
    lookup.firsts.push_back(count);
    lookup.batch = count;
    lookup.index.data = reinterpret_cast<char*>(lookup.ids.get());
    lookup.index.strides[0] = 8;
    lookup.index_type = INT64;
    return groups;
}

// Writes the sums of ids [start, stop).
template <class T>
void pull_groups(const Lookup& lookup, std::int64_t start, std::int64_t stop) {
    RowPull<T> pull(lookup);
    std::int64_t record = 0;
    for (int mode = 0; mode < lookup.order; mode++) record += lookup.rank * lookup.tables[mode].width;
    T* to = gradient<T>(lookup, 0) + start * record;
    const T* end = to + (stop - start) * record;
    const std::int64_t* last = lookup.firsts.data() + start + 1;
    // Of a float32 sum what has grown long, as `Sums` has it.
    std::vector<double> whole;
    std::int64_t hits = 0;
    pull.run(lookup.firsts[std::size_t(start)], lookup.firsts[std::size_t(stop)], [&](std::int64_t b, bool) {
        if (sizeof(T) < 8 && hits && hits % SHORT_SUM == 0) {
            whole.resize(std::size_t(record));
            for (std::int64_t i = 0; i < record; i++) whole[std::size_t(i)] += double(to[i]);
        }
        const bool fresh = hits == 0 || (sizeof(T) < 8 && hits % SHORT_SUM == 0);
        T* at = to;
        for (std::int64_t term = 0; term < lookup.rank; term++)
            for (int mode = 0; mode < lookup.order; at += lookup.tables[mode++].width) {
                if (fresh)
                    copy_first(at, pull.leaf(term, mode), lookup.tables[mode].width, end);
                else
                    add_first(at, pull.leaf(term, mode), lookup.tables[mode].width, end);
            }
        hits++;
        if (b + 1 < *last) return;
        for (std::size_t i = 0; i < whole.size(); i++) to[i] = T(whole[i] + double(to[i]));
        whole.clear();
        hits = 0;
        to += record;
        last++;
    });
}
