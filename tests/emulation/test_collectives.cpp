// Barriers, warp collectives and the helpers of cuda.cuh that use them give CUDA's results.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../native/check.h"
#include "common/cuda.cuh"
#include "orders.h"

namespace ccfast {
namespace {

using emulation::in_every_order;

// A number that is not exact in binary, so that a sum depends on its order.
float value_of(int i) { return 1.0f / static_cast<float>(i + 3); }

template <class T>
__global__ void reduce_kernel(const T* x, T* sums, T* maxima) {
  T* scratch = shared_memory<T>();
  const T value = x[threadIdx.x];
  sums[threadIdx.x] = block_sum(value, scratch);
  maxima[threadIdx.x] = block_max(value, scratch);
}

TEST(block_reductions_give_every_thread_the_same_bits) {
  for (const int threads : {32, 64, 256, 1024}) {
    std::vector<float> x(threads), first;
    double sum = 0;
    for (int i = 0; i < threads; ++i) sum += x[i] = value_of(i * 7 % threads);
    in_every_order([&] {
      std::vector<float> sums(threads), maxima(threads);
      launch("reduce", reduce_kernel<float>, 1, threads, 32 * sizeof(float), nullptr, x.data(), sums.data(),
             maxima.data());
      if (first.empty()) first.assign(threads, sums[0]);
      CHECK_NEAR(sums[0], sum, 1e-5);
      CHECK_EQUAL(sums, first);
      CHECK_EQUAL(maxima, std::vector<float>(threads, value_of(0)));
    });
  }
}

TEST(block_max_counts_nan_as_missing) {
  std::vector<double> x(64, NAN), sums(64), maxima(64);
  x[37] = -2;
  launch("reduce", reduce_kernel<double>, 1, 64, 32 * sizeof(double), nullptr, x.data(), sums.data(), maxima.data());
  CHECK_EQUAL(maxima, std::vector<double>(64, -2.0));
  CHECK(isnan(sums[0]));
}

struct Shuffles {
  int index, across, down, up, narrow_index, narrow_xor, narrow_down, narrow_up;
};

__global__ void shuffle_kernel(Shuffles* out) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  Shuffles& mine = out[threadIdx.x];
  mine.index = __shfl_sync(kFullMask, lane, 5);
  mine.across = __shfl_xor_sync(kFullMask, lane, 3);
  mine.down = __shfl_down_sync(kFullMask, lane, 4u);
  mine.up = __shfl_up_sync(kFullMask, lane, 4u);
  mine.narrow_index = __shfl_sync(kFullMask, lane, 9, 8);
  mine.narrow_xor = __shfl_xor_sync(kFullMask, lane, 12, 8);
  mine.narrow_down = __shfl_down_sync(kFullMask, lane, 3u, 8);
  mine.narrow_up = __shfl_up_sync(kFullMask, lane, 3u, 8);
}

TEST(shuffles_take_from_the_lanes_that_cuda_names) {
  in_every_order([] {
    std::vector<Shuffles> out(64);
    launch("shuffle", shuffle_kernel, 1, 64, 0, nullptr, out.data());
    for (int thread = 0; thread < 64; ++thread) {
      const int lane = thread % 32, first = lane / 8 * 8;
      CHECK_EQUAL(out[thread].index, 5);
      CHECK_EQUAL(out[thread].across, lane ^ 3);
      CHECK_EQUAL(out[thread].down, lane + 4 < 32 ? lane + 4 : lane);
      CHECK_EQUAL(out[thread].up, lane >= 4 ? lane - 4 : lane);
      CHECK_EQUAL(out[thread].narrow_index, first + 1);
      CHECK_EQUAL(out[thread].narrow_xor, (lane ^ 12) < first + 8 ? lane ^ 12 : lane);
      CHECK_EQUAL(out[thread].narrow_down, lane + 3 < first + 8 ? lane + 3 : lane);
      CHECK_EQUAL(out[thread].narrow_up, lane - 3 >= first ? lane - 3 : lane);
    }
  });
}

template <class T>
__global__ void neighbour_kernel(const T* x, T* out) {
  out[threadIdx.x] = __shfl_xor_sync(kFullMask, x[threadIdx.x], 1);
}

template <class T>
void check_neighbour(T first, T second) {
  std::vector<T> x(32), out(32);
  x[6] = first;
  x[7] = second;
  launch("neighbour", neighbour_kernel<T>, 1, 32, 0, nullptr, x.data(), out.data());
  CHECK_EQUAL(out[6], second);
  CHECK_EQUAL(out[7], first);
}

TEST(shuffles_carry_four_and_eight_bytes) {
  check_neighbour<int>(-5, 7);
  check_neighbour<unsigned>(0xfedcba98u, 1);
  check_neighbour<float>(1.5f, -2.25f);
  check_neighbour<double>(1e300, -1e-300);
  check_neighbour<long long>(-(1ll << 60), 3);
  check_neighbour<unsigned long long>(~0ull, 2);
}

__global__ void vote_kernel(unsigned* ballots, int* any, int* all) {
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  ballots[threadIdx.x] = __ballot_sync(kFullMask, lane % 3 == warp);
  any[threadIdx.x] = __any_sync(kFullMask, warp == 1 && lane == 17);
  all[threadIdx.x] = __all_sync(kFullMask, warp == 1 || lane != 17);
}

TEST(votes_see_their_own_warp) {
  in_every_order([] {
    std::vector<unsigned> ballots(64);
    std::vector<int> any(64), all(64);
    launch("vote", vote_kernel, 1, 64, 0, nullptr, ballots.data(), any.data(), all.data());
    for (int thread = 0; thread < 64; ++thread) {
      CHECK_EQUAL(ballots[thread], thread < 32 ? 0x49249249u : 0x92492492u);
      CHECK_EQUAL(any[thread], thread < 32 ? 0 : 1);
      CHECK_EQUAL(all[thread], thread < 32 ? 0 : 1);
    }
  });
}

// The halves of a warp take different branches, and one of them runs more steps.
__global__ void halves_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
  int sum = lane;
  if (lane < 16) {
    for (int distance = 8; distance > 0; distance /= 2) sum += __shfl_xor_sync(mask, sum, distance);
  } else {
    sum = static_cast<int>(__ballot_sync(mask, lane % 2) >> 16);
  }
  __syncwarp();
  out[lane] = sum + __shfl_sync(kFullMask, sum, 31 - lane);
}

