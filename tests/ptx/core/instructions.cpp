// What the instructions compute. Those that touch memory, other lanes or the order of execution are in launch.cpp.
#include <array>
#include <cfenv>
#include <cmath>
#include <functional>
#include <limits>

#include "half.h"
#include "machine.h"

namespace ptx {
namespace {

// --- loops over the lanes ---

template <class To, class A, class Function>
void map1(Warp& warp, const Instruction& in, Mask lanes, Function function) {
  uint64_t* to = warp.row(in.to[0]);
  const uint64_t* a = warp.operand(in.from[0]);
  for_lanes(lanes, [&](int lane) { to[lane] = bits_of<To>(function(value_of<A>(a[lane]))); });
}

template <class To, class A, class B, class Function>
void map2(Warp& warp, const Instruction& in, Mask lanes, Function function) {
  uint64_t* to = warp.row(in.to[0]);
  const uint64_t *a = warp.operand(in.from[0]), *b = warp.operand(in.from[1]);
  for_lanes(lanes, [&](int lane) { to[lane] = bits_of<To>(function(value_of<A>(a[lane]), value_of<B>(b[lane]))); });
}

template <class To, class A, class B, class C, class Function>
void map3(Warp& warp, const Instruction& in, Mask lanes, Function function) {
  uint64_t* to = warp.row(in.to[0]);
  const uint64_t *a = warp.operand(in.from[0]), *b = warp.operand(in.from[1]), *c = warp.operand(in.from[2]);
  for_lanes(lanes, [&](int lane) {
    to[lane] = bits_of<To>(function(value_of<A>(a[lane]), value_of<B>(b[lane]), value_of<C>(c[lane])));
  });
}

// --- operations, by type ---

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
constexpr bool kIsFloat = std::is_floating_point_v<T>;
template <class T>
constexpr int kBits = 8 * sizeof(T);

// Integers wrap, as on the GPU.
template <class T, class Function>
T wrapping(T a, T b, Function function) {
  if constexpr (kIsFloat<T>)
    return function(a, b);
  else
    return static_cast<T>(function(static_cast<uint64_t>(a), static_cast<uint64_t>(b)));
}

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

// One rounding. fma of the C library honours the rounding mode.
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

// The GPU's results of a division by zero are all ones, and of the one quotient that overflows the dividend.
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

// A NaN counts as missing; -0 is less than 0.
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

template <class T>
struct And {
  static void run(Warp& w, const Instruction& i, Mask m) { map2<T, T, T>(w, i, m, std::bit_and<T>()); }
};
template <class T>
struct Or {
  static void run(Warp& w, const Instruction& i, Mask m) { map2<T, T, T>(w, i, m, std::bit_or<T>()); }
};
template <class T>
struct Xor {
  static void run(Warp& w, const Instruction& i, Mask m) { map2<T, T, T>(w, i, m, std::bit_xor<T>()); }
};
template <class T>
struct Not {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) { return static_cast<T>(~a); });
  }
};
void not_predicate(Warp& w, const Instruction& i, Mask m) {
  map1<bool, uint8_t>(w, i, m, [](uint8_t a) { return a == 0; });
}

template <class T>
struct Shl {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map2<T, T, uint32_t>(w, i, m,
                         [](T a, uint32_t by) { return by >= kBits<T> ? T(0) : static_cast<T>(Unsigned<T>(a) << by); });
  }
};
template <class T>
struct Shr {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map2<T, T, uint32_t>(w, i, m, [](T a, uint32_t by) {
      if (by >= kBits<T>) return static_cast<T>(a < 0 ? -1 : 0);
      return static_cast<T>(a >> by);
    });
  }
};

// Funnel shift of the 64 bits {b, a}.
void funnel(Warp& w, const Instruction& i, Mask m) {
  const bool left = i.has(Word::kL), wrap = i.has(Word::kWrap);
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [=](uint32_t a, uint32_t b, uint32_t c) {
    const uint32_t by = wrap ? c % 32 : std::min(c, 32u);
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    return static_cast<uint32_t>(left ? both << by >> 32 : both >> by);
  });
}

