// The public ops of the k-reciprocal encoding and the Jaccard distance: their stages, called through the dispatcher, so
// that one composition serves every device.
#include "jaccard_op.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/autocast.h"
#include "../common/checks.h"
#include "../common/dispatch.h"
#include "../knn/knn_op.h"
#include "jaccard.h"

namespace ccfast {
namespace {

CsrTensors k_reciprocal_encoding(const at::Tensor& features, int64_t k1, int64_t k2) {
  const NoAutocast no_autocast;
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  TORCH_CHECK_VALUE(k1 >= 1 && k1 <= features.size(0), "k1: expected 1 to ", features.size(0),
                    " (the number of rows of features), got ", k1);
  TORCH_CHECK_VALUE(k2 >= 1 && k2 <= k1, "k2: expected 1 to ", k1, " (k1), got ", k2);
  static const auto squared_norms = find_op<SquaredNormsOp>();
  static const auto knn = find_op<KnnOp>();
  static const auto encode = find_op<EncodeNeighboursOp>();
  static const auto expand = find_op<ExpandQueriesOp>();
  const at::Tensor squares = squared_norms.call(features);
  check_unit_rows("features", features, squares.sqrt());
  const auto [rank, distances] = knn.call(features, std::nullopt, k1, "fp32", std::nullopt);
  // 2 - 2 <x, y> = |x - y|^2 + (1 - |x|^2) + (1 - |y|^2); what depends on x alone cancels in the softmax.
  at::Tensor shift = at::empty_like(squares, at::kFloat);
  at::sub_out(shift, at::scalar_tensor(1, at::kDouble), squares);
  const auto [crow, col, values] = encode.call(features, rank, distances, jaccard::half_columns(k1), std::nullopt,
                                               shift, 0, std::nullopt, std::nullopt);
  if (k2 == 1) return {crow, col, values};
  return expand.call(crow, col, values, rank, k2);
}

at::Tensor jaccard_distance(const at::Tensor& features, int64_t k1, int64_t k2) {
  static const auto dense = find_op<DenseJaccardOp>();
  const auto [crow, col, values] = k_reciprocal_encoding(features, k1, k2);
  return dense.call(crow, col, values, 0, features.size(0), 0, features.size(0));
}

CsrTensors jaccard_distance_sparse(const at::Tensor& features, int64_t k1, int64_t k2, double max_distance) {
  static const auto sparse = find_op<SparseJaccardOp>();
  TORCH_CHECK_VALUE(max_distance >= 0 && max_distance < 1, "max_distance: expected a number in [0, 1), got ",
                    max_distance);
  const auto [crow, col, values] = k_reciprocal_encoding(features, k1, k2);
  return sparse.call(crow, col, values, max_distance, 0, std::nullopt);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CompositeExplicitAutograd, m) {
  m.impl("k_reciprocal_encoding", k_reciprocal_encoding);
  m.impl("jaccard_distance", jaccard_distance);
  m.impl("jaccard_distance_sparse", jaccard_distance_sparse);
}

}  // namespace ccfast
