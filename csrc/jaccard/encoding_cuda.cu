// CUDA kernels of the k-reciprocal sets, their expansion, and V; the contract is in jaccard.h.
#include "index_set.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 128;  // per block of the reciprocal kernel; the encoding uses one warp per row

// One warp per row; its lanes look for i in the list of each neighbour.
__global__ void reciprocal_kernel(ReciprocalParams params) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (i >= params.num_rows) return;
  const int lane = threadIdx.x % kWarp;
  for (int64_t m = 0; m < params.k1; ++m) {
    const int64_t* list = params.rank + params.rank[i * params.k1 + m] * params.k1;
    int64_t position = params.k1;
    for (int64_t p = 0; p < params.k1 && position == params.k1; p += kWarp) {
      const unsigned found = __ballot_sync(kFullMask, p + lane < params.k1 && list[p + lane] == i);
      if (found) position = p + __ffs(found) - 1;
    }
    if (lane == 0) params.back[i * params.k1 + m] = static_cast<int32_t>(position);
  }
}

// Working set of the encoding of one row.
struct EncodeSet {
  double* weights;     // [capacity]; reuses the memory of the set, which is no longer needed
  IndexSet set;        // E(i) so far
  int32_t* members;    // [capacity] E(i), ascending
  int64_t* start;      // [2] where the row's entries begin in the result
  int32_t* neighbour;  // [k1] the neighbours of i, nearest first
  int32_t* candidate;  // [k1] R(i)
  int* surplus;        // [k1] for each candidate c: 3 |H(c) and R(i)| - 2 |H(c)|
  int* candidates;     // size of R(i)
  int64_t k1;

  __host__ __device__ EncodeSet(char* memory, int64_t k1, int64_t half) : k1(k1) {
    const int64_t capacity = slots_of(k1 * (half + 1));
    weights = reinterpret_cast<double*>(memory);
    set.table = reinterpret_cast<int32_t*>(memory);
    set.gathered = set.table + capacity;
    set.capacity = static_cast<int>(capacity);
    members = set.gathered + capacity;
    start = reinterpret_cast<int64_t*>(members + capacity);
    neighbour = reinterpret_cast<int32_t*>(start + 2);
    candidate = neighbour + k1;
    surplus = reinterpret_cast<int*>(candidate + k1);
    candidates = surplus + k1;
    set.size = candidates + 1;
  }
  __host__ __device__ int64_t bytes() const {
    return set.capacity * (sizeof(double) + sizeof(int32_t)) + 2 * sizeof(int64_t) +
           k1 * (2 * sizeof(int32_t) + sizeof(int)) + 2 * sizeof(int);
  }
};

// R(i) into the set, and as candidates; returns its size.
__device__ int reciprocal_set(const EncodingParams& params, const int32_t* back, int64_t i, EncodeSet& row) {
  row.set.clear();
  if (threadIdx.x == 0) *row.candidates = 0;
  __syncthreads();
  for (int64_t m = threadIdx.x; m < params.k1; m += kWarp) {
    const auto index = static_cast<int32_t>(params.rank[i * params.k1 + m]);
    row.neighbour[m] = index;
    row.surplus[m] = 0;
    if (back[i * params.k1 + m] >= params.k1) continue;
    row.candidate[atomicAdd(row.candidates, 1)] = index;
    row.set.add(index);
  }
  __syncthreads();
  return *row.candidates;
}

// Calls visit(t, h) for every neighbour h in H(c) of every candidate c = R(i)[t].
template <class Visit>
__device__ void for_each_half(const EncodingParams& params, const int32_t* back, int candidates, const EncodeSet& row,
                              const Visit& visit) {
  const int half = static_cast<int>(params.half);
  int t = static_cast<int>(threadIdx.x) / half, h = static_cast<int>(threadIdx.x) % half;
  while (t < candidates) {
    const int64_t place = row.candidate[t] * params.k1 + h;
    if (back[place] < half) visit(t, static_cast<int32_t>(params.rank[place]));
    h += kWarp % half;
    t += kWarp / half + (h >= half);
    if (h >= half) h -= half;
  }
  __syncthreads();
}

// E(i), ascending, each index once, in row.members; returns its size.
__device__ int expanded_set(const EncodingParams& params, const int32_t* back, int64_t i, EncodeSet& row) {
  const int candidates = reciprocal_set(params, back, i, row);
  for_each_half(params, back, candidates, row,
                [&](int t, int32_t index) { atomicAdd(&row.surplus[t], row.set.find(index) < 0 ? -2 : 1); });
  for_each_half(params, back, candidates, row, [&](int t, int32_t index) {
    if (row.surplus[t] > 0) row.set.add(index);
  });
  row.set.sort(row.members);
  return *row.set.size;
}