// Every bit is looked up by the three bits of the operands.
void look_up_bits(Warp& w, const Instruction& i, Mask m) {
  const uint64_t table = w.operand(i.from[3])[0];
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [=](uint32_t a, uint32_t b, uint32_t c) {
    uint32_t result = 0;
    for (int bit = 0; bit < 32; ++bit) {
      const uint32_t index = (a >> bit & 1) << 2 | (b >> bit & 1) << 1 | (c >> bit & 1);
      result |= static_cast<uint32_t>(table >> index & 1) << bit;
    }
    return result;
  });
}

// Picks four of the eight bytes of {b, a}.
void permute_bytes(Warp& w, const Instruction& i, Mask m) {
  map3<uint32_t, uint32_t, uint32_t, uint32_t>(w, i, m, [](uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t both = static_cast<uint64_t>(b) << 32 | a;
    uint32_t result = 0;
    for (int byte = 0; byte < 4; ++byte) {
      const uint32_t pick = selector >> 4 * byte & 0xf;
      uint32_t value = static_cast<uint32_t>(both >> 8 * (pick & 7)) & 0xff;
      if (pick & 8) value = value & 0x80 ? 0xff : 0;
      result |= value << 8 * byte;
    }
    return result;
  });
}

template <class T>
struct InsertBits {
  static void run(Warp& w, const Instruction& i, Mask m) {
    uint64_t* to = w.row(i.to[0]);
    const uint64_t *a = w.operand(i.from[0]), *b = w.operand(i.from[1]), *position = w.operand(i.from[2]),
                   *length = w.operand(i.from[3]);
    for_lanes(m, [&](int lane) {
      const unsigned begin = position[lane] & 0xff, count = length[lane] & 0xff;
      T mask = 0;
      for (unsigned bit = begin; bit < begin + count && bit < kBits<T>; ++bit) mask |= T(1) << bit;
      const T shifted = begin < kBits<T> ? static_cast<T>(static_cast<T>(a[lane]) << begin) : 0;
      to[lane] = bits_of<T>((static_cast<T>(b[lane]) & ~mask) | (shifted & mask));
    });
  }
};
template <class T>
struct ExtractBits {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map3<T, T, uint32_t, uint32_t>(w, i, m, [](T a, uint32_t position, uint32_t length) {
      const unsigned begin = position & 0xff, count = length & 0xff, last = kBits<T> - 1;
      const unsigned sign_bit = std::min(begin + count - 1, last);
      const bool fill = std::is_signed_v<T> && count && (Unsigned<T>(a) >> sign_bit & 1);
      Unsigned<T> result = fill ? ~Unsigned<T>(0) : 0;
      for (unsigned bit = 0; bit < count && bit <= last && begin + bit <= last; ++bit) {
        const Unsigned<T> one = Unsigned<T>(1) << bit;
        result = Unsigned<T>(a) >> (begin + bit) & 1 ? result | one : result & ~one;
      }
      return static_cast<T>(result);
    });
  }
};

template <class T>
struct CountBits {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<uint32_t, T>(w, i, m, [](T a) { return static_cast<uint32_t>(__builtin_popcountll(Unsigned<T>(a))); });
  }
};
template <class T>
uint32_t leading_zeros(T a) {
  return a ? static_cast<uint32_t>(__builtin_clzll(Unsigned<T>(a)) - (64 - kBits<T>)) : kBits<T>;
}
template <class T>
struct CountLeadingZeros {
  static void run(Warp& w, const Instruction& i, Mask m) { map1<uint32_t, T>(w, i, m, leading_zeros<T>); }
};
// The highest bit that differs from the sign, or all ones when none does.
template <class T>
struct FindBit {
  static void run(Warp& w, const Instruction& i, Mask m) {
    const bool shift = i.has(Word::kShiftamt);
    map1<uint32_t, T>(w, i, m, [=](T a) {
      const T positive = a < 0 ? static_cast<T>(~a) : a;
      if (positive == 0) return ~0u;
      const uint32_t zeros = leading_zeros(positive);
      return shift ? zeros : kBits<T> - 1 - zeros;
    });
  }
};
template <class T>
struct ReverseBits {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) {
      T result = 0;
      for (int bit = 0; bit < kBits<T>; ++bit) result |= (a >> bit & 1) << (kBits<T> - 1 - bit);
      return result;
    });
  }
};

