// CUDA kernels of segment_mean; the contract is in similarity.h.
#include "../common/cuda.cuh"
#include "similarity.h"

namespace ccfast::similarity {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 8;  // threads that add up one mean: labels have a few members, or many

// kLanes neighbouring threads per mean.
template <class T>
__global__ void segment_mean_kernel(MeanCudaParams<T> params) {
  const int64_t mean = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kLanes;
  const int64_t row = mean / params.segments, segment = mean % params.segments;
  const bool exists = row < params.rows;  // all threads of the warp take part in the shuffles
  const int64_t first = exists ? params.first[segment] : 0, last = exists ? params.first[segment + 1] : 0;
  double sum = 0;
  for (int64_t i = first + threadIdx.x % kLanes; i < last; i += kLanes)
    sum += params.similarities[row * params.columns + params.order[i]];
  for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(kFullMask, sum, distance);
  if (exists && threadIdx.x % kLanes == 0)
    params.means[mean] = static_cast<T>(sum / static_cast<double>(last > first ? last - first : 1));
}

// One thread per column and row.
template <class T>
__global__ void segment_mean_backward_kernel(BackwardParams<T> params) {
  const int64_t entry = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (entry >= params.rows * params.columns) return;
  const int64_t row = entry / params.columns, label = params.labels[entry % params.columns];
  const bool counts = label >= 0 && label < params.segments;
  params.gradient[entry] =
      counts ? params.upstream[row * params.segments + label] / static_cast<T>(params.counts[label]) : T{0};
}

}  // namespace

template <class T>
void segment_mean_cuda(const MeanCudaParams<T>& params, void* stream) {
  launch("similarity segment_mean", segment_mean_kernel<T>,
         blocks_for(params.rows * params.segments * kLanes, kThreads), kThreads, 0, stream, params);
}

template <class T>
void segment_mean_backward_cuda(const BackwardParams<T>& params, void* stream) {
  launch("similarity segment_mean_backward", segment_mean_backward_kernel<T>,
         blocks_for(params.rows * params.columns, kThreads), kThreads, 0, stream, params);
}

template void segment_mean_cuda(const MeanCudaParams<float>&, void*);
template void segment_mean_cuda(const MeanCudaParams<double>&, void*);
template void segment_mean_backward_cuda(const BackwardParams<float>&, void*);
template void segment_mean_backward_cuda(const BackwardParams<double>&, void*);

}  // namespace ccfast::similarity
