// Samples, rows and sums of the blocks that update the cluster memory, one block per cluster.
#pragma once

#include "../common/cuda.cuh"
#include "../common/pack.cuh"
#include "memory.h"

namespace ccfast::memory {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kValues = 8;  // values of a row in a thread's registers
constexpr int64_t kLongestRow = int64_t{kThreads} * kValues;

// Sums over the block with one barrier each: two consecutive sums never use the same half of the scratch.
class Sums {
 public:
  __device__ explicit Sums(double* scratch) : scratch_(scratch) {}

  // In a fixed order, the same bits in every thread.
  __device__ double operator()(double value) {
    double* mine = scratch_ + (turn_ ^= 1) * kWarps;
    value = warp_sum(value);
    if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = value;
    __syncthreads();
    double part[kWarps];
    for (int w = 0; w < kWarps; ++w) part[w] = mine[w];
    for (int half = kWarps / 2; half > 0; half /= 2)
      for (int w = 0; w < half; ++w) part[w] += part[w + half];
    return part[0];
  }

 private:
  double* scratch_;
  int turn_ = 0;
};

// What a block keeps in shared memory about the members of its cluster among kThreads consecutive labels.
struct Members {
  double sums[2 * kWarps];
  double scale[kThreads];       // factor of each: 1, or 1 / norm
  double similarity[kThreads];  // with the old row; only for kHardest
  int counts[kWarps];
  int position[kThreads];  // in the batch, ascending
};

__device__ __forceinline__ double inverse_norm(double squares) {
  return squares > kSmallestNorm * kSmallestNorm ? rsqrt(squares) : 1 / kSmallestNorm;
}

// The factor that makes `row` one of unit norm. If T cannot represent it well, the row is scaled down first.
template <class T, class Row>
__device__ __forceinline__ double unit_factor(Row& row, double squares) {
  if (squares <= kLargestNorm * kLargestNorm) return inverse_norm(squares);
  row.multiply(static_cast<T>(0x1p-64));
  return inverse_norm(squares) * 0x1p64;
}

// A row of the memory, and the next sample that is mixed into it, in registers.
template <class T, int kSize>
class HeldRow {
 public:
  __device__ HeldRow(T* memory, int64_t dim) : memory_(memory), dim_(dim) {}
  __device__ HeldRow(T* memory, int64_t dim, T*) : HeldRow(memory, dim) {}  // same arguments as LongRow

  // Starts to load the row; a sample.
  __device__ __forceinline__ void fetch() {
    each([&](int d, int p) { row_[p] = load_pack<kSize>(memory_ + d); });
  }
  __device__ __forceinline__ void fetch(const T* x) {
    each([&](int d, int p) { x_[p] = load_pack<kSize>(x + d); });
  }
  // row = a * row + b * sample; returns this thread's share of the new sum of squares.
  __device__ __forceinline__ double mix(T a, T b) {
    double squares = 0;
    each([&](int, int p) {
      for (int k = 0; k < kSize; ++k) {
        row_[p].value[k] = a * row_[p].value[k] + b * x_[p].value[k];
        squares += static_cast<double>(row_[p].value[k]) * static_cast<double>(row_[p].value[k]);
      }
    });
    return squares;
  }
  // row = b * sample; row *= factor.
  __device__ __forceinline__ void put(T b) {
    each([&](int, int p) {
      for (int k = 0; k < kSize; ++k) row_[p].value[k] = b * x_[p].value[k];
    });
  }
  __device__ __forceinline__ void multiply(T factor) {
    each([&](int, int p) {
      for (int k = 0; k < kSize; ++k) row_[p].value[k] *= factor;
    });
  }
  // The memory = factor * row.
  __device__ __forceinline__ void store(T factor) {
    each([&](int d, int p) {
      for (int k = 0; k < kSize; ++k) row_[p].value[k] *= factor;
      store_pack(memory_ + d, row_[p]);
    });
  }

 private:
  template <class Body>
  __device__ __forceinline__ void each(const Body& body) {
    for_each_pack<kSize, kValues / kSize>(dim_, body);
  }

  T* memory_;
  int64_t dim_;
  Pack<T, kSize> row_[kValues / kSize], x_[kValues / kSize];
};

// The same for rows longer than kLongestRow, which stay in global memory: in place, or in `work`.
template <class T>
class LongRow {
 public:
  __device__ LongRow(T* memory, int64_t dim, T* work) : memory_(memory), work_(work), dim_(dim) {}
  __device__ LongRow(T* memory, int64_t dim) : LongRow(memory, dim, memory) {}

  __device__ void fetch() {
    if (work_ == memory_) return;
    for (int64_t d = threadIdx.x; d < dim_; d += kThreads) work_[d] = memory_[d];
  }
  __device__ void fetch(const T* x) { x_ = x; }
  __device__ double mix(T a, T b) {
    double squares = 0;
    for (int64_t d = threadIdx.x; d < dim_; d += kThreads) {
      const T mixed = a * work_[d] + b * x_[d];
      work_[d] = mixed;
      squares += static_cast<double>(mixed) * static_cast<double>(mixed);
    }
    return squares;
  }
  __device__ void put(T b) {
    for (int64_t d = threadIdx.x; d < dim_; d += kThreads) work_[d] = b * x_[d];
  }
  __device__ void multiply(T factor) {
    for (int64_t d = threadIdx.x; d < dim_; d += kThreads) work_[d] *= factor;
  }
  __device__ void store(T factor) {
    for (int64_t d = threadIdx.x; d < dim_; d += kThreads) memory_[d] = work_[d] * factor;
  }

