// CUDA kernels of the contrastive loss with sets of positives; the contract is in sets.h. One block per row.
#include "../common/cuda.cuh"
#include "../common/pack.cuh"
#include "sets.h"

namespace ccfast::sets {
namespace {

constexpr int kMostThreads = 512;
constexpr size_t kScratchBytes = 32 * sizeof(double);

__device__ __forceinline__ float lowest_of(float) { return -3.402823466e38f; }
__device__ __forceinline__ double lowest_of(double) { return -1.7976931348623157e308; }

// How often an entry counts in the sum.
template <class T>
__device__ __forceinline__ T share_of(const Columns<T>& in, int64_t entry) {
  if (in.keep && !in.keep[entry]) return T{0};
  return in.multiplicity ? static_cast<T>(in.multiplicity[entry]) : T{1};
}

// The row is read once: the highest kept logit so far and the sum relative to it are computed together.
template <class T>
__global__ void __launch_bounds__(kMostThreads) loss_kernel(LossParams<T> params) {
  double* scratch = shared_memory<double>();
  const Columns<T>& in = params.in;
  const int64_t i = blockIdx.x, begin = i * in.columns;
  T highest = lowest_of(T{});
  double sum = 0, positive = 0;
  int64_t count = 0;
  for (int64_t j = threadIdx.x; j < in.columns; j += blockDim.x) {
    const T value = in.logits[begin + j], share = share_of(in, begin + j);
    if (in.positives[begin + j]) {
      positive += value;
      ++count;
    }
    if (!(share > 0)) continue;
    const T top = larger(highest, value);
    sum = sum * exp(highest - top) + share * exp(value - top);
    highest = top;
  }
  const T top = block_max(highest, reinterpret_cast<T*>(scratch));
  const double total = block_sum(sum * static_cast<double>(exp(highest - top)), scratch);
  const double of_positives = block_sum(positive, scratch);
  const double counted = block_sum(static_cast<double>(count), scratch);
  if (threadIdx.x != 0) return;
  const bool counts = total > 0 && counted > 0;
  const double log_sum = total > 0 ? top + log(total) : 0;
  params.log_sums[i] = log_sum;
  params.counts[i] = counts ? static_cast<int64_t>(counted) : 0;
  params.losses[i] = counts ? static_cast<T>(log_sum - of_positives / counted) : T{0};
}

template <class T>
__global__ void __launch_bounds__(kMostThreads) backward_kernel(BackwardParams<T> params) {
  const Columns<T>& in = params.in;
  const int64_t i = blockIdx.x, begin = i * in.columns, count = params.counts[i];
  const T factor = count ? params.upstream[i] : T{0}, pull = count ? factor / static_cast<T>(count) : T{0};
  const T log_sum = static_cast<T>(params.log_sums[i]);
  for (int64_t j = threadIdx.x; j < in.columns; j += blockDim.x) {
    const T share = share_of(in, begin + j);
    const T pushed = share > 0 && count ? share * exp(in.logits[begin + j] - log_sum) * factor : T{0};
    params.gradient[begin + j] = pushed - (in.positives[begin + j] ? pull : T{0});
  }
}

}  // namespace

template <class T>
void loss_cuda(const LossParams<T>& params, void* stream) {
  launch("sets loss", loss_kernel<T>, params.in.rows, threads_for(params.in.columns, 1, kMostThreads), kScratchBytes,
         stream, params);
}

template <class T>
void backward_cuda(const BackwardParams<T>& params, void* stream) {
  launch("sets backward", backward_kernel<T>, params.in.rows, threads_for(params.in.columns, 1, kMostThreads), 0,
         stream, params);
}

template void loss_cuda(const LossParams<float>&, void*);
template void loss_cuda(const LossParams<double>&, void*);
template void backward_cuda(const BackwardParams<float>&, void*);
template void backward_cuda(const BackwardParams<double>&, void*);

}  // namespace ccfast::sets
