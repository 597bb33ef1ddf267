// CUDA kernels of the cluster memory; the contract is in memory.h.
#include "../common/cuda.cuh"
#include "memory.h"

namespace ccfast::memory {
namespace {

constexpr int kThreads = 256;

// One block a cluster: thread d sums dimension d of the members in ascending order.
template <class T>
__global__ void centroids_kernel(CentroidsCudaParams<T> params) {
  double* scratch = shared_memory<double>();
  const int64_t cluster = blockIdx.x, begin = params.first[cluster], end = params.first[cluster + 1];
  T* centroid = params.centroids + cluster * params.dim;
  double squares = 0;
  for (int64_t d = threadIdx.x; d < params.dim; d += blockDim.x) {
    double sum = 0;
    for (int64_t p = begin; p < end; ++p) sum += params.features[params.order[p] * params.dim + d];
    sum /= static_cast<double>(end - begin);
    squares += sum * sum;
  }
  const double norm = sqrt(block_sum(squares, scratch));
  const double divisor = norm > kSmallestNorm ? norm : kSmallestNorm;
  for (int64_t d = threadIdx.x; d < params.dim; d += blockDim.x) {
    double sum = 0;
    for (int64_t p = begin; p < end; ++p) sum += params.features[params.order[p] * params.dim + d];
    centroid[d] = static_cast<T>(sum / static_cast<double>(end - begin) / divisor);
  }
}

// What a block that updates one cluster works with: each thread owns every blockDim-th dimension of the row.
template <class T>
struct Row {
  T* memory;
  int64_t dim;
  double* scratch;

  // memory = a * memory + b * x; returns the new sum of squares to every thread.
  __device__ double mix(const T* x, T a, T b) {
    double squares = 0;
    for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) {
      const T mixed = a * memory[d] + b * x[d];
      memory[d] = mixed;
      squares += static_cast<double>(mixed) * static_cast<double>(mixed);
    }
    return block_sum(squares, scratch);
  }
  __device__ void divide(double squares) {
    const double norm = sqrt(squares);
    const T factor = static_cast<T>(1 / (norm > kSmallestNorm ? norm : kSmallestNorm));
    for (int64_t d = threadIdx.x; d < dim; d += blockDim.x) memory[d] *= factor;
  }
  __device__ double dot(const T* a, const T* b) {
    double sum = 0;
    for (int64_t d = threadIdx.x; d < dim; d += blockDim.x)
      sum += static_cast<double>(a[d]) * static_cast<double>(b[d]);
    return block_sum(sum, scratch);
  }
};

template <class T>
struct Update {
  const UpdateParams<T>& params;
  bool normalize;
  int64_t first, label;  // the block's cluster, and the first sample of it in the batch

  __device__ const T* sample(int64_t i) const { return params.features + i * params.dim; }
  __device__ bool member(int64_t i) const { return params.labels[i] == label; }
  __device__ double scale(Row<T>& row, int64_t i) const {
    if (!normalize) return 1;
    const double norm = sqrt(row.dot(sample(i), sample(i)));
    return 1 / (norm > kSmallestNorm ? norm : kSmallestNorm);
  }
};

// The row keeps a pending factor between samples, so that each takes one pass: row * factor is the normalised memory.
template <class T>
__device__ void update_sequential(const Update<T>& update, Row<T>& row) {
  const double momentum = update.params.momentum;
  double factor = 1, squares = 0;
  for (int64_t i = update.first; i < update.params.batch; ++i) {
    if (!update.member(i)) continue;
    const double scale = update.scale(row, i);
    squares = row.mix(update.sample(i), static_cast<T>(momentum * factor), static_cast<T>((1 - momentum) * scale));
    const double norm = sqrt(squares);
    factor = 1 / (norm > kSmallestNorm ? norm : kSmallestNorm);
  }
  row.divide(squares);
}

template <class T>
__device__ void update_hardest(const Update<T>& update, Row<T>& row) {
  double lowest = INFINITY, hardest_scale = 1;
  int64_t hardest = update.first;
  for (int64_t i = update.first; i < update.params.batch; ++i) {
    if (!update.member(i)) continue;
    const double scale = update.scale(row, i);
    const double similarity = row.dot(update.sample(i), row.memory) * scale;
    if (similarity < lowest) {
      lowest = similarity;
      hardest = i;
      hardest_scale = scale;
    }
  }
  const double momentum = update.params.momentum;
  row.divide(row.mix(update.sample(hardest), static_cast<T>(momentum), static_cast<T>((1 - momentum) * hardest_scale)));
}

// m M + (1 - m) mean(x), one sample after the other.
template <class T>
__device__ void update_mean(const Update<T>& update, Row<T>& row) {
  const double momentum = update.params.momentum;
  int64_t count = 0;
  for (int64_t i = update.first; i < update.params.batch; ++i) count += update.member(i);
  double weight = (1 - momentum) / static_cast<double>(count), keep = momentum, squares = 0;
  for (int64_t i = update.first; i < update.params.batch; ++i) {
    if (!update.member(i)) continue;
    const double scale = update.scale(row, i);
    squares = row.mix(update.sample(i), static_cast<T>(keep), static_cast<T>(weight * scale));
    keep = 1;
  }
  row.divide(squares);
}

// One block a sample; the block of the first sample of a cluster updates it, the others leave.
template <class T>
__global__ void update_kernel(UpdateParams<T> params, int64_t clusters, bool normalize, bool row_in_shared) {
  double* scratch = shared_memory<double>();
  int* earlier = reinterpret_cast<int*>(scratch + 32);
  const int64_t position = blockIdx.x, label = params.labels[position];
  if (label < 0 || label >= clusters) return;
  if (threadIdx.x == 0) *earlier = 0;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < position; i += blockDim.x)
    if (params.labels[i] == label) atomicExch(earlier, 1);
  __syncthreads();
  if (*earlier) return;

  T* memory = params.memory + label * params.dim;
  Row<T> row{row_in_shared ? reinterpret_cast<T*>(earlier + 4) : memory, params.dim, scratch};
  if (row_in_shared)
    for (int64_t d = threadIdx.x; d < params.dim; d += blockDim.x) row.memory[d] = memory[d];
  const Update<T> update{params, normalize, position, label};
  if (params.mode == Mode::kSequential) update_sequential(update, row);
  if (params.mode == Mode::kHardest) update_hardest(update, row);
  if (params.mode == Mode::kMean) update_mean(update, row);
  if (row_in_shared)
    for (int64_t d = threadIdx.x; d < params.dim; d += blockDim.x) memory[d] = row.memory[d];
}

constexpr size_t kScratchBytes = 32 * sizeof(double) + 4 * sizeof(int);

}  // namespace

template <class T>
void centroids_cuda(const CentroidsCudaParams<T>& params, void* stream) {
  launch("memory centroids", centroids_kernel<T>, params.clusters, kThreads, kScratchBytes, stream, params);
}

template <class T>
void update_cuda(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream) {
  const size_t row_bytes = params.dim * sizeof(T);
  const bool row_in_shared = kScratchBytes + row_bytes <= 48 * 1024;
  launch("memory update", update_kernel<T>, params.batch, kThreads, kScratchBytes + (row_in_shared ? row_bytes : 0),
         stream, params, clusters, normalize, row_in_shared);
}

template void centroids_cuda(const CentroidsCudaParams<float>&, void*);
template void centroids_cuda(const CentroidsCudaParams<double>&, void*);
template void update_cuda(const UpdateParams<float>&, int64_t, bool, void*);
template void update_cuda(const UpdateParams<double>&, int64_t, bool, void*);

}  // namespace ccfast::memory