 private:
  T* memory_;
  T* work_;
  int64_t dim_;
  const T* x_ = nullptr;
};

// The samples of one cluster; kGroup: those of one group of it.
template <class T, int kSize, bool kGroup = false>
struct Cluster {
  const UpdateParams<T>& params;
  bool normalize;
  int64_t first, label;  // position of the first sample of the cluster in the batch
  Members& members;
  Sums& sums;
  int64_t group = 0;

  __device__ __forceinline__ bool holds(int64_t i) const {
    if constexpr (kGroup) return params.labels[i] == label && params.groups[i] == group;
    return params.labels[i] == label;
  }
  __device__ __forceinline__ const T* sample(int m) const {
    return params.features + static_cast<int64_t>(members.position[m]) * params.dim;
  }

  // Whether the cluster has an earlier sample: then another block updates it. Near samples are checked first, because
  // batches mostly have a cluster's samples side by side.
  __device__ bool has_earlier() const {
    constexpr int64_t kSamplesAtATime = 8 * kThreads;
    for (int64_t end = first; end > 0; end -= kSamplesAtATime) {
      int found = 0;
      for (int64_t i = (end > kSamplesAtATime ? end - kSamplesAtATime : 0) + threadIdx.x; i < end; i += kThreads)
        found |= holds(i);
      if (sums(found) > 0) return true;
    }
    return false;
  }

  __device__ int64_t count() const {
    int64_t mine = 0;
    for (int64_t i = first + threadIdx.x; i < params.batch; i += kThreads) mine += holds(i);
    return static_cast<int64_t>(sums(static_cast<double>(mine)));
  }

  // Lists the members among kThreads labels from `begin` on; returns how many there are.
  __device__ int collect(int64_t begin) const {
    const int64_t i = begin + threadIdx.x;
    return list(begin, i < params.batch && holds(i));
  }

  // Lists the positions begin + threadIdx.x of the threads that call with true.
  __device__ int list(int64_t begin, bool member) const {
    const int64_t i = begin + threadIdx.x;
    const unsigned bits = __ballot_sync(kFullMask, member);
    const int warp = static_cast<int>(threadIdx.x / kWarp), lane = static_cast<int>(threadIdx.x % kWarp);
    if (lane == 0) members.counts[warp] = __popc(bits);
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < kWarps; ++w) {
      before += w < warp ? members.counts[w] : 0;
      total += members.counts[w];
    }
    if (member) members.position[before + __popc(bits & ((1u << lane) - 1))] = static_cast<int>(i);
    __syncthreads();
    return total;
  }

  // The scale, and if `row` is given the similarity, of the listed members: one warp per member.
  __device__ void measure(int count, const T* row) const {
    if (!normalize && !row) return;
    for (int m = static_cast<int>(threadIdx.x / kWarp); m < count; m += kWarps) {
      const T* x = sample(m);
      double squares = 0, product = 0;
      CCFAST_UNROLL(8)
      for (int64_t d = static_cast<int64_t>(threadIdx.x % kWarp) * kSize; d < params.dim; d += kWarp * kSize) {
        const Pack<T, kSize> pack = load_pack<kSize>(x + d);
        for (int k = 0; k < kSize; ++k)
          squares += static_cast<double>(pack.value[k]) * static_cast<double>(pack.value[k]);
        if (!row) continue;
        const Pack<T, kSize> old = load_pack<kSize>(row + d);
        for (int k = 0; k < kSize; ++k)
          product += static_cast<double>(pack.value[k]) * static_cast<double>(old.value[k]);
      }
      const double scale = normalize ? inverse_norm(warp_sum(squares)) : 1;
      if (row) product = warp_sum(product);
      if (threadIdx.x % kWarp != 0) continue;
      members.scale[m] = scale;
      members.similarity[m] = product * scale;
    }
    __syncthreads();
  }
  __device__ __forceinline__ double scale(int m) const { return normalize ? members.scale[m] : 1; }

  // Calls body(count) for the listed members, part after part of the batch, when the values for `row` are known.
  template <class Start, class Body>
  __device__ __forceinline__ void for_each_part(const T* row, const Start& start, const Body& body) const {
    for (int64_t begin = first; begin < params.batch; begin += kThreads) {
      const int count = collect(begin);
      if (!count) continue;
      start();
      measure(count, row);
      body(count);
    }
  }
};

// The sample of lowest inner product with `row`, the first of equal ones.
struct Hardest {
  int64_t position;
  double scale;
};

template <class T, int kSize, bool kGroup>
__device__ __forceinline__ Hardest hardest_of(const Cluster<T, kSize, kGroup>& cluster, const T* row) {
  double lowest = INFINITY;
  Hardest hardest{cluster.first, 1};
  cluster.for_each_part(
      row, [] {},
      [&](int count) {
        for (int m = 0; m < count; ++m) {
          if (!(cluster.members.similarity[m] < lowest)) continue;
          lowest = cluster.members.similarity[m];
          hardest = {cluster.members.position[m], cluster.scale(m)};
        }
      });
  return hardest;
}

}  // namespace ccfast::memory
