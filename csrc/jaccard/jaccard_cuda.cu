// CUDA kernels of the Jaccard distance of sparse encodings; the contract is in jaccard.h.
//
// One block owns one row i and walks its columns in ascending order; within a column the targets are distinct, so the
// threads add without atomics, and a barrier between columns keeps the order of every sum. Targets are taken in tiles
// that fit the accumulator in shared memory.
#include "../common/cuda.cuh"
#include "jaccard.h"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 256;

__device__ float distance_of(float shared) {
  const float distance = 1.0f - shared / (2.0f - shared);
  return distance < 0.0f ? 0.0f : distance;
}

__device__ int64_t lower_bound(const int64_t* sorted, int64_t low, int64_t high, int64_t value) {
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted[middle] < value) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

// mass[j - first] = s(i, j) for the targets j in [first, last).
__device__ void accumulate(const DeviceCsr& v, const DevicePostings& postings, int64_t i, int64_t first, int64_t last,
                           float* mass) {
  for (int64_t j = threadIdx.x; j < last - first; j += blockDim.x) mass[j] = 0.0f;
  __syncthreads();
  for (int64_t e = v.crow[i]; e < v.crow[i + 1]; ++e) {
    const float value = v.val[e];
    const int64_t end = postings.start[v.col[e] + 1];
    const int64_t begin = lower_bound(postings.row, postings.start[v.col[e]], end, first);
    for (int64_t p = begin + threadIdx.x; p < end && postings.row[p] < last; p += blockDim.x)
      mass[postings.row[p] - first] += fmaxf(0.0f, fminf(value, postings.val[p]));
    __syncthreads();
  }
}

// Place of this thread's entry among those of the block with `keep`, in thread order, and their number. counts: one int
// a warp and one for the total, in shared memory.
__device__ int place_of(bool keep, int* counts, int* total) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const unsigned mask = __ballot_sync(kFullMask, keep);
  if (lane == 0) counts[warp] = __popc(mask);
  __syncthreads();
  int before = 0, sum = 0;
  for (int w = 0; w < kThreads / kWarp; ++w) {
    before += w < warp ? counts[w] : 0;
    sum += counts[w];
  }
  __syncthreads();
  *total = sum;
  return before + __popc(mask & ((1u << lane) - 1));
}

// A row of the sparse result: pairs within max_distance and the diagonal, ascending.
__global__ void sparse_distance_kernel(SparseDistanceParams params, CsrOutput out) {
  int* counts = shared_memory<int>();
  float* mass = reinterpret_cast<float*>(counts + 32);
  const int64_t i = params.rows.begin + blockIdx.x, rows = params.v.rows;
  const int64_t offset = out.col ? out.crow[blockIdx.x] : 0;
  int64_t written = 0;
  for (int64_t first = 0; first < rows; first += params.tile) {
    const int64_t last = first + params.tile < rows ? first + params.tile : rows;
    accumulate(params.v, params.postings, i, first, last, mass);
    for (int64_t step = first; step < last; step += kThreads) {
      const int64_t j = step + threadIdx.x;
      const float distance = j < last ? distance_of(mass[j - first]) : 2.0f;
      const bool keep = j < last && (distance <= params.max_distance || j == i);
      int total;
      const int place = place_of(keep, counts, &total);
      if (keep && out.col) {
        out.col[offset + written + place] = j;
        out.val[offset + written + place] = distance;
      }
      written += total;
    }
    __syncthreads();
  }
  if (out.col == nullptr && threadIdx.x == 0) out.counts[blockIdx.x] = written;
}

__global__ void dense_distance_kernel(DenseDistanceParams params) {
  float* mass = shared_memory<float>();
  const int64_t row = blockIdx.x, columns = params.col_end - params.col_begin;
  for (int64_t first = params.col_begin; first < params.col_end; first += params.tile) {
    const int64_t last = first + params.tile < params.col_end ? first + params.tile : params.col_end;
    accumulate(params.v, params.postings, params.row_begin + row, first, last, mass);
    for (int64_t j = first + threadIdx.x; j < last; j += blockDim.x)
      params.out[row * columns + j - params.col_begin] = distance_of(mass[j - first]);
    __syncthreads();
  }
}

size_t mass_bytes(int64_t targets, int64_t tile) { return (targets < tile ? targets : tile) * sizeof(float); }

}  // namespace

void sparse_distance_cuda(const SparseDistanceParams& params, const CsrOutput& out, void* stream) {
  launch("jaccard sparse_distance", sparse_distance_kernel, params.rows.size(), kThreads,
         32 * sizeof(int) + mass_bytes(params.v.rows, params.tile), stream, params, out);
}

void dense_distance_cuda(const DenseDistanceParams& params, void* stream) {
  launch("jaccard dense_distance", dense_distance_kernel, params.row_end - params.row_begin, kThreads,
         mass_bytes(params.col_end - params.col_begin, params.tile), stream, params);
}

}  // namespace ccfast::jaccard
