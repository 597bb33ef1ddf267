// Checks of the memory ops' arguments that every device shares.
#pragma once

#include <ATen/ATen.h>

#include <string>

#include "../common/checks.h"
#include "memory.h"

namespace ccfast::memory {

inline Mode mode_of(const std::string& mode) {
  if (mode == "sequential") return Mode::kSequential;
  if (mode == "hardest") return Mode::kHardest;
  TORCH_CHECK_VALUE(mode == "mean", "mode: expected one of 'sequential', 'hardest', 'mean', got '", mode, "'");
  return Mode::kMean;
}

inline void check_rows_and_labels(const at::Tensor& features, const at::Tensor& labels) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(labels, at::kLong);
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == features.size(0) && labels.size(0) > 0,
                    "labels: expected a non-empty [", features.size(0), "], got ", labels.sizes());
}

inline void check_update(const at::Tensor& memory, const at::Tensor& features, const at::Tensor& labels,
                         double momentum) {
  CCFAST_CHECK_DIM(memory, 2);
  check_rows_and_labels(features, labels);
  CCFAST_CHECK_DTYPE(features, memory.scalar_type());
  TORCH_CHECK_VALUE(features.size(1) == memory.size(1), "features: expected ", memory.size(1),
                    " columns as in memory, got ", features.size(1));
  TORCH_CHECK_VALUE(momentum >= 0 && momentum <= 1, "momentum: expected a number in [0, 1], got ", momentum);
}

// Brings the updated rows home: a copy where the memory was not contiguous, otherwise word for autograd that it
// changed.
inline void finish_update(at::Tensor& memory, const at::Tensor& rows) {
  if (!rows.is_same(memory)) {
    memory.copy_(rows);
  } else if (!memory.is_inference()) {
    memory.unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace ccfast::memory
