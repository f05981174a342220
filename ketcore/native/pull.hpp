// Cotangents of rows back to leaves, and their sums by table.
// Included once for each instruction set, inside its namespace.
//
// The batch is cut into parts, each of which has sums of its own, so that what comes out does not depend on the
// number of threads.

// Bytes of sums that may be added to in any order.
constexpr std::int64_t NEAR_BYTES = 1 << 19;

// Pulls rows back to their leaves.
template <class T>
class RowPull {
public:
    explicit RowPull(const Lookup& of)
        : lookup_(of), space_(of), leaves_(space_), contraction_(of), left_step_(padded<T>(of.left_width)),
          right_step_(padded<T>(of.right_width)), memory_(new T[std::size_t(of.rank * (left_step_ + right_step_))]) {
        space_.scales_root = false;
    }

    // Calls `visit(b, good)` for rows [start, stop) in turn; `leaf` then has what concerns the row.  Where an index of
    // it is bad, there is nothing.
    template <class Visit>
    void run(std::int64_t start, std::int64_t stop, Visit visit) {
        RowHalves<T> halves[Workspace<T>::MOST];
        for (std::int64_t first = start; first < stop; first += space_.rows) {
            const std::int64_t count = std::min(stop - first, space_.rows);
            space_.build(first, count, halves);
            for (std::int64_t i = 0; i < count; i++) {
                contraction_.prefetch(first + i + 1);
                if (halves[i].good) pull(first + i, i, halves[i]);
                visit(first + i, halves[i].good);
            }
        }
    }

    const T* leaf(std::int64_t term, int mode) { return leaves_.leaf(term, mode); }

private:
    const Lookup& lookup_;
    Workspace<T> space_;
    LeafCotangents<T> leaves_;
    Contraction<T> contraction_;
    std::int64_t left_step_, right_step_;
    std::unique_ptr<T[]> memory_;

    void pull(std::int64_t b, std::int64_t row, const RowHalves<T>& halves) {
        const int split = int(lookup_.split), order = int(lookup_.order);
        const Target<T> to_left{memory_.get(), left_step_};
        const Target<T> to_right{memory_.get() + lookup_.rank * left_step_, right_step_};
        std::memset(memory_.get(), 0, std::size_t(lookup_.rank * (left_step_ + right_step_)) * sizeof(T));
        contraction_(b, halves.left, halves.right, to_left, to_right);
        clear_cropped(to_left);
        if (lookup_.layernorm && split) normalise(row, contraction_.total(b), halves, to_left, to_right);
        for (std::int64_t term = 0; term < lookup_.rank; term++) {
            leaves_.pull(row, term, 0, split, to_left.data + term * left_step_);
            leaves_.pull(row, term, split, order, to_right.data + term * right_step_);
        }
    }

    // Rows of zeros behind the cotangent give NaN where the other half has an infinity.
    void clear_cropped(const Target<T> to_left) {
        for (std::int64_t term = 0; term < lookup_.rank; term++)
            for (std::int64_t a = lookup_.kept; a < std::min(padded<T>(lookup_.kept), lookup_.left_width); a++)
                to_left.data[term * to_left.stride + a] = 0;
    }

    void normalise(std::int64_t row, T whole, const RowHalves<T>& halves, const Target<T> to_left,
                   const Target<T> to_right) {
        for (std::int64_t term = 0; term < lookup_.rank; term++) {
            const Moments<T>* moments = space_.root_moments(row, term);
            node_cotangents<T>({halves.left.data + term * halves.left.stride, moments[0]}, lookup_.left_width,
                               {halves.right.data + term * halves.right.stride, moments[1]}, lookup_.right_width, whole,
                               T(lookup_.eps), to_left.data + term * to_left.stride,
                               to_right.data + term * to_right.stride);
        }
    }
};

template <class T>
T* gradient(const Lookup& lookup, int mode) {
    return reinterpret_cast<T*>(lookup.gradients[mode]);
}

