// Comparisons, and selections by their results.
#include <map>
#include <string>

#include "half.h"
#include "operations.h"

namespace ptx {
namespace {

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

template <template <Comparison> class Operation>
Compute by_comparison(const Instruction& in) {
  switch (static_cast<Comparison>(in.comparison)) {
    case Comparison::kEq:
      return Operation<Comparison::kEq>::run;
    case Comparison::kNe:
      return Operation<Comparison::kNe>::run;
    case Comparison::kLt:
      return Operation<Comparison::kLt>::run;
    case Comparison::kLe:
      return Operation<Comparison::kLe>::run;
    case Comparison::kGt:
      return Operation<Comparison::kGt>::run;
    case Comparison::kGe:
      return Operation<Comparison::kGe>::run;
    case Comparison::kNumber:
      return Operation<Comparison::kNumber>::run;
    case Comparison::kNan:
      return Operation<Comparison::kNan>::run;
  }
  return nullptr;
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
  template <Comparison kComparison>
  struct Run {
    static void run(Warp& w, const Instruction& i, Mask m) { set_predicate<T, kComparison>(w, i, m); }
  };
  static Compute find(const Instruction& in) { return by_comparison<Run>(in); }
};

// 1 or 0 in half precision for each half of a register.
template <Comparison kComparison>
struct SetHalves {
  static void run(Warp& w, const Instruction& i, Mask m) {
    const bool with_nan = i.with_nan;
    map2<uint32_t, uint32_t, uint32_t>(w, i, m, [=](uint32_t a, uint32_t b) {
      uint32_t result = 0;
      for (int shift = 0; shift < 32; shift += 16) {
        const auto half = [shift](uint32_t pair) {
          return __half2float(__half{static_cast<uint16_t>(pair >> shift & 0xffff)});
        };
        result |= (compare<float, kComparison>(half(a), half(b), with_nan) ? 0x3c00u : 0u) << shift;
      }
      return result;
    });
  }
};

Compute set(const Instruction& in) {
  const bool halves = in.parts.size() == 4 && in.parts[2] == "f16x2" && in.parts[3] == "f16x2";
  return halves ? by_comparison<SetHalves>(in) : nullptr;
}

template <class T>
struct Select {
  static void run(Warp& w, const Instruction& i, Mask m) {
    map3<T, T, T, uint8_t>(w, i, m, [](T a, T b, uint8_t chosen) { return chosen ? a : b; });
  }
};

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

}  // namespace

bool find_comparison(Instruction& in) {
  static const std::map<std::string, Comparison> names = {
      {"eq", Comparison::kEq}, {"ne", Comparison::kNe}, {"lt", Comparison::kLt},      {"le", Comparison::kLe},
      {"gt", Comparison::kGt}, {"ge", Comparison::kGe}, {"lo", Comparison::kLt},      {"ls", Comparison::kLe},
      {"hi", Comparison::kGt}, {"hs", Comparison::kGe}, {"num", Comparison::kNumber}, {"nan", Comparison::kNan}};
  std::string name = in.parts.at(1);
  in.with_nan =
      (is_float(in.type) || in.parts[0] == "set") && ((name.size() == 3 && name.back() == 'u') || name == "nan");
  if (in.with_nan && name.back() == 'u') name.pop_back();
  const auto found = names.find(name);
  if (found == names.end()) return false;
  in.comparison = static_cast<uint8_t>(found->second);
  return true;
}

const Operations& comparison_operations() {
  static const Operations operations = {
      {"set", {set, always<Class::kCompare>}},
      {"setp", {comparison, always<Class::kCompare>}},
      {"selp", {number_operation<Select>, always<Class::kCompare>}},
  };
  return operations;
}

}  // namespace ptx
