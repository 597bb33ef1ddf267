// CUDA kernels of the centroid contrastive loss; the contract is in contrastive.h. One block per row.
#include "../common/cuda.cuh"
#include "../common/pack.cuh"
#include "contrastive.h"

namespace ccfast::contrastive {
namespace {

constexpr int kThreads = 512;        // of a block, which normalises one row
constexpr int kValues = 8;           // values of a row in a thread's registers; the others are read again
constexpr int kMostThreads = 1024;   // of a block, which handles one row of logits
constexpr int kTargetThreads = 512;  // the same with targets: more registers per thread
constexpr int kBatchThreads = 256;   // of the single block that counts the labels or sums the losses
constexpr size_t kScratchBytes = 32 * sizeof(double);

__device__ __forceinline__ bool counts(int64_t label, int64_t classes, int64_t ignore_index) {
  return label >= 0 && label < classes && label != ignore_index;
}

__device__ void count_labels(const LabelsToCount& labels, double* scratch) {
  int64_t mine = 0;
  for (int64_t i = threadIdx.x; i < labels.rows; i += blockDim.x)
    mine += counts(labels.labels[i], labels.classes, labels.ignore_index);
  const double counted = block_sum(static_cast<double>(mine), scratch);
  if (threadIdx.x == 0) *labels.weight = labels.mean && counted > 1 ? 1 / counted : 1;
}

template <class T>
__device__ void sum_losses(const LossesToSum<T>& losses, double* scratch) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < losses.rows; i += blockDim.x) mine += losses.losses[i];
  const double sum = block_sum(mine, scratch);
  if (threadIdx.x == 0) *losses.loss = static_cast<T>(sum * *losses.weight);
}

template <class In, class T>
struct NormalizeParams {
  const In* x;
  int64_t rows, dim;
  T* out;
  double* norms;
};

// Block `rows` counts the labels.
template <class In, class T, int kSize>
__global__ void normalize_rows_kernel(NormalizeParams<In, T> params, LabelsToCount labels) {
  double* scratch = shared_memory<double>();
  const int64_t row = blockIdx.x, dim = params.dim;
  if (row == params.rows) return count_labels(labels, scratch);
  const In* x = params.x + row * dim;
  T* out = params.out + row * dim;
  constexpr int kPacks = kValues / kSize;
  const int64_t kept = static_cast<int64_t>(blockDim.x) * kValues;
  Pack<In, kSize> pack[kPacks];
  for_each_pack<kSize, kPacks>(dim, [&](int d, int p) { pack[p] = load_pack<kSize>(x + d); });
  double squares = 0;
  for_each_pack<kSize, kPacks>(dim, [&](int, int p) {
    for (int k = 0; k < kSize; ++k) {
      const double value = to_compute(pack[p].value[k]);
      squares += value * value;
    }
  });
  for (int64_t d = kept + threadIdx.x; d < dim; d += blockDim.x) {
    const double value = to_compute(x[d]);
    squares += value * value;
  }
  const double norm = sqrt(block_sum(squares, scratch));
  // The reciprocal of such a norm is not a normal float32: the division is done in two steps.
  const double early = norm > kLargestNorm ? 0x1p-64 : 1;
  const T first = static_cast<T>(early);
  const T factor = static_cast<T>(1 / ((norm > kSmallestNorm ? norm : kSmallestNorm) * early));
  for_each_pack<kSize, kPacks>(dim, [&](int d, int p) {
    Pack<T, kSize> scaled;
    for (int k = 0; k < kSize; ++k) scaled.value[k] = static_cast<T>(to_compute(pack[p].value[k])) * first * factor;
    store_pack(out + d, scaled);
  });
  for (int64_t d = kept + threadIdx.x; d < dim; d += blockDim.x)
    out[d] = static_cast<T>(to_compute(x[d])) * first * factor;
  if (threadIdx.x == 0) params.norms[row] = norm;
}

