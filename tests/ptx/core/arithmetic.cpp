// Sums, products, quotients, roots, powers.
#include <cfenv>
#include <cmath>
#include <functional>
#include <limits>

#include "operations.h"

namespace ptx {
namespace {

template <class T>
struct Add {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map2<T, T, T>(w, i, m, [](T a, T b) { return wrapping(a, b, std::plus<>()); });
  }
};
template <class T>
struct Sub {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map2<T, T, T>(w, i, m, [](T a, T b) { return wrapping(a, b, std::minus<>()); });
  }
};
template <class T>
struct Mul {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map2<T, T, T>(w, i, m, [](T a, T b) { return wrapping(a, b, std::multiplies<>()); });
  }
};
template <class T>
struct Mad {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map3<T, T, T, T>(w, i, m,
                     [](T a, T b, T c) { return wrapping(wrapping(a, b, std::multiplies<>()), c, std::plus<>()); });
  }
};

__extension__ typedef __int128 Wide;
__extension__ typedef unsigned __int128 UnsignedWide;

template <class T>
struct MulHigh {
  static void run(Warp& w, const Instruction& i, Mask m) {
    using Twice = std::conditional_t<std::is_signed_v<T>, Wide, UnsignedWide>;
    map2<T, T, T>(w, i, m, [](T a, T b) { return static_cast<T>(static_cast<Twice>(a) * b >> kBits<T>); });
  }
};

template <class T>
struct TwiceAsWide;
template <>
struct TwiceAsWide<uint16_t> {
  using type = uint32_t;
};
template <>
struct TwiceAsWide<int16_t> {
  using type = int32_t;
};
template <>
struct TwiceAsWide<uint32_t> {
  using type = uint64_t;
};
template <>
struct TwiceAsWide<int32_t> {
  using type = int64_t;
};

template <class T>
struct MulWide {
  using To = typename TwiceAsWide<T>::type;
  static void run(Warp& w, const Instruction& i, Mask m) {
    map2<To, T, T>(w, i, m, [](T a, T b) { return static_cast<To>(static_cast<To>(a) * static_cast<To>(b)); });
  }
};
template <class T>
struct MadWide {
  using To = typename TwiceAsWide<T>::type;
  static void run(Warp& w, const Instruction& i, Mask m) {
    map3<To, T, T, To>(w, i, m, [](T a, T b, To c) {
      return wrapping(static_cast<To>(static_cast<To>(a) * static_cast<To>(b)), c, std::plus<>());
    });
  }
};

// One rounding. The C library's fma follows the rounding mode.
template <class T>
struct Fma {
  static void run(Warp& w, const Instruction& i, Mask m) {
    const int mode = i.has(Word::kRm)   ? FE_DOWNWARD
                     : i.has(Word::kRp) ? FE_UPWARD
                     : i.has(Word::kRz) ? FE_TOWARDZERO
                                        : FE_TONEAREST;
    if (mode != FE_TONEAREST) std::fesetround(mode);
    map3<T, T, T, T>(w, i, m, [](T a, T b, T c) { return std::fma(a, b, c); });
    if (mode != FE_TONEAREST) std::fesetround(FE_TONEAREST);
  }
};

// On the GPU, a division by zero gives all ones, and the one quotient that overflows gives the dividend.
template <class T>
T quotient(T a, T b) {
  if constexpr (kIsFloat<T>)
    return a / b;
  else if (b == 0)
    return static_cast<T>(~T(0));
  else if (std::is_signed_v<T> && b == static_cast<T>(-1))
    return static_cast<T>(0 - static_cast<Unsigned<T>>(a));
  else
    return static_cast<T>(a / b);
}
template <class T>
struct Div {
  static void run(Warp& w, const Instruction& i, Mask m) { map2<T, T, T>(w, i, m, quotient<T>); }
};
template <class T>
struct Rem {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map2<T, T, T>(w, i, m, [](T a, T b) {
      if (b == 0) return a;
      if (std::is_signed_v<T> && b == static_cast<T>(-1)) return T(0);
      return static_cast<T>(a % b);
    });
  }
};

// NaN is ignored; -0 is less than 0.
template <class T>
T smaller(T a, T b) {
  if constexpr (kIsFloat<T>) {
    if (a == b) return std::signbit(a) ? a : b;
    return std::fmin(a, b);
  } else
    return a < b ? a : b;
}
template <class T>
T larger(T a, T b) {
  if constexpr (kIsFloat<T>) {
    if (a == b) return std::signbit(a) ? b : a;
    return std::fmax(a, b);
  } else
    return a > b ? a : b;
}
template <class T>
struct Min {
  static void run(Warp& w, const Instruction& i, Mask m) { map2<T, T, T>(w, i, m, smaller<T>); }
};
template <class T>
struct Max {
  static void run(Warp& w, const Instruction& i, Mask m) { map2<T, T, T>(w, i, m, larger<T>); }
};

