// CUDA kernels that bring sparse rows into another order: by columns, and back into the order of the rows. The contract
// is in jaccard.h.
#include "jaccard.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 256;

// One thread per entry of the postings and one per column.
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

// One warp per row.
__global__ void gather_kernel(ScatteredRows rows, int64_t count, int64_t* crow, int64_t* col, float* val) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (i >= count) return;
  if (i == 0 && threadIdx.x == 0) crow[0] = 0;
  const int64_t from = rows.start[i], to = i == 0 ? 0 : crow[i];
  for (int64_t e = threadIdx.x % kWarp; e < rows.count[i]; e += kWarp) {
    col[to + e] = rows.col[from + e];
    val[to + e] = rows.val[from + e];
  }
}

// One warp per row. The entry of the diagonal is in the row and in its column, and is written once.
__global__ void mirror_kernel(MirrorParams params) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (i >= params.upper.rows) return;
  const int lane = threadIdx.x % kWarp;
  const int64_t below = params.columns.start[i], own = params.upper.crow[i], to = below + own - i;
  const int64_t mirrored = params.columns.start[i + 1] - below - 1, count = params.upper.crow[i + 1] - own;
  for (int64_t e = lane; e < mirrored; e += kWarp) {
    const Posting posting = params.columns.entry[below + e];
    params.col[to + e] = posting.row;
    params.val[to + e] = posting.val;
  }
  for (int64_t e = lane; e < count; e += kWarp) {
    params.col[to + mirrored + e] = params.upper.col[own + e];
    params.val[to + mirrored + e] = params.upper.val[own + e];
  }
  if (lane == 0) params.crow[i + 1] = to + mirrored + count;
  if (lane == 0 && i == 0) params.crow[0] = 0;
}

}  // namespace

void postings_cuda(const PostingsParams& params, void* stream) {
  const int64_t threads = params.entries > params.v.rows ? params.entries : params.v.rows + 1;
  launch("jaccard postings", postings_kernel, blocks_for(threads, kThreads), kThreads, 0, stream, params);
}

void gather_rows_cuda(const ScatteredRows& rows, int64_t count, int64_t* crow, int64_t* col, float* val, void* stream) {
  launch("jaccard gather", gather_kernel, blocks_for(count * kWarp, kThreads), kThreads, 0, stream, rows, count, crow,
         col, val);
}

void mirror_cuda(const MirrorParams& params, void* stream) {
  launch("jaccard mirror", mirror_kernel, blocks_for(params.upper.rows * kWarp, kThreads), kThreads, 0, stream, params);
}

}  // namespace ccfast::jaccard
