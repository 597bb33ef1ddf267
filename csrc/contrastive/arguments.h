// Arguments of the loss ops that every device shares.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <string>

#include "../common/checks.h"

namespace ccfast::contrastive {

constexpr int64_t kLogitsAtATime = 1 << 22;  // what of the B x C logits exists at a time
constexpr int64_t kFewestRows = 128;         // but this many rows: every block reads the memory twice

struct Options {
  double temperature;
  bool normalize, mean;
  double label_smoothing;
  int64_t ignore_index;
};

inline Options checked_options(double temperature, bool normalize, const std::string& reduction, double label_smoothing,
                               int64_t ignore_index) {
  TORCH_CHECK_VALUE(temperature > 0, "temperature: expected a number above 0, got ", temperature);
  TORCH_CHECK_VALUE(label_smoothing >= 0 && label_smoothing <= 1, "label_smoothing: expected a number in [0, 1], got ",
                    label_smoothing);
  TORCH_CHECK_VALUE(reduction == "mean" || reduction == "sum" || reduction == "none",
                    "reduction: expected one of 'mean', 'sum', 'none', got '", reduction, "'");
  return {temperature, normalize, reduction == "mean", label_smoothing, ignore_index};
}

inline void check_arguments(const at::Tensor& features, const at::Tensor& memory, const at::Tensor& labels) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DIM(memory, 2);
  CCFAST_CHECK_DTYPE(labels, at::kLong);
  TORCH_CHECK_VALUE(features.size(1) == memory.size(1), "memory: expected ", features.size(1),
                    " columns as in features, got ", memory.size(1));
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == features.size(0), "labels: expected shape [",
                    features.size(0), "], got ", labels.sizes());
}

inline at::ScalarType compute_type(const at::Tensor& features) {
  return features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Rows whose logits are computed at a time.
inline int64_t rows_at_a_time(int64_t classes) {
  return std::max(kFewestRows, kLogitsAtATime / std::max<int64_t>(classes, 1));
}

}  // namespace ccfast::contrastive
