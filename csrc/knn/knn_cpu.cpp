#include <algorithm>
#include <cstring>
#include <functional>
#include <limits>

#include "../common/parallel.h"
#include "../common/simd.h"
#include "../common/subnormals.h"
#include "knn.h"

namespace ccfast::knn {
namespace {

constexpr int64_t kStep = 64;  // scores compared together, before any single one is checked
constexpr int64_t kColumnGrain = 256;

// How many of the kStep scores tile[j] - half_norm[j] exceed threshold.
CCFAST_CLONES int count_above(const float* tile, const float* half_norm, float threshold) {
  int above = 0;
  for (int64_t j = 0; j < kStep; ++j) above += tile[j] - half_norm[j] > threshold;
  return above;
}

// How many of the kStep scores tile[j] - half_norm exceed threshold[j].
CCFAST_CLONES int count_above_each(const float* tile, float half_norm, const float* threshold) {
  int above = 0;
  for (int64_t j = 0; j < kStep; ++j) above += tile[j] - half_norm > threshold[j];
  return above;
}

struct Scratch {
  std::vector<uint64_t> ordered;
  std::vector<float> scores;
};

// A score and its target in one number of the same order: numbers are selected several times faster than pairs.
uint64_t ordered_pair(float score, int32_t index) {
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof bits);
  bits = bits >> 31 ? ~bits : bits | 0x80000000u;
  return uint64_t{bits} << 32 | static_cast<uint32_t>(index);
}

float score_of(uint64_t pair) {
  const auto ordered = static_cast<uint32_t>(pair >> 32);
  const uint32_t bits = ordered >> 31 ? ordered & 0x7fffffffu : ~ordered;
  float score;
  std::memcpy(&score, &bits, sizeof score);
  return score;
}

// Keeps the best `keep` candidates of a row; raises its threshold to the lowest score kept.
void compact(Candidates& candidates, int64_t row, std::vector<uint64_t>& ordered) {
  const int32_t count = candidates.count[row];
  if (count <= candidates.keep) return;
  float* score = candidates.score.data() + row * candidates.capacity;
  int32_t* index = candidates.index.data() + row * candidates.capacity;
  ordered.resize(count);
  for (int32_t slot = 0; slot < count; ++slot) ordered[slot] = ordered_pair(score[slot], index[slot]);
  const auto last = ordered.begin() + (candidates.keep - 1);
  std::nth_element(ordered.begin(), last, ordered.end(), std::greater<uint64_t>());
  for (int64_t slot = 0; slot < candidates.keep; ++slot) {
    score[slot] = score_of(ordered[slot]);
    index[slot] = static_cast<int32_t>(static_cast<uint32_t>(ordered[slot]));
  }
  candidates.count[row] = static_cast<int32_t>(candidates.keep);
  candidates.threshold[row] = score_of(*last);
}

void offer(Candidates& candidates, int64_t row, int64_t target, float score, Scratch& scratch) {
  if (!(score > candidates.threshold[row])) return;
  const int64_t slot = row * candidates.capacity + candidates.count[row]++;
  candidates.score[slot] = score;
  candidates.index[slot] = static_cast<int32_t>(target);
  if (candidates.count[row] == candidates.capacity) compact(candidates, row, scratch.ordered);
}

// found: at least k.
void write_nearest(const Params& params, int64_t row, std::vector<Neighbour>& found) {
  std::partial_sort(found.begin(), found.begin() + params.k, found.end());
  for (int64_t m = 0; m < params.k; ++m) {
    params.indices[row * params.k + m] = found[m].index;
    params.distances[row * params.k + m] = static_cast<float>(found[m].distance);
  }
}

double kth_highest(const float* score, int64_t count, int64_t k, std::vector<float>& scratch) {
  scratch.assign(score, score + count);
  std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<float>());
  return scratch[k - 1];
}

// Rows come in no order: without this, each would wait for its first lines.
void prefetch(const float* row, int64_t dim) {
  for (int64_t d = 0; d < dim; d += 64 / sizeof(float)) __builtin_prefetch(row + d);
}

double exact_distance(const Params& params, int64_t row, int64_t target) {
  return squared_distance(params.queries + row * params.dim, params.features + target * params.dim, params.dim);
}

// The result for a row without enough candidates, for any scores and bounds.
void scan_all(const Params& params, int64_t row, std::vector<Neighbour>& found) {
  found.clear();
  for (int64_t j = 0; j < params.num_features; ++j) found.push_back({exact_distance(params, row, j), j});
  write_nearest(params, row, found);
}

}  // namespace

Candidates::Candidates(int64_t rows, int64_t keep)
    : rows(rows),
      keep(keep),
      capacity(2 * keep),
      score(rows * capacity),
      index(rows * capacity),
      count(rows, 0),
      threshold(rows, -std::numeric_limits<float>::infinity()) {}

