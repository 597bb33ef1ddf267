// The state of a launch: blocks, their warps, and groups of lanes that run together.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "ptx.h"

namespace ptx {

// Where generic addresses of shared and local memory start: above all addresses of the host.
constexpr uint64_t kSharedWindow = uint64_t{1} << 62, kLocalWindow = uint64_t{1} << 61;

// Lanes of a warp that are at the same instruction.
struct Group {
  Mask lanes;
  int at;
  enum State : uint8_t { kRuns, kAtBarrier, kAtCollective } state;
};

struct Block;

struct Warp {
  Block* block;
  int number;  // in the block
  std::vector<Group> groups;
  std::vector<uint64_t> registers;
  const std::vector<std::array<uint64_t, kLanes>>* constants;
  // Lanes of each register that hold unwritten values of shared memory. Kernels may copy them, as the padding of
  // a struct is copied, and need not use them.
  std::vector<Mask> undefined;
  bool any_undefined = false;

  uint64_t* row(int index) { return &registers[static_cast<size_t>(index) * kLanes]; }
  Mask undefined_in(int index) const {
    return index >= 0 && index != kIgnored ? undefined[static_cast<size_t>(index)] : 0;
  }
  void set_undefined(int index, Mask of, Mask lanes) {
    if (index == kIgnored) return;
    Mask& all = undefined[static_cast<size_t>(index)];
    all = (all & ~of) | lanes;
    any_undefined |= lanes != 0;
  }
  const uint64_t* operand(int index) {
    return index >= 0 ? row(index) : (*constants)[static_cast<size_t>(~index)].data();
  }
};

template <class Function>
void for_lanes(Mask lanes, const Function& function) {
  if (lanes == kAllLanes) {
    for (int lane = 0; lane < kLanes; ++lane) function(lane);
  } else {
    for (; lanes; lanes &= lanes - 1) function(__builtin_ctz(lanes));
  }
}

// Registers hold bits; those above the type's size are zero or the sign.
template <class T>
T value_of(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
uint64_t bits_of(T value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}

}  // namespace ptx
