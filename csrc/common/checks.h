// Checks of the glue: against reads and writes out of bounds, and of the values of the data. Mistakes of shape, dtype
// and range are found before, by ccfast/_arguments.py, with messages for users.
#pragma once

#include <ATen/ATen.h>

#define CCFAST_CHECK_DIM(tensor, expected)                                                                      \
  TORCH_CHECK_VALUE((tensor).dim() == (expected), #tensor ": expected ", expected, " dimension(s), got shape ", \
                    (tensor).sizes())

#define CCFAST_CHECK_DTYPE(tensor, expected)                                                              \
  TORCH_CHECK_TYPE((tensor).scalar_type() == (expected), #tensor ": expected dtype ", expected, ", got ", \
                   (tensor).scalar_type())

namespace ccfast {

// Rows count as normalised if their norm differs from 1 by at most this.
constexpr double kUnitNormTolerance = 1e-3;

// Raises ValueError that names the first row that is not finite.
void check_finite_rows(const char* name, const at::Tensor& value);
// Raises ValueError that names the first row that is not finite or whose norm is not 1 within kUnitNormTolerance.
void check_unit_rows(const char* name, const at::Tensor& value);
// The same for known norms.
void check_unit_rows(const char* name, const at::Tensor& value, const at::Tensor& norms);
// Raises ValueError that names the first label outside [0, classes) that is not ignore. Labels: int64, on the CPU.
void check_labels(const char* name, const at::Tensor& value, int64_t classes, int64_t ignore);

}  // namespace ccfast
