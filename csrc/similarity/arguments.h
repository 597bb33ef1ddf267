// Checks of segment_mean's arguments that every device shares.
#pragma once

#include <ATen/ATen.h>

#include "../common/checks.h"

namespace ccfast::similarity {

inline void check_labels_of_columns(const at::Tensor& labels, int64_t columns) {
  CCFAST_CHECK_DTYPE(labels, at::kLong);
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == columns, "labels: expected shape [", columns, "], got ",
                    labels.sizes());
}

inline void check_mean(const at::Tensor& similarities, const at::Tensor& labels, int64_t num_segments) {
  CCFAST_CHECK_DIM(similarities, 2);
  check_labels_of_columns(labels, similarities.size(1));
  TORCH_CHECK_VALUE(num_segments > 0, "num_segments: expected at least 1, got ", num_segments);
}

inline void check_backward(const at::Tensor& upstream, const at::Tensor& labels, const at::Tensor& counts) {
  CCFAST_CHECK_DIM(upstream, 2);
  check_labels_of_columns(labels, labels.numel());
  CCFAST_CHECK_DTYPE(counts, at::kLong);
  TORCH_CHECK_VALUE(counts.dim() == 1 && counts.size(0) == upstream.size(1), "counts: expected shape [",
                    upstream.size(1), "], got ", counts.sizes());
}

}  // namespace ccfast::similarity
