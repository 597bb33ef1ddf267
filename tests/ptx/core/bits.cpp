// Logic, shifts, and other operations on single bits.
#include <algorithm>
#include <functional>

#include "operations.h"

namespace ptx {
namespace {

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

// The three bits of the operands select each bit from the table.
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

// Selects four of the eight bytes of {b, a}.
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
// The highest bit that differs from the sign, or all ones if none does.
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

// --- by name ---

template <template <class> class Operation>
Compute for_bits(Type type) {
  if (type == Type::kPred) return Operation<uint8_t>::run;
  return for_integers<Operation>(type);
}

template <template <class> class Name>
Compute logic_operation(const Instruction& in) {
  return for_bits<Name>(in.type);
}

Class logic(const Instruction& in) { return in.type == Type::kPred ? Class::kCompare : Class::kInteger; }

}  // namespace

const Operations& bit_operations() {
  constexpr auto integer = always<Class::kInteger>;
  static const Operations operations = {
      {"and", {logic_operation<And>, logic}},
      {"or", {logic_operation<Or>, logic}},
      {"xor", {logic_operation<Xor>, logic}},
      {"not",
       {[](const Instruction& in) { return in.type == Type::kPred ? not_predicate : for_integers<Not>(in.type); },
        logic}},
      {"shl", {integer_operation<Shl>, integer}},
      {"shr", {integer_operation<Shr>, integer}},
      {"shf", {[](const Instruction&) -> Compute { return funnel; }, integer}},
      {"lop3", {[](const Instruction&) -> Compute { return look_up_bits; }, integer}},
      {"prmt",
       {[](const Instruction& in) -> Compute { return in.parts.size() == 2 ? permute_bytes : nullptr; }, integer}},
      {"bfi", {integer_operation<InsertBits>, integer}},
      {"bfe", {integer_operation<ExtractBits>, integer}},
      {"popc", {integer_operation<CountBits>, integer}},
      {"clz", {integer_operation<CountLeadingZeros>, integer}},
      {"bfind", {integer_operation<FindBit>, integer}},
      {"brev", {integer_operation<ReverseBits>, integer}},
  };
  return operations;
}

}  // namespace ptx
