// k-reciprocal encoding and Jaccard distance (Zhong et al. 2017, section 3; Cluster Contrast's use of them).
//
// Each stage computes a range of the rows, so that several processes can share the work; its inputs have all rows.
// Everything is sparse: V holds 17-26 entries per row in practice, 42-95 after query expansion. Rows are independent
// and every sum has a fixed order, so results do not depend on the number of threads, and J is bitwise symmetric.
#pragma once

#include <cstdint>
#include <vector>

#include "../common/csr.h"

namespace ccfast::jaccard {

// Columns of the half lists: round_half_even(k1 / 2) + 1, as the authors' np.around; at most k1.
inline int64_t half_columns(int64_t k1) {
  const int64_t floor = k1 / 2;
  return 1 + (k1 % 2 == 0 || floor % 2 == 0 ? floor : floor + 1);
}

// Rows begin .. end - 1.
struct RowRange {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};

struct EncodingParams {
  const float* features;      // [*, dim]
  const int64_t* rank;        // [num_rows, k1] nearest rows, nearest first
  const float* distances;     // [rows.size(), k1] squared Euclidean distance of each, for the rows encoded
  const float* row_scale;     // [num_rows] or null (1): weight = exp(-row_scale[i] * (distance + column_shift[j]))
  const float* column_shift;  // [num_rows] or null (0)
  int64_t num_rows, dim, k1;
  int64_t half;                           // columns of the half lists H, at most k1
  RowRange rows;                          // the rows that are encoded
  const int64_t* feature_rows = nullptr;  // [num_rows] the row in features of each row; null: the same number
};

// V: for each of the rows the expanded set E(i), each with its weight; weights of a row sum to 1.
std::vector<CsrChunk> encode(const EncodingParams& params);

// V'[i] = mean of V[rank[i][m]] for m < k2, for rank_rows rows i. rank has rows of rank_stride entries.
std::vector<CsrChunk> expand_queries(const Csr& v, const int64_t* rank, int64_t rank_rows, int64_t rank_stride,
                                     int64_t k2);

// V by columns: the rows of each column, ascending.
struct PostingLists {
  explicit PostingLists(const Csr& v);

  std::vector<int64_t> start;  // [columns + 1]
  std::vector<int32_t> row;    // [nnz]
  std::vector<float> val;      // [nnz]
};

// Every pair with J(i, j) <= max_distance and the whole diagonal, both triangles, for the rows i.
std::vector<CsrChunk> sparse_jaccard(const Csr& v, const PostingLists& postings, float max_distance, RowRange rows);

// The block rows [row_begin, row_end) x columns [col_begin, col_end) of J, dense and row-major.
void dense_jaccard(const Csr& v, const PostingLists& postings, int64_t row_begin, int64_t row_end, int64_t col_begin,
                   int64_t col_end, float* out);

// ---- CUDA: the same stages on a stream ----

// Sparse rows in device memory.
struct DeviceCsr {
  int64_t rows;
  const int64_t* crow;
  const int64_t* col;
  const float* val;
};

// The output of a stage whose row sizes are not known before: each row takes the next free range, in any order. What
// does not fit is counted but not written; `used` says how much room another run needs.
struct ScatteredRows {
  unsigned long long* used;     // entries of all rows, 0 at the start
  unsigned long long* longest;  // what the longest row that did not fit the working set needs; 0 at the start
  int64_t capacity;             // entries that fit col and val
  int64_t* start;               // [rows]
  int64_t* count;               // [rows]
  int64_t* col;                 // [capacity], ascending within a row
  float* val;                   // [capacity]
};

// The rows in their order: row i to crow[i] .. crow[i + 1] of col and val. crow[0] is written here.
void gather_rows_cuda(const ScatteredRows& rows, int64_t count, int64_t* crow, int64_t* col, float* val, void* stream);

// Memory for the blocks whose working set does not fit into shared memory: `blocks` slices of `bytes` each, or none.
struct Workspace {
  void* data;
  int64_t blocks, bytes;
};

// back[i][m] = position of i among the neighbours of rank[i][m], or k1 if it is not among them.
struct ReciprocalParams {
  const int64_t* rank;  // [num_rows, k1]
  int64_t num_rows, k1;
  int32_t* back;  // [num_rows, k1] out
};
void reciprocal_cuda(const ReciprocalParams& params, void* stream);

// Bytes of working set per row of the encoding, and of the query expansion for means of up to `entries` entries.
bool fits_shared_memory_cuda(int64_t bytes);
int64_t encode_bytes_cuda(int64_t k1, int64_t half);
int64_t expand_bytes_cuda(int64_t entries);

void encode_cuda(const EncodingParams& params, const int32_t* back, const Workspace& workspace,
                 const ScatteredRows& out, void* stream);

struct ExpandParams {
  DeviceCsr v;
  const int64_t* rank;
  int64_t rank_rows, rank_stride, k2;
  int64_t entries;  // of k2 rows together, for which there is room; means of more entries are left out
};
void expand_queries_cuda(const ExpandParams& params, const Workspace& workspace, const ScatteredRows& out,
                         void* stream);

// A row's value in a column; aligned so that one load reads both numbers.
struct alignas(8) Posting {
  int32_t row;
  float val;
};

// V by columns in device memory: the rows of each column, ascending.
struct DevicePostings {
  const int64_t* start;  // [columns + 1]
  const Posting* entry;  // [nnz]
};

struct PostingsParams {
  DeviceCsr v;
  int64_t entries;            // of v
  const int32_t* sorted_col;  // [entries] v.col, sorted
  const int64_t* order;       // [entries] the position in v of each, ascending within a column
  int64_t* start;             // [v.rows + 1] out
  Posting* entry;             // [entries] out
};
void postings_cuda(const PostingsParams& params, void* stream);

// Both triangles of a symmetric matrix from its upper one, which has the whole diagonal: row j gets the other rows'
// entries of column j, and then its own entries.
struct MirrorParams {
  DeviceCsr upper;
  DevicePostings columns;  // upper, by columns
  int64_t* crow;           // [rows + 1] out
  int64_t* col;            // [2 nnz - rows] out
  float* val;              // [2 nnz - rows] out
};
void mirror_cuda(const MirrorParams& params, void* stream);

// Targets for which a block has room in shared memory: 71 KiB in all, three blocks on a multiprocessor of an
// H100 or H200. Rows of the usual data share something with 600 to 5,500 targets.
constexpr int kDefaultSlots = 8192;

// Rows of v are weights that sum to 1.
struct SparseJaccardParams {
  DeviceCsr v;
  DevicePostings postings;
  float max_distance;  // below 1
  RowRange rows;
  bool upper;                 // lists only the targets from the row itself on
  int slots = kDefaultSlots;  // a power of two, at least 4
};
void sparse_jaccard_cuda(const SparseJaccardParams& params, const ScatteredRows& out, void* stream);

// Targets that a block accumulates at a time in shared memory: 55 KiB in all, four blocks on a multiprocessor of an
// H100 or H200, and all of the images of Market-1501.
constexpr int64_t kDefaultTile = 13312;

struct DenseJaccardParams {
  DeviceCsr v;
  DevicePostings postings;
  int64_t row_begin, row_end, col_begin, col_end;
  float* out;  // [row_end - row_begin, col_end - col_begin]
  int64_t tile = kDefaultTile;
};
void dense_jaccard_cuda(const DenseJaccardParams& params, void* stream);

}  // namespace ccfast::jaccard
