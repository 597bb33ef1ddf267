// Loads, stores and atomics: addresses, permission, cost.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "launch.h"

namespace ptx {
namespace {

// A value of memory in the form of a register.
uint64_t read_value(const uint8_t* bytes, Type type) {
  uint64_t bits = 0;
  const int size = size_of(type);
  std::memcpy(&bits, bytes, static_cast<size_t>(size));
  if (is_signed(type) && size < 8) {
    const int unused = 64 - 8 * size;
    bits = static_cast<uint64_t>(static_cast<int64_t>(bits << unused) >> unused);
  }
  return bits;
}

template <class T>
T changed(const Instruction& in, T old, T value, T other) {
  const auto sum = [](T a, T b) {
    if constexpr (std::is_floating_point_v<T>)
      return a + b;
    else
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  };
  if (in.has(Word::kAdd)) return sum(old, value);
  if (in.has(Word::kMin)) return std::min(old, value);
  if (in.has(Word::kMax)) return std::max(old, value);
  if (in.has(Word::kExch)) return value;
  if (in.has(Word::kCas)) return old == value ? other : old;
  if constexpr (std::is_unsigned_v<T>) {
    if (in.has(Word::kAnd)) return old & value;
    if (in.has(Word::kOr)) return old | value;
    if (in.has(Word::kXor)) return old ^ value;
    if (in.has(Word::kInc)) return old >= value ? 0 : old + 1;
    if (in.has(Word::kDec)) return old == 0 || old > value ? value : old - 1;
  }
  throw LaunchError("not known to the executor: " + in.text);
}

template <class T>
uint64_t change(const Instruction& in, uint8_t* bytes, uint64_t value, uint64_t other) {
  T old;
  std::memcpy(&old, bytes, sizeof old);
  const T fresh = changed<T>(in, old, value_of<T>(value), value_of<T>(other));
  std::memcpy(bytes, &fresh, sizeof fresh);
  return bits_of(old);
}

using Change = uint64_t (*)(const Instruction&, uint8_t*, uint64_t, uint64_t);

Change change_of(const Instruction& in) {
  switch (in.from_type) {
    case Type::kUnsigned32:
    case Type::kBits32:
      return change<uint32_t>;
    case Type::kUnsigned64:
    case Type::kBits64:
      return change<uint64_t>;
    case Type::kSigned32:
      return change<int32_t>;
    case Type::kSigned64:
      return change<int64_t>;
    case Type::kFloat:
      return change<float>;
    case Type::kDouble:
      return change<double>;
    default:
      throw LaunchError("not known to the executor: " + in.text);
  }
}

}  // namespace

void Launch::load_parameter(Warp& warp, const Instruction& in, Mask lanes) const {
  const uint64_t* address = warp.operand(in.address);
  const int size = size_of(in.from_type);
  for_lanes(lanes, [&](int lane) {
    for (size_t n = 0; n < in.to.size(); ++n) {
      const size_t offset = address[lane] + static_cast<size_t>(in.offset) + n * static_cast<size_t>(size);
      if (offset + static_cast<size_t>(size) > parameters_.size()) throw LaunchError("a load beyond the arguments");
      warp.row(in.to[n])[lane] = read_value(&parameters_[offset], in.from_type);
    }
  });
}

void Launch::access(Warp& warp, const Instruction& in, int at, Mask lanes) {
  if (in.space == Space::kParam) return load_parameter(warp, in, lanes);
  Targets targets;
  locate(warp, in, at, lanes, targets);
  const int size = size_of(in.from_type);
  if (fences_used_ || in.acquire || in.release) order(warp, in, lanes, targets);
  if (in.kind == Kind::kLoad) {
    for (size_t n = 0; n < in.to.size(); ++n) {
      if (in.to[n] == kIgnored) continue;
      uint64_t* to = warp.row(in.to[n]);
      const size_t offset = n * static_cast<size_t>(size);
      for_lanes(lanes, [&](int lane) { to[lane] = read_value(targets.bytes[lane] + offset, in.from_type); });
    }
  } else if (in.kind == Kind::kStore) {
    for (size_t n = 0; n < in.from.size(); ++n) {
      const uint64_t* from = warp.operand(in.from[n]);
      const size_t offset = n * static_cast<size_t>(size);
      for_lanes(lanes,
                [&](int lane) { std::memcpy(targets.bytes[lane] + offset, &from[lane], static_cast<size_t>(size)); });
    }
  } else {
    const Change change = change_of(in);
    uint64_t* to = in.to.empty() || in.to[0] == kIgnored ? nullptr : warp.row(in.to[0]);
    const uint64_t *value = warp.operand(in.from[0]), *other = warp.operand(in.from.back());
    const int first = options_.seed < 0 ? 0 : static_cast<int>(random_() % kLanes);  // any lane can be first
    for (int turn = 0; turn < kLanes; ++turn) {
      const int lane = (first + turn) % kLanes;
      if (!(lanes >> lane & 1)) continue;
      const uint64_t old = change(in, targets.bytes[lane], value[lane], other[lane]);
      if (to) to[lane] = old;
    }
  }
}

void Launch::locate(Warp& warp, const Instruction& in, int at, Mask lanes, Targets& targets) {
  uint64_t addresses[kLanes];
  const uint64_t* base = warp.operand(in.address);
  const uint64_t bytes = static_cast<uint64_t>(size_of(in.from_type) * in.values);
  Mask global = 0, shared = 0, local = 0;
  for_lanes(lanes, [&](int lane) {
    uint64_t address = base[lane] + static_cast<uint64_t>(in.offset);
    Space space = in.space;
    if (space == Space::kGeneric) {
      space = address >= kSharedWindow ? Space::kShared : address >= kLocalWindow ? Space::kLocal : Space::kGlobal;
      address -= space == Space::kShared ? kSharedWindow : space == Space::kLocal ? kLocalWindow : 0;
    }
    addresses[lane] = address;
    (space == Space::kShared ? shared : space == Space::kLocal ? local : global) |= Mask{1} << lane;
    if (address % bytes != 0) fail(warp, at, lane, "misaligned access");
  });
  if (global) locate_global(warp, in, at, global, addresses, targets);
  if (shared) locate_shared(warp, in, at, shared, addresses, targets);
  for_lanes(local, [&](int lane) {
    if (addresses[lane] + bytes > static_cast<uint64_t>(kernel_.local_bytes))
      fail(warp, at, lane, "local memory: out of bounds");
    targets.bytes[lane] =
        &warp.block->local[static_cast<size_t>((warp.number * kLanes + lane) * kernel_.local_bytes) + addresses[lane]];
  });
}

void Launch::locate_global(Warp& warp, const Instruction& in, int at, Mask lanes, const uint64_t* addresses,
                           Targets& targets) {
  const int bytes = size_of(in.from_type) * in.values;
  Counts& counts = counts_[static_cast<size_t>(at)];
  ++counts.requests;
  counts.sectors += static_cast<uint64_t>(sectors(addresses, lanes, bytes));
  for_lanes(lanes, [&](int lane) {
    GlobalMemory::Part* part = global_.find(addresses[lane], bytes);
    if (!part) fail(warp, at, lane, "out of bounds: " + std::to_string(bytes) + " bytes that no allocation holds");
    targets.bytes[lane] = reinterpret_cast<uint8_t*>(addresses[lane]);
    if (warp.any_undefined) follow_global(warp, in, at, lane);
    if (!options_.races) return;
    if (!part->shadow) part->shadow = std::make_unique<Shadow>(part->end - part->begin + 16);
    look_for_race(warp, in, at, lane, *part->shadow, addresses[lane] - (part->begin & ~uint64_t{7}), "global");
  });
}

void Launch::follow_global(Warp& warp, const Instruction& in, int at, int lane) {
  const Mask bit = Mask{1} << lane;
  for (const int row : in.from)
    if (warp.undefined_in(row) & bit) fail(warp, at, lane, "stores what nobody has written to shared memory");
  for (const int row : in.to) warp.set_undefined(row, bit, 0);
}

void Launch::locate_shared(Warp& warp, const Instruction& in, int at, Mask lanes, const uint64_t* offsets,
                           Targets& targets) {
  const int bytes = size_of(in.from_type) * in.values;
  Counts& counts = counts_[static_cast<size_t>(at)];
  SharedMemory& shared = warp.block->shared;
  ++counts.requests;
  for_lanes(lanes, [&](int lane) {
    const uint64_t offset = offsets[lane], end = offset + static_cast<uint64_t>(bytes);
    if (end > shared.bytes.size() || offset > end)
      fail(warp, at, lane,
           "shared memory: out of bounds: byte " + std::to_string(offset) + " of " +
               std::to_string(shared.bytes.size()));
    targets.bytes[lane] = &shared.bytes[offset];
    follow_copy(warp, in, at, lane, offset);
    if (options_.races) look_for_race(warp, in, at, lane, shared.shadow, offset, "shared");
  });
  counts.wavefronts += static_cast<uint64_t>(wavefronts(offsets, lanes, bytes, in.kind == Kind::kAtomic));
}

// Tracks which values of shared memory, and of the registers of this access, have been written.
void Launch::follow_copy(Warp& warp, const Instruction& in, int at, int lane, uint64_t offset) {
  SharedMemory& shared = warp.block->shared;
  const auto size = static_cast<size_t>(size_of(in.from_type));
  const Mask bit = Mask{1} << lane;
  if (in.kind == Kind::kAtomic && !shared.all_written(offset, size))
    fail(warp, at, lane, "changes shared memory that nobody has written");
  if (in.kind == Kind::kStore) {
    for (size_t n = 0; n < in.from.size(); ++n)
      std::memset(&shared.written[offset + n * size], warp.undefined_in(in.from[n]) & bit ? 0 : 1, size);
  } else if (in.kind == Kind::kLoad) {
    const size_t all = size * in.to.size();
    if (!warp.any_undefined && shared.all_written(offset, all)) return;
    for (size_t n = 0; n < in.to.size(); ++n)
      warp.set_undefined(in.to[n], bit, shared.all_written(offset + n * size, size) ? 0 : bit);
  }
}

void Launch::look_for_race(Warp& warp, const Instruction& in, int at, int lane, Shadow& shadow, uint64_t offset,
                           const char* memory) {
  const BlockClocks& clocks = warp.block->clocks;
  const int thread = warp.number * kLanes + lane;
  const uint32_t number = warp.block->number * static_cast<uint32_t>(shape_.threads) + static_cast<uint32_t>(thread);
  const Access now(number, at, in.strong, clocks.clock(thread));
  shadow.access(offset, size_of(in.from_type) * in.values, now, in.kind != Kind::kLoad, clocks, thread,
                [&](const Access& before) { report_race(before, now, memory); });
}

void Launch::report_race(const Access& before, const Access& now, const char* memory) {
  constexpr size_t kMost = 8;
  if (races_.size() >= kMost || !races_.emplace(before.at, now.at).second) return;
  const auto thread = [&](const Access& access) {
    const uint32_t threads = static_cast<uint32_t>(shape_.threads);
    return "block " + std::to_string(access.thread / threads) + " thread " + std::to_string(access.thread % threads) +
           " at " + place(static_cast<int>(access.at));
  };
  race_report_ += std::string(race_report_.empty() ? "" : "\n") + "race in " + memory + " memory: " + thread(before) +
                  ", then " + thread(now);
}

// Ordering by strong accesses and fences.
void Launch::order(Warp& warp, const Instruction& in, Mask lanes, const Targets& targets) {
  if (!in.strong) return;
  fences_used_ = true;
  BlockClocks& clocks = warp.block->clocks;
  for_lanes(lanes, [&](int lane) {
    const int thread = warp.number * kLanes + lane;
    if (in.release) clocks.fence(thread);
    Knowledge& location = locations_[targets.bytes[lane]];
    if (in.kind != Kind::kStore) clocks.strong_read(thread, location);
    if (in.kind != Kind::kLoad) clocks.strong_write(thread, location);
    if (in.acquire) clocks.fence(thread);
  });
}

void Launch::fence(Warp& warp, Mask lanes) {
  fences_used_ = true;
  for_lanes(lanes, [&](int lane) { warp.block->clocks.fence(warp.number * kLanes + lane); });
}

}  // namespace ptx
