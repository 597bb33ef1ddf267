// Runs one launch of a kernel.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "machine.h"
#include "memory.h"
#include "races.h"

namespace ptx {

// Counts at one instruction of a kernel, over all its launches.
struct Counts {
  uint64_t executed = 0;    // per warp
  uint64_t lanes = 0;       // active lanes
  uint64_t diverged = 0;    // a branch that split the warp
  uint64_t requests = 0;    // of memory, per warp
  uint64_t sectors = 0;     // of global memory
  uint64_t wavefronts = 0;  // of shared memory
};

struct Options {
  int64_t seed = -1;         // negative: block after block, warp after warp
  int resident_blocks = 16;  // concurrent blocks, with a seed
  bool races = true;
  uint64_t most_instructions = uint64_t{4} << 30;
};

struct LaunchError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Block {
  uint32_t number;
  std::vector<Warp> warps;
  SharedMemory shared;
  BlockClocks clocks;
  std::vector<uint8_t> local;  // of each thread
  int exited = 0;              // threads

  Block(uint32_t number, int threads, size_t shared_bytes)
      : number(number), shared(shared_bytes), clocks(number, threads) {}
};

struct Shape {
  int64_t grid;
  int threads;
  size_t dynamic_shared_bytes;
};

class Launch {
 public:
  Launch(const Kernel& kernel, const Module& module, const Shape& shape, const Options& options,
         const Allocations& allocations, std::vector<uint8_t> parameters, std::vector<Counts>& counts);
  void run();

 private:
  // launch.cpp: the order
  std::unique_ptr<Block> start_block(uint32_t number);
  void end_block(Block& block);
  void fill_special(Warp& warp) const;
  void run_in_order();
  void run_shuffled();
  bool release_barrier(Block& block);
  bool done(const Block& block) const;
  Group* choose(Warp& warp);
  bool run_warp(Warp& warp, int64_t budget);
  void execute(Warp& warp, Group& group);
  void branch(Warp& warp, Group& group, const Instruction& in, Mask active);
  void leave(Warp& warp, Group& group, Mask active);
  static void merge(Warp& warp);
  void follow_undefined(Warp& warp, const Instruction& in, int at, Mask lanes) const;
  [[noreturn]] void report_stall(const Block& block) const;
  [[noreturn]] void fail(const Warp& warp, int at, int lane, const std::string& what) const;
  std::string place(int at) const;

  // collectives.cpp
  bool collective(Warp& warp, Group& group, const Instruction& in, Mask active);
  void exchange(Warp& warp, const Instruction& in, Mask lanes);

  // accesses.cpp
  struct Targets {
    uint8_t* bytes[kLanes];
  };
  void access(Warp& warp, const Instruction& in, int at, Mask lanes);
  void load_parameter(Warp& warp, const Instruction& in, Mask lanes) const;
  void locate(Warp& warp, const Instruction& in, int at, Mask lanes, Targets& targets);
  void locate_global(Warp& warp, const Instruction& in, int at, Mask lanes, const uint64_t* addresses,
                     Targets& targets);
  void locate_shared(Warp& warp, const Instruction& in, int at, Mask lanes, const uint64_t* offsets, Targets& targets);
  void order(Warp& warp, const Instruction& in, Mask lanes, const Targets& targets);
  void follow_global(Warp& warp, const Instruction& in, int at, int lane);
  void follow_copy(Warp& warp, const Instruction& in, int at, int lane, uint64_t offset);
  void look_for_race(Warp& warp, const Instruction& in, int at, int lane, Shadow& shadow, uint64_t offset,
                     const char* memory);
  void report_race(const Access& before, const Access& now, const char* memory);
  void fence(Warp& warp, Mask lanes);

  const Kernel& kernel_;
  const Module& module_;
  Shape shape_;
  Options options_;
  GlobalMemory global_;
  std::vector<uint8_t> parameters_;
  std::vector<Counts>& counts_;
  std::mt19937_64 random_;
  uint64_t instructions_ = 0;
  std::vector<std::vector<uint64_t>> free_registers_;  // of finished warps
  bool fences_used_ = false;
  std::map<const uint8_t*, Knowledge> locations_;  // of strong accesses after a fence
  std::set<std::pair<int, int>> races_;
  std::string race_report_;
};

}  // namespace ptx
