// Glue of the k-reciprocal encoding and the Jaccard distance. The stages are ops of their own, registered per device;
// the public ops string them together through the dispatcher and are the same for every device.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/checks.h"
#include "../common/dispatch.h"
#include "jaccard.h"

namespace ccfast {
namespace {

const float* optional_data(const std::optional<at::Tensor>& value, const char* name, int64_t rows) {
  if (!value) return nullptr;
  TORCH_CHECK_VALUE(value->dim() == 1 && value->size(0) == rows && value->is_contiguous(), name, ": expected [", rows,
                    "]");
  TORCH_CHECK_TYPE(value->scalar_type() == at::kFloat, name, ": expected dtype float32");
  return value->const_data_ptr<float>();
}

// rank [N, >= columns] int64 with entries in [0, N).
void check_rank(const at::Tensor& rank, int64_t rows, int64_t columns) {
  CCFAST_CHECK_DTYPE(rank, at::kLong);
  TORCH_CHECK_VALUE(rank.dim() == 2 && rank.size(0) == rows && rank.size(1) >= columns && rank.is_contiguous(),
                    "rank: expected a contiguous [", rows, ", >= ", columns, "], got ", rank.sizes());
  const int64_t* data = rank.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rank.numel(); ++i)
    TORCH_CHECK_VALUE(data[i] >= 0 && data[i] < rows, "rank: expected entries in [0, ", rows, "), got ", data[i]);
}

CsrTensors encode_neighbours_cpu(const at::Tensor& features, const at::Tensor& rank, const at::Tensor& distances,
                                 int64_t half, const std::optional<at::Tensor>& row_scale,
                                 const std::optional<at::Tensor>& column_shift) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  CCFAST_CHECK_DTYPE(distances, at::kFloat);
  const int64_t rows = features.size(0), k1 = rank.size(-1);
  check_rank(rank, rows, 1);
  TORCH_CHECK_VALUE(distances.sizes() == rank.sizes(), "distances: expected shape ", rank.sizes(), ", got ",
                    distances.sizes());
  TORCH_CHECK_VALUE(half >= 1 && half <= k1, "half: expected 1 to ", k1, ", got ", half);
  const at::Tensor x = features.contiguous(), d = distances.contiguous();
  return csr_tensors(jaccard::encode({x.const_data_ptr<float>(), rank.const_data_ptr<int64_t>(),
                                      d.const_data_ptr<float>(), optional_data(row_scale, "row_scale", rows),
                                      optional_data(column_shift, "column_shift", rows), rows, x.size(1), k1, half}),
                     rows);
}

CsrTensors expand_queries_cpu(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                              const at::Tensor& rank, int64_t k2) {
  const Csr v = csr_view(crow, col, values);
  TORCH_CHECK_VALUE(k2 >= 1, "k2: expected at least 1, got ", k2);
  check_rank(rank, v.rows, k2);
  return csr_tensors(jaccard::expand_queries(v, rank.const_data_ptr<int64_t>(), rank.size(1), k2), v.rows);
}

CsrTensors sparse_jaccard_cpu(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                              double max_distance) {
  const Csr v = csr_view(crow, col, values);
  return csr_tensors(jaccard::sparse_distance(v, jaccard::PostingLists(v), static_cast<float>(max_distance)), v.rows);
}

at::Tensor dense_jaccard_cpu(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values, int64_t row_begin,
                             int64_t row_end, int64_t col_begin, int64_t col_end) {
  const Csr v = csr_view(crow, col, values);
  TORCH_CHECK_VALUE(0 <= row_begin && row_begin <= row_end && row_end <= v.rows, "rows: expected a range within ",
                    v.rows);
  TORCH_CHECK_VALUE(0 <= col_begin && col_begin <= col_end && col_end <= v.rows, "columns: expected a range within ",
                    v.rows);
  const at::Tensor out = at::empty({row_end - row_begin, col_end - col_begin}, values.options());
  jaccard::dense_distance(v, jaccard::PostingLists(v), row_begin, row_end, col_begin, col_end,
                          out.mutable_data_ptr<float>());
  return out;
}

CsrTensors k_reciprocal_encoding(const at::Tensor& features, int64_t k1, int64_t k2) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  TORCH_CHECK_VALUE(k1 >= 1 && k1 <= features.size(0), "k1: expected 1 to ", features.size(0),
                    " (the number of rows of features), got ", k1);
  TORCH_CHECK_VALUE(k2 >= 1 && k2 <= k1, "k2: expected 1 to ", k1, " (k1), got ", k2);
  check_unit_rows("features", features);
  static const auto knn = find_op<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const std::optional<at::Tensor>&, int64_t, std::string_view)>("ccfast::knn");
  static const auto encode = find_op<decltype(encode_neighbours_cpu)>("ccfast::encode_neighbours");
  static const auto expand = find_op<decltype(expand_queries_cpu)>("ccfast::expand_queries");
  const auto [rank, distances] = knn.call(features, std::nullopt, k1, "fp32");
  // 2 - 2 <x, y> = |x - y|^2 + (1 - |x|^2) + (1 - |y|^2); what depends on x alone cancels in the softmax.
  const at::Tensor shift = 1 - features.square().sum(1);
  const auto [crow, col, values] =
      encode.call(features, rank, distances, std::min(jaccard::half_width(k1), k1), std::nullopt, shift);
  if (k2 == 1) return {crow, col, values};
  return expand.call(crow, col, values, rank, k2);
}

at::Tensor jaccard_distance(const at::Tensor& features, int64_t k1, int64_t k2) {
  static const auto dense = find_op<decltype(dense_jaccard_cpu)>("ccfast::dense_jaccard");
  const auto [crow, col, values] = k_reciprocal_encoding(features, k1, k2);
  return dense.call(crow, col, values, 0, features.size(0), 0, features.size(0));
}

CsrTensors jaccard_distance_sparse(const at::Tensor& features, int64_t k1, int64_t k2, double max_distance) {
  static const auto sparse = find_op<decltype(sparse_jaccard_cpu)>("ccfast::sparse_jaccard");
  TORCH_CHECK_VALUE(max_distance >= 0 && max_distance < 1, "max_distance: expected a number in [0, 1), got ",
                    max_distance);
  const auto [crow, col, values] = k_reciprocal_encoding(features, k1, k2);
  return sparse.call(crow, col, values, max_distance);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("encode_neighbours", encode_neighbours_cpu);
  m.impl("expand_queries", expand_queries_cpu);
  m.impl("sparse_jaccard", sparse_jaccard_cpu);
  m.impl("dense_jaccard", dense_jaccard_cpu);
}

TORCH_LIBRARY_IMPL(ccfast, CompositeExplicitAutograd, m) {
  m.impl("k_reciprocal_encoding", k_reciprocal_encoding);
  m.impl("jaccard_distance", jaccard_distance);
  m.impl("jaccard_distance_sparse", jaccard_distance_sparse);
}

}  // namespace ccfast
