// knn: the certified search against a sort of all exact distances, on the CPU and in the CUDA kernels.
#include <algorithm>
#include <numeric>
#include <vector>

#include "check.h"
#include "knn/knn.h"
#include "samples.h"

namespace ccfast::knn {
namespace {

using native::kDims;
using native::kRows;

struct Problem {
  int64_t rows, dim, k;
  std::vector<float> features;

  const float* row(int64_t i) const { return features.data() + i * dim; }
};

struct Result {
  Result(int64_t rows, int64_t k) : indices(rows * k), distances(rows * k) {}
  std::vector<int64_t> indices;
  std::vector<float> distances;
};

Result search_naively(const Problem& problem) {
  Result result(problem.rows, problem.k);
  for (int64_t i = 0; i < problem.rows; ++i) {
    std::vector<Neighbour> all;
    for (int64_t j = 0; j < problem.rows; ++j)
      all.push_back({native::squared_distance_of(problem.row(i), problem.row(j), problem.dim), j});
    std::sort(all.begin(), all.end());
    for (int64_t m = 0; m < problem.k; ++m) {
      result.indices[i * problem.k + m] = all[m].index;
      result.distances[i * problem.k + m] = static_cast<float>(all[m].distance);
    }
  }
  return result;
}

// What the glue computes with a matrix product.
struct Scores {
  std::vector<float> products, half_norms;
  std::vector<double> norms, errors;

