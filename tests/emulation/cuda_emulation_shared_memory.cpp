#include <algorithm>
#include <cstring>

#include "asan.h"
#include "runtime.h"
#include "shared_memory.h"

namespace ccfast::emulation {
namespace {

// Wide enough to catch a write that is off by a row of a small tile.
constexpr size_t kGuardBytes = 4096;
constexpr size_t kTotalBytes = kMaxSharedBytes + 2 * kGuardBytes;

// Guards hold the poison too: a read beyond the end gives NaN, even without a sanitizer.
void fill(unsigned char* begin, size_t bytes) {
  for (size_t i = 0; i < bytes; i += sizeof kPoison)
    std::memcpy(begin + i, &kPoison, std::min(bytes - i, sizeof kPoison));
}

#ifndef CCFAST_ASAN
bool filled(const unsigned char* begin, size_t bytes) {
  for (size_t i = 0; i < bytes; i += sizeof kPoison)
    if (std::memcmp(begin + i, &kPoison, std::min(bytes - i, sizeof kPoison)) != 0) return false;
  return true;
}
#endif

}  // namespace

// The start is aligned to 16 bytes but not to 32, so that a sanitizer finds kernels that need a larger alignment.
SharedMemory::SharedMemory() : memory_(new unsigned char[kTotalBytes + 64]) {
  const size_t misalignment = reinterpret_cast<uintptr_t>(memory_.get()) % 32;
  start_ = memory_.get() + kGuardBytes + (misalignment <= 16 ? 16 : 48) - misalignment;
}

void SharedMemory::resize(size_t bytes) {
  bytes_ = bytes;
#ifdef CCFAST_ASAN
  __asan_poison_memory_region(start_ - kGuardBytes, kGuardBytes);
  __asan_unpoison_memory_region(start_, kMaxSharedBytes);
  __asan_poison_memory_region(start_ + bytes, kMaxSharedBytes + kGuardBytes - bytes);
#else
  fill(start_ - kGuardBytes, kGuardBytes);
  fill(start_ + bytes, kGuardBytes);
#endif
}

void SharedMemory::poison() { fill(start_, bytes_); }

bool SharedMemory::intact() const {
#ifdef CCFAST_ASAN
  return true;  // AddressSanitizer watches the guards
#else
  return filled(start_ - kGuardBytes, kGuardBytes) && filled(start_ + bytes_, kGuardBytes);
#endif
}

}  // namespace ccfast::emulation
