// A Kronecker matrix times dense rows, as Python describes it: see ketcore/products/plans.py.
#pragma once

#include <cstdint>
#include <memory>

#include "array.hpp"

namespace ketcore {

constexpr int MAX_STEPS = 32;

// The columns of a first step that is computed `apart` are cut into units of so many; the last takes the rest.
constexpr std::int64_t UNIT = 64;

// What `ketcore.products.chains` packs, in this order, and one StepNumbers for each step behind it.  Where there is
// one row alone, its first step may be computed `apart`: what it leaves is blocks for the others.
struct ProductNumbers {
    std::int64_t order, is_double, rank, batch, rows, columns, nested, steps, backward, apart;
};

// One group of modes: (outer, p, inner) -> (outer, q, inner), for one row of the batch.
struct StepNumbers {
    std::int64_t start, stop, outer, p, q, inner;
};

struct Factor {
    const char* data;
    std::int64_t rows, columns;
    std::int64_t term_stride, row_stride, column_stride;  // bytes
};

// A step, and what it multiplies by: for each term a matrix (p, padded q), and the same turned over where inner
// is 1 and there is a backward.
struct Step : StepNumbers {
    std::int64_t units;  // blocks of one row that this step and all behind it treat alike
    std::int64_t width, turned_width;
    std::int64_t weights, turned;  // where the first term begins in `Product::weights`
    std::int64_t gradient;         // and in the gradient of all steps
};

struct Product : ProductNumbers {
    Step step[MAX_STEPS];
    Factor factors[MAX_STEPS];
    // C-contiguous: x and its gradient (batch, rows), result or cotangent (batch, columns), and the gradients of
    // all weights by chunks, (chunks, R, sum of p q) in double.
    Array x, y, to_x, to_weights;
    std::int64_t terms;  // that run one after the other: one where there is one step, which adds them up before
    std::int64_t gradient_size, weights_size;  // of one term
    std::unique_ptr<char[]> weights;
    std::unique_ptr<char[]> middle;  // what a first step apart leaves, (R, q, inner)
};

// Takes the numbers, and the arrays from capsules: factors, x, y, and for a backward the two gradients.  False
// where they are not as described.
inline bool read_product(const std::int64_t* numbers, void* capsules, Product& found) {
    static_assert(sizeof(ProductNumbers) == 10 * 8 && sizeof(StepNumbers) == 6 * 8, "numbers are read in order");
    __builtin_memcpy(static_cast<ProductNumbers*>(&found), numbers, sizeof(ProductNumbers));
    if (found.order < 1 || found.order > MAX_STEPS || found.steps < 1 || found.steps > found.order) return false;
    found.terms = found.steps > 1 ? found.rank : 1;
    found.gradient_size = 0;
    double entries = 0;
    for (int i = 0; i < found.steps; i++) {
        Step& step = found.step[i];
        __builtin_memcpy(static_cast<StepNumbers*>(&step), numbers + 10 + 6 * i, sizeof(StepNumbers));
        step.units = found.nested && i > 0 ? step.outer : 1;
        step.gradient = found.gradient_size;
        found.gradient_size += step.p * step.q;
        entries += (double(step.p) + 64) * (double(step.q) + 64);
    }
    // What no memory holds is not described, and sizes of what is laid out do not overflow.
    if (entries * double(found.rank) > 0x1p56) return false;
    for (int mode = 0; mode < found.order; mode++) {
        Array given;
        if (!read_array(capsules, mode, given) || given.shape[0] != found.rank) return false;
        found.factors[mode] = Factor{given.data,       given.shape[1],   given.shape[2],
                                     given.strides[0], given.strides[1], given.strides[2]};
    }
    return read_array(capsules, found.order, found.x) && read_array(capsules, found.order + 1, found.y) &&
           (!found.backward || (read_array(capsules, found.order + 2, found.to_x) &&
                                read_array(capsules, found.order + 3, found.to_weights)));
}

}  // namespace ketcore
