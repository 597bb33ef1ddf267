// Glue of ccfast::knn: scaling, tiles of ATen products, error bounds.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "../common/checks.h"
#include "../common/parallel.h"
#include "../common/simd.h"
#include "knn.h"

namespace ccfast {
namespace {

constexpr int64_t kTile = 2048;           // rows and columns of a tile of products
constexpr int64_t kExtraCandidates = 16;  // kept beyond k, so that the error bound rarely reaches the k-th
constexpr double kRoundoff = 0x1p-24;     // float32

// Half the spacing of the numbers that the products are computed in. Above "highest" torch may round float32 operands
// of a matrix product to bfloat16 (torch.set_float32_matmul_precision).
double operand_roundoff(at::ScalarType type) {
  if (type == at::kHalf) return 0x1p-11;
  if (type == at::kBFloat16) return 0x1p-8;
  try {
    if (at::globalContext().float32MatmulPrecision() == at::Float32MatmulPrecision::HIGHEST) return 0;
  } catch (const std::exception&) {  // the caller mixes torch's two precision settings: assume the coarser
  }
  return 0x1p-8;
}

at::ScalarType operand_type(const std::string_view precision) {
  if (precision == "fp32") return at::kFloat;
  if (precision == "fp16") return at::kHalf;
  TORCH_CHECK_VALUE(precision == "bf16", "precision: expected one of 'fp32', 'fp16', 'bf16', got '", precision, "'");
  return at::kBFloat16;
}

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

// A power of two that brings rows of squared norm up to `largest` to a norm of at most 1, where products neither
// overflow nor vanish; 1 where the rows are already of ordinary size for the type.
double scale_for(double largest, at::ScalarType type) {
  const bool ordinary = type == at::kHalf ? largest > 0.25 && largest <= 1 : largest > 0x1p-40 && largest < 0x1p40;
  if (largest == 0 || ordinary) return 1;
  return std::ldexp(1.0, -static_cast<int>(std::ceil(std::log2(largest) / 2)));
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

// Bounds |computed score - score| of every query against any target: rounding of the operands (fp16 also loses what
// lies below its smallest number), accumulation of dim products in float32 in any order, rounding of the result to the
// type of the product, of |y|^2 / 2 and of the difference.
std::vector<double> score_errors(const Operand& queries, double largest_target, int64_t dim, at::ScalarType type) {
  const double operand = operand_roundoff(type);
  const double steps = static_cast<double>(dim + 4) * kRoundoff;
  const double result = type == at::kFloat ? 0 : operand;
  const double relative =
      (2 * operand + operand * operand + steps / (1 - std::min(steps, 0.5)) + result) * (1 + operand) * (1 + operand);
  const double vanished = (type == at::kHalf ? 4 * 0x1p-25 : 0x1p-100) * std::sqrt(static_cast<double>(dim));
  std::vector<double> errors(queries.norms.size());
  for (size_t i = 0; i < errors.size(); ++i) {
    const double product = std::sqrt(queries.norms[i] * largest_target);
    errors[i] = relative * product + 4 * kRoundoff * (product + largest_target) + vanished;
  }
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
  CCFAST_CHECK_DIM(features, 2);
  const bool symmetric = !queries.has_value();
  const at::ScalarType type = operand_type(precision);
  const at::Tensor targets = features.to(at::kFloat).contiguous();
  const at::Tensor rows = symmetric ? targets : queries->to(at::kFloat).contiguous();
  TORCH_CHECK_VALUE(rows.dim() == 2 && rows.size(1) == targets.size(1), "queries: expected shape [Q, ", targets.size(1),
                    "], got ", rows.sizes());
  TORCH_CHECK_VALUE(k >= 1 && k <= targets.size(0), "k: expected 1 to ", targets.size(0), ", got ", k);
  TORCH_CHECK_VALUE(targets.size(0) < std::numeric_limits<int32_t>::max(), "features: expected fewer than 2^31 rows");
  check_finite_rows("features", features);
  if (!symmetric) check_finite_rows("queries", *queries);

  std::vector<double> target_norms = squared_norms(targets);
  std::vector<double> row_norms = symmetric ? target_norms : squared_norms(rows);
  const double scale = scale_for(std::max(largest(target_norms), row_norms.empty() ? 0 : largest(row_norms)), type);
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
  knn::Candidates candidates(rows.size(0), std::min(targets.size(0), k + kExtraCandidates));
  search_tiles(candidates, left, right, symmetric);
  const std::vector<int64_t> open = knn::finish(params, candidates, left.norms.data(), errors.data(), scale * scale);
  search_open_rows(params, open, left, right, errors, scale);
  return {indices, distances};
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("knn", knn_cpu); }

}  // namespace ccfast
