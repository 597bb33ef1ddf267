#include <algorithm>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_emulation.h"
#include "fiber.h"
#include "order.h"
#include "runtime.h"
#include "shared_memory.h"
#include "stall.h"

ccfast::emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace ccfast::emulation {
namespace {

constexpr uint64_t kPoisonPair = static_cast<uint64_t>(kPoison) << 32 | kPoison;

// Free fibers, kept for the next launch.
struct FiberPool {
  std::vector<std::unique_ptr<Fiber>> all;
  std::vector<Fiber*> free;

  Fiber* take() {
    if (free.empty()) {
      all.push_back(std::make_unique<Fiber>(static_cast<int>(all.size())));
      free.push_back(all.back().get());
    }
    Fiber* fiber = free.back();
    free.pop_back();
    return fiber;
  }

  // After an error: threads were abandoned where they were.
  void take_back_all() {
    free.clear();
    for (const auto& fiber : all) {
      fiber->forget_frames();
      free.push_back(fiber.get());
    }
  }
};

// Shared by all blocks of a launch.
struct Grid {
  const char* kernel;
  Body body;
  const void* arguments;
  int threads;  // of a block
  size_t shared_bytes;
  Order order;
};

struct Block {
  int64_t number;
  int count;    // threads
  int current;  // the running thread
  int exited, at_barrier;
  unsigned at_collective[kMaxThreads / kLanes];  // lanes of each warp
  Thread threads[kMaxThreads];
  Fiber* fibers[kMaxThreads];  // null before the thread's first turn
  Turns turns;
  SharedMemory shared;
  std::string error;
};

// Threads of the concurrent blocks under a shuffled order.
constexpr int kThreadsAlive = kMaxThreads;
// One of this many atomic operations or volatile accesses lets another block go first.
constexpr int kBlockOdds = 4;

Grid grid_now;
std::vector<std::unique_ptr<Block>> alive, finished;
Block* now = nullptr;  // the running block
Random block_random{0};
FiberPool pool;
Fiber host;  // the fiber of run()
std::mutex one_launch_at_a_time;
Launcher launcher = nullptr;

// --- turns ---

void run_threads();

void make_current(int thread) {
  now->current = thread;
  threadIdx.x = static_cast<unsigned>(thread);
}

Fiber& fiber_of(int thread) {
  if (!now->fibers[thread]) {
    now->fibers[thread] = pool.take();
    now->fibers[thread]->prepare(run_threads);
  }
  return *now->fibers[thread];
}

// Continues with the first thread that can run; returns if that is the caller. If none can, run_block reports why.
void wait_for_turn() {
  const int thread = now->current, next = now->turns.next();
  if (next == thread) return;
  if (next >= 0) make_current(next);
  now->fibers[thread]->switch_to(next >= 0 ? fiber_of(next) : host);
}

// Where every fiber starts. A thread that exits passes its stack to the next one that has not started: a kernel without
// barriers runs on one stack, as a loop. Not instrumented: it never returns, so its frame would stay poisoned.
__attribute__((no_sanitize_address)) void run_threads() {
  now->fibers[now->current]->arrived();
  for (;;) {
    grid_now.body(grid_now.arguments);
    const int thread = now->current;
    Fiber* fiber = now->fibers[thread];
    now->threads[thread].state = State::kExited;
    ++now->exited;
    now->turns.set_waiting(thread);
    const int next = now->turns.next();
    if (next >= 0) make_current(next);
    if (next >= 0 && !now->fibers[next]) {
      now->fibers[next] = fiber;
      continue;
    }
    pool.free.push_back(fiber);
    fiber->switch_to(next >= 0 ? *now->fibers[next] : host, /*for_good=*/true);
  }
}

// --- warp collectives ---

// Calls function(thread) for the lanes of a mask.
template <class Function>
void for_lanes(int warp, unsigned mask, const Function& function) {
  for (; mask; mask &= mask - 1) function(warp * kLanes + __builtin_ctz(mask));
}

// Whether all lanes of the mask have reached this call.
bool complete(int warp, const Collective& call) {
  if (call.mask & ~now->at_collective[warp]) return false;
  bool same = true;
  for_lanes(warp, call.mask, [&](int thread) { same &= same_call(now->threads[thread].call, call); });
  return same;
}

// The result of every lane. A lane outside the mask provides no value.
void exchange(int warp, const Collective& call) {
  uint64_t votes = 0;
  if (call.kind == Wait::kVote)
    for_lanes(warp, call.mask, [&](int thread) { votes |= now->threads[thread].call.value << (thread % kLanes); });
  for_lanes(warp, call.mask, [&](int thread) {
    Thread& taker = now->threads[thread];
    const unsigned source = static_cast<unsigned>(taker.call.source) % kLanes;
    const bool given = call.mask >> source & 1;
    if (call.kind == Wait::kVote) taker.result = votes;
    if (call.kind == Wait::kShuffle)
      taker.result = given ? now->threads[warp * kLanes + static_cast<int>(source)].call.value : kPoisonPair;
  });
}

void release(int warp, unsigned mask) {
  now->at_collective[warp] &= ~mask;
  for_lanes(warp, mask, [](int thread) {
    now->threads[thread].state = State::kRunning;
    now->turns.set_ready(thread);
  });
}

// --- barriers ---

bool all_at_one_barrier() {
  if (now->at_barrier < now->count) return false;
  for (int thread = 1; thread < now->count; ++thread)
    if (!same_call(now->threads[thread].call, now->threads[0].call)) return false;
  return true;
}

void release_block() {
  now->at_barrier = 0;
  for (int thread = 0; thread < now->count; ++thread) now->threads[thread].state = State::kRunning;
  now->turns.everybody();
}

// --- blocks ---

std::string place() {
  return "kernel " + std::string(grid_now.kernel) + ", block " + std::to_string(blockIdx.x) + " of " +
         std::to_string(gridDim.x);
}

[[noreturn]] void give_up(const std::string& what) {
  const std::string message = place() + ": " + what;
  for (auto& block : alive) finished.push_back(std::move(block));
  alive.clear();
  pool.take_back_all();
  throw std::runtime_error(message);
}

void start_block(int64_t number) {
  if (finished.empty()) finished.push_back(std::make_unique<Block>());
  alive.push_back(std::move(finished.back()));
  finished.pop_back();
  Block& block = *alive.back();
  block.number = number;
  block.count = grid_now.threads;
  block.exited = block.at_barrier = 0;
  block.error.clear();
  for (unsigned& lanes : block.at_collective) lanes = 0;
  for (int thread = 0; thread < block.count; ++thread) {
    block.threads[thread].state = State::kRunning;
    block.fibers[thread] = nullptr;
  }
  block.shared.resize(grid_now.shared_bytes);
  block.shared.poison();
  block.turns.start(grid_now.order, number, block.count);
}

// Runs a block until none of its threads can continue, or until another block goes first.
void go_on(Block& block) {
  now = &block;
  blockIdx = {static_cast<unsigned>(block.number), 0, 0};
  const int first = block.turns.next();
  make_current(first);
  host.switch_to(fiber_of(first));
  if (!block.error.empty()) give_up(block.error);
  if (block.turns.next() >= 0) return;
  if (block.exited < block.count) give_up(describe_stall(block.threads, block.count));
  if (!block.shared.intact())
    give_up("wrote outside its " + std::to_string(block.shared.size()) + " bytes of shared memory");
}

// Runs the blocks in the order of their turns, as many at once as the order allows.
void run_blocks(int64_t grid) {
  const BlockOrder blocks(grid_now.order, grid);
  const bool overlap = grid_now.order.kind == OrderKind::kShuffle;
  const auto most = static_cast<size_t>(overlap ? std::max(1, kThreadsAlive / grid_now.threads) : 1);
  block_random.state = grid_now.order.seed;
  for (int64_t turn = 0; turn < grid || !alive.empty();) {
    while (turn < grid && alive.size() < most) start_block(blocks.block(turn++));
    auto& block = alive[static_cast<size_t>(block_random.below(static_cast<int>(alive.size())))];
    go_on(*block);
    if (block->exited < block->count) continue;
    finished.push_back(std::move(block));
    block = std::move(alive.back());
    alive.pop_back();
  }
}

void check_launch(const char* name, int64_t grid, int block_size, size_t shared_bytes) {
  const auto check = [name](bool fine, const char* what, auto value) {
    if (!fine) throw std::runtime_error("kernel " + std::string(name) + ": " + what + std::to_string(value));
  };
  check(grid <= kMaxBlocks, "more than 2^31 - 1 blocks: ", grid);
  check(block_size >= 1 && block_size <= kMaxThreads, "threads in a block not in [1, 1024]: ", block_size);
  check(shared_bytes <= kMaxSharedBytes, "more shared memory than a block can have: ", shared_bytes);
}

}  // namespace

void wait_for_block(Site site) {
  Thread& thread = now->threads[now->current];
  thread.call = {Wait::kBlock, 0, 0, 0, site};
  thread.state = State::kAtBarrier;
  ++now->at_barrier;
  now->turns.set_waiting(now->current);
  if (all_at_one_barrier()) release_block();
  wait_for_turn();
}

uint64_t wait_for_warp(const Collective& call) {
  const int current = now->current, warp = current / kLanes;
  const unsigned lane = 1u << (current % kLanes);
  if (!(call.mask & lane)) fail("a warp collective whose mask leaves out the calling lane");
  Thread& thread = now->threads[current];
  thread.call = call;
  thread.state = State::kAtCollective;
  now->at_collective[warp] |= lane;
  now->turns.set_waiting(current);
  if (complete(warp, call)) {
    exchange(warp, call);
    release(warp, call.mask);
  }
  wait_for_turn();
  return thread.result;
}

void may_yield() {
  if (!now->turns.shuffled()) return;
  now->turns.maybe_swap(now->current);
  if (alive.size() > 1 && block_random.below(kBlockOdds) == 0) {
    now->fibers[now->current]->switch_to(host);
  } else {
    wait_for_turn();
  }
}

void fail(const char* what) {
  now->error = "thread " + std::to_string(now->current) + ": " + what;
  now->fibers[now->current]->switch_to(host);
  __builtin_unreachable();
}

void* shared_memory() { return now->shared.data(); }

void ccfast_emulation_set_launcher(Launcher chosen) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  launcher = chosen;
}

bool run_elsewhere(const char* name, const void* kernel, int64_t grid, int block_size, size_t shared_bytes,
                   const void* const* arguments) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  if (!launcher) return false;
  if (grid <= 0) return true;
  check_launch(name, grid, block_size, shared_bytes);
  if (const char* error = launcher(name, kernel, grid, block_size, shared_bytes, arguments))
    throw std::runtime_error("kernel " + std::string(name) + ": " + error);
  return true;
}

void run(const char* name, int64_t grid, int block_size, size_t shared_bytes, Body body, const void* arguments) {
  if (grid <= 0) return;
  check_launch(name, grid, block_size, shared_bytes);
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  grid_now = {name, body, arguments, block_size, shared_bytes, Order::from_environment()};
  gridDim = {static_cast<unsigned>(grid), 1, 1};
  blockDim = {static_cast<unsigned>(block_size), 1, 1};
  run_blocks(grid);
}

}  // namespace ccfast::emulation
