// k-reciprocal encoding and Jaccard distance (Zhong et al. 2017, section 3; Cluster Contrast's use of them).
//
// Stages answer for a range of the rows, so that several processes can share them; what they read is of all rows.
// Everything is sparse: V holds 17-26 entries a row in practice, 42-95 after query expansion. Rows are independent and
// every sum has a fixed order, so results do not depend on the number of threads, and J is bitwise symmetric.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/csr.h"

namespace ccfast::jaccard {

// Columns of the half lists: round_half_even(k1 / 2) + 1, as the authors' np.around.
inline int64_t half_width(int64_t k1) {
  const int64_t floor = k1 / 2;
  return 1 + (k1 % 2 == 0 || floor % 2 == 0 ? floor : floor + 1);
}

// Rows begin .. end - 1.
struct RowRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

struct EncodingParams {
  const float* features;      // [num_rows, dim]
  const int64_t* rank;        // [num_rows, k1] nearest rows, nearest first
  const float* distances;     // [rows.size(), k1] squared Euclidean distance of each, for the rows encoded
  const float* row_scale;     // [num_rows] or null (1): weight = exp(-row_scale[i] * (distance + column_shift[j]))
  const float* column_shift;  // [num_rows] or null (0)
  int64_t num_rows, dim, k1;
  int64_t half;   // columns of the half lists H, at most k1
  RowRange rows;  // which are encoded
};

// V: for each of the rows the expanded set E(i), each with its weight; weights of a row sum to 1.
std::vector<CsrChunk> encode(const EncodingParams& params);

// V'[i] = mean of V[rank[i][m]] for m < k2, for rank_rows rows i. rank has rows of rank_stride entries.
std::vector<CsrChunk> expand_queries(const Csr& v, const int64_t* rank, int64_t rank_rows, int64_t rank_stride,
                                     int64_t k2);

// V by columns: the rows of a column stand together, ascending.
struct PostingLists {
  explicit PostingLists(const Csr& v);

  std::vector<int64_t> start;  // [columns + 1]
  std::vector<int32_t> row;    // [nnz]
  std::vector<float> val;      // [nnz]
};

// Every pair with J(i, j) <= max_distance and the whole diagonal, both triangles, for the rows i.
std::vector<CsrChunk> sparse_distance(const Csr& v, const PostingLists& postings, float max_distance, RowRange rows);

// The block rows [row_begin, row_end) x columns [col_begin, col_end) of J, dense and row-major.
void dense_distance(const Csr& v, const PostingLists& postings, int64_t row_begin, int64_t row_end, int64_t col_begin,
                    int64_t col_end, float* out);

// ---- CUDA: the same stages on a stream. Stages that answer in CSR run twice: first they count the entries of every
// row (col is null), then, with crow from the counts, they fill. ----

// Sparse rows in device memory.
struct DeviceCsr {
  int64_t rows;
  const int64_t* crow;
  const int64_t* col;
  const float* val;
};

// Where a stage puts its rows.
struct CsrOutput {
  int64_t* counts;      // [rows] out of the counting pass
  const int64_t* crow;  // [rows + 1] for the filling pass
  int64_t* col;         // [nnz] or null: count only
  float* val;           // [nnz]
};

// Memory of the blocks that do not fit their working set into shared memory: `blocks` slices of `bytes` each, or none.
struct Workspace {
  void* data;
  int64_t blocks, bytes;
};

// back[i][m] = position of i among the neighbours of rank[i][m], or k1 where it is not among them.
struct ReciprocalParams {
  const int64_t* rank;  // [num_rows, k1]
  int64_t num_rows, k1;
  int32_t* back;  // [num_rows, k1] out
};
void reciprocal_cuda(const ReciprocalParams& params, void* stream);

// Bytes of working set a row of the encoding, and of the query expansion for rows of at most max_entries entries.
bool fits_shared_memory_cuda(int64_t bytes);
int64_t encode_bytes_cuda(int64_t k1, int64_t half);
int64_t expand_bytes_cuda(int64_t k2, int64_t max_entries);

void encode_cuda(const EncodingParams& params, const int32_t* back, const Workspace& workspace, const CsrOutput& out,
                 void* stream);

struct ExpandParams {
  DeviceCsr v;
  const int64_t* rank;
  int64_t rank_rows, rank_stride, k2, max_entries;
};
void expand_queries_cuda(const ExpandParams& params, const Workspace& workspace, const CsrOutput& out, void* stream);

// V by columns in device memory.
struct DevicePostings {
  const int64_t* start;  // [columns + 1]
  const int64_t* row;    // [nnz]
  const float* val;      // [nnz]
};

// Targets that a block accumulates at a time in shared memory: 32 KiB.
constexpr int64_t kDefaultTile = 8192;

struct SparseDistanceParams {
  DeviceCsr v;
  DevicePostings postings;
  float max_distance;
  RowRange rows;
  int64_t tile = kDefaultTile;
};
void sparse_distance_cuda(const SparseDistanceParams& params, const CsrOutput& out, void* stream);

struct DenseDistanceParams {
  DeviceCsr v;
  DevicePostings postings;
  int64_t row_begin, row_end, col_begin, col_end;
  float* out;  // [row_end - row_begin, col_end - col_begin]
  int64_t tile = kDefaultTile;
};
void dense_distance_cuda(const DenseDistanceParams& params, void* stream);

}  // namespace ccfast::jaccard
