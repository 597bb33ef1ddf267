// CUDA kernels of the k-reciprocal sets, their expansion, V and query expansion; the contract is in jaccard.h.
#include "../common/pack.cuh"
#include "jaccard.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;
constexpr int32_t kNone = 0x7fffffff;

// The working set of this block: shared memory, or its slice of the workspace.
__device__ char* working_set(const Workspace& workspace) {
  if (workspace.data == nullptr) return shared_memory<char>();
  return static_cast<char*>(workspace.data) + blockIdx.x * workspace.bytes;
}

// One warp a row; its lanes look for i in the list of each neighbour.
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

// Keeps the first of each run of equal entries of a sorted array, in place; done by the first warp. Every thread of the
// block gets the number kept.
__device__ int unique_entries(int32_t* data, int count, int* shared_count) {
  if (threadIdx.x < kWarp) {
    int kept = 0;
    int32_t before = -1;
    for (int first = 0; first < count; first += kWarp) {
      const int slot = first + static_cast<int>(threadIdx.x);
      const int32_t value = slot < count ? data[slot] : kNone;
      int32_t previous = __shfl_up_sync(kFullMask, value, 1);
      if (threadIdx.x == 0) previous = before;
      before = __shfl_sync(kFullMask, value, kWarp - 1);
      const bool keep = slot < count && value != previous;
      const unsigned mask = __ballot_sync(kFullMask, keep);
      if (keep) data[kept + __popc(mask & ((1u << threadIdx.x) - 1))] = value;
      kept += __popc(mask);
      __syncwarp();
    }
    if (threadIdx.x == 0) *shared_count = kept;
  }
  __syncthreads();
  const int kept = *shared_count;
  __syncthreads();
  return kept;
}

__device__ bool contains(const int32_t* sorted, int count, int32_t value) {
  const int64_t place = lower_bound(0, count, value, [&](int64_t slot) { return sorted[slot]; });
  return place < count && sorted[place] == value;
}

// Working set of the encoding of one row.
struct EncodeSet {
  int64_t* start;       // [2]: of the row's entries in the result
  int* count;           // [4]: entries of members, and room for a count
  double* scratch;      // [32] of block reductions
  double* weights;      // [capacity]
  int32_t* reciprocal;  // [pow2(k1)] R(i), ascending
  int32_t* members;     // [capacity] E(i)
  int64_t capacity, reciprocal_capacity;

  __host__ __device__ EncodeSet(char* memory, int64_t k1, int64_t half)
      : capacity(next_power_of_two(k1 * (half + 1))), reciprocal_capacity(next_power_of_two(k1)) {
    start = reinterpret_cast<int64_t*>(memory);
    count = reinterpret_cast<int*>(start + 2);
    scratch = reinterpret_cast<double*>(count + 4);
    weights = scratch + 32;
    reciprocal = reinterpret_cast<int32_t*>(weights + capacity);
    members = reciprocal + reciprocal_capacity;
  }
  __host__ __device__ int64_t bytes() const {
    return 2 * sizeof(int64_t) + 4 * sizeof(int) + (32 + capacity) * sizeof(double) +
           (reciprocal_capacity + capacity) * sizeof(int32_t);
  }
};

// R(i), ascending, into set.reciprocal and set.members; returns its size.
__device__ int reciprocal_set(const EncodingParams& params, const int32_t* back, int64_t i, EncodeSet& set) {
  const int64_t* rank = params.rank + i * params.k1;
  if (threadIdx.x == 0) *set.count = 0;
  __syncthreads();
  for (int64_t m = threadIdx.x; m < set.reciprocal_capacity; m += blockDim.x) {
    const bool member = m < params.k1 && back[i * params.k1 + m] < params.k1;
    set.reciprocal[m] = member ? static_cast<int32_t>(rank[m]) : kNone;
    if (member) atomicAdd(set.count, 1);
  }
  block_sort(set.reciprocal, static_cast<int>(set.reciprocal_capacity), Ascending());
  const int size = *set.count;
  for (int m = threadIdx.x; m < size; m += blockDim.x) set.members[m] = set.reciprocal[m];
  __syncthreads();
  return size;
}

// Is neighbour h of c in H(c)?
__device__ bool in_half(const EncodingParams& params, const int32_t* back, int64_t c, int64_t h) {
  return h < params.half && back[c * params.k1 + h] < params.half;
}