// Squared distance of two rows by one warp. kWhole: they can be loaded in packs.
template <bool kWhole>
__device__ double squared_distance(const float* a, const float* b, int64_t dim) {
  constexpr int kSize = kPackSize<float>;
  double sum = 0;
  CCFAST_UNROLL(4)
  for (int64_t d = kSize * (threadIdx.x % kWarp); d < dim; d += kSize * kWarp) {
    const Pack<float, kSize> ours = load_part<kSize, kWhole>(a, d, dim), theirs = load_part<kSize, kWhole>(b, d, dim);
    for (int e = 0; e < kSize; ++e) {
      const double difference = static_cast<double>(ours.value[e]) - static_cast<double>(theirs.value[e]);
      sum = fma(difference, difference, sum);
    }
  }
  return warp_sum(sum);
}

__device__ const float* feature(const EncodingParams& params, int64_t row) {
  return params.features + (params.feature_rows ? params.feature_rows[row] : row) * params.dim;
}

// The position of j among the neighbours of i, or k1.
__device__ int64_t place_of(const EncodeSet& row, int32_t j) {
  int64_t m = 0;
  while (m < row.k1 && row.neighbour[m] != j) ++m;
  return m;
}

// Squared distances of i to the member of each lane (`active`): from the neighbour list, or else computed by the warp.
__device__ double member_distance(const EncodingParams& params, int64_t i, int32_t j, bool active,
                                  const EncodeSet& row) {
  const int64_t place = active ? place_of(row, j) : 0;
  const bool known = active && place < params.k1;
  double distance = known ? params.distances[(i - params.rows.begin) * params.k1 + place] : 0.0f;
  const bool packs = in_packs(params.features, params.dim);
  for (unsigned mask = __ballot_sync(kFullMask, active && !known); mask; mask &= mask - 1) {
    const int lane = __ffs(static_cast<int>(mask)) - 1;
    const float *a = feature(params, i), *b = feature(params, __shfl_sync(kFullMask, j, lane));
    const double sum = packs ? squared_distance<true>(a, b, params.dim) : squared_distance<false>(a, b, params.dim);
    if (static_cast<int>(threadIdx.x) == lane) distance = sum;
  }
  return distance;
}

// The sum of the weights, in the order of four warps that take turns of 32 weights.
__device__ double sum_weights(const double* weights, int size) {
  constexpr int kParts = 4;
  double part[kParts] = {};
  for (int p = 0; p < kParts && p * kWarp < size; ++p) {
    for (int u = p * kWarp + static_cast<int>(threadIdx.x); u < size; u += kParts * kWarp) part[p] += weights[u];
    part[p] = warp_sum(part[p]);
  }
  return (part[0] + part[2]) + (part[1] + part[3]);
}

// Softmax of the exponents over E(i), in float64, written to the row's entries in the result.
__device__ void weigh(const EncodingParams& params, int64_t i, int size, EncodeSet& row, const ScatteredRows& out,
                      int64_t start) {
  const double scale = params.row_scale ? params.row_scale[i] : 1.0;
  double highest = -INFINITY;
  for (int first = 0; first < size; first += kWarp) {
    const int u = first + static_cast<int>(threadIdx.x);
    const int32_t j = u < size ? row.members[u] : 0;
    const double distance = member_distance(params, i, j, u < size, row);
    if (u >= size) continue;
    const double shift = params.column_shift ? params.column_shift[j] : 0.0;
    row.weights[u] = -scale * (distance + shift);
    highest = larger(row.weights[u], highest);
  }
  highest = warp_max(highest);
  for (int u = threadIdx.x; u < size; u += kWarp) row.weights[u] = exp(row.weights[u] - highest);
  const double sum = sum_weights(row.weights, size);
  for (int u = threadIdx.x; u < size; u += kWarp) {
    out.col[start + u] = row.members[u];
    out.val[start + u] = static_cast<float>(row.weights[u] / sum);
  }
}

// One warp per block.
__global__ void __launch_bounds__(kWarp)
    encode_kernel(EncodingParams params, const int32_t* back, Workspace workspace, ScatteredRows out) {
  EncodeSet row(working_set(workspace), params.k1, params.half);
  for (int64_t i = params.rows.begin + blockIdx.x; i < params.rows.end; i += gridDim.x) {
    const int size = expanded_set(params, back, i, row);
    const int64_t start = take_by_block(out, i - params.rows.begin, size, row.start);
    if (start >= 0) weigh(params, i, size, row, out, start);
    __syncthreads();
  }
}

}  // namespace

void reciprocal_cuda(const ReciprocalParams& params, void* stream) {
  launch("jaccard reciprocal", reciprocal_kernel, blocks_for(params.num_rows * kWarp, kThreads), kThreads, 0, stream,
         params);
}

bool fits_shared_memory_cuda(int64_t bytes) { return bytes <= static_cast<int64_t>(max_shared_bytes()); }

int64_t encode_bytes_cuda(int64_t k1, int64_t half) { return EncodeSet(nullptr, k1, half).bytes(); }

void encode_cuda(const EncodingParams& params, const int32_t* back, const Workspace& workspace,
                 const ScatteredRows& out, void* stream) {
  launch("jaccard encode", encode_kernel, grid_of(workspace, params.rows.size()), kWarp,
         shared_of(workspace, encode_bytes_cuda(params.k1, params.half)), stream, params, back, workspace, out);
}

}  // namespace ccfast::jaccard
