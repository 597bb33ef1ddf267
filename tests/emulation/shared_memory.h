// The shared memory of a block: poisoned before it begins, guarded on both sides.
#pragma once

#include <cstddef>
#include <memory>

namespace ccfast::emulation {

class SharedMemory {
 public:
  SharedMemory();
  // Allocates `bytes`, with guards directly before and after.
  void resize(size_t bytes);
  // Makes the data of the previous block unreadable.
  void poison();
  // Whether both guards are unchanged.
  bool intact() const;
  void* data() const { return start_; }
  size_t size() const { return bytes_; }

 private:
  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* start_;
  size_t bytes_ = 0;
};

}  // namespace ccfast::emulation
