// Glue of ccfast::knn for CPU tensors: scaling, tiles of ATen products, error bounds.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "../common/autocast.h"
#include "../common/checks.h"
#include "../common/parallel.h"
#include "../common/simd.h"
#include "knn.h"
#include "precision.h"

namespace ccfast {
namespace {

constexpr int64_t kTile = 2048;  // rows and columns of a tile of products
// Squared norms in float64 of the rows of a contiguous float32 matrix.
std::vector<double> squared_norms(const at::Tensor& matrix) {
  const int64_t rows = matrix.size(0), dim = matrix.size(1);
  const float* data = matrix.const_data_ptr<float>();
  std::vector<double> norms(rows);
  parallel_for(rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) norms[row] = dot(data + row * dim, data + row * dim, dim);
  });
  return norms;
}

// The rows as the matrix product reads them.
struct Operand {
  at::Tensor matrix;              // [rows, dim], scaled, in the type of the product
  std::vector<double> norms;      // squared, of the scaled rows before rounding
  std::vector<float> half_norms;  // norms / 2

  Operand(const at::Tensor& rows, std::vector<double> squared, double scale, at::ScalarType type)
      : matrix((scale == 1 ? rows : rows * scale).to(type)), norms(std::move(squared)), half_norms(norms.size()) {
    for (size_t i = 0; i < norms.size(); ++i) {
      norms[i] *= scale * scale;
      half_norms[i] = static_cast<float>(norms[i] / 2);
    }
  }
};

double largest(const std::vector<double>& values) { return *std::max_element(values.begin(), values.end()); }

// The bound on the error of a score of every query.
std::vector<double> score_errors(const Operand& queries, double largest_target, int64_t dim, at::ScalarType type) {
  const knn::ErrorBound bound = knn::error_bound(largest_target, dim, type);
  std::vector<double> errors(queries.norms.size());
  for (size_t i = 0; i < errors.size(); ++i)
    errors[i] = bound.relative * std::sqrt(queries.norms[i] * largest_target) + bound.absolute;
  return errors;
}

at::Tensor product(const at::Tensor& a, const at::Tensor& b) { return at::mm(a, b.t()).to(at::kFloat); }

void search_tiles(knn::Candidates& candidates, const Operand& queries, const Operand& features, bool symmetric) {
  const int64_t num_queries = queries.matrix.size(0), num_features = features.matrix.size(0);
  for (int64_t row0 = 0; row0 < num_queries; row0 += kTile) {
    const int64_t rows = std::min(kTile, num_queries - row0);
    for (int64_t col0 = symmetric ? row0 : 0; col0 < num_features; col0 += kTile) {
      const int64_t cols = std::min(kTile, num_features - col0);
      const at::Tensor tile = product(queries.matrix.narrow(0, row0, rows), features.matrix.narrow(0, col0, cols));
      const float* scores = tile.const_data_ptr<float>();
      knn::offer_rows(candidates, scores, cols, rows, cols, row0, col0, features.half_norms.data());
      if (symmetric && col0 != row0)
        knn::offer_columns(candidates, scores, cols, rows, cols, row0, col0, features.half_norms.data());
    }
  }
}

void search_open_rows(const knn::Params& params, const std::vector<int64_t>& open, const Operand& queries,
                      const Operand& features, const std::vector<double>& errors, double scale) {
  const int64_t block = std::max<int64_t>(1, kTile * kTile / params.num_features);
  for (int64_t first = 0; first < static_cast<int64_t>(open.size()); first += block) {
    const int64_t rows = std::min<int64_t>(block, open.size() - first);
    const at::Tensor chosen = at::from_blob(const_cast<int64_t*>(open.data()) + first, {rows}, at::kLong);
    const at::Tensor scores = product(queries.matrix.index_select(0, chosen), features.matrix);
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = open[first + r];
        knn::search_again(params, row, scores.const_data_ptr<float>() + r * params.num_features,
                          features.half_norms.data(), queries.norms[row], errors[row], scale * scale);
      }
    });
  }
}

std::tuple<at::Tensor, at::Tensor> knn_cpu(const at::Tensor& features, const std::optional<at::Tensor>& queries,
                                           int64_t k, const std::string_view precision) {
  const NoAutocast no_autocast;
  const bool symmetric = !queries.has_value();
  const at::ScalarType type = knn::operand_type(precision);
  knn::check_arguments(features, symmetric ? features : *queries, k);
  const at::Tensor targets = features.to(at::kFloat).contiguous();
  const at::Tensor rows = symmetric ? targets : queries->to(at::kFloat).contiguous();
  check_finite_rows("features", features);
  if (!symmetric) check_finite_rows("queries", *queries);

  std::vector<double> target_norms = squared_norms(targets);
  std::vector<double> row_norms = symmetric ? target_norms : squared_norms(rows);
  const double scale =
      knn::scale_for(std::max(largest(target_norms), row_norms.empty() ? 0 : largest(row_norms)), type);
  const Operand right(targets, std::move(target_norms), scale, type);
  const Operand left = symmetric ? right : Operand(rows, std::move(row_norms), scale, type);
  const std::vector<double> errors = score_errors(left, largest(right.norms), targets.size(1), type);

  const at::Tensor indices = at::empty({rows.size(0), k}, targets.options().dtype(at::kLong));
  const at::Tensor distances = at::empty({rows.size(0), k}, targets.options());
  const knn::Params params{rows.const_data_ptr<float>(),
                           targets.const_data_ptr<float>(),
                           rows.size(0),
                           targets.size(0),
                           targets.size(1),
                           k,
                           indices.mutable_data_ptr<int64_t>(),
                           distances.mutable_data_ptr<float>()};
  knn::Candidates candidates(rows.size(0), std::min(targets.size(0), k + knn::kExtraCandidates));
  search_tiles(candidates, left, right, symmetric);
  const std::vector<int64_t> open = knn::finish(params, candidates, left.norms.data(), errors.data(), scale * scale);
  search_open_rows(params, open, left, right, errors, scale);
  return {indices, distances};
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("knn", knn_cpu); }

}  // namespace ccfast
