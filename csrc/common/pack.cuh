// Rows read in packs of 16 bytes, one load instruction each, and kept in the registers of a block's threads.
#pragma once

#include "cuda.cuh"

// Before a loop: unrolls this number of iterations, so that their loads are in flight at the same time.
#ifdef CCFAST_EMULATE
#define CCFAST_UNROLL(passes)
#else
#define CCFAST_TEXT(...) #__VA_ARGS__
#define CCFAST_UNROLL(passes) _Pragma(CCFAST_TEXT(unroll passes))
#endif

namespace ccfast {

template <class T>
constexpr int kPackSize = 16 / static_cast<int>(sizeof(T));

// kSize values that are loaded and stored together. kSize 1 is for rows that are not aligned.
template <class T, int kSize>
struct alignas(kSize * sizeof(T) < 16 ? kSize * sizeof(T) : 16) Pack {
  T value[kSize];
};

// Whether rows of `stride` values each, the first one at base, all begin where a pack may.
template <class T>
__host__ __device__ bool in_packs(const T* base, int64_t stride) {
  return stride % kPackSize<T> == 0 && reinterpret_cast<uintptr_t>(base) % 16 == 0;
}

// On the host: the number of threads of a block with one pack per thread: whole warps, at most `most`.
inline int threads_for(int64_t values, int pack_size, int most) {
  const int64_t packs = (values + pack_size - 1) / pack_size, warps = (packs + kWarp - 1) / kWarp;
  return warps < 1 ? kWarp : warps * kWarp < most ? static_cast<int>(warps * kWarp) : most;
}

template <int kSize, class T>
__device__ __forceinline__ Pack<T, kSize> load_pack(const T* first) {
  return *reinterpret_cast<const Pack<T, kSize>*>(first);
}

// The values d .. d + kSize - 1 of a row, d < dim; zeros beyond its end. kWhole: a pack may begin at d, and
// ends inside the row.
template <int kSize, bool kWhole, class T>
__device__ __forceinline__ Pack<T, kSize> load_part(const T* row, int64_t d, int64_t dim) {
  if constexpr (kWhole) {
    return load_pack<kSize>(row + d);
  } else {
    Pack<T, kSize> part;
    for (int e = 0; e < kSize; ++e) part.value[e] = d + e < dim ? row[d + e] : T{};
    return part;
  }
}

template <int kSize, class T>
__device__ __forceinline__ void store_pack(T* first, const Pack<T, kSize>& pack) {
  *reinterpret_cast<Pack<T, kSize>*>(first) = pack;
}

// Calls body(d, p) for the packs of this thread among the first blockDim.x * kPacks * kSize values: p = 0, 1, ... known
// at compile time, so that arrays indexed with it stay in registers; d: the position of the pack in the row.
template <int kSize, int kPacks, class Body>
__device__ __forceinline__ void for_each_pack(int64_t dim, const Body& body) {
  for (int p = 0; p < kPacks; ++p) {
    const int d = static_cast<int>(p * blockDim.x + threadIdx.x) * kSize;
    if (d < dim) body(d, p);
  }
}

}  // namespace ccfast