template <class T>
struct Abs {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) {
      if constexpr (kIsFloat<T>)
        return std::fabs(a);
      else
        return a < 0 ? static_cast<T>(0 - static_cast<Unsigned<T>>(a)) : a;
    });
  }
};
template <class T>
struct Neg {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) {
      if constexpr (kIsFloat<T>)
        return -a;
      else
        return static_cast<T>(0 - static_cast<Unsigned<T>>(a));
    });
  }
};

// --- roots, reciprocals, powers ---

template <class T>
struct SquareRoot {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) { return std::sqrt(a); });
  }
};
// Approximate instructions are correctly rounded here, which is one of the results that the GPU may give.
template <class T>
struct InverseSquareRoot {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) { return static_cast<T>(1 / std::sqrt(static_cast<long double>(a))); });
  }
};
template <class T>
struct Reciprocal {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) { return 1 / a; });
  }
};
// Only the upper 32 bits.
void approximate_reciprocal(Warp& w, const Instruction& i, Mask m) {
  map1<uint64_t, double>(w, i, m, [](double a) { return bits_of(1 / a) & ~uint64_t{0xffffffff}; });
}
void power_of_two(Warp& w, const Instruction& i, Mask m) {
  const bool flush = i.has(Word::kFtz);
  map1<float, float>(w, i, m, [=](float a) {
    if (flush && std::fabs(a) < std::numeric_limits<float>::min()) a = 0;
    const float result = static_cast<float>(std::exp2(static_cast<double>(a)));
    return flush && result < std::numeric_limits<float>::min() ? 0.0f : result;
  });
}
void binary_logarithm(Warp& w, const Instruction& i, Mask m) {
  map1<float, float>(w, i, m, [](float a) { return static_cast<float>(std::log2(static_cast<double>(a))); });
}

// --- by name ---

template <template <class> class Operation>
Compute for_narrow_integers(Type type) {  // products that fit into a register
  switch (type) {
    case Type::kUnsigned16:
      return Operation<uint16_t>::run;
    case Type::kUnsigned32:
      return Operation<uint32_t>::run;
    case Type::kSigned16:
      return Operation<int16_t>::run;
    case Type::kSigned32:
      return Operation<int32_t>::run;
    default:
      return nullptr;
  }
}

Compute multiplication(const Instruction& in, bool adds) {
  if (in.has(Word::kWide)) return adds ? for_narrow_integers<MadWide>(in.type) : for_narrow_integers<MulWide>(in.type);
  if (in.has(Word::kHi)) return adds ? nullptr : for_integers<MulHigh>(in.type);
  if (adds) return for_integers<Mad>(in.type);
  return for_numbers<Mul>(in.type);
}

Compute reciprocal(const Instruction& in) {
  if (in.type == Type::kDouble && in.has(Word::kApprox)) return approximate_reciprocal;
  return for_floats<Reciprocal>(in.type);
}

Class by_type(const Instruction& in) {
  return in.type == Type::kFloat ? Class::kFloat : in.type == Type::kDouble ? Class::kDouble : Class::kInteger;
}

}  // namespace

const Operations& arithmetic_operations() {
  constexpr auto special = always<Class::kSpecial>;
  static const Operations operations = {
      {"add", {number_operation<Add>, by_type}},
      {"sub", {number_operation<Sub>, by_type}},
      {"mul", {[](const Instruction& in) { return multiplication(in, false); }, by_type}},
      {"mad", {[](const Instruction& in) { return multiplication(in, true); }, by_type}},
      {"fma", {float_operation<Fma>, by_type}},
      {"div", {number_operation<Div>, special}},
      {"rem", {integer_operation<Rem>, special}},
      {"min", {number_operation<Min>, by_type}},
      {"max", {number_operation<Max>, by_type}},
      {"abs", {number_operation<Abs>, by_type}},
      {"neg", {number_operation<Neg>, by_type}},
      {"sqrt", {float_operation<SquareRoot>, special}},
      {"rsqrt", {float_operation<InverseSquareRoot>, special}},
      {"rcp", {reciprocal, special}},
      {"ex2", {[](const Instruction& in) { return in.type == Type::kFloat ? power_of_two : nullptr; }, special}},
      {"lg2", {[](const Instruction& in) { return in.type == Type::kFloat ? binary_logarithm : nullptr; }, special}},
  };
  return operations;
}

}  // namespace ptx
