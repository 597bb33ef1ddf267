// Checks of scale_rows' arguments on every device, against access out of bounds.
#pragma once

#include <ATen/ATen.h>

#include "../common/checks.h"

namespace ccfast::scaling {

inline void check_arguments(const at::Tensor& features, const at::Tensor& factors) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(factors, features.scalar_type());
  TORCH_CHECK_VALUE(factors.dim() == 1 && factors.size(0) == features.size(0), "factors: expected shape [",
                    features.size(0), "], got ", factors.sizes());
}

}  // namespace ccfast::scaling