// Writes the cotangents of the leaves of rows [start, stop), zeros where an index is bad.
template <class T>
void pull_records(const Lookup& lookup, std::int64_t start, std::int64_t stop) {
    RowPull<T> pull(lookup);
    T* to = gradient<T>(lookup, 0);
    std::int64_t record = 0;
    for (int mode = 0; mode < lookup.order; mode++) record += lookup.tables[mode].width;
    const T* end = to + stop * lookup.rank * record;
    to += start * lookup.rank * record;
    pull.run(start, stop, [&](std::int64_t, bool good) {
        for (std::int64_t term = 0; term < lookup.rank; term++)
            for (int mode = 0; mode < lookup.order; to += lookup.tables[mode++].width) {
                const std::int64_t width = lookup.tables[mode].width;
                if (good)
                    copy_first(to, pull.leaf(term, mode), width, end);
                else
                    std::memset(to, 0, std::size_t(width) * sizeof(T));
            }
    });
}

// The sums of each part: those of the tables, or those of both half tables.
template <class T>
struct Pulled : PullState {
    std::vector<std::vector<Sums<T>>> parts;
};

template <class T>
INLINE std::vector<Sums<T>>& sums_of_part(const Lookup& lookup, std::int64_t part) {
    return static_cast<Pulled<T>&>(*lookup.state).parts[std::size_t(part)];
}

// Of each row of table n the sums of all terms; of kind TERMS, each of which has rows of its own, of one.
template <class T>
Sums<T> table_sums(const Lookup& lookup, int mode, T* memory) {
    const Table& table = lookup.tables[mode];
    if (lookup.kind == TERMS) return Sums<T>(table.length * lookup.rank, table.width, 1, memory);
    return Sums<T>(table.length, lookup.rank * table.width, 1, memory);
}

// In how many parts the batch is added up: by sizes alone.
INLINE std::int64_t part_count(const Lookup& lookup, std::int64_t most, std::int64_t numbers, std::int64_t share) {
    double entries = 0;
    if (lookup.picked)
        entries = double(lookup.left_length) * double(lookup.kept) +
                  double(lookup.right_length) * double(lookup.right_width);
    else
        for (int mode = 0; mode < lookup.order; mode++)
            entries += double(lookup.tables[mode].length) * double(lookup.tables[mode].width);
    const double all = double(lookup.batch) * double(lookup.columns);
    const double parts = std::min(double(most), all / double(numbers));
    const double fitting = all / (double(share) * double(lookup.rank) * entries);
    if (parts >= 2 && fitting < 1 && !lookup.picked) return 0;
    return std::max(std::int64_t(1), std::int64_t(std::min(parts, fitting)));
}

// Makes room for the sums of all parts; those of the first are the gradients where there are no half tables.
template <class T>
std::int64_t pull_begin(Lookup& lookup, std::int64_t most, std::int64_t numbers, std::int64_t share) {
    prepare<T>(lookup);
    const std::int64_t parts = part_count(lookup, most, numbers, share);
    auto state = std::make_unique<Pulled<T>>();
    state->parts.resize(std::size_t(parts));
    for (std::int64_t part = 0; part < parts; part++) {
        std::vector<Sums<T>>& sums = state->parts[std::size_t(part)];
        if (lookup.picked) {
            const std::int64_t pieces = Contraction<T>::blocks(lookup);
            sums.emplace_back(lookup.left_length, lookup.rank * padded<T>(lookup.kept), pieces);
            sums.emplace_back(lookup.right_length, lookup.rank * padded<T>(lookup.right_width), pieces);
        } else {
            for (int mode = 0; mode < lookup.order; mode++)
                sums.push_back(table_sums<T>(lookup, mode, part ? nullptr : gradient<T>(lookup, mode)));
        }
    }
    lookup.state = std::move(state);
    return parts;
}

