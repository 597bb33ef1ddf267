// A kernel that would hang or access wrong memory on a GPU gives an error that names it.
#include <cstring>
#include <vector>

#include "../native/check.h"
#include "asan.h"
#include "common/cuda.cuh"
#include "orders.h"

namespace ccfast {
namespace {

using emulation::in_every_order;
using native::contains;
using native::error_of;

// --- barriers ---

__global__ void divergent_kernel(int split) {
  if (static_cast<int>(threadIdx.x) < split) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST(a_divergent_barrier_is_reported) {
  in_every_order([] {
    const std::string error = error_of([] { launch("divergent", divergent_kernel, 3, 64, 0, nullptr, 5); });
    CHECK(contains(error, "kernel divergent, block "));
    CHECK(contains(error, "thread 0 to 4: waits at __syncthreads in "));
    CHECK(contains(error, "thread 5 to 63: waits at __syncthreads in "));
    launch("divergent", divergent_kernel, 3, 64, 0, nullptr, 0);  // and the next launch works
  });
}

__global__ void leaves_kernel(unsigned leaver) {
  if (threadIdx.x == leaver) return;
  __syncthreads();
}

TEST(a_thread_that_exits_while_others_wait_is_reported) {
  in_every_order([] {
    const std::string error = error_of([] { launch("leaves", leaves_kernel, 1, 64, 0, nullptr, 7u); });
    CHECK(contains(error, "kernel leaves, block 0 of 1: threads wait for others that never come"));
    CHECK(contains(error, "thread 7: has exited"));
    CHECK(contains(error, "thread 8 to 63: waits at __syncthreads"));
    launch("leaves", leaves_kernel, 1, 64, 0, nullptr, 64u);
  });
}

// --- warp collectives ---

__global__ void mismatched_kernel(int* out) {
  if (threadIdx.x % 2) {
    out[threadIdx.x] = __shfl_xor_sync(kFullMask, 1, 1);
  } else {
    out[threadIdx.x] = __any_sync(kFullMask, 1);
  }
}

TEST(mismatched_collectives_are_reported) {
  in_every_order([] {
    std::vector<int> out(32);
    const std::string error = error_of([&] { launch("mismatched", mismatched_kernel, 1, 32, 0, nullptr, out.data()); });
    CHECK(contains(error, "kernel mismatched"));
    CHECK(contains(error, "thread 0: waits at a vote with mask 0xffffffff"));
    CHECK(contains(error, "thread 1: waits at a shuffle with mask 0xffffffff"));
  });
}

__global__ void deadlock_kernel() {
  if (threadIdx.x == 40) __syncthreads();
  __syncwarp();
  __syncthreads();
}

TEST(a_deadlock_between_barrier_and_warp_is_reported) {
  in_every_order([] {
    const std::string error = error_of([] { launch("deadlock", deadlock_kernel, 1, 64, 0, nullptr); });
    CHECK(contains(error, "thread 0 to 31: waits at __syncthreads"));
    CHECK(contains(error, "thread 32 to 39: waits at __syncwarp with mask 0xffffffff"));
    CHECK(contains(error, "thread 40: waits at __syncthreads"));
  });
}

__global__ void sum_kernel(int* out) { out[threadIdx.x] = warp_sum(1); }

TEST(a_mask_that_names_missing_lanes_is_reported) {
  std::vector<int> out(48);
  CHECK_ERROR(launch("sum", sum_kernel, 1, 48, 0, nullptr, out.data()), "thread 32 to 47: waits at a shuffle");
}

__global__ void exited_lane_kernel(int* out) {
  if (threadIdx.x == 3) return;
  out[threadIdx.x] = warp_sum(1);
}

TEST(a_collective_with_an_exited_lane_is_reported) {
  std::vector<int> out(32);
  CHECK_ERROR(launch("exited", exited_lane_kernel, 1, 32, 0, nullptr, out.data()), "thread 3: has exited");
}

__global__ void left_out_kernel() { __syncwarp(0x0000ffffu); }

TEST(a_mask_without_the_caller_is_reported) {
  CHECK_ERROR(launch("left out", left_out_kernel, 1, 32, 0, nullptr), "mask leaves out the calling lane");
}

__global__ void trap_kernel() {
  if (blockIdx.x == 2 && threadIdx.x == 9) __trap();
  __syncthreads();
}

TEST(a_trap_is_reported_with_its_thread) {
  CHECK_ERROR(launch("trap", trap_kernel, 4, 32, 0, nullptr), "kernel trap, block 2 of 4: thread 9: __trap");
}

// --- shared memory ---

// Reads shared memory and then writes it, which shows whether the next block sees the values of this one.
template <class T>
__global__ void unwritten_kernel(T* out) {
  T* shared = shared_memory<T>();
  out[blockIdx.x * blockDim.x + threadIdx.x] = shared[threadIdx.x];
  shared[threadIdx.x] = T(1);
}

TEST(unwritten_shared_memory_is_poison_in_every_block) {
  std::vector<float> floats(3 * 32);
  launch("unwritten", unwritten_kernel<float>, 3, 32, 32 * sizeof(float), nullptr, floats.data());
  for (const float value : floats) CHECK(isnan(value));
  std::vector<double> doubles(3 * 32);
  launch("unwritten", unwritten_kernel<double>, 3, 32, 32 * sizeof(double), nullptr, doubles.data());
  for (const double value : doubles) CHECK(isnan(value));
  std::vector<int> ints(3 * 32);
  launch("unwritten", unwritten_kernel<int>, 3, 32, 32 * sizeof(int), nullptr, ints.data());
  for (const int value : ints) CHECK(value > 2000000000);
}

#ifndef CCFAST_ASAN  // which stops the program at the write

__global__ void overrun_kernel(int offset) {
  if (blockIdx.x == 1 && threadIdx.x == 0) shared_memory<unsigned char>()[offset] = 1;
}

TEST(a_write_outside_shared_memory_is_reported) {
  for (const int offset : {-1, 100, 101, 1100})
    CHECK_ERROR(launch("overrun", overrun_kernel, 3, 32, 100, nullptr, offset),
                "kernel overrun, block 1 of 3: wrote outside its 100 bytes of shared memory");
  launch("overrun", overrun_kernel, 3, 32, 100, nullptr, 0);
  launch("overrun", overrun_kernel, 3, 32, 100, nullptr, 99);
}

#endif

TEST(shared_memory_is_aligned_to_16_bytes_and_no_more) {
  CHECK_EQUAL(reinterpret_cast<uintptr_t>(shared_memory<char>()) % 32, 16u);
}

// --- launches ---

__global__ void idle_kernel() {}

TEST(a_launch_that_a_gpu_refuses_is_reported) {
  CHECK_ERROR(launch("idle", idle_kernel, 1, 1025, 0, nullptr), "kernel idle: threads in a block");
  CHECK_ERROR(launch("idle", idle_kernel, 1, 0, 0, nullptr), "kernel idle: threads in a block");
  CHECK_ERROR(launch("idle", idle_kernel, 1, 32, max_shared_bytes() + 1, nullptr), "kernel idle: more shared memory");
  CHECK_ERROR(launch("idle", idle_kernel, kMaxGrid + 1, 32, 0, nullptr), "kernel idle: more than 2^31 - 1 blocks");
  launch("idle", idle_kernel, 1, 1024, max_shared_bytes(), nullptr);
}

TEST(an_unknown_order_is_reported) {
  for (const char* order : {"backward", "shuffle", "shuffle:", "shuffle:x", "shuffle:-1"}) {
    const emulation::WithOrder with_order(order);
    CHECK_ERROR(launch("idle", idle_kernel, 1, 32, 0, nullptr), "CCFAST_EMULATE_ORDER");
  }
}

}  // namespace
}  // namespace ccfast
