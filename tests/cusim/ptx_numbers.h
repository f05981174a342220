// The numbers of PTX: arithmetic, comparisons and conversions on the bits of registers.
#pragma once
#include <fenv.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include <limits>
#include <type_traits>

namespace ptx {

using u8 = uint8_t;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s8 = int8_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;
struct f16 {};
struct bf16 {};

template <class To, class From> To cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// ---- the 16-bit formats, which are converted and never computed with ----

inline u16 to_half(double x) {
  if (isnan(x)) return 0x7fff;
  const u16 sign = signbit(x) ? 0x8000 : 0;
  x = fabs(x);
  if (x >= 65520) return sign | 0x7c00;
  if (x < ldexp(1, -14)) return sign | u16(nearbyint(ldexp(x, 24)));
  int exponent;
  const double fraction = frexp(x, &exponent);
  // What is rounded up to the next power of two carries into the exponent.
  return sign | u16(((exponent + 14) << 10) + int(nearbyint(ldexp(fraction, 11))) - 1024);
}

inline double from_half(u16 half) {
  const int exponent = half >> 10 & 31, digits = half & 0x3ff;
  const double x = exponent == 31 ? (digits ? NAN : INFINITY)
                   : exponent     ? ldexp(1024 + digits, exponent - 25)
                                  : ldexp(digits, -24);
  return half >> 15 ? -x : x;
}

inline u16 to_bfloat(float x) {
  const u32 bits = cast<u32>(x);
  return isnan(x) ? 0x7fff : u16((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// ---- a type of PTX: the bits of its register, and the value that it computes with ----

template <class T>
struct Format {
  using Bits = std::make_unsigned_t<T>;
  using Value = T;
  static T get(Bits bits) { return T(bits); }
  static Bits put(T value) { return Bits(value); }
};
template <> struct Format<f32> {
  using Bits = u32;
  using Value = float;
  static float get(u32 bits) { return cast<float>(bits); }
  static u32 put(float value) { return isnan(value) ? 0x7fffffffu : cast<u32>(value); }
};
template <> struct Format<f64> {
  using Bits = u64;
  using Value = double;
  static double get(u64 bits) { return cast<double>(bits); }
  static u64 put(double value) { return cast<u64>(value); }
};
template <> struct Format<f16> {
  using Bits = u16;
  using Value = double;
  static double get(u16 bits) { return from_half(bits); }
  static u16 put(double value) { return to_half(value); }
};
template <> struct Format<bf16> {
  using Bits = u16;
  using Value = float;
  static float get(u16 bits) { return cast<float>(u32(bits) << 16); }
  static u16 put(float value) { return to_bfloat(value); }
};

template <class T> using Bits = typename Format<T>::Bits;
template <class T> using Value = typename Format<T>::Value;
template <class T> constexpr bool integral = std::is_integral_v<T>;
template <class T> constexpr int width = 8 * sizeof(Bits<T>);

// Z: subnormal numbers of an .ftz instruction are zero, before and after.
template <class T, bool Z> Value<T> flushed(Value<T> value) {
  if constexpr (Z && std::is_same_v<T, f32>)
    if (fpclassify(value) == FP_SUBNORMAL) return copysignf(0, value);
  return value;
}
template <class T, bool Z = false> Value<T> in(Bits<T> bits) {
  return flushed<T, Z>(Format<T>::get(bits));
}
template <class T, bool Z = false> Bits<T> out(Value<T> value) {
  return Format<T>::put(flushed<T, Z>(value));
}

// ---- rounding ----

enum Mode { RN, RZ, RM, RP };

// The operand of a computation in mode M, which is not to be moved out of the mode's life.
template <Mode M, class V> V opaque(V value) {
  if constexpr (M == RN) return value;
  volatile V kept = value;
  return kept;
}

template <Mode M, class F> auto rounded(F compute) {
  if constexpr (M == RN) return compute();
  constexpr int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  fesetround(modes[M]);
  volatile auto result = compute();
  fesetround(FE_TONEAREST);
  return decltype(compute())(result);
}

// ---- arithmetic.  Integers wrap: they are computed without sign and 64 bits wide ----

#define PTX_ARITHMETIC(name, integer, real)                     \
  template <class T, bool Z = false, Mode M = RN>               \
  Bits<T> name(Bits<T> a, Bits<T> b) {                          \
    if constexpr (integral<T>) {                                \
      return Bits<T>(integer);                                  \
    } else {                                                    \
      return out<T, Z>(rounded<M>([&]() -> Value<T> {           \
        const auto x = opaque<M>(in<T, Z>(a)), y = opaque<M>(in<T, Z>(b)); \
        return real;                                            \
      }));                                                      \
    }                                                           \
  }

template <class V> V smaller(V x, V y) {
  return isnan(x) ? y : isnan(y) ? x : x == y ? (signbit(x) ? x : y) : x < y ? x : y;
}

template <class T> u64 quotient(Bits<T> a, Bits<T> b) {
  // The least integer by -1 wraps.
  if (std::is_signed_v<T> && b == Bits<T>(-1)) return 0 - u64(a);
  return u64(T(a) / T(b));
}

PTX_ARITHMETIC(add, u64(a) + u64(b), x + y)
PTX_ARITHMETIC(sub, u64(a) - u64(b), x - y)
PTX_ARITHMETIC(mul, u64(a) * u64(b), x * y)
PTX_ARITHMETIC(least, T(a) < T(b) ? a : b, smaller(x, y))
PTX_ARITHMETIC(greatest, T(a) < T(b) ? b : a, -smaller(-x, -y))
PTX_ARITHMETIC(div, quotient<T>(a, b), x / y)

template <class T> Bits<T> rem(Bits<T> a, Bits<T> b) {
  return Bits<T>(u64(a) - quotient<T>(a, b) * u64(b));
}

template <class T, bool Z, Mode M = RN> Bits<T> fma(Bits<T> a, Bits<T> b, Bits<T> c) {
  return out<T, Z>(rounded<M>([&]() -> Value<T> {
    // The overload for the type: that of float rounds once, to float.
    return ::fma(opaque<M>(in<T, Z>(a)), opaque<M>(in<T, Z>(b)), opaque<M>(in<T, Z>(c)));
  }));
}

template <class T>
using Wider = std::conditional_t<std::is_signed_v<T>, std::conditional_t<sizeof(T) == 2, s32, s64>,
                                 std::conditional_t<sizeof(T) == 2, u32, u64>>;
template <class T> Bits<Wider<T>> mul_wide(Bits<T> a, Bits<T> b) {
  return Bits<Wider<T>>(Wider<T>(T(a)) * Wider<T>(T(b)));
}

template <class T> Bits<T> mul_hi(Bits<T> a, Bits<T> b) {
  using Product = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  return Bits<T>(Product(T(a)) * Product(T(b)) >> width<T>);
}

template <class T, bool Z> Bits<T> neg(Bits<T> a) {
  if constexpr (integral<T>) return Bits<T>(0 - u64(a));
  else return out<T, Z>(-in<T, Z>(a));
}

template <class T, bool Z> Bits<T> abs(Bits<T> a) {
  if constexpr (integral<T>) return T(a) < 0 ? Bits<T>(0 - u64(a)) : a;
  else return out<T, Z>(fabs(in<T, Z>(a)));
}

// What a GPU approximates is rounded correctly here, from double: its error of some ulp is not modelled.
template <class T, bool Z, Mode M = RN> Bits<T> rcp(Bits<T> a) {
  return div<T, Z, M>(out<T>(1), a);
}

template <class T, bool Z, Mode M = RN> Bits<T> sqrt(Bits<T> a) {
  return out<T, Z>(rounded<M>([&]() -> Value<T> { return std::sqrt(opaque<M>(in<T, Z>(a))); }));
}

template <class T, bool Z> Bits<T> ex2(Bits<T> a) {
  return out<T, Z>(Value<T>(exp2(double(in<T, Z>(a)))));
}

template <class T, bool Z> Bits<T> lg2(Bits<T> a) {
  return out<T, Z>(Value<T>(log2(double(in<T, Z>(a)))));
}

template <class T, bool Z> Bits<T> rsqrt(Bits<T> a) {
  return out<T, Z>(Value<T>(1 / ::sqrt(double(in<T, Z>(a)))));
}

// ---- bits.  A shift by the width or more gives 0, or copies of the sign ----

template <class T> Bits<T> shl(Bits<T> a, u32 n) {
  return n >= width<T> ? 0 : Bits<T>(u64(a) << n);
}

template <class T> Bits<T> shr(Bits<T> a, u32 n) {
  return n >= width<T> ? Bits<T>(T(a) < 0 ? -1 : 0) : Bits<T>(T(a) >> n);
}

template <class T> Bits<T> bfi(Bits<T> a, Bits<T> b, u32 position, u32 length) {
  const u32 first = position & 255, end = first + (length & 255);
  for (u32 i = first; i < end && i < width<T>; ++i) b = (b & ~(Bits<T>(1) << i)) | (a >> (i - first) & 1) << i;
  return b;
}

template <class T> u32 popc(Bits<T> a) {
  return __builtin_popcountll(a);
}

// ---- comparisons: with a trailing u they hold for a NaN too ----

template <class T, bool Z> bool cmp_nan(Bits<T> a, Bits<T> b) {
  return !(in<T>(a) == in<T>(a) && in<T>(b) == in<T>(b));
}
template <class T, bool Z> bool cmp_num(Bits<T> a, Bits<T> b) {
  return !cmp_nan<T, Z>(a, b);
}
#define PTX_COMPARISON(name, sign)                             \
  template <class T, bool Z>                                   \
  bool cmp_##name(Bits<T> a, Bits<T> b) {                      \
    return cmp_num<T, Z>(a, b) && in<T, Z>(a) sign in<T, Z>(b); \
  }                                                            \
  template <class T, bool Z>                                   \
  bool cmp_##name##u(Bits<T> a, Bits<T> b) {                   \
    return cmp_nan<T, Z>(a, b) || in<T, Z>(a) sign in<T, Z>(b); \
  }
PTX_COMPARISON(eq, ==)
PTX_COMPARISON(ne, !=)
PTX_COMPARISON(lt, <)
PTX_COMPARISON(le, <=)
PTX_COMPARISON(gt, >)
PTX_COMPARISON(ge, >=)

// ---- conversions ----

enum Whole { FRACTIONS, RNI, RZI, RMI, RPI };

template <class V> V whole(V x, Whole how) {
  return how == RNI ? nearbyint(x) : how == RZI ? trunc(x) : how == RMI ? floor(x) : how == RPI ? ceil(x) : x;
}

template <class D> Bits<D> to_integer(double x) {
  if (isnan(x)) return sizeof(D) == 8 ? Bits<D>(u64(1) << 63) : 0;
  const double low = double(std::numeric_limits<D>::min()), beyond = ldexp(1, width<D> - std::is_signed_v<D>);
  if (x <= low) return Bits<D>(std::numeric_limits<D>::min());
  return Bits<D>(x >= beyond ? std::numeric_limits<D>::max() : D(x));
}

// Sat: what is below 0, above 1 or NaN becomes 0, 1 and 0.
template <class D, class S, bool Z, Mode M, Whole W, bool Sat> Bits<D> convert(Bits<S> bits) {
  if constexpr (integral<D> && integral<S>) {
    return Bits<D>(S(bits));
  } else if constexpr (integral<D>) {
    return to_integer<D>(whole(double(in<S, Z>(bits)), W));
  } else if constexpr (integral<S>) {
    return out<D>(rounded<M>([&] { return Value<D>(opaque<M>(S(bits))); }));
  } else {
    auto x = whole(in<S, Z>(bits), W);
    if constexpr (Sat) x = x > 0 ? (x < 1 ? x : 1) : 0;
    return out<D, Z>(rounded<M>([&] { return Value<D>(opaque<M>(x)); }));
  }
}

// The bits of a T in a wider register: with its sign if it has one.
template <class R, class T> R widen(Bits<T> bits) {
  return R(std::conditional_t<integral<T>, T, Bits<T>>(bits));
}

}  // namespace ptx
