// CUDA kernel of the dense Jaccard distance of sparse encodings; the contract is in jaccard.h.
//
// One block owns one row i and walks its columns in ascending order; within a column the targets are distinct, so the
// threads add without atomics, and a barrier between columns keeps the order of every sum. Targets are taken in tiles
// that fit the accumulator in shared memory.
#include "jaccard.cuh"

namespace ccfast::jaccard {
namespace {

constexpr int kThreads = 256;

// mass[j - first] = s(i, j) for the targets j in [first, last), to be read by the thread that cleared it here.
__device__ void accumulate(const DeviceCsr& v, const DevicePostings& postings, int64_t i, int64_t first, int64_t last,
                           StagedColumn* staged, float* mass) {
  const Posting* entry = postings.entry + threadIdx.x;
  const auto has_posting = [&](const StagedColumn& column) { return column.begin + threadIdx.x < column.end; };
  for (int64_t j = threadIdx.x; j < last - first; j += blockDim.x) mass[j] = 0.0f;
  for (int64_t e = v.crow[i]; e < v.crow[i + 1]; e += kStagedColumns) {
    const int columns = stage_columns(v, postings, e, v.crow[i + 1], first, last, staged);
    Posting next = has_posting(staged[0]) ? entry[staged[0].begin] : Posting();
    for (int c = 0; c < columns; ++c) {
      const StagedColumn column = staged[c];
      Posting posting = next;
      if (c + 1 < columns && has_posting(staged[c + 1])) next = entry[staged[c + 1].begin];  // loaded meanwhile
      for (int64_t p = column.begin; p + threadIdx.x < column.end; p += blockDim.x) {
        if (p > column.begin) posting = entry[p];
        mass[posting.row - first] += shared_mass(column.val, posting.val);
      }
      __syncthreads();
    }
  }
}

__global__ void dense_jaccard_kernel(DenseJaccardParams params) {
  StagedColumn* staged = shared_memory<StagedColumn>();
  float* mass = reinterpret_cast<float*>(staged + kStagedColumns);
  const int64_t row = blockIdx.x, columns = params.col_end - params.col_begin;
  for (int64_t first = params.col_begin; first < params.col_end; first += params.tile) {
    const int64_t last = first + params.tile < params.col_end ? first + params.tile : params.col_end;
    accumulate(params.v, params.postings, params.row_begin + row, first, last, staged, mass);
    for (int64_t j = first + threadIdx.x; j < last; j += blockDim.x)
      params.out[row * columns + j - params.col_begin] = distance_of(mass[j - first]);
  }
}

}  // namespace

void dense_jaccard_cuda(const DenseJaccardParams& params, void* stream) {
  const int64_t targets = params.col_end - params.col_begin, tile = targets < params.tile ? targets : params.tile;
  launch("jaccard dense_jaccard", dense_jaccard_kernel, params.row_end - params.row_begin, kThreads,
         kStagedColumns * sizeof(StagedColumn) + tile * sizeof(float), stream, params);
}

}  // namespace ccfast::jaccard
