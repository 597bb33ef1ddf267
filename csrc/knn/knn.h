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

}  // namespace ccfast::knn
