// A missing barrier or a lost update gives different results in different orders of the threads.
#include <vector>

#include "../native/check.h"
#include "common/cuda.cuh"
#include "orders.h"

namespace ccfast {
namespace {

using emulation::result_in;

constexpr int kThreads = 128;
using Result = std::vector<int>;

// Launches a kernel of 4 blocks that writes one number per thread.
Result run(void (*kernel)(int*)) {
  Result out(4 * kThreads);
  launch("racing", kernel, 4, kThreads, 4 * kThreads * sizeof(int), nullptr, out.data());
  return out;
}

// A race shows if forward and reverse differ; the tests of the kernels rely on that.
void check_race(void (*kernel)(int*)) {
  CHECK(result_in("forward", [&] { return run(kernel); }) != result_in("reverse", [&] { return run(kernel); }));
}

void check_no_race(void (*kernel)(int*)) {
  const Result expected = result_in("forward", [&] { return run(kernel); });
  emulation::in_every_order([&] { CHECK_EQUAL(run(kernel), expected); });
}

__device__ int& mine(int* out) { return out[blockIdx.x * blockDim.x + threadIdx.x]; }

template <bool with_barrier>
__global__ void read_lower_kernel(int* out) {
  int* shared = shared_memory<int>();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncthreads();
  mine(out) = shared[threadIdx.x ? threadIdx.x - 1 : 0];
}

TEST(a_missing_barrier_before_a_read_is_found) {
  check_race(read_lower_kernel<false>);
  check_no_race(read_lower_kernel<true>);
}

// In forward order alone the race is hidden: every thread finds the value that the previous one has written.
TEST(a_missing_barrier_may_hide_in_one_order) {
  const auto forward = result_in("forward", [] { return run(read_lower_kernel<false>); });
  CHECK_EQUAL(forward, run(read_lower_kernel<true>));
}

// Rounds of write, barrier, read: without the second barrier a fast thread overwrites a value before a slow one reads
// it.
template <bool with_barrier>
__global__ void rounds_kernel(int* out) {
  int* shared = shared_memory<int>();
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    shared[threadIdx.x] = static_cast<int>(threadIdx.x) * (round + 1);
    __syncthreads();
    sum += shared[(threadIdx.x * 5 + 1) % kThreads];
    if (with_barrier) __syncthreads();
  }
  mine(out) = sum;
}

TEST(a_missing_barrier_after_a_read_is_found) {
  check_race(rounds_kernel<false>);
  check_no_race(rounds_kernel<true>);
}

// The warps' sums as in block_sum. Without the first barrier, a warp that runs ahead through several shuffles replaces
// a sum before a slow warp reads it. It is found only because a warp that can run always runs.
template <bool with_barrier>
__global__ void two_sums_kernel(int* out) {
  int* scratch = shared_memory<int>();
  int sum = 0;
  for (int round = 1; round < 4; ++round) {
    const int warp = warp_sum(static_cast<int>(threadIdx.x) * round);
    if (with_barrier) __syncthreads();
    if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = warp;
    __syncthreads();
    sum += warp_sum(threadIdx.x % kWarp < kThreads / kWarp ? scratch[threadIdx.x % kWarp] : 0);
  }
  mine(out) = sum;
}

TEST(a_warp_that_runs_ahead_is_found) {
  check_race(two_sums_kernel<false>);
  check_no_race(two_sums_kernel<true>);
}

// Lanes do not run in lockstep.
template <bool with_barrier>
__global__ void within_warp_kernel(int* out) {
  int* shared = shared_memory<int>();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (with_barrier) __syncwarp();
  mine(out) = shared[threadIdx.x ^ 1];
}

TEST(a_missing_syncwarp_is_found) {
  check_race(within_warp_kernel<false>);
  check_no_race(within_warp_kernel<true>);
}

// The last block publishes its number.
__global__ void last_block_kernel(int* out) {
  if (threadIdx.x == 0) out[0] = static_cast<int>(blockIdx.x);
}

TEST(a_result_that_depends_on_the_order_of_blocks_is_found) { check_race(last_block_kernel); }

// Checks, then writes: only atomicCAS does both atomically.
template <bool at_once>
__global__ void first_come_kernel(int* out) {
  int* taken = shared_memory<int>();
  if (threadIdx.x == 0) *taken = 0;
  __syncthreads();
  const bool first = at_once ? atomicCAS(taken, 0, 1) == 0 : *taken == 0;
  if (!at_once && first) atomicExch(taken, 1);
  if (first) atomicAdd(out + blockIdx.x, 1);
}

TEST(a_lost_update_between_atomics_is_found_by_shuffling) {
  CHECK_EQUAL(run(first_come_kernel<false>)[0], 1);
  bool found = false;
  for (const char* order : {"shuffle:1", "shuffle:2", "shuffle:3"})
    for (const int winners : result_in(order, [] { return run(first_come_kernel<false>); })) found |= winners > 1;
  CHECK(found);
  check_no_race(first_come_kernel<true>);
}

// Every thread replaces the value that it has read by a new one; an older value may overwrite a newer one.
template <bool at_once>
__global__ void late_store_kernel(int* out) {
  int* sum = shared_memory<int>();
  if (threadIdx.x == 0) *sum = 0;
  __syncthreads();
  if (at_once) {
    atomicAdd(sum, 1);
  } else {
    store_volatile(sum, load_volatile(sum) + 1);
  }
  __syncthreads();
  mine(out) = *sum;
}

TEST(a_late_volatile_store_is_found_by_shuffling) {
  CHECK_EQUAL(run(late_store_kernel<false>)[0], kThreads);
  CHECK(result_in("shuffle:1", [] { return run(late_store_kernel<false>); })[0] < kThreads);
  check_no_race(late_store_kernel<true>);
}

// The same with the first threads of blocks: only overlapping blocks show it.
template <bool at_once>
__global__ void late_store_of_a_block_kernel(int* out) {
  if (threadIdx.x) return;
  if (at_once)
    atomicAdd(out, 1);
  else
    store_volatile(out, load_volatile(out) + 1);
}

TEST(blocks_overlap_in_a_shuffled_order) {
  const auto total = [](void (*kernel)(int*), const char* order) {
    return result_in(order, [&] { return run(kernel); })[0];
  };
  CHECK_EQUAL(total(late_store_of_a_block_kernel<false>, "forward"), 4);
  bool lost = false;
  for (const char* order : {"shuffle:1", "shuffle:2", "shuffle:3", "shuffle:4", "shuffle:5", "shuffle:6"})
    lost |= total(late_store_of_a_block_kernel<false>, order) < 4;
  CHECK(lost);
  check_no_race(late_store_of_a_block_kernel<true>);
}

TEST(a_seed_repeats_its_run) {
  const auto once = [] { return result_in("shuffle:7", [] { return run(rounds_kernel<false>); }); };
  CHECK_EQUAL(once(), once());
}

}  // namespace
}  // namespace ccfast
