// The stages of the k-reciprocal encoding and the Jaccard distance as other ops call them (common/dispatch.h); the
// schemas are in bindings.cpp.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "../common/csr_tensors.h"

namespace ccfast {

struct EncodeNeighboursOp {
  static constexpr const char* kName = "ccfast::encode_neighbours";
  using Signature = CsrTensors(const at::Tensor& features, const at::Tensor& rank, const at::Tensor& distances,
                               int64_t half, const std::optional<at::Tensor>& row_scale,
                               const std::optional<at::Tensor>& column_shift, int64_t row_begin,
                               std::optional<int64_t> row_end, const std::optional<at::Tensor>& feature_rows);
};

struct ExpandQueriesOp {
  static constexpr const char* kName = "ccfast::expand_queries";
  using Signature = CsrTensors(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                               const at::Tensor& rank, int64_t k2);
};

struct SparseJaccardOp {
  static constexpr const char* kName = "ccfast::sparse_jaccard";
  using Signature = CsrTensors(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                               double max_distance, int64_t row_begin, std::optional<int64_t> row_end);
};

struct DenseJaccardOp {
  static constexpr const char* kName = "ccfast::dense_jaccard";
  using Signature = at::Tensor(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values,
                               int64_t row_begin, int64_t row_end, int64_t col_begin, int64_t col_end);
};

}  // namespace ccfast
