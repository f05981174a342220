// Arrays of NumPy as they are handed over: capsules with the struct of NumPy's array interface.
//
// No header of Python or NumPy is needed, and one library serves every version of both.  Two functions of
// Python's stable ABI are told by their addresses; they are called with the GIL held.
#pragma once

#include <cstdint>

namespace ketcore {

constexpr int MAX_AXES = 3;

// PyArrayInterface of NumPy's documentation.
struct ArrayInterface {
    int two;
    int axes;
    char kind;
    int itemsize;
    int flags;
    const std::intptr_t* shape;
    const std::intptr_t* strides;
    char* data;
    void* descr;
};

// Of at most MAX_AXES axes.  Strides are in bytes.
struct Array {
    char* data;
    std::int64_t shape[MAX_AXES];
    std::int64_t strides[MAX_AXES];
};

using CapsulePointer = void* (*)(void* capsule, const char* name);
using TupleItem = void* (*)(void* tuple, std::intptr_t position);

struct Python {
    CapsulePointer capsule_pointer;
    TupleItem tuple_item;
};

inline Python python{};

// The array at a position of a tuple of capsules; false where there is none, or it has too many axes.
inline bool read_array(void* capsules, std::intptr_t position, Array& found) {
    void* capsule = python.tuple_item(capsules, position);
    auto* given = capsule ? static_cast<ArrayInterface*>(python.capsule_pointer(capsule, nullptr)) : nullptr;
    if (!given || given->two != 2 || given->axes > MAX_AXES) return false;
    found = Array{given->data, {}, {}};
    for (int axis = 0; axis < given->axes; axis++) {
        found.shape[axis] = given->shape[axis];
        found.strides[axis] = given->strides[axis];
    }
    return true;
}

}  // namespace ketcore
