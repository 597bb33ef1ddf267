// knn: the certified search compared with a sort of all exact distances, on the CPU and in the CUDA kernels.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "check.h"
#include "common/simd.h"
#include "cuda_emulation.h"
#include "knn/knn.h"
#include "knn/tiles.h"
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

  // slack: factor of the error bound; with a large one no row is proven.
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

// Also completes the rows that the certificate does not cover; returns their number.
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

// Products as from ATen: float32, or the bits of float16; rows of stride `ld`, of which `cols` count.
struct Products {
  int64_t rows, cols, ld;
  bool half;
  std::vector<float> singles;
  std::vector<__half> halves;

  Products(int64_t rows, int64_t cols, int64_t ld, bool half)
      : rows(rows), cols(cols), ld(ld), half(half), singles(half ? 0 : rows * ld), halves(half ? rows * ld : 0) {}

  void set(int64_t r, int64_t c, float value) {
    if (half)
      halves[r * ld + c] = __float2half_rn(value);
    else
      singles[r * ld + c] = value;
  }
  float get(int64_t r, int64_t c) const { return half ? __half2float(halves[r * ld + c]) : singles[r * ld + c]; }
  // Columns first .. first + count.
  ProductTile tile(int64_t first, int64_t count) const {
    const void* start = half ? static_cast<const void*>(halves.data() + first) : singles.data() + first;
    return {start, half, rows, count, ld};
  }
  void* data() { return half ? static_cast<void*>(halves.data()) : singles.data(); }
};

// The expected candidates: (-score, target), best first.
std::vector<Neighbour> best_of(const Products& products, int64_t row, const std::vector<float>& half_norms,
                               int64_t keep) {
  std::vector<Neighbour> best;
  for (int64_t j = 0; j < products.cols; ++j) best.push_back({half_norms[j] - products.get(row, j), j});
  std::sort(best.begin(), best.end());
  best.resize(keep);
  return best;
}

float score_of(uint64_t candidate) {
  const auto ordered = static_cast<uint32_t>(candidate >> 32);
  return __uint_as_float(ordered >> 31 ? ordered & 0x7fffffffu : ~ordered);
}

int64_t index_of(uint64_t candidate) { return ~static_cast<uint32_t>(candidate); }

void check_lists(const std::vector<uint64_t>& lists, const Products& products, const std::vector<float>& half_norms,
                 int64_t keep) {
  for (int64_t r = 0; r < products.rows; ++r) {
    const std::vector<Neighbour> best = best_of(products, r, half_norms, keep);
    for (int64_t m = 0; m < keep; ++m) {
      CHECK_EQUAL(score_of(lists[r * keep + m]), static_cast<float>(-best[m].distance));
      CHECK_EQUAL(index_of(lists[r * keep + m]), best[m].index);
    }
  }
}

// Scores: unordered, in tiers; rising, so that each passes; falling, so that none passes; all equal.
Products offered_products(int64_t cols, int64_t ld, bool half) {
  Products products(5, cols, ld, half);
  for (int64_t j = 0; j < cols; ++j) {
    products.set(0, j, static_cast<float>(j * 7919 % cols));
    products.set(1, j, static_cast<float>(j * 7919 % 100));
    products.set(2, j, static_cast<float>(j) / 4);
    products.set(3, j, static_cast<float>(-j) / 4);
    products.set(4, j, 1);
  }
  return products;
}

// More targets than are buffered for the list; lists shorter and longer than the number of threads of a block; rows
// with and without an alignment of 16 bytes; tiles that end anywhere.
TEST(the_cuda_selection_keeps_the_best_of_many) {
  const int64_t cols = 5000;
  std::vector<float> half_norms(cols);
  for (int64_t j = 0; j < cols; ++j) half_norms[j] = static_cast<float>(j % 3) / 8;
  for (const bool half : {false, true}) {
    for (const int64_t ld : {cols, cols + 3}) {
      const Products products = offered_products(cols, ld, half);
      for (const int64_t keep : {1, 37, 70, 300, 700}) {
        for (const int64_t tile : {cols, int64_t{4096}, int64_t{2100}, int64_t{333}}) {
          if (tile == 333 && keep != 37) continue;
          std::vector<uint64_t> lists(products.rows * keep);
          for (int64_t col0 = 0; col0 < cols; col0 += tile)
            select_cuda(
                {products.tile(col0, std::min(tile, cols - col0)), col0, half_norms.data(), 0, keep, lists.data()},
                nullptr);
          check_lists(lists, products, half_norms, keep);
        }
      }
    }
  }
}