TEST(parts_of_a_warp_may_go_different_ways) {
  in_every_order([] {
    std::vector<int> out(32);
    launch("halves", halves_kernel, 1, 32, 0, nullptr, out.data());
    CHECK_EQUAL(out, std::vector<int>(32, 120 + 0xaaaa));
  });
}

__global__ void outside_kernel(int* out) {
  out[threadIdx.x] = threadIdx.x < 16 ? __shfl_down_sync(0x0000ffffu, 1, 1u) : 0;
}

TEST(a_lane_outside_the_mask_gives_poison) {
  std::vector<int> out(32);
  launch("outside", outside_kernel, 1, 32, 0, nullptr, out.data());
  CHECK_EQUAL(out[14], 1);
  CHECK_EQUAL(static_cast<unsigned>(out[15]), emulation::kPoison);
}

__global__ void sort_kernel(int* data, int count) {
  block_sort(data, count, [](int a, int b) { return a < b; });
}

TEST(block_sort_sorts_any_power_of_two) {
  for (const int count : {1, 2, 32, 128, 1024}) {
    std::vector<int> data(count);
    for (int i = 0; i < count; ++i) data[i] = i * 7919 % 101;
    std::vector<int> sorted = data;
    std::sort(sorted.begin(), sorted.end());
    in_every_order([&] {
      std::vector<int> copy = data;
      launch("sort", sort_kernel, 1, 96, 0, nullptr, copy.data(), count);
      CHECK_EQUAL(copy, sorted);
    });
  }
}