// --- comparisons ---

enum class Comparison { kEq, kNe, kLt, kLe, kGt, kGe, kNumber, kNan };

template <class T, Comparison kComparison>
bool compare(T a, T b, bool with_nan) {
  const bool missing = a != a || b != b;
  if constexpr (kComparison == Comparison::kNumber) return !missing;
  if (missing) return with_nan;
  switch (kComparison) {
    case Comparison::kEq:
      return a == b;
    case Comparison::kNe:
      return a != b;
    case Comparison::kLt:
      return a < b;
    case Comparison::kLe:
      return a <= b;
    case Comparison::kGt:
      return a > b;
    case Comparison::kGe:
      return a >= b;
    default:
      return false;
  }
}

bool find_comparison(Instruction& in) {
  static const std::map<std::string, Comparison> names = {
      {"eq", Comparison::kEq}, {"ne", Comparison::kNe}, {"lt", Comparison::kLt},      {"le", Comparison::kLe},
      {"gt", Comparison::kGt}, {"ge", Comparison::kGe}, {"lo", Comparison::kLt},      {"ls", Comparison::kLe},
      {"hi", Comparison::kGt}, {"hs", Comparison::kGe}, {"num", Comparison::kNumber}, {"nan", Comparison::kNan}};
  std::string name = in.parts.at(1);
  in.with_nan = is_float(in.type) && ((name.size() == 3 && name.back() == 'u') || name == "nan");
  if (in.with_nan && name.back() == 'u') name.pop_back();
  const auto found = names.find(name);
  if (found == names.end()) return false;
  in.comparison = static_cast<uint8_t>(found->second);
  return true;
}

template <class T, Comparison kComparison>
void set_predicate(Warp& w, const Instruction& i, Mask m) {
  const uint64_t *a = w.operand(i.from[0]), *b = w.operand(i.from[1]);
  uint64_t ignored[kLanes];
  uint64_t* to = i.to[0] == kIgnored ? ignored : w.row(i.to[0]);
  const bool with_nan = i.with_nan;
  if (i.from.size() == 2 && i.to.size() == 1) {
    return for_lanes(
        m, [&](int lane) { to[lane] = compare<T, kComparison>(value_of<T>(a[lane]), value_of<T>(b[lane]), with_nan); });
  }
  uint64_t* opposite = i.to.size() < 2 || i.to[1] == kIgnored ? ignored : w.row(i.to[1]);
  const uint64_t* with = i.from.size() > 2 ? w.operand(i.from[2]) : nullptr;
  const auto combine = [&](bool result, bool other) {
    if (!with) return result;
    return i.has(Word::kAnd) ? result && other : i.has(Word::kOr) ? result || other : result != other;
  };
  for_lanes(m, [&](int lane) {
    const bool result = compare<T, kComparison>(value_of<T>(a[lane]), value_of<T>(b[lane]), with_nan),
               other = with && (with[lane] & 1);
    to[lane] = combine(result, other);
    opposite[lane] = combine(!result, other);
  });
}

template <class T>
struct SetPredicate {
  static Compute find(const Instruction& in) {
    switch (static_cast<Comparison>(in.comparison)) {
      case Comparison::kEq:
        return set_predicate<T, Comparison::kEq>;
      case Comparison::kNe:
        return set_predicate<T, Comparison::kNe>;
      case Comparison::kLt:
        return set_predicate<T, Comparison::kLt>;
      case Comparison::kLe:
        return set_predicate<T, Comparison::kLe>;
      case Comparison::kGt:
        return set_predicate<T, Comparison::kGt>;
      case Comparison::kGe:
        return set_predicate<T, Comparison::kGe>;
      case Comparison::kNumber:
        return set_predicate<T, Comparison::kNumber>;
      case Comparison::kNan:
        return set_predicate<T, Comparison::kNan>;
    }
    return nullptr;
  }
};

