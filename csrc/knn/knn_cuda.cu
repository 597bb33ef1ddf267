// CUDA kernels of the exact nearest-neighbour search, but for the selection; the contract is in knn.h.
#include <algorithm>

#include "candidates.cuh"

namespace ccfast::knn {
namespace {

constexpr int kThreads = 256;         // of the kernels that have no say in it
constexpr int kRescoreThreads = 128;  // four warps of four candidates: what is left idle at the end of a row is little
constexpr int kTogether = 4;          // distances that a warp computes at a time, for the loads in flight

// --- operands ---

// One warp a row. A row of padding has no dimensions, and gets zeros alone.
__global__ void prepare_kernel(PrepareParams params) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (row >= max(params.rows, params.padded_rows)) return;
  const bool padding = row >= params.rows;
  const float* values = params.matrix + (padding ? 0 : row * params.dim);
  const int64_t dim = padding ? 0 : params.dim, width = params.half ? params.padded_dim : dim;
  const bool quads = in_packs(params.matrix, dim);
  double squares = 0, lost = 0;
  for (int64_t d = kQuad * (threadIdx.x % kWarp); d < width; d += kQuad * kWarp) {
    const Pack<float, kQuad> quad =
        quads && d < dim ? load_part<kQuad, true>(values, d, dim) : load_part<kQuad, false>(values, d, dim);
    Pack<__half, kQuad> halves;
    for (int e = 0; e < kQuad; ++e) {
      const double value = static_cast<double>(quad.value[e]) * params.scale;
      squares += value * value;
      if (params.single && d + e < dim) params.single[row * dim + d + e] = static_cast<float>(value);
      halves.value[e] = __float2half_rn(static_cast<float>(value));
      const double difference = value - static_cast<double>(to_float(halves.value[e]));
      lost += difference * difference;
    }
    if (params.half)
      *reinterpret_cast<Pack<__half, kQuad>*>(static_cast<__half*>(params.half) + row * params.padded_dim + d) = halves;
  }
  squares = warp_sum(squares);
  lost = warp_sum(lost);
  if (threadIdx.x % kWarp != 0 || padding) return;
  params.norms[row] = squares;
  params.half_norms[row] = static_cast<float>(squares / 2);
  if (params.half) params.rounding[row] = sqrt(lost);
}

// A lane turns a square of kQuad x kQuad products; the squares of a warp are kDown x kAcross, so that what it loads and
// stores at a time are whole sectors, and the warp takes kSteps such patches beside each other.
constexpr int kDown = 4, kAcross = 8, kSteps = 4;
static_assert(kDown * kAcross == kWarp);
constexpr int kBlockRows = kThreads / kWarp * kDown * kQuad, kBlockColumns = kSteps * kAcross * kQuad;

template <class T>
__device__ void turn(const TransposeParams& params, int64_t row, int64_t col, bool quads) {
  const ProductTile& tile = params.tile;
  const T* products = static_cast<const T*>(tile.products) + row * tile.ld + col;
  T* out = static_cast<T*>(params.out) + col * params.ld + row;
  if (quads && row + kQuad <= tile.rows && col + kQuad <= tile.cols) {
    Pack<T, kQuad> rows[kQuad];
    for (int r = 0; r < kQuad; ++r) rows[r] = load_pack<kQuad>(products + r * tile.ld);
    for (int c = 0; c < kQuad; ++c) {
      Pack<T, kQuad> column;
      for (int r = 0; r < kQuad; ++r) column.value[r] = rows[r].value[c];
      store_pack(out + c * params.ld, column);
    }
  } else {
    for (int r = 0; r < kQuad && row + r < tile.rows; ++r)
      for (int c = 0; c < kQuad && col + c < tile.cols; ++c) out[c * params.ld + r] = products[r * tile.ld + c];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) transpose_kernel(TransposeParams params) {
  const int across = static_cast<int>((params.tile.cols + kBlockColumns - 1) / kBlockColumns);
  const int block = static_cast<int>(blockIdx.x), warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t row = block / across * kBlockRows + (warp * kDown + lane / kAcross) * kQuad;
  const int64_t col = block % across * kBlockColumns + lane % kAcross * kQuad;
  constexpr unsigned kBytes = kQuad * sizeof(T);
  const bool quads = (reinterpret_cast<uintptr_t>(params.tile.products) % kBytes | params.tile.ld % kQuad |
                      reinterpret_cast<uintptr_t>(params.out) % kBytes | params.ld % kQuad) == 0;
  CCFAST_UNROLL(2)
  for (int step = 0; step < kSteps; ++step) turn<T>(params, row, col + step * kAcross * kQuad, quads);
}

// --- exact distances ---

// A warp's lanes, each with a quad of dimensions, are the lanes of ccfast::squared_distance (simd.h), whose sums these
// are, to the bit. sums[t * kQuad + e]: of target t.
static_assert(kWarp * kQuad == 128 && kTogether == 4);

template <bool kWhole>
__device__ void add_squares(const float* query, const float* const* targets, int64_t dim, double* sums) {
  for (int64_t d = kQuad * (threadIdx.x % kWarp); d < dim; d += kQuad * kWarp) {
    const Pack<float, kQuad> ours = load_part<kQuad, kWhole>(query, d, dim);
    Pack<float, kQuad> theirs[kTogether];
    for (int t = 0; t < kTogether; ++t) theirs[t] = load_part<kQuad, kWhole>(targets[t], d, dim);
    for (int e = 0; e < kQuad; ++e) {
      const double value = ours.value[e];
      for (int t = 0; t < kTogether; ++t) {
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
  double sums[kTogether * kQuad] = {};
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
  const int first = static_cast<int>(threadIdx.x % kTogether) * (kWarp / kTogether);
  double sum = __shfl_sync(kFullMask, last, first);
  for (int e = 1; e < kQuad; ++e) sum += __shfl_sync(kFullMask, last, first + 2 * e);
  return sum;
}

// Exact distances of the first `count` candidates of a row, by the whole block.
__device__ void rescore(const RescoreParams& params, int64_t row, const Key* list, int count, double* distances,
                        int64_t* indices) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), warp = static_cast<int>(threadIdx.x / kWarp);
  const bool quads = in_packs(params.queries, params.dim) && in_packs(params.features, params.dim);
  for (int first = kTogether * warp; first < count; first += kTogether * kRescoreThreads / kWarp) {
    const float* targets[kTogether];
    for (int t = 0; t < kTogether; ++t)
      targets[t] = params.features + index_of(list[min(first + t, count - 1)]) * params.dim;
    const double distance = warp_squared_distances(params.queries + row * params.dim, targets, params.dim, quads);
    if (lane >= kTogether || first + lane >= count) continue;
    distances[first + lane] = distance;
    indices[first + lane] = index_of(list[first + lane]);
  }
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

// One block a query: exact distances of its candidates, each then written to its rank.
__global__ void __launch_bounds__(kRescoreThreads) rescore_kernel(RescoreParams params) {
  const int64_t row = blockIdx.x;
  const int keep = static_cast<int>(params.keep), k = static_cast<int>(params.k);
  double* distances = shared_memory<double>();
  int64_t* indices = reinterpret_cast<int64_t*>(distances + keep);
  const Key* list = reinterpret_cast<const Key*>(params.lists) + row * keep;
  if (threadIdx.x == 0) params.proven[row] = false;
  if (!list[k - 1]) return;
  const double norm = sqrt(params.norms[row]), reach = norm + params.error.longest;
  const double error = params.error.norm * norm + (params.rounding ? params.error.rounding * params.rounding[row] : 0) +
                       params.error.constant + params.error.float64 * reach * reach;
  // k candidates have true scores of at least the k-th one less its error: what cannot reach that is not looked at.
  const double lowest = score_of(list[k - 1]) - 2 * error;
  const int count = count_reaching(list, k, keep, lowest);
  rescore(params, row, list, count, distances, indices);
  __syncthreads();
  for (int slot = threadIdx.x; slot < count; slot += blockDim.x) {
    const double distance = distances[slot];
    const int64_t index = indices[slot];
    int rank = 0;
    for (int other = 0; other < count; ++other)
      rank += distances[other] < distance || (distances[other] == distance && indices[other] < index);
    if (rank >= k) continue;
    params.indices[row * k + rank] = index;
    params.distances[row * k + rank] = static_cast<float>(distance);
    if (rank != k - 1) continue;
    const double discarded = params.norms[row] - 2 * (score_of(list[keep - 1]) + error);
    const bool complete = params.keep == params.num_features;  // nothing has been discarded
    params.proven[row] = complete || distance * params.unit < discarded;
  }
}

// One warp for some neighbouring targets of a query.
__global__ void distances_kernel(DistancesParams params) {
  const int64_t warp = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  const int64_t groups = (params.num_features + kTogether - 1) / kTogether;
  if (warp >= params.count * groups) return;
  const int64_t number = warp / groups, first = warp % groups * kTogether, lane = threadIdx.x % kWarp;
  const float* targets[kTogether];
  for (int t = 0; t < kTogether; ++t)
    targets[t] = params.features + min(first + t, params.num_features - 1) * params.dim;
  const bool quads = in_packs(params.queries, params.dim) && in_packs(params.features, params.dim);
  const double distance =
      warp_squared_distances(params.queries + params.chosen[number] * params.dim, targets, params.dim, quads);
  if (lane < kTogether && first + lane < params.num_features)
    params.distances[number * params.num_features + first + lane] = distance;
}

// One thread a list. In nearly all of them nothing is to be done.
__global__ void put_own_first_kernel(OwnFirstParams params) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= params.rows) return;
  int64_t* list = params.indices + row * params.k;
  const int64_t own = params.first + row;
  int64_t at = 0;
  while (at < params.k - 1 && list[at] != own) ++at;
  for (; at > 0; --at) list[at] = list[at - 1];
  list[0] = own;
}

int64_t blocks_of_warps(int64_t warps) { return blocks_for(warps * kWarp, kThreads); }

template <class T>
void launch_transpose(const TransposeParams& params, void* stream) {
  const int64_t down = blocks_for(params.tile.rows, kBlockRows), across = blocks_for(params.tile.cols, kBlockColumns);
  launch("knn transpose", transpose_kernel<T>, down * across, kThreads, 0, stream, params);
}

}  // namespace

void prepare_cuda(const PrepareParams& params, void* stream) {
  launch("knn prepare", prepare_kernel, blocks_of_warps(std::max(params.rows, params.half ? params.padded_rows : 0)),
         kThreads, 0, stream, params);
}

void transpose_cuda(const TransposeParams& params, void* stream) {
  params.tile.half ? launch_transpose<__half>(params, stream) : launch_transpose<float>(params, stream);
}

void rescore_cuda(const RescoreParams& params, void* stream) {
  launch("knn rescore", rescore_kernel, params.num_queries, kRescoreThreads, rescore_bytes(params.keep), stream,
         params);
}

void distances_cuda(const DistancesParams& params, void* stream) {
  const int64_t groups = (params.num_features + kTogether - 1) / kTogether;
  launch("knn distances", distances_kernel, blocks_of_warps(params.count * groups), kThreads, 0, stream, params);
}

void put_own_first_cuda(const OwnFirstParams& params, void* stream) {
  launch("knn put_own_first", put_own_first_kernel, blocks_for(params.rows, kThreads), kThreads, 0, stream, params);
}

}  // namespace ccfast::knn