__global__ void count_kernel(int* counts, int64_t* places) {
  counts[blockIdx.x] += blockDim.x == 5 && gridDim.x == 7;
  if (threadIdx.x == 3) places[blockIdx.x] = blockIdx.x;
}

TEST(every_thread_of_every_block_runs_once) {
  in_every_order([] {
    std::vector<int> counts(7);
    std::vector<int64_t> places(7);
    launch("count", count_kernel, 7, 5, 0, nullptr, counts.data(), places.data());
    CHECK_EQUAL(counts, std::vector<int>(7, 5));
    CHECK_EQUAL(places, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6}));
    launch("count", count_kernel, 0, 5, 0, nullptr, counts.data(), places.data());
    CHECK_EQUAL(counts, std::vector<int>(7, 5));
  });
}

__global__ void atomics_kernel(int* sum, unsigned* lowest, long long* highest, unsigned long long* product) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(sum, i);
  atomicMin(lowest, static_cast<unsigned>(i + 5));
  atomicMax(highest, static_cast<long long>(i) << 40);
  unsigned long long seen = *product, before;
  do {
    before = seen;
    seen = atomicCAS(product, before, before * 3);
  } while (seen != before);
}

TEST(atomics_lose_no_update) {
  unsigned long long expected = 1;
  for (int i = 0; i < 4 * 64; ++i) expected *= 3;
  in_every_order([&] {
    int sum = 0;
    unsigned lowest = ~0u;
    long long highest = -1;
    unsigned long long product = 1;
    launch("atomics", atomics_kernel, 4, 64, 0, nullptr, &sum, &lowest, &highest, &product);
    CHECK_EQUAL(sum, 255 * 128);
    CHECK_EQUAL(lowest, 5u);
    CHECK_EQUAL(highest, 255ll << 40);
    CHECK_EQUAL(product, expected);
  });
}

TEST(half_precision_converts_exactly) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const int exponent = static_cast<int>(bits >> 10 & 31), fraction = static_cast<int>(bits & 1023);
    const double sign = bits >> 15 ? -1 : 1;
    const float half = to_float(__half{static_cast<uint16_t>(bits)});
    if (exponent == 31) {
      CHECK(fraction ? isnan(half) : isinf(half) && half * sign > 0);
    } else {
      CHECK_EQUAL(half, sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24)));
    }
    const float brain = to_float(__nv_bfloat16{static_cast<uint16_t>(bits)});
    CHECK_EQUAL(__float_as_uint(brain), bits << 16);
  }
}

// Numbers between two adjacent halves; above the largest, as if there were one more.
TEST(half_precision_rounds_to_the_nearest_and_to_even) {
  for (uint16_t bits = 0; bits < 0x7c00; ++bits) {
    const auto next = static_cast<uint16_t>(bits + 1);
    const float low = to_float(__half{bits}), high = bits == 0x7bff ? 65536.0f : to_float(__half{next});
    const float middle = (low + high) / 2;
    for (const float sign : {1.0f, -1.0f}) {
      const auto rounded = [sign](float value) { return __float2half_rn(sign * value).bits - (sign < 0 ? 0x8000 : 0); };
      CHECK_EQUAL(rounded(low), bits);
      CHECK_EQUAL(rounded(nextafterf(middle, low)), bits);
      CHECK_EQUAL(rounded(middle), bits % 2 ? next : bits);
      CHECK_EQUAL(rounded(nextafterf(middle, high)), next);
    }
  }
  CHECK_EQUAL(__float2half_rn(INFINITY).bits, 0x7c00);
  CHECK(isnan(to_float(__float2half_rn(NAN))));
}

}  // namespace
}  // namespace ccfast