template <class T>
struct Select {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map3<T, T, T, uint8_t>(w, i, m, [](T a, T b, uint8_t chosen) { return chosen ? a : b; });
  }
};

// --- moves ---

template <class T>
struct Move {
  static void run(Warp& w, const Instruction& i, Mask m) {
    if (i.to.size() == 1 && i.from.size() == 1) return map1<T, T>(w, i, m, [](T a) { return a; });
    const bool packs = i.from.size() > 1;
    const size_t parts = packs ? i.from.size() : i.to.size();
    const unsigned bits = static_cast<unsigned>(kBits<T> / parts);
    const uint64_t mask = ~uint64_t{0} >> (64 - bits);
    for_lanes(m, [&](int lane) {
      uint64_t whole = 0;
      for (size_t part = 0; part < parts; ++part) {
        if (packs)
          whole |= (w.operand(i.from[part])[lane] & mask) << part * bits;
        else if (i.to[part] != kIgnored)
          w.row(i.to[part])[lane] = w.operand(i.from[0])[lane] >> part * bits & mask;
      }
      if (packs) w.row(i.to[0])[lane] = whole;
    });
  }
};

// Generic addresses of shared and local memory are in windows of their own.
void change_window(Warp& w, const Instruction& i, Mask m) {
  const uint64_t window = i.space == Space::kShared ? kSharedWindow : i.space == Space::kLocal ? kLocalWindow : 0;
  const uint64_t change = i.has(Word::kTo) ? 0 - window : window;
  map1<uint64_t, uint64_t>(w, i, m, [=](uint64_t address) { return address + change; });
}

// --- conversions ---

template <class To, class From>
To to_integer(From value, bool up, bool down, bool nearest) {
  using Limits = std::numeric_limits<To>;
  if (value != value)
    return sizeof(To) == 8 && !std::is_signed_v<To> ? To(uint64_t{1} << 63) : sizeof(To) == 8 ? Limits::min() : To(0);
  const From whole = up        ? std::ceil(value)
                     : down    ? std::floor(value)
                     : nearest ? std::nearbyint(value)
                               : std::trunc(value);
  if (whole <= static_cast<From>(Limits::min())) return Limits::min();
  if (whole >= static_cast<From>(Limits::max())) return Limits::max();
  return static_cast<To>(whole);
}

template <class To, class From>
void convert_as(Warp& w, const Instruction& i, Mask m) {
  const bool up = i.has(Word::kRpi), down = i.has(Word::kRmi), nearest = i.has(Word::kRni),
             saturates = i.has(Word::kSat);
  const bool rounds_to_whole = kIsFloat<To> && kIsFloat<From> && (up || down || nearest || i.has(Word::kRzi));
  map1<To, From>(w, i, m, [=](From value) -> To {
    if constexpr (kIsFloat<From> && !kIsFloat<To>) {
      return to_integer<To>(value, up, down, nearest);
    } else if constexpr (kIsFloat<To>) {
      To result = static_cast<To>(value);
      if (rounds_to_whole)
        result = up        ? std::ceil(result)
                 : down    ? std::floor(result)
                 : nearest ? std::nearbyint(result)
                           : std::trunc(result);
      if (saturates) result = result >= 1 ? To(1) : result > 0 ? result : To(0);
      return result;
    } else {
      return static_cast<To>(value);
    }
  });
}

template <class To>
struct ConvertTo {
  template <class From>
  struct Convert {
    static void run(Warp& w, const Instruction& i, Mask m) {
      const int mode = !kIsFloat<To>      ? FE_TONEAREST
                       : i.has(Word::kRz) ? FE_TOWARDZERO
                       : i.has(Word::kRm) ? FE_DOWNWARD
                       : i.has(Word::kRp) ? FE_UPWARD
                                          : FE_TONEAREST;
      if (mode != FE_TONEAREST) std::fesetround(mode);
      convert_as<To, From>(w, i, m);
      if (mode != FE_TONEAREST) std::fesetround(FE_TONEAREST);
    }
  };
};