template <class T>
struct BackwardParams {
  T* gradient;
  const T* normalized;
  const double* norms;
  int64_t rows, dim;
};

// With n = x / |x|: dL/dx = (g - <g, n> n) / |x|. Below the smallest norm the divisor is a constant. Block `rows` sums
// the losses.
template <class T, int kSize>
__global__ void normalize_rows_backward_kernel(BackwardParams<T> params, LossesToSum<T> losses) {
  double* scratch = shared_memory<double>();
  const int64_t row = blockIdx.x, dim = params.dim;
  if (row == params.rows) return sum_losses(losses, scratch);
  T* g = params.gradient + row * dim;
  const T* n = params.normalized + row * dim;
  const double norm = params.norms[row];
  constexpr int kPacks = kValues / kSize;
  const int64_t kept = static_cast<int64_t>(blockDim.x) * kValues;
  Pack<T, kSize> by_row[kPacks], unit[kPacks];
  for_each_pack<kSize, kPacks>(dim, [&](int d, int p) {
    by_row[p] = load_pack<kSize>(g + d);
    unit[p] = load_pack<kSize>(n + d);
  });
  double along = 0;
  for_each_pack<kSize, kPacks>(dim, [&](int, int p) {
    for (int k = 0; k < kSize; ++k)
      along += static_cast<double>(by_row[p].value[k]) * static_cast<double>(unit[p].value[k]);
  });
  for (int64_t d = kept + threadIdx.x; d < dim; d += blockDim.x)
    along += static_cast<double>(g[d]) * static_cast<double>(n[d]);
  along = block_sum(along, scratch);
  const bool constant = norm < kSmallestNorm;
  const T projection = static_cast<T>(constant ? 0 : along);
  const T factor = static_cast<T>(1 / (constant ? kSmallestNorm : norm));
  for_each_pack<kSize, kPacks>(dim, [&](int d, int p) {
    for (int k = 0; k < kSize; ++k) by_row[p].value[k] = (by_row[p].value[k] - projection * unit[p].value[k]) * factor;
    store_pack(g + d, by_row[p]);
  });
  for (int64_t d = kept + threadIdx.x; d < dim; d += blockDim.x) g[d] = (g[d] - projection * n[d]) * factor;
}

// A row of logits, pack by pack; the last pack may reach beyond the end of the row.
template <class T, int kSize>
struct Logits {
  T* row;
  int64_t classes;

  // body(j, pack): the pack that begins at class j; values beyond the end of the row are `beyond`.
  template <class Body>
  __device__ __forceinline__ void for_each(T beyond, const Body& body) const {
    for (int64_t j = static_cast<int64_t>(threadIdx.x) * kSize; j < classes;
         j += static_cast<int64_t>(blockDim.x) * kSize) {
      Pack<T, kSize> pack = load_pack<kSize>(row + j);
      for (int k = 1; k < kSize; ++k)
        if (j + k >= classes) pack.value[k] = beyond;
      body(j, pack);
    }
  }
};

__device__ __forceinline__ float lowest_of(float) { return -3.402823466e38f; }
__device__ __forceinline__ double lowest_of(double) { return -1.7976931348623157e308; }

// The highest logit so far, and the sum of exp((logit - highest) * steepness) over all of them.
template <class T>
struct RunningSum {
  T highest = lowest_of(T{}), sum = 0;

  template <int kSize>
  __device__ __forceinline__ void add(const Pack<T, kSize>& pack, T steepness) {
    T top = highest, added = 0;
    for (int k = 0; k < kSize; ++k) top = pack.value[k] > top ? pack.value[k] : top;
    for (int k = 0; k < kSize; ++k) added += exp((pack.value[k] - top) * steepness);
    sum = sum * exp((highest - top) * steepness) + added;
    highest = top;
  }
};

