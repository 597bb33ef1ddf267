#include "memory.h"

#include <algorithm>
#include <cstring>

namespace ptx {

void Allocations::add(uint64_t begin, uint64_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes_of_[begin] = bytes;
}

void Allocations::remove(uint64_t begin) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes_of_.erase(begin);
}

std::vector<std::pair<uint64_t, uint64_t>> Allocations::sorted() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<std::pair<uint64_t, uint64_t>> result;
  for (const auto& [begin, bytes] : bytes_of_) result.emplace_back(begin, begin + bytes);
  return result;
}

GlobalMemory::GlobalMemory(const Allocations& allocations) {
  for (const auto& [begin, end] : allocations.sorted()) parts_.push_back({begin, end, nullptr});
}

GlobalMemory::Part* GlobalMemory::find(uint64_t address, int bytes) {
  const auto holds = [&](const Part& part) {
    return part.begin <= address && address + static_cast<uint64_t>(bytes) <= part.end;
  };
  if (last_ && holds(*last_)) return last_;
  auto after = std::upper_bound(parts_.begin(), parts_.end(), address,
                                [](uint64_t value, const Part& part) { return value < part.begin; });
  if (after == parts_.begin() || !holds(*--after)) return nullptr;
  return last_ = &*after;
}

SharedMemory::SharedMemory(size_t size) : bytes(size), written(size, 0), shadow(size) {
  constexpr uint32_t kPoison = 0x7ffbcbcbu;  // as in the emulation
  for (size_t at = 0; at + sizeof kPoison <= size; at += sizeof kPoison)
    std::memcpy(&bytes[at], &kPoison, sizeof kPoison);
}

bool SharedMemory::all_written(uint64_t offset, size_t count) const {
  static const uint8_t ones[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  return std::memcmp(&written[offset], ones, count) == 0;
}

int sectors(const uint64_t* addresses, Mask lanes, int bytes) {
  uint64_t seen[2 * kLanes];
  int count = 0;
  for (Mask left = lanes; left; left &= left - 1) {
    const uint64_t address = addresses[__builtin_ctz(left)];
    for (uint64_t sector = address / 32; sector <= (address + static_cast<uint64_t>(bytes) - 1) / 32; ++sector) {
      int at = count;
      while (at > 0 && seen[at - 1] != sector) --at;
      if (at == 0) seen[count++] = sector;
    }
  }
  return count;
}

namespace {

int wavefronts_at_once(const uint64_t* offsets, Mask lanes, int bytes, bool atomic) {
  uint64_t words[4 * kLanes];
  int count = 0, in_bank[32] = {}, most = 0;
  for (Mask left = lanes; left; left &= left - 1) {
    const uint64_t first = offsets[__builtin_ctz(left)] / 4;
    for (uint64_t word = first; word < first + static_cast<uint64_t>((bytes + 3) / 4); ++word) {
      int at = count;
      while (!atomic && at > 0 && words[at - 1] != word) --at;
      if (!atomic && at > 0) continue;
      words[count++] = word;
      most = std::max(most, ++in_bank[word % 32]);
    }
  }
  return most;
}

}  // namespace

int wavefronts(const uint64_t* offsets, Mask lanes, int bytes, bool atomic) {
  const int at_once = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
  int sum = 0;
  for (int first = 0; first < kLanes; first += at_once) {
    const Mask part = at_once == 32 ? kAllLanes : ((Mask{1} << at_once) - 1) << first;
    sum += wavefronts_at_once(offsets, lanes & part, bytes, atomic);
  }
  return sum;
}

}  // namespace ptx