void half_to_float(Warp& w, const Instruction& i, Mask m) {
  map1<float, uint16_t>(w, i, m, [](uint16_t bits) { return __half2float(__half{bits}); });
}
void float_to_half(Warp& w, const Instruction& i, Mask m) {
  map1<uint16_t, float>(w, i, m, [](float value) { return __float2half_rn(value).bits; });
}

// --- roots, reciprocals, powers ---

template <class T>
struct SquareRoot {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map1<T, T>(w, i, m, [](T a) { return std::sqrt(a); });
  }
};
// The approximate ones are correctly rounded here, which is one of the results that the GPU is allowed to give.
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
// Has the upper 32 bits only.
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

// --- which function for which types ---

template <template <class> class Operation>
Compute for_integers(Type type) {
  switch (type) {
    case Type::kUnsigned16:
    case Type::kBits16:
      return Operation<uint16_t>::run;
    case Type::kUnsigned32:
    case Type::kBits32:
      return Operation<uint32_t>::run;
    case Type::kUnsigned64:
    case Type::kBits64:
      return Operation<uint64_t>::run;
    case Type::kSigned16:
      return Operation<int16_t>::run;
    case Type::kSigned32:
      return Operation<int32_t>::run;
    case Type::kSigned64:
      return Operation<int64_t>::run;
    default:
      return nullptr;
  }
}

