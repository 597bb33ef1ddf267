// A set of indices that one warp gathers, each once: a hash table in shared memory or in the workspace.
#pragma once

#include "../common/pack.cuh"
#include "jaccard.cuh"

namespace ccfast::jaccard {

// The number of slots of a set of this number of indices: a power of two.
__host__ __device__ inline int64_t slots_of(int64_t indices) {
  return indices < kPackSize<int32_t> ? kPackSize<int32_t> : next_power_of_two(indices);
}

struct IndexSet {
  static constexpr int32_t kFree = -1;
  static constexpr int kQuad = kPackSize<int32_t>;

  int32_t* table;     // [capacity], aligned to 16 bytes
  int32_t* gathered;  // [capacity] the indices in it, in any order; aligned to 16 bytes
  int* size;
  int capacity;  // slots_of the most indices

  // The caller must add a barrier after it.
  __device__ void clear() const {
    for (int slot = kQuad * static_cast<int>(threadIdx.x); slot < capacity; slot += kQuad * kWarp)
      store_pack(table + slot, Pack<int32_t, kQuad>{{kFree, kFree, kFree, kFree}});
    if (threadIdx.x == 0) *size = 0;
  }
  __device__ int first_slot(int32_t index) const {
    return static_cast<int>(static_cast<unsigned>(index) * 2654435769u >> (__clz(capacity) + 1));
  }
  // Slot of the index, or -1. The set holds it, or is not full.
  __device__ int find(int32_t index) const {
    for (int slot = first_slot(index);; slot = (slot + 1) & (capacity - 1)) {
      const int32_t owner = table[slot];
      if (owner == index) return slot;
      if (owner == kFree) return -1;
    }
  }
  // Adds the index if it is missing; returns its slot.
  __device__ int add(int32_t index) const {
    for (int slot = first_slot(index);; slot = (slot + 1) & (capacity - 1)) {
      const int32_t owner = atomicCAS(&table[slot], kFree, index);
      if (owner == kFree) gathered[atomicAdd(size, 1)] = index;
      if (owner == kFree || owner == index) return slot;
    }
  }
  // Writes all indices, ascending, to sorted [capacity]; ends with a barrier. A few are ranked by counting, many are
  // sorted.
  __device__ void sort(int32_t* sorted) const {
    constexpr int kFew = 96;
    const int count = *size;
    if (count <= kFew) {
      const int missing = (kQuad - count % kQuad) % kQuad;  // in the last quad
      if (static_cast<int>(threadIdx.x) < missing) gathered[count + threadIdx.x] = 0x7fffffff;
      __syncthreads();
      for (int u = threadIdx.x; u < count; u += kWarp) {
        const int32_t index = gathered[u];
        int rank = 0;
        for (int other = 0; other < count; other += kQuad) {
          const auto quad = load_pack<kQuad>(gathered + other);
          for (int e = 0; e < kQuad; ++e) rank += quad.value[e] < index;
        }
        sorted[rank] = index;
      }
      __syncthreads();
      return;
    }
    const int padded = static_cast<int>(next_power_of_two(count));
    for (int u = threadIdx.x; u < padded; u += kWarp) sorted[u] = u < count ? gathered[u] : 0x7fffffff;
    block_sort(sorted, padded, Ascending());
  }
};

}  // namespace ccfast::jaccard
