// Runs the blocks of a kernel on the CPU, with one fiber per thread of a block. Blocks run one after another or, in a
// shuffled order, several alternately.
//
// A thread runs until it must wait for others, at a barrier or a warp collective. All errors of a GPU program that a
// CPU can detect are reported as std::runtime_error with the kernel's name; README.md lists them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>

namespace ccfast::emulation {

constexpr size_t kMaxSharedBytes = 227 * 1024;  // as on Hopper
constexpr int kMaxThreads = 1024;
constexpr int64_t kMaxBlocks = 0x7fffffff;
constexpr int kLanes = 32;
// The content of unwritten memory: a NaN as float and as double, an absurd number as an integer.
constexpr uint32_t kPoison = 0x7ffbcbcbu;

struct Index {
  unsigned x, y, z;
};

// The source line where a thread waits. Threads that wait at different lines never meet.
struct Site {
  const char* file;
  int line;
};

enum class Wait : uint8_t { kBlock, kWarp, kShuffle, kVote };

// One lane's part in a warp collective.
struct Collective {
  Wait kind;
  unsigned mask;
  uint64_t value;  // the value of the lane
  int source;      // shuffle: the lane whose value this lane takes
  Site site;
};

// Waits for every thread of the block.
void wait_for_block(Site site);
// Waits for every lane of the mask. Shuffle: the value of the lane's source. Vote: the lanes that gave a non-zero
// value.
uint64_t wait_for_warp(const Collective& collective);
// Called before an atomic operation or volatile access: in a shuffled order, other threads and blocks may go
// first.
void may_yield();
// Ends the launch with an error that names the kernel, the block and the thread.
[[noreturn]] void fail(const char* what);
void* shared_memory();

using Body = void (*)(const void* arguments);
void run(const char* name, int64_t grid, int block, size_t shared_bytes, Body body, const void* arguments);

// Runs a launch instead of the fibers: tests/ptx runs nvcc's code of the kernel. Gets a pointer to each argument;
// returns null or an error message.
using Launcher = const char* (*)(const char* name, const void* kernel, int64_t grid, int block, size_t shared_bytes,
                                 const void* const* arguments);
extern "C" void ccfast_emulation_set_launcher(Launcher launcher);  // null: the fibers
// Whether a launcher is set and has run the kernel. Throws its error message.
bool run_elsewhere(const char* name, const void* kernel, int64_t grid, int block, size_t shared_bytes,
                   const void* const* arguments);

template <class... Params>
void launch(const char* name, int64_t grid, int block, size_t shared_bytes, void (*kernel)(Params...),
            std::decay_t<Params>... args) {
  static_assert((std::is_trivially_copyable_v<Params> && ...), "a GPU gets its arguments as bytes");
  const void* const addresses[] = {&args..., nullptr};
  if (run_elsewhere(name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, addresses)) return;
  using Call = std::tuple<void (*)(Params...), Params...>;
  const Call call(kernel, args...);
  run(
      name, grid, block, shared_bytes,
      [](const void* arguments) {
        std::apply([](auto function, const auto&... values) { function(values...); },
                   *static_cast<const Call*>(arguments));
      },
      &call);
}

}  // namespace ccfast::emulation
