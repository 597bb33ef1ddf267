// CUDA kernels of the Sinkhorn-Knopp normalisation; the contract is in sinkhorn.h.
#include "../common/cuda.cuh"
#include "../common/pack.cuh"
#include "sinkhorn.h"

namespace ccfast::sinkhorn {
namespace {

constexpr int kThreads = 256;
constexpr int kMostThreads = 1024;
constexpr size_t kScratchBytes = 32 * sizeof(double);

// One block per kRowsPerBlock rows; its threads go down the columns.
template <class T>
__global__ void exponentiate_kernel(ExpParams<T> params, double* partial_sums) {
  const int64_t first = blockIdx.x * kRowsPerBlock;
  const int64_t last = first + kRowsPerBlock < params.rows ? first + kRowsPerBlock : params.rows;
  const T sharpness = static_cast<T>(1 / params.epsilon);
  for (int64_t j = threadIdx.x; j < params.columns; j += blockDim.x) {
    double sum = 0;
    for (int64_t i = first; i < last; ++i) {
      const T value = exp(params.scores[i * params.columns + j] * sharpness);
      params.exponentials[i * params.columns + j] = value;
      sum += value;
    }
    partial_sums[blockIdx.x * params.columns + j] = sum;
  }
}

// One thread per column, block after block: the order of the sum is fixed.
__global__ void add_partial_sums_kernel(const double* partial_sums, int64_t blocks, int64_t columns, double* sums) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (j >= columns) return;
  double sum = 0;
  for (int64_t block = 0; block < blocks; ++block) sum += partial_sums[block * columns + j];
  sums[j] = sum;
}

// First one warp per row finds the row's factor, then the threads go down the columns.
template <class T>
__global__ void column_sums_kernel(ScaledParams<T> params, double* partial_sums) {
  double* factors = shared_memory<double>();  // [kRowsPerBlock]
  const int64_t first = blockIdx.x * kRowsPerBlock;
  const int rows = static_cast<int>(first + kRowsPerBlock < params.rows ? kRowsPerBlock : params.rows - first);
  const int lane = threadIdx.x % kWarp;
  for (int i = threadIdx.x / kWarp; i < rows; i += blockDim.x / kWarp) {
    const T* row = params.exponentials + (first + i) * params.columns;
    double sum = 0;
    for (int64_t j = lane; j < params.columns; j += kWarp) sum += row[j] * params.factors[j];
    sum = warp_sum(sum);
    if (lane == 0) factors[i] = 1 / sum;
  }
  __syncthreads();
  for (int64_t j = threadIdx.x; j < params.columns; j += blockDim.x) {
    double sum = 0;
    for (int i = 0; i < rows; ++i) sum += params.exponentials[(first + i) * params.columns + j] * factors[i];
    partial_sums[blockIdx.x * params.columns + j] = sum;
  }
}

// One block per row.
template <class T>
__global__ void __launch_bounds__(kMostThreads) assign_kernel(ScaledParams<T> params, T* assignment) {
  double* scratch = shared_memory<double>();
  const T* row = params.exponentials + blockIdx.x * params.columns;
  double sum = 0;
  for (int64_t j = threadIdx.x; j < params.columns; j += blockDim.x) sum += row[j] * params.factors[j];
  const double factor = 1 / block_sum(sum, scratch);
  for (int64_t j = threadIdx.x; j < params.columns; j += blockDim.x)
    assignment[blockIdx.x * params.columns + j] = static_cast<T>(row[j] * params.factors[j] * factor);
}

void add_partial_sums(const double* partial_sums, int64_t rows, int64_t columns, double* sums, void* stream) {
  launch("sinkhorn add_partial_sums", add_partial_sums_kernel, blocks_for(columns, kThreads), kThreads, 0, stream,
         partial_sums, blocks_of_rows(rows), columns, sums);
}

}  // namespace

template <class T>
void exponentiate_cuda(const ExpParams<T>& params, double* partial_sums, void* stream) {
  launch("sinkhorn exponentiate", exponentiate_kernel<T>, blocks_of_rows(params.rows), kThreads, 0, stream, params,
         partial_sums);
  add_partial_sums(partial_sums, params.rows, params.columns, params.sums, stream);
}

template <class T>
void column_sums_cuda(const ScaledParams<T>& params, double* partial_sums, double* sums, void* stream) {
  launch("sinkhorn column_sums", column_sums_kernel<T>, blocks_of_rows(params.rows), kThreads,
         kRowsPerBlock * sizeof(double), stream, params, partial_sums);
  add_partial_sums(partial_sums, params.rows, params.columns, sums, stream);
}

template <class T>
void assign_cuda(const ScaledParams<T>& params, T* assignment, void* stream) {
  launch("sinkhorn assign", assign_kernel<T>, params.rows, threads_for(params.columns, 1, kMostThreads), kScratchBytes,
         stream, params, assignment);
}

template void exponentiate_cuda(const ExpParams<float>&, double*, void*);
template void exponentiate_cuda(const ExpParams<double>&, double*, void*);
template void column_sums_cuda(const ScaledParams<float>&, double*, double*, void*);
template void column_sums_cuda(const ScaledParams<double>&, double*, double*, void*);
template void assign_cuda(const ScaledParams<float>&, float*, void*);
template void assign_cuda(const ScaledParams<double>&, double*, void*);

}  // namespace ccfast::sinkhorn