// Appends H(c) of every candidate c in R(i) with 3 |H(c) and R(i)| > 2 |H(c)|; a warp a candidate.
__device__ void append_expansions(const EncodingParams& params, const int32_t* back, int size, EncodeSet& set) {
  const int lane = threadIdx.x % kWarp;
  for (int t = threadIdx.x / kWarp; t < size; t += kWarps) {
    const int64_t c = set.reciprocal[t];
    const int64_t* rank = params.rank + c * params.k1;
    int in_list = 0, common = 0;
    for (int64_t h = 0; h < params.half; h += kWarp) {
      const bool member = in_half(params, back, c, h + lane);
      const bool shared = member && contains(set.reciprocal, size, static_cast<int32_t>(rank[h + lane]));
      in_list += __popc(__ballot_sync(kFullMask, member));
      common += __popc(__ballot_sync(kFullMask, shared));
    }
    if (3 * common <= 2 * in_list) continue;
    for (int64_t h = 0; h < params.half; h += kWarp) {
      if (!in_half(params, back, c, h + lane)) continue;
      set.members[atomicAdd(set.count, 1)] = static_cast<int32_t>(rank[h + lane]);
    }
  }
  __syncthreads();
}

// E(i), ascending, each index once, in set.members; returns its size.
__device__ int expanded_set(const EncodingParams& params, const int32_t* back, int64_t i, EncodeSet& set) {
  const int size = reciprocal_set(params, back, i, set);
  append_expansions(params, back, size, set);
  const int gathered = *set.count, padded = static_cast<int>(next_power_of_two(gathered));
  for (int m = gathered + threadIdx.x; m < padded; m += blockDim.x) set.members[m] = kNone;
  block_sort(set.members, padded, Ascending());
  return unique_entries(set.members, gathered, set.count + 1);
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

// Squared distance of rows i and j by one warp: from the neighbour list where j is in it, else computed.
__device__ double pair_distance(const EncodingParams& params, int64_t i, int64_t j) {
  const int lane = threadIdx.x % kWarp;
  for (int64_t m = 0; m < params.k1; m += kWarp) {
    const bool here = m + lane < params.k1 && params.rank[i * params.k1 + m + lane] == j;
    const unsigned found = __ballot_sync(kFullMask, here);
    if (found) return params.distances[(i - params.rows.begin) * params.k1 + m + __ffs(found) - 1];
  }
  const float *a = feature(params, i), *b = feature(params, j);
  return in_packs(params.features, params.dim) ? squared_distance<true>(a, b, params.dim)
                                               : squared_distance<false>(a, b, params.dim);
}

// Softmax of the exponents over E(i), in float64, written to the row's entries in the result.
__device__ void weigh(const EncodingParams& params, int64_t i, int size, EncodeSet& set, const ScatteredRows& out,
                      int64_t start) {
  const double scale = params.row_scale ? params.row_scale[i] : 1.0;
  for (int u = threadIdx.x / kWarp; u < size; u += kWarps) {
    const int64_t j = set.members[u];
    const double shift = params.column_shift ? params.column_shift[j] : 0.0;
    const double exponent = -scale * (pair_distance(params, i, j) + shift);
    if (threadIdx.x % kWarp == 0) set.weights[u] = exponent;
  }
  __syncthreads();
  double highest = -INFINITY, sum = 0;
  for (int u = threadIdx.x; u < size; u += blockDim.x) highest = set.weights[u] > highest ? set.weights[u] : highest;
  highest = block_max(highest, set.scratch);
  for (int u = threadIdx.x; u < size; u += blockDim.x) sum += set.weights[u] = exp(set.weights[u] - highest);
  sum = block_sum(sum, set.scratch);
  for (int u = threadIdx.x; u < size; u += blockDim.x) {
    out.col[start + u] = set.members[u];
    out.val[start + u] = static_cast<float>(set.weights[u] / sum);
  }
}

__global__ void encode_kernel(EncodingParams params, const int32_t* back, Workspace workspace, ScatteredRows out) {
  EncodeSet set(working_set(workspace), params.k1, params.half);
  for (int64_t i = params.rows.begin + blockIdx.x; i < params.rows.end; i += gridDim.x) {
    const int size = expanded_set(params, back, i, set);
    const int64_t start = take_by_block(out, i - params.rows.begin, size, set.start);
    if (start >= 0) weigh(params, i, size, set, out, start);
    __syncthreads();
  }
}

// An entry of one of the k2 rows that are averaged: sorted by column, then by the row's place.
struct Term {
  int64_t key;  // column * k2 + m
  float val;
};

struct ByKey {
  __device__ bool operator()(const Term& a, const Term& b) const { return a.key < b.key; }
};

// Gathers the entries of V[rank[i][m]], m < k2, sorted; returns how many there are.
__device__ int gather_terms(const ExpandParams& params, int64_t i, Term* terms) {
  int count = 0;
  for (int64_t m = 0; m < params.k2; ++m) {
    const int64_t row = params.rank[i * params.rank_stride + m];
    const int64_t first = params.v.crow[row];
    const int entries = static_cast<int>(params.v.crow[row + 1] - first);
    for (int e = threadIdx.x; e < entries; e += blockDim.x)
      terms[count + e] = {params.v.col[first + e] * params.k2 + m, params.v.val[first + e]};
    count += entries;
  }
  const int padded = static_cast<int>(next_power_of_two(count));
  for (int e = count + threadIdx.x; e < padded; e += blockDim.x) terms[e] = {INT64_MAX, 0.0f};
  block_sort(terms, padded, ByKey());
  return count;
}

// Calls visit(slot, place) for the first term of every column, the lanes of a warp sharing them; returns the number of
// columns to each.
template <class Visit>
__device__ int64_t for_each_column(const ExpandParams& params, const Term* terms, int count, const Visit& visit) {
  int64_t columns = 0;
  for (int first = 0; first < count; first += kWarp) {
    const int lane = threadIdx.x % kWarp, slot = first + lane;
    const bool head = slot < count && (slot == 0 || terms[slot - 1].key / params.k2 != terms[slot].key / params.k2);
    const unsigned mask = __ballot_sync(kFullMask, head);
    if (head) visit(slot, columns + __popc(mask & ((1u << lane) - 1)));
    columns += __popc(mask);
  }
  return columns;
}

// Sums runs of one column in the order of m and writes their means, by one warp.
__device__ void write_means(const ExpandParams& params, int64_t i, const Term* terms, int count,
                            const ScatteredRows& out) {
  const int64_t columns = for_each_column(params, terms, count, [](int, int64_t) {});
  const int64_t start = __shfl_sync(kFullMask, threadIdx.x % kWarp == 0 ? take(out, i, columns) : 0, 0);
  if (start < 0) return;
  for_each_column(params, terms, count, [&](int slot, int64_t place) {
    const int64_t column = terms[slot].key / params.k2;
    float sum = terms[slot].val;
    for (int e = slot + 1; e < count && terms[e].key / params.k2 == column; ++e) sum += terms[e].val;
    out.col[start + place] = column;
    out.val[start + place] = sum / static_cast<float>(params.k2);
  });
}

__global__ void expand_queries_kernel(ExpandParams params, Workspace workspace, ScatteredRows out) {
  Term* terms = reinterpret_cast<Term*>(working_set(workspace));
  for (int64_t i = blockIdx.x; i < params.rank_rows; i += gridDim.x) {
    const int count = gather_terms(params, i, terms);
    if (threadIdx.x < kWarp) write_means(params, i, terms, count, out);
    __syncthreads();
  }
}

int64_t grid_of(const Workspace& workspace, int64_t rows) {
  return workspace.data && workspace.blocks < rows ? workspace.blocks : rows;
}

size_t shared_of(const Workspace& workspace, int64_t bytes) { return workspace.data ? 16 : static_cast<size_t>(bytes); }

}  // namespace

