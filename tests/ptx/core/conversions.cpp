// Moves and conversions.
#include <cfenv>
#include <cmath>
#include <limits>

#include "half.h"
#include "operations.h"

namespace ptx {
namespace {

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

}  // namespace

// Generic addresses of shared and local memory are in separate windows.
void change_window(Warp& w, const Instruction& i, Mask m) {
  const uint64_t window = i.space == Space::kShared ? kSharedWindow : i.space == Space::kLocal ? kLocalWindow : 0;
  const uint64_t change = i.has(Word::kTo) ? 0 - window : window;
  map1<uint64_t, uint64_t>(w, i, m, [=](uint64_t address) { return address + change; });
}

const Operations& conversion_operations() {
  static const Operations operations = {
      {"mov",
       {[](const Instruction& in) { return in.type == Type::kPred ? Move<uint8_t>::run : for_numbers<Move>(in.type); },
        always<Class::kMove>}},
      {"cvt", {conversion, always<Class::kConvert>}},
  };
  return operations;
}

}  // namespace ptx
