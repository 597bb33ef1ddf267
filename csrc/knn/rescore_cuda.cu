// CUDA kernels of the exact distances that decide a search; the contract is in knn.h.
#include "candidates.cuh"

namespace ccfast::knn {
namespace {

constexpr int kThreads = 256;
constexpr int kMeasureThreads = 128;  // four warps of four candidates: few of them are idle at the end of a row
constexpr int kTargets = 4;           // measured by a warp at the same time, so that enough loads are in flight

// --- the distance ---

// A warp's lanes, each with a quad of dimensions, are the lanes of ccfast::squared_distance (simd.h), whose sums these
// are, to the bit. sums[t * kQuad + e]: of target t.
static_assert(kWarp * kQuad == 128 && kTargets == 4);

template <bool kWhole>
__device__ void add_squares(const float* query, const float* const* targets, int64_t dim, double* sums) {
  for (int64_t d = kQuad * (threadIdx.x % kWarp); d < dim; d += kQuad * kWarp) {
    const Pack<float, kQuad> ours = load_part<kQuad, kWhole>(query, d, dim);
    Pack<float, kQuad> theirs[kTargets];
    for (int t = 0; t < kTargets; ++t) theirs[t] = load_part<kQuad, kWhole>(targets[t], d, dim);
    for (int e = 0; e < kQuad; ++e) {
      const double value = ours.value[e];
      for (int t = 0; t < kTargets; ++t) {
        const double difference = value - static_cast<double>(theirs[t].value[e]);
        double& sum = sums[t * kQuad + e];
        sum = __dadd_rn(sum, __dmul_rn(difference, difference));
      }
    }
  }
}

// Adds the lanes that differ in the bit `distance`; each of two keeps kCount of the 2 kCount sums of both.
template <int kCount>
__device__ void fold(double* sums, int distance) {
  const bool upper = threadIdx.x & static_cast<unsigned>(distance);
  for (int n = 0; n < kCount; ++n) {
    const double kept = upper ? sums[n + kCount] : sums[n], given = upper ? sums[n] : sums[n + kCount];
    sums[n] = kept + __shfl_xor_sync(kFullMask, given, distance);
  }
}

// Squared distances of one row to some others by one warp: lane t gets that to targets[t].
// quads: whether both matrices can be loaded in packs.
__device__ double warp_squared_distances(const float* query, const float* const* targets, int64_t dim, bool quads) {
  double sums[kTargets * kQuad] = {};
  if (quads)
    add_squares<true>(query, targets, dim, sums);
  else
    add_squares<false>(query, targets, dim, sums);
  fold<8>(sums, 16);  // leaves two targets in a lane
  fold<4>(sums, 8);   // and one of them
  fold<2>(sums, 4);
  fold<1>(sums, 2);
  const double last = sums[0] + __shfl_xor_sync(kFullMask, sums[0], 1);
  // Of target t, the last four sums are in the even ones of eight lanes.
  const int first = static_cast<int>(threadIdx.x % kTargets) * (kWarp / kTargets);
  double sum = __shfl_sync(kFullMask, last, first);
  for (int e = 1; e < kQuad; ++e) sum += __shfl_sync(kFullMask, last, first + 2 * e);
  return sum;
}

// --- candidates ---

__device__ const Key* list_of(const RescoreParams& params, int64_t row) {
  return reinterpret_cast<const Key*>(params.lists) + row * params.keep;
}

// Bound on the error of a row's scores.
__device__ double error_of(const RescoreParams& params, int64_t row) {
  const double norm = sqrt(params.norms[row]), reach = norm + params.error.longest;
  return params.error.norm * norm + (params.rounding ? params.error.rounding * params.rounding[row] : 0) +
         params.error.constant + params.error.float64 * reach * reach;
}

// How many of the list's candidates have a score of at least `lowest`: the first `known` and maybe more.
__device__ int count_reaching(const Key* list, int known, int keep, double lowest) {
  while (known < keep) {
    const int middle = (known + keep) / 2;
    if (score_of(list[middle]) >= lowest)
      known = middle + 1;
    else
      keep = middle;
  }
  return known;
}

// One thread per row: how many of its candidates are measured. k candidates have true scores of at least the k-th one
// minus its error; candidates that cannot reach that are left out.
__global__ void count_kernel(RescoreParams params) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= params.num_queries) return;
  const Key* list = list_of(params, row);
  const Key last = list[params.k - 1];
  const double lowest = score_of(last) - 2 * error_of(params, row);
  params.counts[row] =
      last ? count_reaching(list, static_cast<int>(params.k), static_cast<int>(params.keep), lowest) : 0;
  params.proven[row] = false;
}

// A candidate that a block measures, and the position of the block's row among the measured candidates of that
// candidate: -1 if it is not among them, or if both are the same row.
struct Pair {
  int slot, twin;
};

__device__ int place_among(const Key* list, int count, int64_t index) {
  int place = -1;
  for (int slot = 0; slot < count; ++slot)
    if (index_of(list[slot]) == index) place = slot;
  return place;
}

