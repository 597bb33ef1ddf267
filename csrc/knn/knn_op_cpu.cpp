// Glue of ccfast::knn for CPU tensors: scaling, tiles of ATen products, error bounds.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "../common/autocast.h"
#include "../common/checks.h"
#include "../common/parallel.h"
#include "../common/simd.h"
#include "half_panel.h"
#include "knn.h"
#include "precision.h"

namespace ccfast {
namespace {

constexpr int64_t kTile = 2048;  // rows and columns of a tile of products

// Squared norms of the rows of a contiguous float32 matrix.
void write_squared_norms(const at::Tensor& matrix, double* norms) {
  const int64_t dim = matrix.size(1);
  const float* data = matrix.const_data_ptr<float>();
  parallel_for_exact(matrix.size(0), 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) norms[row] = dot(data + row * dim, data + row * dim, dim);
  });
}

// The same; raises ValueError that names the first row of `name` that is not finite.
std::vector<double> finite_squared_norms(const char* name, const at::Tensor& matrix) {
  std::vector<double> norms(matrix.size(0));
  write_squared_norms(matrix, norms.data());
  // The square of a float32 is finite in float64.
  if (!std::all_of(norms.begin(), norms.end(), [](double norm) { return std::isfinite(norm); }))
    check_finite_rows(name, matrix);
  return norms;
}

// The rows times a power of two; not by ATen, whose factor is a float32 that may be subnormal.
at::Tensor scaled_rows(const at::Tensor& rows, double scale) {
  if (scale == 1) return rows;
  const at::Tensor scaled = at::empty_like(rows);
  const float* from = rows.const_data_ptr<float>();
  float* to = scaled.mutable_data_ptr<float>();
  parallel_for_exact(rows.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) to[i] = static_cast<float>(from[i] * scale);
  });
  return scaled;
}

double largest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

// The data of a search, for any arithmetic.
struct Search {
  at::Tensor queries, features;  // [Q, D], [N, D] float32, contiguous; the same one in a symmetric search
  bool symmetric;
  std::vector<double> query_norms, feature_norms;  // squared
  knn::Params params;
};

// The arithmetic of the products: of a type that ATen multiplies, or knn::HalfPanel's.
struct Arithmetic {
  at::ScalarType type;
  bool half_panels;
};

// The rows as the matrix product reads them.
struct Operand {
  at::Tensor matrix;              // [rows, dim], scaled, in the type of the product
  std::vector<double> norms;      // squared, of the scaled rows before rounding
  std::vector<float> half_norms;  // norms / 2
  std::vector<double> rounding;   // half_panels: norms of the rounding errors

  Operand(const at::Tensor& rows, const std::vector<double>& squared, double scale, Arithmetic arithmetic)
      : norms(squared), half_norms(squared.size()) {
    for (size_t i = 0; i < norms.size(); ++i) {
      norms[i] *= scale * scale;
      half_norms[i] = static_cast<float>(norms[i] / 2);
    }
    const at::Tensor scaled = scaled_rows(rows, scale);
    matrix = arithmetic.half_panels ? knn::half_operand(scaled) : scaled.to(arithmetic.type);
    if (arithmetic.half_panels) rounding = knn::half_rounding(scaled, matrix);
  }
  int64_t rows() const { return static_cast<int64_t>(norms.size()); }
};

// Both sides of the products, and the bound on the error of a score of every query.
class Operands {
 public:
  Operands(const Search& search, Arithmetic arithmetic)
      : arithmetic(arithmetic),
        scale(knn::scale_for(std::max(largest(search.feature_norms), largest(search.query_norms)), arithmetic.type)),
        features(search.features, search.feature_norms, scale, arithmetic) {
    if (!search.symmetric) queries_.emplace(search.queries, search.query_norms, scale, arithmetic);
    const int64_t dim = search.params.dim;
    const double longest = largest(features.norms);
    const knn::ErrorBound bound = knn::error_bound(longest, dim, arithmetic.type);
    const knn::RoundedNorm target{std::sqrt(longest), largest(features.rounding)};
    for (int64_t i = 0; i < queries().rows(); ++i) {
      const double norm = std::sqrt(queries().norms[i]), reach = norm + target.norm;
      const double scores = arithmetic.half_panels ? knn::half_error({norm, queries().rounding[i]}, target, dim)
                                                   : bound.relative * norm * target.norm + bound.absolute;
      errors.push_back(scores + knn::float64_error(dim) * reach * reach);
    }
  }
  const Operand& queries() const { return queries_ ? *queries_ : features; }
  double unit() const { return scale * scale; }

  const Arithmetic arithmetic;
  const double scale;
  const Operand features;
  std::vector<double> errors;

 private:
  std::optional<Operand> queries_;
};

at::Tensor product(const at::Tensor& a, const at::Tensor& b) { return at::mm(a, b.t()).to(at::kFloat); }

// Products of queries with the targets first .. first + count, tile by tile.
class Panel {
 public:
  Panel(const Operands& operands, int64_t first, int64_t count) {
    if (operands.arithmetic.half_panels)
      half_.emplace(operands.features.matrix, first, count);
    else
      targets_ = operands.features.matrix.narrow(0, first, count);
  }

