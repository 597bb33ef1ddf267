// Exact k nearest neighbours by squared Euclidean distance.
//
// Truth is d(i, j) = sum over dimensions of (x_i - y_j)^2, accumulated in float64; ties go to the lower index. The
// search finds `keep` >= k candidates a row from approximate scores (a matrix product in single or half precision),
// re-scores them exactly, and certifies the row: every target that was discarded has an approximate score of at most
// `threshold`, so its true distance is at least |x|^2 - 2 (threshold + error). Where that exceeds the exact k-th
// distance the row is proven; the others are searched again with every target that the error bound cannot rule out.
//
// A score is <x, y> - |y|^2 / 2: the larger, the nearer.
#pragma once

#include <cstdint>
#include <vector>

namespace ccfast::knn {

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
// query_norms: |x|^2 of every query. error: bound on the error of a score of every query. Scores, norms and errors are
// in the scaled unit of the search: they are `unit` times those of the rows in params.
std::vector<int64_t> finish(const Params& params, Candidates& candidates, const double* query_norms,
                            const double* error, double unit);

// Searches row `row` again: every target whose score, read from scores [num_features], the error bound cannot rule out
// against the k-th distance found so far is re-scored exactly.
void search_again(const Params& params, int64_t row, const float* scores, const float* half_norms, double query_norm,
                  double error, double unit);

// ---- CUDA: the same search, launched on a stream ----

struct SquaredNormsParams {
  const float* matrix;  // [rows, dim]
  int64_t rows, dim;
  double* norms;  // [rows] out
};
void squared_norms_cuda(const SquaredNormsParams& params, void* stream);

// Offers a tile of products to the running lists of its rows. Lists start as (-inf, -1) and hold the best `keep`.
struct SelectParams {
  const float* tile;  // [rows, cols] products of the queries of the lists with targets col0..
  int64_t rows, cols, col0;
  const float* half_norms;  // of all targets
  int64_t keep;
  float* scores;      // [rows, keep]
  int32_t* indices;   // [rows, keep]
  float* thresholds;  // [rows], -inf at the start
};
// The most candidates a row that the selection can hold in shared memory.
int64_t max_keep_cuda();
void select_cuda(const SelectParams& params, void* stream);

// Exact distances of the candidates, sorted; proven[row] tells whether the certificate holds (see above).
struct RescoreParams {
  const float* queries;   // [num_queries, dim]
  const float* features;  // [num_features, dim]
  int64_t num_queries, num_features, dim, k, keep;
  const int32_t* candidates;  // [num_queries, keep]
  const float* thresholds;    // [num_queries]
  const double* norms;        // [num_queries] squared, scaled
  const double* errors;       // [num_queries]
  double unit;
  int64_t* indices;  // [num_queries, k] out
  float* distances;  // [num_queries, k] out
  bool* proven;      // [num_queries] out
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

}  // namespace ccfast::knn
