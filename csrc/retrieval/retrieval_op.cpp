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
#include "../jaccard/jaccard_op.h"
#include "../knn/knn_op.h"

namespace ccfast {
namespace {

constexpr int64_t kBlockRows = 2048;

// The rows scaled by a power of two to at most 1, or to 4 if the largest are near float32's limit: distances keep
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
CsrTensors encode(const at::Tensor& rows, const at::Tensor& inverse_farthest, int64_t k1, int64_t k2) {
  static const auto knn = find_op<KnnOp>();
  static const auto encode = find_op<EncodeNeighboursOp>();
  static const auto expand = find_op<ExpandQueriesOp>();
  const auto [rank, distances] = knn.call(rows, std::nullopt, k1 + 1, "fp32", std::nullopt);
  const auto [crow, col, values] = encode.call(rows, rank, distances, jaccard::half_columns(k1), inverse_farthest,
                                               std::nullopt, 0, std::nullopt, std::nullopt);
  if (k2 == 1) return {crow, col, values};
  return expand.call(crow, col, values, rank, k2);
}

// The data of query and gallery rows together for re-ranking: the centred rows, their |.|^2, 1 / their largest squared
// distance to any row, and V' (crow, col, values).
using Encoding = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

Encoding rerank_encoding(const at::Tensor& query, const at::Tensor& gallery, int64_t k1, int64_t k2) {
  const NoAutocast no_autocast;
  const WithSubnormals with_subnormals;
  CCFAST_CHECK_DIM(query, 2);
  CCFAST_CHECK_DIM(gallery, 2);
  CCFAST_CHECK_DTYPE(query, at::kFloat);
  CCFAST_CHECK_DTYPE(gallery, at::kFloat);
  const int64_t total = query.size(0) + gallery.size(0);
  TORCH_CHECK_VALUE(query.size(1) == gallery.size(1), "gallery: expected ", query.size(1), " columns as in query, got ",
                    gallery.size(1));
  TORCH_CHECK_VALUE(k1 >= 1 && k1 < total, "k1: expected 1 to ", total - 1,
                    " (one less than the rows of query and gallery), got ", k1);
  TORCH_CHECK_VALUE(k2 >= 1 && k2 <= k1, "k2: expected 1 to ", k1, " (k1), got ", k2);
  check_finite_rows("query", query);
  check_finite_rows("gallery", gallery);
  const at::Tensor all = scaled(at::cat({query, gallery}));
  // |x|^2 + |y|^2 - 2 <x, y> cancels least around the mean; the ranks come from the original rows.
  const at::Tensor rows = all - all.mean(0, /*keepdim=*/true);
  const at::Tensor norms = rows.square().sum(1);
  const at::Tensor highest = farthest(rows, norms);
  const at::Tensor inverse = at::where(highest > 0, highest.reciprocal(), at::zeros_like(highest));
  const auto [crow, col, values] = encode(all, inverse, k1, k2);
  return {rows, norms, inverse, crow, col, values};
}

// Distances [row_end - row_begin, gallery rows] of some of the queries, which are the first rows of the encoding.
at::Tensor reranked_distances(const at::Tensor& rows, const at::Tensor& norms, const at::Tensor& inverse_farthest,
                              const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values, int64_t queries,
                              double lambda_value, int64_t row_begin, int64_t row_end) {
  const NoAutocast no_autocast;
  const WithSubnormals with_subnormals;
  TORCH_CHECK_VALUE(0 <= row_begin && row_begin <= row_end && row_end <= queries && queries <= rows.size(0),
                    "row_begin, row_end: expected a part of the ", queries, " queries, got ", row_begin, ", ", row_end);
  static const auto dense = find_op<DenseJaccardOp>();
  const int64_t total = rows.size(0);
  const at::Tensor result = dense.call(crow, col, values, row_begin, row_end, queries, total).mul_(1 - lambda_value);
  for (int64_t first = row_begin; first < row_end; first += kBlockRows) {
    const int64_t count = std::min(kBlockRows, row_end - first);
    const at::Tensor scaled =
        squared_distances(rows.narrow(0, first, count), rows.narrow(0, queries, total - queries),
                          norms.narrow(0, first, count), norms.narrow(0, queries, total - queries))
            .mul_(inverse_farthest.narrow(0, first, count).unsqueeze(1));
    result.narrow(0, first - row_begin, count).add_(scaled, lambda_value);
  }
  return result;
}

at::Tensor k_reciprocal_rerank(const at::Tensor& query, const at::Tensor& gallery, int64_t k1, int64_t k2,
                               double lambda_value) {
  const auto [rows, norms, inverse, crow, col, values] = rerank_encoding(query, gallery, k1, k2);
  const int64_t queries = query.size(0);
  return reranked_distances(rows, norms, inverse, crow, col, values, queries, lambda_value, 0, queries);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CompositeExplicitAutograd, m) {
  m.impl("k_reciprocal_rerank", k_reciprocal_rerank);
  m.impl("rerank_encoding", rerank_encoding);
  m.impl("reranked_distances", reranked_distances);
}

}  // namespace ccfast