  // slack: factor of the error bound; a large one leaves no row proven.
  explicit Scores(const Problem& problem, double slack = 1)
      : products(problem.rows * problem.rows), half_norms(problem.rows), norms(problem.rows), errors(problem.rows) {
    const std::vector<float> zero(problem.dim, 0.0f);
    for (int64_t i = 0; i < problem.rows; ++i) {
      norms[i] = native::squared_distance_of(problem.row(i), zero.data(), problem.dim);
      half_norms[i] = static_cast<float>(norms[i] / 2);
      for (int64_t j = 0; j < problem.rows; ++j)
        products[i * problem.rows + j] =
            std::inner_product(problem.row(i), problem.row(i) + problem.dim, problem.row(j), 0.0f);
    }
    const double largest = *std::max_element(norms.begin(), norms.end());
    std::fill(errors.begin(), errors.end(), slack * (static_cast<double>(problem.dim) + 8) * 0x1p-23 * largest);
  }
};

Params params_of(const Problem& problem, Result& result) {
  return {problem.features.data(), problem.features.data(), problem.rows, problem.rows, problem.dim, problem.k,
          result.indices.data(),   result.distances.data()};
}

Candidates candidates_by_rows(const Problem& problem, const Scores& scores, int64_t keep, int64_t tile) {
  Candidates candidates(problem.rows, keep);
  for (int64_t col0 = 0; col0 < problem.rows; col0 += tile)
    offer_rows(candidates, scores.products.data() + col0, problem.rows, problem.rows,
               std::min(tile, problem.rows - col0), 0, col0, scores.half_norms.data());
  return candidates;
}

Candidates candidates_by_columns(const Problem& problem, const Scores& scores, int64_t keep, int64_t tile) {
  Candidates candidates(problem.rows, keep);
  for (int64_t row0 = 0; row0 < problem.rows; row0 += tile)
    offer_columns(candidates, scores.products.data() + row0 * problem.rows, problem.rows,
                  std::min(tile, problem.rows - row0), problem.rows, row0, 0, scores.half_norms.data());
  return candidates;
}

// Answers the rows that the certificate does not cover, too; returns how many there were.
int64_t finish_all(const Problem& problem, const Scores& scores, Candidates candidates, Result& result) {
  const Params params = params_of(problem, result);
  const std::vector<int64_t> open = finish(params, candidates, scores.norms.data(), scores.errors.data(), 1);
  for (const int64_t row : open)
    search_again(params, row, scores.products.data() + row * problem.rows, scores.half_norms.data(), scores.norms[row],
                 scores.errors[row], 1);
  return static_cast<int64_t>(open.size());
}

void check_result(const Result& result, const Result& expected) {
  CHECK_EQUAL(result.indices, expected.indices);
  CHECK_NEAR(result.distances, expected.distances, 1e-5);
}

int64_t keep_of(const Problem& problem) { return std::min(problem.rows, problem.k + 3); }

template <class Function>
void for_each_problem(const Function& function) {
  for (const int64_t rows : kRows)
    for (const int64_t dim : kDims)
      for (const int64_t k : {int64_t{1}, std::min<int64_t>(7, rows), rows}) {
        function(Problem{rows, dim, k, native::random_matrix<float>(rows, dim)});
        function(Problem{rows, dim, k, native::tied_matrix(rows, dim)});
      }
}

TEST(the_cpu_search_finds_what_a_sort_finds) {
  for_each_problem([](const Problem& problem) {
    const Result expected = search_naively(problem);
    const Scores scores(problem);
    for (const auto& candidates : {candidates_by_rows(problem, scores, keep_of(problem), 50),
                                   candidates_by_columns(problem, scores, keep_of(problem), 50)}) {
      Result result(problem.rows, problem.k);
      finish_all(problem, scores, candidates, result);
      check_result(result, expected);
    }
  });
}

TEST(rows_without_proof_are_searched_again) {
  const Problem problem{67, 33, 7, native::random_matrix<float>(67, 33)};
  const Scores scores(problem, 1e12);
  Result result(problem.rows, problem.k);
  CHECK_EQUAL(finish_all(problem, scores, candidates_by_rows(problem, scores, keep_of(problem), 50), result), 67);
  check_result(result, search_naively(problem));
}

// --- the CUDA kernels, emulated ---

struct Lists {
  Lists(int64_t rows, int64_t keep)
      : scores(rows * keep, -INFINITY), indices(rows * keep, -1), thresholds(rows, -INFINITY) {}
  std::vector<float> scores;
  std::vector<int32_t> indices;
  std::vector<float> thresholds;
};

// Candidates of rows of products [rows, cols], offered in tiles.
Lists select_in_tiles(const std::vector<float>& products, const std::vector<float>& half_norms, int64_t rows,
                      int64_t keep, int64_t tile) {
  const int64_t cols = static_cast<int64_t>(half_norms.size());
  Lists lists(rows, keep);
  for (int64_t col0 = 0; col0 < cols; col0 += tile) {
    const int64_t width = std::min(tile, cols - col0);
    std::vector<float> part(rows * width);
    for (int64_t r = 0; r < rows; ++r) std::copy_n(products.begin() + r * cols + col0, width, part.begin() + r * width);
    select_cuda({part.data(), rows, width, col0, half_norms.data(), keep, lists.scores.data(), lists.indices.data(),
                 lists.thresholds.data()},
                nullptr);
  }
  return lists;
}

TEST(the_cuda_search_finds_what_a_sort_finds) {
  for_each_problem([](const Problem& problem) {
    const Scores scores(problem);
    const int64_t rows = problem.rows, keep = keep_of(problem);
    std::vector<double> norms(rows);
    squared_norms_cuda({problem.features.data(), rows, problem.dim, norms.data()}, nullptr);
    CHECK_NEAR(norms, scores.norms, 1e-10);
    const Lists lists = select_in_tiles(scores.products, scores.half_norms, rows, keep, 50);
    Result result(rows, problem.k);
    std::vector<char> proven(rows, 2);
    rescore_cuda({problem.features.data(), problem.features.data(), rows, rows, problem.dim, problem.k, keep,
                  lists.indices.data(), lists.thresholds.data(), norms.data(), scores.errors.data(), 1,
                  result.indices.data(), result.distances.data(), reinterpret_cast<bool*>(proven.data())},
                 nullptr);
    const Result expected = search_naively(problem);
    for (int64_t i = 0; i < rows * problem.k; ++i) {
      CHECK(proven[i / problem.k] == 0 || proven[i / problem.k] == 1);
      if (!proven[i / problem.k]) continue;
      CHECK_EQUAL(result.indices[i], expected.indices[i]);
      CHECK_NEAR(result.distances[i], expected.distances[i], 1e-5);
    }
  });
}

// More targets than the buffer of the selection holds, in an order that fills it again and again.
TEST(the_cuda_selection_keeps_the_best_of_many) {
  const int64_t rows = 3, cols = 5000, keep = 37;
  for (const int64_t distinct : {int64_t{100}, cols}) {
    std::vector<float> products(rows * cols), half_norms(cols);
    for (int64_t j = 0; j < cols; ++j) {
      products[j] = static_cast<float>(j * 7919 % distinct);
      products[cols + j] = static_cast<float>(j * distinct / cols);
      products[2 * cols + j] = -products[cols + j];
      half_norms[j] = static_cast<float>(j % 3);
    }
    for (const int64_t tile : {cols, int64_t{2100}, int64_t{333}}) {
      const Lists lists = select_in_tiles(products, half_norms, rows, keep, tile);
      for (int64_t r = 0; r < rows; ++r) {
        std::vector<Neighbour> best, found;
        for (int64_t j = 0; j < cols; ++j) best.push_back({half_norms[j] - products[r * cols + j], j});
        std::sort(best.begin(), best.end());
        for (int64_t s = r * keep; s < (r + 1) * keep; ++s) found.push_back({-lists.scores[s], lists.indices[s]});
        std::sort(found.begin(), found.end());
        for (int64_t m = 0; m < keep; ++m) {
          CHECK_EQUAL(found[m].index, best[m].index);
          CHECK_EQUAL(found[m].distance, best[m].distance);
        }
        CHECK_EQUAL(lists.thresholds[r], -best[keep - 1].distance);
      }
    }
  }
}

TEST(cuda_distances_of_chosen_rows_are_exact) {
  for (const int64_t dim : kDims) {
    const Problem problem{67, dim, 1, native::random_matrix<float>(67, dim)};
    const std::vector<int64_t> chosen = {66, 0, 13};
    std::vector<double> distances(3 * 67), expected;
    distances_cuda({problem.features.data(), problem.features.data(), chosen.data(), 3, 67, dim, distances.data()},
                   nullptr);
    for (const int64_t i : chosen)
      for (int64_t j = 0; j < 67; ++j)
        expected.push_back(native::squared_distance_of(problem.row(i), problem.row(j), dim));
    CHECK_NEAR(distances, expected, 1e-12);
  }
}

}  // namespace
}  // namespace ccfast::knn
