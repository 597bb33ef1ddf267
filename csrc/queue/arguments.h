// Checks of enqueue_'s arguments that every device shares.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "../common/checks.h"

namespace ccfast::queue {

inline void check_arguments(const at::Tensor& queue, const std::optional<at::Tensor>& pointer, const at::Tensor& rows) {
  CCFAST_CHECK_DIM(queue, 2);
  CCFAST_CHECK_DIM(rows, 2);
  CCFAST_CHECK_DTYPE(rows, queue.scalar_type());
  TORCH_CHECK_VALUE(rows.size(1) == queue.size(1), "rows: expected ", queue.size(1), " columns as in queue, got ",
                    rows.size(1));
  TORCH_CHECK_VALUE(rows.size(0) > 0 && rows.size(0) <= queue.size(0), "rows: expected 1 to ", queue.size(0),
                    " rows, got ", rows.size(0));
  if (!pointer) return;
  CCFAST_CHECK_DTYPE(*pointer, at::kLong);
  TORCH_CHECK_VALUE(pointer->numel() == 1, "pointer: expected one value, got shape ", pointer->sizes());
}

// Tells autograd that the kernels changed a tensor, or copies its contiguous copy back to it.
inline void finish(at::Tensor& queue, const at::Tensor& written) {
  if (!written.is_same(queue)) {
    queue.copy_(written);
  } else if (!queue.is_inference()) {
    queue.unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace ccfast::queue
