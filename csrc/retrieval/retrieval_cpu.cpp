#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "../common/parallel.h"
#include "retrieval.h"

namespace ccfast::retrieval {
namespace {

template <class T>
struct Query {
  std::vector<std::pair<T, int64_t>> matches;  // distance and gallery index, nearest first
  std::vector<int64_t> misses_up_to;           // [matches + 1] misses beyond match m - 1 and not beyond match m
  int64_t before_first, before_last;           // misses that rank before the first and the last match
};

template <class T>
bool is_junk(const RankingParams<T>& params, int64_t g) {
  return params.has_junk && params.gallery_ids[g] == params.junk_id;
}

template <class T>
bool same_camera(const RankingParams<T>& params, int64_t q, int64_t g) {
  return params.query_cams && params.gallery_cams[g] == params.query_cams[q];
}

// Ranks are counted, not sorted: only the numbers of misses between the matches matter.
template <class T>
void rank(const RankingParams<T>& params, int64_t q, Query<T>& query) {
  const T* distances = params.distances + q * params.gallery;
  query.matches.clear();
  for (int64_t g = 0; g < params.gallery; ++g)
    if (params.gallery_ids[g] == params.query_ids[q] && !same_camera(params, q, g) && !is_junk(params, g))
      query.matches.emplace_back(distances[g], g);
  if (query.matches.empty()) return;
  std::sort(query.matches.begin(), query.matches.end());
  query.misses_up_to.assign(query.matches.size() + 1, 0);
  query.before_first = query.before_last = 0;
  for (int64_t g = 0; g < params.gallery; ++g) {
    if (params.gallery_ids[g] == params.query_ids[q] || is_junk(params, g)) continue;
    const std::pair<T, int64_t> miss{distances[g], g};
    query.before_first += miss < query.matches.front();
    query.before_last += miss < query.matches.back();
    const auto match = std::lower_bound(query.matches.begin(), query.matches.end(), distances[g],
                                        [](const auto& entry, T distance) { return entry.first < distance; });
    ++query.misses_up_to[match - query.matches.begin()];
  }
}

// Sum over distinct distances t of matches of (matches at t / matches) * (matches up to t / entries up to t).
template <class T>
double average_precision(const Query<T>& query) {
  const int64_t count = static_cast<int64_t>(query.matches.size());
  double sum = 0;
  int64_t misses = 0;
  for (int64_t first = 0; first < count;) {
    int64_t last = first;
    for (; last < count && query.matches[last].first == query.matches[first].first; ++last)
      misses += query.misses_up_to[last];
    sum += static_cast<double>(last - first) / count * last / (last + misses);
    first = last;
  }
  return sum;
}

}  // namespace

template <class T>
int64_t evaluate_ranking(const RankingParams<T>& params) {
  std::vector<char> nan(params.queries, 0);
  parallel_for(params.queries, 1, [&](int64_t begin, int64_t end) {
    Query<T> query;
    for (int64_t q = begin; q < end; ++q) {
      const T* distances = params.distances + q * params.gallery;
      nan[q] = std::any_of(distances, distances + params.gallery, [](T distance) { return std::isnan(distance); });
      if (nan[q]) continue;
      rank(params, q, query);
      const int64_t count = static_cast<int64_t>(query.matches.size());
      params.average_precision[q] = count ? average_precision(query) : 0;
      params.first_match[q] = count ? query.before_first : -1;
      params.inverse_penalty[q] = count ? static_cast<double>(count) / (count + query.before_last) : 0;
    }
  });
  const auto bad = std::find(nan.begin(), nan.end(), 1);
  return bad == nan.end() ? -1 : bad - nan.begin();
}

template int64_t evaluate_ranking(const RankingParams<float>&);
template int64_t evaluate_ranking(const RankingParams<double>&);

}  // namespace ccfast::retrieval
