// Ranking evaluation by the Market-1501 protocol.
#pragma once

#include <cstdint>

namespace ccfast::retrieval {

template <class T>
struct RankingParams {
  const T* distances;           // [queries, gallery]
  const int64_t* query_ids;     // [queries]
  const int64_t* gallery_ids;   // [gallery]
  const int64_t* query_cams;    // [queries] or null: no camera filter
  const int64_t* gallery_cams;  // [gallery] or null
  int64_t queries, gallery;
  double* average_precision;  // [queries] out; 0 for a query without a match
  int64_t* first_match;       // [queries] out: 0-based rank of the first match, -1 without one
  double* inverse_penalty;    // [queries] out: matches / 1-based rank of the last match (mINP's summand)
  bool has_junk = false;
  int64_t junk_id = 0;  // if has_junk: gallery entries of this identity count as neither match nor miss
};

// Gallery entries with the query's identity and camera are left out, and those of the junk identity. Average precision
// is scikit-learn's, entries at one distance counting as one threshold; ranks order ties by gallery index. Returns the
// first query row with a NaN distance, or -1.
template <class T>
int64_t evaluate_ranking(const RankingParams<T>& params);

// ---- CUDA: one warp per query goes through its sorted gallery. ----

template <class T>
struct SortedRankingParams {
  RankingParams<T> ranking;  // distances: each row sorted, ascending
  const int64_t* order;      // [queries, gallery] gallery index of each sorted entry; ties ascending
};
template <class T>
void evaluate_ranking_cuda(const SortedRankingParams<T>& params, void* stream);

}  // namespace ccfast::retrieval
