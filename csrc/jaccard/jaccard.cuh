// Device functions that the kernels of the encoding and the Jaccard distance share.
#pragma once

#include "../common/cuda.cuh"
#include "jaccard.h"

namespace ccfast::jaccard {

// J of two rows whose encodings share this mass.
__device__ __forceinline__ float distance_of(float shared) {
  const float distance = 1.0f - shared / (2.0f - shared);
  return distance < 0.0f ? 0.0f : distance;
}

// The overlap of two rows in a column. Entries that are not positive add nothing.
__device__ __forceinline__ float shared_mass(float a, float b) { return fmaxf(0.0f, fminf(a, b)); }

__host__ __device__ inline int64_t next_power_of_two(int64_t value) {
  int64_t power = 1;
  while (power < value) power *= 2;
  return power;
}

struct Ascending {
  template <class T>
  __device__ bool operator()(const T& a, const T& b) const {
    return a < b;
  }
};

// First position in [low, high) whose key is at least `value`; keys ascend.
template <class KeyAt, class Value>
__device__ int64_t lower_bound(int64_t low, int64_t high, Value value, const KeyAt& key_at) {
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (key_at(middle) < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// The part of a column's posting list that a block walks, and the value of the block's own row in that column.
struct StagedColumn {
  int64_t begin, end;
  float val;
};
constexpr int kStagedColumns = 128;  // at most the threads of a block

// Stages the columns of the entries entry .. last_entry of a row, as many as fit, one thread per column: their postings
// with targets in [first, last). Returns how many. Begins and ends with a barrier.
__device__ inline int stage_columns(const DeviceCsr& v, const DevicePostings& postings, int64_t entry,
                                    int64_t last_entry, int64_t first, int64_t last, StagedColumn* staged) {
  const int64_t left = last_entry - entry;
  const int count = static_cast<int>(left < kStagedColumns ? left : kStagedColumns);
  __syncthreads();
  if (static_cast<int>(threadIdx.x) < count) {
    const int64_t column = v.col[entry + threadIdx.x];
    const auto target_at = [&](int64_t p) { return static_cast<int64_t>(postings.entry[p].row); };
    int64_t begin = postings.start[column], end = postings.start[column + 1];
    if (first > 0) begin = lower_bound(begin, end, first, target_at);
    if (last < v.rows) end = lower_bound(begin, end, last, target_at);
    staged[threadIdx.x] = {begin, end, v.val[entry + threadIdx.x]};
  }
  __syncthreads();
  return count;
}

// Reserves `count` entries for row i and returns where they start, or -1 if they do not fit. Called by one thread.
__device__ inline int64_t take(const ScatteredRows& rows, int64_t i, int64_t count) {
  const int64_t start = static_cast<int64_t>(atomicAdd(rows.used, static_cast<unsigned long long>(count)));
  rows.start[i] = start;
  rows.count[i] = count;
  return start + count <= rows.capacity ? start : -1;
}

// The same, called by a whole block: every thread gets the start. shared: one value, free after the next barrier.
__device__ inline int64_t take_by_block(const ScatteredRows& rows, int64_t i, int64_t count, int64_t* shared) {
  if (threadIdx.x == 0) *shared = take(rows, i, count);
  __syncthreads();
  return *shared;
}

// Records that row i, which needs room for `entries`, does not fit the working set. Called by one thread.
__device__ inline void leave_out(const ScatteredRows& rows, int64_t i, int64_t entries) {
  atomicMax(rows.longest, static_cast<unsigned long long>(entries));
  rows.start[i] = rows.count[i] = 0;
}

// The working set of this block: shared memory, or its slice of the workspace.
__device__ inline char* working_set(const Workspace& workspace) {
  if (workspace.data == nullptr) return shared_memory<char>();
  return static_cast<char*>(workspace.data) + blockIdx.x * workspace.bytes;
}

inline int64_t grid_of(const Workspace& workspace, int64_t rows) {
  return workspace.data && workspace.blocks < rows ? workspace.blocks : rows;
}

inline size_t shared_of(const Workspace& workspace, int64_t bytes) {
  return workspace.data ? 16 : static_cast<size_t>(bytes);
}

}  // namespace ccfast::jaccard
