// CUDA kernels of the queue; the contract is in queue.h.
#include "../common/cuda.cuh"
#include "queue.h"

namespace ccfast::queue {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ int64_t place_of(int64_t pointer, int64_t size) { return (pointer % size + size) % size; }

template <class T>
__global__ void write_kernel(Params<T> params, const int64_t* pointer) {
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (entry >= params.count * params.dim) return;
  const int64_t row = place_of(place_of(*pointer, params.size) + entry / params.dim, params.size);
  params.queue[row * params.dim + entry % params.dim] = params.rows[entry];
}

// A separate launch, so that all blocks have read the pointer before it changes.
__global__ void advance_kernel(int64_t* pointer, int64_t count, int64_t size) {
  *pointer = place_of(place_of(*pointer, size) + count, size);
}

// One thread per value of rows: it moves the values that lie count rows apart, the last one first, so that nothing is
// overwritten before it has been read.
template <class T>
__global__ void shift_kernel(Params<T> params) {
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, step = params.count * params.dim;
  if (entry >= step) return;
  int64_t at = entry + (params.size * params.dim - 1 - entry) / step * step;
  for (; at >= step; at -= step) params.queue[at] = params.queue[at - step];
  params.queue[entry] = params.rows[entry];
}

}  // namespace

template <class T>
void enqueue_ring_cuda(const Params<T>& params, int64_t* pointer, void* stream) {
  launch("queue write", write_kernel<T>, blocks_for(params.count * params.dim, kThreads), kThreads, 0, stream, params,
         pointer);
  launch("queue advance", advance_kernel, 1, 1, 0, stream, pointer, params.count, params.size);
}

template <class T>
void enqueue_front_cuda(const Params<T>& params, void* stream) {
  launch("queue shift", shift_kernel<T>, blocks_for(params.count * params.dim, kThreads), kThreads, 0, stream, params);
}

template void enqueue_ring_cuda(const Params<float>&, int64_t*, void*);
template void enqueue_ring_cuda(const Params<double>&, int64_t*, void*);
template void enqueue_front_cuda(const Params<float>&, void*);
template void enqueue_front_cuda(const Params<double>&, void*);

}  // namespace ccfast::queue