// Scores of every magnitude, decided by the norms, by the products, or by the last bits of either.
TEST(the_cuda_selection_misses_no_score_that_reaches_the_floor) {
  const int64_t cols = 1803, tile = 600, keep = 37;
  native::Numbers numbers(5);
  for (const bool half : {false, true}) {
    for (const double scale : {1e-7, 1e-4, 1.0, 300.0}) {
      for (const double spread : {0.0, 1e-4, 1.0, 100.0}) {
        Products products(3, cols, cols + 5, half);
        std::vector<float> half_norms(cols);
        for (int64_t j = 0; j < cols; ++j) {
          half_norms[j] = static_cast<float>(scale * (0.5 + spread * (1 + numbers.next())));
          for (int64_t r = 0; r < 3; ++r) products.set(r, j, static_cast<float>(scale * numbers.next()));
        }
        const float least = *std::min_element(half_norms.begin(), half_norms.end());
        std::vector<uint64_t> lists(3 * keep);
        for (int64_t col0 = 0; col0 < cols; col0 += tile)
          select_cuda(
              {products.tile(col0, std::min(tile, cols - col0)), col0, half_norms.data(), least, keep, lists.data()},
              nullptr);
        check_lists(lists, products, half_norms, keep);
      }
    }
  }
}

TEST(a_list_with_fewer_targets_than_slots_ends_in_zeros) {
  const Products products = offered_products(9, 9, true);
  const std::vector<float> half_norms(9);
  std::vector<uint64_t> lists(5 * 12);
  select_cuda({products.tile(0, 9), 0, half_norms.data(), 0, 12, lists.data()}, nullptr);
  for (int64_t r = 0; r < 5; ++r)
    for (int64_t m = 0; m < 12; ++m) CHECK_EQUAL(lists[r * 12 + m] == 0, m >= 9);
}

TEST(a_transposed_tile_is_the_tile_by_columns) {
  for (const bool half : {false, true}) {
    Products products(131, 75, 80, half), out(75, 131, 136, half);
    for (int64_t r = 0; r < 131; ++r)
      for (int64_t c = 0; c < 75; ++c) products.set(r, c, static_cast<float>(r * 10 + c));
    transpose_cuda({products.tile(2, 73), out.data(), 136}, nullptr);
    for (int64_t r = 0; r < 131; ++r) {
      for (int64_t c = 0; c < 73; ++c) CHECK_EQUAL(out.get(c, r), products.get(r, c + 2));
      CHECK_EQUAL(out.get(73, r), 0.0f);
    }
    for (int64_t c = 0; c < 75; ++c) CHECK_EQUAL(out.get(c, 131), 0.0f);
  }
}

TEST(tiles_offer_every_target_once_and_in_order) {
  for (const int64_t rows : {1, 7, 8, 9, 40, 41})
    for (const int64_t height : {1, 8, 41, 50})
      for (const int64_t width : {1, 5, 16, 50}) {
        for (const bool symmetric : {true, false}) {
          const int64_t cols = symmetric ? rows : rows + 13;
          std::vector<std::vector<int64_t>> offered(rows);
          for (const Tile& tile : tiles_of(rows, cols, symmetric, height, width)) {
            CHECK(tile.rows <= height && tile.cols <= width && tile.mirrored <= tile.cols);
            for (int64_t r = tile.row0; r < tile.row0 + tile.rows; ++r)
              for (int64_t c = tile.col0; c < tile.col0 + tile.cols; ++c) {
                offered[r].push_back(c);
                if (c >= tile.col0 + tile.mirrored) offered[c].push_back(r);
              }
          }
          std::vector<int64_t> all(cols);
          std::iota(all.begin(), all.end(), 0);
          for (const std::vector<int64_t>& targets : offered) CHECK_EQUAL(targets, all);
        }
      }
}

