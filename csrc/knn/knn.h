// Exact k nearest neighbours by squared Euclidean distance.
//
// The exact distance is d(i, j) = sum over dimensions of (x_i - y_j)^2 in float64, as ccfast::squared_distance adds it;
// ties go to the lower index, and if the queries are the features, a row comes first among its own neighbours. The
// search finds `keep` >= k candidates per row from approximate scores (a matrix product in single or half precision),
// re-scores them exactly, and certifies the row: every target that was discarded has an approximate score of at most
// `threshold`, so its distance is at least |x|^2 - 2 (threshold + error). Where that exceeds the k-th distance the row
// is proven; the others are searched again with every target that the error bound cannot rule out. docs/exactness.md
// has the bounds and their proof.
//
// A score is <x, y> - |y|^2 / 2: the larger, the nearer.
#pragma once

#include <cstdint>
#include <vector>

namespace ccfast::knn {

// Operands of products are padded to whole steps.
inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

struct Neighbour {
  double distance;
  int64_t index;
  bool operator<(const Neighbour& other) const {
    return distance < other.distance || (distance == other.distance && index < other.index);
  }
};

// The best candidates of every query row so far. A row's slots fill up to `capacity`, then only the best `keep` stay
// and `threshold` becomes the lowest score kept: nothing above it is ever discarded.
struct Candidates {
  Candidates(int64_t rows, int64_t keep);

