// Loops over the lanes, and the choice of an instruction's function by its types.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <type_traits>

#include "machine.h"

namespace ptx {

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

// --- types ---

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
Compute for_floats(Type type) {
  return type == Type::kFloat ? Operation<float>::run : type == Type::kDouble ? Operation<double>::run : nullptr;
}

template <template <class> class Operation>
Compute for_numbers(Type type) {
  return is_float(type) ? for_floats<Operation>(type) : for_integers<Operation>(type);
}

// --- instructions of one lane, by the first part of their names ---

struct Operation {
  Compute (*find)(const Instruction&);  // null for unknown types
  Class (*counted_as)(const Instruction&);
};
using Operations = std::map<std::string, Operation>;

const Operations& arithmetic_operations();
const Operations& bit_operations();
const Operations& comparison_operations();
const Operations& conversion_operations();

template <template <class> class Name>
Compute number_operation(const Instruction& in) {
  return for_numbers<Name>(in.type);
}
template <template <class> class Name>
Compute float_operation(const Instruction& in) {
  return for_floats<Name>(in.type);
}
template <template <class> class Name>
Compute integer_operation(const Instruction& in) {
  return for_integers<Name>(in.type);
}
template <Class kClass>
Class always(const Instruction&) {
  return kClass;
}

// Sets the comparison of a set or setp; false for an unknown name.
bool find_comparison(Instruction& in);
// cvta.
void change_window(Warp& warp, const Instruction& in, Mask lanes);

}  // namespace ptx
