// The shared memory of a block: poisoned before it begins, guarded on both sides.
#pragma once

#include <cstddef>
#include <memory>

namespace ccfast::emulation {

class SharedMemory {
 public:
  SharedMemory();
  // Room for `bytes`; the guards lie right before and behind.
  void resize(size_t bytes);
  // Makes what the block before has left unreadable.
  void poison();
  // Whether both guards are as they were.
  bool intact() const;
  void* data() const { return start_; }
  size_t size() const { return bytes_; }

 private:
  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* start_;
  size_t bytes_ = 0;
};

}  // namespace ccfast::emulation