// The inputs that the glue computes from the rows.
struct Operand {
  Operand(const Problem& problem, bool half, double scale = 1)
      : half(half),
        padded_rows(half ? (problem.rows + 7) / 8 * 8 : problem.rows),
        padded_dim(half ? (problem.dim + 7) / 8 * 8 : problem.dim),
        halves(half ? padded_rows * padded_dim + 8 : 0, __half{0x7bff}),
        norms(problem.rows),
        rounding(problem.rows, NAN),
        half_norms(problem.rows) {
    prepare_cuda({problem.features.data(), problem.rows, problem.dim, scale, norms.data(), half_norms.data(),
                  rounding.data(), half ? halves.data() : nullptr, padded_rows, padded_dim},
                 nullptr);
  }
  float value(const Problem& problem, int64_t i, int64_t d) const {
    return half ? __half2float(halves[i * padded_dim + d]) : problem.row(i)[d];
  }
  float product(const Problem& problem, int64_t i, int64_t j) const {
    float sum = 0;
    for (int64_t d = 0; d < problem.dim; ++d) sum += value(problem, i, d) * value(problem, j, d);
    return sum;
  }
  float least() const { return *std::min_element(half_norms.begin(), half_norms.end()); }
  RowError error(int64_t dim) const {
    const double norm = std::sqrt(*std::max_element(norms.begin(), norms.end()));
    const double lost = *std::max_element(rounding.begin(), rounding.end());
    const double computed = (static_cast<double>(dim + 8) * 0x1p-23 + (half ? 0x1p-11 : 0)) * (norm + lost);
    return {lost + computed, norm + lost + computed, 0x1p-22 * norm * norm + 0x1p-24};
  }

  bool half;
  int64_t padded_rows, padded_dim;
  std::vector<__half> halves;
  std::vector<double> norms, rounding;
  std::vector<float> half_norms;
};

TEST(operands_are_rounded_and_padded_and_what_is_lost_is_measured) {
  for (const int64_t dim : kDims) {
    for (const double scale : {1.0, 0.25, 0x1p-20}) {
      const Problem problem{67, dim, 1, native::random_matrix<float>(67, dim)};
      const Operand operand(problem, true, scale), single(problem, false, scale);
      CHECK_EQUAL(operand.norms, single.norms);
      CHECK_EQUAL(operand.half_norms, single.half_norms);
      for (int64_t i = 0; i < operand.padded_rows; ++i) {
        double squares = 0, lost = 0;
        for (int64_t d = 0; d < operand.padded_dim; ++d) {
          const double value = i < 67 && d < dim ? problem.row(i)[d] * scale : 0;
          const __half half = operand.halves[i * operand.padded_dim + d];
          CHECK_EQUAL(half.bits & 0x7fff, __float2half_rn(static_cast<float>(value)).bits & 0x7fff);
          squares += value * value;
          lost += std::pow(value - __half2float(half), 2);
        }
        if (i >= 67) continue;
        CHECK_NEAR(operand.norms[i], squares, 1e-12 * squares);
        CHECK_EQUAL(operand.half_norms[i], static_cast<float>(operand.norms[i] / 2));
        CHECK_NEAR(operand.rounding[i], std::sqrt(lost), 1e-12 * scale);
      }
      for (size_t after = operand.halves.size() - 8; after < operand.halves.size(); ++after)
        CHECK_EQUAL(operand.halves[after].bits, 0x7bff);
    }
  }
}

TEST(a_row_that_is_not_finite_has_such_a_norm) {
  Problem problem{3, 33, 1, native::random_matrix<float>(3, 33)};
  problem.features[33] = INFINITY;
  problem.features[98] = NAN;
  const Operand operand(problem, true);
  CHECK(std::isfinite(operand.norms[0]) && std::isinf(operand.norms[1]) && std::isnan(operand.norms[2]));
  problem.features.assign(99, 3e38f);
  for (const double norm : Operand(problem, true).norms) CHECK(std::isfinite(norm));
}

// The lists of a search in small tiles, as in the glue.
std::vector<uint64_t> lists_of(const Problem& problem, const Operand& operand, int64_t keep, bool symmetric) {
  std::vector<uint64_t> lists(problem.rows * keep);
  for (const Tile& tile : tiles_of(problem.rows, problem.rows, symmetric, 24, 50)) {
    Products products(tile.rows, tile.cols, (tile.cols + 7) / 8 * 8, operand.half);
    for (int64_t r = 0; r < tile.rows; ++r)
      for (int64_t c = 0; c < tile.cols; ++c)
        products.set(r, c, operand.product(problem, tile.row0 + r, tile.col0 + c));
    select_cuda({products.tile(0, tile.cols), tile.col0, operand.half_norms.data(), operand.least(), keep,
                 lists.data() + tile.row0 * keep},
                nullptr);
    if (tile.mirrored == tile.cols) continue;
    const int64_t width = tile.cols - tile.mirrored;
    Products transposed(width, tile.rows, tile.rows, operand.half);
    transpose_cuda({products.tile(tile.mirrored, width), transposed.data(), tile.rows}, nullptr);
    select_cuda({transposed.tile(0, tile.rows), tile.row0, operand.half_norms.data(), operand.least(), keep,
                 lists.data() + (tile.col0 + tile.mirrored) * keep},
                nullptr);
  }
  return lists;
}

