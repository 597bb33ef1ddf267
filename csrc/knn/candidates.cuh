// Candidates as numbers, for the kernels that select them and those that re-score them; knn.h says how they are
// ordered.
#pragma once

#include "../common/cuda.cuh"
#include "../common/pack.cuh"
#include "knn.h"

namespace ccfast::knn {

constexpr int kQuad = kPackSize<float>;  // neighbouring values that a lane takes

using Key = unsigned long long;

// An unsigned number of the same order.
__device__ __forceinline__ unsigned ordered_of(float score) {
  const unsigned bits = __float_as_uint(score);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

// NaN for numbers below that of -inf.
__device__ __forceinline__ float score_of_ordered(unsigned ordered) {
  return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

__device__ __forceinline__ Key key_of(float score, int64_t index) {
  return static_cast<Key>(ordered_of(score)) << 32 | static_cast<unsigned>(~index);
}

// NaN for no candidate.
__device__ __forceinline__ float score_of(Key key) { return score_of_ordered(static_cast<unsigned>(key >> 32)); }

__device__ __forceinline__ int64_t index_of(Key key) { return static_cast<unsigned>(~key); }

// Bytes of shared memory that the re-scoring takes per query.
inline size_t rescore_bytes(int64_t keep) { return keep * (sizeof(double) + sizeof(int64_t)); }

}  // namespace ccfast::knn