void offer_rows(Candidates& candidates, const float* tile, int64_t ld, int64_t tile_rows, int64_t tile_cols,
                int64_t row0, int64_t col0, const float* half_norms) {
  parallel_for(tile_rows, 16, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    const float* half_norm = half_norms + col0;
    for (int64_t r = begin; r < end; ++r) {
      const float* scores = tile + r * ld;
      int64_t j = 0;
      for (; j + kStep <= tile_cols; j += kStep) {
        if (!count_above(scores + j, half_norm + j, candidates.threshold[row0 + r])) continue;
        for (int64_t s = j; s < j + kStep; ++s)
          offer(candidates, row0 + r, col0 + s, scores[s] - half_norm[s], scratch);
      }
      for (; j < tile_cols; ++j) offer(candidates, row0 + r, col0 + j, scores[j] - half_norm[j], scratch);
    }
  });
}

void offer_columns(Candidates& candidates, const float* tile, int64_t ld, int64_t tile_rows, int64_t tile_cols,
                   int64_t row0, int64_t col0, const float* half_norms) {
  parallel_for(tile_cols, kColumnGrain, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    for (int64_t r = 0; r < tile_rows; ++r) {
      const float* scores = tile + r * ld;
      const float half_norm = half_norms[row0 + r];
      const float* threshold = candidates.threshold.data() + col0;
      int64_t j = begin;
      for (; j + kStep <= end; j += kStep) {
        if (!count_above_each(scores + j, half_norm, threshold + j)) continue;
        for (int64_t s = j; s < j + kStep; ++s) offer(candidates, col0 + s, row0 + r, scores[s] - half_norm, scratch);
      }
      for (; j < end; ++j) offer(candidates, col0 + j, row0 + r, scores[j] - half_norm, scratch);
    }
  });
}

std::vector<int64_t> finish(const Params& params, Candidates& candidates, const double* query_norms,
                            const double* error, double unit) {
  std::vector<char> proven(params.num_queries);
  parallel_for_exact(params.num_queries, 16, [&](int64_t begin, int64_t end) {
    Scratch scratch;
    std::vector<Neighbour> found;
    for (int64_t row = begin; row < end; ++row) {
      compact(candidates, row, scratch.ordered);
      found.clear();
      if (candidates.count[row] < params.k) {
        scan_all(params, row, found);
        proven[row] = true;
        continue;
      }
      const float* score = candidates.score.data() + row * candidates.capacity;
      // k candidates have true scores of at least the k-th one less its error: others are not checked.
      const double lowest = kth_highest(score, candidates.count[row], params.k, scratch.scores) - 2 * error[row];
      for (int64_t slot = 0; slot < candidates.count[row]; ++slot)
        if (score[slot] >= lowest) found.push_back({0, candidates.index[row * candidates.capacity + slot]});
      for (size_t i = 0; i < found.size(); ++i) {
        if (i + 1 < found.size()) prefetch(params.features + found[i + 1].index * params.dim, params.dim);
        found[i].distance = exact_distance(params, row, found[i].index);
      }
      write_nearest(params, row, found);
      const double discarded = query_norms[row] - 2 * (candidates.threshold[row] + error[row]);
      proven[row] = found[params.k - 1].distance * unit < discarded;
    }
  });
  std::vector<int64_t> open;
  for (int64_t row = 0; row < params.num_queries; ++row)
    if (!proven[row]) open.push_back(row);
  return open;
}

void search_again(const Params& params, int64_t row, const float* scores, const float* half_norms, double query_norm,
                  double error, double unit) {
  const WithSubnormals with_subnormals;
  std::vector<Neighbour> found;
  double kth = 0;
  for (int64_t m = 0; m < params.k; ++m)
    kth = std::max(kth, exact_distance(params, row, params.indices[row * params.k + m]));
  const double lowest = (query_norm - kth * unit) / 2 - error;
  for (int64_t j = 0; j < params.num_features; ++j)
    if (static_cast<double>(scores[j]) - half_norms[j] >= lowest) found.push_back({exact_distance(params, row, j), j});
  if (static_cast<int64_t>(found.size()) < params.k)
    scan_all(params, row, found);
  else
    write_nearest(params, row, found);
}

void put_own_first(int64_t* indices, int64_t rows, int64_t k, int64_t first) {
  for (int64_t i = 0; i < rows; ++i) {
    int64_t* list = indices + i * k;
    int64_t at = 0;
    while (at < k - 1 && list[at] != first + i) ++at;
    std::copy_backward(list, list + at, list + at + 1);
    list[0] = first + i;
  }
}

}  // namespace ccfast::knn