// Which rows are proven; the same, bit for bit, whether each pair is measured once or each row measures its own
// pairs.
std::vector<char> rescore(const Problem& problem, const Operand& operand, const std::vector<uint64_t>& lists,
                          int64_t keep, RowError error, Result& result) {
  std::vector<char> proven(problem.rows, 2);
  for (const bool mutual : {true, false}) {
    Result found(problem.rows, problem.k);
    std::fill(found.indices.begin(), found.indices.end(), -1);
    std::vector<char> again(problem.rows, 2);
    std::vector<int32_t> counts(problem.rows, -1);
    std::vector<double> exact(problem.rows * keep, NAN);
    rescore_cuda({problem.features.data(), problem.features.data(), problem.rows, problem.rows, problem.dim, problem.k,
                  keep, lists.data(), operand.norms.data(), operand.rounding.data(), error, 1, mutual, counts.data(),
                  exact.data(), found.indices.data(), found.distances.data(), reinterpret_cast<bool*>(again.data())},
                 nullptr);
    for (const char row : again) CHECK(row == 0 || row == 1);
    if (!mutual) {
      CHECK_EQUAL(found.indices, result.indices);
      CHECK_EQUAL(found.distances, result.distances);
      CHECK_EQUAL(again, proven);
    }
    result = std::move(found);
    proven = std::move(again);
  }
  return proven;
}

TEST(the_cuda_search_finds_what_a_sort_finds) {
  int64_t rows_proven = 0;
  for_each_problem([&](const Problem& problem) {
    const Result expected = search_naively(problem);
    for (const bool half : {false, true}) {
      const Operand operand(problem, half);
      const int64_t keep = std::min(problem.rows, problem.k + 10);
      const std::vector<uint64_t> lists = lists_of(problem, operand, keep, true);
      CHECK_EQUAL(lists, lists_of(problem, operand, keep, false));
      Result result(problem.rows, problem.k);
      const std::vector<char> proven = rescore(problem, operand, lists, keep, operand.error(problem.dim), result);
      rows_proven += std::count(proven.begin(), proven.end(), 1);
      for (int64_t i = 0; i < problem.rows * problem.k; ++i) {
        if (!proven[i / problem.k]) continue;
        CHECK_EQUAL(result.indices[i], expected.indices[i]);
        CHECK_NEAR(result.distances[i], expected.distances[i], 1e-5);
      }
    }
  });
  CHECK(rows_proven > 5000);
}

TEST(no_row_is_proven_against_the_error_of_its_scores) {
  const Problem problem{67, 33, 7, native::random_matrix<float>(67, 33)};
  const Operand operand(problem, true);
  for (const RowError error : {RowError{1e6, 0, 0}, RowError{0, 1e9, 0}, RowError{0, 0, 1e6}}) {
    for (const int64_t keep : {9, 67}) {
      Result result(67, 7);
      const std::vector<char> proven =
          rescore(problem, operand, lists_of(problem, operand, keep, true), keep, error, result);
      CHECK_EQUAL(std::count(proven.begin(), proven.end(), 1), keep == 67 ? 67 : 0);
    }
  }
}

// The fourth candidate of row 0 becomes a copy of that row after the selection, so it is among the nearest if measured.
TEST(only_candidates_that_the_error_allows_are_looked_at) {
  Problem problem{67, 33, 3, native::random_matrix<float>(67, 33)};
  const Operand operand(problem, false);
  const std::vector<uint64_t> lists = lists_of(problem, operand, 20, true);
  const double reach = score_of(lists[2]) - score_of(lists[3]);
  std::copy_n(problem.row(0), 33, problem.features.begin() + index_of(lists[3]) * 33);
  for (const double part : {0.49, 0.51}) {
    Result result(67, 3);
    rescore(problem, operand, lists, 20, {0, 0, part * reach}, result);
    CHECK_EQUAL(result.indices[1] == index_of(lists[3]), part > 0.5);
  }
}