// Lists what the block of `row` measures, in any order; returns their number. A pair of rows that are each other's
// candidates is measured with the lower row. Ends with a barrier.
__device__ int list_pairs(const RescoreParams& params, int64_t row, int count, Pair* pairs, int* number) {
  const Key* list = list_of(params, row);
  if (threadIdx.x == 0) *number = 0;
  __syncthreads();
  for (int slot = threadIdx.x; slot < count; slot += kMeasureThreads) {
    const int64_t other = index_of(list[slot]);
    const int twin =
        params.mutual && other != row ? place_among(list_of(params, other), params.counts[other], row) : -1;
    if (twin < 0 || row < other) pairs[atomicAdd(number, 1)] = {slot, twin};
  }
  __syncthreads();
  return *number;
}

// One block per query: the exact distances of its candidates.
__global__ void __launch_bounds__(kMeasureThreads) measure_kernel(RescoreParams params) {
  const int64_t row = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  Pair* pairs = shared_memory<Pair>();
  const int number = list_pairs(params, row, params.counts[row], pairs, reinterpret_cast<int*>(pairs + params.keep));
  const Key* list = list_of(params, row);
  const bool quads = in_packs(params.queries, params.dim) && in_packs(params.features, params.dim);
  for (int first = kTargets * warp; first < number; first += kTargets * kMeasureThreads / kWarp) {
    const float* targets[kTargets];
    for (int t = 0; t < kTargets; ++t)
      targets[t] = params.features + index_of(list[pairs[min(first + t, number - 1)].slot]) * params.dim;
    const double distance = warp_squared_distances(params.queries + row * params.dim, targets, params.dim, quads);
    if (lane >= kTargets || first + lane >= number) continue;
    const Pair pair = pairs[first + lane];
    params.exact[row * params.keep + pair.slot] = distance;
    if (pair.twin >= 0) params.exact[index_of(list[pair.slot]) * params.keep + pair.twin] = distance;
  }
}

// One warp, which is a block, per query: writes each measured candidate to its rank.
__global__ void __launch_bounds__(kWarp) rank_kernel(RescoreParams params) {
  const int64_t row = blockIdx.x;
  const int keep = static_cast<int>(params.keep), k = static_cast<int>(params.k), count = params.counts[row];
  double* distances = shared_memory<double>();
  int64_t* indices = reinterpret_cast<int64_t*>(distances + keep);
  const Key* list = list_of(params, row);
  for (int slot = threadIdx.x; slot < count; slot += kWarp) {
    distances[slot] = params.exact[row * keep + slot];
    indices[slot] = index_of(list[slot]);
  }
  __syncthreads();
  for (int slot = threadIdx.x; slot < count; slot += kWarp) {
    const double distance = distances[slot];
    const int64_t index = indices[slot];
    int rank = 0;
    for (int other = 0; other < count; ++other)
      rank += distances[other] < distance || (distances[other] == distance && indices[other] < index);
    if (rank >= k) continue;
    params.indices[row * k + rank] = index;
    params.distances[row * k + rank] = static_cast<float>(distance);
    if (rank != k - 1) continue;
    const double discarded = params.norms[row] - 2 * (score_of(list[keep - 1]) + error_of(params, row));
    const bool complete = params.keep == params.num_features;  // nothing has been discarded
    params.proven[row] = complete || distance * params.unit < discarded;
  }
}

// --- all targets ---

// One warp for some neighbouring targets of a query.
__global__ void distances_kernel(DistancesParams params) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int64_t groups = (params.num_features + kTargets - 1) / kTargets;
  if (warp >= params.count * groups) return;
  const int64_t number = warp / groups, first = warp % groups * kTargets, lane = threadIdx.x % kWarp;
  const float* targets[kTargets];
  for (int t = 0; t < kTargets; ++t)
    targets[t] = params.features + min(first + t, params.num_features - 1) * params.dim;
  const bool quads = in_packs(params.queries, params.dim) && in_packs(params.features, params.dim);
  const double distance =
      warp_squared_distances(params.queries + params.chosen[number] * params.dim, targets, params.dim, quads);
  if (lane < kTargets && first + lane < params.num_features)
    params.distances[number * params.num_features + first + lane] = distance;
}

size_t measure_bytes(int64_t keep) { return keep * sizeof(Pair) + sizeof(int); }

}  // namespace

void rescore_cuda(const RescoreParams& params, void* stream) {
  launch("knn count", count_kernel, blocks_for(params.num_queries, kThreads), kThreads, 0, stream, params);
  launch("knn measure", measure_kernel, params.num_queries, kMeasureThreads, measure_bytes(params.keep), stream,
         params);
  launch("knn rank", rank_kernel, params.num_queries, kWarp, rescore_bytes(params.keep), stream, params);
}

void distances_cuda(const DistancesParams& params, void* stream) {
  const int64_t warps = params.count * ((params.num_features + kTargets - 1) / kTargets);
  launch("knn distances", distances_kernel, blocks_for(warps * kWarp, kThreads), kThreads, 0, stream, params);
}

}  // namespace ccfast::knn
