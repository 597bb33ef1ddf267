// ccfast::k_reciprocal_rerank: the stages of the k-reciprocal encoding, called through the dispatcher, so that one
// composition serves every device.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>

#include "../common/autocast.h"
#include "../common/checks.h"
#include "../common/dispatch.h"
#include "../common/subnormals.h"
#include "../jaccard/jaccard.h"

namespace ccfast {
namespace {

constexpr int64_t kBlockRows = 2048;

// The rows scaled by a power of two to at most 1, or to 4 where the largest are near the end of float32: distances keep
// their order, ties included, and their ratios.
at::Tensor scaled(const at::Tensor& rows) {
  const double largest = rows.abs().max().item<double>();
  if (largest == 0) return rows;
  const int exponent = -static_cast<int>(std::ceil(std::log2(largest)));
  return rows * std::ldexp(1.0, std::clamp(exponent, -126, 120));  // the factor has to be a normal float32
}

// Squared distances [rows of a, rows of b] from products; norms are |.|^2 of all rows.
at::Tensor squared_distances(const at::Tensor& a, const at::Tensor& b, const at::Tensor& norms_a,
                             const at::Tensor& norms_b) {
  return at::mm(a, b.t()).mul_(-2).add_(norms_a.unsqueeze(1)).add_(norms_b).clamp_min_(0);
}

// Largest squared distance of every row to any row, from the upper triangle of tiles.
at::Tensor farthest(const at::Tensor& rows, const at::Tensor& norms) {
  const int64_t count = rows.size(0);
  at::Tensor highest = at::zeros({count}, rows.options());
  for (int64_t i = 0; i < count; i += kBlockRows) {
    const int64_t height = std::min(kBlockRows, count - i);
    for (int64_t j = i; j < count; j += kBlockRows) {
      const int64_t width = std::min(kBlockRows, count - j);
      const at::Tensor tile = squared_distances(rows.narrow(0, i, height), rows.narrow(0, j, width),
                                                norms.narrow(0, i, height), norms.narrow(0, j, width));
      at::Tensor by_row = highest.narrow(0, i, height), by_col = highest.narrow(0, j, width);
      by_row.copy_(at::maximum(by_row, tile.amax(1)));
      by_col.copy_(at::maximum(by_col, tile.amax(0)));
    }
  }
  return highest;
}

// V' of query and gallery rows together. Ranks hold k1 + 1 columns; weights are exp(-d / farthest) (Zhong et al. 2017).
CsrTensors rerank_encoding(const at::Tensor& rows, const at::Tensor& inverse_farthest, int64_t k1, int64_t k2) {
  static const auto knn = find_op<KnnSignature>("ccfast::knn");
  static const auto encode = find_op<EncodeSignature>("ccfast::encode_neighbours");
  static const auto expand = find_op<ExpandSignature>("ccfast::expand_queries");
  const auto [rank, distances] = knn.call(rows, std::nullopt, k1 + 1, "fp32", std::nullopt);
  const auto [crow, col, values] =
      encode.call(rows, rank, distances, jaccard::half_width(k1), inverse_farthest, std::nullopt, 0, std::nullopt);
  if (k2 == 1) return {crow, col, values};
  return expand.call(crow, col, values, rank, k2);
}

at::Tensor k_reciprocal_rerank(const at::Tensor& query, const at::Tensor& gallery, int64_t k1, int64_t k2,
                               double lambda_value) {
  const NoAutocast no_autocast;
  const WithSubnormals with_subnormals;
  CCFAST_CHECK_DIM(query, 2);
  CCFAST_CHECK_DIM(gallery, 2);
  CCFAST_CHECK_DTYPE(query, at::kFloat);
  CCFAST_CHECK_DTYPE(gallery, at::kFloat);
  const int64_t queries = query.size(0), total = queries + gallery.size(0);
  TORCH_CHECK_VALUE(query.size(1) == gallery.size(1), "gallery: expected ", query.size(1), " columns as in query, got ",
                    gallery.size(1));
  TORCH_CHECK_VALUE(k1 >= 1 && k1 < total, "k1: expected 1 to ", total - 1,
                    " (one less than query and gallery rows), got ", k1);
  TORCH_CHECK_VALUE(k2 >= 1 && k2 <= k1, "k2: expected 1 to ", k1, " (k1), got ", k2);
  TORCH_CHECK_VALUE(lambda_value >= 0 && lambda_value <= 1, "lambda_value: expected a number in [0, 1], got ",
                    lambda_value);
  check_finite_rows("query", query);
  check_finite_rows("gallery", gallery);
  static const auto dense = find_op<DenseSignature>("ccfast::dense_jaccard");
  const at::Tensor all = scaled(at::cat({query, gallery}));
  // |x|^2 + |y|^2 - 2 <x, y> cancels least around the mean; the ranks come from the rows as they are.
  const at::Tensor rows = all - all.mean(0, /*keepdim=*/true);
  const at::Tensor norms = rows.square().sum(1);
  const at::Tensor highest = farthest(rows, norms);
  const at::Tensor inverse = at::where(highest > 0, highest.reciprocal(), at::zeros_like(highest));
  const auto [crow, col, values] = rerank_encoding(all, inverse, k1, k2);
  const at::Tensor result = dense.call(crow, col, values, 0, queries, queries, total).mul_(1 - lambda_value);
  for (int64_t first = 0; first < queries; first += kBlockRows) {
    const int64_t count = std::min(kBlockRows, queries - first);
    const at::Tensor scaled =
        squared_distances(rows.narrow(0, first, count), rows.narrow(0, queries, total - queries),
                          norms.narrow(0, first, count), norms.narrow(0, queries, total - queries))
            .mul_(inverse.narrow(0, first, count).unsqueeze(1));
    result.narrow(0, first, count).add_(scaled, lambda_value);
  }
  return result;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CompositeExplicitAutograd, m) { m.impl("k_reciprocal_rerank", k_reciprocal_rerank); }

}  // namespace ccfast