// Loss of one row and, in place, its gradient by the products. The row is read twice: once for the highest logit and
// the sum together, once for the gradient.
template <class T, int kSize>
__global__ void __launch_bounds__(kMostThreads) softmax_cross_entropy_kernel(SoftmaxParams<T> params) {
  double* scratch = shared_memory<double>();
  const int64_t i = blockIdx.x, classes = params.classes, label = params.labels[i];
  const Logits<T, kSize> logits{params.logits + i * params.stride, classes};
  if (!counts(label, classes, params.ignore_index)) {
    if (threadIdx.x == 0) params.losses[i] = 0;
    if (params.with_gradient)
      for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) logits.row[j] = 0;
    return;
  }
  const double sharpness = 1 / params.temperature, smoothing = params.label_smoothing;
  const T steepness = static_cast<T>(sharpness), at_label = logits.row[label];
  RunningSum<T> running;
  double mean = 0;
  logits.for_each(lowest_of(T{}), [&](int64_t j, const Pack<T, kSize>& pack) {
    running.add(pack, steepness);
    if (smoothing > 0)
      for (int k = 0; k < kSize; ++k) mean += j + k < classes ? pack.value[k] : T{0};
  });
  // These barriers make sure that all threads have read at_label before it changes.
  const T highest = block_max(running.highest, reinterpret_cast<T*>(scratch));
  const double sum =
      block_sum(static_cast<double>(running.sum * exp((running.highest - highest) * steepness)), scratch);
  if (smoothing > 0) mean = block_sum(mean, scratch) / static_cast<double>(classes);
  if (threadIdx.x == 0) {
    const double target = (1 - smoothing) * (at_label - highest) + (smoothing > 0 ? smoothing * (mean - highest) : 0);
    params.losses[i] = static_cast<T>(log(sum) - target * sharpness);
  }
  if (!params.with_gradient) return;
  const double factor = params.weights[i * params.weight_stride] * sharpness;
  const T scale = static_cast<T>(factor / sum),
          uniform = static_cast<T>(factor * smoothing / static_cast<double>(classes));
  const T one = static_cast<T>(factor * (1 - smoothing));
  logits.for_each(T{0}, [&](int64_t j, Pack<T, kSize>& pack) {
    for (int k = 0; k < kSize; ++k)
      pack.value[k] = exp((pack.value[k] - highest) * steepness) * scale - uniform - (j + k == label ? one : T{0});
    store_pack(logits.row + j, pack);
  });
}

// Sums over the columns of a row that count, besides the softmax: first of one thread's columns, then of the whole row.
template <class Count>
struct TargetSums {
  double target = 0, along = 0, all = 0;        // of t, of t z, of z
  Count columns = 0, targets = 0, outside = 0;  // columns that count; with a target; with one, not counted

  __device__ __forceinline__ void add(bool takes_part, double t, double z) {
    targets += t != 0;
    outside += t != 0 && !takes_part;
    if (!takes_part) return;
    target += t;
    if (t != 0) along += t * z;
    all += z;
    columns += 1;
  }
  __device__ TargetSums<double> over_block(double* scratch) const {
    const auto sum = [scratch](double mine) { return block_sum(mine, scratch); };
    return {sum(target), sum(along), sum(all), sum(columns), sum(targets), sum(outside)};
  }
};

