// CUDA kernels of the exact nearest-neighbour search; the contract is in knn.h.
#include "../common/cuda.cuh"
#include "knn.h"

namespace ccfast::knn {
namespace {

constexpr int kThreads = 256;
constexpr int kPerThread = 4;
constexpr int kRound = kThreads * kPerThread;  // scores looked at between two checks of the buffer

struct Candidate {
  float score;
  int32_t index;
};

// Best first: higher score, then lower index.
struct BetterCandidate {
  __device__ bool operator()(const Candidate& a, const Candidate& b) const {
    return a.score > b.score || (a.score == b.score && a.index < b.index);
  }
};

struct Nearest {
  double distance;
  int64_t index;
};

struct NearerFirst {
  __device__ bool operator()(const Nearest& a, const Nearest& b) const {
    return a.distance < b.distance || (a.distance == b.distance && a.index < b.index);
  }
};

__host__ __device__ inline int next_power_of_two(int value) {
  int power = 1;
  while (power < value) power *= 2;
  return power;
}

// Squared distance of two rows by one warp, in float64; every lane gets it.
__device__ double warp_squared_distance(const float* a, const float* b, int64_t dim) {
  double sum = 0;
  for (int64_t d = threadIdx.x % kWarp; d < dim; d += kWarp) {
    const double difference = static_cast<double>(a[d]) - static_cast<double>(b[d]);
    sum += difference * difference;
  }
  return warp_sum(sum);
}

__global__ void squared_norms_kernel(SquaredNormsParams params) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (row >= params.rows) return;
  double sum = 0;
  for (int64_t d = threadIdx.x % kWarp; d < params.dim; d += kWarp) {
    const double value = params.matrix[row * params.dim + d];
    sum += value * value;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % kWarp == 0) params.norms[row] = sum;
}

// Sorts the first `count` candidates of the buffer, best first. Every thread of the block calls it after a barrier.
__device__ void sort_candidates(Candidate* buffer, int count) {
  const int padded = next_power_of_two(count);
  for (int slot = count + threadIdx.x; slot < padded; slot += blockDim.x) buffer[slot] = {-INFINITY, 0x7fffffff};
  __syncthreads();
  block_sort(buffer, padded, BetterCandidate());
}

// One block a row. Candidates above the threshold gather in a buffer in shared memory; when it could overflow, only the
// best `keep` stay and the threshold rises. The buffer's order depends on timing, what is kept does not.
__global__ void select_kernel(SelectParams params) {
  const int64_t row = blockIdx.x;
  const int keep = static_cast<int>(params.keep);
  int* count = shared_memory<int>();
  Candidate* buffer = reinterpret_cast<Candidate*>(count + 4);
  const int capacity = next_power_of_two(keep + kRound);
  for (int slot = threadIdx.x; slot < keep; slot += blockDim.x)
    buffer[slot] = {params.scores[row * keep + slot], params.indices[row * keep + slot]};
  if (threadIdx.x == 0) *count = keep;
  float threshold = params.thresholds[row];
  __syncthreads();

  const float* tile = params.tile + row * params.cols;
  const float* half_norms = params.half_norms + params.col0;
  for (int64_t first = 0; first < params.cols; first += kRound) {
    for (int step = 0; step < kPerThread; ++step) {
      const int64_t j = first + step * kThreads + threadIdx.x;
      if (j >= params.cols) break;
      const float score = tile[j] - half_norms[j];
      if (score > threshold) buffer[atomicAdd(count, 1)] = {score, static_cast<int32_t>(params.col0 + j)};
    }
    __syncthreads();
    const int filled = *count;
    const bool last = first + kRound >= params.cols;
    if (filled > keep && (last || filled + kRound > capacity)) {
      sort_candidates(buffer, filled);
      threshold = buffer[keep - 1].score;
      if (threadIdx.x == 0) *count = keep;
    }
    __syncthreads();
  }
  for (int slot = threadIdx.x; slot < keep; slot += blockDim.x) {
    params.scores[row * keep + slot] = buffer[slot].score;
    params.indices[row * keep + slot] = buffer[slot].index;
  }
  if (threadIdx.x == 0) params.thresholds[row] = threshold;
}

// One block a query: a warp re-scores a candidate at a time, then the block sorts.
__global__ void rescore_kernel(RescoreParams params) {
  const int64_t row = blockIdx.x;
  const int keep = static_cast<int>(params.keep), padded = next_power_of_two(keep);
  Nearest* found = shared_memory<Nearest>();
  for (int slot = threadIdx.x / kWarp; slot < padded; slot += blockDim.x / kWarp) {
    const int64_t target = slot < keep ? params.candidates[row * keep + slot] : -1;
    const double distance = target < 0 ? INFINITY
                                       : warp_squared_distance(params.queries + row * params.dim,
                                                               params.features + target * params.dim, params.dim);
    if (threadIdx.x % kWarp == 0) found[slot] = {distance, target < 0 ? INT64_MAX : target};
  }
  __syncthreads();
  block_sort(found, padded, NearerFirst());
  for (int64_t m = threadIdx.x; m < params.k; m += blockDim.x) {
    params.indices[row * params.k + m] = found[m].index;
    params.distances[row * params.k + m] = static_cast<float>(found[m].distance);
  }
  if (threadIdx.x == 0) {
    const double discarded = params.norms[row] - 2 * (params.thresholds[row] + params.errors[row]);
    const bool complete = params.keep == params.num_features;  // nothing has been discarded
    params.proven[row] = complete || found[params.k - 1].distance * params.unit < discarded;
  }
}

// One warp a pair.
__global__ void distances_kernel(DistancesParams params) {
  const int64_t pair = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (pair >= params.count * params.num_features) return;
  const int64_t row = params.chosen[pair / params.num_features], target = pair % params.num_features;
  const double distance =
      warp_squared_distance(params.queries + row * params.dim, params.features + target * params.dim, params.dim);
  if (threadIdx.x % kWarp == 0) params.distances[pair] = distance;
}

int64_t blocks_of_warps(int64_t warps) { return (warps * kWarp + kThreads - 1) / kThreads; }

size_t select_bytes(int64_t keep) {
  return 4 * sizeof(int) + next_power_of_two(static_cast<int>(keep) + kRound) * sizeof(Candidate);
}

size_t rescore_bytes(int64_t keep) { return next_power_of_two(static_cast<int>(keep)) * sizeof(Nearest); }

}  // namespace

void squared_norms_cuda(const SquaredNormsParams& params, void* stream) {
  launch("knn squared_norms", squared_norms_kernel, blocks_of_warps(params.rows), kThreads, 0, stream, params);
}

int64_t max_keep_cuda() {
  int64_t keep = 1;
  while (keep < (1 << 20) && select_bytes(2 * keep) <= max_shared_bytes() &&
         rescore_bytes(2 * keep) <= max_shared_bytes())
    keep *= 2;
  return keep;
}

void select_cuda(const SelectParams& params, void* stream) {
  launch("knn select", select_kernel, params.rows, kThreads, select_bytes(params.keep), stream, params);
}

void rescore_cuda(const RescoreParams& params, void* stream) {
  launch("knn rescore", rescore_kernel, params.num_queries, kThreads, rescore_bytes(params.keep), stream, params);
}

void distances_cuda(const DistancesParams& params, void* stream) {
  launch("knn distances", distances_kernel, blocks_of_warps(params.count * params.num_features), kThreads, 0, stream,
         params);
}

}  // namespace ccfast::knn