// Adds the cotangents of the leaves of modes [from, to) to the sums of each of them.
template <class T, class Leaves>
INLINE void add_to_tables(const Lookup& lookup, int from, int to, const Choice& choice, Leaves& leaves, Sums<T>* sums) {
    for (int mode = from; mode < to; mode++) {
        T* target = sums[mode - from].hit(choice.position[mode]);
        const std::int64_t width = lookup.tables[mode].width;
        for (std::int64_t term = 0; term < lookup.rank; term++, target += width)
            add_first(target, leaves.leaf(term, mode), width, sums[mode - from].end());
    }
}

// Which records of the half tables row b picks; false where its index is bad.
INLINE bool pick_records(const Lookup& lookup, std::int64_t b, std::int64_t& high, std::int64_t& low) {
    const std::int64_t id = index_at(lookup.index.data + b * lookup.index.strides[0], IndexType(lookup.index_type));
    const bool good = std::uint64_t(id) < std::uint64_t(lookup.bound);
    divide(good ? id : 0, lookup.right_length, high, low);
    return good;
}

// Rows [start, stop) whose index is good, those together that pick one record of the larger half table.
inline std::vector<std::int64_t> rows_by_record(const Lookup& lookup, std::int64_t start, std::int64_t stop) {
    const bool by_left = lookup.left_length * lookup.kept > lookup.right_length * lookup.right_width;
    const std::int64_t length = by_left ? lookup.left_length : lookup.right_length;
    std::vector<std::int64_t> places(std::size_t(length + 1)), order;
    std::int64_t high, low;
    for (std::int64_t b = start; b < stop; b++)
        if (pick_records(lookup, b, high, low)) places[std::size_t((by_left ? high : low) + 1)]++;
    for (std::size_t i = 0; i < std::size_t(length); i++) places[i + 1] += places[i];
    order.resize(std::size_t(places[std::size_t(length)]));
    for (std::int64_t b = start; b < stop; b++)
        if (pick_records(lookup, b, high, low)) order[std::size_t(places[std::size_t(by_left ? high : low)]++)] = b;
    return order;
}

// Adds up rows [start, stop): as they come where the sums lie in a near cache, else by record.
template <class T>
void pull_to_half_tables(const Lookup& lookup, std::int64_t start, std::int64_t stop, Sums<T>& left, Sums<T>& right) {
    Workspace<T> space(lookup);
    Contraction<T> contraction(lookup);
    const auto pull = [&](std::int64_t b) {
        std::int64_t high, low;
        if (!pick_records(lookup, b, high, low)) return;
        RowHalves<T> halves;
        space.build(b, 1, &halves);
        contraction(b, halves.left, halves.right, {left.hit(high), padded<T>(lookup.kept)},
                    {right.hit(low), padded<T>(lookup.right_width)});
    };
    const std::int64_t numbers = left.count() * left.width() + right.count() * right.width();
    if (numbers * std::int64_t(sizeof(T)) <= NEAR_BYTES) {
        for (std::int64_t b = start; b < stop; b++) {
            contraction.prefetch(b + 1);
            pull(b);
        }
        return;
    }
    const std::vector<std::int64_t> order = rows_by_record(lookup, start, stop);
    for (std::size_t i = 0; i < order.size(); i++) {
        if (i + 1 < order.size()) contraction.prefetch(order[i + 1]);
        pull(order[i]);
    }
}

template <class T>
void pull_to_tables(const Lookup& lookup, std::int64_t start, std::int64_t stop, std::vector<Sums<T>>& sums) {
    RowPull<T> pull(lookup);
    const auto add_terms = [&](std::int64_t b) {
        Choice choice;
        for (std::int64_t term = 0; term < lookup.rank; term++) {
            choose(lookup, b, term, choice);
            for (int mode = 0; mode < lookup.order; mode++)
                add_first(sums[std::size_t(mode)].hit(choice.position[mode] * lookup.rank + term),
                          pull.leaf(term, mode), lookup.tables[mode].width, sums[std::size_t(mode)].end());
        }
    };
    pull.run(start, stop, [&](std::int64_t b, bool good) {
        if (!good) return;
        if (lookup.kind == TERMS) return add_terms(b);
        Choice choice;
        choose(lookup, b, 0, choice);
        add_to_tables(lookup, 0, int(lookup.order), choice, pull, sums.data());
    });
}

