// Included after the kernels: launches one of them from the addresses of its arguments, and describes its
// parameters.
#pragma once
#include <utility>

#include "core.h"

namespace cusim {

struct Parameter {
  const char* type;  // the compiler's text around the type's name
  char kind;         // of the value, or of what the pointer points to: f i u b, or V for a struct
  char pointer, read_only;
  int size;
};

template <class T>
const char* type_text() {
  return __PRETTY_FUNCTION__;
}

template <class T>
Parameter describe() {
  constexpr bool pointer = std::is_pointer_v<T>;
  using Pointed = std::conditional_t<pointer, std::remove_pointer_t<T>, T>;
  using Value = std::remove_cv_t<Pointed>;
  const char kind = std::is_same_v<Value, bool>       ? 'b'
                    : std::is_floating_point_v<Value> ? 'f'
                    : !std::is_integral_v<Value>      ? 'V'
                    : std::is_signed_v<Value>         ? 'i'
                                                      : 'u';
  return {type_text<Value>(), kind, pointer, std::is_const_v<Pointed>, int(sizeof(Value))};
}

struct Kernel {
  const char* name;
  void (*function)();
  void (*invoke)(void (*)(), void**);
  const Parameter* parameters;
  int count;
};

template <class... T, size_t... I>
void call(void (*kernel)(T...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_cv_t<T>*>(arguments[I])...);
}

template <class... T>
Kernel make_kernel(const char* name, void (*kernel)(T...)) {
  static const Parameter parameters[] = {describe<T>()...};
  return {name, reinterpret_cast<void (*)()>(kernel),
          [](void (*function)(), void** arguments) {
            call(reinterpret_cast<void (*)(T...)>(function), arguments, std::index_sequence_for<T...>{});
          },
          parameters, int(sizeof...(T))};
}

struct Invocation {
  const Kernel* kernel;
  void** arguments;
};

inline const char* launch(const Kernel& kernel, const Launch& configuration, void** arguments) {
  Invocation invocation{&kernel, arguments};
  return run(
      configuration,
      [](void* pointer) {
        const Invocation* it = static_cast<Invocation*>(pointer);
        it->kernel->invoke(it->kernel->function, it->arguments);
      },
      &invocation);
}

}  // namespace cusim

// ---- undefined behaviour: the compiler's checks call these, and the launch ends with an error ----

#define CUSIM_UNDEFINED(name, text)                                                      \
  extern "C" __attribute__((used, no_sanitize("undefined"))) void __ubsan_handle_##name( \
      const cusim::Location* location) {                                                 \
    cusim::fail(location->file, location->line, "undefined behaviour: " text);           \
  }

namespace cusim {
// Every handler's first argument begins with this.
struct Location {
  const char* file;
  unsigned line, column;
};
}  // namespace cusim

CUSIM_UNDEFINED(type_mismatch_v1, "a null or misaligned pointer, or not enough room behind it")
CUSIM_UNDEFINED(out_of_bounds, "an index out of bounds")
CUSIM_UNDEFINED(divrem_overflow, "a division by zero or overflow")
CUSIM_UNDEFINED(shift_out_of_bounds, "a shift by too much")
CUSIM_UNDEFINED(add_overflow, "signed overflow in +")
CUSIM_UNDEFINED(sub_overflow, "signed overflow in -")
CUSIM_UNDEFINED(mul_overflow, "signed overflow in *")
CUSIM_UNDEFINED(negate_overflow, "signed overflow in -")
CUSIM_UNDEFINED(load_invalid_value, "a bool or enum that has no such value")
CUSIM_UNDEFINED(builtin_unreachable, "a place that cannot be reached")
CUSIM_UNDEFINED(missing_return, "a function that returns nothing")
CUSIM_UNDEFINED(nonnull_arg, "a null argument")
CUSIM_UNDEFINED(pointer_overflow, "a pointer that wraps")
CUSIM_UNDEFINED(vla_bound_not_positive, "an array of no size")
