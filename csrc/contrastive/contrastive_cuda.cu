// CUDA kernels of the centroid contrastive loss; the contract is in contrastive.h. One block a row.
#include "../common/cuda.cuh"
#include "contrastive.h"

namespace ccfast::contrastive {
namespace {

constexpr int kThreads = 256;
constexpr size_t kScratchBytes = 32 * sizeof(double);

template <class In, class T>
__global__ void normalize_rows_kernel(const In* x, int64_t dim, T* out, double* norms) {
  double* scratch = shared_memory<double>();
  const int64_t row = blockIdx.x;
  double squares = 0;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
    const double value = to_compute(x[row * dim + d]);
    squares += value * value;
  }
  const double norm = sqrt(block_sum(squares, scratch));
  const T factor = static_cast<T>(1 / (norm > kSmallestNorm ? norm : kSmallestNorm));
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x)
    out[row * dim + d] = static_cast<T>(to_compute(x[row * dim + d])) * factor;
  if (threadIdx.x == 0) norms[row] = norm;
}

// With n = x / |x|: dL/dx = (g - <g, n> n) / |x|. Below the smallest norm the divisor is a constant.
template <class T>
__global__ void normalize_rows_backward_kernel(T* gradient, const T* normalized, const double* norms, int64_t dim) {
  double* scratch = shared_memory<double>();
  const int64_t row = blockIdx.x;
  T* g = gradient + row * dim;
  const T* n = normalized + row * dim;
  double along = 0;
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x)
    along += static_cast<double>(g[d]) * static_cast<double>(n[d]);
  along = block_sum(along, scratch);
  const bool constant = norms[row] < kSmallestNorm;
  const T projection = static_cast<T>(constant ? 0 : along);
  const T factor = static_cast<T>(1 / (constant ? kSmallestNorm : norms[row]));
  for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) g[d] = (g[d] - projection * n[d]) * factor;
}

// Loss of one row and, in place, its gradient by the products.
template <class T>
__global__ void softmax_cross_entropy_kernel(SoftmaxParams<T> params) {
  double* scratch = shared_memory<double>();
  const int64_t i = blockIdx.x, classes = params.classes, label = params.labels[i];
  T* row = params.logits + i * classes;
  if (label == params.ignore_index || label < 0 || label >= classes) {
    if (threadIdx.x == 0) params.losses[i] = 0;
    if (params.with_gradient)
      for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) row[j] = 0;
    return;
  }
  const double sharpness = 1 / params.temperature, smoothing = params.label_smoothing;
  T highest = static_cast<T>(-INFINITY);
  double mean = 0;
  for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) {
    highest = row[j] > highest ? row[j] : highest;
    mean += row[j];
  }
  highest = block_max(highest, reinterpret_cast<T*>(scratch));
  if (smoothing > 0) mean = block_sum(mean, scratch) / static_cast<double>(classes);
  const double target = (1 - smoothing) * (row[label] - highest) + (smoothing > 0 ? smoothing * (mean - highest) : 0);
  __syncthreads();  // row[label] has been read by all before it changes

  const T steepness = static_cast<T>(sharpness);
  double sum = 0;
  for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) sum += row[j] = exp((row[j] - highest) * steepness);
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) params.losses[i] = static_cast<T>(log(sum) - target * sharpness);
  if (!params.with_gradient) return;
  const double factor = params.weights[i] * sharpness;
  const T scale = static_cast<T>(factor / sum),
          uniform = static_cast<T>(factor * smoothing / static_cast<double>(classes));
  const T one = static_cast<T>(factor * (1 - smoothing));
  for (int64_t j = threadIdx.x; j < classes; j += blockDim.x)
    row[j] = row[j] * scale - uniform - (j == label ? one : T{0});
}

}  // namespace

template <class In, class T>
void normalize_rows_cuda(const In* x, int64_t rows, int64_t dim, T* out, double* norms, void* stream) {
  launch("contrastive normalize_rows", normalize_rows_kernel<In, T>, rows, kThreads, kScratchBytes, stream, x, dim, out,
         norms);
}

template <class T>
void normalize_rows_backward_cuda(T* gradient, const T* normalized, const double* norms, int64_t rows, int64_t dim,
                                  void* stream) {
  launch("contrastive normalize_rows_backward", normalize_rows_backward_kernel<T>, rows, kThreads, kScratchBytes,
         stream, gradient, normalized, norms, dim);
}

template <class T>
void softmax_cross_entropy_cuda(const SoftmaxParams<T>& params, void* stream) {
  launch("contrastive softmax_cross_entropy", softmax_cross_entropy_kernel<T>, params.rows, kThreads, kScratchBytes,
         stream, params);
}

// Half-precision rows come as their bits, so that the header needs no CUDA types.
void normalize_rows_cuda(const HalfBits* x, int64_t rows, int64_t dim, float* out, double* norms, void* stream) {
  normalize_rows_cuda<__half, float>(reinterpret_cast<const __half*>(x), rows, dim, out, norms, stream);
}
void normalize_rows_cuda(const BFloat16Bits* x, int64_t rows, int64_t dim, float* out, double* norms, void* stream) {
  normalize_rows_cuda<__nv_bfloat16, float>(reinterpret_cast<const __nv_bfloat16*>(x), rows, dim, out, norms, stream);
}
template void normalize_rows_cuda<float, float>(const float*, int64_t, int64_t, float*, double*, void*);
template void normalize_rows_cuda<double, double>(const double*, int64_t, int64_t, double*, double*, void*);
template void normalize_rows_backward_cuda(float*, const float*, const double*, int64_t, int64_t, void*);
template void normalize_rows_backward_cuda(double*, const double*, const double*, int64_t, int64_t, void*);
template void softmax_cross_entropy_cuda(const SoftmaxParams<float>&, void*);
template void softmax_cross_entropy_cuda(const SoftmaxParams<double>&, void*);

}  // namespace ccfast::contrastive
