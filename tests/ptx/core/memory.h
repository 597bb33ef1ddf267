// The memory of a launch: the global memory that a kernel may access, and a block's shared memory.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "races.h"

namespace ptx {

// Ranges of host memory that represent device memory. The allocator maintains them: see allocations.cpp.
class Allocations {
 public:
  void add(uint64_t begin, uint64_t bytes);
  void remove(uint64_t begin);
  std::vector<std::pair<uint64_t, uint64_t>> sorted() const;  // begin, end

 private:
  mutable std::mutex mutex_;
  std::map<uint64_t, uint64_t> bytes_of_;
};

class GlobalMemory {
 public:
  struct Part {
    uint64_t begin, end;
    std::unique_ptr<Shadow> shadow;
  };
  explicit GlobalMemory(const Allocations& allocations);
  // The allocation that holds all the bytes, or null.
  Part* find(uint64_t address, int bytes);

 private:
  std::vector<Part> parts_;
  Part* last_ = nullptr;
};

struct SharedMemory {
  std::vector<uint8_t> bytes;
  std::vector<uint8_t> written;  // of each byte, 0 or 1
  Shadow shadow;

  explicit SharedMemory(size_t size);
  bool all_written(uint64_t offset, size_t count) const;
};

// 32-byte sectors of global memory that one warp's request touches.
int sectors(const uint64_t* addresses, Mask lanes, int bytes);
// How many cycles shared memory needs per request of a warp: it has 32 banks of 4 bytes, and serves at once all threads
// with 4 bytes or less, half a warp with 8 bytes, a quarter with 16. Atomics on one word wait for each other.
int wavefronts(const uint64_t* offsets, Mask lanes, int bytes, bool atomic);

}  // namespace ptx