// One row of a loss with targets, a mask, weights or a temperature per column; the row is read twice, as above.
template <class T, int kSize>
__global__ void __launch_bounds__(kTargetThreads)
    target_cross_entropy_kernel(SoftmaxParams<T> params, TargetParams<T> extra) {
  double* scratch = shared_memory<double>();
  const int64_t i = blockIdx.x, classes = params.classes, label = extra.targets ? -1 : params.labels[i];
  const Logits<T, kSize> logits{params.logits + i * params.stride, classes};
  const T* target_row = extra.targets ? extra.targets + i * classes : nullptr;
  const bool* mask = extra.mask ? extra.mask + i * classes : nullptr;
  const T steepness = static_cast<T>(extra.sharpness ? 1 : 1 / params.temperature);
  const auto takes_part = [=](int64_t j) { return j < classes && (!mask || mask[j]); };
  const auto target = [=](int64_t j) -> T { return target_row ? target_row[j] : static_cast<T>(j == label); };
  const auto sharpness = [=](int64_t j) -> T { return extra.sharpness && j < classes ? extra.sharpness[j] : T{1}; };

  RunningSum<T> running;
  TargetSums<int> mine;
  logits.for_each(T{0}, [&](int64_t j, Pack<T, kSize>& pack) {
    for (int k = 0; k < kSize; ++k) {
      const bool part = takes_part(j + k);
      pack.value[k] = part ? pack.value[k] * sharpness(j + k) : lowest_of(T{});
      if (j + k < classes) mine.add(part, target(j + k), pack.value[k]);
    }
    running.add(pack, steepness);
  });
  const TargetSums<double> sums = mine.over_block(scratch);
  if (target_row ? sums.targets == 0 : !counts(label, classes, params.ignore_index)) {
    if (threadIdx.x == 0) params.losses[i] = 0;
    if (params.with_gradient)
      for (int64_t j = threadIdx.x; j < classes; j += blockDim.x) logits.row[j] = 0;
    return;
  }
  const T highest = block_max(running.highest, reinterpret_cast<T*>(scratch));
  const double sum =
      block_sum(static_cast<double>(running.sum * exp((running.highest - highest) * steepness)), scratch);
  const double smoothing = params.label_smoothing, weight = extra.row_weights ? extra.row_weights[i] : 1;
  const double uniform = sums.columns > 0 ? smoothing / sums.columns : 0;
  const double mass = (1 - smoothing) * sums.target + smoothing;
  if (threadIdx.x == 0) {
    const double along =
        (1 - smoothing) * (sums.along - sums.target * highest) + uniform * (sums.all - sums.columns * highest);
    const double loss = sums.outside > 0 ? INFINITY : mass * log(sum) - along * steepness;
    params.losses[i] = static_cast<T>(weight * loss);
  }
  if (!params.with_gradient) return;
  const double factor = params.weights[i * params.weight_stride] * weight * steepness;
  const T scale = static_cast<T>(factor * mass / sum), even = static_cast<T>(factor * uniform);
  const T one = static_cast<T>(factor * (1 - smoothing));
  logits.for_each(T{0}, [&](int64_t j, Pack<T, kSize>& pack) {
    for (int k = 0; k < kSize; ++k) {
      if (!takes_part(j + k)) {
        pack.value[k] = 0;
        continue;
      }
      const T sharp = sharpness(j + k), z = pack.value[k] * sharp;
      pack.value[k] = (exp((z - highest) * steepness) * scale - even - one * target(j + k)) * sharp;
    }
    store_pack(logits.row + j, pack);
  });
}

template <class In, class T, int kSize>
void launch_normalize(const NormalizeParams<In, T>& params, const LabelsToCount& labels, void* stream) {
  const int threads = params.rows ? threads_for(params.dim, kSize, kThreads) : kBatchThreads;
  launch("contrastive normalize_rows", normalize_rows_kernel<In, T, kSize>, params.rows + 1, threads, kScratchBytes,
         stream, params, labels);
}

template <class T, int kSize>
void launch_backward(const BackwardParams<T>& params, const LossesToSum<T>& losses, void* stream) {
  const int threads = params.rows ? threads_for(params.dim, kSize, kThreads) : kBatchThreads;
  launch("contrastive normalize_rows_backward", normalize_rows_backward_kernel<T, kSize>,
         params.rows + (losses.loss ? 1 : 0), threads, kScratchBytes, stream, params, losses);
}