  int64_t rows, keep, capacity;
  std::vector<float> score;      // [rows, capacity]
  std::vector<int32_t> index;    // [rows, capacity]
  std::vector<int32_t> count;    // [rows]
  std::vector<float> threshold;  // [rows], -inf until something has been discarded
};

// Offers the tile of products [tile_rows, tile_cols] (row stride ld) of queries row0.. with targets col0.. to the
// queries. half_norms[j] = |y_j|^2 / 2 of all targets.
void offer_rows(Candidates& candidates, const float* tile, int64_t ld, int64_t tile_rows, int64_t tile_cols,
                int64_t row0, int64_t col0, const float* half_norms);
// The same tile read by columns: offers the rows of the tile, as targets, to the queries col0.. (a symmetric search).
void offer_columns(Candidates& candidates, const float* tile, int64_t ld, int64_t tile_rows, int64_t tile_cols,
                   int64_t row0, int64_t col0, const float* half_norms);

struct Params {
  const float* queries;   // [num_queries, dim]
  const float* features;  // [num_features, dim]
  int64_t num_queries, num_features, dim, k;
  int64_t* indices;  // [num_queries, k] out
  float* distances;  // [num_queries, k] out
};

// Re-scores the candidates exactly, writes the k nearest of every row, and returns the rows that are not proven.
// query_norms: |x|^2 of every query. error: bound on the error of a score of every query, with what float64 rounds of
// distances and norms. Scores, norms and errors are in the scaled unit of the search: they are `unit` times those of
// the rows in params. A row with fewer candidates than k is answered from all distances, and proven.
std::vector<int64_t> finish(const Params& params, Candidates& candidates, const double* query_norms,
                            const double* error, double unit);

// Searches row `row` again: every target whose score, read from scores [num_features], the error bound cannot rule out
// against the k-th distance found so far is re-scored exactly.
void search_again(const Params& params, int64_t row, const float* scores, const float* half_norms, double query_norm,
                  double error, double unit);

// The lists [rows, k] are those of the features first .. first + rows: puts every row first in its own list. What
// comes before it is at distance 0 too; if more than k duplicates have pushed it out, it replaces the last one.
void put_own_first(int64_t* indices, int64_t rows, int64_t k, int64_t first);

// ---- CUDA: the same search, launched on a stream ----
//
// A candidate is one number, the larger the nearer: its score as an unsigned number of the same order, and below that
// the complement of its index, so that of equal scores the lower index comes first. 0 stands for no candidate. The list
// of a query has its best `keep`, best first; no other candidate offered to it has a higher score than the last one
// of the list.

// The operands of the products, and norms, of every row times `scale`.
struct PrepareParams {
  const float* matrix;  // [rows, dim]
  int64_t rows, dim;
  double scale;       // a power of two
  double* norms;      // [rows] out: squared norms
  float* half_norms;  // [rows] out: norms / 2
  double* rounding;   // [rows] out: norms of the rounding errors in float16; 0 if half is null
  // In float16, padded with zeros; unused if half is null.
  void* half;  // [padded_rows, padded_dim] out, aligned to 16 bytes; padded_dim: a multiple of 4
  int64_t padded_rows, padded_dim;
  float* single = nullptr;  // [rows, dim] out in float32, or null
};
void prepare_cuda(const PrepareParams& params, void* stream);

// Products of queries and targets, in float16 where `half`, in float32 otherwise.
struct ProductTile {
  const void* products;  // [rows, cols], row stride ld
  bool half;
  int64_t rows, cols, ld;
};

// Writes the transposed tile to out [cols, rows] (row stride ld), of the same type.
struct TransposeParams {
  ProductTile tile;
  void* out;
  int64_t ld;
};
void transpose_cuda(const TransposeParams& params, void* stream);

// Offers targets col0 .. col0 + tile.cols to the queries of the tile's rows. Every pair may be offered once.
struct SelectParams {
  ProductTile tile;
  int64_t col0;
  const float* half_norms;  // of all targets
  float least;              // the least of them, or a lower number
  int64_t keep;
  uint64_t* lists;  // [tile.rows, keep], 0 at the start
};
// The most candidates per row that the selection can hold in shared memory.
int64_t max_keep_cuda();
void select_cuda(const SelectParams& params, void* stream);

// |computed score - score| <= norm * |x| + rounding * |x - x'| + constant for a query x that is rounded to x', and any
// target. float64 * (|x| + longest)^2 is added: half of the float64 rounding of distances and norms, if no target
// is longer than `longest`.
struct RowError {
  double norm, rounding, constant, float64 = 0, longest = 0;
};

// Distances of the candidates that can be among the k nearest, sorted; proven[row] tells whether the certificate holds
// (see above). A row with fewer candidates than k is not proven, and nothing is written for it. Distances have the bits
// of ccfast::squared_distance, here and in distances_cuda; those of a pair are the same from both sides.
struct RescoreParams {
  const float* queries;   // [num_queries, dim]
  const float* features;  // [num_features, dim]
  int64_t num_queries, num_features, dim, k, keep;
  const uint64_t* lists;   // [num_queries, keep]
  const double* norms;     // [num_queries] squared, scaled
  const double* rounding;  // [num_queries] scaled; null: nothing has been rounded
  RowError error;          // of a score, scaled
  double unit;             // norms, scores and error are this many times those of the rows above
  bool mutual;             // the queries are the features: rows that are each other's candidates are measured once
  int32_t* counts;         // [num_queries] workspace: candidates that are measured
  double* exact;           // [num_queries, keep] workspace: their distances
  int64_t* indices;        // [num_queries, k] out
  float* distances;        // [num_queries, k] out
  bool* proven;            // [num_queries] out
};
void rescore_cuda(const RescoreParams& params, void* stream);

// Exact distances of chosen queries to every target.
struct DistancesParams {
  const float* queries;   // [*, dim]
  const float* features;  // [num_features, dim]
  const int64_t* chosen;  // [count] rows of queries
  int64_t count, num_features, dim;
  double* distances;  // [count, num_features] out
};
void distances_cuda(const DistancesParams& params, void* stream);

// distances[i][m] = that of queries[i] and features[indices[i][m]], with the bits of ccfast::squared_distance.
struct PairDistancesParams {
  const float* queries;    // [num_queries, dim]
  const float* features;   // [*, dim]
  const int64_t* indices;  // [num_queries, width]
  int64_t num_queries, width, dim;
  double* distances;  // [num_queries, width] out
};
void pair_distances(const PairDistancesParams& params);
void pair_distances_cuda(const PairDistancesParams& params, void* stream);

// The same as put_own_first.
struct OwnFirstParams {
  int64_t* indices;  // [rows, k]
  int64_t rows, k, first;
};
void put_own_first_cuda(const OwnFirstParams& params, void* stream);

}  // namespace ccfast::knn
