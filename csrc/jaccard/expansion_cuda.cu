// CUDA kernel of the query expansion; the contract is in jaccard.h.
#include "index_set.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kQuad = kPackSize<float>;

// Working set of one row.
struct MeanSet {
  IndexSet set;     // columns
  float* sum;       // [capacity] the sum for the column in this slot of the set
  int32_t* sorted;  // [capacity] the columns, ascending
  int64_t* start;   // [2] where the row's entries begin in the result

  __host__ __device__ MeanSet(char* memory, int64_t entries) {
    const int64_t capacity = slots_of(entries);
    set.table = reinterpret_cast<int32_t*>(memory);
    set.gathered = set.table + capacity;
    set.capacity = static_cast<int>(capacity);
    sum = reinterpret_cast<float*>(set.gathered + capacity);
    sorted = reinterpret_cast<int32_t*>(sum + capacity);
    start = reinterpret_cast<int64_t*>(sorted + capacity);
    set.size = reinterpret_cast<int*>(start + 2);
  }
  __host__ __device__ int64_t bytes() const {
    return set.capacity * (3 * sizeof(int32_t) + sizeof(float)) + 2 * sizeof(int64_t) + sizeof(int);
  }
};

// The number of entries of the rows whose mean is row i.
__device__ int64_t count_entries(const ExpandParams& params, int64_t i) {
  int64_t entries = 0;
  for (int64_t m = threadIdx.x; m < params.k2; m += kWarp) {
    const int64_t other = params.rank[i * params.rank_stride + m];
    entries += params.v.crow[other + 1] - params.v.crow[other];
  }
  return warp_sum(entries);
}

// Sums of the columns of V[rank[i][m]], m < k2, in the order of m: the columns of one m are distinct, and there
// is a barrier after each m.
__device__ void add_rows(const ExpandParams& params, int64_t i, const MeanSet& row) {
  for (int64_t m = 0; m < params.k2; ++m) {
    const int64_t other = params.rank[i * params.rank_stride + m], end = params.v.crow[other + 1];
    for (int64_t e = params.v.crow[other] + threadIdx.x; e < end; e += kWarp)
      row.sum[row.set.add(static_cast<int32_t>(params.v.col[e]))] += params.v.val[e];
    __syncthreads();
  }
}

// One warp per block.
__global__ void __launch_bounds__(kWarp)
    expand_queries_kernel(ExpandParams params, Workspace workspace, ScatteredRows out) {
  const MeanSet row(working_set(workspace), params.entries);
  const auto rows = static_cast<float>(params.k2);
  for (int64_t i = blockIdx.x; i < params.rank_rows; i += gridDim.x) {
    const int64_t entries = count_entries(params, i);
    if (entries > row.set.capacity) {
      if (threadIdx.x == 0) leave_out(out, i, entries);
      continue;
    }
    row.set.clear();
    for (int slot = kQuad * static_cast<int>(threadIdx.x); slot < row.set.capacity; slot += kQuad * kWarp)
      store_pack(row.sum + slot, Pack<float, kQuad>{});
    __syncthreads();
    add_rows(params, i, row);
    row.set.sort(row.sorted);
    const int columns = *row.set.size;
    const int64_t start = take_by_block(out, i, columns, row.start);
    for (int c = threadIdx.x; start >= 0 && c < columns; c += kWarp) {
      out.col[start + c] = row.sorted[c];
      out.val[start + c] = row.sum[row.set.find(row.sorted[c])] / rows;
    }
    __syncthreads();
  }
}

}  // namespace

int64_t expand_bytes_cuda(int64_t entries) { return MeanSet(nullptr, entries).bytes(); }

void expand_queries_cuda(const ExpandParams& params, const Workspace& workspace, const ScatteredRows& out,
                         void* stream) {
  launch("jaccard expand_queries", expand_queries_kernel, grid_of(workspace, params.rank_rows), kWarp,
         shared_of(workspace, expand_bytes_cuda(params.entries)), stream, params, workspace, out);
}

}  // namespace ccfast::jaccard