// Adds the rows of one part to its sums.
template <class T>
void pull_part(const Lookup& lookup, std::int64_t part) {
    const std::int64_t start = lookup.batch * part / lookup.parts, stop = lookup.batch * (part + 1) / lookup.parts;
    std::vector<Sums<T>>& sums = sums_of_part<T>(lookup, part);
    if (lookup.picked)
        pull_to_half_tables(lookup, start, stop, sums[0], sums[1]);
    else
        pull_to_tables(lookup, start, stop, sums);
}

// The sums of a record over all parts, in their order; false, and none, where no row has hit it.
template <class T>
INLINE bool add_parts(const Lookup& lookup, std::size_t position, std::int64_t record, T* to) {
    const auto& parts = static_cast<Pulled<T>&>(*lookup.state).parts;
    bool empty = true;
    for (const auto& part : parts) empty = empty && part[position].empty(record);
    if (empty) return false;
    for (std::int64_t i = 0; i < parts[0][position].width(); i++) {
        double found = 0;
        for (const auto& part : parts) found += part[position].value(record, i);
        to[i] = T(found);
    }
    return true;
}

// Puts the sums that were moved back into the memory that all others are in.
template <class T>
void finish(const Sums<T>& sums, T* to) {
    if (!sums.any_moved()) return;
    for (std::int64_t record = 0; record < sums.count(); record++)
        if (sums.moved(record))
            for (std::int64_t i = 0; i < sums.width(); i++) to[record * sums.width() + i] = T(sums.value(record, i));
}

// The gradient of a half table, over modes [from, to), back to those of its tables.
template <class T>
void pull_half_table(const Lookup& lookup, std::size_t position, int from, int to, std::int64_t step) {
    Workspace<T> space(lookup);
    LeafCotangents<T> leaves(space);
    std::vector<Sums<T>> sums;
    for (int mode = from; mode < to; mode++)
        sums.push_back(table_sums<T>(lookup, mode, gradient<T>(lookup, mode)));
    const std::int64_t count = sums_of_part<T>(lookup, 0)[position].count(), width = lookup.width(from, to);
    const std::int64_t there = position ? width : std::min(width, lookup.kept);
    std::unique_ptr<T[]> memory(new T[std::size_t(lookup.rank * step + padded<T>(width))]());
    T *found = memory.get(), *whole = found + lookup.rank * step;
    for (std::int64_t record = 0; record < count; record++) {
        if (!add_parts(lookup, position, record, found)) continue;
        Choice choice;
        choose_digits(lookup, from, to, record, choice);
        for (std::int64_t term = 0; term < lookup.rank; term++) {
            copy_leaves(space.shape, from, to, term, choice, space.leaves(0) + term * space.shape.leaves);
            copy_first(whole, found + term * step, there, whole + there);
            leaves.pull(0, term, from, to, whole);
        }
        add_to_tables(lookup, from, to, choice, leaves, sums.data());
    }
    for (int mode = from; mode < to; mode++) finish(sums[std::size_t(mode - from)], gradient<T>(lookup, mode));
}

// Adds up the parts, and writes the gradients of the tables.
template <class T>
void pull_end(const Lookup& lookup) {
    const int split = int(lookup.split), order = int(lookup.order);
    if (lookup.picked) {
        pull_half_table<T>(lookup, 0, 0, split, padded<T>(lookup.kept));
        pull_half_table<T>(lookup, 1, split, order, padded<T>(lookup.right_width));
        return;
    }
    for (int mode = 0; mode < order; mode++) {
        const Sums<T>& first = sums_of_part<T>(lookup, 0)[std::size_t(mode)];
        T* to = gradient<T>(lookup, mode);
        if (lookup.parts == 1)
            finish(first, to);
        else
            for (std::int64_t record = 0; record < first.count(); record++)
                add_parts(lookup, std::size_t(mode), record, to + record * first.width());
    }
}
