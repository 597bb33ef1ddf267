// Checks of the arguments of sinkhorn's stages that every device shares.
#pragma once

#include <ATen/ATen.h>

#include "../common/checks.h"

namespace ccfast::sinkhorn {

inline void check_scores(const at::Tensor& scores) {
  CCFAST_CHECK_DIM(scores, 2);
  TORCH_CHECK_VALUE(scores.numel() > 0, "scores: expected a non-empty matrix, got shape ", scores.sizes());
}

inline void check_factors(const at::Tensor& exponentials, const at::Tensor& factors) {
  CCFAST_CHECK_DIM(exponentials, 2);
  CCFAST_CHECK_DTYPE(factors, at::kDouble);
  TORCH_CHECK_VALUE(factors.dim() == 1 && factors.size(0) == exponentials.size(1), "factors: expected shape [",
                    exponentials.size(1), "], got ", factors.sizes());
}

}  // namespace ccfast::sinkhorn