  // The tile of queries first .. first + count [>= count, >= columns]; the next tile may overwrite it.
  at::Tensor tile(const Operand& queries, int64_t first, int64_t count) {
    if (!half_) return product(queries.matrix.narrow(0, first, count), targets_);
    if (!buffer_.defined()) buffer_ = at::empty({kTile, half_->stride()}, at::kFloat);
    half_->multiply(queries.matrix, first, count, buffer_.mutable_data_ptr<float>());
    return buffer_;
  }

 private:
  at::Tensor targets_, buffer_;
  std::optional<knn::HalfPanel> half_;
};

void search_tiles(knn::Candidates& candidates, const Operands& operands, bool symmetric) {
  const Operand &queries = operands.queries(), &features = operands.features;
  const float* half_norms = features.half_norms.data();
  for (int64_t col0 = 0; col0 < features.rows(); col0 += kTile) {
    const int64_t cols = std::min(kTile, features.rows() - col0);
    Panel panel(operands, col0, cols);
    for (int64_t row0 = 0; row0 < (symmetric ? col0 + 1 : queries.rows()); row0 += kTile) {
      const int64_t rows = std::min(kTile, queries.rows() - row0);
      const at::Tensor tile = panel.tile(queries, row0, rows);
      const float* scores = tile.const_data_ptr<float>();
      knn::offer_rows(candidates, scores, tile.size(1), rows, cols, row0, col0, half_norms);
      if (symmetric && col0 != row0)
        knn::offer_columns(candidates, scores, tile.size(1), rows, cols, row0, col0, half_norms);
    }
  }
}

// Writes the k nearest of every row that the candidates allow; returns the rows that are not proven.
std::vector<int64_t> search_candidates(const Search& search, const Operands& operands) {
  const int64_t extra = operands.arithmetic.half_panels ? knn::kExtraHalfCandidates : knn::kExtraCandidates;
  knn::Candidates candidates(search.params.num_queries, std::min(search.params.num_features, search.params.k + extra));
  search_tiles(candidates, operands, search.symmetric);
  return knn::finish(search.params, candidates, operands.queries().norms.data(), operands.errors.data(),
                     operands.unit());
}

void search_open_rows(const Search& search, const Operands& operands, const std::vector<int64_t>& open) {
  const knn::Params& params = search.params;
  const Operand &queries = operands.queries(), &features = operands.features;
  const int64_t block = std::max<int64_t>(1, kTile * kTile / params.num_features);
  for (int64_t first = 0; first < static_cast<int64_t>(open.size()); first += block) {
    const int64_t rows = std::min<int64_t>(block, open.size() - first);
    const at::Tensor chosen = at::from_blob(const_cast<int64_t*>(open.data()) + first, {rows}, at::kLong);
    const at::Tensor scores = product(queries.matrix.index_select(0, chosen), features.matrix);
    parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t row = open[first + r];
        knn::search_again(params, row, scores.const_data_ptr<float>() + r * params.num_features,
                          features.half_norms.data(), queries.norms[row], operands.errors[row], operands.unit());
      }
    });
  }
}

void search_by_aten(const Search& search, at::ScalarType type) {
  const Operands operands(search, {type, false});
  search_open_rows(search, operands, search_candidates(search, operands));
}

// In bfloat16 with float32 sums; rows that are not proven by that are searched in float32.
void search_by_half_panels(const Search& search) {
  const std::vector<int64_t> open = search_candidates(search, Operands(search, {at::kBFloat16, true}));
  if (static_cast<int64_t>(open.size()) > search.params.num_queries / knn::kRowsPerOpenRow)
    search_by_aten(search, at::kFloat);
  else if (!open.empty())
    search_open_rows(search, Operands(search, {at::kFloat, false}), open);
}

std::tuple<at::Tensor, at::Tensor> knn_cpu(const at::Tensor& features, const std::optional<at::Tensor>& queries,
                                           int64_t k, const std::string_view precision,
                                           std::optional<int64_t> row_begin) {
  const NoAutocast no_autocast;
  const bool symmetric = !queries.has_value();
  const at::ScalarType type = knn::operand_type(precision);
  const std::optional<int64_t> own = knn::checked_own_rows(features, queries, k, row_begin);
  const at::Tensor targets = features.to(at::kFloat).contiguous();
  const at::Tensor rows = symmetric ? targets : queries->to(at::kFloat).contiguous();
  std::vector<double> target_norms = finite_squared_norms("features", targets), row_norms;
  if (!symmetric) row_norms = finite_squared_norms("queries", rows);

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
  const Search search{rows, targets, symmetric, std::move(row_norms), std::move(target_norms), params};
  if (type != at::kHalf && knn::has_half_panels())
    search_by_half_panels(search);
  else
    search_by_aten(search, type);
  if (own) knn::put_own_first(params.indices, params.num_queries, k, *own);
  return {indices, distances};
}

at::Tensor squared_norms_cpu(const at::Tensor& features) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  const at::Tensor norms = at::empty({features.size(0)}, features.options().dtype(at::kDouble));
  write_squared_norms(features.contiguous(), norms.mutable_data_ptr<double>());
  return norms;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("knn", knn_cpu);
  m.impl("squared_norms", squared_norms_cpu);
}

}  // namespace ccfast