// Loads of 16 bytes or of one number, in both kernels.
TEST(equal_rows_are_at_equal_distances_however_they_are_read) {
  for (const int64_t dim : {4, 8, 132, 520, 1000}) {
    const std::vector<float> rows = native::random_matrix<float>(9, dim);
    std::vector<float> shifted(rows.size() + 1);
    std::copy(rows.begin(), rows.end(), shifted.begin() + 1);
    const std::vector<int64_t> chosen = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    std::vector<double> distances(81), again(81);
    distances_cuda({rows.data(), rows.data(), chosen.data(), 9, 9, dim, distances.data()}, nullptr);
    distances_cuda({shifted.data() + 1, shifted.data() + 1, chosen.data(), 9, 9, dim, again.data()}, nullptr);
    CHECK_EQUAL(distances, again);
    for (int64_t i = 0; i < 9; ++i) CHECK_EQUAL(distances[i * 10], 0.0);
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

// One definition for any number of lanes.
TEST(distances_have_the_same_bits_on_all_devices) {
  for (const int64_t dim : {1, 2, 3, 4, 5, 31, 33, 64, 100, 127, 128, 129, 160, 255, 513, 2048}) {
    std::vector<float> rows = native::random_matrix<float>(9, dim);
    for (int64_t i = 0; i < 3 * dim; ++i) rows[i] = std::ldexp(rows[i], 60);
    const std::vector<int64_t> chosen = {0, 1, 2, 3, 4, 5, 6, 7, 8};
    std::vector<double> distances(81);
    distances_cuda({rows.data(), rows.data(), chosen.data(), 9, 9, dim, distances.data()}, nullptr);
    for (int64_t i = 0; i < 81; ++i) {
      const float *a = rows.data() + i / 9 * dim, *b = rows.data() + i % 9 * dim;
      double lanes[128] = {};
      for (int64_t d = 0; d < dim; ++d) lanes[d % 128] += (double{a[d]} - b[d]) * (double{a[d]} - b[d]);
      for (int64_t half = 64; half >= 4; half /= 2)
        for (int64_t lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
      const double expected = ((lanes[0] + lanes[1]) + lanes[2]) + lanes[3];
      CHECK_EQUAL(distances[i], expected);
      CHECK_EQUAL(squared_distance(a, b, dim), expected);
    }
  }
}

// --- any scores and bounds ---

TEST(a_row_with_too_few_candidates_is_answered_from_all_distances) {
  const Problem problem{67, 33, 7, native::random_matrix<float>(67, 33)};
  const Scores scores(problem);
  Candidates few(problem.rows, 10);
  offer_rows(few, scores.products.data(), problem.rows, problem.rows, 6, 0, 0, scores.half_norms.data());
  Result result(problem.rows, problem.k);
  CHECK_EQUAL(finish_all(problem, scores, few, result), 0);
  check_result(result, search_naively(problem));
  for (const float nonsense : {NAN, INFINITY, -INFINITY}) {
    Scores broken(problem, -1e12);
    std::fill(broken.products.begin(), broken.products.end(), nonsense);
    Result found(problem.rows, problem.k);
    const Params params = params_of(problem, found);
    std::fill(found.indices.begin(), found.indices.end(), 0);
    for (int64_t row = 0; row < problem.rows; ++row)
      search_again(params, row, broken.products.data() + row * problem.rows, broken.half_norms.data(),
                   broken.norms[row], broken.errors[row], 1);
    check_result(found, search_naively(problem));
  }
}

TEST(a_list_with_too_few_candidates_is_not_read) {
  const Problem problem{67, 33, 7, native::random_matrix<float>(67, 33)};
  const Operand operand(problem, false);
  std::vector<uint64_t> lists = lists_of(problem, operand, 20, true);
  std::fill(lists.begin() + 6, lists.begin() + 20, 0);
  Result result(67, 7);
  std::fill(result.indices.begin(), result.indices.end(), -1);
  const std::vector<char> proven = rescore(problem, operand, lists, 20, operand.error(33), result);
  CHECK_EQUAL(proven[0], 0);
  CHECK(std::all_of(result.indices.begin(), result.indices.begin() + 7, [](int64_t index) { return index == -1; }));
  CHECK(proven[1]);
}

TEST(every_row_is_put_first_in_its_own_list) {
  const std::vector<int64_t> before = {5, 1, 2, 1, 6, 3, 1, 2, 7, 0, 1, 2},
                             after = {5, 1, 2, 6, 1, 3, 7, 1, 2, 8, 0, 1};
  std::vector<int64_t> lists = before;
  put_own_first(lists.data(), 4, 3, 5);
  CHECK_EQUAL(lists, after);
  lists = before;
  put_own_first_cuda({lists.data(), 4, 3, 5}, nullptr);
  CHECK_EQUAL(lists, after);
  lists = {4, 9};
  put_own_first(lists.data(), 2, 1, 8);
  CHECK_EQUAL(lists, (std::vector<int64_t>{8, 9}));
}

}  // namespace
}  // namespace ccfast::knn
