// retrieval: average precision and ranks compared with their definitions, on the CPU and in the CUDA kernel.
#include <algorithm>
#include <numeric>
#include <vector>

#include "check.h"
#include "retrieval/retrieval.h"
#include "samples.h"

namespace ccfast::retrieval {
namespace {

template <class T>
struct Problem {
  int64_t queries, gallery;
  bool with_cams;
  std::vector<T> distances;
  std::vector<int64_t> query_ids, gallery_ids, query_cams, gallery_cams;

  // levels: number of different distances; a small number gives many ties.
  Problem(int64_t queries, int64_t gallery, int64_t ids, int64_t levels, bool with_cams)
      : queries(queries),
        gallery(gallery),
        with_cams(with_cams),
        distances(queries * gallery),
        query_ids(native::random_labels(queries, ids, 0, 1)),
        gallery_ids(native::random_labels(gallery, ids, 0, 2)),
        query_cams(native::random_labels(queries, 2, 0, 3)),
        gallery_cams(native::random_labels(gallery, 2, 0, 4)) {
    const std::vector<int64_t> level = native::random_labels(queries * gallery, levels, 0, 5);
    for (size_t p = 0; p < distances.size(); ++p) distances[p] = static_cast<T>(level[p]) / static_cast<T>(levels);
  }

  bool same(int64_t q, int64_t g) const { return query_ids[q] == gallery_ids[g]; }
  bool left_out(int64_t q, int64_t g) const { return with_cams && same(q, g) && query_cams[q] == gallery_cams[g]; }
};

struct Result {
  explicit Result(int64_t queries) : precision(queries, NAN), first(queries, -7), penalty(queries, NAN) {}
  std::vector<double> precision;
  std::vector<int64_t> first;
  std::vector<double> penalty;
};

template <class T>
RankingParams<T> params_of(const Problem<T>& problem, const T* distances, Result& result) {
  return {distances,
          problem.query_ids.data(),
          problem.gallery_ids.data(),
          problem.with_cams ? problem.query_cams.data() : nullptr,
          problem.with_cams ? problem.gallery_cams.data() : nullptr,
          problem.queries,
          problem.gallery,
          result.precision.data(),
          result.first.data(),
          result.penalty.data()};
}

// Mean over the matches of the precision among the entries no farther than the match.
template <class T>
double precision_naively(const Problem<T>& problem, int64_t q, const std::vector<int64_t>& ranked) {
  const T* distance = problem.distances.data() + q * problem.gallery;
  double sum = 0, matches = 0;
  for (const int64_t match : ranked) {
    if (!problem.same(q, match)) continue;
    double within = 0, correct = 0;
    for (const int64_t g : ranked) {
      within += distance[g] <= distance[match];
      correct += distance[g] <= distance[match] && problem.same(q, g);
    }
    sum += correct / within;
    ++matches;
  }
  return matches ? sum / matches : 0;
}

template <class T>
Result rank_naively(const Problem<T>& problem) {
  Result result(problem.queries);
  for (int64_t q = 0; q < problem.queries; ++q) {
    const T* distance = problem.distances.data() + q * problem.gallery;
    std::vector<int64_t> ranked;
    for (int64_t g = 0; g < problem.gallery; ++g)
      if (!problem.left_out(q, g)) ranked.push_back(g);
    std::stable_sort(ranked.begin(), ranked.end(), [&](int64_t a, int64_t b) { return distance[a] < distance[b]; });
    int64_t first = -1, last = 0, matches = 0;
    for (size_t r = 0; r < ranked.size(); ++r) {
      if (!problem.same(q, ranked[r])) continue;
      if (first < 0) first = static_cast<int64_t>(r);
      last = static_cast<int64_t>(r) + 1;
      ++matches;
    }
    result.precision[q] = precision_naively(problem, q, ranked);
    result.first[q] = first;
    result.penalty[q] = matches ? static_cast<double>(matches) / static_cast<double>(last) : 0;
  }
  return result;
}

void check_same(const Result& found, const Result& expected) {
  CHECK_NEAR(found.precision, expected.precision, 1e-12);
  CHECK_EQUAL(found.first, expected.first);
  CHECK_NEAR(found.penalty, expected.penalty, 1e-12);
}

template <class T, class Check>
void for_each_problem(const Check& check) {
  for (const int64_t queries : {1, 3, 37})
    for (const int64_t gallery : {1, 5, 33, 130})
      for (const int64_t ids : {1, 4, 50})
        for (const int64_t levels : {3, 100000})
          for (const bool with_cams : {false, true}) check(Problem<T>(queries, gallery, ids, levels, with_cams));
}

template <class T>
void check_cpu(const Problem<T>& problem) {
  Result result(problem.queries);
  CHECK_EQUAL(evaluate_ranking(params_of(problem, problem.distances.data(), result)), -1);
  check_same(result, rank_naively(problem));
}

TEST(the_cpu_ranks_by_the_definition) {
  for_each_problem<float>(check_cpu<float>);
  for_each_problem<double>(check_cpu<double>);
}

TEST(a_nan_is_told_by_its_query) {
  Problem<float> problem(3, 5, 2, 3, false);
  problem.distances[12] = NAN;
  Result result(3);
  CHECK_EQUAL(evaluate_ranking(params_of(problem, problem.distances.data(), result)), 2);
}

// --- the CUDA kernel, emulated ---

template <class T>
void check_cuda(const Problem<T>& problem) {
  const int64_t gallery = problem.gallery;
  std::vector<int64_t> order(problem.queries * gallery);
  std::vector<T> sorted(order.size());
  for (int64_t q = 0; q < problem.queries; ++q) {
    const auto row = order.begin() + q * gallery;
    const T* distance = problem.distances.data() + q * gallery;
    std::iota(row, row + gallery, 0);
    std::stable_sort(row, row + gallery, [&](int64_t a, int64_t b) { return distance[a] < distance[b]; });
    for (int64_t r = 0; r < gallery; ++r) sorted[q * gallery + r] = distance[row[r]];
  }
  Result result(problem.queries);
  evaluate_ranking_cuda<T>({params_of(problem, sorted.data(), result), order.data()}, nullptr);
  check_same(result, rank_naively(problem));
}

TEST(cuda_ranks_by_the_definition) {
  for_each_problem<float>(check_cuda<float>);
  for_each_problem<double>(check_cuda<double>);
}

}  // namespace
}  // namespace ccfast::retrieval
