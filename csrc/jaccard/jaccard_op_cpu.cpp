// Glue of the stages of the k-reciprocal encoding and the Jaccard distance for CPU tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/checks.h"
#include "../common/csr_tensors.h"
#include "arguments.h"
#include "jaccard.h"

namespace ccfast {
namespace {

// rank [any, >= columns] int64 with entries in [0, rows).
void check_rank(const at::Tensor& rank, int64_t rows, int64_t columns) {
  CCFAST_CHECK_DTYPE(rank, at::kLong);
  TORCH_CHECK_VALUE(rank.dim() == 2 && rank.size(1) >= columns && rank.is_contiguous(),
                    "rank: expected a contiguous [rows, >= ", columns, "], got ", rank.sizes());
  const int64_t* data = rank.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < rank.numel(); ++i)
    TORCH_CHECK_VALUE(data[i] >= 0 && data[i] < rows, "rank: expected entries in [0, ", rows, "), got ", data[i]);
}

CsrTensors encode_neighbours_cpu(const at::Tensor& features, const at::Tensor& rank, const at::Tensor& distances,
                                 int64_t half, const std::optional<at::Tensor>& row_scale,
                                 const std::optional<at::Tensor>& column_shift, int64_t row_begin,
                                 std::optional<int64_t> row_end, const std::optional<at::Tensor>& feature_rows) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(features, at::kFloat);
  CCFAST_CHECK_DTYPE(distances, at::kFloat);
  const int64_t rows = feature_rows ? rank.size(0) : features.size(0), k1 = rank.size(-1);
  check_rank(rank, rows, 1);
  const jaccard::RowRange range = row_range(row_begin, row_end, rows);
  check_encoding_shapes(rank, distances, rows, range);
  TORCH_CHECK_VALUE(half >= 1 && half <= k1, "half: expected 1 to ", k1, ", got ", half);
  const int64_t* feature_rows_data = optional_rows(feature_rows, "feature_rows", rows);
  for (int64_t i = 0; feature_rows_data && i < rows; ++i)
    TORCH_CHECK_VALUE(feature_rows_data[i] >= 0 && feature_rows_data[i] < features.size(0),
                      "feature_rows: expected entries in [0, ", features.size(0), "), got ", feature_rows_data[i]);
  const at::Tensor x = features.contiguous(), d = distances.contiguous();
  return csr_tensors(
      jaccard::encode({x.const_data_ptr<float>(), rank.const_data_ptr<int64_t>(), d.const_data_ptr<float>(),
                       optional_data(row_scale, "row_scale", rows), optional_data(column_shift, "column_shift", rows),
                       rows, x.size(1), k1, half, range, feature_rows_data}),
      range.size());
}

CsrTensors expand_queries_cpu(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                              const at::Tensor& rank, int64_t k2) {
  const Csr v = csr_view(crow, col, values);
  TORCH_CHECK_VALUE(k2 >= 1, "k2: expected at least 1, got ", k2);
  check_rank(rank, v.rows, k2);
  const int64_t rows = rank.size(0);
  return csr_tensors(jaccard::expand_queries(v, rank.const_data_ptr<int64_t>(), rows, rank.size(1), k2), rows);
}

CsrTensors sparse_jaccard_cpu(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                              double max_distance, int64_t row_begin, std::optional<int64_t> row_end) {
  const Csr v = csr_view(crow, col, values);
  const jaccard::RowRange range = row_range(row_begin, row_end, v.rows);
  return csr_tensors(jaccard::sparse_jaccard(v, jaccard::PostingLists(v), distance_limit(max_distance), range),
                     range.size());
}

at::Tensor dense_jaccard_cpu(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values, int64_t row_begin,
                             int64_t row_end, int64_t col_begin, int64_t col_end) {
  const Csr v = csr_view(crow, col, values);
  TORCH_CHECK_VALUE(0 <= row_begin && row_begin <= row_end && row_end <= v.rows, "rows: expected a range within ",
                    v.rows);
  TORCH_CHECK_VALUE(0 <= col_begin && col_begin <= col_end && col_end <= v.rows, "columns: expected a range within ",
                    v.rows);
  const at::Tensor out = at::empty({row_end - row_begin, col_end - col_begin}, values.options());
  jaccard::dense_jaccard(v, jaccard::PostingLists(v), row_begin, row_end, col_begin, col_end,
                         out.mutable_data_ptr<float>());
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("encode_neighbours", encode_neighbours_cpu);
  m.impl("expand_queries", expand_queries_cpu);
  m.impl("sparse_jaccard", sparse_jaccard_cpu);
  m.impl("dense_jaccard", dense_jaccard_cpu);
}

}  // namespace ccfast