template <class T, int kSize>
void launch_softmax(const SoftmaxParams<T>& params, void* stream) {
  launch("contrastive softmax_cross_entropy", softmax_cross_entropy_kernel<T, kSize>, params.rows,
         threads_for(params.classes, kSize, kMostThreads), kScratchBytes, stream, params);
}

template <class T, int kSize>
void launch_targets(const SoftmaxParams<T>& params, const TargetParams<T>& targets, void* stream) {
  launch("contrastive target_cross_entropy", target_cross_entropy_kernel<T, kSize>, params.rows,
         threads_for(params.classes, kSize, kTargetThreads), kScratchBytes, stream, params, targets);
}

}  // namespace

template <class In, class T>
void normalize_rows_cuda(const In* x, int64_t rows, int64_t dim, T* out, double* norms, const LabelsToCount& labels,
                         void* stream) {
  const NormalizeParams<In, T> params{x, rows, dim, out, norms};
  const bool packs = in_packs(x, dim) && in_packs(out, dim);
  packs ? launch_normalize<In, T, kPackSize<In>>(params, labels, stream)
        : launch_normalize<In, T, 1>(params, labels, stream);
}

template <class T>
void normalize_rows_backward_cuda(T* gradient, const T* normalized, const double* norms, int64_t rows, int64_t dim,
                                  const LossesToSum<T>& losses, void* stream) {
  const BackwardParams<T> params{gradient, normalized, norms, rows, dim};
  const bool packs = in_packs(gradient, dim) && in_packs(normalized, dim);
  packs ? launch_backward<T, kPackSize<T>>(params, losses, stream) : launch_backward<T, 1>(params, losses, stream);
}

template <class T>
void softmax_cross_entropy_cuda(const SoftmaxParams<T>& params, void* stream) {
  in_packs(params.logits, params.stride) ? launch_softmax<T, kPackSize<T>>(params, stream)
                                         : launch_softmax<T, 1>(params, stream);
}

template <class T>
void softmax_cross_entropy_cuda(const SoftmaxParams<T>& params, const TargetParams<T>& targets, void* stream) {
  in_packs(params.logits, params.stride) ? launch_targets<T, kPackSize<T>>(params, targets, stream)
                                         : launch_targets<T, 1>(params, targets, stream);
}

// Half-precision rows are passed as their bits, so that the header needs no CUDA types.
void normalize_rows_cuda(const HalfBits* x, int64_t rows, int64_t dim, float* out, double* norms,
                         const LabelsToCount& labels, void* stream) {
  normalize_rows_cuda<__half, float>(reinterpret_cast<const __half*>(x), rows, dim, out, norms, labels, stream);
}
void normalize_rows_cuda(const BFloat16Bits* x, int64_t rows, int64_t dim, float* out, double* norms,
                         const LabelsToCount& labels, void* stream) {
  normalize_rows_cuda<__nv_bfloat16, float>(reinterpret_cast<const __nv_bfloat16*>(x), rows, dim, out, norms, labels,
                                            stream);
}
template void normalize_rows_cuda<float, float>(const float*, int64_t, int64_t, float*, double*, const LabelsToCount&,
                                                void*);
template void normalize_rows_cuda<double, double>(const double*, int64_t, int64_t, double*, double*,
                                                  const LabelsToCount&, void*);
template void normalize_rows_backward_cuda(float*, const float*, const double*, int64_t, int64_t,
                                           const LossesToSum<float>&, void*);
template void normalize_rows_backward_cuda(double*, const double*, const double*, int64_t, int64_t,
                                           const LossesToSum<double>&, void*);
template void softmax_cross_entropy_cuda(const SoftmaxParams<float>&, void*);
template void softmax_cross_entropy_cuda(const SoftmaxParams<double>&, void*);
template void softmax_cross_entropy_cuda(const SoftmaxParams<float>&, const TargetParams<float>&, void*);
template void softmax_cross_entropy_cuda(const SoftmaxParams<double>&, const TargetParams<double>&, void*);

}  // namespace ccfast::contrastive
