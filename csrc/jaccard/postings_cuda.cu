// CUDA kernels that bring sparse rows into another order: by columns, and back into the order of the rows. The contract
// is in jaccard.h.
#include "jaccard.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 256;

// A thread an entry of the postings, and one a column.
__global__ void postings_kernel(PostingsParams params) {
  const int64_t p = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (p < params.entries) {
    const int64_t e = params.order[p];
    const int64_t row = lower_bound(0, params.v.rows, e + 1, [&](int64_t i) { return params.v.crow[i + 1]; });
    params.entry[p] = {static_cast<int32_t>(row), params.v.val[e]};
  }
  if (p <= params.v.rows)
    params.start[p] = lower_bound(0, params.entries, p, [&](int64_t q) { return int64_t{params.sorted_col[q]}; });
}

// A warp a row.
__global__ void gather_kernel(ScatteredRows rows, int64_t count, const int64_t* crow, int64_t* col, float* val) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (i >= count) return;
  const int64_t from = rows.start[i], to = crow[i];
  for (int64_t e = threadIdx.x % kWarp; e < rows.count[i]; e += kWarp) {
    col[to + e] = rows.col[from + e];
    val[to + e] = rows.val[from + e];
  }
}

}  // namespace

void postings_cuda(const PostingsParams& params, void* stream) {
  const int64_t threads = params.entries > params.v.rows ? params.entries : params.v.rows + 1;
  launch("jaccard postings", postings_kernel, blocks_for(threads, kThreads), kThreads, 0, stream, params);
}

void gather_rows_cuda(const ScatteredRows& rows, int64_t count, const int64_t* crow, int64_t* col, float* val,
                      void* stream) {
  launch("jaccard gather", gather_kernel, blocks_for(count * kWarp, kThreads), kThreads, 0, stream, rows, count, crow,
         col, val);
}

}  // namespace ccfast::jaccard
