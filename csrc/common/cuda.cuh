// All that the CUDA kernels need from CUDA: launch, shared memory, reductions, a block-wide sort.
//
// With CCFAST_EMULATE the same kernels are compiled for the CPU, against tests/emulation (see its README). Kernels use
// only what the emulation offers, and only dynamic shared memory, which the emulation can poison and guard.
#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>

#ifdef CCFAST_EMULATE
#include "cuda_emulation.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

namespace ccfast {

constexpr int kWarp = 32;
constexpr unsigned kFullMask = 0xffffffffu;
constexpr int64_t kMaxGrid = 0x7fffffff;

// The number of blocks of `block` threads that contain `threads` threads.
inline int64_t blocks_for(int64_t threads, int block) { return (threads + block - 1) / block; }

// --- on the host ---

#ifdef CCFAST_EMULATE

template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), int64_t grid, int block, size_t shared_bytes, void* /*stream*/,
            Args&&... args) {
  emulation::launch(name, grid, block, shared_bytes, kernel, static_cast<Params>(std::forward<Args>(args))...);
}

inline size_t max_shared_bytes() { return emulation::kMaxSharedBytes; }

#else

inline void check_cuda(cudaError_t status, const char* name, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // reported here, so that the next caller does not get it
  throw std::runtime_error("kernel " + std::string(name) + ": " + what + ": " + cudaGetErrorString(status));
}

inline int current_device() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "none", "current device");
  return device;
}

// Shared memory that a block may opt in to on a device.
inline size_t max_shared_bytes(int device) {
  int bytes = 0;
  check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device), "none",
             "shared memory of the device");
  return static_cast<size_t>(bytes);
}
inline size_t max_shared_bytes() { return max_shared_bytes(current_device()); }

// Lets a kernel use all the shared memory of the current device. The limit is set once: if each launch set its own, a
// larger launch in another thread could fail. Kernels have no static shared memory, which would count too.
inline void allow_shared_memory(const char* name, const void* kernel) {
  static std::mutex mutex;
  using Kernel = std::pair<const void*, int>;  // on a device
  static std::set<Kernel> allowed;
  const int device = current_device();
  const std::lock_guard<std::mutex> lock(mutex);
  if (allowed.count({kernel, device})) return;
  check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(max_shared_bytes(device))),
             name, "shared memory");
  allowed.insert({kernel, device});
}

// Launches `kernel` on `stream` (a cudaStream_t), with grid blocks of `block` threads; nothing when grid <= 0. Throws
// std::runtime_error that names the kernel.
template <class... Params, class... Args>
void launch(const char* name, void (*kernel)(Params...), int64_t grid, int block, size_t shared_bytes, void* stream,
            Args&&... args) {
  if (grid <= 0) return;
  if (grid > kMaxGrid) check_cuda(cudaErrorInvalidConfiguration, name, "more than 2^31 - 1 blocks");
  constexpr size_t kSharedWithoutOptIn = 48 * 1024;
  if (shared_bytes > kSharedWithoutOptIn) allow_shared_memory(name, reinterpret_cast<const void*>(kernel));
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(grid));
  config.blockDim = dim3(static_cast<unsigned>(block));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  check_cuda(cudaLaunchKernelEx(&config, kernel, static_cast<Params>(std::forward<Args>(args))...), name, "launch");
}

#endif

// --- on the device ---

// Start of the block's dynamic shared memory, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* shared_memory() {
#ifdef CCFAST_EMULATE
  return static_cast<T*>(emulation::shared_memory());
#else
  extern __shared__ __align__(16) unsigned char ccfast_shared_memory[];
  return reinterpret_cast<T*>(ccfast_shared_memory);
#endif
}

// Reads and writes of values that other threads may change at the same time. The emulation may switch threads before.
template <class T>
__device__ __forceinline__ T load_volatile(const T* address) {
#ifdef CCFAST_EMULATE
  emulation::may_yield();
#endif
  return *const_cast<const volatile T*>(address);
}

template <class T>
__device__ __forceinline__ void store_volatile(T* address, T value) {
#ifdef CCFAST_EMULATE
  emulation::may_yield();
#endif
  *const_cast<volatile T*>(address) = value;
}

// The type in which values of a stored type are summed.
__device__ __forceinline__ double to_compute(double value) { return value; }
__device__ __forceinline__ float to_compute(float value) { return value; }
__device__ __forceinline__ float to_compute(__half value) { return __half2float(value); }
__device__ __forceinline__ float to_compute(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ float to_float(T value) {
  return static_cast<float>(to_compute(value));
}

// Sum over the warp, the same bits in every lane: a butterfly adds the same pairs everywhere.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(kFullMask, value, distance);
  return value;
}

// The larger of two values; a NaN is ignored.
template <class T>
__device__ __forceinline__ T larger(T a, T b) {
  return a >= b || b != b ? a : b;
}

// Maximum over the warp, the same bits in every lane: lane 0 decides between 0 and -0.
template <class T>
__device__ __forceinline__ T warp_max(T value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2)
    value = larger(value, __shfl_xor_sync(kFullMask, value, distance));
  return __shfl_sync(kFullMask, value, 0);
}

// scratch[w] = value of warp w, for all warps. The first barrier lets the readers of an earlier call finish.
template <class T>
__device__ __forceinline__ void share_across_warps(T value, T* scratch) {
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = value;
  __syncthreads();
}

// Sum over the block in a fixed order, the same bits in every thread. The block holds whole warps; scratch: 32 values
// in shared memory, free for other use after the next barrier.
template <class T>
__device__ T block_sum(T value, T* scratch) {
  share_across_warps(warp_sum(value), scratch);
  const unsigned lane = threadIdx.x % kWarp;
  return warp_sum(lane < blockDim.x / kWarp ? scratch[lane] : T(0));
}

// Maximum over the block; scratch as for block_sum.
template <class T>
__device__ T block_max(T value, T* scratch) {
  share_across_warps(warp_max(value), scratch);
  const unsigned lane = threadIdx.x % kWarp;
  return warp_max(scratch[lane < blockDim.x / kWarp ? lane : 0]);
}

// Sorts data [count_pow2], in shared or global memory, by the whole block: a bitonic network, so that the same input
// always gives the same output. Begins and ends with a barrier. count_pow2: a power of two. Not stable: give equal keys
// a tie-break.
template <class Key, class Less>
__device__ void block_sort(Key* data, int count_pow2, Less less) {
  __syncthreads();
  for (int size = 2; size <= count_pow2; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      for (int pair = static_cast<int>(threadIdx.x); pair < count_pow2 / 2; pair += static_cast<int>(blockDim.x)) {
        const int low = 2 * pair - (pair & (stride - 1)), high = low + stride;
        const bool ascending = (low & size) == 0;
        const Key first = data[low], second = data[high];
        if (ascending ? less(second, first) : less(first, second)) {
          data[low] = second;
          data[high] = first;
        }
      }
      __syncthreads();
    }
  }
}

}  // namespace ccfast
