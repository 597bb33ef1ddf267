// Finds races: two unordered accesses of different threads to one address, at least one a write and at least one
// plain.
//
// These order accesses (happens-before): the program of a thread, the block's barrier, __syncwarp among its lanes, and
// a fence before a strong write (atomic, volatile) whose location another thread reads, strongly, before its own fence.
// Shuffles and votes order nothing, as CUDA specifies. A thread's clock counts its barriers in the upper 32 bits and
// its other points of order since then in the lower ones; its thread and clock identify an access.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "ptx.h"

namespace ptx {

using Clock = uint64_t;
constexpr Clock kOneBarrier = Clock{1} << 32;

struct Access {
  uint32_t thread = UINT32_MAX;  // of the grid
  uint32_t at : 31;              // instruction
  uint32_t strong : 1;
  Clock clock = 0;

  Access() : at(0), strong(0) {}
  Access(uint32_t thread, int at, bool strong, Clock clock)
      : thread(thread), at(static_cast<uint32_t>(at)), strong(strong), clock(clock) {}
  bool empty() const { return thread == UINT32_MAX; }
};

// What a thread knows about others through fences.
struct Knowledge {
  std::map<uint32_t, Clock> threads;  // accesses up to and including this clock have happened
  std::map<uint32_t, Clock> blocks;   // accesses before this clock

  void join(const Knowledge& other);
};

// The clocks of one block's threads.
class BlockClocks {
 public:
  BlockClocks(uint32_t block, int threads);
  uint32_t threads() const { return threads_; }
  Clock clock(int thread) const { return clocks_[static_cast<size_t>(thread)]; }
  // Whether an access of another thread is known to have happened before the current one of this thread.
  bool ordered(const Access& before, int thread) const;
  void barrier();
  void warp_barrier(int warp, Mask lanes);

  void fence(int thread);
  void strong_write(int thread, Knowledge& location) const;
  void strong_read(int thread, const Knowledge& location);

 private:
  struct Fenced {
    Knowledge known, read, released;
  };
  Knowledge all_known(int thread) const;
  Fenced& fenced(int thread);

  uint32_t block_, first_, threads_;
  std::vector<Clock> clocks_;
  std::vector<Clock> lanes_;  // per warp 32 x 32: what the lane of the row knows about the lane of the column
  std::map<int, Fenced> fenced_;
};

// The last accesses to a range of memory, by units of 1, 2, 4 or 8 bytes: the smallest that the kernel uses there.
class Shadow {
 public:
  explicit Shadow(uint64_t bytes) : pages_((bytes + kPage - 1) / kPage) {}
  // Calls report(earlier) for each earlier access that races with this one.
  template <class Report>
  void access(uint64_t offset, int bytes, const Access& access, bool writes, const BlockClocks& clocks, int thread,
              const Report& report);

 private:
  static constexpr uint64_t kPage = 4096;
  struct Unit {
    Access write;
    // The last reader; then, of those after the last write, the last in another lane of its warp, in another warp of
    // its block, in another block.
    std::array<Access, 4> reads;
  };
  struct Page {
    int unit = 8;
    std::vector<Unit> units;
  };
  Page& page(uint64_t offset, int unit);
  static void add_reader(Unit& unit, const Access& access, uint32_t block_threads);

  std::vector<std::unique_ptr<Page>> pages_;
};

template <class Report>
void Shadow::access(uint64_t offset, int bytes, const Access& now, bool writes, const BlockClocks& clocks, int thread,
                    const Report& report) {
  const int unit_bytes = bytes < 8 ? bytes : 8;
  const auto check = [&](const Access& before) {
    if (before.empty() || before.thread == now.thread || (before.strong && now.strong)) return;
    if (!clocks.ordered(before, thread)) report(before);
  };
  for (uint64_t end = offset + static_cast<uint64_t>(bytes); offset < end;) {
    Page& place = page(offset, unit_bytes);
    Unit& unit = place.units[offset % kPage / static_cast<uint64_t>(place.unit)];
    offset += static_cast<uint64_t>(place.unit);
    check(unit.write);
    if (writes) {
      for (const Access& read : unit.reads) check(read);
      unit.write = now;
      unit.reads = {};
    } else {
      add_reader(unit, now, clocks.threads());
    }
  }
}

}  // namespace ptx