template <template <class> class Operation>
Compute for_narrow_integers(Type type) {  // whose products fit a register
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

template <template <class> class Operation>
Compute for_floats(Type type) {
  return type == Type::kFloat ? Operation<float>::run : type == Type::kDouble ? Operation<double>::run : nullptr;
}

template <template <class> class Operation>
Compute for_numbers(Type type) {
  return is_float(type) ? for_floats<Operation>(type) : for_integers<Operation>(type);
}

template <template <class> class Operation>
Compute for_bits(Type type) {
  if (type == Type::kPred) return Operation<uint8_t>::run;
  return for_integers<Operation>(type);
}

template <template <class> class Operation>
Compute for_bytes_too(Type type) {
  if (type == Type::kUnsigned8) return Operation<uint8_t>::run;
  if (type == Type::kSigned8) return Operation<int8_t>::run;
  return for_numbers<Operation>(type);
}

Compute conversion(const Instruction& in) {
  const Type to = in.type, from = in.from_type;
  if (to == Type::kFloat && from == Type::kHalf) return half_to_float;
  if (to == Type::kHalf && from == Type::kFloat && in.has(Word::kRn)) return float_to_half;
  switch (to) {
    case Type::kUnsigned8:
      return for_bytes_too<ConvertTo<uint8_t>::Convert>(from);
    case Type::kSigned8:
      return for_bytes_too<ConvertTo<int8_t>::Convert>(from);
    case Type::kUnsigned16:
      return for_bytes_too<ConvertTo<uint16_t>::Convert>(from);
    case Type::kSigned16:
      return for_bytes_too<ConvertTo<int16_t>::Convert>(from);
    case Type::kUnsigned32:
      return for_bytes_too<ConvertTo<uint32_t>::Convert>(from);
    case Type::kSigned32:
      return for_bytes_too<ConvertTo<int32_t>::Convert>(from);
    case Type::kUnsigned64:
      return for_bytes_too<ConvertTo<uint64_t>::Convert>(from);
    case Type::kSigned64:
      return for_bytes_too<ConvertTo<int64_t>::Convert>(from);
    case Type::kFloat:
      return for_bytes_too<ConvertTo<float>::Convert>(from);
    case Type::kDouble:
      return for_bytes_too<ConvertTo<double>::Convert>(from);
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

Compute comparison(const Instruction& in) {
  switch (in.type) {
    case Type::kUnsigned16:
    case Type::kBits16:
      return SetPredicate<uint16_t>::find(in);
    case Type::kUnsigned32:
    case Type::kBits32:
      return SetPredicate<uint32_t>::find(in);
    case Type::kUnsigned64:
    case Type::kBits64:
      return SetPredicate<uint64_t>::find(in);
    case Type::kSigned16:
      return SetPredicate<int16_t>::find(in);
    case Type::kSigned32:
      return SetPredicate<int32_t>::find(in);
    case Type::kSigned64:
      return SetPredicate<int64_t>::find(in);
    case Type::kFloat:
      return SetPredicate<float>::find(in);
    case Type::kDouble:
      return SetPredicate<double>::find(in);
    default:
      return nullptr;
  }
}

Class arithmetic_class(Type type) {
  return type == Type::kFloat ? Class::kFloat : type == Type::kDouble ? Class::kDouble : Class::kInteger;
}

// Instructions of one lane.
bool decode_compute(Instruction& in) {
  struct Entry {
    Compute (*find)(const Instruction&);
    Class (*counted_as)(const Instruction&);
  };
#define BY_TYPE(function) [](const Instruction& in) { return function(in.type); }
  static const auto arithmetic = [](const Instruction& in) { return arithmetic_class(in.type); };
  static const auto integer = [](const Instruction&) { return Class::kInteger; };
  static const auto compare = [](const Instruction&) { return Class::kCompare; };
  static const auto special = [](const Instruction&) { return Class::kSpecial; };
  static const auto move = [](const Instruction&) { return Class::kMove; };
  static const auto convert = [](const Instruction&) { return Class::kConvert; };
  static const auto logic = [](const Instruction& in) {
    return in.type == Type::kPred ? Class::kCompare : Class::kInteger;
  };
  static const std::map<std::string, Entry> table = {
      {"add", {BY_TYPE(for_numbers<Add>), arithmetic}},
      {"sub", {BY_TYPE(for_numbers<Sub>), arithmetic}},
      {"mul", {[](const Instruction& in) { return multiplication(in, false); }, arithmetic}},
      {"mad", {[](const Instruction& in) { return multiplication(in, true); }, arithmetic}},
      {"fma", {BY_TYPE(for_floats<Fma>), arithmetic}},
      {"div", {BY_TYPE(for_numbers<Div>), special}},
      {"rem", {BY_TYPE(for_integers<Rem>), special}},
      {"min", {BY_TYPE(for_numbers<Min>), arithmetic}},
      {"max", {BY_TYPE(for_numbers<Max>), arithmetic}},
      {"abs", {BY_TYPE(for_numbers<Abs>), arithmetic}},
      {"neg", {BY_TYPE(for_numbers<Neg>), arithmetic}},
      {"and", {BY_TYPE(for_bits<And>), logic}},
      {"or", {BY_TYPE(for_bits<Or>), logic}},
      {"xor", {BY_TYPE(for_bits<Xor>), logic}},
      {"not",
       {[](const Instruction& in) { return in.type == Type::kPred ? not_predicate : for_integers<Not>(in.type); },
        logic}},
      {"shl", {BY_TYPE(for_integers<Shl>), integer}},
      {"shr", {BY_TYPE(for_integers<Shr>), integer}},
      {"shf", {[](const Instruction&) -> Compute { return funnel; }, integer}},
      {"lop3", {[](const Instruction&) -> Compute { return look_up_bits; }, integer}},
      {"prmt",
       {[](const Instruction& in) -> Compute { return in.parts.size() == 2 ? permute_bytes : nullptr; }, integer}},
      {"bfi", {BY_TYPE(for_integers<InsertBits>), integer}},
      {"bfe", {BY_TYPE(for_integers<ExtractBits>), integer}},
      {"popc", {BY_TYPE(for_integers<CountBits>), integer}},
      {"clz", {BY_TYPE(for_integers<CountLeadingZeros>), integer}},
      {"bfind", {BY_TYPE(for_integers<FindBit>), integer}},
      {"brev", {BY_TYPE(for_integers<ReverseBits>), integer}},
      {"setp", {comparison, compare}},
      {"selp", {BY_TYPE(for_numbers<Select>), compare}},
      {"mov",
       {[](const Instruction& in) { return in.type == Type::kPred ? Move<uint8_t>::run : for_numbers<Move>(in.type); },
        move}},
      {"cvt", {conversion, convert}},
      {"sqrt", {BY_TYPE(for_floats<SquareRoot>), special}},
      {"rsqrt", {BY_TYPE(for_floats<InverseSquareRoot>), special}},
      {"rcp", {reciprocal, special}},
      {"ex2", {[](const Instruction& in) { return in.type == Type::kFloat ? power_of_two : nullptr; }, special}},
      {"lg2", {[](const Instruction& in) { return in.type == Type::kFloat ? binary_logarithm : nullptr; }, special}},
  };
#undef BY_TYPE
  const auto found = table.find(in.parts[0]);
  if (found == table.end()) return false;
  if (in.parts[0] == "setp" && !find_comparison(in)) return false;
  in.kind = Kind::kCompute;
  in.compute = found->second.find(in);
  in.counted_as = found->second.counted_as(in);
  return in.compute != nullptr;
}

Space space_of(const Instruction& in) {
  if (in.has(Word::kGlobal)) return Space::kGlobal;
  if (in.has(Word::kShared)) return Space::kShared;
  if (in.has(Word::kLocal)) return Space::kLocal;
  if (in.has(Word::kParam)) return Space::kParam;
  return Space::kGeneric;
}

bool decode_access(Instruction& in) {
  const std::string& name = in.parts[0];
  in.space = space_of(in);
  in.strong = in.has(Word::kVolatile) || in.has(Word::kRelaxed) || in.has(Word::kAcquire) || in.has(Word::kRelease) ||
              in.has(Word::kAcqRel);
  in.acquire = in.has(Word::kAcquire) || in.has(Word::kAcqRel);
  in.release = in.has(Word::kRelease) || in.has(Word::kAcqRel);
  in.kind = name == "ld" ? Kind::kLoad : name == "st" ? Kind::kStore : Kind::kAtomic;
  in.counted_as = in.space == Space::kParam    ? Class::kMove
                  : in.kind == Kind::kAtomic   ? Class::kAtomic
                  : in.space == Space::kShared ? Class::kShared
                                               : Class::kGlobal;
  if (in.kind == Kind::kAtomic) in.strong = true;
  return true;
}

}  // namespace

int size_of(Type type) {
  static const int sizes[] = {1, 1, 2, 4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 0};
  return sizes[static_cast<int>(type)];
}
bool is_signed(Type type) { return type >= Type::kSigned8 && type <= Type::kSigned64; }
bool is_float(Type type) { return type >= Type::kHalf && type <= Type::kDouble; }

const char* name_of(Class kind) {
  static const char* const names[] = {"float32", "float64", "integer", "compare",  "convert", "move",   "special",
                                      "global",  "shared",  "atomic",  "exchange", "branch",  "barrier"};
  return names[static_cast<int>(kind)];
}

bool decode(Instruction& in) {
  const auto set = [&in](Kind kind, Class counted_as) {
    in.kind = kind;
    in.counted_as = counted_as;
    return true;
  };
  const std::string& name = in.parts[0];
  if (name == "bra") return set(Kind::kBranch, Class::kBranch);
  if (name == "ret" || name == "exit") return set(Kind::kExit, Class::kBranch);
  if (name == "bar" && in.has(Word::kWarp)) return set(Kind::kWarpBarrier, Class::kExchange);
  if (name == "bar" || name == "barrier") return in.has(Word::kSync) && set(Kind::kBlockBarrier, Class::kBarrier);
  if (name == "shfl") return set(Kind::kShuffle, Class::kExchange);
  if (name == "vote") return set(Kind::kVote, Class::kExchange);
  if (name == "match") return set(Kind::kMatch, Class::kExchange);
  if (name == "membar" || name == "fence") return set(Kind::kFence, Class::kBarrier);
  if (name == "nanosleep") return set(Kind::kNothing, Class::kBranch);
  if (name == "trap") return set(Kind::kTrap, Class::kBranch);
  if (name == "ld" || name == "st" || name == "atom" || name == "red") return decode_access(in);
  if (name == "cvta") {
    in.space = space_of(in);
    in.compute = change_window;
    return set(Kind::kCompute, Class::kMove);
  }
  return decode_compute(in);
}

}  // namespace ptx