void reciprocal_cuda(const ReciprocalParams& params, void* stream) {
  launch("jaccard reciprocal", reciprocal_kernel, blocks_for(params.num_rows * kWarp, kThreads), kThreads, 0, stream,
         params);
}

bool fits_shared_memory_cuda(int64_t bytes) { return bytes <= static_cast<int64_t>(max_shared_bytes()); }

int64_t encode_bytes_cuda(int64_t k1, int64_t half) { return EncodeSet(nullptr, k1, half).bytes(); }

int64_t expand_bytes_cuda(int64_t k2, int64_t max_entries) {
  return next_power_of_two(k2 * max_entries) * static_cast<int64_t>(sizeof(Term));
}

void encode_cuda(const EncodingParams& params, const int32_t* back, const Workspace& workspace,
                 const ScatteredRows& out, void* stream) {
  launch("jaccard encode", encode_kernel, grid_of(workspace, params.rows.size()), kThreads,
         shared_of(workspace, encode_bytes_cuda(params.k1, params.half)), stream, params, back, workspace, out);
}

void expand_queries_cuda(const ExpandParams& params, const Workspace& workspace, const ScatteredRows& out,
                         void* stream) {
  launch("jaccard expand_queries", expand_queries_kernel, grid_of(workspace, params.rank_rows), kThreads,
         shared_of(workspace, expand_bytes_cuda(params.k2, params.max_entries)), stream, params, workspace, out);
}

}  // namespace ccfast::jaccard
